"""Pretrained models as people have them: folders, files and ids, whole and broken."""

from __future__ import annotations

import json
import os
import pickle
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from pretrained_reference import adm_file, ddpm_file
from safetensors.torch import load_file, save_file
from torch import Tensor

from dclip.context import Context
from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput, CorruptArtifact, DclipError
from dclip.models.checkpoint import load_model, read_info
from dclip.models.pretrained import Asked
from dclip.models.pretrained import folder as folder_module
from dclip.models.pretrained.files import read_tensors
from dclip.models.pretrained.opening import Opened, open_source
from dclip.models.pretrained.schedulers import read_scheduler
from dclip.stages import import_model
from dclip.stages.import_model import ImportConfig
from dclip.store import Planned, Store

CPU = Context(device="cpu", workers=1)
T = torch.tensor([1, 700])
GOOGLE: dict[str, Any] = {
    "sample_size": 16, "block_out_channels": (32, 32, 64), "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None, "downsample_padding": 0, "flip_sin_to_cos": False,
    "freq_shift": 1, "norm_eps": 1e-6,
}  # fmt: skip
"""google/ddpm-*'s settings at reduced width."""


def pictures(side: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn((2, 3, side, side), generator=generator)


def unet(**changes: Any) -> UNet2DModel:
    torch.manual_seed(1)
    return UNet2DModel(**GOOGLE | changes).eval()


def saved(path: Path, scheduler: Any = None, nested: bool = False, **options: Any) -> Path:
    """A folder as diffusers saves it: files at the root, or in ``unet/`` and ``scheduler/``."""
    scheduler = scheduler or DDPMScheduler()
    changes = options.pop("changes", {})
    unet(**changes).save_pretrained(path / "unet" if nested else path, **options)
    scheduler.save_pretrained(path / "scheduler" if nested else path)
    return path


def eps_of(opened: Opened) -> Tensor:
    model = opened.info.build().eval()
    model.load_state_dict(opened.weights())
    with torch.no_grad():
        out: Tensor = model(pictures(), T)
    return out


def expected() -> Tensor:
    with torch.no_grad():
        out: Tensor = unet()(pictures(), T - 1).sample
    return out


# --- folders

FOLDERS: dict[str, Callable[[Path], Path]] = {
    "at the root": lambda p: saved(p),
    "nested": lambda p: saved(p, nested=True),
    "a .bin": lambda p: saved(p, safe_serialization=False),
    "sharded": lambda p: saved(p, max_shard_size="200KB"),
    "a nested sharded .bin": lambda p: saved(
        p, nested=True, max_shard_size="200KB", safe_serialization=False
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_of_diffusers_is_its_own_network(kind: str, tmp_path: Path) -> None:
    opened = open_source(str(FOLDERS[kind](tmp_path / "model")))
    assert float((eps_of(opened) - expected()).abs().max()) < 1e-6
    assert opened.info.image_size == 16
    assert opened.info.source is not None and opened.info.source.id == "model"
    if "sharded" in kind:
        assert len(opened.info.source.files) > 2


def test_half_precision_alone_is_taken_and_full_precision_goes_before_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "m")
    (path / "diffusion_pytorch_model.safetensors").unlink()
    unet().half().save_pretrained(path, variant="fp16")
    opened = open_source(str(path))
    assert {v.dtype for v in opened.weights().values()} == {torch.float16}
    unet().save_pretrained(path)
    both = open_source(str(path))
    assert {v.dtype for v in both.weights().values()} == {torch.float32}
    assert any("from diffusion_pytorch_model.safetensors" in note for note in both.notes)


@pytest.mark.parametrize("shards", [False, True])
def test_attention_under_its_old_names_is_renamed(shards: bool, tmp_path: Path) -> None:
    path = saved(tmp_path / "m", **({"max_shard_size": "200KB"} if shards else {}))
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = 0
    for file in path.glob("*.safetensors"):
        weights = load_file(file)
        for new, old in names.items():
            for name in [n for n in weights if f".{new}." in n]:
                weights[name.replace(f".{new}.", f".{old}.")] = weights.pop(name)
                renamed += 1
        save_file(weights, file)
    assert renamed == 32
    assert float((eps_of(open_source(str(path))) - expected()).abs().max()) < 1e-6


def test_a_licence_is_read_from_a_card_and_only_from_there(tmp_path: Path) -> None:
    path = saved(tmp_path / "m")
    assert open_source(str(path)).info.source.licence is None  # type: ignore[union-attr]
    (path / "README.md").write_text("---\ntags:\n- x\nlicense: apache-2.0\n---\nlicense: mine\n")
    assert open_source(str(path)).info.source.licence == "apache-2.0"  # type: ignore[union-attr]
    torch.save(ddpm_file(), path / "lone.ckpt")
    lone = open_source(str(path / "lone.ckpt"), Asked(size=32))
    assert lone.info.source.licence is None  # type: ignore[union-attr]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_whatever_a_network_predicts_becomes_eps(prediction: str, tmp_path: Path) -> None:
    """Against diffusers' own conversion in DDIMScheduler.step."""
    scheduler = DDIMScheduler(prediction_type=prediction, clip_sample=False)
    opened = open_source(str(saved(tmp_path / "m", scheduler)))
    k = 700
    output = unet()(pictures(), torch.tensor([k])).sample.detach()
    scheduler.set_timesteps(1000)
    x0 = scheduler.step(output, k, pictures()).pred_original_sample
    a, b = opened.info.schedule.coefficients(k + 1)
    model = opened.info.build().eval()
    model.load_state_dict(opened.weights())
    with torch.no_grad():
        eps = model(pictures(), torch.tensor([k + 1] * 2))
    assert torch.allclose((pictures() - b * eps) / a, x0, atol=2e-3, rtol=1e-3)
    assert torch.allclose(eps, (pictures() - a * x0) / b, atol=1e-4)


# --- schedules and grids

SCHEDULES: dict[str, tuple[dict[str, Any], Schedule]] = {
    "linear": ({}, Schedule.make("linear", 1000)),
    "other ends": (
        {"beta_start": 0.0015, "beta_end": 0.0195}, Schedule.make("linear", 1000, (0.0015, 0.0195))
    ),
    "scaled": (
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        Schedule.make("scaled-linear", 1000),
    ),
    "cosine": ({"beta_schedule": "squaredcos_cap_v2"}, Schedule.make("cosine", 1000)),
    "T = 250": ({"num_train_timesteps": 250}, Schedule.make("linear", 250)),
    "its own": (
        {"trained_betas": [0.01, 0.02, 0.05, 0.4]}, Schedule.trained([0.01, 0.02, 0.05, 0.4])
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_schedule_is_kept_as_its_scheduler_has_it(kind: str) -> None:
    settings, schedule = SCHEDULES[kind]
    scheduler = DDPMScheduler(**settings)
    fields, _ = read_scheduler(json.loads(scheduler.to_json_string()), Asked(), False)
    assert fields["schedule"] == schedule
    assert Schedule.from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule
    theirs = scheduler.alphas_cumprod.double()
    assert torch.allclose(fields["schedule"].alpha_bar[1:], theirs, rtol=1e-4, atol=1e-7)


def test_linear_betas_are_those_of_float64() -> None:
    """As Ho et al.'s code has them; in float32, as diffusers', alpha_bar_T is 6e-5 off."""
    import numpy as np

    exact = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000, dtype=np.float64))
    assert np.abs(Schedule.make("linear", 1000).alpha_bar[1:].numpy() / exact - 1).max() < 1e-12


@pytest.mark.parametrize(
    ("scheduler", "grid", "offset", "end", "clip", "variance"),
    [
        ({"_class_name": "DDPMScheduler"}, "leading", 0, 0, True, "small"),
        (
            {"_class_name": "DDPMScheduler", "variance_type": "fixed_large", "clip_sample": False},
            "leading", 0, 0, False, "large",
        ),
        (
            {"_class_name": "DDIMScheduler", "timestep_spacing": "trailing"},
            "trailing", 0, 0, True, "small",
        ),
        (
            {"_class_name": "PNDMScheduler", "steps_offset": 1, "skip_prk_steps": True},
            "leading", 1, 1, False, "small",
        ),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "variance_type": None},
            "linspace", 0, 0, False, "small",
        ),
    ],
)  # fmt: skip
def test_the_published_grid_is_kept(
    scheduler: dict[str, Any], grid: str, offset: int, end: int, clip: bool, variance: str
) -> None:
    fields, _ = read_scheduler(scheduler, Asked(), learned=False)
    kept = [fields[k] for k in ("grid", "steps_offset", "grid_end", "clip_sample", "variance")]
    assert kept == [grid, offset, end, clip, variance]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_class_name_s_defaults_are_the_library_s() -> None:
    """A config that leaves settings out means what the class of its name has."""
    import diffusers

    from dclip.models.pretrained.schedulers import SCHEDULERS

    compared = 0
    for name in SCHEDULERS:
        try:
            full = json.loads(getattr(diffusers, name)().to_json_string())
        except (ImportError, AttributeError):  # some need scipy, and not every release has all
            continue
        compared += 1
        said = read_scheduler(full, Asked(), False)[0]
        assert read_scheduler({"_class_name": name}, Asked(), False)[0] == said, name
    assert compared > 8


