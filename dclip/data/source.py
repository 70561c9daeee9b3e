"""What the prepare stage asks of a place that pictures come from."""

from __future__ import annotations

import errno
import hashlib
import stat
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Protocol

from dclip.context import Reporter
from dclip.errors import BadInput

HEAD_BYTES = 64 * 1024
"""How much of a file its fingerprint reads: all of a CelebA photo, the start of a large one."""

_SHOW_MARKING = 5000  # files from which a cold disk takes long enough to show


@dataclass(frozen=True, slots=True)
class Item:
    """One picture of a source.

    Attributes:
        id: unique in the source and independent of where it lies.
        file: the file's name, relative to the pictures' folder.
        mark: what identifies the content for the fingerprint: size and CRC-32, say.
    """

    id: str
    file: str
    mark: str


class FileSource(Protocol):
    """Pictures that are encoded files; reading is safe from several threads at once."""

    @property
    def name(self) -> str:
        """What an artifact made of it is called unless the user says otherwise."""

    @property
    def place(self) -> Path:
        """The file or folder that the pictures are in."""

    @property
    def items(self) -> Sequence[Item]:
        """The pictures, in a fixed order."""

    @property
    def columns(self) -> Mapping[str, Sequence[str]]:
        """What else is known, by column of ``samples.csv``: a value an item, or empty."""

    @property
    def notes(self) -> Sequence[str]:
        """What was found and what was not, for the user."""

    def read(self, item: Item) -> bytes:
        """The encoded file.

        Raises:
            BadInput: it cannot be read.
        """


def fingerprint(items: Sequence[Item], columns: Mapping[str, Sequence[str]]) -> str:
    """A hash of what the items are, wherever they lie and whenever they were written."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{item.id}\0{item.file}\0{item.mark}\n".encode(errors="surrogateescape"))
    for name in sorted(columns):
        digest.update(f"{name}\0".encode())
        digest.update("\0".join(columns[name]).encode() + b"\n")
    return digest.hexdigest()


def file_mark(size: int, crc: int) -> str:
    """The mark of a file: its size and the CRC-32 of its first :data:`HEAD_BYTES`."""
    return f"{size}:{crc:08x}"


def mark_files(paths: Sequence[Path], report: Reporter, workers: int = 8) -> list[str]:
    """Marks of files on disk.

    A photo of up to 64 KB, as all of CelebA's are, is thus identified by its whole content; of a
    larger one a change beyond the first 64 KB that keeps the size goes unseen.
    A file that cannot be opened is marked so, and met again as unreadable when it is decoded.
    """

    def one(path: Path) -> str:
        try:
            with open_file(path) as file:
                crc = zlib.crc32(file.read(HEAD_BYTES))
            return file_mark(path.stat().st_size, crc)
        except OSError:
            return "unreadable"

    marks: list[str] = []
    with ThreadPoolExecutor(workers) as pool, ExitStack() as stack:
        task = None
        if len(paths) > _SHOW_MARKING:
            task = stack.enter_context(report.task("look through", len(paths), unit="file"))
        for start in range(0, len(paths), 1024):
            part = paths[start : start + 1024]
            marks += pool.map(one, part, chunksize=64)
            if task is not None:
                task.advance(len(part))
    return marks


def open_file(path: Path) -> BufferedReader:
    """Open a file to read; an OSError for what is none: a named pipe would keep us for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return path.open("rb")


def read_file(path: Path, name: str) -> bytes:
    """A file's bytes, or a BadInput that names it."""
    try:
        with open_file(path) as file:
            return file.read()
    except OSError as error:
        raise BadInput(f"{name} cannot be read: {error.strerror or error}") from None
