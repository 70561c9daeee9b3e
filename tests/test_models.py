"""Networks, their files, and the differences that fine-tuning makes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput, CorruptArtifact, DclipError
from dclip.models.checkpoint import ModelInfo, load_model, save_model
from dclip.models.ema import EMA
from dclip.models.prediction import FromVelocity
from dclip.models.tiny import TinyConfig, TinyUNet
from dclip.models.tuned import Adapter, Full, merged, read_deltas
from dclip.models.unet import SIZES, UNet, UNetConfig

SCHEDULE = Schedule.make("linear-rescaled", 50)
MICRO = ModelInfo("unet", SIZES["micro"], SCHEDULE, 16, "v")
T = torch.tensor([1, 50])


def random_weights(info: ModelInfo, seed: int = 0) -> dict[str, Tensor]:
    """Weights that leave no layer at zero, as a fresh network's last one is."""
    torch.manual_seed(seed)
    return {k: v + 0.05 * torch.randn(v.shape) for k, v in info.build().state_dict().items()}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", MICRO, random_weights(MICRO))
    return tmp_path / "model"


@pytest.fixture(scope="module")
def base() -> nn.Module:
    model = MICRO.build()
    model.load_state_dict(random_weights(MICRO))
    return model.eval().requires_grad_(False)


# --- networks


def test_tiny_has_the_layers_of_the_report() -> None:
    """Section 3.3 with C = 64 and d = 256, layer by layer."""
    c, d = 64, 256

    def block(c_in: int, c_out: int) -> int:
        convolutions = 9 * c_in * c_out + c_out + 9 * c_out * c_out + c_out
        norms, time = 2 * 2 * c_out, d * c_out + c_out
        skip = 0 if c_in == c_out else c_in * c_out + c_out
        return convolutions + norms + time + skip

    def up(c_in: int, c_out: int) -> int:
        return 4 * c_in * c_out + c_out

    expected = (
        2 * (d * d + d)
        + block(3, c) + block(c, 2 * c) + block(2 * c, 4 * c) + block(4 * c, 4 * c)
        + up(4 * c, 2 * c) + block(2 * c + 2 * c, 2 * c)
        + up(2 * c, c) + block(c + c, c)
        + 3 * c + 3
    )  # fmt: skip
    model = TinyUNet(TinyConfig())
    assert sum(p.numel() for p in model.parameters()) == expected


def test_tiny_halves_the_side_twice_and_doubles_the_channels() -> None:
    model, seen = TinyUNet(TinyConfig()), []
    for name, module in model.named_children():
        if name != "time":
            module.register_forward_hook(
                lambda _, __, out, name=name: seen.append((name, tuple(out.shape[1:])))
            )
    with torch.no_grad():
        out = model(torch.zeros(2, 3, 32, 32), T)
    assert out.shape == (2, 3, 32, 32)
    assert seen == [
        ("down1", (64, 32, 32)),
        ("pool", (64, 16, 16)), ("down2", (128, 16, 16)),
        ("pool", (128, 8, 8)), ("down3", (256, 8, 8)),
        ("middle", (256, 8, 8)),
        ("up2", (128, 16, 16)), ("merge2", (128, 16, 16)),
        ("up1", (64, 32, 32)), ("merge1", (64, 32, 32)),
        ("out", (3, 32, 32)),
    ]  # fmt: skip


def test_tiny_block_adds_the_projected_time_after_the_first_relu() -> None:
    """h = ConvGNReLU(x); h = h + W e; then ConvGNReLU again, and the skip (section 3.2)."""
    model = TinyUNet(TinyConfig(channels=8, time_dim=16)).double()
    block = model.down2
    x, e = torch.randn(2, 8, 4, 4).double(), torch.randn(2, 16).double()
    conv1, norm1, conv2, norm2 = block.first[0], block.first[1], block.second[0], block.second[1]
    h = norm1(conv1(x)).relu() + block.time(e).view(2, 16, 1, 1)
    expected = norm2(conv2(h)).relu() + block.skip(x)
    assert torch.allclose(block(x, e), expected, atol=1e-12)
    assert (conv1.kernel_size, conv2.kernel_size) == ((3, 3), (3, 3))
    assert isinstance(model.middle.skip, nn.Identity)


