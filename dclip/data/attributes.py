"""Attributes of a folder's pictures: columns of its tables, and its subfolders as classes."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dclip.data import captions
from dclip.data.paths import MAX_TEXT_BYTES, read_bytes, shown, why
from dclip.data.table import NUMBER_COLUMNS, TEXT_COLUMNS
from dclip.errors import BadInput

TABLE = "attributes.csv"
MOST_CLASSES = 100
RESERVED = {*TEXT_COLUMNS, *NUMBER_COLUMNS}
_NOT_CLASSES = {"train", "val", "valid", "validation", "test", "images", "img"}
_YES, _NO = {"1", "true", "yes", "1.0"}, {"0", "false", "no", "0.0"}
_VALUES = _YES | _NO | {"-1", "-1.0", ""}


@dataclass(frozen=True)
class Attributes:
    """Columns of ``samples.csv`` ("1", "-1", "0" where unknown), and what to tell of them."""

    columns: Mapping[str, Sequence[str]]
    notes: tuple[str, ...]


def find_attributes(root: Path, files: Sequence[str], metadata: Sequence[str]) -> Attributes:
    """The attributes of the pictures ``files`` below ``root``.

    From ``attributes.csv`` in ``root``, and from the columns of the captions' tables
    (:func:`dclip.data.captions.find_captions`) that hold nothing but 1, 0, -1, yes, no, true and
    false. A column of 0 and 1 means no and yes; beside -1, which is no, 0 is unknown. Where there
    are none and the pictures lie in several folders, each folder is a class: an attribute that its
    pictures have and the others have not.

    Args:
        metadata: which of Hugging Face's tables there are, relative to ``root``.

    Raises:
        BadInput: an ``attributes.csv`` that cannot be read, or that names none of the pictures.
    """
    tables = [name for name in (TABLE, *captions.CAPTION_FILES) if (root / name).is_file()]
    tables = tables or list(metadata)
    named = captions.Named(files)
    found: dict[str, dict[str, str]] = {}
    bad: set[str] = set()
    for table in tables:
        matched = 0
        for name, row in _rows(root / table):
            path = captions.normal(PurePosixPath(table).parent / name.replace("\\", "/"))
            meant = named(path)
            if len(meant) != 1:
                continue
            matched += 1
            for column, value in row.items():
                if value not in _VALUES or column.lower() in RESERVED:
                    bad.add(column)
                found.setdefault(column, {}).setdefault(meant[0], value)
        if table == TABLE and not matched:
            raise BadInput(
                f"{shown(str(root / table))} names none of the pictures beside it",
                "write a header file,NAME,NAME and a line for each picture",
            )
    usable = {name: values for name, values in found.items() if name not in bad}
    columns = {
        name: signs([values.get(file, "") for file in files]) for name, values in usable.items()
    }
    notes = []
    if bad:
        notes.append(
            f"columns that are not used: {shown(', '.join(n for n in found if n in bad))} (an"
            " attribute is 1, 0 or -1)"
        )
    if not columns:
        columns = _classes(files)
        if columns:
            notes.append(f"the folders are classes: {shown(', '.join(columns))}")
    return Attributes(columns, tuple(notes))


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Each line's file and its other columns, but for the caption."""
    try:
        text = read_bytes(path, MAX_TEXT_BYTES).decode("utf-8-sig")
        if path.suffix == ".jsonl":
            lines = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            first = text.partition("\n")[0]
            reader = csv.reader(text.splitlines(), delimiter=captions.delimiter(first))
            header = [field.strip() for field in next(reader, [])]
            # Flickr8k's captions hold commas that nobody quoted: such a line has no attributes.
            lines = [
                dict(zip(header, row, strict=True)) for row in reader if len(row) == len(header)
            ]
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise BadInput(
            f"{shown(str(path))} cannot be read: {why(error)}", "save it as UTF-8 text"
        ) from None
    for line in lines:
        if not isinstance(line, dict):
            continue
        lowered = {str(name).lower(): name for name in line}
        file = next((lowered[c] for c in captions.FILE_COLUMNS if c in lowered), None)
        if file is None or not isinstance(line[file], str):
            continue
        known = {file, *(lowered[c] for c in captions.CAPTION_COLUMNS if c in lowered)}
        yield (
            line[file].strip(),
            {
                str(name): str(value).strip().lower()
                for name, value in line.items()
                if name not in known
            },
        )


def is_attribute(values: Sequence[str]) -> bool:
    """Whether a column of lower-case texts is an attribute: some are known, and all fit."""
    return any(values) and all(value in _VALUES for value in values)


def signs(values: Sequence[str]) -> list[str]:
    """ "1", "-1" or "0" (unknown) for each of a column's texts."""
    signed = any(value.startswith("-1") for value in values)

    def sign(value: str) -> str:
        if value in _YES:
            return "1"
        if not value or (signed and value in _NO):
            return "0"
        return "-1"

    return [sign(value) for value in values]


def _classes(files: Sequence[str]) -> dict[str, list[str]]:
    """An attribute for each folder that pictures lie in."""
    folders = [PurePosixPath(file).parent.name for file in files]
    names = sorted({*folders})
    plain = {name.lower() for name in names}
    if not 2 <= len(names) <= MOST_CLASSES or "" in plain or plain & (_NOT_CLASSES | RESERVED):
        return {}
    return {name: ["1" if own == name else "-1" for own in folders] for name in names}
