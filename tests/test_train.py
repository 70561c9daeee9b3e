"""The train stage: it learns, resumes to the byte, and refuses what cannot be."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import Stop
from PIL import Image
from torch.optim.optimizer import register_optimizer_step_pre_hook

from dclip.configs.clip_train import ClipTrainConfig
from dclip.configs.judge_train import JudgeTrainConfig
from dclip.configs.train import TrainConfig
from dclip.context import Context
from dclip.data.dataset import DataSet
from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput, DclipError, MissingArtifact
from dclip.models.checkpoint import load_model
from dclip.random import key, normal, uniform
from dclip.stages import prepare, train
from dclip.stages.train import run
from dclip.store import Planned, Store
from dclip.training import loop as training

CPU = Context(device="cpu", workers=1)
SMALL = TrainConfig(size="micro", T=20, images=96, batch=8, lr=3e-3)


@pytest.fixture(autouse=True, scope="module")
def _few_pictures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "PANEL_IMAGES", 2)
        yield


def make_store(root: Path) -> Store:
    store = Store(root)
    prepare.run(prepare.PrepareConfig("faces", count=40, size=16), store, CPU)
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("train") / "store")


@pytest.fixture(scope="module")
def artifact(store: Store) -> Any:
    return run(SMALL, store, CPU)


def weights(store: Store, config: TrainConfig) -> dict[str, torch.Tensor]:
    return load_model(run(config, store, CPU).path)[0].state_dict()


def test_the_rate_rises_over_a_hundredth_of_the_updates_and_falls_along_a_cosine(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train._Training, "_panel", lambda *_: None)
    monkeypatch.setattr(train._Training, "_validation", lambda *_: 0.0)
    monkeypatch.setattr(  # what it learns is nothing to this test
        train.ddpm, "loss", lambda model, schedule, x0, t, eps: next(model.parameters()).sum() + t
    )
    rates: list[float] = []
    handle = register_optimizer_step_pre_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    run(replace(SMALL, images=400, batch=1, precision="fp32", name="rates"), store, CPU)
    handle.remove()
    n = np.arange(400)
    expected = 3e-3 * np.minimum(1, (n + 1) / 4)
    expected = expected * (0.05 + 0.95 * (1 + np.cos(np.pi * n / 400)) / 2)
    assert rates == pytest.approx(expected.tolist(), rel=1e-9)


def test_what_predicts_v_is_trained_on_the_squared_error_of_v(store: Store) -> None:
    """From the artifact alone: the averaged weights' loss on the held-out images."""
    made = run(replace(SMALL, images=16, ema=0.0, precision="fp32", name="error"), store, CPU)
    model, info = load_model(made.path)
    data = DataSet(store.resolve("faces", "data").path)
    index = data.split("val")
    keys = [f"val/{data.ids[i]}" for i in index]
    t = 1 + (uniform([key(0, "t", k, 0) for k in keys]) * 20).astype(np.int64)
    eps = normal([key(0, "eps", k, 0) for k in keys], (3, 16, 16)).double()
    x0 = torch.from_numpy(data.images(index)).double() / 127.5 - 1
    alpha_bar = info.schedule.alpha_bar.double()[t].view(-1, 1, 1, 1)
    a, b = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    with torch.no_grad():
        found = model.network((a * x0 + b * eps).float(), torch.from_numpy(t)).double()
    error = (found - (a * eps - b * x0)).square().mean()
    assert made.metrics["val_loss"] == pytest.approx(float(error), rel=1e-4)


def test_the_loss_falls(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train._Training, "_panel", lambda *_: None)
    config = replace(SMALL, images=480, lr=1e-2, ema=0.9, name="longer")
    made = run(config, store, CPU)
    rows = [r for r in _stats(made.path) if "val_loss" in r]
    assert rows[-1]["val_loss"] < 0.95 * rows[0]["val_loss"]
    assert made.metrics["val_loss"] == rows[-1]["val_loss"]


def _stats(path: Path) -> list[dict[str, Any]]:
    return [json.loads(x) for x in (path / "logs" / "stats.jsonl").read_text().splitlines()]


def test_what_a_model_artifact_holds(artifact: Any) -> None:
    model, info = load_model(artifact.path)
    assert (info.architecture, info.prediction, info.image_size) == ("unet", "v", 16)
    assert info.schedule == Schedule.make("linear-rescaled", 20)
    assert model(torch.zeros(1, 3, 16, 16), torch.ones(1, dtype=torch.int64)).shape[1:] == (
        3, 16, 16
    )  # fmt: skip
    # 36 training images in batches of 8: four updates an epoch, so twelve updates are three.
    pictures = sorted(p.name for p in (artifact.path / "samples").iterdir())
    assert pictures == ["epoch_001.png", "epoch_002.png", "epoch_003.png"]
    assert Image.open(artifact.path / "loss.png").size[0] > 100
    assert [r["step"] for r in _stats(artifact.path)] == list(range(1, 13))
    assert artifact.metrics["images"] == 96


