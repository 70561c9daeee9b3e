"""The text tower of a CLIP: token states after its last norm, and its embedding of the prompt."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dclip.diffusion.conditioning import Condition
from dclip.encoders.contract import EncoderInfo
from dclip.errors import BadInput
from dclip.guidance.clip import Guide

KEPT = 1 << 16  # captions whose tokens are kept: training reads each of them many times


class ClipEncoder:
    """A CLIP's text tower as a text encoder.

    Args:
        guide: the CLIP; its image tower is not used.
        where: see :class:`dclip.encoders.contract.EncoderInfo`.

    Raises:
        BadInput: a text tower without a last norm over its tokens.
    """

    def __init__(self, guide: Guide, where: str) -> None:
        self.guide, self.name = guide, guide.name
        self._reader = Reader(guide)
        self._row = lru_cache(KEPT)(self._tokenized)
        empty = self.encode([""])
        assert empty.pooled is not None
        self.info = EncoderInfo(
            kind="clip",
            where=where,
            width=empty.tokens.shape[2],
            context=empty.tokens.shape[1],
            pooled=empty.pooled.shape[1],
        )

    @property
    def tower(self) -> Mapping[str, Tensor]:
        """As :meth:`dclip.encoders.contract.TextEncoder.tower`."""
        named = self.guide.model.named_parameters()
        return {name: w for name, w in named if not name.startswith("visual.")}

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Condition:
        """As :meth:`dclip.encoders.contract.TextEncoder.encode`; ``pooled`` has unit length."""
        ids = self.ids(prompts)
        pooled, states = self._reader(ids)
        return Condition(
            states.float(), self._reader.mask(ids), F.normalize(pooled.float(), dim=-1)
        )

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """As :meth:`dclip.encoders.contract.TextEncoder.ids`.

        Raises:
            BadInput: a prompt that is too long, or no text.
        """
        rows = [self._row(prompt) for prompt in prompts]
        return torch.stack(rows).to(self.guide.mean.device)

    def _tokenized(self, prompt: str) -> Tensor:
        if prompt.strip():
            self.guide.check(prompt)
        row: Tensor = self.guide.tokenizer([prompt.strip()])[0]
        return row

    def warning(self, prompt: str) -> str | None:
        """As :meth:`dclip.encoders.contract.TextEncoder.warning`."""
        return self.guide.warning(prompt) if prompt.strip() else None

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """As :meth:`dclip.encoders.contract.TextEncoder.lengths`."""
        found: list[int] = self._reader.mask(self.ids(prompts)).sum(1).tolist()
        return found


class Reader:
    """Embeddings and token states of a CLIP's text tower, with gradient.

    Args:
        guide: the CLIP.

    Raises:
        BadInput: a text tower without a last norm over its tokens.
    """

    def __init__(self, guide: Guide) -> None:
        self.model: Any = guide.model
        tower: Any = getattr(guide.model, "text", guide.model)
        # A tower of transformers ends in its network; open_clip's own in a norm over all tokens.
        hooked = getattr(tower, "ln_final", None) or getattr(tower, "transformer", None)
        if hooked is None or getattr(tower, "cls_emb", None) is not None:
            raise BadInput(
                f"{guide.name} has no token states to read", "take another CLIP, e.g. ViT-B-32"
            )
        self._hooked, self._pad = hooked, getattr(getattr(tower, "config", None), "pad_token_id", 0)
        self.of_transformers = not hasattr(tower, "ln_final")
        # Training reads captions in a thread of its own, and panels are drawn meanwhile.
        self._alone = threading.Lock()

    def __call__(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (N, P) and states (N, L, D) of token ids (N, L)."""
        seen: list[Any] = []
        with self._alone:
            handle = self._hooked.register_forward_hook(lambda _net, _in, out: seen.append(out))
            try:
                pooled: Tensor = self.model.encode_text(ids)
            finally:
                handle.remove()
        states: Tensor = seen[0].last_hidden_state if self.of_transformers else seen[0]
        return pooled, states

    def mask(self, ids: Tensor) -> Tensor:
        """Which tokens belong to a prompt, bool (N, L)."""
        if self.of_transformers:
            return ids != self._pad
        # The end of a prompt has the largest id, and the tower is causal: what follows is padding.
        places = torch.arange(ids.shape[1], device=ids.device)
        mask: Tensor = places[None] <= ids.argmax(dim=1, keepdim=True)
        return mask
