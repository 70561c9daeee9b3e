"""Family ``guided``: ADM networks as OpenAI's guided-diffusion and its descendants saved them.

The architecture is read from the shapes. Three things do not show in any shape: the heads of the
attention, the order of its joint projection, and the noise schedule. They are known of the
published networks, and asked for of others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

from torch import Tensor

from dclip.diffusion.schedule import Schedule, ScheduleName
from dclip.errors import BadInput
from dclip.models.adm import ADMConfig
from dclip.models.checkpoint import ModelInfo
from dclip.models.pretrained.contract import Asked, Described, Family, Shapes


@dataclass(frozen=True)
class Published:
    """What the shapes of a published network do not say."""

    names: str
    size: int
    heads: int | None = None
    head_channels: int | None = 64
    qkv: Literal["legacy", "new"] = "legacy"
    schedule: ScheduleName = "linear"


# (channels, blocks, mults, attention levels), from the flags in the README of guided-diffusion
# and, for the last, of P2-weighting and ILVR.
PUBLISHED: dict[tuple[int, int, tuple[float, ...], tuple[int, ...]], Published] = {
    (192, 3, (1, 2, 3, 4), (1, 2, 3)): Published("ImageNet 64", 64, qkv="new", schedule="cosine"),
    (256, 2, (1, 1, 2, 3, 4), (2, 3, 4)): Published("ImageNet 128", 128, 4, None),
    (256, 2, (1, 1, 2, 2, 4, 4), (3, 4, 5)): Published("ImageNet 256, LSUN", 256),
    (256, 2, (0.5, 1, 1, 2, 2, 4, 4), (4, 5, 6)): Published("ImageNet 512", 512),
    (128, 1, (1, 1, 2, 2, 4, 4), (4,)): Published("AFHQ-dog, FFHQ-P2, CelebA-HQ-P2", 256),
}


_ATTENTION = ("heads", "head_channels", "qkv")


def recognise(keys: Collection[str]) -> bool:
    """Whether names of weights are of this layout."""
    return "time_embed.0.weight" in keys and "output_blocks.0.0.in_layers.0.weight" in keys


def read_shapes(shapes: Shapes) -> ADMConfig:
    """The architecture, with heads, order and classes as they are unless shapes say otherwise.

    Raises:
        BadInput: shapes that are no whole network, or one that takes more than a picture.
    """
    try:
        return _read_shapes(shapes)
    except (KeyError, IndexError, ZeroDivisionError) as e:
        raise BadInput(
            f"this file of ADM's layout is not a whole network ({e} is missing)",
            "give the diffusion model's file, not a classifier's",
        ) from e


def _read_shapes(shapes: Shapes) -> ADMConfig:
    channels = shapes["time_embed.0.weight"][1]
    colours = shapes["input_blocks.0.0.weight"][1]
    out = shapes["out.2.weight"][0]
    if colours % 3 == 0 and colours > 3:
        raise BadInput(
            f"this network takes {colours} channels: an upsampler, which needs a small picture too",
            "give the network that draws from noise",
        )
    if out not in (colours, 2 * colours):
        raise BadInput(f"this network takes {colours} channels and puts out {out}")
    # The blocks of a level end, on the way up, with what doubles the side.
    level, blocks = 0, 0
    for k in count():
        if f"output_blocks.{k}.0.in_layers.0.weight" not in shapes:
            levels = level + 1
            break
        resampling = any(
            f"output_blocks.{k}.{part}.{what}.weight" in shapes
            for part in (1, 2)
            for what in ("conv", "in_layers.0")
        )
        if resampling:
            blocks = blocks or k
            level += 1
    blocks = blocks or k - 1
    mults, attention, at = [], [], 1
    for level in range(levels):
        mults.append(shapes[f"input_blocks.{at}.0.out_layers.3.weight"][0] / channels)
        if f"input_blocks.{at}.1.qkv.weight" in shapes:
            attention.append(level)
        at += blocks + 1
    last = at - 1  # the lowest level has no downsampler
    if f"input_blocks.{last - 1}.0.in_layers.0.weight" not in shapes or any(
        k.startswith(f"input_blocks.{last}.") for k in shapes
    ):
        raise BadInput(
            f"this network has not {levels} levels of {blocks} blocks both ways",
            "dclip knows networks with as many blocks at every level",
        )
    first = shapes["input_blocks.1.0.out_layers.0.weight"][0]
    return ADMConfig(
        channels=channels,
        mults=tuple(mults),
        blocks=blocks,
        attention=tuple(attention),
        heads=1,
        head_channels=None,
        updown=levels == 1 or f"input_blocks.{blocks + 1}.0.in_layers.0.weight" in shapes,
        scale_shift=shapes["input_blocks.1.0.emb_layers.1.weight"][0] == 2 * first,
        in_channels=colours,
        learned_variance=out != colours,
        classes=shapes["label_emb.weight"][0] if "label_emb.weight" in shapes else None,
    )


def describe(shapes: Shapes, configs: Mapping[str, Mapping[str, Any]], asked: Asked) -> Described:
    """The architecture out of the shapes; the rest as published, or as the user says.

    Raises:
        BadInput: a network that is not published, of which the user does not say the rest.
    """
    read = read_shapes(shapes)
    key = (read.channels, read.blocks, read.mults, read.attention)
    known = PUBLISHED.get(key)
    missing = []
    if known is None:
        if asked.heads is None and asked.head_channels is None:
            missing.append("--head-channels (64 in most) or --heads")
        if asked.qkv is None:
            missing.append("--qkv (legacy in most, or new)")
        if asked.size is None:
            missing.append("--size")
        if asked.schedule is None:
            missing.append("--schedule (linear or cosine)")
    if missing:
        raise BadInput(
            f"an ADM network of {read.channels} channels, {read.blocks} blocks a level, mults"
            f" {', '.join(f'{m:g}' for m in read.mults)}: none of the published ones, and shapes"
            " do not say all of it",
            "say " + ", ".join(missing),
        )
    heads, head_channels = asked.heads, asked.head_channels
    if heads is None and head_channels is None and known is not None:
        heads, head_channels = known.heads, known.head_channels
    size = asked.size or (known.size if known else 0)
    name = asked.schedule or (known.schedule if known else "linear")
    steps = asked.T or 1000
    # Their linear range is 1e-4 .. 0.02 at T = 1000 and rescaled for others.
    name = "linear-rescaled" if name == "linear" and steps != 1000 else name
    info = ModelInfo(
        architecture="adm",
        config=ADMConfig(
            channels=read.channels,
            mults=read.mults,
            blocks=read.blocks,
            attention=read.attention,
            heads=heads,
            head_channels=head_channels,
            qkv=asked.qkv or (known.qkv if known else "legacy"),
            updown=read.updown,
            scale_shift=read.scale_shift,
            in_channels=read.in_channels,
            learned_variance=read.learned_variance,
            classes=read.classes,
        ),
        schedule=Schedule.make(name, steps),
        image_size=size,
        prediction=asked.prediction or "eps",
        grid=asked.grid or "leading",
        variance="learned-range" if read.learned_variance else "small",
        class_label=asked.class_label,
    )
    notes = []
    if known is not None:
        notes.append(f"heads, order of qkv, size and schedule as published for {known.names}")
    return Described(info, tuple(notes))


def convert(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As they are: :class:`dclip.models.adm.ADM` has the file's names."""
    return dict(weights)


FAMILY = Family("ADM (guided-diffusion)", recognise, describe, convert, _ATTENTION)
