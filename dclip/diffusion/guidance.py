"""The guided step: any differentiable loss on x0_hat steers any sampler.

A guided model draws from ``p(x0) exp(-scale * N * loss(x0))`` instead of ``p(x0)``, as far as the
loss at x0_hat stands for the loss at x0; ``N`` is the number of values of a picture. That density
has the score ``grad log p_t(x_t) - scale * N * grad loss``, with the gradient by ``x_t``, and since
``eps = -sqrt(1 - alpha_bar_t) * score`` the network's noise becomes

    eps + sqrt(1 - alpha_bar_t) * scale * N * grad loss.

Dhariwal & Nichol 2021 (ADM, 2105.05233), algorithm 2, with the loss at x0_hat as in Chung et al.
2023 (DPS, 2209.14687). So a guided model is a model: every sampler and every decode
takes it, and more steps come closer to one result instead of guiding more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from dclip.diffusion.ddim import x0_hat
from dclip.diffusion.network import EpsModel
from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput

Loss = Callable[[Tensor, Tensor], Tensor]
"""``loss(x0, t)``: clean pictures (B,C,H,W) and their timesteps int64 (B,) to one value each (B,).

Lower is better. A mean over pixels, or anything else that does not grow with the resolution.
"""

Through = Literal["network", "x0"]

DATA_STD = 0.5
"""Standard deviation of pixels in [-1, 1], about that of photos."""


@dataclass(frozen=True)
class Guided:
    """A noise predictor that a loss steers: ``eps = model(x, t)`` as any other.

    The strength of ``scale`` does not depend on what else is in the batch (each picture has its own
    loss), on the resolution (``N`` undoes the mean over pixels) or on the number of steps (what is
    shifted is eps, which each step weighs by its length).

    Attributes:
        model, schedule: what is steered.
        loss: see :data:`Loss`. It is asked at estimates that may lie beyond [-1, 1]; one that looks
            at clamped pixels has no gradient there (:func:`dclip.guidance.clamp.in_range` has).
        scale: what the loss counts in log probability, for each value of a picture; or a function
            of t. 0 is the model itself. For Gaussian data and a quadratic loss of curvature c the
            exact posterior takes ``scale / (1 + scale * c * posterior_variance(schedule, t, s))``
            (as Song et al. 2023, "Pseudoinverse-Guided Diffusion Models for Inverse Problems").
        window: (lowest, highest) timestep at which it steers, both included; None is all.
        inner_steps: parts in which the shift is made; the loss is asked anew after each, so that
            a strong one does not overshoot.
        through: ``"network"`` takes the gradient through the network, which costs its backward
            pass. ``"x0"`` replaces the network's Jacobian by that of the best denoiser for
            Gaussian data, ``sqrt(ab) * posterior_variance / (1 - ab)`` times the identity.
        data_std: the standard deviation of that Gaussian data.

    Raises:
        BadInput: settings out of range; while called, a loss that is not a finite number for
            each picture.
    """

    model: EpsModel
    schedule: Schedule
    loss: Loss
    scale: float | Callable[[int], float] = 1.0
    window: tuple[int, int] | None = None
    inner_steps: int = 1
    through: Through = "x0"
    data_std: float = DATA_STD

    def __post_init__(self) -> None:
        if not callable(self.scale) and not math.isfinite(self.scale):
            raise BadInput(f"guidance scale {self.scale} is no number", "use e.g. 1")
        if self.inner_steps < 1:
            raise BadInput(f"{self.inner_steps} inner steps", "take 1 or more")
        if self.through not in get_args(Through):
            raise BadInput(
                f"gradient through {self.through!r}", f"use {' or '.join(get_args(Through))}"
            )
        if not (self.data_std > 0 and math.isfinite(self.data_std)):
            raise BadInput(f"data_std={self.data_std}", "use a number above 0, e.g. 0.5")
        low, high = self.window or (1, self.schedule.T)
        if not 1 <= low <= high <= self.schedule.T:
            raise BadInput(
                f"guidance window {low}..{high} is not within 1..{self.schedule.T}",
                f"choose 1 <= lowest <= highest <= {self.schedule.T}",
            )

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """eps of states (B,...) at timesteps (B,); it carries no gradient."""
        scales = self._scales(t)
        if not any(scales):
            with torch.no_grad():
                return self.model(x, t)
        weight = x.new_tensor(scales).view(-1, *[1] * (x.dim() - 1)) * x[0].numel()
        a, b = self.schedule.gather(t, x)
        with torch.enable_grad():
            state = x.detach().requires_grad_(self.through == "network")
            with torch.set_grad_enabled(self.through == "network"):
                raw = self.model(state, t)
                eps = raw.to(x.dtype)
                clean = x0_hat(self.schedule, state, eps, t)
            shift = torch.zeros_like(x)
            for part in range(self.inner_steps):
                at = (clean.detach() - b / a * shift).requires_grad_()
                by_x0 = self._gradient(at, t)
                if self.through == "network":
                    last = part == self.inner_steps - 1
                    (by_x,) = torch.autograd.grad(clean, state, by_x0, retain_graph=not last)
                else:
                    by_x = jacobian(self.schedule, t, x, self.data_std) * by_x0
                shift = shift + b * (weight / self.inner_steps) * by_x
        # In the network's own dtype, as the bare model answers.
        return (eps.detach() + shift).to(raw.dtype)

    def _scales(self, t: Tensor) -> list[float]:
        low, high = self.window or (1, self.schedule.T)

        def at(timestep: int) -> float:
            if not low <= timestep <= high:
                return 0.0
            return self.scale(timestep) if callable(self.scale) else self.scale

        return [at(timestep) for timestep in t.tolist()]

    def _gradient(self, x0: Tensor, t: Tensor) -> Tensor:
        """The loss's gradient by its pictures, each by its own."""
        if not bool(torch.isfinite(x0).all()):
            raise BadInput(
                f"the guided picture is not finite at t={_timestep(t, x0)}",
                "lower the guidance scale, take more inner steps, or compute in float32",
            )
        losses = self.loss(x0, t)
        if losses.shape != (len(x0),):
            raise BadInput(
                f"the guidance loss gave {tuple(losses.shape)} for {len(x0)} pictures",
                f"give one value a picture, shape ({len(x0)},)",
            )
        if not bool(torch.isfinite(losses).all()):
            raise BadInput(
                f"the guidance loss is {_first_bad(losses)} at t={_timestep(t, losses)}",
                "lower the guidance scale, or compute in float32",
            )
        if not losses.requires_grad:
            raise BadInput(
                "the guidance loss has no gradient by the picture",
                "compute it from the picture by differentiable functions, without no_grad",
            )
        (gradient,) = torch.autograd.grad(losses.sum(), x0)
        if not bool(torch.isfinite(gradient).all()):
            raise BadInput(
                f"the guidance loss's gradient is not finite at t={_timestep(t, gradient)}",
                "smooth the loss where it has a kink or a pole, or compute in float32",
            )
        return gradient


