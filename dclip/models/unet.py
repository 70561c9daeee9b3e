"""UNet: our noise-prediction network, in sizes from a laptop to 256x256.

A residual U-Net after Ho et al. 2020 and Dhariwal & Nichol 2021 (scale-shift time conditioning,
self-attention at low resolution), with a pixel-unshuffle stem (``patch``): patches of pixels become
channels, since a small U-Net spends most of its time at full resolution.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le, Len, MultipleOf
from torch import Tensor, nn

from dclip.config import settings
from dclip.errors import BadInput
from dclip.models.tiny import sinusoidal


@settings
class UNetConfig:
    """The shape of a U-Net.

    Attributes:
        channels: width at the first level.
        mults: width multiple of each level; each level after the first halves the side.
        blocks: residual blocks a level on the way down (one more on the way up).
        attention: levels (0 = first) with self-attention after each block.
        heads: attention heads.
        patch: side of the pixel-unshuffle stem; level 0 works at ``side / patch``.
        refine: channels at full resolution before the last convolution, which sees the input
            too: without it the grid of the patches shows in the pixels.
    """

    prediction: ClassVar[str] = "v"

    channels: Annotated[int, Ge(16), MultipleOf(16), Le(4096)] = 64
    mults: Annotated[tuple[Annotated[int, Ge(1), Le(64)], ...], Len(1, 10)] = (1, 2, 2)
    blocks: Annotated[int, Ge(1), Le(16)] = 1
    attention: tuple[int, ...] = (2,)
    heads: Annotated[int, Ge(1), Le(256)] = 4
    patch: Annotated[int, Ge(1), Le(64)] = 2
    refine: Annotated[int, Ge(0), Le(4096)] = 16

    def __post_init__(self) -> None:
        if any(level not in range(len(self.mults)) for level in self.attention):
            raise BadInput(
                f"unet: attention levels {self.attention} are not within 0..{len(self.mults) - 1}"
            )
        if any(self.channels * self.mults[level] % self.heads for level in self.attention):
            raise BadInput(
                f"unet: {self.heads} heads do not divide the width at an attention level"
            )

    @property
    def stride(self) -> int:
        """The image side must be a multiple of this."""
        return self.patch << (len(self.mults) - 1)


SIZES: dict[str, UNetConfig] = {
    "micro": UNetConfig(channels=32, mults=(1, 2), attention=(1,), patch=4),
    "laptop": UNetConfig(channels=64, mults=(1, 2, 2), attention=(2,), patch=2),
    "small": UNetConfig(channels=96, mults=(1, 2, 3, 4), blocks=2, attention=(2, 3), patch=2),
    "medium": UNetConfig(channels=128, mults=(1, 1, 2, 3, 4), blocks=2, attention=(3, 4), patch=1),
    "large": UNetConfig(
        channels=128, mults=(1, 1, 2, 2, 4, 4), blocks=2, attention=(4, 5), patch=1
    ),
}
"""``micro`` for tests; ``laptop`` 64x64 on a CPU; ``small`` 128x128 and ``medium`` 128x128 on
an 8 GB GPU; ``large`` 256x256."""


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(16 if channels % 32 else 32, channels, eps=1e-5)


class ResBlock(nn.Module):
    """GroupNorm, SiLU, 3x3, twice; the time scales and shifts the second norm's output."""

    def __init__(self, c_in: int, c_out: int, time_dim: int) -> None:
        super().__init__()
        self.norm1 = _norm(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time = nn.Linear(time_dim, 2 * c_out)
        self.norm2 = _norm(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)
        # Each block starts as its skip, so that depth does not slow the start of training.
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.time(e)[:, :, None, None].chunk(2, dim=1)
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        out: Tensor = h + self.skip(x)
        return out


class Attention(nn.Module):
    """Self-attention over positions, residual."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = _norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        y = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = x + self.out(y.transpose(-1, -2).reshape(b, c, h, w))
        return out


class UNet(nn.Module):
    """(x, t) -> (B, 3, H, W): x like it, H and W multiples of ``config.stride``; t (B,)."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        c, d = config.channels, 4 * config.channels
        widths = [c * m for m in config.mults]
        levels = range(len(widths))
        pixels = 3 * config.patch**2

        def attend(level: int) -> nn.Module:
            if level in config.attention:
                return Attention(widths[level], config.heads)
            return nn.Identity()

        self.time = nn.Sequential(nn.Linear(c, d), nn.SiLU(), nn.Linear(d, d), nn.SiLU())
        self.stem = nn.Conv2d(pixels, c, 3, padding=1)
        self.down = nn.ModuleList()
        skips = [c]
        width = c
        for level in levels:
            for _ in range(config.blocks):
                block = ResBlock(width, widths[level], d)
                width = widths[level]
                self.down.append(nn.ModuleList([block, attend(level)]))
                skips.append(width)
            if level != levels[-1]:
                self.down.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                skips.append(width)
        self.middle = nn.ModuleList(
            [ResBlock(width, width, d), Attention(width, config.heads), ResBlock(width, width, d)]
        )
        self.up = nn.ModuleList()
        for level in reversed(levels):
            for _ in range(config.blocks + 1):
                block = ResBlock(width + skips.pop(), widths[level], d)
                width = widths[level]
                self.up.append(nn.ModuleList([block, attend(level)]))
            if level != 0:
                self.up.append(nn.Conv2d(width, width, 3, padding=1))
        self.norm = _norm(width)
        self.head = nn.Conv2d(width, config.refine * config.patch**2, 3, padding=1)
        self.last = nn.Conv2d(config.refine + 3, 3, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        e = self.time(sinusoidal(t, self.config.channels).to(x.dtype))
        h = self.stem(F.pixel_unshuffle(x, self.config.patch))
        skips = [h]
        for stage in self.down:
            if isinstance(stage, nn.ModuleList):
                block, attend = stage
                h = attend(block(h, e))
            else:
                h = stage(h)
            skips.append(h)
        first, attend, second = self.middle
        h = second(attend(first(h, e)), e)
        for stage in self.up:
            if isinstance(stage, nn.ModuleList):
                block, attend = stage
                h = attend(block(torch.cat([h, skips.pop()], dim=1), e))
            else:
                h = stage(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        h = F.pixel_shuffle(self.head(F.silu(self.norm(h))), self.config.patch)
        out: Tensor = self.last(torch.cat([F.silu(h), x], dim=1))
        return out
