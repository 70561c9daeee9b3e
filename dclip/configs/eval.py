"""The config of ``eval``."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

from dclip.config import Excludes, Needs, Option, settings
from dclip.configs.common import (
    MOST,
    Count,
    Depth,
    Edits,
    File,
    Locality,
    Mix,
    Name,
    Numbers,
    Precision,
    Seed,
    Split,
    Texts,
    ref,
)
from dclip.editing.spec import PartSpec, parse_parts

FACES = 64
SEED = 20_261  # of drawn faces: neither a shipped model nor the demo has seen them

_MAKES = Excludes("edits")  # says how edits are made, which these are already


@settings
class EvalConfig:
    """What to score, on what, and by whom."""

    tuned: Annotated[Edits, _MAKES] = ()
    """Tuned model, with a strength after a colon; again for more: else the newest."""
    edits: Annotated[str | None, ref("edits")] = None
    """Edits that were made already, instead."""
    data: Annotated[str | None, ref("data"), _MAKES] = None
    """Data to edit: else new drawn faces, or the base's own."""
    split: Annotated[Split, _MAKES] = "val"
    """Of --data: train, val, test or all."""
    where: Annotated[Texts, Option(metavar="NAME=X"), Needs("data")] = ()
    """Of --data: only such samples, as Smiling=-1."""
    count: Annotated[int, Ge(2), Le(MOST), Option(metavar="N"), _MAKES] = FACES
    """How many pictures."""
    target: Annotated[str | None, Option(metavar="NAME")] = None
    """Name of the edit: else known by its prompts."""
    expected: Annotated[str | None, Option(metavar="NAME=X")] = None
    """Attribute that the judge is to see, as Smiling=1: else the preset's."""
    strengths: Annotated[Numbers, _MAKES] = (
        0.0, 0.25, 0.5, 0.75, 1.0,
    )  # fmt: skip
    """Strengths to edit at."""
    judge: Annotated[str | None, ref("judge")] = None
    """Judge: else the embedded one, for drawn faces alone."""
    clip: Annotated[str | None, ref("clip")] = None
    """CLIP of S_dir: else the one that guided."""
    held_out: Annotated[str | None, ref("clip")] = None
    """Another CLIP, which did not guide: an artifact, a folder or NAME:TAG."""
    face: File | None = None
    """Face recognition network, which compares faces: weights of ArcFace IR-SE50 or MobileFaceNet,
    or TorchScript."""
    trust: Annotated[bool, Needs("face")] = False
    """Load a --face TorchScript file, which can run code and write files."""
    r: Annotated[Depth | None, _MAKES] = None
    """How far to invert: a timestep, as 100, or a share of T, as 0.5. Else that of the tuning."""
    steps: Annotated[Count | None, _MAKES] = None
    """Steps each way: else those of the tuning."""
    mix: Annotated[Mix | None, _MAKES] = None
    """How several models are combined: their weights, or their predicted noise. Else weights."""
    locality: Annotated[Locality | None, _MAKES] = None
    """Below this share of its strongest change an edit shows the photo; 0 shows the edit alone.
    Else as tuned."""
    precision: Annotated[Precision, _MAKES] = "fp32"
    """What the networks compute in: fp32, bf16 (faster on most GPUs), or auto."""
    name: Name | None = None
    """Name of the scores: else the tuned model's."""
    seed: Annotated[Seed, _MAKES] = SEED
    """Decides which faces are drawn and which samples taken."""

    def __post_init__(self) -> None:
        from dclip.data import faces
        from dclip.evaluation import goals
        from dclip.guidance.prompts import preset

        if self.target is not None and self.target not in faces.TARGETS:
            preset(self.target)
        if self.expected is not None:
            goals.read_expected(self.expected)

    @property
    def levels(self) -> tuple[float, ...]:
        """The strengths, growing."""
        return tuple(sorted(self.strengths))

    @property
    def parts(self) -> tuple[PartSpec, ...]:
        """The tuned models that are named, or the newest."""
        return tuple(part for text in self.tuned for part in parse_parts(text)) or (PartSpec(),)
