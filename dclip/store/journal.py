"""What a stage has done so far, piece by piece, for the run that resumes it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Journal:
    """One JSON line a piece of work, added after the piece is on disk.

    It may know less than is there, as a kill can come between the two; the stage goes back to it.

    Args:
        path: below :attr:`dclip.store.Staging.scratch`.
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
        if not path.exists():
            return
        for line in path.read_bytes().splitlines(keepends=True):
            try:
                entry = json.loads(line)
            except ValueError:  # the line that a kill cut short
                break
            if not line.endswith(b"\n") or self.done + count(entry) > at_most:
                break
            self._take(entry)
            good += len(line)
        os.truncate(path, good)

    def add(self, **entry: Any) -> None:
        """Write an entry, of plain values."""
        line = json.dumps(entry)
        with self._path.open("ab") as file:
            file.write(line.encode() + b"\n")
        self._take(entry)

    def drop(self) -> None:
        """Forget everything, so that the store does not keep the draft to go on from."""
        self._path.unlink(missing_ok=True)

    def _take(self, entry: dict[str, Any]) -> None:
        self.entries.append(entry)
        self.done += self._count(entry)

    def column(self, name: str) -> list[Any]:
        """The lists of that name in all entries, joined."""
        return [value for entry in self.entries for value in entry[name]]
