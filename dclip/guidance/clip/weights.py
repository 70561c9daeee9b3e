"""Weights of a CLIP: compared with the network that its config describes, then loaded."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from dclip.errors import BadInput, CorruptArtifact
from dclip.memory import enough_memory, out_of_memory

SPARE = 1 << 22
"""Numbers that a network may hold beyond what its file does, e.g. the mask of its attention."""

_META = torch.device("meta")


def build(config: Mapping[str, Any], hf_folder: Path | None = None) -> nn.Module:
    """The network of a checked config, on the default device, with fresh weights.

    Args:
        config: from :func:`dclip.guidance.clip.config.check_model_config`.
        hf_folder: the settings of the ``transformers`` text tower, where the config names one.

    Raises: whatever open_clip and timm raise for settings that do not go together.
    """
    import open_clip

    settings = {k: dict(v) if isinstance(v, Mapping) else v for k, v in config.items()}
    custom = settings.pop("custom_text", False)
    vision, text = settings["vision_cfg"], settings["text_cfg"]
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    if text.get("hf_model_name"):
        text["hf_model_pretrained"], custom = False, True
        text["hf_model_name"] = str(hf_folder or text["hf_model_name"])
    if not custom:
        return open_clip.CLIP(**settings)  # type: ignore[no-any-return]
    kind = open_clip.CoCa if "multimodal_cfg" in settings else open_clip.CustomTextCLIP
    return kind(**settings)  # type: ignore[no-any-return]


def load(
    config: Mapping[str, Any], file: Path, called: str, hf_folder: Path | None, *, resize: bool
) -> nn.Module:
    """The network of a checked config with the weights of a file, in float32 on the CPU.

    It is first built without memory, on torch's meta device, and compared with what the file
    holds, so that no more memory is taken than the file justifies.

    Args:
        file: safetensors, or a checkpoint of torch.save that is read without running code.
        called: what messages call the model.
        hf_folder: as for :func:`build`.
        resize: whether tables of positions may be resized to what the config says.

    Raises:
        BadInput: a file of a kind that is not read.
        CorruptArtifact: weights that do not fit the config, NaN, or an unreadable file.
        DclipError: not enough memory.
    """
    shapes = _shapes(file)
    # A number takes a byte at least; a pickle can claim shapes that repeat one number.
    stored = min(sum(math.prod(each.shape) for each in shapes.values()), file.stat().st_size)
    _check_positions(config, stored, called)
    try:
        with _META:
            plan = build(config, hf_folder)
    except Exception as e:
        raise CorruptArtifact(
            f"the config of {called} describes no network that open_clip can build"
            f" ({_first_line(e)})",
            "its open_clip_config.json must be as it was saved",
        ) from e
    declared = sum(each.numel() for each in [*plan.parameters(), *plan.buffers()])
    if declared > 1.5 * stored + SPARE:
        raise CorruptArtifact(
            f"the config of {called} describes a network of {declared:,} numbers, but {file.name}"
            f" holds {stored:,}",
            "the weights belong to another config",
        )
    _compare(plan, _fitted(plan, shapes, called, resize), called, file)
    _probe(plan, config, called)
    what = f"{called} ({declared / 1e6:.0f} million weights)"
    with enough_memory(what, "take a smaller model, or close other programs"):
        model = build(config, hf_folder)
        weights = _fitted(model, _read(file), called, resize)
        try:
            model.load_state_dict(weights, strict=True)
        except RuntimeError as e:
            if out_of_memory(e):
                raise
            raise CorruptArtifact(f"{file} does not fit {called} ({_first_line(e)})") from e
    for name, value in model.state_dict().items():
        if not torch.isfinite(value.float()).all():
            raise CorruptArtifact(
                f"{file} holds NaN or infinite weights in {name}",
                "fetch it again; a training that wrote it diverged",
            )
    return model


def _shapes(file: Path) -> dict[str, Tensor]:
    """Name, shape and type of each weight, as tensors without memory."""
    if file.suffix != ".safetensors":
        return {name: value.to(_META) for name, value in _unpickled(file).items()}
    try:
        with safe_open(file, framework="pt") as content:
            return {
                name: torch.empty(content.get_slice(name).get_shape(), device=_META)
                for name in content.keys()  # noqa: SIM118 (safe_open is no mapping)
            }
    except (SafetensorError, OSError, ValueError, RuntimeError, OverflowError) as e:
        raise CorruptArtifact(
            f"{file} is not a readable safetensors file ({_first_line(e)})", "fetch it again"
        ) from e


def _read(file: Path) -> dict[str, Tensor]:
    return load_file(file) if file.suffix == ".safetensors" else _unpickled(file)


def _unpickled(file: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint of ``torch.save``, mapped into memory, no code run."""
    names = []
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    if any("/code/" in name or name.endswith("constants.pkl") for name in names):
        raise BadInput(
            f"{file} is a TorchScript program (as OpenAI's own ViT-B-32.pt is), which dclip does"
            " not run",
            "name the weights and they are fetched as safetensors, e.g. --clip ViT-B-32:openai; or"
            " save torch.jit.load(FILE).state_dict() with safetensors.torch.save_file, where you"
            " trust the file",
        )
    if not any(name.endswith("data.pkl") for name in names):
        raise BadInput(
            f"{file} is neither safetensors nor a checkpoint of PyTorch 1.6 or later",
            "save its weights with safetensors.torch.save_file, where you trust it",
        )
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as e:
        if out_of_memory(e):
            raise
        raise BadInput(
            f"{file} cannot be read without running code from it ({_first_line(e)})",
            "save its weights with safetensors.torch.save_file, where you trust it",
        ) from e
    weights = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()
    ):
        raise BadInput(f"{file} is no checkpoint of weights by name", "give the file of weights")
    if weights and all(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    return dict(weights)


def _fitted(
    model: nn.Module, weights: dict[str, Tensor], called: str, resize: bool
) -> dict[str, Tensor]:
    """The weights under the names that the network has: open_clip reads older layouts too."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import (
        convert_to_custom_text_state_dict,
        resize_pos_embed,
        resize_text_pos_embed,
    )

    own: Any = model
    try:
        weights = convert_state_dict(own, dict(weights))
        if "positional_embedding" in weights and not hasattr(own, "positional_embedding"):
            weights = convert_to_custom_text_state_dict(weights)
        for name in ("logit_scale", "logit_bias"):
            wanted = getattr(own, name, None)
            if name in weights and wanted is not None and weights[name].numel() == 1:
                weights[name] = weights[name].reshape(wanted.shape)
        if getattr(own, "logit_bias", None) is not None and "logit_scale" in weights:
            weights.setdefault("logit_bias", torch.zeros_like(weights["logit_scale"]))
        ids = "text.transformer.embeddings.position_ids"  # transformers dropped it in 4.31
        if ids in weights and ids not in own.state_dict():
            del weights[ids]
        if resize:
            resize_pos_embed(weights, own)
            if hasattr(own, "positional_embedding") or hasattr(own.text, "positional_embedding"):
                resize_text_pos_embed(weights, own)
    except Exception as e:
        if out_of_memory(e):
            raise
        raise CorruptArtifact(
            f"the weights of {called} do not fit its config ({_first_line(e)})",
            "the weights belong to another config",
        ) from e
    return weights


def _compare(plan: nn.Module, weights: Mapping[str, Tensor], called: str, file: Path) -> None:
    wanted = {name: value.shape for name, value in plan.state_dict().items()}
    wrong = [
        f"{name} is {tuple(weights[name].shape)}, not {tuple(shape)}"
        for name, shape in wanted.items()
        if name in weights and weights[name].shape != shape
    ]
    missing = [f"{name} is missing" for name in wanted if name not in weights]
    unknown = [f"{name} is unknown" for name in weights if name not in wanted]
    if found := [*wrong, *missing, *unknown]:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise CorruptArtifact(
            f"{file} does not fit the config of {called}: {_plain(found[0])}{more}",
            "its weights must fit its open_clip_config.json, or the model that is named",
        )


def _check_positions(config: Mapping[str, Any], stored: int, called: str) -> None:
    """Refuse a table of positions that is larger than the whole file; some are made with numpy."""
    vision = config["vision_cfg"]
    if vision.get("timm_model_name") or isinstance(vision.get("layers"), list | tuple):
        return
    size, patch = vision.get("image_size", 224), vision.get("patch_size", 16)
    sides = size if isinstance(size, list | tuple) else (size, size)
    steps = patch if isinstance(patch, list | tuple) else (patch, patch)
    if None in steps:
        raise BadInput(f"the config of {called} has no patch_size", "restore the file")
    table = math.prod(a // b for a, b in zip(sides, steps, strict=True)) * vision.get("width", 768)
    if table > 1.5 * stored + SPARE:
        raise CorruptArtifact(
            f"the config of {called} describes {table:,} numbers for positions alone, but its"
            f" weights are {stored:,}",
            "the weights belong to another config",
        )


def _probe(plan: Any, config: Mapping[str, Any], called: str) -> None:
    """Run the network without memory: whether it makes one embedding of a picture and a text."""
    if config["text_cfg"].get("hf_model_name"):
        return  # those of transformers look into their input, which has no content here
    side = plan.visual.image_size
    height, width = side if isinstance(side, list | tuple) else (side, side)
    wanted = (1, config["embed_dim"])
    try:
        with _META, torch.no_grad():
            image = plan.eval().encode_image(torch.zeros(1, 3, height, width))
            length = config["text_cfg"].get("context_length", 77)
            text = plan.encode_text(torch.zeros(1, length, dtype=torch.long))
            found = [tuple(each.shape) for each in (image, text)]
    except Exception as e:
        raise CorruptArtifact(
            f"the network of {called} cannot be run ({_first_line(e)})",
            "its open_clip_config.json must be as it was saved",
        ) from e
    if found != [wanted, wanted]:
        raise CorruptArtifact(
            f"the network of {called} makes {found[0]} of a picture and {found[1]} of a text, not"
            f" {wanted} of both",
            "its open_clip_config.json must be as it was saved",
        )


def _first_line(e: BaseException) -> str:
    text = str(e).strip().splitlines()
    return _plain((text[0] if text else type(e).__name__)[:160])


def _plain(text: str) -> str:
    """Text from a file in a message: what would steer a terminal is shown escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
