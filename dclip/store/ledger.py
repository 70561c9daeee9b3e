"""What the payload of unfinished work held when a piece of it was noted as done.

A journal entry or a checkpoint counts on files that were written before it. Each carries a record
of them, path -> [bytes, SHA-256], by which the next run knows whether they are still what they
were. A file that only grew since is sound, as its beginning is what was recorded.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dclip.store import files as disk

Record = dict[str, list[Any]]  # path below the payload -> [bytes, SHA-256 in hex]


def payload_of(scratch_file: Path) -> Path | None:
    """The payload folder beside the scratch folder that a file is in; None outside of a store."""
    payload = scratch_file.parent.parent / "payload"
    inside = scratch_file.parent.name == "scratch" and payload.is_dir()
    return payload if inside else None


class Watch:
    """The payload's files as they change from one record to the next."""

    def __init__(self, payload: Path, recorded: Mapping[str, list[Any]] | None = None) -> None:
        self._payload = payload
        self._marks: dict[str, tuple[int, ...]] = {}
        for path, info in disk.walk(payload):
            if recorded is not None and recorded.get(path, [None])[0] == info.st_size:
                self._marks[path] = _mark(info)

    def changes(self) -> dict[str, list[Any] | None]:
        """A record of every file that is new or changed since the last call; None for one gone."""
        found: dict[str, list[Any] | None] = {}
        there = dict(disk.walk(self._payload))
        for path, info in there.items():
            if not path.rpartition("/")[2].startswith(disk.PART) and (
                self._marks.get(path) != _mark(info)
            ):
                file = self._payload / path
                found[path] = [info.st_size, prefixes(file, [info.st_size])[info.st_size]]
                self._marks[path] = _mark(info)
        for path in set(self._marks) - set(there):
            found[path] = None
            del self._marks[path]
        return found


def _mark(info: os.stat_result) -> tuple[int, ...]:
    return (info.st_size, info.st_mtime_ns, info.st_ino)


def record(payload: Path) -> Record:
    """A record of all the payload's files."""
    return {path: value for path, value in Watch(payload).changes().items() if value is not None}


def prefixes(path: Path, sizes: Iterable[int]) -> dict[int, str]:
    """SHA-256 in hex of the first so many bytes of a file, for each size that it has."""
    found: dict[int, str] = {}
    digest, at = hashlib.sha256(), 0
    try:
        with path.open("rb") as stream:
            for size in sorted(set(sizes)):
                while at < size and (block := stream.read(min(1 << 20, size - at))):
                    digest.update(block)
                    at += len(block)
                if at < size:
                    break
                found[size] = digest.copy().hexdigest()
    except OSError:
        return {}
    return found


class Evidence:
    """Whether recorded files are in the payload now; each is read once.

    Args:
        payload: the folder.
        records: all that will be asked about.
    """

    def __init__(self, payload: Path, records: Iterable[Mapping[str, list[Any] | None]]) -> None:
        self._payload = payload
        self.there = dict(disk.walk(payload))
        sizes: dict[str, set[int]] = {}
        for each in records:
            for path, value in each.items():
                if value is not None:
                    sizes.setdefault(path, set()).add(int(value[0]))
        self._hashes = {
            path: prefixes(payload / path, wanted)
            for path, wanted in sizes.items()
            if path in self.there and disk.regular(self.there[path])
        }
        self._new = [path for path in self.there if path not in sizes]
        self.renamed: set[str] = set()

    def holds(self, path: str, value: list[Any]) -> bool:
        """Whether a file begins with what was recorded of it."""
        size, sha256 = int(value[0]), str(value[1])
        if path in self._hashes:
            return self._hashes[path].get(size) == sha256
        # A shard is given its final name when it is full, which may be after the last record.
        for other in self._new:
            info = self.there[other]
            if not disk.regular(info) or info.st_size < size:
                continue
            if prefixes(self._payload / other, [size]).get(size) == sha256:
                self.renamed.add(other)
                return True
        return False
