"""Presets: one table of prompt pairs, with the kind, the domains and the settings of each edit."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from dclip.domains import DOMAINS, DRAWN_FACES, FACES, PHOTOS
from dclip.errors import BadInput

OURS = "dclip, on drawn faces"


@dataclass(frozen=True)
class Suited:
    """Settings that an edit was found with.

    Attributes:
        recipe: by name; None is that of its kind of edit (:data:`dclip.recipes.BY_KIND`).
        r: how far into the noise, as a share of the model's T, above 0 and at most 1.
        source: where they are from.
    """

    recipe: str | None
    r: float
    source: str


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
        settings: its own. At its r the noise must hide what is to change.
        published: the settings of a paper, for a base that was imported, where they differ.
        domains: what the pictures must show, names in :data:`dclip.domains.DOMAINS`.
    """

    target: str
    source: str
    kind: str
    settings: Suited = Suited(None, 0.5, OURS)
    published: Suited | None = None
    domains: tuple[str, ...] = (DRAWN_FACES, FACES)

    @property
    def local(self) -> bool:
        """Whether it changes a part of the picture to what other photos show."""
        return self.kind in ("attribute", "colour")

    def suited(self, imported: bool = False) -> Suited:
        """The settings for a base of ours, or for one that was imported."""
        return self.published or self.settings if imported else self.settings

    def fits(self, domain: str) -> bool:
        """Whether pictures of that domain can show it; of photos of anything nobody knows."""
        return domain == PHOTOS or domain in self.domains


HAIR_COLOURS = ("black", "brown", "blond", "red", "gray")

# DiffusionCLIP counts from 0: its return step t_0 of T = 1000 is our timestep t_0 + 1. Where a
# published checkpoint names its t_0, that is taken; else the one that the README says is usual.
_NAMED = "DiffusionCLIP (2110.02711), a published checkpoint's t_0"
_LISTED = "DiffusionCLIP (2110.02711), its list of subjects; r by its README's usual t_0"
_EFFICIENT = "Efficient Diffusion (2304.04344), its list of subjects; r by its advice"
_ASYRP = "Asyrp (2210.10960), a published edit; it inverts to T"


def _clip(t_0: int, named: bool = False) -> Suited:
    return Suited("diffusionclip", (t_0 + 1) / 1000, _NAMED if named else _LISTED)


def _efficient(t_0: int) -> Suited:
    return Suited("efficient-diffusion", (t_0 + 1) / 1000, _EFFICIENT)


_HSPACE = Suited("asyrp", 1.0, _ASYRP)


def _hair(colour: str, published: Suited | None = None) -> Preset:
    others = "; ".join(f"a face with {other} hair" for other in HAIR_COLOURS if other != colour)
    return Preset(f"a face with {colour} hair", others, "colour", published=published)


def _of(domain: str, edits: Mapping[str, tuple[str, str, Suited]]) -> dict[str, Preset]:
    """Presets of one domain, from ``name: (target, kind, settings)``."""
    source = DOMAINS[domain].source
    return {
        name: Preset(target, source, kind, settings, domains=(domain,))
        for name, (target, kind, settings) in edits.items()
    }


def split_sources(source: str) -> list[str]:
    """The prompts in a source text, separated by semicolons.

    Of several, each photo starts from the one that the CLIP finds most like it: the text difference
    from red hair to blond is not that from black.
    """
    return [part.strip() for part in source.split(";")]


