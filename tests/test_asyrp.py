"""The recipe ``asyrp``: a block in h-space is trained, and edits as imported ones do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_reference import adm_file, ddpm_file
from small_guide import write_clip
from small_store import CPU, STEPS, R, copied
from torch import Tensor, nn

from dclip.configs.finetune import FinetuneConfig
from dclip.configs.import_model import ImportConfig
from dclip.configs.invert import InvertConfig
from dclip.cost import finetune_copies
from dclip.diffusion import grids
from dclip.diffusion.schedule import Schedule
from dclip.editing.editor import load_editor
from dclip.errors import BadInput
from dclip.models.checkpoint import ModelInfo, load_model
from dclip.models.hspace import HSpaceEdit, new_block, read_hspace
from dclip.models.tiny import TinyConfig
from dclip.models.tuned import read_deltas
from dclip.models.unet import UNetConfig
from dclip.recipes import recipe
from dclip.recipes.contract import Batch, Problem
from dclip.recipes.loops import h_space
from dclip.recipes.spaces import HSpace
from dclip.stages import finetune, import_model, invert
from dclip.store import Artifact, Planned, Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Store:
    return copied(trained, tmp_path_factory.mktemp("asyrp") / "store")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> FinetuneConfig:
    clip = write_clip(tmp_path_factory.mktemp("clip") / "tiny")
    return FinetuneConfig(
        target="sketch", clip=(str(clip),), latents="faces", recipe="asyrp", name="mine",
        updates=24, batch=8, lr=1e-2, t_min=0.4, weights={"identity": 0.1},
    )  # fmt: skip


@pytest.fixture(scope="module")
def tuned(store: Store, small: FinetuneConfig) -> Artifact:
    return finetune.run(small, store, CPU)


# --- the loop against formulas written out


class Toy(nn.Module):
    """A network of three matrices: ``eps = out(h)``, h the output of ``bottleneck``, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.time_layers = nn.Sequential(nn.Linear(1, 8))
        self.bottleneck = nn.Sequential(nn.Conv2d(3, 32, 1), nn.GroupNorm(32, 32))
        self.out = nn.Conv2d(32, 3, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        e = self.time_layers(t[:, None].to(x.dtype) / 20)
        h: Tensor = self.bottleneck(x)
        out: Tensor = self.out(h) + 0 * e.sum()
        return out


def test_the_loop_is_the_papers_equations() -> None:
    """Estimates, references and gradients, step by step, without hooks or dclip's own steps."""
    torch.manual_seed(0)
    net, schedule = Toy().double().requires_grad_(False), Schedule.make("linear-rescaled", 20)
    block = new_block(net, 3, seed=1).double()
    with torch.no_grad():
        net.out.weight.mul_(0.03)
        net.out.bias.mul_(0.03)
        block.conv2.weight.mul_(20)
    shown: list[tuple[Tensor, Tensor]] = []

    def objective(x: Tensor, reference: Tensor, draw: Callable[[int], Tensor]) -> Any:
        shown.append((x, reference))
        return (x - reference).square().mean() + x.mean(), {}

    latents = 0.01 * torch.randn(2, 3, 8, 8, dtype=torch.float64)
    problem = Problem(
        HSpaceEdit(net, [(block, 1.0)]), net, schedule, (0, 3, 7, 12), objective, t_min=3
    )
    batch = Batch(latents, latents, torch.Generator())
    losses = [loss for loss, _ in h_space(problem, batch)]

    def eps(x: Tensor, t: int, *, edited: bool) -> Tensor:
        h = net.bottleneck(x)
        if edited:
            e = net.time_layers(torch.full((len(x), 1), t / 20, dtype=torch.float64))
            inner = block.conv1(h) + block.time(e * torch.sigmoid(e))[:, :, None, None]
            inner = block.norm2(inner)
            h = h + block.conv2(inner * torch.sigmoid(inner))
        out: Tensor = net.out(h)
        return out

    ab = schedule.alpha_bar.double()

    def clean(x: Tensor, noise: Tensor, t: int) -> Tensor:
        return (x - (1 - ab[t]).sqrt() * noise) / ab[t].sqrt()

    x = still = latents
    wanted = []
    for s, t in ((7, 12), (3, 7)):  # above t_min
        plain = eps(still, t, edited=False)
        source, edit = clean(still, plain, t), clean(x, eps(x, t, edited=True), t)
        assert float(edit.detach().abs().max()) < 1  # so that no value is clamped
        wanted.append((edit, source))
        still = ab[s].sqrt() * source + (1 - ab[s]).sqrt() * plain
        along = eps(x, t, edited=False)
        x = (ab[s].sqrt() * edit + (1 - ab[s]).sqrt() * along).detach()
    assert len(losses) == len(wanted) == 2
    for loss, (got, reference), (edit, source) in zip(losses, shown, wanted, strict=True):
        assert float((edit - source).detach().abs().max()) > 1e-3
        torch.testing.assert_close(got, edit, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(reference, source, rtol=1e-6, atol=1e-7)
        slow = (edit - source).square().mean() + edit.mean()
        ours = torch.autograd.grad(loss, list(block.parameters()), retain_graph=True)
        theirs = torch.autograd.grad(slow, list(block.parameters()), retain_graph=True)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8)


# --- the stage


def test_updates_lower_the_loss(tuned: Artifact) -> None:
    text = (tuned.path / "logs" / "stats.jsonl").read_text()
    losses = [json.loads(line)["loss"] for line in text.splitlines()]
    assert len(losses) == 24
    assert sum(losses[-6:]) < 0.9 * sum(losses[:6])
    assert tuned.metrics["scores"][-1]["s_dir"] > tuned.metrics["scores"][0]["s_dir"]


def test_it_is_a_small_tuned_artifact_of_the_imported_kind(store: Store, tuned: Artifact) -> None:
    (block,) = read_hspace(tuned.path)
    assert block.config.t_min == tuned.config["t_min"] == round(0.4 * R)
    assert (block.config.channels, block.config.time) == (64, 128)
    assert (tuned.path / "hspace.safetensors").stat().st_size < 100_000
    assert tuned.config["recipe"] == "asyrp" and tuned.metrics["parameters"] < 20_000
    base, _ = load_model(store.resolve("faces", "model").path)
    with pytest.raises(BadInput, match="h-space"):
        read_deltas(tuned.path, base)


def photos() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(5)) * 1.6 - 0.8


