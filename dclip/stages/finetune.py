"""finetune: move a base model's decode from a source text to a target text."""

from __future__ import annotations

import difflib
import math
import shlex
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from dclip import guiding
from dclip.context import Context
from dclip.data.dataset import LatentSet
from dclip.data.images import to_float, to_pixels
from dclip.device import autocast, check_precision, pick, resolve_precision
from dclip.diffusion import ddim
from dclip.editing.mask import check_locality, localised
from dclip.editing.plan import knows_drawn_faces
from dclip.errors import BadInput
from dclip.figures.curves import save_curves
from dclip.figures.panel import panel
from dclip.guidance.clip import fingerprint, load_guide
from dclip.guidance.direction import Direction
from dclip.guidance.objective import Objective, Weights, recoloured
from dclip.guidance.prompts import LAMBDAS, PRESETS, Preset, preset, split_sources
from dclip.models.checkpoint import load_model, read_info
from dclip.models.face import load_face_network
from dclip.models.tuned import Adapter, Full, above, merged
from dclip.random import key, permutation
from dclip.recipes import BY_KIND, Batch, Problem, recipe
from dclip.recipes.loops import per_step, stepwise
from dclip.store import Artifact, Staging, Store, slug
from dclip.training.loop import Loop

HELD_OUT = 8
SNAPSHOTS = 4
DEFAULT_SOURCE = "a photo of a person"
LOSSES = tuple(field.name for field in fields(Weights) if field.name != "face")
"""Losses whose weights the kind of edit, the recipe or the user sets; the face's has a switch."""


