"""A folder of diffusers for text to image, Stable Diffusion 1.x and 2.x: four networks' files.

``unet/``, ``vae/``, ``text_encoder/``, ``tokenizer/`` and ``scheduler/``, as
``StableDiffusionPipeline.save_pretrained`` writes them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from dclip.config import from_dict
from dclip.encoders.contract import EncoderInfo
from dclip.encoders.find import WITHIN
from dclip.encoders.hf_clip import ENCODER, TOKENIZER
from dclip.errors import BadInput, CorruptArtifact
from dclip.latent.contract import LatentInfo
from dclip.latent.diffusers_kl import FOLDER as VAE
from dclip.models.checkpoint import ModelInfo
from dclip.models.diffusers_modules import diffusers_class
from dclip.models.pretrained import files as disk
from dclip.models.pretrained.contract import Asked, Described
from dclip.models.pretrained.folder import Folder
from dclip.models.pretrained.schedulers import read_scheduler
from dclip.models.unet2d_condition import UNet2DConditionConfig

PREFIX, EMPTY = "unet.", "empty_tokens"
PIPELINES = ("StableDiffusionPipeline",)
LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")
TOKENIZER_FILES = (
    "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
    "tokenizer.json",
)  # fmt: skip


def is_text_to_image(index: Mapping[str, Any]) -> bool:
    """Whether ``model_index.json`` describes a pipeline of this family."""
    return index.get("_class_name") in PIPELINES


def describe(folder: Folder, asked: Asked) -> Described:
    """What the folder's configs say.

    Raises:
        BadInput: settings or parts that this family does not have.
        CorruptArtifact: parts that are missing.
    """
    _check_parts(folder)
    unet = _config(folder, "unet/config.json", "UNet2DConditionModel")
    vae = _config(folder, "vae/config.json", "AutoencoderKL")
    text = disk.read_json(folder.path(f"{ENCODER}/config.json"))
    kind = (text.get("architectures") or ["CLIPTextModel"])[0]
    if kind not in ("CLIPTextModel", "CLIPTextModelWithProjection"):
        raise BadInput(f"{folder.id}'s text encoder is a {kind}", "dclip reads CLIPTextModel")
    config = read_unet(unet)
    encoder = EncoderInfo(
        kind="hf-clip",
        where=WITHIN,
        width=int(text.get("hidden_size", 512)),
        context=int(text.get("max_position_embeddings", 77)),
    )
    factor = 1 << (len(vae.get("block_out_channels", (64,))) - 1)
    latent = LatentInfo(channels=int(vae.get("latent_channels", 4)), factor=factor)
    if latent.channels != config.in_channels:
        raise BadInput(
            f"{folder.id}'s autoencoder makes {latent.channels} channels, its network takes"
            f" {config.in_channels}",
            "give a folder whose parts belong together",
        )
    scheduler = disk.read_json(folder.path("scheduler/scheduler_config.json"))
    fields, notes = read_scheduler(scheduler, asked, False)
    info = ModelInfo(
        architecture="unet2d-condition",
        config=config,
        image_size=asked.size or config.sample_size * factor,
        text=encoder,
        latent=latent,
        **(fields | {"clip_sample": False}),
    )
    if info.image_size % (factor * config.stride):
        raise BadInput(
            f"{folder.id} cannot draw {info.image_size} pixels: the side must be a multiple of"
            f" {factor * config.stride}",
            "say another --size",
        )
    parts = sorted({name.split("/")[0] for name in folder.sizes if "/" in name})
    if unused := [part for part in parts if part in LEFT_OUT]:
        notes = [*notes, f"its {', '.join(unused)} is left out"]
    return Described(info, tuple(notes))


def read_unet(config: Mapping[str, Any]) -> UNet2DConditionConfig:
    """``unet/config.json`` as settings that are known; others must say that they are unused.

    Raises:
        BadInput: a setting that networks of this family do not have.
    """
    known = UNet2DConditionConfig.__dataclass_fields__
    usual = signature(diffusers_class("UNet2DConditionModel", "text").__init__).parameters
    for name, value in config.items():
        if name.startswith("_") or name in known or value is None or name not in usual:
            continue
        if value != usual[name].default:
            raise BadInput(
                f"unet/config.json has {name} = {value!r}, which Stable Diffusion 1 and 2 have not",
                "give a folder of that family, e.g. stable-diffusion-v1-5/stable-diffusion-v1-5",
            )
    given = {k: v for k, v in config.items() if k in known}
    for name in ("down_block_types", "up_block_types", "block_out_channels", "attention_head_dim"):
        if isinstance(given.get(name), list):
            given[name] = tuple(given[name])
    return from_dict(UNet2DConditionConfig, given, defaults=True, where="unet/config.json")


def convert(weights: Mapping[str, Tensor], empty: Tensor) -> dict[str, Tensor]:
    """The network's weights under our names, with the states of the empty prompt."""
    return {PREFIX + name: value for name, value in weights.items()} | {EMPTY: empty}


