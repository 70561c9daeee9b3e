"""Schedules, noising, grids and steps against closed forms, and the conventions at their ends."""

import copy
import math
import pickle
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from smooth_net import Counting, Oracle, SmoothNet, normal, photos

from dclip.diffusion import ddim, ddpm
from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput

NAMES = ["linear", "linear-rescaled", "cosine"]
F64 = {"rtol": 0, "atol": 1e-12}


# --- schedule ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("T", [1, 2, 7, 200, 1000])
def test_alpha_bar_falls_from_one_and_has_the_state_before_the_first_step(name, T):
    schedule = Schedule.make(name, T)
    assert schedule.alpha_bar.dtype == torch.float64
    assert schedule.alpha_bar.shape == (T + 1,)
    assert schedule.coefficients(0) == (1.0, 0.0)
    assert bool((schedule.alpha_bar.diff() < 0).all())
    assert bool((schedule.alpha_bar > 0).all())


def test_linear_is_the_product_of_one_minus_evenly_spaced_betas():
    schedule = Schedule.make("linear", 200)
    running = 1.0
    for t in range(1, 201):
        beta = 1e-4 + (0.02 - 1e-4) * (t - 1) / 199
        running *= 1 - beta
        assert schedule.beta(t) == pytest.approx(beta, rel=1e-9)
        assert float(schedule.alpha_bar[t]) == pytest.approx(running, rel=1e-12)
        assert schedule.coefficients(t) == pytest.approx((running**0.5, (1 - running) ** 0.5))


def test_plain_linear_at_200_steps_keeps_photo_where_the_others_end_in_noise():
    assert float(Schedule.make("linear", 200).alpha_bar[-1]) == pytest.approx(0.132, abs=1e-3)
    assert Schedule.make("linear", 200).terminal_snr == pytest.approx(0.152, abs=1e-3)
    for schedule in (
        Schedule.make("linear-rescaled", 200),
        Schedule.make("cosine", 200),
        Schedule.make("linear", 1000),
    ):
        assert schedule.terminal_snr < 1e-4


def test_rescaled_linear_follows_the_thousand_step_curve():
    long, short = Schedule.make("linear", 1000), Schedule.make("linear-rescaled", 200)
    assert torch.equal(long.alpha_bar, Schedule.make("linear-rescaled", 1000).alpha_bar)
    for t in range(0, 201, 10):
        assert short.coefficients(t) == pytest.approx(long.coefficients(5 * t), abs=0.01)


def test_cosine_follows_its_definition_until_the_clip():
    schedule = Schedule.make("cosine", 200)

    def f(t):
        return math.cos((t / 200 + 0.008) / 1.008 * math.pi / 2) ** 2

    for t in range(200):
        assert float(schedule.alpha_bar[t]) == pytest.approx(f(t) / f(0), rel=1e-9)
    assert schedule.beta(200) == pytest.approx(0.999)


def test_gather_gives_each_sample_its_own_coefficients_in_its_dtype():
    schedule = Schedule.make()
    for dtype in (torch.float32, torch.float64):
        t = torch.tensor([0, 3, 200])
        a, b = schedule.gather(t, torch.zeros(3, 3, 4, 4, dtype=dtype))
        assert a.shape == b.shape == (3, 1, 1, 1)
        assert a.dtype == b.dtype == dtype
        for i, label in enumerate(t.tolist()):
            want = torch.tensor(schedule.coefficients(label), dtype=dtype)
            torch.testing.assert_close(torch.stack([a[i, 0, 0, 0], b[i, 0, 0, 0]]), want)


def test_schedules_are_values():
    schedule = Schedule.make("cosine", 50)
    assert schedule.to_dict() == {"name": "cosine", "T": 50}
    twins = [
        Schedule.from_dict(schedule.to_dict()),
        pickle.loads(pickle.dumps(schedule)),
        copy.deepcopy(schedule),
    ]
    for twin in twins:
        assert twin == schedule and hash(twin) == hash(schedule)
        assert torch.equal(twin.alpha_bar, schedule.alpha_bar)
    assert schedule not in {Schedule.make("cosine", 51), Schedule.make("linear", 50)}
    assert schedule != ("cosine", 50)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Schedule.make("sigmoid", 200),
        lambda: Schedule.make("linear", 0),
        lambda: Schedule.make("linear", 100_000),
        lambda: Schedule.from_dict({"name": "linear"}),
        lambda: Schedule.from_dict({"name": "linear", "T": 10, "beta": 1}),
        lambda: Schedule.from_dict({"name": "linear", "T": "10"}),
        lambda: Schedule("linear", 2, torch.tensor([1.0, 0.5, 0.6], dtype=torch.float64)),
        lambda: Schedule("linear", 2, torch.tensor([1.0, 0.5, 0.4])),
        lambda: Schedule.make().coefficients(201),
        lambda: Schedule.make().coefficients(-1),
        lambda: Schedule.make().beta(0),
    ],
)
def test_an_impossible_schedule_is_refused_in_one_line_with_a_fix(make):
    with pytest.raises(BadInput) as error:
        make()
    assert error.value.fix and "\n" not in error.value.message


