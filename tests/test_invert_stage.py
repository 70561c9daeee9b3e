"""The invert stage through its own door: what it makes, measures, refuses, and how it resumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import Stop

from dclip.configs.invert import InvertConfig
from dclip.context import Context
from dclip.data.dataset import DataSet, LatentSet
from dclip.diffusion import ddim
from dclip.diffusion.inversion import REFINEMENTS, TOLERANCE
from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput, DclipError, MissingArtifact
from dclip.guidance.prompts import PRESETS
from dclip.models.checkpoint import ModelInfo, load_model, save_model
from dclip.models.tiny import TinyConfig
from dclip.stages import prepare
from dclip.stages.invert import EDIT_REFINEMENTS, run, select
from dclip.store import Artifact, Planned, Staging, Store

CPU = Context(device="cpu", workers=1)
SIZE, T = 16, 100
SMALL = InvertConfig(r=20, steps=4, count=10, batch=4)


def make_model(store: Store, name: str = "base", scale: float = 0.03) -> Artifact:
    """A network with random weights: its noise is no use, but has to be inverted all the same."""
    info = ModelInfo("tiny", TinyConfig(16), Schedule.make("linear-rescaled", T), SIZE)
    torch.manual_seed(0)
    weights = {k: v + scale * torch.randn(v.shape) for k, v in info.build().state_dict().items()}

    def make(staging: Staging) -> dict[str, float]:
        save_model(staging.path, info, weights)
        return {}

    return store.build(
        stage="train", kind="model", name=name, config={"scale": scale}, inputs={}, seed=0,
        context=CPU, make=make,
    )  # fmt: skip


def make_store(path: Path) -> Store:
    store = Store(path)
    prepare.run(prepare.PrepareConfig("faces", count=60, size=SIZE), store, CPU)
    make_model(store)
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("invert") / "store")


@pytest.fixture(scope="module")
def small(store: Store) -> Artifact:
    return run(SMALL, store, CPU)


def test_latents_open_beside_their_pictures_and_rows(store: Store, small: Artifact) -> None:
    data, made = DataSet(store.resolve(None, "data").path), LatentSet(small.path)
    assert (len(made), made.size) == (10, SIZE)
    numbers = [data.ids.index(i) for i in made.ids]
    assert numbers == sorted(set(numbers))
    assert np.array_equal(made.references(range(10)), data.images(numbers))
    assert made.captions == [data.captions[i] for i in numbers]
    assert np.array_equal(made.attribute("smiling"), data.attribute("smiling")[numbers])
    assert (len(made.split("train")), len(made.split("val"))) == (7, 3)
    assert set(made.split("val")) == {k for k, i in enumerate(numbers) if i in data.split("val")}
    assert (small.path / "preview.png").is_file()
    assert dict(small.config) == {
        "r": 20, "steps": 4, "method": "fixed-point", "refinements": REFINEMENTS,
        "tolerance": TOLERANCE, "split": "train+val", "count": 10, "batch": 4,
        "precision": "fp32", "grid": "even", "encode": "inversion",
    }  # fmt: skip


@pytest.mark.parametrize("method", ["fixed-point", "simplified"])
def test_psnr_and_mae_are_those_of_a_decode(store: Store, method: str) -> None:
    made = run(replace(SMALL, method=method), store, CPU)
    latents = LatentSet(made.path)
    model, info = load_model(store.resolve(None, "model").path)
    x_r = torch.from_numpy(latents.latents(range(10)))
    decoded = ddim.decode(model, info.schedule, x_r, ddim.grid(20, 4)).double().numpy()
    original = latents.references(range(10)).astype(np.float64) / 127.5 - 1
    miss = (decoded - original).reshape(10, -1)
    expected = 20 * np.log10(2 / np.sqrt((miss**2).mean(1)))
    assert np.allclose(latents.measured("psnr"), expected, atol=0.1)
    assert np.allclose(latents.measured("mae"), np.abs(miss).mean(1) / 2, rtol=0.02)
    assert made.metrics["psnr"] == pytest.approx(expected.mean(), abs=0.1)
    assert made.metrics["psnr_min"] == pytest.approx(expected.min(), abs=0.1)


def test_the_better_method_decodes_nearer(store: Store, small: Artifact) -> None:
    plain = run(replace(SMALL, method="ddim"), store, CPU)
    simplified = run(replace(SMALL, method="simplified"), store, CPU)
    assert small.metrics["psnr"] > plain.metrics["psnr"] + 20
    assert plain.metrics["psnr"] > simplified.metrics["psnr"] + 2
    assert plain.metrics["network_calls_per_image"] == 4
    assert small.metrics["network_calls_per_image"] > 4


@pytest.mark.parametrize("loosely", [{"refinements": 0}, {"tolerance": 0.1}], ids=str)
def test_more_refinement_comes_nearer(
    store: Store, small: Artifact, loosely: dict[str, Any]
) -> None:
    loose = run(replace(SMALL, **loosely), store, CPU)
    assert small.metrics["psnr"] > loose.metrics["psnr"] + 10
    assert small.metrics["network_calls_per_image"] > loose.metrics["network_calls_per_image"]


def test_interrupted_anywhere_it_ends_as_if_it_never_was(small: Artifact, tmp_path: Path) -> None:
    store = make_store(tmp_path / "other")
    began = []
    for after in (1, 1, 5):  # in the first batch, in the second, after the last
        with pytest.raises(KeyboardInterrupt):
            run(SMALL, store, replace(CPU, report=(stop := Stop(after))))
        began += stop.began
    made = run(SMALL, store, replace(CPU, report=(stop := Stop())))
    assert [*began, *stop.began] == [0, 4, 8, 10]
    assert made.fresh
    assert made.id == small.id


def test_a_batch_that_was_half_written_is_done_again(small: Artifact, tmp_path: Path) -> None:
    store = make_store(tmp_path / "other")
    with pytest.raises(KeyboardInterrupt):
        run(SMALL, store, replace(CPU, report=Stop(2)))
    journal = next(store.root.rglob("batches.jsonl"))
    journal.write_bytes(journal.read_bytes()[:-5])
    made = run(SMALL, store, replace(CPU, report=(stop := Stop())))
    assert stop.began == [4]
    assert made.id == small.id


def test_what_is_unchanged_is_up_to_date(store: Store, small: Artifact) -> None:
    said = replace(SMALL, refinements=REFINEMENTS, data="faces", model="base")
    again = run(said, store, CPU)
    assert (again.fresh, again.ref) == (False, small.ref)


def test_a_plan_says_how_many_network_calls_there_will_be(store: Store, small: Artifact) -> None:
    def planned(**settings: Any) -> dict[str, Any]:
        with pytest.raises(Planned) as planned:
            run(replace(SMALL, **settings), store, replace(CPU, dry_run=True, force=True))
        estimate: dict[str, Any] = planned.value.plan["estimate"]
        return estimate

    calls = "network_calls_per_image"
    most = planned()[f"{calls}_at_most"]
    assert small.metrics[calls] <= most == 4 * (1 + REFINEMENTS)
    for settings in ({"method": "ddim"}, {"refinements": 3, "tolerance": 0.0}, {"refinements": 0}):
        made = run(replace(SMALL, count=2, **settings), store, CPU)  # type: ignore[arg-type]
        estimate = planned(count=2, **settings)
        assert made.metrics[calls] == estimate.get(calls, estimate.get(f"{calls}_at_most"))


def test_a_preset_says_how_far_to_invert(store: Store) -> None:
    config = InvertConfig(preset="sketch", steps=4, count=2)
    with pytest.raises(Planned) as planned:
        run(config, store, replace(CPU, dry_run=True, report=(said := Stop())))
    expected = round(PRESETS["sketch"].settings.r * T)
    assert planned.value.plan["config"]["r"] == expected
    assert f"inverting to r={expected}, for sketch" in said.said
    assert planned.value.plan["config"]["refinements"] == EDIT_REFINEMENTS < REFINEMENTS
    plain = replace(config, preset=None, r=expected, refinements=EDIT_REFINEMENTS)
    with pytest.raises(Planned) as other:
        run(plain, store, replace(CPU, dry_run=True))
    assert other.value.plan["key"] == planned.value.plan["key"]
    with pytest.raises(BadInput, match="--r has no effect with --preset"):
        replace(config, r=5)
    with pytest.raises(BadInput, match="sketsh"):
        replace(config, preset="sketsh")


@pytest.mark.parametrize(("r", "steps"), [(3, 3), (T, 40)])
def test_the_default_steps_fit_any_r(store: Store, r: int, steps: int) -> None:
    made = run(InvertConfig(r=r, count=2, method="ddim"), store, CPU)
    assert made.config["steps"] == steps


def test_a_larger_selection_keeps_the_smaller_one(store: Store) -> None:
    data = DataSet(store.resolve(None, "data").path)
    train, val = set(data.split("train")), set(data.split("val"))
    assert (len(train), len(val)) == (54, 6)
    before: set[int] = set()
    for count in (1, 2, 9, 18, 30, 60):
        chosen = select(data, "train+val", count, 0)
        assert len(chosen) == count and list(chosen) == sorted(set(chosen))
        assert before <= set(chosen)
        assert len(val & set(chosen)) == min(6, count // 3)
        before = set(chosen)
    assert set(select(data, "val", 4, 0)) <= val
    assert list(select(data, "train", 20, 0)) != list(select(data, "train", 20, 1))


def test_count_0_takes_all(store: Store) -> None:
    made = run(InvertConfig(r=2, steps=1, split="val", count=0, method="ddim"), store, CPU)
    assert (made.metrics["images"], made.metrics["val"], made.config["count"]) == (6, 6, 6)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"r": T + 1}, f"1..{T}"),
        ({"r": 0}, "r is 0"),
        ({"r": 10, "steps": 11}, "11 steps"),
        ({"r": 10, "steps": 0}, "steps is 0"),
        ({"method": "exact"}, "fixed-point"),
        ({"method": "ddim", "refinements": 2}, "--refinements"),
        ({"refinements": -1}, "refinements"),
        ({"method": "simplified", "tolerance": 0.1}, "--tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"split": "test"}, "no pictures in test"),
        ({"split": "held-out"}, "train+val"),
        ({"count": -1}, "count is -1"),
        ({"batch": 0}, "batch"),
        ({"name": "a/b"}, "a/b"),
    ],
    ids=str,
)
def test_bad_settings_are_refused_before_any_work(
    store: Store, settings: dict[str, object], says: str
) -> None:
    before = sorted(store.root.rglob("*"))
    with pytest.raises(BadInput) as caught:
        run(InvertConfig(**{"r": 10, **settings}), store, CPU)  # type: ignore[arg-type]
    assert says in f"{caught.value.message} {caught.value.fix}"
    assert sorted(store.root.rglob("*")) == before


def test_a_store_without_data_says_how_to_make_some(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact) as caught:
        run(InvertConfig(), Store(tmp_path / "none"), CPU)
    assert "dclip prepare" in caught.value.fix
    assert not (tmp_path / "none").exists()


def test_pictures_that_do_not_fit_the_network(store: Store) -> None:
    for size in (18, 24):
        config = prepare.PrepareConfig("faces", count=3, size=size, name=f"side-{size}")
        prepare.run(config, store, CPU)
    with pytest.raises(BadInput) as caught:
        run(replace(SMALL, data="side-18"), store, CPU)
    assert "multiple of 4" in caught.value.message and "--size 16" in caught.value.fix
    run(replace(SMALL, data="side-24"), store, replace(CPU, report=(report := Stop())))
    assert any("trained on 16-pixel images" in message for message in report.said)


def test_a_model_that_overflows_makes_no_latents(store: Store) -> None:
    wild = make_model(store, "wild", scale=1e12)
    with pytest.raises(DclipError, match="not finite"):
        run(replace(SMALL, model="wild", name="wild"), store, CPU)
    assert not (store.root / "latents" / "wild").exists()
    assert wild.ref == "model/wild/v1"
