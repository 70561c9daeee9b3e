"""From what a user or a model says to a text encoder."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dclip import guiding
from dclip.context import Reporter
from dclip.errors import BadInput
from dclip.guiding import FoundClip
from dclip.store import Artifact, Store

if TYPE_CHECKING:
    from dclip.encoders.contract import EncoderInfo, TextEncoder

ROLE = "text"
"""What a text encoder is called among the inputs of an artifact."""


@dataclass(frozen=True)
class FoundEncoder:
    """A text encoder that is found, and not loaded yet.

    Attributes:
        kind: a name in :data:`KINDS`.
        clip: the CLIP whose text tower it is.
    """

    kind: str
    clip: FoundClip

    @property
    def inputs(self) -> dict[str, Artifact]:
        """The artifact that it is, by its role."""
        return {ROLE: self.clip.artifact} if self.clip.artifact else {}

    def load(self, device: Any, report: Reporter | None = None) -> TextEncoder:
        """The encoder itself.

        Raises: as :func:`dclip.guidance.clip.load_guide`.
        """
        where = self.clip.artifact.ref if self.clip.artifact else self.clip.where
        made: TextEncoder = KINDS[self.kind]()(self.clip.load(device, report), where)
        return made


def _clip() -> Any:
    return importlib.import_module("dclip.encoders.clip").ClipEncoder


KINDS = {"clip": _clip}
"""Kinds of text encoders: what builds one, imported late."""


def find_encoder(spec: str | None, store: Store, report: Reporter) -> FoundEncoder:
    """The text encoder that a user means: a CLIP, as :func:`dclip.guiding.find_clip` takes it.

    Args:
        spec: None takes the embedded CLIP.

    Raises:
        MissingArtifact, BadInput: as :func:`dclip.guiding.find_clip`.
    """
    return FoundEncoder("clip", guiding.find_clip(spec or "embedded", store, report))


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
    if ROLE in model.manifest.inputs:
        artifact = store.input(model, ROLE)
        return FoundEncoder(info.kind, FoundClip(str(artifact.path), artifact))
    return FoundEncoder(info.kind, FoundClip(info.where))
