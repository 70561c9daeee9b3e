"""The config of ``slider``."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

from dclip.config import Option, settings
from dclip.configs.common import MOST, Count, Locality, Name, Precision, Rate, Seed, ref
from dclip.errors import BadInput


@settings
class SliderConfig:
    """Which edit by words becomes a tuned model, and how."""

    prompt: Annotated[str | None, Option(metavar="TEXT")] = None
    """What the edit is to show, as `dclip edit --prompt` takes it."""
    source: Annotated[str | None, Option(metavar="TEXT")] = None
    """What the photos show: else the opposite of the attributes in --prompt, of a caption
    nothing."""
    cfg: Annotated[float, Ge(-100), Le(100), Option(metavar="X")] | None = None
    """How far from --source to --prompt at strength 1: else 1.5 of attributes, 3 of captions."""
    latents: Annotated[str | None, ref("latents")] = None
    """Latents to tune on, which also say the model, which reads: else the newest."""
    name: Name | None = None
    """Name of the tuned model: else made from --prompt."""
    updates: Count = 150
    """Updates in all."""
    batch: Count = 8
    """Images at once."""
    lr: Rate = 3e-3
    """Adam's learning rate."""
    rank: Annotated[int, Ge(1), Le(MOST), Option(metavar="N")] = 8
    """Rank of the weights' differences."""
    locality: Locality = 0.1
    """Below this share of its strongest change an edit shows the photo; 0 shows the edit alone."""
    precision: Precision = "auto"
    """fp32, bf16 (autocast), or auto: bf16 where that is faster."""
    seed: Seed = 0
    """Decides order and the adapter's start."""

    def __post_init__(self) -> None:
        if not (self.prompt or "").strip():
            raise BadInput("what is the edit?", "give --prompt, e.g. --prompt smiling")
