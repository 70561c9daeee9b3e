"""What is done with pretrained models: learned variance, tuned copies, h-space edits, export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMPipeline, DDPMPipeline, DDPMScheduler, UNet2DModel
from pretrained_reference import adm_file, ddpm_file
from smooth_net import SmoothNet
from torch import Tensor, nn

from dclip.context import Context
from dclip.diffusion import asymmetric, ddim, ddpm
from dclip.diffusion.schedule import Schedule
from dclip.diffusion.variance import log_variance, sample_ancestral
from dclip.editing.editor import Editor, Networks
from dclip.editing.plan import Part, make_plan
from dclip.errors import BadInput, CorruptArtifact
from dclip.models.checkpoint import ModelInfo, load_model, read_info, save_model
from dclip.models.hspace import (
    HSpaceBlock,
    HSpaceConfig,
    HSpaceEdit,
    read_asyrp,
    read_hspace,
    save_hspace,
)
from dclip.models.pretrained import Asked
from dclip.models.pretrained.differences import read_differences
from dclip.models.pretrained.export import to_diffusers
from dclip.models.pretrained.opening import open_source
from dclip.models.tiny import TinyConfig
from dclip.models.tuned import Deltas, merged, read_deltas
from dclip.stages import import_model
from dclip.stages.import_model import ImportConfig
from dclip.store import Artifact, Store

CPU = Context(device="cpu", workers=1)
SCHEDULE = Schedule.make("linear", 1000)
T = torch.tensor([1, 700])
ADM = Asked(head_channels=32, qkv="legacy", size=32, schedule="linear")


def pictures(side: int = 32, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((2, 3, side, side), generator=generator)


def imported(tmp_path: Path, weights: dict[str, Tensor], asked: Asked | None = None) -> Artifact:
    """A base in a store, from a file of either layout."""
    torch.save(weights, tmp_path / "base.ckpt")
    said = {k: v for k, v in vars(asked or Asked()).items() if v is not None}
    store = Store(tmp_path / "store")
    return import_model.run(ImportConfig(str(tmp_path / "base.ckpt"), **said), store, CPU)


# --- the variance of a step


class Learned(nn.Module):
    """A smooth network with a variance of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.eps, self.v = SmoothNet(1), SmoothNet(2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.eps(x, t)
        return out

    def with_variance(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.eps(x, t), self.v(x, t).tanh()


GRIDS = [(0, 1, 20, 400, 1000), (0, 1, 2, 3, 999, 1000)]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(
    ("rule", "theirs"),
    [("small", "fixed_small"), ("large", "fixed_large"), ("learned-range", "learned_range")],
)
def test_an_ancestral_walk_is_diffusers(grid: tuple[int, ...], rule: Any, theirs: str) -> None:
    net, x = Learned().double().requires_grad_(False), pictures(8).double()
    scheduler = DDPMScheduler(variance_type=theirs, clip_sample=False)
    scheduler.alphas_cumprod = SCHEDULE.alpha_bar[1:]
    scheduler.one = torch.ones((), dtype=torch.float64)
    scheduler.set_timesteps(timesteps=[t - 1 for t in reversed(grid[1:])])
    expected, generator = x, torch.Generator().manual_seed(7)
    for k in scheduler.timesteps:
        eps, v = net.with_variance(expected, torch.full((2,), int(k) + 1))
        output = torch.cat([eps, v], dim=1) if rule == "learned-range" else eps
        expected = scheduler.step(output, int(k), expected, generator=generator).prev_sample
    generator = torch.Generator().manual_seed(7)
    got = sample_ancestral(
        net, SCHEDULE, x, grid, rule=rule, clip_x0=False,
        noise=lambda s: torch.randn(x.shape, generator=generator, dtype=torch.float64),
    )  # fmt: skip
    assert float((got - expected).abs().max()) < 1e-9


def test_the_smallest_variance_is_that_of_the_plain_walk() -> None:
    net, x = SmoothNet().requires_grad_(False), pictures(8).double()
    noise = {s: pictures(8, seed=s).double() for s in GRIDS[0]}
    plain = ddpm.sample_ddpm(net, SCHEDULE, x, GRIDS[0], noise=noise.__getitem__)
    got = sample_ancestral(net, SCHEDULE, x, GRIDS[0], noise=noise.__getitem__)
    assert torch.allclose(got, plain, atol=1e-12)


def test_a_learned_variance_lies_between_its_bounds() -> None:
    low = log_variance(SCHEDULE, 700, 600)
    high = log_variance(SCHEDULE, 700, 600, "large")
    assert isinstance(low, float) and isinstance(high, float) and low < high
    for v, expected in ((-1.0, low), (1.0, high), (0.0, (low + high) / 2)):
        got = log_variance(SCHEDULE, 700, 600, "learned-range", torch.tensor(v).double())
        assert float(got) == pytest.approx(expected)


def test_variances_that_are_not_there_are_refused() -> None:
    with pytest.raises(BadInput, match="did not learn"):
        sample_ancestral(
            SmoothNet(), SCHEDULE, pictures(8), (0, 10), noise=lambda s: pictures(8),
            rule="learned-range",
        )  # fmt: skip
    with pytest.raises(BadInput, match="step from t=5 to 0"):
        log_variance(SCHEDULE, 5, 0)


def test_ddim_drops_a_learned_variance_and_the_ancestral_walk_uses_it(tmp_path: Path) -> None:
    base = imported(tmp_path, adm_file(), ADM)
    model, info = load_model(base.path)
    eps, v = model.with_variance(pictures(), T)  # type: ignore[operator]
    assert info.variance == "learned-range" and torch.equal(model(pictures(), T), eps)
    assert eps.shape == v.shape == (2, 3, 32, 32) and float((eps - v).abs().max()) > 0.1


# --- tuned copies


def tuned_file(base: dict[str, Tensor], size: float = 0.02) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(9)
    return {
        k: v + size * v.std(correction=0) * torch.randn(v.shape, generator=generator)
        for k, v in base.items()
    }


@pytest.mark.parametrize("layout", ["ddpm", "adm"])
def test_a_tuned_copy_is_a_difference_to_its_base(layout: str, tmp_path: Path) -> None:
    file, asked = (ddpm_file(), Asked()) if layout == "ddpm" else (adm_file(), ADM)
    base = imported(tmp_path, file, asked)
    changed = tuned_file(file)
    torch.save({f"module.{k}": v for k, v in changed.items()}, tmp_path / "gogh_t401.pth")
    store = Store(tmp_path / "store")
    tuned = import_model.run(
        ImportConfig(str(tmp_path / "gogh_t401.pth"), base=base.ref), store, CPU
    )
    assert (tuned.kind, tuned.config["r"]) == ("tuned", 402)
    assert tuned.manifest.inputs["model"]["id"] == base.id
    model, _ = load_model(base.path)
    deltas = read_deltas(tuned.path, model)
    torch.save(changed, tmp_path / "whole.ckpt")
    whole = open_source(str(tmp_path / "whole.ckpt"), asked)
    expected = whole.info.build().eval()
    expected.load_state_dict(whole.weights())
    with torch.no_grad():
        got = merged(model, [(deltas, 1.0)])(pictures(), T)
        assert float((got - expected(pictures(), T)).abs().max()) < 1e-5
        back = merged(model, [(deltas, 1.0), (deltas, -1.0)])(pictures(), T)
        assert float((back - model(pictures(), T)).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ddpm_file(seed=1), "own norm away"),
        (lambda: ddpm_file(), "base itself"),
        (lambda: ddpm_file((32, 64, 64, 64)), "not tuned from this base: it lacks weights"),
        (lambda: ddpm_file((32, 32, 32)), "not tuned from this base"),
        (lambda: adm_file(), "ADM .* was not tuned from this base"),
    ],
)
def test_a_copy_of_another_base_is_refused(
    make: Callable[[], dict[str, Tensor]], words: str, tmp_path: Path
) -> None:
    base = imported(tmp_path, ddpm_file())
    torch.save(make(), tmp_path / "other.pth")
    store = Store(tmp_path / "store")
    with pytest.raises(BadInput, match=words) as caught:
        import_model.run(ImportConfig(str(tmp_path / "other.pth"), base=base.ref), store, CPU)
    assert "\n" not in caught.value.message and not list(store.list("tuned"))


