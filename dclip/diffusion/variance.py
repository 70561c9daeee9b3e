"""The noise of an ancestral step: fixed at either bound, or between them as the network says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

from dclip.diffusion.ddim import check_grid, x0_hat
from dclip.diffusion.network import EpsModel, OnStep
from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput

VarianceRule = Literal["small", "large", "learned-range"]
"""``small``: the posterior's own variance, beta tilde; ``large``: beta; ``learned-range``: between
the two, by the network's further channels (Nichol & Dhariwal 2021, 2102.09672, equation 15)."""


@runtime_checkable
class LearnsVariance(Protocol):
    """A network that predicts the variance of its steps beside eps."""

    def with_variance(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """``(eps, v)`` of one call, both like ``x``; v is -1 at beta tilde and 1 at beta."""


def log_variance(
    schedule: Schedule, t: int, s: int, rule: VarianceRule = "small", v: Tensor | None = None
) -> float | Tensor:
    """The log of the variance of the step from timestep ``t`` down to ``s``, ``0 < s < t``.

    On a strided grid these are the bounds of the chain that skips the timesteps between:
    ``beta = 1 - ab_t / ab_s``, ``beta tilde = beta (1 - ab_s) / (1 - ab_t)``.

    Args:
        v: what the network says, for ``learned-range``: the log is
            ``f log beta + (1 - f) log beta tilde`` with ``f = (v + 1) / 2``.

    Raises:
        BadInput: an unknown rule, ``learned-range`` without v, or not 0 < s < t <= T.
    """
    if not 0 < s < t <= schedule.T:
        raise BadInput(f"the variance of a step from t={t} to {s}", "keep 0 < s < t <= T")
    if rule not in get_args(VarianceRule):
        raise BadInput(f"variance rule {rule!r}", f"use one of {', '.join(get_args(VarianceRule))}")
    ab_t, ab_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
    beta = 1 - ab_t / ab_s
    largest, smallest = math.log(beta), math.log(beta * (1 - ab_s) / (1 - ab_t))
    if rule == "small":
        return smallest
    if rule == "large":
        return largest
    if v is None:
        raise BadInput("a learned variance without what the network says", "use small or large")
    share = (v + 1) / 2
    return share * largest + (1 - share) * smallest


def sample_ancestral(
    model: EpsModel,
    schedule: Schedule,
    x_r: Tensor,
    grid: Sequence[int],
    *,
    noise: Callable[[int], Tensor],
    rule: VarianceRule = "small",
    on_step: OnStep | None = None,
    clip_x0: bool = True,
) -> Tensor:
    """As :func:`dclip.diffusion.ddpm.sample_ddpm`, with the variance by a rule.

    Args:
        noise: ``noise(s)`` is the standard normal draw for the step that arrives at s > 0.
        rule: ``learned-range`` needs a network with :class:`LearnsVariance`'s method.

    Raises:
        BadInput: a grid that does not fit, or ``learned-range`` of a network that learned none.
    """
    check_grid(schedule, grid)
    learned = model if rule == "learned-range" and isinstance(model, LearnsVariance) else None
    if rule == "learned-range" and learned is None:
        raise BadInput("this network did not learn the variance of its steps", "use small or large")
    x = x_r
    for i in reversed(range(len(grid) - 1)):
        s, t = grid[i], grid[i + 1]
        timesteps = torch.full((x.shape[0],), t, dtype=torch.int64, device=x.device)
        eps, v = learned.with_variance(x, timesteps) if learned else (model(x, timesteps), None)
        v = None if v is None else v.to(x.dtype)
        x0 = x0_hat(schedule, x, eps.to(x.dtype), t)
        if clip_x0:
            x0 = x0.clamp(-1, 1)
        ab_t, ab_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
        alpha = ab_t / ab_s
        x = (
            math.sqrt(ab_s) * (1 - alpha) / (1 - ab_t) * x0
            + math.sqrt(alpha) * (1 - ab_s) / (1 - ab_t) * x
        )
        if s > 0:
            half = log_variance(schedule, t, s, rule, v) / 2
            x = x + (half.exp() if isinstance(half, Tensor) else math.exp(half)) * noise(s)
        if on_step:
            on_step(len(grid) - 2 - i, s, x, x0)
    return x
