"""What makes a zombie: rotten patches, sunken sockets, blood and stitches."""

from __future__ import annotations

import numpy as np

from dclip.data.faces.canvas import blob, bow, lens
from dclip.data.faces.features import eye_x
from dclip.data.faces.palette import BLOOD
from dclip.data.faces.sitter import EYE_Y, MOUTH_Y, Sitter


def decay(sitter: Sitter) -> None:
    """Blotches over the skin, dark sockets, hollow cheeks."""
    canvas, r = sitter.canvas, sitter.random
    p = sitter.face.patch(0.0, 0.0, 0.66, 0.75)
    u = 9.0 * p.x + 2.0 * np.sin(5.0 * p.y + 6.28 * r[30])
    v = 8.0 * p.y + 2.0 * np.sin(6.0 * p.x + 6.28 * r[31])
    blotch = np.clip(np.sin(u + 6.28 * r[32]) * np.sin(v) * 1.6 - 0.25, 0.0, 1.0)
    canvas.tint(p, np.asarray(blotch, np.float32), (0.22, 0.28, 0.16), 0.55, sitter.head)
    pale = np.clip(-np.sin(u) * np.sin(v + 6.28 * r[33]) * 1.6 - 0.4, 0.0, 1.0)
    canvas.tint(p, np.asarray(pale, np.float32), (0.72, 0.76, 0.62), 0.35, sitter.head)
    for side in (-1.0, 1.0):
        x, y = sitter.at(eye_x(sitter) * side, EYE_Y + 0.015)
        p = sitter.face.patch(x, y, 0.3, 0.25)
        socket = np.minimum(1.7 * blob(p, x, y, 0.165, 0.135), 1.0)
        canvas.tint(p, np.asarray(socket, np.float32), (0.10, 0.06, 0.08), 0.88, sitter.head)
        x, y = sitter.at(0.29 * side, 0.30)
        p = sitter.face.patch(x, y, 0.16, 0.25)
        canvas.tint(p, blob(p, x, y, 0.10, 0.16), (0.12, 0.16, 0.10), 0.6, sitter.head)


def wounds(sitter: Sitter) -> None:
    """A gash on one cheek, stitches on the brow, blood from the mouth."""
    canvas, r = sitter.canvas, sitter.random
    side = 1.0 if r[34] > 0.5 else -1.0
    a, b = sitter.at(0.17 * side, 0.13), sitter.at(0.34 * side, 0.26)
    if side < 0:
        a, b = b, a
    p = sitter.face.around(a, b, margin=0.12)
    canvas.fill(p, lens(p, a, b, -0.035, 0.04) - 0.01, (0.25, 0.03, 0.03), clip=sitter.head)
    canvas.fill(p, lens(p, a, b, -0.015, 0.02), (0.62, 0.06, 0.06), clip=sitter.head, outline=0)
    _stitches(sitter, -side)
    for offset, length in ((0.06 * side, 0.20), (0.11 * side, 0.12), (-0.07 * side, 0.10)):
        top = sitter.at(offset, MOUTH_Y + 0.03)
        end = (top[0], top[1] + length)
        p = sitter.face.around(top, end, margin=0.06)
        drip = bow(p, top, end, 0.0, 0.017, 0.3)
        canvas.fill(p, drip, BLOOD, alpha=0.92, clip=sitter.head, outline=0)


def _stitches(sitter: Sitter, side: float) -> None:
    a, b = sitter.at(0.06 * side, -0.40), sitter.at(0.27 * side, -0.29)
    p = sitter.face.around(a, b, margin=0.1)
    dark = (0.12, 0.05, 0.05)
    sitter.canvas.stroke(p, bow(p, a, b, 0.0, 0.012), dark, alpha=0.9, clip=sitter.head)
    for share in (0.15, 0.5, 0.85):
        x, y = a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])
        nx, ny = -(b[1] - a[1]) * 0.25, (b[0] - a[0]) * 0.25
        thread = bow(p, (x - nx, y - ny), (x + nx, y + ny), 0.0, 0.010)
        sitter.canvas.stroke(p, thread, dark, alpha=0.85, clip=sitter.head)
