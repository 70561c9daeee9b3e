"""Family ``ddpm``: the layout of the first DDPM checkpoints, as ``UNet2DModel``.

Names and settings after the published networks for CelebA-HQ, LSUN and CIFAR-10 (Ho et al. 2020,
2006.11239, appendix B, as others ported them to torch), and what DiffusionCLIP wrote after
fine-tuning them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from dclip.diffusion.schedule import Schedule
from dclip.diffusion.variance import VarianceRule
from dclip.errors import BadInput
from dclip.models.checkpoint import ModelInfo
from dclip.models.pretrained.contract import Asked, Described, Family, Shapes
from dclip.models.unet2d import UNet2DConfig

ATTENTION_SIDE = 16
"""Pixels at the one level with attention of every published network."""

CIFAR_SIDE = 32

_WHOLE = {
    "temb.dense.0": "time_embedding.linear_1",
    "temb.dense.1": "time_embedding.linear_2",
    "conv_in": "conv_in",
    "conv_out": "conv_out",
    "norm_out": "conv_norm_out",
    "mid.block_1": "mid_block.resnets.0",
    "mid.block_2": "mid_block.resnets.1",
    "mid.attn_1": "mid_block.attentions.0",
}
_INSIDE = {
    "temb_proj": "time_emb_proj",
    "nin_shortcut": "conv_shortcut",
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
}
_LEVEL = re.compile(r"(down|up)\.(\d+)\.(block|attn|downsample|upsample)(?:\.(\d+))?")
_PARTS = {"block": "resnets", "attn": "attentions"}
_RESAMPLE = {"downsample": "downsamplers.0", "upsample": "upsamplers.0"}


def recognise(keys: Collection[str]) -> bool:
    """Whether names of weights are of this layout."""
    return "temb.dense.0.weight" in keys and "mid.block_1.conv1.weight" in keys


def describe(shapes: Shapes, configs: Mapping[str, Mapping[str, Any]], asked: Asked) -> Described:
    """The architecture out of the shapes; what they do not say is as in every published file.

    Raises:
        BadInput: a network that no published file has, or one whose image size is not known.
    """
    levels = 1 + max(int(m.group(2)) for k in shapes if (m := _LEVEL.match(k)))
    blocks = sum(f"down.0.block.{j}.conv1.weight" in shapes for j in range(64))
    attention = [i for i in range(levels) if f"down.{i}.attn.0.q.weight" in shapes]
    odd = [k for k in shapes if ".conv_shortcut." in k]
    try:
        channels, colours = shapes["conv_in.weight"][:2]
        widths = tuple(shapes[f"down.{i}.block.0.conv1.weight"][0] for i in range(levels))
        out = shapes["conv_out.weight"][0]
    except KeyError as e:
        raise BadInput(
            f"this file of the first DDPM layout lacks {e}", "it is not a whole network"
        ) from e
    if odd or widths[0] != channels:
        raise BadInput(
            f"a network of the first DDPM layout that no published file has ({(odd or widths)[0]})",
            "the first level is as wide as the input's convolution, and shortcuts are 1x1",
        )
    size = asked.size or (ATTENTION_SIDE << attention[0] if attention else None)
    if size is None:
        raise BadInput("shapes do not say the size of its pictures", "say --size, e.g. 256")
    down = tuple("AttnDownBlock2D" if i in attention else "DownBlock2D" for i in range(levels))
    up = tuple("AttnUpBlock2D" if i in attention else "UpBlock2D" for i in reversed(range(levels)))
    info = ModelInfo(
        architecture="unet2d",
        config=UNet2DConfig(
            sample_size=size,
            in_channels=colours,
            out_channels=out,
            freq_shift=1,
            flip_sin_to_cos=False,
            down_block_types=down,  # type: ignore[arg-type]
            up_block_types=up,  # type: ignore[arg-type]
            block_out_channels=widths,
            layers_per_block=blocks,
            downsample_padding=0,
            attention_head_dim=None,
            norm_eps=1e-6,
        ),
        schedule=asked.noise(Schedule.make("linear", 1000)),
        image_size=size,
        prediction=asked.prediction or "eps",
        grid=asked.grid or "diffusionclip",
        variance=_variance(out != colours, size),
        class_label=asked.class_label,
    )
    taken = "" if asked.size else f"; {size} pixels, since its attention is at {ATTENTION_SIDE}"
    return Described(info, (f"schedule and grid as published with this layout{taken}",))


def _variance(learned: bool, size: int) -> VarianceRule:
    """The larger bound on CIFAR-10, the smaller one elsewhere (Ho et al. 2020, section 3.2)."""
    if learned:
        return "learned-range"
    return "large" if size == CIFAR_SIDE else "small"


def convert(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names and shapes of :class:`dclip.models.unet2d.UNet2D`."""
    levels = 1 + max(int(m.group(2)) for k in weights if (m := _LEVEL.match(k)))
    renamed = {}
    for name, value in weights.items():
        new = _new_name(name, levels)
        if re.search(r"\.to_(q|k|v|out\.0)\.weight$", new) and value.ndim == 4:
            value = value[:, :, 0, 0]  # 1x1 convolutions there, linear layers here
        renamed[f"unet.{new}"] = value
    return renamed


def _new_name(name: str, levels: int) -> str:
    module, _, kind = name.rpartition(".")  # kind: weight or bias
    head, rest = module, ""
    if level := _LEVEL.match(module):
        side, i, part, j = level.groups()
        # "up" counts levels from the highest resolution, diffusers in the order of the walk.
        at = int(i) if side == "down" else levels - 1 - int(i)
        head = f"{side}_blocks.{at}." + (f"{_PARTS[part]}.{j}" if j else _RESAMPLE[part])
        rest = module[level.end() :]
    else:
        for old, new in _WHOLE.items():
            if module == old or module.startswith(old + "."):
                head, rest = new, module[len(old) :]
                break
    rest = ".".join(_INSIDE.get(part, part) for part in rest.split("."))
    return f"{head}{rest}.{kind}"


FAMILY = Family("the first DDPM layout", recognise, describe, convert)
