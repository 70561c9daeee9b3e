"""The contract of a recipe: an inner loop that yields losses, one for each update to make."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dclip.diffusion.network import EpsModel
from dclip.diffusion.schedule import Schedule

LossAndTerms = tuple[Tensor, dict[str, Tensor]]
"""A loss, and its terms without gradients, for the log."""


@dataclass(frozen=True)
class Problem:
    """What a recipe works on.

    Attributes:
        model: the network being tuned; gradients flow to its trainable differences.
        frozen: the base network.
        schedule: the noise schedule of both.
        grid: decode grid from 0 to r.
        objective: ``(x, reference, draw) -> loss, terms``.
        t_min: at and below this timestep the base decodes, not the tuned model.
    """

    model: EpsModel
    frozen: EpsModel
    schedule: Schedule
    grid: tuple[int, ...]
    objective: Callable[[Tensor, Tensor, Callable[[int], Tensor]], LossAndTerms]
    t_min: int = 0


@dataclass(frozen=True)
class Batch:
    """What one round of a recipe sees.

    Attributes:
        photos: the original pictures (B, 3, H, W) in [-1, 1].
        latents: their inversions at ``grid[-1]``, same shape.
        generator: for all random numbers of the round, keyed by seed and round.
    """

    photos: Tensor
    latents: Tensor
    generator: torch.Generator

    def draw(self, count: int) -> Tensor:
        """``count`` numbers uniform in [0, 1)."""
        return torch.rand(count, generator=self.generator)


class InnerLoop(Protocol):
    """An inner loop: after each loss that it yields, the caller makes one update."""

    def __call__(self, problem: Problem, batch: Batch) -> Iterator[LossAndTerms]:
        """Yield the losses of one round over ``batch``."""
