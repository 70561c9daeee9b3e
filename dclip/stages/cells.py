"""Figures whose cells are samples: each cell is an artifact of ``sample``, drawn once and kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dclip.config import from_dict
from dclip.configs.grid import GridConfig
from dclip.configs.sample import SampleConfig
from dclip.context import Context, Silent
from dclip.errors import BadInput
from dclip.figures.axes import Axis, parse_axis, parse_setting
from dclip.figures.panel import layout
from dclip.figures.pdf import save_pdf
from dclip.stages import sample
from dclip.stages.models import model_of_pixels, model_of_text
from dclip.stages.revisions import REVISIONS
from dclip.store import Artifact, Planned, Staging, Store

DPI = 300
MM = 25.4
CELL = 384  # pixels of a picture's side, about: 32 mm at 300 dpi
MOST = 400  # cells
NAME = "cells"  # of the samples that the cells are
ONE = Axis("seed", (0,))


def run(config: GridConfig, store: Store, context: Context = Context()) -> Artifact:
    """Draw a figure of samples over one or two axes; as :func:`dclip.stages.grid.run`.

    Raises:
        BadInput: axes or settings that cannot be read, that meet, or that no model here takes.
        MissingArtifact: as the stage ``sample``.
    """
    across = parse_axis(config.x) if config.x else None
    down = parse_axis(config.y) if config.y else None
    fixed = _fixed(config, across, down)
    columns = range(len(across.values) if across else 1)
    rows = range(len(down.values) if down else 1)
    if len(columns) * len(rows) > MOST:
        raise BadInput(f"{len(columns) * len(rows)} cells are too many", f"ask for {MOST} at most")
    configs = {
        (row, column): _cell(fixed, across, down, row, column)
        for row, column in product(rows, columns)
    }
    made = _drawn(configs, store, context)
    size = Image.open(next(iter(made.values())).path / "images" / "0000.png").width
    cell = config.cell or size * max(1, round(CELL / size))
    heads = [across.label(n) for n in columns] if across and config.captions else []
    labels = [down.label(n) for n in rows] if down and config.captions else []

    def make(staging: Staging) -> dict[str, Any]:
        pictures = [[_picture(made[row, column]) for column in columns] for row in rows]
        if config.transpose:
            pictures = [list(each) for each in zip(*pictures, strict=True)]
        beside, above = (heads, labels) if config.transpose else (labels, heads)
        figure = layout(pictures, columns=above, labels=beside, title=config.title, cell=cell)
        figure.draw().save(staging.path / "panel.png", dpi=(DPI, DPI))
        save_pdf(staging.path / "panel.pdf", figure, DPI)
        return {
            "cells": len(made),
            "width_mm": round(figure.width / DPI * MM, 1),
            "height_mm": round(figure.height / DPI * MM, 1),
        }

    return store.build(
        stage="grid",
        revision=REVISIONS["grid"],
        kind="figure",
        name=config.name or next(iter(made.values())).manifest.inputs["model"]["ref"].split("/")[1],
        config={
            "x": config.x,
            "y": config.y,
            "fixed": list(config.fixed),
            "captions": config.captions,
            "title": config.title,
            "transpose": config.transpose,
            "cell": cell,
        },
        inputs={f"cell {row} {column}": each for (row, column), each in made.items()},
        seed=config.seed,
        context=context,
        make=make,
    )


def _fixed(config: GridConfig, across: Axis | None, down: Axis | None) -> dict[str, Any]:
    """The settings that all cells share."""
    fixed = dict(parse_setting(text) for text in config.fixed)
    on_axes = [axis.name for axis in (across, down) if axis is not None]
    if len(set(on_axes)) < len(on_axes):
        raise BadInput(f"both axes are {on_axes[0]}", "give --x and --y two settings")
    for name in on_axes:
        if name in fixed:
            raise BadInput(f"{name} is on an axis and fixed too", "leave one of them out")
    for name in ("count", "name", "batch"):
        if name in fixed:
            raise BadInput(f"{name} cannot be fixed: a cell is one picture", "leave it out")
    if "seed" not in on_axes:
        fixed.setdefault("seed", config.seed)
    return fixed


def _cell(
    fixed: Mapping[str, Any], across: Axis | None, down: Axis | None, row: int, column: int
) -> SampleConfig:
    settings = dict(fixed)
    for axis, number in ((across, column), (down, row)):
        if axis is not None:
            settings |= axis.settings(number)
    whole = settings | {"name": NAME, "count": 1, "batch": 1}
    try:
        return from_dict(SampleConfig, whole, defaults=True, where="a cell")
    except BadInput as e:
        if "no effect" not in e.message:
            raise
        fix = "give that one with --fixed NAME=VALUE, e.g. --fixed 'prompt=a smiling person'"
        raise BadInput(e.message, fix) from e


def _drawn(
    configs: Mapping[tuple[int, int], SampleConfig], store: Store, context: Context
) -> dict[tuple[int, int], Artifact]:
    """The samples of every cell; those that were drawn before are taken as they are."""
    made: dict[tuple[int, int], Artifact] = {}
    quiet = replace(context, report=Silent(), dry_run=False)
    first = next(iter(configs.values()))
    if first.model is None and first.tuned is None:
        # Once for all, so that the figure is of one model, and said once.
        find = model_of_text if first.prompt else model_of_pixels
        found = find(None, store, context.report).ref
        configs = {place: replace(each, model=found) for place, each in configs.items()}
    if context.dry_run:
        plans = []
        for each in configs.values():
            try:
                sample.run(each, store, replace(context, report=Silent()))
            except Planned as planned:
                plans.append(planned.plan)
        raise Planned(plans[-1], plans[:-1])
    with context.report.task("drawing", len(configs), unit="cell") as task:
        for place, each in configs.items():
            made[place] = sample.run(each, store, quiet)
            task.advance(1)
    return made


def _picture(artifact: Artifact) -> NDArray[np.uint8]:
    """(3, S, S)."""
    with Image.open(artifact.path / "images" / "0000.png") as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