def posterior_variance(schedule: Schedule, t: int, data_std: float = DATA_STD) -> float:
    """Variance of x0 given x_t for Gaussian data: ``s^2 b^2 / (a^2 s^2 + b^2)``, t in 1..T.

    With ``through="x0"`` guidance moves x0_hat by ``-scale * N * posterior_variance * gradient``.
    """
    a, b = schedule.coefficients(t)
    return (data_std * b) ** 2 / ((a * data_std) ** 2 + b**2)


def jacobian(schedule: Schedule, t: Tensor, like: Tensor, data_std: float = DATA_STD) -> Tensor:
    """d x0_hat / d x_t of the best denoiser for Gaussian data, a factor a sample (B,1,1,1).

    ``sqrt(ab) s^2 / (ab s^2 + 1 - ab)``: near noise it is small, where 1 / sqrt(ab), the factor for
    an eps that is held fixed, is large and means nothing.
    """
    a, b = schedule.gather(t, like)
    return a * data_std**2 / ((a * data_std) ** 2 + b**2)


def eps_shift(schedule: Schedule, gradient: Tensor, t: int) -> Tensor:
    """What a loss's gradient by ``x_t`` adds to eps: ``sqrt(1 - ab_t) * gradient``.

    ADM (2105.05233), algorithm 2, for ``gradient = -grad log p(y | x_t)``.
    """
    return schedule.coefficients(t)[1] * gradient


def mean_shift(schedule: Schedule, gradient: Tensor, t: int, s: int) -> Tensor:
    """What it adds to the mean of an ancestral step from t to s: ``-(1 - alpha) / sqrt(alpha)``.

    ADM's algorithm 1 adds ``-variance * gradient``. With the large variance ``1 - alpha``, and
    ``alpha = ab_t / ab_s`` near 1 as in short steps, that is the same.
    """
    alpha = float(schedule.alpha_bar[t]) / float(schedule.alpha_bar[s])
    return -(1 - alpha) / math.sqrt(alpha) * gradient


def x0_shift(schedule: Schedule, gradient: Tensor, t: int) -> Tensor:
    """What it adds to x0_hat: ``-(1 - ab_t) / sqrt(ab_t) * gradient``.

    In sigma form, with the gradient by ``x0 + sigma eps``, it is ``-sigma^2 * gradient``
    (k-diffusion's ``cond_fn``; Crowson's CLIP guidance).
    """
    a, b = schedule.coefficients(t)
    return -(b**2) / a * gradient


def _timestep(t: Tensor, values: Tensor) -> int:
    """The timestep of the first picture whose values are not finite."""
    bad = ~torch.isfinite(values.flatten(1) if values.dim() > 1 else values[:, None]).all(1)
    return int(t[bad][0])


def _first_bad(losses: Tensor) -> str:
    return str(float(losses[~torch.isfinite(losses)][0]))
