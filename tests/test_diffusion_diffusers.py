"""The same grid and network through diffusers' schedulers: an implementation that is not ours."""

import warnings
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from smooth_net import SmoothNet, normal, photos

from dclip.diffusion import ddim, ddpm, inversion
from dclip.diffusion.schedule import Schedule

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from diffusers import DDIMInverseScheduler, DDIMScheduler, DDPMScheduler

NAMES = ["linear", "linear-rescaled", "cosine"]
DTYPES = [(torch.float32, 1e-5), (torch.float64, 1e-10)]
# Even, uneven, every label, one leap; the second and third reach the noisiest label of T = 200.
GRIDS = [ddim.grid(100, 20), ddim.grid(200, 30), ddim.grid(199, 199), (0, 60), (0, 1, 2, 99, 100)]


def reference(kind, schedule, dtype, **config):
    """A diffusers scheduler on our betas; in float64 on our table, which it cannot hold itself."""
    betas = [schedule.beta(t) for t in range(1, schedule.T + 1)]
    scheduler = kind(
        num_train_timesteps=schedule.T, trained_betas=betas, clip_sample=False, **config
    )
    if dtype == torch.float64:
        scheduler.alphas_cumprod = schedule.alpha_bar[1:].clone()
    return scheduler


def at(scheduler, t, s):
    """Make a scheduler that only knows even strides take the stride from t to s."""
    scheduler.num_inference_steps = Fraction(scheduler.config.num_train_timesteps, t - s)
    return scheduler


def labels(x, t):
    return torch.full((x.shape[0],), t, dtype=torch.int64)


@pytest.fixture(params=DTYPES, ids=["float32", "float64"])
def precision(request):
    return request.param


@pytest.fixture
def net(precision):
    # Calm enough that neither implementation's rounding is amplified over the longest walk.
    return SmoothNet(seed=3, strength=0.5).to(precision[0]).requires_grad_(False)


def close(got, want, tolerance):
    """Equal to ``tolerance`` of the largest value: states of a plain walk grow beyond 1."""
    assert got.dtype == want.dtype
    assert float((got - want).abs().max()) <= tolerance * max(1.0, float(want.abs().max()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grid", GRIDS, ids=len)
def test_decode_is_diffusers_ddim(name, grid, precision, net):
    dtype, tolerance = precision
    schedule = Schedule.make(name, 200)
    x = x_r = normal().to(dtype)
    scheduler = reference(DDIMScheduler, schedule, dtype, set_alpha_to_one=True)
    for s, t in reversed(list(pairwise(grid))):
        x = at(scheduler, t, s).step(net(x, labels(x, t)), t - 1, x).prev_sample
    close(ddim.decode(net, schedule, x_r, grid), x, tolerance)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grid", GRIDS, ids=len)
def test_ddim_inversion_is_diffusers_inverse(name, grid, precision, net):
    dtype, tolerance = precision
    schedule = Schedule.make(name, 200)
    x = x0 = photos().to(dtype)
    scheduler = reference(DDIMInverseScheduler, schedule, dtype, set_alpha_to_one=True)
    for s, t in pairwise(grid):
        x = at(scheduler, t, s).step(net(x, labels(x, t)), t - 1, x).prev_sample
    close(inversion.invert(net, schedule, x0, grid, method="ddim"), x, tolerance)


def test_as_their_pipelines_run_them(precision, net):
    """Their own ``set_timesteps`` and loops, untouched, on the grid that they mean."""
    dtype, tolerance = precision
    schedule, grid = Schedule.make("linear", 200), ddim.grid(200, 20)
    x = x0 = photos().to(dtype)
    up = reference(
        DDIMInverseScheduler, schedule, dtype, set_alpha_to_one=True, timestep_spacing="trailing"
    )
    up.set_timesteps(20)
    for k in up.timesteps:
        x = up.step(net(x, labels(x, int(k) + 1)), int(k), x).prev_sample
    x_r = inversion.invert(net, schedule, x0, grid, method="ddim")
    close(x_r, x, tolerance)
    down = reference(
        DDIMScheduler, schedule, dtype, set_alpha_to_one=True, timestep_spacing="trailing"
    )
    down.set_timesteps(20)
    for k in down.timesteps:
        x = down.step(net(x, labels(x, int(k) + 1)), int(k), x).prev_sample
    close(ddim.decode(net, schedule, x_r, grid), x, tolerance)


def test_clipped_decode_is_theirs_with_the_noise_made_to_agree(precision, net):
    dtype, tolerance = precision
    schedule, grid = Schedule.make(), ddim.grid(200, 20)
    x = x_r = normal().to(dtype)
    scheduler = reference(DDIMScheduler, schedule, dtype, set_alpha_to_one=True)
    scheduler.register_to_config(clip_sample=True, clip_sample_range=1.0)
    for s, t in reversed(list(pairwise(grid))):
        eps = net(x, labels(x, t))
        at(scheduler, t, s)
        x = scheduler.step(eps, t - 1, x, use_clipped_model_output=True).prev_sample
    close(ddim.decode(net, schedule, x_r, grid, clip_x0=True), x, tolerance)


# Each ends at label 1: from any other, theirs adds noise of 1e-10 to the finished picture.
@pytest.mark.parametrize("grid", [(0, 1, 20, 100), (0, 1, 2, 99, 100), tuple(range(200))], ids=len)
@pytest.mark.parametrize("clip", [False, True])
def test_ancestral_sampling_is_diffusers_ddpm(grid, clip, precision, net):
    dtype, tolerance = precision
    schedule = Schedule.make()
    # Their float32 table loses 1 - alpha of the first labels to cancellation: 2e-4 off.
    scheduler = reference(DDPMScheduler, schedule, torch.float64, variance_type="fixed_small")
    scheduler.register_to_config(clip_sample=clip, clip_sample_range=1.0)
    scheduler.set_timesteps(timesteps=[t - 1 for t in reversed(grid[1:])])
    x = x_r = normal().to(dtype)
    generator = torch.Generator().manual_seed(7)
    for k in scheduler.timesteps:
        eps = net(x, labels(x, int(k) + 1))
        x = scheduler.step(eps, int(k), x, generator=generator).prev_sample
    generator = torch.Generator().manual_seed(7)
    got = ddpm.sample_ddpm(
        net,
        schedule,
        x_r,
        grid,
        noise=lambda s: torch.randn(x_r.shape, generator=generator, dtype=dtype),
        clip_x0=clip,
    )
    close(got, x, tolerance)


def test_noising_is_diffusers_add_noise(precision):
    dtype, tolerance = precision
    schedule, t = Schedule.make("cosine", 200), torch.tensor([1, 42, 200])
    x0, eps = photos(3).to(dtype), normal(3).to(dtype)
    scheduler = reference(DDPMScheduler, schedule, dtype)
    close(ddpm.q_sample(schedule, x0, t, eps), scheduler.add_noise(x0, eps, t - 1), tolerance)