def test_only_what_changed_is_kept(tmp_path: Path) -> None:
    base = imported(tmp_path, ddpm_file())
    model, info = load_model(base.path)
    file = ddpm_file()
    file["conv_in.bias"] = file["conv_in.bias"] + 0.5
    torch.save(file, tmp_path / "one.pth")
    deltas = read_differences(tmp_path / "one.pth", model, info)
    assert list(deltas) == ["unet.conv_in.bias"]
    assert torch.allclose(deltas["unet.conv_in.bias"], torch.full((32,), 0.5))
    file["conv_in.bias"][0] = torch.nan
    torch.save(file, tmp_path / "nan.pth")
    with pytest.raises(CorruptArtifact, match="NaN"):
        read_differences(tmp_path / "nan.pth", model, info)


# --- Asyrp


def asyrp_file(form: str, channels: int = 64, time: int = 128, seed: int = 0) -> dict[str, Tensor]:
    """A block under the names of its authors' two networks."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    c = channels
    norm = {"weight": 1 + 0.1 * draw(c), "bias": 0.1 * draw(c)}
    one, two = ({"weight": draw(c, c, 1, 1) / c**0.5, "bias": 0.1 * draw(c)} for _ in range(2))
    linear = {"weight": draw(c, time) / time**0.5, "bias": 0.1 * draw(c)}
    parts = (
        {"conv1": one, "temb_proj": linear, "norm2": norm, "conv2": two}
        if form == "ddpm"
        else {
            "in_layers.0": {"weight": 1 + 0.1 * draw(c), "bias": 0.1 * draw(c)},
            "in_layers.2": one, "emb_layers.1": linear, "out_layers.0": norm, "out_layers.3": two,
        }
    )  # fmt: skip
    return {f"{name}.{k}": v for name, part in parts.items() for k, v in part.items()}


def written(form: str, **options: int) -> dict[str, Any]:
    """As Asyrp's training saves it."""
    return {
        "0": asyrp_file(form, **options),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.5}]},
        "scheduler": {"step_size": 320},
    }


