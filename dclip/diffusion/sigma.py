"""The sigma form of a state, and the way back.

Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models"
(2206.00364), write a noisy picture as ``x0 + sigma eps``, where this library writes
``x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps``. The two differ by a factor that depends
on t alone, so each sampler of theirs has an exact form on timesteps.
"""

from __future__ import annotations

import math

from torch import Tensor

from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput


def sigma(schedule: Schedule, t: int) -> float:
    """``sqrt((1 - alpha_bar_t) / alpha_bar_t)``, noise by signal, for t in 0..T; 0 at t = 0."""
    a, b = schedule.coefficients(t)
    return b / a


def to_sigma_form(schedule: Schedule, x_t: Tensor, t: int) -> Tensor:
    """``x0 + sigma eps`` of a state at timestep ``t``: ``x_t / sqrt(alpha_bar_t)``."""
    return x_t / schedule.coefficients(t)[0]


def from_sigma_form(schedule: Schedule, x_sigma: Tensor, t: int) -> Tensor:
    """The state at timestep ``t`` of ``x0 + sigma eps``: times ``1 / sqrt(sigma^2 + 1)``.

    This is what samplers in sigma form give to the network ("scale the model's input").
    """
    return x_sigma * schedule.coefficients(t)[0]


def timestep(schedule: Schedule, sigma: float) -> float:
    """The timestep in 1..T of a sigma, between timesteps by interpolation of log sigma.

    Exact at the sigmas of timesteps; outside the schedule's sigmas the nearest end.

    Raises:
        BadInput: a sigma that is not a number above 0.
    """
    if not (sigma > 0 and math.isfinite(sigma)):
        raise BadInput(f"sigma={sigma}", fix="give a finite sigma above 0")
    ab = schedule.alpha_bar[1:]
    logs = ((1 - ab) / ab).log() / 2
    wanted = math.log(sigma)
    above = int((logs < wanted).sum())
    if above == 0 or above == schedule.T:
        return float(max(above, 1))
    low, high = float(logs[above - 1]), float(logs[above])
    return above + (wanted - low) / (high - low)


def start(schedule: Schedule, noise: Tensor, t: int) -> Tensor:
    """Where diffusers' sigma samplers start from at ``t``: ``sqrt(1 - alpha_bar_t) noise``.

    They do so with linspace and trailing grids (``init_noise_sigma`` is the largest sigma there);
    with leading grids they start from ``noise`` itself, as all others do.
    """
    return schedule.coefficients(t)[1] * noise
