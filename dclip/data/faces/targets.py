"""Named edits with their truth: what a face looks like once the edit is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dclip.data.faces.params import FaceParams, attributes
from dclip.data.faces.styles import Image8, draw


@dataclass(frozen=True, slots=True)
class Target:
    """A named edit.

    A "style" edit draws the same face in style `style`. An "attribute" edit replaces the
    fields in `changes` so that `attribute` (see `attributes`) becomes `value`.
    """

    name: str
    kind: Literal["style", "attribute"]
    style: str = "photo"
    attribute: str | None = None
    value: bool = True
    changes: Mapping[str, float | bool | str] = field(default_factory=dict)
    needs_hair: bool = False


def _style(name: str, style: str) -> Target:
    return Target(name, "style", style=style)


def _set(name: str, attribute: str, value: bool = True, **changes: float | bool | str) -> Target:
    return Target(name, "attribute", attribute=attribute, value=value, changes=changes)


def _hair_colour(colour: str) -> Target:
    return Target(
        f"{colour} hair",
        "attribute",
        attribute=f"{colour}_hair",
        changes={"hair_colour": colour},
        needs_hair=True,
    )


def _hair_shape(name: str, attribute: str, shape: str) -> Target:
    changes = {"hair_shape": shape}
    return Target(name, "attribute", attribute=attribute, changes=changes, needs_hair=True)


_ALL = (
    _style("sketch", "sketch"),
    _style("cartoon", "cartoon"),
    _style("oil painting", "oil"),
    _style("watercolor", "watercolor"),
    _style("zombie", "zombie"),
    _style("black and white", "bw"),
    _style("sepia", "sepia"),
    _style("neon", "neon"),
    _set("smiling", "smiling", smile=0.85),
    _set("not smiling", "smiling", False, smile=-0.35),
    _set("glasses", "glasses", glasses=True),
    _set("no glasses", "glasses", False, glasses=False),
    _set("beard", "beard", beard=True),
    _set("no beard", "beard", False, beard=False),
    _set("mustache", "mustache", mustache=True),
    _set("no mustache", "mustache", False, mustache=False),
    _set("bald", "bald", bald=True),
    _set("old", "old", age=0.95),
    _set("young", "young", age=0.05),
    _set("lipstick", "lipstick", lipstick=True),
    _set("no lipstick", "lipstick", False, lipstick=False),
    _hair_colour("black"),
    _hair_colour("brown"),
    _hair_colour("blond"),
    _hair_colour("red"),
    _hair_colour("gray"),
    _hair_shape("long hair", "long_hair", "long"),
    _hair_shape("short hair", "short_hair", "short"),
    _hair_shape("curly hair", "curly_hair", "afro"),
)
TARGETS: Mapping[str, Target] = {target.name: target for target in _ALL}
"""Every edit by name."""


def target(name: str) -> Target:
    """The edit of that name; raises ValueError listing the names otherwise."""
    if name not in TARGETS:
        raise ValueError(f"edit {name!r} is none of {', '.join(TARGETS)}")
    return TARGETS[name]


def already(params: FaceParams, name: str) -> bool:
    """Whether the photo of the face has the property before the edit; never for styles."""
    edit = target(name)
    return edit.attribute is not None and attributes(params)[edit.attribute] == edit.value


def applicable(params: FaceParams, name: str) -> bool:
    """Whether the edit changes the face: it is not there already, and there is hair to change."""
    return not already(params, name) and not (target(name).needs_hair and params.bald)


def apply_target(params: FaceParams, name: str) -> tuple[FaceParams, str]:
    """Parameters and style of the edited face; the face itself where not `applicable`."""
    edit = target(name)
    if not applicable(params, name):
        return params, "photo"
    return FaceParams.from_dict({**params.to_dict(), **edit.changes}), edit.style


def truth(params: FaceParams, name: str, *, size: int = 64) -> Image8:
    """The picture (size, size, 3) that a perfect edit of the photo would be."""
    edited, style = apply_target(params, name)
    return draw(edited, size=size, style=style)


def edit_region(params: FaceParams, name: str, *, size: int = 64) -> NDArray[np.bool_]:
    """Pixels (size, size) that the edit may change, with a margin of about 1/32 of the size.

    Everything for a style, save that a zombie's hair, clothes and backdrop stay.
    """
    edited, style = apply_target(params, name)
    if style not in ("photo", "zombie"):
        return np.ones((size, size), bool)
    before = draw(params, size=size, grain=False).astype(np.int16)
    after = draw(edited, size=size, style=style, grain=False).astype(np.int16)
    region: NDArray[np.bool_] = np.abs(after - before).max(axis=2) > 1
    for _ in range(max(round(size / 32), 1)):
        region = _grow(region)
    return region


def _grow(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """One pixel of dilation to all eight sides."""
    grown = region.copy()
    grown[1:] |= region[:-1]
    grown[:-1] |= region[1:]
    wide = grown.copy()
    wide[:, 1:] |= grown[:, :-1]
    wide[:, :-1] |= grown[:, 1:]
    return wide
