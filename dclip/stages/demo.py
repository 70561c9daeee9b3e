"""demo: the whole pipeline on held-out rendered faces, scored against the drawn truth."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dclip.configs.demo import DemoConfig
from dclip.configs.finetune import FinetuneConfig
from dclip.configs.invert import InvertConfig
from dclip.configs.prepare import PrepareConfig
from dclip.context import Context
from dclip.data import faces
from dclip.data.dataset import LatentSet
from dclip.data.images import to_float, to_pixels
from dclip.device import pick
from dclip.editing.editor import Editor, Networks, as_picture
from dclip.editing.plan import Part, Plan, make_plan
from dclip.evaluation.goals import of_drawn
from dclip.evaluation.judge import load_judge
from dclip.evaluation.scorers import find_judge
from dclip.evaluation.scoring import Scoring
from dclip.evaluation.truth import Truth
from dclip.figures.panel import panel
from dclip.guidance.prompts import preset
from dclip.guiding import preset_r
from dclip.metrics import psnr
from dclip.models.checkpoint import read_info
from dclip.stages import finetune, invert, prepare
from dclip.stages.chain import Chain
from dclip.stages.revisions import REVISIONS
from dclip.store import Artifact, Planned, Staging, Store, slug

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
PANEL_ROWS = 8
STRIP_ROWS = 4


def run(config: DemoConfig, store: Store, context: Context = Context()) -> Artifact:
    """Render, invert, fine-tune, edit, score; commit a ``figure`` artifact.

    Raises:
        BadInput: a target that cannot be shown.
        Planned: ``context.dry_run``, with the plans of all that leads to the figure.
    """
    started = time.monotonic()
    model = store.resolve(config.model, "model")
    info = read_info(model.path)
    r = preset_r(preset(config.target), info.schedule.T)
    name = f"demo-{slug(config.target)}"
    steps = Chain(store, context)
    data = steps.make(
        "prepare",
        "data",
        prepare.run,
        PrepareConfig(
            "faces",
            count=config.faces,
            size=info.image_size,
            seed=config.seed,
            split="67/33",
            name="demo",
        ),
    )
    latents = steps.make(
        "invert",
        "latents",
        invert.run,
        InvertConfig(
            data=data.id if data else None,
            model=model.id if config.model != "embedded" else "embedded",
            name="demo",
            r=r,
            steps=min(r, invert.EDIT_STEPS),
            refinements=invert.EDIT_REFINEMENTS,
            split="all",
            count=0,
        ),
        data=data,
    )
    tuned = steps.make(
        "finetune",
        "tuned",
        finetune.run,
        FinetuneConfig(
            preset=config.target,
            latents=latents.id if latents else None,
            clip=(config.clip,),
            name=name,
        ),
        latents=latents,
    )

    def figure(config: DemoConfig, store: Store, context: Context) -> Artifact:
        assert latents is not None and tuned is not None
        plan = make_plan(model, [Part(tuned)])
        judge = find_judge(None, True, store, context.report)
        return store.build(
            stage="demo",
            revision=REVISIONS["demo"],
            kind="figure",
            name=name,
            config={"target": config.target, "strengths": list(STRENGTHS), **plan.settings()},
            inputs={"latents": latents, **plan.inputs(), **({"judge": judge} if judge else {})},
            seed=config.seed,
            context=context,
            make=lambda staging: _make(
                config.target, latents, plan, judge, pick(context), context, staging
            ),
        )

    made = steps.make(
        "demo", "figure", figure, config, name, last=True, latents=latents, tuned=tuned
    )
    if made is None:
        *before, last = steps.plans
        raise Planned(last, before)
    if made.fresh:
        context.report.note(f"the demo took {time.monotonic() - started:.0f} s")
    return made


def _make(
    target: str,
    latents: Artifact,
    plan: Plan,
    judged_by: Artifact | None,
    device: torch.device,
    context: Context,
    staging: Staging,
) -> dict[str, Any]:
    judge = load_judge(judged_by.path, device) if judged_by else None
    data = LatentSet(latents.path)
    index = data.split("val")
    params = [_params(data.ids[i]) for i in index]
    photos = to_float(torch.from_numpy(data.references(index)))
    editor = Editor(plan, Networks(plan.base, device))
    total = len(index) * (plan.start_steps + plan.steps * (1 + len(STRENGTHS)))
    with context.report.task("editing", total, unit="step") as task:

        def on_step() -> None:
            task.advance(len(index))

        start = editor.invert(photos, on_step)
        plain = editor.decode(start, 0.0, direct=False, on_step=on_step)
        edits = [editor.decode(start, s, on_step=on_step).clamp(-1, 1).cpu() for s in STRENGTHS]
    full = edits[STRENGTHS.index(1.0)]
    truth = Truth(params, target, data.size)
    goal = of_drawn(params, target, judge.shape.attributes) if judge else None
    scoring = Scoring(photos, truth=truth, goal=goal, judge=judge)
    by_strength = [{"strength": s, **scoring(e).row} for s, e in zip(STRENGTHS, edits, strict=True)]
    reconstruction = float(psnr(plain.cpu(), photos).mean())
    table = {
        "target": target,
        "reconstruction_psnr": reconstruction,
        "strengths": by_strength,
    }
    (staging.path / "table.json").write_text(json.dumps(table, indent=1) + "\n")
    latent_pictures = as_picture(start.x_r.cpu()).numpy()
    # Faces that the edit applies to come first: a smile cannot be added to a smile.
    order = [*np.flatnonzero(truth.applies), *np.flatnonzero(~truth.applies)]
    rows = [
        [
            to_pixels(photos[i]),
            latent_pictures[i],
            to_pixels(plain[i].cpu()),
            to_pixels(full[i]),
            to_pixels(torch.from_numpy(truth.pictures[i])),
        ]
        for i in order[:PANEL_ROWS]
    ]
    half = (len(rows) + 1) // 2
    blank: list[NDArray[np.uint8] | None] = [None]
    columns = ["original", f"latent r={plan.r}", "reconstruction", f"edit: {target}", "drawn truth"]
    wide = [
        [*left, *blank, *right]
        for left, right in zip(rows[:half], [*rows[half:], [None] * 5][:half], strict=True)
    ]
    panel(wide, columns=[*columns, "", *columns], cell=128).save(staging.path / "panel.png")
    strip = [[to_pixels(photos[i]), *(to_pixels(e[i]) for e in edits)] for i in order[:STRIP_ROWS]]
    captions = ["original", *(f"strength {s:g}" for s in STRENGTHS)]
    panel(strip, columns=captions, cell=128).save(staging.path / "strength.png")
    return {"reconstruction_psnr": reconstruction, **by_strength[STRENGTHS.index(1.0)]}


def _params(sample_id: str) -> faces.FaceParams:
    """The face of an id such as ``face-20260-000003``."""
    _, seed, number = sample_id.split("-")
    return faces.sample(int(seed), int(number))
