"""From what a user names, a file, a folder or a hub id, to a model that is ready to be kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dclip.domains import DRAWN_FACES, FACE_FRAMES, FACES, PHOTOS
from dclip.errors import BadInput, CorruptArtifact
from dclip.models.checkpoint import ModelInfo, Source, check_weights
from dclip.models.pretrained import FAMILIES, recognise, stable_diffusion
from dclip.models.pretrained import files as disk
from dclip.models.pretrained.contract import Asked, Described, Shapes
from dclip.models.pretrained.folder import Folder, LocalFolder, open_hub, weight_files

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_WEIGHTS = "diffusion_pytorch_model"
# Full precision first; each as one file or as shards.
_PREFERRED = (
    ".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".fp16.safetensors",
    ".safetensors.index.fp16.json", ".fp16.bin", ".bin.index.fp16.json",
)  # fmt: skip

SHOWS = {
    r"celeb\w*[-_]?hq|ffhq|metface": (FACES, "ffhq"),
    r"celeba": (FACES, "celeba"),
    r"dog": ("dogs", "center"),
    r"church": ("churches", "center"),
    r"bedroom": ("bedrooms", "center"),
}
"""Domain and frame of published models, by words in the name of the file, folder or id. DDPM's and
P2-weighting's are of CelebA-HQ and FFHQ, in the frame of which MetFaces was aligned too."""


@dataclass(frozen=True)
class Opened:
    """A model that was recognised.

    Attributes:
        info: what it is, with its source.
        notes: what the user should know of how it was read.
        size: bytes of its weights.
        weights: reads them, under the names of ``info.build()``'s network, checked against it.
        parts: the autoencoder and the text encoder of a model that draws from prompts.
    """

    info: ModelInfo
    notes: tuple[str, ...]
    size: int
    weights: Callable[[], dict[str, Tensor]]
    parts: stable_diffusion.Parts | None = None


def open_source(source: str, asked: Asked | None = None, revision: str | None = None) -> Opened:
    """Recognise a pretrained model.

    Args:
        source: a weight file, a folder, a hub id ``OWNER/NAME``, or a file on the hub,
            ``OWNER/NAME/FILE``.
        asked: what the user says of it.
        revision: branch, tag or commit on the hub.

    Raises:
        BadInput: no such thing, or none of a known family; or settings that must be asked for.
        CorruptArtifact: files that are cut off, missing or damaged.
    """
    asked = asked or Asked()
    path = Path(source).expanduser()
    if path.exists() and revision is not None:
        raise BadInput(f"{source} is here, so it has no revision", "leave --revision out")
    if path.is_dir():
        return _open_folder(LocalFolder(path), asked)
    if path.exists():
        return _open_file(LocalFolder(path.parent, path.name, only=path.name), path.name, asked)
    parts = source.split("/")
    local = source.startswith((".", "/", "~")) or (path.suffix in disk.SUFFIXES and len(parts) < 3)
    if local or not _HUB_ID.fullmatch("/".join(parts[:2])):
        raise BadInput(f"{source} is not there", "give a file, a folder, or a hub id OWNER/NAME")
    found = open_hub("/".join(parts[:2]), revision)
    if parts[2:]:
        return _open_file(found, "/".join(parts[2:]), asked)
    return _open_folder(found, asked)


# --- one file


def _open_file(folder: Folder, name: str, asked: Asked) -> Opened:
    if name not in folder.sizes:
        raise BadInput(
            f"{folder.id} has no file {name}",
            f"it has {', '.join(weight_files(folder)[:8]) or 'no weights'}",
        )
    path = folder.path(name)
    family, tensors, notes = pick(disk.read_tensors(path), str(path))
    described = _describe(family, {k: v.shape for k, v in tensors.items()}, {}, asked)
    return _opened(
        folder,
        family,
        described,
        {name: folder.sizes[name]},
        lambda: tensors,
        notes,
        str(path),
        asked,
    )


def pick(data: Any, where: str) -> tuple[str, dict[str, Tensor], list[str]]:
    """The network within what a checkpoint holds: its family, its weights, and a note of which.

    Training programs save the network and its running average, last or under "ema": the average
    is what their own samplers draw with.

    Raises:
        BadInput: there is none of a known family; the names that were seen are told.
    """
    found = [
        (place, family, tensors)
        for place, tensors in disk.state_dicts(data)
        if (family := recognise(tensors)) is not None
    ]
    if not found:
        raise BadInput(
            f"{where} is of no family that dclip knows; it holds {disk.top_keys(data)}",
            "it knows " + ", ".join(family.title for family in FAMILIES.values()),
        )
    averages = [one for one in found if "ema" in one[0].lower()]
    place, family, tensors = (averages or found)[-1]
    if len(found) == 1:
        return family, tensors, []
    note = f"of {len(found)} sets of weights in it, {place} is taken: the average by its place"
    return family, tensors, [note]


