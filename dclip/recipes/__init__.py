"""Recipes of fine-tuning: an inner loop and its settings each, in one table."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from dclip.config import nearest
from dclip.configs.guidance import GuidanceConfig, UpdateConfig
from dclip.errors import BadInput

if TYPE_CHECKING:
    from dclip.recipes.contract import InnerLoop

__all__ = ["BY_KIND", "PUBLISHED", "RECIPES", "Calls", "Recipe", "recipe"]


@dataclass(frozen=True)
class Calls:
    """Network calls and states of one update, for each picture of the batch.

    Attributes:
        tuned: forward calls that a backward call follows.
        plain: forward calls whose activations are dropped at once.
        each_step: whether these counts are for each decode step, and not for the whole update.
        states: pictures that are held for each decode step.
    """

    tuned: int = 1
    plain: int = 0
    each_step: bool = False
    states: int = 0

    def of_update(self, steps: int) -> tuple[int, int]:
        """(forward calls, those of them that a backward call follows), of a decode of ``steps``."""
        times = steps if self.each_step else 1
        return times * (self.tuned + self.plain), times * self.tuned


@dataclass(frozen=True)
class Recipe:
    """An inner loop of fine-tuning and the settings that go with it.

    Attributes:
        loop: its name in :mod:`dclip.recipes.loops`; it yields losses, and an update follows each.
        summary: one line.
        updating: how the weights are updated.
        calls: what one update costs.
        guidance: its settings of the guidance, which win over those of the kind of edit.
        per_step: whether it yields a loss for each decode step above ``t_min``, and not one a
            round.
        source: where its settings are published; "" of ours.
        space: what is trained: ``"weights"``, or ``"h"``, a block that adds to the U-Net's
            narrowest state (:mod:`dclip.models.hspace`).
    """

    loop: str
    summary: str
    updating: UpdateConfig
    calls: Calls
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    per_step: bool = False
    source: str = ""
    space: Literal["weights", "h"] = "weights"

    def load(self) -> InnerLoop:
        """The loop."""
        found: InnerLoop = getattr(importlib.import_module("dclip.recipes.loops"), self.loop)
        return found


_NONE = {
    "direction": 0.0, "log_direction": 0.0, "global_clip": 0.0, "goal": 0.0, "identity": 0.0,
    "colour": 0.0, "lpips": 0.0, "speckle": 0.0, "propagation": 0.0, "grey": 0.0, "structure": 0.0,
}  # fmt: skip


def _only(**weights: float) -> GuidanceConfig:
    """Guidance by these losses alone, by a CLIP that sees the picture as it is."""
    return GuidanceConfig(
        weights=_NONE | weights,
        t_min=0.0,
        saturation=1.0,
        goal_scale=1.0,
        blur=0.0,
        views=0,
        locality=0.0,
        scale=1.0,
    )


_PUBLISHED = _only(log_direction=3.0, identity=1.0)


RECIPES: dict[str, Recipe] = {
    "stepwise": Recipe(
        "stepwise",
        "x0_hat at every step in the model's own states, against the frozen model's; steps mixed",
        UpdateConfig(lr=3e-3, batch=8, updates=120, rank=8, decay=0.1, growth=1.0),
        Calls(plain=2, states=2),
        GuidanceConfig(views=1),
        per_step=True,
    ),
    "one-step": Recipe(
        "one_step",
        "x0_hat at a random timestep, against the frozen model's; overshoots",
        UpdateConfig(lr=1e-3, batch=8, updates=80, decode_steps=10, rank=8, decay=1.0, growth=1.0),
        Calls(plain=1),
        GuidanceConfig(views=1, t_min=0.0),
    ),
    "unrolled": Recipe(
        "unrolled",
        "DiffusionCLIP's: the final picture, through six decode steps",
        UpdateConfig(lr=2e-3, batch=8, updates=28, decode_steps=6, rank=8, decay=0.3, growth=1.0),
        Calls(plain=1, each_step=True, states=1),
        GuidanceConfig(views=1),
    ),
    "simplified": Recipe(
        "per_step",
        "the report's Table 1; kept for comparison",
        UpdateConfig(lr=2e-3, batch=30, epochs=5, decode_steps=50, rank=0, decay=1.0, growth=1.0),
        Calls(),
        _only(direction=1.0, identity=0.3),
        per_step=True,
    ),
    "diffusionclip": Recipe(
        "unrolled",
        "as published: all weights, 50 photos in 5 passes, 40 steps in and 6 out, the rate rising",
        UpdateConfig(
            lr=8e-6, batch=1, epochs=5, decode_steps=6, rank=0, decay=1.0, growth=1.3
        ),
        Calls(plain=1, each_step=True, states=1),
        _PUBLISHED,
        source="Kim et al. 2022 (2110.02711), the README of their code",
    ),
    "diffusionclip-gpu-efficient": Recipe(
        "per_step",
        "as published: a loss and an update at every decode step, which takes less memory",
        UpdateConfig(
            lr=8e-6, batch=1, epochs=5, decode_steps=6, rank=0, decay=1.0, growth=1.3
        ),
        Calls(),
        _PUBLISHED,
        per_step=True,
        source="Kim et al. 2022 (2110.02711), the README of their code",
    ),
    "efficient-diffusion": Recipe(
        "one_step_photo",
        "the published rate and losses on the one-step estimate, without inversion or decode",
        UpdateConfig(
            lr=6e-6, batch=1, epochs=5, decode_steps=6, rank=0, decay=1.0, growth=1.3
        ),
        Calls(),
        _PUBLISHED,
        source="2304.04344, the README of their code",
    ),
    "asyrp": Recipe(
        "h_space",
        "the published losses on a small block in h-space; an update at every step above half of r",
        UpdateConfig(lr=1e-3, batch=1, epochs=5, rank=0, decay=1.0, growth=1.0),
        Calls(plain=2),
        replace(_only(log_direction=1.0, identity=3.0), t_min=0.5),
        per_step=True,
        source="Kwon et al. 2023 (2210.10960), the README of their code",
        space="h",
    ),
}  # fmt: skip

PUBLISHED = "diffusionclip"
"""The recipe on an imported base, where no other is named: there it is the published one."""

BY_KIND: dict[str, str] = {
    "style": "stepwise",
    "character": "stepwise",
    "drawing": "unrolled",
    "attribute": "unrolled",
    "colour": "unrolled",
}
"""The recipe for each kind of edit (:data:`dclip.guidance.kinds.KINDS`), where none is named.

A loss on the final picture keeps contours sharp; estimates of x0 at a noisy t are blurred. With
styles, unrolled adds grain and a tint to the whole picture."""


def recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        BadInput: an unknown name, with the nearest.
    """
    if name in RECIPES:
        return RECIPES[name]
    raise BadInput(f"unknown recipe {name!r}", nearest(name, RECIPES))
