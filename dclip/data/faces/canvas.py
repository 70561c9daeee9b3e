"""Painting with shapes: signed distances on a pixel grid, laid over each other.

All lengths are in frame units: the picture spans [-1, 1] in x (right) and y (down),
whatever its size in pixels. A distance is negative inside its shape; edges are smoothed
over one pixel, so the drawing is the same at every size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Floats = NDArray[np.floating]
"""What the canvas takes: distances and coverages of any float width."""
Colour = tuple[float, float, float]
"""sRGB in [0, 1]."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Patch:
    """A window of a frame: pixel centres `x`, `y` (h, w), slices `win`, pixel pitch `px`."""

    x: Array
    y: Array
    win: tuple[slice, slice]
    px: float


class Frame:
    """Coordinates turned by `roll` (radians), scaled and shifted against the picture."""

    def __init__(
        self, size: int, *, roll: float = 0.0, scale: float = 1.0, shift: Point = (0.0, 0.0)
    ) -> None:
        line = (np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0
        u, v = line[None, :] - shift[0], line[:, None] - shift[1]
        cos, sin = math.cos(roll) / scale, math.sin(roll) / scale
        self.size, self.scale, self.shift = size, scale, shift
        self._cos, self._sin = math.cos(roll) * scale, math.sin(roll) * scale
        self.x: Array = (u * cos + v * sin).astype(np.float32)
        self.y: Array = (v * cos - u * sin).astype(np.float32)
        self.px = 2.0 / size / scale

    def patch(self, cx: float, cy: float, rx: float, ry: float) -> Patch:
        """The pixels within `rx`, `ry` (and two pixels more) of a centre; may be empty."""
        rx, ry = rx + 2 * self.px, ry + 2 * self.px
        u = self.shift[0] + self._cos * cx - self._sin * cy
        v = self.shift[1] + self._sin * cx + self._cos * cy
        ru = abs(self._cos) * rx + abs(self._sin) * ry
        rv = abs(self._sin) * rx + abs(self._cos) * ry
        win = (self._slice(v - rv, v + rv), self._slice(u - ru, u + ru))
        return Patch(self.x[win], self.y[win], win, self.px)

    def around(self, *points: Point, margin: float) -> Patch:
        """The patch that holds all points with a margin."""
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        cx, cy = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
        return self.patch(cx, cy, max(xs) - cx + margin, max(ys) - cy + margin)

    def whole(self) -> Patch:
        """Every pixel."""
        everything = slice(0, self.size)
        return Patch(self.x, self.y, (everything, everything), self.px)

    def _slice(self, low: float, high: float) -> slice:
        half = self.size / 2
        first = min(max(math.floor((low + 1) * half), 0), self.size)
        return slice(first, max(min(math.ceil((high + 1) * half), self.size), first))


# Signed distances. Forms after Inigo Quilez, "2D distance functions" (iquilezles.org).


def ellipse(p: Patch, cx: float, cy: float, rx: float, ry: float) -> Array:
    """Ellipse, first-order distance: exact on the outline and for circles."""
    x, y = (p.x - cx) / rx, (p.y - cy) / ry
    reach = np.sqrt(x * x + y * y)
    slope = np.sqrt((x / rx) ** 2 + (y / ry) ** 2)
    return np.asarray(reach * (reach - 1.0) / (slope + 1e-6), np.float32)


def box(p: Patch, cx: float, cy: float, rx: float, ry: float, corner: float) -> Array:
    """Rectangle with rounded corners."""
    x, y = np.abs(p.x - cx) - (rx - corner), np.abs(p.y - cy) - (ry - corner)
    outside = np.hypot(np.maximum(x, 0.0), np.maximum(y, 0.0))
    return np.asarray(outside + np.minimum(np.maximum(x, y), 0.0) - corner, np.float32)


def _along(p: Patch, a: Point, b: Point) -> tuple[Array, Array, float]:
    """Coordinates (u in half lengths, v in units) of the chord a-b, and its half length."""
    mx, my = (a[0] + b[0]) / 2, (a[1] + b[1]) / 2
    half = max(math.hypot(b[0] - a[0], b[1] - a[1]) / 2, 1e-6)
    cos, sin = (b[0] - a[0]) / 2 / half, (b[1] - a[1]) / 2 / half
    x, y = p.x - mx, p.y - my
    u, v = (x * cos + y * sin) / half, y * cos - x * sin
    return u.astype(np.float32), v.astype(np.float32), half


def bow(p: Patch, a: Point, b: Point, sag: float, width: float, taper: float = 0.0) -> Array:
    """A curved stroke from a to b, `sag` to the right of the chord, `width` its half width."""
    u, v, half = _along(p, a, b)
    inside = np.clip(u, -1.0, 1.0)
    rise = (v - sag * (1.0 - inside * inside)) / np.sqrt(1.0 + (2 * sag / half * inside) ** 2)
    past = (u - inside) * half
    return np.asarray(np.hypot(rise, past) - width * (1.0 - taper * inside * inside), np.float32)


def lens(p: Patch, a: Point, b: Point, top: float, bottom: float) -> Array:
    """The region between two bows from a to b, of sags `top` <= `bottom`."""
    u, v, half = _along(p, a, b)
    arch = 1.0 - u * u
    slope = 2.0 / half * np.clip(u, -1.0, 1.0)
    below = (v - bottom * arch) / np.sqrt(1.0 + (bottom * slope) ** 2)
    above = (top * arch - v) / np.sqrt(1.0 + (top * slope) ** 2)
    return np.asarray(np.maximum(np.maximum(below, above), (np.abs(u) - 1.0) * half), np.float32)


def merge(d1: Array, d2: Array, blend: float) -> Array:
    """Union of two shapes with a seam rounded over `blend`."""
    seam = np.maximum(blend - np.abs(d1 - d2), 0.0) / blend
    return np.asarray(np.minimum(d1, d2) - seam * seam * (blend / 4), np.float32)


def blob(p: Patch, cx: float, cy: float, rx: float, ry: float) -> Array:
    """A soft spot: 1 in the centre, about 0.1 at the radii, 0 from 1.4 radii on."""
    x, y = (p.x - cx) / (1.4 * rx), (p.y - cy) / (1.4 * ry)
    fall = np.maximum(1.0 - x * x - y * y, 0.0)
    return np.asarray(fall * fall * fall, np.float32)


def step(low: float, high: float, value: float) -> float:
    """Smooth step from 0 at `low` to 1 at `high`."""
    t = min(max((value - low) / (high - low), 0.0), 1.0)
    return t * t * (3 - 2 * t)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`share` of the second colour in the first."""
    r, g, b = (f + (s - f) * share for f, s in zip(first, second, strict=True))
    return (r, g, b)


def dim(colour: Colour, factor: float) -> Colour:
    """The colour brighter or darker by a factor."""
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


@dataclass(frozen=True, slots=True)
class Look:
    """How to draw, in every style: strength of soft shading (0 is flat), outline half width
    (0 is none), strength of texture, and whether the person is a zombie."""

    shading: float = 1.0
    outline: float = 0.0
    texture: float = 1.0
    zombie: bool = False


class Canvas:
    """The picture so far: colours `rgb` (3, H, W) and outlines `ink` (H, W), in [0, 1]."""

    def __init__(self, size: int, look: Look) -> None:
        self.look = look
        self.rgb: Array = np.zeros((3, size, size), np.float32)
        self.ink: Array = np.zeros((size, size), np.float32)

    def fill(
        self,
        p: Patch,
        distance: Floats,
        colour: Colour | Array,
        *,
        alpha: float = 1.0,
        soft: float = 0.0,
        outline: float = 1.0,
        clip: Array | None = None,
    ) -> Array:
        """Lay a shape over the picture and return its coverage (h, w).

        `colour` may vary over the patch, (3, h, w); `soft` widens the edge; `outline` scales
        the ink line around the shape; `clip` (H, W) confines it.
        """
        cover: Array = np.clip(0.5 - distance / (p.px + soft), 0.0, 1.0).astype(np.float32)
        if clip is not None:
            cover *= clip[p.win]
        self.blend(p, cover * alpha if alpha < 1.0 else cover, colour)
        if self.look.outline > 0 and alpha >= 0.5 and soft < 0.05:
            ink = self.ink[p.win]
            ink *= 1.0 - cover
            if outline > 0:
                self._draw_ink(p, np.abs(distance), outline, clip)
        return cover

    def stroke(
        self,
        p: Patch,
        distance: Floats,
        colour: Colour,
        *,
        alpha: float = 1.0,
        soft: float = 0.0,
        ink: float = 1.0,
        clip: Array | None = None,
    ) -> None:
        """Lay a line (distance from its edge); with outlines on it becomes an ink line."""
        if self.look.outline > 0:
            if ink > 0:
                self._draw_ink(p, distance, ink, clip)
            if self.look.shading == 0:
                return
        cover = np.clip(0.5 - distance / (p.px + soft), 0.0, 1.0) * alpha
        self.blend(p, cover if clip is None else cover * clip[p.win], colour)

    def tint(
        self, p: Patch, weight: Floats, colour: Colour, alpha: float, clip: Array | None = None
    ) -> None:
        """Lay a soft spot; part of the shading, so a flat look leaves it out."""
        if self.look.shading > 0:
            weight = weight * (alpha * self.look.shading)
            self.blend(p, weight if clip is None else weight * clip[p.win], colour)

    def blend(self, p: Patch, cover: Floats, colour: Colour | Array) -> None:
        """Mix a colour in by coverage (h, w)."""
        rows, columns = p.win
        under = self.rgb[:, rows, columns]
        paint = np.asarray(colour, np.float32)
        if paint.ndim == 1:
            paint = paint[:, None, None]
        under += cover * (paint - under)

    def _draw_ink(self, p: Patch, distance: Floats, weight: float, clip: Array | None) -> None:
        width = self.look.outline * weight
        line = np.clip(0.5 - (distance - width) / p.px, 0.0, 1.0) * min(weight, 1.0)
        if clip is not None:
            line = line * clip[p.win]
        ink = self.ink[p.win]
        np.maximum(ink, line, out=ink)
