"""From what a user or a model says to a text encoder."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dclip import guiding
from dclip.context import Reporter
from dclip.errors import BadInput, MissingArtifact
from dclip.fingerprints import fingerprint, is_dir
from dclip.guiding import FoundClip
from dclip.store import Artifact, Store

if TYPE_CHECKING:
    from dclip.encoders.contract import EncoderInfo, TextEncoder

ROLE = "text"
"""What a text encoder is called among the inputs of an artifact."""

WITHIN = "."
"""Where an encoder is that lies in the model's own folder."""

OF_TRANSFORMERS = {"bert": "bert", "clip": "hf-clip", "clip_text_model": "hf-clip"}
"""The kind of each ``model_type`` of transformers that is read."""


@dataclass(frozen=True)
class FoundEncoder:
    """A text encoder that is found, and not loaded yet.

    Attributes:
        kind: a name in :data:`KINDS`.
        where: its folder, or what :func:`dclip.guidance.clip.load_guide` takes.
        artifact: the artifact that it is, if any.
        names: of the attributes that it reads, where it reads no text.
        sides: of a map, the encoders that it lies between.
    """

    kind: str
    where: str
    artifact: Artifact | None = None
    names: tuple[str, ...] = ()
    sides: tuple[FoundEncoder, ...] = ()

    @property
    def inputs(self) -> dict[str, Artifact]:
        """The artifact that it is, by its role."""
        return {ROLE: self.artifact} if self.artifact else {}

    @property
    def content(self) -> str:
        """What identifies a folder's files (they are read); "" of anything else."""
        outside = self.artifact is None and is_dir(Path(self.where))
        return fingerprint(self.where) if outside else ""

    @property
    def called(self) -> str:
        """What messages call it."""
        return self.artifact.ref if self.artifact else self.where

    def load(self, device: Any, report: Reporter | None = None) -> TextEncoder:
        """The encoder itself.

        Raises: as :func:`dclip.guidance.clip.load_guide`.
        """
        return KINDS[self.kind](self, device, report)


def _clip(found: FoundEncoder, device: Any, report: Reporter | None) -> TextEncoder:
    from dclip.encoders.clip import ClipEncoder

    clip = FoundClip(found.where, found.artifact)
    return ClipEncoder(clip.load(device, report), found.called)


def _hf_clip(found: FoundEncoder, device: Any, _report: Reporter | None) -> TextEncoder:
    from dclip.encoders.hf_clip import HfClipEncoder

    return HfClipEncoder(Path(found.where), device, found.called)


def _bert(found: FoundEncoder, device: Any, _report: Reporter | None) -> TextEncoder:
    from dclip.encoders.bert import BertEncoder

    return BertEncoder(Path(found.where), device, found.called)


def _attributes(found: FoundEncoder, device: Any, _report: Reporter | None) -> TextEncoder:
    from dclip.encoders.attributes import AttributeEncoder

    return AttributeEncoder(found.names, device)


def _map(found: FoundEncoder, device: Any, report: Reporter | None) -> TextEncoder:
    from dclip.encoders.mapped import MappedEncoder, load_map

    source, target = (side.load(device, report) for side in found.sides)
    return MappedEncoder(source, target, load_map(Path(found.where), device), found.called)


KINDS: dict[str, Callable[[FoundEncoder, Any, Reporter | None], TextEncoder]] = {
    "clip": _clip,
    "hf-clip": _hf_clip,
    "bert": _bert,
    "attributes": _attributes,
    "map": _map,
}
"""Kinds of text encoders: what loads one, its packages imported late."""


SIDES = ("from", "to")
"""What the encoders of a map are called among its inputs."""


def find_encoder(spec: str | None, store: Store, report: Reporter) -> FoundEncoder:
    """The text encoder that a user means.

    Args:
        spec: a CLIP, as :func:`dclip.guiding.find_clip` takes it, a map of encoders, a model that
            reads text, which stands for its encoder, or a folder of transformers with a BERT or a
            CLIP. None takes the embedded CLIP.

    Raises:
        MissingArtifact: none of these.
        BadInput: an artifact of another kind, or a folder of another network.
    """
    if spec is not None and (found := _of_store(spec, store)):
        return found
    try:
        clip = guiding.find_clip(spec or "embedded", store, report, "text encoder")
    except MissingArtifact as error:
        error.fix += ", or a folder of transformers with a BERT"
        raise
    if clip.artifact is None and is_dir(Path(clip.where)):
        folder = Path(clip.where).resolve()
        return FoundEncoder(_kind_of(folder), str(folder))
    return FoundEncoder("clip", clip.where, clip.artifact)


