"""The asymmetric reverse step: an edit acts on the predicted picture, not on the direction.

Kwon et al. 2023, "Diffusion Models already have a Semantic Latent Space" (2210.10960), called
Asyrp: ``x_s = sqrt(ab_s) x0_hat(eps edited) + sqrt(1 - ab_s) eps`` (equation 5). An edit of both
terms alike would nearly cancel itself out (their theorem 1).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dclip.diffusion.ddim import check_grid, x0_hat
from dclip.diffusion.network import EpsModel, OnStep, predict
from dclip.diffusion.schedule import Schedule


def step(schedule: Schedule, x: Tensor, eps: Tensor, eps_edited: Tensor, t: int, s: int) -> Tensor:
    """Move a state from ``t`` down to ``s``; with ``eps_edited = eps`` it is DDIM's step."""
    a_s, b_s = schedule.coefficients(s)
    return a_s * x0_hat(schedule, x, eps_edited, t) + b_s * eps


def decode(
    model: EpsModel,
    edited: EpsModel,
    schedule: Schedule,
    x_r: Tensor,
    grid: Sequence[int],
    *,
    t_min: int = 0,
    on_step: OnStep | None = None,
) -> Tensor:
    """Walk a state at ``grid[-1]`` down the grid; the edit acts in the predicted picture alone.

    Args:
        model: the network as it is.
        edited: the same with the edit, e.g. :class:`dclip.models.hspace.HSpaceEdit`.
        x_r: (B,C,H,W) at timestep ``grid[-1]``.
        grid: increasing timesteps.
        t_min: the edit acts at timesteps above this one; below, the steps are DDIM's and cost one
            network call instead of two.
        on_step: see :data:`dclip.diffusion.network.OnStep`.

    Raises:
        BadInput: a grid that does not fit the schedule.
    """
    check_grid(schedule, grid)
    x = x_r
    for i in reversed(range(len(grid) - 1)):
        s, t = grid[i], grid[i + 1]
        eps = predict(model, x, t)
        eps_edited = predict(edited, x, t) if t > t_min else eps
        clean = x0_hat(schedule, x, eps_edited, t) if on_step else x
        x = step(schedule, x, eps, eps_edited, t, s)
        if on_step:
            on_step(len(grid) - 2 - i, s, x, clean)
    return x
