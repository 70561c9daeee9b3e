"""TinyUNet: the report's network, exactly (sections 3.1-3.3 of "A Simplified DiffusionCLIP").

For reproducing the report; :mod:`dclip.models.unet` is the default network.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le, MultipleOf
from torch import Tensor, nn

from dclip.config import settings


@settings
class TinyConfig:
    """Base width ``channels`` (the report's C) and width ``time_dim`` of the time embedding."""

    lr: ClassVar[float] = 2e-4
    """Learning rate where `train` is given none."""

    channels: Annotated[int, Ge(8), MultipleOf(8), Le(4096)] = 64
    time_dim: Annotated[int, Ge(2), MultipleOf(2), Le(65536)] = 256

    @property
    def stride(self) -> int:
        """The image side must be a multiple of this."""
        return 4


def sinusoidal(t: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal embedding of timesteps: (B,) -> (B, dim), sines then cosines (section 3.1)."""
    half = dim // 2
    rate = torch.exp(
        -math.log(max_period) * torch.arange(half, device=t.device, dtype=torch.float32) / half
    )
    angle = t.to(torch.float32)[:, None] * rate[None]
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class TinyBlock(nn.Module):
    """Two 3x3 convolutions with GroupNorm and ReLU, the projected time added after the first."""

    def __init__(self, c_in: int, c_out: int, time_dim: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, padding=1), nn.GroupNorm(8, c_out), nn.ReLU()
        )
        self.time = nn.Linear(time_dim, c_out)
        self.second = nn.Sequential(
            nn.Conv2d(c_out, c_out, 3, padding=1), nn.GroupNorm(8, c_out), nn.ReLU()
        )
        self.skip = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.first(x) + self.time(e)[:, :, None, None]
        out: Tensor = self.second(h) + self.skip(x)
        return out


class TinyUNet(nn.Module):
    """eps = model(x, t): x (B, 3, H, W) with H, W multiples of 4, t (B,)."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        c, d = config.channels, config.time_dim
        self.config = config
        self.time = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))
        self.down1 = TinyBlock(3, c, d)
        self.down2 = TinyBlock(c, 2 * c, d)
        self.down3 = TinyBlock(2 * c, 4 * c, d)
        self.pool = nn.MaxPool2d(2)
        self.middle = TinyBlock(4 * c, 4 * c, d)
        self.up2 = nn.ConvTranspose2d(4 * c, 2 * c, 2, stride=2)
        self.merge2 = TinyBlock(4 * c, 2 * c, d)
        self.up1 = nn.ConvTranspose2d(2 * c, c, 2, stride=2)
        self.merge1 = TinyBlock(2 * c, c, d)
        self.out = nn.Conv2d(c, 3, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        e = self.time(sinusoidal(t, self.config.time_dim).to(x.dtype))
        h1 = self.down1(x, e)
        h2 = self.down2(self.pool(h1), e)
        h3 = self.middle(self.down3(self.pool(h2), e), e)
        u1 = self.merge2(torch.cat([self.up2(h3), h2], dim=1), e)
        u2 = self.merge1(torch.cat([self.up1(u1), h1], dim=1), e)
        eps: Tensor = self.out(u2)
        return eps
