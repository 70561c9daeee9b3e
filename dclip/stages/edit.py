"""edit: photos in, photos changed by tuned models out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dclip.configs.edit import EditConfig
from dclip.context import Context
from dclip.data.dataset import DataSet
from dclip.data.images import save_png, to_float, to_pixels
from dclip.data.parallel import map_threads
from dclip.data.photos import Photos, photo_files, photo_samples
from dclip.data.table import write_csv
from dclip.device import describe, pick, resolve_precision
from dclip.domains import PHOTOS
from dclip.editing.editor import Editor, Networks, Step
from dclip.editing.plan import Plan, check_domain, find_plan
from dclip.errors import BadInput
from dclip.figures.panel import panel
from dclip.metrics import psnr
from dclip.random import permutation
from dclip.stages.revisions import REVISIONS
from dclip.store import Artifact, Journal, Staging, Store, slug

BATCH = 16  # photos a network call, and in the panel: fixed, as rounding differs with it
PANEL_ROWS = 4  # up to so many photos stand below each other,
PANEL_COLUMNS = 8  # more stand beside each other, so many at most
PANEL_CELL = 128

Pixels = NDArray[np.uint8]


def run(config: EditConfig, store: Store, context: Context = Context()) -> Artifact:
    """Edit photos and commit them as an ``edits`` artifact.

    Raises:
        BadInput: no photo that can be read (with ``strict``: one that cannot), tuned models of
            different bases, settings that do not fit the model.
        MissingArtifact: no such tuned model or data, or its base is gone.
    """
    plan = find_plan(
        store,
        config.parts,
        context.report,
        r=config.r,
        steps=config.steps,
        mix=config.mix,
        locality=config.locality,
    )
    photos, inputs, settings = _photos(config, plan, store, context)
    device = pick(context)
    precision = resolve_precision(config.precision, device)
    names = list(dict.fromkeys(part.artifact.name for part in plan.parts))

    def accept(artifact: Artifact) -> None:
        if config.strict and artifact.metrics["skipped"]:
            raise BadInput(
                f"{artifact.metrics['skipped']} of {len(photos)} photos could not be read: see"
                f" {artifact.path / 'skipped.csv'}",
                "remove them, or leave --strict out",
            )

    artifact = store.build(
        stage="edit",
        revision=REVISIONS["edit"],
        device=describe(device),
        kind="edits",
        name=config.name or slug("-".join(names)),
        config={
            **settings,
            **plan.settings(),
            "strength": config.strength,
            "captions": [plan.caption(s, always=len(config.strength) > 1) for s in config.strength],
            "direct": config.direct,
            "precision": precision,
            "side_by_side": config.side_by_side,
        },
        inputs={**plan.inputs(), **inputs},
        seed=config.seed,
        context=context,
        estimate={
            "photos": len(photos),
            "pictures": len(photos) * len(config.strength),
            "steps": len(photos) * _steps(plan, config),
        },
        make=lambda staging: _Editing(
            config, photos, Editor(plan, Networks(plan.base, device, precision)), context, staging
        ).run(),
        accept=accept,
    )
    if skipped := artifact.metrics["skipped"]:
        context.report.warn(
            f"{skipped} of {len(photos)} photos could not be read and were left out: see"
            f" {artifact.path / 'skipped.csv'}"
        )
    return artifact


def _photos(
    config: EditConfig, plan: Plan, store: Store, context: Context
) -> tuple[Photos, dict[str, Artifact], dict[str, Any]]:
    """The photos, the artifact that they are from, and what identifies them in the config."""
    size = plan.info.image_size
    if config.data is None:
        check_domain(plan.info, PHOTOS, anyway=config.anyway, report=context.report)
        like = None if config.crop else plan.info.crop
        photos = photo_files(
            config.photos,
            size=size,
            crop=config.crop,
            like=like,
            workers=context.workers,
            report=context.report,
        )
        if like == "face":
            context.report.note("photos are cropped closely, as the model's data was: see --crop")
        settings = {
            "photos": len(photos),
            "content": photos.fingerprint(),
            "crop": config.crop or f"as {like}",
        }
        return photos, {}, settings
    source = store.resolve(config.data, "data", context.report)
    check_domain(plan.info, source.config["domain"], anyway=config.anyway, report=context.report)
    data = DataSet(source.path)
    chosen = data.split(config.split)
    if config.where:
        chosen = np.intersect1d(chosen, data.where(*config.where))
    if not len(chosen):
        which = " and ".join([f"split {config.split}", *config.where])
        raise BadInput(f"{source.ref} has no samples with {which}", "choose another --split")
    order = permutation(len(chosen), config.seed, "edit")[: config.count]
    chosen = np.sort(chosen[order])
    if len(chosen) < config.count:
        context.report.note(f"{source.ref} has only {len(chosen)} such samples")
    photos = photo_samples(data, chosen, size=size)
    return photos, {"data": source}, {"samples": chosen.tolist()}


def _reconstructs(config: EditConfig) -> bool:
    """Whether the base's plain decode is asked for; with ``direct``, strength 0 is the photo."""
    return config.side_by_side or not config.direct


