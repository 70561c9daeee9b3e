"""The config of ``demo``."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

from dclip.config import Option, settings
from dclip.configs.common import Preset, Seed, ref
from dclip.errors import BadInput

SEED = 20_260  # of faces that no shipped model was trained on


@settings
class DemoConfig:
    """What to show."""

    target: Preset = "sketch"
    """A preset that the renderer can draw."""
    faces: Annotated[int, Ge(4), Le(10_000), Option(metavar="N")] = 48
    """Faces to draw; a third is held out."""
    model: Annotated[str, ref("model")] = "embedded"
    """Base model."""
    clip: Annotated[str, ref("clip")] = "embedded"
    """CLIP that guides."""
    seed: Seed = SEED
    """Decides which faces are drawn, and the tuning."""

    def __post_init__(self) -> None:
        from dclip.data import faces
        from dclip.guidance.prompts import PRESETS

        if self.target not in faces.TARGETS:
            known = [name for name in PRESETS if name in faces.TARGETS]
            raise BadInput(
                f"the renderer cannot draw {self.target!r}, so the demo could not score it",
                f"use one of {', '.join(known)}",
            )
