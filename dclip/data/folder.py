"""Any folder of pictures, with captions where there are some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dclip.context import Reporter, Silent
from dclip.data.attributes import find_attributes
from dclip.data.captions import find_captions
from dclip.data.images import kinds
from dclip.data.listing import Listing, list_pictures
from dclip.data.paths import is_there, read_file, shown, user_path
from dclip.data.source import Item, mark_files
from dclip.errors import BadInput

_SILENT = Silent()


@dataclass(frozen=True)
class Folder:
    """The pictures below a folder, sorted by their path in it; that path is their id."""

    place: Path
    items: tuple[Item, ...]
    columns: Mapping[str, Sequence[str]]
    notes: tuple[str, ...]
    name: str
    left_out: Mapping[str, str]
    crop: str = "center"
    frame: str = "center"

    def read(self, item: Item) -> bytes:
        return read_file(self.place / item.file, item.file)


def open_folder(
    root: Path | str,
    limit: int | None = None,
    report: Reporter = _SILENT,
    *,
    caption: str | None = None,
) -> Folder:
    """List the pictures below ``root`` and find their captions and attributes.

    Which files are taken is said by :func:`dclip.data.listing.list_pictures`, where captions come
    from by :func:`dclip.data.captions.find_captions`, where attributes by
    :func:`dclip.data.attributes.find_attributes`.

    Args:
        root: the folder.
        limit: only the first so many pictures by path.
        report: shown the progress of looking through many files.
        caption: the column of the captions in their table: else by its name.

    Raises:
        BadInput: no such folder, no pictures in it, a captions file that names none of them, or no
            such column.
    """
    root = user_path(root)
    if not is_there(root):
        raise BadInput(f"no such folder: {shown(str(root))}", "check the path")
    if not root.is_dir():
        raise BadInput(f"{shown(str(root))} is a file", "give the folder that the pictures are in")
    found = list_pictures(root)
    if not found.files:
        raise none_found(root, found)
    captions = find_captions(root, found.files, found.metadata, limit, caption)
    attributes = find_attributes(root, found.files, found.metadata)
    files = found.files[:limit]
    marks = mark_files([root / file for file in files], report)
    items = tuple(Item(file, file, mark) for file, mark in zip(files, marks, strict=True))
    columns: dict[str, Sequence[str]] = {}
    if captions.by_file:
        columns["caption"] = [captions.by_file.get(file, "") for file in files]
    columns |= {name: values[: len(files)] for name, values in attributes.columns.items()}
    notes = (*found.notes(), *captions.notes, *attributes.notes)
    return Folder(root, items, columns, notes, root.resolve().name, found.left_out)


def none_found(root: Path, found: Listing) -> BadInput:
    """What to say of a folder without a picture that can be read."""
    if found.left_out:
        reason, _, fix = next(iter(found.left_out.values())).partition(": ")
        count = len(found.left_out)
        return BadInput(
            f"none of the {count} pictures in {shown(str(root))} can be read: {reason}", fix
        )
    passed = "".join(f"; {note}" for note in found.notes())
    return BadInput(
        f"no pictures in {shown(str(root))}{passed}", f"give a folder that holds some of: {kinds()}"
    )