# --- files


def test_what_training_programs_put_around_a_network_is_taken_off(tmp_path: Path) -> None:
    plain, averaged = ddpm_file(seed=1), ddpm_file(seed=2)
    parallel = {f"module.{k}": v for k, v in plain.items()}
    optimizer = {"state": {0: {"step": 1, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1}]}
    for data, weights in (
        (plain, plain),
        (parallel, plain),
        ([parallel, optimizer, 7, 100, averaged], averaged),
        ({"state_dict": parallel, "epoch": 3}, plain),
        ({"model_ema": averaged, "model": plain}, averaged),
    ):
        torch.save(data, tmp_path / "f.ckpt")
        opened = open_source(str(tmp_path / "f.ckpt"))
        name = "unet.conv_in.weight"
        assert torch.equal(opened.weights()[name], weights["conv_in.weight"])
    assert any("is taken" in note for note in opened.notes)


@pytest.mark.parametrize("old", [False, True], ids=["zipped", "old"])
@pytest.mark.parametrize("file", ["ddpm", "adm"])
def test_a_pickle_of_either_age_is_read(old: bool, file: str, tmp_path: Path) -> None:
    weights = ddpm_file() if file == "ddpm" else adm_file()
    torch.save(weights, tmp_path / "f.pt", _use_new_zipfile_serialization=not old)
    asked = Asked(head_channels=32, qkv="legacy", size=32, schedule="linear")
    read = open_source(str(tmp_path / "f.pt"), asked if file == "adm" else None).weights()
    assert sum(v.numel() for v in read.values()) == sum(v.numel() for v in weights.values())


