"""What a dry run says of time and memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_cli import Shell, add_clip, save_photo
from small_store import small_store
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dclip import cost
from dclip.cli.output import duration
from dclip.diffusion import ddim
from dclip.diffusion.schedule import Schedule
from dclip.models.checkpoint import ModelInfo
from dclip.models.unet import SIZES
from dclip.recipes import RECIPES
from dclip.recipes.contract import Batch, Problem


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cost") / "store"
    add_clip(small_store(root))
    return root


@pytest.mark.parametrize(
    ("words", "pictures"),
    [
        # 10 epochs of the training images, 15 updates of 32, forward and backward
        ("train --size micro", 15 * 32 * 2),
        ("train --size micro --images 64 --batch 8", 64 * 2),
        # 6 pictures, 4 steps of 1 + 2 calls, and 4 steps of the decode
        ("invert --r 8 --steps 4 --count 6 --refinements 2", 6 * (4 * 3 + 4)),
        # 20 pictures, each a call of the base, one of the tuned network and a backward one; and
        # five looks at 8 pictures, in the recipe's 10 steps
        (
            "finetune --target sketch --clip small --updates 5 --batch 4 --recipe one-step",
            20 * 3 + 5 * 8 * 10,
        ),
        # of 20 pictures each of the 4 steps twice, and backward once
        (
            "finetune --target sketch --clip small --updates 5 --batch 4 --recipe unrolled"
            " --decode-steps 4",
            20 * 4 * 3 + 5 * 8 * 4,
        ),
        ("sample --model faces --count 3 --steps 4", 3 * 4),
    ],
)
def test_time_follows_the_number_of_network_calls(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    pictures: int,
) -> None:
    monkeypatch.setattr(cost, "seconds_of", lambda work, device, whole: (1.0, 1.0))
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


def work(size: int = 16, *, name: str = "micro", **settings: Any) -> cost.Work:
    info = ModelInfo("unet", SIZES[name], Schedule.make("linear", 10), size, "v")
    return cost.Work(info, 1, **settings)


def memory(asked: cost.Work) -> int:
    return cost.memory_of(asked.info).of(asked)


def test_memory_grows_with_the_picture_the_batch_and_with_training() -> None:
    small, large = (memory(work(size, backward=1)) for size in (32, 64))
    assert large > 1.5 * small > 0  # the weights are the same
    assert memory(work(64, backward=1)) > 1.5 * memory(work(64))
    one, two, three = (memory(work(32, backward=1, batch=n)) for n in (1, 2, 3))
    assert three - two == two - one > 0
    assert (
        memory(work(copies=3)) - memory(work(copies=1)) == 2 * cost.memory_of(work().info).weights
    )


def test_weights_and_work_are_those_of_the_network() -> None:
    asked = work(32)
    network = asked.info.build()
    counted = cost.memory_of(asked.info)
    assert counted.weights == sum(4 * p.numel() for p in network.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, 32, 32), torch.ones(1, dtype=torch.int64))
    assert counted.flops == counter.get_total_flops()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_makes_the_network_calls_that_its_row_says(name: str) -> None:
    """Counted on a round of its loop: forward calls, and backward calls through them."""
    schedule, grid = Schedule.make("linear", 20), ddim.grid(12, 4)
    weight, counts = torch.zeros((), requires_grad=True), {"forward": 0, "backward": 0}

    def called(factor: Tensor | float, x: Tensor) -> Tensor:
        counts["forward"] += 1  # at once: what is computed again stops where it has all it needs
        out = x * factor
        if out.requires_grad:
            out.register_hook(lambda _: counts.update(backward=counts["backward"] + 1))
        return out

    problem = Problem(
        lambda x, t: called(0.1 + weight, x),
        lambda x, t: called(0.1, x),
        schedule,
        grid,
        lambda x, reference, draw: ((x - reference).square().mean(), {}),
    )
    x = torch.ones(2, 3, 4, 4)
    batch, updates = Batch(x, x, torch.Generator().manual_seed(0)), 0
    for loss, _ in RECIPES[name].load()(problem, batch):
        loss.backward()
        updates += 1
    forward, backward = RECIPES[name].calls.of_update(len(grid) - 1)
    assert counts == {"forward": updates * forward, "backward": updates * backward}


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0 s"), (80, "80 s"), (120, "2 min"), (5400, "1.5 h"), (200_000, "2.3 days")],
)
def test_durations_are_for_people(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