@dataclass(frozen=True)
class FinetuneConfig:
    """What decides the tuned model.

    Attributes:
        target: prompt of what to see; the name of a preset stands for its pair of prompts.
        source: prompt of what is there, or several, separated by semicolons.
        preset: a name in :data:`dclip.guidance.prompts.PRESETS`, instead of prompts.
        kind: a key of :data:`dclip.guidance.prompts.LAMBDAS`, which decides what nothing else does;
            None takes the preset's, else "style".
        latents: latents artifact, which also says the base model; None takes the newest.
        clip: one or more, as :func:`dclip.guiding.find_clip` takes them; their losses are averaged.
            None given takes the newest clip artifact, or the embedded one for rendered faces, or
            ViT-B-32:openai.
        name: name of the tuned model; None makes one from the target.
        recipe: a name in :data:`dclip.recipes.RECIPES`; None takes the one for the kind of edit.
            The settings below override its own.
        lr, direction, goal, identity, colour, speckle, propagation, grey, structure, batch,
            updates, epochs, steps, views, rank, decay, until, saturation, reach, blur, locality,
            scale: see :class:`dclip.recipes.Recipe`.
        precision: of the networks while tuning: ``"fp32"``, ``"bf16"`` (autocast), or ``"auto"``:
            bf16 where that is faster.
        face: path of a TorchScript face recognition network, (B, 3, H, W) in [-1, 1] to (B, D).
        face_weight: lambda of the face-identity loss.

    Epochs are counted over all training latents, also those left out as showing the target already.
    """

    target: str | None = None
    source: str | None = None
    preset: str | None = None
    kind: str | None = None
    latents: str | None = None
    clip: tuple[str, ...] = ()
    name: str | None = None
    recipe: str | None = None
    lr: float | None = None
    direction: float | None = None
    goal: float | None = None
    identity: float | None = None
    colour: float | None = None
    speckle: float | None = None
    propagation: float | None = None
    grey: float | None = None
    structure: float | None = None
    batch: int | None = None
    updates: int | None = None
    epochs: int | None = None
    steps: int | None = None
    views: int | None = None
    rank: int | None = None
    decay: float | None = None
    t_min: float | None = None
    saturation: float | None = None
    goal_scale: float | None = None
    blur: float | None = None
    locality: float | None = None
    scale: float | None = None
    precision: str = "auto"
    face: str | None = None
    face_weight: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.recipe is not None:
            recipe(self.recipe)
        if self.kind is not None and self.kind not in LAMBDAS:
            raise BadInput(f"unknown kind of edit {self.kind!r}", f"use {', '.join(LAMBDAS)}")
        if self.preset is not None:
            preset(self.preset)
            if self.target is not None or self.source is not None:
                raise BadInput(
                    "a preset brings its own prompts", "give --preset, or --target and --source"
                )
        elif self.target is None:
            raise BadInput(
                "what is the edit?", "give --target sketch, or --preset with one of its names"
            )
        elif not self.target.strip():
            raise BadInput("the prompt is empty", "say what to see, e.g. --target sketch")
        for field in ("batch", "updates", "epochs", "steps"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise BadInput(f"{field} must be at least 1, not {value}")
        for field in ("views", "rank", *LOSSES, "face_weight"):
            value = getattr(self, field)
            if value is not None and value < 0:
                raise BadInput(f"{field} must be 0 or more, not {value}")
        if self.lr is not None and not 0 < self.lr < 1:
            raise BadInput(f"lr must be between 0 and 1, not {self.lr}")
        if self.decay is not None and not 0 < self.decay <= 1:
            raise BadInput(f"decay must be above 0 and at most 1, not {self.decay}")
        if self.t_min is not None and not 0 <= self.t_min < 1:
            raise BadInput(f"until is a share of r below 1, not {self.t_min}")
        if self.saturation is not None and not 0 <= self.saturation <= 3:
            raise BadInput(f"saturation must be 0 to 3, not {self.saturation}")
        if self.blur is not None and not 0 <= self.blur <= 2:
            raise BadInput(f"blur must be 0 to 2, not {self.blur}")
        if self.locality is not None:
            check_locality(self.locality)
        for field in ("goal_scale", "scale"):
            value = getattr(self, field)
            if value is not None and not value > 0:
                raise BadInput(f"{field} must be above 0, not {value}")
        check_precision(self.precision)
        if self.face is None and self.face_weight != 1:
            raise BadInput("a face weight needs a face network", "give --face FILE too")
        if self.epochs is not None and self.updates is not None:
            raise BadInput("epochs and updates both say how long to train", "give one of them")

    def prompts(self) -> Preset:
        """The pair of prompts that the config stands for."""
        if self.preset is not None:
            pair = preset(self.preset)
        elif self.target in PRESETS and self.source is None:
            pair = PRESETS[self.target]
        else:
            assert self.target is not None
            pair = Preset(self.target, self.source or DEFAULT_SOURCE, "style")
        return replace(pair, kind=self.kind or pair.kind)


def find_clips(
    specs: Sequence[str], store: Store, base: Artifact, context: Context
) -> list[tuple[str, Artifact | None]]:
    """Where the guides are: what :func:`load_guide` takes, and the artifact if it is one.

    Args:
        specs: as the user gave them; none chooses.
        base: the base model's artifact; its lineage tells whether it knows rendered faces.

    Raises:
        BadInput: the same one twice.
    """
    if specs:
        found = [guiding.find_clip(spec, store, context.report) for spec in specs]
        if len(found) > 1 and len({fingerprint(where) for where, _ in found}) < len(found):
            raise BadInput("one CLIP is given twice", "give each --clip once")
        return found
    if not store.list("clip") and not knows_drawn_faces(store, base):
        from dclip.guidance.clip import DEFAULT_PRETRAINED

        context.report.note(f"using CLIP {DEFAULT_PRETRAINED}")
        return [(DEFAULT_PRETRAINED, None)]
    artifact = store.resolve(None, "clip", context.report, default="embedded")
    return [(str(artifact.path), artifact)]


def run(config: FinetuneConfig, store: Store, context: Context = Context()) -> Artifact:
    """Fine-tune on inverted latents and commit a ``tuned`` artifact.

    Raises:
        BadInput: prompts, recipe or CLIP that cannot be used.
        MissingArtifact: no latents in the store.
    """
    latents = store.resolve(config.latents, "latents", context.report)
    base = store.input(latents, "model")
    pair = config.prompts()
    if pair.target != config.target:
        context.report.note(f"prompts: {pair.source!r} -> {pair.target!r}")
    elif near := difflib.get_close_matches(pair.target, PRESETS, 1, 0.7):
        context.report.note(
            f"{pair.target!r} is taken as a prompt"
            + (f", an edit of kind {pair.kind}" if pair.target in PRESETS else "")
            + f"; the preset is --preset {shlex.quote(near[0])}"
        )
    inversion_steps, r = int(latents.config["steps"]), int(latents.config["r"])
    own_r = guiding.preset_r(pair, read_info(base.path).schedule.T)
    name = next(
        (name for name, known in PRESETS.items() if replace(known, kind=pair.kind) == pair), None
    )
    if name and own_r != r:
        context.report.note(
            f"the edit will start at r={r}, as {latents.ref} does; the preset is made for r={own_r}"
            f" (`dclip invert --preset {shlex.quote(name)}`)"
        )
    if latents.config["method"] != "fixed-point":
        context.report.warn(
            f"{latents.ref} was made by {latents.config['method']}, and photos are edited from"
            " latents by fixed-point: tune on such (`dclip invert`) for edits as these"
        )
    device = pick(context.device)
    found = find_clips(config.clip, store, base, context)

    def load(where: str, clip: Artifact | None) -> Direction:
        guide = load_guide(where, device, name=f"CLIP {clip.ref}" if clip else None)
        for prompt in (pair.target, *split_sources(pair.source)):
            guide.check(prompt)
            if warning := guide.warning(prompt):
                context.report.warn(warning)
        return Direction(guide, guide.move(pair.target, pair.source))

    # A CLIP by name may have to be fetched, which neither a plan nor finished work needs.
    here = all(Path(where).is_dir() for where, _ in found)
    directions = [load(*each) for each in found] if here else None
    recipe_name = config.recipe or BY_KIND[pair.kind]
    chosen = recipe(recipe_name)
    own = {
        name: getattr(config, name) if getattr(config, name) is not None else getattr(chosen, name)
        for name in (
            "lr", *LOSSES, "batch", "steps", "views", "rank",
            "decay", "t_min", "saturation", "goal_scale", "blur", "locality", "scale",
        )
    }  # fmt: skip
    for name, value in asdict(LAMBDAS[pair.kind]).items():
        own[name] = value if own[name] is None else own[name]
    if not own["direction"] + own["goal"] > 0:
        raise BadInput("no loss is left that follows the text", "give --direction or --goal")
    own["steps"] = config.steps or min(own["steps"] or inversion_steps, r)
    data = LatentSet(latents.path)
    train = data.split("train")
    if not len(train):
        raise BadInput(f"{latents.ref} has no training latents", "invert again with --split train")
    rounds = math.ceil(len(train) / own["batch"])
    t_min = round(own.pop("t_min") * r)
    if t_min >= r:
        raise BadInput(f"with --t-min {t_min / r:g} of r={r} nothing is tuned", "use less")
    labels = ddim.grid(r, own["steps"])
    per_round = sum(t > t_min for t in labels) if chosen.loop in (per_step, stepwise) else 1
    if config.epochs is None and (config.updates or chosen.updates):
        updates = config.updates or chosen.updates or 1
    else:
        updates = (config.epochs or chosen.epochs) * rounds * per_round
    settings = {
        **own,
        "updates": updates,
        "target": pair.target,
        "source": pair.source,
        "local": pair.local,
        "recipe": recipe_name,
        "clips": [clip.id if clip else fingerprint(where) for where, clip in found],
        "r": r,
        "inversion_steps": inversion_steps,
        "refinements": int(latents.config.get("refinements") or 0),
        # The tuned model knows the states of its own grid; on a finer one it would edit more often.
        "decode_steps": own["steps"],
        "t_min": t_min,
        "precision": resolve_precision(config.precision, device),
        "face": fingerprint(config.face) if config.face else None,
        "face_weight": config.face_weight if config.face else 0.0,
    }
    inputs = {"latents": latents, "model": base}
    inputs |= {guiding.clip_role(n): clip for n, (_, clip) in enumerate(found, 1) if clip}
    return store.build(
        stage="finetune",
        kind="tuned",
        name=config.name or slug(config.preset or config.target or "edit"),
        config=settings,
        inputs=inputs,
        seed=config.seed,
        context=context,
        estimate={"updates": updates, "images": updates * own["batch"]},
        make=lambda staging: _Tuning(
            config,
            settings,
            data,
            base,
            directions or [load(*each) for each in found],
            device,
            context,
            staging,
        ).run(),
    )


class _Tuning:
    """One fine-tuning: what it works on, and its loop."""

    def __init__(
        self,
        config: FinetuneConfig,
        settings: dict[str, Any],
        data: LatentSet,
        base: Artifact,
        directions: list[Direction],
        device: torch.device,
        context: Context,
        staging: Staging,
    ) -> None:
        self.settings, self.data, self.device = settings, data, device
        self.context, self.staging, self.seed = context, staging, config.seed
        self.recipe = recipe(settings["recipe"]).loop
        self.base, self.info = load_model(base.path, device)
        self.train, self.val = data.split("train"), data.split("val")
        rank = settings["rank"]
        self.delta: Adapter | Full = (
            Adapter(self.base, rank, key(config.seed, "adapter")) if rank else Full(self.base)
        ).to(device)
        self.optimizer = torch.optim.Adam(self.delta.parameters(), lr=settings["lr"])
        self.directions = wanted = directions
        saturation = settings["saturation"]
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
            Weights(**{name: settings[name] for name in LOSSES}, face=settings["face_weight"]),
            views=settings["views"],
            saturation=saturation,
            goal_scale=settings["goal_scale"],
            blur=settings["blur"],
            precision=settings["precision"],
            face=(
                load_face_network(config.face, device, self.info.image_size)
                if config.face
                else None
            ),
        )
        self.grid = ddim.grid(settings["r"], settings["steps"])
        self.train = self._without_target(seen)

    def _without_target(self, seen: Sequence[Tensor]) -> np.ndarray:
        """The training photos that do not show the target yet, as the guides classify them.

        A face that smiles already has nothing to learn from but how to smile too much. Where fewer
        than a batch are left, the batch that shows the target least.

        Args:
            seen: scores of all training photos, (n, K) by each guide.
        """
        score = torch.stack([scores.amin(1).cpu() for scores in seen]).mean(0).numpy()
        index = self.train
        least = min(len(index), self.settings["batch"])
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
        own = dict(self.base.named_parameters())
        changed = {k: own[k] + d for k, d in self.delta.deltas().items()}
        with self._autocast():
            out: Tensor = functional_call(self.base, changed, (x, t))
        return out

    def _frozen(self, x: Tensor, t: Tensor) -> Tensor:
        with self._autocast():  # as the tuned one rounds, so that only the edit differs
            out: Tensor = self.base(x, t)
        return out

    def _autocast(self) -> torch.autocast:
        return autocast(self.device, self.settings["precision"])

    def run(self) -> dict[str, Any]:
        total = self.settings["updates"]
        loop = Loop(
            self.staging,
            updates=total,
            images=self.settings["batch"],
            modules={"delta": self.delta},
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
            self.settings["t_min"],
        )
        if not counters["scores"]:
            self._snapshot(counters)
        with closing(loop.rounds(self.context.report, "fine-tuning")) as rounds:
            for _ in rounds:
                for loss, parts in self.recipe(problem, self._batch(counters["round"])):
                    left = 1 - (1 - self.settings["decay"]) * loop.step / total
                    for group in self.optimizer.param_groups:
                        group["lr"] = self.settings["lr"] * left
                    self.optimizer.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                    value = float(loss.detach())
                    loop.update(value)
                    loop.add({"loss": value, **parts}, show=("loss", "direction"))
                    if loop.step % every == 0 or loop.done:
                        self._snapshot(counters)
                    if loop.done:
                        break
                counters["round"] += 1
        curves = {k: loop.stats.curve(k) for k in (*LOSSES, "face")}  # empty where not logged
        for k in ("s_dir", "l1"):
            curves[f"held-out {k}"] = [(s["images"], s[k]) for s in counters["scores"]]
        save_curves(self.staging.path / "loss.png", curves, title=self.settings["target"])
        self.delta.save(self.staging.path, self.settings["scale"])
        return {
            "updates": loop.step,
            "parameters": sum(p.numel() for p in self.delta.parameters()),
            "scores": counters["scores"],
            "units": self.lengths,
            **{k: counters["scores"][-1][k] for k in ("s_dir", "l1")},
        }

    def _batch(self, number: int) -> Batch:
        n = self.settings["batch"]
        per_epoch = math.ceil(len(self.train) / n)
        epoch, at = divmod(number, per_epoch)
        order = self.train[permutation(len(self.train), self.seed, "finetune", epoch)]
        index = np.resize(order, per_epoch * n)[at * n : (at + 1) * n]
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
        trained on: a judge that took no part says more); l1 the mean pixel change.
        """
        index = self.val[:HELD_OUT] if len(self.val) else self.train[:HELD_OUT]
        photos = self._pixels(index)
        latents = torch.from_numpy(self.data.latents(index)).to(self.device)
        grid = ddim.grid(self.settings["r"], self.settings["decode_steps"])
        deltas = {k: v.detach() for k, v in self.delta.deltas().items()}
        scale = self.settings["scale"]
        model = above(self.settings["t_min"], merged(self.base, [(deltas, scale)]), self.base)
        decoded = ddim.decode(model, self.info.schedule, latents, grid)
        edits = localised(decoded, photos, self.settings["locality"]).clamp(-1, 1)
        cosine = torch.stack([each.cosine(edits, photos) for each in self.directions])
        step = counters["step"]
        counters["scores"].append(
            {
                "step": step,
                "images": step * self.settings["batch"],
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
        sheet.save(self.staging.path / "panel.png")
