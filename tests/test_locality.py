"""Where an edit acts: the photo returns where it hardly differs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dclip.editing.mask import MOST, localised
from dclip.errors import BadInput


def pictures(n: int, side: int, seed: int) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("side", [6, 24])  # lips, hair
def test_a_veil_goes_and_the_edit_stays(side: int) -> None:
    photo = 0.5 * pictures(1, 64, 0)
    change = torch.full_like(photo, 0.04)  # over everything
    change[..., 20 : 20 + side, 20 : 20 + side] = -0.4  # what was asked for
    result = localised(photo + change, photo, 0.2)
    assert torch.equal(result[..., :16, :], photo[..., :16, :])
    inside = (..., slice(22, 18 + side), slice(22, 18 + side))
    assert torch.allclose(result[inside], (photo + change)[inside], atol=1e-6)
    moved = (result - photo).abs()
    assert bool((moved <= change.abs() + 1e-6).all())  # between the two it fades


@settings(max_examples=30, deadline=None)
@given(
    side=st.integers(5, 40),
    seed=st.integers(0, 99),
    factor=st.floats(0.05, 1.0),
    locality=st.floats(0.01, MOST),
)
def test_it_is_relative_and_every_picture_is_its_own(
    side: int, seed: int, factor: float, locality: float
) -> None:
    photos = 0.3 * pictures(3, side, seed).double()
    change = 0.7 * pictures(3, side, seed + 100).double() ** 5
    whole = localised(photos + change, photos, locality) - photos
    part = localised(photos + factor * change, photos, locality) - photos
    assert torch.allclose(part, factor * whole, atol=1e-9)
    alone = localised((photos + change)[1:2], photos[1:2], locality) - photos[1:2]
    assert torch.allclose(alone, whole[1:2], atol=1e-12)
    assert bool((whole.abs() <= change.abs() + 1e-12).all())


def test_of_a_small_area_all_is_kept_and_nothing_changed_stays_nothing() -> None:
    photo = 0.5 * pictures(1, 64, 1)
    edit = photo.clone()
    edit[..., 30:38, 24:40] += 0.5  # a mouth: 3 % of the picture
    result = localised(edit, photo, 0.2)
    assert torch.allclose(result[..., 32:36, 26:38], edit[..., 32:36, 26:38], atol=1e-6)
    assert torch.equal(localised(photo, photo, 0.2), photo)
    assert localised(edit, photo, 0.0) is edit


@pytest.mark.parametrize("locality", [-0.1, 0.5])
def test_a_locality_out_of_range_is_refused(locality: float) -> None:
    photo = pictures(1, 8, 0)
    with pytest.raises(BadInput, match="outside 0"):
        localised(photo, photo, locality)