def _steps(plan: Plan, config: EditConfig) -> int:
    """Steps that one photo takes."""
    decodes = len(config.strength) + _reconstructs(config)
    return len(plan.inversion_grid) - 1 + decodes * plan.steps


@dataclass(frozen=True)
class _Edited:
    """A batch: photos and, for each strength, edits, all uint8 (B,3,H,W).

    Attributes:
        reconstruction: what the base decodes plainly, where that is asked for.
        psnr: of it, in dB, one a photo.
    """

    original: Pixels
    edits: tuple[Pixels, ...]
    reconstruction: Pixels | None = None
    psnr: tuple[float, ...] = ()

    def columns(self, captions: Sequence[str]) -> list[tuple[str, Pixels]]:
        """What a panel shows, each with its caption; ``captions`` are those of the edits."""
        plain = [] if self.reconstruction is None else [("reconstruction", self.reconstruction)]
        return [("original", self.original), *plain, *zip(captions, self.edits, strict=True)]


class _Editing:
    """One run over the photos, in batches of fixed borders, so that a resumed run is the same."""

    def __init__(
        self, config: EditConfig, photos: Photos, editor: Editor, context: Context, staging: Staging
    ) -> None:
        self.config, self.photos, self.editor = config, photos, editor
        self.context, self.staging = context, staging
        self.strengths = config.strength
        several = len(self.strengths) > 1
        self.captions = [editor.plan.caption(s, always=several) for s in self.strengths]
        self.endings = [f"_{s:g}" if several else "" for s in self.strengths]

    def run(self) -> dict[str, Any]:
        journal = Journal(self.staging.scratch / "batches.jsonl", lambda entry: entry["photos"])
        total, each = len(self.photos), _steps(self.editor.plan, self.config)
        with self.context.report.task(
            "editing", total * each, unit="step", done=journal.done * each
        ) as task:
            while journal.done < total:
                numbers = range(journal.done, min(journal.done + BATCH, total))
                kept, pictures, failures = self._load(numbers, journal)
                task.advance(len(failures) * each)
                rows: list[dict[str, Any]] = []
                if kept:
                    edited = self._edit(pictures, partial(task.advance, len(kept)))
                    rows = self._write(kept, edited)
                journal.add(photos=len(numbers), rows=rows, failures=failures)
        rows, failures = journal.column("rows"), journal.column("failures")
        if not rows:
            journal.drop()
            reason = failures[0]["reason"]
            raise BadInput(f"none of the {total} photos can be read; the first: {reason}")
        write_csv(
            self.staging.path / "samples.csv", list(rows[0]), (list(row.values()) for row in rows)
        )
        skipped = [(row["file"], row["reason"]) for row in failures]
        write_csv(self.staging.path / "skipped.csv", ["file", "reason"], skipped)
        last = [row["change"] for row in rows if row["strength"] == self.strengths[-1]]
        files = list(dict.fromkeys(row["file"] for row in rows))
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        metrics = {
            "photo": f"{files[0]}{more}",
            "edit": self.editor.plan.written,
            "photos": len(last),
            "skipped": len(failures),
            "change": float(np.mean(last)),
        }
        if _reconstructs(self.config):
            decibels = [row["psnr"] for row in rows]
            metrics |= {"psnr": float(np.mean(decibels)), "psnr_min": float(np.min(decibels))}
        return metrics

    def _load(
        self, numbers: range, journal: Journal
    ) -> tuple[list[int], list[Pixels], list[dict[str, Any]]]:
        """Decode a batch of photos; with ``strict``, fail at what cannot be."""

        def one(number: int) -> Pixels | str:
            try:
                return self.photos.load(number)
            except BadInput as error:
                return error.message

        loaded = list(map_threads(one, numbers, self.context.workers))
        failures = [
            {"file": self.photos.files[number], "reason": result}
            for number, result in zip(numbers, loaded, strict=True)
            if isinstance(result, str)
        ]
        if failures and self.config.strict:
            journal.drop()
            raise BadInput(failures[0]["reason"], "remove it, or leave --strict out")
        pairs = [
            (number, result)
            for number, result in zip(numbers, loaded, strict=True)
            if not isinstance(result, str)
        ]
        return [number for number, _ in pairs], [pixels for _, pixels in pairs], failures

    def _edit(self, pictures: Sequence[Pixels], on_step: Step) -> _Edited:
        u8 = np.stack(pictures)
        x0 = to_float(torch.from_numpy(u8)).to(self.editor.device)
        start = self.editor.invert(x0, on_step)
        decode = partial(self.editor.decode, start, direct=self.config.direct, on_step=on_step)
        edits = tuple(to_pixels(decode(s)) for s in self.strengths)
        if not _reconstructs(self.config):
            return _Edited(u8, edits)
        plain = self.editor.decode(start, 0.0, direct=False, on_step=on_step)
        return _Edited(u8, edits, to_pixels(plain), tuple(psnr(plain, x0).tolist()))

    def _write(self, numbers: Sequence[int], edited: _Edited) -> list[dict[str, Any]]:
        """Write the pictures of a batch; returns its rows of ``samples.csv``."""
        rows = []
        for k, number in enumerate(numbers):
            name = self.photos.names[number]
            save_png(self.staging.path / "originals" / f"{name}.png", _hwc(edited.original[k]))
            for s, strength in enumerate(self.strengths):
                picture = f"images/{name}{self.endings[s]}.png"
                save_png(self.staging.path / picture, _hwc(edited.edits[s][k]))
                change = np.abs(edited.edits[s][k] / 255.0 - edited.original[k] / 255.0)
                rows.append(
                    {
                        "index": number,
                        "name": name,
                        "file": self.photos.files[number],
                        "sha256": self.photos.sha256[number],
                        "strength": strength,
                        **({"psnr": round(edited.psnr[k], 2)} if edited.psnr else {}),
                        "change": round(float(change.mean()), 5),
                        "picture": picture,
                    }
                )
            if self.config.side_by_side:
                shown = edited.columns(self.captions)
                row, columns = [pixels[k] for _, pixels in shown], [caption for caption, _ in shown]
                picture = f"images/{name}_panel.png"
                cell = panel_cell(self.editor.plan.info.image_size, 256)
                save_png(self.staging.path / picture, panel([row], columns=columns, cell=cell))
        if not (self.staging.path / "panel.png").exists():
            self._panel(edited)
        return rows

    def _panel(self, edited: _Edited) -> None:
        shown = edited.columns(self.captions)
        captions, kinds = [caption for caption, _ in shown], [pixels for _, pixels in shown]
        count = len(edited.original)
        cell = panel_cell(self.editor.plan.info.image_size, PANEL_CELL)
        if count <= PANEL_ROWS:
            rows = [[pictures[k] for pictures in kinds] for k in range(count)]
            sheet = panel(rows, columns=captions, cell=cell)
        else:
            bands = -(-count // PANEL_COLUMNS)
            width = -(-count // bands)
            starts = range(0, count, width)
            rows = [list(pictures[at : at + width]) for at in starts for pictures in kinds]
            sheet = panel(rows, labels=captions * bands, cell=cell, group=len(kinds))
        save_png(self.staging.path / "panel.png", sheet)


def panel_cell(size: int, about: int) -> int:
    """The multiple of a picture's side that is nearest to ``about`` pixels: no blur."""
    return size * max(1, round(about / size))


def _hwc(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))
