"""CelebA's lists: what is said of each picture, checked line by line.

Three layouts are read: the official text files, CSV copies of them, and CelebAMask-HQ's list.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from dclip.data.paths import shown
from dclip.data.table import NUMBER_COLUMNS, TEXT_COLUMNS
from dclip.errors import BadInput

PARTITIONS: Mapping[str, str] = {"0": "train", "1": "val", "2": "test"}

LISTS = ("identity_CelebA", "list_eval_partition", "list_attr_celeba")
"""The lists that are used, in the order of their columns."""

HQ_LIST = "CelebAMask-HQ-attribute-anno"
"""The attributes of CelebA-HQ, as CelebAMask-HQ has them."""

OTHER_LISTS = (
    "list_bbox_celeba", "list_landmarks_celeba", "list_landmarks_align_celeba",
    "CelebA-HQ-to-CelebA-mapping", "CelebAMask-HQ-pose-anno",
)  # fmt: skip
"""Lists of what is not used here."""

PICTURES = (".jpg", ".jpeg", ".png")

_AGAIN = "download the list again, or remove it to prepare without"
_MOST_NAMES = 1000


@dataclass(frozen=True)
class ListFile:
    """A list as it was found: where, and its bytes."""

    name: str
    data: bytes

    @property
    def stem(self) -> str:
        return PurePath(self.name).stem

    @property
    def is_csv(self) -> bool:
        return PurePath(self.name).suffix.lower() == ".csv"

    def bad(self, number: int, why: str) -> BadInput:
        return BadInput(f"{shown(self.name)} line {number}: {why}", _AGAIN)


def picture_stem(name: str) -> str | None:
    """A picture's name without its suffix; None for what is not a picture's name.

    pathlib would do the same, and take seconds for the 200,000.
    """
    stem, _, suffix = name.rpartition(".")
    return stem if stem and f".{suffix.lower()}" in PICTURES else None


def unpadded(stem: str) -> str:
    """CelebA-HQ's number of a picture, which copies write as 7 or as 00007."""
    return stem.lstrip("0") or "0"


def read_lists(
    lists: Sequence[ListFile],
    rows: Mapping[str, int],
    notes: list[str],
    key: Callable[[str], str] = str,
) -> dict[str, list[str]]:
    """The columns of all lists: ``identity``, ``partition``, and the attributes as "1"/"-1".

    Args:
        lists: what was found.
        rows: the pictures' stems, and the place of each.
        notes: gets a line for what was read in a way that the user may not expect.
        key: what makes a list's stem one of ``rows``.

    Raises:
        BadInput: a list that is not CelebA's, is cut, or is damaged in a row that is wanted.
    """
    columns: dict[str, list[str]] = {}
    for each in lists:
        _check_text(each)
        look_up = _LookUp(rows, key)
        if each.stem == "identity_CelebA":
            found = {"identity": _read_one(each, look_up, notes, "a person's number", _person)}
        elif each.stem == "list_eval_partition":
            found = {"partition": _read_one(each, look_up, notes, "0, 1 or 2", PARTITIONS.get)}
        else:
            found = _read_attributes(each, look_up, notes)
        first = next(iter(found.values()))
        without = sum(not value for value in first)
        if without == len(rows):
            raise BadInput(
                f"{shown(each.name)} has no row for any of the {len(rows)} pictures",
                "give the list of these pictures, or remove it to prepare without",
            )
        if without:
            notes.append(f"{without} of {len(rows)} pictures have no row in {shown(each.name)}")
        columns.update(found)
    return columns


class _LookUp:
    """The place of a picture that a list names; None for one that is not there."""

    def __init__(self, rows: Mapping[str, int], key: Callable[[str], str]) -> None:
        self._rows = rows
        self._key = key

    def __len__(self) -> int:
        return len(self._rows)

    def __call__(self, stem: str) -> int | None:
        return self._rows.get(self._key(stem))


def _check_text(each: ListFile) -> None:
    begin = each.data[:200].lstrip(b"\xef\xbb\xbf \t\r\n")
    if begin.startswith(b"<"):
        raise BadInput(f"{shown(each.name)} is a web page, not CelebA's list", _AGAIN)
    if not begin:
        raise BadInput(f"{shown(each.name)} is empty", _AGAIN)
    if each.data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in each.data[:4096]:
        raise BadInput(f"{shown(each.name)} is not a text file", _AGAIN)


def _lines(each: ListFile) -> Iterator[tuple[int, str, list[str]]]:
    """Lines of a list, official (blank-separated) or CSV: number, first field, rest.

    The rest of an official line is one unsplit text: of 200,000 rows perhaps few are wanted. A
    byte that is no text stays one odd character, so that only a line that is wanted is refused.
    """
    text = each.data.decode("utf-8-sig", "surrogateescape")
    lines = text.split("\n")
    if each.is_csv:
        reader = csv.reader(line.rstrip("\r") for line in lines)
        try:
            for fields in reader:
                if fields:
                    yield reader.line_num, fields[0].strip(), fields[1:]
        except csv.Error as error:
            raise each.bad(reader.line_num, str(error)) from None
    else:
        for number, line in enumerate(lines, 1):
            first, *rest = line.split(None, 1) or [""]
            if first:
                yield number, first, rest


