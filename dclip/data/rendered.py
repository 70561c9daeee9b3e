"""The embedded data set as a source: faces drawn on demand, with captions and attributes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dclip.data import faces
from dclip.data.source import Item
from dclip.errors import BadInput

ALL_STYLES = "all"


@dataclass(frozen=True)
class Rendered:
    """``count`` faces of data set ``seed``.

    Attributes:
        style: one of :data:`dclip.data.faces.STYLES`, or "all": every even face a photo, the odd
            ones in the other styles in turn.
        size: side of the pictures in pixels.

    Raises:
        BadInput: an unknown style, or a size or count that cannot be drawn.
    """

    count: int
    seed: int
    style: str
    size: int

    def __post_init__(self) -> None:
        if self.style != ALL_STYLES and self.style not in faces.STYLES:
            raise BadInput(
                f"unknown style {self.style!r}",
                f"use one of: {' '.join((ALL_STYLES, *faces.STYLES))}",
            )
        if self.count < 1:
            raise BadInput(f"{self.count} faces", "use --count 1 or more")

    def items(self) -> list[Item]:
        """The faces by name and style; their other columns come from :meth:`describe`."""
        ids = [f"face-{self.seed}-{index:06d}" for index in range(self.count)]
        return [
            Item(name, f"{name}.png", {"style": self.style_of(index)})
            for index, name in enumerate(ids)
        ]

    def style_of(self, index: int) -> str:
        if self.style != ALL_STYLES:
            return self.style
        others = [style for style in faces.STYLES if style != "photo"]
        return "photo" if index % 2 == 0 else others[index // 2 % len(others)]

    def fingerprint(self) -> str:
        """A hash of what this version of the renderer draws and writes.

        A few faces in every style stand for all: their pixels and captions change when the
        renderer does.
        """
        digest = hashlib.sha256()
        styles = faces.STYLES if self.style == ALL_STYLES else (self.style,)
        for place in range(max(4, len(styles))):
            style = styles[place % len(styles)]
            params = faces.sample(self.seed, place)
            digest.update(faces.draw(params, size=self.size, style=style).tobytes())
            text = faces.caption(params, style, seed=self.seed, index=place)
            digest.update(f"{text} {sorted(faces.attributes(params).items())}".encode())
        return digest.hexdigest()

    def draw(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Faces by number, (n, 3, H, W) uint8."""
        pictures = np.empty((len(indices), 3, self.size, self.size), dtype=np.uint8)
        for row, index in enumerate(indices):
            params = faces.sample(self.seed, index)
            picture = faces.draw(params, size=self.size, style=self.style_of(index))
            pictures[row] = picture.transpose(2, 0, 1)
        return pictures

    def describe(self, indices: Sequence[int]) -> list[dict[str, str]]:
        """Style, caption and attributes of faces by number, as columns of ``samples.csv``."""
        return [*map(partial(_describe, self), indices)]


def _describe(source: Rendered, index: int) -> dict[str, str]:
    params, style = faces.sample(source.seed, index), source.style_of(index)
    caption = faces.caption(params, style, seed=source.seed, index=index)
    flags = {name: "1" if yes else "-1" for name, yes in faces.attributes(params).items()}
    return {"style": style, "caption": caption, **flags}
