"""Measure one update of every recipe against what `--dry-run` predicts: network calls and memory.

    python benchmarks/cost.py           # half of google/ddpm-celebahq-256's width, 64 pixels
    python benchmarks/cost.py --full    # its own width and 256 pixels; about an hour on a laptop

Each recipe runs in a process of its own. Memory is the peak of the resident set, less what the
process held before the network was built. The loss is L1 alone, since the prediction leaves out
the CLIP. docs/performance.md has the result.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

RECIPES = (
    "stepwise", "one-step", "unrolled", "simplified", "diffusionclip",
    "diffusionclip-gpu-efficient", "efficient-diffusion", "asyrp",
)  # fmt: skip
STEPS, R = 6, 500


def info_of(full: bool):
    """google/ddpm-celebahq-256's network, or a narrower one for smaller pictures."""
    from dclip.diffusion.schedule import Schedule
    from dclip.models.checkpoint import ModelInfo
    from dclip.models.unet2d import UNet2DConfig

    width = 128 if full else 64
    config = UNet2DConfig(
        sample_size=256 if full else 64,
        down_block_types=("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4,
        block_out_channels=tuple(width * m for m in (1, 1, 2, 2, 4, 4)),
        downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6,
        attention_head_dim=None,
    )  # fmt: skip
    return ModelInfo("unet2d", config, Schedule.make("linear", 1000), 256 if full else 64)


def predicted(name: str, full: bool, batch: int) -> dict[str, float]:
    """Calls of an update for a picture, and bytes, as the dry run says them."""
    from dclip.cost import Work, finetune_copies, memory_of
    from dclip.recipes import recipe

    found = recipe(name)
    rank, info = found.updating.rank, info_of(full)
    forward, backward = found.calls.of_update(STEPS)
    work = Work(
        info, forward, backward, batch, copies=finetune_copies(rank, found.space),
        states=found.calls.states * STEPS, rank=rank,
    )  # fmt: skip
    return {"forward": forward, "backward": backward, "bytes": memory_of(info).of(work)}


def measured(name: str, full: bool, batch: int) -> dict[str, float]:
    """The same of one round of the recipe, and its seconds for an update."""
    import torch

    from dclip.diffusion import ddim
    from dclip.recipes import recipe
    from dclip.recipes.contract import Batch, Problem
    from dclip.recipes.spaces import space

    info = info_of(full)
    torch.nn.functional.conv2d(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 3, 3))
    before, watch = _resident(), _Peak()
    base = info.build().eval().requires_grad_(False)
    counts = {"forward": 0, "backward": 0}
    found = recipe(name)
    tuned = space(found.space, base, found.updating.rank, 0, 0)
    optimizer = torch.optim.Adam(tuned.delta.parameters(), lr=1e-6)

    def count(out: torch.Tensor) -> torch.Tensor:
        if out.requires_grad:
            out.register_hook(lambda _: counts.update(backward=counts["backward"] + 1))
        return out

    def frozen(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        counts["forward"] += 1
        return count(base(x, t))

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        counts["forward"] += 1
        return count(tuned(x, t))

    def objective(x, reference, draw):
        return (x - reference).abs().mean(), {}

    noise = torch.randn(batch, *info.shape)
    problem = Problem(model, frozen, info.schedule, ddim.grid(R, STEPS), objective)
    losses = found.load()(problem, Batch(noise.clamp(-1, 1), noise, torch.Generator()))
    updates, start = 0, time.perf_counter()
    while updates < (1 if full else STEPS):  # the memory of one update is that of all
        tuned.refresh()
        loss = next(losses, (None,))[0]
        if loss is None:
            break
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        updates += 1
    seconds = (time.perf_counter() - start) / updates
    return {"bytes": watch.close() - before, "seconds": seconds, "updates": updates} | {
        k: v / updates for k, v in counts.items()
    }


def _resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmRSS")


class _Peak:
    """The largest resident set since it was made: the kernel's mark is set back first."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")

    def close(self) -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
        raise OSError("no VmHWM")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--batch", type=int, default=0, help="pictures: else 2, or 1 with --full")
    parser.add_argument("--recipes", nargs="*", default=RECIPES)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="write the rows here too")
    asked = parser.parse_args()
    batch = asked.batch or (1 if asked.full else 2)
    if asked.one:
        print(json.dumps(measured(asked.one, asked.full, batch)))
        return
    rows = []
    print("| recipe | calls forward, backward | measured | memory | measured | seconds |")
    print("|---|--:|--:|--:|--:|--:|")
    for name in asked.recipes:
        words = [sys.executable, __file__, "--one", name, "--batch", str(batch)]
        # Freed memory goes back at once, so that the resident set is what is held.
        env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
        out = subprocess.run(
            words + ["--full"] * asked.full, check=True, capture_output=True, text=True, env=env
        )
        seen, said = json.loads(out.stdout), predicted(name, asked.full, batch)
        rows.append({"recipe": name, "predicted": said, "measured": seen})
        print(
            f"| `{name}` | {said['forward']}, {said['backward']} |"
            f" {seen['forward']:.3g}, {seen['backward']:.3g} | {said['bytes'] / 1e9:.2f} GB |"
            f" {seen['bytes'] / 1e9:.2f} GB | {seen['seconds']:.1f} |",
            flush=True,
        )
        if asked.json:
            asked.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
