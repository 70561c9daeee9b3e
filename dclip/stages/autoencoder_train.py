"""autoencoder train: what takes pictures to latents and back, from a data artifact."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dclip.configs.autoencoder_train import AutoencoderTrainConfig
from dclip.context import Context
from dclip.data.dataset import DataSet
from dclip.data.images import to_float, to_uint8
from dclip.device import (
    autocast,
    compile_for_training,
    describe,
    memory_format,
    pick,
    resolve_precision,
)
from dclip.errors import BadInput
from dclip.figures.curves import save_curves
from dclip.figures.panel import sheet
from dclip.latent.autoencoder import Autoencoder, AutoencoderConfig, detail_loss, kl
from dclip.latent.files import load_autoencoder, save_autoencoder
from dclip.models.ema import EMA
from dclip.random import key, normal, permutation
from dclip.stages.revisions import REVISIONS
from dclip.store import Artifact, Staging, Store
from dclip.training.feed import feed
from dclip.training.loop import Loop, warm_cosine

SCORED = 256  # held-out pictures, and training pictures that set the scale
SHOWN = 16
NOT_SETTINGS = ("data", "name", "seed", "channels", "blocks")
"""Settings that the inputs or the shape hold already."""


def shape_of(config: AutoencoderTrainConfig) -> AutoencoderConfig:
    """The shape of the autoencoder that a config asks for."""
    return AutoencoderConfig(channels=config.channels, blocks=config.blocks)


def run(config: AutoencoderTrainConfig, store: Store, context: Context = Context()) -> Artifact:
    """Train an autoencoder and commit it as an ``autoencoder`` artifact.

    Raises:
        BadInput: data without training pictures, or of a side that is no multiple of four.
        MissingArtifact: no data in the store.
    """
    source = store.resolve(config.data, "data", context.report)
    data = DataSet(source.path)
    if len(data.split("train")) == 0:
        raise BadInput(f"{source.ref} has no training images", "prepare it with another --split")
    if data.size % AutoencoderConfig.factor:
        raise BadInput(
            f"{source.ref} has {data.size}-pixel images, but an autoencoder needs a multiple of"
            f" {AutoencoderConfig.factor}",
            "prepare it again with --size 64, 128 or 256",
        )
    device = pick(context)
    config = replace(config, precision=resolve_precision(config.precision, device))
    settings = {k: v for k, v in asdict(config).items() if k not in NOT_SETTINGS}
    updates = math.ceil(config.images / config.batch)
    return store.build(
        stage="autoencoder-train",
        revision=REVISIONS["autoencoder-train"],
        device=describe(device),
        kind="autoencoder",
        name=config.name or source.name,
        config={**settings, "image_size": data.size, "shape": asdict(shape_of(config))},
        inputs={"data": source},
        seed=config.seed,
        context=context,
        estimate={"images": config.images, "updates": updates},
        make=lambda staging: _Training(config, data, device, context, staging).run(updates),
    )


class _Training:
    """One training: what it works on, and its loop."""

    def __init__(
        self,
        config: AutoencoderTrainConfig,
        data: DataSet,
        device: torch.device,
        context: Context,
        staging: Staging,
    ) -> None:
        self.config, self.data, self.device = config, data, device
        self.context, self.staging = context, staging
        self.train, self.val = data.split("train"), data.split("val")
        torch.manual_seed(key(config.seed, "init"))
        layout = memory_format(device, config.precision)
        self.model = Autoencoder(shape_of(config)).to(device, memory_format=layout)  # type: ignore[call-overload]
        self.ema = EMA(self.model, 0.999)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=config.lr, fused=device.type == "cuda"
        )

    def run(self, updates: int) -> dict[str, Any]:
        config = self.config
        loop = Loop(
            self.staging,
            updates=updates,
            images=config.batch,
            modules={"model": self.model},
            optimizer=self.optimizer,
            limit=config.max_grad_norm,
            ema=self.ema,
        )
        compile_for_training(self.model, self.device, updates - loop.step)
        warmup = max(1, min(200, updates // 20))
        batches = feed((self._batch(step) for step in range(loop.step, updates)), self.device)
        with (
            closing(batches),
            closing(loop.rounds(self.context.report, "training the autoencoder")) as rounds,
        ):
            for step in rounds:
                for group in self.optimizer.param_groups:
                    group["lr"] = warm_cosine(config.lr, step, updates, warmup, 0.02)
                loop.add(self._update(loop, next(batches)))
        curves = {name: loop.stats.curve(name) for name in ("loss", "kl")}
        save_curves(self.staging.path / "loss.png", curves, title="autoencoder", log=True)
        return {"images": updates * config.batch, "updates": updates, **self._saved()}

    def _batch(self, step: int) -> tuple[Tensor, ...]:
        """Pictures of an update and the noise of their latents."""
        seed, n = self.config.seed, self.config.batch
        epoch, at = divmod(step * n, max(len(self.train), 1))
        order = permutation(len(self.train), seed, "order", epoch)
        index = self.train[np.take(order, range(at, at + n), mode="wrap")]
        x = to_float(torch.from_numpy(self.data.images(index)))
        keys = [key(seed, "latent", self.data.ids[i], step) for i in index]
        c, side = self.model.config.latent, self.data.size // AutoencoderConfig.factor
        return x, normal(keys, (c, side, side))

    def _update(self, loop: Loop, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        x, noise = batch
        with autocast(self.device, self.config.precision):
            made, mean, log_variance = self.model(x, noise)
        made, mean, log_variance = made.float(), mean.float(), log_variance.float()
        divergence = kl(mean, log_variance)
        loss = detail_loss(made, x) + self.config.kl * divergence
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        loop.update(loss)
        return {"loss": loss.detach(), "kl": divergence.detach()}

    @torch.no_grad()
    def _saved(self) -> dict[str, Any]:
        """Set the scale, write the averaged weights, and score the round trip."""
        folder = self.staging.path
        save_autoencoder(folder, self.model.config, self.ema.weights)
        model = load_autoencoder(folder, self.device)
        seen = torch.cat([model.latents(x) for x in self._pictures(self.train)])
        shape = replace(model.config, scale=1 / float(seen.std()))
        save_autoencoder(folder, shape, self.ema.weights)
        model = load_autoencoder(folder, self.device)
        index = self.val if len(self.val) else self.train
        pairs = [(x, model.decode(model.latents(x)).clamp(-1, 1)) for x in self._pictures(index)]
        true, made = (torch.cat([pair[i] for pair in pairs]) for i in range(2))
        mse = ((true - made) / 2).square().flatten(1).mean(1)
        rows = [to_uint8(part[:SHOWN]).cpu().numpy() for part in (true, made)]
        sheet([*rows[0], *rows[1]], columns=min(SHOWN, len(true))).save(folder / "round_trip.png")
        return {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "scale": shape.scale,
            "psnr": float((-10 * mse.log10()).mean()),
            "mae": float((true - made).abs().mean() / 2),
        }

    def _pictures(self, index: np.ndarray) -> list[Tensor]:
        index = index[:SCORED]
        parts = [index[at : at + 64] for at in range(0, len(index), 64)]
        return [to_float(torch.from_numpy(self.data.images(p))).to(self.device) for p in parts]
