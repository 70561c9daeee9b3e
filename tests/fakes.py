"""A reporter that keeps what it is told, and can interrupt the work as Ctrl-C would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dclip.context import Silent


class Stop(Silent):
    """Interrupts after so many advances, or at the end of a task that makes fewer.

    Attributes:
        began: what was done already at the start of each task.
        notes: what was noted.
        said: what was noted or warned of, in order.
    """

    def __init__(self, after: int | None = None) -> None:
        self.left = after
        self.began: list[int] = []
        self.notes: list[str] = []
        self.said: list[str] = []

    @contextmanager
    def task(
        self, description: str, total: int | None, *, unit: str = "img", done: int = 0
    ) -> Iterator[Any]:
        self.began.append(done)
        yield self
        if self.left:
            raise KeyboardInterrupt

    def advance(self, n: int = 1, **stats: float) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    def note(self, message: str) -> None:
        self.notes.append(message)
        self.said.append(message)

    def warn(self, message: str) -> None:
        self.said.append(message)
