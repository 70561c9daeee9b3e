"""Pictures of other kinds, made faces of the base's own kind, and on to a drawing.

    python benchmarks/unseen.py                              # the table of docs/domains.md
    python benchmarks/unseen.py --tuned sketch --out unseen.png --r 0.5 --rounds 8

The same drawn faces as a cartoon, an oil painting, and strokes (few colours, no detail). For each r
and number of rounds: how many of the results the judge calls photos, how many of the facts that it
tells of the face (glasses, hair, beard ...) are the sitter's own, and how far the result is from
the photo-style drawing of the same face (mean absolute difference, of 1), which no method saw.
With --tuned: also how many of the edits that follow it calls that style.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from dclip.data import faces
from dclip.data.faces import FaceParams
from dclip.data.images import save_png, to_float, to_pixels
from dclip.device import choose
from dclip.editing.editor import Editor, Networks
from dclip.editing.plan import Part, make_plan
from dclip.evaluation import samples
from dclip.evaluation.judge import Judge, load_judge
from dclip.figures.panel import panel
from dclip.metrics import mae
from dclip.store import Artifact, Store

SEED, SIZE = 31, 64
FACTS = ("glasses", "beard", "bald", "long_hair", "black_hair", "blond_hair", "red_hair")


def strokes(params: FaceParams) -> np.ndarray:
    """The face in eight colours, each place in that of most of its neighbours."""
    few = Image.fromarray(faces.draw(params, size=SIZE)).quantize(8).convert("RGB")
    return np.asarray(few.filter(ImageFilter.ModeFilter(9)))


KINDS: dict[str, Callable[[FaceParams], np.ndarray]] = {
    "cartoon": lambda params: faces.draw(params, size=SIZE, style="cartoon"),
    "oil": lambda params: faces.draw(params, size=SIZE, style="oil"),
    "strokes": strokes,
}


def tensor(pictures: list[np.ndarray]) -> Tensor:
    return to_float(torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2).copy()))


def facts(judge: Judge, pictures: Tensor, labels: dict[str, np.ndarray]) -> float:
    """Share of the facts that the judge sees as they were drawn."""
    verdict = judge(pictures)
    return float(np.mean([(verdict.attribute(f) > 0.5) == (labels[f] == 1) for f in FACTS]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", default="artifacts", type=Path)
    parser.add_argument("--count", default=16, type=int)
    parser.add_argument("--r", nargs="+", default=[0.3, 0.5, 0.7], type=float)
    parser.add_argument("--rounds", nargs="+", default=[0, 1, 4, 8, 12], type=int)
    parser.add_argument("--tuned", help="a tuned model for the second step, such as sketch")
    parser.add_argument("--out", type=Path, help="panel of the last r and rounds")
    asked = parser.parse_args()
    store = Store(asked.store)
    base: Artifact = store.resolve("embedded", "model")
    judge = load_judge(store.resolve("embedded", "judge").path)
    tuned = store.resolve(asked.tuned, "tuned") if asked.tuned else None
    networks = Networks(base, choose())
    drawn = samples.draw(asked.count, SEED, SIZE)
    assert drawn.params is not None
    style = asked.tuned or "edit"
    print(f"| from | r | rounds | photos | facts | l1 | {style} |\n|---|--:|--:|--:|--:|--:|--:|")
    for kind, draw in KINDS.items():
        shown = tensor([draw(params) for params in drawn.params])
        columns = [shown]
        for r in asked.r:
            for rounds in asked.rounds:
                parts = (Part(tuned),) if tuned else ()
                # Without a second step nothing is inverted.
                plan = make_plan(
                    base,
                    parts,
                    r=None if tuned else r,
                    rounds=rounds,
                    rounds_r=r,
                    encode=None if tuned else "noise",
                )
                editor = Editor(plan, networks, seed=SEED)
                start = editor.invert(shown)
                brought, edit = start.photos, None
                if tuned:
                    edit = editor.decode(start).clamp(-1, 1)
                names = judge(brought).named_styles
                after = judge(edit).named_styles.count(style) if edit is not None else ""
                print(
                    f"| {kind} | {r:g} | {rounds} | {names.count('photo')}/{len(names)}"
                    f" | {facts(judge, brought, dict(drawn.labels)):.2f}"
                    f" | {float(mae(brought, drawn.originals).mean()):.3f} | {after} |",
                    flush=True,
                )
                columns = [shown, brought, *([edit] if edit is not None else [])]
        if asked.out:
            few = [to_pixels(x[:8]) for x in columns]
            labels = [kind, "made the base's", style][: len(few)]
            sheet = panel([list(row) for row in few], labels=labels, cell=128)
            save_png(asked.out.with_stem(f"{asked.out.stem}-{kind}"), np.asarray(sheet))


if __name__ == "__main__":
    main()