@pytest.mark.parametrize("size", SIZES)
def test_every_unet_size_keeps_the_shape_at_its_stride(size: str) -> None:
    config = SIZES[size]
    side = 2 * config.stride
    with torch.device("meta"):
        model, x = UNet(config), torch.empty(2, 3, side, side)
        assert model(x, torch.empty(2, dtype=torch.int64)).shape == x.shape
    assert config.stride == config.patch * 2 ** (len(config.mults) - 1)


@pytest.mark.parametrize("architecture", ["unet", "tiny"])
def test_the_time_changes_every_sample_by_its_own_label(architecture: str) -> None:
    config = UNetConfig(16, (1, 2), patch=2, attention=(1,)) if architecture == "unet" else None
    info = ModelInfo(architecture, config or TinyConfig(8, 16), SCHEDULE, 16)
    model = info.build()
    model.load_state_dict(random_weights(info))
    x = torch.randn(1, 3, 16, 16).repeat(2, 1, 1, 1)
    with torch.no_grad():
        both = model(x, T)
        alone = torch.cat([model(x[:1], T[:1]), model(x[1:], T[1:])])
    assert torch.allclose(both, alone, atol=1e-5)
    assert (both[0] - both[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"channels": 20}, "channels is 20"),
        ({"attention": (5,)}, "within 0..2"),
        ({"heads": 3}, "heads"),
        ({"mults": ()}, "mults"),
    ],
)
def test_a_unet_that_cannot_be_is_refused(settings: dict[str, object], word: str) -> None:
    with pytest.raises(BadInput) as caught:
        UNetConfig(**settings)  # type: ignore[arg-type]
    assert word in f"{caught.value.message} {caught.value.fix}"


