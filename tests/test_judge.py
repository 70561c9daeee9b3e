"""The judge: what training makes, that it resumes and refuses; what the embedded one can tell."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import Stop

from dclip.context import Context
from dclip.data import faces
from dclip.data.dataset import DataSet
from dclip.data.rendered import Rendered
from dclip.data.table import write_table
from dclip.errors import BadInput, CorruptArtifact, MissingArtifact
from dclip.evaluation import goals
from dclip.evaluation.judge import OTHER, Judge, load_judge
from dclip.evaluation.truth import Truth
from dclip.metrics import auc
from dclip.stages import judge_train, prepare
from dclip.stages.judge_train import JudgeTrainConfig, run
from dclip.store import Artifact, Store
from dclip.training import judge as jt
from dclip.training import loop as training

CPU = Context(device="cpu", workers=1)
SMALL = JudgeTrainConfig(data=("pairs",), name="small", images=56, batch=8, precision="fp32")


def make_store(root: Path) -> Store:
    store = Store(root)
    for name, style, count in (("plain", "all", 48), ("pairs", "pairs", 64)):
        settings = prepare.PrepareConfig("faces", count=count, size=16, style=style, name=name)
        prepare.run(settings, store, CPU)
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("judge") / "store")


@pytest.fixture(scope="module")
def small(store: Store) -> Artifact:
    return run(SMALL, store, CPU)


def test_what_a_judge_artifact_holds(store: Store, small: Artifact) -> None:
    judge = load_judge(small.path)
    assert judge.shape.size == 16 and judge.shape.styles[-1] == OTHER
    assert set(judge.shape.styles) - {OTHER} <= set(faces.STYLES)
    verdict = judge(torch.zeros(3, 3, 32, 32))  # of another size
    assert verdict.attributes.shape == (3, len(judge.shape.attributes))
    assert np.allclose(verdict.styles.sum(1), 1) and len(verdict.named_styles) == 3
    assert np.allclose(verdict.attribute("glasses"), verdict.attribute("glasses")[0])
    with pytest.raises(BadInput, match="wombat"):
        verdict.attribute("wombat")
    metrics = small.metrics
    assert metrics["updates"] == 7 and 0 <= metrics["other_found"] <= 1
    assert set(metrics["accuracy"]) <= set(judge.shape.attributes)
    assert small.manifest.inputs["data"]["id"] == store.resolve("pairs", "data").id


def test_killed_anywhere_it_ends_as_if_it_never_was(
    small: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, began = make_store(tmp_path / "other"), []
    for after, seconds in ((3, 0.0), (2, 1e9)):
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", seconds)
        with pytest.raises(KeyboardInterrupt):
            run(SMALL, store, replace(CPU, report=(stop := Stop(after))))
        began += stop.began
    made = run(SMALL, store, replace(CPU, report=(stop := Stop())))
    assert began + stop.began == [0, 16, 16]
    assert made.id == small.id


def test_it_learns_from_several_data_at_once(store: Store) -> None:
    config = replace(SMALL, data=("pairs", "plain"), images=1600, batch=32, other=0.1, name="more")
    made = run(config, store, CPU)
    assert set(made.manifest.inputs) == {"data", "data2"}
    data = DataSet(store.resolve("pairs", "data").path)
    index = data.split("train")
    x = torch.from_numpy(data.images(index)).float() / 127.5 - 1
    verdict = load_judge(made.path)(x)
    truth = np.array(data.table.text("style"))[index]
    assert np.mean(np.array(verdict.named_styles) == truth) > 0.6
    black = data.attribute("black_hair")[index]
    p = verdict.attribute("black_hair")
    assert p[black == 1].mean() > p[black == -1].mean() + 0.2


def test_data_without_styles_gives_attributes_alone(store: Store, tmp_path: Path) -> None:
    source = store.resolve("plain", "data")

    def make(staging: Any) -> dict[str, Any]:
        shutil.copytree(source.path / "images.zarr", staging.path / "images.zarr")
        table = DataSet(source.path).table.take(range(48))
        del table["style"], table["serious"]
        write_table(staging.path / "samples.csv", table)
        return {}

    bare = store.build(
        stage="prepare", kind="data", name="bare", config={}, inputs={}, seed=0, context=CPU,
        make=make,
    )  # fmt: skip
    made = run(replace(SMALL, data=("bare",), images=16, name="attributes"), store, CPU)
    judge = load_judge(made.path)
    assert judge.shape.styles == () and "serious" not in judge.shape.attributes
    assert judge(torch.zeros(1, 3, 16, 16)).named_styles == []
    assert "style_accuracy" not in made.metrics and made.metrics["auc"]
    with pytest.raises(BadInput, match="other attributes"):
        run(replace(SMALL, data=("plain", bare.ref)), store, CPU)


def test_what_it_cannot_learn_from_is_refused(store: Store, tmp_path: Path) -> None:
    from PIL import Image

    for i in range(3):
        Image.fromarray(np.full((20, 20, 3), 80 * i, np.uint8)).save(tmp_path / f"{i}.png")
    folder = prepare.PrepareConfig("folder", root=str(tmp_path), size=16, name="bare-folder")
    prepare.run(folder, store, CPU)
    with pytest.raises(BadInput, match="no attributes and no styles"):
        run(JudgeTrainConfig(data=("bare-folder",)), store, CPU)
    for settings in ({"precision": "fp8"}, {"batch": 1}, {"images": 4}, {"lr": 0.0}, {"other": 1}):
        with pytest.raises(BadInput):
            JudgeTrainConfig(**settings)


def test_a_damaged_judge_is_refused(small: Artifact, tmp_path: Path) -> None:
    with pytest.raises(CorruptArtifact, match="holds no judge"):
        load_judge(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(small.path, broken)
    settings = (broken / "judge.json").read_text().replace('"glasses"', '"glasses", "wombat"')
    (broken / "judge.json").write_text(settings)
    with pytest.raises(CorruptArtifact, match="holds no judge"):
        load_judge(broken)


def test_a_partner_is_another_face_or_another_style(store: Store) -> None:
    data = judge_train._Labelled([store.resolve("pairs", "data")])
    order = np.random.default_rng(0).permutation(len(data.split("train")))
    index = jt.units(data.pairs, data.split("train"), order).reshape(-1)
    assert len(set(index)) == len(index) and set(index) == set(data.split("train"))
    pairs = np.array(data.pairs)[index]
    assert (pairs[::2] == pairs[1::2]).mean() > 0.9
    work = object.__new__(judge_train._Training)
    work.data, work.device = data, torch.device("cpu")
    mate = work._partners(index).numpy()
    alike = (pairs == pairs[mate]) & (data.style[index] == data.style[index][mate])
    assert not alike.any() and (pairs == pairs[mate]).any()


def test_spoilt_pictures_are_far_from_what_they_were_and_harder_ones_are_near() -> None:
    x = torch.from_numpy(Rendered(40, 1, "photo", 32).draw(range(40))) / 127.5 - 1
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    spoilt, harder = jt.spoil(x, x.roll(1, 0), rand), jt.augment(x, rand)
    for made in (spoilt, harder):
        assert made.shape == x.shape and float(made.abs().max()) <= 1
    assert float((spoilt - x).abs().mean((1, 2, 3)).min()) > 0.01
    assert float((spoilt - x).abs().mean()) > 0.25
    colour = (harder.mean((2, 3)) - x.mean((2, 3))).abs().max()
    assert float(colour) < 0.35


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, 60).astype(float), rng.random(60) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert auc(scores, positive) == pytest.approx(np.mean(pairs))


# --- the embedded judge

COUNT = 24
PARAMS = [faces.sample(20_261, i) for i in range(COUNT)]
GOALS = [
    "sketch", "cartoon", "zombie", "smiling", "not smiling", "blond hair", "black hair",
    "glasses", "no glasses",
]  # fmt: skip


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    return load_judge(Store(tmp_path_factory.mktemp("none")).resolve("embedded", "judge").path)


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    pictures = Rendered(COUNT, 20_261, "photo", 64).draw(range(COUNT))
    return torch.from_numpy(pictures).float() / 127.5 - 1


def drawn(target: str) -> torch.Tensor:
    pixels = np.stack([faces.truth(p, target) for p in PARAMS]).transpose(0, 3, 1, 2)
    return torch.from_numpy(pixels).float() / 127.5 - 1


@pytest.mark.parametrize("target", GOALS)
def test_it_recognises_drawn_edits(embedded: Judge, photos: torch.Tensor, target: str) -> None:
    goal = goals.of_drawn(PARAMS, target, embedded.shape.attributes)
    before = embedded(photos)
    found, unedited = goal.scores(embedded(drawn(target)), before), goal.scores(before, before)
    assert found["judge_target"] is not None and found["judge_target"] >= 0.95
    assert found["judge_kept"] is not None and found["judge_kept"] >= 0.9
    assert found["judge_picture"] == 1
    assert unedited["judge_target"] is not None and unedited["judge_target"] <= 0.05
    assert unedited["judge_kept"] == 1


def spoil(x: torch.Tensor, how: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if how == "noise":
        return x + 0.7 * torch.randn(x.shape, generator=generator)
    if how == "blur":
        small = torch.nn.functional.avg_pool2d(x, 12)
        return torch.nn.functional.interpolate(small, 64, mode="bilinear")
    if how == "colour shift":
        return x[:, [1, 2, 0]] if float((x[:, 0] - x[:, 2]).abs().mean()) > 0.05 else -x
    if how == "green ink":
        green = torch.tensor([-1.0, 0.3, -1.0]).view(1, 3, 1, 1)
        luma = x.mean(1, keepdim=True)
        return green + (luma + 1) / 2 * (1 - green)
    raise ValueError(how)


@pytest.mark.parametrize("how", ["noise", "blur", "colour shift", "green ink"])
@pytest.mark.parametrize("target", ["sketch", "zombie", "smiling"])
def test_spoilt_edits_are_no_edits(embedded: Judge, how: str, target: str) -> None:
    goal = goals.of_drawn(PARAMS, target, embedded.shape.attributes)
    spoilt = embedded(spoil(drawn(target), how).clamp(-1, 1))
    found = goal.scores(spoilt, spoilt)
    assert found["judge_target"] is not None and found["judge_target"] <= 0.25


@pytest.mark.parametrize("target", ["sketch", "zombie"])
def test_half_an_edit_is_none(embedded: Judge, photos: torch.Tensor, target: str) -> None:
    named = embedded(0.5 * (drawn(target) + photos)).named_styles
    assert np.mean([style == target for style in named]) <= 0.25


def test_a_spoilt_photo_is_no_sketch(embedded: Judge, photos: torch.Tensor) -> None:
    for how in ("noise", "blur", "colour shift", "green ink"):
        named = embedded(spoil(photos, how).clamp(-1, 1)).named_styles
        assert not {"sketch", "zombie"} & set(named)


def test_the_truth_of_one_style_is_not_another(embedded: Judge) -> None:
    truth = Truth(PARAMS[:8], "cartoon", 64)
    assert set(embedded(torch.from_numpy(truth.pictures)).named_styles) == {"cartoon"}


def test_there_is_none_in_an_installation_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dclip.store import refs

    monkeypatch.setitem(refs.ASSETS, "judge/embedded", "no-such-folder")
    with pytest.raises(MissingArtifact, match="judge") as caught:
        Store(tmp_path).resolve("embedded", "judge")
    assert "dclip judge train" in caught.value.fix
