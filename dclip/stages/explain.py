"""explain: CLIP, DDPM, DDIM and guidance on points in the plane, trained and drawn live."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from dclip.context import Context
from dclip.errors import BadInput
from dclip.explain.run import Size
from dclip.explain.run import run as draw_all
from dclip.store import Artifact, Draft, Store


@dataclass(frozen=True)
class ExplainConfig:
    """What to explain with.

    Attributes:
        name: name of the figure.
        points: of the data.
        clip_steps, denoiser_steps: of training the two networks.
        seed: decides the data, the networks and the noise.

    Raises:
        BadInput: numbers below what can be drawn.
    """

    name: str = "explain"
    points: int = Size.points
    clip_steps: int = Size.clip_steps
    denoiser_steps: int = Size.denoiser_steps
    seed: int = 0

    def __post_init__(self) -> None:
        for field, least in (("points", 30), ("clip_steps", 1), ("denoiser_steps", 1)):
            if getattr(self, field) < least:
                raise BadInput(
                    f"{field} is {getattr(self, field)}", f"take {least} or more, or leave it out"
                )


def run(config: ExplainConfig, store: Store, context: Context = Context()) -> Artifact:
    """Train two small networks, draw every figure, and commit a ``figure`` artifact.

    It holds six PNG pictures, ``paths.gif`` and ``numbers.json``; docs/explain.md is their text.
    Everything is computed on the CPU, in about 20 seconds on one core.
    """
    return store.build(
        stage="explain",
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
        make=lambda draft: _make(draft, config, context),
    )


def _make(draft: Draft, config: ExplainConfig, context: Context) -> dict[str, Any]:
    size = Size(config.points, config.clip_steps, config.denoiser_steps)
    *_, numbers = draw_all(draft.path, config.seed, context.report, size)
    metrics: dict[str, Any] = json.loads(numbers.read_text())
    return metrics
