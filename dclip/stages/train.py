"""train: a noise-prediction network (DDPM) from a data artifact."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dclip.configs.train import TrainConfig
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
from dclip.diffusion import ddim, ddpm
from dclip.diffusion.conditioning import ClassifierFree, Condition, Prompted
from dclip.diffusion.network import EpsModel
from dclip.diffusion.schedule import Schedule
from dclip.encoders.attributes import AttributeEncoder
from dclip.encoders.contract import TextEncoder
from dclip.encoders.find import FoundEncoder, encoder_of, find_encoder
from dclip.errors import BadInput
from dclip.figures.curves import save_curves
from dclip.figures.panel import sheet
from dclip.latent.autoencoder import Autoencoder
from dclip.latent.contract import LatentInfo
from dclip.latent.files import load_autoencoder, save_autoencoder
from dclip.models.checkpoint import (
    ARCHITECTURES,
    ModelInfo,
    check_weights,
    load_model,
    read_info,
    save_model,
)
from dclip.models.ema import EMA
from dclip.models.prediction import bare
from dclip.models.unet import SIZES
from dclip.random import key, normal, permutation, uniform
from dclip.stages.revisions import REVISIONS
from dclip.store import Artifact, Staging, Store
from dclip.training.feed import feed
from dclip.training.loop import Loop, warm_cosine
from dclip.training.reading import Attributes, Captions, Reading, attributes_of, parts_of

VALIDATION_IMAGES = 256
PANEL_IMAGES = 16
MOST_PANELS = 25
PANEL_SCALE = 3.0  # of guidance in the panels
NOT_SETTINGS = (
    "data", "name", "init", "epochs", "network", "size", "schedule", "T", "condition", "encoder",
    "latent",
)  # fmt: skip
"""Settings that the inputs, the model's description or ``images`` hold already."""


def resolve(config: TrainConfig, network: str, images: int, device: torch.device) -> TrainConfig:
    """The config with every default that depends on network, data and device filled in."""
    return replace(
        config,
        images=config.images or max(1, math.ceil(config.epochs * images)),
        epochs=TrainConfig.epochs,
        lr=config.lr or getattr(ARCHITECTURES[network][0], "lr", 5e-4),
        precision=resolve_precision(config.precision, device),
    )


def run(config: TrainConfig, store: Store, context: Context = Context()) -> Artifact:
    """Train a network and commit it as a ``model`` artifact.

    Raises:
        BadInput: a config or data that cannot be trained on.
        MissingArtifact: no data in the store.
    """
    source = store.resolve(config.data, "data", context.report)
    data = DataSet(source.path)
    train = _train_split(data, config.without)
    if len(train) == 0:
        raise BadInput(f"{source.ref} has no training images", "prepare it with another --split")
    device = pick(context)
    inputs = {"data": source}
    shown = {
        "image_size": data.size,
        "domain": source.config["domain"],
        "crop": source.config["crop"] or "center",
        "frame": source.config["frame"],
    }
    if config.init:
        inputs["init"] = store.resolve(config.init, "model", context.report)
        info = replace(read_info(inputs["init"].path), **shown)
        context.report.note(f"network and schedule are those of {inputs['init'].ref}")
    else:
        network = ARCHITECTURES[config.network][0]
        info = ModelInfo(
            architecture=config.network,
            config=SIZES[config.size] if config.network == "unet" else network(),
            schedule=Schedule.make(config.schedule, config.T),  # type: ignore[arg-type]
            prediction=getattr(network, "prediction", "eps"),
            **shown,
        )
    encoder = _encoder(config, info, source, data, inputs, store, context)
    reading = None
    if encoder is not None:
        reading = _reading(encoder.load(device, context.report), source, data, train, config.seed)
        info = replace(info, text=replace(reading.encoder.info, content=encoder.content))
        inputs |= encoder.inputs
    if config.latent is not None:
        inputs["autoencoder"] = store.resolve(config.latent, "autoencoder", context.report)
        shape = load_autoencoder(inputs["autoencoder"].path).config
        latent = LatentInfo(channels=shape.latent, factor=shape.factor)
        info = replace(info, latent=latent, clip_sample=False)
    stride = info.config.stride * (info.latent.factor if info.latent else 1)
    if data.size % stride:
        raise BadInput(
            f"{source.ref} has {data.size}-pixel images, but the network needs a multiple of"
            f" {stride}",
            "prepare it again with --size 64, 128 or 256",
        )
    resolved = resolve(config, info.architecture, len(train), device)
    settings = {k: v for k, v in asdict(resolved).items() if k not in NOT_SETTINGS}
    return store.build(
        stage="train",
        revision=REVISIONS["train"],
        device=describe(device),
        kind="model",
        name=config.name or source.name,
        config={**settings, "model": info.to_dict()},
        inputs=inputs,
        seed=config.seed,
        context=context,
        estimate={
            "images": resolved.images,
            "updates": math.ceil((resolved.images or 0) / (config.batch * config.accumulate)),
            "parameters": sum(p.numel() for p in info.build().parameters()),
        },
        make=lambda staging: _Training(
            resolved, info, data, train, device, context, staging, inputs, reading
        ).run(),
    )


