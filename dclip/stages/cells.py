"""Figures whose cells are samples or edits: each cell is an artifact, made once and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dclip.config import from_dict, nearest
from dclip.configs.edit import EditConfig
from dclip.configs.grid import GridConfig
from dclip.configs.sample import SampleConfig
from dclip.context import Context, Silent
from dclip.data.photos import photo_files
from dclip.errors import BadInput
from dclip.evaluation.samples import squares_of
from dclip.figures.axes import AXES, Axis, parse_axis, parse_setting
from dclip.figures.panel import layout
from dclip.figures.pdf import save_pdf
from dclip.stages import edit, sample
from dclip.stages.models import model_of_pixels, model_of_text
from dclip.stages.revisions import REVISIONS
from dclip.store import Artifact, Planned, Staging, Store, slug

DPI = 300
MM = 25.4
CELL = 384  # pixels of a picture's side, about: 32 mm at 300 dpi
MOST = 400  # cells
MOST_PHOTOS = 8  # rows of photos, where the number of rows is not said
NAME = "cells"  # of the artifacts that the cells are
OF_GRID = ("tuned", "r", "mix", "locality", "direct", "crop", "anyway", "precision")
"""Settings that the command has itself, which the edits of all cells take too."""

Cell = SampleConfig | EditConfig
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class _Row:
    """A row of cells: the value of an axis, or a photo."""

    label: str
    settings: Mapping[str, Any]


def run(config: GridConfig, store: Store, context: Context = Context()) -> Artifact:
    """Draw a figure over one or two axes; as :func:`dclip.stages.grid.run`.

    Without photos its cells are samples. With photos they are edits: a row for each photo, or of
    one photo a row for each value of the second axis; the first column shows the original.

    Raises:
        BadInput: axes or settings that cannot be read, that meet, or that no model here takes.
        MissingArtifact: as the stages ``sample`` and ``edit``.
    """
    across = parse_axis(config.x) if config.x else None
    down = parse_axis(config.y) if config.y else None
    fixed = _fixed(config, across, down)
    heads = [across.label(n) for n in range(len(across.values))] if across else [""]
    columns = [across.settings(n) for n in range(len(across.values))] if across else [{}]
    rows = _rows(config, down, context)
    if len(columns) * len(rows) > MOST:
        raise BadInput(f"{len(columns) * len(rows)} cells are too many", f"ask for {MOST} at most")
    places = product(range(len(rows)), range(len(columns)))
    configs = {
        (row, column): _cell(config, {**fixed, **columns[column], **rows[row].settings})
        for row, column in places
    }
    made = _made(configs, store, context)
    first = next(iter(made.values()))
    size = Image.open(_files(first)[-1]).width
    cell = config.cell or size * max(1, round(CELL / size))

    def make(staging: Staging) -> dict[str, Any]:
        pictures = []
        for row in range(len(rows)):
            files = [_files(made[row, column]) for column in range(len(columns))]
            shown = [each[-1] for each in files]
            pictures.append([_read(file) for file in (*files[0][:-1], *shown)])
        above = ["original", *heads] if config.photos else heads
        above, beside = (above, [r.label for r in rows]) if config.captions else ([], [])
        if not across and not config.photos:
            above = []
        if not down and not config.photos:
            beside = []
        if config.transpose:
            pictures = [list(each) for each in zip(*pictures, strict=True)]
            above, beside = beside, above
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
        name=config.name or _name(first),
        config={
            "x": config.x,
            "y": config.y,
            "fixed": list(config.fixed),
            "captions": config.captions,
            "title": config.title,
            "transpose": config.transpose,
            "cell": cell,
            "labels": [row.label for row in rows],
        },
        inputs={f"cell {row} {column}": each for (row, column), each in made.items()},
        seed=config.seed,
        context=context,
        make=make,
    )


def _name(cell: Artifact) -> str:
    """What a figure is called: after the model of its first cell."""
    inputs = cell.manifest.inputs
    found = next((ref for role, ref in inputs.items() if role.startswith("tuned")), None)
    return slug((found or inputs["model"])["ref"].split("/")[1], "figure")


def _rows(config: GridConfig, down: Axis | None, context: Context) -> list[_Row]:
    """What each row adds to the settings."""
    values = range(len(down.values)) if down else range(0)
    of_axis = [_Row(down.label(n), down.settings(n)) for n in values] if down else []
    if not config.photos:
        return of_axis or [_Row("", {})]
    photos = photo_files(config.photos, size=16, workers=context.workers, report=context.report)
    if down is not None:
        if len(photos) > 1:
            raise BadInput(
                f"{len(photos)} photos and two axes are too many rows",
                "name one photo, or one axis",
            )
        return [replace(row, settings={**row.settings, **_of(photos.paths[0])}) for row in of_axis]
    count = config.rows or min(len(photos), MOST_PHOTOS)
    if count < len(photos):
        context.report.note(f"showing the first {count} of {len(photos)} photos: see --rows")
    return [
        _Row(name, _of(path))
        for name, path in zip(photos.names[:count], photos.paths[:count], strict=True)
    ]


def _of(photo: Path) -> dict[str, Any]:
    return {"photos": (str(photo),)}


def _fixed(config: GridConfig, across: Axis | None, down: Axis | None) -> dict[str, Any]:
    """The settings that all cells share."""
    fixed = dict(parse_setting(text) for text in config.fixed)
    on_axes = [axis.name for axis in (across, down) if axis is not None]
    if len(set(on_axes)) < len(on_axes):
        raise BadInput(f"both axes are {on_axes[0]}", "give --x and --y two settings")
    for name in on_axes:
        if AXES[name][0] in fixed:
            raise BadInput(f"{name} is on an axis and fixed too", "leave one of them out")
    for name in ("count", "name", "batch", "photos", "data"):
        if name in fixed:
            raise BadInput(f"{name} cannot be fixed: a cell is one picture", "leave it out")
    if config.photos:
        plain = {f.name: f.default for f in fields(GridConfig)}
        for name in OF_GRID:
            value = getattr(config, name)
            if value != plain[name] and name not in fixed:
                fixed[name] = value
    elif "seed" not in on_axes:
        fixed.setdefault("seed", config.seed)
    return fixed


def _cell(config: GridConfig, settings: Mapping[str, Any]) -> Cell:
    kind: type[Cell] = EditConfig if config.photos else SampleConfig
    known = [f.name for f in fields(kind)]
    for name in settings:
        if name not in known:
            shown = next((axis for axis, (own, _) in AXES.items() if own == name), name)
            what, fix = "an edit of a photo", "leave the photos out, for a figure of samples"
            if not config.photos:
                what = "a sample"
                fix = nearest(name, known)
                if name in {f.name for f in fields(EditConfig)}:
                    fix = "name a photo, for a figure of edits"
            raise BadInput(f"{what} has no setting {shown}", fix)
    if config.photos:
        several = ("tuned", "strength", "guide", "clip", "face")
        whole = {
            name: (value,) if name in several and not isinstance(value, tuple | list) else value
            for name, value in settings.items()
        } | {"name": NAME}
    else:
        whole = {**settings, "name": NAME, "count": 1, "batch": 1}
    try:
        return from_dict(kind, whole, defaults=True, where="a cell")
    except BadInput as e:
        if "no effect" not in e.message:
            raise
        fix = "give that one with --fixed NAME=VALUE, e.g. --fixed 'prompt=a smiling person'"
        raise BadInput(e.message, fix) from e


def _run(cell: Cell) -> Callable[[Any, Store, Context], Artifact]:
    return edit.run if isinstance(cell, EditConfig) else sample.run


def _made(
    configs: Mapping[tuple[int, int], Cell], store: Store, context: Context
) -> dict[tuple[int, int], Artifact]:
    """The artifact of every cell; those that were made before are taken as they are."""
    made: dict[tuple[int, int], Artifact] = {}
    quiet = replace(context, report=Silent(), dry_run=False)
    first = next(iter(configs.values()))
    alone = isinstance(first, SampleConfig) or first.guide or first.prompt
    if first.model is None and not first.tuned and alone:
        # Once for all, so that the figure is of one model, and said once.
        find = model_of_text if first.prompt else model_of_pixels
        found = find(None, store, context.report).ref
        configs = {place: replace(each, model=found) for place, each in configs.items()}
    if context.dry_run:
        plans = []
        for each in configs.values():
            try:
                _run(each)(each, store, replace(context, report=Silent()))
            except Planned as planned:
                plans.append(planned.plan)
        raise Planned(plans[-1], plans[:-1])
    what = "drawing" if isinstance(first, SampleConfig) else "editing"
    with context.report.task(what, len(configs), unit="cell") as task:
        for place, each in configs.items():
            made[place] = _run(each)(each, store, quiet)
            task.advance(1)
    return made


def _files(cell: Artifact) -> Sequence[Path]:
    """The picture of a cell; before it, of an edit, its original."""
    if cell.kind == "samples":
        return [cell.path / "images" / "0000.png"]
    squares = squares_of(cell)
    return [squares.originals[0], next(iter(squares.edits.values()))[0]]


def _read(file: Path) -> Pixels:
    """(3, S, S)."""
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
