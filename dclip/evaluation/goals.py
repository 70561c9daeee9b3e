"""What an edit should change and leave, as attributes and styles of a judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from dclip.data import faces
from dclip.data.faces.params import HairColour
from dclip.data.filters import COLOURLESS, UNSEEN_COLOURS
from dclip.errors import BadInput
from dclip.evaluation.judge import OTHER, Verdict


@dataclass(frozen=True)
class Goal:
    """What to look for in edits of N pictures.

    Attributes:
        style: the style to see, or None.
        attribute: the attribute to see, or None; both None where the goal is unknown.
        value: whether it should be there or not.
        applies: bool (N,), pictures that do not have it yet; only they count.
        untouched: bool (N, A) over the judge's attributes, those that the edit should leave.
    """

    style: str | None
    attribute: str | None
    value: bool
    applies: NDArray[np.bool_]
    untouched: NDArray[np.bool_]

    def scores(self, edits: Verdict, originals: Verdict) -> dict[str, float | None]:
        """What a judge says of edits, as means over the pictures that count.

        Returns:
            ``judge_target``: share in which it sees the goal; an attribute does not count in a
            picture of no style. ``judge_kept``: share of the untouched attributes with the same
            verdict as on the original. ``judge_picture``: share that it takes for a picture of
            some style. None where a score is not defined.
        """
        on = self.applies
        if not on.any():
            return dict.fromkeys(("judge_target", "judge_kept", "judge_picture"))
        named = np.array(edits.named_styles)
        picture = named != OTHER if len(named) else np.ones(len(on), bool)
        seen = None
        if self.style is not None and self.style in edits.style_names:
            seen = named == self.style
        elif self.attribute in edits.names and self.attribute is not None:
            seen = ((edits.attribute(self.attribute) > 0.5) == self.value) & picture
        same = (edits.attributes > 0.5) == (originals.attributes > 0.5)
        looked_at = self.untouched & on[:, None]
        return {
            "judge_target": float(seen[on].mean()) if seen is not None else None,
            "judge_kept": float(same[looked_at].mean()) if looked_at.any() else None,
            "judge_picture": float(picture[on].mean()) if len(named) else None,
        }


def of_drawn(params: Sequence[faces.FaceParams], target: str | None, names: Sequence[str]) -> Goal:
    """The goal of an edit of rendered photos.

    Untouched are the attributes that the target does not change and that its style shows: a pencil
    sketch does not show the colour of hair.

    Args:
        params: the faces.
        target: a name in :data:`dclip.data.faces.TARGETS`; None where the renderer lacks it.
        names: the judge's attributes.
    """
    untouched = np.zeros((len(params), len(names)), bool)
    if target is None:
        untouched[:] = [name in faces.attributes(params[0]) for name in names]
        return Goal(None, None, True, np.ones(len(params), bool), untouched)
    for row, one in zip(untouched, params, strict=True):
        edited, drawn_in = faces.apply_target(one, target)
        before, after = faces.facts(one, "photo"), faces.facts(edited, drawn_in)
        row[:] = [n in before and n in after and before[n] == after[n] for n in names]
    applies = np.array([faces.applicable(one, target) for one in params], dtype=bool)
    edit = faces.TARGETS[target]
    style = edit.style if edit.kind == "style" else None
    return Goal(style, edit.attribute, edit.value, applies, untouched)


_COLOURS = ("Black_Hair", "Brown_Hair", "Blond_Hair", "Gray_Hair", "Bald")
_DRAWN = tuple(f"{colour}_hair" for colour in get_args(HairColour))
_MOUTH = ("smiling", "serious", "frowning")
_BEARD = ("No_Beard", "Goatee", "Mustache", "5_o_Clock_Shadow", "Sideburns")

CELEBA: dict[str, tuple[str, int]] = {
    "smiling": ("Smiling", 1),
    "not smiling": ("Smiling", -1),
    "glasses": ("Eyeglasses", 1),
    "no glasses": ("Eyeglasses", -1),
    "blond hair": ("Blond_Hair", 1),
    "black hair": ("Black_Hair", 1),
    "brown hair": ("Brown_Hair", 1),
    "gray hair": ("Gray_Hair", 1),
    "beard": ("No_Beard", -1),
    "no beard": ("No_Beard", 1),
    "mustache": ("Mustache", 1),
    "lipstick": ("Wearing_Lipstick", 1),
    "bald": ("Bald", 1),
    "old": ("Young", -1),
    "young": ("Young", 1),
}
"""Presets as CelebA's labels name them."""

RELATED: dict[str, tuple[str, ...]] = {
    "Smiling": ("Mouth_Slightly_Open", "High_Cheekbones"),
    "Eyeglasses": ("Bags_Under_Eyes", "Narrow_Eyes"),
    **dict.fromkeys(_COLOURS, _COLOURS),
    **dict.fromkeys(_BEARD, _BEARD),
    **dict.fromkeys(_DRAWN, _DRAWN),
    **dict.fromkeys(_MOUTH, _MOUTH),
    "Young": ("Gray_Hair", "Bags_Under_Eyes", "Attractive"),
    "Wearing_Lipstick": ("Heavy_Makeup",),
}
"""Labels, CelebA's and the renderer's, that a correct edit of one may change too."""


def of_labelled(
    labels: NDArray[np.int8] | None,
    count: int,
    names: Sequence[str],
    attribute: str | None = None,
    value: bool = True,
    style: str | None = None,
) -> Goal:
    """The goal of an edit of photos with labels.

    Args:
        labels: of ``attribute``, (N,): 1 yes, -1 no, 0 unknown; None where the data has none.
        count: pictures.
        names: the judge's attributes.
        attribute: what to see, or None.
        value: whether it should be there.
        style: the style to see instead, or None; attributes that it does not show do not count.
    """
    applies = np.ones(count, bool)
    if labels is not None:
        applies = labels == (-1 if value else 1)
    touched = {attribute, *RELATED.get(attribute or "", ())}
    if style in COLOURLESS:
        touched.update(UNSEEN_COLOURS)
    untouched = np.tile([name not in touched for name in names], (count, 1))
    return Goal(style, attribute, value, applies, untouched.astype(bool))


def read_expected(text: str) -> tuple[str, bool]:
    """An attribute and whether it should be there, from ``Smiling=1`` or ``Smiling=-1``.

    Raises:
        BadInput: not of that form.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not name or equals != "=" or value not in ("1", "-1"):
        raise BadInput(f"cannot read {text!r}", "write e.g. Smiling=1 or Smiling=-1")
    return name, value == "1"
