"""Whole photos in an edit: which photos are whole, their faces as squares, and their new files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dclip.context import Reporter, Silent
from dclip.data.images import save_png, shape_of, to_pixels
from dclip.data.paths import read_file, shown
from dclip.data.photos import CELEBA_SHAPE, Photos
from dclip.editing.user_mask import UserMask
from dclip.errors import BadInput
from dclip.models.checkpoint import ModelInfo
from dclip.photos.back import cut
from dclip.photos.files import read_photo
from dclip.photos.find import Face, FaceFinder, available
from dclip.photos.frames import Frame, frame_of
from dclip.photos.saving import photo_bytes
from dclip.photos.whole import Spot, edit_photo, find_spots
from dclip.store.files import write_atomic

ALIGNED = 2
"""A square photo of at most so many times the base's side is taken for one that is cropped."""

LEAST = 8
"""Pixels a side that a picture needs at least."""

_SILENT = Silent()


@dataclass(frozen=True)
class Found:
    """What an editor takes of a photo.

    Attributes:
        squares: (F,3,S,S) in [-1, 1], one for each face that is edited.
        faces: all that were found in a whole photo; empty where the square is the picture.
        spots: what is done with each of them.
        size: width and height of a whole photo.
        notes: on how a whole photo was read.
        mask: where they may change, (F,1,S,S) in 0..1; None is everywhere.
    """

    squares: Tensor
    faces: tuple[Face, ...] = ()
    spots: tuple[Spot, ...] = ()
    size: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()
    mask: Tensor | None = None

    @property
    def numbers(self) -> list[int]:
        """The numbers of the squares' faces; empty where the square is the picture."""
        return [spot.number for spot in self.spots if not spot.skipped]


@dataclass(frozen=True)
class Finished:
    """The new file of a whole photo: its bytes, its suffix, and what a person should know."""

    content: bytes
    suffix: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class WholePhotos:
    """Those of some photos that are whole: their faces are edited in their places.

    Attributes:
        photos: all that are edited, whole or not.
        numbers: which of them are whole.
        frame: where the base's pictures have the face.
        finder: finds the faces.
        size: side of the base's pictures.
        only: numbers of the faces to edit, 1 is the leftmost; empty for all.
        most: edit only the so many largest faces.
        mask: where they may change.
    """

    photos: Photos
    numbers: frozenset[int]
    frame: Frame
    finder: FaceFinder
    size: int
    only: tuple[int, ...] = ()
    most: int | None = None
    mask: UserMask | None = None

    def settings(self) -> dict[str, Any]:
        """What decides the result, for an artifact's config."""
        return {
            "frame": self.frame.to_dict(),
            "face": list(self.only),
            "max_faces": self.most,
            "detector": self.finder.version,
        }

    def find(self, number: int) -> Found:
        """Cut the faces out of a photo.

        Raises:
            BadInput: a photo that cannot be read or written again, no face that can be edited, or
                a mask of another size.
        """
        photo = read_photo(self._path(number))
        if self.mask is not None:
            self.mask.check(photo.size, shown(self.photos.files[number]))
        faces = self.finder.find(photo.view())
        spots = find_spots(photo, faces, self.frame, only=self.only, most=self.most)
        chosen = [spot for spot in spots if not spot.skipped]
        squares = [cut(photo.pixels, s.transform, self.size, photo.colours) for s in chosen]
        mask = None
        if self.mask is not None:
            mask = self.mask.squares([s.transform for s in chosen], self.size)
        return Found(torch.stack(squares), tuple(faces), spots, photo.size, photo.notes, mask)

    def write(
        self,
        number: int,
        found: Found,
        edits: Mapping[str, Tensor],
        folder: Path,
        report: Reporter = _SILENT,
    ) -> list[str]:
        """Write a photo's edits to ``images/NAME_0.5.jpg`` and its squares to ``faces/NAME/``.

        Args:
            found: what :meth:`find` gave.
            edits: edited squares (F,3,S,S) by what is added to the name, ``_0.5``.
            folder: which gets the files.
            report: told what a person would not expect, each once.

        Returns:
            The edits' paths below ``folder``, in the order of ``edits``.

        Raises:
            BadInput: as :meth:`finish`.
        """
        name, pictures, told = self.photos.names[number], [], dict.fromkeys(found.notes)
        for ending, squares in {"_original": found.squares, **edits}.items():
            for face, square in zip(found.numbers, squares, strict=True):
                pixels = to_pixels(square).transpose(1, 2, 0)
                save_png(folder / "faces" / name / f"{face}{ending}.png", pixels)
        (folder / "images").mkdir(exist_ok=True)
        for ending, squares in edits.items():
            done = self.finish(number, found, squares)
            pictures.append(f"images/{name}{ending}{done.suffix}")
            write_atomic(folder / pictures[-1], done.content)
            told |= dict.fromkeys(done.notes)
        for note in told:
            report.note(f"{shown(self.photos.files[number])}: {note}")
        return pictures

    def finish(self, number: int, found: Found, edited: Tensor) -> Finished:
        """Put edited squares back into a photo; without a change these are the file's own bytes.

        Args:
            found: what :meth:`find` gave.
            edited: (F,3,S,S), of its squares, in their order.

        Raises:
            BadInput: the photo has gone, or its new pixels cannot be written.
        """
        photo = read_photo(self._path(number))
        # Of all its squares at once, as they are edited already.
        done = edit_photo(
            photo,
            found.faces,
            self.frame,
            lambda _: edited,
            size=self.size,
            only=self.only,
            most=self.most,
            batch=len(edited),
        )
        pixels = done.pixels if self.mask is None else self.mask.kept(photo.pixels, done.pixels)
        content, suffix, notes = photo_bytes(photo, pixels)
        return Finished(content, suffix, (*done.notes, *notes))

    def describe(self, number: int, found: Found) -> dict[str, Any]:
        """What was found in a photo and where its squares lie, JSON-able."""
        return {
            "name": self.photos.names[number],
            "file": self.photos.files[number],
            "size": list(found.size),
            "faces": [spot.to_dict() for spot in found.spots],
        }

    def _path(self, number: int) -> Path:
        return self.photos.paths[number]


