"""The features of the face: eyes, brows, nose, mouth, marks of age, glasses."""

from __future__ import annotations

import numpy as np

from dclip.data.faces import palette
from dclip.data.faces.canvas import (
    Array,
    Colour,
    Patch,
    Point,
    blob,
    bow,
    box,
    dim,
    ellipse,
    lens,
    mix,
    step,
)
from dclip.data.faces.params import SMILING_ABOVE
from dclip.data.faces.sitter import BROW_Y, CHIN_Y, EYE_Y, MOUTH_Y, NOSE_Y, Sitter

_SIDES = (-1.0, 1.0)
_INK: Colour = (0.05, 0.03, 0.03)


def eye_x(sitter: Sitter) -> float:
    """Distance of the eyes from the middle of the face."""
    return 0.195 * sitter.params.eye_spacing


def cheeks(sitter: Sitter) -> None:
    """Blush, eye sockets and the raised cheeks of a smile."""
    params, canvas = sitter.params, sitter.canvas
    smile = max(params.smile, 0.0)
    skin = sitter.skin
    blush = dim(skin, 0.7) if sitter.look.zombie else (skin[0], skin[1] * 0.68, skin[2] * 0.66)
    for side in _SIDES:
        x, y = sitter.at(0.26 * side, 0.17 - 0.02 * smile)
        p = sitter.face.patch(x, y, 0.2, 0.16)
        canvas.tint(p, blob(p, x, y, 0.13, 0.10), blush, 0.30 + 0.35 * smile, sitter.head)
        x, y = sitter.at(0.25 * side, 0.13 - 0.02 * smile)
        p = sitter.face.patch(x, y, 0.12, 0.09)
        glow = mix(skin, (1.0, 0.97, 0.9), 0.5)
        canvas.tint(p, blob(p, x, y, 0.08, 0.06), glow, 0.25 + 0.3 * smile, sitter.head)
        x, y = sitter.at(eye_x(sitter) * side, EYE_Y - 0.03)
        p = sitter.face.patch(x, y, 0.22, 0.16)
        canvas.tint(p, blob(p, x, y, 0.155, 0.11), sitter.shadow, 0.42, sitter.head)
    x, y = sitter.at(0.0, -0.38)
    p = sitter.face.patch(x, y, 0.3, 0.2)
    canvas.tint(p, blob(p, x, y, 0.22, 0.13), mix(skin, (1, 1, 0.95), 0.5), 0.22, sitter.head)


def eyes(sitter: Sitter) -> None:
    """Both eyes with lids; a smile narrows them from below."""
    params, canvas = sitter.params, sitter.canvas
    zombie = sitter.look.zombie
    smile = max(params.smile, 0.0)
    for side in _SIDES:
        frontal = eye_x(sitter) * side
        x, y = sitter.at(frontal, EYE_Y)
        half = 0.118 * params.eye_size * sitter.narrowing(frontal)
        tilt = -0.018 * params.eye_tilt * side
        a, b = (x - half, y - tilt), (x + half, y + tilt)
        rise, drop = 0.078 * params.eye_size, 0.052 * params.eye_size * (1 - 0.35 * smile)
        p = sitter.face.around(a, b, margin=0.12)
        white = (0.86, 0.84, 0.62) if zombie else (0.955, 0.945, 0.935)
        shape = lens(p, a, b, -rise, drop)
        open_eye = canvas.fill(p, shape, white, clip=sitter.head)
        canvas.tint(p, open_eye * (p.y < y - rise * 0.35), (0.3, 0.25, 0.25), 0.35)
        _iris(sitter, p, shape, (x + 0.03 * sitter.turn, y - 0.008))
        canvas.stroke(
            p, bow(p, a, b, -rise, 0.017, 0.4), _INK, alpha=0.95, ink=0.8, clip=sitter.head
        )
        canvas.stroke(
            p, bow(p, a, b, drop, 0.006), dim(sitter.shadow, 0.7), alpha=0.6, ink=0.35,
            clip=sitter.head,
        )  # fmt: skip
        crease = bow(p, (a[0], a[1] - 0.025), (b[0], b[1] - 0.025), -rise - 0.012, 0.007, 0.6)
        canvas.stroke(p, crease, sitter.shadow, alpha=0.45, soft=0.02, ink=0.0, clip=sitter.head)


