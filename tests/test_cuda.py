"""On an NVIDIA GPU every stage makes what it makes on the CPU. Skipped where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_guide import write_clip
from small_store import CPU, small_store
from test_revisions import results

from dclip import device
from dclip.configs.autoencoder_train import AutoencoderTrainConfig
from dclip.configs.edit import EditConfig
from dclip.configs.finetune import FinetuneConfig
from dclip.configs.prepare import PrepareConfig
from dclip.configs.sample import SampleConfig
from dclip.configs.train import TrainConfig
from dclip.context import Context
from dclip.diffusion.samplers import SAMPLERS
from dclip.recipes import RECIPES
from dclip.stages import autoencoder_train, edit, finetune, prepare, sample, train
from dclip.store import Artifact, Store

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU"),
    pytest.mark.timeout(900),
]

GPU = Context(device="cuda", workers=1)
NEAR = 2.0  # of 255: rounding that a walk of a few steps adds up


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return small_store(tmp_path_factory.mktemp("cuda"))


@pytest.fixture(scope="module")
def reader(store: Store) -> Artifact:
    """A latent model that reads captions, made on the GPU."""
    prepare.run(PrepareConfig("faces", count=48, size=32, style="all", name="words"), store, CPU)
    config = AutoencoderTrainConfig(data="words", images=64, batch=16, name="auto")
    autoencoder_train.run(config, store, GPU)
    config = TrainConfig(
        data="words", latent="auto", size="micro", T=20, images=64, batch=16, condition="text",
        name="reader",
    )  # fmt: skip
    return train.run(config, store, GPU)


def pictures(artifact: Artifact) -> np.ndarray:
    files = sorted(artifact.path.rglob("images/*.png"))
    assert files
    return np.stack([np.asarray(Image.open(file).convert("RGB"), np.float32) for file in files])


def same(run: Any, config: Any, store: Store) -> None:
    """The same pictures on both, computed anew on each."""
    made = [
        pictures(run(config, store, Context(device=device, workers=1, force=True)))
        for device in ("cpu", "cuda")
    ]
    assert np.abs(made[0] - made[1]).mean() < NEAR


def test_every_stage_makes_what_it_makes_on_the_cpu(tmp_path: Path) -> None:
    own, other = results(tmp_path / "cpu"), results(tmp_path / "cuda", GPU)
    wrong = []
    for stage, files in own.items():
        assert other[stage].keys() == files.keys(), stage
        for name, numbers in files.items():
            # Adam's first updates follow the signs of gradients: of weights only mean and spread.
            compared = 2 if name.endswith(".safetensors") else len(numbers)
            pairs = list(zip(other[stage][name], numbers, strict=True))[:compared]
            moved = max(abs(a - b) for a, b in pairs)
            spread = abs(numbers[0] if name == "first losses" else numbers[1])
            if moved > 0.1 * max(spread, 1e-3):
                wrong.append((stage, name, numbers, other[stage][name]))
    assert not wrong


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers(store: Store, sampler: str) -> None:
    config = SampleConfig(model="faces", count=4, steps=6, sampler=sampler, precision="fp32")
    same(sample.run, config, store)


def test_prompts_of_a_latent_model(store: Store, reader: Artifact) -> None:
    config = SampleConfig(
        model=reader.ref, prompt=("a sketch of a bald person", "a cartoon"), negative="glasses",
        count=2, steps=4, rescale=0.5, precision="fp32",
    )  # fmt: skip
    same(sample.run, config, store)


@pytest.mark.parametrize("through", ["x0", "network"])
def test_guided_samples_and_edits(store: Store, tmp_path: Path, through: Any) -> None:
    clip = str(write_clip(tmp_path / "clip"))
    guide = ("clip:a smiling person:2", "colour:#20c040:5")
    config = SampleConfig(
        model="faces", count=2, steps=4, guide=guide, clip=(clip,), through=through,
        precision="fp32",
    )  # fmt: skip
    same(sample.run, config, store)
    config = EditConfig(
        data="faces", model="faces", count=2, r=10, steps=4, guide=guide, clip=(clip,),
        through=through, anyway=True,
    )  # fmt: skip
    same(edit.run, config, store)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes(store: Store, tmp_path: Path, recipe: str) -> None:
    clip = str(write_clip(tmp_path / "clip"))
    losses = []
    for context in (CPU, GPU):
        config = FinetuneConfig(
            target="a sketch", clip=(clip,), recipe=recipe, updates=2, batch=2, decode_steps=3,
            name=f"{recipe}-{context.device}", precision="fp32",
        )  # fmt: skip
        tuned = finetune.run(config, store, context)
        row = (tuned.path / "logs" / "stats.jsonl").read_text().splitlines()[0]
        losses.append(row)
    first, second = (json.loads(row)["loss"] for row in losses)
    assert abs(first - second) < 0.02 * max(1.0, abs(first))


@pytest.mark.parametrize("precision", ["bf16", "auto"])
def test_half_precision_draws_and_edits(store: Store, precision: Any) -> None:
    sample.run(SampleConfig(model="faces", count=2, steps=4, precision=precision), store, GPU)
    config = EditConfig(data="faces", tuned=("sketch",), count=2, precision=precision)
    edit.run(config, store, GPU)


def test_a_compiled_training_learns_what_an_uncompiled_one_learns(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", recorded(torch.nn.Module.compile, compiled))
    losses = []
    for least in (10**9, 1):
        monkeypatch.setattr(device, "COMPILED", least)
        config = TrainConfig(data="faces", size="micro", T=20, images=256, batch=16, lr=1e-3)
        made = train.run(config, store, Context(device="cuda", workers=1, force=True))
        losses.append((made.metrics["loss"], made.metrics["val_loss"]))
    assert len(compiled) == 1
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


def recorded(function: Any, calls: list[Any]) -> Any:
    def record(self: Any, **options: Any) -> None:
        calls.append(options)
        function(self, **options)

    return record
