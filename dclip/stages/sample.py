"""sample: pictures out of noise, by a base or a tuned model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dclip.context import Context
from dclip.data.images import save_png, to_uint8
from dclip.device import pick
from dclip.diffusion import ddim, ddpm
from dclip.diffusion.network import EpsModel
from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput
from dclip.figures.panel import sheet
from dclip.models.checkpoint import load_model, read_info
from dclip.models.tuned import above, merged, read_deltas
from dclip.random import key, normal
from dclip.store import Artifact, Staging, Store, slug

SAMPLERS = ("ddim", "ddpm")
GRID_IMAGES = 100


@dataclass(frozen=True)
class SampleConfig:
    """What to draw, and how.

    Attributes:
        model: model artifact; None takes the newest, else the embedded one.
        tuned: tuned artifact to draw with instead; it knows its base model.
        strength: how much of the tuning to apply: 0 is its base, 1 all of it.
        name: name of the samples; None takes the model's.
        count: how many pictures. The first ones of a larger count are the same.
        sampler: ``"ddim"``, deterministic from the noise on, or ``"ddpm"``, ancestral.
        steps: network calls a picture, in 1..T.
        batch: pictures a network call. Part of the result: rounding differs with it.
        seed: decides the noise, picture by picture.

    Raises:
        BadInput: settings that do not go together or are out of range.
    """

    model: str | None = None
    tuned: str | None = None
    strength: float = 1.0
    name: str | None = None
    count: int = 16
    sampler: str = "ddim"
    steps: int = 50
    batch: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise BadInput(
                f"sampler {self.sampler!r} is unknown", f"use one of {', '.join(SAMPLERS)}"
            )
        for field in ("count", "steps", "batch"):
            if getattr(self, field) < 1:
                raise BadInput(f"{field} must be at least 1, not {getattr(self, field)}")
        if self.model is not None and self.tuned is not None:
            raise BadInput(
                "a tuned model brings its own base model", "give --tuned or --model, not both"
            )
        if self.tuned is None and self.strength != 1:
            raise BadInput("a base model has no strength", "give --tuned, or leave --strength out")
        if not math.isfinite(self.strength):
            raise BadInput(f"strength {self.strength} is no number", "use e.g. --strength 0.8")


def run(config: SampleConfig, store: Store, context: Context = Context()) -> Artifact:
    """Draw pictures from pure noise and commit them as a ``samples`` artifact.

    Raises:
        BadInput: more steps than the model's schedule has, or a tuning of another network.
        MissingArtifact: a named artifact, or a tuned model's base, is not there.
    """
    tuned = None
    if config.tuned is not None:
        tuned = store.resolve(config.tuned, "tuned", context.report)
        base = store.input(tuned, "model")
    else:
        base = store.resolve(config.model, "model", context.report, default="embedded")
    info = read_info(base.path)
    grid = ddim.grid(info.schedule.T, config.steps, info.schedule.T)
    settings = {
        k: v for k, v in asdict(config).items() if k not in ("model", "tuned", "name", "seed")
    }
    device = pick(context.device)
    return store.build(
        stage="sample",
        kind="samples",
        name=config.name or slug((tuned or base).name, "samples"),
        config=settings,
        inputs={"model": base} | ({"tuned": tuned} if tuned else {}),
        seed=config.seed,
        context=context,
        estimate={"images": config.count, "network_calls_per_image": config.steps},
        make=lambda staging: _make(staging, config, grid, base, tuned, device, context),
    )


def _make(
    staging: Staging,
    config: SampleConfig,
    grid: Sequence[int],
    base: Artifact,
    tuned: Artifact | None,
    device: torch.device,
    context: Context,
) -> dict[str, Any]:
    plain, info = load_model(base.path, device)
    model: EpsModel = plain
    if tuned:
        both = merged(plain, [(read_deltas(tuned.path, plain), config.strength)])
        model = above(int(tuned.config.get("t_min") or 0), both, plain)
    files = [staging.path / "images" / f"{i:04d}.png" for i in range(config.count)]
    batches = [
        range(i, min(i + config.batch, config.count)) for i in range(0, config.count, config.batch)
    ]
    # A picture is complete or not there, so what is there needs no further record; batches keep
    # their borders, so that a resumed run computes the same.
    left = [batch for batch in batches if not all(files[i].exists() for i in batch)]
    done = config.count - sum(len(batch) for batch in left)
    with context.report.task("sampling", config.count, done=done) as task:
        for batch in left:
            x = draw(
                model,
                info.schedule,
                config.sampler,
                grid,
                config.seed,
                batch,
                info.image_size,
                device,
            )
            for i, pixels in zip(batch, to_uint8(x), strict=True):
                save_png(files[i], pixels)
            task.advance(len(batch))
    _save_grid(staging.path / "grid.png", files[:GRID_IMAGES], info.image_size)
    return {"images": config.count, "network_calls_per_image": config.steps}


@torch.no_grad()
def draw(
    model: EpsModel,
    schedule: Schedule,
    sampler: str,
    grid: Sequence[int],
    seed: int,
    numbers: Sequence[int],
    size: int,
    device: torch.device,
) -> Tensor:
    """Pictures (B,3,size,size) from noise at T; each depends on the seed and its own number.

    Args:
        sampler: one of :data:`SAMPLERS`.
        grid: increasing labels from 0 to T.
        numbers: which pictures of the seed's endless row.
    """
    shape = (3, size, size)

    def noise(t: int) -> Tensor:
        return normal([key(seed, "sample", i, t) for i in numbers], shape).to(device)

    x = noise(schedule.T)
    if sampler == "ddim":
        return ddim.decode(model, schedule, x, grid, clip_x0=True)
    return ddpm.sample_ddpm(model, schedule, x, grid, noise=noise)


def _save_grid(path: Path, files: Sequence[Path], size: int) -> None:
    pictures = []
    for file in files:
        with Image.open(file) as image:
            pictures.append(np.asarray(image.convert("RGB")))
    columns = max(1, math.isqrt(len(pictures) - 1) + 1)
    save_png(path, sheet(pictures, columns=columns, cell=size * max(1, 64 // size)))
