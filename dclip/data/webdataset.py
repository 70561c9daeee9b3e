"""Tar files of samples, as webdataset writes them: ``name.jpg``, ``name.txt``, ``name.json``."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from dclip.context import Reporter, Silent
from dclip.data.captions import CAPTION_COLUMNS
from dclip.data.formats import SUFFIXES
from dclip.data.packed import Packed, columns_of, looked_through, mark_of
from dclip.data.paths import (
    MAX_FILE_BYTES,
    MAX_TEXT_BYTES,
    is_there,
    open_file,
    shown,
    user_path,
    why,
)
from dclip.data.source import Item
from dclip.errors import BadInput

_SILENT = Silent()
_BLOCK = 512  # of which a tar is made; a block of zeros ends it
_SQUEEZED = (".tgz", ".gz", ".bz2", ".xz", ".zst")


@dataclass(frozen=True)
class _Place:
    """Where a member's bytes lie."""

    tar: Path
    offset: int
    size: int


@dataclass
class _Sample:
    """The members of one sample, by what stands behind the first dot of their names."""

    picture: str = ""
    members: dict[str, _Place] = field(default_factory=dict)


def open_webdataset(
    root: Path | str,
    limit: int | None = None,
    report: Reporter = _SILENT,
    *,
    caption: str | None = None,
    shards: Sequence[Path] | None = None,
) -> Packed:
    """The samples of a tar file, or of all tar files of a folder, in the order of their names.

    A sample's members share what stands before the first dot: a picture, and beside it a caption
    (``.txt``), a class (``.cls``) and more columns (``.json``).

    Args:
        root: the file, or the folder of the shards.
        limit: only the first so many pictures.
        report: shown the progress.
        caption: the column of the captions: else by its name.
        shards: the files to read, in their order: else those of the folder.

    Raises:
        BadInput: no such file, a squeezed or damaged tar, no pictures, or a name twice.
    """
    place = user_path(root)
    if not is_there(place):
        raise BadInput(f"no such file or folder: {shown(str(place))}", "check the path")
    shards = [place] if place.is_file() else list(shards or sorted(place.glob("*.tar")))
    if not shards:
        squeezed = any(p.suffix in _SQUEEZED for p in place.iterdir())
        fix = "unpack the squeezed ones to .tar" if squeezed else "give the folder of the shards"
        raise BadInput(f"no .tar in {shown(str(place))}", fix)
    samples: dict[str, _Sample] = {}
    for shard in shards:
        for key, sample in _samples(shard).items():
            if key in samples:
                raise BadInput(
                    f"two shards have a sample {shown(key)}", "give shards of one data set"
                )
            samples[key] = sample
    pictures = {key: s for key, s in samples.items() if s.picture}
    if not pictures:
        raise BadInput(
            f"no pictures in {shown(str(place))}", "its members are to be NAME.jpg, NAME.txt"
        )
    notes = []
    if without := len(samples) - len(pictures):
        notes.append(f"samples without a picture, not used: {without}")
    keys = list(pictures)[:limit]
    table = _table([_known(pictures[key].members, key) for key in keys])
    columns, more = columns_of(table, caption=caption)
    files = {key: f"{key}.{pictures[key].picture}" for key in keys}
    places = {key: pictures[key].members[pictures[key].picture] for key in keys}
    marks = looked_through(
        len(keys), lambda i: mark_of(_bytes(places[keys[i]], files[keys[i]])), report
    )
    items = [Item(key, files[key], mark) for key, mark in zip(keys, marks, strict=True)]
    return Packed(
        place, items, columns, [*notes, *more], lambda item: _bytes(places[item.id], item.file)
    )


def _samples(shard: Path) -> dict[str, _Sample]:
    found: dict[str, _Sample] = {}
    try:
        with open_file(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            size, end = shard.stat().st_size, 0
            for member in tar:
                end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                if not member.isfile():
                    continue
                path = PurePosixPath(member.name)
                stem, _, suffix = path.name.partition(".")
                if not stem or path.name.startswith("."):
                    continue
                sample = found.setdefault(str(path.parent / stem), _Sample())
                suffix = suffix.lower()
                sample.members[suffix] = _Place(shard, member.offset_data, member.size)
                if f".{suffix.rpartition('.')[2]}" in SUFFIXES and not sample.picture:
                    sample.picture = suffix
            # tarfile takes a file that breaks off for one that ends.
            file.seek(min(end, size))
            if file.read(_BLOCK) != bytes(_BLOCK):
                raise tarfile.ReadError("it breaks off before its end")
    except (OSError, tarfile.TarError, ValueError, EOFError) as error:
        squeezed = shard.suffix in _SQUEEZED
        fix = "unpack it to .tar first" if squeezed else "download it again"
        raise BadInput(f"{shown(str(shard))} is not a whole tar: {why(error)}", fix) from None
    return found


def _bytes(place: _Place, name: str, most: int = MAX_FILE_BYTES) -> bytes:
    if place.size > most:
        raise BadInput(f"{shown(name)} is too large: {place.size >> 20} MB")
    try:
        with open_file(place.tar) as file:
            file.seek(place.offset)
            data = file.read(place.size)
    except OSError as error:
        raise BadInput(f"{shown(name)} cannot be read: {why(error)}", "check the tar") from None
    if len(data) != place.size:
        raise BadInput(f"{shown(name)} is cut off", "download the tar again")
    return data


def _known(members: Mapping[str, _Place], key: str) -> dict[str, Any]:
    """What the texts of a sample say."""
    row: dict[str, Any] = {}
    try:
        if "json" in members:
            read = json.loads(_bytes(members["json"], f"{key}.json", MAX_TEXT_BYTES))
            if isinstance(read, dict):
                row |= {str(k): v for k, v in read.items() if _plain(v)}
        for suffix, name in (("cls", "cls"), ("txt", "caption"), ("caption", "caption")):
            if suffix in members:
                text = _bytes(members[suffix], f"{key}.{suffix}", MAX_TEXT_BYTES).decode(
                    "utf-8-sig"
                )
                row[name] = int(text) if name == "cls" and text.strip().isdigit() else text.strip()
                if name == "caption":  # a text of its own goes before the table's
                    row = {k: v for k, v in row.items()
                           if k == "caption" or k.lower() not in CAPTION_COLUMNS}  # fmt: skip
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the texts of {shown(key)} cannot be read: {why(error)}",
                       "write them as UTF-8 and JSON") from None  # fmt: skip
    return row


def _plain(value: Any) -> bool:
    return (
        value is None
        or isinstance(value, str | int | float | bool)
        or (isinstance(value, list) and all(isinstance(v, str) for v in value))
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}
