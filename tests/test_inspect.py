"""A model's sigmas, and a picture as the model sees it, by the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.schedulers import scheduling_lms_discrete
from PIL import Image
from sd_folder import pipeline
from small_cli import Shell
from test_sample_stage import T, make_store

from dclip.data import faces
from dclip.data.images import save_png, to_float
from dclip.latent.files import load_decoder
from dclip.models.checkpoint import read_info
from dclip.store import Artifact, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path / "store")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    place = tmp_path / "photo.png"
    save_png(place, faces.draw(faces.sample(5, 0), size=64))
    return place


def figure(store: Store) -> Artifact:
    return max(store.list("figure"), key=lambda each: each.version)


def numbers(store: Store) -> dict[str, object]:
    return json.loads((figure(store).path / "numbers.json").read_text())


def test_sigmas_are_noise_by_signal_at_each_step(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    Shell(store.root, capsys)("inspect", "--model", "base", "--steps", "4,8")
    found = numbers(store)["sigmas"]
    info = read_info(store.resolve("base", "model").path)
    alpha_bar = info.schedule.alpha_bar
    for steps in (4, 8):
        labels = [round(T - T * k / steps) for k in range(steps + 1)]
        expected = [math.sqrt((1 - alpha_bar[t]) / alpha_bar[t]) for t in labels]
        assert found[str(steps)] == pytest.approx(expected, rel=1e-9)
    assert (figure(store).path / "sigmas.png").is_file()
    assert not (figure(store).path / "panel.png").exists()


def test_stable_diffusion_s_sigmas_are_those_of_diffusers_lms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline(tmp_path / "sd")
    shell = Shell(tmp_path / "store", capsys)
    shell("import", str(tmp_path / "sd"), "--name", "sd")
    shell("inspect", "--model", "sd", "--steps", "5")
    store = Store(tmp_path / "store")
    config = json.loads((tmp_path / "sd/scheduler/scheduler_config.json").read_text())
    lms = scheduling_lms_discrete.LMSDiscreteScheduler.from_config(
        config, timestep_spacing="leading"
    )
    lms.set_timesteps(5)
    # diffusers counts timesteps from 0; ours is the same sigma by its own label.
    assert numbers(store)["sigmas"]["5"] == pytest.approx(lms.sigmas.tolist(), rel=1e-5, abs=1e-9)


def test_a_latent_s_channels_its_decode_and_its_noised_decode(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline(tmp_path / "sd")
    shell = Shell(tmp_path / "store", capsys)
    shell("import", str(tmp_path / "sd"), "--name", "sd")
    out, _ = shell("inspect", str(photo), "--model", "sd", "--t", "100,900")
    assert "panel.png" in out
    store = Store(tmp_path / "store")
    made, base = figure(store), store.resolve("sd", "model")
    size = read_info(base.path).image_size
    decoder = load_decoder(base.path)
    with Image.open(photo) as image:
        resized = np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))
    x = to_float(torch.from_numpy(resized.transpose(2, 0, 1).copy()))[None]
    z = decoder.latents(x)
    assert made.metrics["latent_std"] == pytest.approx(float(z.std()), rel=1e-3)
    error = ((decoder.decode(z).clamp(-1, 1) - x) / 2).square().mean()
    assert made.metrics["psnr"] == pytest.approx(float(-10 * error.log10()), abs=0.1)
    page = Image.open(made.path / "panel.png")
    columns, rows = 1 + z.shape[1] + 1, 3
    assert page.width > 160 * columns and page.height > 160 * rows


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--steps", "4,99"), "99 steps do not fit"),
        (("--t", "5"), "t has no effect without"),
        (("PHOTO", "--t", "500"), "outside 1..40"),
        (("nobody.png",), "nobody.png"),
        (("--train-timesteps", "2000000"), "noise steps"),
    ],
)
def test_bad_input_is_one_line(
    store: Store,
    photo: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: str,
) -> None:
    given = [str(photo) if word == "PHOTO" else word for word in words]
    _, err = Shell(store.root, capsys)("inspect", "--model", "base", *given, code=2)
    assert said in err and "Traceback" not in err
    assert not store.list("figure")
