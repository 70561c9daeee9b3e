"""The contract of noise-prediction networks, and the one place that calls them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from dclip.configs.common import Precision
from dclip.device import autocast

EpsModel = Callable[[Tensor, Tensor], Tensor]
"""``eps = model(x, t)``: ``x`` (B,C,H,W), ``t`` int64 (B,) in 1..T, ``eps`` like ``x``."""

OnStep = Callable[[int, int, Tensor, Tensor], None]
"""``on_step(index, t, x, x0_hat)`` after step ``index`` (0, 1, ...) has reached timestep ``t``.

``x`` is the state at ``t`` and ``x0_hat`` the clean estimate that the step was made with.
"""


class ByTimestep(ABC):
    """A noise predictor that is another network at other timesteps.

    :func:`predict` asks it with an int: to read a timestep from a tensor waits for the device.
    """

    @abstractmethod
    def at(self, t: int) -> EpsModel:
        """The network at timestep ``t``."""

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """As :data:`EpsModel`, where all samples share one timestep."""
        return self.at(int(t[0]))(x, t)


def network_at(model: EpsModel, t: int) -> EpsModel:
    """The network that predicts at timestep ``t``."""
    return model.at(t) if isinstance(model, ByTimestep) else model


class InPrecision(ByTimestep):
    """A noise predictor whose network computes in a precision, for inference.

    Args:
        model: what predicts.
        device: where.
        precision: ``"fp32"``, or ``"bf16"`` by autocast. The state stays as it is.
    """

    def __init__(self, model: EpsModel, device: torch.device, precision: Precision) -> None:
        self.model, self.device, self.precision = model, device, precision

    def at(self, t: int) -> EpsModel:
        """The network at timestep ``t``."""
        network = network_at(self.model, t)

        def eps(x: Tensor, timesteps: Tensor) -> Tensor:
            with autocast(self.device, self.precision):
                return network(x, timesteps)

        return eps


def predict(model: EpsModel, x: Tensor, t: int) -> Tensor:
    """The network's noise for a batch that stands at one timestep ``t``, in the dtype of ``x``.

    The state stays in full precision while the network computes in bf16, so an inversion and its
    decode round in the same way.
    """
    timesteps = torch.full((x.shape[0],), t, dtype=torch.int64, device=x.device)
    return network_at(model, t)(x, timesteps).to(x.dtype)