def reference_block(w: dict[str, Tensor], form: str, h: Tensor, e: Tensor) -> Tensor:
    """Kwon et al. 2023, appendix F, with torch's own functions."""
    f = torch.nn.functional
    if form == "ddpm":
        h = f.conv2d(h, w["conv1.weight"], w["conv1.bias"])
        h = h + f.linear(f.silu(e), w["temb_proj.weight"], w["temb_proj.bias"])[..., None, None]
        h = f.silu(f.group_norm(h, 32, w["norm2.weight"], w["norm2.bias"], 1e-6))
        return f.conv2d(h, w["conv2.weight"], w["conv2.bias"])
    h = f.silu(f.group_norm(h, 32, w["in_layers.0.weight"], w["in_layers.0.bias"], 1e-5))
    h = f.conv2d(h, w["in_layers.2.weight"], w["in_layers.2.bias"])
    h = h + f.linear(f.silu(e), w["emb_layers.1.weight"], w["emb_layers.1.bias"])[..., None, None]
    h = f.silu(f.group_norm(h, 32, w["out_layers.0.weight"], w["out_layers.0.bias"], 1e-5))
    return f.conv2d(h, w["out_layers.3.weight"], w["out_layers.3.bias"])


@pytest.mark.parametrize("form", ["ddpm", "adm"])
def test_a_block_is_the_published_one_and_comes_back_from_disk(form: str, tmp_path: Path) -> None:
    data = written(form)
    torch.save(data, tmp_path / "smiling_LC_CelebA_HQ_t999_ninv40_ngen40_0.pth")
    (block,) = read_asyrp(data, "smiling_LC_CelebA_HQ_t999_ninv40_ngen40_0.pth")
    # A small h shows which epsilon the norms have.
    h, e = 1e-3 * torch.randn(2, 64, 4, 4), 1e-3 * torch.randn(2, 128)
    expected = reference_block(data["0"], form, h, e)
    assert float((block(h, e) - expected).abs().max()) < 1e-5
    assert (block.config.form, block.config.t_min) == (form, 516)
    save_hspace([block], tmp_path / "tuned")
    (again,) = read_hspace(tmp_path / "tuned")
    assert again.config == block.config and torch.equal(again(h, e), block(h, e))


def _by_hand(model: nn.Module, t: Tensor, added: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """eps of a UNet2DModel walked by hand, with something added to h."""
    unet = model.unet
    with torch.no_grad():
        e = unet.time_embedding(unet.time_proj(t - 1))
        h = unet.conv_in(pictures())
        skips: tuple[Tensor, ...] = (h,)
        for block in unet.down_blocks:
            h, more = block(hidden_states=h, temb=e)
            skips += more
        h = unet.mid_block(h, e)
        h = h + added(h, e)
        for block in unet.up_blocks:
            n = len(block.resnets)
            h, skips = block(h, skips[-n:], e), skips[:-n]
        out: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(h)))
        return out


