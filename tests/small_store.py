"""A store with tiny data, a tiny base, latents, and tuned models made of random differences."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dclip.configs.invert import InvertConfig
from dclip.configs.prepare import PrepareConfig
from dclip.configs.train import TrainConfig
from dclip.context import Context
from dclip.models.checkpoint import load_model
from dclip.models.tuned import Adapter, Full
from dclip.stages import invert, prepare, train
from dclip.store import Artifact, Staging, Store

SIZE, T, R, STEPS = 16, 20, 12, 4
CPU = Context(device="cpu", workers=1)


def copied(trained: Path, root: Path) -> Store:
    """A copy of a store, to work in."""
    shutil.copytree(trained, root, symlinks=True)
    return Store(root)


def small_store(root: Path) -> Store:
    """Data "faces", a base "faces", latents "faces" to r = 12 in 4 steps, tuned "sketch"."""
    store = Store(root)
    prepare.run(PrepareConfig("faces", count=64, size=SIZE, split="70/30"), store, CPU)
    add_base(store, "faces")
    invert.run(InvertConfig(r=R, steps=STEPS, count=24), store, CPU)
    add_tuned(store, "sketch", seed=1)
    return store


def add_base(store: Store, name: str, *, seed: int = 0, data: str = "faces") -> Artifact:
    config = TrainConfig(
        data=data, name=name, size="micro", T=T, images=64, batch=16, lr=5e-3, ema=0.0, seed=seed
    )
    return train.run(config, store, CPU)


def add_tuned(
    store: Store,
    name: str,
    *,
    seed: int,
    full: bool = False,
    scale: float = 0.05,
    base: str = "faces",
    settings: Mapping[str, Any] | None = None,
) -> Artifact:
    """A tuned model whose differences are random, by seed."""
    model = store.resolve(base, "model")

    def make(staging: Staging) -> Mapping[str, Any]:
        network, _ = load_model(model.path)
        generator = torch.Generator().manual_seed(seed)
        delta = Full(network) if full else Adapter(network, 2, seed)
        values = delta.values if isinstance(delta, Full) else delta.up
        with torch.no_grad():
            for value in values:
                noise = torch.randn(value.shape, generator=generator)
                value.copy_(noise * (scale / 5 if full else scale))
        delta.save(staging.path)
        return {}

    return store.build(
        stage="finetune",
        kind="tuned",
        name=name,
        config={"r": R, "inversion_steps": STEPS, "decode_steps": STEPS, "target": name}
        | dict(settings or {}),
        inputs={"latents": store.resolve(None, "latents"), "model": model},
        seed=seed,
        context=CPU,
        make=make,
    )
