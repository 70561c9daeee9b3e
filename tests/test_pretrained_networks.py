"""Pretrained networks against those that define them, and each known mistake against both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from pretrained_reference import adm, adm_file, ddpm, ddpm_file
from torch import Tensor, nn

from dclip.models import adm as adm_module
from dclip.models.adm import ADM, Downsample, embed_timesteps
from dclip.models.checkpoint import ModelInfo, load_weights
from dclip.models.pretrained import FAMILIES, Asked, recognise
from dclip.models.pretrained import ddpm as ddpm_family
from dclip.models.pretrained.export import as_unet2d, rename_adm
from dclip.models.tuned import Adapter
from dclip.models.unet2d import UNet2D

TOLERANCE = 1e-5
T = torch.tensor([1, 700])


def pictures(side: int = 32, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn((2, 3, side, side), generator=generator, dtype=torch.float64).to(dtype)


def built(weights: dict[str, Tensor], asked: Asked, **changes: Any) -> tuple[nn.Module, ModelInfo]:
    """The network of a file, as an import makes it, with settings changed."""
    name = recognise(weights)
    assert name is not None
    family = FAMILIES[name]
    info = family.describe({k: v.shape for k, v in weights.items()}, {}, asked).info
    if changes:
        info = replace(info, config=replace(info.config, **changes))
    model = info.build()
    load_weights(model, family.convert(weights), "the file")
    return model.eval().requires_grad_(False), info


def off(model: nn.Module, expected: Tensor, x: Tensor) -> float:
    """The largest difference, for outputs of about 1."""
    got = model.raw(x, T) if hasattr(model, "raw") else model(x, T)  # type: ignore[operator]
    return float((got - expected).abs().max())


# --- the first DDPM layout

DDPM = ddpm_file()


@pytest.fixture(scope="module")
def ddpm_eps() -> Tensor:
    return ddpm(DDPM, pictures(dtype=torch.float64), T - 1, levels=3, blocks=1).float()


def test_a_ddpm_file_is_the_published_network(ddpm_eps: Tensor) -> None:
    model, info = built(DDPM, Asked())
    assert 0.1 < float(ddpm_eps.std()) < 3
    assert off(model, ddpm_eps, pictures()) < TOLERANCE
    assert (info.image_size, info.schedule.T, info.grid) == (32, 1000, "diffusionclip")


def test_a_ddpm_file_of_two_blocks_and_four_levels_is_too() -> None:
    file = ddpm_file((32, 32, 64, 64), blocks=2, attention=(2,), seed=3)
    expected = ddpm(file, pictures(dtype=torch.float64), T - 1, levels=4, blocks=2).float()
    model, info = built(file, Asked(size=64))
    assert off(model, expected, pictures()) < TOLERANCE
    assert (info.image_size, info.variance) == (64, "small")
    small = FAMILIES["ddpm"].describe({k: v.shape for k, v in DDPM.items()}, {}, Asked()).info
    assert (small.image_size, small.variance) == (32, "large")  # as for CIFAR-10


@pytest.mark.parametrize(
    "mistake",
    [
        {"downsample_padding": 1},
        {"flip_sin_to_cos": True},
        {"freq_shift": 0},
        {"attention_head_dim": 8},
        {"norm_eps": 1e-5},
    ],
    ids=str,
)
def test_a_wrong_setting_of_the_ddpm_layout_would_be_seen(
    mistake: dict[str, Any], ddpm_eps: Tensor
) -> None:
    model, _info = built(DDPM, Asked(), **mistake)
    ((name, value),) = mistake.items()
    assert getattr(built(DDPM, Asked())[1].config, name) != value
    assert off(model, ddpm_eps, pictures()) > 2 * TOLERANCE


def test_levels_in_the_wrong_order_would_be_seen(
    ddpm_eps: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``up`` counts from the highest resolution; taken as it stands, shapes no longer fit, or,
    where all levels are alike, the picture is another."""
    file = ddpm_file((32, 32, 32), attention=())
    expected = ddpm(file, pictures(dtype=torch.float64), T - 1, levels=3, blocks=1).float()
    model, _info = built(file, Asked(size=32))
    assert off(model, expected, pictures()) < TOLERANCE
    weights = model.state_dict()
    swapped = {
        k: weights[k.replace("up_blocks.0.resnets", "up_blocks.2.resnets")
                   if "up_blocks.0.resnets" in k
                   else k.replace("up_blocks.2.resnets", "up_blocks.0.resnets")]
        for k in weights
    }  # fmt: skip
    model.load_state_dict(swapped)
    assert off(model, expected, pictures()) > 2 * TOLERANCE


