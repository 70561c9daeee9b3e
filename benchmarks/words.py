"""Edits by words of held-out drawn faces, and the sliders made of them, by the drawn truth.

    python benchmarks/words.py --store DIR                    # the embedded text model: 15 minutes
    python benchmarks/words.py --store DIR --model attributes --targets smiling --cfg 2,4

The model reads captions, or the attributes of drawn faces of all styles. Each edit is scored by
`dclip eval` on the same 64 faces as the tuned edits of docs/results.md, which nothing was trained
on. Prints one row for each target and setting; --panel FILE has the first faces and their edits.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dclip.configs.edit import EditConfig
from dclip.configs.eval import FACES, EvalConfig
from dclip.configs.eval import SEED as EVAL_SEED
from dclip.configs.prepare import PrepareConfig
from dclip.context import Context
from dclip.figures.panel import layout
from dclip.models.checkpoint import read_info
from dclip.stages import edit, prepare
from dclip.stages import eval as evaluate
from dclip.store import Artifact, Store, slug

COLUMNS = 8  # of the panel

WORDS = {
    "smiling": "smiling, not serious",
    "not smiling": "serious, not smiling",
    "blond hair": "blond hair, not black hair, not brown hair, not red hair, not gray hair",
    "black hair": "black hair, not blond hair, not brown hair, not red hair, not gray hair",
    "glasses": "glasses",
    "no glasses": "not glasses",
    "sketch": "sketch, not photo",
    "cartoon": "cartoon, not photo",
    "zombie": "zombie, not photo",
}
CAPTIONS = {
    "smiling": ("a photo of a serious person", "a photo of a smiling person"),
    "not smiling": ("a photo of a smiling person", "a photo of a serious person"),
    "blond hair": ("a photo of a person", "a photo of a person with blond hair"),
    "black hair": ("a photo of a person", "a photo of a person with black hair"),
    "glasses": ("a photo of a person", "a photo of a person with glasses"),
    "no glasses": ("a photo of a person with glasses", "a photo of a person without glasses"),
    "sketch": ("a photo of a person", "a pencil sketch of a person"),
    "cartoon": ("a photo of a person", "a cartoon of a person"),
    "zombie": ("a photo of a person", "a photo of a zombie"),
}
"""Source and target of a model that reads captions."""

SHOWN = (
    "success", "identity@1", "kept_psnr", "judge_target", "judge_target_truth", "judge_kept",
    "judge_kept_truth", "edit_seconds",
)  # fmt: skip


def numbers(text: str) -> list[float]:
    """Numbers with commas between."""
    return [float(each) for each in text.split(",")]


def rows(options: argparse.Namespace) -> Iterator[Mapping[str, Any]]:
    """The scores of each target at each setting, at strength 1."""
    store, context = Store(Path(options.store)), Context()
    data = prepare.run(
        PrepareConfig("faces", count=FACES, seed=EVAL_SEED, split="1/99", name="words"),
        store,
        context,
    )
    info = read_info(store.resolve(options.model, "model", context.report).path)
    attributes = info.text is not None and bool(info.text.names)
    for target in options.targets:
        source, prompt = (None, WORDS[target]) if attributes else CAPTIONS[target]
        for r in options.r:
            for cfg in options.cfg:
                for locality in options.locality:
                    name = slug(f"{target}-{r:g}-{cfg:g}-{locality:g}")
                    made = edit.run(
                        EditConfig(
                            data=data.id, split="all", count=options.count, model=options.model,
                            prompt=prompt, source=source, r=r, cfg=cfg, locality=locality,
                            steps=options.steps, name=name,
                        ),
                        store,
                        context,
                    )  # fmt: skip
                    scores = evaluate.run(
                        EvalConfig(edits=made.id, target=target, name=name), store, context
                    )
                    shown = [made.path / row["picture"] for row in samples(made)[:COLUMNS]]
                    yield {
                        "pictures": shown,
                        "originals": [made.path / "originals" / file.name for file in shown],
                        "target": target,
                        "r": r,
                        "cfg": cfg,
                        "locality": locality,
                        **{
                            k: scores.metrics[k] for k in SHOWN if scores.metrics.get(k) is not None
                        },
                    }


def samples(made: Artifact) -> list[dict[str, str]]:
    """The rows of the edits, in the order of the faces."""
    with (made.path / "samples.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write_panel(file: Path, found: Sequence[Mapping[str, Any]]) -> None:
    """The first faces, and a row of edits for each target."""
    rows = [found[0]["originals"], *(row["pictures"] for row in found)]
    pictures = [[np.asarray(Image.open(each).convert("RGB")) for each in row] for row in rows]
    labels = ["original", *(row["target"] for row in found)]
    layout(pictures, labels=labels, cell=96).draw().save(file, quality=72)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", required=True)
    parser.add_argument("--model", default="embedded-text")
    parser.add_argument("--targets", nargs="+", default=list(WORDS), choices=WORDS)
    parser.add_argument("--r", type=numbers, default=[0.9])
    parser.add_argument("--cfg", type=numbers, default=[3.0])
    parser.add_argument("--locality", type=numbers, default=[0.1])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--count", type=int, default=FACES)
    parser.add_argument("--panel", type=Path)
    options = parser.parse_args()
    found = []
    for row in rows(options):
        said = {k: v for k, v in row.items() if k not in ("pictures", "originals")}
        print(" | ".join(f"{k} {v}" for k, v in said.items()), flush=True)
        found.append(row)
    if options.panel:
        write_panel(options.panel, found)


if __name__ == "__main__":
    main()
