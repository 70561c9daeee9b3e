"""Latent optimisation against finite differences, and edits by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_store import CPU, copied
from smooth_net import SmoothNet
from test_edit_guided import GREEN, greenness, pictures
from torch import Tensor

from dclip.diffusion import ddim, optimised
from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput
from dclip.stages.edit import run
from dclip.store import Store

LINEAR = Schedule.make("linear", 1000)
GRID = [0, 40, 150, 400]
RATE = 0.05


def states(seed: int, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((count, 3, 4, 4), generator=generator, dtype=torch.float64)


def quartic(x0: Tensor, t: Tensor) -> Tensor:
    assert t.tolist() == [0] * len(x0)
    return (x0 - 0.3).pow(4).flatten(1).mean(1)


def moved(net: SmoothNet, x_r: Tensor, start: Tensor, updates: int, **more: Tensor) -> Tensor:
    return optimised.move(
        net, LINEAR, quartic, x_r, GRID, start=start, updates=updates, rate=RATE, **more
    )


def test_an_update_goes_against_the_gradient_of_the_whole_decode() -> None:
    net, x_r, start = SmoothNet().double(), states(0), 0.1 * states(1)
    offsets = 0.1 * torch.stack([states(seed) for seed in (2, 3, 4)])

    def loss(by: Tensor) -> Tensor:
        return quartic(
            ddim.decode(net, LINEAR, x_r + by, GRID, offsets=offsets),
            torch.zeros(len(by), dtype=torch.int64),
        )

    gradient, step = torch.zeros_like(start), 1e-5
    with torch.no_grad():
        for place in np.ndindex(*start.shape[1:]):  # both pictures at once: each has its own loss
            nudge = torch.zeros_like(start)
            nudge[(slice(None), *place)] = step
            slope = (loss(start + nudge) - loss(start - nudge)) / (2 * step)
            gradient[(slice(None), *place)] = slope
    rms = gradient.square().mean((1, 2, 3), keepdim=True).sqrt()
    expected = start - RATE * gradient / rms
    got = moved(net, x_r, start, 1, offsets=offsets)
    assert float((got - expected).abs().max()) < 1e-7
    assert all(p.grad is None for p in net.parameters()) and not got.requires_grad


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), updates=st.integers(1, 4))
def test_a_pictures_latent_does_not_depend_on_the_others(seed: int, updates: int) -> None:
    net, x_r, start = SmoothNet().double(), states(seed), states(seed + 1)
    both = moved(net, x_r, start, updates)
    alone = moved(net, x_r[1:], start[1:], updates)
    assert float((both[1:] - alone).abs().max()) < 1e-9


def test_the_loss_falls_and_none_that_is_not_finite_is_followed() -> None:
    net, x_r, start = SmoothNet().double(), states(0), torch.zeros(2, 3, 4, 4).double()
    ended = torch.zeros(2, dtype=torch.int64)

    def at(by: Tensor) -> Tensor:
        return quartic(ddim.decode(net, LINEAR, x_r + by, GRID), ended)

    with torch.no_grad():
        assert (at(moved(net, x_r, start, 20)) < 0.7 * at(start)).all()
    with pytest.raises(BadInput, match="not finite"):
        optimised.move(net, LINEAR, lambda x0, t: x0.flatten(1).sum(1) / 0, x_r, GRID, start=start)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Store:
    return copied(trained, tmp_path_factory.mktemp("optimised") / "store")


def test_an_optimised_latent_edits_and_strength_0_is_the_photo(store: Store) -> None:
    config = replace(GREEN, through="latent", steps=3)
    still, half, made = (run(replace(config, strength=(s,)), store, CPU) for s in (0.0, 0.5, 1.0))
    photos = greenness(pictures(made, "originals"))
    assert np.abs(pictures(still) - pictures(still, "originals")).max() <= 1
    assert (greenness(pictures(half)) > photos).all()
    assert (greenness(pictures(made)) > greenness(pictures(half))).all()
    steered = run(replace(config, through="x0"), store, CPU)
    assert not np.array_equal(pictures(steered), pictures(made))


def test_the_noise_that_it_begins_with_is_the_seeds(store: Store) -> None:
    config = replace(GREEN, through="latent", steps=2, count=20)  # all that there are
    one, again, other = (run(replace(config, seed=seed), store, CPU) for seed in (0, 0, 1))
    assert one.id == again.id
    assert not np.array_equal(pictures(one), pictures(other))