def test_timesteps_that_count_from_one_would_be_seen(ddpm_eps: Tensor) -> None:
    model, _ = built(DDPM, Asked())
    assert isinstance(model, UNet2D)
    late = model.unet(pictures(), T).sample
    assert float((late - ddpm_eps).abs().max()) > 2 * TOLERANCE


# --- ADM

ADM_FILES: dict[str, tuple[dict[str, Any], Asked]] = {
    "like AFHQ": ({"mults": (1, 1, 2), "attention": (2,)}, Asked(head_channels=32)),
    "convolutions resample": (
        {"updown": False, "attention": (0, 1, 2), "blocks": 2}, Asked(head_channels=32)
    ),
    "time is added": ({"scale_shift": False, "learned": False}, Asked(head_channels=32)),
    "two levels": ({"channels": 64, "mults": (1, 2), "attention": (0, 1)}, Asked(head_channels=32)),
    "new order": ({}, Asked(head_channels=32, qkv="new")),
    "heads by number": ({"attention": (1, 2)}, Asked(heads=2)),
    "with classes": ({"classes": 7}, Asked(head_channels=32, class_label=3)),
    "half as wide at first": (
        {"channels": 64, "mults": (0.5, 1, 1), "attention": (2,)}, Asked(head_channels=32)
    ),
}  # fmt: skip


def rest(asked: Asked) -> Asked:
    """With what no shape says."""
    return replace(asked, qkv=asked.qkv or "legacy", size=32, schedule="linear")


@pytest.mark.parametrize("kind", ADM_FILES)
def test_an_adm_file_is_the_published_network(kind: str) -> None:
    settings, asked = ADM_FILES[kind]
    file = adm_file(**settings)
    model, info = built(file, rest(asked))
    narrowest = min(v.shape[1] for n, v in file.items() if n.endswith("qkv.weight"))
    expected = adm(
        file, pictures(dtype=torch.float64), T - 1, asked.heads or narrowest // 32,
        legacy=asked.qkv != "new", label=asked.class_label,
    ).float()  # fmt: skip
    assert isinstance(model, ADM) and 0.05 < float(expected.std()) < 3
    assert off(model, expected, pictures()) < TOLERANCE
    assert torch.equal(model(pictures(), T), model.raw(pictures(), T)[:, :3])
    assert info.variance == ("small" if settings.get("learned") is False else "learned-range")


@pytest.mark.parametrize(
    "kind", [k for k in ADM_FILES if k not in ("heads by number", "half as wide at first")]
)
def test_an_adm_network_is_diffusers_unet2dmodel_where_that_can_be_it(kind: str) -> None:
    from diffusers import UNet2DModel

    settings, asked = ADM_FILES[kind]
    model, info = built(adm_file(**settings), rest(asked))
    config, weights = as_unet2d(model, info)
    unet = UNet2DModel(**asdict(config)).eval()
    unet.load_state_dict(weights)
    with torch.no_grad():
        expected = unet(pictures(), T - 1).sample
    assert off(model, expected, pictures()) < TOLERANCE


AFHQ_LIKE = adm_file(channels=64, mults=(1, 1, 2), attention=(1, 2))
PLAIN = adm_file(channels=64, mults=(1, 2), attention=(1,), updown=False)


def _asymmetric(self: Downsample, x: Tensor) -> Tensor:
    padded = nn.functional.pad(x, (0, 1, 0, 1))
    return nn.functional.conv2d(padded, self.op.weight, self.op.bias, stride=2)


def _sin_first(k: Tensor, dim: int) -> Tensor:
    cos, sin = embed_timesteps(k, dim).chunk(2, dim=1)
    return torch.cat([sin, cos], dim=1)


