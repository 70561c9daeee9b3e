"""The guided step against closed forms, and its invariants."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from smooth_net import Counting, Gaussian, SmoothNet, normal, photos

from dclip.diffusion import ddim, ddpm, sigma
from dclip.diffusion.guidance import (
    Guided,
    eps_shift,
    mean_shift,
    posterior_variance,
    x0_shift,
)
from dclip.diffusion.samplers import SAMPLERS
from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput

LINEAR = Schedule.make("linear", 1000)
MEAN, STD = 0.3, 0.4
WANTED, WIDTH = -0.5, 0.3  # what the loss wants, and how closely


def quadratic(x0, t):
    """-log of N(WANTED, WIDTH^2) by the mean value."""
    return ((x0 - WANTED) ** 2 / (2 * WIDTH**2)).flatten(1).mean(1)


def exact_scale(t):
    return 1 / (1 + posterior_variance(LINEAR, t, STD) / WIDTH**2)


def posterior():
    """Mean and standard deviation of N(MEAN, STD^2) after N(WANTED, WIDTH^2) was seen."""
    precision = 1 / STD**2 + 1 / WIDTH**2
    return (MEAN / STD**2 + WANTED / WIDTH**2) / precision, precision**-0.5


def gaussian_guided(through, scale=exact_scale, **more):
    net = Gaussian(LINEAR, MEAN, STD)
    return Guided(net, LINEAR, quadratic, scale=scale, through=through, data_std=STD, **more)


# --- closed form -------------------------------------------------------------------------------


@pytest.mark.parametrize("through", ["network", "x0"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_guided_sampler_reaches_the_analytic_posterior(name, through):
    sampler, noise = SAMPLERS[name], normal(1, 40)
    grid = ddim.grid(1000, 250)
    draws = (normal(1, 40, seed=s + 10) for s in range(1000))
    with torch.no_grad():
        got = sampler(
            gaussian_guided(through),
            LINEAR,
            noise,
            grid,
            noise=(lambda s: next(draws)) if sampler.stochastic else None,
        )
    mean, std = posterior()
    if sampler.stochastic:
        assert float(got.mean()) == pytest.approx(mean, abs=0.02)
        assert float(got.std()) == pytest.approx(std, rel=0.05)
    else:
        assert float((got - (mean + std * noise)).abs().max()) < 0.05
        assert float(got.mean() - std * noise.mean()) == pytest.approx(mean, abs=0.01)


@pytest.mark.parametrize("through", ["network", "x0"])
@pytest.mark.parametrize("t", [1, 7, 300, 1000])
def test_guided_eps_is_that_of_the_posterior(through, t):
    """The exact eps of the posterior, which is a Gaussian too."""
    x, at = normal(2, 5), torch.full((2,), t)
    mean, std = posterior()
    want = Gaussian(LINEAR, mean, std)(x, at)
    got = gaussian_guided(through)(x, at)
    assert torch.allclose(got, want, atol=1e-9)
    assert not torch.allclose(got, Gaussian(LINEAR, MEAN, STD)(x, at), atol=1e-3)


def test_the_gradient_goes_through_the_network():
    """Against a plain autograd of loss(x0_hat(x)), the definition."""
    schedule, net = Schedule.make(), SmoothNet(seed=2)
    x, t = normal(), torch.tensor([30, 170])

    def loss(x0, t):
        return (x0.sin() + 0.1 * x0**2).flatten(1).mean(1)

    state = x.clone().requires_grad_()
    eps = net(state, t)
    (gradient,) = torch.autograd.grad(loss(ddim.x0_hat(schedule, state, eps, t), t).sum(), state)
    b = (1 - schedule.alpha_bar[t]).sqrt().view(-1, 1, 1, 1)
    want = eps + b * 0.7 * x[0].numel() * gradient
    got = Guided(net, schedule, loss, scale=0.7, through="network")(x, t)
    assert torch.allclose(got, want, atol=1e-9)
    assert not got.requires_grad
    cheap = Guided(net, schedule, loss, scale=0.7, through="x0")(x, t)
    assert not torch.allclose(cheap, got, atol=1e-3)


def test_through_x0_moves_the_estimate_by_the_posterior_variance():
    schedule, net = Schedule.make(), SmoothNet(seed=2)
    x, t = normal(), torch.full((2,), 120)
    guided = Guided(net, schedule, quadratic, scale=0.2, through="x0", data_std=0.5)
    before = ddim.x0_hat(schedule, x, net(x, t), t)
    after = ddim.x0_hat(schedule, x, guided(x, t), t)
    moved = -0.2 * posterior_variance(schedule, 120) * (before - WANTED) / WIDTH**2
    assert torch.allclose(after - before, moved, atol=1e-9)


@pytest.mark.parametrize("through", ["network", "x0"])
def test_inner_steps_follow_the_gradient_and_do_not_overshoot(through):
    """A quadratic loss's gradient flow is exponential; one long step overshoots it."""
    x, t = normal(), torch.full((2,), 900)
    before = ddim.x0_hat(LINEAR, x, Gaussian(LINEAR, MEAN, STD)(x, t), t)
    length = 3.0 * posterior_variance(LINEAR, 900, STD) / WIDTH**2
    assert length > 4
    ends = {
        parts: ddim.x0_hat(
            LINEAR, x, gaussian_guided(through, scale=3.0, inner_steps=parts)(x, t), t
        )
        for parts in (1, 20, 2000)
    }
    away = before - WANTED
    assert torch.allclose(ends[1], WANTED + away * (1 - length), atol=1e-6)
    assert torch.allclose(ends[2000], WANTED + away * math.exp(-length), atol=0.01)
    assert float((ends[1] - WANTED).abs().mean()) > 3 * float(away.abs().mean())
    assert float((ends[20] - WANTED).abs().mean()) < 0.1 * float(away.abs().mean())


