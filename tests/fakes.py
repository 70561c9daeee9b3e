"""Stand-ins: a reporter that can interrupt the work as Ctrl-C would, and an integral of scipy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

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


def quad(function: Callable[[Tensor], Any], low: float, high: float, **_: Any) -> tuple[float]:
    """Stands in for scipy, which is not needed otherwise: the midpoint rule, very finely."""
    low, high = float(low), float(high)
    at = low + (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000 * (high - low)
    return (float(torch.as_tensor(function(at)).mean() * (high - low)),)
