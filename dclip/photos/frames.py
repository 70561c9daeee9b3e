"""Where a face lies in a square picture, and the way from a photo into that square and back.

Coordinates are those of pixel edges: the top left pixel covers 0..1, its centre is at 0.5. The
square that a model sees is the unit square, whatever its number of pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dclip.data.images import FACE_FRACTION, check_crop
from dclip.domains import FACE_FRAMES, FRAMES
from dclip.errors import BadInput

if TYPE_CHECKING:
    from dclip.models.checkpoint import ModelInfo

Points = NDArray[np.float64]
"""Five points (5, 2) as x, y: the eyes, the nose, the mouth corners; each pair from left to right
as seen in the picture."""

CELEBA_SHAPE = (178, 218)
CELEBA_POINTS = ((69.4, 112.2), (108.7, 112.6), (88.1, 134.9), (72.1, 151.9), (105.1, 152.5))
"""Mean of the five points over CelebA's aligned 178x218 photos (Liu et al., ICCV 2015)."""

DRAWN_POINTS = ((0.388, 0.477), (0.612, 0.477), (0.5, 0.595), (0.407, 0.696), (0.593, 0.696))
"""Mean of the five points of the drawn faces (``dclip.data.faces``), in the unit square."""


@dataclass(frozen=True)
class Transform:
    """The affine map from the unit square to a photo.

    Attributes:
        matrix: ((a, b, c), (d, e, f)); the point (u, v) of the square lies at
            (a u + b v + c, d u + e v + f) in the photo, in pixels.

    Raises:
        BadInput: numbers that are no invertible map.
    """

    matrix: tuple[tuple[float, float, float], tuple[float, float, float]]

    def __post_init__(self) -> None:
        (a, b, _), (d, e, _) = self.matrix
        flat = [value for row in self.matrix for value in row]
        if not all(map(math.isfinite, flat)) or a * e - b * d == 0:
            raise BadInput("a transform that cannot be inverted", "the points of a face coincide")

    @classmethod
    def of_box(cls, left: float, top: float, width: float, height: float) -> Transform:
        """The square laid over an upright box of the photo."""
        return cls(((width, 0.0, left), (0.0, height, top)))

    def to_photo(self, points: Points) -> Points:
        """Points (N, 2) of the unit square, in pixels of the photo."""
        matrix = np.asarray(self.matrix, np.float64)
        moved: Points = np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]
        return moved

    def to_square(self, points: Points) -> Points:
        """Points (N, 2) of the photo, in the unit square: the exact inverse of :meth:`to_photo`."""
        matrix = np.asarray(self.matrix, np.float64)
        away = np.asarray(points, np.float64) - matrix[:, 2]
        moved: Points = np.linalg.solve(matrix[:, :2], away.T).T.astype(np.float64)
        return moved

    def corners(self) -> Points:
        """The quad (4, 2) in the photo: top left, bottom left, bottom right, top right."""
        return self.to_photo(np.array([(0, 0), (0, 1), (1, 1), (1, 0)], np.float64))

    def scaled(self, factor: float) -> Transform:
        """The same square on the photo resized by ``factor``."""
        first, second = ([factor * value for value in row] for row in self.matrix)
        return Transform(((first[0], first[1], first[2]), (second[0], second[1], second[2])))

    @property
    def side(self) -> float:
        """Side in the photo's pixels of a square of the same area."""
        (a, b, _), (d, e, _) = self.matrix
        return math.sqrt(abs(a * e - b * d))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form that :meth:`from_dict` reads back to the same numbers."""
        return {"matrix": [list(row) for row in self.matrix]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Transform:
        """Strict inverse of :meth:`to_dict`.

        Raises:
            BadInput: no such description.
        """
        try:
            (a, b, c), (d, e, f) = data["matrix"]
            numbers = [float(value) for value in (a, b, c, d, e, f)]
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(
                f"no transform: {data!r}", "it is {'matrix': [[a, b, c], [d, e, f]]}"
            ) from error
        return cls((tuple(numbers[:3]), tuple(numbers[3:])))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Frame:
    """Where a model's training data has the face.

    Attributes:
        name: one of :data:`FRAMES`. "celeba" is CelebA's aligned photos under a crop, "ffhq" the
            quad of FFHQ and CelebA-HQ, "drawn" the drawn faces; "center" (the photo's centre
            square) and "none" (the photo as it is, both axes scaled) look for no face.
        crop: of "celeba" only, how the 178x218 photos were cropped: "face", "center", or a number
            of pixels (see :func:`dclip.data.images.decode`).

    Raises:
        BadInput: an unknown name or crop, or a crop of another frame.
    """

    name: str
    crop: str = ""

    def __post_init__(self) -> None:
        if self.name not in FRAMES:
            raise BadInput(f"unknown frame {self.name!r}", f"use one of: {', '.join(FRAMES)}")
        if self.name == "celeba":
            object.__setattr__(self, "crop", check_crop(self.crop or "face"))
        elif self.crop:
            raise BadInput(f"the frame {self.name} has no crop", "leave it out")

    @property
    def needs_faces(self) -> bool:
        """Whether the square is laid by a face's points."""
        return self.name in FACE_FRAMES

    def points(self) -> Points:
        """The five points of the mean face in the unit square, (5, 2).

        Raises:
            BadInput: a frame without faces.
        """
        if self.name == "drawn":
            return np.array(DRAWN_POINTS, np.float64)
        mean = np.array(CELEBA_POINTS, np.float64)
        if self.name == "celeba":
            return _celeba_square(self.crop).to_square(mean)
        if self.name == "ffhq":
            return _quad(mean).to_square(mean)
        raise BadInput(f"the frame {self.name} has no face", "use celeba, ffhq or drawn")

    def place(self, points: Sequence[Sequence[float]] | Points) -> Transform:
        """The square over a face with these five points (5, 2) of a photo.

        "celeba" and "drawn": the similarity that brings the points nearest (least squares) to those
        of the mean face. "ffhq": the quad of FFHQ's alignment.

        Raises:
            BadInput: points that coincide, or a frame without faces.
        """
        found = np.asarray(points, np.float64)
        if self.name == "ffhq":
            return _quad(found)
        return similarity(self.points(), found)

    def place_whole(self, width: int, height: int) -> Transform:
        """The square over a photo without asking for faces: its centre square, or all of it."""
        if self.name == "none":
            return Transform.of_box(0.0, 0.0, width, height)
        side = float(min(width, height))
        return Transform.of_box((width - side) / 2, (height - side) / 2, side, side)

    def to_dict(self) -> dict[str, str]:
        """JSON-able form."""
        return {"name": self.name, "crop": self.crop} if self.crop else {"name": self.name}

    @classmethod
    def from_dict(cls, data: Mapping[str, str]) -> Frame:
        """Strict inverse of :meth:`to_dict`.

        Raises:
            BadInput: no such description.
        """
        if not set(data) <= {"name", "crop"} or "name" not in data:
            raise BadInput(f"no frame: {dict(data)!r}", "it has a name, and a crop where celeba")
        return cls(data["name"], data.get("crop", ""))


