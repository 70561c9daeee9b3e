"""The person who sits for the portrait: pose, outlines and colours shared by every part."""

from __future__ import annotations

import math

import numpy as np

from dclip.data.faces import palette
from dclip.data.faces.canvas import (
    Array,
    Canvas,
    Colour,
    Frame,
    Look,
    Patch,
    Point,
    dim,
    ellipse,
    merge,
    mix,
)
from dclip.data.faces.params import FaceParams

EYE_Y, BROW_Y, NOSE_Y, MOUTH_Y, CHIN_Y = -0.05, -0.205, 0.17, 0.375, 0.65
_DEPTH = 0.42
_CROP = 1.1
"""How tightly the picture is cropped about the head."""


class Sitter:
    """Parameters with what follows from them: frames, canvas, colours, head outline.

    `face` is the frame of the head (rolled, scaled, shifted), `body` that of the shoulders.
    `head` (H, W) is the coverage of the head once it is drawn; features are clipped to it.
    """

    def __init__(self, params: FaceParams, size: int, look: Look) -> None:
        self.params, self.look = params, look
        self.canvas = Canvas(size, look)
        shift = (params.shift_x - 0.05 * math.sin(params.yaw), params.shift_y + 0.01)
        scale = _CROP * params.scale
        self.face = Frame(size, roll=params.roll, scale=scale, shift=shift)
        self.body = Frame(size, scale=scale, shift=shift)
        self.skin = palette.skin(params, zombie=look.zombie)
        self.hair = palette.hair(params)
        shade = mix((0.24, 0.09, 0.07), (0.10, 0.13, 0.08), 1.0 if look.zombie else 0.0)
        self.shadow: Colour = mix(dim(self.skin, 0.45), shade, 0.4)
        self.head: Array = np.zeros((size, size), np.float32)
        key = np.array([params.noise_key, 1], np.uint64)
        self.random: Array = np.random.Generator(np.random.Philox(key=key)).random(64, np.float32)
        self.turn = math.sin(params.yaw)
        self._cos = math.cos(params.yaw)
        self.rx = 0.455 * params.face_width

    def at(self, x: float, y: float, depth: float = _DEPTH) -> Point:
        """Where a point of the frontal face lies after yaw and pitch."""
        bulge = math.sqrt(max(1.0 - (x / 0.55) ** 2, 0.0))
        return (
            x * self._cos + depth * bulge * self.turn,
            y + self.params.pitch * depth * bulge,
        )

    def ear_x(self, side: float) -> float:
        """Where the ear of a side (-1 or 1) lies; turning away hides it behind the head."""
        away = max(self.turn * side, 0.0)
        return side * (self.rx - 0.012 - 0.16 * away) + 0.02 * self.turn

    def narrowing(self, x: float) -> float:
        """How much of its width a feature at x keeps after yaw."""
        return (self.at(x + 0.02, 0.0)[0] - self.at(x - 0.02, 0.0)[0]) / 0.04

    def outline(self, p: Patch, grow: float = 0.0) -> Array:
        """Distance to the head without ears or hair."""
        params, s = self.params, self.turn
        jaw = self.rx * (0.76 + 0.17 * params.jaw)
        cranium = ellipse(p, -0.05 * s, -0.12, self.rx, 0.53)
        chin = ellipse(p, 0.12 * s, 0.20 + 0.3 * params.pitch, jaw, 0.45 * params.chin)
        return np.asarray(merge(cranium, chin, 0.16) - grow, np.float32)

    def light(self, x: Array, y: Array, rx: float, ry: float) -> Array:
        """Lambert light on an ellipsoid about the origin, 1 where it faces the viewer (h, w)."""
        params = self.params
        nx, ny = x / rx, y / ry
        nz = np.sqrt(np.maximum(1.0 - nx * nx - ny * ny, 0.04))
        lx, ly, lz = 0.75 * params.light_x, 0.6 * params.light_y, 0.75
        norm = math.sqrt(lx * lx + ly * ly + lz * lz)
        return np.asarray((nx * lx + ny * ly + nz * lz) / norm, np.float32)

    def lit(self, colour: Colour, light: Array) -> Array | Colour:
        """A colour under a light (h, w): soft shading, or two flat tones in a flat look."""
        base = np.asarray(colour, np.float32)[:, None, None]
        dark = np.asarray(mix(dim(colour, 0.45), self.shadow, 0.35), np.float32)[:, None, None]
        if self.look.shading == 0:
            shade = np.where(light < 0.5, np.float32(0.35), np.float32(0.0))
        else:
            shade = np.clip(0.92 - light, -0.12, 1.0) * (
                0.85 * self.params.light_strength * self.look.shading
            )
        return np.asarray(base + shade * (dark - base), np.float32)
