"""The contract of text encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Protocol

from annotated_types import Ge, Le
from torch import Tensor

from dclip.config import settings
from dclip.diffusion.conditioning import Condition
from dclip.errors import BadInput


@settings
class EncoderInfo:
    """The text encoder that a network was trained with, as its ``model.json`` names it.

    Attributes:
        kind: a name in :data:`dclip.encoders.find.KINDS`.
        where: what loads it, where it is no artifact: ``NAME:TAG``, a folder, ``hf-hub:ORG/REPO``;
            for an artifact, which the lineage names, its reference when it was used.
        width: of a token's state; 0 where there are no tokens.
        context: tokens that it reads at most.
        pooled: width of the embedding of a whole prompt; 0 where there is none.
        names: of the attributes that it reads, where it reads no text.
        content: what identifies its files, where it is a folder outside the store.
    """

    kind: str
    where: str
    width: Annotated[int, Ge(0), Le(65536)]
    context: Annotated[int, Ge(0), Le(65536)]
    pooled: Annotated[int, Ge(0), Le(65536)] = 0
    names: tuple[str, ...] = ()
    content: str = ""


class TextEncoder(Protocol):
    """Prompts to a :class:`dclip.diffusion.conditioning.Condition`."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def info(self) -> EncoderInfo:
        """What it is, and its widths."""

    @property
    def tower(self) -> Mapping[str, Tensor]:
        """The weights that its states are made with, by name."""

    def encode(self, prompts: Sequence[str]) -> Condition:
        """A row for each prompt, without gradient; ``""`` is the empty prompt.

        Raises:
            BadInput: a prompt that is too long, or no text.
        """

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """Token ids (N, L) int64: equal ids are the same piece of text."""

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """How many tokens each prompt has, with its start and its end, without padding."""

    def warning(self, prompt: str) -> str | None:
        """One line about words of ``prompt`` that it was never trained on, or None."""


def check_length(name: str, prompt: str, length: int, longest: int) -> None:
    """Refuse a prompt that is cut off.

    Raises:
        BadInput: more tokens than the encoder reads, or no text.
    """
    if length > longest:
        raise BadInput(
            f"the prompt has {length} tokens, but {name} reads at most {longest}:"
            f" {prompt[:40]!r}...",
            "shorten it",
        )
