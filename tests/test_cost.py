"""What a dry run says of time and memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_cli import Shell, add_clip, save_photo
from small_store import small_store

from dclip import cost
from dclip.cli.output import duration
from dclip.diffusion.schedule import Schedule
from dclip.models.checkpoint import ModelInfo
from dclip.models.unet import SIZES


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cost") / "store"
    add_clip(small_store(root))
    return root


@pytest.mark.parametrize(
    ("words", "pictures"),
    [
        # 10 epochs of the training images, 15 updates of 32
        ("train --size micro", 15 * 32),
        ("train --size micro --images 64 --batch 8", 64),
        # 6 pictures, 4 steps of 1 + 2 calls, and 4 steps of the decode
        ("invert --r 8 --steps 4 --count 6 --refinements 2", 6 * (4 * 3 + 4)),
        ("finetune --target sketch --clip small --updates 5 --batch 4 --recipe one-step", 32),
    ],
)
def test_time_follows_the_number_of_network_calls(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    pictures: int,
) -> None:
    monkeypatch.setattr(cost, "_measure", lambda work, device: (1.0, 100.0, 10))
    shell = Shell(root, capsys)
    plan = json.loads(shell(*words.split(), "--dry-run", "--json", "--force")[0])["plan"]
    assert plan["cost"]["seconds"] == float(f"{pictures:.2g}")
    assert "one network call" in plan["cost"]["measured"]


def test_an_edit_is_measured_here(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = save_photo(root.parent / "photo.png")
    shell = Shell(root, capsys)
    words = ("edit", str(photo), "--with", "sketch", "--anyway", "--dry-run", "--device", "cpu")
    plan = json.loads(shell(*words, "--json")[0])["plan"]
    assert plan["cost"]["seconds"] > 0 and plan["cost"]["memory_bytes"] > 0
    out, _ = shell(*words)
    assert "cost.time" in out and "about" in out and "cost.memory" in out


def test_memory_grows_with_the_picture_and_with_training() -> None:
    def held(size: int, *, training: bool) -> float:
        info = ModelInfo("unet", SIZES["micro"], Schedule.make("linear", 10), size, "v")
        work = cost._Work(info, 1, 1, training=training)
        return cost._measure(work, torch.device("cpu"))[1]

    assert held(32, training=True) > 3 * held(16, training=True)
    assert held(32, training=True) > 2 * held(32, training=False) > 0


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0 s"), (80, "80 s"), (120, "2 min"), (5400, "1.5 h"), (200_000, "2.3 days")],
)
def test_durations_are_for_people(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