def test_a_file_is_known_by_its_content_not_its_suffix(tmp_path: Path) -> None:
    save_file(ddpm_file(), tmp_path / "f.ckpt")
    torch.save(ddpm_file(), tmp_path / "f.safetensors")
    for name in ("f.ckpt", "f.safetensors"):
        assert len(open_source(str(tmp_path / name)).weights()) == len(ddpm_file())


def test_a_setting_that_a_family_does_not_have_is_not_passed_over(tmp_path: Path) -> None:
    torch.save(ddpm_file(), tmp_path / "f.ckpt")
    with pytest.raises(BadInput, match="head_channels, qkv: the first DDPM layout"):
        open_source(str(tmp_path / "f.ckpt"), Asked(head_channels=64, qkv="new"))


@pytest.mark.parametrize(
    ("settings", "published", "size", "schedule"),
    [
        (dict(channels=128, mults=(1, 1, 2, 2, 4, 4), attention=(4,)), "AFHQ", 256, "linear"),
        (dict(channels=192, mults=(1, 2, 3, 4), blocks=3, attention=(1, 2, 3), classes=1000),
         "ImageNet 64", 64, "cosine"),
        (dict(channels=256, mults=(0.5, 1, 1, 2, 2, 4, 4), blocks=2, attention=(4, 5, 6),
              classes=1000), "ImageNet 512", 512, "linear"),
    ],
)  # fmt: skip
def test_a_published_adm_network_is_known_by_its_shapes(
    settings: dict[str, Any], published: str, size: int, schedule: str
) -> None:
    from dclip.models.pretrained import FAMILIES

    with torch.device("meta"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("pretrained_reference._Random._draw", lambda self, *s: torch.empty(s))
        shapes = {k: v.shape for k, v in adm_file(**settings).items()}
    label = 5 if "classes" in settings else None
    described = FAMILIES["guided"].describe(shapes, {}, Asked(class_label=label))
    info = described.info
    assert published in described.notes[0]
    assert (info.image_size, info.schedule.name, info.schedule.T) == (size, schedule, 1000)
    assert info.shapes() == shapes
    assert info.config.qkv == ("new" if size == 64 else "legacy")
    if published == "AFHQ":
        assert (len(shapes), sum(s.numel() for s in shapes.values())) == (362, 93_563_910)


# --- what cannot be used


def _write(data: Any) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        torch.save(data, path / "f.pt")
        return path / "f.pt"

    return write


class _Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def _cut(old: bool, keep: float) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        torch.save(ddpm_file(), path / "whole", _use_new_zipfile_serialization=not old)
        data = (path / "whole").read_bytes()
        (path / "f.ckpt").write_bytes(data[: int(keep * len(data))])
        return path / "f.ckpt"

    return write


def _text(name: str, data: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        (path / name).write_bytes(data)
        return path / name

    return write


def _folder(change: Callable[[Path], object], **options: Any) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        saved(path / "m", **options)
        change(path / "m")
        return path / "m"

    return write


def _config(**changes: Any) -> Callable[[Path], Path]:
    def change(path: Path) -> None:
        file = path / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return _folder(change)


def _scheduler(**changes: Any) -> Callable[[Path], Path]:
    def change(path: Path) -> None:
        file = path / "scheduler_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return _folder(change)


def _without(pattern: str, **options: Any) -> Callable[[Path], Path]:
    return _folder(lambda path: [f.unlink() for f in sorted(path.glob(pattern))[:1]], **options)


WEIGHTS = "diffusion_pytorch_model.safetensors"


def _edit_weights(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], Path]:
    def edit(path: Path) -> None:
        weights = load_file(path / WEIGHTS)
        change(weights)
        save_file(weights, path / WEIGHTS)

    return _folder(edit)


_OTHER = {"layer.0.weight": torch.zeros(2, 2), "layer.0.bias": torch.zeros(2)}
_BAD, _CORRUPT = BadInput, CorruptArtifact
REFUSED: dict[str, tuple[Callable[[Path], Path], type[DclipError], str]] = {
    "nothing there": (lambda p: p / "none.ckpt", _BAD, "not there"),
    "another network": (_write(_OTHER), _BAD, "holds layer.0.weight, layer.0.bias"),
    "a list of numbers": (_write([1, 2, 3]), _BAD, "no weights"),
    "a pickle that runs": (_write({"a": _Runs()}), _BAD, r"asks to run \w+.system"),
    "a whole module": (_write(torch.nn.Linear(2, 2)), _BAD, "asks to run torch.nn"),
    "no pickle at all": (_text("f.ckpt", b"some text, not weights"), _BAD, "no checkpoint"),
    "another pickle": (_text("f.ckpt", pickle.dumps({"a": 1})), _BAD, "no checkpoint"),
    "a web page": (_text("f.ckpt", b"\n<!DOCTYPE html><html>"), _BAD, "web page"),
    "a pointer": (_text("f.ckpt", b"version https://git-lfs.github.com/spec/v1\n"), _BAD, "LFS"),
    "an empty file": (_text("f.ckpt", b""), _CORRUPT, "empty"),
    "half a zip": (_cut(False, 0.5), _CORRUPT, "cut off"),
    "the start of a zip": (_cut(False, 0.001), _CORRUPT, "cut off"),
    "half an old pickle": (_cut(True, 0.5), _CORRUPT, "cut off"),
    "nearly all": (_cut(False, 0.9999), _CORRUPT, "cut off"),
    "half a safetensors": (
        _folder(lambda p: (p / WEIGHTS).write_bytes((p / WEIGHTS).read_bytes()[:5000])),
        _CORRUPT, "not a readable safetensors",
    ),
    "an empty folder": (_folder(lambda p: [f.unlink() for f in p.iterdir()]), _BAD, "nothing"),
    "no weights": (_without("*.safetensors"), _BAD, "has no diffusion_pytorch_model"),
    "a shard short": (
        _without("*-of-*.safetensors", max_shard_size="200KB"), _CORRUPT, r"1 of \d+ shards"
    ),
    "no index": (_without("*.index.json", max_shard_size="200KB"), _CORRUPT, "index.json"),
    "an index that leads out": (
        _folder(
            lambda p: (p / f"{WEIGHTS}.index.json").write_text(
                json.dumps({"weight_map": {"a": "../../etc/x.safetensors"}})
            ),
            max_shard_size="200KB",
        ),
        _BAD, "leads out",
    ),
    "no scheduler": (_without("scheduler_config.json"), _BAD, "no scheduler_config.json"),
    "no config": (_without("config.json"), _BAD, "shapes do not say"),
    "a config that is no JSON": (
        _folder(lambda p: (p / "config.json").write_text("{")), _CORRUPT, "no readable JSON"
    ),
    "a network of text": (_config(_class_name="UNet2DConditionModel"), _BAD, "Stable Diffusion"),
    "latents": (
        _folder(lambda p: (p / "model_index.json").write_text('{"vqvae": ["diffusers", "VQ"]}')),
        _BAD, "draws latents",
    ),
    "noise by size": (_config(time_embedding_type="fourier"), _BAD, "score model"),
    "an unknown block": (_config(down_block_types=["os.system"] * 3), _BAD, "down_block_types"),
    "an unknown activation": (_config(act_fn="eval"), _BAD, "act_fn"),
    "a width that is text": (_config(block_out_channels=["32", 32, 64]), _BAD, "whole number"),
    "a network that fills memory": (
        _config(block_out_channels=[8192, 8192, 8192]), _BAD, "unknown weights"
    ),
    "a width beyond all": (_config(block_out_channels=[10**9, 32, 64]), _BAD, "widths"),
    "groups that do not divide": (_config(norm_num_groups=7), _BAD, "builds no UNet2DModel"),
    "one channel": (_config(in_channels=1, out_channels=1), _BAD, "1 channel"),
    "four channels": (_config(in_channels=4, out_channels=4), _BAD, "4 channels"),
    "oblong": (_config(sample_size=[16, 32]), _BAD, "square"),
    "a side that does not halve": (_config(sample_size=18), _BAD, "multiple of 4"),
    "no size": (_config(sample_size=None), _BAD, "sample_size"),
    "classes but none asked for": (_config(num_class_embeds=10), _BAD, "--class 0..9"),
    "another noise": (_scheduler(_class_name="ScoreSdeVeScheduler"), _BAD, "ScoreSdeVe"),
    "another schedule": (_scheduler(beta_schedule="laplace"), _BAD, "laplace"),
    "betas that are none": (_scheduler(beta_start=-1.0), _BAD, "betas"),
    "no signal at the end": (_scheduler(rescale_betas_zero_snr=True), _BAD, "rescale"),
    "a weight missing": (_edit_weights(lambda w: w.pop("conv_in.bias")), _BAD, "lacks weights"),
    "a weight too many": (
        _edit_weights(lambda w: w.update(extra=torch.zeros(1))), _BAD, "unknown weights"
    ),
    "a weight of another shape": (
        _edit_weights(lambda w: w.update({"conv_in.bias": torch.zeros(5)})), _BAD, "misshapen"
    ),
    "overflow in half": (
        _edit_weights(
            lambda w: w.update({"conv_in.bias": torch.full((32,), 1e6).half()})
        ),
        _CORRUPT, "overflowed in half precision",
    ),
    "an ADM network that is not published": (_write(adm_file()), _BAD, "none of the published"),
    "an upsampler": (
        _write(adm_file() | {"input_blocks.0.0.weight": torch.zeros(32, 6, 3, 3)}),
        _BAD, "upsampler",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_line(what: str, tmp_path: Path) -> None:
    make, kind, words = REFUSED[what]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = make(tmp_path)
    store = Store(tmp_path / "store")
    with pytest.raises(kind) as caught:
        import_model.run(ImportConfig(str(source)), store, CPU)
    assert type(caught.value) is kind
    assert re.search(words, f"{caught.value.message}; {caught.value.fix}"), caught.value.message
    assert "\n" not in caught.value.message and caught.value.fix
    assert not list(store.list("model")), "something was imported"


def test_nothing_that_a_pickle_holds_is_run(tmp_path: Path) -> None:
    class Touches:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"a": Touches()}, tmp_path / "f.pt")
    with pytest.raises(BadInput):
        read_tensors(tmp_path / "f.pt")
    assert not (tmp_path / "ran").exists()


# --- the hub


class _Hub:
    """The hub's client with one repository, or what it raises."""

    def __init__(self, root: Path | None = None, error: Exception | None = None) -> None:
        self.root, self.error, self.fetched = root, error, list[str]()

    def install(self, patch: pytest.MonkeyPatch) -> _Hub:
        import huggingface_hub

        patch.setattr(huggingface_hub.HfApi, "model_info", lambda api, id, **_: self._info(id))
        patch.setattr(huggingface_hub, "hf_hub_download", self._download)
        return self

    def _info(self, id: str) -> Any:
        if self.error:
            raise self.error
        assert self.root is not None
        import hashlib
        from types import SimpleNamespace as Made

        files = [f for f in sorted(self.root.rglob("*")) if f.is_file()]
        siblings = [
            Made(
                rfilename=f.relative_to(self.root).as_posix(),
                size=f.stat().st_size,
                lfs=Made(sha256=hashlib.sha256(f.read_bytes()).hexdigest())
                if f.suffix == ".safetensors"
                else None,
            )
            for f in files
        ]
        return Made(sha="abc123", siblings=siblings, card_data=Made(license="mit"))

    def _download(self, id: str, name: str, **_: Any) -> str:
        assert self.root is not None
        self.fetched.append(name)
        return str(self.root / name)


def test_a_hub_id_is_fetched_at_a_commit_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = saved(tmp_path / "repo")
    (root / "diffusion_pytorch_model.bin").write_bytes(b"not to be fetched")
    hub = _Hub(root).install(monkeypatch)
    opened = open_source("google/small")
    source = opened.info.source
    assert source is not None and not any("pytorch" in name for name in hub.fetched)
    assert (source.id, source.revision, source.licence) == ("google/small", "abc123", "mit")
    assert float((eps_of(opened) - expected()).abs().max()) < 1e-6
    assert sorted(set(hub.fetched)) == ["config.json", WEIGHTS, "scheduler_config.json"]
    again = open_source("google/small")
    (root / WEIGHTS).write_bytes((root / WEIGHTS).read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptArtifact, match="not what the hub says"):
        again.weights()


def test_a_file_on_the_hub_is_named_after_its_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "repo").mkdir()
    torch.save(ddpm_file(), tmp_path / "repo" / "celeba_hq.ckpt")
    _Hub(tmp_path / "repo").install(monkeypatch)
    for source in ("someone/repo/celeba_hq.ckpt", "someone/repo"):
        assert open_source(source).info.source.family == "ddpm"  # type: ignore[union-attr]
    torch.save(ddpm_file(), tmp_path / "repo" / "other.ckpt")
    with pytest.raises(BadInput, match="2 files of weights") as caught:
        open_source("someone/repo")
    assert "someone/repo/celeba_hq.ckpt" in caught.value.fix


