"""grid: figures of photos, latents, reconstructions and edits, side by side, for print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dclip.configs.grid import ColumnSpec, GridConfig
from dclip.context import Context, Reporter
from dclip.data.dataset import LatentSet
from dclip.data.images import to_float, to_uint8
from dclip.data.photos import Photos, photo_files, photo_samples
from dclip.device import describe, pick, resolve_precision
from dclip.domains import PHOTOS
from dclip.editing.editor import Editor, Inverted, Networks, Step, as_picture
from dclip.editing.plan import Part, Plan, check_domain, find_base, find_parts, make_plan
from dclip.editing.spec import PartSpec, parse_parts
from dclip.errors import DclipError
from dclip.figures.panel import layout
from dclip.figures.pdf import save_pdf
from dclip.random import permutation
from dclip.stages import cells
from dclip.stages.revisions import REVISIONS
from dclip.store import Artifact, Staging, Store

DPI = 300
MM = 25.4  # an inch in millimetres
CELL = 384  # pixels of a picture's side, about: 32 mm at 300 dpi
BATCH = 16
ROWS = 3  # held-out photos, as in the report's Figure 3
MOST = 8  # of the photos given, where the number of rows is not


Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Column:
    """One column to draw: what it shows, with which plan, how far."""

    kind: str
    plan: Plan
    strength: float
    caption: str

    def settings(self) -> dict[str, Any]:
        """As the artifact's config holds it."""
        return {"kind": self.kind, "strength": self.strength, "caption": self.caption} | (
            self.plan.settings() if self.kind != "original" else {}
        )


def run(config: GridConfig, store: Store, context: Context = Context()) -> Artifact:
    """Draw a figure and commit it as a ``figure`` artifact: ``panel.png`` and ``panel.pdf``.

    Raises:
        BadInput: columns that cannot be drawn, photos that cannot be read, models of different
            bases.
        MissingArtifact: no tuned model, or no latents.
    """
    if config.x or config.y:
        return cells.run(config, store, context)
    edits = _edits(config, store, context)
    latents = None if edits and config.photos else _latents(config, edits, store, context)
    columns = _columns(config, edits, latents, store, context.report)
    lead = columns[0].plan
    photos, settings = _photos(config, lead, latents, store, context)
    inputs = replace(lead, parts=tuple(p for parts in edits.values() for p in parts)).inputs()
    if latents is not None:
        inputs["latents"] = latents
    size = lead.info.image_size
    cell = config.cell or size * max(1, round(CELL / size))
    device = pick(context)
    precision = resolve_precision(config.precision, device)
    first = inputs.get("tuned") or latents or lead.base
    return store.build(
        stage="grid",
        revision=REVISIONS["grid"],
        device=describe(device),
        kind="figure",
        name=config.name or first.name,
        config={
            **settings,
            "columns": [column.settings() for column in columns],
            "direct": config.direct,
            "precision": precision,
            "captions": config.captions,
            "title": config.title,
            "transpose": config.transpose,
            "cell": cell,
        },
        inputs=inputs,
        seed=config.seed,
        context=context,
        estimate={"photos": len(photos), "columns": len(columns), "cell": cell, "dpi": DPI},
        make=lambda staging: _Drawing(
            config, columns, photos, Networks(lead.base, device, precision), context
        ).run(staging, cell),
    )


def _edits(config: GridConfig, store: Store, context: Context) -> dict[str, tuple[Part, ...]]:
    """The tuned models of every edit that a column asks for, by how they are written there.

    Where no column asks for one, those that are named: they still decide latents and captions.
    """
    asked = [text for column in config.column_specs for text in _texts(column, config)]
    return {
        text: find_parts(store, parse_parts(text) if text else [PartSpec()], context.report)
        for text in asked or config.tuned
    }


def _texts(column: ColumnSpec, config: GridConfig) -> Sequence[str]:
    if column.kind != "edit":
        return ()
    return [column.spec] if column.spec else config.tuned or [""]


def _latents(
    config: GridConfig, edits: Mapping[str, tuple[Part, ...]], store: Store, context: Context
) -> Artifact:
    """The latents that are named, or that the first tuned model was made on, or the newest."""
    if config.latents is None and edits:
        tuned = next(iter(edits.values()))[0].artifact
        with suppress(DclipError):  # removed since, or damaged: others will do
            found = store.input(tuned, "latents")
            context.report.note(f"using {found.ref}, which {tuned.ref} was tuned on")
            return found
    return store.resolve(config.latents, "latents", context.report)


def _columns(
    config: GridConfig,
    edits: Mapping[str, tuple[Part, ...]],
    latents: Artifact | None,
    store: Store,
    report: Reporter,
) -> list[Column]:
    """The columns to draw, those of several strengths or steps spread out."""
    counts = config.steps or (None,)
    if edits:
        base = find_base(store, [part for parts in edits.values() for part in parts])

        def plan(parts: Sequence[Part], steps: int | None) -> Plan:
            return make_plan(
                base, parts, r=config.r, steps=steps, mix=config.mix, locality=config.locality
            )

        leads = [replace(plan(next(iter(edits.values())), n), parts=()) for n in counts]
    else:
        assert latents is not None
        made = latents.config
        base = store.input(latents, "model")
        leads = [
            make_plan(
                base,
                (),
                r=int(made["r"]) if config.r is None else config.r,
                steps=n or int(made["steps"]),
                refinements=int(made.get("refinements") or 0),
                grid=made.get("grid") or "even",
                encode=made.get("encode"),
            )
            for n in counts
        ]
    columns: list[Column] = []
    for spec in config.column_specs:
        if spec.kind in ("original", "latent"):
            columns.append(Column(spec.kind, leads[0], 0.0, spec.kind))
        elif spec.kind == "reconstruction":
            # With the base's errors taken back, every number of steps gives the photo.
            shown = zip(leads, counts, strict=True) if not config.direct else [(leads[0], None)]
            columns += [
                Column(spec.kind, lead, 0.0, _caption(spec.kind, n, len(counts)))
                for lead, n in shown
            ]
        else:
            strengths = config.strengths if spec.strength is None else (spec.strength,)
            always = len(strengths) > 1 or spec.strength is not None
            for text, n in product(_texts(spec, config), counts):
                made_with = plan(edits[text], n)
                for idle in made_with.idle():
                    report.warn(idle)
                for s in strengths:
                    name = made_with.caption(s, always=always)
                    caption = _caption(name, n, len(counts))
                    columns.append(Column("edit", made_with, s, caption))
    return columns


