"""The portrait, back to front: backdrop, hair behind, body, head, features, hair, glasses."""

from __future__ import annotations

import math

import numpy as np

from dclip.data.faces import features, hair, palette, zombie
from dclip.data.faces.canvas import Array, Canvas, Look, blob, bow, box, dim, ellipse, lens, mix
from dclip.data.faces.params import FaceParams
from dclip.data.faces.sitter import Sitter


def paint(params: FaceParams, size: int, look: Look) -> Canvas:
    """Draw the face without grain and without the finish of a style."""
    sitter = Sitter(params, size, look)
    _backdrop(sitter)
    hair.back(sitter)
    _neck(sitter)
    _clothes(sitter)
    hair.locks(sitter)
    _ears(sitter)
    _head(sitter)
    features.cheeks(sitter)
    features.ageing(sitter)
    if look.zombie:
        zombie.decay(sitter)
    hair.beard(sitter)
    features.nose(sitter)
    features.eyes(sitter)
    features.brows(sitter)
    features.mouth(sitter)
    hair.mustache(sitter)
    if look.zombie:
        zombie.wounds(sitter)
    features.temples(sitter)
    hair.front(sitter)
    features.glasses(sitter)
    _room_light(sitter)
    return sitter.canvas


def _backdrop(sitter: Sitter) -> None:
    params, canvas = sitter.params, sitter.canvas
    p = sitter.body.whole()
    first, second = palette.backdrop(params)
    if sitter.look.shading == 0 or params.backdrop == "plain":
        near = mix(first, second, 0.15)
        canvas.rgb[:] = np.asarray(near, np.float32)[:, None, None]
        if sitter.look.shading > 0:
            canvas.blend(p, 0.45 * np.clip(np.hypot(p.x, p.y) - 0.5, 0, 1), dim(near, 0.5))
        return
    canvas.rgb[:] = np.asarray(first, np.float32)[:, None, None]
    along = p.x * math.cos(params.backdrop_angle) + p.y * math.sin(params.backdrop_angle)
    canvas.blend(p, np.clip(0.5 + 0.45 * along, 0.0, 1.0), second)
    if params.backdrop == "blobs":
        r = sitter.random[8:]
        for i in range(6):
            x, y = 2.2 * float(r[3 * i]) - 1.1, 2.0 * float(r[3 * i + 1]) - 1.2
            radius = 0.22 + 0.3 * float(r[3 * i + 2])
            spot = sitter.body.patch(x, y, 1.4 * radius, 1.4 * radius)
            tone = dim(first, 1.45) if i % 2 else dim(second, 0.6)
            canvas.tint(spot, blob(spot, x, y, radius, radius), tone, 0.55)
    np.clip(canvas.rgb, 0.0, 1.0, out=canvas.rgb)


def _neck(sitter: Sitter) -> None:
    x = 0.03 * sitter.turn
    p = sitter.body.patch(x, 0.75, 0.4, 0.5)
    colour = sitter.lit(dim(sitter.skin, 0.88), sitter.light(p.x - x, p.y * 0, 0.30, 1.0))
    sitter.canvas.fill(p, box(p, x, 0.75, 0.235, 0.5, 0.05), colour)
    spot = blob(p, x + 0.05 * sitter.turn, 0.62, 0.32, 0.17)
    column = (np.abs(p.x - x) < 0.235).astype(np.float32)
    sitter.canvas.tint(p, spot * column, sitter.shadow, 0.75)


def _clothes(sitter: Sitter) -> None:
    params, canvas = sitter.params, sitter.canvas
    p = sitter.body.patch(0.0, 0.95, 1.3, 0.45)
    colour = palette.cloth(params)
    reach = np.abs(p.x)
    shoulder = (
        0.70 + 0.26 * np.clip(reach - 0.12, 0.0, 2.0) + 0.55 * np.clip(reach - 0.68, 0, 1) ** 2
    )
    torso = (shoulder - p.y) * 0.95
    skin = sitter.lit(dim(sitter.skin, 0.95), sitter.light(p.x, p.y * 0, 0.8, 1.0))
    canvas.fill(p, torso + 0.04, skin, outline=0)
    if params.collar == "crew":
        cut = ellipse(p, 0.0, 0.70, 0.30, 0.135)
    elif params.collar == "turtleneck":
        cut = np.full_like(p.x, 1.0)
        torso = np.minimum(torso, box(p, 0.0, 0.88, 0.265, 0.19, 0.06))
    else:
        depth = 1.02 if params.collar == "vneck" else 0.93
        cut = np.maximum((reach * (depth - 0.68) / 0.27 + p.y - depth) * 0.6, 0.5 - p.y)
    shape = np.maximum(torso, -cut)
    folds = 1.0 + 0.10 * np.sin(9.0 * reach + 4.0 * p.y) * (sitter.look.shading > 0)
    base = np.asarray(sitter.lit(colour, sitter.light(p.x, p.y - 1.0, 1.25, 1.4)), np.float32)
    canvas.fill(p, shape, np.asarray(base * folds, np.float32))
    if params.collar == "shirt":
        for side in (-1.0, 1.0):
            flap = lens(p, (0.24 * side, 0.66), (0.08 * side, 1.0), -0.085, 0.085)
            canvas.fill(p, flap, mix(colour, (1.0, 1.0, 1.0), 0.35), outline=0.7)
    elif params.collar != "vneck" and sitter.look.shading > 0:
        rim = np.abs(cut if params.collar == "crew" else p.y - 0.80) - 0.012
        rim = np.maximum(rim, shape - 0.02)
        canvas.fill(p, rim, dim(colour, 0.7), alpha=0.6, outline=0)


def _ears(sitter: Sitter) -> None:
    for side in (-1.0, 1.0):
        x = sitter.ear_x(side)
        p = sitter.face.patch(x, 0.02, 0.12, 0.18)
        colour = sitter.lit(dim(sitter.skin, 0.92), sitter.light(p.x, p.y, 0.6, 0.7))
        sitter.canvas.fill(p, ellipse(p, x, 0.02, 0.075, 0.135), colour)
        inner = bow(p, (x + 0.02 * side, -0.05), (x + 0.015 * side, 0.08), -0.02 * side, 0.012)
        sitter.canvas.stroke(p, inner, sitter.shadow, alpha=0.5, soft=0.03, ink=0.4)


def _head(sitter: Sitter) -> None:
    p = sitter.face.patch(0.0, 0.0, 0.66, 0.75)
    light = sitter.light(p.x + 0.05 * sitter.turn, p.y, sitter.rx + 0.09, 0.80)
    distance = sitter.outline(p)
    cover = sitter.canvas.fill(p, distance, sitter.lit(sitter.skin, light))
    sitter.head[p.win] = cover
    if sitter.look.shading > 0:
        edge = np.clip(1.0 + distance / 0.16, 0.0, 1.0) ** 2
        sitter.canvas.tint(p, np.asarray(edge, np.float32), sitter.shadow, 0.26, sitter.head)


def _room_light(sitter: Sitter) -> None:
    """A fall of light across the picture, and its warmth."""
    params, look = sitter.params, sitter.look
    rgb: Array = sitter.canvas.rgb
    if look.shading > 0:
        p = sitter.body.whole()
        slope = 0.10 * params.light_strength
        rgb *= 1.0 + slope * (params.light_x * p.x + params.light_y * p.y)
    warmth = 0.045 * params.warmth
    rgb[0] *= 1.0 + warmth
    rgb[2] *= 1.0 - warmth
    np.clip(rgb, 0.0, 1.0, out=rgb)
