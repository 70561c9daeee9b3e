"""Squares out of photos, and their changes back into them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dclip.data import faces
from dclip.photos.back import Change, cut, mask_at, put_back
from dclip.photos.colours import Plain
from dclip.photos.frames import Transform

PLAIN = Plain()
S = 32


def noise(height: int, width: int, seed: int = 0, kind: type = np.uint8) -> np.ndarray:
    top = np.iinfo(kind).max
    return np.random.default_rng(seed).integers(0, top + 1, (height, width, 3)).astype(kind)


def square(x: float, y: float, side: float, turn: float = 0.0) -> Transform:
    a = side * np.exp(1j * turn)
    corner = complex(x, y) - a * (0.5 + 0.5j)
    return Transform(((a.real, -a.imag, corner.real), (a.imag, a.real, corner.imag)))


def changed(pixels: np.ndarray, place: Transform, by: torch.Tensor | float) -> Change:
    before = cut(pixels, place, S, PLAIN)
    return Change(place, before, before + by)


def spot(strength: float = 0.6) -> torch.Tensor:
    """A change in the middle of the square that is 0 along its rim."""
    line = torch.linspace(-1, 1, S)
    far = line[:, None] ** 2 + line[None, :] ** 2
    return strength * torch.exp(-far / 0.08).where(far < 0.4, 0.0).expand(3, S, S)


@pytest.mark.parametrize("side", [12.0, 40.0, 200.0, 700.0])
def test_a_cut_sees_what_lies_there(side: float) -> None:
    y, x = np.mgrid[:600, :800]
    ramp = np.stack([x / 800, y / 600, (x + y) / 1400], axis=-1)
    pixels = np.rint(ramp * 65535).astype(np.uint16)
    place = square(400, 300, min(side, 420), turn=0.5)
    got = cut(pixels, place, S, PLAIN).permute(1, 2, 0).double().numpy()
    line = (np.arange(S) + 0.5) / S
    at = place.to_photo(np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)).reshape(S, S, 2)
    u, v = at[..., 0] - 0.5, at[..., 1] - 0.5
    want = np.stack([u / 800, v / 600, (u + v) / 1400], axis=-1) * 2 - 1
    assert np.abs(got - want).max() < 2e-3


def test_a_cut_of_a_large_face_does_not_alias() -> None:
    y, x = np.mgrid[:512, :512]
    board = np.repeat((((x + y) % 2) * 255).astype(np.uint8)[..., None], 3, axis=-1)
    assert cut(board, square(256, 256, 350, 0.3), S, PLAIN).abs().max() < 0.06


@settings(max_examples=25, deadline=None)
@given(
    st.floats(-30, 130), st.floats(-30, 110), st.floats(3, 300), st.floats(-3, 3),
    st.sampled_from([np.uint8, np.uint16]),
)  # fmt: skip
def test_no_change_gives_the_same_pixels(
    x: float, y: float, side: float, turn: float, kind: type
) -> None:
    pixels = noise(80, 100, kind=kind)
    place = square(x, y, side, turn)
    before = cut(pixels, place, S, PLAIN)
    nearly = before + 1e-9  # not equal, yet below what a pixel can hold
    for after in (before.clone(), nearly):
        back = put_back(pixels, [Change(place, before, after)], PLAIN)
        assert back.dtype == kind and np.array_equal(back, pixels)


def test_only_pixels_under_the_mask_change() -> None:
    pixels = noise(200, 240)
    place = square(120, 90, 110, 0.4)
    kept = pixels.copy()
    back = put_back(pixels, [changed(pixels, place, 0.5)], PLAIN)
    y, x = np.mgrid[:200, :240] + 0.5
    outside = mask_at(place, x, y) == 0
    assert outside.mean() > 0.5 and np.array_equal(back[outside], pixels[outside])
    assert np.array_equal(pixels, kept)
    assert (back != pixels).any(axis=-1)[70:110, 100:140].mean() > 0.9


def test_a_flat_change_arrives_whole_and_fades_softly() -> None:
    pixels = np.full((300, 300, 3), 100, np.uint8)
    place = square(150, 150, 200)
    back = put_back(pixels, [changed(pixels, place, 0.4)], PLAIN).astype(int)
    assert (back[120:180, 120:180] == 151).all()
    steps = np.abs(np.diff(back[150, :, 0]))
    assert steps.max() <= 4  # a paste without a rim would step by 51


def test_two_faces_that_overlap_are_not_changed_twice() -> None:
    pixels = np.full((200, 300, 3), 100, np.uint8)
    left, right = square(110, 100, 160), square(190, 100, 160)
    both = put_back(pixels, [changed(pixels, p, 0.4) for p in (left, right)], PLAIN)
    assert both.max() <= 152 and (both[95:105, 60:240] >= 140).all()
    swapped = put_back(pixels, [changed(pixels, p, 0.4) for p in (right, left)], PLAIN)
    assert np.abs(both.astype(int) - swapped).max() <= 1


def test_a_face_beside_keeps_its_own() -> None:
    pixels = np.full((200, 300, 3), 100, np.uint8)
    left, right = square(110, 100, 160), square(170, 100, 160)
    alone = put_back(pixels, [changed(pixels, left, 0.4)], PLAIN)
    kind = put_back(pixels, [changed(pixels, left, 0.4)], PLAIN, beside=[right])
    assert alone[100, 170, 0] > 140 and kind[100, 170, 0] < 110
    assert kind[100, 90, 0] > 145


def test_a_face_across_the_photos_edge() -> None:
    pixels = noise(100, 120)
    for place in (square(0, 50, 90, 0.3), square(118, 98, 70), square(60, 5, 300)):
        back = put_back(pixels, [changed(pixels, place, spot())], PLAIN)
        assert back.shape == pixels.shape and not np.array_equal(back, pixels)
    nowhere = square(900, 900, 50)
    assert np.array_equal(put_back(pixels, [changed(pixels, nowhere, 0.5)], PLAIN), pixels)


def test_a_change_finer_than_a_small_face_does_not_alias() -> None:
    pixels = np.full((60, 60, 3), 100, np.uint8)
    place = square(30, 30, 11)
    board = (torch.arange(S)[:, None] + torch.arange(S)[None, :]) % 2 - 0.5
    back = put_back(pixels, [changed(pixels, place, board.expand(3, S, S))], PLAIN)
    assert np.abs(back.astype(int) - pixels).max() <= 6


def test_a_shift_of_all_colours_is_taken_out_and_an_edit_is_not() -> None:
    pixels = np.full((200, 200, 3), 100, np.uint8)
    place = square(100, 100, 160)
    cast = torch.tensor([0.05, -0.03, 0.02]).view(3, 1, 1)
    assert np.array_equal(put_back(pixels, [changed(pixels, place, cast)], PLAIN), pixels)
    clean = put_back(pixels, [changed(pixels, place, spot())], PLAIN).astype(int)
    both = put_back(pixels, [changed(pixels, place, spot() + cast)], PLAIN)
    assert np.abs(both - clean).max() <= 1 and clean[100, 100, 0] > 150


def test_sides_in_the_photo_fade_and_those_on_its_edge_do_not() -> None:
    pixels = np.full((100, 200, 3), 100, np.uint8)
    place = Transform.of_box(50, 0, 100, 100)
    change = changed(pixels, place, 0.4)
    back = put_back(pixels, [Change(place, change.before, change.after, (True, False))], PLAIN)
    assert (back[:, 99] == 151).all() and (back[:, 52] < 110).all()
    full = Transform.of_box(0, 0, 200, 100)
    change = changed(pixels, full, 0.4)
    back = put_back(pixels, [Change(full, change.before, change.after, (False, False))], PLAIN)
    assert (back == 151).all()


def test_grey_photos_stay_grey() -> None:
    pixels = np.full((100, 100, 3), 100, np.uint8)
    place = square(50, 50, 80)
    red = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1) * spot()
    before = cut(pixels, place, S, Plain(grey=True))
    back = put_back(pixels, [Change(place, before, before + red)], Plain(grey=True))
    assert np.array_equal(back[..., 0], back[..., 2]) and back[50, 50, 0] > 110


@pytest.mark.parametrize("edit", ["smiling", "blond hair", "old", "no glasses"])
def test_the_change_is_carried_closer_to_the_truth_than_the_small_picture(edit: str) -> None:
    """A perfect edit at 64 pixels put back into the photo at 256, against the truth at 256."""
    chosen = [p for i in range(40) if faces.applicable(p := faces.sample(7, i), edit)][:4]
    place = Transform.of_box(0, 0, 256, 256)
    carried, pasted = [], []
    for params in chosen:
        photo, truth = faces.draw(params, size=256), faces.truth(params, edit, size=256)
        region = faces.edit_region(params, edit, size=256)
        before, after = (cut(p, place, 64, PLAIN) for p in (photo, truth))
        back = put_back(photo, [Change(place, before, after, (False, False))], PLAIN)
        large = F.interpolate(after[None], size=(256, 256), mode="bicubic", align_corners=False)
        small = (large[0].permute(1, 2, 0).numpy() + 1) * 127.5
        carried.append(np.square(back[region].astype(float) - truth[region]).mean())
        pasted.append(np.square(small[region].clip(0, 255) - truth[region]).mean())
    assert np.mean(carried) < 0.65 * np.mean(pasted)
