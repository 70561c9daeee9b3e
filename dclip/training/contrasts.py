"""Contrasts: prompts that differ in one property, and which samples show which side.

Contrastive training learns slowly what few captions mention. A classification between prompts that
differ in one property teaches the direction that an edit uses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dclip.data.dataset import DataSet
from dclip.errors import BadInput
from dclip.textfile import read_text


@dataclass(frozen=True)
class Side:
    """One side of a contrast: the samples it is true of, and its prompts.

    Attributes:
        where: conditions as in :meth:`DataSet.where`, all of which must hold.
        prompts: phrasings; position k has the same wording on every side of the contrast.
    """

    where: tuple[str, ...]
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class Contrast:
    """A property with two or more sides, e.g. smiling against serious, or the styles."""

    name: str
    sides: tuple[Side, ...]

    def __post_init__(self) -> None:
        counts = {len(side.prompts) for side in self.sides}
        if len(self.sides) < 2 or len(counts) != 1 or 0 in counts:
            raise BadInput(
                f"contrast {self.name!r} needs two or more sides with equally many prompts"
            )

    def labels(self, data: DataSet) -> NDArray[np.int64]:
        """The number of the side that each sample shows, -1 for none; int64 (N,)."""
        labels = np.full(len(data), -1, dtype=np.int64)
        for number, side in enumerate(self.sides):
            labels[data.where(*side.where)] = number
        return labels


def binary(name: str, attribute: str, *prompts: tuple[str, str]) -> Contrast:
    """An attribute against its absence, with pairs of (positive, negative) prompts."""
    return Contrast(
        name,
        (
            Side((f"{attribute}=1",), tuple(p for p, _ in prompts)),
            Side((f"{attribute}=-1",), tuple(n for _, n in prompts)),
        ),
    )


def faces() -> tuple[Contrast, ...]:
    """The contrasts of rendered faces, from the renderer's own prompt pairs."""
    from dclip.data.faces import PROMPT_PAIRS, STYLES

    by_name: dict[str, list[tuple[str, str]]] = {}
    for name, positive, negative in PROMPT_PAIRS:
        by_name.setdefault(name, []).append((positive, negative))
    contrasts = [styles(STYLES)]
    colours = ("black", "brown", "blond", "red", "gray")
    frames = ("a photo of a person with {} hair", "a face with {} hair", "{} hair")
    contrasts.append(
        Contrast(
            "hair colour",
            tuple(
                Side((f"{c}_hair=1",), tuple(frame.format(c) for frame in frames)) for c in colours
            ),
        )
    )
    for name, pairs in by_name.items():
        first, _, second = name.partition("/")
        if second == "photo" or (first.removesuffix("_hair") in colours):
            continue
        other = f"{second}=1"
        if not second or second == "straight_hair":
            other = f"{first}=-1"
        sides = (
            Side((f"{first}=1",), tuple(p for p, _ in pairs)),
            Side((other,), tuple(n for _, n in pairs)),
        )
        contrasts.append(Contrast(name, sides))
    return tuple(contrasts)


def celeba() -> tuple[Contrast, ...]:
    """Contrasts of the better-labelled CelebA attributes."""

    def person(yes: str, no: str) -> tuple[tuple[str, str], ...]:
        return (
            (f"a photo of {yes} person", f"a photo of {no} person"),
            (f"{yes} face", f"{no} face"),
        )

    def wearing(what: str) -> tuple[tuple[str, str], ...]:
        return (
            (f"a photo of a person with {what}", f"a photo of a person without {what}"),
            (f"a face with {what}", f"a face without {what}"),
        )

    hair = ("Black_Hair", "Brown_Hair", "Blond_Hair", "Gray_Hair")
    return (
        binary("smiling", "Smiling", *person("a smiling", "a serious")),
        binary("young", "Young", *person("a young", "an old")),
        binary("glasses", "Eyeglasses", *wearing("glasses")),
        binary("hat", "Wearing_Hat", *wearing("a hat")),
        binary("mustache", "Mustache", *wearing("a mustache")),
        binary("bangs", "Bangs", *wearing("bangs")),
        binary("makeup", "Heavy_Makeup", *wearing("heavy makeup")),
        Contrast(
            "beard",
            (
                Side(("No_Beard=-1",), tuple(p for p, _ in wearing("a beard"))),
                Side(("No_Beard=1",), tuple(n for _, n in wearing("a beard"))),
            ),
        ),
        binary("man", "Male", ("a photo of a man", "a photo of a woman"), ("a man", "a woman")),
        Contrast(
            "hair colour",
            tuple(
                Side(
                    (f"{h}=1",),
                    tuple(
                        f"{frame} with {h.split('_')[0].lower()} hair"
                        for frame in ("a photo of a person", "a face")
                    ),
                )
                for h in hair
            ),
        ),
    )


def read(path: Path) -> tuple[Contrast, ...]:
    """Contrasts from a JSON file.

    ``[{"name": "smiling", "sides": [{"where": ["Smiling=1"], "prompts": [...]}, ...]}, ...]``

    Raises:
        BadInput: not such a file.
    """
    try:
        rows: Sequence[Mapping[str, Any]] = json.loads(read_text(path, "list of contrasts"))
        return tuple(
            Contrast(
                row["name"],
                tuple(Side(_texts(s["where"]), _texts(s["prompts"])) for s in row["sides"]),
            )
            for row in rows
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise BadInput(f"{path} is no list of contrasts ({e})", "see docs/clip.md") from e


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise TypeError(f"{value!r} is no list of texts")
    return tuple(value)


def to_json(contrasts: Sequence[Contrast]) -> list[dict[str, Any]]:
    """What :func:`read` reads."""
    return [
        {
            "name": c.name,
            "sides": [{"where": list(s.where), "prompts": list(s.prompts)} for s in c.sides],
        }
        for c in contrasts
    ]


def styles(names: Sequence[str]) -> Contrast:
    """The styles of the pictures against each other, in the prompts of drawn faces."""
    from dclip.data.faces import STYLE_PROMPTS

    return Contrast("style", tuple(Side((f"style={s}",), STYLE_PROMPTS[s]) for s in names))


def fitting(data: DataSet) -> tuple[Contrast, ...]:
    """The built-in contrasts whose attributes and styles the data has; empty where it has none."""
    from dclip.data.faces import STYLES

    names = set(data.attribute_names)
    if {"smiling", "glasses"} <= names:
        return faces()
    shown = set(data.table.text("style"))
    known = [style for style in STYLES if style in shown]
    by_style = (styles(known),) if len(known) > 1 else ()
    if {"Smiling", "Eyeglasses"} <= names:
        return by_style + celeba()
    return by_style
