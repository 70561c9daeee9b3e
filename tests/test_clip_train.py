"""The stage clip train: what it makes, that it resumes, adversarial or not, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from fakes import Stop
from PIL import Image
from small_guide import write_clip

from dclip.context import Context
from dclip.data.dataset import DataSet
from dclip.errors import BadInput, DclipError
from dclip.guidance.clip import Guide, load_guide
from dclip.guidance.views import blur
from dclip.stages import clip_train, prepare
from dclip.stages.clip_train import ClipTrainConfig, run
from dclip.store import Artifact, Store
from dclip.training import loop as training
from dclip.training.clip import MIXING, Batch, radii

CPU = Context(device="cpu", workers=1)


def make_store(root: Path) -> Store:
    store = Store(root)
    for name, style, size in (("plain", "all", 32), ("pairs", "pairs", 16)):
        settings = prepare.PrepareConfig("faces", count=48, size=size, style=style, name=name)
        prepare.run(settings, store, CPU)
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("clip-train") / "store")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> ClipTrainConfig:
    """Seven updates of a tiny CLIP on pairs; the attack begins in the third."""
    start = write_clip(tmp_path_factory.mktemp("start") / "tiny", context=64)
    return ClipTrainConfig(
        data="pairs", init=str(start), name="mine", images=56, batch=8, radius=4.0
    )


@pytest.fixture(scope="module")
def artifact(store: Store, small: ClipTrainConfig) -> Artifact:
    return run(small, store, CPU)


def stats(artifact: Artifact) -> list[dict[str, Any]]:
    text = (artifact.path / "logs" / "stats.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_what_a_clip_artifact_holds(store: Store, artifact: Artifact) -> None:
    where = f"local-dir:{artifact.path}"
    model, transform = open_clip.create_model_from_pretrained(where)
    picture = Image.fromarray(np.full((16, 16, 3), 90, np.uint8))
    guide = load_guide(str(artifact.path))
    with torch.no_grad():
        theirs = model.encode_image(transform(picture)[None], normalize=True)
        found = guide.embed_image(torch.full((1, 3, 16, 16), 90 / 127.5 - 1))
    assert torch.allclose(found, theirs, atol=1e-5)
    words = json.loads((artifact.path / "words.json").read_text())["words"]
    assert {"sketch", "zombie", "glasses", "photo"} <= set(words)
    assert guide.warning("a photo of a zombie") is None and guide.warning("a spaceship")
    assert Image.open(artifact.path / "loss.png").size[0] > 100
    metrics = artifact.metrics
    assert metrics["updates"] == 7 == len(stats(artifact))
    assert 0 <= metrics["retrieval"]["R@1"] <= metrics["retrieval"]["R@10"] <= 1


def test_the_attack_grows_from_nothing_to_its_radius(
    store: Store, small: ClipTrainConfig, artifact: Artifact
) -> None:
    """Each picture's own radius is drawn between a quarter and the whole of the limit."""
    grown = replace(small, clean=0.3, ramp=0.4, share=0.49, name="grown")
    radii = [row["radius"] for row in stats(run(grown, store, CPU))]
    assert radii[:3] == [0, 0, 0] and 0 < radii[3] < 2 and 1 < radii[-1] < 4.0


def test_no_attack_goes_further_than_a_share_of_the_pair() -> None:
    pixels = torch.zeros(5, 3, 4, 4)
    pixels[1] += 0.5  # the first pair's distance: 0.5 * sqrt(48)
    pixels[3] += 0.01
    batch = Batch(
        pixels,
        torch.eye(5, dtype=torch.bool),
        (),
        torch.tensor([[0, 1], [2, 3]]),
        torch.empty(2, MIXING),
        torch.empty(2, 3, 4, 4),
    )
    assert torch.allclose(
        radii(batch, 1.0, 0.3), torch.tensor([1.0, 1.0, 0.003 * 48**0.5, 0.003 * 48**0.5, 1.0])
    )


