"""From a photo to the state that decodes back to it.

A decode steps from t to s along eps(x_t, t). To invert it exactly one needs, at x_s, the noise of
the state x_t that is not known yet. The methods differ in what they take instead.
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

Method = Literal["ddim", "fixed-point", "simplified"]

REFINEMENTS = 3
TOLERANCE = 1e-5
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

    - ``ddim``: eps at the state that the step comes from, with the label that it goes to, as
      diffusers' DDIMInverseScheduler is driven. One network call a step, error O(h^2) a step.
    - ``fixed-point``: refine until eps is taken at the state that the step arrives at, so that
      :func:`dclip.diffusion.ddim.decode` on the same grid returns the photo.
    - ``simplified``: equation (3) of "A Simplified Implementation of DiffusionCLIP":
      ``x_t = sqrt(ab_t) x0 + sqrt(1 - ab_t) eps(x_s, s)`` with the *original* x0. This is no
      inversion: each state is x0 noised afresh with the last prediction, and what the network
      does not explain at one step is dropped instead of carried along, so no decode leads back.
      (DDIM's own update has x0_hat of x_s there.) Its first call, at the photo itself, uses label
      1, the lowest that a network knows. Kept for comparison.

    Args:
        x0: (B,C,H,W) in [-1, 1].
        grid: increasing labels from :func:`dclip.diffusion.ddim.grid`.
        refinements: fixed-point only: network calls a step after the first, at most.
        tolerance: fixed-point only: a sample is done with a step when a decode of that step
            would miss by less than this (RMS over its values).
        on_step: see :data:`dclip.diffusion.network.OnStep`; ``t`` is the label arrived at.

    Raises:
        BadInput: an unknown method, refinements below 0, or a grid that does not fit.
    """
    check_grid(schedule, grid)
    if method not in get_args(Method):
        raise BadInput(
            f"unknown inversion '{method}'", fix=f"choose one of {', '.join(get_args(Method))}"
        )
    if refinements < 0:
        raise BadInput(f"refinements={refinements}", fix="choose --refinements of 0 or more")
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
            else:
                eps = _implicit_eps(model, schedule, x, s, t, past, refinements, tolerance)
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
) -> tuple[Tensor, Tensor]:
    """Invert, and keep what each decode step misses, so that a replay is exact to rounding.

    "Direct inversion" (Ju et al. 2023, 2310.01506): ``offsets[i]`` is the inversion's state at
    ``grid[i]`` minus the decode step that should arrive there. Any method's errors are corrected,
    at one more network call a step and a stored state a step.

    Returns:
        ``x_r`` (B,C,H,W) and ``offsets`` (S,B,C,H,W) for :func:`dclip.diffusion.ddim.decode`.
    """
    states = [x0]
    x_r = invert(
        model,
        schedule,
        x0,
        grid,
        method=method,
        refinements=refinements,
        tolerance=tolerance,
        on_step=lambda index, t, x, clean: states.append(x),
    )
    offsets = [
        x_s - step(schedule, x_t, predict(model, x_t, t), t, s)
        for (s, t), (x_s, x_t) in zip(pairwise(grid), pairwise(states), strict=True)
    ]
    return x_r, torch.stack(offsets)


def _implicit_eps(
    model: EpsModel,
    schedule: Schedule,
    x_s: Tensor,
    s: int,
    t: int,
    past: Sequence[tuple[int, Tensor]],
    refinements: int,
    tolerance: float,
) -> Tensor:
    """Solve ``eps = model(step(x_s, eps), t)``: the noise that a decode will find at x_t.

    Because x_t is x_s moved along eps, the unknown is eps itself, and ``miss * (value - guess)``
    is exactly what a decode of this step would miss x_s by. Two things make the plain iteration
    (AIDI, FPI, ReNoise) converge in fewer calls: a first guess from the earlier steps, and
    Anderson mixing. Samples are solved apart from each other: a result does not depend on what
    else is in the batch.
    """
    a_s, b_s = schedule.coefficients(s)
    a_t, b_t = schedule.coefficients(t)
    miss = abs(b_s - b_t * a_s / a_t)
    guess = _extrapolate(past, t) if past else predict(model, x_s, t)
    guesses: list[Tensor] = []
    values: list[Tensor] = []
    done = torch.zeros(x_s.shape[0], dtype=torch.bool, device=x_s.device)
    for _ in range(refinements + 1 if past else refinements):
        value = predict(model, step(schedule, x_s, guess, s, t), t)
        guesses = [*guesses[-_MEMORY:], guess]
        values = [*values[-_MEMORY:], value]
        guess = torch.where(_per_sample(done, guess), guess, _anderson(guesses, values))
        done = done | (miss * _rms(value - guesses[-1]) < tolerance)
        if bool(done.all()):
            break
    return guess


def _extrapolate(past: Sequence[tuple[int, Tensor]], t: int) -> Tensor:
    if len(past) == 1:
        return past[0][1]
    (t0, e0), (t1, e1) = past
    w = (t - t1) / (t1 - t0)
    return e1 + w * (e1 - e0)


def _rms(x: Tensor) -> Tensor:
    return x.flatten(1).square().mean(1).sqrt()


def _per_sample(v: Tensor, like: Tensor) -> Tensor:
    return v.view(-1, *[1] * (like.dim() - 1))


def _anderson(guesses: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    """Anderson mixing."""
    if len(guesses) == 1:
        return values[-1]
    v = torch.stack([x.flatten(1) for x in values], 1)
    r = v - torch.stack([x.flatten(1) for x in guesses], 1)
    dr, dv = r[:, 1:] - r[:, :-1], v[:, 1:] - v[:, :-1]
    gram = dr @ dr.transpose(1, 2)
    m = gram.shape[-1]
    ridge = gram.diagonal(dim1=1, dim2=2).mean(1) * 1e-6 + torch.finfo(v.dtype).tiny
    gram = gram + ridge[:, None, None] * torch.eye(m, dtype=v.dtype, device=v.device)
    gamma = torch.linalg.solve(gram, dr @ r[:, -1:].transpose(1, 2))
    mixed: Tensor = v[:, -1] - (gamma.transpose(1, 2) @ dv)[:, 0]
    return mixed.view_as(values[-1])