def _train_split(data: DataSet, without: Sequence[str]) -> np.ndarray:
    """The training pictures, less those that meet all conditions of one of ``without``."""
    left_out = [data.where(*(each.strip() for each in text.split(","))) for text in without]
    return np.setdiff1d(data.split("train"), np.concatenate([np.empty(0, np.int64), *left_out]))


def _encoder(
    config: TrainConfig,
    info: ModelInfo,
    source: Artifact,
    data: DataSet,
    inputs: dict[str, Artifact],
    store: Store,
    context: Context,
) -> FoundEncoder | None:
    """The encoder to train with; that of the model to go on from, where it reads already."""
    if info.text is not None:
        if config.encoder is not None:
            raise BadInput(
                f"{inputs['init'].ref} reads already, by {info.text.where or info.text.kind}",
                "leave --encoder out, or train a fresh model",
            )
        return encoder_of(inputs["init"], info.text, store)
    if config.condition == "none":
        return None
    if not getattr(ARCHITECTURES[info.architecture][1], "reads_text", False):
        raise BadInput(f"the network {info.architecture} cannot read text", "use --network unet")
    if config.condition == "attributes":
        names = tuple(attributes_of(data))
        if not names:
            raise BadInput(
                f"{source.ref} has no attributes to train on",
                "prepare data with attributes, or leave --condition out",
            )
        return FoundEncoder("attributes", "", names=names)
    return find_encoder(config.encoder, store, context.report)


def _reading(
    encoder: TextEncoder, source: Artifact, data: DataSet, train: np.ndarray, seed: int
) -> Reading:
    """What the network reads of the data.

    Raises:
        BadInput: data without captions, or without the attributes of the model to go on from.
    """
    if isinstance(encoder, AttributeEncoder):
        known = attributes_of(data)
        missing = [name for name in encoder.names if name not in known]
        if missing:
            raise BadInput(
                f"{source.ref} has no attribute {', '.join(missing)}, which the model reads",
                "train on data with the same attributes, or a fresh model",
            )
        return Attributes(data, encoder, seed)
    if not any(data.captions[i].strip() for i in train):
        raise BadInput(
            f"{source.ref} has no captions to train on",
            "prepare data with captions, or leave --condition out",
        )
    return Captions(data, encoder, seed)


def _begin(model: nn.Module, info: ModelInfo, init: Artifact) -> None:
    """Give a network the weights of ``init``; what only reads text stays as it was made."""
    network, before = load_model(init.path, latents=True)
    weights = network.state_dict()
    check_weights(before.shapes(), {k: v.shape for k, v in weights.items()}, init.ref)
    model.load_state_dict(weights, strict=before.text is not None or info.text is None)


