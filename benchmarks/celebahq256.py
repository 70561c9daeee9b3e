"""google/ddpm-celebahq-256's exact network through every stage, with random weights.

    python benchmarks/celebahq256.py                  # an hour or more of one core, 6 GB
    python benchmarks/celebahq256.py --write          # into docs/performance.md
    python benchmarks/celebahq256.py --gpu 8 --write  # no process may take more of the GPU, in GB

The published weights cannot be fetched everywhere, so diffusers saves a network of that
configuration with random ones. Each stage is a process of its own: import, invert, one update of
every recipe, edit, grid and export. Its seconds include the start of Python and torch; its memory
is the largest that the process ever held, on a GPU the largest that torch took from it. Pictures
of random weights are noise: what this shows is that every stage runs at that size, and what it
takes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from dclip.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
MARKS = "<!-- celebahq256{}: {} -->"

WITHOUT_DEVICE = ("prepare", "export")

CAPPED = """
import pathlib, sys, torch
limit, peak = float(sys.argv.pop(1)) * 1e9, pathlib.Path(sys.argv.pop(1))
torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.mem_get_info()[1])
from dclip.cli import main
try:
    main()
finally:
    peak.write_text(str(torch.cuda.max_memory_reserved()))
"""
"""A command that may take so much of the GPU, and says what it took."""

CONFIG = {
    "sample_size": 256,
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "freq_shift": 1,
    "flip_sin_to_cos": False,
    "down_block_types": ("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4,
    "block_out_channels": (128, 128, 256, 256, 512, 512),
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 0,
    "act_fn": "silu",
    "attention_head_dim": None,
    "norm_num_groups": 32,
    "norm_eps": 1e-6,
}
"""config.json of google/ddpm-celebahq-256's network; its schedule is DDPMScheduler's default."""


def save(folder: Path) -> None:
    """The pipeline with random weights, as diffusers saves it."""
    import torch
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    DDPMPipeline(unet=UNet2DModel(**CONFIG), scheduler=DDPMScheduler()).save_pretrained(folder)


def run(words: Sequence[str], store: Path, gpu: float | None) -> tuple[float, float]:
    """A command's seconds, and the most memory that it held, in GB: of the GPU, where one is used.

    Args:
        gpu: what it may take of the GPU, in GB; None: it computes on the CPU.
    """
    peak = store.parent / "peak"
    start = ["-m", "dclip"] if gpu is None else ["-c", CAPPED, str(gpu), str(peak)]
    device = [] if words[0] in WITHOUT_DEVICE else ["--device", "cpu" if gpu is None else "cuda"]
    command = [sys.executable, *start, *words, *device, "--store", str(store), "--quiet"]
    started = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"dclip {' '.join(words)} failed")
    memory = used.ru_maxrss * 1024 if gpu is None else int(peak.read_text())
    return time.monotonic() - started, memory / 1e9


def commands(folder: Path, photo: Path, out: Path, steps: int) -> dict[str, list[str]]:
    """What is run, by what the table calls it."""
    few = ["--decode-steps", str(steps), "--updates", "1", "--batch", "1"]
    tune = ["finetune", "--target", "smiling", "--clip", "embedded", "--latents", "faces-hq"]
    rows = {
        "import": ["import", str(folder), "--name", "hq"],
        "prepare": ["prepare", "faces", "--count", "4", "--size", "256", "--split", "50/50"],
        f"invert, 1 picture, {steps} steps": [
            "invert", "--data", "faces", "--model", "hq", "--r", "0.3", "--steps", str(steps),
            "--count", "1", "--split", "train",
        ],
    }  # fmt: skip
    for name in RECIPES:
        rows[f"finetune, `{name}`, 1 update"] = [*tune, "--recipe", name, "--name", name, *few]
    last = next(reversed(RECIPES))
    rows |= {
        f"edit, 1 photo, {steps} steps": [
            "edit", str(photo), "--with", "one-step", "--no-align", "--steps", str(steps),
            "--strength", "1", "--out", str(out / "edited"),
        ],
        "grid, 1 photo": ["grid", str(photo), "--with", last, "--steps", str(steps)],
        "export to diffusers": ["export", "hq", "--to", "diffusers", str(out / "exported")],
    }  # fmt: skip
    return rows


def table(rows: Sequence[tuple[str, float, float]]) -> str:
    lines = ["| stage | seconds | memory |", "|---|--:|--:|"]
    lines += [f"| {name} | {seconds:.0f} | {memory:.1f} GB |" for name, seconds, memory in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2, help="of each inversion and decode")
    parser.add_argument("--gpu", type=float, help="GB of the GPU that a process may take")
    parser.add_argument("--write", action="store_true", help=f"write into {PAGE.name}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        folder = place / "ddpm-celebahq-256"
        save(folder)
        from dclip.data import faces
        from dclip.data.images import save_png

        photo = place / "photo.png"
        save_png(photo, faces.draw(faces.sample(5, 0), size=256))
        rows = []
        for what, words in commands(folder, photo, place, options.steps).items():
            gpu = None if words[0] in (*WITHOUT_DEVICE, "import") else options.gpu
            seconds, memory = run(words, place / "store", gpu)
            rows.append((what, seconds, memory))
            print(f"{what}: {seconds:.0f} s, {memory:.1f} GB", flush=True)
    found = table(rows)
    print(found)
    if options.write:
        text = PAGE.read_text()
        which = "" if options.gpu is None else "-gpu"
        begin, end = MARKS.format(which, "begin"), MARKS.format(which, "end")
        before, rest = text.split(begin)
        after = rest.split(end)[1]
        PAGE.write_text(f"{before}{begin}\n{found}\n{end}{after}")


if __name__ == "__main__":
    main()
