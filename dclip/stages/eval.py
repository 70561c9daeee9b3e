"""eval: scores of a tuned model, or of edits that were made, against what took no part in them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dclip.context import Context
from dclip.data import faces
from dclip.data.dataset import DataSet
from dclip.data.images import decode, to_float, to_uint8
from dclip.data.photos import photo_samples
from dclip.data.rendered import Rendered
from dclip.device import pick
from dclip.editing import (
    Editor,
    PartSpec,
    Plan,
    Weights,
    find_base,
    find_parts,
    make_plan,
    numbers,
    parse_parts,
)
from dclip.errors import BadInput, DclipError
from dclip.evaluation import goals
from dclip.evaluation.cost import Cost
from dclip.evaluation.judge import Judge, load_judge
from dclip.evaluation.quality import lpips_missing, picture_quality
from dclip.evaluation.scoring import Direction, Scores, Scoring, monotone
from dclip.evaluation.truth import Truth
from dclip.figures.panel import panel
from dclip.guidance.clip import fingerprint, load_guide
from dclip.guidance.prompts import PRESETS, preset
from dclip.models.face import load_face_network
from dclip.random import permutation
from dclip.store import Artifact, Draft, Store, slug

FACES = 64
SEED = 20_261  # of drawn faces: neither a shipped model nor the demo has seen them
BATCH = 16
PANEL_ROWS = 8
TABLE, TIMES = "eval.json", "logs/times.json"


@dataclass(frozen=True)
class EvalConfig:
    """What to score, on what, and by whom.

    Attributes:
        tuned: tuned models as ``REF[:STRENGTH][@LOW-HIGH]``, combined; none takes the newest.
        edits: instead, an edits artifact as it is.
        data: data artifact whose held-out pictures are edited; None draws new faces where the
            base knows drawn faces, and takes the base's own data otherwise.
        split: of the data: "train", "val", "test" or "all".
        where: conditions on the data's samples, such as ``Smiling=-1``.
        count: pictures.
        target: the name of the edit, for what is known of it; None knows it by its prompts.
        wish: the attribute that the judge shall see, ``Smiling=1``; None knows that of presets.
        strengths: strengths to edit at, 1 among them or not.
        judge: judge artifact; None takes the embedded one for drawn faces.
        clip: the CLIP of ``s_dir``; None takes the one that guided.
        held_out: another CLIP, which did not.
        face: path of a TorchScript face recognition network.
        r, steps, mix: as in ``edit``.
        name: the artifact's name; None takes the tuned model's.
        seed: decides which faces are drawn and which samples taken.

    Raises:
        BadInput: settings that do not go together or are out of range.
    """

    tuned: tuple[str, ...] = ()
    edits: str | None = None
    data: str | None = None
    split: str = "val"
    where: tuple[str, ...] = ()
    count: int = FACES
    target: str | None = None
    wish: str | None = None
    strengths: float | tuple[float, ...] | str = (0.0, 0.25, 0.5, 0.75, 1.0)
    judge: str | None = None
    clip: str | None = None
    held_out: str | None = None
    face: str | None = None
    r: int | None = None
    steps: int | None = None
    mix: str | None = None
    name: str | None = None
    seed: int = SEED

    def __post_init__(self) -> None:
        if self.count < 2:
            raise BadInput(f"{self.count} pictures are too few", "use --count 2 or more")
        if self.edits is not None and (self.tuned or self.data):
            raise BadInput(
                "the edits are there already", "give --edits, or --with and --data, not both"
            )
        if self.where and self.data is None:
            raise BadInput("conditions are for samples of a data artifact", "give --data REF too")
        if self.target is not None and self.target not in faces.TARGETS:
            preset(self.target)
        if self.wish is not None:
            goals.read_wish(self.wish)
        if self.seed < 0:
            raise BadInput(f"seed {self.seed} is out of range", "use a seed of 0 or more")
        _ = self.levels, self.parts

    @property
    def levels(self) -> tuple[float, ...]:
        """The strengths, growing."""
        return tuple(sorted(numbers(self.strengths, "strengths")))

    @property
    def parts(self) -> tuple[PartSpec, ...]:
        """The tuned models that are named, or the newest."""
        return tuple(part for text in self.tuned for part in parse_parts(text)) or (PartSpec(),)


def run(config: EvalConfig, store: Store, context: Context = Context()) -> Artifact:
    """Edit held-out pictures, score the edits, and commit an ``eval`` artifact.

    Raises:
        BadInput: data or settings that cannot be used.
        MissingArtifact: no such tuned model, data or judge.
    """
    edits = store.resolve(config.edits, "edits", context.report) if config.edits else None
    if edits is not None:
        made = [store.input(edits, role) for role in _tuned_roles(edits)]
        plan, pictures = None, _edited(edits, config, store)
    else:
        parts = find_parts(store, config.parts, context.report)
        base = find_base(store, parts)
        plan = make_plan(base, parts, r=config.r, steps=config.steps, mix=config.mix)
        made = [part.artifact for part in parts]
        pictures = _pictures(config, plan, store, context)
    prompts = _prompts(config, made)
    target = config.target or (_preset_of(prompts) if prompts else None)
    device = pick(context.device)
    judge = _judge(config, pictures, store, context, device)
    clips = _clips(config, made, prompts, store, context, device)
    notes = [*pictures.notes, *judge.notes, *clips.notes]
    missing = lpips_missing() if plan is not None else None
    notes += [missing] if missing else []
    for note in notes:
        context.report.note(note)
    drawn_target = target if target in faces.TARGETS and pictures.params is not None else None
    goal = None
    if judge.judge is not None:
        goal = _goal(config, target, drawn_target, pictures, judge.judge.shape)
    inputs = {**(plan.inputs() if plan is not None else {}), **pictures.inputs, **clips.inputs}
    inputs |= {"edits": edits} if edits is not None else {}
    inputs |= {"judge": judge.artifact} if judge.artifact is not None else {}
    names = list(dict.fromkeys(artifact.name for artifact in made))
    return store.build(
        stage="eval",
        kind="eval",
        name=config.name or slug("-".join(names) or "edits"),
        config={
            **pictures.settings,
            **(plan.settings() if plan is not None else {}),
            "strengths": pictures.levels if plan is None else config.levels,
            "target": target,
            "wish": config.wish,
            "clips": clips.settings,
            "face": fingerprint(config.face) if config.face else None,
            "lpips": missing is None and plan is not None,
        },
        inputs=inputs,
        seed=config.seed,
        context=context,
        estimate={"pictures": len(pictures.originals)},
        make=lambda draft: _Evaluation(
            draft=draft,
            context=context,
            device=device,
            plan=plan,
            pictures=pictures,
            levels=pictures.levels if plan is None else config.levels,
            caption=target or (prompts[0] if prompts else "edit"),
            scoring=Scoring(
                pictures.originals,
                truth=Truth(pictures.params, drawn_target, pictures.originals.shape[-1])
                if drawn_target and pictures.params is not None
                else None,
                goal=goal,
                judge=judge.judge,
                directions=clips.directions,
                face=load_face_network(config.face, device) if config.face else None,
            ),
            lpips=missing is None,
            notes=notes,
            tuned=made,
        ).run(),
    )


# --- what is scored


@dataclass(frozen=True)
class _Pictures:
    """Pictures to edit, or edited already, and what is known of them.

    Attributes:
        originals: (N, 3, H, W) in [-1, 1].
        params: of drawn faces.
        data, samples: where else they are from, for its labels.
        edits: (N, 3, H, W) of each of ``levels``, where they are made already.
        inputs, settings: for the manifest.
    """

    originals: Tensor
    params: Sequence[faces.FaceParams] | None = None
    data: DataSet | None = None
    samples: NDArray[np.int64] | None = None
    edits: Sequence[Tensor] = ()
    levels: tuple[float, ...] = ()
    inputs: Mapping[str, Artifact] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def _pictures(config: EvalConfig, plan: Plan, store: Store, context: Context) -> _Pictures:
    size = plan.info.image_size
    if config.data is None and _knows_drawn_faces(store, plan.base):
        source = Rendered(config.count, config.seed, "photo", size)
        index = range(config.count)
        return _Pictures(
            to_float(torch.from_numpy(source.draw(index))),
            params=[source.drawing_of(i)[0] for i in index],
            settings={"drawn": config.count, "content": source.fingerprint()},
        )
    if config.data is not None:
        artifact = store.resolve(config.data, "data", context.report)
    else:
        artifact = store.input(plan.base, "data")
        context.report.note(f"using {artifact.ref}")
    data = DataSet(artifact.path)
    chosen = data.split(config.split)
    if config.where:
        chosen = np.intersect1d(chosen, data.where(*config.where))
    if len(chosen) < 2:
        which = " and ".join([f"split {config.split}", *config.where])
        raise BadInput(f"{artifact.ref} has no samples with {which}", "choose another --split")
    order = permutation(len(chosen), config.seed, "eval")[: config.count]
    chosen = np.sort(chosen[order])
    photos = photo_samples(data, chosen, size=size)
    pixels = np.stack([photos.load(i) for i in range(len(photos))])
    return _Pictures(
        to_float(torch.from_numpy(pixels)),
        params=_drawn(artifact, data, chosen),
        data=data,
        samples=chosen,
        inputs={"data": artifact},
        settings={"samples": chosen.tolist()},
    )


def _edited(artifact: Artifact, config: EvalConfig, store: Store) -> _Pictures:
    """What an edits artifact holds; the samples that it is from where it says so."""
    with (artifact.path / "samples.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    levels = tuple(sorted({float(row["strength"]) for row in rows}))
    of: dict[float, dict[int, str]] = {level: {} for level in levels}
    names: dict[int, str] = {}
    for row in rows:
        of[float(row["strength"])][int(row["index"])] = row["picture"]
        names[int(row["index"])] = row["name"]
    order = sorted(names)
    if len(order) < 2:
        raise BadInput(f"{artifact.ref} has one photo", "edit some more")
    found = _Pictures(
        _read([artifact.path / "originals" / f"{names[i]}.png" for i in order]),
        edits=[_read([artifact.path / of[level][i] for i in order]) for level in levels],
        levels=levels,
        settings={"photos": len(order)},
    )
    if "data" not in artifact.manifest.inputs:
        return found
    source = store.input(artifact, "data")
    data = DataSet(source.path)
    samples = np.array(artifact.config["samples"], dtype=np.int64)[order]
    return _Pictures(
        found.originals,
        params=_drawn(source, data, samples),
        data=data,
        samples=samples,
        edits=found.edits,
        levels=levels,
        inputs={"data": source},
        settings=found.settings,
    )


def _read(files: Sequence[Path]) -> Tensor:
    pixels = [decode(file.read_bytes()).pixels.transpose(2, 0, 1) for file in files]
    return to_float(torch.from_numpy(np.stack(pixels)))


def _drawn(
    artifact: Artifact, data: DataSet, samples: NDArray[np.int64]
) -> list[faces.FaceParams] | None:
    """The faces of drawn photos; None where they are photos, or drawn in another style."""
    if artifact.config.get("source") != "faces":
        return None
    style = str(artifact.config["style"])
    drawn = []
    for i in samples:
        _, seed, number = data.ids[i].split("-")
        source = Rendered(int(number) + 1, int(seed), style, data.size)
        params, shown = source.drawing_of(int(number))
        if shown != "photo":
            return None
        drawn.append(params)
    return drawn


def _knows_drawn_faces(store: Store, base: Artifact) -> bool:
    if base.ref == "model/embedded":  # its data is not in the user's store
        return True
    try:
        return bool(store.input(base, "data").config.get("source") == "faces")
    except DclipError:
        return False


def _tuned_roles(edits: Artifact) -> list[str]:
    return [role for role in edits.manifest.inputs if role.startswith("tuned")]


# --- what they are scored by


def _prompts(config: EvalConfig, made: Sequence[Artifact]) -> tuple[str, str] | None:
    """(target, source) prompts of the edit; None for several edits at once."""
    if config.target in PRESETS:
        return PRESETS[config.target].target, PRESETS[config.target].source
    if len(made) != 1 or not made[0].config.get("source"):
        return None
    return str(made[0].config["target"]), str(made[0].config["source"])


def _preset_of(prompts: tuple[str, str]) -> str | None:
    for name, each in PRESETS.items():
        if (each.target, each.source) == prompts:
            return name
    return None


@dataclass(frozen=True)
class _Judging:
    judge: Judge | None = None
    artifact: Artifact | None = None
    notes: tuple[str, ...] = ()


def _judge(
    config: EvalConfig, pictures: _Pictures, store: Store, context: Context, device: torch.device
) -> _Judging:
    if config.judge is None and pictures.params is None:
        return _Judging(
            notes=("no judge: train one on labels (`dclip judge train`) and give --judge",)
        )
    try:
        artifact = store.resolve(config.judge or "embedded", "judge", context.report)
    except DclipError as error:
        if config.judge is not None:
            raise
        return _Judging(notes=(f"no judge: {error.message}",))
    return _Judging(load_judge(artifact.path, device), artifact)


def _goal(
    config: EvalConfig,
    target: str | None,
    drawn_target: str | None,
    pictures: _Pictures,
    judge: Any,
) -> goals.Goal:
    names, count = judge.attributes, len(pictures.originals)
    if pictures.params is not None and config.wish is None:
        return goals.of_drawn(pictures.params, drawn_target, names)
    attribute, value = None, True
    if config.wish is not None:
        attribute, value = goals.read_wish(config.wish)
        if attribute not in names:
            raise BadInput(
                f"the judge knows no attribute {attribute!r}", f"it knows {', '.join(names)}"
            )
    elif target in goals.CELEBA and goals.CELEBA[target][0] in names:
        attribute, sign = goals.CELEBA[target]
        value = sign == 1
    labels = None
    if attribute and pictures.data is not None and attribute in pictures.data.attribute_names:
        labels = pictures.data.attribute(attribute)[pictures.samples]
        if not (labels == (-1 if value else 1)).any():
            raise BadInput(
                f"all of the {count} pictures have what {attribute} shall become",
                "choose others with --where, or more with --count",
            )
    style = target if attribute is None and target in judge.styles else None
    return goals.of_labelled(labels, count, names, attribute, value, style)


@dataclass(frozen=True)
class _Clips:
    directions: Mapping[str, Direction] = field(default_factory=dict)
    inputs: Mapping[str, Artifact] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def _clips(
    config: EvalConfig,
    made: Sequence[Artifact],
    prompts: tuple[str, str] | None,
    store: Store,
    context: Context,
    device: torch.device,
) -> _Clips:
    """The CLIPs that score, by the name of their score."""
    if prompts is None:
        return _Clips(notes=("S_dir is left out: nobody knows the prompts of this edit",))
    directions: dict[str, Direction] = {}
    inputs: dict[str, Artifact] = {}
    settings: dict[str, str] = {}
    notes: list[str] = []

    def add(score: str, role: str, where: str, artifact: Artifact | None) -> None:
        guide = load_guide(where, device, name=f"CLIP {artifact.ref}" if artifact else None)
        if warning := guide.warning(prompts[0]):
            notes.append(warning)
        directions[score] = Direction(guide, guide.direction(*prompts))
        settings[score] = artifact.id if artifact else fingerprint(where)
        if artifact is not None:
            inputs[role] = artifact

    try:
        add("s_dir", "clip", *_guide_of(config.clip, made[0] if made else None, store))
    except DclipError as error:
        if config.clip is not None:
            raise
        notes.append(f"S_dir under the guide is left out: {error.message}")
    if config.held_out is None:
        notes.append("S_dir under a CLIP that did not guide is left out: give --held-out CLIP")
    else:
        add("s_dir_held_out", "held_out", *_guide_of(config.held_out, None, store))
        if settings["s_dir_held_out"] == settings.get("s_dir"):
            raise BadInput("the held-out CLIP is the one that guided", "give another --held-out")
    return _Clips(directions, inputs, settings, tuple(notes))


def _guide_of(
    spec: str | None, tuned: Artifact | None, store: Store
) -> tuple[str, Artifact | None]:
    """Where a CLIP is, and the artifact if it is one; None is the one that guided ``tuned``."""
    if spec is None and tuned is not None:
        if "clip" in tuned.manifest.inputs:
            artifact = store.input(tuned, "clip")
            return str(artifact.path), artifact
        spec = str(tuned.config.get("clip", ""))
        if ":" not in spec:
            raise BadInput(f"{tuned.ref} was guided by a folder that is not recorded", "--clip DIR")
        return spec, None
    assert spec is not None
    if Path(spec).is_dir() or ":" in spec:
        return spec, None
    artifact = store.resolve(spec, "clip")
    return str(artifact.path), artifact


# --- the work


@dataclass
class _Evaluation:
    """One evaluation: edits, scores, table and panels."""

    draft: Draft
    context: Context
    device: torch.device
    plan: Plan | None
    pictures: _Pictures
    levels: tuple[float, ...]
    caption: str
    scoring: Scoring
    lpips: bool
    notes: list[str]
    tuned: Sequence[Artifact]

    def run(self) -> dict[str, Any]:
        originals, scoring = self.pictures.originals, self.scoring
        reconstruction: dict[str, dict[str, float]] = {}
        edits, plain = list(self.pictures.edits), None
        times: dict[str, float] = {}
        if self.plan is not None:
            plain, direct, edits, times = self._edit(self.plan)
            for name, decoded in (("plain", plain), ("direct", direct)):
                reconstruction[name] = picture_quality(decoded, originals, lpips=self.lpips)
        rows = [{"what": "original", "strength": None, **scoring(originals).row}]
        if scoring.truth is not None:
            drawn = torch.from_numpy(scoring.truth.pictures)
            rows.append({"what": "truth", "strength": None, **scoring(drawn).row})
        scores: list[Scores] = [scoring(edit) for edit in edits]
        rows += [
            {"what": f"strength {level:g}", "strength": level, **score.row}
            for level, score in zip(self.levels, scores, strict=True)
        ]
        table = {
            "edit": self.caption,
            "pictures": len(originals),
            "reconstruction": reconstruction,
            "rows": rows,
            "monotone": monotone(self.levels, scores),
            "notes": self.notes,
        }
        text = json.dumps(_rounded(table), indent=1)
        (self.draft.path / TABLE).write_text(text + "\n")
        times |= self._tuning()
        (self.draft.path / TIMES).parent.mkdir(exist_ok=True)
        (self.draft.path / TIMES).write_text(json.dumps(times, indent=1) + "\n")
        full = self._full()
        self._panels(plain, edits, full)
        best = {k: v for k, v in rows[len(rows) - len(edits) + full].items() if k != "what"}
        quality = {f"{name}_psnr": found["psnr"] for name, found in reconstruction.items()}
        return {**_rounded({**best, **quality}), **times}

    def _full(self) -> int:
        """Which of the edits stands for the rest: strength 1, else the strongest."""
        return self.levels.index(1.0) if 1.0 in self.levels else len(self.levels) - 1

    def _edit(self, plan: Plan) -> tuple[Tensor, Tensor, list[Tensor], dict[str, float]]:
        """Plain decode, direct decode at strength 0, the edits, and what one edit costs."""
        editor = Editor(plan, Weights(plan.base, self.device))
        originals = self.pictures.originals
        decodes = 2 + len([level for level in self.levels if level != 0])
        steps = len(plan.inversion_grid) - 1 + plan.steps * decodes
        plain: list[Tensor] = []
        by_level: dict[float, list[Tensor]] = {level: [] for level in (0.0, *self.levels)}
        full, cost = self.levels[self._full()], Cost(self.device)
        with self.context.report.task("editing", steps * len(originals), unit="step") as task:
            for x0 in torch.split(originals, BATCH):

                def on_step(n: int = len(x0)) -> None:
                    task.advance(n)

                with cost:
                    x_r, offsets = editor.invert(x0, on_step)
                    by_level[full].append(editor.decode(x_r, offsets, full, on_step).cpu())
                plain.append(editor.decode(x_r, None, 0.0, on_step).cpu())
                for level, parts in by_level.items():
                    if level != full:
                        parts.append(editor.decode(x_r, offsets, level, on_step).cpu())
        times = {
            "edit_seconds": cost.seconds / len(originals),
            "edit_peak_mb": round(cost.peak / 1e6),
        }
        direct = torch.cat(by_level[0.0])
        return torch.cat(plain), direct, [torch.cat(by_level[s]) for s in self.levels], times

    def _tuning(self) -> dict[str, float]:
        """Seconds of the updates of the tuned model, where its log says them."""
        if len(self.tuned) != 1:
            return {}
        file = self.tuned[0].path / "logs" / "stats.jsonl"
        try:
            rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            return {"tuning_seconds": round(sum(float(row["seconds"]) for row in rows), 2)}
        except (OSError, ValueError, KeyError):
            return {}

    def _panels(self, plain: Tensor | None, edits: Sequence[Tensor], full: int) -> None:
        """``panel.png``: original, reconstruction, edit, truth; ``strength.png``: all strengths."""
        truth = self.scoring.truth
        kinds: list[tuple[str, Tensor]] = [("original", self.pictures.originals)]
        kinds += [("reconstruction", plain)] if plain is not None else []
        kinds += [(self.caption, edits[full])]
        kinds += [("drawn truth", torch.from_numpy(truth.pictures))] if truth is not None else []
        applies = self.scoring.applies
        # Pictures that the edit applies to come first: a smile cannot be added to a smile.
        order = [*np.flatnonzero(applies), *np.flatnonzero(~applies)][: 2 * PANEL_ROWS]
        rows = [[_u8(x[i]) for i in order] for _, x in kinds]
        half = -(-len(order) // 2)
        bands = [row[start : start + half] for start in (0, half) for row in rows]
        panel(bands, labels=[name for name, _ in kinds] * 2, cell=96, group=len(kinds)).save(
            self.draft.path / "panel.png"
        )
        if len(edits) > 1:
            few = order[: PANEL_ROWS // 2]
            strip = [[_u8(x[i]) for x in (self.pictures.originals, *edits)] for i in few]
            captions = ["original", *(f"strength {level:g}" for level in self.levels)]
            panel(strip, columns=captions, cell=128).save(self.draft.path / "strength.png")


def _rounded(value: Any) -> Any:
    """Floats to five decimals: what lies below is the device's."""
    if isinstance(value, float):
        return round(value, 5) + 0.0
    if isinstance(value, Mapping):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list) else value


def _u8(x: Tensor) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = to_uint8(x).numpy()
    return pixels
