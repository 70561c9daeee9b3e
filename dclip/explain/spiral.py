"""The data of the explanation: points on three arms of a spiral, in words and in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dclip.diffusion.schedule import Schedule

ARMS = ("red", "green", "blue")
PLACES = ("inner", "outer")
RADII = (0.2, 0.95)
WIDTH = 0.02
TURN = 1.4 * math.pi


@dataclass(frozen=True)
class Spiral:
    """Points with their classes.

    Attributes:
        points: (N, 2), within [-1, 1] as pixels are.
        arm: int64 (N,), index into :data:`ARMS`.
        place: int64 (N,), index into :data:`PLACES`: the half of the arm.
    """

    points: Tensor
    arm: Tensor
    place: Tensor

    def nearest(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """For each of (M, 2): index of the nearest data point, and how far it is."""
        distance, index = torch.cdist(points, self.points).min(dim=1)
        return index, distance

    def share(self, points: Tensor, arm: int | None = None, place: int | None = None) -> float:
        """Share of points (M, 2) on the data, within :data:`ON`, and of that arm and place."""
        index, distance = self.nearest(points)
        hit = distance < ON
        if arm is not None:
            hit &= self.arm[index] == arm
        if place is not None:
            hit &= self.place[index] == place
        return float(hit.float().mean())


ON = 0.08
"""A point nearer to a data point than this is on the spiral; the arms are 0.25 apart and more."""


def spiral(n: int, generator: torch.Generator) -> Spiral:
    """``n`` points, evenly over the arms' length, a third on each arm in turn."""
    arm = torch.arange(n) % len(ARMS)
    u = torch.rand(n, generator=generator)
    radius = RADII[0] + (RADII[1] - RADII[0]) * u
    angle = 2 * math.pi / len(ARMS) * arm + TURN * u
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    points = points + WIDTH * torch.randn(n, 2, generator=generator)
    return Spiral(points, arm, (u > 0.5).long())


def exact_eps(schedule: Schedule, data: Tensor, x: Tensor, t: int) -> Tensor:
    """The noise that the best of all networks would predict at ``x``, for data points alone.

    Noised to t, the data are a mixture of Gaussians around ``sqrt(ab) data_i`` with variance
    ``1 - ab``. So the mean of x0 given x is a softmax-weighted mean of the data, and
    ``eps = (x - sqrt(ab) E[x0 | x]) / sqrt(1 - ab)`` (Karras et al. 2022, 2206.00364, app. B.3).

    Args:
        data: (N, 2).
        x: (M, 2).
        t: in 1..T.
    """
    a, b = schedule.coefficients(t)
    weights = (-torch.cdist(x, a * data).square() / (2 * b**2)).softmax(dim=1)
    return (x - a * (weights @ data)) / b
