"""Hair of the head and of the face, in strands or curls."""

from __future__ import annotations

import numpy as np

from dclip.data.faces.canvas import (
    Array,
    Frame,
    Patch,
    bow,
    box,
    dim,
    ellipse,
    lens,
    merge,
    mix,
    step,
)
from dclip.data.faces.params import CURLY_SHAPES, OLD_ABOVE
from dclip.data.faces.sitter import MOUTH_Y, NOSE_Y, Sitter


def back(sitter: Sitter) -> None:
    """What hangs or stands behind head and neck."""
    params, p = sitter.params, sitter.face.whole()
    if params.bald:
        return
    volume, x = params.hair_volume, -0.06 * sitter.turn
    if params.hair_shape == "bob":
        shape = box(p, x, 0.02, 0.54 + 0.05 * volume, 0.60, 0.3)
    elif params.hair_shape in ("long", "wavy"):
        shape = box(p, x, 0.35, 0.54 + 0.06 * volume, 0.95, 0.35)
        if params.hair_shape == "wavy":
            shape = shape - _curl(p, 0.035)
    elif params.hair_shape == "afro":
        radius = 0.66 + 0.08 * volume
        shape = ellipse(p, x, -0.22, radius, radius * 0.96) - _curl(p, 0.03)
    elif params.hair_shape == "bun":
        shape = ellipse(p, 0.12 * params.part - 0.1 * sitter.turn, -0.70, 0.19, 0.17)
    else:
        return
    sitter.canvas.fill(p, shape, _colour(sitter, p, 0.72))


def front(sitter: Sitter) -> None:
    """What lies on the head: cap, fringe, side curtains."""
    params = sitter.params
    if params.bald:
        _bald_gloss(sitter)
        return
    p = sitter.face.patch(0.0, 0.0, 0.75, 1.05)
    outer = _cap(sitter, p)
    shape = np.maximum(outer, -_opening(sitter, p))
    sitter.canvas.fill(p, shape, _colour(sitter, p, 1.0), soft=0.012)


def _cap(sitter: Sitter, p: Patch) -> Array:
    params, s = sitter.params, sitter.turn
    name, volume = params.hair_shape, params.hair_volume
    x = -0.06 * s
    if name == "buzz":
        return _trimmed(ellipse(p, x, -0.13, sitter.rx + 0.02, 0.555), p.y - 0.03)
    if name == "short":
        rx, ry = sitter.rx + 0.045 + 0.02 * volume, 0.60 + 0.04 * volume
        return _trimmed(ellipse(p, x, -0.13, rx, ry), p.y - 0.06)
    if name == "quiff":
        crown = ellipse(p, x, -0.12, sitter.rx + 0.03, 0.57)
        tuft = ellipse(p, x + 0.12 * params.part, -0.60, 0.36, 0.17 + 0.06 * volume)
        return _trimmed(merge(crown, tuft, 0.12), p.y - 0.04)
    if name == "bun":
        return _trimmed(ellipse(p, x, -0.13, sitter.rx + 0.025, 0.565), p.y - 0.08)
    if name == "afro":
        radius = 0.66 + 0.08 * volume
        ring = ellipse(p, x, -0.22, radius, radius * 0.96) - _curl(p, 0.03)
        return _trimmed(ring, p.y - 0.02)
    crown = ellipse(p, x, -0.12, sitter.rx + 0.075 + 0.03 * volume, 0.62 + 0.05 * volume)
    bottom = 0.58 if name == "bob" else 0.98
    half = sitter.rx + 0.085 + 0.04 * volume
    curtain = box(p, x, (bottom - 0.15) / 2, half, (bottom + 0.15) / 2, 0.12)
    shape = merge(crown, curtain, 0.1)
    return np.asarray(shape - _curl(p, 0.03), np.float32) if name == "wavy" else shape


def _trimmed(shape: Array, below: Array) -> Array:
    """A shape less what lies where `below` is positive."""
    return np.asarray(np.maximum(shape, below), np.float32)


