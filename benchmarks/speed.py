"""What samplers and guided steps take above the network calls that they make.

    python benchmarks/speed.py              # the embedded base and CLIP, some minutes of one core

Each is timed in turn with its floor, so that another load of the machine falls on both: for a
sampler as many bare network calls as it makes, for a guided step one network call and the CLIP's
forward and backward on the same pictures. The median of the ratios is printed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from dclip.diffusion import ddim
from dclip.diffusion.guidance import Guided
from dclip.diffusion.network import predict
from dclip.diffusion.samplers import SAMPLERS
from dclip.guidance.clip import Guide, load_guide
from dclip.guidance.steering import Given, parse, steering
from dclip.models.checkpoint import load_model

ASSETS = Path(__file__).resolve().parents[1] / "dclip" / "assets"
TEXT = "a smiling person"


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def ratio(work: Callable[[], object], floor: Callable[[], object], repeats: int) -> float:
    """The median of ``work`` by ``floor``, each pair timed one after the other."""
    work(), floor()
    return median(seconds(work) / seconds(floor) for _ in range(repeats))


def by_hand(model, guide: Guide, text: Tensor, x: Tensor, t: int, through: str) -> None:
    """What a guided step cannot do without: the network once, the CLIP forward and backward."""
    seen = x.clone().requires_grad_()
    inside = seen
    if through == "network":
        inside = predict(model, seen, t)
    else:
        with torch.no_grad():
            predict(model, x, t)
    (guide.embed_image(inside.clamp(-1, 1)) @ text).sum().backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    model, info = load_model(ASSETS / "base")
    schedule, steps = info.schedule, options.steps
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(options.batch, *info.shape, generator=generator)
    grid = ddim.grid(schedule.T, steps)

    def noise(t: int) -> Tensor:
        return torch.randn(x.shape, generator=generator)

    @torch.no_grad()
    def walk(sampler) -> None:
        sampler(model, schedule, x, grid, noise=noise)

    @torch.no_grad()
    def bare(count: int) -> None:
        for k in range(count):
            predict(model, x, grid[1 + k % steps])

    @torch.no_grad()
    def step(guided: Guided) -> None:
        predict(guided, x, t)

    print(f"| {steps} steps, {options.batch} pictures | network calls | ratio |")
    print("|---|--:|--:|")
    for name, sampler in SAMPLERS.items():
        calls = sampler.calls(steps)
        found = ratio(partial(walk, sampler), partial(bare, calls), options.repeats)
        print(f"| `{name}` | {calls} | {found:.3f} |", flush=True)
    guide = load_guide(str(ASSETS / "clip"))
    loss = steering((parse(f"clip:{TEXT}:0.3"),), Given(guides=[guide]))
    text, t = guide.embed_text([TEXT])[0], grid[steps // 2 + 1]
    for through in ("x0", "network"):
        guided = Guided(model, schedule, loss, through=through)
        floor = partial(by_hand, model, guide, text, x, t, through)
        found = ratio(partial(step, guided), floor, options.repeats)
        print(f"| guided step, through {through} | 1 | {found:.3f} |", flush=True)


if __name__ == "__main__":
    main()
