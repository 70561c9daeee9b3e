"""CelebA's attributes turned into English, so that a CLIP can be trained on its photos."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

_ADJECTIVES = (
    ("Smiling", "1", ("smiling", "happy")),
    ("Smiling", "-1", ("serious",)),
    ("Young", "1", ("young",)),
    ("Young", "-1", ("old",)),
    ("Bald", "1", ("bald",)),
    ("Chubby", "1", ("chubby",)),
)
_WITH = (
    ("Eyeglasses", "1", ("glasses", "eyeglasses")),
    ("Wearing_Hat", "1", ("a hat",)),
    ("No_Beard", "-1", ("a beard",)),
    ("Mustache", "1", ("a mustache",)),
    ("Goatee", "1", ("a goatee",)),
    ("Bangs", "1", ("bangs",)),
    ("Heavy_Makeup", "1", ("heavy makeup", "makeup")),
    ("Wearing_Lipstick", "1", ("lipstick",)),
    ("Wearing_Earrings", "1", ("earrings",)),
    ("Wearing_Necktie", "1", ("a necktie",)),
    ("Pale_Skin", "1", ("pale skin",)),
    ("Mouth_Slightly_Open", "1", ("an open mouth",)),
)
_COLOURS = {f"{c.title()}_Hair": c for c in ("black", "brown", "blond", "gray")}
_SHAPES = {"Wavy_Hair": "wavy", "Straight_Hair": "straight"}
_MALE = {"1": ("man",), "-1": ("woman",)}
_ANYONE = ("person", "face")

_MENTIONED = 0.5
"""Chance that a caption mentions what is true: captions vary, and an absence says nothing."""


def caption(attributes: Mapping[str, str], name: str) -> str:
    """A true sentence about a photo of CelebA; empty where nothing is known of it.

    Args:
        attributes: ``"1"`` yes, ``"-1"`` no, of as many of the 40 as are known.
        name: of the picture; keys what the caption mentions and how.
    """
    if not any(attributes.values()):
        return ""
    rand = random.Random(f"celeba caption {name}")

    def chosen(table: Sequence[tuple[str, str, Sequence[str]]], most: int) -> list[str]:
        true = [
            words
            for attribute, value, words in table
            if attributes.get(attribute) == value and rand.random() < _MENTIONED
        ]
        return [rand.choice(words) for words in rand.sample(true, min(most, len(true)))]

    subjects: tuple[str, ...] = _ANYONE
    if rand.random() < 0.8:
        subjects = _MALE.get(attributes.get("Male", ""), _ANYONE)
    named = [*chosen(_ADJECTIVES, 2), rand.choice(subjects)]
    details = chosen(_WITH, 2)
    colour = next((c for a, c in _COLOURS.items() if attributes.get(a) == "1"), None)
    if colour and rand.random() < 0.6:
        shape = next((s for a, s in _SHAPES.items() if attributes.get(a) == "1"), None)
        with_shape = f"{shape} " if shape and rand.random() < _MENTIONED else ""
        details.insert(0, f"{colour} {with_shape}hair")
    article = "an" if named[0][0] in "aeiou" else "a"
    frame = rand.choice(("a photo of {}", "a photo of {}", "a portrait of {}", "{}"))
    text = frame.format(f"{article} {' '.join(named)}")
    if details:
        text += f" with {', '.join(details[:-1])}" if details[1:] else ""
        text += f" and {details[-1]}" if details[1:] else f" with {details[0]}"
    return text
