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
from dclip.errors import BadInput, CorruptArtifact, MissingArtifact
from dclip.fingerprints import fingerprint, is_dir
from dclip.guiding import FoundClip
from dclip.store import Artifact, Store

if TYPE_CHECKING:
    from dclip.encoders.contract import EncoderInfo, TextEncoder

ROLE = "text"
"""What a text encoder is called among the inputs of an artifact."""

WITHIN = "."
"""Where an encoder is that lies in the model's own folder."""

MAP = "map.json"
"""What describes a linear map, see :mod:`dclip.encoders.linear`."""

OF_TRANSFORMERS = {"bert": "bert", "clip": "hf-clip", "clip_text_model": "hf-clip"}
"""The kind of each ``model_type`` of transformers that is read."""


@dataclass(frozen=True)
class FoundEncoder:
    """A text encoder that is found, and not loaded yet.

    Attributes:
        kind: a name in :data:`KINDS`.
        where: its folder, or what :func:`dclip.guidance.clip.load_guide` takes.
        artifact: the artifact that it is, or lies in.
        source: of a linear map, the encoder whose states it maps.
    """

    kind: str
    where: str
    artifact: Artifact | None = None
    source: FoundEncoder | None = None

    @property
    def inputs(self) -> dict[str, Artifact]:
        """The artifact that it is, by its role."""
        return {ROLE: self.artifact} if self.artifact else {}

    @property
    def called(self) -> str:
        """What messages call it."""
        return self.artifact.ref if self.artifact else self.where

    @property
    def key(self) -> str:
        """What identifies it: the artifact's id, else its name, or its files' content (read)."""
        return self.artifact.id if self.artifact else fingerprint(self.where)

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


def _map(found: FoundEncoder, device: Any, report: Reporter | None) -> TextEncoder:
    from dclip.encoders.linear import MappedEncoder, load_map

    assert found.source is not None
    source = found.source.load(device, report)
    return MappedEncoder(source, load_map(Path(found.where)), found.called)


KINDS: dict[str, Callable[[FoundEncoder, Any, Reporter | None], TextEncoder]] = {
    "clip": _clip,
    "hf-clip": _hf_clip,
    "bert": _bert,
    "map": _map,
}
"""Kinds of text encoders: what loads one, its packages imported late."""


def find_encoder(spec: str | None, store: Store, report: Reporter) -> FoundEncoder:
    """The text encoder that a user means.

    Args:
        spec: a CLIP, as :func:`dclip.guiding.find_clip` takes it; a folder of transformers with a
            BERT or a CLIP; a linear map of the store (``encoder/NAME``), or a model of it
            (``model/NAME``), whose own encoder is meant. None takes the embedded CLIP.

    Raises:
        MissingArtifact: none of these.
        BadInput: an artifact of another kind, or a folder of another network.
    """
    spec = spec or "embedded"
    try:
        found = guiding.find_clip(spec, store, report)
    except (MissingArtifact, BadInput) as error:
        if (other := _other(spec, store)) is not None:
            return other
        if isinstance(error, MissingArtifact):
            error.fix += ", or a folder of transformers with a BERT"
        raise
    if found.artifact is None and is_dir(Path(found.where)):
        return FoundEncoder(_kind_of(Path(found.where)), found.where)
    return FoundEncoder("clip", found.where, found.artifact)


def _other(spec: str, store: Store) -> FoundEncoder | None:
    """The linear map or the model's encoder of that name."""
    for kind in ("encoder", "model"):
        try:
            artifact = store.resolve(spec, kind)
        except (MissingArtifact, BadInput):
            continue
        return _mapped(artifact, store) if kind == "encoder" else _within(artifact, store)
    return None


def _within(model: Artifact, store: Store) -> FoundEncoder:
    from dclip.models.checkpoint import read_info

    found = encoder_of(model, read_info(model.path).text, store)
    return found if found.artifact else replace(found, artifact=model)


def _mapped(artifact: Artifact, store: Store) -> FoundEncoder:
    """A linear map, with the encoder whose states it maps."""
    try:
        told = json.loads((artifact.path / MAP).read_text())["from"]
        kind, where = str(told["kind"]), str(told["where"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise CorruptArtifact(f"{artifact.ref} has no readable {MAP}", "make it again") from e
    begins = None
    if "from" in artifact.manifest.inputs:
        begins = store.input(artifact, "from")
        where = str(begins.path)
    return FoundEncoder("map", str(artifact.path), artifact, FoundEncoder(kind, where, begins))


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
    if info.where == WITHIN:
        return FoundEncoder(info.kind, str(model.path))
    if ROLE in model.manifest.inputs:
        artifact = store.input(model, ROLE)
        if info.kind == "map":
            return _mapped(artifact, store)
        return FoundEncoder(info.kind, str(artifact.path), artifact)
    if info.kind != "clip" and not is_dir(Path(info.where)):
        raise MissingArtifact(
            f"the text encoder of {model.ref} is gone: {info.where}", "put the folder back"
        )
    return FoundEncoder(info.kind, info.where)
