"""Edits of photos by prompts, with a conditional network and no training.

- :func:`sdedit` noises the photo part of the way and draws it again from a prompt.
- :func:`record` inverts it under the prompt that describes it, so that the decode is exact.
- :func:`prompt_to_prompt` decodes it under that prompt and under a changed one side by side, and
  gives the second picture the attention of the first, so that only the changed words act.

Photos are what the network denoises: pixels in [-1, 1], or latents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dclip.diffusion import ddim
from dclip.diffusion.attention import OWN, Borrowed
from dclip.diffusion.conditioning import Condition, ConditionalModel, Prompted
from dclip.diffusion.ddpm import q_sample
from dclip.diffusion.inversion import Method, invert_with_offsets
from dclip.diffusion.network import ByTimestep, EpsModel, OnStep
from dclip.diffusion.samplers import SAMPLERS, Sampler
from dclip.diffusion.schedule import Schedule
from dclip.diffusion.solvers import Noise
from dclip.errors import BadInput

CROSS, LAYOUT = 0.8, 0.4


def sdedit(
    model: EpsModel,
    schedule: Schedule,
    x0: Tensor,
    *,
    strength: float,
    steps: int,
    noise: Noise,
    sampler: Sampler = SAMPLERS["ddim"],
    on_step: OnStep | None = None,
) -> Tensor:
    """Noise photos up to a share of the schedule and denoise them again.

    Meng et al. 2022, "SDEdit" (2108.01073), algorithm 1. What is finer than the noise is drawn
    anew, by the prompt that ``model`` is bound to; what is coarser stays.

    Args:
        model: such as :class:`dclip.diffusion.conditioning.ClassifierFree`.
        x0: (B,C,H,W).
        strength: 0 returns the photo, 1 starts from (nearly) pure noise.
        steps: network steps of the walk; fewer where it is shorter than that.
        noise: for the timestep that the walk begins at and those that a stochastic sampler passes.

    Raises:
        BadInput: a strength outside 0..1, or no steps.
    """
    if not 0 <= strength <= 1:
        raise BadInput(f"strength {strength} is outside 0..1", "use e.g. 0.5")
    if steps < 1:
        raise BadInput(f"{steps} steps", "take 1 or more")
    r = round(strength * schedule.T)
    if r == 0:
        return x0
    x_r = q_sample(schedule, x0, r, noise(r))
    grid = ddim.grid(r, min(steps, r))
    return sampler(model, schedule, x_r, grid, noise=noise, on_step=on_step)


@dataclass(frozen=True)
class Recorded:
    """Photos as states that decode to them under the prompt that describes them.

    Attributes:
        source: that prompt, a row for each photo or one for all.
        x_r: the states, (B,C,H,W), at ``grid[-1]``.
        grid: the decode's timesteps.
        offsets: (S,B,C,H,W), see :func:`dclip.diffusion.ddim.decode`.
    """

    source: Condition
    x_r: Tensor
    grid: tuple[int, ...]
    offsets: Tensor

    def replay(self, model: ConditionalModel, schedule: Schedule) -> Tensor:
        """The photos again, (B,C,H,W), exact to rounding."""
        walk = Prompted(model, self.source)
        return ddim.decode(walk, schedule, self.x_r, self.grid, offsets=self.offsets)


def record(
    model: ConditionalModel,
    schedule: Schedule,
    x0: Tensor,
    grid: Sequence[int],
    source: Condition,
    *,
    method: Method = "fixed-point",
    on_step: OnStep | None = None,
) -> Recorded:
    """Invert photos under a prompt and keep each decode step's error (Ju et al. 2023, 2310.01506).

    Guidance is left out here, as its scale amplifies the error of every step (Mokady et al. 2023,
    2211.09794, section 3).

    Args:
        x0: (B,C,H,W).
        grid: increasing timesteps from 0, as from :func:`dclip.diffusion.ddim.grid`.
        source: what the photos show; the empty prompt where nothing is known.

    Raises: as :func:`dclip.diffusion.inversion.invert`.
    """
    walk = Prompted(model, source)
    x_r, offsets = invert_with_offsets(walk, schedule, x0, grid, method=method, on_step=on_step)
    return Recorded(source, x_r, tuple(grid), offsets)


@dataclass(frozen=True)
class Pair(ByTimestep):
    """``eps = model(x, t)`` of 2 B pictures: B under their prompts, then the same B under others.

    The second half takes attention from the first, row by row; guidance acts on it alone.

    Attributes:
        model: a conditional network that heeds :attr:`Condition.borrowed`.
        source, target, negative: prompts of the first half, of the second, and what its guidance
            leads away from; a row for each of the B pictures or one for all.
        tokens: for each token of the target the token of the source that it stands for, (L,) or
            (B, L), as from :func:`dclip.diffusion.attention.aligned`.
        scale: of the second half's guidance, as in
            :class:`dclip.diffusion.conditioning.ClassifierFree`.
        r: the timestep that the walk begins at.
        cross, layout: share of the walk, from its noisy end, in which maps of tokens and
            self-attention are borrowed.

    Raises:
        BadInput: a scale that is no number, a share outside 0..1.
    """

    model: ConditionalModel
    source: Condition
    target: Condition
    negative: Condition
    tokens: Tensor
    scale: float
    r: int
    cross: float = CROSS
    layout: float = LAYOUT
    _own: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise BadInput(f"guidance scale {self.scale} is no number", "use e.g. 3")
        for name, share in (("cross", self.cross), ("layout", self.layout)):
            if not 0 <= share <= 1:
                raise BadInput(f"{name} {share} is outside 0..1", "use e.g. 0.5")
        object.__setattr__(self, "_own", torch.full_like(self.tokens, OWN))

    def at(self, t: int) -> EpsModel:
        """The network at timestep ``t``."""
        cross, layout = (t > (1 - share) * self.r for share in (self.cross, self.layout))

        def eps(x: Tensor, timesteps: Tensor) -> Tensor:
            n = len(x) // 2
            asked = [self.source, self.target, *([self.negative] if self.scale != 1 else [])]
            condition = Condition.joined([part.expanded(n) for part in asked])
            if cross or layout:
                condition = replace(
                    condition, borrowed=self._borrowed(n, len(asked), cross, layout)
                )
            if self.scale == 1:
                return self.model(x, timesteps, condition)
            more = self.model(
                torch.cat([x, x[n:]]), torch.cat([timesteps, timesteps[n:]]), condition
            )
            own, positive, negative = more.chunk(3)
            return torch.cat([own, negative + self.scale * (positive - negative)])

        return eps

    def _borrowed(self, n: int, parts: int, cross: bool, layout: bool) -> Borrowed:
        """Rows n..2n take from rows 0..n; the others nothing."""
        tokens = (self.tokens if cross else self._own).expand(n, self.tokens.shape[-1])
        own = torch.full_like(tokens, OWN)
        rows = torch.arange(parts * n, device=tokens.device)
        rows[n : 2 * n] = rows[:n]
        return Borrowed(rows, torch.cat([own, tokens, *([own] * (parts - 2))]), layout)


def prompt_to_prompt(
    model: ConditionalModel,
    schedule: Schedule,
    photos: Recorded,
    target: Condition,
    negative: Condition,
    tokens: Tensor,
    *,
    scale: float,
    cross: float = CROSS,
    layout: float = LAYOUT,
    on_step: OnStep | None = None,
) -> tuple[Tensor, Tensor]:
    """Decode photos under their prompt and, beside, under one with changed words.

    Hertz et al. 2022 (2208.01626); the photo's own branch is held to its recorded states as in
    direct inversion (Ju et al. 2023, 2310.01506), so that its attention is the photo's. Unlike
    there the other branch has the same offsets, so that unchanged words at scale 1 give the photo.

    Args:
        photos: from :func:`record`.
        target, negative, tokens, scale, cross, layout: see :class:`Pair`.
        on_step: called with both halves of the batch.

    Returns:
        The photos again, exact to rounding, and the edits, (B,C,H,W) each.

    Raises:
        BadInput: as :class:`Pair`.
    """
    pair = Pair(
        model, photos.source, target, negative, tokens, scale, photos.grid[-1], cross, layout
    )
    offsets = torch.cat([photos.offsets, photos.offsets], dim=1)
    x_r = torch.cat([photos.x_r, photos.x_r])
    decoded = ddim.decode(pair, schedule, x_r, photos.grid, offsets=offsets, on_step=on_step)
    again, edits = decoded.chunk(2)
    return again, edits
