"""sample: pictures out of noise, by a base or a tuned model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dclip.configs.common import Precision
from dclip.configs.sample import SampleConfig
from dclip.context import Context
from dclip.data.images import save_png, to_uint8
from dclip.device import pick, placed, resolve_precision
from dclip.diffusion import ddim, ddpm
from dclip.diffusion.network import EpsModel, InPrecision
from dclip.diffusion.schedule import Schedule
from dclip.figures.panel import sheet
from dclip.models.checkpoint import load_model, read_info
from dclip.models.tuned import Above, merged, read_deltas
from dclip.random import key, normal
from dclip.store import Artifact, Staging, Store, slug

SAMPLERS = ("ddim", "ddpm")
GRID_IMAGES = 100


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
    device = pick(context)
    settings["precision"] = resolve_precision(config.precision, device)
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
    network, info = load_model(base.path, device)
    precision: Precision = resolve_precision(config.precision, device)
    plain = placed(network, device, precision)
    model: EpsModel = plain
    if tuned:
        both = merged(plain, [(read_deltas(tuned.path, plain), config.strength)])
        model = Above(int(tuned.config.get("t_min") or 0), both, plain)
    model = InPrecision(model, device, precision)
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
