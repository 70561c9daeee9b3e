"""Loose photos brought into a frame, and the frame that data, bases and imports keep."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import photo_scenes as scenes
import pytest
from fakes import Stop
from small_store import CPU

from dclip.configs.invert import InvertConfig
from dclip.configs.prepare import PrepareConfig
from dclip.configs.train import TrainConfig
from dclip.data.dataset import DataSet
from dclip.errors import BadInput
from dclip.models.checkpoint import read_info
from dclip.models.pretrained import Asked
from dclip.models.pretrained.opening import shows
from dclip.photos import find
from dclip.photos.frames import Frame, frame_of
from dclip.stages import invert, prepare, train
from dclip.store import Artifact, Store

SIZE = 64
SITTERS = {
    "turned": [scenes.Sitter(1, (150, 140), 160, 0.4)],
    "two": [scenes.Sitter(4, (100, 120), 120, -0.2), scenes.Sitter(6, (280, 130), 180, 0.1)],
    "wall": [],
}
SHAPES = {"turned": (310, 280), "two": (420, 270), "wall": (200, 210)}

needs_detector = pytest.mark.skipif(not find.available(), reason="dclip[photos] is not installed")


class Finder:
    """Knows where the scenes' faces are."""

    version = "a finder of tests"

    def find(self, pixels: np.ndarray) -> list[find.Face]:
        name = next(n for n, shape in SHAPES.items() if shape == pixels.shape[1::-1])
        return [scenes.face_at(sitter) for sitter in SITTERS[name]]


def made(folder: Path, dot: int) -> Path:
    """The scenes, with a red square at each of the five points of every face."""
    for name, sitters in SITTERS.items():
        pixels = scenes.scene(SHAPES[name], sitters)
        for sitter in sitters:
            for x, y in np.rint(sitter.points() - 0.5).astype(int):
                pixels[y - dot : y + dot + 1, x - dot : x + dot + 1] = (255, 0, 0)
        scenes.save(pixels, folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("album"), dot=5)


@pytest.fixture
def finder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dclip.photos.align.FaceFinder", Finder)


def prepared(store: Store, album: Path, said: Stop | None = None, **more: Any) -> Artifact:
    context = replace(CPU, report=said) if said else CPU
    given = {"root": str(album), "size": SIZE, "align": True} | more
    return prepare.run(PrepareConfig("folder", **given), store, context)


def marks(picture: np.ndarray, expected: np.ndarray, radius: float) -> np.ndarray:
    """Where the red squares near the expected places lie, (5, 2) in pixels."""
    red, green, blue = picture.astype(float)
    weight = np.clip(red - np.maximum(green, blue) - 90, 0, None)
    y, x = np.mgrid[: picture.shape[1], : picture.shape[2]] + 0.5
    found = []
    for place in expected:
        near = weight * (np.hypot(x - place[0], y - place[1]) < radius)
        assert near.sum() > 0
        found.append(((near * x).sum() / near.sum(), (near * y).sum() / near.sum()))
    return np.array(found)


def points_in(frame: Frame, sitter: scenes.Sitter) -> np.ndarray:
    """Where the frame has a face's points, by the frame's own definition, in pixels."""
    if frame.name == "celeba":
        return frame.points() * SIZE
    return frame.place(sitter.points()).to_square(sitter.points()) * SIZE


@pytest.mark.usefixtures("finder")
@pytest.mark.parametrize("frame", [Frame("ffhq"), Frame("celeba", "center")])
def test_a_turned_face_comes_to_where_the_frame_has_it(
    tmp_path: Path, album: Path, frame: Frame
) -> None:
    more = {"crop": frame.crop} if frame.crop else {}
    data = DataSet(prepared(Store(tmp_path), album, frame=frame.name, **more).path)
    for name, sitter in (
        ("turned.png", SITTERS["turned"][0]),
        ("two.png~face1", SITTERS["two"][0]),
        ("two.png~face2", SITTERS["two"][1]),
    ):
        picture = data.images(np.array([data.ids.index(name)]))[0]
        expected = points_in(frame, sitter)
        # CelebA's is a similarity: a drawn face is not CelebA's mean face.
        bound = 1.0 if frame.name == "ffhq" else 4.0
        assert np.abs(marks(picture, expected, bound + 2) - expected).max() < bound, name


@pytest.mark.usefixtures("finder")
def test_no_face_and_several_faces_are_told(tmp_path: Path, album: Path) -> None:
    said = Stop()
    data = prepared(Store(tmp_path), album, said)
    assert data.metrics["images"] == 3 and data.metrics["skipped"] == 1
    with (data.path / "skipped.csv").open() as file:
        assert list(csv.reader(file))[1:] == [["wall.png", "wall.png: no face was found"]]
    assert any("1 photos have several faces: each is a sample" in text for text in said.notes)
    assert data.config["detector"] == Finder.version


@pytest.mark.usefixtures("finder")
def test_of_several_faces_the_largest_are_taken_where_so_many_are_asked_for(
    tmp_path: Path, album: Path
) -> None:
    every = DataSet(prepared(Store(tmp_path), album).path)
    one = DataSet(prepared(Store(tmp_path), album, max_faces=1).path)
    assert sorted(one.ids) == ["turned.png", "two.png"]
    largest, same = (
        data.images(np.array([data.ids.index(name)]))
        for data, name in ((every, "two.png~face2"), (one, "two.png"))
    )
    assert np.array_equal(largest, same)


