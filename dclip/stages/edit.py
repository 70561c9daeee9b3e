"""edit: photos in, photos changed by tuned models out."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dclip.configs.edit import EditConfig
from dclip.context import Context
from dclip.data.dataset import DataSet
from dclip.data.images import save_png, shape_of, to_float, to_pixels
from dclip.data.parallel import map_threads
from dclip.data.paths import read_file, shown
from dclip.data.photos import Photos, photo_files, photo_samples
from dclip.data.table import write_csv
from dclip.device import describe, pick, resolve_precision
from dclip.domains import PHOTOS
from dclip.editing.editor import Editor, Networks
from dclip.editing.plan import (
    Plans,
    check_domain,
    find_base,
    find_plan,
    make_plan,
    warn_of_frame,
)
from dclip.editing.squares import BATCH, Edited, edit_squares, joined, steps_of
from dclip.editing.user_mask import UserMask
from dclip.editing.whole import Found, WholePhotos, check_size, whole_photos
from dclip.editing.words import Wording, Words, wording
from dclip.encoders.swap import encoder_for
from dclip.errors import BadInput
from dclip.figures.panel import panel
from dclip.guidance.steered import Steering, Steers, find_steers
from dclip.random import permutation
from dclip.stages.models import model_of_pixels, model_of_text
from dclip.stages.revisions import REVISIONS
from dclip.store import Artifact, Journal, Staging, Store, slug

PANEL_ROWS = 4  # up to so many photos stand below each other,
PANEL_COLUMNS = 8  # more stand beside each other, so many at most
PANEL_CELL = 128
BY_WORDS = {"r": 0.9, "locality": 0.1}  # of edits by --prompt, see docs/words.md
LISTED = 20  # photos that were left out are named up to here

Pixels = NDArray[np.uint8]


def run(config: EditConfig, store: Store, context: Context = Context()) -> Artifact:
    """Edit photos and commit them as an ``edits`` artifact.

    Raises:
        BadInput: no photo that can be read (with ``strict``: one that cannot), tuned models of
            different bases, settings that do not fit the model.
        MissingArtifact: no such tuned model or data, or its base is gone.
    """
    plan = _plan(config, store, context)
    for given, option in ((config.guide, "guide"), (config.rounds, "rounds")):
        if plan.info.latent is not None and given:
            raise BadInput(
                f"{plan.base.ref} denoises latents, and --{option} works on pixels",
                f"leave --{option} out, or name a model of pixels with --model",
            )
    words = _words(config, plan, store, context)
    if words is not None:
        context.report.note(f"from {words.source!r} to {words.target!r}")
    steers = find_steers(config.guide, config.clip, store, plan.info, context.report)
    mask = UserMask(config.mask) if config.mask else None
    photos, whole, inputs, settings = _photos(config, plan, mask, store, context)
    device = pick(context)
    precision = resolve_precision(config.precision, device)
    names = list(dict.fromkeys(part.artifact.name for part in plan.parts))
    names += [steer.value or steer.kind for steer in steers.steers]
    names += [words.target] if words else []
    labels = _captions(config, plan, steers, words)
    done = "read" if whole is None else "edited"

    def accept(artifact: Artifact) -> None:
        if config.strict and artifact.metrics["skipped"]:
            raise BadInput(
                f"{artifact.metrics['skipped']} of {len(photos)} photos could not be {done}: see"
                f" {artifact.path / 'skipped.csv'}",
                "remove them, or leave --strict out",
            )

    artifact = store.build(
        stage="edit",
        revision=REVISIONS["edit"],
        device=describe(device),
        kind="edits",
        name=config.name or slug("-".join(names) or plan.base.name, "guided"),
        config={
            **settings,
            **plan.settings(),
            "strength": config.strength,
            "captions": labels,
            **({**steers.settings, "through": config.through} if steers.steers else {}),
            **(words.settings if words else {}),
            "direct": config.direct,
            "precision": precision,
            "side_by_side": config.side_by_side,
        },
        inputs={**plan.inputs(), **inputs, **steers.inputs, **(words.inputs if words else {})},
        seed=config.seed,
        context=context,
        estimate={
            "photos": len(photos),
            "pictures": len(photos) * len(config.strength),
            "steps": len(photos) * _steps(plan, config),
        },
        make=lambda staging: _Editing(
            config,
            photos,
            whole,
            mask,
            plan,
            _editors(
                plan,
                Networks(plan.base, device, precision),
                steers.load(device, context.report, config.through) if steers.steers else None,
                config.seed,
                words.load(device, context.report) if words else None,
            ),
            labels,
            context,
            staging,
        ).run(),
        accept=accept,
    )
    if skipped := artifact.metrics["skipped"]:
        for reason in _left_out(artifact)[:LISTED]:
            context.report.note(f"left out: {reason}")
        context.report.warn(
            f"{skipped} of {len(photos)} photos could not be {done} and were left out: see"
            f" {artifact.path / 'skipped.csv'}"
        )
    return artifact


def _plan(config: EditConfig, store: Store, context: Context) -> Plans:
    """The tuned models on their base, for each group of faces; without one, the base alone."""
    names = ("steps", "mix", "locality", "grid", "encode", "rounds", "rounds_r")
    how: dict[str, Any] = {name: getattr(config, name) for name in names}
    if config.parts:
        found = tuple(
            find_plan(store, parts, context.report, r=config.r, **how) for parts in config.edits
        )
        plans = Plans(found, config.faces if len(found) > 1 else ())
        find_base(store, plans.parts)  # refuses different ones
        return plans
    if config.prompt is not None:
        base = model_of_text(config.model, store, context.report)
        how["locality"] = BY_WORDS["locality"] if config.locality is None else config.locality
        return Plans((make_plan(base, (), r=config.r or BY_WORDS["r"], **how),))
    base = model_of_pixels(config.model, store, context.report)
    if config.rounds and not config.guide and config.encode is None:
        # By a base alone the last round's decode is the edit's own.
        how |= {"rounds": config.rounds - 1, "encode": "noise"}
    return Plans((make_plan(base, (), r=config.r or config.rounds_r or 0.5, **how),))


def _words(config: EditConfig, plan: Plans, store: Store, context: Context) -> Wording | None:
    """The edit by words, if it is one."""
    if config.prompt is None:
        return None
    encoder = encoder_for(config.encoder, None, plan.base, plan.info.text, store, context.report)
    return wording(encoder, config.prompt, config.source, config.cfg)


def _editors(
    plan: Plans, networks: Networks, steering: Steering | None, seed: int, words: Words | None
) -> list[Editor]:
    return [Editor(each, networks, steering, seed, words) for each in plan.plans]


def _captions(config: EditConfig, plan: Plans, steers: Steers, words: Wording | None) -> list[str]:
    """What is written beside each strength's pictures."""
    several = len(config.strength) > 1
    said = [words.target] if words else []
    said += [steer.value or steer.kind for steer in steers.steers]
    by = " + ".join(said)
    found = []
    for strength in config.strength:
        parts = [plan.caption(strength, always=several)] if plan.parts or not by else []
        if not plan.parts and not by and not plan.keeps_photos:
            parts = ["made the base's"]
        if by:
            parts.append(f"{by} {strength:g}" if several or strength != 1 else by)
        found.append(" + ".join(parts))
    return found