# --- grid -------------------------------------------------------------------------------------


@given(st.integers(1, 1000).flatmap(lambda r: st.tuples(st.just(r), st.integers(1, r))))
def test_a_grid_is_even_and_repeats_nothing(r_steps):
    r, steps = r_steps
    grid = ddim.grid(r, steps)
    assert len(grid) == steps + 1 and grid[0] == 0 and grid[-1] == r
    assert all(t > s for s, t in pairwise(grid))
    assert all(abs(label - i * r / steps) <= 0.5 for i, label in enumerate(grid))


def test_grids_written_out():
    assert ddim.grid(50, 5) == (0, 10, 20, 30, 40, 50)
    assert ddim.grid(10, 4) == (0, 3, 5, 8, 10)
    assert ddim.grid(7, 7) == tuple(range(8))
    assert ddim.grid(200, 1, T=200) == (0, 200)


@pytest.mark.parametrize(
    ("r", "steps", "T", "words"),
    [
        (50, 51, None, ["51", "50"]),
        (50, 0, None, ["0 steps", "50"]),
        (0, 1, None, ["r=0"]),
        (201, 20, 200, ["201", "200"]),
    ],
)
def test_an_impossible_grid_names_the_numbers_and_the_fix(r, steps, T, words):
    with pytest.raises(BadInput) as error:
        ddim.grid(r, steps, T)
    assert all(word in error.value.message for word in words)
    assert "--" in error.value.fix


@pytest.mark.parametrize("grid", [(0,), (0, 5, 5), (5, 0), (0, 201), (-1, 5)])
def test_decode_refuses_a_grid_that_does_not_fit(grid):
    with pytest.raises(BadInput):
        ddim.decode(SmoothNet(), Schedule.make(), photos(), grid)


# --- noising and loss -------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_noising_in_one_go_has_the_mean_and_variance_of_the_chain(name):
    schedule = Schedule.make(name, 30)
    x0, eps = photos(), normal()
    mean, variance = 1.0, 0.0
    for t in range(1, 31):
        beta = schedule.beta(t)
        mean, variance = mean * math.sqrt(1 - beta), variance * (1 - beta) + beta
        got = ddpm.q_sample(schedule, x0, t, eps)
        torch.testing.assert_close(got, mean * x0 + math.sqrt(variance) * eps, **F64)


def test_noising_takes_a_label_a_sample_and_label_zero_is_the_photo():
    schedule = Schedule.make()
    x0, eps = photos(3), normal(3)
    got = ddpm.q_sample(schedule, x0, torch.tensor([0, 1, 200]), eps)
    assert torch.equal(got[0], x0[0])
    for i, t in enumerate((0, 1, 200)):
        torch.testing.assert_close(got[i], ddpm.q_sample(schedule, x0, t, eps)[i], **F64)


def test_loss_is_the_squared_error_of_each_sample_at_its_own_label():
    schedule = Schedule.make()
    x0, eps, t = photos(3), normal(3), torch.tensor([1, 77, 200])
    oracle = Oracle(schedule, x0)
    torch.testing.assert_close(
        ddpm.loss(oracle, schedule, x0, t, eps), torch.zeros(3, dtype=torch.float64), **F64
    )
    shift = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64).view(3, 1, 1, 1)
    losses = ddpm.loss(lambda x, t: oracle(x, t) + shift, schedule, x0, t, eps)
    torch.testing.assert_close(losses, torch.tensor([0.0, 1.0, 4.0], dtype=torch.float64), **F64)


# --- steps ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(NAMES), st.integers(0, 200), st.integers(0, 200))
def test_a_step_moves_along_the_noise_it_is_given_in_either_direction(name, t, s):
    schedule = Schedule.make(name, 200)
    x0, eps = photos(), normal()
    x_t = ddpm.q_sample(schedule, x0, t, eps)
    x_s = ddim.step(schedule, x_t, eps, t, s)
    # The end of the cosine keeps 2e-4 of the photo, so it gives back that much less precision.
    torch.testing.assert_close(x_s, ddpm.q_sample(schedule, x0, s, eps), rtol=0, atol=1e-10)
    torch.testing.assert_close(ddim.x0_hat(schedule, x_t, eps, t), x0, rtol=0, atol=1e-10)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(NAMES),
    st.integers(1, 200).flatmap(lambda r: st.tuples(st.just(r), st.integers(1, r))),
    st.booleans(),
)
def test_a_perfect_network_brings_the_photo_back_at_any_step_count(name, r_steps, stochastic):
    schedule = Schedule.make(name, 200)
    r, steps = r_steps
    x0 = photos(1, 4)
    grid = ddim.grid(r, steps)
    x_r = ddpm.q_sample(schedule, x0, r, normal(1, 4))
    if stochastic:
        generator = torch.Generator().manual_seed(0)

        def noise(s):
            return torch.randn(x0.shape, generator=generator, dtype=x0.dtype)

        back = ddpm.sample_ddpm(Oracle(schedule, x0), schedule, x_r, grid, noise=noise)
    else:
        back = ddim.decode(Oracle(schedule, x0), schedule, x_r, grid)
    torch.testing.assert_close(back, x0, rtol=0, atol=1e-9)


