"""Deterministic steps: grids of timesteps, one DDIM step in either direction, and the decode.

Song et al. 2021, "Denoising Diffusion Implicit Models" (2010.02502).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from dclip.diffusion.network import EpsModel, OnStep, predict
from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput


def grid(r: int, steps: int, T: int | None = None) -> tuple[int, ...]:
    """``steps + 1`` increasing timesteps from 0 to r, rounded evenly (halves up), none twice.

    Args:
        r: the noisiest timestep, in 1..T.
        steps: network evaluations of a decode over the grid, in 1..r.
        T: the schedule's length where it is known, to refuse an r beyond it here.

    Raises:
        BadInput: r or steps out of range.
    """
    top = "T" if T is None else str(T)
    if r < 1 or (T is not None and r > T):
        raise BadInput(f"r={r} is outside 1..{top}", fix=f"choose --r in 1..{top}")
    if not 1 <= steps <= r:
        raise BadInput(
            f"{steps} steps do not fit between 0 and r={r}",
            fix=f"choose --steps in 1..{r}" + ("" if r == T else ", or a larger --r"),
        )
    return tuple((2 * i * r + steps) // (2 * steps) for i in range(steps + 1))


def check_grid(schedule: Schedule, grid: Sequence[int]) -> None:
    """Refuse a grid that cannot be walked on this schedule.

    Raises:
        BadInput: fewer than two timesteps, or some that do not increase or lie outside 0..T.
    """
    if len(grid) < 2 or any(t <= s for s, t in pairwise(grid)):
        raise BadInput(
            f"grid {tuple(grid)} does not increase", fix="build it with ddim.grid(r, steps)"
        )
    if grid[0] < 0 or grid[-1] > schedule.T:
        raise BadInput(
            f"r={grid[-1]} is outside 1..{schedule.T}", fix=f"choose --r in 1..{schedule.T}"
        )


def x0_hat(schedule: Schedule, x_t: Tensor, eps: Tensor, t: int | Tensor) -> Tensor:
    """The clean image that ``x_t`` and its noise imply; equation (9), "predicted x_0".

    Args:
        t: one timestep for all samples, or int64 (B,), one each.
    """
    a, b = schedule.coefficients(t) if isinstance(t, int) else schedule.gather(t, x_t)
    return (x_t - b * eps) / a


def step(schedule: Schedule, x: Tensor, eps: Tensor, t: int, s: int) -> Tensor:
    """Move a state from timestep ``t`` to ``s``, in either direction, along ``eps``; equation (12).

    With sigma = 0 the update is ``sqrt(ab_s) x0_hat + sqrt(1 - ab_s) eps``. It is written here as
    one multiply-add with coefficients formed in float64, so that going there and back with the
    same ``eps`` returns the state to the rounding of its dtype. ``s = 0`` gives x0_hat.
    """
    a_t, b_t = schedule.coefficients(t)
    a_s, b_s = schedule.coefficients(s)
    ratio = a_s / a_t
    return ratio * x + (b_s - ratio * b_t) * eps


def clip_eps(schedule: Schedule, x_t: Tensor, eps: Tensor, t: int) -> Tensor:
    """The noise that goes with x0_hat clamped to [-1, 1], so that the pair still makes ``x_t``."""
    a, b = schedule.coefficients(t)
    return (x_t - a * x0_hat(schedule, x_t, eps, t).clamp(-1, 1)) / b


def decode(
    model: EpsModel,
    schedule: Schedule,
    x_r: Tensor,
    grid: Sequence[int],
    *,
    offsets: Tensor | None = None,
    on_step: OnStep | None = None,
    clip_x0: bool = False,
) -> Tensor:
    """Walk a state at ``grid[-1]`` down the grid with deterministic DDIM steps.

    Args:
        x_r: (B,C,H,W) at timestep ``grid[-1]``.
        grid: increasing timesteps, as from :func:`grid`; ``grid[0]`` is where the walk ends.
        offsets: (S,B,C,H,W) from :func:`dclip.diffusion.inversion.invert_with_offsets`;
            ``offsets[i]`` is added to the state that arrives at ``grid[i]``.
        on_step: see :data:`dclip.diffusion.network.OnStep`.
        clip_x0: clamp x0_hat to [-1, 1] at each step: steadier samples from pure noise, but no
            longer the map that an inversion inverts.

    Raises:
        BadInput: a grid that does not fit the schedule, offsets that do not fit the grid, or
            offsets together with ``clip_x0``.
    """
    check_grid(schedule, grid)
    if offsets is not None and (clip_x0 or offsets.shape != (len(grid) - 1, *x_r.shape)):
        raise BadInput(
            f"offsets {tuple(offsets.shape)} for {len(grid) - 1} steps of {tuple(x_r.shape)}"
            f" with clip_x0={clip_x0}",
            fix="decode on the grid of the inversion that made them, without clip_x0",
        )
    x = x_r
    for i in reversed(range(len(grid) - 1)):
        s, t = grid[i], grid[i + 1]
        eps = predict(model, x, t)
        if clip_x0:
            eps = clip_eps(schedule, x, eps, t)
        clean = x0_hat(schedule, x, eps, t) if on_step else x
        x = step(schedule, x, eps, t, s)
        if offsets is not None:
            x = x + offsets[i]
        if on_step:
            on_step(len(grid) - 2 - i, s, x, clean)
    return x