# --- three forms of one step -------------------------------------------------------------------


@pytest.mark.parametrize(("t", "s"), [(200, 199), (150, 100), (40, 1), (9, 8)])
def test_eps_mean_and_sigma_forms_are_one_step(t, s):
    schedule = Schedule.make()
    x, eps, gradient, noise = (normal(seed=i) for i in range(4))
    shifted = eps + eps_shift(schedule, gradient, t)
    # Ancestral: the mean moves.
    plain = ddpm.ancestral_step(schedule, x, eps, t, s, noise)
    guided = ddpm.ancestral_step(schedule, x, shifted, t, s, noise)
    assert torch.allclose(guided, plain + mean_shift(schedule, gradient, t, s), atol=1e-9)
    # The clean estimate moves.
    clean = ddim.x0_hat(schedule, x, eps, t) + x0_shift(schedule, gradient, t)
    assert torch.allclose(ddim.x0_hat(schedule, x, shifted, t), clean, atol=1e-7)
    # Sigma form: x0_hat - sigma^2 times the gradient by x0 + sigma eps, which is a factor off.
    by_sigma_form = gradient * schedule.coefficients(t)[0]
    in_sigma = ddim.x0_hat(schedule, x, eps, t) - sigma.sigma(schedule, t) ** 2 * by_sigma_form
    assert torch.allclose(in_sigma, clean, atol=1e-7)


def test_the_mean_shift_is_adms_in_short_steps():
    """ADM's algorithm 1: the variance times the gradient; with 1 - alpha for the variance."""
    gradient = normal()
    for t in (50, 500, 1000):
        adm = -LINEAR.beta(t) * gradient
        assert torch.allclose(mean_shift(LINEAR, gradient, t, t - 1), adm, rtol=0.011)


# --- invariants --------------------------------------------------------------------------------

SMOOTH = SmoothNet(seed=4, strength=0.5).requires_grad_(False)


def pull_red(x0, t):
    return (x0 - x0.new_tensor([0.9, -0.8, -0.8]).view(1, 3, 1, 1)).abs().flatten(1).mean(1)


@settings(deadline=None, max_examples=15)
@given(
    st.integers(1, 5),
    st.integers(0, 4),
    st.integers(1, 200),
    st.sampled_from(["network", "x0"]),
    st.integers(1, 3),
)
def test_strength_does_not_depend_on_the_batch(size, row, t, through, parts):
    row = row % size
    x = normal(size, seed=size)
    guided = Guided(SMOOTH, Schedule.make(), pull_red, 2.0, inner_steps=parts, through=through)
    together = guided(x, torch.full((size,), t))
    alone = guided(x[row : row + 1], torch.full((1,), t))
    assert torch.allclose(together[row], alone[0], atol=1e-9)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 3), st.integers(1, 1000), st.sampled_from(["network", "x0"]))
def test_strength_does_not_depend_on_the_resolution(factor, t, through):
    """The same picture with pixels doubled: each is moved as it was."""
    x = normal(2, 4)
    large = F.interpolate(x, scale_factor=factor, mode="nearest")
    at = torch.full((2,), t)
    guided = gaussian_guided(through, scale=0.6)
    small = F.interpolate(guided(x, at), scale_factor=factor, mode="nearest")
    assert torch.allclose(guided(large, at), small, atol=1e-9)


@settings(deadline=None, max_examples=6)
@given(st.sampled_from(["ddim", "heun", "dpmpp-2m", "lms", "plms"]), st.sampled_from([40, 80]))
def test_strength_does_not_depend_on_the_number_of_steps(name, steps):
    """Guidance per step, as in x - scale * gradient, would move twice as far in twice the steps."""
    noise = normal(1, 6)
    guided = gaussian_guided("x0", scale=0.3)
    with torch.no_grad():
        few, many = (
            SAMPLERS[name](guided, LINEAR, noise, ddim.grid(1000, n)) for n in (steps, 4 * steps)
        )
        plain = SAMPLERS[name](guided.model, LINEAR, noise, ddim.grid(1000, 4 * steps))
    moved = float((many - plain).abs().mean())
    assert moved > 0.15
    assert float((few - many).abs().mean()) < 0.12 * moved