@dataclass(frozen=True)
class Parts:
    """What lies in a model's folder beside its network.

    Attributes:
        folder: where they come from.
        files: weights of the autoencoder and the text encoder, by role.
    """

    folder: Folder
    files: Mapping[str, list[str]]

    def copy(self, into: Path) -> None:
        """Write ``vae/``, ``text_encoder/`` and ``tokenizer/``; weights as safetensors.

        Raises:
            BadInput, CorruptArtifact: weights that cannot be read, or are not finite.
        """
        self._copy_weights(VAE, "diffusion_pytorch_model", into)
        self._copy_text(into)

    def empty_prompt(self) -> Tensor:
        """States of the empty prompt by the text encoder, (L, D).

        Raises: as :meth:`copy`, and as :class:`dclip.encoders.hf_clip.HfClipEncoder`.
        """
        from dclip.encoders.hf_clip import HfClipEncoder

        with TemporaryDirectory() as place:
            self._copy_text(Path(place))
            return HfClipEncoder(Path(place), "cpu", self.folder.id).encode([""]).tokens[0]

    def _copy_text(self, into: Path) -> None:
        self._copy_weights(ENCODER, "model", into)
        target = into / TOKENIZER
        target.mkdir(parents=True, exist_ok=True)
        for name in TOKENIZER_FILES:
            if f"{TOKENIZER}/{name}" in self.folder.sizes:
                shutil.copyfile(self.folder.path(f"{TOKENIZER}/{name}"), target / name)

    def _copy_weights(self, role: str, name: str, into: Path) -> None:
        target = into / role
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.folder.path(f"{role}/config.json"), target / "config.json")
        tensors: dict[str, Tensor] = {}
        for file in self.files[role]:
            tensors |= tensors_of(self.folder, file)
        disk.check_finite(tensors, f"{role} of {self.folder.id}")
        # A table of positions that older versions of transformers saved as if it were learnt.
        kept = {k: v.contiguous().clone() for k, v in tensors.items() if "position_ids" not in k}
        save_file(kept, target / f"{name}.safetensors", metadata={"format": "pt"})


def tensors_of(folder: Folder, name: str) -> dict[str, Tensor]:
    """The weights that a file of a folder holds.

    Raises:
        BadInput: none in it.
    """
    data = disk.read_tensors(folder.path(name))
    found = next(disk.state_dicts(data), None)
    if found is None:
        raise BadInput(f"{name} of {folder.id} holds {disk.top_keys(data)}")
    return found[1]


def _check_parts(folder: Folder) -> None:
    needed = [
        "unet/config.json", "vae/config.json", f"{ENCODER}/config.json",
        "scheduler/scheduler_config.json",
    ]  # fmt: skip
    missing = [name for name in needed if name not in folder.sizes]
    tokenizers = [f"{TOKENIZER}/vocab.json", f"{TOKENIZER}/tokenizer.json"]
    if not any(name in folder.sizes for name in tokenizers):
        missing.append(tokenizers[0])
    if missing:
        raise CorruptArtifact(
            f"{folder.id} is not complete: it has no {', '.join(missing)}",
            "download the rest of it into the same folder",
        )


def _config(folder: Folder, name: str, kind: str) -> dict[str, Any]:
    config = disk.read_json(folder.path(name))
    said = config.get("_class_name", kind)
    if said != kind:
        raise BadInput(f"{folder.id}: {name} describes a {said}", f"dclip reads a {kind} there")
    return config
