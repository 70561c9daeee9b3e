"""Samplers and grids against diffusers' schedulers, and against solutions in closed form."""

import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fakes import quad
from hypothesis import given
from hypothesis import strategies as st
from smooth_net import Counting, Gaussian, SmoothNet, normal

from dclip.diffusion import ddim, ddpm, grids, sigma, solvers
from dclip.diffusion.samplers import SAMPLERS, find_sampler
from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from diffusers import (
        DDIMScheduler,
        DDPMScheduler,
        DPMSolverMultistepScheduler,
        EulerAncestralDiscreteScheduler,
        EulerDiscreteScheduler,
        HeunDiscreteScheduler,
        PNDMScheduler,
    )
    from diffusers.schedulers import (
        scheduling_dpmsolver_multistep,
        scheduling_euler_ancestral_discrete,
        scheduling_euler_discrete,
        scheduling_lms_discrete,
    )

DTYPES = [(torch.float32, 1e-4), (torch.float64, 1e-6)]
ROUNDS_TO_FLOAT32 = (
    scheduling_dpmsolver_multistep,
    scheduling_euler_ancestral_discrete,
    scheduling_euler_discrete,
)


class _Wide(SimpleNamespace):
    """torch, whose float32 is float64."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@pytest.fixture(params=DTYPES, ids=["float32", "float64"])
def precision(request, monkeypatch):
    if request.param[0] == torch.float64:
        # They round the state to float32 at each step, which would hide what differs below 1e-7.
        for module in ROUNDS_TO_FLOAT32:
            monkeypatch.setattr(module, "torch", _Wide())
    return request.param


@pytest.fixture
def net(precision):
    return SmoothNet(seed=3, strength=0.5).to(precision[0]).requires_grad_(False)


def labels(x, t):
    return torch.full((x.shape[0],), t, dtype=torch.int64)


def theirs(kind, schedule, dtype, steps, net, x, *, sigma_form=False, generator=None, **config):
    """Their own ``set_timesteps`` and loop, from our state at the first of their timesteps."""
    betas = [schedule.beta(t) for t in range(1, schedule.T + 1)]
    scheduler = kind(num_train_timesteps=schedule.T, trained_betas=betas, **config)
    scheduler.alphas_cumprod = schedule.alpha_bar[1:].to(dtype)
    scheduler.set_timesteps(steps)
    asked = [int(k) + 1 for k in scheduler.timesteps]
    if sigma_form:
        x = sigma.to_sigma_form(schedule, x, asked[0])
    if hasattr(scheduler, "sigmas"):
        table = [sigma.sigma(schedule, int(k) + 1) for k in scheduler.timesteps]
        if kind is HeunDiscreteScheduler:  # each sigma but the first twice, and so its timestep
            table = [table[0], *(s for s in table[1:])]
        scheduler.sigmas = torch.tensor([*table, 0.0], dtype=dtype)
    drawn = {"generator": generator} if generator else {}
    for k, t in zip(scheduler.timesteps, asked, strict=True):
        assert float(k) == t - 1
        model_input = scheduler.scale_model_input(x, k)
        x = scheduler.step(net(model_input, labels(x, t)), k, x, **drawn).prev_sample
    return x


def close(got, want, tolerance):
    """Equal to ``tolerance`` of the largest value."""
    assert got.dtype == want.dtype
    assert float((got - want).abs().max()) <= tolerance * max(1.0, float(want.abs().max()))


# Rules by diffusers' name, with T - 1 a multiple of steps - 1 where theirs would keep fractions.
SPACINGS = [("leading", 0), ("leading", 1), ("trailing", 0), ("linspace", 0)]
T, STEPS = 201, 11


def ours(spacing, offset):
    settings = {"offset": offset} if offset else {}
    return grids.build(spacing, T, STEPS, **settings)


@pytest.fixture(params=["linear", "cosine"])
def schedule(request):
    return Schedule.make(request.param, T)


DETERMINISTIC = [
    ("ddim", DDIMScheduler, False, {"clip_sample": False}),
    ("euler", EulerDiscreteScheduler, True, {}),
    ("heun", HeunDiscreteScheduler, True, {}),
    ("plms", PNDMScheduler, False, {"skip_prk_steps": True, "set_alpha_to_one": True}),
]


# Their DDIM and PNDM walk by one stride, whatever their timesteps: see the next test.
CASES = [
    (*sampler, *spaced)
    for sampler in DETERMINISTIC
    for spaced in SPACINGS
    if sampler[2] or spaced[0] == "leading"
]


@pytest.mark.parametrize(("name", "kind", "sigma_form", "config", "spacing", "offset"), CASES)
def test_deterministic_samplers_are_diffusers(
    name, kind, sigma_form, config, spacing, offset, schedule, precision, net
):
    dtype, tolerance = precision
    grid = ours(spacing, offset)
    x = normal().to(dtype)
    want = theirs(
        kind,
        schedule,
        dtype,
        STEPS,
        net,
        x,
        sigma_form=sigma_form,
        timestep_spacing=spacing,
        steps_offset=offset,
        **config,
    )
    close(SAMPLERS[name](net, schedule, x, grid), want, tolerance)


@pytest.mark.parametrize(("name", "kind", "sigma_form", "config"), DETERMINISTIC)
def test_trailing_grids_of_one_stride_are_diffusers(name, kind, sigma_form, config, precision, net):
    dtype, tolerance = precision
    schedule, x = Schedule.make("linear", 200), normal().to(dtype)
    spaced = {"timestep_spacing": "trailing", "sigma_form": sigma_form}
    want = theirs(kind, schedule, dtype, 10, net, x, **spaced, **config)
    close(SAMPLERS[name](net, schedule, x, grids.trailing(200, 10)), want, tolerance)


@pytest.mark.parametrize(("spacing", "offset"), SPACINGS)
@pytest.mark.parametrize("steps", [STEPS, 20], ids=["below 15 steps", "above"])
def test_dpm_solver_is_diffusers(spacing, offset, steps, schedule, precision, net):
    dtype, tolerance = precision
    skips = {} if spacing == "trailing" else {"skip_first": True}
    grid = grids.build(spacing, T, steps, **skips, **({"offset": offset} if offset else {}))
    x = normal().to(dtype)
    spaced = {"timestep_spacing": spacing, "steps_offset": offset}
    want = theirs(DPMSolverMultistepScheduler, schedule, dtype, steps, net, x, **spaced)
    close(SAMPLERS["dpmpp-2m"](net, schedule, x, grid), want, tolerance)


def test_pndm_is_diffusers(schedule, precision, net):
    dtype, tolerance = precision
    # Even strides: of an odd one their two middles are a timestep apart.
    x, steps = normal().to(dtype), 10
    grid = grids.leading(T, steps)
    config = {"skip_prk_steps": False, "set_alpha_to_one": True}
    want = theirs(PNDMScheduler, schedule, dtype, steps, net, x, **config)
    close(SAMPLERS["pndm"](net, schedule, x, grid), want, tolerance)


def test_stable_diffusions_last_step_ends_at_the_least_noisy_state(precision, net):
    dtype, tolerance = precision
    schedule = Schedule.make("linear", T)
    grid = grids.leading(T, STEPS, offset=1, end=1)
    assert grid[:2] == (1, 2)
    x = normal().to(dtype)
    for name, kind in (("plms", PNDMScheduler), ("ddim", DDIMScheduler)):
        config = {"skip_prk_steps": True} if name == "plms" else {"clip_sample": False}
        spaced = {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False}
        want = theirs(kind, schedule, dtype, STEPS, net, x, **spaced, **config)
        close(SAMPLERS[name](net, schedule, x, grid), want, tolerance)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_lms_is_diffusers(order, schedule, precision, net, monkeypatch):
    dtype, tolerance = precision
    integrate = SimpleNamespace(quad=quad)
    monkeypatch.setattr(scheduling_lms_discrete, "integrate", integrate, raising=False)
    kind = scheduling_lms_discrete.LMSDiscreteScheduler
    x = normal().to(dtype)
    step = kind.step
    monkeypatch.setattr(kind, "step", lambda *a, **k: step(*a, order=order, **k))
    grid = ours("leading", 0)
    spaced = {"timestep_spacing": "leading", "sigma_form": True}
    want = theirs(kind, schedule, dtype, STEPS, net, x, **spaced)
    close(solvers.sample_lms(net, schedule, x, grid, order=order), want, tolerance)
    if order == 4:
        close(SAMPLERS["lms"](net, schedule, x, grid), want, tolerance)


def draws(dtype, x):
    generator = torch.Generator().manual_seed(7)
    return lambda s: torch.randn(x.shape, generator=generator, dtype=dtype)


@pytest.mark.parametrize(("spacing", "offset"), SPACINGS)
def test_euler_ancestral_is_diffusers(spacing, offset, schedule, precision, net):
    dtype, tolerance = precision
    x = normal().to(dtype)
    want = theirs(
        EulerAncestralDiscreteScheduler,
        schedule,
        dtype,
        STEPS,
        net,
        x,
        sigma_form=True,
        generator=torch.Generator().manual_seed(7),
        timestep_spacing=spacing,
        steps_offset=offset,
    )
    got = SAMPLERS["euler-ancestral"](
        net, schedule, x, ours(spacing, offset), noise=draws(dtype, x)
    )
    close(got, want, tolerance)


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("clip", [False, True])
def test_ddim_with_eta_is_diffusers(eta, clip, schedule, precision, net):
    dtype, tolerance = precision
    x = normal().to(dtype)
    betas = [schedule.beta(t) for t in range(1, T + 1)]
    scheduler = DDIMScheduler(
        num_train_timesteps=T, trained_betas=betas, clip_sample=clip, timestep_spacing="leading"
    )
    scheduler.alphas_cumprod = schedule.alpha_bar[1:].to(dtype)
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=dtype)
    scheduler.set_timesteps(STEPS)
    want, noise = x, draws(dtype, x)
    for k in scheduler.timesteps:
        eps = net(want, labels(x, int(k) + 1))
        want = scheduler.step(
            eps,
            int(k),
            want,
            eta=eta,
            use_clipped_model_output=clip,
            variance_noise=noise(0),
        ).prev_sample
    got = solvers.sample_ddim(
        net,
        schedule,
        x,
        grids.leading(T, STEPS),
        eta=eta,
        noise=draws(dtype, x),
        clip_x0=clip,
    )
    close(got, want, tolerance)


@pytest.mark.parametrize("clip", [False, True])
def test_ancestral_euler_ddim_at_eta_one_and_ddpm_are_one_map(clip):
    schedule, net = Schedule.make(), SmoothNet(seed=5, strength=0.5).requires_grad_(False)
    x, grid = normal(), ddim.grid(200, 9)
    walks = [
        sampler(net, schedule, x, grid, noise=draws(x.dtype, x), clip_x0=clip)
        for sampler in (SAMPLERS["ddpm"], SAMPLERS["euler-ancestral"])
    ]
    close(walks[0], walks[1], 1e-12)


def test_ddpm_of_the_table_is_diffusers(schedule, net):
    """Every timestep, where their posterior is that of the chain itself."""
    x = normal().to(torch.float64)
    wide = net.to(torch.float64)
    betas = [schedule.beta(t) for t in range(1, T + 1)]
    scheduler = DDPMScheduler(num_train_timesteps=T, trained_betas=betas, clip_sample=False)
    scheduler.alphas_cumprod = schedule.alpha_bar[1:].clone()
    scheduler.set_timesteps(T)
    want, generator = x, torch.Generator().manual_seed(7)
    for k in scheduler.timesteps:
        eps = wide(want, labels(x, int(k) + 1))
        want = scheduler.step(eps, int(k), want, generator=generator).prev_sample
    got = SAMPLERS["ddpm"](wide, schedule, x, tuple(range(T + 1)), noise=draws(x.dtype, x))
    close(got, want, 1e-6)


# --- closed form -------------------------------------------------------------------------------


def exact(schedule, mean, std, x, t, s):
    """Where the probability flow of N(mean, std^2) leads from t to s; linear, so known."""
    (a_t, b_t), (a_s, b_s) = schedule.coefficients(t), schedule.coefficients(s)
    spread_t, spread_s = math.hypot(a_t * std, b_t), math.hypot(a_s * std, b_s)
    return a_s * mean + spread_s / spread_t * (x - a_t * mean)


ORDERS = [
    ("ddim", 1),
    ("euler", 1),
    ("heun", 2),
    ("dpmpp-2m", 2),
    ("lms", 2),
]  # of LMS by its first steps


@pytest.mark.parametrize(("name", "order"), ORDERS)
def test_errors_shrink_by_the_methods_order(name, order):
    """On Gaussian pixels, where the flow is known; steps even in log sigma from one end to the
    other, so that halving them halves them everywhere."""
    schedule = Schedule.make("linear", 40_000)
    mean, std, x = 0.3, 0.5, normal(1, 4)
    net = Gaussian(schedule, mean, std)
    ends = math.log(sigma.sigma(schedule, 20)), math.log(sigma.sigma(schedule, 1500))
    errors = []
    for steps in (16, 32):
        logs = np.linspace(*ends, steps + 1)
        grid = tuple(round(sigma.timestep(schedule, math.exp(v))) for v in logs)
        got = SAMPLERS[name](net, schedule, x, grid)
        want = exact(schedule, mean, std, x, grid[-1], grid[0])
        errors.append(float((got - want).abs().max()))
    assert errors[0] > 1e-12
    assert math.log2(errors[0] / errors[1]) > order - 0.4


@pytest.mark.parametrize("name", ["plms", "pndm"])
def test_pndm_is_of_higher_order_than_ddim(name):
    schedule = Schedule.make("linear", 1000)
    mean, std, x = 0.3, 0.5, normal(1, 4)
    net = Gaussian(schedule, mean, std)
    grid = tuple(range(100, 901, 20))
    want = exact(schedule, mean, std, x, grid[-1], grid[0])
    miss, plain = (
        float((SAMPLERS[which](net, schedule, x, grid) - want).abs().max())
        for which in (name, "ddim")
    )
    assert miss < plain / 50


@given(st.lists(st.floats(0.05, 20), min_size=1, max_size=4, unique=True), st.floats(0, 20))
def test_lms_coefficients_integrate_polynomials_exactly(sigmas, to):
    if min((abs(a - b) for i, a in enumerate(sigmas) for b in sigmas[:i]), default=1) < 0.05:
        return
    weights = solvers.lms_coefficients(sigmas, to)
    for power in range(len(sigmas)):
        got = sum(w * s**power for w, s in zip(weights, sigmas, strict=True))
        want = (to ** (power + 1) - sigmas[0] ** (power + 1)) / (power + 1)
        scale = sum(abs(w) * s**power for w, s in zip(weights, sigmas, strict=True))
        assert got == pytest.approx(want, abs=1e-9 * max(1, scale))


# --- the contract ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [4, 7])
def test_every_sampler_keeps_the_contract(name, steps):
    sampler, schedule = SAMPLERS[name], Schedule.make()
    x, grid = normal(3), ddim.grid(200, steps)
    net = Counting(SmoothNet(seed=1, strength=0.5).requires_grad_(False))
    told = []
    got = sampler(
        net,
        schedule,
        x,
        grid,
        noise=draws(x.dtype, x) if sampler.stochastic else None,
        on_step=lambda *told_now: told.append(told_now),
    )
    assert len(net.labels) == sampler.calls(steps)
    assert min(net.labels) >= 1 and max(net.labels) == 200
    assert [t for _, t, _, _ in told] == list(reversed(grid[:-1]))
    assert [i for i, _, _, _ in told] == list(range(steps))
    assert torch.equal(told[-1][2], got)
    first = ddim.x0_hat(schedule, x, net(x, labels(x, 200)), 200)
    assert torch.allclose(told[0][3], first)
    assert sampler.source and sampler.name == name


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_do_not_depend_on_their_batch(name):
    schedule, x, grid = Schedule.make(), normal(3), ddim.grid(200, 6)
    net = SmoothNet(seed=1, strength=0.5).requires_grad_(False)
    noises = {s: normal(3, seed=s + 1) for s in grid}
    together = SAMPLERS[name](net, schedule, x, grid, noise=lambda s: noises[s])
    alone = SAMPLERS[name](net, schedule, x[1:2], grid, noise=lambda s: noises[s][1:2])
    assert torch.allclose(together[1:2], alone, atol=1e-9)


@pytest.mark.parametrize("name", SAMPLERS)
def test_clip_x0_keeps_pictures_in_range(name):
    """A network that asks for pixels far beyond 1: the last estimate is the picture."""
    schedule, grid = Schedule.make(), ddim.grid(200, 6)
    net, x = Gaussian(schedule, mean=3.0, std=0.1), normal()
    noise = draws(x.dtype, x)
    wild = SAMPLERS[name](net, schedule, x, grid, noise=noise)
    tame = SAMPLERS[name](net, schedule, x, grid, noise=noise, clip_x0=True)
    assert float(wild.max()) > 2
    assert float(tame.max()) < 1.1


@pytest.mark.parametrize("name", [n for n, s in SAMPLERS.items() if s.stochastic])
def test_a_stochastic_sampler_without_noise_is_refused(name):
    with pytest.raises(BadInput, match="stochastic"):
        SAMPLERS[name](SmoothNet(), Schedule.make(), normal(), ddim.grid(200, 4))


def test_unknown_samplers_and_settings_are_refused():
    with pytest.raises(BadInput) as refused:
        find_sampler("dpmpp")
    assert "dpmpp-2m" in refused.value.fix
    assert find_sampler("heun") is SAMPLERS["heun"]
    schedule, net, x = Schedule.make(), SmoothNet(), normal()
    with pytest.raises(BadInput, match="order 5"):
        solvers.sample_lms(net, schedule, x, (0, 5), order=5)
    with pytest.raises(BadInput, match="eta=2"):
        solvers.sample_ddim(net, schedule, x, (0, 5), eta=2)
    with pytest.raises(BadInput, match="warm-up"):
        SAMPLERS["pndm"](net, schedule, x, (0, 5, 10, 15))
    with pytest.raises(BadInput, match="warm-up"):
        SAMPLERS["pndm"](net, schedule, x, (0, 5, 10, 11, 12))
    for sampler in SAMPLERS.values():
        with pytest.raises(BadInput):
            sampler(net, schedule, x, (0, 50, 20, 10, 5), noise=draws(x.dtype, x))
        with pytest.raises(BadInput):
            sampler(net, schedule, x, (0, 50, 70, 80, 999), noise=draws(x.dtype, x))


# --- the sigma form ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_sigma_form_and_timesteps_convert_exactly(name):
    schedule, x = Schedule.make(name, 100), normal()
    for t in range(1, 101):
        s = sigma.sigma(schedule, t)
        assert sigma.timestep(schedule, s) == pytest.approx(t, abs=1e-6)
        there = sigma.to_sigma_form(schedule, x, t)
        assert torch.allclose(sigma.from_sigma_form(schedule, there, t), x)
        assert torch.allclose(there / math.sqrt(s**2 + 1), x)
    x0, eps = normal(seed=3), normal(seed=4)
    noisy = ddpm.q_sample(schedule, x0, 60, eps)
    form = sigma.to_sigma_form(schedule, noisy, 60)
    assert torch.allclose(form, x0 + sigma.sigma(schedule, 60) * eps)
    assert sigma.sigma(schedule, 0) == 0
    middle = math.sqrt(sigma.sigma(schedule, 41) * sigma.sigma(schedule, 42))
    assert sigma.timestep(schedule, middle) == pytest.approx(41.5)
    assert sigma.timestep(schedule, 1e9) == 100 and sigma.timestep(schedule, 1e-9) == 1
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(BadInput):
            sigma.timestep(schedule, bad)


@pytest.mark.parametrize("N", [50, 600, 1000, 1500])
def test_the_start_is_diffusers_and_so_is_its_sigma(N):
    schedule = Schedule.make("linear", N)
    scheduler = EulerDiscreteScheduler(
        num_train_timesteps=N, beta_start=1e-4, beta_end=0.02, timestep_spacing="linspace"
    )
    scheduler.set_timesteps(10)
    assert sigma.sigma(schedule, N) == pytest.approx(float(scheduler.init_noise_sigma), rel=1e-4)
    noise = normal()
    want = noise * float(scheduler.init_noise_sigma)
    got = sigma.to_sigma_form(schedule, sigma.start(schedule, noise, N), N)
    assert torch.allclose(got, want, rtol=1e-4)


# --- grids -------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [20, 200, 1000])
def test_rules_are_diffusers(T):
    for steps in (2, 3, 4, 7, 10, 13, 20):
        for spacing, offset in SPACINGS:
            for kind in (DDIMScheduler, PNDMScheduler, DPMSolverMultistepScheduler):
                if steps == T and (offset or kind is DPMSolverMultistepScheduler):
                    continue  # no timesteps left for the offset, or for the one more
                spaced = {"timestep_spacing": spacing, "steps_offset": offset}
                if kind is PNDMScheduler:
                    spaced["skip_prk_steps"] = True
                scheduler = kind(num_train_timesteps=T, **spaced)
                scheduler.set_timesteps(steps)
                settings = {"offset": offset} if offset else {}
                if kind is DPMSolverMultistepScheduler and spacing != "trailing":
                    settings["skip_first"] = True
                want = sorted({int(k) + 1 for k in np.asarray(scheduler.timesteps)})
                if kind is PNDMScheduler:
                    want = sorted(int(k) + 1 for k in scheduler._timesteps)
                got = grids.build(spacing, T, steps, **settings)
                assert list(got) == [0, *want], (spacing, offset, kind, steps)


def test_known_grids():
    assert grids.leading(1000, 40)[:3] == (0, 1, 26) and grids.leading(1000, 40)[-1] == 976
    assert grids.even(1000, 40)[1:3] == (25, 50) and grids.even(1000, 40)[-1] == 1000
    clip = grids.diffusionclip(500, 40)
    assert clip[:4] == (0, 1, 13, 26) and clip[-2:] == (488, 501) and len(clip) == 41
    assert grids.leading(1000, 50, offset=1, end=1)[:3] == (1, 2, 22)
    assert grids.leading(1000, 50, offset=0, end=1)[:2] == (1, 21)


@given(st.sampled_from(sorted(grids.RULES)), st.integers(2, 300), st.data())
def test_grids_can_be_walked(rule, T, data):
    # DiffusionCLIP's floors of floats fall together where steps are hardly longer than 1.
    most = (T + 1) // 2 if rule == "diffusionclip" else T
    steps = data.draw(st.integers(2, max(2, most)))
    grid = grids.build(rule, T, steps)
    ddim.check_grid(Schedule("flat", T, torch.linspace(1, 0.5, T + 1, dtype=torch.float64)), grid)
    assert len(grid) == steps + 1 and grid[0] == 0


@pytest.mark.parametrize(
    "ask",
    [
        lambda: grids.build("leding", 100, 10),
        lambda: grids.build("trailing", 100, 10, offset=1),
        lambda: grids.leading(100, 0),
        lambda: grids.leading(100, 101),
        lambda: grids.leading(100, 100, offset=1),
        lambda: grids.leading(100, 10, offset=-1),
        lambda: grids.leading(100, 10, end=2),
        lambda: grids.linspace(100, 1),
        lambda: grids.trailing(100, 101),
        lambda: grids.diffusionclip(100, 1),
        lambda: grids.diffusionclip(100, 102),
        lambda: grids.diffusionclip(17, 18),
        lambda: grids.diffusionclip(100, 10, T=100),
    ],
)
def test_grids_that_cannot_be_are_refused(ask):
    with pytest.raises(BadInput):
        ask()
