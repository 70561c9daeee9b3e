"""Known attributes in a text's place: each is asked for, ruled out, or left open."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dclip.config import nearest
from dclip.diffusion.conditioning import Condition
from dclip.encoders.contract import EncoderInfo
from dclip.errors import BadInput

_NOT = re.compile(r"(?:not|no|without|-)\s*(?=\S)", re.IGNORECASE)
_VALUES = {"1": 1, "+1": 1, "0": -1, "-1": -1}


class AttributeEncoder:
    """Prompts such as ``"smiling, not eyeglasses"`` as one number an attribute.

    1 asks for it, -1 rules it out, 0 leaves it open: the values of a data artifact's attributes.
    They are the pooled embedding of the condition; tokens there are none.

    Args:
        names: the attributes, in the order in which the network reads them.
        device: where conditions are made.
    """

    def __init__(self, names: Sequence[str], device: str | torch.device = "cpu") -> None:
        self.names, self.device = tuple(names), torch.device(device)
        self.name = f"the attributes {', '.join(names)}"
        self.info = EncoderInfo(
            kind="attributes", where="", width=0, context=0, pooled=len(names), names=self.names
        )
        self._number = {_plain(name): i for i, name in enumerate(names)}

    @property
    def tower(self) -> Mapping[str, Tensor]:
        """As :meth:`dclip.encoders.contract.TextEncoder.tower`: there are none."""
        return {}

    def encode(self, prompts: Sequence[str]) -> Condition:
        """As :meth:`dclip.encoders.contract.TextEncoder.encode`.

        Raises:
            BadInput: an attribute that it does not know; names the nearest.
        """
        return self.condition(self.values(prompts))

    def condition(self, values: NDArray[np.int8]) -> Condition:
        """Attributes (N, names) of -1, 0 or 1 as a condition."""
        n = len(values)
        pooled = torch.from_numpy(values.astype(np.float32)).to(self.device)
        nothing = torch.zeros(n, 0, 0, device=self.device)
        return Condition(nothing, nothing.sum(2).bool(), pooled)

    def values(self, prompts: Sequence[str]) -> NDArray[np.int8]:
        """What each prompt asks of each attribute, (N, names); raises as :meth:`encode`."""
        found = np.zeros((len(prompts), len(self.names)), dtype=np.int8)
        for row, prompt in zip(found, prompts, strict=True):
            for word in filter(None, map(str.strip, prompt.split(","))):
                number, value = self._read(word)
                if row[number] not in (0, value):
                    raise BadInput(
                        f"{prompt!r} asks for {self.names[number]} and rules it out",
                        "name it once",
                    )
                row[number] = value
        return found

    def prompt(self, values: NDArray[np.int8]) -> str:
        """The prompt of one row of :meth:`values`, without what is left open."""
        words = [
            name if value > 0 else f"not {name}"
            for name, value in zip(self.names, values, strict=True)
            if value
        ]
        return ", ".join(words)

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """As :meth:`dclip.encoders.contract.TextEncoder.ids`: there are no tokens, (N, 0)."""
        return torch.zeros(len(prompts), 0, dtype=torch.int64, device=self.device)

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """As :meth:`dclip.encoders.contract.TextEncoder.lengths`: 0 each."""
        return [0] * len(prompts)

    def warning(self, prompt: str) -> str | None:
        """None: an unknown word is an error."""
        return None

    def _read(self, word: str) -> tuple[int, int]:
        """The attribute's number and what is asked of it."""
        name, equals, said = word.partition("=")
        value = _VALUES.get(said.strip()) if equals else 1
        if value is None:
            raise BadInput(f"{word!r} is neither on nor off", f"write {name}=1 or {name}=0")
        denied = _NOT.match(name)
        # Where an attribute is called No_Beard, "no beard" is that attribute.
        if denied and (name.startswith("-") or _plain(name) not in self._number):
            name, value = name[denied.end() :], -value
        number = self._number.get(_plain(name))
        if number is None:
            raise BadInput(
                f"the model knows no attribute {name.strip()!r}",
                f"{nearest(name.strip(), self.names)}; several are written 'smiling, not"
                " eyeglasses'",
            )
        return number, value


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip().lower()).strip()
