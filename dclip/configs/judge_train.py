"""The config of ``judge train``."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

from dclip.config import Option, settings
from dclip.configs.common import (
    MOST,
    Count,
    Factor,
    Name,
    Norm,
    Precision,
    Rate,
    Seed,
    Share,
    Texts,
    ref,
)
from dclip.errors import BadInput

_FILE = Option(file_only=True)


@settings
class JudgeTrainConfig:
    """How to train a judge."""

    data: Annotated[Texts, ref("data")] = ()
    """Data artifact with labels; again for more of the same attributes: else the newest."""
    name: Name | None = None
    """Name of the judge: else the first data's."""
    images: Count = 200_000
    """Pictures to see in all."""
    batch: Annotated[int, Ge(2), Le(MOST), Option(metavar="N")] = 64
    """Pictures an update."""
    lr: Rate = 3e-3
    """AdamW's peak learning rate."""
    weight_decay: Annotated[Factor, _FILE] = 0.02
    """AdamW's."""
    other: Share = 0.25
    """Share of pictures that are spoilt so that they are of no style; where the data has styles."""
    max_grad_norm: Annotated[Norm, _FILE] = 1.0
    """Limit of the gradient's norm."""
    precision: Precision = "auto"
    """fp32, bf16 (autocast), or auto: bf16 where that is faster."""
    seed: Seed = 0
    """Decides weights, order and what is spoilt."""

    def __post_init__(self) -> None:
        if self.images < self.batch:
            raise BadInput(
                f"{self.images} images are less than a batch of {self.batch}",
                f"use --images {self.batch} or more",
            )
