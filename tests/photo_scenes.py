"""Photos with drawn faces in known places, turned, scaled and lit, and the truth of their edits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dclip.data import faces
from dclip.photos.find import Face
from dclip.photos.frames import DRAWN_POINTS, Transform

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Sitter:
    """A drawn face in a photo: its number, the middle, side and turn (radians) of its square."""

    index: int
    middle: tuple[float, float]
    side: float
    turn: float = 0.0
    light: float = 1.0

    def transform(self) -> Transform:
        a = self.side * np.exp(1j * self.turn)
        corner = complex(*self.middle) - a * (0.5 + 0.5j)
        return Transform(((a.real, -a.imag, corner.real), (a.imag, a.real, corner.imag)))

    def points(self) -> NDArray[np.float64]:
        """Where the five points of a mean drawn face lie: good to a few hundredths of the side."""
        return self.transform().to_photo(np.array(DRAWN_POINTS))


def face_at(sitter: Sitter, points: NDArray[np.float64] | None = None) -> Face:
    """What a finder should say of a drawn face."""
    found = sitter.points() if points is None else points
    low, high = found.min(0), found.max(0)
    grown = 0.6 * (high - low)
    left, top, right, bottom = *(low - grown), *(high + grown)
    box = (left, top, right - left, bottom - top)
    return Face(tuple(map(float, box)), tuple(map(tuple, found.tolist())), 0.9)


def scene(
    size: tuple[int, int], sitters: Sequence[Sitter], edit: str | None = None, seed: int = 3
) -> Pixels:
    """A photo (height, width, 3) of a wall with faces; with ``edit`` each is the edit's truth."""
    width, height = size
    rng = np.random.default_rng(0)
    tones = rng.uniform(60, 200, (5, 7, 3)).astype(np.uint8)
    wall = Image.fromarray(tones).resize(size, Image.Resampling.BICUBIC)
    grain = rng.normal(0, 4, (height, width, 1))
    canvas = np.clip(np.asarray(wall) + grain, 0, 255)
    for sitter in sitters:
        params = faces.sample(seed, sitter.index)
        drawn_at = min(1024, max(64, round(1.2 * sitter.side)))
        if edit is None:
            drawn = faces.draw(params, size=drawn_at)
        else:
            drawn = faces.truth(params, edit, size=drawn_at)
        # Pillow asks for the way from the photo to the picture that is laid in it.
        ends = np.array([(0, 0), (1, 0), (0, 1)], np.float64)
        o, x, y = sitter.transform().to_square(ends) * drawn_at
        way = (x[0] - o[0], y[0] - o[0], o[0], x[1] - o[1], y[1] - o[1], o[1])
        how = (size, Image.Transform.AFFINE, way, Image.Resampling.BICUBIC)
        laid = np.asarray(Image.fromarray(drawn).transform(*how), np.float64)
        inside = np.asarray(Image.new("L", (drawn_at,) * 2, 255).transform(*how))[..., None] / 255
        canvas = canvas * (1 - inside) + np.clip(laid * sitter.light, 0, 255) * inside
    return np.rint(canvas).astype(np.uint8)


def save(pixels: Pixels, path: Path, **options: object) -> Path:
    """Write a picture; the suffix decides the format."""
    Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]
    return path
