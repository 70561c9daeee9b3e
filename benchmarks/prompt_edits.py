"""Edits of drawn faces by prompts alone: SDEdit, a plain guided decode, prompt-to-prompt.

    python benchmarks/prompt_edits.py                       # the newest model that reads text
    python benchmarks/prompt_edits.py --edits smiling --count 16 --panel edits.png

Faces that nothing was trained on, each described by a prompt, are edited towards a prompt with one
thing changed and scored against the renderer's own drawing of the edit, as `dclip eval` scores
tuned models, and by the embedded judge, which guides nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dclip.context import Context
from dclip.data import faces
from dclip.data.images import save_png, to_float, to_uint8
from dclip.diffusion import ddim
from dclip.diffusion.attention import aligned
from dclip.diffusion.conditioning import ClassifierFree, Condition
from dclip.diffusion.prompt_edits import prompt_to_prompt, record, sdedit
from dclip.diffusion.schedule import Schedule
from dclip.encoders.contract import TextEncoder
from dclip.encoders.find import encoder_of
from dclip.evaluation.judge import load_judge
from dclip.evaluation.truth import Truth
from dclip.figures.panel import layout
from dclip.models.checkpoint import load_model
from dclip.random import key, normal
from dclip.stages.models import model_of_text
from dclip.store import Store

ROOT = Path(__file__).resolve().parents[1]
SEED = 92_000  # of the faces
EDITS = {
    "smiling": ("a photo of a serious person", "a photo of a smiling person", "smiling"),
    "glasses": ("a photo of a person", "a photo of a person with glasses", "glasses"),
    "sketch": ("a photo of a person", "a pencil sketch of a person", None),
}
"""Target of the renderer: source prompt, target prompt, attribute that the judge reads."""

Method = Callable[[], Tensor]


def chosen(target: str, count: int) -> list[faces.FaceParams]:
    """The first faces that the edit can be drawn on and is not there yet."""
    found: list[faces.FaceParams] = []
    index = 0
    while len(found) < count:
        params = faces.sample(SEED, index)
        if faces.applicable(params, target) and not faces.already(params, target):
            found.append(params)
        index += 1
    return found


def tokens(encoder: TextEncoder, source: str, target: str) -> Tensor:
    """For each token of the target the one of the source that it stands for."""
    ids = encoder.ids([source, target]).tolist()
    return torch.tensor(aligned(ids[0], ids[1]))


def methods(
    model: torch.nn.Module,
    schedule: Schedule,
    encoder: TextEncoder,
    x0: Tensor,
    prompts: tuple[str, str],
    options: argparse.Namespace,
) -> dict[str, Method]:
    """Every way to edit, by name."""
    source, target, empty = (encoder.encode([text]) for text in (*prompts, ""))
    guided = ClassifierFree(model, target, empty, options.cfg)
    r = round(options.r * schedule.T)
    kept = record(model, schedule, x0, ddim.grid(r, min(options.steps, r)), source)
    same = tokens(encoder, *prompts)

    def noise(t: int) -> Tensor:
        return normal([key(SEED, "sdedit", i, t) for i in range(len(x0))], tuple(x0.shape[1:]))

    def noised(strength: float) -> Method:
        return lambda: sdedit(
            guided, schedule, x0, strength=strength, steps=options.steps, noise=noise
        )

    def worded(cross: float, layout: float) -> Method:
        def edit() -> Tensor:
            asked: tuple[Condition, Condition] = (target, empty)
            return prompt_to_prompt(
                model, schedule, kept, *asked, same, scale=options.cfg, cross=cross, layout=layout
            )[1]

        return edit

    return {
        "replay": lambda: kept.replay(model, schedule),
        **{f"SDEdit {s:g}": noised(s) for s in (0.3, 0.5, 0.7)},
        "guided decode": worded(0.0, 0.0),
        "prompt-to-prompt": worded(0.8, 0.4),
        "prompt-to-prompt, layout 0.8": worded(0.8, 0.8),
    }


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="as `dclip sample --model` takes it; one of pixels")
    parser.add_argument("--store", type=Path, default=Path("artifacts"))
    parser.add_argument("--edits", nargs="+", default=list(EDITS), choices=list(EDITS))
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--cfg", type=float, default=3.0)
    parser.add_argument("--r", type=float, default=0.5, help="share of T that photos are taken to")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--panel", type=Path, help="write a picture of the first faces")
    options = parser.parse_args()
    store = Store(options.store)
    artifact = model_of_text(options.model, store, Context().report)
    model, info = load_model(artifact.path)
    encoder = encoder_of(artifact, info.text, store).load("cpu")
    judge = load_judge(ROOT / "dclip" / "assets" / "judge")
    print("| edit | method | judge | success | identity@1 | gain | changed |")
    print("|---|---|--:|--:|--:|--:|--:|")
    rows: list[list[NDArray[np.uint8]]] = []
    labels: list[str] = []
    names: list[str] = []
    for target in options.edits:
        *prompts, attribute = EDITS[target]
        params = chosen(target, options.count)
        drawn = np.stack([faces.draw(p, size=info.image_size) for p in params])
        x0 = to_float(torch.from_numpy(drawn.transpose(0, 3, 1, 2).copy()))
        truth = Truth(params, target, info.image_size)
        shown = {"photo": drawn}
        pair = (str(prompts[0]), str(prompts[1]))
        for name, edit in methods(model, info.schedule, encoder, x0, pair, options).items():
            with torch.no_grad():
                edited = edit().clamp(-1, 1)
            scores = truth.score(x0.numpy(), edited.numpy()).summary()
            verdict = judge(edited)
            said = verdict.attribute(attribute) if attribute else verdict.style(target)
            print(
                f"| {target} | {name} | {(said > 0.5).mean():.0%} | {scores['success']:.0%} |"
                f" {scores['identity@1']:.0%} | {scores['gain']:.2f} |"
                f" {(edited - x0).abs().mean():.3f} |",
                flush=True,
            )
            shown[name] = to_uint8(edited).numpy().transpose(0, 2, 3, 1)
        shown["drawn truth"] = to_uint8(torch.from_numpy(truth.pictures)).numpy()
        names = list(shown)
        for face in range(min(3, options.count)):
            rows.append([pictures[face] for pictures in shown.values()])
            labels.append(pair[1])
    if options.panel:
        page = layout(rows, columns=names, labels=labels, title=f"cfg {options.cfg:g}", cell=96)
        save_png(options.panel, np.asarray(page.draw()))


if __name__ == "__main__":
    main()
