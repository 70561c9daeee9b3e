"""Batches to the device, made in a thread while it computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator

import torch
from torch import Tensor

Batch = tuple[Tensor, ...]

DEPTH = 2  # batches made ahead


def feed(
    batches: Iterator[Batch], device: torch.device, *, threaded: bool | None = None
) -> Generator[Batch, None, None]:
    """The batches, on the device.

    For an accelerator a thread makes them ahead; for CUDA in pinned memory, so that copies do not
    block.
    Close the generator (``contextlib.closing``) to end the thread.

    Args:
        batches: tensors in the CPU's memory, or on the device already.
        device: where they go.
        threaded: whether a thread makes them; None: on accelerators.
    """
    if not (device.type != "cpu" if threaded is None else threaded):
        yield from batches
        return
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(DEPTH)
    stopped = threading.Event()

    def put(item: Batch | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for batch in batches:
                put(tuple(_pinned(x, device) for x in batch))
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:  # raised again where the batches are used
            put(error)

    thread = threading.Thread(target=work, daemon=True, name="dclip-feed")
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield tuple(x.to(device, non_blocking=True) for x in item)
    finally:
        stopped.set()
        thread.join()


def _pinned(x: Tensor, device: torch.device) -> Tensor:
    return x.pin_memory() if device.type == "cuda" and x.device.type == "cpu" else x
