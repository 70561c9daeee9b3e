"""The loop that trainings share: updates that survive a kill, statistics, progress."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from dclip.context import Reporter
from dclip.errors import DclipError
from dclip.models.ema import EMA
from dclip.models.state import StatsLog, load_state, save_state
from dclip.store import Staging

CHECKPOINT_SECONDS = 60.0
READ_EVERY = {"cpu": 1, "cuda": 16, "mps": 16}
"""Updates between two readings of losses, by kind of device: each reading waits for it."""


def warm_cosine(lr: float, step: int, updates: int, warmup: int, floor: float) -> float:
    """The rate of an update: up to ``lr`` over the warm-up, down a cosine to ``floor`` times it."""
    fallen = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / updates))
    return lr * min(1.0, (step + 1) / warmup) * fallen


def decay_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: gains and biases without weight decay."""
    return [
        {"params": [p for p in network.parameters() if p.ndim > 1]},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]


class Loop:
    """A given number of updates, from where an interrupted run of the same work stopped.

    A training asks for :meth:`rounds` and in each of them makes one update or several: gradients,
    then :meth:`update`, then :meth:`add` for the statistics. State is saved between rounds, since
    later updates of a round may depend on its earlier ones.

    Args:
        staging: where the state (``scratch``) and ``logs/stats.jsonl`` are.
        updates: how many in all.
        images: pictures an update sees; progress counts pictures.
        modules: networks being trained, by role.
        optimizer: of their parameters.
        limit: largest gradient norm of an update.
        ema: a moving average of the only module.
        counters: what is saved beside the step, JSON-able, with its first values.
        log_every: one of so many updates is logged, and the last.

    Attributes:
        counters: as last saved or as given; the caller's to change.
        stats: the statistics of all updates so far.
    """

    def __init__(
        self,
        staging: Staging,
        *,
        updates: int,
        images: int,
        modules: Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        limit: float,
        ema: EMA | None = None,
        counters: Mapping[str, Any] | None = None,
        log_every: int = 1,
    ) -> None:
        self.log_every = log_every
        self.updates, self.images, self.limit = updates, images, limit
        self.modules, self.optimizer, self.ema = modules, optimizer, ema
        self.checkpoint = staging.scratch / "state.safetensors"
        self.counters: dict[str, Any] = {"step": 0, **(counters or {})}
        if found := load_state(self.checkpoint, modules=modules, optimizer=optimizer):
            self.counters, extra = found
            if ema is not None:
                ema.load_state_dict(extra["ema"])
        self.stats = StatsLog(staging.path / "logs" / "stats.jsonl", self.step)
        self._device = next(p.device for m in modules.values() for p in m.parameters())
        self._read_every = READ_EVERY[self._device.type]
        self._unchecked: list[tuple[int, Tensor]] = []
        self._rows: list[_Row] = []
        self._shown: dict[str, float] = {}

    @property
    def step(self) -> int:
        """Updates made so far."""
        return int(self.counters["step"])

    @property
    def done(self) -> bool:
        """Whether all updates are made."""
        return self.step >= self.updates

    def rounds(self, report: Reporter, title: str) -> Generator[int, None, None]:
        """The step at the start of every round; between rounds the state is saved when due.

        After Ctrl-C the round ends and the state is saved; a second one stops at once. Close the
        generator (``contextlib.closing``), which restores the handling of Ctrl-C.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
        """
        self._last = saved = time.monotonic()
        start = self.step * self.images
        with (
            report.task(title, self.updates * self.images, done=start) as self._task,
            _patient_interrupt(report) as interrupted,
        ):
            while not self.done:
                yield self.step
                stop = interrupted.is_set()
                if time.monotonic() - saved > CHECKPOINT_SECONDS or self.done or stop:
                    self._read(tuple(self._shown))
                    extra = {} if self.ema is None else {"ema": self.ema.state_dict()}
                    save_state(
                        self.checkpoint,
                        self.counters,
                        modules=self.modules,
                        optimizer=self.optimizer,
                        extra=extra,
                    )
                    saved = time.monotonic()
                if stop:
                    raise KeyboardInterrupt

    def update(self, loss: Tensor) -> None:
        """Clip the gradients and make the optimizer's step.

        On an accelerator whether they were finite is read with the statistics, every
        :data:`READ_EVERY` updates, since each reading waits for the device.

        Args:
            loss: whose gradients they are, a scalar.

        Raises:
            DclipError: it or a gradient is not finite; no later state is saved.
        """
        parameters = chain.from_iterable(m.parameters() for m in self.modules.values())
        norm = nn.utils.clip_grad_norm_(list(parameters), self.limit)
        self._unchecked.append((self.step + 1, torch.stack([loss.detach().float(), norm.float()])))
        if self._read_every == 1:
            self._check()
        self.optimizer.step()
        if self.ema is not None:
            (model,) = self.modules.values()
            self.ema.update(model)
        self.counters["step"] += 1

    def add(self, row: Mapping[str, float | Tensor], show: tuple[str, ...] = ("loss",)) -> None:
        """Log the figures of the update just made, and show some of them beside the progress.

        Args:
            row: scalars by name.
            show: names of those to show.
        """
        now = time.monotonic()
        seconds, self._last = round(now - self._last, 4), now
        self._rows.append(_Row(self.step, dict(row), seconds))
        if self.step % self._read_every == 0 or self.done:
            self._read(show)
        self._task.advance(self.images, **self._shown)

    def _check(self) -> None:
        """Refuse losses and gradients that were not finite; waits for the device once."""
        if not self._unchecked:
            return
        steps = [step for step, _ in self._unchecked]
        values = torch.stack([value for _, value in self._unchecked]).tolist()
        self._unchecked.clear()
        for step, pair in zip(steps, values, strict=True):
            for what, value in zip(("loss", "gradient"), pair, strict=True):
                if not math.isfinite(value):
                    raise DclipError(
                        f"the {what} became {value} at update {step}",
                        "train again with a lower rate, e.g. --lr"
                        f" {self.optimizer.defaults['lr'] / 4:g}, or with --precision fp32",
                    )

    def _read(self, show: tuple[str, ...]) -> None:
        """Write the figures of the updates since the last reading; waits for the device once."""
        self._check()
        tensors = [v for row in self._rows for v in row.figures.values() if isinstance(v, Tensor)]
        values = iter(
            torch.stack([v.detach().to(self._device, torch.float32) for v in tensors]).tolist()
            if tensors
            else []
        )
        for row in self._rows:
            figures = {
                name: next(values) if isinstance(value, Tensor) else float(value)
                for name, value in row.figures.items()
            }
            self._shown = {name: figures[name] for name in show}
            if row.step % self.log_every == 0 or row.step >= self.updates:
                images = row.step * self.images
                self.stats.add(step=row.step, images=images, **figures, seconds=row.seconds)
        self._rows.clear()


@dataclass(frozen=True)
class _Row:
    """The figures of one update, some of them still on the device."""

    step: int
    figures: dict[str, float | Tensor]
    seconds: float


@contextmanager
def _patient_interrupt(report: Reporter) -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; the second raises as ever.

    Only signals that raise KeyboardInterrupt are taken (the command line makes SIGTERM one of
    them), and only in the main thread, which alone may set handlers.
    """
    asked = threading.Event()
    main = threading.current_thread() is threading.main_thread()
    ours = (signal.SIGINT, signal.SIGTERM) if main else ()
    taken = [each for each in ours if signal.getsignal(each) is signal.default_int_handler]

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            signal.default_int_handler(number, frame)
        asked.set()
        report.note("stopping after what is being computed now (Ctrl-C again: at once)")

    for each in taken:
        signal.signal(each, handle)
    try:
        yield asked
    finally:
        for each in taken:
            signal.signal(each, signal.default_int_handler)
