"""A mask that the user paints: white may change, black stays as it is, grey is in between."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dclip.data.paths import shown
from dclip.data.photos import photo_files
from dclip.errors import BadInput
from dclip.photos.back import Array, cut
from dclip.photos.files import read_photo
from dclip.photos.frames import Transform


class UserMask:
    """A mask of a photo's own size.

    Args:
        file: a picture of any format that photos may have; its brightness counts.

    Attributes:
        sha256: of the file, in hex.

    Raises:
        BadInput: a file that is no picture, or one that is black everywhere.
    """

    def __init__(self, file: str) -> None:
        self._photo = read_photo(file)
        self.name, self.sha256 = (
            shown(Path(file).name),
            hashlib.sha256(self._photo.data).hexdigest(),
        )
        seen = self._photo.colours.seen(self._photo.pixels)
        self._white: NDArray[np.bool_] = seen.max(axis=-1) > -1
        if not self._white.any():
            raise BadInput(
                f"the mask {self.name} is black everywhere, so nothing may change",
                "paint white what may change",
            )

    def check(self, size: tuple[int, int], name: str) -> None:
        """Refuse a photo of another size.

        Args:
            size: width and height of the photo as it is seen.
            name: of the photo.

        Raises:
            BadInput: it has not that of the mask.
        """
        own = self._photo.size
        if own != size:
            raise BadInput(
                f"the mask {self.name} is {own[0]} x {own[1]} pixels, {name} {size[0]} x {size[1]}",
                "give a mask of the photo's own size",
            )

    def squares(self, places: Sequence[Transform], size: int) -> Tensor:
        """The mask within squares of the photo, (F, 1, size, size) in 0..1."""
        photo = self._photo
        found = [cut(photo.pixels, place, size, photo.colours) for place in places]
        return _shares(torch.stack(found))

    def square(self, size: int, crop: str | None, like: str | None) -> Tensor:
        """The mask of a photo that is cropped to one square, (1, 1, size, size) in 0..1.

        Args: as :func:`dclip.data.photos.photo_files`.
        """
        pixels = photo_files([self._photo.path], size=size, crop=crop, like=like).load(0)
        return _shares(torch.from_numpy(pixels)[None].float() / 127.5 - 1)

    def kept(self, before: Array, after: Array) -> Array:
        """A photo's new pixels (H, W, 3), with its own where the mask is black."""
        found: Array = np.where(self._white[..., None], after, before)
        return found


def _shares(x: Tensor) -> Tensor:
    """Brightness (F, 3, S, S) in [-1, 1] as (F, 1, S, S) in 0..1."""
    return ((x.mean(1, keepdim=True) + 1) / 2).clamp(0, 1)
