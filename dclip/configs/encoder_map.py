"""The config of ``encoder map``."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

from dclip.config import Option, settings
from dclip.configs.common import Count, Name, Seed, ref

_ENCODER = "encoder"


@settings
class EncoderMapConfig:
    """Between which text encoders to fit a map, and on what."""

    source: Annotated[str, Option(flags=("--from",), metavar="ENCODER", ref=_ENCODER)]
    """Text encoder whose states the map takes: a CLIP, or a folder with a BERT or a CLIP."""
    target: Annotated[str, Option(flags=("--to",), metavar="ENCODER", ref=_ENCODER)] | None = None
    """Text encoder whose states it makes, or a model, which stands for its own. Else the embedded
    CLIP."""
    data: Annotated[str | None, ref("data")] = None
    """Data artifact with captions: else the newest."""
    name: Name | None = None
    """Name of the map: else the data's."""
    captions: Count = 10_000
    """Different captions to fit it to, at most."""
    before: Annotated[int, Ge(0), Le(64), Option(metavar="N")] = 8
    """How many tokens before a token the map takes too."""
    seed: Seed = 0
    """Decides which captions are held out."""
