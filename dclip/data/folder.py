"""Any folder of pictures, with captions where there are some."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dclip.context import Reporter, Silent
from dclip.data.images import SUFFIXES
from dclip.data.source import Item, mark_files, read_file
from dclip.errors import BadInput

_SILENT = Silent()

CAPTION_FILES = ("captions.csv", "captions.txt")


@dataclass(frozen=True)
class Folder:
    """The pictures below a folder, sorted by their path in it; that path is their id."""

    place: Path
    items: tuple[Item, ...]
    columns: Mapping[str, Sequence[str]]
    notes: tuple[str, ...]
    name: str

    def read(self, item: Item) -> bytes:
        return read_file(self.place / item.file, item.file)


def open_folder(root: Path | str, limit: int | None = None, report: Reporter = _SILENT) -> Folder:
    """List the pictures below ``root`` and find their captions.

    Captions come from ``captions.csv`` or ``captions.txt`` in ``root`` (a header, then
    ``file,caption``; Flickr8k's layout, of several captions of a picture the first), else from a
    ``.txt`` file beside each picture. Hidden files and folders are passed over.

    Args:
        root: the folder.
        limit: only the first so many pictures by path.
        report: shown the progress of looking through many files.

    Raises:
        BadInput: no such folder, no pictures in it, or a captions file that names none of them.
    """
    root = Path(root).expanduser()
    if not root.exists():
        raise BadInput(f"no such folder: {root}")
    if not root.is_dir():
        raise BadInput(f"{root} is a file", "give the folder that the pictures are in")
    files = list_images(root)[:limit]
    if not files:
        kinds = " ".join(suffix[1:] for suffix in SUFFIXES)
        raise BadInput(f"no pictures in {root}", f"give a folder that holds some of: {kinds}")
    notes: list[str] = []
    captions = _captions(root, files, notes)
    marks = mark_files([root / file for file in files], report)
    items = tuple(Item(file, file, mark) for file, mark in zip(files, marks, strict=True))
    columns = {"caption": [captions.get(file, "") for file in files]} if captions else {}
    return Folder(root, items, columns, tuple(notes), root.resolve().name)


def list_images(root: Path) -> list[str]:
    """Paths of the image files below ``root``, relative, with forward slashes, sorted."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            (Path(folder) / name).relative_to(root).as_posix()
            for name in files
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        ]
    return sorted(found)


def _captions(root: Path, files: list[str], notes: list[str]) -> Mapping[str, str]:
    table = next((root / name for name in CAPTION_FILES if (root / name).is_file()), None)
    if table is None:
        return {file: text for file in files if (text := _beside(root / file))}
    listed = set(files)
    by_name: dict[str, list[str]] = defaultdict(list)
    for file in files:
        by_name[Path(file).name].append(file)
    captions: dict[str, str] = {}
    for name, caption in _caption_rows(table):
        # Flickr8k keeps its pictures in Images/ and names them without it.
        same_name = by_name.get(name, [])
        if name not in listed and len(same_name) == 1:
            name = same_name[0]
        captions.setdefault(name, caption)
    matched = sum(file in captions for file in files)
    if not matched:
        raise BadInput(f"{table} names none of the pictures in {root}", "write lines file,caption")
    if matched < len(files):
        notes.append(f"{len(files) - matched} of {len(files)} pictures have no caption")
    return captions


def _beside(picture: Path) -> str:
    try:
        return " ".join(picture.with_suffix(".txt").read_text("utf-8-sig").split())
    except (OSError, UnicodeDecodeError):
        return ""


def _caption_rows(table: Path) -> list[tuple[str, str]]:
    rows = []
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            for number, fields in enumerate(csv.reader(file), 1):
                if not fields or (number == 1 and Path(fields[0]).suffix.lower() not in SUFFIXES):
                    continue
                if len(fields) < 2:
                    raise BadInput(f"{table} line {number} is not file,caption")
                # A caption with a comma that nobody quoted, as in Flickr8k.
                caption = " ".join(",".join(fields[1:]).split())
                rows.append((fields[0].strip().replace("\\", "/"), caption))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{table} cannot be read: {error}") from None
    return rows
