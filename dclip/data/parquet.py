"""Parquet files of pictures, as Hugging Face's datasets writes them."""

from __future__ import annotations

import json
import threading
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dclip.context import Reporter, Silent
from dclip.data.packed import Packed, columns_of, mark_of, number
from dclip.data.paths import is_there, open_file, shown, user_path, why
from dclip.data.source import Item
from dclip.errors import BadInput

PICTURES = ("image", "img", "picture", "jpg", "png", "pixel_values")
_SILENT = Silent()


@dataclass(frozen=True)
class _Group:
    """A row group of a file, and the number of its first row in all."""

    file: Path
    index: int
    first: int


class _Reader:
    """The encoded pictures by row; the last row group of each thread is kept."""

    def __init__(self, groups: Sequence[_Group], column: str) -> None:
        self.groups, self.column = groups, column
        self._local = threading.local()

    def cells(self, group: _Group) -> list[Any]:
        if getattr(self._local, "group", None) is not group:
            import pyarrow.parquet as pq

            try:
                with pq.ParquetFile(group.file) as file:
                    table = file.read_row_group(group.index, columns=[self.column])
            except Exception as error:  # pyarrow raises what its codecs raise
                raise BadInput(
                    f"{shown(str(group.file))} is damaged: {why(error)}", "download it again"
                ) from None
            self._local.rows = table.column(0).to_pylist()
            self._local.group = group
        rows: list[Any] = self._local.rows
        return rows

    def read(self, row: int) -> bytes:
        group = self.groups[bisect_right(self.groups, row, key=lambda g: g.first) - 1]
        data = _encoded(self.cells(group)[row - group.first])
        if data is None:
            raise BadInput(f"row {row} names a picture outside the file", "save it with its bytes")
        return data


def open_parquet(
    root: Path | str,
    limit: int | None = None,
    report: Reporter = _SILENT,
    *,
    column: str | None = None,
    caption: str | None = None,
    shards: Sequence[Path] | None = None,
) -> Packed:
    """The pictures of a parquet file, or of all those below a folder, in the order of their names.

    Pictures are a column of encoded bytes, or of Hugging Face's ``{"bytes", "path"}``. The other
    columns are captions, classes and attributes, by :func:`dclip.data.packed.columns_of`; the
    names of classes are read from Hugging Face's own description.

    Args:
        root: the file, or the folder of the shards.
        limit: only the first so many pictures.
        report: shown the progress.
        column: the column of the pictures: else the one that can only be it.
        caption: the column of the captions: else by its name.
        shards: the files to read, in their order: else all below ``root``.

    Raises:
        BadInput: pyarrow is not installed, no such file, or one without pictures, or damaged.
    """
    check_pyarrow()
    import pyarrow.parquet as pq

    place = user_path(root)
    if not is_there(place):
        raise BadInput(f"no such file or folder: {shown(str(place))}", "check the path")
    files = [place] if place.is_file() else list(shards or sorted(place.rglob("*.parquet")))
    if not files:
        raise BadInput(f"no .parquet in {shown(str(place))}", "give the folder of the shards")
    groups: list[_Group] = []
    table: dict[str, list[Any]] = {}
    names: dict[str, list[str]] = {}
    pictures, rows = "", 0
    for path in files:
        try:
            open_file(path).close()  # a pipe would keep us for ever
            with pq.ParquetFile(path) as file:
                schema = file.schema_arrow
                found = _picture_column(schema, path, column)
                if pictures not in ("", found):
                    raise BadInput(
                        f"{shown(path.name)} has its pictures in {found}, not in {pictures}",
                        "give the shards of one data set",
                    )
                pictures, names = found, names | _class_names(schema)
                others = [name for name in schema.names if name != pictures]
                known = file.read(columns=others).to_pydict() if others else {}
                count = file.metadata.num_rows
                first = rows
                for index in range(file.num_row_groups):
                    groups.append(_Group(path, index, first))
                    first += file.metadata.row_group(index).num_rows
        except BadInput:
            raise
        except Exception as error:  # pyarrow raises what its codecs raise
            raise BadInput(
                f"{shown(str(path))} is no whole parquet file: {why(error)}", "download it again"
            ) from None
        for name in {*table, *others}:
            before = table.setdefault(name, [None] * rows)
            before += known.get(name, [None] * count)
        rows += count
    total = rows if limit is None else min(rows, limit)
    if not total:
        raise BadInput(f"{shown(str(place))} has no rows", "give a data set with pictures")
    reader = _Reader(groups, pictures)
    items, left_out = _items(reader, total, report)
    kept = [int(item.id) for item in items]
    if not items:
        raise BadInput(
            f"the pictures of {shown(str(place))} are not in the file, only their paths",
            "give the folder of the pictures, or save the data set with their bytes",
        )
    columns, notes = columns_of(
        {n: [values[i] for i in kept] for n, values in table.items()}, names, caption
    )
    return Packed(place, items, columns, notes, lambda item: reader.read(int(item.id)), left_out)


def check_pyarrow() -> None:
    """Raise BadInput where parquet files cannot be read."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise BadInput(
            "parquet files need the package pyarrow", "pip install 'dclip[parquet]'"
        ) from None


def _items(reader: _Reader, total: int, report: Reporter) -> tuple[list[Item], dict[str, str]]:
    """The pictures, and rows that hold none."""
    items: list[Item] = []
    left_out: dict[str, str] = {}
    with report.task("look through", total, unit="img") as task:
        for group in reader.groups:
            if group.first >= total:
                break
            for row, cell in enumerate(reader.cells(group)[: total - group.first], group.first):
                path = cell.get("path") if isinstance(cell, dict) else None
                name = f"{number(row)}{PurePosixPath(path or '.png').suffix or '.png'}"
                data = _encoded(cell)
                if data is None:
                    left_out[name] = "the row holds no picture: save the data set with their bytes"
                else:
                    items.append(Item(number(row), name, mark_of(data)))
                task.advance(1)
    return items, left_out


def _encoded(cell: Any) -> bytes | None:
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    return bytes(data) if isinstance(data, bytes | bytearray) and data else None


def _picture_column(schema: Any, path: Path, wanted: str | None) -> str:
    import pyarrow as pa

    def holds(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return any(field.name == "bytes" for field in kind)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    able = [field.name for field in schema if holds(field.type)]
    if wanted is not None:
        if wanted in able:
            return wanted
        raise BadInput(
            f"{shown(path.name)} has no pictures in a column {shown(wanted)}",
            f"columns that can hold some: {shown(', '.join(able)) or 'none'}",
        )
    for name in PICTURES:
        if name in able:
            return name
    if len(able) == 1:
        return str(able[0])
    raise BadInput(
        f"{shown(path.name)} has the columns {shown(', '.join(schema.names))}: none is"
        + (" surely" if able else "") + " of pictures",
        "name the column of encoded pictures with --column" if able
        else "give a data set with the encoded pictures in it",
    )  # fmt: skip


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Names of classes as Hugging Face writes them into the file."""
    try:
        said = json.loads((schema.metadata or {})[b"huggingface"])
        features = said["info"]["features"]
        return {
            name: [str(text) for text in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError):
        return {}
