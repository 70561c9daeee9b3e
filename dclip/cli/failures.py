"""What went wrong, as one line, a fix and an exit code."""

from __future__ import annotations

import errno
from dataclasses import dataclass

import typer

from dclip.errors import BadInput, DclipError, StoreError
from dclip.memory import out_of_memory

INTERNAL = 1
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
BROKEN_PIPE = 141  # 128 + SIGPIPE

# Typer's usage errors, by the one of them that it exports: their base moved between its versions.
UsageError = typer.BadParameter.__mro__[1]

_FULL = {errno.ENOSPC, errno.EDQUOT}
_ELSEWHERE = "put the store elsewhere with --store DIR"
_SYSTEM = {
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk cannot be read or written",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
    errno.EFBIG: "a file is larger than this system allows",
}
_SMALLER = "take a smaller --batch where the command has one, or a model of smaller pictures"
_LESS_MEMORY = {
    "the accelerator's": f"{_SMALLER}; or --device cpu",
    "the machine's": f"{_SMALLER}; or fewer --workers",
}


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
    if (what := _memory(error)) is not None:
        return Failure(INTERNAL, f"out of memory: {what} is full", _LESS_MEMORY[what])
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
        if error.errno in _SYSTEM:
            return Failure(StoreError.exit_code, f"{_SYSTEM[error.errno]}{place}", _ELSEWHERE)
        if error.errno in (errno.EACCES, errno.EPERM):
            return Failure(
                StoreError.exit_code,
                f"permission denied{place}",
                "check its permissions, or put the store elsewhere with --store DIR",
            )
    if (what := _bad_path(error)) is not None:
        return Failure(BadInput.exit_code, what, "give another path or name")
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


def _memory(error: BaseException) -> str | None:
    """Whose memory ran out, if that is what an error says."""
    if not out_of_memory(error):
        return None
    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error).lower()
    accelerator = "OutOfMemoryError" in names or "cuda" in text or "mps" in text
    return "the accelerator's" if accelerator else "the machine's"


def _bad_path(error: BaseException) -> str | None:
    """What is wrong with a path or text that the system itself refuses, if that is it."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError):
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR):
            return f"{error.strerror}: {error.filename}" if error.filename else text
        if error.errno == errno.ENOENT and not error.filename:
            return "the current folder is gone"  # what os.getcwd says
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object!r} is no text that can be written"
    if isinstance(error, ValueError) and "null" in text:
        return "a path or name has a null character"
    if isinstance(error, RuntimeError) and "home directory" in text:
        return "a path begins with ~ and the name of a user that there is not"
    return None
