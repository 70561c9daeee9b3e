"""How the explanation is drawn: clouds, arrows and paths in the plane, and an animation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from dclip.explain.spiral import ARMS

COLOURS = {"red": "#d1495b", "green": "#3f9e5a", "blue": "#3a6ea5", "grey": "#8a8a8a"}
EDGE = 1.25  # the panels show -EDGE to EDGE, and noise further out is cut off
WIDE = 2.6  # the same where noise is shown
FILM = 2.0  # the same in the animation
PALETTE = 128
FRAME = 240


def sheet(columns: int, rows: int = 1, *, edge: float = EDGE) -> tuple[Any, list[Any]]:
    """A figure of square panels without axes: (figure, panels in reading order)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.3 * columns, 2.55 * rows), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel in panels:
        panel.set_xlim(-edge, edge)
        panel.set_ylim(-edge, edge)
        panel.set_aspect("equal")
        panel.set_xticks([])
        panel.set_yticks([])
    return figure, panels


def cloud(
    panel: Any, points: Tensor, colour: str | Sequence[str] = "grey", size: float = 3
) -> None:
    """Points (N, 2), all of one colour or each of its own."""
    named = COLOURS[colour] if isinstance(colour, str) else [COLOURS[c] for c in colour]
    x, y = points.T.numpy()
    panel.scatter(x, y, s=size, c=named, linewidths=0, alpha=0.8)


def by_arm(arm: Tensor) -> list[str]:
    """The colour of each class."""
    return [ARMS[i] for i in arm.tolist()]


def arrows(panel: Any, places: Tensor, vectors: Tensor, colour: str = "blue") -> None:
    """Arrows at (N, 2), short ones lengthened, so that the directions can be read."""
    length = vectors.norm(dim=1, keepdim=True).clamp_min(1e-9)
    x, y = places.T.numpy()
    u, v = (vectors / length * (length / length.max()) ** 0.3).T.numpy()
    panel.quiver(x, y, u, v, color=COLOURS[colour], angles="xy", scale=17, width=0.006)


def paths(panel: Any, steps: Tensor, colour: str = "grey") -> None:
    """Lines through (S, N, 2), one for each of N points."""
    for line in steps.transpose(0, 1).numpy():
        panel.plot(line[:, 0], line[:, 1], color=COLOURS[colour], linewidth=0.6, alpha=0.7)


def plane(n: int, edge: float) -> Tensor:
    """An even grid of (n * n, 2) places from -edge to edge."""
    side = torch.linspace(-edge, edge, n)
    return torch.cartesian_prod(side, side)


def shade(panel: Any, values: Tensor, n: int, edge: float) -> Any:
    """Values (n * n,) of :func:`plane` as colours behind the rest."""
    return panel.imshow(
        values.view(n, n).T.numpy(),
        origin="lower",
        extent=(-edge, edge, -edge, edge),
        cmap="PuOr",
        interpolation="bilinear",
        zorder=0,
    )


def save(figure: Any, path: Path) -> Path:
    """Write a PNG of few colours: a third of the size, and equal figures give equal bytes."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(PALETTE).save(path, optimize=True)
    return path


def animate(path: Path, titles: Sequence[str], walks: Sequence[Tensor], colours: list[str]) -> Path:
    """A GIF of clouds side by side, each (S, N, 2) over the same S steps; it holds at the end."""
    frames = [_frame(titles, [walk[i] for walk in walks], colours) for i in range(len(walks[0]))]
    durations = [70] * (len(frames) - 1) + [1800]
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True
    )
    return path


def _frame(titles: Sequence[str], clouds: Sequence[Tensor], colours: list[str]) -> Image.Image:
    image = Image.new("RGB", (FRAME * len(clouds), FRAME + 16), "white")
    draw = ImageDraw.Draw(image)
    for k, (title, points) in enumerate(zip(titles, clouds, strict=True)):
        draw.text((k * FRAME + 6, 3), title, fill="black")
        at: NDArray[Any] = (points.numpy() * [1, -1] / FILM + 1) / 2 * FRAME + [k * FRAME, 16]
        inside = np.abs(points.numpy()).max(1) < FILM
        for (x, y), colour, seen in zip(at, colours, inside, strict=True):
            if seen:
                draw.rectangle((x, y, x + 1.5, y + 1.5), fill=COLOURS[colour])
        draw.line((k * FRAME, 16, k * FRAME, FRAME + 16), fill="#cccccc")
    return image.quantize(8)