# Named as the renderer names its targets, so that edits of rendered faces can be scored.
PRESETS: dict[str, Preset] = {
    "sketch": Preset(
        "a pencil sketch of a person",
        "a photo of a person",
        "drawing",
        published=_clip(601, named=True),
    ),
    "cartoon": Preset("a cartoon of a person", "a photo of a person", "style"),
    "oil painting": Preset("an oil painting of a person", "a photo of a person", "style"),
    "watercolor": Preset(
        "a watercolor of a person", "a photo of a person", "style", published=_clip(601)
    ),
    "neon": Preset("a neon picture of a person", "a photo of a person", "style"),
    "black and white": Preset(
        "a black and white photo of a person", "a photo of a person", "drawing"
    ),
    "sepia": Preset("a sepia photo of a person", "a photo of a person", "style"),
    "zombie": Preset(
        "a photo of a zombie", "a photo of a person", "character", published=_clip(601)
    ),
    "smiling": Preset("a smiling person", "a serious person", "attribute", published=_clip(401)),
    "not smiling": Preset("a serious person", "a smiling person", "attribute"),
    "glasses": Preset("a face with glasses", "a face without glasses", "attribute"),
    "no glasses": Preset("a face without glasses", "a face with glasses", "attribute"),
    "blond hair": _hair("blond", _clip(401)),
    "black hair": _hair("black"),
    "brown hair": _hair("brown"),
    "red hair": _hair("red", _clip(401)),
    "gray hair": _hair("gray", _clip(401)),
    "beard": Preset(
        "a face with a beard", "a face without a beard", "attribute", published=_clip(401)
    ),
    "no beard": Preset("a face without a beard", "a face with a beard", "attribute"),
    "mustache": Preset("a face with a mustache", "a face without a mustache", "attribute"),
    "lipstick": Preset("a face with lipstick", "a face without lipstick", "colour"),
    "bald": Preset("a bald person", "a person with hair", "attribute", published=_efficient(350)),
    "old": Preset("an old person", "a young person", "attribute", published=_clip(401)),
    "young": Preset("a young person", "an old person", "attribute", published=_clip(401)),
    **_of(
        FACES,
        {
            "tanned": ("a person with a deep suntan", "colour", _clip(201, named=True)),
            "pale": ("a person with very pale skin", "colour", _clip(201)),
            "makeup": ("a person wearing makeup", "attribute", _clip(301, named=True)),
            "no makeup": ("a person with a bare face", "attribute", _clip(301, named=True)),
            "angry": ("a person with an angry look", "attribute", _clip(401)),
            "surprised": ("a person with a surprised look", "attribute", _clip(401)),
            "sad": ("a person with a sad look", "attribute", _HSPACE),
            "curly hair": ("a person with curls", "attribute", _clip(401)),
            "man": ("a photo of a man", "attribute", _clip(401, named=True)),
            "woman": ("a photo of a woman", "attribute", _HSPACE),
            "van gogh": ("a portrait by Vincent van Gogh", "style", _clip(601, named=True)),
            "frida kahlo": ("a portrait by Frida Kahlo", "style", _clip(601)),
            "modigliani": ("a portrait by Amedeo Modigliani", "style", _clip(601)),
            "botero": ("a portrait by Fernando Botero", "style", _efficient(500)),
            "pixar": ("a character of a Pixar movie", "character", _clip(601, named=True)),
            "neanderthal": ("a photo of a Neanderthal", "character", _clip(601, named=True)),
            "elf": ("a photo of an elf", "character", _clip(601)),
            "super saiyan": ("a picture of a Super Saiyan", "character", _clip(601)),
            "joker": ("a photo of the Joker", "character", _clip(601)),
            "superman": ("a photo of Superman", "character", _efficient(500)),
            "nicolas cage": ("a photo of Nicolas Cage", "character", _clip(601)),
            "mark zuckerberg": ("a photo of Mark Zuckerberg", "character", _clip(601)),
            "benedict cumberbatch": ("a photo of Benedict Cumberbatch", "character", _clip(601)),
            "brad pitt": ("a photo of Brad Pitt", "character", _efficient(500)),
            "angelina jolie": ("a photo of Angelina Jolie", "character", _efficient(500)),
            "jim carrey": ("a photo of Jim Carrey", "character", _efficient(500)),
        },
    ),
    **_of(
        "dogs",
        {
            "nicolas cage dog": ("a photo of Nicolas Cage", "character", _clip(601, named=True)),
            "yorkshire dog": ("a Yorkshire terrier", "character", _clip(601, named=True)),
            "smiling dog": ("a dog that smiles", "attribute", _clip(401)),
            "zombie dog": ("a photo of a zombie", "character", _clip(601, named=True)),
            "super saiyan dog": ("a picture of a Super Saiyan", "character", _clip(601)),
            "venom dog": ("a picture of Venom", "character", _clip(601, named=True)),
            "bear": ("a photo of a bear", "character", _clip(500, named=True)),
            "fox": ("a photo of a fox", "character", _clip(500)),
            "wolf": ("a photo of a wolf", "character", _clip(500)),
            "hamster": ("a photo of a hamster", "character", _clip(601, named=True)),
            "van gogh dog": ("a dog painted by van Gogh", "style", _clip(500, named=True)),
            "happy dog": ("a dog with a happy look", "attribute", _HSPACE),
            "angry dog": ("a dog with an angry look", "attribute", _HSPACE),
            "sleepy dog": ("a dog with a sleepy look", "attribute", _HSPACE),
        },
    ),
    **_of(
        "churches",
        {
            "snowy church": ("a church under snow", "style", _clip(500)),
            "church at night": ("a church in the dark of night", "style", _clip(500)),
            "red brick church": ("a church of red bricks", "style", _clip(500)),
            "golden church": ("a church made of gold", "style", _clip(500)),
            "wooden house": ("a house made of wood", "character", _clip(601)),
            "wooden church": ("a church made of wood", "style", _HSPACE),
            "gothic church": ("a Gothic cathedral", "style", _clip(500)),
            "asian tower": ("an old pagoda in Asia", "character", _clip(601)),
            "temple": ("a photo of a temple", "character", _clip(601)),
            "factory": ("a factory with smokestacks", "character", _clip(601)),
            "department store": ("a large shop in a city", "character", _clip(500, named=True)),
            "modern church": ("a church of modern design", "style", _efficient(500)),
            "painted church": ("a painting of a church", "style", _efficient(500)),
        },
    ),
    **_of(
        "bedrooms",
        {
            "blue bedroom": ("a bedroom all in blue", "style", _clip(500)),
            "green bedroom": ("a bedroom all in green", "style", _clip(500)),
            "golden bedroom": ("a bedroom made of gold", "style", _clip(500)),
            "princess bedroom": ("a bedroom for a princess", "style", _clip(500)),
            "palace bedroom": ("a bedroom in a palace", "style", _clip(500)),
            "wooden bedroom": ("a bedroom made of wood", "style", _clip(500)),
            "hotel bedroom": ("a room in a hotel", "style", _HSPACE),
        },
    ),
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
        f"did you mean {' or '.join(repr(n) for n in near)}? `dclip presets` lists them"
        if near
        else "`dclip presets` lists them; or give --target and --source",
    )


def presets_of(domain: str) -> dict[str, Preset]:
    """The presets that pictures of a domain can show, as they stand in the table."""
    return {name: row for name, row in PRESETS.items() if row.fits(domain)}


def unfit(name: str, domain: str) -> str | None:
    """What to warn of where a model of ``domain`` is to make a preset of another; else None."""
    row = PRESETS.get(name)
    if row is None or row.fits(domain):
        return None
    return (
        f"{name} is an edit of {DOMAINS[row.domains[0]].summary}, and the model draws"
        f" {DOMAINS[domain].summary}: `dclip presets --domain {domain}` lists those of its own"
    )
