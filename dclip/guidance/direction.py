"""The direction from source to target prompts in a CLIP's space, and pictures measured along it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dclip.guidance.clip import Guide, Move

FEWEST_FOR_SPREAD = 16
"""Of fewer photos the mean over a quarter of them depends too much on which photos they are."""


@dataclass(frozen=True)
class Direction:
    """A CLIP, and the difference between target and source prompts in its space."""

    guide: Guide
    move: Move

    def cosine(self, edits: Tensor, photos: Tensor) -> Tensor:
        """S_dir: cosine between the pictures' difference and the text's, (B,), of (B, 3, H, W)."""
        return self.move.cosine(self.guide.embed_image(edits), self.guide.embed_image(photos))

    def scores(self, x: Tensor) -> Tensor:
        """How far pictures (B, 3, H, W) are along the direction from each source to the target.

        Returns:
            (B, K), above 0 where the target is nearer than the source.
        """
        return self.guide.embed_image(x) @ self.move.units().T

    def as_far_as_photos(self, scores: Tensor) -> Direction:
        """The same direction, with the length by which photos differ along it.

        The length is the mean of the highest tenth of the scores less the mean of the lowest
        quarter. The distance between the prompts is a poor measure of an edit: over several CLIPs
        and prompts it was from a seventh to twice that length. With fewer than
        :data:`FEWEST_FOR_SPREAD` photos it is kept all the same.

        Args:
            scores: of the photos, as :meth:`scores` returns them, (N, K).
        """
        if len(scores) < FEWEST_FOR_SPREAD:
            return self
        tenth, quarter = max(1, len(scores) // 10), max(1, len(scores) // 4)
        ordered = scores.sort(dim=0).values
        spreads = ordered[-tenth:].mean(0) - ordered[:quarter].mean(0)
        lengths = self.lengths()
        return replace(
            self, move=self.move.lengthened(torch.where(spreads > 0, spreads.to(lengths), lengths))
        )

    def lengths(self) -> Tensor:
        """The length of the direction from each source, (K,)."""
        lengths: Tensor = self.move.differences.norm(dim=-1)
        return lengths
