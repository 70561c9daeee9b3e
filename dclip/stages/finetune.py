"""finetune: move a base model's decode from a source text to a target text."""

from __future__ import annotations

import difflib
import math
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dclip import guiding
from dclip.configs.finetune import FinetuneConfig, LatentTuning
from dclip.configs.guidance import known
from dclip.context import Context, Silent
from dclip.data.dataset import LatentSet
from dclip.data.images import to_float, to_pixels
from dclip.device import autocast, describe, pick, resolve_precision
from dclip.diffusion import grids
from dclip.domains import DOMAINS
from dclip.editing.mask import localised
from dclip.editing.plan import like_latents
from dclip.errors import BadInput
from dclip.figures.curves import save_curves
from dclip.figures.panel import panel
from dclip.fingerprints import fingerprint
from dclip.guidance.direction import Direction
from dclip.guidance.kinds import LOSSES
from dclip.guidance.objective import Objective, recoloured
from dclip.guidance.prompts import PRESETS, Preset, split_sources, unfit
from dclip.guiding import FoundClip
from dclip.models.checkpoint import ModelInfo, load_model, read_info
from dclip.models.face import load_face_network
from dclip.models.perceptual import lpips_missing
from dclip.photos.frames import frame_of
from dclip.random import key, of_round
from dclip.recipes import recipe
from dclip.recipes.contract import Batch, LossAndTerms, Problem
from dclip.recipes.spaces import space
from dclip.stages.revisions import REVISIONS
from dclip.store import Artifact, Planned, Staging, Store, slug
from dclip.training.loop import Loop

HELD_OUT = 8
SNAPSHOTS = 4


def for_targets(config: FinetuneConfig, also: Sequence[str]) -> tuple[FinetuneConfig, ...]:
    """The config, and the same settings for each further target.

    Raises:
        BadInput: a target twice, or an empty one.
    """
    if not also:
        return (config,)
    first = config.preset or config.target
    targets = [text.strip() for text in also]
    twice = next((t for n, t in enumerate(targets) if t in (first, *targets[:n])), None)
    if twice is not None:
        raise BadInput(f"the target {twice!r} is there twice", "give each target once")

    def named(target: str | None) -> str | None:
        return None if config.name is None else slug(f"{config.name}-{target}")

    others = (replace(config, target=t, preset=None, name=named(t)) for t in targets)
    return (replace(config, name=named(first)), *others)


def run_each(
    configs: Sequence[FinetuneConfig], store: Store, context: Context = Context()
) -> list[Artifact]:
    """Tune one model after the other; what is wrong with any is told before the first begins.

    A dry run is told of all of them. What was finished before an interruption is up to date.

    Raises: as :func:`run`.
    """
    plans = []
    if len(configs) > 1:
        for config in configs:
            report = context.report if context.dry_run else Silent()
            try:
                run(config, store, replace(context, dry_run=True, report=report))
            except Planned as planned:
                plans.append(planned.plan)
        if context.dry_run:
            raise Planned(plans[-1], plans[:-1])
    made = []
    for number, config in enumerate(configs, 1):
        if len(configs) > 1:
            target = config.preset or config.target
            context.report.note(f"target {number} of {len(configs)}: {target}")
        made.append(run(config, store, context))
    return made


