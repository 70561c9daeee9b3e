"""explain: CLIP, DDPM, DDIM and guidance on points in the plane, trained and drawn live."""

from __future__ import annotations

import json
from typing import Any

from dclip.configs.explain import ExplainConfig
from dclip.context import Context
from dclip.explain.run import Size
from dclip.explain.run import run as draw_all
from dclip.stages.revisions import REVISIONS
from dclip.store import Artifact, Staging, Store


def run(config: ExplainConfig, store: Store, context: Context = Context()) -> Artifact:
    """Train two small networks, draw every figure, and commit a ``figure`` artifact.

    It holds six PNG pictures, ``paths.gif`` and ``numbers.json``; docs/explain.md is their text.
    Everything is computed on the CPU, in about 20 seconds on one core.
    """
    return store.build(
        stage="explain",
        revision=REVISIONS["explain"],
        kind="figure",
        name=config.name,
        config={
            "points": config.points,
            "clip_steps": config.clip_steps,
            "denoiser_steps": config.denoiser_steps,
        },
        inputs={},
        seed=config.seed,
        context=context,
        estimate={"training_steps": config.clip_steps + config.denoiser_steps},
        make=lambda staging: _make(staging, config, context),
    )


def _make(staging: Staging, config: ExplainConfig, context: Context) -> dict[str, Any]:
    size = Size(config.points, config.clip_steps, config.denoiser_steps)
    *_, numbers = draw_all(staging.path, config.seed, context.report, size)
    metrics: dict[str, Any] = json.loads(numbers.read_text())
    return metrics
