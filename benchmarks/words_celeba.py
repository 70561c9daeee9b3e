"""Edits by words of strangers of CelebA, by a judge that guides nothing.

    python benchmarks/words_celeba.py --store DIR --model NAME --data STRANGERS --judge NAME
    python benchmarks/words_celeba.py ... --attribute=-Young --prompt "not young, gray hair"

Model and judge are of `dclip train --condition attributes` and `dclip judge train` on photos of
other people than those of the data. The data's pictures that are labelled as without the attribute
are edited (as with it, where it is written with a minus). The artifact's panel.png is to be opened:
one row for each strength. The table says what the judges see, and how far the upper corners have
changed; `dclip eval --edits` adds the rest.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from second_judge import SecondJudge
from torch import Tensor

from dclip.configs.edit import EditConfig
from dclip.context import Context
from dclip.evaluation.judge import load_judge
from dclip.stages import edit
from dclip.store import Store

OTHERS = (
    "Young", "Male", "Pale_Skin", "Wearing_Lipstick", "Eyeglasses", "Blond_Hair", "Smiling",
    "Black_Hair", "Big_Nose", "Heavy_Makeup",
)  # fmt: skip
CORNER = 8  # pixels a side, of 64


def pictures(files: list[Path]) -> Tensor:
    """(N, 3, H, W) in [-1, 1]."""
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def main() -> None:
    """Edit, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("store", "model", "data", "judge"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--second", type=Path, help="file of benchmarks/second_judge.py")
    parser.add_argument("--prompt", default="smiling, mouth slightly open, high cheekbones")
    parser.add_argument("--source", help="as `dclip edit --source`")
    parser.add_argument("--attribute", default="Smiling", help="that the judge is to see")
    parser.add_argument("--cfg", type=float)
    parser.add_argument("--r", type=float)
    parser.add_argument("--locality", type=float)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--count", type=int, default=32)
    asked = parser.parse_args()
    store = Store(Path(asked.store))
    judge = load_judge(store.resolve(asked.judge, "judge").path)
    second = None if asked.second is None else SecondJudge(asked.second)
    lost, name = asked.attribute.startswith("-"), asked.attribute.lstrip("-")
    made = edit.run(
        EditConfig(
            data=asked.data, split="all", where=(f"{name}={1 if lost else -1}",),
            count=asked.count, model=asked.model, prompt=asked.prompt, source=asked.source,
            cfg=asked.cfg, r=asked.r, steps=asked.steps,
            locality=asked.locality, strength=(0.0, 0.5, 1.0),
        ),
        store,
        Context(),
    )  # fmt: skip
    with (made.path / "samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    others = [other for other in OTHERS if other != name]
    print(f"{made.path / 'panel.png'}\n")
    print("| strength | judge | second judge | others the same | corners |")
    print("|--:|--:|--:|--:|--:|")
    for strength in ("0.0", "0.5", "1.0"):
        shown = [row for row in rows if row["strength"] == strength]
        photos = pictures([made.path / "originals" / f"{row['name']}.png" for row in shown])
        edits = pictures([made.path / row["picture"] for row in shown])
        before, after = judge(photos), judge(edits)
        seen = ((after.attribute(name) > 0.5) != lost).mean()
        also = "" if second is None else f"{((second(edits, name) > 0) != lost).mean():.0%}"
        same = [
            ((after.attribute(other) > 0.5) == (before.attribute(other) > 0.5)).mean()
            for other in others
        ]
        change = (edits - photos).abs().mean(1)[:, :CORNER] * 127.5
        corners = torch.cat([change[..., :CORNER], change[..., -CORNER:]], -1).mean()
        print(f"| {strength} | {seen:.0%} | {also} | {np.mean(same):.0%} | {float(corners):.1f} |")


if __name__ == "__main__":
    main()
