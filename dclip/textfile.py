"""Small text files that users name: read whole, but never without a bound."""

from __future__ import annotations

import stat
from pathlib import Path

from dclip.errors import BadInput

MOST_BYTES = 1_000_000


def check_file(path: Path | str, what: str) -> Path:
    """The path of a file, with ``~`` spelled out; it need not be there.

    A pipe would be waited for, and a device read without an end.

    Raises:
        BadInput: something is there that is no file, or the path is none.
    """
    try:
        found = Path(path).expanduser()
        if found.exists() and not stat.S_ISREG(found.stat().st_mode):
            raise BadInput(f"the {what} {path} is not a file", "name a file")
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadInput(f"the {what} {path} cannot be read: {reason}", "name a file") from None
    return found


def read_text(path: Path | str, what: str) -> str:
    """What a text file holds.

    Args:
        what: how messages call it.

    Raises:
        BadInput: no file, or one of more than a megabyte.
        OSError, ValueError: it cannot be read as text.
    """
    found = check_file(path, what)
    size = found.stat().st_size
    if size > MOST_BYTES:
        raise BadInput(
            f"the {what} {path} has {size} bytes, and {MOST_BYTES} at most are read",
            "name another file",
        )
    return found.read_text(encoding="utf-8")