def test_killed_at_any_update_it_ends_as_if_it_never_was(
    artifact: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, began = make_store(tmp_path / "other"), []
    for after, seconds in ((3, 0.0), (2, 1e9), (1, 0.0), (4, 0.0)):
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", seconds)
        with pytest.raises(KeyboardInterrupt):
            run(SMALL, store, replace(CPU, report=(stop := Stop(after))))
        began += stop.began
    made = run(SMALL, store, replace(CPU, report=(stop := Stop())))
    # The report of an update comes before its checkpoint: its work is what a kill there costs.
    assert began + stop.began == [0, 16, 16, 16, 40]
    assert made.id == artifact.id
    assert [r["step"] for r in _stats(made.path)] == list(range(1, 13))


KILLED = """
import sys
from dclip.training import loop as training
from dclip.context import Context
from dclip.stages import train
from dclip.store import Store

training.CHECKPOINT_SECONDS, train.PANEL_IMAGES = 0.0, 2
train.run(
    train.TrainConfig(size="micro", T=20, images=96, batch=8, lr=3e-3),
    Store(sys.argv[1]), Context(device="cpu", workers=1),
)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_process_that_is_killed_leaves_a_training_that_goes_on(
    artifact: Any, tmp_path: Path
) -> None:
    store = make_store(tmp_path / "killed")
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(store.root)])
    t_min = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < t_min:
        if any(store.root.glob(".staging/*/scratch/state.safetensors")):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    assert process.wait() == -signal.SIGKILL
    assert not store.list("model")
    made = run(SMALL, store, replace(CPU, report=(stop := Stop())))
    assert stop.began[0] > 0
    assert made.id == artifact.id


INTERRUPTED = KILLED.replace(
    "training.CHECKPOINT_SECONDS, train.PANEL_IMAGES = 0.0, 2", "train.PANEL_IMAGES = 2"
)


def test_ctrl_c_saves_what_was_trained(artifact: Any, tmp_path: Path) -> None:
    """Long before a checkpoint is due, and the result is as if it never was pressed."""
    store = make_store(tmp_path / "interrupted")
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(store.root)], stderr=subprocess.PIPE
    )
    t_min = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < t_min:
        logs = list(store.root.glob(".staging/*/payload/logs/stats.jsonl"))
        if logs and logs[0].stat().st_size:
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.002)
    _, said = process.communicate()
    assert process.returncode and b"KeyboardInterrupt" in said
    made = run(SMALL, store, replace(CPU, report=(stop := Stop())))
    assert stop.began[0] > 0
    assert made.id == artifact.id


def test_equal_trainings_are_not_done_twice_and_seeds_differ(store: Store, artifact: Any) -> None:
    assert not run(SMALL, store, CPU).fresh
    one = run(replace(SMALL, images=8, name="one"), store, CPU)
    other = run(replace(SMALL, images=8, seed=1, name="other"), store, CPU)
    assert other.fresh and other.id != one.id
    with pytest.raises(Planned) as planned:
        run(replace(SMALL, seed=2), store, replace(CPU, dry_run=True))
    assert planned.value.plan["estimate"]["updates"] == 12


def test_accumulated_gradients_equal_those_of_the_large_batch(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradients themselves, caught on their way to be clipped."""
    caught: list[list[torch.Tensor]] = []
    clip = torch.nn.utils.clip_grad_norm_

    def spy(parameters: Any, norm: float) -> Any:
        parameters = list(parameters)
        caught.append([p.grad.clone() for p in parameters])
        return clip(parameters, norm)

    monkeypatch.setattr(train.nn.utils, "clip_grad_norm_", spy)
    for n, k in ((8, 1), (2, 4)):
        config = replace(SMALL, images=8, batch=n, accumulate=k, precision="fp32", name=f"b{n}")
        run(config, store, replace(CPU, force=True))
    large, small = caught
    assert max(float(g.abs().max()) for g in large) > 1e-3
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(large, small, strict=True))


def test_an_update_of_more_images_than_there_are(store: Store) -> None:
    """36 training images, 64 an update: none of the network calls is left without any."""
    made = run(replace(SMALL, images=128, batch=16, accumulate=4, name="many"), store, CPU)
    assert made.metrics["updates"] == 2 and np.isfinite(made.metrics["loss"])


