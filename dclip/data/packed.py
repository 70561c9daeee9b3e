"""Pictures packed into larger files, and what their tables say of each."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dclip.context import Reporter
from dclip.data.attributes import MOST_CLASSES, RESERVED, is_attribute, signs
from dclip.data.captions import CAPTION_COLUMNS, one_line
from dclip.data.paths import shown
from dclip.data.source import Item, file_mark
from dclip.errors import BadInput

CLASS_COLUMNS = ("label", "labels", "class", "cls", "y", "fine_label", "coarse_label")
"""Columns whose numbers or words are classes."""


@dataclass(frozen=True)
class Packed:
    """A source whose pictures lie in larger files; see :class:`dclip.data.source.FileSource`."""

    place: Path
    items: Sequence[Item]
    columns: Mapping[str, Sequence[str]]
    notes: Sequence[str]
    reader: Callable[[Item], bytes]
    left_out: Mapping[str, str] = field(default_factory=dict)
    crop: str = "center"
    frame: str = "center"
    called: str = ""

    @property
    def name(self) -> str:
        """Its own, else that of the file or folder, without its suffix."""
        return self.called or self.place.resolve().name.partition(".")[0] or "packed"

    def read(self, item: Item) -> bytes:
        """As :meth:`dclip.data.source.FileSource.read`."""
        return self.reader(item)


def mark_of(data: bytes) -> str:
    """The mark of a picture by its encoded bytes."""
    return file_mark(len(data), zlib.crc32(data))


def number(index: int) -> str:
    """The id of a picture that has no name: its place, so that texts sort as numbers."""
    return f"{index:08d}"


def columns_of(
    table: Mapping[str, Sequence[Any]],
    names: Mapping[str, Sequence[str]] | None = None,
    caption: str | None = None,
) -> tuple[dict[str, Sequence[str]], list[str]]:
    """Columns of ``samples.csv`` out of a table's, and what to tell of the others.

    A column of :data:`dclip.data.captions.CAPTION_COLUMNS` is the caption; of several captions of a
    picture the first is taken. One of :data:`CLASS_COLUMNS` becomes an attribute for each class. Of
    the others those that hold nothing but 1, 0, -1, yes, no, true and false are attributes.

    Args:
        table: a value a picture for each column; None is unknown.
        names: of the classes of a column of numbers.
        caption: the column of the captions.

    Raises:
        BadInput: there is no such column.
    """
    found: dict[str, Sequence[str]] = {}
    unused = []
    lowered = {name.lower(): name for name in table}
    able = [lowered[c] for c in CAPTION_COLUMNS if c in lowered]
    if caption is not None and caption not in table:
        raise BadInput(
            f"there is no column {shown(caption)} for --caption",
            f"it has {shown(', '.join(table)) or 'none beside the pictures'}",
        )
    notes = []
    if caption is None and able:
        caption = able[0]
        if able[1:]:
            notes.append(
                f"captions are taken from the column {shown(caption)}, not from"
                f" {shown(', '.join(able[1:]))}: --caption names another"
            )
    for name, values in table.items():
        if name == caption:
            texts = [value[0] if isinstance(value, list) and value else value for value in values]
            found["caption"] = [one_line(t) if isinstance(t, str) else "" for t in texts]
            continue
        classes = _classes(name, values, (names or {}).get(name))
        texts = [_text(value) for value in values]
        if classes:
            found |= classes
        elif name.lower() not in RESERVED and is_attribute(texts):
            found[name] = signs(texts)
        else:
            unused.append(name)
    if unused:
        notes.append(
            f"columns that are not used: {shown(', '.join(unused))} (an attribute is 1, 0 or -1)"
        )
    return found, notes


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip().lower()


def _classes(
    name: str, values: Sequence[Any], names: Sequence[str] | None
) -> dict[str, Sequence[str]]:
    """An attribute for each class of a column, where it is one of classes."""
    if names is None and name.lower() not in CLASS_COLUMNS:
        return {}
    known = [value for value in values if value is not None]
    whole = all(isinstance(v, int) and not isinstance(v, bool) for v in known)
    if not known or not (whole or all(isinstance(v, str) for v in known)):
        return {}

    def called(value: str | int) -> str:
        if isinstance(value, str):
            return value
        if names is not None and 0 <= value < len(names):
            return names[value]
        return f"class_{value}"

    classes = [called(value) for value in sorted({*known})]
    if not 2 <= len(classes) <= MOST_CLASSES or {c.lower() for c in classes} & RESERVED:
        return {}
    own = [None if value is None else called(value) for value in values]
    return {c: ["0" if o is None else "1" if o == c else "-1" for o in own] for c in classes}


def looked_through(count: int, mark: Callable[[int], str], report: Reporter) -> list[str]:
    """The marks of that many pictures, with progress."""
    marks = []
    with report.task("look through", count, unit="img") as task:
        for index in range(count):
            marks.append(mark(index))
            task.advance(1)
    return marks
