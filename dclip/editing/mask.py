"""Where an edit acts: what it hardly changes is the photo's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dclip.errors import BadInput

MOST = 0.4
"""The largest locality: beyond it nothing would be changed in full."""

RAMP = 2.5  # the change is whole from so many localities on
WINDOW = 5 / 64  # of a picture's side: over so much the change is felt


def localised(edits: Tensor, photos: Tensor, locality: float) -> Tensor:
    """Edits with the photo put back where they hardly differ from it.

    A tuned network changes a little of everything: a veil over the backdrop beside the hair that
    is to be blond. Where the change, a mean over a small window, stays below ``locality`` of the
    picture's largest, the photo returns; from 2.5 times that on the edit is as it was; between them
    it fades. Masks from an edit's own size are DiffEdit's (2210.11427), on the predicted noise;
    small changes are cut off at every step by ProxEdit (2306.05414). On the picture it costs
    nothing, and it holds for any strength, since it is relative.

    Args:
        edits, photos: (B, 3, H, W) in [-1, 1].
        locality: 0 returns the edits; at most :data:`MOST`.

    Raises:
        BadInput: a locality out of range.
    """
    check_locality(locality)
    if not locality:
        return edits
    change = edits - photos
    side = max(1, round(WINDOW * min(edits.shape[-2:]))) // 2 * 2 + 1
    size = change.abs().amax(1, keepdim=True)
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