def _iris(sitter: Sitter, p: Patch, opening: Array, centre: Point) -> None:
    """Iris, pupil and glint, as far as the opening of the lids shows them."""
    params = sitter.params
    x, y = centre

    def disc(cx: float, cy: float, radius: float, colour: Colour, outline: float = 0.0) -> None:
        shape = np.maximum(ellipse(p, cx, cy, radius, radius), opening)
        sitter.canvas.fill(p, shape, colour, outline=outline, clip=sitter.head)

    radius = 0.060 * params.eye_size
    if sitter.look.zombie:
        disc(x, y, radius, (0.75, 0.80, 0.72))
        disc(x, y, 0.02, (0.45, 0.05, 0.03))
        return
    colour = palette.eyes(params)
    disc(x, y, radius, dim(colour, 0.55))
    disc(x, y, 0.8 * radius, colour)
    disc(x, y, 0.027, (0.03, 0.02, 0.02))
    disc(x + 0.022 * (1 if params.light_x > 0 else -1), y - 0.022, 0.014, (1.0, 1.0, 1.0))


def brows(sitter: Sitter) -> None:
    """Brows in the colour of the hair, a little darker; light hair keeps them visible."""
    params, canvas = sitter.params, sitter.canvas
    colour = mix(dim(sitter.hair, 0.62), sitter.shadow, 0.25)
    smile = params.smile
    for side in _SIDES:
        inner, outer = (eye_x(sitter) - 0.115) * side, (eye_x(sitter) + 0.13) * side
        lift = -0.02 * max(smile, 0.0)
        slant = 0.028 * params.brow_angle + 0.022 * min(smile, 0.0)
        a = sitter.at(inner, BROW_Y - slant + lift)
        b = sitter.at(outer, BROW_Y + 0.02 + slant * 0.6 + lift)
        if side < 0:
            a, b = b, a
        p = sitter.face.around(a, b, margin=0.1)
        width = 0.021 * params.brow_thickness
        line = bow(p, a, b, -0.045 * params.brow_arch, width, 0.45)
        canvas.stroke(p, line, colour, alpha=0.9, soft=0.012, ink=0.6, clip=sitter.head)


def nose(sitter: Sitter) -> None:
    """Bridge, tip, wings and nostrils, shaded away from the light."""
    params, canvas = sitter.params, sitter.canvas
    skin, shadow = sitter.skin, sitter.shadow
    tip_y = EYE_Y + (NOSE_Y - EYE_Y) * params.nose_length
    x, y = sitter.at(0.0, tip_y, depth=0.60)
    top_x, top_y = sitter.at(0.0, EYE_Y - 0.08)
    half = 0.098 * params.nose_width
    dark = 1.0 if params.light_x < 0 else -1.0
    if abs(params.yaw) > 0.15:
        dark = 1.0 if params.yaw > 0 else -1.0

    p = sitter.face.around((top_x, top_y), (x, y), margin=0.2)
    side = bow(p, (top_x + 0.055 * dark, top_y), (x + half * 0.72 * dark, y - 0.02), 0.0, 0.02)
    canvas.stroke(p, side, shadow, alpha=0.38, soft=0.07, ink=0.0)
    ridge = bow(p, (top_x, top_y + 0.06), (x, y - 0.04), 0.0, 0.012)
    canvas.stroke(p, ridge, mix(skin, (1, 1, 0.96), 0.6), alpha=0.32, soft=0.05, ink=0.0)
    canvas.tint(p, blob(p, x, y + 0.055, half * 1.25, 0.045), shadow, 0.65)
    canvas.tint(p, blob(p, x, y - 0.015, half * 0.5, 0.045), mix(skin, (1, 1, 0.96), 0.7), 0.5)
    for wing in _SIDES:
        a = (x + half * wing, y - 0.035)
        b = (x + half * 0.78 * wing, y + 0.032)
        curve = bow(p, a, b, -0.02 * wing, 0.006)
        canvas.stroke(p, curve, shadow, alpha=0.55, soft=0.015, ink=0.5)
        hole = ellipse(p, x + half * 0.45 * wing, y + 0.034, half * 0.27, 0.013)
        canvas.fill(p, hole, dim(shadow, 0.45), alpha=0.85, outline=0.3)
    if sitter.look.outline > 0:
        bridge = bow(
            p, (top_x + 0.05 * dark, top_y + 0.05), (x + half * 0.8 * dark, y - 0.05),
            -0.03 * dark, 0.004,
        )  # fmt: skip
        canvas.stroke(p, bridge, shadow, ink=0.5)
        base = bow(p, (x - half * 0.5, y + 0.035), (x + half * 0.5, y + 0.035), 0.022, 0.004)
        canvas.stroke(p, base, shadow, ink=0.6)


