"""Token states of a text tower that contrastive training does not read, held where they were.

The contrastive loss reads a prompt's embedding, which a CLIP makes of the state at the prompt's
end. The other states move with the weights all the same, and a diffusion model reads them all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dclip.encoders.clip import Reader
from dclip.errors import BadInput
from dclip.guidance.clip import Guide


class HeldTokens:
    """How far a text tower's states are from those of another one, for each of some prompts.

    Args:
        now: the CLIP that is trained.
        before: the one that it began as; its image tower is dropped, which nothing asks.

    Raises:
        BadInput: a text tower whose embedding is not made of the end's state alone.
    """

    def __init__(self, now: Guide, before: Guide) -> None:
        self._now, self._before = Reader(now), Reader(before)
        if self._now.of_transformers:
            raise BadInput(
                f"{before.name} has a text tower of transformers, whose states cannot be held",
                "leave --hold-tokens out",
            )
        before.model.visual = None  # type: ignore[assignment]
        before.model.requires_grad_(False)

    def __call__(self, ids: Tensor) -> Tensor:
        """Mean square change of the states of token ids (N, L), a prompt each (N,).

        Padding counts, which Stable Diffusion reads too; the end does not.
        """
        with torch.no_grad():
            _, before = self._before(ids)
        _, now = self._now(ids)
        change = (now.float() - before.float()).square().mean(-1)
        kept = torch.ones_like(change).scatter(1, ids.argmax(dim=1, keepdim=True), 0.0)
        moved: Tensor = (change * kept).sum(1) / kept.sum(1)
        return moved
