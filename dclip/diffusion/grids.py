"""Rules that choose the timesteps of a walk, as the libraries and papers have them.

Each returns increasing timesteps for :mod:`dclip.diffusion.samplers`: the first is where the walk
ends, and the network is asked at each of the others. diffusers counts steps from 0: its ``k`` is
our ``t = k + 1``. The rules' names are from table 2 of Lin et al. 2023, "Common Diffusion Noise
Schedules and Sample Steps are Flawed" (2305.08891).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Literal

import numpy as np

from dclip.diffusion import ddim
from dclip.errors import BadInput


def even(T: int, steps: int) -> tuple[int, ...]:
    """dclip's own rule: evenly from 0 to T, see :func:`dclip.diffusion.ddim.grid`."""
    return ddim.grid(T, steps, T)


def leading(
    T: int, steps: int, *, offset: int = 0, end: Literal[0, 1] = 0, skip_first: bool = False
) -> tuple[int, ...]:
    """Multiples of ``T // steps``, which never reach T: diffusers' "leading".

    Args:
        offset: diffusers' ``steps_offset``; 1 in Stable Diffusion.
        end: where the walk ends: 0 is alpha_bar = 1 (``set_alpha_to_one``), 1 the least noisy
            state that the network knows (``set_alpha_to_one=False``).
        skip_first: lay out one timestep more and leave out the lowest, as diffusers' DPM-Solver
            does.

    Raises:
        BadInput: steps that do not fit into 1..T, or an offset that leads beyond T.
    """
    n = steps + skip_first
    _check(T, steps, n)
    stride = T // n
    timesteps = [i * stride + offset + 1 for i in range(skip_first, n)]
    if offset < 0 or timesteps[-1] > T:
        raise BadInput(
            f"offset {offset} leads from 1..{T} to timestep {timesteps[-1]}",
            fix="choose offset 0 or 1, or fewer steps",
        )
    return _ended(timesteps, end)


def trailing(T: int, steps: int, *, end: Literal[0, 1] = 0) -> tuple[int, ...]:
    """From T down in equal parts, rounded, halves to even: diffusers' "trailing".

    Raises:
        BadInput: steps that do not fit into 1..T.
    """
    _check(T, steps, steps)
    return _ended([round(Fraction(T * i, steps)) for i in range(1, steps + 1)], end)


def linspace(
    T: int, steps: int, *, end: Literal[0, 1] = 0, skip_first: bool = False
) -> tuple[int, ...]:
    """From 1 to T with both ends, rounded, halves to even: diffusers' "linspace".

    diffusers' DDIM, PNDM and DPM-Solver round as here. Its Euler, Heun and LMS keep fractions
    of timesteps, at which networks of this library cannot be asked; they agree where
    ``steps - 1`` divides ``T - 1``, and where they are given these timesteps.

    Args:
        skip_first: lay out one timestep more and leave out the lowest, as diffusers' DPM-Solver
            does.

    Raises:
        BadInput: fewer than two timesteps, or more than T.
    """
    n = steps + skip_first
    if n < 2:
        raise BadInput("linspace from 1 to T needs two steps or more", fix="take 2 steps or more")
    _check(T, steps, n)
    timesteps = [1 + round(Fraction((T - 1) * i, n - 1)) for i in range(skip_first, n)]
    return _ended(timesteps, end)


