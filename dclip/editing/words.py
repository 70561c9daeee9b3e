"""Edits by words: what a photo shows, and what its edit is to show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dclip.context import Reporter
from dclip.diffusion.conditioning import ClassifierFree, Condition, ConditionalModel
from dclip.encoders.attributes import AttributeEncoder
from dclip.encoders.find import FoundEncoder
from dclip.encoders.swap import SwappedEncoder
from dclip.errors import BadInput
from dclip.store import Artifact


@dataclass(frozen=True)
class Wording:
    """An edit by words, before the encoder is loaded.

    Attributes:
        encoder: what reads the words: that of the model, or one in its place.
        target: what the edit is to show.
        source: what the photo shows.
        scale: how far along the difference of the two predictions, at strength 1.
    """

    encoder: FoundEncoder | SwappedEncoder
    target: str
    source: str
    scale: float

    @property
    def settings(self) -> dict[str, Any]:
        """What identifies it in a config."""
        swapped = self.encoder.settings if isinstance(self.encoder, SwappedEncoder) else {}
        return {"prompt": self.target, "source": self.source, "cfg": self.scale, **swapped}

    @property
    def inputs(self) -> dict[str, Artifact]:
        """The encoder, where it is an artifact."""
        return self.encoder.inputs

    def load(self, device: Any, report: Reporter) -> Words:
        """Read the words.

        Raises:
            BadInput: words that the encoder cannot read.
        """
        encoder = self.encoder.load(device, report)
        for prompt in (self.source, self.target):
            if said := encoder.warning(prompt):
                report.warn(said)
        return Words(encoder.encode([self.source]), encoder.encode([self.target]), self.scale)


SCALE_OF_ATTRIBUTES, SCALE_OF_CAPTIONS = 1.5, 3.0  # docs/words.md has what they reach


def wording(
    encoder: FoundEncoder | SwappedEncoder,
    target: str,
    source: str | None,
    scale: float | None = None,
) -> Wording:
    """An edit by words as a user says it.

    Of attributes, ``target`` names those that are to change, and every other stays what ``source``
    says; of text, each is the whole prompt.

    Args:
        encoder: what reads the words: that of the model, or one in its place.
        target: what the edit is to show.
        source: what the photo shows; None is the empty prompt, or of attributes the opposite of
            those in ``target``.
        scale: see :class:`Wording`; None is the one measured for attributes or captions.

    Raises:
        BadInput: attributes that the model does not know, or an edit that asks for nothing.
    """
    before, after = source or "", target
    if encoder.names:
        reader = AttributeEncoder(encoder.names)
        asked = reader.values([target])[0]
        said = -asked if source is None else reader.values([source])[0]
        before, after = reader.prompt(said), reader.prompt(asked + said * (asked == 0))
    if before.strip() == after.strip():
        raise BadInput(
            f"the edit {target!r} asks for nothing that the photo does not show",
            "say in --prompt what is to change, and in --source what the photo shows",
        )
    if scale is None:
        scale = SCALE_OF_ATTRIBUTES if encoder.names else SCALE_OF_CAPTIONS
    return Wording(encoder, after, before, scale)


@dataclass(frozen=True)
class Words:
    """An edit by words for a network: one source and one target for all photos.

    Attributes:
        source, target: one row each.
        scale: see :class:`Wording`.
    """

    source: Condition
    target: Condition
    scale: float

    def over(
        self, model: ConditionalModel, strength: float, seen: Differences | None = None
    ) -> ClassifierFree:
        """``eps_source + strength scale (eps_target - eps_source)``; at strength 0 the source's.

        Args:
            seen: told of each difference.
        """
        scale = strength * self.scale
        watch = None if seen is None else seen.add
        return ClassifierFree(model, self.target, self.source, scale, watch=watch)


class Differences:
    """Where the predictions of two prompts differ: the mask of DiffEdit (2210.11427, section 3.2).

    It is averaged over the steps of the edit's own decode, each by its mean, and not over noisings
    of the photo, which would take network calls of their own.
    """

    def __init__(self) -> None:
        self._sum: Tensor | None = None

    def add(self, difference: Tensor) -> None:
        """Take in one step's (B,C,H,W)."""
        size = difference.detach().float().abs().mean(1, keepdim=True)
        size = size / size.mean((1, 2, 3), keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)
        self._sum = size if self._sum is None else self._sum + size

    @property
    def map(self) -> Tensor | None:
        """How much they differ, (B,1,H,W), of no unit; None before any step."""
        return self._sum
