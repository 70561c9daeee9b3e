"""How a stage's progress is shown: a live bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as RichTask
from rich.table import Column
from rich.text import Text

from dclip.cli.output import Output, size
from dclip.context import Silent, Task

LINE_SECONDS = 10.0  # a plain line at least this often ...
LINE_PERCENT = 10.0  # ... and at every tenth of the way,
LINE_PAUSE = 1.0  # but never a flood of them


def reporter_for(output: Output) -> LiveReporter | PlainReporter | QuietReporter:
    """The reporter that suits the mode and the terminal."""
    if output.mode == "quiet":
        return QuietReporter(output)
    return LiveReporter(output) if output.err.is_terminal else PlainReporter(output)


def memory() -> int:
    """Bytes that this process and its accelerator hold now; 0 where that cannot be told."""
    # Only asked where torch is loaded and used already: progress must not import it.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.memory_reserved())
    try:
        with Path("/proc/self/statm").open() as statm:
            import resource

            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def stats_text(stats: dict[str, float]) -> str:
    """Write the current figures: ``loss 0.123  psnr 40.1``."""
    return "  ".join(f"{name} {value:.4g}" for name, value in stats.items())


def amount(count: float, unit: str) -> str:
    """Write how many units: bytes in kB and MB, anything else as it is."""
    return size(count) if unit == "B" else f"{count:.0f} {unit}"


def _of(done: float, total: float | None, unit: str) -> str:
    if total is None:
        return amount(done, unit)
    return f"{size(done)}/{size(total)}" if unit == "B" else f"{done:.0f}/{total:.0f} {unit}"


def rate(speed: float, unit: str) -> str:
    """Write units a second."""
    return f"{size(speed)}/s" if unit == "B" else f"{speed:.3g} {unit}/s"


def clock(seconds: float) -> str:
    """Write a duration as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Watch:
    """Speaks up when nothing has been said for a while, whatever the work is waiting for.

    A step, a first network call or reading weights can take minutes; a thread of its own looks.

    Args:
        say: writes one line.
        now: a clock, in seconds.
    """

    def __init__(self, say: Callable[[str], None], now: Callable[[], float]) -> None:
        self._say, self._now = say, now
        self.start = self.last = now()
        self.tasks: list[Callable[[], None]] = []
        """What says how far each open task is, the innermost last."""

    def heard(self) -> None:
        """Something was said."""
        self.last = self._now()

    def look(self) -> None:
        """Say how things stand, if nothing has been said for ten seconds."""
        if self._now() - self.last < LINE_SECONDS:
            return
        if self.tasks:
            self.tasks[-1]()
        else:
            held = memory()
            parts = [f"still working: {clock(self._now() - self.start)}"]
            self._say("  ".join([*parts, *([f"mem {size(held)}"] if held else [])]))
        self.heard()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look once a second, from a thread of its own."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(1.0):
                self.look()

        thread = threading.Thread(target=watch, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


class QuietReporter(Silent):
    """Nothing but warnings."""

    def __init__(self, output: Output) -> None:
        self._output = output

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Nothing is said, however long it takes."""
        yield

    def warn(self, message: str) -> None:
        self._output.warn(message)


class _Count(ProgressColumn):
    """``120/300 img  41.3 img/s  loss 0.12  1.2 GB``."""

    def render(self, task: RichTask) -> Text:
        unit = task.fields["unit"]
        parts = [_of(task.completed, task.total, unit)]
        speed = task.finished_speed or task.speed
        if speed:
            parts.append(rate(speed, unit))
        if task.fields["stats"]:
            parts.append(stats_text(task.fields["stats"]))
        if held := memory():
            parts.append(size(held))
        return Text("  ".join(parts), style="dim")


class _LiveTask:
    def __init__(self, progress: Progress, index: int) -> None:
        self._progress = progress
        self._index = index  # of rich's TaskID type, an int

    def advance(self, n: int = 1, **stats: float) -> None:
        task = self._progress.tasks[self._progress.task_ids.index(self._index)]  # type: ignore[arg-type]
        self._progress.update(task.id, advance=n, stats=task.fields["stats"] | stats)


class LiveReporter:
    """Bars on a terminal. Tasks may nest; the display lives while any of them is open."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._open = 0
        self._progress: Progress | None = None
        self._watch = Watch(output.note, time.monotonic)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Say that work goes on where no bar is shown."""
        with self._watch.watching():
            yield

    @contextmanager
    def task(
        self, description: str, total: int | None, *, unit: str = "img", done: int = 0
    ) -> Iterator[Task]:
        if self._progress is None:
            name = Column(max_width=16, no_wrap=True, overflow="ellipsis")
            # In a narrow terminal the figures at the end are cut, never the time that is left.
            self._progress = Progress(
                TextColumn("{task.description}", markup=False, table_column=name),
                BarColumn(bar_width=12),
                TimeRemainingColumn(
                    compact=True,
                    elapsed_when_finished=True,
                    table_column=Column(no_wrap=True, min_width=8),
                ),
                _Count(table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
                console=self._output.err,
                redirect_stdout=False,
                expand=True,
            )
            self._progress.start()
            self._watch.tasks.append(lambda: None)  # the bar moves by itself
        progress = self._progress
        self._open += 1
        index = progress.add_task(description, total=total, completed=done, unit=unit, stats={})
        try:
            yield _LiveTask(progress, index)
        finally:
            progress.stop_task(index)
            self._open -= 1
            if self._open == 0:
                progress.stop()
                self._progress = None
                self._watch.tasks.pop()
                self._watch.heard()

    def note(self, message: str) -> None:
        self._watch.heard()
        self._output.note(message)

    def warn(self, message: str) -> None:
        self._watch.heard()
        self._output.warn(message)


class _PlainTask:
    def __init__(
        self,
        say: Callable[[str], None],
        description: str,
        total: int | None,
        unit: str,
        done: int,
        now: Callable[[], float],
    ) -> None:
        self._say, self._now = say, now
        self._description, self._total, self._unit = description, total, unit
        self._first = self._done = done
        self._stats: dict[str, float] = {}
        self._start = self._said = now()
        self._said_done = done

    def advance(self, n: int = 1, **stats: float) -> None:
        self._done += n
        self._stats |= stats
        quiet_for = self._now() - self._said
        tenth = self._total and (self._done - self._said_done) * 100 >= self._total * LINE_PERCENT
        if quiet_for >= LINE_SECONDS or (tenth and quiet_for >= LINE_PAUSE):
            self.say()

    def say(self) -> None:
        now = self._now()
        self._said, self._said_done = now, self._done
        parts = [f"{self._description}: {_of(self._done, self._total, self._unit)}"]
        speed = (self._done - self._first) / max(now - self._start, 1e-9)
        if self._total:
            parts.append(f"{100 * self._done / self._total:.0f}%")
        if self._done > self._first:
            parts.append(rate(speed, self._unit))
            if self._total and self._done < self._total:
                parts.append(f"ETA {clock((self._total - self._done) / speed)}")
        if self._stats:
            parts.append(stats_text(self._stats))
        if held := memory():
            parts.append(f"mem {size(held)}")
        self._say("  ".join(parts))

    def close(self) -> None:
        if self._done != self._said_done or self._done == self._first:
            self.say()


class PlainReporter:
    """Lines for logs: one every ten seconds or tenth of the way, and a last one."""

    def __init__(self, output: Output, now: Callable[[], float] = time.monotonic) -> None:
        self._output = output
        self._now = now
        self.watch = Watch(self.note, now)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Say how things stand where a step takes long, and between tasks."""
        with self.watch.watching():
            yield

    @contextmanager
    def task(
        self, description: str, total: int | None, *, unit: str = "img", done: int = 0
    ) -> Iterator[Task]:
        task = _PlainTask(self.note, description, total, unit, done, self._now)
        self.watch.tasks.append(task.say)
        try:
            yield task
        finally:
            self.watch.tasks.pop()
        task.close()

    def note(self, message: str) -> None:
        self.watch.heard()
        self._output.note(message)

    def warn(self, message: str) -> None:
        self.watch.heard()
        self._output.warn(message)