@pytest.mark.usefixtures("finder")
@pytest.mark.parametrize("style", [None, "pairs"])
def test_all_faces_of_a_photo_are_in_one_split(
    tmp_path: Path, album: Path, style: str | None
) -> None:
    for seed in range(6):
        data = DataSet(prepared(Store(tmp_path), album, seed=seed, split="50/50", style=style).path)
        of = {
            name: split
            for split in ("train", "val")
            for name in np.array(data.ids)[data.split(split)]
        }
        assert len({of[name] for name in of if name.startswith("two.png")}) == 1


@needs_detector
def test_the_detector_finds_them_by_itself(tmp_path: Path) -> None:
    album = made(tmp_path, dot=-1)
    data = DataSet(prepared(Store(tmp_path / "store"), album, size=160).path)
    picture = data.images(np.array([data.ids.index("two.png")]))[0]
    (face,) = find.FaceFinder().find(picture.transpose(1, 2, 0))
    away = np.array(face.points) / 160 - Frame("ffhq").points()
    assert np.abs(away).max() < 0.06  # unaligned, its square is another part of the photo


@pytest.mark.usefixtures("finder")
def test_data_and_base_keep_the_frame(tmp_path: Path, album: Path) -> None:
    store = Store(tmp_path / "store")
    prepared(store, album, name="ffhq")
    prepared(store, album, name="narrow", frame="celeba")
    prepared(store, album, name="loose", align=False)
    drawn = prepare.run(PrepareConfig("faces", count=4, size=16), store, CPU)
    frames = {}
    for name in ("ffhq", "narrow", "loose", drawn.name):
        config = TrainConfig(data=name, size="micro", T=20, images=2, batch=2)
        frames[name] = frame_of(read_info(train.run(config, store, CPU).path))
    assert frames == {
        "ffhq": Frame("ffhq"),
        "narrow": Frame("celeba", "face"),
        "loose": Frame("center"),
        drawn.name: Frame("drawn"),
    }


@pytest.mark.usefixtures("finder")
def test_photos_in_another_frame_than_the_base_s_are_warned_of(tmp_path: Path, album: Path) -> None:
    store, said = Store(tmp_path / "store"), Stop()
    prepared(store, album, name="ffhq")
    prepared(store, album, name="loose", align=False)
    train.run(TrainConfig(data="ffhq", size="micro", T=20, images=2, batch=2), store, CPU)
    context = replace(CPU, report=said)
    config = InvertConfig(data="ffhq", model="ffhq", r=4, steps=2, count=1)
    invert.run(config, store, context)
    assert not any("frame" in text for text in said.said)
    invert.run(replace(config, data="loose"), store, context)
    (warning,) = [text for text in said.said if "frame" in text]
    assert "--align --frame ffhq" in warning


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"frame": "center"}, "no face to align"),
        ({"frame": "ffhq", "crop": "face"}, "would leave the frame ffhq"),
        ({"domain": "dogs"}, "dogs have no place"),
        ({"align": False, "frame": "celeba", "domain": "dogs"}, "dogs have no place"),
    ],
)
def test_settings_that_contradict_each_other(more: dict[str, Any], match: str) -> None:
    with pytest.raises(BadInput, match=match):
        PrepareConfig("folder", **({"root": "x", "align": True} | more))


@pytest.mark.parametrize(
    ("names", "asked", "expected"),
    [
        (["google/ddpm-celebahq-256"], Asked(), ("faces", "ffhq")),
        (["gwang-kim/DiffusionCLIP-CelebA_HQ"], Asked(), ("faces", "ffhq")),
        (["snapshots", "/a/celeba_hq.ckpt"], Asked(), ("faces", "ffhq")),
        (["ffhq_10m.pt"], Asked(), ("faces", "ffhq")),
        (["/data/celeba/afhq_dog_4m.pt"], Asked(), ("dogs", "center")),
        (["google/ddpm-ema-church-256"], Asked(), ("churches", "center")),
        (["lsun_bedroom.pt"], Asked(), ("bedrooms", "center")),
        (["256x256_diffusion.pt"], Asked(), ("photos", "center")),
        (["my.pt"], Asked(domain="faces"), ("faces", "ffhq")),
        (["my.pt"], Asked(domain="faces", frame="center"), ("faces", "center")),
        (["celeba_hq.ckpt"], Asked(frame="celeba"), ("faces", "celeba")),
    ],
)
def test_what_an_imported_base_shows(
    names: Sequence[str], asked: Asked, expected: tuple[str, str]
) -> None:
    found, note = shows(names, asked)
    assert (found["domain"], found["frame"]) == expected
    assert expected[0] in note and expected[1] in note


def test_a_frame_of_faces_for_something_else_is_refused() -> None:
    with pytest.raises(BadInput, match="dogs have no place"):
        shows(["afhq_dog_4m.pt"], Asked(frame="ffhq"))