class _Training:
    """One training: what it works on, and its loop."""

    def __init__(
        self,
        config: TrainConfig,
        info: ModelInfo,
        data: DataSet,
        train: np.ndarray,
        device: torch.device,
        context: Context,
        staging: Staging,
        inputs: dict[str, Artifact],
        reading: Reading | None,
    ) -> None:
        self.reading = reading
        self.config, self.info, self.data, self.device = config, info, data, device
        self.context, self.staging = context, staging
        self.train, self.val = train, data.split("val")
        self.autoencoder: Autoencoder | None = None
        if info.latent is not None:
            holder = inputs.get("autoencoder") or inputs["init"]
            self.autoencoder = load_autoencoder(holder.path, device)
        torch.manual_seed(key(config.seed, "init"))
        model = info.build()
        if "init" in inputs:
            _begin(model, info, inputs["init"])
        if reading is not None:
            bare(model).set_empty(reading.encoder.encode([""]))  # type: ignore[operator]
        self.format = memory_format(device, config.precision)
        self.model = model.to(device, memory_format=self.format)  # type: ignore[call-overload]
        self.ema = EMA(self.model, config.ema)
        assert config.lr is not None and config.images is not None
        self.lr = config.lr
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=config.lr, fused=device.type == "cuda"
        )
        self.per_update = config.batch * config.accumulate
        self.updates = math.ceil(config.images / self.per_update)
        self.per_epoch = max(1, len(self.train) // self.per_update)
        # Panels after every epoch; with little data after every few, since there are so many.
        epochs = math.ceil(self.updates / self.per_epoch)
        self.shown_every = self.per_epoch * math.ceil(epochs / MOST_PANELS)
        self._order: tuple[int, np.ndarray] | None = None  # of one epoch
        self.loop = Loop(
            staging,
            updates=self.updates,
            images=self.per_update,
            modules={"model": self.model},
            optimizer=self.optimizer,
            limit=config.max_grad_norm,
            ema=self.ema,
        )
        if config.accumulate == 1:  # gradients that add up over calls would be overwritten
            compile_for_training(self.model, device, self.updates - self.loop.step)

    def run(self) -> dict[str, Any]:
        left = range(self.loop.step, self.updates)
        batches = feed((batch for step in left for batch in self._batches(step)), self.device)
        with (
            closing(batches),
            closing(self.loop.rounds(self.context.report, "training")) as rounds,
        ):
            for step in rounds:
                row: dict[str, float | Tensor] = {"loss": self._update(step, batches)}
                if self.loop.step % self.shown_every == 0 or self.loop.done:
                    row["val_loss"] = self._validation()
                    self._panel(math.ceil(self.loop.step / self.per_epoch))
                self.loop.add(row)
        stats = self.loop.stats
        curves = {"training": stats.curve("loss"), "validation (EMA)": stats.curve("val_loss")}
        title = f"loss of predicting {self.info.prediction}"
        save_curves(self.staging.path / "loss.png", curves, title=title, log=True)
        dtype = torch.float16 if self.config.storage == "fp16" else None
        save_model(self.staging.path, self.info, self.ema.weights, dtype=dtype)
        if self.autoencoder is not None:
            weights = self.autoencoder.state_dict()
            save_autoencoder(self.staging.path, self.autoencoder.config, weights, dtype=dtype)
        recent = [value for _, value in curves["training"][-self.per_epoch :]]
        return {
            "images": self.updates * self.per_update,
            "updates": self.updates,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "loss": float(np.mean(recent)),
            "val_loss": curves["validation (EMA)"][-1][1] if len(self.val) else None,
        }

    def _rate(self, step: int) -> float:
        """Warm-up over the first hundredth (at most 500 updates), then the decay."""
        warmup = min(500, max(1, self.updates // 100))
        floor = 0.05 if self.config.decay == "cosine" else 1.0
        return warm_cosine(self.lr, step, self.updates, warmup, floor)

    def _batches(self, step: int) -> Iterator[tuple[Tensor, ...]]:
        """(x0, t, eps) for each network call of update ``step``, keyed by sample and epoch.

        With a text encoder the parts of the condition follow.
        """
        seed, n = self.config.seed, self.config.batch
        epoch, at = divmod(step, self.per_epoch)
        # An update of more images than there are goes over them again, with other noise.
        passes = math.ceil(self.per_update / len(self.train))
        if self._order is None or self._order[0] != epoch:
            turns = range(epoch * passes, (epoch + 1) * passes)
            orders = [permutation(len(self.train), seed, "order", turn) for turn in turns]
            self._order = epoch, np.concatenate([self.train[order] for order in orders])
        for k in range(self.config.accumulate):
            first = at * self.per_update + k * n
            part = self._order[1][first : first + n]
            turns_of = epoch * passes + np.arange(first, first + len(part)) // len(self.train)
            keys = [(self.data.ids[i], int(turn)) for i, turn in zip(part, turns_of, strict=True)]
            x0 = to_float(torch.from_numpy(self.data.images(part)))
            if self.config.flip:
                coin = uniform([key(seed, "flip", *k) for k in keys]) < 0.5
                x0[coin] = x0[coin].flip(-1)
            yield (x0, *self._noise(keys), *self._read(part, keys))

    def _read(self, part: np.ndarray, keys: list[tuple[str, int]]) -> tuple[Tensor, ...]:
        """The parts of the condition that the pictures are shown with."""
        return () if self.reading is None else parts_of(self.reading.shown(part, keys))

    def _noise(self, keys: list[tuple[str, int]]) -> tuple[Tensor, Tensor]:
        """t and eps for each (sample, epoch)."""
        seed, T = self.config.seed, self.info.schedule.T
        t = 1 + (uniform([key(seed, "t", *k) for k in keys]) * T).astype(np.int64)
        return torch.from_numpy(t), normal([key(seed, "eps", *k) for k in keys], self.info.shape)

    def _loss(self, model: nn.Module, x0: Tensor, t: Tensor, eps: Tensor, *text: Tensor) -> Tensor:
        asked: EpsModel = model
        if text:
            asked = Prompted(model, Condition(*text).to(self.device))
        x0 = x0.to(self.device, memory_format=self.format)
        if self.autoencoder is not None:
            x0 = self.autoencoder.latents(x0)
        with autocast(self.device, self.config.precision):
            losses = ddpm.loss(
                asked,
                self.info.schedule,
                x0,
                t.to(self.device),
                eps.to(self.device, memory_format=self.format),
            ).float()
        if self.info.prediction == "v":
            # The squared error of v: that of eps, over alpha_bar.
            losses = losses / self.info.schedule.alpha_bar.to(losses)[t.to(self.device)]
        return losses

    def _update(self, step: int, batches: Iterator[tuple[Tensor, ...]]) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(step)
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for batch in islice(batches, self.config.accumulate):
            loss = self._loss(self.model, *batch).mean() / self.config.accumulate
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        self.loop.update(total)
        return total

    def _averaged(self) -> nn.Module:
        model = self.info.build()
        model.load_state_dict(self.ema.weights)
        return model.to(self.device).eval()

    @torch.no_grad()
    def _validation(self) -> float:
        """Loss of the averaged weights on held-out images, same t and noise every time."""
        index = self.val[:VALIDATION_IMAGES]
        if len(index) == 0:
            return float("nan")
        model, losses = self._averaged(), []
        for start in range(0, len(index), self.config.batch):
            part = index[start : start + self.config.batch]
            x0 = to_float(torch.from_numpy(self.data.images(part)))
            keys = [(f"val/{self.data.ids[i]}", 0) for i in part]
            t, eps = self._noise(keys)
            losses.append(self._loss(model, x0, t, eps, *self._read(part, keys)).cpu())
        return float(torch.cat(losses).mean())

    @torch.no_grad()
    def _panel(self, epoch: int) -> None:
        """Pictures that DDIM makes of the same noise after every epoch."""
        schedule = self.info.schedule
        keys = [key(self.config.seed, "panel", i) for i in range(PANEL_IMAGES)]
        noise = normal(keys, self.info.shape)
        grid = ddim.grid(schedule.T, min(25, schedule.T))
        folder = self.staging.path / "samples"
        folder.mkdir(exist_ok=True)
        averaged = self._averaged()
        model: EpsModel = averaged
        if self.reading is not None:
            shown = self.val if len(self.val) else self.train
            prompts = self.reading.prompts(np.resize(shown, PANEL_IMAGES))
            (folder / "prompts.txt").write_text("\n".join(prompts) + "\n")
            positive, negative = (
                self.reading.encoder.encode(texts).to(self.device) for texts in (prompts, [""])
            )
            model = ClassifierFree(averaged, positive, negative, PANEL_SCALE)
        clip = self.info.clip_sample
        x = ddim.decode(model, schedule, noise.to(self.device), grid, clip_x0=clip)
        if self.autoencoder is not None:
            x = self.autoencoder.decode(x)
        pictures = to_uint8(x).cpu().numpy()
        sheet(list(pictures), columns=8).save(folder / f"epoch_{epoch:03d}.png")
