"""Augmentation for judges: pictures that keep their labels, and pictures of no style."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dclip.colour import luma

Draw = Callable[..., Tensor]
"""Uniform numbers in [0, 1) of the given shape, as ``torch.rand``."""


def augment(x: Tensor, rand: Draw) -> Tensor:
    """Augmented pictures with the same labels.

    Mirror, small rotations, crops and shifts; brightness, contrast and a faint tint; mild noise and
    blur, as edits have them.

    Args:
        x: (B, 3, H, W) in [-1, 1].
        rand: uniform numbers on the CPU.

    Returns:
        the same shape, in [-1, 1].
    """
    n = len(x)
    draws = (2 * rand(11, n) - 1).to(x.device)
    turn, zoom = 0.10 * draws[0], 1 + 0.08 * draws[1]
    mirror = torch.where(draws[2] < 0, -1.0, 1.0)
    cos, sin = zoom * turn.cos(), zoom * turn.sin()
    theta = torch.stack(
        [mirror * cos, -sin, 0.08 * draws[3], mirror * sin, cos, 0.08 * draws[4]], dim=1
    ).view(n, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    # Mirrored beyond the border first: MPS cannot do it while sampling.
    edge = min(x.shape[-2:]) // 4
    sides = grid.new_tensor([x.shape[-1], x.shape[-2]])
    x = F.pad(x, (edge, edge, edge, edge), mode="reflect")
    x = F.grid_sample(x, grid * sides / (sides + 2 * edge), align_corners=False)
    soft = 0.7 * draws[5].clamp_min(0).view(n, 1, 1, 1)
    x = x + soft * (_shrunk(x, 2) - x)
    x = (1 + 0.12 * draws[6]).view(n, 1, 1, 1) * x + (0.1 * draws[7]).view(n, 1, 1, 1)
    x = x + 0.04 * draws[8:11].T.view(n, 3, 1, 1)
    noise = 0.08 * rand(n, 1, 1, 1).to(x.device) ** 2
    return (x + noise * _normal(x.shape, rand).to(x.device)).clamp(-1, 1)


def spoil(x: Tensor, partner: Tensor, rand: Draw) -> Tensor:
    """Pictures damaged so that they belong to no style, each in one random way.

    Args:
        x: (B, 3, H, W) in [-1, 1].
        partner: pictures to blend with, same shape: of another face, or of another style.
        rand: uniform numbers on the CPU.
    """
    ways = (
        _noise, _blotches, _wash, _mixture, _scrambled, _recoloured, _inked, _inverted, _smear,
        _coarse,
    )  # fmt: skip
    chosen = (rand(len(x)) * len(ways)).long().to(x.device)
    out = x.clone()
    for number, way in enumerate(ways):
        rows = (chosen == number).nonzero()[:, 0]
        if len(rows):
            out[rows] = way(x[rows], partner[rows], rand)
    return out.clamp(-1, 1)


def _normal(shape: torch.Size | tuple[int, ...], rand: Draw) -> Tensor:
    """Standard normal numbers from uniform ones (Box and Muller 1958)."""
    u, v = rand(*shape), rand(*shape)
    return torch.sqrt(-2 * torch.log1p(-u)) * torch.cos(2 * np.pi * v)


def _between(low: float, high: float, n: int, like: Tensor, rand: Draw) -> Tensor:
    return (low + (high - low) * rand(n, 1, 1, 1)).to(like.device)


def _shrunk(x: Tensor, factor: int) -> Tensor:
    small = F.avg_pool2d(x, factor)
    return F.interpolate(small, x.shape[-2:], mode="bilinear", align_corners=False)


def _field(n: int, channels: int, x: Tensor, rand: Draw, cells: int) -> Tensor:
    """Smooth random fields (n, channels, H, W) in about [-1, 1]."""
    coarse = 2 * rand(n, channels, cells, cells) - 1
    return F.interpolate(
        coarse.to(x.device), x.shape[-2:], mode="bicubic", align_corners=False
    ).clamp(-1, 1)


def _noise(x: Tensor, partner: Tensor, rand: Draw) -> Tensor:
    return x + _between(0.4, 1.2, len(x), x, rand) * _normal(x.shape, rand).to(x.device)


def _blotches(x: Tensor, partner: Tensor, rand: Draw) -> Tensor:
    cells = 3 + int(rand(1) * 8)
    colours = _field(len(x), 3, x, rand, cells)
    return x + _between(0.35, 1.0, len(x), x, rand) * (colours - x * (rand(1).to(x.device) < 0.5))


def _wash(x: Tensor, partner: Tensor, rand: Draw) -> Tensor:
    colour = (2 * rand(len(x), 3, 1, 1) - 1).to(x.device)
    return x + _between(0.35, 0.8, len(x), x, rand) * (colour - x)


def _mixture(x: Tensor, partner: Tensor, rand: Draw) -> Tensor:
    return x + _between(0.35, 0.6, len(x), x, rand) * (partner - x)


def _scrambled(x: Tensor, partner: Tensor, rand: Draw) -> Tensor:
    """Tiles of a half, a quarter or an eighth of the side, in another order."""
    n, _, height, width = x.shape
    count = (2, 4, 8)[int(rand(1) * 3)]
    h, w = height // count, width // count
    tiles = x[..., : h * count, : w * count].reshape(n, 3, count, h, count, w)
    order = rand(n, count * count).argsort(1).to(x.device)
    flat = tiles.permute(0, 2, 4, 1, 3, 5).reshape(n, count * count, 3, h, w)
    flat = torch.gather(flat, 1, order.view(n, -1, 1, 1, 1).expand_as(flat))
    mixed = flat.reshape(n, count, count, 3, h, w).permute(0, 3, 1, 4, 2, 5)
    out = x.clone()
    out[..., : h * count, : w * count] = mixed.reshape(n, 3, h * count, w * count)
    return out


def _recoloured(x: Tensor, partner: Tensor, rand: Draw) -> Tensor:
    """Hues turned by 60 to 300 degrees about the grey axis, at a higher saturation."""
    angle = (np.pi / 3 + 4 * np.pi / 3 * rand(len(x), 1, 1, 1)).to(x.device)
    mean = x.mean(1, keepdim=True)
    colour = x - mean
    # Rodrigues' formula about the unit grey axis.
    r, g, b = colour.unbind(1)
    across = torch.stack([b - g, r - b, g - r], dim=1) / 3**0.5
    turned = angle.cos() * colour + angle.sin() * across
    # Grey pictures have no hue to turn: they get a tint instead.
    grey = (colour.abs().mean((1, 2, 3), keepdim=True) < 0.02).float()
    cast = (2 * rand(len(x), 3, 1, 1) - 1).to(x.device)
    cast = 0.35 * (cast - cast.mean(1, keepdim=True)).sign()
    return mean + _between(1.0, 1.6, len(x), x, rand) * turned + grey * cast


def _inked(x: Tensor, partner: Tensor, rand: Draw) -> Tensor:
    """Brightness mapped from one colour to another: coloured ink, or coloured paper."""
    ink, paper = (2 * rand(2, len(x), 3, 1, 1) - 1).to(x.device)
    # One channel is pulled to an end, so that the colour can be seen.
    end = torch.eye(3, device=x.device)[(rand(len(x)) * 3).long().to(x.device)].view(-1, 3, 1, 1)
    coloured_ink = (rand(len(x), 1, 1, 1) < 0.7).to(x.device)
    dark = torch.where(coloured_ink, 0.5 * ink - 0.3 + 0.7 * end, -torch.ones_like(ink))
    light = torch.where(coloured_ink, torch.ones_like(paper), 0.9 - (0.5 + 0.5 * paper) * end)
    return dark + (luma(x) + 1) / 2 * (light - dark)


def _inverted(x: Tensor, partner: Tensor, rand: Draw) -> Tensor:
    return -x


def _smear(x: Tensor, partner: Tensor, rand: Draw) -> Tensor:
    """A soft patch over the face of one colour, of noise or of blur."""
    n, _, height, width = x.shape
    y = torch.linspace(-1, 1, height, device=x.device).view(1, 1, -1, 1)
    z = torch.linspace(-1, 1, width, device=x.device).view(1, 1, 1, -1)
    cy, cz = (1.2 * rand(2, n, 1, 1, 1) - 0.6).to(x.device)
    ry, rz = (0.15 + 0.35 * rand(2, n, 1, 1, 1)).to(x.device)
    distance = ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2
    mask = _between(0.7, 1.0, n, x, rand) * torch.exp(-0.5 * distance**2)
    colour = (2 * rand(n, 3, 1, 1) - 1).to(x.device).expand_as(x)
    noisy = _field(n, 3, x, rand, 12)
    blurred = _shrunk(x, max(2, height // 5))
    which = rand(n, 1, 1, 1).to(x.device)
    patch = torch.where(which < 0.4, colour, torch.where(which < 0.7, noisy, blurred))
    return x + mask * (patch - x)


def _coarse(x: Tensor, partner: Tensor, rand: Draw) -> Tensor:
    """An eighth of the resolution or less, smooth or in squares."""
    factor = x.shape[-1] // (8, 5, 3)[int(rand(1) * 3)]
    if rand(1) < 0.5:
        return _shrunk(x, factor)
    return F.interpolate(F.avg_pool2d(x, factor), x.shape[-2:], mode="nearest")


def units(
    pairs: list[str], index: NDArray[np.int64], order: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Sample numbers two by two, (n, 2): pictures of one pair together, the others in order.

    Args:
        pairs: the pair's name of every sample; empty where it is in none.
        index: the samples to use.
        order: a shuffle of ``range(len(index))``, which decides the other twos.
    """
    groups: dict[str, list[int]] = {}
    single: list[int] = []
    for i in map(int, index[order]):
        (groups.setdefault(pairs[i], []) if pairs[i] else single).append(i)
    whole = [group for group in groups.values() if len(group) == 2]
    single += [i for group in groups.values() if len(group) != 2 for i in group]
    whole += [list(two) for two in pairwise(single)][::2]
    return np.array(whole, dtype=np.int64).reshape(-1, 2)
