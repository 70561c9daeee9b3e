"""eval: scores of a tuned model, or of existing edits, by what took no part in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dclip.configs.common import Precision
from dclip.configs.eval import EvalConfig
from dclip.context import Context
from dclip.data import faces
from dclip.data.images import to_pixels
from dclip.device import describe, pick, resolve_precision
from dclip.domains import DOMAINS
from dclip.editing.editor import Editor, Networks
from dclip.editing.plan import Plan, find_plan
from dclip.errors import BadInput
from dclip.evaluation import samples
from dclip.evaluation.background import outside_faces
from dclip.evaluation.cost import Cost
from dclip.evaluation.identity import LEAST_PAIRS
from dclip.evaluation.judge import load_judge
from dclip.evaluation.quality import picture_quality
from dclip.evaluation.samples import EvalSamples
from dclip.evaluation.scorers import find_clips, find_judge, goal_of, preset_of, prompts_of
from dclip.evaluation.scoring import Scores, Scoring, monotone
from dclip.evaluation.truth import Truth
from dclip.figures.panel import panel
from dclip.fingerprints import fingerprint
from dclip.models.checkpoint import read_info
from dclip.models.face import load_face_network
from dclip.models.perceptual import lpips_missing
from dclip.photos.frames import Frame, frame_of
from dclip.stages.revisions import REVISIONS
from dclip.store import Artifact, Staging, Store, slug

BATCH = 16
PANEL_ROWS = 8
TABLE, TIMES = "eval.json", "logs/times.json"


def run(config: EvalConfig, store: Store, context: Context = Context()) -> Artifact:
    """Edit held-out pictures, score the edits, and commit an ``eval`` artifact.

    Raises:
        BadInput: data or settings that cannot be used.
        MissingArtifact: no such tuned model, edits, data, judge or CLIP.
    """
    device, report = pick(context), context.report
    precision = resolve_precision(config.precision, device)
    plan: Plan | None = None
    inputs: dict[str, Artifact] = {}
    settings: dict[str, Any] = {}
    strengths: tuple[float, ...] = ()
    if config.edits is not None:
        edits = store.resolve(config.edits, "edits", report)
        inputs["edits"] = edits
        tuned = [store.input(edits, r) for r in edits.manifest.inputs if r.startswith("tuned")]
        pictures = samples.edited(edits, store)
    else:
        plan = find_plan(
            store,
            config.parts,
            report,
            r=config.r,
            steps=config.steps,
            mix=config.mix,
            locality=config.locality,
        )
        inputs, settings = plan.inputs(), plan.settings()
        tuned = list({part.artifact.id: part.artifact for part in plan.parts}.values())
        pictures, strengths = _pictures(config, plan, store, context), config.levels
    one = tuned[0] if len(tuned) == 1 else None
    prompts = prompts_of(config.target, one)
    target = config.target or preset_of(prompts)
    drawn = target if target in faces.TARGETS and pictures.params is not None else None
    judge = find_judge(config.judge, pictures.params is not None, store, report)
    loaded = load_judge(judge.path, device) if judge else None
    goal = goal_of(loaded, target, drawn, config.expected, pictures) if loaded else None
    clips = find_clips(config.clip, config.held_out, one, prompts, store, report)
    missing = lpips_missing()
    base = plan.base if plan is not None else store.input(inputs["edits"], "model")
    frame = frame_of(read_info(base.path))
    outside = None if drawn is not None else outside_faces(target, frame, pictures.originals)
    notes = [f"LPIPS is left out: {missing.message}; {missing.fix}"] if missing else []
    if config.face is None:
        notes.append(
            "identity (same face, same person) is left out: give --face FILE, a face network"
        )
    if drawn is None and outside is None:
        notes.append(
            "what the edit leaves alone is not scored: "
            + ("a style changes everything" if frame.needs_faces else "the base knows no faces")
        )
    clips.notes.extend(notes)
    for note in clips.notes:
        report.note(note)

    def scoring() -> Scoring:
        truth, size = None, pictures.originals.shape[-1]
        if drawn is not None and pictures.params is not None:
            truth = Truth(pictures.params, drawn, size)
        face = _face(config, frame, device, size)
        return Scoring(
            pictures.originals,
            truth=truth,
            goal=goal,
            judge=loaded,
            directions=clips.directions(device, report),
            face=face,
            people=pictures.people,
            outside=outside,
            lpips=missing is None,
        )

    return store.build(
        stage="eval",
        revision=REVISIONS["eval"],
        device=describe(device),
        kind="eval",
        name=config.name or slug("-".join(each.name for each in tuned) or "edits"),
        config={
            **settings,
            **pictures.settings,
            **({"precision": precision} if plan is not None else {}),
            "strengths": strengths or pictures.strengths,
            "target": target,
            "expected": config.expected,
            "clips": clips.settings,
            "face": fingerprint(config.face) if config.face else None,
            "lpips": missing is None,
        },
        inputs={**inputs, **pictures.inputs, **clips.inputs, **({"judge": judge} if judge else {})},
        seed=config.seed,
        context=context,
        estimate={"pictures": len(pictures)},
        make=lambda staging: _Evaluation(
            staging=staging,
            context=context,
            device=device,
            precision=precision,
            plan=plan,
            pictures=pictures,
            levels=strengths or pictures.strengths,
            caption=target or (prompts[0] if prompts else "edit"),
            scoring=scoring(),
            lpips=missing is None,
            notes=clips.notes,
            tuned=one,
        ).run(),
    )


def _face(
    config: EvalConfig, frame: Frame, device: torch.device, size: int
) -> Callable[[Tensor], Tensor] | None:
    if config.face is None:
        return None
    return load_face_network(config.face, device, size, frame=frame, trust=config.trust)


def _pictures(config: EvalConfig, plan: Plan, store: Store, context: Context) -> EvalSamples:
    size = plan.info.image_size
    if config.data is None and DOMAINS[plan.info.domain].drawn:
        if config.split != EvalConfig.split:
            raise BadInput("new drawn faces have no split", "give --data REF, or leave --split out")
        return samples.draw(config.count, config.seed, size)
    if config.data is not None:
        source = store.resolve(config.data, "data", context.report)
    else:
        source = store.input(plan.base, "data")
        context.report.note(f"using {source.ref}")
    return samples.take(source, config.split, config.where, config.count, config.seed, size)


@dataclass
class _Evaluation:
    """One evaluation: edits, scores, table and panels."""

    staging: Staging
    context: Context
    device: torch.device
    precision: Precision
    plan: Plan | None
    pictures: EvalSamples
    levels: tuple[float, ...]
    caption: str
    scoring: Scoring
    lpips: bool
    notes: list[str]
    tuned: Artifact | None

    def run(self) -> dict[str, Any]:
        originals, scoring = self.pictures.originals, self.scoring
        reconstruction: dict[str, dict[str, float]] = {}
        edits, plain = list(self.pictures.edits), None
        times: dict[str, float] = {}
        if self.plan is not None:
            on = torch.from_numpy(self._edited())
            plain, direct, edits, times = self._edit(self.plan, on)
            for name, decoded in (("plain", plain), ("direct", direct)):
                reconstruction[name] = picture_quality(decoded[on], originals[on], lpips=self.lpips)
        rows = [{"what": "original", "strength": None, **scoring(originals).row}]
        if scoring.truth is not None:
            drawn = torch.from_numpy(scoring.truth.pictures)
            rows.append({"what": "truth", "strength": None, **scoring(drawn).row})
        scores: list[Scores] = [scoring(edit) for edit in edits]
        rows += [
            {"what": f"strength {level:g}", "strength": level, **score.row}
            for level, score in zip(self.levels, scores, strict=True)
        ]
        found = scoring.verification
        if scoring.face is not None and found is None:
            self.notes.append(
                f"the same person is not decided: that takes {LEAST_PAIRS} pairs of different"
                " people, as 15 originals have"
            )
            self.context.report.note(self.notes[-1])
        if found is not None and found.same_accepted is not None:
            self.notes.append(
                f"the face network takes {found.same_accepted:.0%} of the originals'"
                f" {found.same_pairs} pairs of one person for the same person (AUC"
                f" {found.auc:.3f} against {found.pairs} pairs of different people)"
            )
            self.context.report.note(self.notes[-1])
        table = {
            "edit": self.caption,
            "pictures": len(originals),
            "reconstruction": reconstruction,
            "rows": rows,
            "monotone": monotone(self.levels, scores),
            "verification": None if found is None else asdict(found),
            "notes": self.notes,
        }
        text = json.dumps(_rounded(table), indent=1)
        (self.staging.path / TABLE).write_text(text + "\n")
        times |= self._tuning()
        (self.staging.path / TIMES).parent.mkdir(exist_ok=True)
        (self.staging.path / TIMES).write_text(json.dumps(times, indent=1) + "\n")
        full = self._full()
        self._panels(plain, edits, full)
        best = {k: v for k, v in rows[len(rows) - len(edits) + full].items() if k != "what"}
        quality = {f"{name}_psnr": found["psnr"] for name, found in reconstruction.items()}
        return {**_rounded({**best, **quality}), **times}

    def _edited(self) -> NDArray[np.bool_]:
        """Which pictures are edited and shown, (N,): those that the edit applies to, else all."""
        applies = self.scoring.applies
        return applies if applies.any() else ~applies

    def _full(self) -> int:
        """The number of the edit that is shown alone: strength 1, else the strongest."""
        return max(
            range(len(self.levels)), key=lambda i: (self.levels[i] == 1, abs(self.levels[i]))
        )

    def _edit(
        self, plan: Plan, on: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor], dict[str, float]]:
        """Plain decode, direct decode at strength 0, the edits, and what one edit costs.

        Args:
            on: which pictures to edit, (N,) bool; of the others the result is the original.
        """
        editor = Editor(plan, Networks(plan.base, self.device, self.precision))
        originals = self.pictures.originals[on]
        decodes = 2 + len([level for level in self.levels if level != 0])
        steps = plan.start_steps + plan.steps * decodes
        plain: list[Tensor] = []
        by_level: dict[float, list[Tensor]] = {level: [] for level in (0.0, *self.levels)}
        full, cost = self.levels[self._full()], Cost(self.device)
        with self.context.report.task("editing", steps * len(originals), unit="step") as task:
            for x0 in torch.split(originals, BATCH):

                def on_step(n: int = len(x0)) -> None:
                    task.advance(n)

                with cost:
                    start = editor.invert(x0, on_step)
                    by_level[full].append(editor.decode(start, full, on_step=on_step).cpu())
                plain.append(editor.decode(start, 0.0, direct=False, on_step=on_step).cpu())
                for level, parts in by_level.items():
                    if level != full:
                        parts.append(editor.decode(start, level, on_step=on_step).cpu())
        times = {
            "edit_seconds": cost.seconds / len(originals),
            "edit_peak_mb": round(cost.peak / 1e6),
        }

        def among_all(parts: list[Tensor]) -> Tensor:
            pictures = self.pictures.originals.clone()
            pictures[on] = torch.cat(parts)
            return pictures

        direct = among_all(by_level[0.0])
        return among_all(plain), direct, [among_all(by_level[s]) for s in self.levels], times

    def _tuning(self) -> dict[str, float]:
        """Seconds of the updates of the tuned model, where its log says them."""
        if self.tuned is None:
            return {}
        file = self.tuned.path / "logs" / "stats.jsonl"
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
        order = np.flatnonzero(self._edited())[: 2 * PANEL_ROWS]
        rows = [[to_pixels(x[i]) for i in order] for _, x in kinds]
        half = -(-len(order) // 2)
        bands = [row[start : start + half] for start in (0, half) for row in rows]
        panel(bands, labels=[name for name, _ in kinds] * 2, cell=96, group=len(kinds)).save(
            self.staging.path / "panel.png"
        )
        if len(edits) > 1:
            few = order[: PANEL_ROWS // 2]
            strip = [[to_pixels(x[i]) for x in (self.pictures.originals, *edits)] for i in few]
            captions = ["original", *(f"strength {level:g}" for level in self.levels)]
            panel(strip, columns=captions, cell=128).save(self.staging.path / "strength.png")


def _rounded(value: Any) -> Any:
    """Floats to five decimals; further ones depend on the device."""
    if isinstance(value, float):
        return round(value, 5) + 0.0
    if isinstance(value, Mapping):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list) else value
