"""The config of ``autoencoder train``."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le, MultipleOf

from dclip.config import Option, settings
from dclip.configs.common import Count, Factor, Name, Norm, Precision, Rate, Seed, ref

_FILE = Option(file_only=True)


@settings
class AutoencoderTrainConfig:
    """How to train an autoencoder."""

    data: Annotated[str | None, ref("data")] = None
    """Data artifact: else the newest."""
    name: Name | None = None
    """Name of the autoencoder: else the data's."""
    images: Count = 40_000
    """Pictures to see in all."""
    batch: Count = 16
    """Pictures an update."""
    lr: Rate = 2e-3
    """Adam's peak learning rate."""
    kl: Annotated[Factor, _FILE] = 1e-4
    """Weight of the KL term, which keeps latents near a standard normal."""
    max_grad_norm: Annotated[Norm, _FILE] = 1.0
    """Limit of the gradient's norm."""
    channels: Annotated[int, Ge(16), MultipleOf(16), Le(1024), _FILE] = 48
    """Width at a half of the picture's side; twice that at a quarter."""
    blocks: Annotated[int, Ge(1), Le(8), _FILE] = 1
    """Residual blocks at each resolution."""
    precision: Precision = "auto"
    """fp32, bf16 (autocast), or auto: bf16 where that is faster."""
    seed: Seed = 0
    """Decides weights, order and noise."""
