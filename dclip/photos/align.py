"""Loose photos to aligned squares: each face, brought to where a frame has it."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from dclip.data.images import Decoded, decode
from dclip.data.paths import shown
from dclip.errors import BadInput
from dclip.photos.back import cut
from dclip.photos.colours import Plain
from dclip.photos.find import Face, FaceFinder
from dclip.photos.frames import Frame
from dclip.photos.whole import unfit

Pixels = NDArray[np.uint8]


class Aligner:
    """Cuts the faces out of photos. Safe from several threads.

    Args:
        frame: where the squares have the face.
        size: their side in pixels.
        most: how many of a photo's faces are taken, the largest; None takes all.

    Raises:
        BadInput: a frame without faces, or the face detector is not installed.
    """

    def __init__(self, frame: Frame, size: int, most: int | None = None) -> None:
        if not frame.needs_faces:
            raise BadInput(f"the frame {frame.name} has no face", "use celeba or ffhq")
        self.frame, self.size, self.most = frame, size, most
        self._found: dict[str, list[Face]] = {}  # of the photos that were looked at
        self._local = threading.local()
        self.version = self._finder().version

    def _finder(self) -> FaceFinder:
        """One a thread: OpenCV's network holds the picture that it looks at."""
        if not hasattr(self._local, "finder"):
            self._local.finder = FaceFinder()
        finder: FaceFinder = self._local.finder
        return finder

    def count(self, data: bytes, name: str) -> int:
        """How many squares a photo gives.

        Raises: as :meth:`__call__`.
        """
        return len(self._taken(decode(data, crop="none", name=name), name))

    def __call__(self, data: bytes, name: str) -> list[Decoded]:
        """The squares of a photo, from the left; beyond the photo's edge it is mirrored.

        Args:
            data: the encoded file.
            name: what messages call it; a photo of the same name is looked at once.

        Returns:
            (size, size, 3) uint8 RGB each.

        Raises:
            BadInput: a file that cannot be read, or a photo with no face that is whole, turned to
                the viewer and wide enough.
        """
        photo = decode(data, crop="none", name=name)
        return [self._square(photo, face) for face in self._taken(photo, name)]

    def _square(self, photo: Decoded, face: Face) -> Decoded:
        place = self.frame.place(face.points)
        notes = list(photo.notes)
        if place.side < self.size:
            notes.append(f"the face's square has fewer than {self.size} pixels: enlarged")
        square = cut(photo.pixels, place, self.size, Plain())
        values = ((square + 1) * 127.5).round().clamp(0, 255).byte()
        return Decoded(np.ascontiguousarray(values.permute(1, 2, 0).numpy()), tuple(notes))

    def _taken(self, photo: Decoded, name: str) -> list[Face]:
        """The faces that are cut out, from the left."""
        if name not in self._found:
            height, width = photo.pixels.shape[:2]
            faces = self._finder().find(photo.pixels)
            reasons = [unfit(face, (width, height)) for face in faces]
            fit = [face for face, reason in zip(faces, reasons, strict=True) if not reason]
            if not fit:
                why = "; ".join(dict.fromkeys(reasons))
                said = f"no face is fit: {why}" if why else "no face was found"
                raise BadInput(f"{shown(name)}: {said}")
            largest = sorted(fit, key=lambda face: face.size, reverse=True)[: self.most]
            self._found[name] = sorted(largest, key=lambda face: sum(x for x, _ in face.points))
        return self._found[name]
