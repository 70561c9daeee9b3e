"""Inversions against closed forms, and the decode that has to lead back."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from smooth_net import Counting, Gaussian, Oracle, SmoothNet, normal, photos

from dclip.diffusion import ddim, ddpm, inversion
from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput

METHODS = ["ddim", "fixed-point", "simplified"]


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def rms(x):
    return float(x.square().mean().sqrt())


def missed(model, schedule, x0, grid, **options):
    x_r = inversion.invert(model, schedule, x0, grid, **options)
    return rms(ddim.decode(model, schedule, x_r, grid) - x0)


# --- exactness --------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(
    st.sampled_from(["linear", "linear-rescaled", "cosine"]),
    st.integers(1, 120).flatmap(
        lambda r: st.tuples(st.just(r), st.integers(max(1, r // 12), min(r, 25)))
    ),
    st.integers(0, 3),
)
def test_decode_after_exact_inversion_returns_the_photo(name, r_steps, seed):
    r, steps = r_steps
    schedule, model = Schedule.make(name, 200), SmoothNet(seed, strength=0.5)
    grid = ddim.grid(r, steps)
    x0 = photos(2, 4, seed)
    assert missed(model, schedule, x0, grid, refinements=60, tolerance=1e-12) < 1e-10


@pytest.mark.parametrize("grid", [(0, 40), (0, 3, 5, 8, 10), ddim.grid(100, 30)], ids=len)
def test_fixed_point_is_the_closed_form_inverse_of_a_linear_decode(grid):
    schedule = Schedule.make()
    model = Gaussian(schedule, mean=0.2, std=0.5)
    x = x0 = photos()
    for s, t in itertools.pairwise(grid):
        # Decode: x_s = ratio x_t + c slope (x_t - a_t mean), solved for x_t.
        (a_s, b_s), (a_t, b_t) = schedule.coefficients(s), schedule.coefficients(t)
        ratio, slope = a_s / a_t, model.slope(t)
        c = b_s - ratio * b_t
        x = (x + c * slope * a_t * model.mean) / (ratio + c * slope)
    got = inversion.invert(model, schedule, x0, grid, refinements=50, tolerance=1e-13)
    torch.testing.assert_close(got, x, rtol=0, atol=1e-10)


def test_fixed_point_finds_the_noise_at_the_state_that_it_arrives_at():
    schedule, model, grid = Schedule.make(), SmoothNet(), ddim.grid(60, 7)
    x0, states = photos(), []
    inversion.invert(
        model,
        schedule,
        x0,
        grid,
        refinements=60,
        tolerance=1e-12,
        on_step=lambda index, t, x, clean: states.append((index, t, x, clean)),
    )
    assert [(index, t) for index, t, _, _ in states] == list(enumerate(grid[1:]))
    before = x0
    for (_, t, x_t, clean), s in zip(states, grid, strict=False):
        eps = model(x_t, torch.full((2,), t))
        back = ddim.step(schedule, x_t, eps, t, s)
        torch.testing.assert_close(back, before, rtol=0, atol=1e-10)
        torch.testing.assert_close(clean, ddim.x0_hat(schedule, x_t, eps, t), rtol=0, atol=1e-10)
        before = x_t


def test_under_a_perfect_network_a_noised_photo_keeps_its_noise():
    schedule, x0, eps, grid = Schedule.make(), photos(), normal(), ddim.grid(50, 10)
    x_s = ddpm.q_sample(schedule, x0, grid[3], eps)
    got = inversion.invert(Oracle(schedule, x0), schedule, x_s, grid[3:], tolerance=1e-12)
    torch.testing.assert_close(got, ddpm.q_sample(schedule, x0, 50, eps), rtol=0, atol=1e-10)


# --- what the methods cost and promise ---------------------------------------------------------


def test_methods_stand_in_the_order_that_the_documentation_gives_them():
    schedule, model, x0 = Schedule.make(), SmoothNet(), photos()
    for steps in (20, 50):
        grid = ddim.grid(100, steps)
        fixed = missed(model, schedule, x0, grid)
        one_call = missed(model, schedule, x0, grid, refinements=0)
        plain = missed(model, schedule, x0, grid, method="ddim")
        simplified = missed(model, schedule, x0, grid, method="simplified")
        assert fixed < 0.02 * plain
        assert one_call < 0.7 * plain
        assert plain < 0.5 * simplified


def test_ddim_inversion_closes_in_on_the_photo_as_steps_shrink():
    # The label's leap halves, and with it what is missed: first order over the whole walk.
    schedule, model, x0 = Schedule.make("cosine", 1000), SmoothNet(strength=0.5), photos()
    errors = [
        missed(model, schedule, x0, ddim.grid(400, steps), method="ddim")
        for steps in (50, 100, 200, 400)
    ]
    for coarse, fine in itertools.pairwise(errors):
        assert 1.7 < coarse / fine < 2.5


def test_labels_and_calls_of_each_method():
    schedule, x0, grid = Schedule.make(), photos(), (0, 3, 5, 8, 10)
    for method, refinements, want in [
        ("ddim", 9, [3, 5, 8, 10]),
        ("simplified", 9, [1, 3, 5, 8]),
        ("fixed-point", 0, [3, 5, 8, 10]),
        ("fixed-point", 2, [3, 3, 3, 5, 5, 5, 8, 8, 8, 10, 10, 10]),
    ]:
        model = Counting(SmoothNet())
        inversion.invert(
            model, schedule, x0, grid, method=method, refinements=refinements, tolerance=0
        )
        assert model.labels == want


def test_refinement_stops_once_a_decode_would_miss_by_less_than_the_tolerance():
    schedule, x0, grid = Schedule.make(), photos(1), (0, 20)
    errors = [
        missed(SmoothNet(), schedule, x0, grid, refinements=k, tolerance=0) for k in range(12)
    ]
    for tolerance in (1e-1, 1e-2, 1e-3, 1e-4):
        model = Counting(SmoothNet())
        inversion.invert(model, schedule, x0, grid, tolerance=tolerance)
        # The guess that k refinements leave is tried, and measured, by call k + 2.
        near = next(k for k, error in enumerate(errors) if error < tolerance)
        assert len(model.labels) == near + 2


def test_what_several_guesses_know_together_beats_the_last_one_alone():
    # A linear network with two rates: the two differences of three guesses tell them both.
    schedule, x0, (s, t) = Schedule.make(), photos(), (0, 40)
    rates = torch.tensor([-1.0, 1.2, -1.0], dtype=torch.float64).view(1, 3, 1, 1)

    def model(x, t):
        return rates * x

    eps = model(x0, t)
    for _ in range(3):
        eps = model(ddim.step(schedule, x0, eps, s, t), t)
    x_t = ddim.step(schedule, x0, eps, s, t)
    plain = rms(ddim.decode(model, schedule, x_t, (s, t)) - x0)
    assert missed(model, schedule, x0, (s, t), refinements=3, tolerance=0) < 1e-4 * plain


def test_simplified_is_equation_three_with_the_original_photo():
    schedule, model, x0, grid = Schedule.make(), SmoothNet(), photos(), (0, 3, 5)
    eps = model(x0, torch.ones(2, dtype=torch.int64))
    x_3 = ddpm.q_sample(schedule, x0, 3, eps)
    x_5 = ddpm.q_sample(schedule, x0, 5, model(x_3, torch.full((2,), 3)))
    got = inversion.invert(model, schedule, x0, grid, method="simplified")
    torch.testing.assert_close(got, x_5, rtol=0, atol=1e-12)


def test_a_photo_inverts_the_same_alone_and_in_any_batch():
    schedule, net, grid = Schedule.make(), SmoothNet(strength=1.2), ddim.grid(100, 20)

    def model(x, t):  # at rest on a grey photo, so that such a one is done at once
        return net(x, t) - net(torch.zeros_like(x), t)

    easy, hard = photos(1) * 1e-4, photos(1, seed=5)
    alone, other = Counting(model), Counting(model)
    x_alone = inversion.invert(alone, schedule, easy, grid)
    inversion.invert(other, schedule, hard, grid)
    assert len(alone.labels) < len(other.labels)
    x_batch = inversion.invert(model, schedule, torch.cat([easy, hard]), grid)
    torch.testing.assert_close(x_batch[:1], x_alone, rtol=0, atol=1e-12)


def test_a_photo_at_rest_and_float32_stay_finite():
    schedule, grid = Schedule.make(), ddim.grid(20, 20)
    model = SmoothNet().float()
    for x0 in (torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)):
        x_r = inversion.invert(model, schedule, x0, grid, refinements=40, tolerance=0)
        assert x_r.dtype == torch.float32 and bool(x_r.isfinite().all())
        assert rms(ddim.decode(model, schedule, x_r, grid) - x0) < 1e-5
    still = inversion.invert(lambda x, t: torch.zeros_like(x), schedule, x0, grid, tolerance=0)
    torch.testing.assert_close(still, schedule.coefficients(20)[0] * x0)


# --- replay with offsets ------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_offsets_make_any_inversion_replay_to_rounding(method, dtype, tolerance):
    schedule, model, grid = Schedule.make(), SmoothNet().to(dtype), (0, 30, 50, 80, 100)
    x0 = photos().to(dtype)
    x_r, offsets = inversion.invert_with_offsets(model, schedule, x0, grid, method=method)
    assert torch.equal(x_r, inversion.invert(model, schedule, x0, grid, method=method))
    assert offsets.shape == (4, *x0.shape)
    replay = ddim.decode(model, schedule, x_r, grid, offsets=offsets)
    assert float((replay - x0).abs().max()) < tolerance


def test_offsets_belong_to_their_grid():
    schedule, model, grid = Schedule.make(), SmoothNet(), (0, 30, 50, 80, 100)
    x_r, offsets = inversion.invert_with_offsets(model, schedule, photos(), grid)
    for grid_, options in [((0, 50, 100), {}), (grid, {"clip_x0": True})]:
        with pytest.raises(BadInput, match="offsets"):
            ddim.decode(model, schedule, x_r, grid_, offsets=offsets, **options)


# --- gradients and refusals ---------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_gradients_flow_through_an_inversion(method):
    schedule, model, grid = Schedule.make(), SmoothNet(channels=2, strength=0.5), (0, 20, 50)
    x0 = photos(1, 3).requires_grad_()
    with torch.enable_grad():
        assert torch.autograd.gradcheck(
            lambda x: inversion.invert(
                model, schedule, x, grid, method=method, refinements=4, tolerance=0
            ),
            (x0,),
        )


@pytest.mark.parametrize(
    "options",
    [
        {"method": "exact"},
        {"refinements": -1},
        {"tolerance": -1e-3},
        {"tolerance": math.nan},
        {"grid": (0, 201)},
        {"grid": (0,)},
    ],
)
def test_impossible_options_are_refused_with_a_fix(options):
    grid = options.pop("grid", (0, 10))
    with pytest.raises(BadInput) as error:
        inversion.invert(SmoothNet(), Schedule.make(), photos(), grid, **options)
    assert error.value.fix