def mouth(sitter: Sitter) -> None:
    """From a frown (corners down) to a broad smile (corners up, teeth, folds in the cheeks)."""
    params, canvas = sitter.params, sitter.canvas
    smile, zombie = params.smile, sitter.look.zombie
    wide = max(smile, 0.0)
    gape = 0.135 * step(SMILING_ABOVE - 0.1, 1.0, smile)
    half = 0.158 * params.mouth_width * (1.0 + 0.30 * wide)
    curve = (0.115 if smile > 0 else 0.095) * smile
    lift = 0.55 * curve
    a, b = sitter.at(-half, MOUTH_Y - lift), sitter.at(half, MOUTH_Y - lift)
    mx, my = sitter.at(0.0, MOUTH_Y)
    sag = my - (a[1] + b[1]) / 2 + 0.45 * curve - 0.25 * gape
    lip = 0.034 * params.lip_fullness * (1.25 if params.lipstick else 1.0)
    colour = palette.lips(params, zombie=zombie)
    p = sitter.face.around(a, b, margin=0.22)

    canvas.tint(p, blob(p, mx, my + sag + gape + 0.075, 0.12, 0.035), sitter.shadow, 0.5)
    canvas.fill(p, lens(p, a, b, sag - 1.2 * lip, sag + gape + 1.75 * lip), colour, outline=0.5)
    lower = lens(p, a, b, sag + gape, sag + gape + 1.75 * lip)
    canvas.fill(p, lower, dim(colour, 1.1), alpha=0.6, outline=0)
    x = mx - 0.03 * (1 if params.light_x < 0 else -1)
    gloss = blob(p, x, my + 0.3 * lift + gape + 1.0 * lip, 0.055, 0.018)
    canvas.tint(p, gloss, (1.0, 0.92, 0.9), 0.55 if params.lipstick else 0.25)
    if gape > 0.01:
        inner = lens(p, a, b, sag, sag + gape)
        canvas.fill(p, inner, (0.30, 0.06, 0.07), outline=0.5)
        teeth = lens(p, (a[0] + 0.02, a[1]), (b[0] - 0.02, b[1]), sag, sag + 0.8 * gape)
        white = (0.74, 0.70, 0.46) if zombie else (0.97, 0.96, 0.94)
        canvas.fill(p, teeth, white, outline=0.0)
    else:
        seam = bow(p, a, b, sag + 0.2 * lip, 0.009, 0.4)
        canvas.stroke(p, seam, dim(colour, 0.38), alpha=0.9, ink=0.7)
    for corner, side in ((a, -1.0), (b, 1.0)):
        p = sitter.face.patch(*corner, 0.16, 0.2)
        spot = blob(p, corner[0] + 0.012 * side, corner[1], 0.032, 0.03)
        canvas.tint(p, spot, sitter.shadow, 0.5 + 0.2 * abs(smile), sitter.head)
        if smile > 0.2:
            start = sitter.at(0.125 * side, NOSE_Y + 0.01)
            fold = bow(p, start, (corner[0] + 0.045 * side, corner[1] + 0.01), -0.02 * side, 0.009)
            canvas.stroke(
                p, fold, sitter.shadow, alpha=0.6 * smile, soft=0.03, ink=0.45, clip=sitter.head
            )


