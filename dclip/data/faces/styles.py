"""The finish of each style: how the same drawing becomes a photo, a sketch, a painting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dclip.colour import luma
from dclip.data.faces.canvas import Array, Canvas, Colour, Look
from dclip.data.faces.drawing import paint
from dclip.data.faces.params import FaceParams

Image8 = NDArray[np.uint8]
"""sRGB picture (H, W, 3)."""

GRAIN = 1.5 / 255
"""Standard deviation of the sensor noise of a photo."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a style draws (`look`) and what it makes of the drawing (`finish`)."""

    look: Look
    finish: Callable[[Canvas, FaceParams], Array]
    grain: float = 0.0


def _plain(canvas: Canvas, params: FaceParams) -> Array:
    return canvas.rgb


def _luma(rgb: Array) -> Array:
    """The brightness (H, W) of a picture (3, H, W)."""
    return np.asarray(luma(rgb)[0], np.float32)


def _grid(size: int) -> tuple[Array, Array]:
    line = (np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0
    return line[None, :], line[:, None]


def _random(params: FaceParams, stream: int) -> np.random.Generator:
    """Noise of a face: stream 0 is grain, 1 is texture, others belong to styles."""
    key = np.array([params.noise_key, stream], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def _blur(plane: Array, radius: float) -> Array:
    """Box blur of one plane (H, W) over about `radius` pixels to each side."""
    reach = max(round(radius), 1)
    for _ in range(2):
        padded = np.pad(plane, ((reach + 1, reach), (0, 0)), mode="edge").cumsum(axis=0)
        plane = ((padded[2 * reach + 1 :] - padded[: -2 * reach - 1]) / (2 * reach + 1)).T
    return np.asarray(plane, np.float32)


def _wave(params: FaceParams, size: int, scale: float, stream: int) -> Array:
    """Smooth noise in about [-1, 1] (H, W) with features of `scale` picture units."""
    x, y = _grid(size)
    r = _random(params, stream).random(16, np.float32)
    field: Array = np.zeros((size, size), np.float32)
    for i in range(4):
        angle = 6.28 * float(r[4 * i])
        k = (1.0 + 0.7 * float(r[4 * i + 1])) * 2.2 / scale
        along = k * (x * np.cos(angle) + y * np.sin(angle)) + 6.28 * r[4 * i + 2]
        bend = 1.2 * np.sin(0.7 * k * (y * np.cos(angle) - x * np.sin(angle)) + 6.28 * r[4 * i + 3])
        field += 0.4 * np.sin(along + bend).astype(np.float32)
    return field


def _black_and_white(canvas: Canvas, params: FaceParams) -> Array:
    luma = np.clip(0.5 + 1.12 * (_luma(canvas.rgb) - 0.5), 0.0, 1.0)
    return np.stack([luma, luma, luma])


def _sepia(canvas: Canvas, params: FaceParams) -> Array:
    x, y = _grid(canvas.ink.shape[0])
    luma = 0.5 + 1.15 * (_luma(canvas.rgb) - 0.42)
    luma = luma * (1.04 - 0.20 * (x * x + y * y))
    tones = np.array([[0.13, 0.07, 0.03], [0.62, 0.44, 0.26], [1.0, 0.92, 0.74]])
    return np.stack([np.interp(luma, [0.0, 0.5, 1.0], tones[:, c]) for c in range(3)]).astype(
        np.float32
    )


def _sketch(canvas: Canvas, params: FaceParams) -> Array:
    """Pencil on paper: outlines, smudged tone and hatching where the picture is dark."""
    size = canvas.ink.shape[0]
    x, y = _grid(size)
    luma = _luma(canvas.rgb)
    local = luma - _blur(luma, 0.05 * size)
    dark = np.clip(0.66 - luma - 0.8 * local, 0.0, 1.0)
    tremble = 0.02 * _wave(params, size, 0.3, 2)
    hatch = 0.5 + 0.5 * np.sin(62.0 * (x + y + tremble))
    tone = 0.42 * dark + 0.85 * np.clip(dark - 0.10, 0.0, 1.0) * hatch
    cross = 0.5 + 0.5 * np.sin(58.0 * (x - y + tremble))
    tone += 0.7 * np.clip(dark - 0.38, 0.0, 1.0) * cross
    tone += np.clip(-local * 1.9, 0.0, 0.5)
    pencil = np.clip(0.85 * canvas.ink + tone, 0.0, 0.88)
    grain = _random(params, 3).standard_normal((size, size), np.float32)
    paper = 0.965 + 0.008 * grain
    gray = (paper - pencil * (0.88 + 0.05 * grain)).astype(np.float32)
    return np.stack([gray, gray, gray * 0.99])


def _cartoon(canvas: Canvas, params: FaceParams) -> Array:
    """Flat, saturated colours under thick black outlines."""
    luma = _luma(canvas.rgb)
    rgb = luma + 1.45 * (canvas.rgb - luma)
    rgb = np.clip(0.03 + 1.06 * rgb, 0.0, 1.0)
    return np.asarray(rgb * (1.0 - canvas.ink) + 0.03 * canvas.ink, np.float32)


def _dabs(source: Array, params: FaceParams, cell: float, stream: int) -> tuple[Array, Array]:
    """Lay one dab of paint per jittered grid cell; return colours (3, H, W), relief (H, W).

    Dabs are ellipses along the contours of the picture; where they overlap, a random
    order decides which one lies on top.
    """
    size = source.shape[1]
    cells = int(np.ceil(2.0 / cell)) + 6
    r = _random(params, stream).random((4, cells, cells), np.float32)
    luma = _blur(_luma(source), max(0.03 * size, 1.0))
    gy, gx = (np.asarray(slope) for slope in np.gradient(luma))
    x, y = _grid(size)
    # Sites: centre, direction of the contour, colour.
    row, column = np.mgrid[0:cells, 0:cells].astype(np.float32)
    sx, sy = (column - 3 + r[0]) * cell - 1.0, (row - 3 + r[1]) * cell - 1.0
    px = np.clip(((sx + 1) * size / 2).astype(np.intp), 0, size - 1)
    py = np.clip(((sy + 1) * size / 2).astype(np.intp), 0, size - 1)
    flow = np.arctan2(gx[py, px] + 0.004, -gy[py, px] + 0.002) + 0.5 * (r[2] - 0.5)
    cos, sin = np.cos(flow), np.sin(flow)
    colours = source[:, py, px]

    ix = np.floor((x + 1) / cell).astype(np.intp) + 3 + np.zeros((size, 1), np.intp)
    iy = np.floor((y + 1) / cell).astype(np.intp) + 3 + np.zeros((1, size), np.intp)
    best: Array = np.full((size, size), -1e9, np.float32)
    top = np.zeros((size, size), np.intp)
    relief: Array = np.zeros((size, size), np.float32)
    for dy in (-2, -1, 0, 1, 2):
        for dx in (-2, -1, 0, 1, 2):
            site = (iy + dy) * cells + (ix + dx)
            ox, oy = x - sx.ravel()[site], y - sy.ravel()[site]
            c, s = cos.ravel()[site], sin.ravel()[site]
            u, v = (ox * c + oy * s) / (1.9 * cell), (oy * c - ox * s) / (0.75 * cell)
            inside = 1.0 - u * u - v * v
            rank = np.where(inside > 0, r[3].ravel()[site], inside - 1.0)
            over = rank > best
            best = np.where(over, rank, best)
            top = np.where(over, site, top)
            relief = np.where(over, v, relief)
    return np.asarray(colours.reshape(3, -1)[:, top], np.float32), relief


def _oil(canvas: Canvas, params: FaceParams) -> Array:
    """Broad dabs for masses, finer ones where there is detail; ridges of paint catch light."""
    size = canvas.ink.shape[0]
    luma = _luma(canvas.rgb)
    rgb = np.clip(luma + 1.25 * (canvas.rgb - luma), 0.0, 1.0)
    broad, ridge = _dabs(rgb, params, 0.095, 4)
    fine, fine_ridge = _dabs(rgb, params, 0.046, 5)
    gy, gx = np.gradient(luma)
    detail = _blur(np.hypot(gx, gy) * (size / 64), 0.03 * size)
    share = np.clip(detail * 22.0 - 0.3, 0.0, 1.0)
    mixed = broad + share * (fine - broad)
    # Sharper where the face has detail.
    mixed = mixed + np.clip(detail * 22.0 - 0.6, 0.0, 0.62) * (rgb - mixed)
    relief = (ridge + share * (fine_ridge - ridge)) * (1.0 - 0.3 * share)
    mixed = mixed * (1.0 - 0.12 * np.clip(relief, -1, 1)) + 0.02
    warm = np.array([1.05, 1.0, 0.86], np.float32)[:, None, None]
    return np.asarray(np.clip(mixed * warm, 0.0, 1.0), np.float32)


def _watercolor(canvas: Canvas, params: FaceParams) -> Array:
    """Thin, pooled colour on white paper that stays free at the rim."""
    size = canvas.ink.shape[0]
    x, y = _grid(size)
    soft = np.stack([_blur(_blur(plane, 0.014 * size), 0.014 * size) for plane in canvas.rgb])
    luma = _luma(soft)
    rgb = np.clip(luma + 1.35 * (soft - luma), 0.0, 1.0)
    wash = 0.74 + 0.16 * _wave(params, size, 0.28, 6)
    edge = np.abs(_luma(canvas.rgb) - luma)
    reach = np.hypot(x * 0.95, y * 0.95) + 0.09 * _wave(params, size, 0.35, 7)
    pigment = (wash + 1.6 * edge) * np.clip((1.0 - reach) / 0.10, 0.0, 1.0)
    paper = 0.985 + 0.012 * _random(params, 8).standard_normal((size, size), np.float32)
    pigment = np.clip(pigment + 0.25 * canvas.ink * (reach < 0.95), 0.0, 1.0)
    return np.asarray(paper * (1.0 - pigment * (1.0 - rgb)), np.float32)


def _duotone(dark: Colour, light: Colour, rgb: Array) -> Array:
    luma = _luma(rgb)
    a, b = (np.asarray(c, np.float32)[:, None, None] for c in (dark, light))
    return np.asarray(a + luma * (b - a), np.float32)


def _neon(canvas: Canvas, params: FaceParams) -> Array:
    """Glowing outlines in the dark."""
    size = canvas.ink.shape[0]
    glow = _blur(_blur(canvas.ink, 0.02 * size), 0.02 * size)
    base = 0.16 * _duotone((0.02, 0.0, 0.10), (0.55, 0.15, 0.9), canvas.rgb)
    x, y = _grid(size)
    turn = np.clip(0.5 + 0.5 * (x + y), 0.0, 1.0)
    tube = np.stack([0.15 + 0.85 * turn, 0.95 - 0.75 * turn, np.ones_like(turn)])
    return np.asarray(base + tube * (0.75 * glow + 0.9 * canvas.ink), np.float32)


_STYLES: Mapping[str, Style] = {
    "photo": Style(Look(), _plain, GRAIN),
    "sketch": Style(Look(outline=0.012, texture=1.6), _sketch),
    "cartoon": Style(Look(shading=0.0, outline=0.019, texture=0.0), _cartoon),
    "oil": Style(Look(), _oil),
    "watercolor": Style(Look(shading=0.7, outline=0.006), _watercolor),
    "zombie": Style(Look(zombie=True), _plain, GRAIN),
    "bw": Style(Look(), _black_and_white, GRAIN),
    "sepia": Style(Look(), _sepia, GRAIN),
    "neon": Style(Look(outline=0.013), _neon),
}
STYLES: tuple[str, ...] = tuple(_STYLES)
"""Style ids; "photo" is the plain picture that every edit starts from."""


def draw(params: FaceParams, *, size: int = 64, style: str = "photo", grain: bool = True) -> Image8:
    """Draw a face as uint8 sRGB (size, size, 3).

    The geometry is the same in every style and at every size (16..1024 pixels). `grain=False`
    leaves the sensor noise out. Raises ValueError for an unknown style or a size out of range.
    """
    if style not in _STYLES:
        raise ValueError(f"style {style!r} is none of {', '.join(STYLES)}")
    if not 16 <= size <= 1024:
        raise ValueError(f"size {size} is outside [16, 1024]")
    chosen = _STYLES[style]
    rgb = chosen.finish(paint(params, size, chosen.look), params)
    if grain and chosen.grain > 0:
        noise = chosen.grain * _random(params, 0).standard_normal((3, size, size), np.float32)
        rgb = rgb + (noise[:1] if style == "bw" else noise)
    pixels = np.clip(rgb * 255.0 + 0.5, 0.0, 255.0).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))
