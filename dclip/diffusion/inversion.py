"""From a photo to the state that decodes back to it.

A decode steps from t to s along eps(x_t, t). Its exact inversion needs, at x_s, the noise of the
state x_t, which is not known yet. The methods differ in how they approximate it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from dclip.diffusion.ddim import check_grid, step, x0_hat
from dclip.diffusion.network import EpsModel, OnStep, predict
from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput

Method = Literal["ddim", "fixed-point", "simplified", "diffusionclip"]

REFINEMENTS = 24
"""Most network calls of a step after its first; few steps but the first need nearly as many."""

TOLERANCE = 1e-3
"""Largest error of a decoded step, RMS; that of the kept state is about a tenth of it."""

# Anderson mixing over three guesses; older ones did not help, the first step is far from linear.
_MEMORY = 2


def invert(
    model: EpsModel,
    schedule: Schedule,
    x0: Tensor,
    grid: Sequence[int],
    *,
    method: Method = "fixed-point",
    refinements: int = REFINEMENTS,
    tolerance: float = TOLERANCE,
    on_step: OnStep | None = None,
) -> Tensor:
    """Walk photos up the grid to the state at ``grid[-1]``.

    - ``ddim``: eps at the state that the step comes from, with the timestep that it goes to, as
      diffusers' DDIMInverseScheduler is driven. One network call a step, error O(h^2) a step.
    - ``fixed-point``: refine until eps is taken at the state that the step arrives at, so that
      :func:`dclip.diffusion.ddim.decode` on the same grid returns the photo. Nearly all of a round
      trip's error is made in the first step, where the network removes fine detail of the photo; so
      the number of calls depends on the error: many there, one or two later.
    - ``diffusionclip``: eps at the state and at the timestep that the step comes from, as the code
      of DiffusionCLIP (2110.02711) and of Asyrp has it; the photo itself is asked at t = 1, the
      lowest that a network knows. One network call a step, with the error of ``ddim``.
    - ``simplified``: equation (3) of "A Simplified Implementation of DiffusionCLIP":
      ``x_t = sqrt(ab_t) x0 + sqrt(1 - ab_t) eps(x_s, s)`` with the *original* x0. This is no
      inversion: each state is x0 noised again with the last prediction, so no decode returns the
      photo. (DDIM's own update has x0_hat of x_s there.) Its first call, at the photo itself, uses
      t = 1, the lowest that a network knows. Kept for comparison.

    Args:
        x0: (B,C,H,W) in [-1, 1].
        grid: increasing timesteps from :func:`dclip.diffusion.ddim.grid` or
            :func:`dclip.diffusion.grids.upward`. At the first of them the state is taken to be x0.
        refinements: fixed-point only: most network calls of a step after its first. 0 costs what
            ``ddim`` costs and is more exact, since the first guess comes from earlier steps.
        tolerance: fixed-point only: a sample's step ends once its decode would have an error below
            this (RMS over its values). 0 always makes all refinements.
        on_step: see :data:`dclip.diffusion.network.OnStep`; ``t`` is the timestep arrived at.

    Raises:
        BadInput: an unknown method, refinements or tolerance below 0, or a grid that does not fit.
    """
    check_grid(schedule, grid)
    if method not in get_args(Method):
        raise BadInput(
            f"unknown inversion '{method}'", fix=f"choose one of {', '.join(get_args(Method))}"
        )
    if refinements < 0:
        raise BadInput(f"refinements={refinements}", fix="choose --refinements of 0 or more")
    if not tolerance >= 0:
        raise BadInput(f"tolerance={tolerance}", fix="choose a tolerance of 0 or more")
    x = x0
    past: list[tuple[int, Tensor]] = []
    for index, (s, t) in enumerate(pairwise(grid)):
        if method == "simplified":
            eps = predict(model, x, max(s, 1))
            a, b = schedule.coefficients(t)
            x = a * x0 + b * eps
        else:
            if method == "ddim":
                eps = predict(model, x, t)
            elif method == "diffusionclip":
                eps = predict(model, x, max(s, 1))
            else:
                guess = _extrapolate(past, t) if past else predict(model, x, t)
                calls = refinements + (1 if past else 0)
                eps = _implicit_eps(model, schedule, x, s, t, guess, calls, tolerance)
                past = [*past[-1:], (t, eps)]
            x = step(schedule, x, eps, s, t)
        if on_step:
            on_step(index, t, x, x0_hat(schedule, x, eps, t))
    return x


def invert_with_offsets(
    model: EpsModel,
    schedule: Schedule,
    x0: Tensor,
    grid: Sequence[int],
    *,
    method: Method = "fixed-point",
    refinements: int = REFINEMENTS,
    tolerance: float = TOLERANCE,
    decode_grid: Sequence[int] | None = None,
    on_step: OnStep | None = None,
) -> tuple[Tensor, Tensor]:
    """Invert, and keep the error of each decode step, so that a decode with them is exact.

    "Direct inversion" (Ju et al. 2023, 2310.01506): ``offsets[i]`` is the inversion's state at
    ``decode_grid[i]`` minus the decode step that should arrive there. Any method's errors are
    corrected, and those of a decode in fewer steps than the inversion's, at one more network call
    and a stored state for each of the decode's steps.

    Args:
        decode_grid: some of ``grid``'s timesteps, its ends among them, and 0 where the grid begins
            above it; None takes the grid's.
        on_step: called after each step of the inversion.

    Returns:
        ``x_r`` (B,C,H,W) and ``offsets`` (S,B,C,H,W) for :func:`dclip.diffusion.ddim.decode`.
    """
    timesteps = tuple(grid if decode_grid is None else decode_grid)
    states = {0: x0, grid[0]: x0}

    def keep(index: int, t: int, x: Tensor, clean: Tensor) -> None:
        if t in timesteps:
            states[t] = x
        if on_step is not None:
            on_step(index, t, x, clean)

    x_r = invert(
        model,
        schedule,
        x0,
        grid,
        method=method,
        refinements=refinements,
        tolerance=tolerance,
        on_step=keep,
    )
    offsets = [
        states[s] - step(schedule, states[t], predict(model, states[t], t), t, s)
        for s, t in pairwise(timesteps)
    ]
    return x_r, torch.stack(offsets)


def _implicit_eps(
    model: EpsModel,
    schedule: Schedule,
    x_s: Tensor,
    s: int,
    t: int,
    guess: Tensor,
    calls: int,
    tolerance: float,
) -> Tensor:
    """Solve ``eps = model(step(x_s, eps), t)``: the noise that a decode will find at x_t.

    Because x_t is x_s moved along eps, the unknown is eps itself, and ``miss * (value - guess)``
    is the error of this step's decode. Two things make the plain iteration (AIDI, 2309.04907;
    ReNoise, 2403.14602) converge in fewer calls: a first guess from the earlier steps, and Anderson
    mixing. Each sample is solved on its own and stops on its own, so that no result depends on what
    else is in the batch.
    """
    a_s, b_s = schedule.coefficients(s)
    a_t, b_t = schedule.coefficients(t)
    miss = abs(b_s - b_t * a_s / a_t)
    guesses: list[Tensor] = []
    values: list[Tensor] = []
    done = torch.zeros_like(_dot(guess, guess), dtype=torch.bool)
    for _ in range(calls):
        value = predict(model, step(schedule, x_s, guess, s, t), t)
        guesses = [*guesses[-_MEMORY:], guess]
        values = [*values[-_MEMORY:], value]
        guess = torch.where(done, guess, _anderson(guesses, values))
        residual = values[-1] - guesses[-1]
        done = done | (miss**2 * _dot(residual, residual) < tolerance**2 * residual[0].numel())
        if bool(done.all()):
            break
    return guess


def _extrapolate(past: Sequence[tuple[int, Tensor]], t: int) -> Tensor:
    """Linear extrapolation to ``t`` of eps at one or two earlier timesteps."""
    if len(past) == 1:
        return past[0][1]
    (t_1, eps_1), (t_2, eps_2) = past
    return eps_2 + (t - t_2) / (t_2 - t_1) * (eps_2 - eps_1)


def _anderson(guesses: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    """Anderson mixing for ``guess = value``, per sample (Walker & Ni 2011, section 2).

    The mixture of the values whose residuals ``value - guess`` cancel best in least squares, by
    Gram-Schmidt on the residuals' differences, newest first.
    """
    residuals = [value - guess for guess, value in zip(guesses, values, strict=True)]
    mixed, left = values[-1], residuals[-1]
    basis: list[tuple[Tensor, Tensor, Tensor]] = []
    for i in reversed(range(len(values) - 1)):
        dr, dv = residuals[i + 1] - residuals[i], values[i + 1] - values[i]
        # A difference that repeats earlier ones is rounding alone: the floor removes it.
        floor = 1e-6 * _dot(dr, dr) + torch.finfo(dr.dtype).tiny
        for br, bv, norm in basis:
            weight = _dot(br, dr) / norm
            dr, dv = dr - weight * br, dv - weight * bv
        norm = _dot(dr, dr) + floor
        weight = _dot(dr, left) / norm
        mixed, left = mixed - weight * dv, left - weight * dr
        basis.append((dr, dv, norm))
    return mixed


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """Inner product of each sample with its own: (B,C,H,W) twice -> (B,1,1,1)."""
    return (x * y).flatten(1).sum(1).view(-1, *[1] * (x.dim() - 1))
