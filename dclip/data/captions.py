"""Captions of a folder's pictures: a table, Hugging Face's metadata, or a text beside each."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dclip.data.formats import SUFFIXES
from dclip.data.paths import MAX_TEXT_BYTES, read_bytes, shown, why
from dclip.errors import BadInput

CAPTION_FILES = ("captions.csv", "captions.txt")

FILE_COLUMNS = ("file_name", "file", "filename", "image", "image_name", "image_id", "img", "path")
CAPTION_COLUMNS = ("caption", "text", "captions", "prompt", "description", "comment")
_BESIDE_BYTES = 2**20
_FIX = "write a header file,caption and a line for each picture"

Rows = Iterator[tuple[str, str]]


@dataclass(frozen=True)
class Captions:
    """A caption a picture, by file, and what to tell of the others."""

    by_file: Mapping[str, str]
    notes: tuple[str, ...]


def find_captions(
    root: Path,
    files: Sequence[str],
    metadata: Sequence[str],
    limit: int | None = None,
    column: str | None = None,
) -> Captions:
    """The captions of the pictures ``files`` below ``root``.

    From ``captions.csv`` or ``captions.txt`` in ``root`` (columns by their header; Flickr8k's
    layout, of several captions of a picture the first), else from Hugging Face's
    ``metadata.jsonl`` or ``metadata.csv`` in any folder, else from a ``.txt`` beside each picture.

    Args:
        metadata: which of Hugging Face's files there are, relative to ``root``.
        limit: only the first so many pictures are wanted.
        column: of the table: else the first of :data:`CAPTION_COLUMNS`.

    Raises:
        BadInput: a captions file that cannot be read, or that names none of the pictures; no such
            column, or no table.
    """
    notes: list[str] = []
    tables = [name for name in CAPTION_FILES if (root / name).is_file()]
    if tables:
        unused = [*tables[1:], *metadata]
        rows = _join(tables[:1], root, notes, column)
        place = tables[0]
    elif metadata:
        unused = []
        rows = _join(metadata, root, notes, column)
        place = metadata[0]
    elif column is not None:
        raise BadInput(
            f"there is no table in {shown(str(root))} that has a column for --caption",
            f"leave --caption out, or write {CAPTION_FILES[0]} there",
        )
    else:
        return _beside_each(root, files[:limit])
    if unused:
        notes.append(f"captions are taken from {place}, not from {', '.join(unused[:3])}")
    return _matched(root / place, files, files[:limit], rows, notes)


def _matched(
    place: Path,
    files: Sequence[str],
    wanted: Sequence[str],
    rows: list[tuple[str, str]],
    notes: list[str],
) -> Captions:
    named = Named(files)
    captions: dict[str, str] = {}
    more = nowhere = unclear = 0
    for name, caption in rows:
        found = named(name)
        if len(found) != 1:
            nowhere, unclear = nowhere + (not found), unclear + bool(found)
        elif found[0] in captions:
            more += 1
        else:
            captions[found[0]] = caption
    if not captions:
        raise BadInput(f"{shown(str(place))} names none of the pictures beside it", _FIX)
    without = sum(not captions.get(file) for file in wanted)
    if without:
        notes.append(f"{without} of {len(wanted)} pictures have no caption")
    for count, what in (
        (more, "further captions of the same pictures, not used"),
        (nowhere, "captions of pictures that are not there"),
        (unclear, "captions that fit several pictures of one name, not used"),
    ):
        if count:
            notes.append(f"{what}: {count}")
    return Captions(captions, tuple(notes))


class Named:
    """Which of some pictures the line of a table can mean."""

    def __init__(self, files: Sequence[str]) -> None:
        # macOS writes accents as two characters where the table may have one.
        self._exact = {_plain(file): file for file in files}
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for file in files:
            self._by_name[_plain(PurePosixPath(file).name)].append(file)

    def __call__(self, name: str) -> Sequence[str]:
        """The picture of that path, else those of that name: Flickr8k leaves its Images/ out."""
        key = _plain(name)
        return [self._exact[key]] if key in self._exact else self._by_name.get(key, [])


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _beside_each(root: Path, files: Sequence[str]) -> Captions:
    captions, unread = {}, []
    for file in files:
        try:
            data = read_bytes((root / file).with_suffix(".txt"), _BESIDE_BYTES)
            captions[file] = one_line(data.decode("utf-8-sig"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError):
            unread.append(file)
    notes = []
    if unread:
        notes.append(
            "captions beside pictures that cannot be read as UTF-8 text: "
            f"{len(unread)} ({shown(unread[0], 60)})"
        )
    captions = {file: text for file, text in captions.items() if text}
    if captions and len(captions) < len(files):
        notes.append(f"{len(files) - len(captions)} of {len(files)} pictures have no caption")
    return Captions(captions, tuple(notes))


def one_line(text: str) -> str:
    """A caption on one line, without what UTF-8 cannot hold (JSON can name half characters)."""
    return " ".join(text.split()).replace("\0", "").encode("utf-8", "replace").decode()


def _join(
    tables: Sequence[str], root: Path, notes: list[str], column: str | None
) -> list[tuple[str, str]]:
    rows = []
    for table in tables:
        folder = PurePosixPath(table).parent
        path = root / table
        try:
            text = read_bytes(path, MAX_TEXT_BYTES).decode("utf-8-sig")
            reader = _jsonl if path.suffix == ".jsonl" else _csv
            for name, caption in reader(path, text, notes, column):
                rows.append((normal(folder / name.replace("\\", "/")), one_line(caption)))
        except (OSError, ValueError, csv.Error) as error:
            raise BadInput(
                f"{shown(str(path))} cannot be read: {why(error)}", "save it as UTF-8 text"
            ) from None
    return rows


def normal(path: PurePosixPath) -> str:
    """A relative path without ``.`` and ``..`` in it: ``../images/a.png`` from ``text/``."""
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts:
            parts.pop()
        elif part not in ("..", "."):
            parts.append(part)
    return "/".join(parts)


def _several(path: Path, columns: Iterable[str], notes: list[str]) -> None:
    """Say which column the captions are of, where several could be."""
    taken, *others = columns
    if others:
        left = " and ".join(repr(each) for each in others)
        notes.append(
            f"captions are of the column {taken!r} of {shown(path.name)}, not of {left}:"
            " --caption names another"
        )


def _jsonl(path: Path, text: str, notes: list[str], column: str | None) -> Rows:
    known = CAPTION_COLUMNS if column is None else (column,)
    there: dict[str, None] = {}
    rows: list[tuple[str, dict[str, str]]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise _bad(path, number, "is not JSON") from None
        if not isinstance(row, dict):
            raise _bad(path, number, "is not a JSON object")
        name = next((row[c] for c in FILE_COLUMNS if isinstance(row.get(c), str)), None)
        if name is None:
            raise _bad(path, number, "has no file_name")
        there |= dict.fromkeys(row)
        rows.append((name, {c: row[c] for c in known if isinstance(row.get(c), str)}))
    columns = [c for c in known if any(c in captions for _, captions in rows)]
    if column is not None and not columns:
        raise _no_column(path, column, list(there))
    if not columns:
        return
    _several(path, columns, notes)
    for name, captions in rows:
        if columns[0] in captions:
            yield name, captions[columns[0]]


def _csv(path: Path, text: str, notes: list[str], column: str | None) -> Rows:
    lines = text.splitlines(keepends=True)
    if not lines:
        return
    mark = delimiter(lines[0])
    reader = csv.reader(lines, delimiter=mark)
    header: list[str] | None = None
    at, last = 0, 1
    for fields in reader:
        number = reader.line_num
        if not fields:
            continue
        if header is None:
            header = [field.strip().lower() for field in fields]
            if PurePosixPath(fields[0].strip()).suffix.lower() in SUFFIXES:
                header = ["file", "caption"]  # there is none
                if column is not None:
                    raise _no_column(path, column, [])
            else:
                at, last = _columns(path, header, column)
                if column is None:
                    able = [c for c in CAPTION_COLUMNS if c in header and c != header[at]]
                    _several(path, dict.fromkeys([header[last], *able]), notes)
                continue
        if len(fields) < len(header):
            wanted = shown(mark.join(header))
            raise _bad(path, number, f"has {len(fields)} columns, not {wanted}")
        # A caption with a comma that nobody quoted, as in Flickr8k, has taken fields too many.
        extra = len(fields) - len(header)
        if at > last:
            name, caption = fields[at + extra], fields[last : last + 1 + extra]
        else:
            name, caption = fields[at], fields[last : last + 1 + extra]
        yield name.strip(), mark.join(caption)


def delimiter(header: str) -> str:
    for mark in (",", "\t", "|", ";"):
        fields = [field.strip().strip('"').lower() for field in header.split(mark)]
        if len(fields) > 1 and any(field in FILE_COLUMNS for field in fields):
            return mark
    return ","


def _columns(path: Path, header: list[str], column: str | None) -> tuple[int, int]:
    """Which column is the file, and which the caption."""
    if column is not None and column.lower() not in header:
        raise _no_column(path, column, header)
    known = CAPTION_COLUMNS if column is None else (column.lower(),)
    file = next((header.index(c) for c in FILE_COLUMNS if c in header), None)
    caption = next((header.index(c) for c in known if c in header), None)
    if len(header) == 2:
        if file is None:
            file = 1 - caption if caption is not None else 0
        caption = 1 - file
    if file is None or caption is None or file == caption:
        raise BadInput(
            f"{shown(str(path))} line 1: which columns are the file and the caption? "
            f"It has {shown(', '.join(header))}",
            _FIX,
        )
    return file, caption


def _no_column(path: Path, column: str, names: Sequence[str]) -> BadInput:
    return BadInput(
        f"{shown(str(path))} has no column {shown(column)} for --caption",
        f"its columns are: {shown(', '.join(names))}" if names else "write a header line first",
    )


def _bad(path: Path, number: int, what: str) -> BadInput:
    return BadInput(f"{shown(str(path))} line {number} {what}", _FIX)
