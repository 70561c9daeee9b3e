"""Whole photos through any editor: which faces, where, and how near the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import photo_scenes as scenes
import pytest
import torch
from photo_scenes import face_at
from torch import Tensor

from dclip.errors import BadInput
from dclip.photos.back import cut
from dclip.photos.colours import Plain
from dclip.photos.files import Photo, read_photo
from dclip.photos.find import Face
from dclip.photos.frames import Frame
from dclip.photos.whole import edit_photo, find_spots

DRAWN = Frame("drawn")
S = 32
SITTERS = [scenes.Sitter(1, (110, 130), 180, 0.2), scenes.Sitter(4, (330, 120), 220, -0.3, 0.8),
           scenes.Sitter(6, (520, 150), 120, 0.1)]  # fmt: skip


FOUND = [face_at(sitter) for sitter in SITTERS]


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Photo:
    pixels = scenes.scene((620, 260), SITTERS)
    return read_photo(scenes.save(pixels, tmp_path_factory.mktemp("scene") / "party.png"))


def redder(x: Tensor) -> Tensor:
    line = torch.linspace(-1, 1, x.shape[-1])
    spot = torch.exp(-(line[:, None] ** 2 + line[None, :] ** 2) / 0.1)
    return x + spot * torch.tensor([0.5, -0.2, -0.2]).view(3, 1, 1)


def bluer(x: Tensor) -> Tensor:
    return redder(x.flip(1)).flip(1)


def change(edited: np.ndarray, photo: Photo, sitter: scenes.Sitter) -> np.ndarray:
    """What became of a face's middle, a mean colour."""
    x, y = map(int, sitter.middle)
    box = (slice(y - 8, y + 8), slice(x - 8, x + 8))
    return (edited[box].astype(float) - photo.pixels[box]).mean((0, 1))


def test_no_change_gives_the_photo_back(photo: Photo) -> None:
    done = edit_photo(photo, FOUND, DRAWN, lambda x: x, size=S)
    assert np.array_equal(done.pixels, photo.pixels) and done.notes == ()
    assert [spot.number for spot in done.spots] == [1, 2, 3]


