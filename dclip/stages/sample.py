"""sample: pictures out of noise, by a base or a tuned model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dclip.configs.common import Precision
from dclip.configs.sample import SampleConfig
from dclip.context import Context
from dclip.data.images import save_png, to_uint8
from dclip.device import describe, pick, placed, resolve_precision, scarce
from dclip.diffusion import grids
from dclip.diffusion.conditioning import ClassifierFree, Condition
from dclip.diffusion.network import EpsModel, InPrecision
from dclip.diffusion.samplers import SAMPLERS
from dclip.diffusion.solvers import sample_ddim
from dclip.diffusion.variance import sample_ancestral
from dclip.encoders.find import FoundEncoder
from dclip.encoders.swap import SwappedEncoder, encoder_for
from dclip.errors import BadInput, DclipError
from dclip.figures.panel import layout, sheet
from dclip.guidance.steered import Steers, find_steers
from dclip.latent.files import load_decoder
from dclip.models.checkpoint import ModelInfo, load_model, read_info
from dclip.models.tuned import Above, merged, read_deltas
from dclip.models.unet2d_condition import UNet2DCondition
from dclip.random import key, normal
from dclip.stages.models import model_of_pixels, model_of_text
from dclip.stages.revisions import REVISIONS
from dclip.store import Artifact, Journal, Staging, Store, slug

GRID_IMAGES = 100
GRID_COLUMNS = 8
NOT_SETTINGS = ("model", "tuned", "name", "seed", "clip", "encoder", "mix")
OF_PROMPTS = ("prompt", "negative", "cfg", "rescale")


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
        find = model_of_text if config.prompt else model_of_pixels
        base = find(config.model, store, context.report)
    info = _info(read_info(base.path), config)
    encoder: FoundEncoder | SwappedEncoder | None = None
    if config.prompt:
        encoder = encoder_for(config.encoder, config.mix, base, info.text, store, context.report)
        if not all(text.strip() for text in config.prompt):
            context.report.note("an empty --prompt draws any picture that the model knows")
    elif info.text is not None:
        context.report.note(f"no --prompt: {base.ref} draws from the empty prompt")
    rule = config.grid or info.grid
    grid = walk_of(info, rule, config.steps, config.sampler)
    steers = find_steers(config.guide, config.clip, store, info, context.report)
    if info.latent is not None and steers.steers:
        raise BadInput(
            f"{base.ref} denoises latents, and --guide steers pixels",
            "say it in the --prompt, or take a model of pixels",
        )
    if tuned is not None and config.prompt:
        raise BadInput("a tuned model takes no --prompt", "leave --tuned or --prompt out")
    device = pick(context)
    left_out = NOT_SETTINGS if config.prompt else (*NOT_SETTINGS, *OF_PROMPTS)
    settings = {k: v for k, v in asdict(config).items() if k not in left_out} | {
        "grid": rule,
        **steers.settings,
        **(encoder.settings if isinstance(encoder, SwappedEncoder) else {}),
        "precision": resolve_precision(config.precision, device),
    }
    calls = SAMPLERS[config.sampler].calls(config.steps) * (2 if _guided(config) else 1)
    return store.build(
        stage="sample",
        revision=REVISIONS["sample"],
        device=describe(device),
        kind="samples",
        name=config.name or slug((tuned or base).name, "samples"),
        config=settings,
        inputs={"model": base}
        | ({"tuned": tuned} if tuned else {})
        | (encoder.inputs if encoder else {})
        | steers.inputs,
        seed=config.seed,
        context=context,
        estimate={"images": _total(config), "network_calls_per_image": calls},
        make=lambda staging: _Sampling(
            config, grid, base, tuned, steers, encoder, device, context, staging
        ).run(),
    )


def _info(info: ModelInfo, config: SampleConfig) -> ModelInfo:
    """What a model is, on the schedule that is asked for."""
    if config.train_timesteps is None:
        return info
    return replace(info, schedule=info.schedule.in_steps(config.train_timesteps))


def _guided(config: SampleConfig) -> bool:
    return bool(config.prompt) and config.cfg not in (0, 1)


def _total(config: SampleConfig) -> int:
    """How many pictures in all."""
    return config.count * max(1, len(config.prompt))


def walk_of(info: ModelInfo, rule: str, steps: int, sampler: str) -> tuple[int, ...]:
    """The timesteps by a rule; the model's own rule with its own offset and end."""
    end = info.grid_end if SAMPLERS[sampler].end else 0
    if rule == info.grid == "leading":
        return grids.build(rule, info.schedule.T, steps, offset=info.steps_offset, end=end)
    if rule == info.grid and rule in ("trailing", "linspace"):
        return grids.build(rule, info.schedule.T, steps, end=end)
    return grids.build(rule, info.schedule.T, steps)


