"""All scores of edits at once; each is given where its inputs are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dclip.evaluation.background import Mask, kept
from dclip.evaluation.goals import Goal
from dclip.evaluation.identity import calibrated
from dclip.evaluation.judge import Judge
from dclip.evaluation.truth import Truth, TruthScores
from dclip.guidance.clip import Guide
from dclip.guidance.direction import Direction

BATCH = 32
Row = dict[str, Any]


@dataclass(frozen=True)
class Scores:
    """The scores of one set of edits.

    Attributes:
        row: means over the pictures that the edit applies to, by name; None where a score is not
            defined. Scores that were not asked for are absent.
        truth: those against the drawn truth, of every picture; None where there is none.
    """

    row: Row
    truth: TruthScores | None


class Scoring:
    """Scores sets of edits of the same pictures.

    Args:
        originals: what was edited, (N, 3, H, W) in [-1, 1].
        truth: the drawings of rendered faces. Gives ``success``, ``identity@1``, ``gain``,
            ``progress``, ``kept_psnr``; see :class:`dclip.evaluation.truth.TruthScores`.
        goal: what the edit should change.
        judge: with the goal, gives ``judge_target``, ``judge_kept``, ``judge_picture``; see
            :meth:`dclip.evaluation.goals.Goal.scores`.
        directions: CLIPs by the name of their score, such as ``s_dir``: the cosine between the
            pictures' move and the text's, the mean of several.
        face: a face network, (B, 3, H, W) in [-1, 1] to (B, D). Gives ``face_similarity``, the
            cosine between original and edit, and ``verified``, the share of edits that pass for the
            same person (see :mod:`dclip.evaluation.identity`); None with too few originals.
        people: who each original shows, where that is known.
        outside: what the edit should leave alone, bool (N, H, W); None takes what lies outside the
            truth's regions. Gives ``kept_psnr``, ``kept_ssim`` and, with ``lpips``, ``kept_lpips``;
            see :func:`dclip.evaluation.background.kept`.
        lpips: whether LPIPS can be computed here.
    """

    def __init__(
        self,
        originals: Tensor,
        *,
        truth: Truth | None = None,
        goal: Goal | None = None,
        judge: Judge | None = None,
        directions: Mapping[str, Sequence[Direction]] | None = None,
        face: Callable[[Tensor], Tensor] | None = None,
        people: Sequence[str] = (),
        outside: Mask | None = None,
        lpips: bool = False,
    ) -> None:
        self.originals = originals.float().cpu()
        if goal is not None and truth is not None:
            # Pictures that the edit does not apply to do not count.
            goal = replace(goal, applies=goal.applies & truth.applies)
        self.truth, self.goal, self.judge = truth, goal, judge
        self.directions, self.face = dict(directions or {}), face
        self.applies = np.ones(len(originals), bool)
        for known in (goal, truth):
            self.applies = known.applies if known is not None else self.applies
        self._before = judge(self.originals) if judge is not None else None
        self._embedded = {
            name: [_in_parts(each.guide.embed_image, self.originals) for each in several]
            for name, several in self.directions.items()
        }
        self._face = _in_parts(face, self.originals) if face is not None else None
        self.verification = calibrated(self._face, people) if self._face is not None else None
        if outside is None and truth is not None:
            outside = ~truth.regions
        self.outside, self.lpips = outside, lpips

    def __call__(self, edits: Tensor) -> Scores:
        """Score edits (N, 3, H, W) in [-1, 1]; what lies outside is clipped."""
        edits = edits.float().cpu().clamp(-1, 1)
        on = torch.from_numpy(self.applies)
        row: Row = {"faces": int(self.applies.sum())}
        found = None
        if self.truth is not None:
            found = self.truth.score(self.originals.numpy(), edits.numpy())
            row |= found.summary()
        if self.judge is not None and self.goal is not None and self._before is not None:
            row |= self.goal.scores(self.judge(edits), self._before)
        for name, several in self.directions.items():
            cosines = [
                each.move.cosine(_in_parts(each.guide.embed_image, edits), before)
                for each, before in zip(several, self._embedded[name], strict=True)
            ]
            cosine = torch.stack(cosines).mean(0)
            row[name] = float(cosine[on].mean()) if bool(on.any()) else None
        if self.face is not None and self._face is not None:
            alike = F.cosine_similarity(_in_parts(self.face, edits), self._face, dim=-1)
            row["face_similarity"] = float(alike[on].mean()) if bool(on.any()) else None
            if self.verification is not None:
                passed = (alike > self.verification.threshold).float()
                row["verified"] = float(passed[on].mean()) if bool(on.any()) else None
        if self.outside is not None:
            outside = self.outside[self.applies]
            row |= kept(edits[on], self.originals[on], outside, lpips=self.lpips)
        return Scores(row, found)


@torch.no_grad()
def _in_parts(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    device = _device(network)
    return torch.cat([network(part.to(device)).float().cpu() for part in torch.split(x, BATCH)])


def _device(network: Any) -> torch.device:
    owner = getattr(network, "__self__", network)
    if isinstance(owner, Guide):
        return owner.mean.device
    first = next(iter(owner.parameters()), None) if hasattr(owner, "parameters") else None
    return first.device if first is not None else torch.device("cpu")


def monotone(strengths: Sequence[float], scores: Sequence[Scores]) -> dict[str, Any] | None:
    """Whether gain and progress grow with the strength between 0 and 1.

    Returns:
        for each of the two, ``mean``: whether its mean never falls, and ``faces``: the share of
        faces whose own never falls; see :class:`dclip.evaluation.truth.TruthScores`. None where
        there is no truth, or fewer than two strengths.
    """
    inside = sorted(
        (strength, number) for number, strength in enumerate(strengths) if 0 <= strength <= 1
    )
    found = [scores[number].truth for _, number in inside]
    known = [truth for truth in found if truth is not None]
    if len(known) < 2 or not known[0].applies.any():
        return None
    out = {}
    for name in ("gain", "progress"):
        values = np.stack([getattr(truth, name)[truth.applies] for truth in known])
        out[name] = {
            "mean": bool((np.diff(values.mean(1)) >= 0).all()),
            "faces": float((np.diff(values, axis=0) >= 0).all(0).mean()),
        }
    return out
