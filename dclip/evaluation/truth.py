"""Scores of edits of rendered faces, against the renderer's own drawing of each edit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dclip.data import faces
from dclip.errors import BadInput
from dclip.metrics import psnr

Pixels = NDArray[np.float32]

SAME = 1e-4
"""Mean squared difference (in [-1, 1]) below which two drawings count as equal: sensor noise."""


@dataclass(frozen=True)
class TruthScores:
    """How edits compare with the drawn truth, one value a face.

    Attributes:
        applies: bool (N,), the edit can be drawn on this face and is not there yet; the other
            arrays hold only where this is true.
        success: bool (N,), inside the edit's region the result is nearer (L2) to the truth than to
            the original and to every other target's drawing of the same face.
        identity: bool (N,), among all the faces' truths the nearest to the result is its own.
        gain: float (N,), how much of the distance (L2, inside the region) from original to truth
            the result has covered: 0 is the original, 1 the truth, below 0 further away from it.
        progress: float (N,), the projection on the line from original to truth: 1 is as far as
            the truth, above 1 too far. Changes off the line do not count.
        kept: float (N,), PSNR in dB to the original outside the region; NaN where the region is
            the whole picture.
    """

    applies: NDArray[np.bool_]
    success: NDArray[np.bool_]
    identity: NDArray[np.bool_]
    gain: NDArray[np.float64]
    progress: NDArray[np.float64]
    kept: NDArray[np.float64]

    def summary(self) -> dict[str, float | int | None]:
        """Means over the faces that the edit applies to; None where there is nothing to average."""
        on = self.applies
        kept = self.kept[on & np.isfinite(self.kept)]

        def mean(values: NDArray[np.generic]) -> float | None:
            return float(values.mean()) if len(values) else None

        return {
            "faces": int(on.sum()),
            "success": mean(self.success[on].astype(float)),
            "identity@1": mean(self.identity[on].astype(float)),
            "gain": mean(self.gain[on]),
            "progress": mean(self.progress[on]),
            "kept_psnr": mean(kept),
        }


class Truth:
    """The drawn truths of some faces for one target.

    Drawing every target of every face is slow and scoring quick, so one of these serves any number
    of strengths and models.

    Args:
        params: the faces (N).
        target: a name in :data:`dclip.data.faces.TARGETS`.
        size: side of the pictures.

    Attributes:
        applies: bool (N,), see :class:`TruthScores`.
        pictures: the truths, (N, 3, size, size) in [-1, 1]; the plain photo of a face that the
            edit does not change.
        regions: bool (N, size, size), where the edit changes a face.

    Raises:
        BadInput: an unknown target.
    """

    def __init__(self, params: Sequence[faces.FaceParams], target: str, size: int) -> None:
        if target not in faces.TARGETS:
            raise BadInput(f"no truth is known for {target!r}", f"use {', '.join(faces.TARGETS)}")
        self.target, self.size = target, size
        self.applies = np.array([faces.applicable(p, target) for p in params], dtype=bool)
        self.pictures = np.stack([_draw(p, target, size) for p in params])
        self.regions = np.stack([faces.edit_region(p, target, size=size) for p in params])
        # Only what lies inside the region is compared: a picture (3, n) a rival.
        self._rivals = [
            self._rivals_of(p, region, truth) if on else []
            for p, region, truth, on in zip(
                params, self.regions, self.pictures, self.applies, strict=True
            )
        ]

    def _rivals_of(
        self, params: faces.FaceParams, region: NDArray[np.bool_], truth: Pixels
    ) -> list[Pixels]:
        drawn = [
            _draw(params, other, self.size)[:, region]
            for other in faces.TARGETS
            if other != self.target and faces.applicable(params, other)
        ]
        # A target that draws the same thing here is no rival.
        return [d for d in drawn if np.square(d - truth[:, region]).mean() > SAME]

    def score(self, originals: Pixels, edits: Pixels) -> TruthScores:
        """Score edits.

        Args:
            originals: the pictures that were edited, (N, 3, size, size) in [-1, 1].
            edits: the results, same shape.

        Raises:
            BadInput: shapes that do not agree.
        """
        if originals.shape != edits.shape or edits.shape != self.pictures.shape:
            raise BadInput(f"{edits.shape} edits of {originals.shape} originals cannot be compared")
        n = len(edits)
        success, identity = np.zeros(n, bool), np.zeros(n, bool)
        gain, progress, kept = np.zeros(n), np.zeros(n), np.full(n, np.nan)
        for i in map(int, np.flatnonzero(self.applies)):
            inside = self.regions[i]
            edit, original, truth = (a[i][:, inside] for a in (edits, originals, self.pictures))
            own = np.square(edit - truth).mean()
            rivals = [np.square(edit - rival).mean() for rival in (original, *self._rivals[i])]
            success[i] = own < min(rivals)
            change = truth - original
            whole = max(float(np.square(change).mean()), 1e-12)
            gain[i] = 1 - float(np.sqrt(own / whole))
            progress[i] = float(((edit - original) * change).mean() / whole)
            if not inside.all():
                outside = (torch.from_numpy(a[i][:, ~inside])[None] for a in (edits, originals))
                kept[i] = float(psnr(*outside))
            distance = np.square(self.pictures - edits[i]).mean(axis=(1, 2, 3))
            identity[i] = int(distance.argmin()) == i
        return TruthScores(self.applies, success, identity, gain, progress, kept)


def against_truth(
    params: Sequence[faces.FaceParams], originals: Pixels, edits: Pixels, target: str
) -> TruthScores:
    """Score edits of rendered faces once; see :class:`Truth` to score several sets of them.

    Raises:
        BadInput: an unknown target, or shapes that do not agree.
    """
    return Truth(params, target, originals.shape[-1]).score(originals, edits)


def _draw(params: faces.FaceParams, target: str, size: int) -> Pixels:
    drawn = faces.truth(params, target, size=size).transpose(2, 0, 1)
    return drawn.astype(np.float32) / 127.5 - 1
