"""Edits of held-out rendered faces against the drawn truth: every target, every recipe.

    python benchmarks/quality.py --store /tmp/quality --targets sketch smiling --recipes stepwise

Same base, same CLIP, same faces for all. Prints a Markdown table, writes it beside the panels as
``quality.md``. Minutes a row on a CPU.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dclip.context import Context
from dclip.data import faces
from dclip.data.dataset import LatentSet
from dclip.data.images import to_float, to_uint8
from dclip.device import pick
from dclip.editing import Editor, Part, Weights, make_plan
from dclip.evaluation.truth import TruthScores, against_truth
from dclip.figures.panel import panel
from dclip.guidance.prompts import PRESETS
from dclip.metrics import psnr
from dclip.recipes import RECIPES
from dclip.stages import finetune, invert, prepare
from dclip.store import Artifact, Store, slug

TARGETS = (
    "sketch", "cartoon", "zombie", "smiling", "not smiling",
    "blond hair", "black hair", "glasses", "no glasses",
)  # fmt: skip
SEED = 77_000  # of faces that no shipped model was trained on
STEPS = 20


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    target: str
    recipe: str
    scores: TruthScores
    s_dir: float
    round_trip: float
    seconds: float

    def markdown(self) -> str:
        s = self.scores.summary()
        cells = [self.target, self.recipe, s["faces"], s["success"], s["identity@1"], s["gain"]]
        cells += [s["kept_psnr"], self.s_dir, self.round_trip, self.seconds]
        return "| " + " | ".join(_cell(c) for c in cells) + " |"


HEAD = (
    "| target | recipe | faces | success | identity@1 | gain | kept, dB | S_dir (guide) |"
    " strength 0, dB | fine-tune, s |\n" + "|---" * 10 + "|"
)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def latents_for(store: Store, r: int, count: int, context: Context) -> Artifact:
    """Half of ``count`` faces to tune on, half held out, inverted to r with the base."""
    data = prepare.run(
        prepare.PrepareConfig("faces", count=count, seed=SEED, split="50/50", name="quality"),
        store,
        context,
    )
    config = invert.InvertConfig(
        data=data.id, model="embedded", name=f"quality-{r}", r=r, steps=STEPS, split="all", count=0
    )
    return invert.run(config, store, context)


def measure(store: Store, target: str, recipe: str, count: int, out: Path, context: Context) -> Row:
    """Tune, edit the held-out faces, score them, and draw a panel."""
    latents = latents_for(store, PRESETS[target].r, count, context)
    started = time.monotonic()
    tuned = finetune.run(
        finetune.FinetuneConfig(
            preset=target, latents=latents.id, clip="embedded", recipe=recipe,
            name=f"{slug(target)}-{recipe}",
        ),
        store,
        context,
    )  # fmt: skip
    seconds = time.monotonic() - started
    data = LatentSet(latents.path)
    index = data.split("val")
    params = [faces.sample(SEED, int(data.ids[i].rsplit("-", 1)[1])) for i in index]
    photos = to_float(torch.from_numpy(data.references(index)))
    plan = make_plan(store.input(tuned, "model"), [Part(tuned)])
    editor = Editor(plan, Weights(plan.base, pick(context.device)))
    x_r, offsets = editor.invert(photos)
    edits = editor.decode(x_r, offsets).clamp(-1, 1).cpu()
    still = editor.decode(x_r, offsets, 0.0).cpu()
    scores = against_truth(params, photos.numpy(), edits.numpy(), target)
    shown = np.flatnonzero(scores.applies)[:10]
    truths = [faces.truth(params[i], target, size=data.size) for i in shown]
    rows = [[to_uint8(x[i]).numpy() for i in shown] for x in (photos, edits)]
    title = f"{target}, {recipe}"
    panel([*rows, truths], labels=["original", "edit", "truth"], title=title, cell=96).save(
        out / f"{slug(target)}-{recipe}.png"
    )
    return Row(
        target,
        recipe,
        scores,
        float(tuned.metrics["s_dir"]),
        float(psnr(still, photos).mean()),
        seconds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--store", type=Path, default=Path("artifacts"))
    parser.add_argument("--out", type=Path, default=Path("quality"))
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--faces", type=int, default=128, help="half of them are held out")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    lines = [HEAD]
    print(HEAD, flush=True)
    for target in options.targets:
        for recipe in options.recipes:
            row = measure(
                Store(options.store), target, recipe, options.faces, options.out, Context()
            )
            lines.append(row.markdown())
            print(lines[-1], flush=True)
            (options.out / "quality.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