def _caption(name: str, steps: int | None, of: int) -> str:
    return name if steps is None or of == 1 else f"{name}, {steps}\u00a0step{'s' * (steps > 1)}"


def _photos(
    config: GridConfig, lead: Plan, latents: Artifact | None, store: Store, context: Context
) -> tuple[Photos, dict[str, Any]]:
    """The photos to show, and what identifies them in the config."""
    size = lead.info.image_size
    if config.photos:
        check_domain(lead.info, PHOTOS, anyway=config.anyway, report=context.report)
        like = None if config.crop else lead.info.crop
        photos = photo_files(
            config.photos,
            size=size,
            crop=config.crop,
            like=like,
            workers=context.workers,
            report=context.report,
        )
        count = config.rows or min(len(photos), MOST)
        if count < len(photos):
            context.report.note(f"showing the first {count} of {len(photos)} photos: see --rows")
        photos = photos.first(count)
        crop = config.crop or f"as {like}"
        return photos, {"content": photos.fingerprint(), "crop": crop}
    assert latents is not None
    data = LatentSet(latents.path)
    held_out = data.split("val")
    if not len(held_out):
        context.report.note(f"{latents.ref} holds no held-out photos; showing others")
        held_out = data.split("all")
    chosen = np.sort(
        held_out[permutation(len(held_out), config.seed, "grid")[: config.rows or ROWS]]
    )
    if len(chosen) < (config.rows or 1):
        context.report.note(f"{latents.ref} has only {len(chosen)} such photos")
    return photo_samples(data, chosen, size=size), {"samples": chosen.tolist()}


class _Drawing:
    """One figure: a column's pictures are computed for all photos, an inversion once a plan."""

    def __init__(
        self,
        config: GridConfig,
        columns: Sequence[Column],
        photos: Photos,
        weights: Networks,
        context: Context,
    ) -> None:
        self.config, self.columns, self.context = config, columns, context
        self.weights, self.photos = weights, photos

    def run(self, staging: Staging, cell: int) -> dict[str, Any]:
        originals = np.stack([self.photos.load(n) for n in range(len(self.photos))])
        blocks = [originals[at : at + BATCH] for at in range(0, len(originals), BATCH)]
        with self.context.report.task(
            "drawing", self._steps() * len(originals), unit="step"
        ) as task:
            drawn = [self._block(block, partial(task.advance, len(block))) for block in blocks]
        columns = [np.concatenate(parts) for parts in zip(*drawn, strict=True)]
        names = [column.caption for column in self.columns] if self.config.captions else []
        if self.config.transpose:
            rows, labels, heads = [list(column) for column in columns], names, []
        else:
            rows = [list(row) for row in zip(*columns, strict=True)]
            labels, heads = [], names
        figure = layout(rows, columns=heads, labels=labels, title=self.config.title, cell=cell)
        figure.draw().save(staging.path / "panel.png", dpi=(DPI, DPI))
        save_pdf(staging.path / "panel.pdf", figure, DPI)
        return {
            "photos": len(originals),
            "columns": len(columns),
            "width_mm": round(figure.width / DPI * MM, 1),
            "height_mm": round(figure.height / DPI * MM, 1),
        }

    def _block(self, pixels: Pixels, on_step: Step) -> list[Pixels]:
        """Every column's pictures (B,3,H,W) of one batch of photos."""
        x0 = to_float(torch.from_numpy(pixels)).to(self.weights.device)
        inverted: dict[tuple[int, ...], Inverted] = {}
        out = []
        for column in self.columns:
            if column.kind == "original":
                out.append(pixels)
                continue
            editor = Editor(column.plan, self.weights)
            path = _path(column.plan)
            if path not in inverted:
                inverted[path] = editor.invert(x0, on_step)
            start = inverted[path]
            if column.kind == "latent":
                out.append(as_picture(start.x_r).cpu().numpy())
                continue
            decoded = editor.decode(
                start, column.strength, direct=self.config.direct, on_step=on_step
            )
            out.append(to_uint8(decoded).cpu().numpy())
        return out

    def _steps(self) -> int:
        """Steps that one photo takes."""
        shown = [column for column in self.columns if column.kind != "original"]
        paths = {_path(column.plan): column.plan for column in shown}
        inversions = sum(plan.start_steps for plan in paths.values())
        return inversions + sum(c.plan.steps for c in shown if c.kind != "latent")


def _path(plan: Plan) -> tuple[int, ...]:
    """What an inversion depends on."""
    return (plan.r, plan.refinements, plan.encode == "noise", *plan.grid, *plan.inversion_grid)