def _response(status: int) -> Any:
    import huggingface_hub.errors as errors

    for module in ("httpx2", "httpx", "requests"):
        try:
            http = __import__(module)
        except ImportError:
            continue
        if issubclass(errors.HfHubHTTPError, http.HTTPError):
            if module == "requests":
                made = http.Response()
                made.status_code = status
                return made
            return http.Response(status, request=http.Request("GET", "https://huggingface.co"))
    raise AssertionError("no HTTP library of the hub's client")


def _hub_error(name: str, status: int) -> Exception:
    import huggingface_hub.errors as errors

    error: Exception = getattr(errors, name)("said so", response=_response(status))
    return error


@pytest.mark.parametrize(
    ("error", "words", "fix"),
    [
        (lambda: _hub_error("GatedRepoError", 403), "gated", "accept them at"),
        (lambda: _hub_error("RepositoryNotFoundError", 401), "no such model", "check the name"),
        (lambda: _hub_error("RevisionNotFoundError", 404), "no revision", "commits"),
        (lambda: _hub_error("HfHubHTTPError", 503), "cannot be reached", "pass the folder"),
        (lambda: ConnectionError("no network"), "cannot be reached", "scheduler_config.json"),
        (lambda: TimeoutError("slow"), "cannot be reached", "tree/main"),
    ],
)
def test_what_keeps_a_hub_id_away_is_said_in_one_line(
    error: Callable[[], Exception], words: str, fix: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    _Hub(error=error()).install(monkeypatch)
    with pytest.raises(BadInput, match=words) as caught:
        open_source("google/ddpm-nowhere-256")
    assert fix in caught.value.fix and "\n" not in caught.value.message + caught.value.fix


def test_offline_a_download_of_earlier_days_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = saved(tmp_path / "abc123")
    _Hub(error=ConnectionError("no network")).install(monkeypatch)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(root))
    source = open_source("google/small").info.source
    assert source is not None and (source.id, source.revision) == ("google/small", "abc123")


