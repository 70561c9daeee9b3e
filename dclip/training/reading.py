"""What a network that reads is shown beside each training picture: its caption or attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dclip.data.dataset import DataSet
from dclip.diffusion.conditioning import Condition
from dclip.encoders.attributes import AttributeEncoder
from dclip.encoders.contract import TextEncoder
from dclip.random import key, uniform, uniforms

EMPTY = 0.1  # share of training pictures that are shown with the empty prompt (2207.12598)
WHOLE = 0.5  # share of the others of which all attributes are shown

Keys = Sequence[tuple[str, int]]
"""(sample id, pass over the data) of each picture: they decide what is shown of it."""


class Reading(Protocol):
    """What a network reads of the pictures of a data artifact."""

    @property
    def encoder(self) -> TextEncoder:
        """What makes conditions of it."""

    def shown(self, part: NDArray[np.int64], keys: Keys) -> Condition:
        """The conditions of some pictures, a tenth of them empty."""

    def prompts(self, part: NDArray[np.int64]) -> list[str]:
        """All that is known of some pictures, as a user writes it."""


def parts_of(condition: Condition) -> tuple[Tensor, ...]:
    """A condition's tensors, in the order in which it takes them."""
    parts = (condition.tokens, condition.mask, condition.pooled)
    return tuple(part for part in parts if part is not None)


class Captions:
    """Each picture's caption, by a text encoder.

    Args:
        data: pictures with captions.
        encoder: what reads them.
        seed: decides, with a picture's key, whether its caption is left out.
    """

    def __init__(self, data: DataSet, encoder: TextEncoder, seed: int) -> None:
        self.data, self.encoder, self.seed = data, encoder, seed

    def shown(self, part: NDArray[np.int64], keys: Keys) -> Condition:
        """As :meth:`Reading.shown`."""
        coin = uniform([key(self.seed, "empty", *k) for k in keys])
        texts = self.prompts(part)
        return self.encoder.encode(
            [text if toss >= EMPTY else "" for text, toss in zip(texts, coin, strict=True)]
        )

    def prompts(self, part: NDArray[np.int64]) -> list[str]:
        """As :meth:`Reading.prompts`."""
        captions = self.data.captions
        return [captions[i] for i in part]


def attributes_of(data: DataSet) -> dict[str, NDArray[np.int8]]:
    """What is known of each sample: its attributes, and each style where there are several.

    Returns:
        1 yes, -1 no, 0 unknown, by name, (samples,) each.
    """
    found = {name: data.attribute(name) for name in data.attribute_names}
    styles = np.array(data.table.text("style"))
    names = sorted({*styles.tolist()} - {""})
    if len(names) > 1:
        found |= {name: _signs(styles, name) for name in names if name not in found}
    return found


def _signs(styles: NDArray[np.str_], name: str) -> NDArray[np.int8]:
    return np.where(styles == "", 0, np.where(styles == name, 1, -1)).astype(np.int8)


class Attributes:
    """Each picture's attributes: of half of them all, of the others each with one chance.

    That chance is drawn anew for each picture, so that a network learns what any number of known
    attributes says, one as well as all.

    Args:
        data: pictures with the attributes that the encoder names, see :func:`attributes_of`.
        encoder: what reads them.
        seed: decides, with a picture's key, which are shown.
    """

    def __init__(self, data: DataSet, encoder: AttributeEncoder, seed: int) -> None:
        self.encoder, self.seed = encoder, seed
        known = attributes_of(data)
        self.values = np.stack([known[name] for name in encoder.names], axis=1)

    def shown(self, part: NDArray[np.int64], keys: Keys) -> Condition:
        """As :meth:`Reading.shown`."""
        coin, chance = (
            uniform([key(self.seed, what, *k) for k in keys])[:, None]
            for what in ("empty", "known")
        )
        count = len(self.encoder.names)
        tosses = uniforms([key(self.seed, "attributes", *k) for k in keys], count)
        all_of_them = coin >= 1 - WHOLE * (1 - EMPTY)
        kept = (coin >= EMPTY) & (all_of_them | (tosses < chance))
        return self.encoder.condition(self.values[part] * kept.astype(np.int8))

    def prompts(self, part: NDArray[np.int64]) -> list[str]:
        """As :meth:`Reading.prompts`."""
        return [self.encoder.prompt(self.values[i]) for i in part]