# --- a folder of diffusers


def _open_folder(folder: Folder, asked: Asked) -> Opened:
    index = {}
    if "model_index.json" in folder.sizes:
        index = disk.read_json(folder.path("model_index.json"))
    if stable_diffusion.is_text_to_image(index):
        return _open_text_to_image(folder, asked)
    _check_pipeline(folder, index)
    config = next((n for n in ("unet/config.json", "config.json") if n in folder.sizes), None)
    if config is None:
        return _open_lone_file(folder, asked)
    unet = disk.read_json(folder.path(config))
    if "_class_name" not in unet and "block_out_channels" not in unet:
        raise BadInput(
            f"{folder.id}'s config.json describes no diffusion network; it holds"
            f" {', '.join(list(unet)[:5])}",
            "give a folder or id of a UNet2DModel",
        )
    configs = {"unet": unet}
    beside = [f"{place}scheduler_config.json" for place in ("scheduler/", "unet/", "")]
    if scheduler := next((n for n in beside if n in folder.sizes), None):
        configs["scheduler"] = disk.read_json(folder.path(scheduler))
    described = _describe("diffusers", {}, configs, asked)
    names = _weight_names(folder, config.removesuffix("config.json"))
    shards = {name: folder.sizes[name] for name in names}

    def read() -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for name in names:
            data = disk.read_tensors(folder.path(name))
            found = next(disk.state_dicts(data), None)
            if found is None:
                raise BadInput(f"{name} of {folder.id} holds {disk.top_keys(data)}")
            tensors |= found[1]
        return tensors

    notes = [f"weights from {names[0]}" + (f" and {len(names) - 1} more" if names[1:] else "")]
    return _opened(folder, "diffusers", described, shards, read, notes, folder.id, asked)


def _open_text_to_image(folder: Folder, asked: Asked) -> Opened:
    described = stable_diffusion.describe(folder, asked)
    names = {
        "unet": _weight_names(folder, "unet/"),
        "vae": _weight_names(folder, "vae/"),
        "text_encoder": _weight_names(folder, "text_encoder/", "model"),
    }
    sizes = {name: folder.sizes[name] for each in names.values() for name in each}
    source = _source(folder, "stable-diffusion", sizes)
    info = replace(described.info, source=source, **shows((folder.id,), asked)[0])

    parts = stable_diffusion.Parts(folder, names)

    def weights() -> dict[str, Tensor]:
        read: dict[str, Tensor] = {}
        for name in names["unet"]:
            read |= stable_diffusion.tensors_of(folder, name)
        named = stable_diffusion.convert(read, parts.empty_prompt())
        return _checked(info, {info.prefix + k: v for k, v in named.items()}, folder.id)

    notes = ("a model that draws latents from prompts", *described.notes)
    return Opened(info, notes, sum(sizes.values()), weights, parts)


def _check_pipeline(folder: Folder, index: Mapping[str, Any]) -> None:
    """Refuse networks that draw latents for another one to decode, of pixels' shape or not."""
    other = sorted({"vae", "vqvae", "text_encoder", "bert", "movq"} & set(index))
    if other:
        raise BadInput(
            f"{folder.id} draws latents, which its {', '.join(other)} decodes",
            "dclip takes StableDiffusionPipeline folders, and networks that draw pixels, e.g."
            " google/ddpm-celebahq-256",
        )


def _open_lone_file(folder: Folder, asked: Asked) -> Opened:
    files = weight_files(folder)
    if len(files) == 1:
        return _open_file(folder, files[0], asked)
    if files:
        raise BadInput(
            f"{folder.id} has no config.json and {len(files)} files of weights",
            f"say which, e.g. `dclip import {folder.id}/{files[0]}`",
        )
    held = ", ".join(list(folder.sizes)[:5]) or "nothing"
    raise BadInput(
        f"{folder.id} holds neither config.json nor weights (it holds {held})",
        "give a folder as diffusers saves it, or a file of weights",
    )


def _weight_names(folder: Folder, place: str, stem: str = _WEIGHTS) -> list[str]:
    """The files of the weights below ``place``, in full precision where they are there so."""
    stems = (stem,) if stem == _WEIGHTS else (stem, "pytorch_model")
    for each, suffix in product(stems, _PREFERRED):
        name = f"{place}{each}{suffix}"
        if name in folder.sizes:
            return _shards(folder, name, place) if ".index." in suffix else [name]
    there = [n for n in weight_files(folder) if n.startswith(place)]
    if any(re.search(r"-\d{5}-of-\d{5}\.", n) for n in there):
        raise CorruptArtifact(
            f"{folder.id} has shards of weights, but not {stem}.safetensors.index.json",
            "download the rest of the folder",
        )
    if len(there) == 1:
        return there
    raise BadInput(
        f"{folder.id} has no {place}{stem}.safetensors or .bin"
        + (f" (it has {', '.join(there[:5])})" if there else ""),
        "download the weights too, into the same folder",
    )