def _values(each: ListFile, rest: list[str]) -> list[str]:
    if each.is_csv:
        return [value.strip() for value in rest]
    return rest[0].split() if rest else []


def _read_attributes(each: ListFile, rows: _LookUp, notes: list[str]) -> dict[str, list[str]]:
    lines = _lines(each)
    number, first, rest = next(lines)
    count = None
    if not each.is_csv:
        # The official list: how many rows, then the names, then the rows.
        if rest or not _is_number(first):
            raise each.bad(number, f"not the number of rows but {shown(first, 40)!r}")
        count = int(first)
        number, first, rest = next(lines, (number + 1, "", []))
    names = _values(each, rest)
    if not each.is_csv:
        names = [first, *names]
    _check_names(each, number, names)
    found: list[list[str] | None] = [None] * len(rows)
    seen, met = 0, set()
    for number, first, rest in lines:
        stem = picture_stem(first)
        if stem is None:
            raise each.bad(number, f"begins with {shown(first, 40)!r}, not with a picture's name")
        seen += 1
        row = rows(stem)
        if row is None:
            continue
        values = _values(each, rest)
        if len(values) != len(names):
            raise each.bad(number, f"{len(values)} values for {len(names)} attributes")
        if found[row] is not None:
            raise each.bad(number, f"{shown(first, 40)} was there before")
        found[row] = values
        met.update(values)
        if not met <= {"1", "-1", "0"}:
            odd = next(value for value in values if value not in ("1", "-1", "0"))
            raise each.bad(number, f"a value is {shown(odd, 40)!r}, not 1 or -1")
    values = _values(each, rest)
    if seen and (len(values) != len(names) or values[-1] == "-"):
        raise each.bad(number, "the last row is not whole: the list was cut")
    if count is not None and count != seen:
        raise BadInput(
            f"{shown(each.name)} says {count} rows and has {seen}: it was cut or changed", _AGAIN
        )
    no = "0" if "0" in met and b"-1" not in each.data else "-1"
    if no == "0":
        notes.append(f"{shown(each.name)} has 0 where CelebA has -1: read as no")
    # One object for each value, not eight million.
    flags = {"1": "1", no: "-1", "0" if no == "-1" else "-1": "0"}
    unknown = [""] * len(names)
    columns = zip(*(unknown if v is None else [flags[x] for x in v] for v in found), strict=True)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}


def _check_names(each: ListFile, number: int, names: list[str]) -> None:
    """The header's names can be columns: words, each once, and none that means something else."""
    if not names or names == [""]:
        raise each.bad(number, "there are no names of attributes")
    if len(names) > _MOST_NAMES:
        raise each.bad(number, f"{len(names)} names of attributes")
    for name in names:
        if not name.isascii() or not name.replace("_", "").replace("-", "").isalnum():
            raise each.bad(number, f"{shown(name, 40)!r} is not the name of an attribute")
        if _is_number(name.lstrip("-")) or picture_stem(name) is not None:
            raise each.bad(number, f"the names of the attributes are missing: {shown(name, 40)!r}")
        if name in (*TEXT_COLUMNS, *NUMBER_COLUMNS):
            raise each.bad(number, f"an attribute may not be called {name!r}")
    if len(set(names)) < len(names):
        raise each.bad(number, "the name of an attribute is there twice")


def _read_one(
    each: ListFile,
    rows: _LookUp,
    notes: list[str],
    what: str,
    value_of: Callable[[str], str | None],
) -> list[str]:
    """A list of one value a picture."""
    column = [""] * len(rows)
    begun = False
    for number, first, rest in _lines(each):
        stem = picture_stem(first)
        if stem is None:
            # A CSV has a header; the official partition list's own count line is no row either.
            if begun or (not each.is_csv and (rest or not _is_number(first))):
                raise each.bad(number, f"not a picture and {what}")
            begun = True
            continue
        begun = True
        row = rows(stem)
        if row is None:
            continue
        values = _values(each, rest)
        value = value_of(values[0]) if len(values) == 1 else None
        if value is None:
            raise each.bad(number, f"not a picture and {what}")
        if column[row]:
            raise each.bad(number, f"{shown(first, 40)} was there before")
        column[row] = value
    if not each.data.endswith((b"\n", b"\r")):
        notes.append(f"{shown(each.name)} ends within a line: it may have been cut")
    return column


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _person(text: str) -> str | None:
    return text if _is_number(text) else None
