"""The config of ``explain``."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

from dclip.config import Option, settings
from dclip.configs.common import Count, Name, Seed


@settings
class ExplainConfig:
    """What to explain with."""

    name: Name = "explain"
    """Name of the figure."""
    points: Annotated[int, Ge(30), Option(metavar="N")] = 3000
    """Points of the data."""
    clip_steps: Count = 500
    """Training steps of the small CLIP."""
    denoiser_steps: Count = 2500
    """Training steps of the denoiser."""
    seed: Seed = 0
    """Decides the data, the networks and the noise."""
