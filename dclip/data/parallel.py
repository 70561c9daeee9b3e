"""Work on several items at once, results in order, with a bounded number waiting."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import TypeVar

from dclip.errors import DclipError

Job = TypeVar("Job")
Result = TypeVar("Result")


def map_threads(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int
) -> Generator[Result, None, None]:
    """``map`` over threads: for work that lets go of Python's lock, as decoding does."""
    if workers <= 1:
        yield from map(function, jobs)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from _ordered(pool, function, jobs, workers)


def map_processes(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int
) -> Generator[Result, None, None]:
    """``map`` over processes: for work in Python. ``function`` and jobs must be picklable.

    The processes are spawned, since forking one that has threads (torch, progress display) can
    hang; they end with this one however it ends, and leave Ctrl-C to it.

    Raises:
        DclipError: a process died, or could not start.
    """
    if workers <= 1:
        yield from map(function, jobs)
        return
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_worker) as pool:
            with _without_main():
                for _ in range(workers):  # each starts a process, as none is idle yet
                    pool.submit(os.getpid)
            yield from _ordered(pool, function, jobs, workers)
    except BrokenProcessPool:
        raise DclipError(
            "a worker process died",
            "use one worker; in a script of your own, call this under if __name__ == '__main__'",
        ) from None


@contextmanager
def _without_main() -> Iterator[None]:
    """Start processes that do not run the user's script again, which has no main guard perhaps."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _ordered(
    pool: Executor, function: Callable[[Job], Result], jobs: Iterable[Job], workers: int
) -> Generator[Result, None, None]:
    waiting: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(function, job))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        # A pool whose parent was killed would wait for its next job for ever.
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
