"""Paths and names as users and file systems give them, and reading that cannot hang or grow."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from dclip.errors import BadInput

MAX_FILE_BYTES = 512 * 2**20
"""Largest file that is read whole."""

MAX_TEXT_BYTES = 256 * 2**20
"""Largest list or captions file that is read; CelebA's longest list has 26 MB."""


def user_path(text: Path | str) -> Path:
    """A path that a user gave, with ``~`` expanded.

    Raises:
        BadInput: no path on this system: a NUL byte, characters that the file system cannot hold,
            a name over its length limit, ``~`` of nobody, or a relative path in a current folder
            that was deleted.
    """
    try:
        path = Path(text).expanduser()
        if not path.is_absolute():
            Path.cwd()
        path.lstat()
    except RuntimeError:
        raise BadInput(
            f"{shown(str(text))}: there is no such user", "write the path without ~"
        ) from None
    except (ValueError, OverflowError):  # NUL, or what the file system's encoding cannot say
        raise BadInput(f"{shown(str(text))} is not a path", "check the name") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise BadInput(f"a path is too long: {shown(str(text))}", "check the name") from None
        if error.filename is None:  # of the current folder none is told
            raise BadInput(
                f"the current folder is gone, so {shown(str(text))} leads nowhere",
                "cd to a folder that is there",
            ) from None
        # Missing, or not to be looked at: whoever uses the path says so in its own words.
    return path


def is_there(path: Path) -> bool:
    """Whether something can be found at ``path``; never raises."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def shown(name: str, most: int = 120) -> str:
    """A name as it may stand in a message: control characters and broken bytes escaped, cut."""
    if len(name) > 2 * most:  # not every character of a megabyte is looked at
        name = name[:most] + name[-most:]
    text = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in name
    )
    if len(text) > most:
        return f"{text[: most // 2]}...{text[-most // 2 + 3 :]}"
    return text


def name_bytes(name: str) -> bytes:
    """A file's name in bytes, for hashes: also one that is no text on this or another system."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogatepass")


def open_file(path: Path) -> BufferedReader:
    """Open a file to read; an OSError for what is none: a named pipe would keep us for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return path.open("rb")


def read_bytes(path: Path, most: int = MAX_FILE_BYTES) -> bytes:
    """All bytes of a regular file.

    Raises:
        OSError: it cannot be read, is no regular file, or is longer than ``most``.
    """
    with open_file(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"more than {most >> 20} MB", str(path))
        data = file.read(most + 1)  # files of some systems (/proc, networks) tell no true size
    if len(data) > most:
        raise OSError(errno.EFBIG, f"more than {most >> 20} MB", str(path))
    return data


def read_file(path: Path, name: str) -> bytes:
    """A file's bytes, or a BadInput that names it."""
    try:
        return read_bytes(path)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{shown(name)} cannot be read: {why(error)}", "check the file, or leave it out"
        ) from None


def why(error: Exception) -> str:
    """The reason of a failure in one line, for messages."""
    text = error.strerror if isinstance(error, OSError) else None
    return shown(" ".join((text or str(error)).split()), 160) or type(error).__name__