def similarity(source: Points, target: Points) -> Transform:
    """The turn, scale and shift that bring ``source`` (N, 2) nearest to ``target`` (least squares).

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns",
    PAMI 1991. In the plane, points are complex numbers and the similarity without a reflection is
    ``w = m z + s``, so that its equations 40 to 42 are one division.

    Raises:
        BadInput: points that coincide.
    """
    z, w = (p[:, 0] + 1j * p[:, 1] for p in (np.asarray(source), np.asarray(target)))
    z0, w0 = z.mean(), w.mean()
    spread = float((abs(z - z0) ** 2).sum())
    if not spread > 0:
        raise BadInput("the points of a face coincide", "give five points that differ")
    m = complex((np.conj(z - z0) * (w - w0)).sum() / spread)
    s = complex(w0 - m * z0)
    return Transform(((m.real, -m.imag, s.real), (m.imag, m.real, s.imag)))


def _celeba_square(crop: str) -> Transform:
    """The square that a crop takes of CelebA's 178x218, as :func:`dclip.data.images.decode`."""
    width, height = CELEBA_SHAPE
    if crop == "face":
        side = float(round(width * FACE_FRACTION))
    else:
        side = float(width if crop == "center" else min(width, int(crop)))
    return Transform.of_box((width - side) / 2, (height - side) / 2, side, side)


def _quad(points: Points) -> Transform:
    """FFHQ's square: along the eyes and across eyes to mouth, 2 eye distances or 1.8 of those wide.

    Karras, Laine, Aila, "A Style-Based Generator Architecture for GANs", 2019, its data's
    alignment; CelebA-HQ's (Karras et al. 2018, appendix C) is the same.
    """
    left, right = points[0], points[1]
    eyes, mouth = (left + right) / 2, (points[3] + points[4]) / 2
    across, down = right - left, mouth - eyes
    x = across - _turned(down)
    length = float(np.hypot(*x))
    if not length > 0:
        raise BadInput("the points of a face coincide", "give five points that differ")
    x *= max(2.0 * float(np.hypot(*across)), 1.8 * float(np.hypot(*down))) / length
    y = _turned(x)
    corner = eyes + 0.1 * down - x - y
    rows = [(float(2 * x[i]), float(2 * y[i]), float(corner[i])) for i in (0, 1)]
    return Transform((rows[0], rows[1]))


def _turned(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """A quarter turn, from right to down."""
    return np.array([-vector[1], vector[0]])


def frame_of(info: ModelInfo) -> Frame:
    """Where a base model's pictures have the face."""
    return frame_named(info.frame, info.crop)


def frame_named(name: str, crop: str | None) -> Frame:
    """The frame that an artifact names, with the crop of its data where that matters.

    Raises:
        BadInput: as :class:`Frame`.
    """
    return Frame(name, (crop or "") if name == "celeba" else "")
