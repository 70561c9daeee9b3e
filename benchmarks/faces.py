"""How many faces a second the embedded data set draws: `python benchmarks/faces.py [size]`."""

from __future__ import annotations

import sys
import time

from dclip.data import faces
from dclip.data.parallel import map_processes
from dclip.data.rendered import Rendered

CHUNK = 64


def rate(workers: int, *, size: int, style: str, count: int) -> float:
    """Faces per second, without the start of the processes."""
    source = Rendered(count + CHUNK * workers, 0, style, size)
    chunks = [range(first, first + CHUNK) for first in range(0, source.count, CHUNK)]
    drawn, start = 0, 0.0
    for number, pictures in enumerate(map_processes(source.draw, chunks, workers)):
        if number >= workers:
            drawn += len(pictures)
        else:
            start = time.perf_counter()
    return drawn / (time.perf_counter() - start)


def main() -> None:
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    print(f"faces/s at {size}x{size}\n{'style':<12}{'1 worker':>10}{'2 workers':>11}")
    for style in faces.STYLES:
        one, two = (rate(n, size=size, style=style, count=512) for n in (1, 2))
        print(f"{style:<12}{one:>10.0f}{two:>11.0f}")


if __name__ == "__main__":
    main()
