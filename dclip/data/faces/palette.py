"""Colours of skin, hair, eyes, lips, frames, clothes and backdrops from face parameters."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping

from dclip.data.faces.canvas import Colour, dim, mix, step
from dclip.data.faces.params import OLD_ABOVE, FaceParams


def _rgb(code: str) -> Colour:
    return (int(code[0:2], 16) / 255, int(code[2:4], 16) / 255, int(code[4:6], 16) / 255)


_SKIN = tuple(map(_rgb, ("f8dcc8", "efc3a4", "dba680", "b97f58", "8a5a3c", "5a3826")))
"""Equal steps of `skin` from 0 to 1."""

HAIR: Mapping[str, Colour] = {
    "black": _rgb("201c1f"),
    "brown": _rgb("6a4028"),
    "blond": _rgb("e6c070"),
    "red": _rgb("9c3c1e"),
    "gray": _rgb("a9abb0"),
}
EYES: Mapping[str, Colour] = {
    "brown": _rgb("4a2a16"),
    "hazel": _rgb("7d6430"),
    "green": _rgb("3f8050"),
    "blue": _rgb("3c7cc4"),
    "gray": _rgb("76828c"),
}
_LIPSTICK = tuple(map(_rgb, ("c8102e", "a01048", "d8306a", "d0241c")))
_FRAMES = tuple(map(_rgb, ("101014", "2a1a12", "14183a", "3c0c14", "101014")))

ZOMBIE_SKIN: Colour = _rgb("8fa37c")
BLOOD: Colour = _rgb("7c0c10")


def _ramp(stops: tuple[Colour, ...], at: float) -> Colour:
    place = at * (len(stops) - 1)
    first = min(int(place), len(stops) - 2)
    return mix(stops[first], stops[first + 1], place - first)


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    return colorsys.hsv_to_rgb(hue, saturation, value)


def skin(params: FaceParams, *, zombie: bool = False) -> Colour:
    """Skin in full light; a zombie keeps a share of the tone under the green."""
    tone = _ramp(_SKIN, params.skin)
    r, g, b = tone
    warm = 0.02 * params.undertone
    tone = (min(r + warm, 1.0), g, b - warm)
    return mix(tone, dim(ZOMBIE_SKIN, 1.05 - 0.45 * params.skin), 0.88) if zombie else tone


def hair(params: FaceParams) -> Colour:
    """Hair in full light; old age takes a little of its colour."""
    base = HAIR[params.hair_colour]
    spread = 0.5 if params.hair_colour == "black" else 0.16
    r, g, b = dim(base, 1.0 + spread * params.hair_light)
    if params.hair_colour != "gray":
        r, b = r * (1 + 0.06 * params.hair_warm), b * (1 - 0.12 * params.hair_warm)
    gray = 0.20 * step(OLD_ABOVE - 0.1, 0.9, params.age) if params.hair_colour != "gray" else 0.0
    return mix((min(r, 1.0), g, min(b, 1.0)), (0.6, 0.6, 0.6), gray)


def eyes(params: FaceParams) -> Colour:
    """Iris."""
    return dim(EYES[params.eye_colour], 1.0 + 0.15 * params.eye_tone)


def lips(params: FaceParams, *, zombie: bool = False) -> Colour:
    """Lips, painted or bare."""
    if zombie:
        return _rgb("4c4a44")
    if params.lipstick:
        return dim(_ramp(_LIPSTICK, params.lipstick_tone), 1.02 - 0.2 * params.skin)
    r, g, b = skin(params)
    return mix((r * 0.86, g * 0.62, b * 0.62), _rgb("b0605c"), 0.3)


def frames(params: FaceParams) -> Colour:
    """Frames of the glasses, always dark."""
    return _ramp(_FRAMES, params.glasses_tone)


def cloth(params: FaceParams) -> Colour:
    """Clothes."""
    return _hsv(params.cloth_hue, params.cloth_saturation, params.cloth_value)


def backdrop(params: FaceParams) -> tuple[Colour, Colour]:
    """The two colours of the backdrop."""
    value, saturation = params.backdrop_value, params.backdrop_saturation
    near = 0.25 * (params.backdrop_hue2 - 0.5)
    other = value * (0.62 if value > 0.55 else 1.5)
    return (
        _hsv(params.backdrop_hue, saturation, value),
        _hsv((params.backdrop_hue + near) % 1.0, saturation * 0.9, other),
    )
