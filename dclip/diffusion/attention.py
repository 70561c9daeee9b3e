"""Attention that one picture of a batch takes from another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from torch import Tensor

OWN = -1
"""In :attr:`Borrowed.tokens`: a token that keeps its own map."""


@dataclass(frozen=True)
class Borrowed:
    """Which rows of a batch take the attention of which, in one network call.

    Attributes:
        rows: int64 (N,), the row whose attention row i takes; i itself takes none.
        tokens: int64 (N, L), for each token of row i's prompt the token of row ``rows[i]``'s prompt
            whose map over the picture it takes, or :data:`OWN`.
        layout: whether self-attention is taken too: which place looks at which.
    """

    rows: Tensor
    tokens: Tensor
    layout: bool = False

    def maps(self, own: Tensor) -> Tensor:
        """Cross-attention (N, heads, positions, L) with the borrowed maps in place.

        Hertz et al. 2022, "Prompt-to-Prompt Image Editing with Cross Attention Control"
        (2208.01626), sections 3.2 and A. As there, what a position gives to all tokens together is
        not brought back to 1.
        """
        take = (self.tokens != OWN)[:, None, None, :]
        index = self.tokens.clamp_min(0)[:, None, None, :].expand_as(own)
        return own.where(~take, own[self.rows].gather(-1, index))


def aligned(source: Sequence[int], target: Sequence[int]) -> list[int]:
    """For each token of a prompt the token of another that it stands for, or :data:`OWN`.

    Equal runs stand for each other, and so do runs of equal length in the same place: a word put in
    another's. What was added stands for nothing.

    Args:
        source, target: token ids of the two prompts.
    """
    found = [OWN] * len(target)
    matcher = SequenceMatcher(None, list(source), list(target), autojunk=False)
    for kind, i, i_end, j, j_end in matcher.get_opcodes():
        if kind == "equal" or (kind == "replace" and i_end - i == j_end - j):
            found[j:j_end] = range(i, i_end)
    return found
