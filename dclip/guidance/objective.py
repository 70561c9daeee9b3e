"""What fine-tuning minimises: directional and goal losses over views, and identity losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dclip.device import autocast
from dclip.guidance.direction import Direction
from dclip.guidance.losses import (
    colour_l1,
    colourfulness,
    colours,
    directional,
    face_identity,
    goal,
    identity_l1,
    propagation,
    speckle,
    structure,
)
from dclip.guidance.views import augment, blur


@dataclass(frozen=True)
class Weights:
    """How much each loss counts.

    Attributes:
        direction: L_dir.
        goal: distance to the reference moved by the whole difference.
        identity: L1 to the reference.
        colour: the same of the colours alone. Where the guide sees none, nothing else holds them.
        speckle: of colours that vary from pixel to pixel.
        propagation: of pixels that look alike and change differently.
        grey: of colours that are left.
        structure: of local patterns that are lost.
        face: face-identity loss, given a network.
    """

    direction: float = 1.0
    goal: float = 0.0
    identity: float = 0.3
    colour: float = 0.0
    speckle: float = 0.0
    propagation: float = 0.0
    grey: float = 0.0
    structure: float = 0.0
    face: float = 0.0


@dataclass(frozen=True)
class Objective:
    """The losses of :class:`Weights`, weighed and added up; equation (8) of the report has three.

    Attributes:
        directions: frozen CLIPs, whose losses are averaged, and where the text sends a picture in
            each, as far as the edit is to move it.
        weights: the lambdas.
        views: augmented views of each picture that the guides see; 0 shows the picture itself.
            The picture and its reference get the same crops (as in FuseDream's AugCLIP), so
            that what differs between their embeddings is the edit.
        face: a face recognition network, where there is one.
        saturation: factor on the colours that the guides see, 1 as they are, 0 grey.
        goal_scale: the goal's distance, in lengths of the ``directions``.
        blur: most blur of a view, see :func:`dclip.guidance.views.blur`; needs views.
        precision: what the networks compute in, ``"fp32"`` or ``"bf16"``. The views do not: a
            crop's corners in bfloat16 are up to half a pixel off at 256 pixels a side.
    """

    directions: Sequence[Direction]
    weights: Weights
    views: int = 0
    face: Callable[[Tensor], Tensor] | None = None
    saturation: float = 1.0
    goal_scale: float = 1.0
    blur: float = 0.0
    precision: str = "fp32"

    def __call__(
        self, x: Tensor, reference: Tensor, draw: Callable[[int], Tensor]
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss of pictures against their references, and its terms before they are weighed.

        Args:
            x, reference: (B, 3, H, W) in [-1, 1]; gradients flow to ``x`` alone.
            draw: gives n numbers uniform in [0, 1) for the augmentation.
        """
        reference = reference.detach()
        seen, shown = x, reference
        if self.views:
            n = len(x) * self.views
            both = torch.cat([x.repeat(self.views, 1, 1, 1), reference.repeat(self.views, 1, 1, 1)])
            # Crops alone: a guide that sees changed colours lets the picture's own drift.
            both = augment(both, draw, torch.arange(n).repeat(2), colour=0.0)
            seen, shown = both[:n], both[n:]
            if self.blur:
                amount = self.blur * draw(n).to(seen)
                seen, shown = blur(seen, amount), blur(shown, amount)
        seen, shown = recoloured(seen, self.saturation), recoloured(shown, self.saturation)
        along, goals = [], []
        for each in self.directions:
            with autocast(x.device, self.precision):
                with torch.no_grad():
                    before = each.guide.embed_image(shown)
                after = each.guide.embed_image(seen)
            difference = each.move.of(before)
            along.append(directional(after, before, F.normalize(difference, dim=-1)).mean())
            goals.append(goal(after, before, self.goal_scale * difference).mean())
        weights = self.weights
        terms = {
            "direction": torch.stack(along).mean(),
            "goal": torch.stack(goals).mean(),
            "identity": identity_l1(x, reference).mean(),
        }
        # What does not count is not computed.
        if weights.colour:
            terms["colour"] = colour_l1(x, reference).mean()
        if weights.speckle:
            terms["speckle"] = speckle(x, reference).mean()
        if weights.propagation:
            terms["propagation"] = propagation(x, reference, draw).mean()
        if weights.grey:
            terms["grey"] = colourfulness(x).mean()
        if weights.structure:
            terms["structure"] = structure(x, reference).mean()
        if self.face is not None and weights.face:
            with autocast(x.device, self.precision):
                terms["face"] = face_identity(self.face, x, reference).mean()
        loss = x.new_zeros(())
        for name, term in terms.items():
            loss = loss + getattr(weights, name) * term
        parts = {name: float(term.detach()) for name, term in terms.items()}
        return loss, parts


def recoloured(x: Tensor, saturation: float) -> Tensor:
    """Pictures (B, 3, H, W) with their colours times ``saturation``; the luma stays."""
    if saturation == 1:
        return x
    return x + (saturation - 1) * colours(x)
