"""Every numeric, text and path option of every command, with values that nobody should give.

The options are taken from the Typer app itself, so that a new one is attacked too. Whatever is
given, the answer is one line with a documented exit code, and never an internal error.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from small_cli import COMMANDS, add_clip, save_photo
from small_store import small_store

from dclip.cli.app import main

EXAMPLES = int(os.environ.get("DCLIP_ATTACKS", "1"))
"""Values for each option; more, in a run of the attacks alone: DCLIP_ATTACKS=50."""

DOCUMENTED = {0, 2, 3, 4, 6}

# What a command needs beside the option that is attacked, and what keeps it from long work.
NEEDED: dict[tuple[str, ...], list[str]] = {
    ("prepare", "celeba"): ["--root", "photos"],
    ("prepare", "folder"): ["--root", "photos"],
    ("finetune",): ["--target", "sketch", "--clip", "small"],
    ("edit",): ["photo.png", "--anyway"],
    ("eval",): ["--clip", "small"],
    ("clip", "train"): ["--data", "faces"],
    ("judge", "train"): ["--data", "faces"],
    ("show",): ["faces"],
    ("lineage",): ["sketch"],
    ("tag",): ["sketch", "best"],
    ("export",): ["sketch", "out"],
    ("rm",): ["no-such-thing"],
}
# These act at once: they get a harmless argument, and no dry run.
PLANS = {words for words, command in COMMANDS if any(p.name == "dry_run" for p in command.params)}  # type: ignore[attr-defined]

NUMBERS = st.sampled_from(
    [
        "0", "-1", "1", "2", "-0.0", "0.5", "1e-320", "1e308", "1e999", "nan", "inf", "-inf",
        str(2**31 - 1), str(2**31), str(2**32), str(2**63 - 1), str(2**63), str(2**64), str(-2**63),
        "9" * 5000, "1_000", "0x10", "٣", "1e5", "", " ", "1,2", "1,,2", "0," * 500 + "1",
    ]
)  # fmt: skip
TEXTS = st.sampled_from(
    [
        "", " ", "\x00", "a\x00b", "\ud800", "a\udcffb", "\x1b[2J", "\n", "x" * 300, "x" * 70_000,
        "~nosuchuser/x", "~", ".", "..", "/", "//", "../" * 100, "/dev/null", "/dev/zero", "pipe",
        "photo.png", "photos", "missing/" + "y" * 300, "C:\\x", "a:b", "a:nan", "a:1e999", "a@1-2",
        "a@0-0", "sketch@1-99999999999999999999", "sketch:1e400", "sketch+", "+", "a=b", "=", "{}",
        "[bold]x[/bold]", "%s%n", "embedded", "latest", "v1", "con", "sketch/v0", "sketch/v1",
        "sketch@best", "faces", "ff" * 32, "é", "\u202e", "🙂",
    ]
)  # fmt: skip

pytestmark = pytest.mark.attack("values that no option can have")
ANY = st.one_of(NUMBERS, TEXTS, st.text(max_size=20))


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a small store, a photo, a folder of photos and a pipe."""
    folder = tmp_path_factory.mktemp("hostile")
    add_clip(small_store(folder / "artifacts"))
    save_photo(folder / "photo.png")
    save_photo(folder / "photos" / "a.png")
    os.mkfifo(folder / "pipe")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def answer(words: list[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(words)
    return code, out.getvalue(), err.getvalue()


def check(words: list[str]) -> None:
    """One line of error with its fix, and the documented code; or the command's own answer."""
    code, out, err = answer(words)
    shown = [word[:60] for word in words]
    assert "internal error" not in err and "Traceback" not in err, (shown, err[-800:])
    assert code in DOCUMENTED, (shown, code, err[-800:])
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == (code != 0), (shown, err[-800:])
    for text in (out, err):
        assert not {"\x1b", "\x00", "\ud800"} & set(text), shown
        text.encode("utf-8")


OPTIONS = [
    (words, param)
    for words, command in COMMANDS
    for param in command.params  # type: ignore[attr-defined]
    if not getattr(param, "is_flag", False)
    and param.name not in ("ctx", "help", "install_completion", "show_completion")
]


def words_for(words: tuple[str, ...], param: Any, value: str) -> list[str]:
    plan = ["--dry-run"] if words in PLANS else []
    needed = list(NEEDED.get(words, []))
    if param.param_type_name == "argument":
        # The attacked argument stands in the place of the harmless one.
        return [*words, *needed[1:], *plan, "--", value]
    name = param.opts[0]
    if name in needed:
        at = needed.index(name)
        del needed[at : at + 2]
    return [*words, *needed, *plan, f"{name}={value}" if name.startswith("--") else name, *(
        [] if name.startswith("--") else [value]
    )]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "param"), OPTIONS, ids=[f"{' '.join(w)} {p.name}" for w, p in OPTIONS]
)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_no_option_of_any_command_ends_in_an_internal_error(
    words: tuple[str, ...], param: Any, data: st.DataObject
) -> None:
    check(words_for(words, param, data.draw(ANY, label=f"{words} {param.name}")))


@settings(max_examples=20 * EXAMPLES, deadline=None)
@given(st.lists(ANY, max_size=4))
@example(["--store", "\x00"])
@example(["edit", "\ud800"])
@example(["--config=pipe", "train", "--dry-run"])
def test_no_command_line_ends_in_an_internal_error(words: list[str]) -> None:
    check(words)


PLACES = [
    (words, param)
    for words, param in OPTIONS
    if (param.name in ("root", "face", "contrasts", "clip", "photos", "out") and words in PLANS)
    or (param.name in ("config", "store") and words == ("train",))
]
WORST_PLACES = (
    *("pipe", "/dev/zero", "~nosuchuser/x", "a\x00b", "a\udcffb"),
    *("x" * 300, "photos/" * 900),
)
NUMERIC = [
    (words, param) for words, param in OPTIONS if (param.metavar or "").split("[")[0] in ("N", "X")
]
WORST_NUMBERS = ("9" * 5000, str(2**63), "nan", "-1", "1e999")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("words", "param"), PLACES, ids=[f"{' '.join(w)} {p.name}" for w, p in PLACES]
)
def test_places_that_are_none_are_refused_in_one_line(words: tuple[str, ...], param: Any) -> None:
    for place in WORST_PLACES:
        check(words_for(words, param, place))


@pytest.mark.parametrize(
    ("words", "param"), NUMERIC, ids=[f"{' '.join(w)} {p.name}" for w, p in NUMERIC]
)
def test_numbers_beyond_all_bounds_are_refused_in_one_line(
    words: tuple[str, ...], param: Any
) -> None:
    for number in WORST_NUMBERS:
        check(words_for(words, param, number))


def test_a_deleted_current_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for words in (["ls"], ["prepare", "faces", "--count", "2"], ["edit", "x.png"], ["doctor"]):
        code, _, err = answer(words)
        assert code in DOCUMENTED and "internal error" not in err, (words, err)


def test_the_options_are_those_of_the_program() -> None:
    names = {param.name for _, param in OPTIONS}
    assert {"store", "config", "device", "workers", "batch", "lr", "seed", "photos", "out"} <= names
    assert len(OPTIONS) > 150
