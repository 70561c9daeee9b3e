"""Loss curves as pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def smooth(y: np.ndarray, span: int) -> np.ndarray:
    """Running mean over ``span`` values, shorter at the ends; same length as ``y``."""
    if span <= 1:
        return y
    total = np.concatenate([[0.0], np.cumsum(y)])
    ends = np.arange(1, len(y) + 1)
    starts = np.maximum(ends - span, 0)
    return np.asarray((total[ends] - total[starts]) / (ends - starts))


def save_curves(
    path: Path,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x_label: str = "images",
    title: str = "",
    log: bool = False,
) -> None:
    """Draw named curves of (x, y) points into one PNG; long noisy ones are drawn smoothed too."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, points in curves.items():
        if not points:
            continue
        x, y = np.array(points, dtype=float).T
        if len(x) > 100:
            (faint,) = axes.plot(x, y, alpha=0.25, linewidth=0.6)
            axes.plot(x, smooth(y, len(y) // 40), color=faint.get_color(), label=name)
        else:
            axes.plot(x, y, marker=".", label=name)
    axes.set_xlabel(x_label)
    axes.set_title(title)
    if log:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    # A few colours are enough for lines and make a file of a third; equal curves give equal bytes.
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(48).save(path, optimize=True)