def run(config: FinetuneConfig, store: Store, context: Context = Context()) -> Artifact:
    """Fine-tune on inverted latents and commit a ``tuned`` artifact.

    Raises:
        BadInput: prompts, recipe or CLIP that cannot be used.
        MissingArtifact: no latents in the store.
    """
    latents = store.resolve(config.latents, "latents", context.report)
    base = store.input(latents, "model")
    info = read_info(base.path)
    domain = DOMAINS[info.domain]
    pair = config.prompts(domain.source)
    if config.preset and (why := unfit(config.preset, info.domain)):
        context.report.warn(why)
    _notes(config, pair, latents, info, context)
    device = pick(context)
    found = guiding.find_guides(config.clip, store, domain, context.report)

    def load(clip: FoundClip) -> Direction:
        guide = clip.load(device, context.report)
        for prompt in (pair.target, *split_sources(pair.source)):
            guide.check(prompt)
            if warning := guide.warning(prompt):
                context.report.warn(warning)
        return Direction(guide, guide.move(pair.target, pair.source))

    # A CLIP by name may have to be fetched, which neither a plan nor finished work needs.
    directions = [load(clip) for clip in found] if all(clip.is_here for clip in found) else None
    data = LatentSet(latents.path)
    count = len(data.split("train"))
    if not count:
        raise BadInput(f"{latents.ref} has no training latents", "invert again with --split train")
    made_like = like_latents(latents)
    imported = info.source is not None
    tuning = config.resolved(imported).for_latents(
        count, made_like["r"], made_like["inversion_steps"]
    )
    if imported and config.recipe is None:
        source = recipe(tuning.recipe).source
        context.report.note(
            f"{base.ref} is imported: tuning with the published settings, --recipe {tuning.recipe}"
            f" ({source})"
        )
    if tuning.guidance.weights.get("lpips") and (missing := lpips_missing()):
        raise missing
    settings = {
        **tuning.settings(),
        "target": pair.target,
        "source": pair.source,
        "local": pair.local,
        "clips": [clip.key for clip in found],
        **made_like,
        "precision": resolve_precision(config.precision, device),
        "face": fingerprint(config.face) if config.face else None,
    }
    inputs = {"latents": latents, "model": base}
    inputs |= guiding.inputs_of(found)
    return store.build(
        stage="finetune",
        revision=REVISIONS["finetune"],
        device=describe(device),
        kind="tuned",
        name=config.name or slug(config.preset or config.target or "edit"),
        config=settings,
        inputs=inputs,
        seed=config.seed,
        context=context,
        estimate=_estimate(tuning),
        make=lambda staging: (
            _Tuning(
                config,
                tuning,
                settings,
                data,
                base,
                directions or [load(clip) for clip in found],
                device,
                context,
                staging,
            ).run()
            | {"guides": _guides(found)}
        ),
    )


def _estimate(tuning: LatentTuning) -> dict[str, Any]:
    """What the work is, for a dry run: network calls are counted by picture."""
    images = tuning.updates * tuning.batch
    forward, tuned = recipe(tuning.recipe).calls.of_update(tuning.decode_steps)
    shown = (SNAPSHOTS + 1) * HELD_OUT * tuning.decode_steps
    return {
        "updates": tuning.updates,
        "images": images,
        "network_calls_forward": images * forward + shown,
        "network_calls_backward": images * tuned,
    }


def _guides(found: Sequence[FoundClip]) -> list[dict[str, Any]]:
    """The CLIPs as they were named and where they were, beside the hashes in the config.

    Where a CLIP lies does not change the result, so this is no part of the key.
    """
    return [
        {
            "name": clip.artifact.ref if clip.artifact else clip.where,
            "path": str(Path(clip.where).resolve()) if clip.is_here else None,
            "id": clip.key,
        }
        for clip in found
    ]


def _notes(
    config: FinetuneConfig, pair: Preset, latents: Artifact, info: ModelInfo, context: Context
) -> None:
    """Say how the target is read, and where the latents do not suit the preset."""
    if pair.target != config.target:
        context.report.note(f"prompts: {pair.source!r} -> {pair.target!r}")
    elif near := difflib.get_close_matches(pair.target, PRESETS, 1, 0.7):
        context.report.note(
            f"{pair.target!r} is taken as a prompt"
            + (f", an edit of kind {pair.kind}" if pair.target in PRESETS else "")
            + f"; the preset is --preset {shlex.quote(near[0])}"
        )
    r, imported = int(latents.config["r"]), info.source is not None
    own_r = guiding.preset_r(pair, info.schedule.T, imported=imported)
    name = next(
        (name for name, known in PRESETS.items() if replace(known, kind=pair.kind) == pair), None
    )
    if name and own_r != r:
        context.report.note(
            f"the edit will start at r={r}, as {latents.ref} does; the preset is made for r={own_r}"
            f" (`dclip invert --preset {shlex.quote(name)}`)"
        )


