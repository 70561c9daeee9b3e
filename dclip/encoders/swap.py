"""Another text encoder in the place of the one that a model was trained with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dclip.context import Reporter
from dclip.encoders.contract import EncoderInfo, TextEncoder
from dclip.encoders.find import FoundEncoder, encoder_of, find_encoder
from dclip.errors import BadInput
from dclip.store import Artifact, Store

SWAPPED = "encoder"
"""What an encoder in another one's place is called among the inputs of an artifact."""

_PROBE = "a photo 1"  # which two vocabularies number differently


@dataclass(frozen=True)
class SwappedEncoder:
    """A text encoder in the place of a model's own, not loaded yet.

    Attributes:
        model: the model's reference.
        text: what the model reads.
        own: the model's own encoder.
        other: what takes its place.
        mix: how far the weights go from the own tower's to the other one's, 0 to 1; None takes the
            other one as it is.
    """

    model: str
    text: EncoderInfo
    own: FoundEncoder
    other: FoundEncoder
    mix: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes that it reads: none, it reads text."""
        return ()

    @property
    def inputs(self) -> dict[str, Artifact]:
        """The artifacts that it is made of, by their roles."""
        own = {} if self.mix is None else self.own.inputs
        return own | ({SWAPPED: self.other.artifact} if self.other.artifact else {})

    @property
    def settings(self) -> dict[str, Any]:
        """What identifies it in a config, beside the inputs."""
        outside = None if self.other.artifact else self.other.content or self.other.where
        return {"encoder": outside} | ({} if self.mix is None else {"mix": self.mix})

    def load(self, device: Any, report: Reporter) -> TextEncoder:
        """The encoder itself; warned of where the model has never seen its states.

        Raises:
            BadInput: states of a width that the model does not read, or towers that cannot be
                mixed.
            As :meth:`dclip.encoders.find.FoundEncoder.load`.
        """
        other = self.other.load(device, report)
        if self.mix is not None:
            mix(self.own.load(device, report), other, self.mix)
        if other.info.width != self.text.width:
            raise BadInput(
                f"{other.name} makes states of {other.info.width} numbers, and {self.model} reads"
                f" {self.text.width}",
                f"train a linear map, `dclip encoder map --from {self.other.called} --to"
                f" {self.model}`, or a model that reads it from the start, `dclip train --condition"
                f" text --encoder {self.other.called}`",
            )
        if said := self._unseen(other):
            report.warn(said)
        return other

    def _unseen(self, other: TextEncoder) -> str | None:
        """What to warn of, or None where the states are the own ones, or mapped to these."""
        made = self.other.sides[1] if self.other.sides else self.other
        if same(made, self.own) or self.mix == 0:
            return None
        said = f"{self.model} was trained on the states of {self.own.called} and never saw those"
        said += f" of {other.name}: its pictures may not follow the prompt"
        if self.text.pooled and other.info.pooled != self.text.pooled:
            said += "; as the whole prompt's embedding it gets the empty prompt's"
        return said


def encoder_for(
    spec: str | None,
    mix: float | None,
    model: Artifact,
    text: EncoderInfo | None,
    store: Store,
    report: Reporter,
) -> FoundEncoder | SwappedEncoder:
    """A model's own encoder, or the one that a user puts in its place.

    Args:
        spec: as :func:`dclip.encoders.find.find_encoder` takes it; None is the model's own.
        mix: see :class:`SwappedEncoder`.
        text: what the model reads.

    Raises:
        BadInput: a model that reads no text.
        MissingArtifact: no such encoder, or the model's own is gone.
    """
    own = encoder_of(model, text, store)
    if spec is None:
        return own
    if own.names or text is None:
        raise BadInput(
            f"{model.ref} reads attributes, and no text encoder makes those",
            "leave --encoder out, or take a model that was trained with --condition text",
        )
    return SwappedEncoder(model.ref, text, own, find_encoder(spec, store, report), mix)


def same(one: FoundEncoder, other: FoundEncoder) -> bool:
    """Whether two are one encoder."""
    if one.artifact is not None and other.artifact is not None:
        return one.artifact.id == other.artifact.id
    if Path(one.where) == Path(other.where):
        return True
    return bool(one.content) and one.content == other.content


def mix(own: TextEncoder, other: TextEncoder, share: float) -> None:
    """Move the weights of ``other`` to ``own + share (other - own)``.

    A fine-tuned network and its original can be averaged, weight by weight (Wortsman et al. 2022,
    2109.01903, section 3); two that were trained apart cannot.

    Args:
        own, other: encoders of one architecture; ``other`` is changed.
        share: 0 is the own tower, 1 the other.

    Raises:
        BadInput: towers of two architectures, or with two tokenizers.
    """
    before, after = own.tower, other.tower
    shapes = [{name: w.shape for name, w in tower.items()} for tower in (before, after)]
    alike = bool(after) and shapes[0] == shapes[1]
    if not alike or not torch.equal(own.ids([_PROBE]), other.ids([_PROBE])):
        raise BadInput(
            f"{own.name} and {other.name} are not of one architecture, so their weights cannot be"
            " mixed",
            "leave --mix out, or name a CLIP that was trained on from the model's own: `dclip clip"
            " train --init CLIP`",
        )
    with torch.no_grad():
        for name, weight in after.items():
            weight.copy_(torch.lerp(before[name].to(weight), weight, share))
