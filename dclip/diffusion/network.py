"""The one contract that every noise-prediction network keeps, and the one place that calls it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

EpsModel = Callable[[Tensor, Tensor], Tensor]
"""``eps = model(x, t)``: ``x`` (B,C,H,W), ``t`` int64 (B,) in 1..T, ``eps`` like ``x``."""

OnStep = Callable[[int, int, Tensor, Tensor], None]
"""``on_step(index, t, x, x0_hat)`` after step ``index`` (0, 1, ...) has reached label ``t``.

``x`` is the state at ``t`` and ``x0_hat`` the clean estimate that the step was made with.
"""


def predict(model: EpsModel, x: Tensor, t: int) -> Tensor:
    """The network's noise for a batch that stands at one label ``t``, in the dtype of ``x``.

    The cast matters under autocast: the state stays in full precision while the network works in
    half, so an inversion and its decode round the same way.
    """
    labels = torch.full((x.shape[0],), t, dtype=torch.int64, device=x.device)
    return model(x, labels).to(x.dtype)