def _opening(sitter: Sitter, p: Patch) -> Array:
    """Where the hair leaves the face free."""
    params = sitter.params
    name = params.hair_shape
    x, _ = sitter.at(0.0, 0.0, depth=0.26)
    top = -0.36 - 0.08 * params.hairline
    if params.fringe and name in ("bob", "long", "wavy", "short"):
        top = -0.27
        half = sitter.rx - (0.065 if name != "short" else 0.03)
        bottom = 1.6
        shape = box(p, x, (top + bottom) / 2, half, (bottom - top) / 2, 0.12)
    elif name in ("bob", "long", "wavy"):
        half = sitter.rx - 0.07
        shape = ellipse(p, x + 0.08 * params.part, 0.16, half, 0.16 - top + 0.04)
        shape = merge(shape, box(p, x, 0.85, half - 0.03, 0.75, 0.1), 0.15)
    else:
        half = sitter.rx - (0.045 if name != "afro" else 0.03)
        shape = box(p, x + 0.02 * params.part, 0.5 + top / 2, half, 0.5 - top / 2, 0.22)
        if name == "short":
            # A side parting: the hair sweeps down on one side of the brow.
            slope = 0.16 * (1.0 if params.part > 0 else -1.0)
            shape = np.maximum(shape, top - 0.02 + slope * (p.x - x) - p.y + 0.03)
    if name in CURLY_SHAPES:
        shape = shape + 0.6 * _curl(p, 0.025)
    return np.asarray(shape, np.float32)


def _curl(p: Patch, height: float) -> Array:
    """Bumps that make an outline curly."""
    return np.asarray(height * np.sin(21.0 * p.x + 1.0) * np.sin(21.0 * p.y), np.float32)


def _colour(sitter: Sitter, p: Patch, brightness: float) -> Array:
    """Hair over a patch (3, h, w): strands from the crown or curls, gloss, gray temples."""
    params, look = sitter.params, sitter.look
    base = np.asarray(dim(sitter.hair, brightness), np.float32)[:, None, None]
    if look.shading == 0:
        gleam = np.abs(np.hypot(p.x, p.y + 0.1) - 0.52) < 0.035
        gleam &= np.abs(p.x - 0.2 * (1 if params.light_x > 0 else -1)) < 0.16
        return np.asarray(base * (1.0 + 0.25 * gleam), np.float32)
    texture = _curls(sitter, p) if params.hair_shape in CURLY_SHAPES else _strands(sitter, p)
    light = sitter.light(p.x, p.y + 0.1, 0.75, 0.85)
    gloss = np.exp(-(((np.hypot(p.x, p.y + 0.1) - 0.55) / 0.09) ** 2)) * np.clip(light, 0, 1)
    depth = 0.30 if params.hair_colour == "black" else 0.20
    shade = 0.72 + 0.34 * light + depth * look.texture * texture
    shine = (0.10 + 0.06 * brightness) * gloss * (1.0 + texture)
    colour = base * shade + np.float32(0.5) * shine
    if params.age > OLD_ABOVE and params.hair_colour != "gray":
        temple = np.clip(np.abs(p.x) * 3.2 - 0.9, 0.0, 1.0)
        temple *= np.clip(2.0 - 4.0 * np.abs(p.y + 0.12), 0.0, 1.0)
        gray = 0.35 * step(OLD_ABOVE, 0.9, params.age)
        streak = gray * temple * np.clip(0.5 + texture, 0.0, 1.0)
        colour = colour + streak * (0.68 * shade - colour)
    return np.asarray(colour, np.float32)


def _strands(sitter: Sitter, p: Patch) -> Array:
    """Waves across strands that fan out from the crown, in [-1, 1] (h, w)."""
    r = sitter.random
    angle = np.arctan2(p.x - 0.12 * sitter.params.part, np.maximum(p.y + 0.85, 0.12))
    bend = 0.06 * np.sin(5.0 * p.y + 6.28 * r[0])
    across = angle + bend
    waves = 0.5 * np.sin(27.0 * across + 6.28 * r[1]) + 0.4 * np.sin(51.0 * across + 6.28 * r[2])
    if p.px < 0.02:
        waves = waves + 0.35 * np.sin(113.0 * across + 6.28 * r[3] + 2.0 * np.sin(9 * p.y))
    return np.asarray(waves, np.float32)


def _curls(sitter: Sitter, p: Patch) -> Array:
    """Curls as a warped lattice, in [-1, 1] (h, w)."""
    r = sitter.random
    u = 19.0 * p.x + 1.3 * np.sin(11.0 * p.y + 6.28 * r[4])
    v = 19.0 * p.y + 1.3 * np.sin(13.0 * p.x + 6.28 * r[5])
    curls = np.sin(u) * np.sin(v)
    if p.px < 0.02:
        curls = curls + 0.4 * np.sin(2.3 * u + v) * np.sin(2.1 * v - u)
    return np.asarray(curls, np.float32)


