"""Locality: the photo is put back where an edit hardly changes it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dclip.errors import BadInput

MOST = 0.4
"""The largest locality: above 1 / RAMP no pixel would keep its whole change."""

RAMP = 2.5  # from RAMP times the locality on the edit is kept whole
WINDOW = 5 / 64  # share of a picture's side that the change is averaged over


def localised(edits: Tensor, photos: Tensor, locality: float, by: Tensor | None = None) -> Tensor:
    """Edits with the photo put back where they hardly differ from it.

    A tuned network changes every pixel a little, such as the backdrop beside the hair that is to be
    blond. Where the change, averaged over a small window, is below ``locality`` times the picture's
    largest, the photo returns; above 2.5 times that the edit is kept; between them they are
    blended. DiffEdit (2210.11427) makes such masks from the predicted noise; ProxEdit (2306.05414)
    cuts off small changes at every step.

    Args:
        edits, photos: (B, 3, H, W) in [-1, 1].
        locality: 0 returns the edits; at most :data:`MOST`.
        by: (B, 1, H, W), or of latents (B, 1, h, w), how much each place is meant to change,
            instead of how much it does.

    Raises:
        BadInput: a locality out of range.
    """
    check_locality(locality)
    if not locality:
        return edits
    change = edits - photos
    side = max(1, round(WINDOW * min(edits.shape[-2:]))) // 2 * 2 + 1
    size = change.abs().amax(1, keepdim=True) if by is None else by
    if size.shape[-2:] != edits.shape[-2:]:
        size = F.interpolate(size, edits.shape[-2:], mode="bilinear", align_corners=False)
    felt = F.avg_pool2d(size, side, stride=1, padding=side // 2, count_include_pad=False)
    strongest = felt.amax((1, 2, 3), keepdim=True)
    share = felt / strongest.clamp_min(torch.finfo(felt.dtype).tiny)
    ramp = ((share - locality) / ((RAMP - 1) * locality)).clamp(0, 1)
    return photos + ramp * ramp * (3 - 2 * ramp) * change


def check_locality(locality: float) -> None:
    """Refuse a locality out of range.

    Raises:
        BadInput: below 0 or above :data:`MOST`.
    """
    if not 0 <= locality <= MOST:
        raise BadInput(
            f"locality {locality:g} is outside 0..{MOST:g}",
            "use e.g. 0.1; 0 leaves edits as they are",
        )
