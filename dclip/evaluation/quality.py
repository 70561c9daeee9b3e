"""Distances of pictures to their references: MAE, PSNR, SSIM, LPIPS."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dclip.metrics import mae, psnr
from dclip.models import perceptual

BATCH = 16
WINDOW = 11  # of SSIM


@torch.no_grad()
def picture_quality(x: Tensor, reference: Tensor, *, lpips: bool = False) -> dict[str, float]:
    """Means over pictures (N, 3, H, W) in [-1, 1]; what lies outside is clipped.

    Args:
        x: the pictures.
        reference: their references.
        lpips: also LPIPS (Zhang et al. 2018), with AlexNet as the paper's own code.

    Returns:
        ``mae`` of values in [0, 1], ``psnr`` in dB of each picture, at most 100, ``ssim``
        (Wang et al. 2004; window 11, sigma 1.5) and, if asked for, ``lpips``.
    """
    x, reference = x.float().clamp(-1, 1).cpu(), reference.float().cpu()
    found = {
        "mae": float(mae(x, reference).mean()),
        "psnr": float(psnr(x, reference).mean()),
        "ssim": float(ssim(x, reference)),
    }
    if lpips:
        found["lpips"] = lpips_of(x, reference)
    return found


def ssim(x: Tensor, reference: Tensor) -> Tensor:
    """Mean SSIM (Wang et al. 2004; window 11, sigma 1.5) of pictures (N, 3, H, W) in [-1, 1]."""
    mean: Tensor = _ssim(x, reference, data_range=2.0, kernel_size=WINDOW)
    return mean


def ssim_map(x: Tensor, reference: Tensor) -> Tensor:
    """SSIM around each value, of the shape of ``x`` (N, 3, H, W); pictures in [-1, 1]."""
    alike: Any = _ssim(
        x, reference, data_range=2.0, kernel_size=WINDOW, reduction="none", return_full_image=True
    )
    full: Tensor = alike[1]
    return full


def _ssim(*pictures: Tensor, **more: Any) -> Any:
    from torchmetrics.functional.image import structural_similarity_index_measure

    return structural_similarity_index_measure(*pictures, **more)


@torch.no_grad()
def lpips_of(x: Tensor, reference: Tensor) -> float:
    """Mean LPIPS (Zhang et al. 2018) of pictures (N, 3, H, W) in [-1, 1]; its weights are there."""
    pairs = zip(torch.split(x, BATCH), torch.split(reference, BATCH), strict=True)
    return float(torch.cat([perceptual.lpips(part, wanted) for part, wanted in pairs]).mean())