def test_decode_asks_at_the_noisier_end_and_never_at_the_photo():
    schedule, x_r = Schedule.make(), normal()
    model = Counting(SmoothNet())
    seen = []
    out = ddim.decode(
        model, schedule, x_r, (0, 3, 5, 8, 10), on_step=lambda *step: seen.append(step)
    )
    assert model.labels == [10, 8, 5, 3]
    assert [(index, t) for index, t, _, _ in seen] == [(0, 8), (1, 5), (2, 3), (3, 0)]
    assert torch.equal(seen[-1][2], out)
    # The last step lands on its own estimate of the photo.
    torch.testing.assert_close(seen[-1][3], out, **F64)


def test_a_decode_in_two_halves_is_the_decode():
    schedule, x_r, model = Schedule.make(), normal(), SmoothNet()
    grid = ddim.grid(100, 7)
    middle = ddim.decode(model, schedule, x_r, grid[3:])
    halves = ddim.decode(model, schedule, middle, grid[: 3 + 1])
    assert torch.equal(halves, ddim.decode(model, schedule, x_r, grid))


def test_clipping_keeps_every_estimate_in_range():
    schedule, x_r = Schedule.make(), 3 * normal()
    grid = ddim.grid(200, 10)
    with torch.no_grad():
        free, clipped = (
            ddim.decode(SmoothNet(), schedule, x_r, grid, clip_x0=clip) for clip in (False, True)
        )
    assert float(free.abs().max()) > 1 + 1e-6
    assert float(clipped.abs().max()) <= 1 + 1e-12


def test_ancestral_step_is_bayes_rule_for_the_chain_that_skips():
    # q(x_s | x_t, x0) for s < t by the product of two Gaussians, computed from precisions.
    schedule = Schedule.make()
    x0, eps, noise = photos(), normal(), normal(seed=2)
    for t, s in [(2, 1), (50, 49), (50, 20), (200, 1)]:
        ab_t, ab_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
        alpha = ab_t / ab_s
        x_t = ddpm.q_sample(schedule, x0, t, eps)
        precision = 1 / (1 - ab_s) + alpha / (1 - alpha)
        mean = math.sqrt(ab_s) / (1 - ab_s) * x0 + math.sqrt(alpha) / (1 - alpha) * x_t
        want = mean / precision + noise / math.sqrt(precision)
        got = ddpm.ancestral_step(schedule, x_t, eps, t, s, noise)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-9)


def test_the_last_ancestral_step_adds_no_noise():
    schedule, x_t, eps = Schedule.make(), normal(), normal(seed=2)
    got = ddpm.ancestral_step(schedule, x_t, eps, 5, 0, 100 * normal(seed=3))
    torch.testing.assert_close(got, ddim.x0_hat(schedule, x_t, eps, 5), **F64)
    with pytest.raises(BadInput):
        ddpm.ancestral_step(schedule, x_t, eps, 5, 5, x_t)


def test_ancestral_sampling_asks_for_noise_by_the_label_it_arrives_at():
    schedule, asked = Schedule.make(), []

    def noise(s):
        asked.append(s)
        return normal(seed=s)

    model, grid = SmoothNet(), (0, 30, 80, 200)
    once = ddpm.sample_ddpm(model, schedule, normal(), grid, noise=noise)
    assert asked == [80, 30]
    assert torch.equal(once, ddpm.sample_ddpm(model, schedule, normal(), grid, noise=noise))


# --- gradients and dtypes ---------------------------------------------------------------------


def test_gradients_flow_through_a_decode_to_weights_and_latent():
    schedule, model, grid = Schedule.make(), SmoothNet(channels=2), (0, 20, 50)
    x_r = normal(1, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ddim.decode(model, schedule, x, grid), (x_r,))
    ddim.decode(model, schedule, x_r, grid).sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in model.parameters())


def test_the_state_keeps_its_dtype_where_the_network_works_in_half():
    schedule, net, grid = Schedule.make(), SmoothNet(), ddim.grid(50, 5)
    x_r = normal().float()

    def half(x, t):
        return net(x.double(), t).to(torch.bfloat16)

    with torch.no_grad():
        got = ddim.decode(half, schedule, x_r, grid)
        want = ddim.decode(lambda x, t: half(x, t).float(), schedule, x_r, grid)
    assert got.dtype == torch.float32
    assert torch.equal(got, want)
