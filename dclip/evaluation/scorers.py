"""What scores edits: the judge, and CLIPs with the text's direction."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch

from dclip.context import Reporter
from dclip.data import faces
from dclip.errors import BadInput, DclipError
from dclip.evaluation import goals
from dclip.evaluation.judge import Judge
from dclip.evaluation.samples import EvalSamples
from dclip.guidance.direction import Direction
from dclip.guidance.prompts import PRESETS
from dclip.guiding import FoundClip, clip_role, find_clip
from dclip.store import Artifact, Store

Prompts = tuple[str, str]
"""Target and source prompt of an edit."""


def prompts_of(target: str | None, tuned: Artifact | None) -> Prompts | None:
    """The prompts of a preset, else those that a model was tuned with; None without either."""
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
    judge: Judge, target: str | None, drawn: str | None, expected: str | None, samples: EvalSamples
) -> goals.Goal:
    """What the judge should look for.

    Args:
        target: the edit's name, of a preset.
        drawn: its name among the renderer's targets, where the samples are drawn faces.
        expected: ``Smiling=1``; wins over what the target's name says.

    Raises:
        BadInput: an attribute that the judge does not know, or that all samples have already.
    """
    names = judge.shape.attributes
    if samples.params is not None and expected is None:
        return goals.of_drawn(samples.params, drawn, names)
    attribute, value = None, True
    if expected is not None:
        attribute, value = goals.read_expected(expected)
        if attribute not in names:
            raise BadInput(
                f"the judge knows no attribute {attribute!r}", f"it knows {', '.join(names)}"
            )
    elif target in goals.CELEBA and goals.CELEBA[target][0] in names:
        attribute, sign = goals.CELEBA[target]
        value = sign == 1
    labels = samples.labels.get(attribute) if attribute else None
    if labels is not None and not (labels == (-1 if value else 1)).any():
        raise BadInput(
            f"all of the {len(samples)} pictures have the expected {attribute} already",
            "choose others with --where, or more with --count",
        )
    style = None if attribute else _style_of(target)
    return goals.of_labelled(labels, len(samples), names, attribute, value, style)


def _style_of(target: str | None) -> str | None:
    """What data calls the style of an edit, "bw" for "black and white"; else its own name."""
    edit = faces.TARGETS.get(target or "")
    if edit is None:
        return target
    return edit.style if edit.kind == "style" else None


@dataclass
class Clips:
    """CLIPs that score. None is loaded, or fetched, before :meth:`directions` is called.

    Attributes:
        prompts: of the edit; None where nobody knows them, and no CLIP can score.
        named: whether the guides were named, and have to be there.
        found: by the name of their score: ``s_dir`` (one or more) and ``s_dir_held_out``.
        notes: which are left out and why.
    """

    prompts: Prompts | None
    named: bool = False
    found: dict[str, list[FoundClip]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @cached_property
    def settings(self) -> dict[str, list[str]]:
        """What identifies them, by score, once all are found: a folder's files are read for it."""
        return {score: [each.key for each in several] for score, several in self.found.items()}

    @property
    def inputs(self) -> dict[str, Artifact]:
        """The artifacts among them, by role."""
        return {
            clip_role(number) if score == "s_dir" else "held_out": each.artifact
            for score, several in self.found.items()
            for number, each in enumerate(several, 1)
            if each.artifact is not None
        }

    def directions(self, device: torch.device, report: Reporter) -> dict[str, list[Direction]]:
        """Load them, by score. Guides that cannot be loaded are left out unless they were named.

        Raises:
            BadInput: another one cannot be used.
        """
        loaded: dict[str, list[Direction]] = {}
        for score, several in self.found.items():
            try:
                loaded[score] = [self._load(each, device, report) for each in several]
            except DclipError as error:
                if self.named or score != "s_dir":
                    raise
                self._note(f"S_dir under the guide is left out: {error.message}", report)
        return loaded

    def _load(self, found: FoundClip, device: torch.device, report: Reporter) -> Direction:
        assert self.prompts is not None
        guide = found.load(device, report)
        if warning := guide.warning(self.prompts[0]):
            self._note(warning, report)
        return Direction(guide, guide.move(*self.prompts))

    def _note(self, text: str, report: Reporter) -> None:
        report.note(text)
        self.notes.append(text)


def find_clips(
    clip: str | None,
    held_out: str | None,
    tuned: Artifact | None,
    prompts: Prompts | None,
    store: Store,
    report: Reporter,
) -> Clips:
    """The CLIPs that guided, or the named one, and the held-out CLIP if one is named.

    Raises:
        BadInput: the held-out CLIP is one that guided, or a named one cannot be found.
        MissingArtifact: a named one is not there.
    """
    clips = Clips(prompts, named=clip is not None)
    if prompts is None:
        clips.notes.append("S_dir is left out: the prompts of this edit are unknown")
        return clips
    try:
        guides = [find_clip(clip, store, report)] if clip else _guides_of(tuned, store)
        clips.found["s_dir"] = guides
    except DclipError as error:
        if clip is not None:
            raise
        clips.notes.append(f"S_dir under the guide is left out: {error.message}")
    if held_out is None:
        clips.notes.append("S_dir under a CLIP that did not guide is left out: give --held-out")
        return clips
    clips.found["s_dir_held_out"] = [find_clip(held_out, store, report)]
    if clips.settings["s_dir_held_out"][0] in clips.settings.get("s_dir", []):
        raise BadInput("the held-out CLIP is one that guided", "give another --held-out")
    return clips


def _guides_of(tuned: Artifact | None, store: Store) -> list[FoundClip]:
    """The CLIPs that guided a tuned model."""
    if tuned is None or not tuned.config.get("clips"):
        raise BadInput("nobody knows which that was", "give --clip")
    found: list[FoundClip] = []
    for number, name in enumerate(tuned.config["clips"], 1):
        if clip_role(number) in tuned.manifest.inputs:
            artifact = store.input(tuned, clip_role(number))
            found.append(FoundClip(str(artifact.path), artifact))
        elif ":" in name and "=" not in name:  # of NAME:TAG=FILE it says what the file held
            found.append(FoundClip(str(name)))
        else:
            raise BadInput(
                f"{tuned.ref} was guided by files whose place is not recorded", "give --clip"
            )
    return found
