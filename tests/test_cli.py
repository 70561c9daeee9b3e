"""The command line's frame: streams, exit codes, shared options, config file, help, progress."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from dclip.cli.app import app, main
from dclip.cli.failures import explain
from dclip.cli.output import Output
from dclip.cli.progress import LiveReporter, PlainReporter, reporter_for
from dclip.cli.settings import Flags, build_config, load_config, store_path
from dclip.config import settings
from dclip.errors import BadInput, CorruptArtifact, MissingArtifact, StoreBusy, StoreError

ROOT = Path(__file__).parents[1]


@dataclass
class Result:
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Cli]:
    """Run one command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> Result:
        capsys.readouterr()
        code = main(list(args))
        return Result(code, *capsys.readouterr())

    yield run


def process(*args: str, cwd: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *args], cwd=cwd, env=env, capture_output=True, text=True, **more
    )


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every subcommand that does something, as words."""
    children = getattr(command, "commands", None)
    if children is None:
        yield words
    else:
        for name, child in children.items():
            yield from leaves(child, (*words, name))


COMMANDS = sorted(leaves(typer.main.get_command(app)))


# Help and completion


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_of_itself(cli: Cli, words: tuple[str, ...]) -> None:
    result = cli(*words, "--help")
    assert result.code == 0
    assert result.err == ""
    _, _, examples = result.out.partition("Examples")
    assert f"dclip {' '.join(words)}" in " ".join(examples.split())


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_the_basic_options(cli: Cli, words: tuple[str, ...]) -> None:
    out = cli(*words, "-h").out
    for option in ("--store", "--json", "--quiet", "--debug"):
        assert option in out


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from dclip.cli.app import main\n"
        f"for words in {[list(w) for w in COMMANDS]!r}: main([*words, '--help'])\n"
        "main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'zarr', 'PIL', 'open_clip', 'matplotlib', 'torchvision'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    done = process("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("HEAVY []")


def test_no_command_shows_help(cli: Cli) -> None:
    result = cli()
    assert result.code == 0
    assert "Usage: dclip" in result.out


def test_version(cli: Cli) -> None:
    from dclip import __version__

    assert cli("--version").out == f"dclip {__version__}\n"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("dclip doc", ["doctor"]), ("dclip train --data fac", ["faces", "faces/v1"])],
)
def test_bash_completion_offers_subcommands_and_artifacts(
    tmp_path: Path, typed: str, offered: list[str]
) -> None:
    (tmp_path / "mine" / "data" / "faces" / "v1").mkdir(parents=True)
    (tmp_path / "dclip.toml").write_text('store = "mine"\n\n[train]\nbatch = 8\n')
    env = os.environ | {
        "PYTHONPATH": str(ROOT),
        "_DCLIP_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
    }
    code = "from dclip.cli.app import main; raise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.split() == offered


# Errors


@pytest.mark.parametrize(
    ("args", "near"),
    [(("doctr",), "doctor"), (("doctor", "--debgu"), "--debug"), (("doctor", "extra"), "extra")],
)
def test_usage_errors_are_one_line_with_a_fix(cli: Cli, args: tuple[str, ...], near: str) -> None:
    result = cli(*args)
    assert (result.code, result.out) == (2, "")
    first, second = result.err.splitlines()
    assert first.startswith("error: ") and near in first
    assert second.startswith("fix: dclip") and second.endswith("--help")


@pytest.mark.parametrize(
    ("error", "code", "says", "fix"),
    [
        (BadInput("bad", "do"), 2, "bad", "do"),
        (MissingArtifact("none", "make"), 3, "none", "make"),
        (CorruptArtifact("broken"), 4, "broken", ""),
        (StoreBusy("busy"), 5, "busy", ""),
        (StoreError("store"), 6, "store", ""),
        (KeyboardInterrupt(), 130, "same command goes on", ""),
        (OSError(errno.ENOSPC, "No space", "/x/y"), 6, "disk is full: /x/y", "--store"),
        (OSError(errno.EROFS, "ro", "/x"), 6, "read-only: /x", "--store"),
        (PermissionError(errno.EACCES, "no", "/x"), 6, "permission denied: /x", "--store"),
        (MemoryError(), 1, "out of memory", "--batch"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "out of memory", "--batch"),
        (ValueError("odd\nthing"), 1, "internal error: ValueError: odd thing", "--debug"),
        (BrokenPipeError(errno.EPIPE, "pipe"), 141, "", ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_failure_has_a_code_a_line_and_a_fix(
    error: BaseException, code: int, says: str, fix: str
) -> None:
    failure = explain(error)
    assert failure.code == code
    assert says in failure.message
    assert "\n" not in failure.message
    assert fix in failure.fix


def test_torch_running_out_of_memory_is_known() -> None:
    import torch

    assert "--batch" in explain(torch.OutOfMemoryError("CUDA out of memory")).fix


@pytest.mark.parametrize("debug", [False, True])
def test_an_internal_error_shows_its_traceback_under_debug_alone(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, debug: bool
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("by design")

    monkeypatch.setattr("dclip.cli.doctor._report", fail)
    result = cli("doctor", *(["--debug"] if debug else []))
    assert (result.code, result.out) == (1, "")
    assert "internal error: ZeroDivisionError: by design" in result.err
    assert ("Traceback" in result.err) == debug


@pytest.mark.parametrize("words", [["ls", "--json"], ["presets"], ["doctor"]])
def test_a_closed_pipe_is_no_error(tmp_path: Path, words: list[str]) -> None:
    code = f"from dclip.cli.app import main; raise SystemExit(main({words}))"
    reader, writer = os.pipe()
    os.close(reader)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == b""


# Shared options


def test_shared_options_stand_before_or_after_the_command(cli: Cli) -> None:
    before, after = cli("--json", "--store", "s", "doctor"), cli("doctor", "--json", "--store", "s")
    assert before.code == after.code == 0
    assert json.loads(before.out)["store"] == json.loads(after.out)["store"]
    assert "s (nothing made yet)" in json.loads(after.out)["store"]


def test_an_option_that_the_command_has_not_is_refused_before_it_too(cli: Cli) -> None:
    result = cli("--force", "doctor")
    assert result.code == 2
    assert "dclip doctor has no --force" in result.err


def test_json_and_quiet_exclude_each_other(cli: Cli) -> None:
    assert cli("--json", "doctor", "-q").code == 2


def test_doctor_names_what_a_bug_report_needs(cli: Cli) -> None:
    result = cli("doctor", "--json")
    report = json.loads(result.out)
    assert result.code == 0
    assert {"dclip", "python", "torch", "memory", "store", "embedded model"} <= report.keys()
    assert isinstance(report["problems"], dict)


def test_the_store_is_flag_then_variable_then_file_then_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_text('store = "of-file"\n')
    file = load_config(Path("my.toml"), None)
    assert store_path(Flags(), load_config(None, None)) == Path("artifacts")
    assert store_path(Flags(), file) == Path("of-file")
    monkeypatch.setenv("DCLIP_STORE", "of-env")
    assert store_path(Flags(), file) == Path("of-env")
    assert store_path(Flags(store=Path("of-flag")), file) == Path("of-flag")


# The config file


@settings
class Recipe:
    target: str
    steps: int = 50
    rate: float = 0.1
    scales: tuple[int, ...] = (1, 2)


def build(cli: dict[str, Any], section: dict[str, Any]) -> Recipe:
    return build_config(Recipe, cli, section, "in [x] of f.toml", "dclip x --help")


def test_flags_win_over_the_file_and_the_file_over_defaults() -> None:
    got = build({"target": "sketch", "steps": None, "rate": 0.5}, {"steps": 7, "rate": 1})
    assert got == Recipe("sketch", steps=7, rate=0.5)


def test_keys_of_the_file_may_be_written_like_flags_and_are_converted() -> None:
    assert build({"target": "x"}, {"rate": 1, "scales": [3]}) == Recipe("x", rate=1.0, scales=(3,))


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"stpes": 3}, "steps"),
        ({"steps": "many"}, "steps"),
        ({"steps": True}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"scales": ["a"]}, "scales"),
    ],
)
def test_a_wrong_key_or_value_in_the_file_is_named(section: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput) as caught:
        build({"target": "x"}, section)
    assert "f.toml" in caught.value.message
    assert says in caught.value.message + caught.value.fix


def test_what_is_needed_and_not_given_is_named_as_a_flag() -> None:
    with pytest.raises(BadInput, match="--target is needed"):
        build({"target": None}, {})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[doktor]\n", "doctor"),
        ("steps = 3\n", "steps"),
        ("[doctor\n", "not valid TOML"),
        ("store = 3\n", "store must be a text"),
        ("doctor = 3\n", "doctor must be a section"),
    ],
)
def test_a_bad_config_file_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dclip.toml").write_text(text)
    with pytest.raises(BadInput) as caught:
        file = load_config(None, {"doctor": ()})
        store_path(Flags(), file)
        file.section("doctor")
    assert says in f"{caught.value.message} {caught.value.fix}"


@pytest.mark.parametrize("section", ["gc", "ls", "clip.fit", "prepare.fcaes", "doctor"])
def test_a_section_that_no_command_reads_is_refused(cli: Cli, tmp_path: Path, section: str) -> None:
    """It would be a setting that does nothing; whatever command runs, the file is read whole."""
    (tmp_path / "dclip.toml").write_text(f"[{section}]\nx = 1\n\n[prepare.faces]\ncount = 2\n")
    got = cli("ls")
    assert got.code == 2 and f"unknown section '{section.split('.')[-1]}'" in got.err
    (tmp_path / "dclip.toml").write_text("[prepare.faces]\ncount = 2\n\n[clip.train]\n\n[demo]\n")
    assert cli("ls").code == 0


def test_dclip_toml_in_the_folder_is_used_and_a_named_file_must_exist(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "dclip.toml").write_text('store = "elsewhere"\n')
    assert "elsewhere" in json.loads(cli("doctor", "--json").out)["store"]
    with pytest.raises(BadInput, match=r"cannot read the config file gone\.toml"):
        load_config(Path("gone.toml"), None)


# Output and progress


def test_what_a_user_wrote_is_shown_as_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "--guide", "clip:x:nan", "--count", "1"]) == 2
    assert "'clip:x:nan'" in capsys.readouterr().err


def test_json_is_one_document_and_markup_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": "ab", "name": "[bold]x[/bold]"}]
    Output("json").table(rows, {"name": "name"})
    assert json.loads(capsys.readouterr().out) == rows
    Output("quiet").table(rows, {"name": "name"})
    assert capsys.readouterr().out == "ab\n"
    Output("human").table(rows, {"name": "name"})
    assert "[bold]x[/bold]" in capsys.readouterr().out


def test_long_paths_are_not_wrapped_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/" + "/".join(["folder"] * 40)
    Output("human").table([{"id": "x", "path": path}], {"path": "path"})
    Output("human").record({"path": path})
    assert capsys.readouterr().out.count(path) == 2


def test_quiet_says_warnings_alone(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output("quiet")
    report = reporter_for(output)
    with report.task("work", 3) as task:
        task.advance(3)
    report.note("a note")
    output.next(["dclip train"])
    report.warn("a warning")
    assert capsys.readouterr() == ("", "warning: a warning\n")


class Clock:
    time = 0.0

    def __call__(self) -> float:
        return self.time


def test_plain_progress_is_sparse_and_tells_rate_eta_and_loss(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    with PlainReporter(Output(), clock).task("train", 1000, done=200) as task:
        for _ in range(80):
            clock.time += 0.5
            task.advance(10, loss=0.25)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert 6 <= len(lines) <= 12
    assert lines[0].startswith("train: 300/1000 img  30%  20 img/s  ETA 0:35  loss 0.25")
    assert lines[-1].startswith("train: 1000/1000 img  100%  20 img/s  loss 0.25")


def test_slow_plain_progress_still_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with PlainReporter(Output(), clock).task("slow", None, unit="step") as task:
        for _ in range(4):
            clock.time += 6
            task.advance()
    assert [line.split("  ")[0] for line in capsys.readouterr().err.splitlines()] == [
        "slow: 2 step",
        "slow: 4 step",
    ]


def test_live_progress_shows_count_stats_and_notes_above_the_bar() -> None:
    output = Output()
    screen = io.StringIO()
    output.err = Console(file=screen, force_terminal=True, width=150, highlight=False)
    report = reporter_for(output)
    assert isinstance(report, LiveReporter)
    with report.task("outer", 2, unit="epoch") as outer, report.task("inner", 10, done=4) as inner:
        inner.advance(3, loss=0.5)
        inner.advance(3, psnr=30.0)
        report.note("taking data/faces/v1")
        outer.advance()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "10/10 img" in text
    assert "loss 0.5  psnr 30" in text
    assert "1/2 epoch" in text
    assert "taking data/faces/v1" in text


# Ctrl-C

SLEEPER = """
import sys, time
import dclip.cli.doctor
def wait(*_):
    print("ready", flush=True)
    time.sleep(60)
dclip.cli.doctor._report = wait
from dclip.cli.app import main
sys.exit(main(["doctor"]))
"""


def test_ctrl_c_ends_with_130_and_one_line(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPER],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert err == "error: interrupted; the same command goes on from what is kept\n"


def test_ctrl_c_while_still_importing_shows_no_traceback(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from dclip.cli import main\n"
        "sys.exit(main())\n"
    )
    done = process("-c", code, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "error: interrupted\n"


def test_the_module_runs_like_the_program(tmp_path: Path) -> None:
    done = process("-m", "dclip", "lss", cwd=tmp_path)
    assert done.returncode == 2
    assert "'ls'" in done.stderr
