"""Recipes of fine-tuning: one table, each runnable as it stands."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from dclip.errors import BadInput
from dclip.recipes.contract import Batch, Loop, Loss, Problem
from dclip.recipes.loops import one_step, per_step, stepwise, unrolled

__all__ = ["BY_KIND", "RECIPES", "Batch", "Loop", "Loss", "Problem", "Recipe", "recipe"]


@dataclass(frozen=True)
class Recipe:
    """An inner loop and the settings that go with it.

    Attributes:
        loop: yields losses; an update follows each.
        summary: one line for people who choose.
        lr: Adam's rate.
        direction, goal, identity, colour, speckle, propagation, grey, structure: the lambdas of
            the losses; None takes those of the kind of edit
            (:data:`dclip.guidance.prompts.LAMBDAS`).
        batch: pictures a round.
        updates: updates in all, if the recipe counts those; else ``epochs`` over the latents.
        epochs: passes over the training latents.
        steps: decode steps in training (S_gen); None takes those of the latents.
        views: augmented views of each picture that the CLIP sees; 0 shows the picture itself.
        rank: rank of the adapter; 0 tunes all weights.
        decay: share of the rate that is left at the end; it falls evenly. 1 keeps it.
        t_min, saturation, goal_scale, blur, locality, scale: see
            :class:`dclip.guidance.prompts.Lambdas`; None takes those of the kind of edit.
    """

    loop: Loop
    summary: str
    lr: float
    batch: int
    direction: float | None = None
    goal: float | None = None
    identity: float | None = None
    colour: float | None = None
    speckle: float | None = None
    propagation: float | None = None
    grey: float | None = None
    structure: float | None = None
    updates: int | None = None
    epochs: int = 1
    steps: int | None = None
    views: int = 0
    rank: int = 0
    decay: float = 1.0
    t_min: float | None = 0.0
    saturation: float | None = None
    goal_scale: float | None = None
    blur: float | None = None
    locality: float | None = None
    scale: float | None = None


RECIPES: dict[str, Recipe] = {
    "stepwise": Recipe(
        stepwise,
        "the report's idea on the model's own states, steps mixed, against the frozen model's",
        lr=3e-3,
        batch=8,
        updates=120,
        views=1,
        rank=8,
        decay=0.1,
        t_min=None,
    ),
    "one-step": Recipe(
        one_step,
        "the one-step estimate of x0 at a random time, against the frozen model's; overshoots",
        lr=1e-3,
        batch=8,
        updates=80,
        steps=10,
        views=1,
        rank=8,
    ),
    "unrolled": Recipe(
        unrolled,
        "DiffusionCLIP's: the final picture, through six decode steps",
        lr=2e-3,
        batch=8,
        updates=28,
        steps=6,
        views=1,
        rank=8,
        decay=0.3,
        t_min=None,
    ),
    "simplified": Recipe(
        per_step,
        "the report's Table 1; kept to show what fails",
        lr=2e-3,
        direction=1.0,
        goal=0.0,
        identity=0.3,
        colour=0.0,
        speckle=0.0,
        propagation=0.0,
        grey=0.0,
        structure=0.0,
        saturation=1.0,
        blur=0.0,
        locality=0.0,
        scale=1.0,
        batch=30,
        epochs=5,
        steps=50,
    ),
}

BY_KIND: dict[str, str] = {
    "style": "stepwise",
    "character": "stepwise",
    "drawing": "unrolled",
    "attribute": "unrolled",
    "colour": "unrolled",
}
"""The recipe for each kind of edit (:data:`dclip.guidance.prompts.LAMBDAS`), where none is named.

Lines come out, and mouths, where the loss is on the final picture and not on clean estimates, which
are blurred. Of styles unrolled makes clear colours, and grain and a veil with them."""


def recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        BadInput: an unknown name, with the nearest.
    """
    if name in RECIPES:
        return RECIPES[name]
    near = difflib.get_close_matches(name, RECIPES, 2, 0.4)
    raise BadInput(f"unknown recipe {name!r}", f"use {' or '.join(near or RECIPES)}")