def test_strengths_begin_at_the_photo_have_a_sign_and_stand_beside_weights(
    store: Store, tuned: Artifact
) -> None:
    editor = load_editor(store, [("mine", 1.0)], torch.device("cpu"), locality=0.0)
    assert editor.plan.r == R and editor.plan.steps == STEPS
    start = editor.invert(photos())
    still, half, whole, back = (editor.decode(start, s) for s in (0.0, 0.5, 1.0, -1.0))
    assert float((still - photos()).abs().max()) < 1e-4
    far = [float((x - photos()).abs().mean()) for x in (half, whole, back)]
    assert 0 < far[0] < far[1] and far[2] > 1e-3
    moved = ((whole - photos()) * (back - photos())).mean()
    assert float(moved) < 0  # the other way
    both = load_editor(store, [("mine", 1.0), ("sketch", 1.0)], torch.device("cpu"), locality=0.0)
    alone = load_editor(store, [("sketch", 1.0)], torch.device("cpu"), locality=0.0)
    mixed = both.decode(both.invert(photos()))
    for other in (whole, alone.decode(alone.invert(photos()))):
        assert float((mixed - other).abs().max()) > 1e-3


def test_the_panel_shows_what_the_editor_decodes(store: Store, tuned: Artifact) -> None:
    editor = load_editor(store, [("mine", 1.0)], torch.device("cpu"), locality=0.0)
    start = editor.invert(photos())
    base, info = load_model(store.resolve("faces", "model").path)
    trained = HSpace(base, tuned.config["t_min"], seed=0)
    trained.delta.load_state_dict(read_hspace(tuned.path)[0].state_dict())
    grid = grids.walk(tuned.config["grid"], R, STEPS)
    got = trained.decode(start.x_r, info.schedule, grid, 1.0)
    torch.testing.assert_close(got, editor.decode(start, direct=False), atol=1e-4, rtol=0)


