"""Where a text sends pictures, in the eyes of a CLIP."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dclip.guidance.clip import Guide, Move

FEWEST_FOR_SPREAD = 16  # pictures: of fewer a quarter is nobody in particular


@dataclass(frozen=True)
class Direction:
    """A CLIP, and where a text sends pictures in its space."""

    guide: Guide
    move: Move

    def cosine(self, edits: Tensor, photos: Tensor) -> Tensor:
        """S_dir: cosine between the pictures' move and the text's, (B,), of (B, 3, H, W) each."""
        return self.move.cosine(self.guide.embed_image(edits), self.guide.embed_image(photos))

    def scores(self, x: Tensor) -> Tensor:
        """How much pictures (B, 3, H, W) look like the target, along the way from each source.

        Returns:
            (B, K), above 0 where the target is nearer than the source.
        """
        return self.guide.embed_image(x) @ self.move.units().T

    def as_far_as_photos(self, scores: Tensor) -> Direction:
        """The same way, as far as photos that show the target most lie from those that do least.

        The prompts' distance is no measure of a picture's edit: between CLIPs, and between prompts
        of one CLIP, it is from a seventh to twice of what sets photos apart. Of fewer than
        :data:`FEWEST_FOR_SPREAD` photos it is all there is.

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
        """How far the text sends a picture, from each source, (K,)."""
        lengths: Tensor = self.move.differences.norm(dim=-1)
        return lengths