def test_without_diffusers_the_one_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(ddpm_file(), tmp_path / "f.ckpt")
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(BadInput, match="needs the package diffusers") as caught:
        import_model.run(ImportConfig(str(tmp_path / "f.ckpt")), Store(tmp_path / "s"), CPU)
    assert caught.value.fix == "pip install 'dclip[hub]'"


# --- the stage


def test_an_import_is_a_model_like_ours_and_is_made_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    path = saved(tmp_path / "small model")
    made = import_model.run(ImportConfig(str(path)), store, CPU)
    assert made.fresh and made.ref == "model/small-model/v1"
    model, info = load_model(made.path)
    with torch.no_grad():
        assert float((model(pictures(), T) - expected()).abs().max()) < 1e-6
    assert info == read_info(made.path) and info.source is not None
    assert (info.source.family, len(info.source.files[WEIGHTS])) == ("diffusers", 64)
    assert not import_model.run(ImportConfig(str(path)), store, CPU).fresh
    weights = load_file(path / WEIGHTS)
    weights["conv_in.bias"] += 1
    save_file(weights, path / WEIGHTS)
    assert import_model.run(ImportConfig(str(path)), store, CPU).version == 2


def test_a_base_of_faces_edits_the_faces_of_whole_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import photo_scenes as scenes

    from dclip.data.photos import photo_files
    from dclip.editing import whole

    store = Store(tmp_path / "store")
    settings = ImportConfig(str(saved(tmp_path / "ddpm-celebahq-16")))
    info = read_info(import_model.run(settings, store, CPU).path)
    assert (info.domain, info.frame) == ("faces", "ffhq")
    photo = scenes.save(
        scenes.scene((200, 120), [scenes.Sitter(1, (90, 60), 80)]), tmp_path / "a.png"
    )
    monkeypatch.setattr(whole, "FaceFinder", lambda: None)
    monkeypatch.setattr(whole, "available", lambda: True)
    found = whole.whole_photos(photo_files([photo], size=16), info)
    assert found is not None and found.frame.name == "ffhq"
    said = replace(settings, domain="photos", name="other")
    other = read_info(import_model.run(said, store, CPU).path)
    assert (other.domain, other.frame) == ("photos", "center")
    assert whole.whole_photos(photo_files([photo], size=16), other) is None