def test_softening_keeps_flat_colour_and_takes_detail_away() -> None:
    x = torch.stack([torch.full((3, 8, 8), 0.3), torch.randn(3, 8, 8)]).clamp(-1, 1)
    assert torch.equal(blur(x, torch.zeros(2)), x)
    half, quarter = blur(x, torch.ones(2)), blur(x, torch.full((2,), 2.0))
    assert torch.allclose(half[0], x[0]) and torch.allclose(quarter[0], x[0])
    assert x[1].std() > half[1].std() > quarter[1].std()


def test_killed_anywhere_it_ends_as_if_it_never_was(
    small: ClipTrainConfig, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, began = make_store(tmp_path / "other"), []
    for after, seconds in ((2, 0.0), (2, 1e9), (4, 0.0)):
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", seconds)
        with pytest.raises(KeyboardInterrupt):
            run(small, store, replace(CPU, report=(stop := Stop(after))))
        began += stop.began
    made = run(small, store, replace(CPU, report=(stop := Stop())))
    assert began + stop.began == [0, 8, 8, 32]
    assert made.id == artifact.id
    assert [row["step"] for row in stats(made)] == list(range(1, 8))


def test_it_learns(store: Store, small: ClipTrainConfig) -> None:
    config = replace(small, images=480, batch=16, lr=3e-3, radius=0.0, name="longer")
    rows = stats(run(config, store, CPU))
    loss = [row["loss"] for row in rows]
    assert np.mean(loss[-5:]) < 0.9 * np.mean(loss[:5])


@pytest.mark.parametrize("radius", [0.0, 4.0])
def test_batches_of_an_update_are_told_apart_together(
    store: Store, small: ClipTrainConfig, monkeypatch: pytest.MonkeyPatch, radius: float
) -> None:
    """In parts an update comes to what it would at once, with a part of it in memory."""
    common = replace(small, images=48, radius=radius, clean=0.0, ramp=0.0, precision="fp32")
    seen: list[int] = []
    real = Guide.embed_image

    def embed_image(self: Guide, x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return real(self, x)

    monkeypatch.setattr(Guide, "embed_image", embed_image)
    whole = run(replace(common, batch=16, name="whole"), store, CPU)
    at_once, most = len(seen), max(seen[:3])
    parts = run(replace(common, batch=4, accumulate=4, name="parts"), store, CPU)
    assert most == 16 + 8 and max(seen[at_once : at_once + 20]) <= 4  # pictures and mixtures
    assert len(stats(whole)) == len(stats(parts)) == 3
    for one, other in zip(stats(whole), stats(parts), strict=True):
        for name in ("loss", "contrastive", "contrast", "pair", "mixture"):
            assert one[name] == pytest.approx(other[name], rel=2e-3, abs=1e-4)
    first, second = (load_guide(str(made.path)).model.state_dict() for made in (whole, parts))
    start = load_guide(str(small.init)).model.state_dict()
    for name, weights in first.items():
        # As a whole: where a gradient is but rounding, Adam moves a single weight either way.
        moved = (weights - start[name]).norm()
        assert (weights - second[name]).norm() <= 0.1 * moved + 1e-4


def test_data_without_pairs_and_a_fresh_network(store: Store) -> None:
    made = run(ClipTrainConfig(data="plain", images=8, batch=4, clean=0.0, ramp=0.0), store, CPU)
    assert made.name == "plain" and "pair_cosine" not in made.metrics
    assert all(0.5 <= row["radius"] <= 2.0 for row in stats(made))
    assert (made.config["radius"], made.config["lr"]) == (2.0, 1e-3)  # for 32 pixels; from nothing
    assert load_guide(str(made.path)).size == (32, 32)


def test_it_goes_on_from_an_artifact_and_knows_it_by_content(
    store: Store, small: ClipTrainConfig, artifact: Artifact, tmp_path: Path
) -> None:
    made = run(replace(small, init="mine", images=8, name="next"), store, CPU)
    assert made.manifest.inputs["init"]["id"] == artifact.id
    assert small.init is not None
    elsewhere = Path(small.init).rename(tmp_path / "moved")
    try:
        assert not run(replace(small, init=str(elsewhere)), store, CPU).fresh
    finally:
        elsewhere.rename(small.init)


def test_data_without_captions_is_refused(tmp_path: Path) -> None:
    for i in range(3):
        Image.fromarray(np.full((20, 20, 3), 80 * i, np.uint8)).save(tmp_path / f"{i}.png")
    store = Store(tmp_path / "store")
    prepare.run(prepare.PrepareConfig("folder", root=str(tmp_path), size=16), store, CPU)
    with pytest.raises(BadInput, match="no captions"):
        run(ClipTrainConfig(), store, CPU)


def test_pictures_too_small_and_models_unknown_are_refused_at_once(store: Store) -> None:
    before = sorted(store.root.rglob("*"))
    config = ClipTrainConfig(data="pairs", images=8, batch=8)
    for context in (CPU, replace(CPU, dry_run=True)):
        for model in ("small", "small-convnext"):
            with pytest.raises(BadInput, match="32 pixels or more, not 16") as caught:
                run(replace(config, model=model), store, context)
            assert "--size 32" in caught.value.fix
        with pytest.raises(BadInput, match="smal-convnext"):
            run(replace(config, model="smal-convnext"), store, context)
    assert sorted(store.root.rglob("*")) == before


def test_one_picture_is_nothing_to_compare(tmp_path: Path) -> None:
    store = Store(tmp_path)
    prepare.run(prepare.PrepareConfig("faces", count=2, size=32, split="50/50"), store, CPU)
    with pytest.raises(BadInput, match="fewer than two training images"):
        run(ClipTrainConfig(images=8, batch=8), store, CPU)


def test_contrasts_from_a_file(store: Store, small: ClipTrainConfig, tmp_path: Path) -> None:
    def write(attribute: str) -> str:
        sides = [
            {"where": [f"{attribute}={value}"], "prompts": [prompt]}
            for value, prompt in ((1, "a wombat"), (-1, "no wombat"))
        ]
        file = tmp_path / f"{attribute}.json"
        file.write_text(json.dumps([{"name": "mine", "sides": sides}]))
        return str(file)

    config = replace(small, images=8, name="contrasts")
    made = run(replace(config, contrasts=write("glasses")), store, CPU)
    assert load_guide(str(made.path)).warning("a wombat") is None
    assert set(made.metrics["contrast_accuracy"]) <= {"mine"}
    before = sorted(store.root.rglob("*"))
    with pytest.raises(BadInput, match="wombats"):
        run(replace(config, contrasts=write("wombats")), store, CPU)
    assert sorted(store.root.rglob("*")) == before


def test_pairs_stay_together_and_in_their_split(store: Store) -> None:
    data = DataSet(store.resolve("pairs", "data").path)
    units = clip_train._units(data, data.split("train"))
    names = data.table.text("pair")
    assert units.shape[1] == 2 and len(units) > 10
    assert all(names[a] == names[b] for a, b in units)
    assert set(units.reshape(-1)) <= set(data.split("train"))


def test_a_loss_that_is_no_number_stops_with_advice(
    store: Store, small: ClipTrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nan(encode: Any, pixels: Any, *rest: Any) -> Any:
        return encode(pixels).sum() * torch.nan, {}

    monkeypatch.setattr(clip_train.ct, "image_loss", nan)
    with pytest.raises(DclipError, match="loss became nan at update 1") as caught:
        run(replace(small, seed=7), store, CPU)
    assert "--lr" in caught.value.fix


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "fp8"}, {"batch": 1}, {"images": 4, "batch": 8}, {"radius": -1.0},
        {"attack_steps": 0}, {"accumulate": 0}, {"images": 20, "batch": 8, "accumulate": 3},
        {"lr": 0.0}, {"lr": float("nan")},
    ],
    ids=str,
)  # fmt: skip
def test_a_config_that_cannot_be_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        ClipTrainConfig(**settings)


def test_token_states_that_training_does_not_read_are_held(
    store: Store, small: ClipTrainConfig
) -> None:
    free, held = (
        run(replace(small, name="held", radius=0.0, lr=1e-2, hold_tokens=weight), store, CPU)
        for weight in (0.0, 100.0)
    )
    assert held.metrics["tokens_moved"] < 0.5 * free.metrics["tokens_moved"]
    assert "tokens moved" in stats(held)[0] and "tokens moved" not in stats(free)[0]
    with pytest.raises(BadInput, match="--hold-tokens has no effect without --init"):
        ClipTrainConfig(hold_tokens=1.0)