class _Tuning:
    """One fine-tuning: what it works on, and its loop."""

    def __init__(
        self,
        config: FinetuneConfig,
        tuning: LatentTuning,
        settings: dict[str, Any],
        data: LatentSet,
        base: Artifact,
        directions: list[Direction],
        device: torch.device,
        context: Context,
        staging: Staging,
    ) -> None:
        self.settings, self.tuning = settings, tuning
        self.data, self.device = data, device
        self.context, self.staging, self.seed = context, staging, config.seed
        self.inner_loop = recipe(tuning.recipe).load()
        self.base, self.info = load_model(base.path, device)
        self.train, self.val = data.split("train"), data.split("val")
        self.tuned = space(
            recipe(tuning.recipe).space, self.base, tuning.rank, tuning.t_min, config.seed
        )
        self.optimizer = torch.optim.Adam(self.tuned.delta.parameters(), lr=tuning.lr)
        self.directions = wanted = directions
        saturation = known(tuning.guidance.saturation)
        seen = [self._scores(each) for each in directions]
        if settings["local"]:
            shown = (
                seen if saturation == 1 else [self._scores(each, saturation) for each in directions]
            )
            wanted = [
                each.as_far_as_photos(scores)
                for each, scores in zip(directions, shown, strict=True)
            ]
        self.lengths = [[round(float(length), 6) for length in each.lengths()] for each in wanted]
        self.objective = Objective(
            wanted,
            tuning.guidance,
            face=(
                load_face_network(
                    config.face,
                    device,
                    self.info.image_size,
                    frame=frame_of(self.info),
                    trust=config.trust,
                )
                if config.face
                else None
            ),
            precision=settings["precision"],
        )
        self.grid = grids.walk(settings["grid"], tuning.r, tuning.decode_steps)
        self.train = self._without_target(seen)

    def _without_target(self, seen: Sequence[Tensor]) -> np.ndarray:
        """The training photos that do not show the target yet, as the guides classify them.

        Faces that smile already teach to overdo it. Where fewer than a batch are left, the batch
        that shows the target least.

        Args:
            seen: scores of all training photos, (n, K) by each guide.
        """
        score = torch.stack([scores.amin(1).cpu() for scores in seen]).mean(0).numpy()
        index = self.train
        least = min(len(index), self.tuning.batch)
        kept = np.sort(np.argsort(score, kind="stable")[: max(int((score <= 0).sum()), least)])
        if len(kept) < len(index):
            self.context.report.note(
                f"tuning on {len(kept)} of {len(index)} photos: the others already look like"
                f" {self.settings['target']!r}"
            )
        return index[kept]

    @torch.no_grad()
    def _scores(self, direction: Direction, saturation: float = 1.0) -> Tensor:
        """How much each training photo looks like the target to a guide, (n, K)."""
        parts = np.array_split(self.train, math.ceil(len(self.train) / 128))
        return torch.cat(
            [direction.scores(recoloured(self._pixels(part), saturation)) for part in parts]
        )

    def _model(self, x: Tensor, t: Tensor) -> Tensor:
        with self._autocast():
            return self.tuned(x, t)

    def _losses(self, problem: Problem, batch: Batch) -> Iterator[LossAndTerms]:
        """The losses of one round, each of the differences as they are then."""
        losses = self.inner_loop(problem, batch)
        while True:
            self.tuned.refresh()
            found = next(losses, None)
            if found is None:
                return
            yield found

    def _frozen(self, x: Tensor, t: Tensor) -> Tensor:
        with self._autocast():  # rounded as in the tuned one
            out: Tensor = self.base(x, t)
        return out

    def _autocast(self) -> torch.autocast:
        return autocast(self.device, self.settings["precision"])

    def run(self) -> dict[str, Any]:
        total = self.tuning.updates
        loop = Loop(
            self.staging,
            updates=total,
            images=self.tuning.batch,
            modules={"delta": self.tuned.delta},
            optimizer=self.optimizer,
            limit=1.0,
            counters={"round": 0, "scores": []},
        )
        counters, every = loop.counters, max(1, math.ceil(total / SNAPSHOTS))
        problem = Problem(
            self._model,
            self._frozen,
            self.info.schedule,
            self.grid,
            self.objective,
            self.tuning.t_min,
        )
        if not counters["scores"]:
            self._snapshot(counters)
        with closing(loop.rounds(self.context.report, "fine-tuning")) as rounds:
            for _ in rounds:
                for loss, terms in self._losses(problem, self._batch(counters["round"])):
                    left = 1 - (1 - self.tuning.decay) * loop.step / total
                    left *= self.tuning.growth ** self._passes(counters["round"])
                    for group in self.optimizer.param_groups:
                        group["lr"] = self.tuning.lr * left
                    self.optimizer.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                    loop.update(loss)
                    loop.add({"loss": loss.detach(), **terms}, show=("loss", "direction"))
                    if loop.step % every == 0 or loop.done:
                        self._snapshot(counters)
                    if loop.done:
                        break
                counters["round"] += 1
        curves = {k: loop.stats.curve(k) for k in LOSSES}  # empty where not logged
        for k in ("s_dir", "l1"):
            curves[f"held-out {k}"] = [(s["images"], s[k]) for s in counters["scores"]]
        save_curves(self.staging.path / "loss.png", curves, title=self.settings["target"])
        # Not before the end: a checkpoint counts on the files that were there when it was made.
        last = self.staging.path / "snapshots" / f"update_{loop.step:05d}.png"
        shutil.copyfile(last, self.staging.path / "panel.png")
        self.tuned.save(self.staging.path, known(self.tuning.guidance.scale))
        return {
            "updates": loop.step,
            "parameters": sum(p.numel() for p in self.tuned.delta.parameters()),
            "scores": counters["scores"],
            "units": self.lengths,
            **{k: counters["scores"][-1][k] for k in ("s_dir", "l1")},
        }

    def _passes(self, number: int) -> int:
        """How often all training latents were seen before a round."""
        return number // math.ceil(len(self.train) / self.tuning.batch)

    def _batch(self, number: int) -> Batch:
        n = self.tuning.batch
        index = self.train[of_round(len(self.train), n, number, self.seed, "finetune")]
        return Batch(
            photos=self._pixels(index),
            latents=torch.from_numpy(self.data.latents(index)).to(self.device),
            generator=torch.Generator().manual_seed(key(self.seed, "round", number)),
        )

    def _pixels(self, index: np.ndarray) -> Tensor:
        return to_float(torch.from_numpy(self.data.references(index)).to(self.device))

    @torch.no_grad()
    def _snapshot(self, counters: dict[str, Any]) -> None:
        """Decode held-out latents with the present weights; score them and keep a panel.

        s_dir is the cosine of the picture's move to the text's, under the guides (it is what was
        trained on: an independent judge says more); l1 the mean pixel change.
        """
        index = self.val[:HELD_OUT] if len(self.val) else self.train[:HELD_OUT]
        photos = self._pixels(index)
        latents = torch.from_numpy(self.data.latents(index)).to(self.device)
        # A copy of the network is decoded with: merged weights and gradients make room for it.
        self.tuned.release()
        self.optimizer.zero_grad(set_to_none=True)
        scale = known(self.tuning.guidance.scale)
        decoded = torch.cat(
            [
                self.tuned.decode(part, self.info.schedule, self.grid, scale)
                for part in torch.split(latents, self.tuning.batch)
            ]
        )
        edits = localised(decoded, photos, known(self.tuning.guidance.locality)).clamp(-1, 1)
        cosine = torch.stack([each.cosine(edits, photos) for each in self.directions])
        step = counters["step"]
        counters["scores"].append(
            {
                "step": step,
                "images": step * self.tuning.batch,
                "s_dir": float(cosine.mean()),
                "l1": float((edits - photos).abs().mean()),
            }
        )
        folder = self.staging.path / "snapshots"
        folder.mkdir(exist_ok=True)
        rows = [[to_pixels(x) for x in photos], [to_pixels(x) for x in edits]]
        sheet = panel(
            rows,
            labels=["original", "edit"],
            title=f"{self.settings['target']}, update {step}",
            cell=96,
        )
        sheet.save(folder / f"update_{step:05d}.png")
