"""LPIPS against its formula in float64, as a loss, and where its weights are missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchmetrics
from small_guide import write_clip
from small_store import CPU, copied
from torch import Tensor
from torchvision import models

from dclip.configs.edit import EditConfig
from dclip.configs.finetune import FinetuneConfig
from dclip.errors import BadInput
from dclip.guidance.steering import Given, parse, steering
from dclip.models import perceptual
from dclip.stages import edit, finetune

TAPS = (1, 4, 7, 9, 11)  # AlexNet's layers after which LPIPS compares


def write_alexnet(root: Path) -> torch.nn.Module:
    """Random weights where torchvision keeps AlexNet's, for TORCH_HOME ``root``."""
    torch.manual_seed(0)
    made = models.alexnet().eval()
    (root / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(made.state_dict(), root / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth")
    return made


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    root = tmp_path_factory.mktemp("torch")
    return root, write_alexnet(root)


@pytest.fixture
def weights(
    network: tuple[Path, torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> torch.nn.Module:
    monkeypatch.setenv("TORCH_HOME", str(network[0]))
    return network[1]


@pytest.fixture
def small(tmp_path: Path) -> FinetuneConfig:
    return FinetuneConfig(
        target="sketch", clip=(str(write_clip(tmp_path / "clip")),), latents="faces", updates=2,
        batch=4, decode_steps=2, recipe="stepwise",
    )  # fmt: skip


def pictures(size: int = 64, seed: int = 0) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def by_hand(alexnet: torch.nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Equation (1) of 1801.03924, in float64, with the published weights of the channels."""
    shift = torch.tensor([-0.030, -0.088, -0.188]).double().view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).double().view(1, 3, 1, 1)
    root = Path(torchmetrics.__file__).parent
    lins = torch.load(root / "functional/image/lpips_models/alex.pth", "cpu", weights_only=True)
    a, b = ((z.double() - shift) / scale for z in (x, y))
    total = torch.zeros(len(x)).double()
    layers = alexnet.features.double()  # type: ignore[union-attr,operator]
    for at, layer in enumerate(layers):  # type: ignore[arg-type]
        a, b = layer(a), layer(b)
        if at in TAPS:
            units = [z / (z.square().sum(1, keepdim=True).sqrt() + 1e-8) for z in (a, b)]
            w = lins[f"lin{TAPS.index(at)}.model.1.weight"].double().view(1, -1, 1, 1)
            total = total + (w * (units[0] - units[1]).square()).sum(1).mean((1, 2))
    alexnet.float()
    return total


def test_lpips_is_the_formula(weights: torch.nn.Module) -> None:
    x, y = pictures(), pictures(seed=1)
    found = perceptual.lpips(x, y)
    with torch.no_grad():
        wanted = by_hand(weights, x, y)
    assert wanted.min() > 1e-5
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-7)
    assert perceptual.lpips(x, x).abs().max() < 1e-7


def test_small_pictures_are_enlarged(weights: torch.nn.Module) -> None:
    x, y = pictures(16), pictures(16, seed=1)
    large = [F.interpolate(z, 64, mode="bilinear", align_corners=False) for z in (x, y)]
    with torch.no_grad():
        wanted = by_hand(weights, *large)
    torch.testing.assert_close(perceptual.lpips(x, y).double(), wanted, rtol=1e-4, atol=1e-7)


def test_as_a_guide_it_leads_back_to_the_photo(weights: torch.nn.Module) -> None:
    photo = pictures()
    x = (photo + 0.3 * pictures(seed=2)).requires_grad_(True)
    loss = steering([parse("lpips:2")], Given(photos=photo))(x, torch.ones(2).long())
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    moved = x.detach() - 0.02 * gradient / gradient.abs().mean()
    assert (2 * perceptual.lpips(moved.clamp(-1, 1), photo) < loss.detach()).all()


def test_tuning_and_edits_take_it(
    trained: Path, small: FinetuneConfig, tmp_path: Path, weights: torch.nn.Module
) -> None:
    store = copied(trained, tmp_path / "store")
    made = finetune.run(replace(small, weights={"lpips": 3.0}, updates=2, name="kept"), store, CPU)
    rows = (made.path / "logs" / "stats.jsonl").read_text().splitlines()
    assert made.config["weights"]["lpips"] == 3.0 and json.loads(rows[-1])["lpips"] > 0
    base = EditConfig(data="faces", guide=("colour:green:1",), count=1, steps=3, r=10)
    free, held = (
        edit.run(replace(base, guide=guide, name=name), store, CPU).metrics["change"]
        for name, guide in (("free", base.guide), ("held", (*base.guide, "lpips:20")))
    )
    assert free != held


def test_without_weights_it_is_one_line(
    trained: Path, small: FinetuneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    store = copied(trained, tmp_path / "store")
    guided = EditConfig(data="faces", guide=("lpips",), count=1)
    with pytest.raises(BadInput, match="AlexNet's weights are not on this machine"):
        edit.run(guided, store, CPU)
    with pytest.raises(BadInput, match="AlexNet's weights are not on this machine") as error:
        finetune.run(replace(small, weights={"lpips": 1.0}), store, CPU)
    assert str(tmp_path) in str(error.value.fix)
    file = perceptual.lpips_weights()
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no weights")
    with pytest.raises(BadInput, match="holds no weights for LPIPS"):
        perceptual.lpips(pictures(), pictures())