def test_edits_add_up_in_h_and_act_above_their_label(tmp_path: Path) -> None:
    model, _ = load_model(imported(tmp_path, ddpm_file()).path)
    files = [asyrp_file("ddpm", seed=seed) for seed in (1, 2)]
    (one,) = read_asyrp({"0": files[0]}, "x.pth", 500)
    (two,) = read_asyrp({"0": files[1]}, "x.pth", 800)
    edit = HSpaceEdit(model, [(one, 0.7), (two, -1.5)])
    for t, strengths in ((1000, (0.7, -1.5)), (501, (0.7, 0)), (500, (0, 0))):
        labels = torch.tensor([t, t])
        expected = _by_hand(
            model, labels,
            lambda h, e, s=strengths: sum(  # type: ignore[misc]
                s[i] * reference_block(files[i], "ddpm", h, e) for i in range(2)
            ),
        )  # fmt: skip
        with torch.no_grad():
            assert float((edit(pictures(), labels) - expected).abs().max()) < 1e-5
            plain = model(pictures(), labels)
        assert (t == 500) == torch.allclose(plain, expected, atol=1e-4)
    with torch.no_grad():  # no hook is left behind
        assert torch.equal(model(pictures(), labels), plain)


def test_the_edit_acts_in_the_predicted_picture_alone(tmp_path: Path) -> None:
    """x_s = sqrt(ab_s) (x - sqrt(1 - ab_t) eps') / sqrt(ab_t) + sqrt(1 - ab_s) eps, by hand."""
    base = imported(tmp_path, adm_file(), ADM)
    model, info = load_model(base.path)
    (block,) = read_asyrp(written("adm"), "dog_happy_LC_dog_t999.pth", t_min=150)
    edit = HSpaceEdit(model, [(block, 1.0)])
    grid = (0, 100, 200, 400)
    got = asymmetric.decode(model, edit, info.schedule, pictures(), grid, t_min=150)
    x, ab = pictures(), info.schedule.alpha_bar.float()
    with torch.no_grad():
        for t, s in ((400, 200), (200, 100), (100, 0)):
            labels = torch.tensor([t, t])
            eps = model(x, labels)
            edited = edit(x, labels) if t > 150 else eps
            x = (
                ab[s].sqrt() * (x - (1 - ab[t]).sqrt() * edited) / ab[t].sqrt()
                + (1 - ab[s]).sqrt() * eps
            )
        assert float((got - x).abs().max()) < 1e-4
        both = ddim.decode(edit, info.schedule, pictures(), grid)
        plain = ddim.decode(model, info.schedule, pictures(), grid)
        same = asymmetric.decode(model, model, info.schedule, pictures(), grid)
    assert float((got - both).abs().max()) > 1e-2
    assert float((same - plain).abs().max()) < 1e-4


def test_an_edit_acts_on_a_tuned_network_beside_ours(tmp_path: Path) -> None:
    model, _ = load_model(imported(tmp_path, ddpm_file()).path)
    deltas: Deltas = {"unet.conv_in.bias": torch.full((32,), 0.3)}
    (block,) = read_asyrp(written("ddpm"), "x.pth", 0)
    both = merged(model, [(deltas, 1.0)])
    expected = _by_hand(both, T, lambda h, e: reference_block(written("ddpm")["0"], "ddpm", h, e))
    with torch.no_grad():
        got = HSpaceEdit(both, [(block, 1.0)])(pictures(), T)
    assert float((got - expected).abs().max()) < 1e-5


