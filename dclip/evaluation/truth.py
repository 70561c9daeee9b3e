"""Scores of edits of rendered faces, against the renderer's own drawing of each edit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dclip.data import faces
from dclip.errors import BadInput

Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class TruthScores:
    """How edits compare with the drawn truth, one value a face.

    Attributes:
        applies: bool (N,), the edit can be drawn on this face and is not there yet; the other
            arrays are meant where this is true.
        success: bool (N,), inside the edit's region the result is nearer (L2) to the truth than to
            the original and to every other target's drawing of the same face.
        identity: bool (N,), among all the faces' truths the nearest to the result is its own.
        gain: float (N,), the share of the way from original to truth that the result has gone:
            the projection of its change on the true change inside the region; 0 is the original,
            1 the truth.
        kept: float (N,), PSNR in dB to the original outside the region; NaN where the region is
            the whole picture.
    """

    applies: NDArray[np.bool_]
    success: NDArray[np.bool_]
    identity: NDArray[np.bool_]
    gain: NDArray[np.float64]
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
            "kept_psnr": mean(kept),
        }


def against_truth(
    params: Sequence[faces.FaceParams], originals: Pixels, edits: Pixels, target: str
) -> TruthScores:
    """Score edits of rendered faces.

    Args:
        params: the faces (N).
        originals: the pictures that were edited, (N, 3, H, W) in [-1, 1].
        edits: the results, same shape.
        target: a name in :data:`dclip.data.faces.TARGETS`.

    Raises:
        BadInput: an unknown target, or shapes that do not agree.
    """
    if target not in faces.TARGETS:
        raise BadInput(f"no truth is known for {target!r}", f"use {', '.join(faces.TARGETS)}")
    if originals.shape != edits.shape or len(params) != len(edits):
        raise BadInput(f"{edits.shape} edits of {originals.shape} originals cannot be compared")
    n, size = len(params), edits.shape[-1]
    truths = np.stack([_draw(p, target, size) for p in params])
    regions = np.stack([faces.edit_region(p, target, size=size) for p in params])
    applies = np.array(
        [faces.applicable(p, target) and not faces.already(p, target) for p in params], dtype=bool
    )
    success, gain, kept = np.zeros(n, bool), np.zeros(n), np.full(n, np.nan)
    identity = np.zeros(n, bool)
    for i in map(int, np.flatnonzero(applies)):
        inside = regions[i]
        edit, original, truth = (a[i][:, inside] for a in (edits, originals, truths))
        own = np.square(edit - truth).mean()
        rivals = [np.square(edit - original).mean()]
        for other in faces.TARGETS:
            if other != target and faces.applicable(params[i], other):
                drawn = _draw(params[i], other, size)[:, inside]
                # A target that draws the same thing here is no rival.
                if np.square(drawn - truth).mean() > 1e-4:
                    rivals.append(np.square(edit - drawn).mean())
        success[i] = own < min(rivals)
        change = truth - original
        gain[i] = float(
            (edit - original).ravel() @ change.ravel() / max(np.square(change).sum(), 1e-9)
        )
        if not inside.all():
            error = np.square(edits[i][:, ~inside] - originals[i][:, ~inside]).mean()
            kept[i] = 10 * np.log10(4 / max(error, 1e-10))
        distance = np.square(truths - edits[i]).mean(axis=(1, 2, 3))
        identity[i] = int(distance.argmin()) == i
    return TruthScores(applies, success, identity, gain, kept)


def _draw(params: faces.FaceParams, target: str, size: int) -> Pixels:
    drawn = faces.truth(params, target, size=size).transpose(2, 0, 1)
    return drawn.astype(np.float32) / 127.5 - 1
