"""Presets: one table of prompt pairs, with the kind and r of each edit."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from dclip.errors import BadInput


@dataclass(frozen=True)
class Preset:
    """A named edit.

    Attributes:
        target: prompt of what to see.
        source: prompt of what is there before; several (see :func:`split_sources`) where photos
            differ in it.
        kind: ``"style"`` repaints the whole picture, ``"drawing"`` does so without colours,
            ``"character"`` makes the person one that no photo shows, ``"attribute"`` changes a
            part of the picture, ``"colour"`` a part's colour alone.
        r: the timestep to invert to, of T = 200. At r the noise must hide what is to change.
    """

    target: str
    source: str
    kind: str
    r: int = 100

    @property
    def local(self) -> bool:
        """Whether it changes a part of the picture to what other photos show."""
        return self.kind in ("attribute", "colour")


HAIR_COLOURS = ("black", "brown", "blond", "red", "gray")


def _hair(colour: str) -> Preset:
    others = "; ".join(f"a face with {other} hair" for other in HAIR_COLOURS if other != colour)
    return Preset(f"a face with {colour} hair", others, "colour")


def split_sources(source: str) -> list[str]:
    """The prompts in a source text, separated by semicolons.

    Of several, each photo starts from the one that the CLIP finds most like it: the text difference
    from red hair to blond is not that from black.
    """
    return [part.strip() for part in source.split(";")]


# Named as the renderer names its targets, so that edits of rendered faces can be scored.
PRESETS: dict[str, Preset] = {
    "sketch": Preset("a pencil sketch of a person", "a photo of a person", "drawing"),
    "cartoon": Preset("a cartoon of a person", "a photo of a person", "style"),
    "oil painting": Preset("an oil painting of a person", "a photo of a person", "style"),
    "watercolor": Preset("a watercolor of a person", "a photo of a person", "style"),
    "neon": Preset("a neon picture of a person", "a photo of a person", "style"),
    "black and white": Preset(
        "a black and white photo of a person", "a photo of a person", "drawing"
    ),
    "sepia": Preset("a sepia photo of a person", "a photo of a person", "style"),
    "zombie": Preset("a photo of a zombie", "a photo of a person", "character"),
    "smiling": Preset("a smiling person", "a serious person", "attribute"),
    "not smiling": Preset("a serious person", "a smiling person", "attribute"),
    "glasses": Preset("a face with glasses", "a face without glasses", "attribute"),
    "no glasses": Preset("a face without glasses", "a face with glasses", "attribute"),
    "blond hair": _hair("blond"),
    "black hair": _hair("black"),
    "brown hair": _hair("brown"),
    "red hair": _hair("red"),
    "gray hair": _hair("gray"),
    "beard": Preset("a face with a beard", "a face without a beard", "attribute"),
    "no beard": Preset("a face without a beard", "a face with a beard", "attribute"),
    "mustache": Preset("a face with a mustache", "a face without a mustache", "attribute"),
    "lipstick": Preset("a face with lipstick", "a face without lipstick", "colour"),
    "bald": Preset("a bald person", "a person with hair", "attribute"),
    "old": Preset("an old person", "a young person", "attribute"),
    "young": Preset("a young person", "an old person", "attribute"),
}


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        BadInput: an unknown name, with the nearest ones.
    """
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name, PRESETS, 3, 0.4)
    raise BadInput(
        f"unknown preset {name!r}",
        f"did you mean {' or '.join(repr(n) for n in near)}? All: {', '.join(PRESETS)}"
        if near
        else f"choose from {', '.join(PRESETS)}, or give --target and --source",
    )
