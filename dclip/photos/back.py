"""Out of a photo into a model's square, and the change of that square back into the photo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dclip.photos.frames import Transform

FEATHER = 0.25
"""Width of the mask's soft rim, as a share of the half side of the square."""

ROUND = 4  # exponent of the mask's superellipse: 2 is an ellipse, large a square
RADIUS, EPS = 1, 0.01  # of the guided filter, in pixels of the square and in squared values
CAST, NO_CAST = 0.06, 0.12  # a shift of the rim's colours up to here is taken out; from here kept
STRIP = 1 << 18  # pixels put back at a time, so that a face of 4000 pixels fits in memory

Array = NDArray[np.unsignedinteger[Any]]
"""Pixels as a photo stores them: uint8 or uint16."""


class Colours(Protocol):
    """What the numbers in a photo mean."""

    def seen(self, pixels: Array) -> NDArray[np.float32]:
        """Pixels (H, W, 3) of the photo as sRGB in [-1, 1]."""

    def changed(self, pixels: Array, change: NDArray[np.float32]) -> Array:
        """The pixels whose sRGB is changed by so much; equal where the change is 0."""


@dataclass(frozen=True)
class Change:
    """What an editor did to one face.

    Attributes:
        transform: from the unit square to the photo.
        before, after: (3, S, S) float32 in [-1, 1], the square as it was and as it is to be.
        sides: None for a face, whose mask is round; else whether the left and right sides, and
            the top and bottom ones, fade: those that lie inside the photo.
    """

    transform: Transform
    before: Tensor
    after: Tensor
    sides: tuple[bool, bool] | None = None


def cut(pixels: Array, transform: Transform, size: int, colours: Colours) -> Tensor:
    """The unit square of a transform out of a photo, without aliasing; (3, size, size) in [-1, 1].

    The photo is reduced by whole factors first, then sampled up to three times as finely as the
    result and averaged. Beyond the photo's edge it is mirrored.

    Args:
        pixels: (H, W, 3), the upright photo.
    """
    coarse = transform.side / size
    factor = max(1, math.floor(coarse / 2))
    left, top, right, bottom = _bounds(transform, pixels.shape[1], pixels.shape[0], 4 * factor)
    x = torch.from_numpy(_reduced(pixels[top:bottom, left:right], factor, colours))
    fine = max(1, math.ceil(coarse / factor))
    line = (torch.arange(size * fine, dtype=torch.float64) + 0.5) / (size * fine)
    v, u = torch.meshgrid(line, line, indexing="ij")
    (a, b, c), (d, e, f) = transform.matrix
    grid = torch.stack(
        [
            (a * u + b * v + c - left) * (2 / (factor * x.shape[2])) - 1,
            (d * u + e * v + f - top) * (2 / (factor * x.shape[1])) - 1,
        ],
        dim=-1,
    )
    sampled = F.grid_sample(
        x[None], grid[None].float(), mode="bicubic", padding_mode="reflection", align_corners=False
    )
    return F.avg_pool2d(sampled, fine)[0].clamp(-1, 1)


