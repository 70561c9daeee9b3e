"""Edits by guides alone, and beside tuned models: no training, the photo at strength 0."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_guide import write_clip
from small_store import CPU, copied

from dclip.configs.edit import EditConfig
from dclip.errors import BadInput
from dclip.models.face_networks import MobileFaceNet
from dclip.stages.edit import run
from dclip.store import Artifact, Store

GREEN = EditConfig(data="faces", model="faces", count=3, guide=("colour:#00ff00:1",), steps=6)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Store:
    return copied(trained, tmp_path_factory.mktemp("guided") / "store")


def pictures(made: Artifact, folder: str = "images") -> np.ndarray:
    files = sorted(made.path.glob(f"{folder}/*"))
    return np.stack([np.asarray(Image.open(file).convert("RGB"), np.float64) for file in files])


def greenness(pixels: np.ndarray) -> np.ndarray:
    mean = pixels.mean((1, 2))
    return mean[:, 1] - mean[:, [0, 2]].mean(1)


def test_a_guide_edits_without_a_tuned_model_and_strength_0_is_the_photo(store: Store) -> None:
    made = run(GREEN, store, CPU)
    assert set(made.manifest.inputs) == {"model", "data"}
    assert made.name == "00ff00"
    assert (greenness(pictures(made)) > greenness(pictures(made, "originals")) + 5).all()
    still = run(replace(GREEN, strength=(0.0,)), store, CPU)
    assert np.abs(pictures(still) - pictures(still, "originals")).max() <= 1
    half, full = (
        greenness(pictures(run(replace(GREEN, strength=(s,)), store, CPU))) for s in (0.5, 1.0)
    )
    assert (half < full).all()


def test_a_guide_acts_beside_a_tuned_model(store: Store) -> None:
    tuned = replace(GREEN, model=None, guide=(), tuned=("sketch",))
    both = run(replace(tuned, guide=GREEN.guide), store, CPU)
    assert "tuned" in both.manifest.inputs
    assert (greenness(pictures(both)) > greenness(pictures(run(tuned, store, CPU)))).all()


def test_a_clip_that_guides_is_found_recorded_and_loaded(store: Store, tmp_path: Path) -> None:
    clip = str(write_clip(tmp_path / "clip", context=64))
    texts = ("direction:a serious person->a smiling person:1",)
    config = replace(GREEN, guide=texts, clip=(clip,))
    made = run(config, store, CPU)
    assert len(made.config["clips"]) == 1 and made.config["through"] == "x0"
    other = run(replace(config, through="network"), store, CPU)
    assert not np.array_equal(pictures(made), pictures(other))
    assert not np.array_equal(pictures(made), pictures(made, "originals"))


def test_a_face_network_holds_the_person_and_counts_by_its_content(
    store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "face.ckpt"
    kept = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save({"epoch": 0, "net_state_dict": MobileFaceNet().state_dict()}, file)
        config = replace(GREEN, guide=(*GREEN.guide, f"face:{file}:1"))
        kept.append(run(config, store, CPU))
    plain = run(GREEN, store, CPU)
    assert kept[0].id != kept[1].id and "faces" not in plain.config
    assert not np.array_equal(pictures(kept[0]), pictures(kept[1]))
    assert not np.array_equal(pictures(kept[0]), pictures(plain))


def test_a_face_network_that_is_a_program_is_not_run(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "face.pt"
    torch.jit.trace(torch.nn.Flatten(), torch.zeros(1, 3, 16, 16)).save(str(file))
    with pytest.raises(BadInput, match="a guide runs none"):
        run(replace(GREEN, guide=(f"face:{file}:1",)), store, CPU)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"guide": ("colour:nocolour:1",)}, "nocolour"),
        ({"guide": ("colour:#00ff00:nan",)}, "nan"),
        ({"guide": ("colur:#00ff00:1",)}, "colur"),
        ({"guide": (), "model": "faces", "tuned": ()}, "--model has no effect without --prompt"),
        ({"tuned": ("sketch",)}, "--model has no effect with --with"),
    ],
)
def test_what_cannot_guide_is_one_line(settings: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        replace(GREEN, **settings)  # type: ignore[arg-type]
