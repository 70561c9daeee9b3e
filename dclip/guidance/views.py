"""What a CLIP sees of a picture: random crops, and blur."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


def resized(x: Tensor, size: Sequence[int], mode: str) -> Tensor:
    """Pictures (B, C, H, W) at another size, with antialiasing, differentiably.

    On MPS, which has no gradient of antialiased resizing, by two products with the same weights.

    Args:
        size: (height, width).
        mode: ``"bicubic"`` or ``"bilinear"``.
    """
    if x.device.type != "mps":
        return F.interpolate(x, list(size), mode=mode, align_corners=False, antialias=True)
    return by_products(x, size, mode)


def by_products(x: Tensor, size: Sequence[int], mode: str) -> Tensor:
    """As :func:`resized`: one matrix for the rows, one for the columns."""
    rows, columns = (
        _weights(own, new, mode).to(x) for own, new in zip(x.shape[-2:], size, strict=True)
    )
    return rows @ x @ columns.T


@cache
def _weights(own: int, new: int, mode: str) -> Tensor:
    """What each of ``own`` pixels counts in each of ``new`` ones, (new, own)."""
    # Of the identity, resized in height alone, column k is what becomes of row k.
    identity = torch.eye(own)[None, None]
    spread = F.interpolate(identity, [new, own], mode=mode, align_corners=False, antialias=True)
    return spread[0, 0]


def blur(x: Tensor, amount: Tensor) -> Tensor:
    """Blurred pictures. Estimates of x0 at a noisy timestep have no fine detail either.

    Args:
        x: (B, 3, H, W), sides divisible by 4.
        amount: (B,): 0 leaves a picture, 1 shows it at half its resolution, 2 at a quarter.
    """
    half = F.interpolate(F.avg_pool2d(x, 2), x.shape[-2:], mode="bilinear")
    quarter = F.interpolate(F.avg_pool2d(x, 4), x.shape[-2:], mode="bilinear")
    first = amount.clamp(0, 1).view(-1, 1, 1, 1)
    second = (amount - 1).clamp(0, 1).view(-1, 1, 1, 1)
    return x + first * (half - x) + second * (quarter - half)


def augment(
    x: Tensor, draw: Callable[[int], Tensor], groups: Tensor | None = None, *, colour: float = 0.1
) -> Tensor:
    """Random crops, shifts of brightness and contrast and mixing of colours, differentiably.

    Rows of one group get the same crop and colours, so that they differ by the edit alone.

    Args:
        x: (B, 3, H, W) in [-1, 1].
        draw: gives n numbers uniform in [0, 1); called once with what is needed.
        groups: (B,) int64 group of each row; None makes each row its own.
        colour: strength of the colour changes.
    """
    b, _, h, w = x.shape
    groups = torch.arange(b) if groups is None else groups.cpu()
    count = int(groups.max()) + 1
    u = draw(count * 15).view(count, 15)[groups].to(x)
    side = 0.8 + 0.2 * u[:, 0]
    shift = (u[:, 1:3] * 2 - 1) * (1 - side)[:, None]
    theta = torch.zeros(b, 2, 3, device=x.device, dtype=x.dtype)
    theta[:, 0, 0] = theta[:, 1, 1] = side
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, [b, 3, h, w], align_corners=False)
    # The crops lie inside the picture, where all paddings agree; MPS lacks "reflection".
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    mix = torch.eye(3, device=x.device, dtype=x.dtype) + colour * (u[:, 3:12] * 2 - 1).view(b, 3, 3)
    x = torch.einsum("bij,bjhw->bihw", mix, x)
    gain = 1 + 2 * colour * (u[:, 12] * 2 - 1)
    offset = 2 * colour * (u[:, 13] * 2 - 1)
    return (x * gain.view(-1, 1, 1, 1) + offset.view(-1, 1, 1, 1)).clamp(-1, 1)
