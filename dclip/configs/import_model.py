"""The config of ``import``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge
from pydantic import AfterValidator

from dclip.config import Excludes, Needs, OneOf, Option, settings
from dclip.configs.common import Count, Depth, DomainName, FrameName, Name, ref

_BASE = Excludes("base")  # what the base of a tuned source says already
_TUNED = Needs("base")


@settings
class ImportConfig:
    """What to import, and what its files do not say."""

    source: Annotated[str, Option(argument=True, metavar="SOURCE")]
    """File of weights, folder as diffusers saves it, hub id OWNER/NAME, or file on the hub,
    OWNER/NAME/FILE; or a folder that `dclip export` wrote."""
    name: Name | None = None
    """Name of the new artifact: else the source's."""
    base: Annotated[str | None, ref("model")] = None
    """Base model that the source was tuned from: DiffusionCLIP's fine-tuned networks and Asyrp's
    edits become tuned models."""
    revision: Annotated[str | None, Option(metavar="REV"), _BASE] = None
    """Branch, tag or commit on the hub."""
    size: Annotated[Count | None, _BASE] = None
    """Side of its pictures in pixels."""
    schedule: Annotated[
        Literal["linear", "scaled-linear", "cosine", "linear-rescaled"] | None, _BASE
    ] = None
    """Its noise schedule."""
    T: Annotated[Count | None, Option(flags=("-T", "--timesteps")), _BASE] = None
    """Its diffusion timesteps."""
    prediction: (
        Annotated[
            str,
            AfterValidator(OneOf("dclip.models.prediction:ADAPTERS")),
            Option(metavar="KIND"),
            _BASE,
        ]
        | None
    ) = None
    """What its network predicts: eps, v or x0."""
    grid: Annotated[
        Literal["even", "leading", "trailing", "linspace", "diffusionclip"] | None, _BASE
    ] = None
    """How its published figures chose timesteps."""
    heads: Annotated[Count | None, _BASE, Excludes("head_channels")] = None
    """Attention heads, where the shapes of an ADM network do not say."""
    head_channels: Annotated[Count | None, _BASE] = None
    """Channels of a head, instead."""
    qkv: Annotated[Literal["legacy", "new"] | None, _BASE] = None
    """Order of an ADM network's attention projection."""
    class_label: Annotated[int, Ge(0), Option(flags=("--class",), metavar="N"), _BASE] | None = None
    """Class that a class-conditional model is to draw."""
    domain: Annotated[DomainName | None, _BASE] = None
    """What its pictures show: faces, dogs, churches, bedrooms or photos. Else by its name."""
    frame: Annotated[FrameName | None, _BASE] = None
    """Where they have the face: celeba, ffhq (also CelebA-HQ's), or center for none. Else by its
    name."""
    r: Annotated[Depth | None, _TUNED] = None
    """Of a tuned source: how far it was tuned to invert: a timestep, as 402, or a share of T, as
    0.4."""
    t_min: Annotated[int, Ge(0), Option(metavar="N"), _TUNED] | None = None
    """Of Asyrp's edits: the timestep above which they act (Asyrp's t_edit)."""
    storage: Literal["same", "fp16"] = "same"
    """Weights on disk: as in the file, or half of it."""

    def asked(self) -> dict[str, Any]:
        """The settings of a base, for :class:`dclip.models.pretrained.Asked`."""
        names = ("size", "schedule", "T", "prediction", "grid", "heads", "head_channels", "qkv",
                 "class_label", "domain", "frame")  # fmt: skip
        return {name: getattr(self, name) for name in names}
