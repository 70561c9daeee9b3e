"""What reaches a terminal: progress, tables, text of others, signals, and names that are near."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dclip.cli.app import main
from dclip.cli.failures import explain
from dclip.cli.options import names_in
from dclip.cli.output import Output, json_text
from dclip.cli.progress import LiveReporter, PlainReporter, Watch, reporter_for
from dclip.cli.settings import load_config
from dclip.errors import BadInput
from dclip.text import printable

ROOT = Path(__file__).parents[1]
ENV = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
NAME = "evil\x1b[2J\x07\u202egnp.\ud800"


class Clock:
    time = 0.0

    def __call__(self) -> float:
        return self.time


# Progress


def test_a_watch_speaks_after_ten_silent_seconds_and_only_then() -> None:
    clock, said = Clock(), []
    watch = Watch(said.append, clock)
    clock.time = 9.0
    watch.look()
    assert said == []
    clock.time = 10.0
    watch.look()
    assert len(said) == 1 and said[0].startswith("still working: 0:10")
    clock.time = 19.0
    watch.look()
    watch.heard()
    clock.time = 28.0
    watch.look()
    assert len(said) == 1


def test_a_slow_step_does_not_silence_its_task(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    report = PlainReporter(Output(), clock)
    with report.task("train", 10, unit="step") as task:
        clock.time = 5.0
        task.advance(1, loss=0.5)
        clock.time = 16.0
        report.watch.look()
        said = capsys.readouterr().err.splitlines()
        assert said[-1].startswith("train: 1/10 step  10%") and "loss 0.5" in said[-1]
        report.watch.look()
        assert capsys.readouterr().err == ""


def test_stages_are_watched_by_a_thread(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dclip.cli.progress.LINE_SECONDS", 0.0)
    seen = ""
    with PlainReporter(Output()).watching():
        end = time.monotonic() + 30
        while "still working" not in seen and time.monotonic() < end:
            time.sleep(0.05)
            seen += capsys.readouterr().err
    assert "still working" in seen


def live(width: int) -> tuple[LiveReporter, io.StringIO]:
    output, screen = Output(), io.StringIO()
    output.err = Console(file=screen, force_terminal=True, width=width, highlight=False)
    report = reporter_for(output)
    assert isinstance(report, LiveReporter)
    return report, screen


def test_the_time_left_is_readable_in_80_columns() -> None:
    report, screen = live(80)
    stats = {"loss": 0.123456, "psnr": 33.33, "direction": 1.25, "structure": 0.0625}
    with report.task("a description that is long", 100_000, unit="step") as task:
        for _ in range(3):
            task.advance(500, **stats)
            time.sleep(0.12)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    lines = [line for part in text.split("\n") for line in part.split("\r") if line.strip()]
    assert all(len(line) <= 80 for line in lines)
    assert any(re.search(r"━ +(\d+:)?\d\d:\d\d ", line) for line in lines)
    assert all(line.startswith("a description") for line in lines)


# Tables and text


def test_references_are_never_broken_over_lines() -> None:
    ref = "tuned/" + "a-long-name-of-a-model" * 3 + "/v12"
    output, screen = Output(), io.StringIO()
    output.out = Console(file=screen, width=60, force_terminal=True, highlight=False)
    rows = [{"ref": ref, "id": "0123456789ab", "tags": ["latest", "best"], "made": "2026"}]
    columns = {"ref": "artifact", "id": "id", "tags": "tags", "made": "made"}
    output.table(rows, columns)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert any(ref in line and "0123456789ab" in line for line in text.splitlines())


@pytest.mark.parametrize("mode", ["human", "json", "quiet"])
def test_text_of_others_is_shown_escaped(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(mode)  # type: ignore[arg-type]
    rows = [{"id": NAME, "path": NAME}]
    output.table(rows, {"id": "id", "path": "path"})
    output.record({"path": NAME}, identity=NAME)
    output.note(NAME)
    output.warn(NAME)
    output.error(NAME, NAME, (NAME,))
    out, err = capsys.readouterr()
    for text in (out, err):
        assert not set(text) & {"\x1b", "\x07", "\u202e", "\ud800"}
    if mode == "json":
        assert json.loads(out.split("\n]\n")[0] + "]") == rows
    else:
        assert r"\x1b[2J\x07\u202egnp.\ud800" in out
    assert r"\x1b[2J" in err


@given(st.text(), st.sampled_from(["utf-8", "ascii", "latin-1", "cp1252"]))
def test_json_keeps_every_text_in_any_encoding(text: str, encoding: str) -> None:
    written = json_text({"name": text}, encoding)
    assert written.encode(encoding)
    assert json.loads(written) == {"name": text}


@given(st.text())
def test_printable_text_has_nothing_that_a_terminal_obeys(text: str) -> None:
    shown = printable(text)
    assert shown == printable(shown)
    assert all(ord(c) >= 32 and not 127 <= ord(c) < 160 for c in shown)
    shown.encode("utf-8")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_path_that_the_terminal_cannot_write_is_no_failure(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "фото").mkdir()
    env = ENV | {"PYTHONIOENCODING": encoding, "DCLIP_STORE": "фото", "PYTHONUTF8": "0"}
    for words in (["ls"], ["gc"], ["--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "dclip", *words], cwd=tmp_path, env=env, capture_output=True
        )
        assert done.returncode == 0, done.stderr


# Failures and signals


@pytest.mark.parametrize(
    ("error", "code", "says", "fix"),
    [
        (MemoryError(), 1, "out of memory: the machine's", "--batch"),
        (RuntimeError("CUDA error: out of memory"), 1, "the accelerator's", "--device cpu"),
        (OSError(12, "Cannot allocate memory"), 1, "out of memory: the machine's", "--workers"),
        (OSError(36, "File name too long", "x" * 300), 2, "File name too long", "another"),
        (ValueError("embedded null byte"), 2, "null character", "another"),
        (RuntimeError("Could not determine home directory."), 2, "begins with ~", "another"),
        (FileNotFoundError(2, "No such file or directory"), 2, "current folder is gone", "another"),
        (OSError(24, "Too many open files"), 6, "too many files", "--store"),
    ],
)
def test_what_the_system_refuses_has_its_code_and_fix(
    error: Exception, code: int, says: str, fix: str
) -> None:
    failure = explain(error)
    assert (failure.code, says in failure.message, fix in failure.fix) == (code, True, True)


def test_a_full_accelerator_is_not_one_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from dclip.device import choose

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB")

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        choose("cuda")
    assert "--device cpu" in explain(caught.value).fix


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


def test_sigterm_is_ctrl_c(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPER],
        cwd=tmp_path,
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert err == "error: interrupted; the same command goes on from what is kept\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_ends_its_round_and_saves_after_either_signal(number: signal.Signals) -> None:
    from dclip.context import Silent
    from dclip.training.loop import _patient_interrupt

    before = signal.signal(number, signal.default_int_handler)
    try:
        with _patient_interrupt(Silent()) as asked:
            signal.raise_signal(number)
            assert asked.is_set()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


# The config file, and names


def test_a_config_that_is_no_file_or_is_huge_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="is not a file"):
        load_config(tmp_path / "pipe", None)
    with pytest.raises(BadInput, match="is not a file"):
        load_config(Path("/dev/zero"), None)
    (tmp_path / "huge.toml").write_text("# " + "x" * 2_000_000)
    with pytest.raises(BadInput, match="bytes"):
        load_config(tmp_path / "huge.toml", None)
    (tmp_path / "deep.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(BadInput, match="not valid TOML"):
        load_config(tmp_path / "deep.toml", None)


@pytest.mark.parametrize(
    ("words", "near"),
    [
        ("train --schedule linaer", "linear"),
        ("train --decay cosnie", "cosine"),
        ("train --size labtop", "laptop"),
        ("train --network uent", "unet"),
        ("train --precision fp23", "fp32"),
        ("invert --method fixedpoint", "fixed-point"),
        ("invert --split vla", "val"),
        ("invert --preset smilng", "smiling"),
        ("finetune --target x --kind stlye", "style"),
        ("finetune --target x --recipe steppwise", "stepwise"),
        ("finetune --preset smilng", "smiling"),
        ("sample --sampler ddip", "ddim"),
        ("edit x.jpg --mix noize", "noise"),
        ("edit x.jpg --crop fase", "face"),
        ("edit --data x --split vall", "val"),
        ("prepare faces --style skech", "sketch"),
        ("prepare folder --root x --crop centre", "center"),
        ("prepare folder --root x --domain dgos", "dogs"),
        ("prepare celeba --root x --split offical", "official"),
        ("demo --target skech", "sketch"),
        ("ls modle", "model"),
    ],
)
def test_every_name_has_near_ones(
    words: str, near: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(words.split())
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    fix = err.splitlines()[1]
    assert re.match(rf"fix: did you mean [^?]*\b{near}\b", fix), err


# Completion


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("smi", {"smiling"}),
        ("my-", {"my-model", "my-model/v1"}),
        ("sketch:0.8+my-", {"sketch:0.8+my-model", "sketch:0.8+my-model/v1"}),
        ("sketch+my-model:0.", {"sketch+my-model:0.5", "sketch+my-model:0.8"}),
    ],
)
def test_the_last_part_of_with_is_completed(tmp_path: Path, typed: str, offered: set[str]) -> None:
    (tmp_path / "tuned" / "my-model" / "v1").mkdir(parents=True)
    assert set(names_in(tmp_path, "tuned", typed)) == offered
