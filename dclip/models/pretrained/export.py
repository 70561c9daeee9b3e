"""A base of ours as a folder that diffusers loads: ``DDIMPipeline.from_pretrained(folder)``."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dclip.errors import BadInput, StoreError
from dclip.models.adm import ADMConfig
from dclip.models.checkpoint import ModelInfo, load_model
from dclip.models.diffusers_modules import build
from dclip.models.prediction import bare
from dclip.models.pretrained.schedulers import scheduler_settings
from dclip.models.tuned import merged
from dclip.models.unet2d import UNet2DConfig

Parts = Iterable[tuple[Mapping[str, Tensor], float]]


def to_diffusers(path: Path, out: Path, parts: Parts = ()) -> None:
    """Write the model of an artifact's folder as diffusers saves a pipeline.

    The pipeline is a ``DDIMPipeline``; of a network that learned its variance, which only that
    one's sampler can split off, a ``DDPMPipeline``. A class is folded into the weights. DDIM's
    scheduler has no place for the variance of an ancestral step, so that is not in the folder.

    Args:
        path: the model artifact's folder.
        out: the folder to write; it must not be there yet.
        parts: (differences, strength) of tuned models to merge in.

    Raises:
        BadInput: a network that diffusers has no module for, or ``out`` exists.
        StoreError: ``out`` cannot be written.
    """
    if out.exists():
        raise BadInput(f"{out} is there already", "choose another folder, or remove it")
    model, info = load_model(path)
    parts = list(parts)
    config, weights = as_unet2d(merged(model, parts) if parts else model, info)
    settings = scheduler_settings(info)
    unet = build("UNet2DModel", "hub", asdict(config))
    unet.load_state_dict(weights)
    from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler

    pipeline: Any
    if config.learned_variance:
        kind = "learned_range"
        pipeline = DDPMPipeline(unet, DDPMScheduler(**settings, variance_type=kind))
    else:
        ends = {"set_alpha_to_one": info.grid_end == 0}
        pipeline = DDIMPipeline(unet, DDIMScheduler(**settings, **ends))
    beside = out.with_name(out.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        pipeline.save_pretrained(beside, safe_serialization=True)
        beside.rename(out)
    except OSError as e:
        shutil.rmtree(beside, ignore_errors=True)
        raise StoreError(f"{out} cannot be written: {e.strerror or e}") from e


def as_unet2d(model: nn.Module, info: ModelInfo) -> tuple[UNet2DConfig, dict[str, Tensor]]:
    """The settings and weights of the ``UNet2DModel`` that computes what ``model`` does.

    Raises:
        BadInput: there is none.
    """
    network = bare(model)
    if info.architecture == "unet2d":
        weights = {k.removeprefix("unet."): v for k, v in network.state_dict().items()}
        config = replace(info.config, sample_size=info.image_size)
        return _without_class(config, weights, info.class_label, "class_embedding.weight")
    if info.architecture == "adm":
        config = _unet2d_of_adm(info.config, info.image_size)
        weights = rename_adm(info.config, network.state_dict())
        return _without_class(config, weights, info.class_label, "label_emb.weight")
    raise BadInput(
        f"diffusers has no module for the network {info.architecture!r}",
        "export an imported model, or use `dclip export REF FOLDER`, which copies the artifact",
    )


def _without_class(
    config: UNet2DConfig, weights: dict[str, Tensor], label: int | None, name: str
) -> tuple[UNet2DConfig, dict[str, Tensor]]:
    """The class's embedding as part of the bias that it is always added to."""
    table = weights.pop(name, None)
    if table is None or label is None:
        return config, weights
    bias = "time_embedding.linear_2.bias"
    weights[bias] = weights[bias] + table[label]
    return replace(config, num_class_embeds=None), weights