def test_velocity_becomes_the_noise_that_it_stands_for() -> None:
    """v = a eps - b x0 and x = a x0 + b eps give eps = b x + a v (2202.00512, appendix D)."""
    x0, eps = torch.randn(50, 3, 4, 4).double(), torch.randn(50, 3, 4, 4).double()
    t = torch.arange(1, 51)
    a = SCHEDULE.alpha_bar[t].sqrt().view(-1, 1, 1, 1)
    b = (1 - SCHEDULE.alpha_bar[t]).sqrt().view(-1, 1, 1, 1)

    class Knows(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return a * eps - b * x0

    found = FromVelocity(Knows(), SCHEDULE)(a * x0 + b * eps, t)
    assert torch.allclose(found, eps, atol=1e-12)


def test_ema_warms_up_and_comes_back_from_its_state() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    ema = EMA(model, 0.5)
    nn.init.ones_(model.weight)
    expected = 0.0
    for n in range(6):
        ema.update(model)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + 1 - decay
        assert float(ema.weights["weight"]) == pytest.approx(expected)
    again = EMA(nn.Linear(1, 1, bias=False), 0.5)
    again.load_state_dict(ema.state_dict())
    again.update(model)
    ema.update(model)
    assert again.updates == 7 and torch.equal(again.weights["weight"], ema.weights["weight"])


# --- files


def test_a_saved_network_comes_back_frozen_and_equal(saved: Path) -> None:
    model, info = load_model(saved)
    assert info == MICRO
    expected = random_weights(MICRO)
    assert all(torch.equal(v, expected[k]) for k, v in model.state_dict().items())
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_half_precision_on_disk_is_float32_in_memory(tmp_path: Path) -> None:
    save_model(tmp_path, MICRO, random_weights(MICRO), dtype=torch.float16)
    assert {v.dtype for v in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    assert {p.dtype for p in load_model(tmp_path)[0].parameters()} == {torch.float32}


def _weights(change: Callable[[dict[str, Tensor]], None]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        weights = load_file(path / "model.safetensors")
        change(weights)
        save_file(weights, path / "model.safetensors")

    return spoil


def _info(change: Callable[[dict], object]) -> Callable[[Path], None]:  # type: ignore[type-arg]
    def spoil(path: Path) -> None:
        info = json.loads((path / "model.json").read_text())
        change(info)
        (path / "model.json").write_text(json.dumps(info))

    return spoil


def _cut(path: Path) -> None:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


NAME = "network.last.bias"
SPOILT: dict[str, tuple[Callable[[Path], object], type[DclipError], str]] = {
    "a missing weight": (_weights(lambda w: w.pop(NAME)), BadInput, f"lacks weights {NAME}"),
    "an unknown weight": (
        _weights(lambda w: w.update(extra=torch.zeros(1))), BadInput, "unknown weights extra"
    ),
    "another shape": (
        _weights(lambda w: w.update({NAME: torch.zeros(4)})), BadInput, f"misshapen weights {NAME}"
    ),
    "NaN": (
        _weights(lambda w: w[NAME].fill_(torch.nan)), CorruptArtifact, f"NaN .* in {NAME}"
    ),
    "infinity": (
        _weights(lambda w: w[NAME].fill_(torch.inf)), CorruptArtifact, f"infinite .* in {NAME}"
    ),
    "a truncated file": (_cut, CorruptArtifact, "not a readable safetensors"),
    "an empty file": (
        lambda p: (p / "model.safetensors").write_bytes(b""), CorruptArtifact, "not a readable"
    ),
    "no file": (lambda p: (p / "model.safetensors").unlink(), CorruptArtifact, "is missing"),
    "a pickle": (
        lambda p: torch.save({"a": torch.zeros(1)}, p / "model.safetensors"), BadInput, "pickled"
    ),
    "an old pickle": (
        lambda p: torch.save(
            {"a": torch.zeros(1)}, p / "model.safetensors", _use_new_zipfile_serialization=False
        ),
        BadInput,
        "pickled",
    ),
    "another architecture": (
        _info(lambda i: i.update(architecture="tiny", config={"channels": 64, "time_dim": 256})),
        BadInput,
        "lacks weights",
    ),
    "an unknown architecture": (_info(lambda i: i.update(architecture="dit")), BadInput, "'dit'"),
    "an unknown setting": (_info(lambda i: i["config"].update(depth=3)), BadInput, "depth"),
    "a missing setting": (_info(lambda i: i["config"].pop("refine")), BadInput, "refine"),
    "a setting that is no number": (
        _info(lambda i: i["config"].update(channels="many")), BadInput, "channels"
    ),
    "an unknown prediction": (_info(lambda i: i.update(prediction="x1")), BadInput, "'x1'"),
    "no schedule": (_info(lambda i: i.pop("schedule")), CorruptArtifact, "model description"),
    "no object": (lambda p: (p / "model.json").write_text("[]"), CorruptArtifact, "description"),
    "no JSON": (lambda p: (p / "model.json").write_text("{"), CorruptArtifact, "description"),
    "no model.json": (lambda p: (p / "model.json").unlink(), CorruptArtifact, "description"),
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILT)
def test_a_spoilt_model_is_refused_in_one_line(saved: Path, what: str) -> None:
    spoil, kind, words = SPOILT[what]
    spoil(saved)
    with pytest.raises(kind, match=words) as caught:
        load_model(saved)
    assert str(saved) in caught.value.message and "\n" not in caught.value.message


# --- what fine-tuning changed


def shaken(delta: Adapter | Full, scale: float = 0.05) -> Adapter | Full:
    with torch.no_grad():
        for p in delta.up if isinstance(delta, Adapter) else delta.values:
            p.copy_(scale * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return delta


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_a_difference_starts_at_nothing_and_yet_can_learn(base: nn.Module, kind: str) -> None:
    delta = Adapter(base, 2) if kind == "adapter" else Full(base)
    deltas = delta.deltas()
    own = dict(base.named_parameters())
    assert all(not v.any() and v.shape == own[k].shape for k, v in deltas.items())
    model = torch.func.functional_call(
        base, {k: own[k] + d for k, d in deltas.items()}, (torch.randn(2, 3, 16, 16), T)
    )
    model.square().mean().backward()
    gradients = [p.grad for p in delta.parameters() if p.grad is not None]
    assert sum(float(g.abs().sum()) for g in gradients) > 0


def test_an_adapter_reaches_every_weight_but_those_at_the_pixels(base: nn.Module) -> None:
    weights = {k for k, v in base.named_parameters() if v.ndim >= 2}
    pixels = {f"network.{layer}.weight" for layer in ("stem", "head", "last")}
    assert pixels < weights and set(Adapter(base, 2).deltas()) == weights - pixels


@pytest.mark.parametrize(("kind", "tolerance"), [("adapter", 2e-3), ("full", 0.0)])
def test_differences_come_back_from_disk(
    base: nn.Module, tmp_path: Path, kind: str, tolerance: float
) -> None:
    delta = shaken(Adapter(base, 3, seed=7) if kind == "adapter" else Full(base))
    delta.save(tmp_path)
    found = read_deltas(tmp_path, base)
    assert found.keys() == delta.deltas().keys()
    for name, value in delta.deltas().items():
        assert torch.allclose(
            found[name], value, atol=tolerance * float(value.detach().abs().max())
        )


def test_merging_adds_what_each_strength_says(base: nn.Module) -> None:
    one = {k: v.detach() for k, v in shaken(Adapter(base, 2, seed=1)).deltas().items()}
    two = {k: v.detach() for k, v in shaken(Full(base)).deltas().items()}
    own = dict(base.named_parameters())
    found = dict(merged(base, [(one, -0.5), (two, 2.0)]).named_parameters())
    for name, weight in own.items():
        expected = weight - 0.5 * one.get(name, 0) + 2.0 * two[name]
        assert torch.allclose(found[name], expected, atol=1e-6)
    for parts in ([], [(one, 0.0)], [(two, 0.0), (one, 0.0)]):
        same = dict(merged(base, parts).named_parameters())
        assert all(torch.equal(same[k], v) for k, v in own.items())


def test_an_adapter_of_the_laptop_network_is_small(tmp_path: Path) -> None:
    Adapter(ModelInfo("unet", SIZES["laptop"], SCHEDULE, 64, "v").build(), 8).save(tmp_path)
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) <= 2_000_000


def test_differences_of_another_network_are_refused(base: nn.Module, tmp_path: Path) -> None:
    other = ModelInfo("unet", UNetConfig(16, (1, 2), attention=(1,)), SCHEDULE, 16, "v").build()
    for delta in (Adapter(other, 2), Full(other)):
        folder = tmp_path / type(delta).__name__
        folder.mkdir()
        delta.save(folder)
        with pytest.raises(BadInput):
            read_deltas(folder, base)


def test_broken_differences_are_refused(base: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(CorruptArtifact, match="no tuned weights"):
        read_deltas(tmp_path, base)
    Adapter(base, 2).save(tmp_path)
    file = tmp_path / "adapter.safetensors"
    good = load_file(file)
    name = next(iter(good)).rsplit("/", 1)[0]
    for broken in (
        {k: v for k, v in good.items() if k != f"{name}/up"},
        good | {f"{name}/up": torch.zeros(4, 5)},
        good | {f"{name}/down": torch.full_like(good[f"{name}/down"], torch.nan)},
    ):
        save_file(broken, file)
        with pytest.raises(CorruptArtifact, match=name):
            read_deltas(tmp_path, base)
    with pytest.raises(BadInput, match="rank"):
        Adapter(base, 0)


def test_a_description_of_a_network_too_large_for_any_memory_takes_none(tmp_path: Path) -> None:
    info = ModelInfo("unet", SIZES["micro"], Schedule.make("linear", 10), 16, prediction="v")
    save_model(tmp_path, info, info.build().state_dict())
    file = tmp_path / "model.json"
    described = json.loads(file.read_text())
    described["config"] |= {"channels": 4096, "mults": [64, 64]}  # terabytes
    file.write_text(json.dumps(described))
    with pytest.raises(BadInput, match=r"misshapen|lacks"):
        load_model(tmp_path)
