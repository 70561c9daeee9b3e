"""What a model says of the latents that it denoises."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

from dclip.config import settings


@settings
class LatentInfo:
    """Latents of a model; their autoencoder lies in the same artifact.

    Attributes:
        channels: of a latent.
        factor: side of a picture by that of its latent.
    """

    channels: Annotated[int, Ge(1), Le(64)]
    factor: Annotated[int, Ge(1), Le(64)]