def _photos(
    config: EditConfig, plan: Plans, mask: UserMask | None, store: Store, context: Context
) -> tuple[Photos, WholePhotos | None, dict[str, Artifact], dict[str, Any]]:
    """The photos, which are whole, the artifact that they are from, and what identifies them."""
    size = plan.info.image_size
    if config.data is None:
        if not config.rounds:  # these take any picture
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
        whole = None
        if config.align and config.crop is None:
            whole = whole_photos(
                photos,
                plan.info,
                only=[n for numbers in config.faces for n in numbers],
                most=config.max_faces,
                mask=mask,
                report=context.report,
            )
        if like == "face" and (whole is None or len(whole.numbers) < len(photos)):
            context.report.note("photos are cropped closely, as the model's data was: see --crop")
        settings = {
            "photos": len(photos),
            "content": photos.fingerprint(),
            "crop": config.crop or f"as {like}",
            **({} if whole is None else {"whole": whole.settings()}),
            **({} if mask is None else {"mask": mask.sha256}),
        }
        return photos, whole, {}, settings
    source = store.resolve(config.data, "data", context.report)
    if not config.rounds:
        check_domain(
            plan.info, source.config["domain"], anyway=config.anyway, report=context.report
        )
        warn_of_frame(plan.base, plan.info, source, context.report)
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
    return photos, None, {"data": source}, {"samples": chosen.tolist()}


def _reconstructs(config: EditConfig) -> bool:
    """Whether the base's plain decode is asked for; with ``direct``, strength 0 is the photo."""
    return config.side_by_side or not config.direct


def _steps(plan: Plans, config: EditConfig) -> int:
    """Steps that one photo takes at most."""
    how = {"reconstructs": _reconstructs(config), "optimises": config.through == "latent"}
    return max(steps_of(p, config.strength, **how) for p in plan.plans)


