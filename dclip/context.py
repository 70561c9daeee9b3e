"""How a stage runs, as opposed to what it computes: device, workers, reporting, force, dry run.

Nothing in here may change a stage's result beyond the device's own rounding, so none of it is
part of a cache key.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol


class Task(Protocol):
    """One piece of long work whose progress is shown."""

    def advance(self, n: int = 1, **stats: float) -> None:
        """Report ``n`` more units done, with current figures such as ``loss=0.12``."""


class Reporter(Protocol):
    """Where a stage says what it does; the command line shows it, a notebook may ignore it."""

    def task(
        self, description: str, total: int | None, *, unit: str = "img", done: int = 0
    ) -> AbstractContextManager[Task]:
        """Open a task of ``total`` units, ``done`` of which an earlier run finished."""

    def note(self, message: str) -> None:
        """Say something that the user wants to know, e.g. which artifact was taken."""

    def warn(self, message: str) -> None:
        """Say something that the user should act on."""


class _SilentTask:
    def advance(self, n: int = 1, **stats: float) -> None:
        pass


class Silent:
    """The reporter that reports nothing."""

    @contextmanager
    def task(
        self, description: str, total: int | None, *, unit: str = "img", done: int = 0
    ) -> Iterator[Task]:
        yield _SilentTask()

    def note(self, message: str) -> None:
        pass

    def warn(self, message: str) -> None:
        pass


@dataclass(frozen=True)
class Context:
    """The circumstances of one run of a stage.

    Attributes:
        device: ``"auto"`` (CUDA, then MPS, then CPU) or a torch device string.
        workers: processes or threads for data work.
        report: where progress, notes and warnings go.
        force: make a new version even where the work is unchanged.
        dry_run: raise :class:`dclip.store.Planned` with the plan instead of working.
    """

    device: str = "auto"
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    report: Reporter = field(default_factory=Silent)
    force: bool = False
    dry_run: bool = False
