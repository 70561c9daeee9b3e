"""What fine-tuning minimises: a weighted sum of CLIP losses and losses on the pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dclip.configs.guidance import GuidanceConfig
from dclip.device import autocast
from dclip.guidance.direction import Direction
from dclip.guidance.kinds import LOSSES
from dclip.guidance.losses import colours
from dclip.guidance.views import augment, blur

WATCHED = ("direction", "identity")
"""Losses that are computed for the log even where their weight is 0."""


@dataclass(frozen=True)
class Objective:
    """The weighted sum of the losses of :data:`dclip.guidance.kinds.LOSSES`.

    Equation (8) of the report has three of them.

    Attributes:
        directions: frozen CLIPs, whose losses are averaged, and where the text sends a picture in
            each.
        guidance: weights, views, saturation, blur and goal_scale; all of them set.
        face: a face recognition network, where there is one.
        precision: what the networks compute in, ``"fp32"`` or ``"bf16"``. The views do not: a
            crop's corners in bfloat16 are up to half a pixel off at 256 pixels a side.
    """

    directions: Sequence[Direction]
    guidance: GuidanceConfig
    face: Callable[[Tensor], Tensor] | None = None
    precision: str = "fp32"

    def __call__(
        self, x: Tensor, reference: Tensor, draw: Callable[[int], Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of pictures against their references, and its terms before they are weighted.

        Args:
            x, reference: (B, 3, H, W) in [-1, 1]; gradients flow to ``x`` alone.
            draw: gives n numbers uniform in [0, 1) for the views and losses.

        Returns:
            The loss, a scalar, and the terms by name, scalars without gradients. A loss of weight 0
            is left out, except those of :data:`WATCHED`.
        """
        reference = reference.detach()
        seen, shown = self._views(x, reference, draw)
        given = {"x": x, "reference": reference, "draw": draw, "face": self.face}
        embedded = [self._embedded(each, seen, shown) for each in self.directions]
        loss, terms = x.new_zeros(()), {}
        for name, row in LOSSES.items():
            weight = self.guidance.weights.get(name, 0.0)
            if (not weight and name not in WATCHED) or ("face" in row.needs and self.face is None):
                continue
            sources: Sequence[Mapping[str, Any]] = embedded if row.by_clip else [given]
            function, term = row.load(), x.new_zeros(())
            for source in sources:
                with autocast(x.device, self.precision if "face" in row.needs else "fp32"):
                    values = function(**{need: source[need] for need in row.needs})
                term = term + values.mean() / len(sources)
            loss = loss + weight * term
            terms[name] = term.detach()
        return loss, terms

    def _views(
        self, x: Tensor, reference: Tensor, draw: Callable[[int], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """What the CLIPs see of pictures and references.

        Both get the same crops (as in FuseDream's AugCLIP), so that their embeddings differ by the
        edit alone. Colours are not augmented: a CLIP that sees random colours does not notice a
        tint in the edit.
        """
        views = self.guidance.views or 0
        if views:
            n = len(x) * views
            both = torch.cat([x.repeat(views, 1, 1, 1), reference.repeat(views, 1, 1, 1)])
            both = augment(both, draw, torch.arange(n).repeat(2), colour=0.0)
            x, reference = both[:n], both[n:]
            if self.guidance.blur:
                amount = self.guidance.blur * draw(n).to(x)
                x, reference = blur(x, amount), blur(reference, amount)
        saturation = self.guidance.saturation
        saturation = 1.0 if saturation is None else saturation
        return recoloured(x, saturation), recoloured(reference, saturation)

    def _embedded(self, direction: Direction, seen: Tensor, shown: Tensor) -> dict[str, Tensor]:
        with autocast(seen.device, self.precision):
            with torch.no_grad():
                before = direction.guide.embed_image(shown)
            after = direction.guide.embed_image(seen)
        difference = direction.move.of(before)
        return {
            "e_image": after,
            "e_reference": before,
            "difference": difference,
            "target": direction.move.end.to(after),
            "goal": (self.guidance.goal_scale or 1.0) * difference,
        }


def recoloured(x: Tensor, saturation: float) -> Tensor:
    """Pictures (B, 3, H, W) with their colours times ``saturation``; brightness stays."""
    if saturation == 1:
        return x
    return x + (saturation - 1) * colours(x)
