"""The config of ``sample``."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from dclip.config import Excludes, Needs, OneOf, Option, settings
from dclip.configs.common import Count, Name, Precision, Seed, ref


@settings
class SampleConfig:
    """What to draw, and how."""

    model: Annotated[str | None, ref("model"), Excludes("tuned")] = None
    """Base model: else the newest, else the embedded one."""
    tuned: Annotated[str | None, ref("tuned")] = None
    """Tuned model to draw with instead; it knows its base."""
    strength: Annotated[float, Option(metavar="X"), Needs("tuned")] = 1.0
    """How much of the tuning: 0 is its base, 1 all of it."""
    name: Name | None = None
    """Name of the samples: else the model's."""
    count: Count = 16
    """How many pictures. The first ones of a larger count are the same."""
    sampler: Annotated[
        str, AfterValidator(OneOf("dclip.stages.sample:SAMPLERS")), Option(metavar="NAME")
    ] = "ddim"
    """ddim (deterministic), or ddpm (ancestral)."""
    steps: Count = 50
    """Network calls a picture, in 1..T."""
    batch: Count = 16
    """Pictures a network call. Part of the result: rounding differs with it."""
    precision: Precision = "fp32"
    """What the networks compute in: fp32, bf16 (faster on most GPUs), or auto."""
    seed: Seed = 0
    """Decides the noise, picture by picture."""