def _bald_gloss(sitter: Sitter) -> None:
    x = 0.16 * sitter.params.light_x - 0.06 * sitter.turn
    p = sitter.face.patch(x, -0.50, 0.22, 0.13)
    spot = np.exp(-(((p.x - x) / 0.12) ** 2) - ((p.y + 0.50) / 0.06) ** 2)
    glow = mix(sitter.skin, (1.0, 1.0, 0.97), 0.7)
    sitter.canvas.tint(p, np.asarray(spot, np.float32), glow, 0.55, sitter.head)


def _whiskers(sitter: Sitter, p: Patch) -> Array:
    """Colour of facial hair (3, h, w)."""
    r, params = sitter.random, sitter.params
    base = np.asarray(dim(mix(sitter.hair, sitter.shadow, 0.12), 0.82), np.float32)[:, None, None]
    if sitter.look.shading == 0:
        return base
    u = 44.0 * p.x + 1.5 * np.sin(15.0 * p.y + 6.28 * r[6])
    texture = 0.6 * np.sin(u) + 0.4 * np.sin(2.1 * u + 14.0 * p.y + 6.28 * r[7])
    light = sitter.light(p.x, p.y, 0.7, 0.9)
    shade = 0.74 + 0.30 * light + (0.22 * sitter.look.texture) * texture
    if params.age > OLD_ABOVE and params.hair_colour != "gray":
        gray = 0.35 * step(OLD_ABOVE, 0.9, params.age) * np.clip(0.6 + texture, 0.0, 1.0)
        return np.asarray((base + gray * (0.66 - base)) * shade, np.float32)
    return np.asarray(base * shade, np.float32)


def beard(sitter: Sitter) -> None:
    """A full beard on jaw and chin, without the upper lip."""
    params = sitter.params
    if not params.beard:
        return
    p = sitter.face.patch(0.1 * sitter.turn, 0.45, 0.6, 0.55)
    grown = sitter.outline(p, grow=0.02)
    length = params.beard_length
    x, _ = sitter.at(0.0, 0.0, depth=0.2)
    tip = ellipse(p, x, 0.56, 0.30, 0.17 + 0.17 * length)
    shape = merge(grown, tip, 0.12)
    middle, _ = sitter.at(0.0, 0.0)
    cheek = 0.43 - 0.85 * np.clip(np.abs(p.x - middle), 0.0, 0.45)
    lift = 0.02 * max(params.smile, 0.0)
    mouth = ellipse(p, middle, MOUTH_Y - 0.04 + lift, 0.235, 0.125 + 0.02 * max(params.smile, 0.0))
    shape = np.maximum(np.maximum(shape, (cheek - p.y) * 0.75), -mouth)
    sitter.canvas.fill(p, shape, _whiskers(sitter, p), alpha=0.96, soft=0.025)
    chin = ellipse(p, middle, MOUTH_Y + 0.135, 0.035, 0.05)
    sitter.canvas.fill(p, chin, _whiskers(sitter, p), alpha=0.9, soft=0.03, outline=0)


def mustache(sitter: Sitter) -> None:
    """Two wings between nose and upper lip."""
    params = sitter.params
    if not params.mustache:
        return
    smile = max(params.smile, 0.0)
    x, y = sitter.at(0.0, (NOSE_Y + MOUTH_Y) / 2 + 0.005 - 0.012 * smile)
    half = 0.185 * params.mustache_width * (1.0 + 0.12 * smile)
    drop = 0.055 - 0.05 * params.smile
    for side in (-1.0, 1.0):
        tip, root = (
            (x + half * side * (1 - 0.25 * sitter.turn * side), y + drop),
            (x - 0.01 * side, y),
        )
        a, b = (tip, root) if side < 0 else (root, tip)
        p = sitter.face.around(a, b, margin=0.12)
        wing = lens(p, a, b, -0.052, 0.030) - 0.012
        sitter.canvas.fill(p, wing, _whiskers(sitter, p), alpha=0.97, soft=0.015, outline=0.4)


def locks(sitter: Sitter) -> None:
    """Long hair that falls over the shoulders, beside the neck."""
    params = sitter.params
    if params.bald or params.hair_shape not in ("long", "wavy"):
        return
    frame: Frame = sitter.face
    for side in (-1.0, 1.0):
        top, bottom = (0.43 * side, 0.2), (0.47 * side, 1.15)
        p = frame.around(top, bottom, margin=0.25)
        lock = bow(p, top, bottom, -0.04 * side, 0.14 + 0.04 * params.hair_volume)
        if params.hair_shape == "wavy":
            lock = lock - _curl(p, 0.03)
        sitter.canvas.fill(p, lock, _colour(sitter, p, 0.92))
