"""Panels as PDF: the pictures as they are, without loss, and letters as letters."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dclip.figures.panel import EDGE, INK, Layout, font_path

POINTS = 72  # points an inch


def save_pdf(path: Path, layout: Layout, dpi: int = 300) -> None:
    """Write a panel as a one-page PDF at ``dpi`` of its pixels an inch.

    Equal panels give equal bytes: no dates are written.
    """
    import matplotlib
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import Rectangle

    width, height = layout.width, layout.height
    figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi)
    FigureCanvasPdf(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    colour = [value / 255 for value in INK]
    edge = [value / 255 for value in EDGE]
    for picture in layout.pictures:
        x, y, w, h = picture.x, picture.y, picture.image.width, picture.image.height
        k = layout.edge
        axes.add_patch(Rectangle((x - k, y - k), w + 2 * k, h + 2 * k, color=edge, linewidth=0))
        axes.imshow(
            np.asarray(picture.image),
            extent=(x, x + w, y + h, y),
            interpolation="none",
            aspect="auto",
            zorder=2,
        )
    face = FontProperties(fname=str(font_path())) if font_path() else FontProperties()
    for text in layout.texts:
        axes.text(
            text.x,
            text.y,
            text.text,
            horizontalalignment={"l": "left", "m": "center", "r": "right"}[text.anchor],
            verticalalignment="baseline",
            fontproperties=face,
            fontsize=text.size * POINTS / dpi,
            color=colour,
            parse_math=False,
        )
    # imshow has moved the limits to its picture.
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    # TrueType outlines: text that can be searched, and that every printer takes.
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(
            path,
            format="pdf",
            dpi=dpi,
            metadata={"CreationDate": None, "Creator": "dclip", "Producer": None},
        )
