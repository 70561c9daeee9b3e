"""Adapters of networks that predict something other than eps."""

from __future__ import annotations

from torch import Tensor, nn

from dclip.diffusion.schedule import Schedule


class FromVelocity(nn.Module):
    """``eps = model(x, t)`` from a network that predicts v (Salimans & Ho 2022, 2202.00512).

    With ``x_t = a x0 + b eps`` and ``v = a eps - b x0``: ``eps = b x_t + a v``. Near pure noise
    ``a`` is close to 0, and ``x0_hat`` divides the error of eps by it; the error of v is not
    amplified.
    """

    def __init__(self, network: nn.Module, schedule: Schedule) -> None:
        super().__init__()
        self.network = network
        self.schedule = schedule

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        a, b = self.schedule.gather(t, x)
        eps: Tensor = b * x + a * self.network(x, t)
        return eps
