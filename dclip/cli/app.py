"""The ``dclip`` program: the table of subcommands, and every failure as an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from dclip import __version__
from dclip.cli import (
    autoencoder,
    clip,
    demo,
    doctor,
    edit,
    encoder,
    evaluate,
    explaining,
    finetune,
    grid,
    importing,
    inspecting,
    invert,
    judge,
    prepare,
    presets,
    sample,
    slider,
    storage,
    train,
)
from dclip.cli.common import State, add, group, with_shared_options
from dclip.cli.failures import INTERRUPTED, explain
from dclip.cli.output import Output, tolerant

app = group(
    "Edit photos of faces by text with diffusion models.",
    "dclip demo                               # a panel of edited faces, in two minutes",
    "dclip prepare celeba --root ~/celeba     # then: train, invert, finetune, edit, grid",
    "dclip edit photo.jpg --strength 0.8",
)

PIPELINE = "From photo to edit"
STORE = "The store"

app.add_typer(prepare.prepare, name="prepare", rich_help_panel=PIPELINE)
for function in (train.train, sample.sample, invert.invert, finetune.finetune):
    add(app, function, PIPELINE)
add(app, slider.slider, PIPELINE)
for function in (edit.edit, grid.grid, evaluate.eval_, demo.demo):
    add(app, function, PIPELINE)
add(app, importing.import_, PIPELINE)
add(app, inspecting.inspect, PIPELINE)
app.add_typer(clip.clip, name="clip", rich_help_panel=PIPELINE)
app.add_typer(autoencoder.autoencoder, name="autoencoder", rich_help_panel=PIPELINE)
app.add_typer(encoder.encoder, name="encoder", rich_help_panel=PIPELINE)
app.add_typer(judge.judge, name="judge", rich_help_panel=PIPELINE)
add(app, presets.presets, PIPELINE)
for function in (storage.ls, storage.show, storage.lineage, storage.verify, storage.tag):
    add(app, function, STORE)
for function in (storage.export, storage.rm, storage.gc):
    add(app, function, STORE)
add(app, explaining.explain, "Help")
add(app, doctor.doctor, "Help")


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"dclip {__version__}\n")
        raise typer.Exit


@app.callback(invoke_without_command=True)
@with_shared_options
def root(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", metavar="", callback=_show_version, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    """Edit photos of faces by text with diffusion models.

    Every command takes the newest artifact of the kind that it needs unless one is named, and says
    which. The same command again resumes what was interrupted, or answers "up to date".
    """
    if ctx.invoked_subcommand is None:
        sys.stdout.write(ctx.get_help() + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; nothing escapes but ``SystemExit``."""
    state = State()
    for name in ("stdout", "stderr"):  # closed by the caller (`>&-`), Python has None there
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
        tolerant(getattr(sys, name))
    try:
        with _terminable():
            code = app(
                args=None if argv is None else list(argv),
                prog_name="dclip",
                obj=state,
                standalone_mode=False,
            )
        if state.failure is not None:
            return _fail(state.failure, state)
        if code == INTERRUPTED:  # Typer's answer to Ctrl-C outside a subcommand
            return _fail(KeyboardInterrupt(), state)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except Exception as error:
        return _fail(error, state)
    except KeyboardInterrupt as error:
        return _fail(error, state)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM, with which batch systems and containers end a job, do what Ctrl-C does."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _fail(error: BaseException, state: State) -> int:
    if state.flags.debug:
        traceback.print_exception(error)
    failure = explain(error, state.command)
    if isinstance(error, BrokenPipeError):
        # The reader is gone: what is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    elif failure.message:
        Output(store=state.flags.store).error(failure.message, failure.fix, failure.steps)
    return failure.code