def test_every_face_is_edited_in_batches(photo: Photo) -> None:
    sizes: list[int] = []

    def edit(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return redder(x)

    done = edit_photo(photo, FOUND, DRAWN, edit, size=S, batch=2)
    assert sizes == [2, 1] and set(done.before) == set(done.after) == {1, 2, 3}
    assert all(change(done.pixels, photo, s)[0] > 20 for s in SITTERS)
    assert done.before[2].shape == (3, S, S)


def test_one_face_the_largest_or_each_its_own_edit(photo: Photo) -> None:
    second = edit_photo(photo, FOUND, DRAWN, redder, size=S, only=[2]).pixels
    largest = edit_photo(photo, FOUND, DRAWN, redder, size=S, most=1)
    assert np.array_equal(second, largest.pixels)
    assert largest.notes == ("2 of 3 faces left as they are, smaller than the 1 largest:"
                             " faces 1, 3",)  # fmt: skip
    assert [bool(change(second, photo, s).any()) for s in SITTERS] == [False, True, False]
    both = edit_photo(photo, FOUND, DRAWN, {1: redder, 3: bluer}, size=S).pixels
    first, none, third = (change(both, photo, s) for s in SITTERS)
    assert first[0] > 20 > first[2] and third[2] > 20 > third[0] and not none.any()


def test_numbers_that_no_face_has(photo: Photo) -> None:
    for only in ([0], [4], [1, 9]):
        with pytest.raises(BadInput, match="no face"):
            edit_photo(photo, FOUND, DRAWN, redder, size=S, only=only)
    with pytest.raises(BadInput, match="no face 5"):
        edit_photo(photo, FOUND, DRAWN, {5: redder}, size=S)
    with pytest.raises(BadInput, match="at most 0"):
        edit_photo(photo, FOUND, DRAWN, redder, size=S, most=0)
    with pytest.raises(BadInput, match="no face has an edit"):
        edit_photo(photo, FOUND, DRAWN, {}, size=S)


def test_no_face_says_what_to_do(photo: Photo) -> None:
    with pytest.raises(BadInput, match="no face was found in party") as told:
        edit_photo(photo, [], DRAWN, redder, size=S)
    assert "--no-align" in told.value.fix


def test_a_neighbour_who_is_not_edited_keeps_their_face(photo: Photo) -> None:
    near = scenes.Sitter(4, (190, 150), 180)
    found = [FOUND[0], face_at(near)]
    alone = edit_photo(photo, found[:1], DRAWN, lambda x: -x, size=S).pixels
    beside = edit_photo(photo, found, DRAWN, lambda x: -x, size=S, only=[1]).pixels
    box = (slice(140, 160), slice(170, 190))
    moved, kept = (np.abs(p[box].astype(int) - photo.pixels[box]).mean() for p in (alone, beside))
    assert moved > 2 * kept + 5


def test_unfit_faces_are_skipped_with_a_count(photo: Photo) -> None:
    profile = SITTERS[0].points()
    profile[2] += (60, 0)
    across = scenes.Sitter(9, (5, 130), 180)
    tiny = scenes.Sitter(9, (300, 240), 40)
    found = [face_at(across), face_at(SITTERS[0], profile), face_at(tiny), FOUND[1]]
    done = edit_photo(photo, found, DRAWN, redder, size=S)
    assert [s.skipped for s in done.spots] == [
        "cut off by the photo's edge", "in profile", "narrower than 32 pixels", "",
    ]  # fmt: skip
    assert (
        len(done.notes) == 3 and "1 of 4 faces left as they are, in profile: face 2" in done.notes
    )
    assert not change(done.pixels, photo, SITTERS[0]).any()
    with pytest.raises(BadInput, match="narrower than 32 pixels; in profile"):
        find_spots(photo, [face_at(tiny), face_at(SITTERS[0], profile)], DRAWN)


def test_a_face_with_an_eye_beyond_the_edge_is_cut_off(photo: Photo) -> None:
    points = SITTERS[0].points()
    inside = face_at(SITTERS[0])
    for axis, past in ((0, -3.0), (0, 622.0), (1, -3.0), (1, 263.0)):
        moved = points.copy()
        moved[0, axis] = past
        guessed = Face(inside.box, tuple(map(tuple, moved.tolist())), 0.9)
        (spot, other) = find_spots(photo, [guessed, FOUND[1]], DRAWN)
        assert spot.skipped == "cut off by the photo's edge" and not other.skipped


def test_frames_without_faces_take_the_picture(photo: Photo) -> None:
    whole = edit_photo(photo, [], Frame("none"), lambda x: x + 0.2, size=S)
    darker = photo.pixels < 220
    moved = whole.pixels.astype(int) - photo.pixels
    assert np.abs(moved[darker] - 25.5).max() < 5 and whole.spots[0].number == 0
    middle = edit_photo(photo, FOUND, Frame("center"), {0: lambda x: x + 0.2}, size=S).pixels
    assert np.array_equal(middle[:, :170], photo.pixels[:, :170])
    assert (middle[:, 310] != photo.pixels[:, 310]).mean() > 0.9


def test_transparent_pixels_stay_as_they_are(tmp_path: Path) -> None:
    pixels = np.full((100, 100, 4), 120, np.uint8)
    pixels[:50, :, 3] = 0
    photo = read_photo(scenes.save(pixels, tmp_path / "a.png"))
    done = edit_photo(photo, [], Frame("none"), lambda x: x * 0, size=S).pixels
    assert (done[:50] == 120).all() and (done[60:] != 120).all()


def test_an_editor_that_breaks_is_told(photo: Photo) -> None:
    for edit in (lambda x: x[..., :-1], lambda x: x * float("nan")):
        with pytest.raises(BadInput, match="the editor made"):
            edit_photo(photo, FOUND, DRAWN, edit, size=S)


def test_an_editor_cannot_change_what_it_was_given(photo: Photo) -> None:
    done = edit_photo(photo, FOUND, DRAWN, lambda x: x.mul_(0.5), size=S)
    assert change(done.pixels, photo, SITTERS[1]).any()


def test_spots_are_plain_json(photo: Photo) -> None:
    import json

    spots = find_spots(photo, FOUND, DRAWN, only=[2])
    rows = json.loads(json.dumps([spot.to_dict() for spot in spots]))
    assert [row["number"] for row in rows] == [1, 2, 3] and rows[0]["skipped"]
    assert {"box", "points", "score", "matrix"} <= set(rows[1])


@pytest.mark.parametrize("edit", ["smiling", "black hair"])
def test_a_perfect_edit_comes_near_the_truth_at_full_resolution(photo: Photo, edit: str) -> None:
    truth = scenes.scene((620, 260), SITTERS, edit)

    def perfect(x: Tensor) -> Tensor:
        spots = find_spots(photo, FOUND, DRAWN)
        return torch.stack([cut(truth, s.transform, 64, Plain()) for s in spots])

    done = edit_photo(photo, FOUND, DRAWN, perfect, size=64).pixels.astype(float)
    asked = np.abs(truth.astype(int) - photo.pixels).max(-1) > 8
    before = np.square(photo.pixels[asked].astype(float) - truth[asked]).mean()
    assert np.square(done[asked] - truth[asked]).mean() < 0.2 * before
    y, x = np.mgrid[:260, :620]
    far = np.min([np.hypot(x - s.middle[0], y - s.middle[1]) / s.side for s in SITTERS], axis=0) > 1
    assert np.array_equal(done[far], photo.pixels[far])
