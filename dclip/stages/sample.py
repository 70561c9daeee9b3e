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
from dclip.device import describe, pick, placed, resolve_precision
from dclip.diffusion import grids
from dclip.diffusion.network import EpsModel, InPrecision
from dclip.diffusion.samplers import SAMPLERS
from dclip.diffusion.solvers import sample_ddim
from dclip.diffusion.variance import sample_ancestral
from dclip.domains import DOMAINS
from dclip.figures.panel import sheet
from dclip.guidance.steered import Steers, find_steers
from dclip.models.checkpoint import ModelInfo, load_model, read_info
from dclip.models.tuned import Above, merged, read_deltas
from dclip.random import key, normal
from dclip.stages.revisions import REVISIONS
from dclip.store import Artifact, Journal, Staging, Store, slug

GRID_IMAGES = 100
NOT_SETTINGS = ("model", "tuned", "name", "seed", "clip")


def run(config: SampleConfig, store: Store, context: Context = Context()) -> Artifact:
    """Draw pictures from pure noise and commit them as a ``samples`` artifact.

    Raises:
        BadInput: more steps than the model's schedule has, a tuning of another network, or a text
            that the CLIP cannot read.
        MissingArtifact: a named artifact, or a tuned model's base, is not there.
    """
    tuned = None
    if config.tuned is not None:
        tuned = store.resolve(config.tuned, "tuned", context.report)
        base = store.input(tuned, "model")
    else:
        base = store.resolve(config.model, "model", context.report, default="embedded")
    info = read_info(base.path)
    rule = config.grid or info.grid
    grid = _grid(info, rule, config.steps)
    steers = find_steers(config.guide, config.clip, store, DOMAINS[info.domain], context.report)
    device = pick(context)
    settings = {k: v for k, v in asdict(config).items() if k not in NOT_SETTINGS} | {
        "grid": rule,
        **steers.settings,
        "precision": resolve_precision(config.precision, device),
    }
    calls = SAMPLERS[config.sampler].calls(config.steps)
    return store.build(
        stage="sample",
        revision=REVISIONS["sample"],
        device=describe(device),
        kind="samples",
        name=config.name or slug((tuned or base).name, "samples"),
        config=settings,
        inputs={"model": base} | ({"tuned": tuned} if tuned else {}) | steers.inputs,
        seed=config.seed,
        context=context,
        estimate={"images": config.count, "network_calls_per_image": calls},
        make=lambda staging: _Sampling(
            config, grid, base, tuned, steers, device, context, staging
        ).run(),
    )


def _grid(info: ModelInfo, rule: str, steps: int) -> tuple[int, ...]:
    """The timesteps by a rule; the model's own rule with its own offset and end."""
    if rule == info.grid == "leading":
        offset, end = info.steps_offset, info.grid_end
        return grids.build(rule, info.schedule.T, steps, offset=offset, end=end)
    if rule == info.grid and rule in ("trailing", "linspace"):
        return grids.build(rule, info.schedule.T, steps, end=info.grid_end)
    return grids.build(rule, info.schedule.T, steps)


class _Sampling:
    """One run: what draws, and the pictures that are left to draw."""

    def __init__(
        self,
        config: SampleConfig,
        grid: Sequence[int],
        base: Artifact,
        tuned: Artifact | None,
        steers: Steers,
        device: torch.device,
        context: Context,
        staging: Staging,
    ) -> None:
        self.config, self.grid, self.device = config, grid, device
        self.context, self.staging = context, staging
        network, self.info = load_model(base.path, device)
        precision: Precision = resolve_precision(config.precision, device)
        plain = placed(network, device, precision)
        model: EpsModel = plain
        if tuned:
            both = merged(plain, [(read_deltas(tuned.path, plain), config.strength)])
            model = Above(int(tuned.config.get("t_min") or 0), both, plain)
        # A learned variance is asked of the network itself.
        learned = config.sampler == "ddpm" and self.info.variance == "learned-range"
        self.model = model if learned else InPrecision(model, device, precision)
        self.steering = steers.load(device, context.report, config.through)

    def run(self) -> dict[str, Any]:
        config, report = self.config, self.context.report
        files = [self.staging.path / "images" / f"{i:04d}.png" for i in range(config.count)]
        # Batches keep their borders, so that a resumed run computes the same.
        starts = range(0, config.count, config.batch)
        batches = [range(i, min(i + config.batch, config.count)) for i in starts]
        journal = Journal(self.staging.scratch / "batches.jsonl", lambda entry: entry["images"])
        with report.task("sampling", config.count, done=journal.done) as task:
            for batch in batches:
                if batch.stop <= journal.done:
                    continue
                for i, pixels in zip(batch, to_uint8(self._draw(batch)), strict=True):
                    save_png(files[i], pixels)
                journal.add(images=len(batch))
                task.advance(len(batch))
        _save_grid(self.staging.path / "grid.png", files[:GRID_IMAGES], self.info.image_size)
        calls = SAMPLERS[config.sampler].calls(config.steps)
        return {"images": config.count, "network_calls_per_image": calls}

    def _draw(self, numbers: Sequence[int]) -> Tensor:
        """Pictures (B,C,S,S) from noise; each depends on the seed and its own number."""
        config, info = self.config, self.info
        channels = int(getattr(info.config, "in_channels", 3))
        shape = (channels, info.image_size, info.image_size)

        def noise(t: int) -> Tensor:
            keys = [key(config.seed, "sample", i, t) for i in numbers]
            return normal(keys, shape).to(self.device)

        keys = [key(config.seed, "views", i) for i in numbers]
        model = self.steering.over(self.model, info.schedule, keys=keys)
        x, clip_x0 = noise(info.schedule.T), info.clip_sample
        with torch.no_grad():
            if config.eta:
                return sample_ddim(
                    model, info.schedule, x, self.grid, eta=config.eta, noise=noise, clip_x0=clip_x0
                )
            if config.sampler == "ddpm" and info.variance != "small" and model is self.model:
                return sample_ancestral(
                    model, info.schedule, x, self.grid, noise=noise, rule=info.variance,
                    clip_x0=clip_x0,
                )  # fmt: skip
            return SAMPLERS[config.sampler](
                model, info.schedule, x, self.grid, noise=noise, clip_x0=clip_x0
            )


def _save_grid(path: Path, files: Sequence[Path], size: int) -> None:
    pictures = []
    for file in files:
        with Image.open(file) as image:
            pictures.append(np.asarray(image.convert("RGB")))
    columns = max(1, math.isqrt(len(pictures) - 1) + 1)
    save_png(path, sheet(pictures, columns=columns, cell=size * max(1, 64 // size)))
