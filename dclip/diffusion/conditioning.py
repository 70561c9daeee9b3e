"""Networks that are told what to draw, and guidance by the difference of two prompts.

Samplers, decodes and inversions ask ``eps = model(x, t)``. A conditional network takes a third
argument; here prompts are bound to it before anything walks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from dclip.diffusion.attention import Borrowed
from dclip.diffusion.ddim import x0_hat
from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput


@dataclass(frozen=True)
class Condition:
    """What a text encoder makes of prompts; row i belongs to picture i.

    Attributes:
        tokens: states of the text tower's tokens after its last norm, (N, L, D).
        mask: bool (N, L), True where a token belongs to the prompt; None where all count, as in
            Stable Diffusion.
        pooled: one embedding a prompt, (N, P); None where there is none.
        borrowed: attention that rows take from each other in one network call. It belongs to just
            these rows: what is cut out, joined or moved borrows nothing.
    """

    tokens: Tensor
    mask: Tensor | None = None
    pooled: Tensor | None = None
    borrowed: Borrowed | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: str | torch.device) -> Condition:
        """The same on a device."""
        return self._each(lambda part: part.to(device))

    def rows(self, index: slice | Sequence[int] | Tensor) -> Condition:
        """Some of the rows."""
        return self._each(lambda part: part[index])

    def expanded(self, count: int) -> Condition:
        """``count`` rows: these, or the only one again and again.

        Raises:
            BadInput: neither one row nor ``count``.
        """
        if len(self) == count:
            return self
        if len(self) != 1:
            raise BadInput(f"{len(self)} prompts for {count} pictures", f"give 1 or {count}")
        return self._each(lambda part: part.expand(count, *part.shape[1:]))

    @staticmethod
    def joined(parts: Sequence[Condition]) -> Condition:
        """The rows of several, which all have a mask or none, and pooled embeddings or none."""
        first = parts[0]
        return Condition(
            torch.cat([part.tokens for part in parts]),
            None if first.mask is None else torch.cat([_there(part.mask) for part in parts]),
            None if first.pooled is None else torch.cat([_there(part.pooled) for part in parts]),
        )

    def where(self, choose: Tensor, other: Condition) -> Condition:
        """The rows of this one where ``choose`` (N,) bool, the only row of ``other`` elsewhere."""
        other = other.expanded(len(self))
        return Condition(
            torch.where(choose[:, None, None], self.tokens, other.tokens),
            None
            if self.mask is None
            else torch.where(choose[:, None], self.mask, _there(other.mask)),
            None
            if self.pooled is None
            else torch.where(choose[:, None], self.pooled, _there(other.pooled)),
        )

    def _each(self, change: _Change) -> Condition:
        return Condition(
            change(self.tokens),
            None if self.mask is None else change(self.mask),
            None if self.pooled is None else change(self.pooled),
        )


class _Change(Protocol):
    def __call__(self, part: Tensor, /) -> Tensor: ...


def _there(part: Tensor | None) -> Tensor:
    assert part is not None, "conditions of one encoder have the same parts"
    return part


class ConditionalModel(Protocol):
    """``eps = model(x, t, condition)``; without a condition it is that of the empty prompt."""

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None, /) -> Tensor: ...


@dataclass(frozen=True)
class Prompted:
    """A conditional network with its prompts: ``eps = model(x, t)`` as any other.

    Attributes:
        model: the network.
        condition: a row for each picture of a batch, or one for all.
    """

    model: ConditionalModel
    condition: Condition

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.model(x, t, self.condition.expanded(len(x)))


@dataclass(frozen=True)
class ClassifierFree:
    """Classifier-free guidance: ``eps_n + scale * (eps_p - eps_n)``; ``eps = model(x, t)``.

    Ho & Salimans 2022 (2207.12598), equation (6), whose w is ``scale - 1``. With the empty prompt
    as the negative one this is guidance as published; another negative prompt takes its place.

    Attributes:
        model: the conditional network.
        positive, negative: what to draw and what to leave, a row for each picture or one for all.
        scale: 1 is the positive prompt alone and costs one network call, 0 the negative alone.
        rescale: in 0..1, how far the standard deviation of each picture's guided x0_hat is brought
            back to that of its positive one, which a high scale exceeds (Lin et al. 2023,
            2305.08891, equations 15 and 16, there on the network's output).
        schedule: the noise schedule; needed to rescale.
        together: both prompts in one network call of twice the batch. One after the other takes
            half the memory.
        watch: told of ``eps_p - eps_n`` at every call that makes both.

    Raises:
        BadInput: a scale that is no number, a rescale out of 0..1.
    """

    model: ConditionalModel
    positive: Condition
    negative: Condition
    scale: float
    rescale: float = 0.0
    schedule: Schedule | None = None
    together: bool = True
    watch: Callable[[Tensor], None] | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise BadInput(f"guidance scale {self.scale} is no number", "use e.g. 3")
        if not 0 <= self.rescale <= 1:
            raise BadInput(f"rescale {self.rescale} is not in 0..1", "use e.g. 0.7")
        if self.rescale and self.schedule is None:
            raise ValueError("rescale needs the schedule")

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        n = len(x)
        positive, negative = self.positive.expanded(n), self.negative.expanded(n)
        if self.scale == 1 and self.watch is None:
            return self.model(x, t, positive)
        if self.scale == 0:
            return self.model(x, t, negative)
        if self.together:
            both = Condition.joined([positive, negative])
            eps_p, eps_n = self.model(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        else:
            eps_p, eps_n = self.model(x, t, positive), self.model(x, t, negative)
        if self.watch is not None:
            self.watch(eps_p - eps_n)
        eps = eps_n + self.scale * (eps_p - eps_n)
        return self._rescaled(x, t, eps, eps_p) if self.rescale else eps

    def _rescaled(self, x: Tensor, t: Tensor, eps: Tensor, eps_p: Tensor) -> Tensor:
        assert self.schedule is not None
        a, b = self.schedule.gather(t, x)
        clean, own = x0_hat(self.schedule, x, eps, t), x0_hat(self.schedule, x, eps_p, t)
        ratio = _std(own) / _std(clean).clamp_min(1e-12)
        factor = self.rescale * ratio + (1 - self.rescale)
        out: Tensor = (x - a * factor * clean) / b
        return out


def _std(x: Tensor) -> Tensor:
    """Standard deviation of each picture, (B,1,1,1)."""
    return x.std(dim=tuple(range(1, x.dim())), keepdim=True)