def test_a_sample_is_drawn_with_it(tmp_path: Path) -> None:
    from dclip.stages import sample

    store = Store(tmp_path / "store")
    import_model.run(ImportConfig(str(saved(tmp_path / "m"))), store, CPU)
    drawn = sample.run(sample.SampleConfig(model="m", count=2, steps=3, batch=2), store, CPU)
    assert (drawn.path / "images" / "0001.png").is_file()


def test_a_dry_run_says_what_it_is_and_what_it_costs(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(Planned) as planned:
        import_model.run(
            ImportConfig(str(saved(tmp_path / "m"))), store, replace(CPU, dry_run=True)
        )
    said = planned.value.plan["estimate"]
    assert said["parameters"] == sum(p.numel() for p in unet().parameters())
    assert said["recognised"] == "unet2d, 16 pixels, T = 1000"
    assert said["gflop_per_network_call"] > 0
    assert not list(store.list())


def test_half_precision_on_disk_halves_it_and_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    store, path = Store(tmp_path / "store"), saved(tmp_path / "m")
    made = import_model.run(ImportConfig(str(path), storage="fp16"), store, CPU)
    stored = load_file(made.path / "model.safetensors")
    assert {v.dtype for v in stored.values()} == {torch.float16}
    weights = load_file(path / WEIGHTS)
    weights["conv_in.bias"][0] = 1e5
    save_file(weights, path / WEIGHTS)
    with pytest.raises(BadInput, match="beyond 65504"):
        import_model.run(ImportConfig(str(path), storage="fp16"), store, CPU)
    assert len(list(store.list("model"))) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"schedule": "sine"}, "schedule 'sine' is unknown"),
        ({"grid": "odd"}, "grid 'odd' is unknown"),
        ({"heads": 4, "head_channels": 64}, "--heads has no effect with --head-channels"),
        ({"T": 0}, "T is 0"),
        ({"base": "b", "size": 64}, "--size has no effect with --base"),
        ({"r": 300}, "--r has no effect without --base"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        ImportConfig("x", **settings)


def test_what_the_user_says_goes_before_what_the_files_say(tmp_path: Path) -> None:
    asked = Asked(size=32, schedule="cosine", T=500, grid="trailing", prediction="x0")
    info = open_source(str(saved(tmp_path / "m")), asked).info
    assert (info.image_size, info.grid, info.prediction) == (32, "trailing", "x0")
    assert info.schedule == Schedule.make("cosine", 500)


def test_a_class_conditional_model_draws_the_class_that_was_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path / "m", changes={"num_class_embeds": 5})
    store = Store(tmp_path / "store")
    with pytest.raises(BadInput, match=r"class 5: it knows 0\.\.4"):
        import_model.run(ImportConfig(str(path), class_label=5), store, CPU)
    made = import_model.run(ImportConfig(str(path), class_label=3), store, CPU)
    model, info = load_model(made.path)
    with torch.no_grad():
        one = unet(num_class_embeds=5)(pictures(), T - 1, torch.tensor([3, 3])).sample
        assert float((model(pictures(), T) - one).abs().max()) < 1e-6
    assert info.classes == 5 and info.class_label == 3


def test_two_levels_of_a_folder_are_seen(tmp_path: Path) -> None:
    assert set(folder_module.LocalFolder(saved(tmp_path / "m", nested=True)).sizes) >= {
        "unet/config.json", "scheduler/scheduler_config.json"
    }  # fmt: skip
