"""A small autoencoder with a KL term: pictures to latents of a quarter of their side, and back.

Rombach et al. 2022 (2112.10752), section 3.1 and appendix G ("KL-reg"), in the size of a laptop.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le, MultipleOf
from torch import Tensor, nn

from dclip.config import settings


@settings
class AutoencoderConfig:
    """The shape of an autoencoder.

    Attributes:
        channels: width at a half of the picture's side; twice that at a quarter.
        latent: channels of the latents.
        blocks: residual blocks at each resolution, on either way.
        scale: what latents are multiplied by, so that their standard deviation is 1: the inverse of
            that of the training pictures' (0.18215 in Stable Diffusion).
    """

    channels: Annotated[int, Ge(16), MultipleOf(16), Le(1024)] = 48
    latent: Annotated[int, Ge(1), Le(64)] = 4
    blocks: Annotated[int, Ge(1), Le(8)] = 1
    scale: float = 1.0

    factor: ClassVar[int] = 4


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(16, channels, eps=1e-6)


class _Block(nn.Module):
    """GroupNorm, SiLU, 3x3, twice, residual; it begins as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(channels), _norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        out: Tensor = x + self.conv2(F.silu(self.norm2(h)))
        return out


class Autoencoder(nn.Module):
    """Pictures (N, 3, H, W) in [-1, 1] to latents (N, C, H/4, W/4) and back; H and W in fours."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        c = config.channels

        def blocks(channels: int) -> list[nn.Module]:
            return [_Block(channels) for _ in range(config.blocks)]

        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, c, 3, padding=1),
            *blocks(c),
            nn.Conv2d(c, 2 * c, 3, stride=2, padding=1),
            *blocks(2 * c),
            _norm(2 * c),
            nn.SiLU(),
            nn.Conv2d(2 * c, 2 * config.latent, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(config.latent, 2 * c, 3, padding=1),
            *blocks(2 * c),
            *blocks(2 * c),
            nn.Conv2d(2 * c, 4 * c, 3, padding=1),
            nn.PixelShuffle(2),
            *blocks(c),
            *blocks(c),
            _norm(c),
            nn.SiLU(),
            nn.Conv2d(c, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latents' normal distribution, each (N, C, H/4, W/4)."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean, log_variance.clamp(-30, 20)

    def latents(self, x: Tensor) -> Tensor:
        """What diffusion works on: the mean, scaled."""
        return self.encode(x)[0] * self.config.scale

    def decode(self, z: Tensor) -> Tensor:
        """Pictures of scaled latents, in about [-1, 1]."""
        out: Tensor = self.decoder(z / self.config.scale)
        return out

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The round trip through a drawn latent: pictures, mean, log variance."""
        mean, log_variance = self.encode(x)
        drawn = mean + (0.5 * log_variance).exp() * noise
        return self.decoder(drawn), mean, log_variance


def kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence from the standard normal, mean over all values; Kingma & Welling, eq. (10)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def detail_loss(made: Tensor, true: Tensor) -> Tensor:
    """L1 of the pictures and of their differences between neighbours, which keeps edges sharp."""
    loss = (made - true).abs().mean()
    for dim in (-1, -2):
        loss = loss + (torch.diff(made, dim=dim) - torch.diff(true, dim=dim)).abs().mean()
    return loss
