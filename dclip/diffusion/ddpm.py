"""Stochastic steps: noising, the training loss, and ancestral sampling.

Ho et al. 2020, "Denoising Diffusion Probabilistic Models" (2006.11239).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from dclip.diffusion.ddim import check_grid, x0_hat
from dclip.diffusion.network import EpsModel, OnStep, predict
from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput


def q_sample(schedule: Schedule, x0: Tensor, t: int | Tensor, eps: Tensor) -> Tensor:
    """Noise photos to timestep ``t`` in one step; equation (4).

    Args:
        x0: (B,C,H,W) in [-1, 1].
        t: one timestep in 0..T for all, or int64 (B,).
        eps: standard normal, like ``x0``.
    """
    a, b = schedule.coefficients(t) if isinstance(t, int) else schedule.gather(t, x0)
    return a * x0 + b * eps


def loss(model: EpsModel, schedule: Schedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Mean squared error of the predicted noise, one value a sample (B,); equation (14).

    Args:
        x0: (B,C,H,W) in [-1, 1].
        t: int64 (B,) in 1..T.
        eps: standard normal, like ``x0``.
    """
    prediction = model(q_sample(schedule, x0, t, eps), t).to(eps.dtype)
    return (prediction - eps).square().flatten(1).mean(1)


def ancestral_step(
    schedule: Schedule,
    x_t: Tensor,
    eps: Tensor,
    t: int,
    s: int,
    noise: Tensor,
    clip_x0: bool = False,
) -> Tensor:
    """Draw ``x_s`` from the posterior q(x_s | x_t, x0_hat) for any s < t; equations (6) and (7).

    With s < t - 1 it is the posterior of the chain without the states between, whose step has
    ``alpha = alpha_bar_t / alpha_bar_s``. At ``s = 0`` its variance is 0: the result
    is x0_hat, whatever the noise.

    Args:
        x_t: state (B,C,H,W) at ``t``.
        eps: the network's noise for it.
        noise: standard normal, like ``x_t``.
        clip_x0: clamp x0_hat to [-1, 1], which keeps a stochastic chain from drifting.

    Raises:
        BadInput: not 0 <= s < t <= T.
    """
    if not 0 <= s < t <= schedule.T:
        raise BadInput(
            f"an ancestral step from t={t} to {s}", fix=f"keep 0 <= s < t <= {schedule.T}"
        )
    ab_t, ab_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
    alpha = ab_t / ab_s
    x0 = x0_hat(schedule, x_t, eps, t)
    if clip_x0:
        x0 = x0.clamp(-1, 1)
    mean = (
        math.sqrt(ab_s) * (1 - alpha) / (1 - ab_t) * x0
        + math.sqrt(alpha) * (1 - ab_s) / (1 - ab_t) * x_t
    )
    variance = (1 - alpha) * (1 - ab_s) / (1 - ab_t)
    return mean + math.sqrt(variance) * noise


def sample_ddpm(
    model: EpsModel,
    schedule: Schedule,
    x_r: Tensor,
    grid: Sequence[int],
    *,
    noise: Callable[[int], Tensor],
    on_step: OnStep | None = None,
    clip_x0: bool = True,
) -> Tensor:
    """Walk a state at ``grid[-1]`` down the grid with ancestral steps.

    Args:
        x_r: (B,C,H,W) at timestep ``grid[-1]``; standard normal where that is T.
        grid: increasing timesteps, as from :func:`dclip.diffusion.ddim.grid`.
        noise: ``noise(s)`` is the standard normal draw, like ``x_r``, for the step that arrives
            at timestep s > 0. The caller keys it by sample, so that it does not depend on batches.
        on_step: see :data:`dclip.diffusion.network.OnStep`.
        clip_x0: clamp x0_hat to [-1, 1] at each step.

    Raises:
        BadInput: a grid that does not fit the schedule.
    """
    check_grid(schedule, grid)
    x = x_r
    for i in reversed(range(len(grid) - 1)):
        s, t = grid[i], grid[i + 1]
        eps = predict(model, x, t)
        clean = x0_hat(schedule, x, eps, t) if on_step else x
        drawn = noise(s) if s > 0 else x
        x = ancestral_step(schedule, x, eps, t, s, drawn, clip_x0=clip_x0)
        if on_step:
            on_step(len(grid) - 2 - i, s, x, clean)
    return x
