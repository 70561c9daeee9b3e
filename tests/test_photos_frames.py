"""Frames: where a face lies in a square, and the way there and back."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dclip.errors import BadInput
from dclip.photos.frames import CELEBA_POINTS, FRAMES, Frame, Transform, similarity

MEAN = np.array(CELEBA_POINTS)
FACES = [Frame("celeba"), Frame("celeba", "center"), Frame("celeba", "108"), Frame("ffhq"),
         Frame("drawn")]  # fmt: skip
turns = st.floats(-math.pi, math.pi)
scales = st.floats(0.05, 30)
shifts = st.floats(-3000, 3000)


def moved(points: np.ndarray, turn: float, scale: float, x: float, y: float) -> np.ndarray:
    cos, sin = scale * math.cos(turn), scale * math.sin(turn)
    return points @ np.array([[cos, sin], [-sin, cos]]) + (x, y)


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The paper's own way, equations 38 to 42, by singular values."""
    a, b = source - source.mean(0), target - target.mean(0)
    u, d, vt = np.linalg.svd(b.T @ a / len(a))
    sign = np.diag([1.0, np.linalg.det(u) * np.linalg.det(vt)])
    c = np.trace(np.diag(d) @ sign) / a.var(0).sum()
    matrix = c * u @ sign @ vt
    return np.column_stack([matrix, target.mean(0) - matrix @ source.mean(0)])


@given(turns, scales, shifts, shifts, st.sampled_from(FACES))
def test_a_face_moved_by_a_known_similarity_comes_back(
    turn: float, scale: float, x: float, y: float, frame: Frame
) -> None:
    start = frame.place(MEAN)
    place = frame.place(moved(MEAN, turn, scale, x, y))
    corners = moved(start.corners(), turn, scale, x, y)
    assert np.abs(place.corners() - corners).max() < 1e-6 * max(1, scale)
    assert np.abs(place.to_square(moved(MEAN, turn, scale, x, y)) - frame.points()).max() < (
        1e-6 if frame.name != "drawn" else 0.1  # a drawing is no mean face of CelebA
    )


@given(st.integers(0, 10_000))
def test_the_similarity_is_the_least_squares_one(seed: int) -> None:
    source, target = np.random.default_rng(seed).normal(0, 50, (2, 5, 2))
    found = np.array(similarity(source, target).matrix)
    assert np.allclose(found, umeyama(source, target), atol=1e-8)


@given(turns, scales, shifts, shifts)
def test_a_transform_inverts_and_is_plain_json(
    turn: float, scale: float, x: float, y: float
) -> None:
    place = Frame("celeba").place(moved(MEAN, turn, scale, x, y))
    points = np.random.default_rng(0).uniform(-1, 2, (20, 2))
    assert np.abs(place.to_square(place.to_photo(points)) - points).max() < 1e-9
    assert Transform.from_dict(json.loads(json.dumps(place.to_dict()))) == place
    assert place.side == pytest.approx(math.dist(place.corners()[0], place.corners()[3]))


def test_celebas_own_photos_get_the_crop_of_their_data() -> None:
    box = Frame("celeba", "face").place(MEAN).corners()
    assert np.allclose(box, [(15, 35), (15, 183), (163, 183), (163, 35)])
    assert np.allclose(Frame("celeba", "center").place(MEAN).corners()[0], (0, 20))


def test_ffhqs_quad_of_an_upright_face() -> None:
    # Eyes 100 apart, mouth 120 below: the half side is 1.8 * 120, the centre a tenth down.
    points = np.array([(150, 200), (250, 200), (200, 260), (170, 320), (230, 320)], float)
    place = Frame("ffhq").place(points)
    assert np.allclose(place.corners(), [(-16, -4), (-16, 428), (416, 428), (416, -4)])
    wide = points.copy()
    wide[:2, 0] = (50, 350)  # now twice the eyes' distance is more
    assert Frame("ffhq").place(wide).side == pytest.approx(1200)


def test_whole_squares() -> None:
    assert Frame("center").place_whole(300, 200).corners()[0].tolist() == [50, 0]
    assert Frame("center").place_whole(300, 200).side == 200
    assert Frame("none").place_whole(300, 200).corners()[2].tolist() == [300, 200]
    assert [Frame(name).needs_faces for name in FRAMES] == [True, True, True, False, False]


@pytest.mark.parametrize("frame", [*FACES, Frame("center"), Frame("none")])
def test_frames_are_plain_json(frame: Frame) -> None:
    assert Frame.from_dict(json.loads(json.dumps(frame.to_dict()))) == frame


def test_what_is_no_frame_is_refused() -> None:
    for make in (
        lambda: Frame("lfw"),
        lambda: Frame("ffhq", "face"),
        lambda: Frame("celeba", "-3"),
        lambda: Frame("none").points(),
        lambda: Frame("celeba").place(np.ones((5, 2))),
        lambda: Frame("ffhq").place(np.ones((5, 2))),
        lambda: Frame.from_dict({"name": "ffhq", "side": "1"}),
        lambda: Transform(((1.0, 0.0, 0.0), (2.0, 0.0, 0.0))),
        lambda: Transform(((math.nan, 0.0, 0.0), (0.0, 1.0, 0.0))),
        lambda: Transform.from_dict({"matrix": [[1, 2], [3, 4]]}),
    ):
        with pytest.raises(BadInput):
            make()
