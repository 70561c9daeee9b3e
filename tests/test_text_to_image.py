"""The page on text to image, and the benchmark that measures it, with small models."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_cli import Shell
from small_store import CPU

import dclip
from dclip.configs.autoencoder_train import AutoencoderTrainConfig
from dclip.configs.prepare import PrepareConfig
from dclip.configs.sample import SampleConfig
from dclip.data import faces
from dclip.diffusion import ddim
from dclip.diffusion.attention import aligned
from dclip.diffusion.prompt_edits import prompt_to_prompt, record
from dclip.diffusion.schedule import Schedule
from dclip.encoders.contract import TextEncoder
from dclip.encoders.find import find_encoder
from dclip.evaluation.judge import load_judge
from dclip.guidance.clip import Guide
from dclip.models.checkpoint import ModelInfo, load_model, save_model
from dclip.models.prediction import bare
from dclip.models.unet import SIZES
from dclip.stages import autoencoder_train, prepare, sample
from dclip.store import Staging, Store

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "text-to-image.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    for line in block.strip().splitlines()
]
WITHOUT = ["style=sketch,bald=1", "style=photo,glasses=1,smiling=1"]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return find_encoder(None, Store(Path("nowhere")), CPU.report).load("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, encoder: TextEncoder) -> Store:
    """Data and an autoencoder "styles", and a model that reads text, of random weights."""
    store = Store(tmp_path_factory.mktemp("text") / "store")
    prepare.run(PrepareConfig("faces", style="all", count=48, name="styles"), store, CPU)
    autoencoder_train.run(AutoencoderTrainConfig(images=4, batch=4), store, CPU)
    info = ModelInfo(
        "unet", SIZES["micro"], Schedule.make("linear-rescaled", 200), 64, text=encoder.info
    )

    def make(staging: Staging) -> dict[str, float]:
        torch.manual_seed(0)
        network = info.build()
        for weight in network.parameters():
            weight.data += 0.02 * torch.randn(weight.shape)
        bare(network).set_empty(encoder.encode([""]))  # type: ignore[operator]
        save_model(staging.path, info, network.state_dict())
        return {}

    store.build(
        stage="train", kind="model", name="reads", config={"without": WITHOUT}, seed=0,
        inputs=find_encoder(None, store, CPU.report).inputs, context=CPU, make=make,
    )  # fmt: skip
    return store


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_s_commands_are_understood(
    store: Store, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command, comments=True)
    assert words[0] == "dclip"
    out, _ = Shell(store.root, capsys)(*words[1:], "--dry-run", "--json")
    assert json.loads(out)["plan"]["stage"].startswith(words[1])


def test_the_page_s_code_replays_and_edits(store: Store, encoder: TextEncoder) -> None:
    network, info = load_model(store.find("model/reads").path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    x0 = torch.rand(1, 3, 16, 16) * 2 - 1
    names: dict[str, Any] = {
        "network": network, "info": info, "encoder": encoder, "x0": x0, "torch": torch,
        "ddim": ddim, "record": record, "aligned": aligned, "prompt_to_prompt": prompt_to_prompt,
    }  # fmt: skip
    exec("\n".join(blocks), names)
    assert (names["photos"] - x0).abs().max() < 1e-4
    assert names["edits"].shape == x0.shape
    assert names["same"].tolist()[:5] == [0, 1, 2, 3, 4]  # one word in another's place


def test_tokens_name_equal_words_alike(encoder: TextEncoder) -> None:
    ids = encoder.ids(["a smiling person", "a bald person", ""])
    assert ids.shape == (3, encoder.info.context)
    assert ids[0, 1] == ids[1, 1] and ids[0, 2] != ids[1, 2] and ids[0, 3] == ids[1, 3]


# --- the benchmark -----------------------------------------------------------------------------


@pytest.fixture
def benchmark() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import text_to_image

    yield text_to_image
    sys.path.remove(str(ROOT / "benchmarks"))


def test_prompts_say_what_is_asked_in_words_that_the_clip_knows(
    benchmark: ModuleType, encoder: Any
) -> None:
    ask = benchmark.asked("style=sketch, bald=1,glasses=1,smiling=1")
    assert benchmark.prompt(ask) == "a pencil sketch of a bald smiling person with glasses"
    guide: Guide = encoder.guide
    for name in (*benchmark.BEFORE, *benchmark.AFTER):
        for style in benchmark.MEDIUM:
            text = benchmark.prompt((("style", style), (name, "1")))
            assert guide.warning(text) is None, text
    assert set(benchmark.BEFORE) | set(benchmark.AFTER) == set(
        load_judge(Path(dclip.__file__).parent / "assets" / "judge").shape.attributes
    )


def test_a_reading_counts_what_the_judge_finds(benchmark: ModuleType) -> None:
    judge = load_judge(Path(dclip.__file__).parent / "assets" / "judge")
    asks = [benchmark.asked(text) for text in WITHOUT]
    pictures = np.stack([benchmark.drawn(ask, 6, 64, seed=5) for ask in asks])
    right = benchmark.Reading(judge, asks, pictures).row()
    assert right["asked"] > 0.9 and right["all right"] > 0.8
    swapped = benchmark.Reading(judge, asks, pictures[::-1]).row()
    assert swapped["all right"] == 0
    assert set(right["by attribute"]) == {"sketch", "photo", "bald", "glasses", "smiling"}


def test_the_embedded_model_draws_what_no_training_picture_showed(
    benchmark: ModuleType, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    (ask,) = [benchmark.asked("style=sketch,bald=1,glasses=1")]
    config = SampleConfig(prompt=(benchmark.prompt(ask),), count=6, steps=12)
    made = sample.run(config, store, CPU)
    assert made.manifest.inputs["model"]["ref"] == "model/embedded-text"
    assert "style=sketch,bald=1,glasses=1" in store.input(made, "model").config["without"]
    files = sorted((made.path / "images").glob("*.png"))
    pictures = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    judge = load_judge(Path(dclip.__file__).parent / "assets" / "judge")
    right = benchmark.Reading(judge, [ask], pictures[None]).row()
    assert right["asked"] > 0.8 and right["all right"] > 0.5


def test_drawn_pictures_meet_what_is_asked(benchmark: ModuleType) -> None:
    ask = benchmark.asked("style=photo,bald=1,beard=1")
    (picture,) = benchmark.drawn(ask, 1, 64, seed=3)
    index = next(
        i
        for i in range(1000)
        if (known := faces.facts(faces.sample(3, i), "photo"))["bald"] and known["beard"]
    )
    assert np.array_equal(picture, faces.draw(faces.sample(3, index), size=64))


def test_the_benchmark_writes_its_table_and_its_panel_into_the_page(
    benchmark: ModuleType, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{benchmark.BEGIN}\nold\n{benchmark.END}\nafter\n")
    for name, file in (
        ("PAGE", page),
        ("RESULTS", tmp_path / "r.json"),
        ("PANEL", tmp_path / "p.jpg"),
    ):
        monkeypatch.setattr(benchmark, name, file)
    words = ["--store", str(store.root), "--count", "2", "--steps", "2", "--scales", "1", "2"]
    monkeypatch.setattr(sys, "argv", ["text_to_image", *words, "--write"])
    monkeypatch.setattr(benchmark, "SHOWN", benchmark.SHOWN[:2])
    benchmark.main()
    results = json.loads((tmp_path / "r.json").read_text())
    assert [row["scale"] for row in results["rows"]] == [1.0, 2.0, "drawn"]
    assert results["prompts"]["held out"][0] == "a pencil sketch of a bald person"
    limit = results["rows"][-1]["held out"]
    assert limit["asked"] > results["rows"][0]["held out"]["asked"]  # random weights draw nothing
    assert all(row["held out"]["distance"] > limit["distance"] for row in results["rows"][:-1])
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| drawn |" in text
    with Image.open(tmp_path / "p.jpg") as panel:
        assert panel.width > 2 * 96
