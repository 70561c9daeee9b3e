"""What the prepare stage asks of a place that pictures come from."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dclip.context import Reporter
from dclip.data.paths import name_bytes, open_file

_SHOW_MARKING = 100 * 2**20  # bytes from which a cold disk takes long enough to show
_READ = 2**20


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

    @property
    def left_out(self) -> Mapping[str, str]:
        """Pictures that are there and cannot be read here, by file, with the reason and the fix."""

    @property
    def crop(self) -> str:
        """How its pictures are cropped unless the user says otherwise."""

    @property
    def frame(self) -> str:
        """Where its pictures have the face, a name in :data:`dclip.domains.FRAMES`."""

    def read(self, item: Item) -> bytes:
        """The encoded file.

        Raises:
            BadInput: it cannot be read.
        """


def fingerprint(
    items: Sequence[Item],
    columns: Mapping[str, Sequence[str]],
    left_out: Mapping[str, str] | None = None,
) -> str:
    """A hash of what the items are, wherever they lie and whenever they were written.

    What was left out enters too, since ``skipped.csv`` names it.
    """
    digest = hashlib.sha256()
    for item in items:
        digest.update(name_bytes(f"{item.id}\0{item.file}\0{item.mark}\n"))
    for name in sorted(columns):
        digest.update(f"{name}\0".encode())
        digest.update("\0".join(columns[name]).encode() + b"\n")
    for file, reason in sorted((left_out or {}).items()):
        digest.update(name_bytes(f"left out\0{file}\0{reason}\n"))
    return digest.hexdigest()


def file_mark(size: int, crc: int) -> str:
    """The mark of a file: its size and the CRC-32 of its bytes, which a zip keeps as well."""
    return f"{size}:{crc:08x}"


def mark_files(paths: Sequence[Path], report: Reporter, workers: int = 8) -> list[str]:
    """Marks of files on disk, of all their bytes.

    A file that cannot be opened is marked so, and met again as unreadable when it is decoded.
    """

    def one(path: Path) -> tuple[str, int]:
        size = crc = 0
        try:
            with open_file(path) as file:
                while part := file.read(_READ):
                    crc, size = zlib.crc32(part, crc), size + len(part)
        except OSError:
            return "unreadable", size
        return file_mark(size, crc), size

    marks: list[str] = []
    total = 0
    with ThreadPoolExecutor(workers) as pool, ExitStack() as stack:
        task = None
        for start in range(0, len(paths), 256):
            part = paths[start : start + 256]
            read = list(pool.map(one, part, chunksize=16))
            marks += [mark for mark, _ in read]
            total += sum(size for _, size in read)
            if task is None and total > _SHOW_MARKING:
                task = stack.enter_context(
                    report.task("look through", len(paths), unit="file", done=start)
                )
            if task is not None:
                task.advance(len(part))
    return marks
