"""How a text guides fine-tuning, and how the weights are updated."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, TypeVar

from annotated_types import Ge, Gt, Le
from pydantic import Field

from dclip.config import Excludes, Option, settings
from dclip.configs.common import MOST, Count, Locality, Rate, Share

C = TypeVar("C")
T = TypeVar("T")


@settings
class GuidanceConfig:
    """How the text guides; else by recipe and kind of edit. What is None is not decided yet."""

    weights: Annotated[dict[str, float], Option(metavar="X")] = Field(default_factory=dict)
    """Weights of the losses, by their names in :data:`dclip.guidance.kinds.LOSSES`."""
    t_min: Share | None = None
    """Share of r at and below which the base decodes alone; 0 for none."""
    saturation: Annotated[float, Ge(0), Le(3), Option(metavar="X")] | None = None
    """Factor on the colours that the CLIP sees: 0 is grey, 1 the picture's own."""
    goal_scale: Annotated[float, Gt(0), Le(1e6), Option(metavar="X")] | None = None
    """Distance of the goal: of a style in text differences, of an attribute or colour in distances
    between the photos that show it most and least."""
    blur: Annotated[float, Ge(0), Le(2), Option(metavar="X")] | None = None
    """Largest blur of the views that the CLIP sees; 1 is half the resolution."""
    views: Annotated[int, Ge(0), Le(MOST), Option(metavar="N")] | None = None
    """Random crops of each picture that the CLIP sees; 0 shows the picture itself."""
    locality: Locality | None = None
    """Below this share of its strongest change an edit shows the photo; 0 shows the edit alone."""
    scale: Annotated[float, Gt(0), Le(1e6), Option(metavar="X")] | None = None
    """Factor on the tuned difference at strength 1."""


@settings
class UpdateConfig:
    """How the weights are updated; else by recipe. What is None is not decided yet."""

    lr: Rate | None = None
    """Adam's learning rate."""
    decay: Annotated[float, Gt(0), Le(1), Option(metavar="X")] | None = None
    """Share of the learning rate that is left at the end; it falls linearly. 1 keeps it."""
    growth: Annotated[float, Gt(0), Le(10), Option(metavar="X")] | None = None
    """Factor on the learning rate after each pass over the training latents: above 1 it rises."""
    batch: Count | None = None
    """Images at once."""
    updates: Annotated[Count | None, Excludes("epochs")] = None
    """Updates in all."""
    epochs: Count | None = None
    """Passes over the training latents, instead of --updates."""
    decode_steps: Count | None = None
    """Decode steps in training, and later in edits: else those of the latents."""
    rank: Annotated[int, Ge(0), Le(MOST), Option(metavar="N")] | None = None
    """Rank of the adapter; 0 tunes every weight."""


def known(value: T | None) -> T:
    """A setting that :func:`filled` has set."""
    assert value is not None
    return value


def filled(cls: type[C], *layers: object) -> C:
    """A config of ``cls`` in which each setting is that of the first layer that says one.

    Args:
        cls: :class:`GuidanceConfig` or :class:`UpdateConfig`.
        layers: configs that have its fields, the one that counts most first. Tables of numbers,
            such as the weights, are joined key by key.
    """
    values: dict[str, object] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        found = [getattr(layer, field.name) for layer in layers]
        said = [value for value in found if value is not None]
        if said and isinstance(said[0], Mapping):
            values[field.name] = {k: v for table in reversed(said) for k, v in table.items()}
        else:
            values[field.name] = said[0] if said else None
    return cls(**values)
