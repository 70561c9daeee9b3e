"""Exponential moving average of weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EMA:
    """Averages a model's parameters with a decay that warms up.

    The decay at update n is ``min(decay, (1 + n) / (10 + n))`` (as in TensorFlow's
    ExponentialMovingAverage), so that the average of a short run does not stay near its random
    start.

    Args:
        model: the network to follow; its buffers are copied, not averaged.
        decay: the limit of the decay, 0 (no averaging) to below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        state = model.state_dict()
        moving = [name for name, value in state.items() if value.is_floating_point()]
        for name in state.keys() - set(moving):
            self.weights[name].copy_(state[name])
        # One kernel for all: on a GPU starting hundreds of small ones takes longer than their work.
        torch._foreach_lerp_(
            [self.weights[name] for name in moving], [state[name] for name in moving], 1 - decay
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights and the count of updates."""
        return {"updates": torch.tensor(self.updates), **self.weights}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.updates = int(state["updates"])
        for name in self.weights:
            self.weights[name] = state[name].to(self.weights[name].device).clone()
