"""The stages one after the other on real CelebA photos, where those are."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from dclip.context import Context
from dclip.data.dataset import DataSet, LatentSet
from dclip.stages import edit, finetune, grid, invert, prepare, train
from dclip.store import Store

ROOT = Path(__file__).resolve().parents[1]
CELEBA = Path(os.environ.get("DCLIP_CELEBA", ROOT.parent / "shared" / "celeba"))
CLIP = Path(os.environ.get("DCLIP_CELEBA_CLIP", CELEBA.parent / "models" / "celeba-clip"))
CPU = Context(device="cpu", workers=1)

pytestmark = [
    pytest.mark.celeba,
    pytest.mark.skipif(
        not (CELEBA / "list_attr_celeba.txt").is_file(), reason=f"no CelebA in {CELEBA}"
    ),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("celeba") / "store")
    prepare.run(prepare.PrepareConfig("celeba", root=str(CELEBA), size=64, limit=200), store, CPU)
    return store


def test_prepared_photos_keep_attributes_and_splits(store: Store) -> None:
    data = DataSet(store.resolve("celeba", "data").path)
    assert (len(data), data.size) == (200, 64)
    assert len(data.split("train")) == 180
    assert {"Smiling", "Eyeglasses", "Blond_Hair"} <= set(data.attribute_names)
    smiling = data.where("Smiling=1")
    assert 20 < len(smiling) < 180
    faces = data.images(range(200))
    assert 20 < faces.std() < 120 and 40 < faces.mean() < 200


@pytest.mark.skipif(not CLIP.is_dir(), reason=f"no CLIP for real faces in {CLIP}")
def test_a_photo_goes_through_all_stages(store: Store, tmp_path: Path) -> None:
    train.run(train.TrainConfig(size="micro", images=64, batch=16), store, CPU)
    latents = invert.run(invert.InvertConfig(r=50, steps=6, count=8), store, CPU)
    assert len(LatentSet(latents.path)) == 8 and latents.metrics["psnr"] > 25
    config = finetune.FinetuneConfig(
        target="a pencil sketch of a person", clip=(str(CLIP),), updates=3, batch=2, decode_steps=3,
        name="sketch",
    )  # fmt: skip
    tuned = finetune.run(config, store, CPU)
    assert tuned.manifest.inputs["latents"]["id"] == latents.id
    edited = edit.run(edit.EditConfig(photos=(str(_photo(tmp_path)),)), store, CPU)
    (picture,) = (edited.path / "images").glob("*.png")
    assert Image.open(picture).size == (64, 64)
    figure = grid.run(grid.GridConfig(rows=1), store, CPU)
    assert (figure.path / "panel.png").is_file() and (figure.path / "panel.pdf").is_file()


def _photo(folder: Path) -> Path:
    """One of CelebA's own 178x218 JPEGs, as somebody would give it to ``dclip edit``."""
    archive = CELEBA / "img_align_celeba.zip"
    if not archive.is_file():
        return min((CELEBA / "img_align_celeba").glob("*.jpg"))
    with zipfile.ZipFile(archive) as file:
        name = next(n for n in file.namelist() if n.endswith(".jpg"))
        (folder / "photo.jpg").write_bytes(file.read(name))
    return folder / "photo.jpg"