def ageing(sitter: Sitter) -> None:
    """Lines on the brow, beside the eyes and mouth, bags under the eyes."""
    params, canvas = sitter.params, sitter.canvas
    strength = step(0.12, 0.85, params.age)
    if strength < 0.02:
        return
    dark = dim(sitter.shadow, 0.85)
    head = sitter.head
    for row, (y, half) in enumerate(((-0.335, 0.20), (-0.395, 0.23), (-0.455, 0.17))):
        a, b = sitter.at(-half, y), sitter.at(half, y)
        p = sitter.face.around(a, b, margin=0.06)
        line = bow(p, a, b, -0.016 + 0.006 * row, 0.012, 0.7)
        canvas.stroke(p, line, dark, alpha=0.78 * strength, soft=0.012, ink=0.4, clip=head)
    for side in _SIDES:
        start, end = sitter.at(0.115 * side, NOSE_Y + 0.0), sitter.at(0.215 * side, MOUTH_Y + 0.03)
        p = sitter.face.around(start, end, margin=0.12)
        fold = bow(p, start, end, -0.025 * side, 0.015, 0.4)
        canvas.stroke(p, fold, dark, alpha=0.85 * strength, soft=0.025, ink=0.45, clip=head)
        start, end = sitter.at(0.17 * side, MOUTH_Y + 0.07), sitter.at(0.16 * side, CHIN_Y - 0.1)
        p = sitter.face.around(start, end, margin=0.1)
        line = bow(p, start, end, -0.012 * side, 0.011, 0.5)
        canvas.stroke(p, line, dark, alpha=0.6 * strength, soft=0.025, ink=0.3, clip=head)
        x = eye_x(sitter)
        for row in range(2):
            drop = 0.075 + 0.035 * row
            a, b = (
                sitter.at((x - 0.10) * side, EYE_Y + drop),
                sitter.at((x + 0.10) * side, EYE_Y + drop),
            )
            if side < 0:
                a, b = b, a
            p = sitter.face.around(a, b, margin=0.1)
            bag = bow(p, a, b, 0.035, 0.011, 0.5)
            canvas.stroke(
                p, bag, dark, alpha=(0.75 - 0.25 * row) * strength, soft=0.02, ink=0.3, clip=head
            )
        corner = sitter.at((x + 0.135) * side, EYE_Y + 0.005)
        for spread in (-0.045, 0.0, 0.045):
            end = sitter.at((x + 0.20) * side, EYE_Y + 0.01 + spread)
            p = sitter.face.around(corner, end, margin=0.05)
            line = bow(p, corner, end, 0.0, 0.008)
            canvas.stroke(p, line, dark, alpha=0.7 * strength, soft=0.008, ink=0.3, clip=head)


def _lens(sitter: Sitter, side: float) -> tuple[float, float, float, float]:
    """Centre and radii of a lens of the glasses."""
    params = sitter.params
    x, y = sitter.at(0.212 * side, EYE_Y + 0.012, depth=0.44)
    rx = 0.172 * params.glasses_size * sitter.narrowing(0.212 * side)
    ry = (0.158 if params.glasses_shape == "round" else 0.125) * params.glasses_size
    return x, y, rx, ry


def temples(sitter: Sitter) -> None:
    """The arms of the glasses, which hair may cover."""
    if not sitter.params.glasses:
        return
    for side in _SIDES:
        x, y, rx, _ = _lens(sitter, side)
        hinge, ear = (x + rx * side, y - 0.04), (sitter.ear_x(side), EYE_Y - 0.02)
        if (ear[0] - hinge[0]) * side > 0:
            p = sitter.face.around(hinge, ear, margin=0.05)
            arm = bow(p, hinge, ear, 0.0, 0.016)
            sitter.canvas.fill(p, arm, palette.frames(sitter.params), outline=0.3)


def glasses(sitter: Sitter) -> None:
    """Dark round or square frames with a glint on the lenses."""
    params, canvas = sitter.params, sitter.canvas
    if not params.glasses:
        return
    colour = palette.frames(params)
    bridge = []
    for side in _SIDES:
        x, y, rx, ry = _lens(sitter, side)
        p = sitter.face.patch(x, y, rx + 0.05, ry + 0.05)
        if params.glasses_shape == "round":
            rim = ellipse(p, x, y, rx, ry)
        else:
            rim = box(p, x, y, rx, ry, 0.05)
        canvas.fill(p, rim, (0.82, 0.90, 0.96), alpha=0.14, outline=0)
        glint = bow(p, (x - rx * 0.55, y + ry * 0.1), (x - rx * 0.05, y - ry * 0.65), 0.0, 0.012)
        canvas.stroke(p, np.maximum(glint, rim), (1.0, 1.0, 1.0), alpha=0.35, soft=0.02, ink=0.0)
        canvas.fill(p, np.abs(rim) - 0.021, colour, outline=0.8)
        bridge.append((x - rx * side, y - 0.03))
    p = sitter.face.around(*bridge, margin=0.08)
    canvas.fill(p, bow(p, bridge[0], bridge[1], -0.025, 0.017), colour, outline=0.8)
