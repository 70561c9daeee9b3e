"""Images a second of each way to read prepared pictures, side by side.

    python benchmarks/loader.py [--images 2048] [--size 256] [--batch 32] [--seconds 2]

Everything is in the page cache, so this measures the software and not the disk.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr

from dclip.data.arrays import ShardReader, ShardWriter


def images_per_second(read: Callable[[int], int], seconds: float) -> float:
    """Call ``read(round)``, which returns how many images it read, for at least ``seconds``."""
    read(0)
    start, count, number = time.perf_counter(), 0, 1
    while (spent := time.perf_counter() - start) < seconds:
        count += read(number)
        number += 1
    return count / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each way")
    args = parser.parse_args()

    random = np.random.default_rng(0)
    shape = (3, args.size, args.size)
    pixels = random.integers(0, 256, (args.images, *shape), dtype=np.uint8)
    order = random.permutation(args.images)
    batches = [order[i : i + args.batch] for i in range(0, args.images, args.batch)]
    starts = range(0, args.images, args.batch)

    with tempfile.TemporaryDirectory() as folder:
        with ShardWriter(f"{folder}/a.zarr", shape, np.uint8, total=args.images) as writer:
            writer.append(pixels)
            writer.finish()
        np.save(f"{folder}/a.npy", pixels)
        del pixels
        theirs = zarr.open_array(f"{folder}/a.zarr", mode="r")
        ours = ShardReader(Path(folder) / "a.zarr")
        plain = np.load(f"{folder}/a.npy", mmap_mode="r")

        def picked(i: int) -> np.ndarray:
            return batches[i % len(batches)]

        def first(i: int) -> int:
            return starts[i % len(starts)]

        ways: dict[str, Callable[[int], int]] = {
            "zarr a[i], random": lambda i: len(theirs[int(order[i % args.images])]) // 3,
            "zarr oindex, random batch": lambda i: len(theirs.oindex[np.sort(picked(i))]),
            "zarr slice, in order": lambda i: len(theirs[first(i) : first(i) + args.batch]),
            "npy memmap, random batch": lambda i: len(plain[picked(i)]),
            "npy memmap, in order": lambda i: len(
                np.array(plain[first(i) : first(i) + args.batch])
            ),
            "ShardReader a[i], random": lambda i: len(ours[int(order[i % args.images])]) // 3,
            "ShardReader, random batch": lambda i: len(ours[picked(i)]),
            "ShardReader, in order": lambda i: len(ours[first(i) : first(i) + args.batch]),
        }
        speeds = {name: images_per_second(read, args.seconds) for name, read in ways.items()}

    base = speeds["zarr oindex, random batch"]
    memmap = speeds["npy memmap, random batch"]
    print(f"{args.images} images 3x{args.size}x{args.size} uint8, batches of {args.batch}")
    print(f"{'':28}{'images/s':>10}{'of oindex':>12}{'of npy random':>15}")
    for name, speed in speeds.items():
        print(f"{name:28}{speed:>10,.0f}{speed / base:>11.1f}x{speed / memmap:>14.2f}x")


if __name__ == "__main__":
    main()
