"""The cost of a piece of work: seconds and peak memory."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import torch


class Cost:
    """Measures ``with`` blocks: of several, the sum of seconds and the highest peak.

    Attributes:
        seconds: wall time.
        peak: bytes: on CUDA those that torch held, elsewhere those of the whole process, libraries
            and weights included; 0 where that is unknown.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds, self.peak = 0.0, 0

    def __enter__(self) -> Cost:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            with suppress(OSError):  # only Linux can reset the peak
                Path("/proc/self/clear_refs").write_text("5")
        self._started = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds += time.perf_counter() - self._started
        self.peak = max(self.peak, self._peak())

    def _peak(self) -> int:
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        with suppress(OSError, StopIteration, ValueError):
            lines = Path("/proc/self/status").read_text().splitlines()
            return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
        with suppress(ImportError):
            import resource

            scale = 1 if sys.platform == "darwin" else 1024
            return scale * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return 0
