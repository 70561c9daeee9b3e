"""Who scores edits: the judge, and CLIPs with the direction that the edit shall go in."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from dclip.context import Reporter
from dclip.errors import BadInput, DclipError
from dclip.evaluation import goals
from dclip.evaluation.judge import Judge
from dclip.evaluation.subjects import Subjects
from dclip.guidance.clip import fingerprint, load_guide
from dclip.guidance.direction import Direction
from dclip.guidance.prompts import PRESETS
from dclip.guiding import clip_role, find_clip
from dclip.store import Artifact, Store

Prompts = tuple[str, str]
"""Target and source prompt of an edit."""


def prompts_of(target: str | None, tuned: Artifact | None) -> Prompts | None:
    """The prompts of a preset, else those that a model was tuned with; None where nobody knows."""
    if target in PRESETS:
        return PRESETS[target].target, PRESETS[target].source
    if tuned is None or not tuned.config.get("source"):
        return None
    return str(tuned.config["target"]), str(tuned.config["source"])


def preset_of(prompts: Prompts | None) -> str | None:
    """The preset with these prompts; None where there is none."""
    named = {(each.target, each.source): name for name, each in PRESETS.items()}
    return named.get(prompts) if prompts else None


def find_judge(spec: str | None, drawn: bool, store: Store, report: Reporter) -> Artifact | None:
    """The judge that is named, else the embedded one for drawn faces; None and a note without.

    Raises:
        DclipError: the named one is not there or not sound.
    """
    if spec is None and not drawn:
        report.note("no judge: train one on labels (`dclip judge train`) and give --judge")
        return None
    try:
        return store.resolve(spec or "embedded", "judge")
    except DclipError as error:
        if spec is not None:
            raise
        report.note(f"no judge: {error.message}")
        return None


def goal_of(
    judge: Judge, target: str | None, drawn: str | None, wish: str | None, subjects: Subjects
) -> goals.Goal:
    """What the judge is to look for.

    Args:
        target: the edit's name, of a preset.
        drawn: its name among the renderer's targets, where the subjects are drawn faces.
        wish: ``Smiling=1``, over what the target's name says.

    Raises:
        BadInput: an attribute that the judge does not know, or that all subjects have already.
    """
    names = judge.shape.attributes
    if subjects.params is not None and wish is None:
        return goals.of_drawn(subjects.params, drawn, names)
    attribute, value = None, True
    if wish is not None:
        attribute, value = goals.read_wish(wish)
        if attribute not in names:
            raise BadInput(
                f"the judge knows no attribute {attribute!r}", f"it knows {', '.join(names)}"
            )
    elif target in goals.CELEBA and goals.CELEBA[target][0] in names:
        attribute, sign = goals.CELEBA[target]
        value = sign == 1
    labels = subjects.labels.get(attribute) if attribute else None
    if labels is not None and not (labels == (-1 if value else 1)).any():
        raise BadInput(
            f"all of the {len(subjects)} pictures have what {attribute} shall become",
            "choose others with --where, or more with --count",
        )
    style = target if attribute is None and target in judge.shape.styles else None
    return goals.of_labelled(labels, len(subjects), names, attribute, value, style)


@dataclass
class Clips:
    """CLIPs that score.

    Attributes:
        directions: by the name of their score, ``s_dir`` (one or more) and ``s_dir_held_out``.
        inputs, settings: what they are, for a manifest.
        notes: which are left out and why.
    """

    directions: dict[str, list[Direction]] = field(default_factory=dict)
    inputs: dict[str, Artifact] = field(default_factory=dict)
    settings: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(
        self, score: str, found: tuple[str, Artifact | None], prompts: Prompts, device: torch.device
    ) -> None:
        """Load a CLIP that scores as ``score``."""
        where, artifact = found
        guide = load_guide(where, device, name=f"CLIP {artifact.ref}" if artifact else None)
        if warning := guide.warning(prompts[0]):
            self.notes.append(warning)
        several = self.settings.setdefault(score, [])
        self.directions.setdefault(score, []).append(Direction(guide, guide.move(*prompts)))
        several.append(artifact.id if artifact else fingerprint(where))
        if artifact is not None:
            role = clip_role(len(several)) if score == "s_dir" else "held_out"
            self.inputs[role] = artifact


def find_clips(
    clip: str | None,
    held_out: str | None,
    tuned: Artifact | None,
    prompts: Prompts | None,
    store: Store,
    report: Reporter,
    device: torch.device,
) -> Clips:
    """The CLIPs that guided (or the one that is named) and one that did not, where there are such.

    Raises:
        BadInput: the held-out CLIP is one that guided, or a named one cannot be used.
        MissingArtifact: a named one is not there.
    """
    clips = Clips()
    if prompts is None:
        clips.notes.append("S_dir is left out: nobody knows the prompts of this edit")
        return clips
    try:
        for found in [find_clip(clip, store, report)] if clip else _guides_of(tuned, store):
            clips.add("s_dir", found, prompts, device)
    except DclipError as error:
        if clip is not None:
            raise
        left_out = f"S_dir under the guide is left out: {error.message}"
        clips = Clips(notes=[*clips.notes, left_out])
    if held_out is None:
        clips.notes.append("S_dir under a CLIP that did not guide is left out: give --held-out")
        return clips
    clips.add("s_dir_held_out", find_clip(held_out, store, report), prompts, device)
    if clips.settings["s_dir_held_out"][0] in clips.settings.get("s_dir", []):
        raise BadInput("the held-out CLIP is one that guided", "give another --held-out")
    return clips


def _guides_of(tuned: Artifact | None, store: Store) -> list[tuple[str, Artifact | None]]:
    """The CLIPs that guided a tuned model."""
    if tuned is None or not tuned.config.get("clips"):
        raise BadInput("nobody knows which that was", "give --clip")
    found: list[tuple[str, Artifact | None]] = []
    for number, name in enumerate(tuned.config["clips"], 1):
        if clip_role(number) in tuned.manifest.inputs:
            artifact = store.input(tuned, clip_role(number))
            found.append((str(artifact.path), artifact))
        elif ":" in name:
            found.append((str(name), None))
        else:
            raise BadInput(
                f"{tuned.ref} was guided by a folder that is not recorded", "give --clip"
            )
    return found
