"""Labelled panels of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK = (32, 32, 32)
PAPER = (255, 255, 255)


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A sans-serif font of ``size`` pixels that every installation has.

    matplotlib ships DejaVu Sans; finding it by path costs no import of matplotlib's machinery.
    """
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec("matplotlib")
    if spec and spec.origin:
        path = Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


def wrap(text: str, width: int, size: int) -> list[str]:
    """Break ``text`` at spaces into lines of at most ``width`` pixels at font ``size``."""
    face, lines = font(size), [""]
    for word in text.split():
        trial = f"{lines[-1]} {word}".strip()
        if lines[-1] and face.getlength(trial) > width:
            lines.append(word)
        else:
            lines[-1] = trial
    return lines


def panel(
    rows: Sequence[Sequence[np.ndarray | None]],
    *,
    columns: Sequence[str] = (),
    labels: Sequence[str] = (),
    title: str = "",
    cell: int = 128,
    gap: int = 4,
) -> Image.Image:
    """Lay pictures out in rows under column captions, with row labels at the left.

    Args:
        rows: pictures, uint8 (3, H, W) or (H, W, 3), any size; None leaves a cell blank.
        columns: a caption above each column.
        labels: a label left of each row.
        title: one line above all.
        cell: side in pixels that each picture is scaled to (nearest above, area below its size).
        gap: pixels between cells.
    """
    size = max(11, cell // 9)
    line = round(size * 1.35)
    count = max((len(r) for r in rows), default=0)
    heads = [wrap(c, cell, size) for c in columns]
    head = line * max((len(h) for h in heads), default=0) + (gap if heads else 0)
    top = (line + gap if title else 0) + head + gap
    texts = [wrap(t, round(cell * 1.2), size) for t in labels]
    widest = max((font(size).getlength(t) for ts in texts for t in ts), default=0)
    left = gap + (round(widest) + 2 * gap if texts else 0)
    sheet = Image.new("RGB", (left + count * (cell + gap), top + len(rows) * (cell + gap)), PAPER)
    pen = ImageDraw.Draw(sheet)
    if title:
        pen.text((left, gap), title, fill=INK, font=font(size))
    for j, h in enumerate(heads):
        for k, text in enumerate(h):
            y = top - gap - (len(h) - k) * line
            x = left + j * (cell + gap) + (cell - font(size).getlength(text)) / 2
            pen.text((x, y), text, fill=INK, font=font(size))
    for i, row in enumerate(rows):
        y = top + i * (cell + gap)
        for k, text in enumerate(texts[i] if i < len(texts) else []):
            pen.text((gap, y + cell / 2 + (k - len(texts[i]) / 2) * line), text, INK, font(size))
        for j, picture in enumerate(row):
            if picture is not None:
                sheet.paste(_fit(picture, cell), (left + j * (cell + gap), y))
    return sheet


def _fit(picture: np.ndarray, cell: int) -> Image.Image:
    array = picture.transpose(1, 2, 0) if picture.shape[0] == 3 else picture
    image = Image.fromarray(np.ascontiguousarray(array))
    scale = cell / max(image.size)
    how = Image.Resampling.NEAREST if scale >= 1 and scale == int(scale) else Image.Resampling.BOX
    if scale > 1 and scale != int(scale):
        how = Image.Resampling.BICUBIC
    width, height = (max(1, round(s * scale)) for s in image.size)
    fitted = Image.new("RGB", (cell, cell), PAPER)
    fitted.paste(image.resize((width, height), how), ((cell - width) // 2, (cell - height) // 2))
    return fitted


def sheet(pictures: Sequence[np.ndarray], columns: int = 8, cell: int = 64) -> Image.Image:
    """Pictures without labels, ``columns`` a row."""
    rows = [list(pictures[i : i + columns]) for i in range(0, len(pictures), columns)]
    return panel(rows, cell=cell, gap=2)