def test_scale_is_the_strength_that_it_was_saved_with(store: Store, tmp_path: Path) -> None:
    base, _ = load_model(store.resolve("faces", "model").path)
    trained = HSpace(base, 0, seed=0)
    h, e = torch.randn(1, 64, 2, 2), torch.randn(1, 128)
    for scale in (1.0, 3.0):
        trained.save(tmp_path / f"{scale}", scale)
        (block,) = read_hspace(tmp_path / f"{scale}")
        with torch.no_grad():
            torch.testing.assert_close(
                block(h, e), scale * trained.delta(h, e), rtol=1e-4, atol=1e-5
            )


# --- imported bases


@pytest.mark.parametrize(("form", "weights"), [("ddpm", ddpm_file()), ("adm", adm_file())])
def test_an_imported_base_is_tuned_and_edited(
    form: str, weights: dict[str, Tensor], store: Store, small: FinetuneConfig, tmp_path: Path
) -> None:
    mine = copied(store.root, tmp_path / "store")
    torch.save(weights, tmp_path / "base.ckpt")
    said: dict[str, Any] = {}
    if form == "adm":
        said = {"size": 32, "head_channels": 32, "qkv": "legacy", "schedule": "linear"}
    base = import_model.run(
        ImportConfig(str(tmp_path / "base.ckpt"), name="base", domain="faces", **said), mine, CPU
    )
    config = InvertConfig(data="faces", model=base.ref, r=0.5, steps=2, count=4, name="theirs")
    latents = invert.run(config, mine, CPU)
    asked = replace(
        small, target="sad", latents=latents.ref, recipe=None, updates=2, batch=2, weights={}
    )
    with pytest.raises(Planned) as caught:
        finetune.run(asked, mine, replace(CPU, dry_run=True))
    assert caught.value.plan["config"]["recipe"] == "asyrp"  # what its source published
    made = finetune.run(asked, mine, CPU)
    assert read_hspace(made.path)[0].config.form == form
    editor = load_editor(mine, [(made.ref, 1.0)], torch.device("cpu"))
    size = editor.plan.info.image_size
    picture = torch.zeros(1, 3, size, size)
    assert float((editor.decode(editor.invert(picture), 0.0) - picture).abs().max()) < 1e-3


# --- settings


def test_asyrp_has_its_papers_losses_and_its_costs() -> None:
    found = recipe("asyrp")
    weights = found.guidance.weights
    assert {k: v for k, v in weights.items() if v} == {"log_direction": 1.0, "identity": 3.0}
    assert found.guidance.t_min == 0.5 and found.load() is h_space
    assert finetune_copies(0, "h") == 1 < finetune_copies(8) < finetune_copies(0)


def test_a_rank_is_refused(store: Store, small: FinetuneConfig) -> None:
    with pytest.raises(BadInput, match="--rank has no effect with --recipe asyrp"):
        finetune.run(replace(small, rank=4, name="ranked"), store, CPU)


def test_networks_without_an_h_space_are_refused() -> None:
    schedule = Schedule.make("linear", 20)
    tiny = ModelInfo("tiny", TinyConfig(), schedule, 16).build()
    with pytest.raises(BadInput, match="no h-space"):
        new_block(tiny, 0, 0)
    odd = ModelInfo("unet", UNetConfig(channels=48, mults=(1, 1), attention=()), schedule, 16)
    with pytest.raises(BadInput, match="48 channels, no multiple of 32"):
        new_block(odd.build(), 0, 0)