@dataclass(frozen=True)
class _Drawing:
    """What is asked for eps, and what it computes in."""

    model: EpsModel
    precision: Precision


class _Sampling:
    """One run: what draws, and the pictures that are left to draw."""

    def __init__(
        self,
        config: SampleConfig,
        grid: Sequence[int],
        base: Artifact,
        tuned: Artifact | None,
        steers: Steers,
        encoder: FoundEncoder | SwappedEncoder | None,
        device: torch.device,
        context: Context,
        staging: Staging,
    ) -> None:
        self.config, self.grid, self.device = config, grid, device
        self.context, self.staging = context, staging
        self.base = base
        short = scarce(device)  # asked before the networks take their part
        network, info = load_model(base.path, device, latents=True)
        self.info = _info(info, config)
        if hasattr(network, "schedule"):  # by which a prediction of v or x0 becomes eps
            network.schedule = self.info.schedule  # type: ignore[assignment]
        self.decoder = None
        if self.info.latent is not None:
            self.decoder = load_decoder(base.path, device)
        self.precision: Precision = resolve_precision(config.precision, device)
        self.network = placed(network, device, self.precision)
        self.unloads = short and isinstance(network, UNet2DCondition)
        if short and isinstance(network, UNet2DCondition):
            network.slice_attention()
            context.report.note("little GPU memory is free: attention is computed in parts, slower")
        self.model: EpsModel = self.network
        if tuned:
            both = merged(self.network, [(read_deltas(tuned.path, self.network), config.strength)])
            self.model = Above(int(tuned.config.get("t_min") or 0), both, self.network)
        self.warned = False
        self.steering = steers.load(device, context.report, config.through)
        self.prompts: Condition | None = None
        if encoder is not None:
            reader = encoder.load(device, context.report)
            for prompt in dict.fromkeys((*config.prompt, config.negative)):
                if said := reader.warning(prompt):
                    context.report.warn(said)
            self.prompts = reader.encode(config.prompt).to(device)
            self.negative = reader.encode([config.negative]).to(device)

    def _in(self, precision: Precision) -> _Drawing:
        # A learned variance is asked of the network itself.
        learned = self.config.sampler == "ddpm" and self.info.variance == "learned-range"
        model = self.model if learned else InPrecision(self.model, self.device, precision)
        return _Drawing(model, precision)

    def run(self) -> dict[str, Any]:
        config, report, total = self.config, self.context.report, _total(self.config)
        files = [self.staging.path / "images" / f"{i:04d}.png" for i in range(total)]
        # Batches keep their borders, so that a resumed run computes the same.
        starts = range(0, total, config.batch)
        batches = [range(i, min(i + config.batch, total)) for i in starts]
        journal = Journal(self.staging.scratch / "batches.jsonl", lambda entry: entry["images"])
        with report.task("sampling", total, done=journal.done) as task:
            for batch in batches:
                if batch.stop <= journal.done:
                    continue
                for i, pixels in zip(batch, to_uint8(self._drawn(batch)), strict=True):
                    save_png(files[i], pixels)
                journal.add(images=len(batch))
                task.advance(len(batch))
        self._save_sheet(files)
        calls = SAMPLERS[config.sampler].calls(config.steps) * (2 if _guided(config) else 1)
        return {"images": total, "network_calls_per_image": calls}

    def _save_sheet(self, files: Sequence[Path]) -> None:
        """``grid.png``: the pictures; with prompts a row for each, labelled."""
        size, path = self.info.image_size, self.staging.path / "grid.png"
        if not self.config.prompt:
            _save_grid(path, files[:GRID_IMAGES], size)
            return
        shown = min(self.config.count, GRID_COLUMNS)
        rows = [
            [_read(files[row * self.config.count + k]) for k in range(shown)]
            for row in range(min(len(self.config.prompt), GRID_IMAGES // shown))
        ]
        labels = self.config.prompt[: len(rows)]
        panel = layout(rows, labels=labels, title=_title(self.config), cell=max(96, min(size, 256)))
        save_png(path, np.asarray(panel.draw()))

    def _drawn(self, numbers: Sequence[int]) -> Tensor:
        """As :meth:`_draw`; what half precision cannot hold is drawn once more in float32.

        Raises:
            DclipError: values that are not finite in float32 either.
        """
        x = self._draw(numbers, self._in(self.precision))
        if not torch.isfinite(x).all() and self.precision != "fp32":
            if not self.warned:
                self.warned = True
                self.context.report.warn(
                    f"{self.precision} gave values that are not finite: such batches are drawn"
                    " again in float32"
                )
            x = self._draw(numbers, self._in("fp32"))
        if not torch.isfinite(x).all():
            raise DclipError(
                f"{self.base.ref} drew values that are not finite",
                "take fewer --steps, a lower --cfg or weaker guides, or another --sampler",
            )
        return x

    def _draw(self, numbers: Sequence[int], drawing: _Drawing) -> Tensor:
        """Pictures (B,C,S,S) from noise; each depends on the seed and its own number."""
        config, info = self.config, self.info
        # Every prompt has the same noise, so that its pictures differ by the prompt alone.
        own = [i % config.count for i in numbers]

        def noise(t: int) -> Tensor:
            keys = [key(config.seed, "sample", i, t) for i in own]
            return normal(keys, info.shape).to(self.device)

        keys = [key(config.seed, "views", i) for i in own]
        model = self.steering.over(self._prompted(numbers, drawing), info.schedule, keys=keys)
        with torch.no_grad():
            x = self._walk(model, noise, drawing)
            if self.decoder is None:
                return x
            if self.unloads:  # the network waits in the machine's memory
                self.network.to("cpu")
                torch.cuda.empty_cache()
            pictures = self.decoder.decode(x)
            if self.unloads:
                self.network.to(self.device)
            return pictures

    def _prompted(self, numbers: Sequence[int], drawing: _Drawing) -> EpsModel:
        """The model with the prompts of those pictures, guided by them."""
        config = self.config
        if self.prompts is None:
            return drawing.model
        positive = self.prompts.rows([i // config.count for i in numbers])
        model = ClassifierFree(
            self.network, positive, self.negative, config.cfg, config.rescale,
            self.info.schedule,
        )  # fmt: skip
        return InPrecision(model, self.device, drawing.precision)

    def _walk(self, model: EpsModel, noise: Callable[[int], Tensor], drawing: _Drawing) -> Tensor:
        """From noise to what the network makes of it: pictures, or latents."""
        config, info = self.config, self.info
        x, clip_x0 = noise(info.schedule.T), info.clip_sample
        if config.eta:
            return sample_ddim(
                model, info.schedule, x, self.grid, eta=config.eta, noise=noise, clip_x0=clip_x0
            )
        if config.sampler == "ddpm" and info.variance != "small" and model is drawing.model:
            return sample_ancestral(
                model, info.schedule, x, self.grid, noise=noise, rule=info.variance,
                clip_x0=clip_x0,
            )  # fmt: skip
        return SAMPLERS[config.sampler](
            model, info.schedule, x, self.grid, noise=noise, clip_x0=clip_x0
        )


def _read(file: Path) -> NDArray[np.uint8]:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def _title(config: SampleConfig) -> str:
    """The settings of a labelled sheet."""
    negative = f", not {config.negative!r}" if config.negative else ""
    return (
        f"cfg {config.cfg:g}{negative}, {config.sampler}, {config.steps} steps, seed {config.seed}"
    )


def _save_grid(path: Path, files: Sequence[Path], size: int) -> None:
    pictures = [_read(file) for file in files]
    columns = max(1, math.isqrt(len(pictures) - 1) + 1)
    save_png(path, sheet(pictures, columns=columns, cell=size * max(1, 64 // size)))
