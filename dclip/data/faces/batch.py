"""Many faces at once, in this process or in several."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor

import numpy as np

from dclip.data.faces.params import sample
from dclip.data.faces.styles import Image8, draw


def draw_batch(
    seed: int, indices: Sequence[int], *, size: int = 64, style: str = "photo"
) -> Image8:
    """Faces of a data set by index, uint8 (N, size, size, 3)."""
    pictures = np.empty((len(indices), size, size, 3), np.uint8)
    for place, index in enumerate(indices):
        pictures[place] = draw(sample(seed, index), size=size, style=style)
    return pictures


def draw_many(
    seed: int,
    indices: Sequence[int],
    *,
    size: int = 64,
    style: str = "photo",
    workers: int = 1,
    chunk: int = 64,
) -> Iterator[Image8]:
    """`draw_batch` in chunks of up to `chunk` faces, in order, drawn by `workers` processes.

    The pictures do not depend on `workers`. At most two chunks a worker wait to be taken.
    Raises ValueError where workers or chunk are below 1.
    """
    if workers < 1 or chunk < 1:
        raise ValueError(f"workers {workers} and chunk {chunk} must be at least 1")
    chunks = (indices[start : start + chunk] for start in range(0, len(indices), chunk))
    if workers == 1:
        for part in chunks:
            yield draw_batch(seed, part, size=size, style=style)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting: deque[Future[Image8]] = deque()
        for part in chunks:
            waiting.append(pool.submit(draw_batch, seed, part, size=size, style=style))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