def _shards(folder: Folder, index: str, place: str) -> list[str]:
    table = disk.read_json(folder.path(index)).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise CorruptArtifact(f"{index} of {folder.id} lists no shards", "download it again")
    names = sorted({str(name) for name in table.values()})
    if any("/" in name or "\\" in name or name.startswith(".") for name in names):
        raise BadInput(f"{index} of {folder.id} leads out of its folder", "do not use it")
    missing = [name for name in names if place + name not in folder.sizes]
    if missing:
        raise CorruptArtifact(
            f"{len(missing)} of {len(names)} shards of {folder.id} are missing:"
            f" {', '.join(missing[:3])}",
            "download them into the same folder",
        )
    return [place + name for name in names]


# --- both


def _describe(
    name: str, shapes: Shapes, configs: Mapping[str, Mapping[str, Any]], asked: Asked
) -> Described:
    """What the family says; a setting that it does not have is refused, not passed over."""
    family = FAMILIES[name]
    some = {field for each in FAMILIES.values() for field in each.asks}
    odd = [f for f in sorted(some) if f not in family.asks and getattr(asked, f) is not None]
    if odd:
        raise BadInput(
            f"{', '.join(odd)}: {family.title} has no such setting to be said",
            "leave it out: it is read from the files",
        )
    return family.describe(shapes, configs, asked)


def _opened(
    folder: Folder,
    family: str,
    described: Described,
    sizes: Mapping[str, int],
    read: Callable[[], dict[str, Tensor]],
    notes: list[str],
    where: str,
    asked: Asked,
) -> Opened:
    _check_use(described.info, where)
    pictures, told = shows((folder.id, where), asked)
    info = replace(described.info, source=_source(folder, family, sizes), **pictures)

    def weights() -> dict[str, Tensor]:
        named = FAMILIES[family].convert(read())
        return _checked(info, {info.prefix + name: value for name, value in named.items()}, where)

    return Opened(info, (*notes, *described.notes, told), sum(sizes.values()), weights)


def shows(names: Sequence[str], asked: Asked) -> tuple[dict[str, Any], str]:
    """What a model's pictures show and where they have the face: as asked, else by its name.

    Args:
        names: of its folder, id and file; the first that says something counts.

    Returns:
        ``domain`` and ``frame`` of :class:`ModelInfo`, and a note of both.

    Raises:
        BadInput: a frame of faces for pictures of something else.
    """
    lower = [Path(name).name.lower() for name in names]
    found = (row for name in lower for words, row in SHOWS.items() if re.search(words, name))
    domain, frame = next(found, (PHOTOS, "center"))
    if asked.domain not in (None, domain):
        assert asked.domain is not None
        domain, frame = asked.domain, "ffhq" if asked.domain == FACES else "center"
    frame = asked.frame or frame
    if frame in FACE_FRAMES and domain not in (FACES, DRAWN_FACES):
        raise BadInput(
            f"{domain} have no place in a frame of faces",
            "leave --frame out, or say --domain faces",
        )
    told = "" if asked.domain and asked.frame else ": by its name, see --domain and --frame"
    return {"domain": domain, "frame": frame}, f"it shows {domain}, frame {frame}{told}"


def _source(folder: Folder, family: str, sizes: Mapping[str, int]) -> Source:
    return Source(
        id=folder.id,
        revision=folder.revision,
        files={name: folder.sha256(name) for name in sizes},
        licence=folder.licence,
        family=family,
    )


def _checked(info: ModelInfo, named: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Weights that are those of the network, finite, and no wider than float32."""
    check_weights(info.shapes(), {k: v.shape for k, v in named.items()}, where)
    disk.check_finite(named, where)
    return {k: v.float() if v.dtype == torch.float64 else v for k, v in named.items()}


def _check_use(info: ModelInfo, where: str) -> None:
    """Refuse what no stage could work with."""
    colours = info.config.in_channels
    if colours != 3:
        raise BadInput(
            f"{where} draws pictures of {colours} channel{'s' * (colours != 1)}",
            "dclip edits RGB pictures, of 3",
        )
    if info.image_size % info.config.stride:
        raise BadInput(
            f"{where} cannot draw {info.image_size} pixels: the side must be a multiple of"
            f" {info.config.stride}",
            "say another --size",
        )
