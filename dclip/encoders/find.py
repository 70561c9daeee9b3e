"""From what a user or a model says to a text encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
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

WITHIN = "."
"""Where an encoder is that lies in the model's own folder."""


@dataclass(frozen=True)
class FoundEncoder:
    """A text encoder that is found, and not loaded yet.

    Attributes:
        kind: a name in :data:`KINDS`.
        clip: the CLIP whose text tower it is; for an encoder within a model, its folder.
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
        return KINDS[self.kind](self.clip, device, report)


def _clip(found: FoundClip, device: Any, report: Reporter | None) -> TextEncoder:
    from dclip.encoders.clip import ClipEncoder

    where = found.artifact.ref if found.artifact else found.where
    return ClipEncoder(found.load(device, report), where)


def _hf_clip(found: FoundClip, device: Any, _report: Reporter | None) -> TextEncoder:
    from dclip.encoders.hf_clip import HfClipEncoder

    return HfClipEncoder(Path(found.where), device, found.where)


KINDS: dict[str, Callable[[FoundClip, Any, Reporter | None], TextEncoder]] = {
    "clip": _clip,
    "hf-clip": _hf_clip,
}
"""Kinds of text encoders: what loads one, its packages imported late."""


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
    if info.where == WITHIN:
        return FoundEncoder(info.kind, FoundClip(str(model.path)))
    if ROLE in model.manifest.inputs:
        artifact = store.input(model, ROLE)
        return FoundEncoder(info.kind, FoundClip(str(artifact.path), artifact))
    return FoundEncoder(info.kind, FoundClip(info.where))
