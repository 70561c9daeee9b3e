"""Family ``diffusers``: a ``UNet2DModel`` as diffusers saves it, weights beside config.json."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from dclip.config import from_dict
from dclip.errors import BadInput
from dclip.models.checkpoint import ModelInfo
from dclip.models.pretrained.contract import Asked, Described, Family, Shapes
from dclip.models.pretrained.schedulers import read_scheduler
from dclip.models.unet2d import UNet2DConfig

# Renamed by the library only where it loads a whole model that is not sharded.
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_ATTENTION = re.compile(r"(.*\battentions\.\d+\.)(query|key|value|proj_attn)(\.\w+)")


def recognise(keys: Collection[str]) -> bool:
    """Whether names of weights are a ``UNet2DModel``'s."""
    return "conv_in.weight" in keys and any(k.startswith("down_blocks.") for k in keys)


def read_config(config: Mapping[str, Any]) -> tuple[UNet2DConfig, list[str]]:
    """``config.json`` as settings that are known and within bounds; what it holds else is noted.

    Raises:
        BadInput: another class than ``UNet2DModel``, or settings that dclip does not take.
    """
    name = config.get("_class_name", "UNet2DModel")
    if name != "UNet2DModel":
        why = "a network of Stable Diffusion's kind, that reads text and draws latents"
        raise BadInput(
            f"config.json describes a {name}"
            + (f": {why}" if name == "UNet2DConditionModel" else ""),
            "give a folder or id of a UNet2DModel, which draws pixels",
        )
    if config.get("time_embedding_type") == "fourier":
        raise BadInput(
            "this UNet2DModel is told the noise's size, not a timestep (time_embedding_type"
            " fourier): a score model of another kind of noise",
            "give one with time_embedding_type positional, e.g. google/ddpm-celebahq-256",
        )
    known = UNet2DConfig.__dataclass_fields__
    given = {k: v for k, v in config.items() if k in known}
    odd = sorted(k for k in config if k not in known and not k.startswith("_"))
    side = given.get("sample_size")
    if isinstance(side, list | tuple):
        if len(side) != 2 or side[0] != side[1]:
            raise BadInput(f"this model draws {side} pictures", "dclip edits square ones")
        given["sample_size"] = side[0]
    read = from_dict(UNet2DConfig, given, defaults=True, where="config.json")
    notes = [f"config.json's {', '.join(odd)} are no settings of UNet2DModel"] if odd else []
    return read, notes


def describe(shapes: Shapes, configs: Mapping[str, Mapping[str, Any]], asked: Asked) -> Described:
    """What the configs say; of the shapes nothing is needed."""
    if "unet" not in configs:
        raise BadInput(
            "these are weights of diffusers' UNet2DModel, but shapes do not say all of it",
            "give the folder that holds config.json and scheduler_config.json beside them",
        )
    config, notes = read_config(configs["unet"])
    if "scheduler" in configs:
        scheduler = configs["scheduler"]
    elif asked.schedule is not None:
        scheduler = {}
    else:
        raise BadInput(
            "there is no scheduler_config.json, so nobody knows what noise it was trained on",
            "put it beside config.json or into scheduler/, or say --schedule linear",
        )
    fields, more = read_scheduler(scheduler, asked, config.learned_variance)
    size = asked.size or config.sample_size
    if size is None:
        raise BadInput("config.json does not say sample_size", "say the pictures' --size")
    info = ModelInfo(
        architecture="unet2d",
        config=config,
        image_size=size,
        class_label=asked.class_label,
        **fields,
    )
    return Described(info, (*notes, *more))


def convert(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of today, below :class:`dclip.models.unet2d.UNet2D`'s own."""
    renamed = {}
    for name, value in weights.items():
        if old := _ATTENTION.fullmatch(name):
            name = f"{old.group(1)}{_OLD[old.group(2)]}{old.group(3)}"
        renamed[f"unet.{name}"] = value
    return renamed


FAMILY = Family("diffusers' UNet2DModel", recognise, describe, convert)