def _unet2d_of_adm(config: ADMConfig, size: int) -> UNet2DConfig:
    """The settings; ``UNet2DModel`` has neither heads by number nor a first level's own width.

    Raises:
        BadInput: a network that cannot be one.
    """
    heads = {config.heads_at(config.widths[level]) for level in config.attention}
    if config.mults[0] != 1:
        raise BadInput(
            "diffusers' UNet2DModel takes its time embedding's size from the first level's width,"
            f" and this network's is {config.mults[0]:g} of it",
            "no export to diffusers is possible",
        )
    if config.head_channels is None and heads != {1}:
        raise BadInput(
            f"diffusers' UNet2DModel counts channels of a head, and this network has {config.heads}"
            " heads at every width",
            "no export to diffusers is possible",
        )
    plain = "ResnetDownsampleBlock2D" if config.updown else "DownBlock2D"
    down = ["AttnDownBlock2D" if i in config.attention else plain for i in range(len(config.mults))]
    up = [b.replace("Downsample", "Upsample").replace("Down", "Up") for b in reversed(down)]
    kind: Any = "resnet" if config.updown else "conv"
    return UNet2DConfig(
        sample_size=size,
        in_channels=config.in_channels,
        out_channels=config.in_channels * (2 if config.learned_variance else 1),
        down_block_types=tuple(down),  # type: ignore[arg-type]
        up_block_types=tuple(up),  # type: ignore[arg-type]
        block_out_channels=tuple(config.widths),
        layers_per_block=config.blocks,
        downsample_padding=1,
        downsample_type=kind,
        upsample_type=kind,
        attention_head_dim=config.head_channels,
        attn_norm_num_groups=32,
        norm_eps=1e-5,
        resnet_time_scale_shift="scale_shift" if config.scale_shift else "default",
    )


_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


def rename_adm(config: ADMConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ADM's weights under ``UNet2DModel``'s names.

    A level of ADM's input blocks is its residual blocks and then, under an index of its own, the
    downsampler; an upsampler is the last member of its output block.
    """
    places = dict(_ENDS)
    levels, each = len(config.mults), config.blocks + 1
    for level in range(levels):
        for j in range(config.blocks):
            at, to = f"input_blocks.{1 + level * each + j}", f"down_blocks.{level}"
            places |= {f"{at}.0": f"{to}.resnets.{j}", f"{at}.1": f"{to}.attentions.{j}"}
        if level < levels - 1:
            at = f"input_blocks.{1 + level * each + config.blocks}.0"
            places[at] = f"down_blocks.{level}.downsamplers.0"
            places[f"{at}.op"] = f"down_blocks.{level}.downsamplers.0.conv"
        for j in range(each):
            at, to = f"output_blocks.{level * each + j}", f"up_blocks.{level}"
            attends = levels - 1 - level in config.attention
            places[f"{at}.0"] = f"{to}.resnets.{j}"
            if attends:
                places[f"{at}.1"] = f"{to}.attentions.{j}"
            if j == config.blocks and level < levels - 1:
                last = f"{at}.{2 if attends else 1}"
                places |= {last: f"{to}.upsamplers.0", f"{last}.conv": f"{to}.upsamplers.0.conv"}
    places |= {
        "middle_block.0": "mid_block.resnets.0",
        "middle_block.1": "mid_block.attentions.0",
        "middle_block.2": "mid_block.resnets.1",
    }
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        module, _, kind = name.rpartition(".")
        if module == "label_emb":
            renamed[name] = value
        elif module in places:
            renamed[f"{places[module]}.{kind}"] = value
        elif module.endswith(".qkv"):
            to = places[module.removesuffix(".qkv")]
            for part, rows in zip("qkv", _split_qkv(config, value), strict=True):
                renamed[f"{to}.to_{part}.{kind}"] = rows
        elif module.endswith((".norm", ".proj_out")):
            block, _, inner = module.rpartition(".")
            new = {"norm": "group_norm", "proj_out": "to_out.0"}[inner]
            flat = value[:, :, 0] if value.ndim == 3 else value
            renamed[f"{places[block]}.{new}.{kind}"] = flat
        else:
            block = max((p for p in places if module.startswith(p + ".")), key=len)
            renamed[f"{places[block]}.{_RESIDUAL[module[len(block) + 1 :]]}.{kind}"] = value
    return renamed


def _split_qkv(config: ADMConfig, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The joint projection's rows, weight (3C,C,1) or bias (3C,), as those of q, k and v."""
    flat = rows[:, :, 0] if rows.ndim == 3 else rows
    width = flat.shape[0] // 3
    heads = config.heads_at(width)
    if config.qkv == "legacy":
        parts = (
            flat.reshape(heads, 3, width // heads, *flat.shape[1:]).transpose(0, 1).flatten(1, 2)
        )
    else:
        parts = flat.reshape(3, width, *flat.shape[1:])
    q, k, v = (part.contiguous() for part in torch.unbind(parts))
    return q, k, v
