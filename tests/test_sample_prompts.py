"""sample --prompt: pictures depend on prompt, seed and number alone; bad input is one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import Stop
from PIL import Image
from small_guide import write_clip

from dclip.configs.sample import SampleConfig
from dclip.context import Context
from dclip.diffusion.schedule import Schedule
from dclip.encoders.find import find_encoder
from dclip.errors import BadInput, DclipError
from dclip.models.checkpoint import ModelInfo, save_model
from dclip.models.prediction import bare
from dclip.models.unet import SIZES
from dclip.stages.sample import run
from dclip.store import Artifact, Staging, Store

CPU = Context(device="cpu")
ONE, TWO = "a smiling person", "a bald person with glasses"
SMALL = SampleConfig(prompt=(ONE,), count=2, steps=3, batch=4)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a model that reads text by a small CLIP, and a newer one that reads none."""
    folder = tmp_path_factory.mktemp("prompts")
    store = Store(folder / "store")
    found = find_encoder(str(write_clip(folder / "clip")), store, CPU.report)
    encoder = found.load("cpu")
    for name, text in (("reads", encoder.info), ("plain", None)):
        info = ModelInfo(
            "unet", SIZES["micro"], Schedule.make("linear-rescaled", 40), 16, text=text
        )

        def make(staging: Staging, info: ModelInfo = info) -> dict[str, float]:
            torch.manual_seed(0)
            network = info.build()
            for weight in network.parameters():
                weight.data += 0.2 * torch.randn(weight.shape)
            if info.text is not None:
                bare(network).set_empty(encoder.encode([""]))  # type: ignore[operator]
            save_model(staging.path, info, network.state_dict())
            return {}

        store.build(
            stage="train", kind="model", name=name, config={"as": name}, seed=0,
            inputs=found.inputs, context=CPU, make=make,
        )  # fmt: skip
    return store


def pictures(artifact: Artifact) -> np.ndarray:
    files = sorted((artifact.path / "images").iterdir())
    return np.stack([np.asarray(Image.open(f)).astype(int) for f in files])


def draw(store: Store, **change: Any) -> np.ndarray:
    return pictures(run(replace(SMALL, **change), store, CPU))


def test_a_prompt_takes_the_newest_model_that_reads_text(store: Store) -> None:
    made = run(SMALL, store, CPU)
    assert made.manifest.inputs["model"]["ref"] == "model/reads/v1"
    assert made.metrics == {"images": 2, "network_calls_per_image": 6}


def test_the_same_seed_is_the_same_picture_at_any_batch_size_and_among_any_prompts(
    store: Store,
) -> None:
    both = draw(store, prompt=(ONE, TWO), batch=4)
    for batch in (1, 3):
        assert np.abs(draw(store, prompt=(ONE, TWO), batch=batch) - both).max() <= 1
    assert np.abs(draw(store) - both[:2]).max() <= 1
    assert np.abs(draw(store, prompt=(TWO,)) - both[2:]).max() <= 1
    assert np.abs(both[:2] - both[2:]).max() > 5  # the prompts differ, the noise does not
    assert np.abs(draw(store, seed=1) - both[:2]).mean() > 5
    assert np.abs(draw(store, count=3)[:2] - both[:2]).max() <= 1


@pytest.mark.parametrize("sampler", ["ddpm", "dpmpp-2m"])
def test_other_samplers_are_keyed_as_well(store: Store, sampler: str) -> None:
    one, other = (draw(store, sampler=sampler, batch=batch) for batch in (1, 2))
    assert np.abs(one - other).max() <= 1


def test_scale_one_is_the_prompt_alone_and_zero_the_negative_prompt(store: Store) -> None:
    assert np.array_equal(draw(store, cfg=1.0), draw(store, cfg=1.0, negative=TWO))
    assert (
        np.abs(draw(store, cfg=0.0, negative=TWO) - draw(store, prompt=(TWO,), cfg=1.0)).max() <= 1
    )
    assert np.abs(draw(store, cfg=3.0) - draw(store, cfg=3.0, negative=TWO)).max() > 1
    assert run(replace(SMALL, cfg=1.0), store, CPU).metrics["network_calls_per_image"] == 3


def test_rescale_takes_contrast_back(store: Store) -> None:
    high, back = (draw(store, cfg=30.0, rescale=r) for r in (0.0, 1.0))
    assert np.abs(high - back).mean() > 1


def test_without_a_prompt_it_draws_from_the_empty_one_and_says_so(store: Store) -> None:
    told = Stop()
    plain = run(SampleConfig(model="reads", count=2, steps=3), store, replace(CPU, report=told))
    assert any("empty prompt" in line for line in told.said)
    told = Stop()
    empty = replace(SMALL, prompt=(" ",), cfg=1.0)
    asked = run(empty, store, replace(CPU, report=told))
    assert any("empty" in line for line in told.said)
    assert np.abs(pictures(plain) - pictures(asked)).max() <= 1


def test_the_sheet_has_a_labelled_row_for_each_prompt(store: Store) -> None:
    one, two = (
        Image.open(run(replace(SMALL, prompt=prompts), store, CPU).path / "grid.png").size
        for prompts in ((ONE,), (ONE, TWO))
    )
    assert two[1] > one[1] + 90


def test_words_that_the_encoder_does_not_know_are_named(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    encoder = find_encoder(None, store, CPU.report).load("cpu")
    assert encoder.warning("a smiling person") is None
    assert "zebra" in (encoder.warning("a smiling zebra") or "")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "plain"}, "model/plain/v1 reads no text"),
        ({"prompt": ("a smiling person " * 40,)}, "tokens"),
        ({"negative": "a smiling person " * 40}, "tokens"),
        ({"cfg": float("nan")}, "finite"),
        ({"cfg": float("inf")}, "finite"),
        ({"cfg": 1e9}, "-100..100"),
        ({"rescale": float("nan")}, "finite"),
        ({"rescale": 1.5}, "0..1"),
        ({"sampler": "eulr"}, "euler"),
        ({"steps": 41}, "1..40"),
        ({"prompt": (), "cfg": 5.0}, "--cfg has no effect without --prompt"),
        ({"prompt": (), "negative": "glasses"}, "--negative has no effect without --prompt"),
        ({"prompt": ("\ud800",)}, "text"),
    ],
    ids=lambda value: str(value)[:40].encode("ascii", "replace").decode(),
)
def test_bad_input_is_one_line_and_leaves_no_artifact(
    store: Store, change: dict[str, Any], says: str
) -> None:
    before = sorted((store.root / "samples").glob("*/v*"))
    with pytest.raises(DclipError) as caught:
        run(replace(SMALL, **change), store, CPU)
    said = f"{caught.value.message} {caught.value.fix}"
    assert says in said and "\n" not in said and isinstance(caught.value, BadInput)
    assert sorted((store.root / "samples").glob("*/v*")) == before
