"""How near pictures are to their references, and how well scores tell two kinds apart."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PSNR_LIMIT = 100.0
"""Above it float32 pictures differ by rounding alone, which depends on the device: without the
limit equal work would have other ids."""


def psnr(x: Tensor, reference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each picture, (B,): both (B,3,H,W) in [-1, 1], so peak 2.

    At most :data:`PSNR_LIMIT`.
    """
    mse = (x - reference).square().flatten(1).mean(1)
    return (10 * torch.log10(4 / mse.clamp(min=1e-30))).clamp(max=PSNR_LIMIT)


def mae(x: Tensor, reference: Tensor) -> Tensor:
    """Mean absolute error of each picture, (B,), in units where black to white is 1."""
    return (x - reference).abs().flatten(1).mean(1) / 2


def auc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve (Mann and Whitney 1947); NaN where one side is empty."""
    values, place = np.unique(scores, return_inverse=True)
    counts = np.bincount(place, minlength=len(values))
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]
    yes, no = int(positive.sum()), int((~positive).sum())
    if not yes or not no:
        return float("nan")
    return float((rank[positive].sum() - yes * (yes + 1) / 2) / (yes * no))