def diffusionclip(t_0: int, steps: int, T: int | None = None) -> tuple[int, ...]:
    """DiffusionCLIP's: ``int(linspace(0, 1, steps) * t_0)`` counted from 0, index 0 included.

    So a decode asks the network ``steps`` times, the last time at t = 1, and ends at t = 0. Its
    inversion takes the photo to be the state at t = 1 already: it walks ``grid[1:]`` upward, one
    call less.

    Args:
        t_0: the highest index, counted from 0 as in DiffusionCLIP, so t = t_0 + 1.
        T: the schedule's length where it is known, to refuse a ``t_0`` beyond it here.

    Raises:
        BadInput: fewer than two steps, more than there are indices, or t_0 of T or more.
    """
    if T is not None and t_0 >= T:
        raise BadInput(f"t_0={t_0} is beyond index {T - 1}", fix=f"choose t_0 in 1..{T - 1}")
    if not 2 <= steps <= t_0 + 1:
        raise BadInput(
            f"{steps} steps do not fit between index 0 and t_0={t_0}",
            fix=f"choose 2..{t_0 + 1} steps",
        )
    # Floors of floats, as theirs: exact fractions would differ where steps divide t_0.
    timesteps = [int(k) + 1 for k in np.linspace(0, 1, steps) * t_0]
    if len(set(timesteps)) < steps:
        raise BadInput(
            f"{steps} steps to t_0={t_0} fall together after rounding", fix="choose fewer steps"
        )
    return (0, *timesteps)


RULES: dict[str, Callable[..., tuple[int, ...]]] = {
    "even": even,
    "leading": leading,
    "trailing": trailing,
    "linspace": linspace,
    "diffusionclip": lambda T, steps: diffusionclip(T - 1, steps, T),
}
"""Rules by name, each ``(T, steps, ...) -> timesteps`` over the whole schedule."""


WALKS = ("even", "trailing", "linspace", "diffusionclip")
"""The rules that reach r, and so can lay out a walk between a picture and its state there."""


def walk(rule: str, r: int, steps: int, T: int | None = None) -> tuple[int, ...]:
    """The timesteps between 0 and r: the rule laid out over r timesteps in place of T.

    A walk down it asks the network ``steps`` times, whatever the rule. DiffusionCLIP's ``t_0``,
    counted from 0, is ``r - 1``.

    Args:
        rule: of :data:`WALKS`.
        T: the schedule's length where it is known, to refuse an r beyond it here.

    Raises:
        BadInput: another rule, or r or steps out of range.
    """
    if rule not in WALKS:
        why = "leading never reaches r" if rule == "leading" else f"unknown grid rule {rule!r}"
        raise BadInput(why, f"use one of {', '.join(WALKS)}")
    if r < 1 or (T is not None and r > T) or rule == "even":
        return ddim.grid(r, steps, T)
    if rule != "trailing" and not 2 <= steps <= r:
        raise BadInput(
            f"{steps} step{'s' * (steps != 1)} of grid {rule} between 0 and r={r}",
            fix=f"choose --steps in 2..{r}" if r > 1 else "choose --r 2 or more, or --grid even",
        )
    return RULES[rule](r, steps)


def upward(rule: str, timesteps: Sequence[int]) -> tuple[int, ...]:
    """The part of a walk that an inversion goes up.

    DiffusionCLIP's takes the photo to be the state at t = 1 already.
    """
    return tuple(timesteps[1:] if rule == "diffusionclip" else timesteps)


def build(rule: str, T: int, steps: int, **settings: int) -> tuple[int, ...]:
    """The timesteps of a rule by name, e.g. ``build("leading", 1000, 50, offset=1)``.

    Raises:
        BadInput: an unknown rule, a setting that it does not have, or as the rule.
    """
    if rule not in RULES:
        near = difflib.get_close_matches(rule, RULES, 3)
        raise BadInput(
            f"unknown grid rule {rule!r}",
            f"did you mean {', '.join(near)}?" if near else f"use one of {', '.join(RULES)}",
        )
    try:
        return RULES[rule](T, steps, **settings)
    except TypeError as e:
        raise BadInput(f"grid rule {rule!r} has no setting {', '.join(settings)}") from e


def _check(T: int, steps: int, n: int) -> None:
    if steps < 1 or n > T:
        raise BadInput(f"{steps} steps do not fit into 1..{T}", fix=f"choose 1..{T} steps")


def _ended(timesteps: list[int], end: int) -> tuple[int, ...]:
    if end not in (0, 1):
        raise BadInput(f"a walk that ends at t={end}", fix="choose end 0 or 1")
    # From t = 1 to t = 1 is no step.
    return (end, *(t for t in timesteps if t > end))
