"""The embedded data set as a source: faces drawn on demand, with captions and attributes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from dclip.data import faces
from dclip.data.source import Item
from dclip.errors import BadInput

ALL_STYLES = "all"
PAIRS = "pairs"

MAX_COUNT = 100_000_000
"""Most faces of a data set: 1.2 TB of pictures of 64x64."""


@dataclass(frozen=True)
class Rendered:
    """``count`` faces of data set ``seed``.

    Attributes:
        style: one of :data:`dclip.data.faces.STYLES`; or "all": every even face a photo, the odd
            ones in the other styles in turn; or "pairs": each face twice, the second time with one
            random edit, which teaches a CLIP what an edit is.
        size: side of the pictures in pixels.

    Raises:
        BadInput: an unknown style, or a size or count that cannot be drawn.
    """

    count: int
    seed: int
    style: str
    size: int

    def __post_init__(self) -> None:
        if self.style not in (ALL_STYLES, PAIRS, *faces.STYLES):
            raise BadInput(
                f"unknown style {self.style!r}",
                f"use one of: {' '.join((ALL_STYLES, PAIRS, *faces.STYLES))}",
            )
        if not 1 <= self.count <= MAX_COUNT:
            raise BadInput(f"{self.count} faces", f"use --count 1 to {MAX_COUNT}")

    def items(self) -> Sequence[Item]:
        """The faces by name, made when asked for; what is known of them :meth:`describe` says."""
        return _Items(self.count, self.seed)

    def subject(self, index: int) -> str:
        """What the two drawings of one face have in common, in a set of pairs."""
        return f"face-{self.seed}-{index // 2:06d}"

    def style_of(self, index: int) -> str:
        """The style that number ``index`` is drawn in."""
        if self.style == PAIRS:
            return self.drawing_of(index)[1]
        if self.style != ALL_STYLES:
            return self.style
        others = [style for style in faces.STYLES if style != "photo"]
        return "photo" if index % 2 == 0 else others[index // 2 % len(others)]

    def drawing_of(self, index: int) -> tuple[faces.FaceParams, str]:
        """The face of number ``index`` and the style that it is drawn in."""
        if self.style != PAIRS:
            return faces.sample(self.seed, index), self.style_of(index)
        params = faces.sample(self.seed, index // 2)
        random = np.random.default_rng([self.seed, index // 2])
        style = str(random.choice(faces.STYLES)) if random.random() < 0.25 else "photo"
        if index % 2 == 0:
            return params, style
        possible = [
            name
            for name, target in faces.TARGETS.items()
            if faces.applicable(params, name)
            and not faces.already(params, name)
            and (style == "photo" or target.kind == "attribute")
        ]
        # Styles are few and attributes many: half of the photos' edits are of either kind.
        kind = "style" if style == "photo" and random.random() < 0.4 else "attribute"
        chosen = [name for name in possible if faces.TARGETS[name].kind == kind] or possible
        edited, new_style = faces.apply_target(params, chosen[int(random.integers(len(chosen)))])
        return edited, style if new_style == "photo" else new_style

    def fingerprint(self) -> str:
        """A hash of what this version of the renderer draws and writes.

        The first few faces, enough to come by every style, stand for all: their pixels and
        captions change when the renderer does.
        """
        few = range(4 if self.style in faces.STYLES else 2 * len(faces.STYLES))
        digest = hashlib.sha256(self.draw(few).tobytes())
        digest.update(repr(self.describe(few)).encode())
        return digest.hexdigest()

    def draw(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Faces by number, (n, 3, H, W) uint8."""
        pictures = np.empty((len(indices), 3, self.size, self.size), dtype=np.uint8)
        for row, index in enumerate(indices):
            params, style = self.drawing_of(index)
            picture = faces.draw(params, size=self.size, style=style)
            pictures[row] = picture.transpose(2, 0, 1)
        return pictures

    def describe(self, indices: Sequence[int]) -> list[dict[str, str]]:
        """Style, caption and attributes of faces by number, as columns of ``samples.csv``."""
        return [self._describe(index) for index in indices]

    def _describe(self, index: int) -> dict[str, str]:
        params, style = self.drawing_of(index)
        caption = faces.caption(params, style, seed=self.seed, index=index)
        shown = faces.facts(params, style)
        # 0 where the style does not show it: nobody can see hair colour in a pencil sketch.
        flags = {
            name: ("1" if shown[name] else "-1") if name in shown else "0"
            for name in faces.attributes(params)
        }
        pair = {"pair": self.subject(index)} if self.style == PAIRS else {}
        return {"style": style, "caption": caption, **pair, **flags}


class _Items(Sequence[Item]):
    """The names of many faces, none of which is kept: millions are planned as quickly as ten."""

    def __init__(self, count: int, seed: int) -> None:
        self._numbers = range(count)
        self._seed = seed

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, key: int) -> Item: ...
    @overload
    def __getitem__(self, key: slice) -> list[Item]: ...
    def __getitem__(self, key: int | slice) -> Item | list[Item]:
        if isinstance(key, slice):
            return [self[number] for number in self._numbers[key]]
        name = f"face-{self._seed}-{self._numbers[key]:06d}"
        return Item(name, f"{name}.png", "")
