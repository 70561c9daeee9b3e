"""Which token of one text encoder stands where a token of another one stands.

Two tokenizers cut one caption into different tokens, and both keep its words in their order. So a
token is placed by its word, and within the word by the share of the word that comes before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dclip.encoders.contract import TextEncoder


class Places:
    """Places of a target's tokens among a source's; counts of words are kept.

    Args:
        source, target: two text encoders.
    """

    def __init__(self, source: TextEncoder, target: TextEncoder) -> None:
        self._sides = (source, target)
        self._ends = [side.lengths([""])[0] for side in self._sides]
        self._words: list[dict[str, int]] = [{}, {}]

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """For each of the target's tokens (N, L) the number of the source's token, int64.

        The start stands for the start, and the end for the end and for the padding after it.

        Raises:
            BadInput: a prompt that one of them cannot read.
        """
        lengths = [side.lengths(prompts) for side in self._sides]
        self._count(sorted({word for text in prompts for word in text.split()}))
        context = self._sides[1].info.context
        found = torch.empty(len(prompts), context, dtype=torch.int64)
        for row, text, source, target in zip(found, prompts, *lengths, strict=True):
            places = self._places(text.split(), source, target)
            row[:target] = torch.tensor(places)
            row[target:] = source - 1
        return found

    def _count(self, words: Sequence[str]) -> None:
        """How many tokens each word has by itself, on both sides."""
        for side, ends, known in zip(self._sides, self._ends, self._words, strict=True):
            if new := [word for word in words if word not in known]:
                counts = [length - ends for length in side.lengths(new)]
                known |= dict(zip(new, counts, strict=True))

    def _places(self, words: Sequence[str], source: int, target: int) -> list[int]:
        spans = [[known[word] for word in words] for known in self._words]
        starts = [ends // 2 for ends in self._ends]
        inside = [length - ends for length, ends in zip((source, target), self._ends, strict=True)]
        if [sum(counts) for counts in spans] != inside or not all(spans[0]):
            # Tokens that reach over words: by their share of the whole prompt.
            spans = [[count] for count in inside]
        found = [0] * starts[1]
        at = starts[0]
        for have, want in zip(*spans, strict=True):
            found += [at + (2 * i + 1) * have // (2 * want) for i in range(want)]
            at += have
        found += [source - 1] * (target - len(found))
        return [min(place, source - 1) for place in found]
