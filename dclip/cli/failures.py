"""What went wrong, as one line, a fix and an exit code."""

from __future__ import annotations

import errno
from dataclasses import dataclass

import typer

from dclip.errors import BadInput, DclipError, StoreError

INTERNAL = 1
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
BROKEN_PIPE = 141  # 128 + SIGPIPE

# Typer's usage errors, by the one of them that it exports: their base moved between its versions.
UsageError = typer.BadParameter.__mro__[1]

_FULL = {errno.ENOSPC, errno.EDQUOT}
_LESS_MEMORY = (
    "take a smaller --batch where the command has one, a model of smaller pictures, or --device cpu"
)


@dataclass(frozen=True)
class Failure:
    """One failure to tell.

    Attributes:
        code: the exit code (docs/cli.md lists them).
        message: what is wrong; empty where nothing should be said.
        fix: what to do about it.
        steps: lines below the fix, where it takes several commands.
    """

    code: int
    message: str
    fix: str = ""
    steps: tuple[str, ...] = ()


def explain(error: BaseException, command: str = "dclip") -> Failure:
    """Turn any exception into what the user is told.

    Args:
        error: what ended the command.
        command: the command that was run, e.g. ``dclip invert``, for the fix.
    """
    if isinstance(error, DclipError):
        steps = tuple(getattr(error, "steps", ()))
        return Failure(error.exit_code, error.message, error.fix, steps)
    if isinstance(error, UsageError):
        return Failure(BadInput.exit_code, _usage(error), f"{_path(error, command)} --help")
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return Failure(INTERRUPTED, "interrupted; the same command goes on from what is kept")
    if isinstance(error, BrokenPipeError):
        return Failure(BROKEN_PIPE, "")
    if isinstance(error, MemoryError) or _out_of_memory(error):
        return Failure(INTERNAL, "out of memory", _LESS_MEMORY)
    if type(error).__name__ in ("BrokenProcessPool", "BrokenThreadPool"):
        return Failure(
            INTERNAL, "a worker process died, most often for lack of memory", "try --workers 1"
        )
    if isinstance(error, OSError):
        place = f": {error.filename}" if error.filename else ""
        if error.errno in _FULL:
            return Failure(
                StoreError.exit_code,
                f"the disk is full{place}",
                "free some space (`dclip gc --dry-run` shows what can go) and run the same command "
                "again, or put the store elsewhere with --store DIR",
            )
        if error.errno == errno.EROFS:
            return Failure(
                StoreError.exit_code,
                f"the file system is read-only{place}",
                "put the store elsewhere with --store DIR",
            )
        if error.errno in (errno.EACCES, errno.EPERM):
            return Failure(
                StoreError.exit_code,
                f"permission denied{place}",
                "check its permissions, or put the store elsewhere with --store DIR",
            )
    text = " ".join(str(error).split())
    return Failure(
        INTERNAL,
        f"internal error: {type(error).__name__}{': ' if text else ''}{text}",
        "--debug shows the traceback; `dclip doctor` collects what a bug report needs",
    )


def _usage(error: BaseException) -> str:
    say = getattr(error, "format_message", None)
    text = str(say() if say is not None else error).strip()
    return text[:1].lower() + text[1:].rstrip(".")


def _path(error: BaseException, command: str) -> str:
    context = getattr(error, "ctx", None)
    return str(context.command_path) if context is not None else command


def _out_of_memory(error: BaseException) -> bool:
    # Known by name and text, because torch is not imported for the sake of an error.
    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error)
    return "OutOfMemoryError" in names or (
        isinstance(error, RuntimeError)
        and ("can't allocate memory" in text or "not enough memory" in text)
    )
