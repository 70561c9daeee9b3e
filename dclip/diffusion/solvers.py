"""Solvers: from a noisy state down a grid of timesteps, each a mixture of the network's ``eps``.

All move with :func:`dclip.diffusion.ddim.step`, which is the exact solution for a constant ``eps``.
In sigma form (:mod:`dclip.diffusion.sigma`) that step is Euler's, so the methods of Karras et al.
and of Liu et al. differ only in the mixture that they take. Users find them in
:mod:`dclip.diffusion.samplers`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from dclip.diffusion import ddim
from dclip.diffusion.ddim import check_grid, clip_eps, step, x0_hat
from dclip.diffusion.network import EpsModel, OnStep, predict
from dclip.diffusion.schedule import Schedule
from dclip.diffusion.sigma import sigma
from dclip.errors import BadInput

Noise = Callable[[int], Tensor]
"""``noise(s)``: standard normal, like the state, for the step that arrives at timestep s > 0. The
caller keys it by sample, so that no batch or worker changes it."""


def sample_ddim(
    model: EpsModel,
    schedule: Schedule,
    x: Tensor,
    grid: Sequence[int],
    *,
    eta: float = 0.0,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
    clip_x0: bool = False,
) -> Tensor:
    """DDIM between deterministic (``eta = 0``) and ancestral (``eta = 1``).

    Song et al. 2021 (2010.02502), equations (12) and (16). In sigma form ``eta = 0`` is Euler's
    method and ``eta = 1`` the ancestral Euler of Crowson's k-diffusion: its ``sigma_up`` is the
    posterior's standard deviation, so Euler ancestral and DDPM are the same map too.

    Raises:
        BadInput: eta outside 0..1, or above 0 without ``noise``; a grid that does not fit.
    """
    if not 0 <= eta <= 1:
        raise BadInput(f"eta={eta} is outside 0..1", fix="choose 0 (DDIM) to 1 (DDPM)")
    if eta == 0:
        return ddim.decode(model, schedule, x, grid, on_step=on_step, clip_x0=clip_x0)
    if noise is None:
        raise BadInput(f"DDIM with eta={eta} needs noise", fix="give noise, or eta 0")
    for index, t, s in _down(schedule, grid):
        eps = _eps(model, schedule, x, t, clip_x0)
        clean = x0_hat(schedule, x, eps, t)
        ab_t, ab_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
        variance = eta**2 * (1 - ab_s) / (1 - ab_t) * (1 - ab_t / ab_s)
        x = math.sqrt(ab_s) * clean + math.sqrt(max(0.0, 1 - ab_s - variance)) * eps
        if s > 0:
            x = x + math.sqrt(variance) * noise(s)
        if on_step:
            on_step(index, s, x, clean)
    return x


def sample_heun(
    model: EpsModel,
    schedule: Schedule,
    x: Tensor,
    grid: Sequence[int],
    *,
    on_step: OnStep | None = None,
    clip_x0: bool = False,
) -> Tensor:
    """Heun's method: the mean of ``eps`` at both ends of a step; a step to t = 0 is Euler's.

    Karras et al. 2022 (2206.00364), algorithm 1. Two network calls a step, second order in sigma.
    """
    for index, t, s in _down(schedule, grid):
        eps = _eps(model, schedule, x, t, clip_x0)
        clean = x0_hat(schedule, x, eps, t) if on_step else x
        if s > 0:
            there = step(schedule, x, eps, t, s)
            eps = (eps + _eps(model, schedule, there, s, clip_x0)) / 2
        x = step(schedule, x, eps, t, s)
        if on_step:
            on_step(index, s, x, clean)
    return x


def sample_dpmpp_2m(
    model: EpsModel,
    schedule: Schedule,
    x: Tensor,
    grid: Sequence[int],
    *,
    on_step: OnStep | None = None,
    clip_x0: bool = False,
) -> Tensor:
    """DPM-Solver++(2M): second order from x0_hat of this step and the one before.

    Lu et al. 2022 (2211.01095), algorithm 2, with their ``lambda = -log sigma``. The first step
    and one to t = 0, where lambda is infinite, are of first order.
    """
    before: tuple[Tensor, float] | None = None
    for index, t, s in _down(schedule, grid):
        eps = _eps(model, schedule, x, t, clip_x0)
        clean = data = x0_hat(schedule, x, eps, t)
        lambda_t = -math.log(sigma(schedule, t))
        if before is not None and s > 0:
            old, lambda_old = before
            ratio = (-math.log(sigma(schedule, s)) - lambda_t) / (lambda_t - lambda_old)
            data = clean + ratio / 2 * (clean - old)
        (a_t, b_t), (a_s, b_s) = schedule.coefficients(t), schedule.coefficients(s)
        x = b_s / b_t * x + (a_s - a_t * b_s / b_t) * data
        before = clean, lambda_t
        if on_step:
            on_step(index, s, x, clean)
    return x


def sample_lms(
    model: EpsModel,
    schedule: Schedule,
    x: Tensor,
    grid: Sequence[int],
    *,
    order: int = 4,
    on_step: OnStep | None = None,
    clip_x0: bool = False,
) -> Tensor:
    """Linear multistep: integrates over sigma the polynomial through the last ``order`` eps.

    Adams and Bashforth's method on uneven steps, as in Crowson's k-diffusion (``sample_lms``).

    Args:
        order: 1 to 4; the first steps have fewer eps to use.

    Raises:
        BadInput: another order, or a grid that does not fit.
    """
    if not 1 <= order <= 4:
        raise BadInput(f"LMS of order {order}", fix="choose an order in 1..4")
    past: list[tuple[Tensor, float]] = []
    for index, t, s in _down(schedule, grid):
        eps = _eps(model, schedule, x, t, clip_x0)
        clean = x0_hat(schedule, x, eps, t) if on_step else x
        past = [(eps, sigma(schedule, t)), *past[: order - 1]]
        weights = lms_coefficients([at for _, at in past], sigma(schedule, s))
        x = _mixed_step(schedule, x, [e for e, _ in past], weights, t, s)
        if on_step:
            on_step(index, s, x, clean)
    return x


def lms_coefficients(sigmas: Sequence[float], to: float) -> list[float]:
    """What each past eps counts: integrals of Lagrange's polynomials from ``sigmas[0]`` to ``to``.

    They are cubic at most, for which Gauss and Legendre's rule with two points is exact.

    Args:
        sigmas: where the eps were taken, the latest first, at most four.
    """
    middle, half = (sigmas[0] + to) / 2, (to - sigmas[0]) / 2
    nodes = (middle - half / math.sqrt(3), middle + half / math.sqrt(3))

    def basis(j: int, at: float) -> float:
        return math.prod(
            (at - other) / (sigmas[j] - other) for k, other in enumerate(sigmas) if k != j
        )

    return [half * sum(basis(j, node) for node in nodes) for j in range(len(sigmas))]


# Adams and Bashforth's coefficients on even steps, the latest eps first.
_PLMS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def sample_pndm(
    model: EpsModel,
    schedule: Schedule,
    x: Tensor,
    grid: Sequence[int],
    *,
    warm_up: bool = False,
    on_step: OnStep | None = None,
    clip_x0: bool = False,
) -> Tensor:
    """PNDM: linear multistep of fourth order on the timesteps.

    Liu et al. 2022 (2202.09778), algorithm 2 and equations (9), (12), (13); their transfer part is
    the DDIM step. It takes steps of equal length for granted.

    Args:
        warm_up: make the first three steps by the paper's pseudo Runge-Kutta method, four network
            calls each. Without (PLMS, as Stable Diffusion has it) the first step is Heun's and the
            next two are of lower order.

    Raises:
        BadInput: a warm-up on fewer than four steps, or steps too short to have a middle; a grid
            that does not fit.
    """
    check_grid(schedule, grid)
    if warm_up and (len(grid) < 5 or any(grid[-i] - grid[-i - 1] < 2 for i in (1, 2, 3))):
        raise BadInput(
            f"PNDM's warm-up takes three steps with timesteps between; grid {tuple(grid)} has not",
            fix="use plms, or 4 steps or more that are at least 2 timesteps long",
        )

    def ask(state: Tensor, t: int) -> Tensor:
        return _eps(model, schedule, state, t, clip_x0)

    past: list[Tensor] = []
    for index, t, s in _down(schedule, grid):
        eps = ask(x, t)
        clean = x0_hat(schedule, x, eps, t) if on_step else x
        past = [eps, *past[:3]]
        if warm_up and index < 3:
            middle = (t + s) // 2
            second = ask(step(schedule, x, eps, t, middle), middle)
            third = ask(step(schedule, x, second, t, middle), middle)
            fourth = ask(step(schedule, x, third, t, s), s)
            eps = (eps + 2 * second + 2 * third + fourth) / 6
        elif index == 0 and len(grid) > 2:
            eps = (eps + ask(step(schedule, x, eps, t, s), s)) / 2
        else:
            weights = _PLMS[len(past) - 1]
            eps = sum((w * e for w, e in zip(weights[1:], past[1:], strict=True)), weights[0] * eps)
        x = step(schedule, x, eps, t, s)
        if on_step:
            on_step(index, s, x, clean)
    return x


def _down(schedule: Schedule, grid: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(index, t, s) of each step down a grid that fits the schedule."""
    check_grid(schedule, grid)
    for index, i in enumerate(reversed(range(len(grid) - 1))):
        yield index, grid[i + 1], grid[i]


def _eps(model: EpsModel, schedule: Schedule, x: Tensor, t: int, clip_x0: bool) -> Tensor:
    eps = predict(model, x, t)
    return clip_eps(schedule, x, eps, t) if clip_x0 else eps


def _mixed_step(
    schedule: Schedule, x: Tensor, past: Sequence[Tensor], weights: Sequence[float], t: int, s: int
) -> Tensor:
    """One step in sigma form by ``sum(weights * past)``, not ``(sigma_s - sigma_t) eps``."""
    a_t, a_s = schedule.coefficients(t)[0], schedule.coefficients(s)[0]
    x = a_s / a_t * x
    for weight, eps in zip(weights, past, strict=True):
        x = x + a_s * weight * eps
    return x
