"""Stable Diffusion folders: imported, and drawn with as diffusers' own pipeline draws."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers import scheduling_lms_discrete
from fakes import quad
from PIL import Image
from safetensors.torch import load_file, save_file
from sd_folder import ddim, pipeline
from small_cli import Shell

from dclip.configs.import_model import ImportConfig
from dclip.configs.sample import SampleConfig
from dclip.context import Context
from dclip.errors import BadInput, CorruptArtifact
from dclip.latent.files import load_decoder
from dclip.models.checkpoint import load_model, read_info
from dclip.models.pretrained.opening import open_source
from dclip.random import key, normal
from dclip.stages import import_model, sample
from dclip.store import Store

diffusers = pytest.importorskip("diffusers")
CPU = Context(device="cpu")
PROMPTS = ("face", "a face face")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sd")


@pytest.fixture(scope="module")
def theirs(place: Path) -> Any:
    return pipeline(place / "sd")


@pytest.fixture(scope="module")
def store(place: Path, theirs: Any) -> Store:
    store = Store(place / "store")
    import_model.run(ImportConfig(source=str(place / "sd")), store, CPU)
    return store


def noise(store: Store, count: int = 2) -> torch.Tensor:
    """What the first pictures of a prompt start from."""
    info = read_info(store.resolve("sd", "model").path)
    return normal([key(0, "sample", i, info.schedule.T) for i in range(count)], info.shape)


SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "plms": "PNDMScheduler",
    "lms": "LMSDiscreteScheduler",
    "euler": "EulerDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpmpp-2m": "DPMSolverMultistepScheduler",
}


@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_pictures_are_those_of_the_pipeline(
    store: Store, theirs: Any, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling_lms_discrete, "integrate", SimpleNamespace(quad=quad), False)
    # Their DPM-Solver has a "leading" of its own, by one step more.
    spacing: Any = "trailing" if sampler == "dpmpp-2m" else "leading"
    config = SampleConfig(
        model="sd", prompt=PROMPTS, negative="e", cfg=4.0, steps=6, count=2, sampler=sampler,
        grid=spacing,
    )  # fmt: skip
    made = sample.run(config, store, CPU)
    got = np.stack([np.asarray(Image.open(made.path / f"images/{i:04d}.png")) for i in range(4)])
    name = SCHEDULERS[sampler]
    # Of its module: the package hides it where scipy is not installed.
    kind = getattr(scheduling_lms_discrete, name, None) or getattr(diffusers, name)
    own = theirs.scheduler
    # Else a scheduler takes its own default in place of one that the config did not set.
    spaced = {"timestep_spacing": spacing, "clip_sample": False}
    theirs.scheduler = kind.from_config(own.config, **spaced)
    try:
        wanted = theirs(
            [prompt for prompt in PROMPTS for _ in range(2)],
            negative_prompt=["e"] * 4,
            guidance_scale=4.0,
            num_inference_steps=6,
            latents=noise(store).repeat(2, 1, 1, 1),
            output_type="np",
        ).images
    finally:
        theirs.scheduler = own
    assert wanted.std() > 0.05
    assert np.abs(got / 255 - wanted).max() <= 0.5 / 255 + 1e-4
    assert len({picture.tobytes() for picture in got}) == 4


def test_with_little_memory_the_pictures_are_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.models.attention_processor import SlicedAttnProcessor

    config = SampleConfig(model="sd", prompt=PROMPTS, cfg=4.0, steps=3, count=2)
    decoded: list[int] = []
    decode = diffusers.AutoencoderKL._decode
    sliced: list[int] = []
    call = SlicedAttnProcessor.__call__

    def seen(self: Any, *args: Any, **more: Any) -> Any:
        sliced.append(self.slice_size)
        return call(self, *args, **more)

    def watched(self: Any, z: torch.Tensor, *args: Any, **more: Any) -> Any:
        decoded.append(len(z))
        return decode(self, z, *args, **more)

    monkeypatch.setattr(diffusers.AutoencoderKL, "_decode", watched)
    monkeypatch.setattr(SlicedAttnProcessor, "__call__", seen)

    def drawn() -> np.ndarray:
        made = sample.run(config, store, replace(CPU, force=True))
        files = sorted(made.path.glob("images/*.png"))
        return np.stack([np.asarray(Image.open(file), np.int16) for file in files])

    plain = drawn()
    assert not sliced and decoded == [1] * 4
    monkeypatch.setattr(sample, "scarce", lambda device: True)
    assert np.abs(drawn() - plain).max() <= 1
    assert sliced and plain.std() > 10


def test_the_ancestral_sampler_steps_as_theirs_on_the_same_noise(store: Store, theirs: Any) -> None:
    from dclip.diffusion.conditioning import ClassifierFree
    from dclip.diffusion.samplers import SAMPLERS
    from dclip.encoders.find import encoder_of

    artifact = store.resolve("sd", "model")
    model, info = load_model(artifact.path, latents=True)
    encoder = encoder_of(artifact, info.text, store).load("cpu")
    guided = ClassifierFree(model, encoder.encode(["face"]), encoder.encode([""]), 4.0)
    kind = diffusers.EulerAncestralDiscreteScheduler
    scheduler = kind.from_config(theirs.scheduler.config, timestep_spacing="leading")
    scheduler.set_timesteps(5)
    drawn = {int(t): torch.randn(1, 4, 8, 8) for t in scheduler.timesteps}
    x = start = torch.randn(1, 4, 8, 8)
    x = x * scheduler.init_noise_sigma
    labels = [int(t) + 1 for t in scheduler.timesteps]
    for here, t in enumerate(scheduler.timesteps):
        eps = guided(scheduler.scale_model_input(x, t), torch.tensor([labels[here]]))
        with pytest.MonkeyPatch.context() as patch:
            name = "diffusers.schedulers.scheduling_euler_ancestral_discrete.randn_tensor"
            patch.setattr(name, lambda *_, drawn=drawn[int(t)], **__: drawn)
            x = scheduler.step(eps, t, x).prev_sample
    arriving = {s: drawn[labels[i] - 1] for i, s in enumerate([*labels[1:], 0])}
    got = SAMPLERS["euler-ancestral"](
        guided, info.schedule, start, (0, *reversed(labels)), noise=lambda s: arriving[s]
    )
    torch.testing.assert_close(got, x, rtol=1e-4, atol=1e-4)


def test_the_artifact_stands_alone(store: Store, place: Path, theirs: Any) -> None:
    artifact = store.resolve("sd", "model")
    files = {p.relative_to(artifact.path).as_posix() for p in artifact.path.rglob("*")}
    assert {"vae/config.json", "text_encoder/config.json", "model.safetensors"} <= files
    info = read_info(artifact.path)
    assert info.source is not None and info.source.family == "stable-diffusion"
    assert (info.image_size, info.shape, info.clip_sample) == (16, (4, 8, 8), False)
    assert (info.grid, info.steps_offset, info.grid_end) == ("leading", 1, 1)


def test_the_autoencoder_is_theirs(store: Store, theirs: Any) -> None:
    ours = load_decoder(store.resolve("sd", "model").path)
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    mean = theirs.vae.encode(x).latent_dist.mean
    torch.testing.assert_close(ours.latents(x), mean * 0.18215)
    torch.testing.assert_close(ours.decode(mean * 0.18215), theirs.vae.decode(mean).sample)


def test_without_a_condition_it_is_the_empty_prompt(store: Store, theirs: Any) -> None:
    model, _ = load_model(store.resolve("sd", "model").path, latents=True)
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([5, 800])
    empty = theirs.encode_prompt("", "cpu", 1, False)[0].expand(2, -1, -1)
    wanted = theirs.unet(x, t - 1, encoder_hidden_states=empty).sample
    torch.testing.assert_close(model(x, t), wanted, rtol=1e-4, atol=1e-5)


def test_a_network_that_predicts_v_is_drawn_with_as_theirs(tmp_path: Path) -> None:
    theirs = pipeline(tmp_path / "v", prediction="v_prediction", use_linear_projection=True)
    store = Store(tmp_path / "store")
    import_model.run(ImportConfig(source=str(tmp_path / "v")), store, CPU)
    config = SampleConfig(prompt=("face",), cfg=3.0, steps=4, count=1)
    made = sample.run(config, store, CPU)
    theirs.scheduler = ddim(theirs.scheduler)
    start = normal([key(0, "sample", 0, 1000)], (4, 8, 8))
    wanted = theirs(
        "face", guidance_scale=3.0, num_inference_steps=4, latents=start, output_type="np"
    ).images[0]
    got = np.asarray(Image.open(made.path / "images/0000.png"))
    assert np.abs(got / 255 - wanted).max() <= 0.5 / 255 + 1e-4


@pytest.fixture
def copied(place: Path, theirs: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(place / "sd", tmp_path / "sd"))


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("vae/config.json", "not complete"),
        ("tokenizer/tokenizer.json", "not complete"),
        ("scheduler/scheduler_config.json", "not complete"),
        ("text_encoder/model.safetensors", "has no text_encoder/"),
        ("vae/diffusion_pytorch_model.safetensors", "has no vae/diffusion_pytorch_model"),
    ],
)
def test_a_missing_part_is_named(copied: Path, part: str, said: str) -> None:
    (copied / part).unlink()
    with pytest.raises((BadInput, CorruptArtifact), match=said):
        open_source(str(copied))


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type"),
        ("unet/config.json", {"in_channels": 9}, "takes 9 channels and gives 4"),
        ("unet/config.json", {"_class_name": "UNet2DModel"}, "describes a UNet2DModel"),
        ("vae/config.json", {"latent_channels": 3}, "makes 3 channels"),
        ("text_encoder/config.json", {"architectures": ["T5EncoderModel"]}, "T5EncoderModel"),
        ("text_encoder/config.json", {"hidden_size": 32}, "states have 32 numbers"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    copied: Path, file: str, change: dict[str, Any], said: str
) -> None:
    path = copied / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadInput, match=said):
        open_source(str(copied)).info.build()


def test_weights_that_overflowed_are_refused(copied: Path) -> None:
    file = copied / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    name = next(iter(weights))
    weights[name] = torch.full_like(weights[name], float("inf"))
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(CorruptArtifact, match="NaN or infinite"):
        import_model.run(ImportConfig(source=str(copied)), Store(copied.parent / "store"), CPU)
    assert not list((copied.parent / "store").glob("model/*"))


def test_pickled_parts_are_read_without_running_them(copied: Path, theirs: Any) -> None:
    for part, stem in (("text_encoder", "model"), ("unet", "diffusion_pytorch_model")):
        file = copied / part / f"{stem}.safetensors"
        name = "pytorch_model.bin" if part == "text_encoder" else f"{stem}.bin"
        torch.save(load_file(file), copied / part / name)
        file.unlink()
    store = Store(copied.parent / "store")
    made = import_model.run(ImportConfig(source=str(copied)), store, CPU)
    model, _ = load_model(made.path, latents=True)
    assert torch.equal(model.unet.conv_in.weight, theirs.unet.conv_in.weight)  # type: ignore[union-attr]


def test_the_commands(place: Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    shell = Shell(store.root, capsys)
    out, _ = shell("import", str(place / "sd"), "--dry-run")
    assert "unet2d-condition, 16 pixels, T = 1000" in out
    for words, said in (
        (("--prompt", "face " * 20), "reads at most 16"),
        (("--prompt", "face", "--cfg", "nan"), "cfg"),
        (("--prompt", "face", "--guide", "colour:#ff0000:1"), "denoises latents"),
    ):
        _, err = shell("sample", "--model", "sd", "--count", "1", "--steps", "2", *words, code=2)
        assert said in err and len(err.strip().splitlines()) <= 4
