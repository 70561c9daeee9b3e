"""A CLIP as a guide: embeddings of pictures and prompts, differentiable in the pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dclip.errors import BadInput
from dclip.guidance.clip import words as vocabulary
from dclip.guidance.losses import directional
from dclip.guidance.prompts import split_sources
from dclip.guidance.views import resized


@dataclass(frozen=True)
class Move:
    """The difference between a target prompt and each source prompt, in a CLIP's space.

    Attributes:
        sources: unit-length embeddings of the source prompts, (K, D).
        differences: the target's embedding less each of them, (K, D).
        target: the target's own embedding, of unit length (D,); by default the first source moved.
    """

    sources: Tensor
    differences: Tensor
    target: Tensor | None = None

    @property
    def end(self) -> Tensor:
        """The target's embedding, of unit length (D,), however long the differences are."""
        if self.target is not None:
            return self.target
        return F.normalize(self.sources[0] + self.differences[0], dim=-1)

    def of(self, before: Tensor) -> Tensor:
        """The difference for each picture (B, D), from the source that it is most like.

        Args:
            before: unit-length embeddings of the pictures as they are, (B, D).
        """
        sources, differences = self.sources.to(before), self.differences.to(before)
        return differences[(before @ sources.T).argmax(dim=-1)]

    def units(self) -> Tensor:
        """The directions (K, D): d_text, equation (4) of the report, one a source."""
        return F.normalize(self.differences, dim=-1)

    def cosine(self, after: Tensor, before: Tensor) -> Tensor:
        """Cosine between the pictures' differences and the text's, (B,); 0 for equal pictures."""
        return 1 - directional(after, before, F.normalize(self.of(before), dim=-1))

    def lengthened(self, lengths: Tensor) -> Move:
        """The same directions with other lengths (K,)."""
        lengthened = self.units() * lengths.to(self.differences)[:, None]
        return Move(self.sources, lengthened, self.end)


@dataclass(frozen=True)
class Guide:
    """A frozen CLIP; pictures are pixels in [-1, 1], and its own preprocessing is part of it.

    Attributes:
        name: what the user asked for, e.g. ``"ViT-B-32:openai"``.
        model: an open_clip model with ``encode_image`` and ``encode_text``.
        tokenizer: strings to token ids, int64 (N, context).
        size: (height, width) of the image tower's input.
        mean, std: per-channel normalisation of pixels in [0, 1], (1, 3, 1, 1).
        resize_mode: as in open_clip's preprocess config: ``"squash"`` distorts, ``"shortest"`` fits
            the shorter side and crops, ``"longest"`` fits the longer side and pads.
        interpolation: ``"bicubic"`` or ``"bilinear"``.
        fill: what padding shows, 0 to 1.
        words: what a small CLIP was trained on, in lower case; None for an open vocabulary.
        config: open_clip's ``model_cfg``, to save the model again.
    """

    name: str
    model: nn.Module
    tokenizer: Callable[..., Tensor]
    size: tuple[int, int]
    mean: Tensor
    std: Tensor
    resize_mode: str = "shortest"
    interpolation: str = "bicubic"
    fill: float = 0.0
    words: frozenset[str] | None = field(default=None, repr=False)
    config: dict[str, Any] | None = field(default=None, repr=False)

    def preprocess(self, x: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] to the image tower's input, differentiably."""
        x = (x + 1) / 2
        if tuple(x.shape[-2:]) != self.size:
            target = self._resized(*x.shape[-2:])
            x = resized(x, target, self.interpolation)
            # Too much is cropped, too little padded; the odd pixel goes where open_clip has it.
            missing = [side - own for side, own in zip(self.size, target, strict=True)]
            top, left = (n // 2 if n > 0 else -round(-n / 2) for n in missing)
            sides = (left, missing[1] - left, top, missing[0] - top)
            x = F.pad(x, sides, value=self.fill)  # negative: cropped
        out: Tensor = (x - self.mean) / self.std
        return out

    def _resized(self, height: int, width: int) -> list[int]:
        """What open_clip resizes pictures of that size to, before it crops or pads them."""
        if self.resize_mode == "squash":
            return list(self.size)
        ratios = (height / self.size[0], width / self.size[1])
        if self.resize_mode == "shortest" and self.size[0] == self.size[1]:
            # Torchvision's own resize, which rounds down.
            side, short = self.size[0], min(height, width)
            return [int(side * height / short), int(side * width / short)]
        ratio = max(ratios) if self.resize_mode == "longest" else min(ratios)
        return [round(height / ratio), round(width / ratio)]

    def embed_image(self, x: Tensor) -> Tensor:
        """Unit-length image embeddings (B, D) of pixels (B, 3, H, W) in [-1, 1]."""
        return F.normalize(self.model.encode_image(self.preprocess(x)).float(), dim=-1)  # type: ignore[operator]

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Unit-length text embeddings (N, D).

        Raises:
            BadInput: an empty prompt, or one longer than the model's context.
        """
        for prompt in prompts:
            self.check(prompt)
        tokens = self.tokenizer(list(prompts)).to(self.mean.device)
        return F.normalize(self.model.encode_text(tokens).float(), dim=-1)  # type: ignore[operator]

    def move(self, target: str, source: str) -> Move:
        """From the source to the target; ``source`` may name several, separated by semicolons.

        Raises:
            BadInput: an empty prompt, one that is too long, or prompts that mean the same.
        """
        names = split_sources(source)
        to, *come_from = self.embed_text([target, *names])
        sources = torch.stack(come_from)
        differences = to - sources
        for name, difference in zip(names, differences, strict=True):
            if float(difference.norm()) < 1e-4:
                raise BadInput(
                    f"the prompts {target!r} and {name!r} are the same to {self.name}",
                    "choose a target that differs from the source",
                )
        return Move(sources, differences, to)

    def check(self, prompt: str) -> None:
        """Raise BadInput for an empty prompt or one that the context would cut."""
        if not prompt.strip():
            raise BadInput("the prompt is empty", "say what to see, e.g. --target sketch")
        try:
            prompt.encode("utf-8")
        except UnicodeEncodeError as e:
            raise BadInput(f"the prompt {prompt[:40]!r} is not text", "write it in UTF-8") from e
        context = getattr(self.tokenizer, "context_length", None) or 77
        length = _token_count(self.tokenizer, prompt)
        if length > context:
            raise BadInput(
                f"the prompt has {length} tokens, but {self.name} reads at most {context}:"
                f" {prompt[:40]!r}...",
                "shorten it",
            )

    def warning(self, prompt: str) -> str | None:
        """One line about words of ``prompt`` that this CLIP was never trained on, or None."""
        if self.words is None:
            return None
        return vocabulary.warning(self.name, prompt, self.words)


def _token_count(tokenizer: Any, prompt: str) -> int:
    """How many tokens a prompt has, with its start and its end."""
    if hasattr(tokenizer, "encode"):
        return len(tokenizer.encode(prompt)) + 2
    # One of transformers inside open_clip's wrapper, which would cut the prompt without a word.
    inner = getattr(tokenizer, "tokenizer", None)
    return len(inner(prompt)["input_ids"]) if inner is not None else 0