@pytest.mark.parametrize("through", ["network", "x0"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_strength_0_is_exactly_the_unguided_result(name, through):
    schedule, x, grid = Schedule.make(), normal(), ddim.grid(200, 6)
    noises = {s: normal(seed=s) for s in grid}

    def never(x0, t):
        raise AssertionError("asked though it does not count")

    guided = Guided(SMOOTH, schedule, never, 0.0, through=through)
    got = SAMPLERS[name](guided, schedule, x, grid, noise=lambda s: noises[s])
    assert torch.equal(got, SAMPLERS[name](SMOOTH, schedule, x, grid, noise=lambda s: noises[s]))


def test_a_window_steers_inside_alone():
    schedule, x = Schedule.make(), normal()
    guided = Guided(SMOOTH, schedule, pull_red, 2.0, window=(50, 100))
    t = torch.tensor([49, 50])
    got, plain = guided(x, t), SMOOTH(x, t)
    assert torch.equal(got[0], plain[0]) and not torch.allclose(got[1], plain[1])
    t = torch.tensor([100, 101])
    got, plain = guided(x, t), SMOOTH(x, t)
    assert torch.equal(got[1], plain[1]) and not torch.allclose(got[0], plain[0])


def test_a_guided_decode_with_offsets_at_strength_0_is_the_photo():
    from dclip.diffusion.inversion import invert_with_offsets

    schedule, x0, grid = Schedule.make(), photos(), ddim.grid(100, 10)
    x_r, offsets = invert_with_offsets(SMOOTH, schedule, x0, grid)
    ends = []
    for scale in (0.0, 0.5, 2.0):
        guided = Guided(SMOOTH, schedule, pull_red, scale)
        ends.append(ddim.decode(guided, schedule, x_r, grid, offsets=offsets))
    assert torch.allclose(ends[0], x0, atol=1e-9)
    at = torch.ones(2, dtype=torch.int64)
    falling = [float(pull_red(end, at).mean()) for end in ends]
    assert all(later < earlier - 0.01 for earlier, later in pairwise(falling))


def test_a_guided_step_costs_one_network_call():
    counted = Counting(SMOOTH)
    guided = Guided(counted, Schedule.make(), pull_red, inner_steps=3, through="network")
    guided(normal(), torch.full((2,), 9))
    assert len(counted.labels) == 1


def test_it_works_in_half_precision_and_without_gradients_around():
    class Half(torch.nn.Module):
        def forward(self, x, t):
            return SMOOTH(x, t).to(torch.bfloat16)

    guided = Guided(Half(), Schedule.make(), pull_red, 1.0)
    with torch.no_grad():
        eps = guided(normal(), torch.full((2,), 60))
    assert eps.dtype == torch.bfloat16 and bool(torch.isfinite(eps).all())


# --- errors ------------------------------------------------------------------------------------


def nan(x0, t):
    return x0.flatten(1).mean(1) * torch.tensor([1.0, math.nan])


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        (nan, "loss is nan at t=5"),
        (lambda x0, t: x0.flatten(1).mean(1) / 0, "inf"),
        (lambda x0, t: x0.mean(), "one value|gave"),
        (lambda x0, t: x0.detach().flatten(1).mean(1), "no gradient"),
        (lambda x0, t: (x0 - x0.detach()).square().flatten(1).sum(1).sqrt(), "gradient is not"),
    ],
)
def test_a_loss_that_cannot_guide_is_a_clear_error(loss, says):
    guided = Guided(SMOOTH, Schedule.make(), loss)
    with pytest.raises(BadInput, match=says) as refused:
        guided(normal(), torch.tensor([3, 5]))
    assert refused.value.fix


def test_a_guidance_that_explodes_is_a_clear_error():
    guided = Guided(SMOOTH, Schedule.make(), quadratic, 1e308, inner_steps=2)
    with pytest.raises(BadInput, match="not finite"):
        guided(normal(), torch.tensor([3, 5]))


@pytest.mark.parametrize(
    "settings_",
    [
        {"scale": math.nan},
        {"scale": math.inf},
        {"window": (0, 10)},
        {"window": (20, 10)},
        {"window": (1, 201)},
        {"inner_steps": 0},
        {"through": "both"},
        {"data_std": 0.0},
        {"data_std": math.nan},
    ],
)
def test_settings_out_of_range_are_refused(settings_):
    with pytest.raises(BadInput) as refused:
        Guided(SMOOTH, Schedule.make(), quadratic, **settings_)
    assert refused.value.fix