def test_an_asyrp_file_becomes_a_tuned_artifact(tmp_path: Path) -> None:
    base, store = imported(tmp_path, ddpm_file()), Store(tmp_path / "store")
    name = "smiling_LC_CelebA_HQ_t999_ninv40_ngen40_0.pth"
    torch.save(written("ddpm"), tmp_path / name)
    with pytest.raises(BadInput, match="Asyrp's edits") as caught:
        import_model.run(ImportConfig(str(tmp_path / name)), store, CPU)
    assert "--base" in caught.value.fix
    tuned = import_model.run(
        ImportConfig(str(tmp_path / name), name="smiling", base=base.ref), store, CPU
    )
    assert tuned.ref == "tuned/smiling/v1"
    assert [tuned.config[k] for k in ("method", "t_min", "r")] == ["asyrp", 516, 1000]
    (block,) = read_hspace(tuned.path)
    assert isinstance(block, HSpaceBlock)
    with pytest.raises(BadInput, match="h-space"):
        read_deltas(tuned.path, load_model(base.path)[0])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"0": asyrp_file("ddpm", channels=32)}, "32 channels .* network of 64"),
        ({"0": asyrp_file("ddpm", time=64)}, "time 64"),
    ],
)
def test_an_edit_of_another_network_is_refused(data: Any, words: str, tmp_path: Path) -> None:
    base, store = imported(tmp_path, ddpm_file()), Store(tmp_path / "store")
    torch.save(data, tmp_path / "e.pth")
    with pytest.raises(BadInput, match=words):
        import_model.run(ImportConfig(str(tmp_path / "e.pth"), base=base.ref), store, CPU)
    assert not list(store.list("tuned"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"25": torch.zeros(64, 8, 8)}, "for each timestep"),
        ({"a": 1}, "a table of a"),
        ([1], "a list"),
        ({"0": {"conv1.weight": torch.zeros(1)}}, "block holds conv1.weight"),
        ({"0": asyrp_file("ddpm") | {"more": torch.zeros(1)}}, "unknown weights more"),
        ({"0": {k: v for k, v in asyrp_file("adm").items() if "out" not in k}}, "lacks weights"),
    ],
)
def test_what_is_none_of_asyrp_s_edits_is_refused(data: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        read_asyrp(data, "x.pth")


def test_a_network_without_h_space_is_refused() -> None:
    block = HSpaceBlock(HSpaceConfig("ddpm", 64, 128))
    tiny = ModelInfo("tiny", TinyConfig(), SCHEDULE, 16).build()
    with pytest.raises(BadInput, match="no h-space"):
        HSpaceEdit(tiny, [(block, 1.0)])


# --- export


def exported(tmp_path: Path, path: Path, parts: Any = ()) -> tuple[Any, UNet2DModel]:
    to_diffusers(path, tmp_path / "out", parts)
    pipe = DDPMPipeline if read_info(path).variance == "learned-range" else DDIMPipeline
    pipeline = pipe.from_pretrained(tmp_path / "out")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, UNet2DModel.from_pretrained(tmp_path / "out" / "unet").eval()


@pytest.mark.parametrize("tuned", [False, True])
def test_an_exported_base_draws_the_same_picture_in_diffusers(tuned: bool, tmp_path: Path) -> None:
    file = ddpm_file()
    base = imported(tmp_path, file, Asked(grid="leading"))
    model, info = load_model(base.path)
    save_model(tmp_path / "plain", replace(info, clip_sample=False), model.state_dict())
    parts: list[tuple[Deltas, float]] = []
    if tuned:
        torch.save(tuned_file(file), tmp_path / "tuned.pth")
        parts = [(read_differences(tmp_path / "tuned.pth", model, info), 0.5)]
        model = merged(model, parts)
    pipeline, unet = exported(tmp_path, tmp_path / "plain", parts)
    with torch.no_grad():
        eps = unet(pictures(), T - 1).sample
        assert float((model(pictures(), T) - eps).abs().max()) < 1e-5
        theirs = pipeline(
            2, torch.Generator().manual_seed(3), num_inference_steps=5, output_type="np"
        ).images
        noise = torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(3))
        ours = ddim.decode(model, info.schedule, noise, (0, 1, 201, 401, 601, 801))
    picture = (ours / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert picture.std() > 0.05 and float(abs(picture - theirs).max()) < 1e-5 * 5


@pytest.mark.parametrize(
    ("schedule", "prediction"),
    [
        (Schedule.make("scaled-linear", 500), "v"),
        (Schedule.make("cosine", 100), "x0"),
        (Schedule.make("linear", 300, (0.001, 0.03)), "eps"),
        (Schedule.make("linear-rescaled", 200), "eps"),
        (Schedule.trained([0.1, 0.2, 0.3, 0.4]), "eps"),
    ],
    ids=str,
)
def test_an_export_comes_back_as_it_was(
    schedule: Schedule, prediction: str, tmp_path: Path
) -> None:
    info = replace(
        open_and_describe(), schedule=schedule, prediction=prediction, grid="trailing",
        clip_sample=False, steps_offset=1, variance="small",
    )  # fmt: skip
    save_model(tmp_path / "m", info, info.build().state_dict())
    to_diffusers(tmp_path / "m", tmp_path / "out")
    back = open_source(str(tmp_path / "out"))
    assert torch.allclose(back.info.schedule.alpha_bar, schedule.alpha_bar, rtol=1e-9, atol=0)
    assert replace(back.info, source=None, schedule=schedule) == replace(info, source=None)
    model = load_model(tmp_path / "m")[0]
    again = back.info.build()
    again.load_state_dict(back.weights())
    t = torch.tensor([1, schedule.T])
    with torch.no_grad():
        # A network of x0 divides by sqrt(1 - alpha_bar_1), which here is 0.02.
        assert torch.allclose(again(pictures(), t), model(pictures(), t), atol=1e-3)


def open_and_describe() -> ModelInfo:
    from dclip.models.pretrained import FAMILIES

    shapes = {k: v.shape for k, v in ddpm_file().items()}
    return FAMILIES["ddpm"].describe(shapes, {}, Asked()).info


@pytest.mark.parametrize("classes", [None, 4])
def test_an_adm_base_that_fits_is_exported_too(classes: int | None, tmp_path: Path) -> None:
    label = 2 if classes else None
    file = adm_file(channels=64, mults=(1, 2), attention=(1,), classes=classes)
    base = imported(tmp_path, file, replace(ADM, class_label=label))
    model, _ = load_model(base.path)
    pipeline, unet = exported(tmp_path, base.path)
    with torch.no_grad():
        theirs = unet(pictures(), T - 1).sample[:, :3]
        assert float((model(pictures(), T) - theirs).abs().max()) < 1e-5
    assert pipeline.scheduler.config.variance_type == "learned_range"
    drawn = pipeline(1, num_inference_steps=2, output_type="np").images
    assert drawn.shape == (1, 32, 32, 3)


def test_what_diffusers_has_no_module_for_is_refused(tmp_path: Path) -> None:
    half = adm_file(channels=64, mults=(0.5, 1), attention=(1,))
    for number, (file, asked, words) in enumerate([
        (half, ADM, "first level's width"),
        (adm_file(), replace(ADM, head_channels=None, heads=2), "heads at every width"),
    ]):  # fmt: skip
        (tmp_path / str(number)).mkdir()
        base = imported(tmp_path / str(number), file, asked)
        with pytest.raises(BadInput, match=words):
            to_diffusers(base.path, tmp_path / "out")
    info = ModelInfo("tiny", TinyConfig(), SCHEDULE, 16)
    save_model(tmp_path / "tiny", info, info.build().state_dict())
    with pytest.raises(BadInput, match="no module for the network 'tiny'"):
        to_diffusers(tmp_path / "tiny", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match="there already"):
        to_diffusers(base.path, tmp_path / "out")


def test_an_asyrp_edit_is_applied_by_the_editor_as_published(tmp_path: Path) -> None:
    base, store = imported(tmp_path, ddpm_file()), Store(tmp_path / "store")
    torch.save(written("ddpm"), tmp_path / "e.pth")
    config = ImportConfig(str(tmp_path / "e.pth"), name="smiling", base=base.ref, t_min=150, r=400)
    tuned = import_model.run(config, store, CPU)
    plan = make_plan(base, [Part(tuned)], steps=6)
    assert (plan.r, plan.grid[-1]) == (400, 400)
    editor = Editor(plan, Networks(base, torch.device("cpu")))
    start = editor.invert(pictures())
    model, info = load_model(base.path)
    for strength in (1.0, -0.5):
        edit = HSpaceEdit(model, [(read_hspace(tuned.path)[0], strength)])
        with torch.no_grad():
            expected = asymmetric.decode(
                model, edit, info.schedule, start.x_r, plan.grid, t_min=150
            )
        got = editor.decode(start, strength, direct=False)
        assert float((got - expected).abs().max()) < 1e-3
    assert float((editor.decode(start, 0.0) - pictures()).abs().max()) < 1e-4
    assert float((editor.decode(start, 1.0) - pictures()).abs().max()) > 1e-2
    mixed = Editor(replace(plan, mix="noise"), editor.networks)
    with pytest.raises(BadInput, match="mixed by noise"):
        mixed.decode(start, 1.0)
