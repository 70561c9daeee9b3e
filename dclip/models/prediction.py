"""Adapters of networks that predict something other than eps."""

from __future__ import annotations

from torch import Tensor, nn

from dclip.diffusion.conditioning import Condition
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

    def forward(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        a, b = self.schedule.gather(t, x)
        eps: Tensor = b * x + a * _asked(self.network, x, t, condition)
        return eps

    def with_variance(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """As :func:`dclip.diffusion.variance.LearnsVariance.with_variance`."""
        a, b = self.schedule.gather(t, x)
        out, v = _with_variance(self.network, x, t)
        return b * x + a * out, v


class FromClean(nn.Module):
    """``eps = model(x, t)`` from a network that predicts the clean picture x0.

    With ``x_t = a x0 + b eps``: ``eps = (x_t - a x0) / b`` (Ho et al. 2020, 2006.11239, eq. 4).
    """

    def __init__(self, network: nn.Module, schedule: Schedule) -> None:
        super().__init__()
        self.network = network
        self.schedule = schedule

    def forward(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        a, b = self.schedule.gather(t, x)
        eps: Tensor = (x - a * _asked(self.network, x, t, condition)) / b
        return eps

    def with_variance(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """As :func:`dclip.diffusion.variance.LearnsVariance.with_variance`."""
        a, b = self.schedule.gather(t, x)
        out, v = _with_variance(self.network, x, t)
        return (x - a * out) / b, v


ADAPTERS: dict[str, type[nn.Module] | None] = {"eps": None, "v": FromVelocity, "x0": FromClean}
"""What a bare network may put out, and what makes eps of it."""


def bare(model: nn.Module) -> nn.Module:
    """The network itself, out of what turned its prediction into eps."""
    return model.network if isinstance(model, FromVelocity | FromClean) else model


def _asked(network: nn.Module, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
    """What a network puts out; only one that reads text is given a condition."""
    out: Tensor = network(x, t) if condition is None else network(x, t, condition)
    return out


def _with_variance(network: nn.Module, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    out, v = network.with_variance(x, t)  # type: ignore[operator]
    return out, v
