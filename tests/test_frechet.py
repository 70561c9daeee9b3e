"""The Fréchet distance against its closed form, and the features that it is taken of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dclip
from dclip.errors import BadInput
from dclip.evaluation.frechet import frechet_distance
from dclip.evaluation.judge import load_judge


def exact(mean: float, std: float, rows: int = 8) -> np.ndarray:
    """A column of exactly this mean and sample standard deviation."""
    x = np.linspace(-1, 1, rows)
    return mean + std * (x - x.mean()) / x.std(ddof=1)


numbers = st.floats(-5, 5)
widths = st.floats(0.01, 5)


@given(numbers, widths, numbers, widths)
def test_in_one_dimension_it_is_the_closed_form(m: float, s: float, n: float, u: float) -> None:
    got = frechet_distance(exact(m, s)[:, None], exact(n, u)[:, None])
    assert got == pytest.approx((m - n) ** 2 + (s - u) ** 2, abs=1e-6)


def test_with_commuting_covariances_it_is_a_sum_over_their_axes() -> None:
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    x = rng.normal(size=(200, 3))
    x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T  # white
    a, b = np.array([1.0, 2.0, 0.1]), np.array([3.0, 0.5, 0.1])
    got = frechet_distance((x * a) @ turn.T, (x * b) @ turn.T + 1)
    assert got == pytest.approx(np.square(a - b).sum() + 3, abs=1e-6)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shapes", [((1, 3), (5, 3)), ((5, 3), (5, 2)), ((5,), (5, 3))], ids=str)
def test_what_cannot_be_compared_is_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(BadInput):
        frechet_distance(*(np.ones(shape) for shape in shapes))


def test_a_judge_s_verdict_is_its_head_over_its_features() -> None:
    judge = load_judge(Path(dclip.__file__).parent / "assets" / "judge")
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(3, 3, 64, 64, generator=generator) * 3 - 1.5  # beyond the range too
    head = judge.network.head
    logits = judge.features(pixels) @ head.weight.double().numpy().T + head.bias.double().numpy()
    names = len(judge.shape.attributes)
    assert np.allclose(judge(pixels).attributes, 1 / (1 + np.exp(-logits[:, :names])), atol=1e-5)
    assert judge.features(pixels[:0]).shape == (0, head.in_features)
