"""A whole photo edited: its faces cut out, edited by any function, and put back in their places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dclip.errors import BadInput
from dclip.photos.back import FEATHER, Array, Change, cut, put_back
from dclip.photos.files import Photo
from dclip.photos.find import Face
from dclip.photos.frames import Frame, Transform

Edit = Callable[[Tensor], Tensor]
"""Squares (B, 3, S, S) in [-1, 1] to edited squares of the same shape."""

TINY = 32.0
"""Faces narrower than this, in pixels of the photo, have nothing to edit and are skipped."""

PROFILE = 0.5  # of the eyes' distance: a nose further to the side of their middle is in profile
CUT_OFF = 0.75  # share of the face's box that has to lie in the photo


@dataclass(frozen=True)
class Spot:
    """A place of a photo that is edited, or is not.

    Attributes:
        number: 1 is the leftmost face; 0 is the whole square of a frame without faces.
        transform: from the unit square to the photo.
        face: what was found there; None for a frame without faces.
        skipped: why it is left as it is; "" where it is edited.
    """

    number: int
    transform: Transform
    face: Face | None
    skipped: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        face = {} if self.face is None else self.face.to_dict()
        return {"number": self.number, "skipped": self.skipped, **face, **self.transform.to_dict()}


@dataclass(frozen=True)
class Edited:
    """An edited photo.

    Attributes:
        pixels: of the photo's shape and type; equal to the photo's own where nothing was changed.
        spots: every face that was found, edited or not, from left to right.
        before, after: by number, the squares (3, S, S) in [-1, 1] as they were and as they are
            to be.
        notes: faces that were left out, with the count and the reason.
    """

    pixels: Array = field(repr=False)
    spots: tuple[Spot, ...]
    before: Mapping[int, Tensor] = field(repr=False)
    after: Mapping[int, Tensor] = field(repr=False)
    notes: tuple[str, ...]


def find_spots(
    photo: Photo,
    faces: Sequence[Face],
    frame: Frame,
    *,
    only: Sequence[int] = (),
    most: int | None = None,
    tiny: float = TINY,
) -> tuple[Spot, ...]:
    """Which places of a photo are to be edited.

    Args:
        faces: those found in the photo, from left to right; a frame without faces needs none.
        only: numbers of the faces to edit, 1 is the leftmost; empty for all.
        most: edit the so many largest faces.
        tiny: skip faces narrower than this, in pixels.

    Raises:
        BadInput: no face where the frame needs one, a number that no face has, or faces that are
            all skipped.
    """
    if not frame.needs_faces:
        return (Spot(0, frame.place_whole(*photo.size), None),)
    if not faces:
        raise BadInput(
            f"no face was found in {photo.path.name}",
            "say --no-align to edit the picture as it is",
        )
    for number in only:
        if not 1 <= number <= len(faces):
            raise BadInput(f"{photo.path.name} has no face {number}: {len(faces)} were found",
                           "count from the left, starting at 1")  # fmt: skip
    spots = []
    for number, face in enumerate(faces, 1):
        reason = "not asked for" if only and number not in only else unfit(face, photo.size, tiny)
        spots.append(Spot(number, frame.place(face.points), face, reason))
    fit = sorted((s for s in spots if not s.skipped), key=_size, reverse=True)
    if not fit:
        reasons = "; ".join(dict.fromkeys(s.skipped for s in spots if s.skipped != "not asked for"))
        raise BadInput(f"no face in {photo.path.name} can be edited ({reasons})",
                       "say --no-align to edit the picture as it is")  # fmt: skip
    if most is not None:
        if most < 1:
            raise BadInput(f"at most {most} faces", "edit at least 1")
        left = {spot.number for spot in fit[most:]}
        why = f"smaller than the {most} largest"
        spots = [Spot(s.number, s.transform, s.face, why) if s.number in left else s for s in spots]
    return tuple(spots)


def edit_photo(
    photo: Photo,
    faces: Sequence[Face],
    frame: Frame,
    edit: Edit | Mapping[int, Edit],
    *,
    size: int,
    only: Sequence[int] = (),
    most: int | None = None,
    tiny: float = TINY,
    batch: int = 8,
    feather: float = FEATHER,
) -> Edited:
    """Edit the faces of a photo in their places; every other pixel keeps its value.

    An editor that returns what it was given leaves the photo as it is. One whose reconstruction is
    not exact should be given as ``x + edited(x) - reconstructed(x)``, so that only the edit is
    carried over.

    Args:
        faces: those found in the photo, from left to right.
        frame: where the editor's training data has the face.
        edit: one editor for all faces, or one for each number: other faces are left alone.
        size: side of the squares that the editor takes.
        only, most, tiny: see :func:`find_spots`.
        batch: squares that go through the editor together.
        feather: see :func:`dclip.photos.back.put_back`.

    Raises:
        BadInput: see :func:`find_spots`; or an editor whose result is no such squares.
    """
    if isinstance(edit, Mapping):
        if not edit:
            raise BadInput("no face has an edit", "name one for at least one face")
        if frame.needs_faces:
            only = [n for n in sorted(edit) if not only or n in only]
    spots = find_spots(photo, faces, frame, only=only, most=most, tiny=tiny)
    chosen = [spot for spot in spots if not spot.skipped]
    before = {s.number: cut(photo.pixels, s.transform, size, photo.colours) for s in chosen}
    after: dict[int, Tensor] = {}
    for editor, numbers in _by_editor(edit, [spot.number for spot in chosen]):
        for start in range(0, len(numbers), batch):
            part = numbers[start : start + batch]
            after.update(zip(part, _run(editor, [before[n] for n in part]), strict=True))
    sides = None if frame.needs_faces else _inside(chosen[0].transform, photo)
    changes = [Change(s.transform, before[s.number], after[s.number], sides) for s in chosen]
    beside = [spot.transform for spot in spots if spot.skipped]
    pixels = put_back(photo.pixels, changes, photo.colours, beside=beside, feather=feather)
    if photo.alpha is not None:  # what is not seen stays as it is
        pixels[photo.alpha == 0] = photo.pixels[photo.alpha == 0]
    return Edited(pixels, spots, before, after, _notes(spots))


def _by_editor(
    edit: Edit | Mapping[int, Edit], numbers: Sequence[int]
) -> list[tuple[Edit, list[int]]]:
    if not isinstance(edit, Mapping):
        return [(edit, list(numbers))]
    editors: dict[int, tuple[Edit, list[int]]] = {}
    for number in numbers:
        # The whole square of a frame without faces is the first thing that has an edit.
        editor = edit[number] if number in edit else edit[min(edit)]
        editors.setdefault(id(editor), (editor, []))[1].append(number)
    return list(editors.values())


def _run(edit: Edit, squares: Sequence[Tensor]) -> list[Tensor]:
    given = torch.stack(list(squares))
    edited = edit(given.clone()).detach().float().cpu()
    if edited.shape != given.shape:
        raise BadInput(f"the editor made {tuple(edited.shape)} of {tuple(given.shape)}")
    if not torch.isfinite(edited).all():
        raise BadInput("the editor made values that are not numbers", "lower the strength")
    return list(edited)


def unfit(face: Face, size: tuple[int, int], tiny: float = TINY) -> str:
    """Why a face of a photo of (width, height) cannot be edited; "" where it can."""
    width, height = size
    left, top, w, h = face.box
    across = min(left + w, width) - max(left, 0)
    down = min(top + h, height) - max(top, 0)
    if min(w, h) < tiny:
        return f"narrower than {tiny:g} pixels"
    if max(across, 0) * max(down, 0) < CUT_OFF * w * h:
        return "cut off by the photo's edge"
    points = np.asarray(face.points)
    if (points < 0).any() or (points > (width, height)).any():
        return "cut off by the photo's edge"  # the detector guesses at what lies beyond
    eyes = points[1] - points[0]
    aside = (points[2] - (points[0] + points[1]) / 2) @ eyes / max(float(eyes @ eyes), 1e-9)
    return "in profile" if abs(aside) > PROFILE else ""


def _inside(transform: Transform, photo: Photo) -> tuple[bool, bool]:
    """Whether an upright square's sides, and its top and bottom, lie inside the photo."""
    width, height = transform.corners()[2] - transform.corners()[0]
    return bool(width < photo.size[0]), bool(height < photo.size[1])


def _size(spot: Spot) -> float:
    return 0.0 if spot.face is None else spot.face.size


def _notes(spots: Sequence[Spot]) -> tuple[str, ...]:
    by_reason: dict[str, list[str]] = {}
    for spot in spots:
        if spot.skipped and spot.skipped != "not asked for":
            by_reason.setdefault(spot.skipped, []).append(str(spot.number))
    return tuple(
        f"{len(numbers)} of {len(spots)} faces left as they are, {reason}:"
        f" {'face' if len(numbers) == 1 else 'faces'} {', '.join(numbers)}"
        for reason, numbers in by_reason.items()
    )
