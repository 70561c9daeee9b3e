"""A clamp to pixels that gradients can leave."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def in_range(x0: Tensor) -> Tensor:
    """``x0`` clipped to pixels, [-1, 1], with the gradient that leads back into the range.

    A plain clamp has none outside: what a first update bleached to paper stayed paper, whatever the
    losses said.
    """
    clipped: Tensor = _Clipped.apply(x0)
    return clipped


class _Clipped(torch.autograd.Function):
    """A clamp to [-1, 1] that holds back only the gradients that lead further out."""

    @staticmethod
    def forward(ctx: Any, x0: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x0)
        return x0.clamp(-1, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (x0,) = ctx.saved_tensors
        beyond = x0 - x0.clamp(-1, 1)
        # Descent moves x0 against the gradient: of one sign they lead it back.
        kept: Tensor = grad * (grad * beyond >= 0)
        return kept