def test_training_goes_on_from_another_model(store: Store, artifact: Any) -> None:
    config = TrainConfig(images=8, batch=8, lr=1e-9, ema=0.0, init=artifact.ref, name="next")
    found, start = weights(store, config), load_model(artifact.path)[0].state_dict()
    assert all(torch.allclose(found[k], start[k], atol=1e-6) for k in start)
    assert store.resolve("next", "model").manifest.inputs["init"]["id"] == artifact.id


def test_a_model_that_goes_on_at_another_size_says_so(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    config = replace(SMALL, images=8)
    run(config, store, CPU)
    prepare.run(prepare.PrepareConfig("faces", count=20, size=32, name="large"), store, CPU)
    onward = TrainConfig(data="large", init="faces", images=8, batch=8, name="large")
    made = run(onward, store, CPU)
    assert load_model(made.path)[1].image_size == 32
    assert Image.open(made.path / "samples" / "epoch_001.png").size[0] >= 2 * 32


def test_tiny_predicts_eps_and_takes_the_reports_rate(store: Store) -> None:
    made = run(TrainConfig(network="tiny", T=20, images=4, batch=4, name="tiny"), store, CPU)
    info = load_model(made.path)[1]
    assert (info.architecture, info.prediction, made.config["lr"]) == ("tiny", "eps", 2e-4)


def test_half_precision_weights_are_half_the_file(store: Store, artifact: Any) -> None:
    half = run(replace(SMALL, storage="fp16", images=8, name="half"), store, CPU)
    sizes = [(a.path / "model.safetensors").stat().st_size for a in (half, artifact)]
    assert 2 * sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_without_validation_images_there_is_no_validation_loss(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    settings = prepare.PrepareConfig("faces", count=8, size=16, split="100/0")
    prepare.run(settings, store, CPU)
    assert run(replace(SMALL, images=8), store, CPU).metrics["val_loss"] is None


def test_a_loss_that_is_no_number_stops_with_advice(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        train.ddpm, "loss", lambda model, schedule, x0, t, eps: model(x0, t).sum((1, 2, 3)) / 0
    )
    with pytest.raises(DclipError, match="loss became nan at update 1") as caught:
        run(replace(SMALL, seed=9), store, CPU)
    assert "--lr 0.00075" in caught.value.fix
    assert not [a for a in store.list("model") if a.manifest.seed == 9]


def test_images_that_do_not_fit_the_network_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    prepare.run(prepare.PrepareConfig("faces", count=4, size=20), store, CPU)
    with pytest.raises(BadInput, match=r"20-pixel images.* multiple of 8") as caught:
        run(SMALL, store, CPU)
    assert "--size" in caught.value.fix


def test_without_data_the_fix_is_a_command(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact) as caught:
        run(SMALL, Store(tmp_path / "empty"), CPU)
    assert "dclip prepare" in caught.value.fix
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"network": "dit"}, {"size": "huge"}, {"schedule": "sigmoid"}, {"decay": "none"},
        {"precision": "fp8"}, {"storage": "bf16"}, {"batch": 0}, {"accumulate": 0}, {"T": 0},
        {"epochs": 0}, {"images": 0}, {"lr": 0.0}, {"lr": float("nan")}, {"ema": 1.0},
    ],
    ids=str,
)  # fmt: skip
def test_a_config_that_cannot_be_is_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(BadInput) as caught:
        TrainConfig(**settings)
    name = next(iter(settings))
    assert name in caught.value.message and "\n" not in caught.value.message


def test_a_device_that_is_not_here_is_refused(store: Store) -> None:
    for device in ("cuda:77", "toaster"):
        with pytest.raises(BadInput, match=device):
            run(SMALL, store, replace(CPU, device=device))


def test_the_meaning_of_ctrl_c_comes_back_after_a_training_that_fails(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(replace(SMALL, seed=9, name="fails"), store, replace(CPU, report=Stop(1)))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("norm", [0.0, -1.0])
def test_a_gradient_is_clipped_to_a_norm_above_0(norm: float) -> None:
    """Below 0 the gradients would change sign."""
    for config in (TrainConfig, ClipTrainConfig, JudgeTrainConfig):
        with pytest.raises(BadInput, match="max_grad_norm is") as caught:
            config(max_grad_norm=norm)
        assert caught.value.fix == "it must be above 0"


def test_of_little_data_not_every_epoch_is_shown(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "MOST_PANELS", 2)
    made = run(replace(SMALL, images=96, name="few-panels"), store, replace(CPU, force=True))
    shown = sorted(p.name for p in (made.path / "samples").iterdir())
    assert shown == ["epoch_002.png", "epoch_003.png"]
