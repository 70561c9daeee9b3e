"""The config of ``invert``."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le

from dclip.config import Excludes, Needs, Option, settings
from dclip.configs.common import (
    MOST,
    Count,
    Depth,
    Factor,
    Name,
    Precision,
    Preset,
    Seed,
    Walk,
    ref,
)  # fmt: skip
from dclip.errors import BadInput

R = 50  # the report's
STEPS = 40

_INVERTED = Needs("encode", ("inversion",))
_REFINED = Needs("method", ("fixed-point",))


@settings
class InvertConfig:
    """What to invert, and how."""

    data: Annotated[str | None, ref("data")] = None
    """Data artifact: else the newest."""
    model: Annotated[str | None, ref("model")] = None
    """Base model: else the newest, else the embedded one."""
    name: Name | None = None
    """Name of the latents: else the data's, and the model's after it if that is another."""
    r: Annotated[Depth | None, Excludes("preset")] = None
    """How far to invert: a timestep in 1..T, as 100, or a share of T, as 0.5 (so 1 is the first
    timestep and 1.0 is T). Else 50."""
    preset: Preset | None = None
    """Instead: the r of an edit from `dclip presets`."""
    steps: Count | None = None
    """Steps up to r: else 40, or r if less."""
    grid: Walk | None = None
    """How timesteps are spread: even, trailing, linspace or diffusionclip. Else even, or an
    imported model's own rule."""
    encode: Literal["inversion", "noise"] = "inversion"
    """noise adds noise in closed form, which takes no network call and which no decode returns
    from: for recipes that need no inversion."""
    method: Annotated[Literal["fixed-point", "ddim", "diffusionclip", "simplified"], _INVERTED] = (
        "fixed-point"
    )
    """fixed-point is the most exact; ddim and diffusionclip take one network call a step;
    simplified is the report's."""
    refinements: (
        Annotated[int, Ge(0), Le(MOST), Option(metavar="N"), _REFINED, _INVERTED] | None
    ) = None
    """At most so many network calls a step after the first."""
    tolerance: Annotated[Factor, _REFINED, _INVERTED] | None = None
    """What a decoded step may miss by (root mean square)."""
    split: Literal["train+val", "train", "val", "test", "all"] = "train+val"
    """train+val takes two thirds and one third, so that fine-tuning can learn on the one and score
    on the other."""
    count: Annotated[int, Ge(0), Le(MOST), Option(metavar="N")] = 96
    """How many pictures; 0 takes them all."""
    batch: Count = 16
    """Pictures a network call. Part of the result: rounding differs with it."""
    precision: Precision = "fp32"
    """What the networks compute in: fp32, bf16 (faster on most GPUs), or auto."""
    seed: Seed = 0
    """Decides which pictures are taken, and the noise of --encode noise."""

    def __post_init__(self) -> None:
        r = R if self.r is None else self.r
        whole = isinstance(r, int) and self.preset is None
        if whole and self.steps is not None and self.steps > r:
            raise BadInput(f"{self.steps} steps do not fit in r={r}", f"use --steps {r} or fewer")
