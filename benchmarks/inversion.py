"""What a round trip (inversion, then a decode on the same grid) costs and loses, by method.

    python benchmarks/inversion.py MODEL [--photos FOLDER] [--images 8] [--r 100] [--steps 20 50]

MODEL is the directory of a model artifact. Without --photos, pictures of the embedded data set
are drawn that no training saw. "plain" is the fixed point as it is usually iterated, kept here as
the measure to beat. "noise" is the RMS of what the latent holds beside the photo, in units of the
schedule's noise: 1 is what the network was trained to expect there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dclip.data import images
from dclip.data.rendered import Rendered
from dclip.diffusion import ddim, inversion
from dclip.diffusion.network import EpsModel, predict
from dclip.diffusion.schedule import Schedule
from dclip.metrics import psnr
from dclip.models.checkpoint import load_model

Method = Callable[[EpsModel, Schedule, Tensor, tuple[int, ...]], Tensor]

UNSEEN_SEED = 7_777_777


def plain(
    model: EpsModel, schedule: Schedule, x: Tensor, grid: tuple[int, ...], *, refinements: int
) -> Tensor:
    """Fixed-point inversion from DDIM's guess, each guess the last one's value."""
    for s, t in pairwise(grid):
        eps = predict(model, x, t)
        for _ in range(refinements):
            eps = predict(model, ddim.step(schedule, x, eps, s, t), t)
        x = ddim.step(schedule, x, eps, s, t)
    return x


METHODS: dict[str, Method] = {
    "simplified": partial(inversion.invert, method="simplified"),
    "ddim": partial(inversion.invert, method="ddim"),
    "plain, 3 refinements": partial(plain, refinements=3),
    "fixed-point, 0 refinements": partial(inversion.invert, refinements=0),
    "fixed-point, 3 refinements": partial(inversion.invert, refinements=3, tolerance=0),
    "fixed-point, tolerance 1e-2": partial(inversion.invert, tolerance=1e-2),
    "fixed-point (default)": inversion.invert,
    "fixed-point, tolerance 2e-4": partial(inversion.invert, tolerance=2e-4),
}


def rows(
    model: EpsModel, schedule: Schedule, x0: Tensor, grid: tuple[int, ...]
) -> Iterator[tuple[str, float, Tensor, float]]:
    """Per method: name, network calls a step, PSNR (B,) of the round trip, noise in the latent."""
    a, b = schedule.coefficients(grid[-1])
    for name, method in METHODS.items():
        calls = 0

        def counted(x: Tensor, t: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return model(x, t)

        x_r = method(counted, schedule, x0, grid)
        x = ddim.decode(model, schedule, x_r, grid)
        noise = float(((x_r - a * x0) / b).square().mean().sqrt())
        yield name, calls / (len(grid) - 1), psnr(x, x0), noise


def pictures(folder: Path | None, count: int, size: int) -> Tensor:
    """``count`` pictures (B,3,H,W) in [-1, 1], of a folder or drawn."""
    if folder is None:
        drawn = Rendered(count, UNSEEN_SEED, "photo", size).draw(range(count))
        return images.to_float(torch.from_numpy(drawn))
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in images.SUFFIXES)[:count]
    u8 = np.stack([images.decode(f, size=size, crop="face").pixels for f in files])
    return images.to_float(torch.from_numpy(u8).permute(0, 3, 1, 2).contiguous())


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--r", type=int, default=100)
    parser.add_argument("--steps", type=int, nargs="+", default=[20, 50])
    args = parser.parse_args()

    model, info = load_model(args.model)
    x0 = pictures(args.photos, args.images, info.image_size)
    print(
        f"{len(x0)} pictures of {info.image_size}x{info.image_size}, r = {args.r}, {info.schedule}"
    )
    print("\n| steps | method | calls a step | PSNR (worst), dB | noise |")
    print("|------:|--------|-------------:|-----------------:|------:|")
    for steps in args.steps:
        grid = ddim.grid(args.r, steps, info.schedule.T)
        for name, calls, decibels, noise in rows(model, info.schedule, x0, grid):
            print(
                f"| {steps} | {name} | {calls:.2f} | {decibels.mean():.1f} ({decibels.min():.1f}) |"
                f" {noise:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