class _Editing:
    """One run over the photos, in batches of fixed borders, so that a resumed run is the same."""

    def __init__(
        self,
        config: EditConfig,
        photos: Photos,
        whole: WholePhotos | None,
        mask: UserMask | None,
        plan: Plans,
        editors: Sequence[Editor],
        captions: Sequence[str],
        context: Context,
        staging: Staging,
    ) -> None:
        self.config, self.photos, self.whole, self.mask = config, photos, whole, mask
        self.plan, self.editors = plan, editors
        self.context, self.staging = context, staging
        self.strengths = config.strength
        several = len(self.strengths) > 1
        self.captions = captions
        self.endings = [f"_{s:g}" if several else "" for s in self.strengths]

    def run(self) -> dict[str, Any]:
        journal = Journal(self.staging.scratch / "batches.jsonl", lambda entry: entry["photos"])
        total, each = len(self.photos), _steps(self.plan, self.config)
        with self.context.report.task(
            "editing", total * each, unit="step", done=journal.done * each
        ) as task:
            while journal.done < total:
                numbers = range(journal.done, min(journal.done + BATCH, total))
                found, failures = self._load(numbers, journal)
                task.advance(len(failures) * each)
                rows: list[dict[str, Any]] = []
                faces: list[dict[str, Any]] = []
                if found:
                    edited = edit_squares(
                        self.editors,
                        [photo.squares for photo in found.values()],
                        [self._owners(photo) for photo in found.values()],
                        self.strengths,
                        direct=self.config.direct,
                        reconstructs=_reconstructs(self.config),
                        steps=each * len(found),
                        advance=task.advance,
                    )
                    masks = [photo.mask for photo in found.values()]
                    edited = [each.within(mask) for each, mask in zip(edited, masks, strict=True)]
                    rows, faces = self._write(found, edited)
                journal.add(photos=len(numbers), rows=rows, failures=failures, faces=faces)
        rows, failures = journal.column("rows"), journal.column("failures")
        if not rows:
            journal.drop()
            raise _nothing(failures, total, "read" if self.whole is None else "edited")
        write_csv(
            self.staging.path / "samples.csv", list(rows[0]), (list(row.values()) for row in rows)
        )
        skipped = [(row["file"], _reason(row)) for row in failures]
        write_csv(self.staging.path / "skipped.csv", ["file", "reason"], skipped)
        last = [row for row in rows if row["strength"] == self.strengths[-1]]
        files = list(dict.fromkeys(row["file"] for row in rows))
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        metrics = {
            "photo": f"{files[0]}{more}",
            "edit": self.plan.written
            or self.config.prompt
            or " + ".join(self.config.guide)
            or self.plan.base.name,
            "photos": len(last),
            "skipped": len(failures),
            "change": float(np.mean([row["change"] for row in last])),
        }
        if self.whole is not None:
            text = json.dumps(journal.column("faces"), indent=1) + "\n"
            (self.staging.path / "faces.json").write_text(text, encoding="utf-8")
            metrics["faces"] = sum(row["faces"] for row in last)
        if _reconstructs(self.config):
            decibels = [row["psnr"] for row in rows]
            metrics |= {"psnr": float(np.mean(decibels)), "psnr_min": float(np.min(decibels))}
        return metrics

    def _owners(self, found: Found) -> list[int]:
        """Which editor each square of a photo has."""
        return [owner for n in found.numbers or [1] if (owner := self.plan.of(n)) is not None]

    def _load(
        self, numbers: range, journal: Journal
    ) -> tuple[dict[int, Found], list[dict[str, Any]]]:
        """The squares of a batch of photos; with ``strict``, fail at what cannot be read."""

        def one(number: int) -> Found | BadInput:
            try:
                if self.photos.paths:
                    check_size(self.photos.paths[number], self.photos.files[number])
                if self.whole is not None and number in self.whole.numbers:
                    return self.whole.find(number)
                if self.plan.of(1) is None:  # a square picture is its face 1
                    raise BadInput(
                        f"{shown(self.photos.files[number])} is one face, and face 1 has no edit"
                    )
                square = to_float(torch.from_numpy(self.photos.load(number)))[None]
                return Found(square, mask=self._square_mask(number))
            except BadInput as error:
                return error

        # Whole photos are large, and the face finder works for one at a time.
        workers = self.context.workers if self.whole is None else 1
        loaded = dict(zip(numbers, map_threads(one, numbers, workers), strict=True))
        failures = [
            # The fix of a photo alone is to be told: of others it is to leave them out.
            {
                "file": self.photos.files[number],
                "reason": error.message,
                "fix": (error.fix or "") if self.whole is not None or len(self.photos) == 1 else "",
            }
            for number, error in loaded.items()
            if isinstance(error, BadInput)
        ]
        if failures and self.config.strict:
            journal.drop()
            raise BadInput(failures[0]["reason"], "remove it, or leave --strict out")
        return {n: found for n, found in loaded.items() if isinstance(found, Found)}, failures

    def _square_mask(self, number: int) -> Tensor | None:
        """Where a photo that is cropped to one square may change."""
        if self.mask is None:
            return None
        path, name = self.photos.paths[number], self.photos.files[number]
        self.mask.check(shape_of(read_file(path, name)), shown(name))
        info, crop = self.plan.info, self.config.crop
        return self.mask.square(info.image_size, crop, None if crop else info.crop)

    def _write(
        self, found: Mapping[int, Found], edited: Sequence[Edited]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Write the pictures of a batch; returns its rows of ``samples.csv`` and its faces."""
        rows, faces = [], []
        exact = self.config.direct and self.plan.keeps_photos
        for (number, squares), made in zip(found.items(), edited, strict=True):
            name = self.photos.names[number]
            if self.whole is not None and number in self.whole.numbers:
                # With --direct strength 0 is the photo to rounding: here to the last bit.
                pictures = self.whole.write(
                    number,
                    squares,
                    {
                        ending: made.original if s == 0 and exact else edit
                        for s, ending, edit in zip(
                            self.strengths, self.endings, made.edits, strict=True
                        )
                    },
                    self.staging.path,
                    self.context.report,
                )
                faces.append(self.whole.describe(number, squares))
            else:
                pictures = self._write_square(name, made)
            original = to_pixels(made.original) / 255.0
            for s, strength in enumerate(self.strengths):
                change = np.abs(to_pixels(made.edits[s]) / 255.0 - original)
                rows.append(
                    {
                        "index": number,
                        "name": name,
                        "file": self.photos.files[number],
                        "sha256": self.photos.sha256[number],
                        "strength": strength,
                        **({"faces": len(original)} if self.whole is not None else {}),
                        **({"psnr": round(float(np.mean(made.psnr)), 2)} if made.psnr else {}),
                        "change": round(float(change.mean()), 5),
                        "picture": pictures[s],
                    }
                )
            if self.config.side_by_side:
                shown = made.columns(self.captions)
                sheet = [[pixels[k] for _, pixels in shown] for k in range(len(original))]
                columns = [caption for caption, _ in shown]
                picture = f"images/{name}_panel.png"
                cell = panel_cell(self.plan.info.image_size, 256)
                save_png(self.staging.path / picture, panel(sheet, columns=columns, cell=cell))
        if not (self.staging.path / "panel.png").exists():
            self._panel(joined(edited)[:BATCH])
        return rows, faces

    def _write_square(self, name: str, made: Edited) -> list[str]:
        """Write a photo that is a square, and its edits; returns where they are, by strength."""
        save_png(self.staging.path / "originals" / f"{name}.png", _hwc(made.original[0]))
        pictures = [f"images/{name}{ending}.png" for ending in self.endings]
        for picture, edit in zip(pictures, made.edits, strict=True):
            save_png(self.staging.path / picture, _hwc(edit[0]))
        return pictures

    def _panel(self, edited: Edited) -> None:
        shown = edited.columns(self.captions)
        captions, kinds = [caption for caption, _ in shown], [pixels for _, pixels in shown]
        count = len(edited.original)
        cell = panel_cell(self.plan.info.image_size, PANEL_CELL)
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


def _hwc(square: Tensor) -> Pixels:
    return np.ascontiguousarray(to_pixels(square).transpose(1, 2, 0))


def _reason(failure: Mapping[str, Any]) -> str:
    fix = failure["fix"]
    return f"{failure['reason']}: {fix}" if fix else str(failure["reason"])


def _left_out(artifact: Artifact) -> list[str]:
    """Why each photo was left out; the reasons name the files."""
    with (artifact.path / "skipped.csv").open(encoding="utf-8", newline="") as file:
        return [row["reason"] for row in csv.DictReader(file)]


def _nothing(failures: Sequence[Mapping[str, Any]], total: int, done: str) -> BadInput:
    """Why no photo was edited."""
    first = failures[0]
    if total == 1:
        return BadInput(first["reason"], first["fix"])
    return BadInput(f"none of the {total} photos can be {done}; the first: {_reason(first)}")
