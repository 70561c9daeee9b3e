"""Prompt pairs that differ in exactly one property, and which of the two is right."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import get_args

from dclip.data.faces.captions import facts
from dclip.data.faces.params import CURLY_SHAPES, FaceParams, HairColour
from dclip.data.faces.styles import STYLES

STYLE_PROMPTS: Mapping[str, tuple[str, ...]] = {
    "photo": ("a photo of a person", "photo", "a photo of a face", "a photograph"),
    "sketch": ("a pencil sketch of a person", "sketch", "a drawing of a face", "a pencil sketch"),
    "cartoon": ("a cartoon of a person", "cartoon", "a cartoon of a face", "a cartoon drawing"),
    "oil": ("an oil painting of a person", "oil painting", "a painting of a face", "a painting"),
    "watercolor": (
        "a watercolor of a person", "watercolor", "a watercolor painting of a face",
        "a watercolor painting",
    ),
    "zombie": ("a photo of a zombie", "zombie", "a zombie face", "an undead zombie"),
    "bw": (
        "a black and white photo of a person", "black and white photo",
        "a black and white photo of a face", "a monochrome photo",
    ),
    "sepia": ("a sepia photo of a person", "sepia photo", "a sepia photo of a face", "sepia"),
    "neon": ("a neon picture of a person", "neon", "a neon portrait of a face", "a neon picture"),
}  # fmt: skip
"""Prompts of a style, position by position of the same wording in every style."""

_PHRASES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "smiling": (
        ("a smiling person", "a serious person"),
        ("a smiling face", "a face"),
        ("a happy person", "a sad person"),
        ("a person with a smile", "a person without a smile"),
    ),
    "glasses": (
        ("a face with glasses", "a face without glasses"),
        ("a person wearing glasses", "a person"),
        ("a person with eyeglasses", "a person with no glasses"),
    ),
    "beard": (
        ("a face with a beard", "a face without a beard"),
        ("a bearded person", "a person"),
        ("a person with a beard", "a person with no beard"),
    ),
    "mustache": (
        ("a face with a mustache", "a face without a mustache"),
        ("a person with a mustache", "a person"),
    ),
    "lipstick": (
        ("a face with lipstick", "a face without lipstick"),
        ("a person with red lipstick", "a person"),
        ("a person with makeup", "a person with no makeup"),
    ),
    "bald": (
        ("a bald person", "a person with hair"),
        ("a bald face", "a face with hair"),
        ("a person with no hair", "a person with hair"),
    ),
    "old/young": (
        ("an old person", "a young person"),
        ("an elderly person", "a young person"),
        ("an old face", "a young face"),
    ),
    "long_hair/short_hair": (
        ("a person with long hair", "a person with short hair"),
        ("a face with long hair", "a face with short hair"),
    ),
    "curly_hair/straight_hair": (
        ("a person with curly hair", "a person with straight hair"),
        ("a face with curly hair", "a face with straight hair"),
    ),
    "dark_skin/pale_skin": (
        ("a person with dark skin", "a person with pale skin"),
        ("a face with dark skin", "a face with light skin"),
    ),
}


def _pairs() -> tuple[tuple[str, str, str], ...]:
    pairs = []
    for name, phrases in _PHRASES.items():
        for positive, negative in phrases:
            pairs.append((name, positive, negative))
            pairs.append((name, f"a photo of {positive}", f"a photo of {negative}"))
    for first, second in combinations(get_args(HairColour), 2):
        for frame in ("a photo of a person with {} hair", "a face with {} hair", "{} hair"):
            name = f"{first}_hair/{second}_hair"
            pairs.append((name, frame.format(first), frame.format(second)))
    for style in STYLES[1:]:
        for prompt, photo in zip(STYLE_PROMPTS[style], STYLE_PROMPTS["photo"], strict=True):
            pairs.append((f"{style}/photo", prompt, photo))
    return tuple(pairs)


PROMPT_PAIRS: tuple[tuple[str, str, str], ...] = _pairs()
"""(name, positive, negative): two prompts that differ in one property; see `pair_label`.

A name "x" contrasts attribute x with its absence, "x/y" attribute x with attribute y or
style x with the photo.
"""

_NAMES: frozenset[str] = frozenset(name for name, _, _ in PROMPT_PAIRS)


def pair_label(name: str, params: FaceParams, style: str = "photo") -> bool | None:
    """True where the positive prompt of the pair is right, False where the negative is,
    None where neither is or the style does not show it. Raises ValueError for an unknown name.
    """
    if name not in _NAMES:
        raise ValueError(f"prompt pair {name!r} is none of {', '.join(sorted(_NAMES))}")
    first, _, second = name.partition("/")
    if second == "photo":
        return True if style == first else False if style == "photo" else None
    known = facts(params, style)
    if second == "straight_hair":
        return None if params.bald else params.hair_shape in CURLY_SHAPES
    if not second:
        return known.get(first)
    return True if known.get(first) else False if known.get(second) else None
