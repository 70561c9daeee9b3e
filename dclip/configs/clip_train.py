"""The config of ``clip train``."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

from dclip.config import Excludes, Needs, Option, settings
from dclip.configs.common import (
    MOST,
    Count,
    Factor,
    File,
    Name,
    Norm,
    Precision,
    Rate,
    Seed,
    Share,
    ref,
)
from dclip.errors import BadInput

_FILE = Option(file_only=True)


@settings
class ClipTrainConfig:
    """What decides the trained CLIP."""

    data: Annotated[str | None, ref("data")] = None
    """Data artifact with captions: else the newest."""
    name: Name | None = None
    """Name of the new CLIP: else the data's."""
    init: Annotated[str | None, Option(metavar="CLIP", ref="clip")] = None
    """CLIP to go on from: an artifact, a folder or NAME:TAG. Else a fresh one is trained."""
    model: Annotated[str, Option(metavar="NAME"), Excludes("init")] = "small"
    """small, small-convnext, or any open_clip model."""
    contrasts: File | None = None
    """JSON of contrasts: else those of the data's attributes."""
    images: Count = 200_000
    """Pictures to see in all."""
    batch: Annotated[int, Ge(2), Le(MOST), Option(metavar="N")] = 128
    """Pictures in memory at once."""
    accumulate: Count = 1
    """Batches an update; the contrastive loss sees all of them together (as with GradCache, Gao et
    al. 2021)."""
    lr: Rate | None = None
    """AdamW's peak learning rate: else what suits the CLIP."""
    weight_decay: Annotated[Factor, _FILE] = 0.05
    """AdamW's."""
    radius: Factor | None = None
    """L2 radius of adversarial pictures, of pixels in [-1, 1]: 0 for none, else 4 at 64 pixels a
    side."""
    share: Annotated[float, Gt(0), Lt(0.5), _FILE] = 0.3
    """In data of pairs, a picture's radius is at most this share of its pair's distance. At half of
    it the attack could turn one picture of a pair into the other."""
    attack_steps: Annotated[Count, _FILE] = 1
    """Gradient steps of the attack."""
    clean: Annotated[Share, _FILE] = 0.15
    """Share of the run before the radius starts to grow."""
    ramp: Annotated[Share, _FILE] = 0.3
    """Share of the run over which the radius grows."""
    mixture: Annotated[Factor, _FILE] = 2.0
    """Weight of half-made edits. A CLIP that is to guide needs them; one that only scores learns
    faster with 0."""
    hold_tokens: Annotated[Factor, Needs("init")] = 0.0
    """Weight of keeping the token states that training does not read, all but the end's, near those
    of --init: for a text tower that is to go on driving a model which reads them."""
    max_grad_norm: Annotated[Norm, _FILE] = 1.0
    """Limit of the gradient's norm."""
    precision: Precision = "auto"
    """fp32, bf16 (autocast), or auto: bf16 where that is faster."""
    seed: Seed = 0
    """Decides weights, order, crops and attacks."""

    def __post_init__(self) -> None:
        if self.images < self.update:
            raise BadInput(
                f"{self.images} images are less than an update of {self.update}",
                f"use --images {self.update} or more, or a smaller --batch",
            )

    @property
    def update(self) -> int:
        """Pictures that an update sees."""
        return self.batch * self.accumulate