def _divisor(k: Tensor, dim: int) -> Tensor:
    half = dim // 2
    powers = torch.arange(half) / (half - 1)
    angles = k.float()[:, None] * 10000**-powers
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _eps(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


ADM_MISTAKES: dict[str, Callable[[pytest.MonkeyPatch], tuple[dict[str, Tensor], dict[str, Any]]]]
ADM_MISTAKES = {
    "qkv in the new order": lambda patch: (AFHQ_LIKE, {"qkv": "new"}),
    "one head": lambda patch: (AFHQ_LIKE, {"head_channels": None, "heads": 1}),
    "sine first": lambda patch: (
        patch.setattr(adm_module, "embed_timesteps", _sin_first) or AFHQ_LIKE, {}
    ),
    "divisor half - 1": lambda patch: (
        patch.setattr(adm_module, "embed_timesteps", _divisor) or AFHQ_LIKE, {}
    ),
    "epsilon of 1e-6": lambda patch: (patch.setattr(adm_module, "_norm", _eps) or AFHQ_LIKE, {}),
    "padding on two sides": lambda patch: (
        patch.setattr(Downsample, "forward", _asymmetric) or PLAIN, {}
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", ADM_MISTAKES)
def test_a_mistake_in_adm_would_be_seen(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file, changes = ADM_MISTAKES[mistake](monkeypatch)
    narrowest = min(v.shape[1] for n, v in file.items() if n.endswith("qkv.weight"))
    expected = adm(file, pictures(dtype=torch.float64), T - 1, narrowest // 32).float()
    asked = rest(Asked(head_channels=32))
    assert off(built(file, asked, **changes)[0], expected, pictures()) > 2 * TOLERANCE
    monkeypatch.undo()
    assert off(built(file, asked)[0], expected, pictures()) < TOLERANCE


def test_a_downsampler_under_the_index_of_a_block_would_be_seen() -> None:
    """All widths alike, a walk that gives the downsampler no index of its own still loads."""
    file = adm_file(channels=64, mults=(1, 1, 1), blocks=2, attention=())
    expected = adm(file, pictures(dtype=torch.float64), T - 1, 2).float()
    model, _ = built(file, rest(Asked(head_channels=32)))
    assert off(model, expected, pictures()) < TOLERANCE
    wrong = {
        (k.replace("input_blocks.2.", "input_blocks.3.") if "input_blocks.2." in k
         else k.replace("input_blocks.3.", "input_blocks.2.")): v
        for k, v in file.items()
    }  # fmt: skip
    load_weights(model, wrong, "the walk")
    assert off(model, expected, pictures()) > 2 * TOLERANCE


def test_a_plain_thirds_split_of_a_legacy_file_would_be_seen() -> None:
    from diffusers import UNet2DModel

    model, info = built(AFHQ_LIKE, rest(Asked(head_channels=32)))
    config, _ = as_unet2d(model, info)
    unet = UNet2DModel(**asdict(config)).eval()
    unet.load_state_dict(rename_adm(replace(info.config, qkv="new"), model.state_dict()))
    with torch.no_grad():
        wrong = unet(pictures(), T - 1).sample
    assert off(model, wrong, pictures()) > 2 * TOLERANCE


# --- a size that is published


@pytest.mark.slow
def test_the_exact_network_of_celebahq_256() -> None:
    """google/ddpm-celebahq-256's configuration, from the first layout and as diffusers has it."""
    file = ddpm_file((128, 128, 256, 256, 512, 512), blocks=2, attention=(4,))
    assert len(file) == 450 and sum(v.numel() for v in file.values()) == 113_673_219
    model, info = built(file, Asked())
    assert info.image_size == 256
    x = pictures(256)
    expected = ddpm(file, x, T - 1, levels=6, blocks=2)
    assert off(model, expected, x) < TOLERANCE * 2  # both round to float32 here


def test_names_of_the_ddpm_layout_are_all_renamed_once() -> None:
    names = {ddpm_family._new_name(name, 3) for name in DDPM}
    assert len(names) == len(DDPM)


@pytest.mark.parametrize(
    ("file", "pixels"),
    [
        (DDPM, {"unet.conv_in.weight", "unet.conv_out.weight"}),
        (AFHQ_LIKE, {"input_blocks.0.0.weight", "out.2.weight"}),
    ],
    ids=["ddpm", "adm"],
)
def test_an_adapter_leaves_the_layers_at_the_pixels(
    file: dict[str, Tensor], pixels: set[str]
) -> None:
    model, _ = built(file, rest(Asked(head_channels=32)) if file is AFHQ_LIKE else Asked())
    weights = {k for k, v in model.named_parameters() if v.ndim >= 2}
    assert pixels < weights and set(Adapter(model, 2).deltas()) == weights - pixels
