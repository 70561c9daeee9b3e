"""What a stage has done so far, piece by piece, for the run that resumes it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dclip.store.ledger import Evidence, Record, Watch, payload_of
from dclip.store.reading import checked, unchecked


class Journal:
    """One line a piece of work, added after the piece is on disk.

    It may know less than is there, as a kill can come between the two; the stage goes back to it.
    A line carries a checksum of itself and the hashes of the payload files that changed with its
    piece. Before work resumes, the store cuts the journal back to the last line whose files are
    what they were.

    Args:
        path: below :attr:`dclip.store.Staging.scratch`, with the suffix ``.jsonl``.
        count: how much of the work an entry stands for, e.g. its pictures.
        at_most: how much of the work is on disk; entries beyond it do not count.

    Attributes:
        entries: all that count, in order.
        done: the sum of their counts.
    """

    def __init__(
        self, path: Path, count: Callable[[dict[str, Any]], int], at_most: float = math.inf
    ) -> None:
        self._path, self._count = path, count
        self.entries: list[dict[str, Any]] = []
        self.done = good = 0
        files: Record = {}
        for line, size in _lines(path):
            try:
                amount = count(line["entry"])
            except (KeyError, TypeError, ValueError, IndexError, AttributeError):
                break
            if self.done + amount > at_most:
                break
            self._take(line["entry"])
            _apply(files, line["files"])
            good += size
        if path.exists():
            os.truncate(path, good)
        payload = payload_of(path)
        self._watch = None if payload is None else Watch(payload, files)

    def add(self, **entry: Any) -> None:
        """Write an entry, of plain values."""
        changes = {} if self._watch is None else self._watch.changes()
        line = checked({"entry": entry, "files": changes})
        with self._path.open("ab") as file:
            file.write(line + b"\n")
        self._take(entry)

    def drop(self) -> None:
        """Forget everything, so that the store does not keep the work to go on from."""
        self._path.unlink(missing_ok=True)

    def _take(self, entry: dict[str, Any]) -> None:
        self.entries.append(entry)
        self.done += self._count(entry)

    def column(self, name: str) -> list[Any]:
        """The lists of that name in all entries, joined."""
        return [value for entry in self.entries for value in entry[name]]


def _lines(path: Path) -> list[tuple[dict[str, Any], int]]:
    """The sound lines from the beginning on, each with its bytes."""
    found = []
    if path.is_file():
        for line in path.read_bytes().splitlines(keepends=True):
            try:
                body = unchecked(line.removesuffix(b"\n"))
            except ValueError:  # the line that a kill cut short, or damage
                break
            if not line.endswith(b"\n"):
                break
            found.append((body, len(line)))
    return found


def _apply(files: Record, changes: dict[str, list[Any] | None]) -> None:
    for name, value in changes.items():
        if value is None:
            files.pop(name, None)
        else:
            files[name] = value


def repair(path: Path, payload: Path) -> tuple[int, set[str]]:
    """Cut a journal back to the last line that counts only on files that are what they were.

    Returns:
        how many lines were dropped because of damage, and the payload files that the rest knows.
    """
    if not path.is_file():
        return 0, set()
    lines = _lines(path)
    evidence = Evidence(payload, [line["files"] for line, _ in lines])
    files: Record = {}
    holding: dict[str, bool] = {}
    sound = 0
    known: set[str] = set()
    for number, (line, _) in enumerate(lines, 1):
        _apply(files, line["files"])
        for name, value in line["files"].items():
            if value is None:
                holding.pop(name, None)
            else:
                holding[name] = evidence.holds(name, value)
        if all(holding.values()):
            sound, known = number, set(files)
    raw = path.read_bytes()
    written = raw.count(b"\n")
    os.truncate(path, sum(size for _, size in lines[:sound]))
    return written - sound, known | evidence.renamed
