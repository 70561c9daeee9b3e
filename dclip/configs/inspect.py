"""The config of ``inspect``."""

from __future__ import annotations

from typing import Annotated

from dclip.config import Needs, Option, settings
from dclip.configs.common import Count, Counts, File, Name, Seed, ref


@settings
class InspectConfig:
    """What to look at."""

    photo: Annotated[File | None, Option(argument=True, metavar="PHOTO")] = None
    """A picture to show as the model sees it: noised, and of a model of latents its channels."""
    model: Annotated[str | None, ref("model")] = None
    """Model to look at: else the newest, else the embedded one."""
    steps: Counts = (10, 20, 40)
    """Numbers of steps whose sigmas are drawn."""
    t: Annotated[Counts, Needs("photo")] | None = None
    """Timesteps that the picture is noised to: else a quarter, half and three quarters of T."""
    train_timesteps: Annotated[Count | None, Option(metavar="N")] = None
    """The model's range of betas in so many noise steps: else as it was trained."""
    name: Name | None = None
    """Name of the figure: else the model's."""
    seed: Seed = 0
    """Decides the noise."""