def _of_store(spec: str, store: Store) -> FoundEncoder | None:
    """A map, or the encoder of a model; a CLIP of that name comes first."""
    if _named(spec, "clip", store):
        return None
    for kind, found in (("encoder", _found_map), ("model", _of_model)):
        if artifact := _named(spec, kind, store):
            return found(artifact, store)
    return None


def _named(spec: str, kind: str, store: Store) -> Artifact | None:
    with suppress(MissingArtifact, BadInput):
        return store.resolve(spec, kind)
    return None


def _found_map(artifact: Artifact, store: Store) -> FoundEncoder:
    from dclip.encoders.mapped import read_map_info

    info = read_map_info(artifact.path)
    sides = tuple(
        _recorded(artifact, role, side, store)
        for role, side in zip(SIDES, (info.source, info.target), strict=True)
    )
    return FoundEncoder("map", str(artifact.path), artifact, sides=sides)


def _of_model(model: Artifact, store: Store) -> FoundEncoder:
    from dclip.models.checkpoint import read_info

    found = encoder_of(model, read_info(model.path).text, store)
    return replace(found, artifact=model) if found.where == str(model.path) else found


def _kind_of(folder: Path) -> str:
    """The kind of encoder that lies in a folder.

    Raises:
        BadInput: a network of transformers that is not read.
    """
    if (folder / "open_clip_config.json").is_file():
        return "clip"
    if (folder / "text_encoder").is_dir() and (folder / "tokenizer").is_dir():
        return "hf-clip"
    named = None
    with suppress(OSError, ValueError, AttributeError):
        named = json.loads((folder / "config.json").read_text()).get("model_type")
    if named is None:
        return "clip"  # which says what is missing
    if named not in OF_TRANSFORMERS:
        raise BadInput(
            f"{folder} holds a {named!r} of transformers, which dclip does not read as a text"
            " encoder",
            f"it reads {', '.join(sorted(OF_TRANSFORMERS))}, and CLIPs in open_clip's format",
        )
    return OF_TRANSFORMERS[named]


def encoder_of(model: Artifact, info: EncoderInfo | None, store: Store) -> FoundEncoder:
    """The text encoder that a model was trained with.

    Raises:
        BadInput: a model that reads no text, or an encoder that this dclip does not know.
        MissingArtifact: the encoder is gone.
    """
    if info is None:
        raise BadInput(
            f"{model.ref} reads no text: it was trained without captions",
            "leave --prompt out, steer it with --guide, or train one with --condition text",
        )
    if info.kind not in KINDS:
        raise BadInput(f"unknown text encoder {info.kind!r}", f"this dclip has {', '.join(KINDS)}")
    if info.names:
        return FoundEncoder(info.kind, info.where, names=info.names)
    if info.where == WITHIN:
        return FoundEncoder(info.kind, str(model.path))
    return _recorded(model, ROLE, info, store)


def _recorded(owner: Artifact, role: str, info: EncoderInfo, store: Store) -> FoundEncoder:
    """The encoder that an artifact was made with.

    Raises:
        MissingArtifact: it is gone, or its files have changed.
    """
    if role in owner.manifest.inputs:
        artifact = store.input(owner, role)
        if artifact.kind == "encoder":
            return _found_map(artifact, store)
        return FoundEncoder(info.kind, str(artifact.path), artifact)
    found = FoundEncoder(info.kind, info.where)
    if info.content and found.content != info.content:
        changed = "has changed" if is_dir(Path(info.where)) else "is gone"
        raise MissingArtifact(
            f"the text encoder of {owner.ref} {changed}: {info.where}",
            "put back the folder that it was made with",
        )
    return found
