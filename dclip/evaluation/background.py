"""What an edit leaves alone: PSNR, SSIM and LPIPS outside the face, or outside the drawn edit."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dclip.data import faces
from dclip.evaluation.quality import lpips_of, ssim_map
from dclip.metrics import PSNR_LIMIT
from dclip.photos.frames import Frame

HEAD = (1.35, 1.95)
"""Half width and half height of a head with hair, in distances between the eyes."""

Mask = NDArray[np.bool_]


def outside_face(frame: Frame, size: int) -> Mask | None:
    """Which pixels (size, size) of a frame's square lie outside the mean head.

    The head is an upright ellipse around the middle of the eyes, with half axes :data:`HEAD`. Long
    hair and shoulders lie outside it.

    Returns:
        None for a frame without faces.
    """
    if not frame.needs_faces:
        return None
    points = frame.points()
    eyes = (points[0] + points[1]) / 2
    distance = float(np.hypot(*(points[1] - points[0])))
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    across, down = (x - eyes[0]) / (HEAD[0] * distance), (y - eyes[1]) / (HEAD[1] * distance)
    outside: Mask = across**2 + down**2 > 1
    return outside


def outside_faces(target: str | None, frame: Frame, pictures: Tensor) -> Mask | None:
    """:func:`outside_face` for each of the pictures (N, 3, H, W).

    Args:
        target: the edit's name; of a style, which is to change everything, None is returned.
    """
    if target in faces.TARGETS and faces.TARGETS[str(target)].kind == "style":
        return None
    one = outside_face(frame, pictures.shape[-1])
    return None if one is None else np.repeat(one[None], len(pictures), 0)


@torch.no_grad()
def kept(
    edits: Tensor, originals: Tensor, outside: Mask, *, lpips: bool = False
) -> dict[str, float | None]:
    """How well edits (N, 3, H, W) keep the originals outside a region; both in [-1, 1].

    Inside the region the original is laid over the edit first, so that the windows of SSIM and the
    receptive fields of LPIPS see the change of the background alone.

    Args:
        outside: (N, H, W); pictures of which it takes nothing are not counted.
        lpips: also LPIPS (see :mod:`dclip.evaluation.quality`).

    Returns:
        ``kept_psnr`` in dB over the pixels outside, at most 100; ``kept_ssim``, the mean of SSIM's
        map over them; and, if asked for, ``kept_lpips`` of the whole pictures. None where no
        picture counts.
    """
    counted = torch.from_numpy(outside.any((1, 2)))
    names = ("kept_psnr", "kept_ssim", *(["kept_lpips"] if lpips else []))
    if not bool(counted.any()):
        return dict.fromkeys(names)
    mask = torch.from_numpy(outside)[counted]
    reference = originals.float().cpu()[counted]
    seen = torch.where(mask[:, None], edits.float().cpu()[counted], reference).clamp(-1, 1)
    share = mask.flatten(1).float().mean(1)
    mse = (seen - reference).square().flatten(1).mean(1) / share
    decibels = (10 * torch.log10(4 / mse.clamp(min=1e-30))).clamp(max=PSNR_LIMIT)
    alike = (ssim_map(seen, reference).mean(1) * mask).flatten(1).mean(1) / share
    found: dict[str, float | None] = {
        "kept_psnr": float(decibels.mean()),
        "kept_ssim": float(alike.mean()),
    }
    if lpips:
        found["kept_lpips"] = lpips_of(seen, reference)
    return found
