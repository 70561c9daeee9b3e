"""English for faces: true captions, and prompt pairs that differ in one property."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np

from dclip.data.faces.params import FaceParams, HairColour, attributes
from dclip.data.faces.styles import STYLES

COLOURLESS: frozenset[str] = frozenset({"sketch", "bw", "sepia", "neon"})
"""Styles in which colours of hair, lips and skin cannot be seen."""

_FROWN_BELOW = -0.4

# Every word of a caption is in one of the tables below; `WORDS` is made from them.
_MEDIUM: Mapping[str, tuple[str, ...]] = {
    "photo": ("photo", "photograph", "picture", "portrait photo", "color photo", "realistic photo"),
    "sketch": ("sketch", "pencil sketch", "pencil drawing", "drawing", "hand drawn sketch"),
    "cartoon": ("cartoon", "cartoon drawing", "comic", "cartoon portrait", "flat cartoon"),
    "oil": ("oil painting", "painting", "oil portrait", "painted portrait", "oil on canvas"),
    "watercolor": ("watercolor", "watercolor painting", "watercolor portrait"),
    "zombie": ("photo", "picture", "photograph"),
    "bw": (
        "black and white photo", "monochrome photo", "black and white picture",
        "black and white portrait", "grayscale photo",
    ),
    "sepia": ("sepia photo", "sepia photograph", "sepia portrait", "vintage sepia photo"),
    "neon": ("neon picture", "neon portrait", "neon sign", "glowing neon outline"),
}  # fmt: skip
_SUBJECT = ("person", "person", "face", "human", "human face")
_UNDEAD = ("zombie", "undead person", "zombie face", "rotten zombie", "undead zombie", "zombie")
_AS_ZOMBIE = ("as a zombie", "turned into a zombie", "in zombie makeup")
_ADJECTIVES: Mapping[str, tuple[str, ...]] = {
    "smiling": ("smiling", "happy", "cheerful", "smiling", "grinning", "laughing"),
    "serious": ("serious", "unsmiling"),
    "frowning": ("sad", "frowning", "unhappy", "grumpy"),
    "old": ("old", "elderly", "aged", "senior"),
    "young": ("young", "youthful"),
    "bald": ("bald",),
    "beard": ("bearded",),
}
_WITH: Mapping[str, tuple[str, ...]] = {
    "smiling": ("a smile", "a big smile", "a happy smile"),
    "frowning": ("a frown", "a sad mouth"),
    "old": ("wrinkles", "an old face", "wrinkled skin"),
    "young": ("a young face", "smooth skin"),
    "glasses": ("glasses", "eyeglasses", "spectacles", "a pair of glasses"),
    "beard": ("a beard", "a full beard"),
    "mustache": ("a mustache", "a moustache"),
    "lipstick": ("lipstick", "red lipstick", "painted lips", "makeup"),
    "pale_skin": ("pale skin", "light skin", "fair skin"),
    "dark_skin": ("dark skin", "brown skin"),
    "bald": ("no hair", "a bald head"),
}
_WITHOUT: Mapping[str, tuple[str, ...]] = {
    "glasses": ("without glasses", "with no glasses", "without eyeglasses"),
    "beard": ("without a beard", "with no beard"),
    "mustache": ("without a mustache", "with no mustache"),
    "smiling": ("not smiling", "without a smile"),
    "lipstick": ("without lipstick", "with no makeup"),
    "bald": ("with hair", "not bald"),
}
_SHAVEN = ("clean-shaven", "without facial hair")
_HAIR_COLOUR: Mapping[str, tuple[str, ...]] = {
    "black": ("black",),
    "brown": ("brown",),
    "blond": ("blond", "blonde", "yellow", "golden"),
    "red": ("red", "ginger"),
    "gray": ("gray", "grey", "silver"),
}
_HAIR_SHAPE: Mapping[str, tuple[str, ...]] = {
    "buzz": ("short", "very short", "cropped"),
    "short": ("short",),
    "quiff": ("short", "short styled"),
    "bob": ("straight", "medium length", "chin-length"),
    "long": ("long", "long straight"),
    "wavy": ("long curly", "long wavy", "curly", "long"),
    "afro": ("curly", "frizzy", "big curly"),
    "bun": ("tied", "tied up"),
}
_JOINTS = (
    "a", "an", "the", "of", "with", "and", "wearing", "who", "is", "has", "hair", "style", "in",
    "showing", "this", "close-up",
)  # fmt: skip


def words(text: str) -> list[str]:
    """The lower-case words of a text, as `WORDS` counts them."""
    return re.findall(r"[a-z]+", text.lower())


def _table_words() -> frozenset[str]:
    tables = (_MEDIUM, _ADJECTIVES, _WITH, _WITHOUT, _HAIR_COLOUR, _HAIR_SHAPE)
    phrases = [phrase for table in tables for group in table.values() for phrase in group]
    phrases += [*_SUBJECT, *_UNDEAD, *_AS_ZOMBIE, *_SHAVEN, *_JOINTS]
    return frozenset(word for phrase in phrases for word in words(phrase))


WORDS: frozenset[str] = _table_words()
"""Every lower-case word that a caption can contain."""


def facts(params: FaceParams, style: str) -> dict[str, bool]:
    """`attributes` and "frowning", less what the style does not show."""
    known = attributes(params) | {"frowning": params.smile < _FROWN_BELOW}
    hidden: set[str] = set()
    if style in COLOURLESS:
        hidden |= {f"{colour}_hair" for colour in get_args(HairColour)}
        hidden |= {"lipstick", "pale_skin", "dark_skin"}
    if style == "zombie":
        hidden |= {"lipstick", "pale_skin", "dark_skin"}
    if style == "cartoon":
        hidden |= {"young"}
    return {name: value for name, value in known.items() if name not in hidden}


class _Writer:
    """Random choices of one caption."""

    def __init__(self, seed: int, index: int) -> None:
        key = np.array([seed, index], np.uint64)
        # A counter far from that of `sample`, which shares the key.
        self.rng = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, 1]))

    def pick(self, options: Sequence[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def shuffled(self, items: Sequence[str]) -> list[str]:
        return [items[i] for i in self.rng.permutation(len(items))]


def _article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def _hair(params: FaceParams, style: str, writer: _Writer) -> str:
    parts = [writer.pick(_HAIR_SHAPE[params.hair_shape])] if writer.chance(0.45) else []
    if style not in COLOURLESS and (writer.chance(0.8) or not parts):
        parts.append(writer.pick(_HAIR_COLOUR[params.hair_colour]))
    if not parts:
        parts.append(writer.pick(_HAIR_SHAPE[params.hair_shape]))
    return " ".join([*parts, "hair"])


def _details(params: FaceParams, style: str, writer: _Writer, most: int) -> tuple[str, list[str]]:
    """Up to `most` true things: adjectives before the subject, clauses after it."""
    known = facts(params, style)
    true = [
        name for name, value in known.items() if value and (name in _WITH or name in _ADJECTIVES)
    ]
    if not params.bald:
        true.append("hair")
    adjectives: list[str] = []
    clauses: list[str] = []
    for name in writer.shuffled(true)[:most]:
        if name == "hair":
            clauses.append(_hair(params, style, writer))
        elif name in _ADJECTIVES and (name not in _WITH or writer.chance(0.65)):
            adjectives.append(writer.pick(_ADJECTIVES[name]))
        else:
            clauses.append(writer.pick(_WITH[name]))
    return " ".join(adjectives[:2]), clauses


def _negative(params: FaceParams, style: str, writer: _Writer) -> str:
    known = facts(params, style)
    false = [name for name in _WITHOUT if known.get(name) is False]
    options = [writer.pick(_WITHOUT[name]) for name in false]
    if not params.beard and not params.mustache:
        options.append(writer.pick(_SHAVEN))
    return writer.pick(options) if options else ""


def caption(params: FaceParams, style: str = "photo", *, seed: int, index: int) -> str:
    """A true English caption of the face drawn in a style; (seed, index) keys the wording.

    It names a random few of the face's attributes, sometimes none, and every word is in
    `WORDS`. Raises ValueError for an unknown style.
    """
    if style not in STYLES:
        raise ValueError(f"style {style!r} is none of {', '.join(STYLES)}")
    writer = _Writer(seed, index)
    medium = writer.pick(_MEDIUM[style])
    if writer.chance(0.07):
        bare = writer.pick(_UNDEAD) if style == "zombie" else medium
        return bare if writer.chance(0.3) else _article(bare)
    adjectives, clauses = _details(params, style, writer, int(writer.rng.integers(0, 4)))
    subject = writer.pick(_SUBJECT)
    after = ""
    if style == "zombie":
        if writer.chance(0.6):
            subject = writer.pick(_UNDEAD)
        else:
            after = " " + writer.pick(_AS_ZOMBIE)
    noun = f"{adjectives} {subject}".strip()
    if style == "photo" and writer.chance(0.12):
        text = noun if writer.chance(0.4) else _article(noun)
    elif style == "zombie" and writer.chance(0.35):
        text = _article(noun)
    else:
        close = "close-up " if style == "photo" and writer.chance(0.1) else ""
        text = f"{_article(close + medium)} of {_article(noun)}"
    text += after
    worn = bool(clauses) and clauses[0] in _WITH["glasses"] and writer.chance(0.6)
    if clauses:
        text += (" wearing " if worn else " with ") + _listed(clauses)
    if writer.chance(0.22):
        negative = _negative(params, style, writer)
        text += f" {negative}" if negative and not clauses else f", {negative}" if negative else ""
    if style == "photo" and writer.chance(0.04):
        text = "this is " + text if text.startswith(("a ", "an ")) else text
    return text
