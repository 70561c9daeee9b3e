"""Scores against the drawn truth: what is right scores 1, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from dclip.data import faces
from dclip.errors import BadInput
from dclip.evaluation import truth
from dclip.evaluation.truth import against_truth

N, SIZE = 6, 32
TARGETS = ["sketch", "zombie", "smiling", "glasses", "blond hair"]
PARAMS = [faces.sample(3, i) for i in range(N)]


@pytest.fixture(scope="module", autouse=True)
def _draw_once() -> Iterator[None]:
    """Every score draws every target of every face: keep the drawings between tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(truth, "_draw", cache(truth._draw))
        yield


def picture(pixels: np.ndarray) -> np.ndarray:
    return pixels.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1


@pytest.fixture(scope="module")
def originals() -> np.ndarray:
    return np.stack([picture(faces.draw(p, size=SIZE)) for p in PARAMS])


def truths(target: str) -> np.ndarray:
    return np.stack([picture(faces.truth(p, target, size=SIZE)) for p in PARAMS])


def scored(originals: np.ndarray, edits: np.ndarray, target: str) -> dict[str, float]:
    summary = against_truth(PARAMS, originals, edits.astype(np.float32), target).summary()
    assert summary["faces"]
    return {k: -1.0 if v is None else float(v) for k, v in summary.items()}


@pytest.mark.parametrize("target", TARGETS)
def test_the_truth_itself_is_a_full_success(originals: np.ndarray, target: str) -> None:
    found = scored(originals, truths(target), target)
    assert (found["success"], found["identity@1"]) == (1, 1)
    assert found["gain"] == pytest.approx(1, abs=1e-4)
    if faces.TARGETS[target].kind == "attribute":
        assert found["kept_psnr"] > 40
    if target == "sketch":
        assert found["kept_psnr"] == -1  # it leaves nothing outside its region


@pytest.mark.parametrize("target", TARGETS)
def test_the_original_is_no_success(originals: np.ndarray, target: str) -> None:
    found = scored(originals, originals, target)
    assert found["success"] == 0
    assert found["gain"] == pytest.approx(0, abs=1e-6)


def spoilt(originals: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    blurred = originals
    for axis in (2, 3):
        blurred = sum(np.roll(blurred, k, axis) for k in range(-3, 4)) / 7  # type: ignore[assignment]
    tint = np.array([0.5, -0.3, -0.3], dtype=np.float32).reshape(1, 3, 1, 1)
    return {
        "noisy": np.clip(originals + 0.6 * rng.standard_normal(originals.shape), -1, 1),
        "blurred": blurred,
        "tinted": np.clip(originals + tint, -1, 1),
    }


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("how", ["noisy", "blurred", "tinted"])
def test_a_spoilt_original_is_no_success(originals: np.ndarray, how: str, target: str) -> None:
    assert scored(originals, spoilt(originals)[how], target)["success"] == 0


def test_another_edit_is_no_success(originals: np.ndarray) -> None:
    for given, target in (("zombie", "sketch"), ("sketch", "cartoon"), ("red hair", "blond hair")):
        assert scored(originals, truths(given), target)["success"] == 0


def test_another_face_is_not_the_same_identity(originals: np.ndarray) -> None:
    edits = np.roll(truths("sketch"), 1, axis=0)
    assert scored(originals, edits, "sketch")["identity@1"] == 0


def test_gain_is_the_distance_covered_and_reach_the_way_gone(originals: np.ndarray) -> None:
    for share, gain in ((0.25, 0.25), (0.75, 0.75), (1.5, 0.5), (-0.5, -0.5)):
        edits = originals + share * (truths("sketch") - originals)
        found = scored(originals, edits, "sketch")
        assert found["gain"] == pytest.approx(gain, abs=1e-4)
        assert found["progress"] == pytest.approx(share, abs=1e-4)


def test_what_an_edit_has_besides_costs_gain_but_no_reach(originals: np.ndarray) -> None:
    noise = 0.3 * np.random.default_rng(0).standard_normal(originals.shape)
    found = scored(originals, truths("sketch") + noise, "sketch")
    assert found["progress"] == pytest.approx(1, abs=0.02) and 0 < found["gain"] < 0.8


def test_one_set_of_drawings_serves_many_edits(originals: np.ndarray) -> None:
    drawn = truth.Truth(PARAMS, "smiling", SIZE)
    assert drawn.score(originals, drawn.pictures).summary()["success"] == 1
    assert drawn.score(originals, originals).summary()["success"] == 0
    with pytest.raises(BadInput, match="cannot be compared"):
        drawn.score(originals[:2], originals[:2])


def test_what_an_edit_spoils_outside_its_region_counts(originals: np.ndarray) -> None:
    edits = truths("glasses")
    edits[..., -2:] += 0.2  # a strip at the border, where no glasses are
    found = scored(originals, edits, "glasses")
    assert found["success"] == 1 and found["kept_psnr"] < 35


def test_faces_that_have_it_already_do_not_count(originals: np.ndarray) -> None:
    scores = against_truth(PARAMS, originals, truths("glasses"), "glasses")
    have = np.array([faces.already(p, "glasses") for p in PARAMS])
    assert not scores.applies[have].any()
    nobody = np.zeros(N, bool)
    empty = replace(scores, applies=nobody)
    assert empty.summary()["success"] is None


def test_what_cannot_be_scored_is_refused(originals: np.ndarray) -> None:
    with pytest.raises(BadInput, match="mermaid"):
        against_truth(PARAMS, originals, originals, "mermaid")
    with pytest.raises(BadInput, match="cannot be compared"):
        against_truth(PARAMS, originals, originals[:2], "sketch")
