"""Lack of memory, told apart from every other failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dclip.errors import DclipError

_SIGNS = (
    "can't allocate memory",
    "not enough memory",
    "cannot allocate memory",
    "out of memory",  # as CUDA and MPS say it
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, of the machine or of its GPU.

    It goes by names and texts, so that torch is not imported for the sake of an error.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"MemoryError", "OutOfMemoryError"}:
        return True
    return isinstance(error, RuntimeError | OSError) and any(
        sign in str(error).lower() for sign in _SIGNS
    )


@contextmanager
def enough_memory(what: str, fix: str) -> Iterator[None]:
    """Turn a lack of memory inside the block into one line.

    Args:
        what: what the memory was for, e.g. ``"ViT-B-32:openai (151 million weights)"``.
        fix: what to do instead.

    Raises:
        DclipError: memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not out_of_memory(error):
            raise
        raise DclipError(f"not enough memory for {what}", fix) from error