def whole_photos(
    photos: Photos,
    info: ModelInfo,
    *,
    only: Sequence[int] = (),
    most: int | None = None,
    mask: UserMask | None = None,
    report: Reporter = _SILENT,
) -> WholePhotos | None:
    """Which photos are whole; None where none is, or where no faces can be looked for.

    A photo is whole unless it has the size of CelebA's aligned ones, or is square and at most
    :data:`ALIGNED` times as large as the base's pictures: whoever made those has cropped them.

    Args:
        photos: files.
        info: the base.
        only, most, mask: see :class:`WholePhotos`.
        report: told once where the face detector is not installed.

    Raises:
        BadInput: the face detector is not installed though faces are chosen, or does not run.
    """
    frame = frame_of(info)
    if not frame.needs_faces:
        if only or most:
            raise BadInput(
                f"the base model's pictures have no frame of faces (its frame is {frame.name}), so"
                " no face can be chosen",
                "leave --face and --max-faces out",
            )
        return None
    numbers = frozenset(
        number
        for number in range(len(photos))
        if _is_whole(photos.paths[number], photos.files[number], info.image_size)
    )
    if not numbers:
        if only or most:
            raise BadInput(
                "none of the photos is whole: a square one as small as the model's pictures, or one"
                " of CelebA's, is one face",
                "leave --face and --max-faces out",
            )
        return None
    if not (available() or only or most):
        report.note(
            "photos are cropped, and come back as small as the model's pictures: to have faces"
            " edited in whole photos, pip install 'dclip[photos]'"
        )
        return None
    return WholePhotos(
        photos, numbers, frame, FaceFinder(), info.image_size, tuple(only), most, mask
    )


def check_size(path: Path, name: str) -> None:
    """Refuse a picture in which nothing can be edited.

    Raises:
        BadInput: fewer than :data:`LEAST` pixels a side, or a file that cannot be read.
    """
    width, height = shape_of(read_file(path, name))
    if 0 < min(width, height) < LEAST:
        raise BadInput(
            f"{shown(name)} is {width} x {height} pixels, too small to edit",
            f"give a picture of at least {LEAST} pixels a side",
        )


def _is_whole(path: Path, name: str, size: int) -> bool:
    try:
        width, height = shape_of(read_file(path, name))
    except BadInput:  # told where it is loaded
        return False
    if (width, height) == CELEBA_SHAPE or not width:
        return False
    return width != height or width > ALIGNED * size