def put_back(
    pixels: Array,
    changes: Sequence[Change],
    colours: Colours,
    *,
    beside: Sequence[Transform] = (),
    feather: float = FEATHER,
) -> Array:
    """The photo with the changes of its faces carried over, at its own resolution.

    What is added to the photo is the upsampled difference of the squares, not the small picture.
    Joint upsampling by the guided filter (He, Sun, Tang, "Guided Image Filtering", PAMI 2013;
    "Fast Guided Filter", 1505.00996): in each small window the change is written as
    ``a * photo + rest``; ``a`` and the rest are upsampled, and ``a`` meets the photo's own pixels,
    so that a change follows the photo's edges and scales its detail. A shift of all colours along
    the rim, up to :data:`NO_CAST`, is no edit and is taken out. A pixel whose change is 0 keeps its
    value exactly.

    Args:
        pixels: (H, W, 3), the upright photo; it is not changed.
        changes: of each face. Where squares overlap, a pixel belongs to the face that it is more
            central to.
        beside: squares of faces that are not edited, which keep what is theirs in the same way.
        feather: width of the soft rim, a share of the half side, above 0 to 1.
    """
    result = pixels.copy()
    squares = [change.transform for change in changes]
    for number, change in enumerate(changes):
        if torch.equal(change.before, change.after):
            continue
        others = squares[:number] + squares[number + 1 :] + list(beside)
        maps = _maps(change, feather)
        left, top, right, bottom = _bounds(change.transform, pixels.shape[1], pixels.shape[0], 0)
        rows = max(1, STRIP // max(1, right - left))
        for start in range(top, bottom, rows):
            box = (slice(start, min(bottom, start + rows)), slice(left, right))
            result[box] = _strip(pixels, result, box, change, maps, others, colours, feather)
    return result


def mask_at(transform: Transform, x: NDArray[np.float64], y: NDArray[np.float64],
            feather: float = FEATHER) -> NDArray[np.float64]:  # fmt: skip
    """How much of a square's change reaches points of the photo, 0 to 1; any shape."""
    return _ramp(_central(transform, x, y) / feather)


def _strip(
    pixels: Array, result: Array, box: tuple[slice, slice], change: Change, maps: Tensor,
    others: Sequence[Transform], colours: Colours, feather: float,
) -> Array:  # fmt: skip
    """Some rows of the photo with one face's change added to what is there already."""
    rows, columns = box
    x = np.arange(columns.start, columns.stop)[None, :] + 0.5
    y = np.arange(rows.start, rows.stop)[:, None] + 0.5
    central = _central(change.transform, x, y, change.sides)
    mask = _ramp(central / feather)
    for other in others:
        theirs = np.maximum(_central(other, x, y), 0.0) ** 4
        if theirs.any():
            own = np.maximum(central, 0.0) ** 4
            mask *= own / np.maximum(own + theirs, 1e-30)
    if not mask.any():
        return result[box]
    u, v = _square(change.transform, x, y)
    grid = torch.from_numpy(np.stack([2 * u - 1, 2 * v - 1], axis=-1).astype(np.float32))
    up = F.grid_sample(
        maps[None], grid[None], mode="bicubic", padding_mode="border", align_corners=False
    )[0].numpy()
    gain, rest = np.moveaxis(up[:3], 0, -1), np.moveaxis(up[3:], 0, -1)
    added = mask[..., None].astype(np.float32) * (gain * colours.seen(pixels[box]) + rest)
    return colours.changed(result[box], added)


def _maps(change: Change, feather: float) -> Tensor:
    """Gain and rest (6, S, S): the change is gain * photo + rest, at the square's resolution."""
    before, after = change.before.float().cpu(), change.after.float().cpu()
    difference = after.clamp(-1, 1) - before
    if change.sides is None:
        difference = _without_cast(difference, feather)
    x, d = before[None], difference[None]
    mean_x, mean_d = _box(x), _box(d)
    gain = (_box(x * d) - mean_x * mean_d) / (_box(x * x) - mean_x * mean_x + EPS)
    maps = torch.cat([gain := _box(gain), d - gain * x], dim=1)
    return _reduced_maps(maps, change.transform.side)[0]


def _reduced_maps(maps: Tensor, side: float) -> Tensor:
    """Smaller where the face in the photo is smaller than the square, so that nothing aliases."""
    if side >= maps.shape[-1]:
        return maps
    size = max(1, round(side))
    return F.interpolate(maps, size=(size, size), mode="bilinear", antialias=True)


def _without_cast(difference: Tensor, feather: float) -> Tensor:
    """The difference less the shift of colours that all of the soft rim shares, if it is small."""
    size = difference.shape[-1]
    points = (np.arange(size) + 0.5) / size
    unit = Transform(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)))
    mask = mask_at(unit, points[None, :], points[:, None], feather)
    rim = torch.from_numpy((mask > 0) & (mask < 1))
    if not rim.any():
        return difference
    shift = difference[:, rim].median(dim=1).values
    share = ((NO_CAST - shift.abs().max()) / (NO_CAST - CAST)).clamp(0, 1)
    return difference - (share * shift)[:, None, None]


def _box(x: Tensor) -> Tensor:
    padded = F.pad(x, (RADIUS,) * 4, mode="replicate")
    return F.avg_pool2d(padded, 2 * RADIUS + 1, stride=1)


def _ramp(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3 - 2 * x)


def _square(
    transform: Transform, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    (a, b, c), (d, e, f) = transform.matrix
    det = a * e - b * d
    x, y = x - c, y - f
    return (e * x - b * y) / det, (a * y - d * x) / det


def _central(
    transform: Transform,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    sides: tuple[bool, bool] | None = None,
) -> NDArray[np.float64]:
    """1 in the middle of a square, 0 on its outline, below 0 outside; see :class:`Change`."""
    u, v = _square(transform, x, y)
    u, v = np.abs(2 * u - 1), np.abs(2 * v - 1)
    if sides is None:
        return 1 - (u**ROUND + v**ROUND) ** (1 / ROUND)
    across, down = (
        np.where(a < 1, 1 - fades * a, -1.0) for a, fades in ((u, sides[0]), (v, sides[1]))
    )
    return np.minimum(across, down)


def _bounds(
    transform: Transform, width: int, height: int, margin: int
) -> tuple[int, int, int, int]:
    """The photo's pixels around a square: left, top, right, bottom; at least one of them."""
    corners = transform.corners()
    low, high = np.floor(corners.min(0)) - margin, np.ceil(corners.max(0)) + margin
    left = int(min(max(low[0], 0), width - 1))
    top = int(min(max(low[1], 0), height - 1))
    right = int(min(max(high[0], left + 1), width))
    return left, top, right, int(min(max(high[1], top + 1), height))


def _reduced(pixels: Array, factor: int, colours: Colours) -> NDArray[np.float32]:
    """(3, h, w) float32: means over blocks of factor x factor, the last ones filled by the edge."""
    height, width = pixels.shape[:2]
    down, across = -height % factor, -width % factor
    rows = []
    step = factor * max(1, STRIP // (factor * max(1, width)))
    for start in range(0, height, step):
        part = colours.seen(pixels[start : start + step])
        fill = down if start + step >= height else 0
        part = np.pad(part, ((0, fill), (0, across), (0, 0)), mode="edge")
        blocks = part.reshape(part.shape[0] // factor, factor, part.shape[1] // factor, factor, 3)
        rows.append(blocks.mean(axis=(1, 3), dtype=np.float32))
    return np.ascontiguousarray(np.concatenate(rows).transpose(2, 0, 1))
