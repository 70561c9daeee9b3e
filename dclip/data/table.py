"""``samples.csv``: what is known of each sample, as columns that can be asked."""

from __future__ import annotations

import csv
import difflib
import io
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dclip.data.paths import open_file, why
from dclip.errors import BadInput, CorruptArtifact
from dclip.store import atomic

TEXT_COLUMNS = ("index", "id", "split", "file", "style", "caption", "pair", "identity", "partition")
"""Columns with a meaning of their own, in the order in which they are written."""

NUMBER_COLUMNS = ("psnr", "mae")
"""Columns of measurements. Every other column is an attribute: 1, -1, or 0 where unknown."""

_NAMES = "surrogateescape"  # a file's name need not be UTF-8, and must come through all the same

SPLITS = ("train", "val", "test")


class SampleTable:
    """The rows of a ``samples.csv``, kept as columns.

    Args:
        path: the file.

    Raises:
        CorruptArtifact: missing, without its ``id`` column, or with a row of another length.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._text: dict[str, list[str]] = {}
        self._numbers: dict[str, NDArray[np.float64]] = {}
        self._attributes: dict[str, NDArray[np.int8]] = {}
        try:
            with open_file(self.path) as raw:
                self._read(csv.reader(io.TextIOWrapper(raw, "utf-8", _NAMES, newline="")))
        except FileNotFoundError:
            raise CorruptArtifact(f"{self.path} is missing", "make the artifact again") from None
        except (OSError, ValueError, csv.Error, StopIteration) as error:
            raise CorruptArtifact(
                f"{self.path} cannot be read: {why(error)}", "make the artifact again"
            ) from None

    def _read(self, rows: Any) -> None:
        header: list[str] = next(rows)
        if "id" not in header:
            raise ValueError("there is no id column")
        text = [(i, name) for i, name in enumerate(header) if name in TEXT_COLUMNS]
        numbers = [(i, name) for i, name in enumerate(header) if name in NUMBER_COLUMNS]
        known = {*TEXT_COLUMNS, *NUMBER_COLUMNS}
        attributes = [(i, name) for i, name in enumerate(header) if name not in known]
        texts: list[list[str]] = [[] for _ in text]
        values: list[list[float]] = [[] for _ in numbers]
        # 200,000 rows of 40 attributes: one signed byte each, not one Python object.
        flags = array("b")
        to_flag = {"1": 1, "-1": -1, "0": 0, "": 0}
        count = 0
        for row in rows:
            if len(row) != len(header):
                raise ValueError(f"row {count + 2} has {len(row)} fields, not {len(header)}")
            for (i, _), column in zip(text, texts, strict=True):
                column.append(row[i])
            for (i, _), measured in zip(numbers, values, strict=True):
                measured.append(float(row[i] or "nan"))
            try:
                flags.extend([to_flag[row[i]] for i, _ in attributes])
            except KeyError as error:
                raise ValueError(f"row {count + 2}: attribute value {error}") from None
            count += 1
        self._count = count
        self._text = {name: column for (_, name), column in zip(text, texts, strict=True)}
        self._numbers = {
            name: np.array(column, dtype=np.float64)
            for (_, name), column in zip(numbers, values, strict=True)
        }
        table = np.frombuffer(flags, dtype=np.int8) if count else np.empty(0, dtype=np.int8)
        table = table.reshape(count, len(attributes))
        self._attributes = {
            name: np.ascontiguousarray(table[:, j]) for j, (_, name) in enumerate(attributes)
        }

    def __len__(self) -> int:
        return self._count

    @property
    def ids(self) -> list[str]:
        """The samples' ids, unique, in the array's order."""
        return self._text["id"]

    @property
    def attribute_names(self) -> tuple[str, ...]:
        return tuple(self._attributes)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that :meth:`where` can ask for."""
        return (*self._text, *self._numbers, *self._attributes)

    def text(self, name: str) -> list[str]:
        """A text column; empty strings where the file has no such column."""
        if name not in TEXT_COLUMNS:
            raise self._unknown(name)
        return self._text.get(name) or [""] * len(self)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column of measurements, NaN where empty.

        Raises:
            BadInput: there is no such column.
        """
        if name not in self._numbers:
            raise self._unknown(name)
        return self._numbers[name]

    def attribute(self, name: str) -> NDArray[np.int8]:
        """An attribute: 1 yes, -1 no, 0 unknown.

        Raises:
            BadInput: there is no such attribute; names the nearest.
        """
        if name not in self._attributes:
            raise self._unknown(name)
        return self._attributes[name]

    def split(self, name: str) -> NDArray[np.int64]:
        """Sample numbers of "train", "val", "test", or "all".

        Raises:
            BadInput: another name.
        """
        if name == "all":
            return np.arange(len(self), dtype=np.int64)
        if name not in SPLITS:
            raise BadInput(f"unknown split {name!r}", f"use one of: {' '.join(SPLITS)} all")
        return np.flatnonzero(np.array(self.text("split")) == name).astype(np.int64)

    def where(self, *conditions: str) -> NDArray[np.int64]:
        """Sample numbers that meet every condition.

        Args:
            conditions: ``NAME=VALUE`` or ``NAME!=VALUE`` over attributes and text columns, e.g.
                ``"Smiling=1"``, ``"Male=-1"``, ``"split=val"``, ``"identity=2880"``.

        Raises:
            BadInput: not of that form, or no such column.
        """
        keep = np.ones(len(self), dtype=np.bool_)
        for condition in conditions:
            name, equals, value = condition.partition("=")
            negated = name.endswith("!")
            name, value = name.rstrip("!").strip(), value.strip()
            if not equals or not name:
                raise BadInput(f"cannot read the condition {condition!r}", "write e.g. Smiling=1")
            if name in self._attributes:
                if value not in ("1", "-1", "0"):
                    raise BadInput(
                        f"{name} is 1 (yes), -1 (no) or 0 (unknown), not {value!r}",
                        f"write {name}=1 or {name}=-1",
                    )
                match = self._attributes[name] == int(value)
            elif name in self._text:
                match = np.array(self._text[name]) == value
            else:
                raise self._unknown(name)
            keep &= ~match if negated else match
        return np.flatnonzero(keep).astype(np.int64)

    def take(self, indices: NDArray[np.int64] | Sequence[int]) -> dict[str, list[Any]]:
        """The chosen rows as columns, ready for :func:`write_table`; ``index`` counts anew."""
        rows = [int(i) for i in indices]
        columns: dict[str, list[Any]] = {
            name: [column[i] for i in rows] for name, column in self._text.items()
        }
        columns["index"] = list(range(len(rows)))
        for name, numbers in self._numbers.items():
            columns[name] = numbers[rows].tolist()
        for name, flags in self._attributes.items():
            columns[name] = flags[rows].tolist()
        return columns

    def _unknown(self, name: str) -> BadInput:
        known = [c for c in self.columns if c not in ("index", "file")]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:12]
        return BadInput(f"the data has no {name!r}", f"known here: {', '.join(near)}")


def ordered(names: Iterable[str]) -> list[str]:
    """Columns of ``samples.csv`` in the order in which they are written."""
    given = list(names)
    first = [name for name in (*TEXT_COLUMNS, *NUMBER_COLUMNS) if name in given]
    return [*first, *(name for name in given if name not in first)]


def write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write a CSV of equally long columns that is either complete or not there.

    Known columns come first, in their own order, the rest as given, so that equal content is
    equal bytes.

    Raises:
        ValueError: columns of different lengths.
    """
    if len({len(column) for column in columns.values()}) > 1:
        raise ValueError("columns of different lengths")
    names = ordered(columns)
    write_csv(path, names, zip(*(columns[name] for name in names), strict=True))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV that is either complete or not there, row by row.

    UTF-8 with ``\\n`` at the end of lines; a file's name that is not UTF-8 keeps its bytes.

    Args:
        path: the file; missing folders are made.
        header: the columns' names.
        rows: of as many values each.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part, part.open("w", encoding="utf-8", errors=_NAMES, newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        # Python's csv before 3.13 does not quote \r, at which it ends a row when it reads.
        quoting = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(header)
        for row in rows:
            texts = [_text(value) for value in row]
            (quoting if any("\r" in text for text in texts) else writer).writerow(texts)


def _text(value: Any) -> str:
    text = str(value)
    if text.isascii():
        return text
    try:
        text.encode("utf-8", _NAMES)
    except UnicodeEncodeError:  # half of a character pair, as JSON and Windows can hold
        return text.encode("utf-8", "replace").decode()
    return text
