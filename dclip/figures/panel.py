"""Labelled panels of pictures: their layout, and drawing it in pixels.

A :class:`Layout` is the panel before it is drawn, so that :mod:`dclip.figures.pdf` can draw the
same panel with letters as letters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

INK = (32, 32, 32)
PAPER = (255, 255, 255)
EDGE = (214, 214, 214)

MAX_LINES = 3
"""Most lines of a caption or label; the rest is cut."""


@dataclass(frozen=True)
class Picture:
    """A picture of ``size`` by ``size`` pixels with its top left corner at (x, y)."""

    image: Image.Image
    x: int
    y: int


@dataclass(frozen=True)
class Text:
    """One line of text.

    Attributes:
        x, y: where its anchor is.
        anchor: ``"l"``, ``"m"`` or ``"r"``: x is its left end, middle or right end. y is always
            the baseline.
        size: of the font in pixels.
    """

    text: str
    x: float
    y: float
    anchor: str
    size: int


@dataclass(frozen=True)
class Layout:
    """A panel: its size in pixels, its pictures, its lines of text, and how wide edges are."""

    width: int
    height: int
    pictures: tuple[Picture, ...]
    texts: tuple[Text, ...]
    edge: int

    def draw(self) -> Image.Image:
        """The panel in pixels, RGB."""
        page = Image.new("RGB", (self.width, self.height), PAPER)
        pen = ImageDraw.Draw(page)
        for picture in self.pictures:
            x, y, edge = picture.x, picture.y, self.edge
            # A sketch on white would have no visible border.
            box = (
                x - edge,
                y - edge,
                x + picture.image.width + edge - 1,
                y + picture.image.height + edge - 1,
            )
            pen.rectangle(box, fill=EDGE)
            page.paste(picture.image, (x, y))
        for text in self.texts:
            pen.text((text.x, text.y), text.text, INK, font(text.size), anchor=f"{text.anchor}s")
        return page


@cache
def font_path() -> Path | None:
    """DejaVu Sans as matplotlib ships it; found without importing matplotlib's machinery."""
    spec = find_spec("matplotlib")
    if spec and spec.origin:
        path = Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
        if path.is_file():
            return path
    return None


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A sans-serif font of ``size`` pixels that every installation has."""
    path = font_path()
    return ImageFont.truetype(str(path), size) if path else ImageFont.load_default(size)


def wrap(text: str, width: float, size: int, lines: int = MAX_LINES) -> list[str]:
    """Break ``text`` into at most ``lines`` lines of at most ``width`` pixels at font ``size``.

    Breaks at plain spaces, else after ``_``, ``-`` and the like, else anywhere; what does not fit
    is cut and ends in an ellipsis.
    """
    measure = font(size).getlength
    out = [""]
    for word in re.split(r"[ \t\n]+", text.strip()):
        trial = f"{out[-1]} {word}".strip()
        if measure(trial) <= width:
            out[-1] = trial
            continue
        if out[-1]:
            out.append("")
        while measure(word) > width and len(word) > 1:
            fits = max([1, *(n for n in range(1, len(word)) if measure(word[:n]) <= width)])
            soft = max((word.rfind(mark, 1, fits) + 1 for mark in "_-./+"), default=0)
            fits = soft if soft > fits // 2 else fits
            out[-1] = word[:fits]
            out.append("")
            word = word[fits:]
        out[-1] = word
    if len(out) > lines:
        last = out[lines - 1]
        while last and measure(f"{last}…") > width:
            last = last[:-1]
        out = [*out[: lines - 1], f"{last.rstrip()}…"]
    return out


def layout(
    rows: Sequence[Sequence[NDArray[np.uint8] | None]],
    *,
    columns: Sequence[str] = (),
    labels: Sequence[str] = (),
    title: str = "",
    cell: int = 128,
    gap: int | None = None,
    group: int | None = None,
) -> Layout:
    """Place pictures in rows under column captions, with row labels at the left.

    Args:
        rows: pictures, uint8 (3, H, W) or (H, W, 3), any size; None leaves a cell blank.
        columns: a caption above each column.
        labels: a label left of each row.
        title: a heading above all.
        cell: side in pixels that each picture is scaled to (whole pixels repeated where it is a
            multiple of the picture's side, areas averaged where it is smaller).
        gap: pixels between cells; None takes a share of the cell.
        group: rows that belong together: some more space follows each so many.
    """
    gap = max(2, cell // 24) if gap is None else gap
    size = max(11, cell // 10)
    line = round(size * 1.3)
    count = max((len(row) for row in rows), default=0)
    margin = max(8, cell // 12)

    beside = min(MAX_LINES, max(1, (cell + gap) // line))  # more would run into the next label
    names = [wrap(text, cell * 1.2, size, beside) if text else [] for text in labels]
    measure = font(size).getlength
    widest = max((measure(part) for lines in names for part in lines), default=0.0)
    left = margin + (round(widest) + margin if widest else 0)
    right = left + max(0, count * (cell + gap) - gap)

    heading = wrap(title, max(right - margin, cell), size) if title else []
    heads = [wrap(text, cell, size) if text else [] for text in columns]
    deepest = max((len(lines) for lines in heads), default=0)
    top = margin + line * len(heading) + (size // 2 if heading else 0)
    top += line * deepest + (size // 3 if deepest else 0)
    width = max(right, *(margin + round(measure(part)) for part in heading), 0) + margin
    tops = [
        top + i * (cell + gap) + (i // group if group else 0) * margin for i in range(len(rows))
    ]
    bottom = tops[-1] + cell if tops else top

    texts = [
        Text(part, margin, margin + k * line + size, "l", size) for k, part in enumerate(heading)
    ]
    for j, lines in enumerate(heads):
        for k, part in enumerate(lines):
            base = top - size // 3 - (len(lines) - k) * line + size
            texts.append(Text(part, left + j * (cell + gap) + cell / 2, base, "m", size))
    for i, lines in enumerate(names[: len(tops)]):
        middle = tops[i] + cell / 2
        for k, part in enumerate(lines):
            # The middle of an x-height is about 0.36 of the size above its baseline.
            y = middle + (k - (len(lines) - 1) / 2) * line + 0.36 * size
            texts.append(Text(part, left - margin, round(y), "r", size))
    pictures = []
    for i, row in enumerate(rows):
        for j, values in enumerate(row):
            if values is not None:
                image = fit(values, cell)
                x = left + j * (cell + gap) + (cell - image.width) // 2
                y = tops[i] + (cell - image.height) // 2
                pictures.append(Picture(image, x, y))
    return Layout(width, bottom + margin, tuple(pictures), tuple(texts), max(1, cell // 256))


def panel(
    rows: Sequence[Sequence[NDArray[np.uint8] | None]],
    *,
    columns: Sequence[str] = (),
    labels: Sequence[str] = (),
    title: str = "",
    cell: int = 128,
    gap: int | None = None,
    group: int | None = None,
) -> Image.Image:
    """Lay pictures out in rows and draw them; the arguments are those of :func:`layout`."""
    placed = layout(
        rows, columns=columns, labels=labels, title=title, cell=cell, gap=gap, group=group
    )
    return placed.draw()


def sheet(pictures: Sequence[NDArray[np.uint8]], columns: int = 8, cell: int = 64) -> Image.Image:
    """Pictures without labels, ``columns`` a row."""
    rows = [list(pictures[i : i + columns]) for i in range(0, len(pictures), columns)]
    return panel(rows, cell=cell, gap=2)


def fit(picture: NDArray[np.uint8], cell: int) -> Image.Image:
    """Scale a picture, uint8 (3, H, W) or (H, W, 3), so that its longer side is ``cell``."""
    array = picture.transpose(1, 2, 0) if picture.shape[0] == 3 else picture
    image = Image.fromarray(np.ascontiguousarray(array))
    scale = cell / max(image.size)
    if scale == int(scale):
        how = Image.Resampling.NEAREST
    else:
        how = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), how)
