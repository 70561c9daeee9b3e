"""Another text encoder in the place of a model's own: dropped in, mapped, or mixed by weights."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import Stop
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sd_folder import pipeline
from small_cli import Shell
from small_guide import write_clip
from test_encoders import write_bert, write_hf_clip

from dclip.configs.encoder_map import EncoderMapConfig
from dclip.configs.import_model import ImportConfig
from dclip.configs.prepare import PrepareConfig
from dclip.configs.sample import SampleConfig
from dclip.configs.train import TrainConfig
from dclip.context import Context
from dclip.data.dataset import DataSet
from dclip.encoders.contract import TextEncoder
from dclip.encoders.find import find_encoder
from dclip.encoders.fitting import explained, ridges
from dclip.encoders.placing import Places
from dclip.errors import BadInput, DclipError, MissingArtifact
from dclip.stages import encoder_map, import_model, prepare, sample, train
from dclip.store import Artifact, Store

CPU = Context(device="cpu", workers=1)
PROMPT = "a smiling person with glasses"
SMALL = SampleConfig(model="reads", prompt=(PROMPT,), cfg=8.0, count=2, steps=3)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Three CLIPs of one architecture, one with a wider text tower's context, and BERTs."""
    root = tmp_path_factory.mktemp("swapped")
    return {
        "own": str(write_clip(root / "own", context=64)),
        "tuned": str(write_clip(root / "tuned", context=64, seed=1)),
        "short": str(write_clip(root / "short", context=48, seed=1)),
        "bert": str(write_bert(root / "bert")),
        "wide": str(write_bert(root / "wide", 32)),
        "hf": str(write_hf_clip(root / "hf")),
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, places: dict[str, str]) -> Store:
    """Captions, a model that reads them by the CLIP "own", and maps from a BERT to it."""
    store = Store(tmp_path_factory.mktemp("swapped-store"))
    prepare.run(PrepareConfig("faces", count=240, size=16, style="all", name="styles"), store, CPU)
    reader = TrainConfig(
        name="reads", size="micro", T=20, images=32, batch=16, lr=5e-2, ema=0.0,
        condition="text", encoder=places["own"], precision="fp32",
    )  # fmt: skip
    train.run(reader, store, CPU)
    train.run(replace(reader, name="signs", condition="attributes", encoder=None), store, CPU)
    fit(store, source=places["bert"], target="reads", name="bert-as-own")
    fit(store, source=places["bert"], target=places["tuned"], name="bert-as-tuned")
    return store


def fit(store: Store, **settings: Any) -> Artifact:
    return encoder_map.run(EncoderMapConfig(data="styles", **settings), store, CPU)


def draw(store: Store, report: Stop | None = None, **change: Any) -> np.ndarray:
    context = replace(CPU, report=report or Stop())
    made = sample.run(replace(SMALL, **change), store, context)
    files = sorted((made.path / "images").iterdir())
    return np.stack([np.asarray(Image.open(f)).astype(int) for f in files])


def load(spec: str, store: Store | None = None) -> TextEncoder:
    return find_encoder(spec, store or Store(Path("nowhere")), CPU.report).load("cpu")


# --- a map from captions


def test_tokens_are_placed_by_their_words(places: dict[str, str]) -> None:
    bert, clip = load(places["bert"]), load(places["own"])
    placed = Places(bert, clip)(["a smiling person", ""])
    # [CLS] a smil ##ing person [SEP], and <start> a smiling person <end>
    assert placed[0, :5].tolist() == [0, 1, 3, 4, 5]
    assert (placed[0, 5:] == 5).all()  # padding is the end
    assert placed[1, :2].tolist() == [0, 1] and (placed[1] <= 1).all()
    back = Places(clip, bert)(["a smiling person"])
    assert back[0, :6].tolist() == [0, 1, 2, 2, 3, 4]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["a", "smiling", "person,", "face", "zebra", "é", "3-d"])))
def test_places_go_from_the_start_to_the_end_in_order(places_of: Places, words: list[str]) -> None:
    source, target = places_of._sides
    text = " ".join(words)
    (placed,) = places_of([text])
    (have,), (want,) = source.lengths([text]), target.lengths([text])
    assert placed[0] == 0 and placed[want - 1] == have - 1
    assert (placed[:want].diff() >= 0).all() and placed.max() == have - 1


@pytest.fixture(scope="module")
def places_of(places: dict[str, str]) -> Places:
    return Places(load(places["bert"]), load(places["own"]))


def test_an_encoder_maps_to_itself_nearly_exactly(store: Store, places: dict[str, str]) -> None:
    made = fit(store, source=places["own"], target=places["own"], name="itself", before=0)
    assert made.metrics["r2"] > 0.97 and made.metrics["r2_pooled"] > 0.9
    own, mapped = load(places["own"]), load("itself", store)
    wanted, got = own.encode([PROMPT, ""]), mapped.encode([PROMPT, ""])
    assert wanted.mask is not None and got.mask is not None
    assert torch.equal(got.mask, wanted.mask)
    assert (got.tokens - wanted.tokens)[wanted.mask].abs().max() < 0.2
    assert mapped.ids([PROMPT]).equal(own.ids([PROMPT]))
    mean = wanted.tokens[wanted.mask].abs().mean()
    assert (got.tokens - wanted.tokens)[wanted.mask].abs().mean() < 0.03 * mean


def test_a_map_is_nearer_to_the_model_s_own_states_than_what_is_dropped_in(
    store: Store, places: dict[str, str]
) -> None:
    made = store.resolve("bert-as-own", "encoder")
    held = sorted(set(DataSet(store.resolve("styles", "data").path).captions))[::4]
    wanted = load(places["own"]).encode(held)
    mapped = explained(load("bert-as-own", store).encode(held), wanted)
    dropped = explained(load(places["bert"]).encode(held), wanted)
    # Of random weights and of few captions it says little; what is dropped in is far off.
    assert dropped["r2"] < -0.5 and mapped["r2"] > -0.3
    assert made.metrics["captions"] + made.metrics["held_out"] > 150
    assert -0.3 < made.metrics["r2"] < 1
    assert fit(store, source=places["bert"], target="reads", name="bert-as-own").id == made.id


def test_maps_are_weighted_least_squares_ones() -> None:
    """Against numpy, where there is enough to learn from for the penalty to be small."""
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([torch.randn(400, 5, generator=generator), torch.ones(400, 1)], dim=1)
    y = x @ torch.randn(6, 3, generator=generator) + 3
    y = y + 0.01 * torch.randn(400, 3, generator=generator)
    weight = torch.rand(400, generator=generator)
    (found,) = ridges(lambda: iter([(x, y, weight)]))
    root = weight.sqrt()[:, None].numpy()
    wanted = np.linalg.lstsq(root * x.numpy(), root * y.numpy(), rcond=None)[0]
    np.testing.assert_allclose(found.numpy(), wanted, atol=2e-3)


def test_a_map_knows_what_it_was_made_of(store: Store, places: dict[str, str]) -> None:
    made = store.resolve("bert-as-own", "encoder")
    assert made.manifest.inputs["data"]["ref"] == "data/styles/v1"
    assert made.config["from"] and made.config["to"]  # folders, by what they hold
    embedded = fit(store, source=places["bert"], name="to-embedded")
    assert embedded.manifest.inputs["to"]["ref"] == "clip/embedded"


def test_a_map_whose_encoder_has_changed_is_missing(store: Store, tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "short-lived", seed=3)
    fit(store, source=str(folder), target="reads", name="orphan")
    load("orphan", store)
    shutil.rmtree(folder)
    with pytest.raises(MissingArtifact, match="is gone"):
        draw(store, encoder="orphan")


def test_a_model_is_trained_on_what_a_map_makes(store: Store) -> None:
    reader = TrainConfig(
        name="by-map", size="micro", T=20, images=16, batch=16, condition="text",
        encoder="bert-as-own", precision="fp32",
    )  # fmt: skip
    made = train.run(reader, store, CPU)
    assert made.manifest.inputs["text"]["ref"] == "encoder/bert-as-own/v1"
    assert len(draw(store, model="by-map")) == 2


# --- in the place of a model's own


def test_a_map_to_the_model_s_own_draws_nearer_to_its_pictures_and_says_nothing(
    store: Store, places: dict[str, str]
) -> None:
    fit(store, source=places["own"], target="reads", name="itself-too", before=0)
    own, told = draw(store), Stop()
    itself = draw(store, told, encoder="itself-too")
    assert not [line for line in told.said if "never saw" in line]
    dropped = draw(store, encoder=places["bert"])
    assert np.abs(itself - own).mean() < 0.3 * np.abs(dropped - own).mean()


@pytest.mark.parametrize("name", ["bert", "tuned", "bert-as-tuned"])
def test_states_that_a_model_never_saw_are_told_of(
    store: Store, places: dict[str, str], name: str
) -> None:
    told = Stop()
    pictures = draw(store, told, encoder=places.get(name, name), count=3)[:2]
    (said,) = [line for line in told.said if "never saw" in line]
    assert "model/reads/v1" in said and places["own"] in said
    assert np.abs(pictures - draw(store)).mean() > 0.5


def test_the_model_s_own_encoder_by_name_is_no_other(store: Store, places: dict[str, str]) -> None:
    told = Stop()
    assert np.array_equal(draw(store, told, encoder=places["own"]), draw(store))
    assert np.array_equal(draw(store, told, encoder="reads"), draw(store))
    assert not [line for line in told.said if "never saw" in line]


def test_an_embedding_that_does_not_fit_is_that_of_the_empty_prompt(
    store: Store, places: dict[str, str]
) -> None:
    told = Stop()  # transformers' CLIP has none
    draw(store, told, encoder=places["hf"], prompt=("face",))
    assert any("empty prompt's" in line for line in told.said)


def test_weights_between_the_own_tower_and_a_tuned_one(
    store: Store, places: dict[str, str]
) -> None:
    own, told = draw(store), Stop()
    assert np.array_equal(draw(store, told, encoder=places["tuned"], mix=0.0), own)
    assert not [line for line in told.said if "never saw" in line]
    whole = draw(store, encoder=places["tuned"])
    assert np.array_equal(draw(store, encoder=places["tuned"], mix=1.0), whole)
    half = draw(store, encoder=places["tuned"], mix=0.5)
    assert np.abs(half - own).mean() > 0.3 and np.abs(half - whole).mean() > 0.3


def test_mixed_weights_are_means(places: dict[str, str]) -> None:
    from dclip.encoders.swap import mix

    own, other, tuned = (load(places[name]) for name in ("own", "tuned", "tuned"))
    mix(own, other, 0.25)
    for name, weight in other.tower.items():
        wanted = 0.75 * own.tower[name] + 0.25 * tuned.tower[name]
        torch.testing.assert_close(weight, wanted)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"encoder": "@wide"}, "makes states of 32 numbers, and model/reads/v1 reads 16"),
        ({"encoder": "@wide"}, "dclip encoder map --from"),
        ({"encoder": "@wide"}, "--condition text --encoder"),
        ({"encoder": "@bert", "mix": 0.5}, "not of one architecture"),
        ({"encoder": "@short", "mix": 0.5}, "not of one architecture"),
        ({"encoder": "bert-as-own", "mix": 0.5}, "not of one architecture"),
        ({"encoder": "@tuned", "mix": 1.5}, "0..1"),
        ({"encoder": "@tuned", "mix": float("nan")}, "finite"),
        ({"mix": 0.5}, "--mix has no effect without --encoder"),
        ({"encoder": "@tuned", "prompt": (), "cfg": 3.0}, "no effect without --prompt"),
        ({"encoder": "nobody"}, "or a folder of transformers"),
        ({"encoder": "@bert", "model": "signs", "prompt": ("smiling",)}, "reads attributes"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_line(
    store: Store, places: dict[str, str], change: dict[str, Any], says: str
) -> None:
    given = {
        k: places[v[1:]] if isinstance(v, str) and v[:1] == "@" else v for k, v in change.items()
    }
    with pytest.raises(DclipError) as caught:
        draw(store, **given)
    said = f"{caught.value.message} {caught.value.fix}"
    assert says in said and "\n" not in said and caught.value.fix


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data": "bare"}, "0 different captions"),
        ({"source": "bert-as-own"}, "makes no states of its own"),
        ({"target": "signs"}, "makes no states of its own"),
        ({"target": "nobody"}, "nobody"),
        ({"source": "@hf"}, "at most 16"),  # its words are letters
    ],
    ids=str,
)
def test_maps_that_cannot_be_are_one_line(
    store: Store, places: dict[str, str], change: dict[str, str], says: str, tmp_path: Path
) -> None:
    if change.get("data") == "bare":
        for n in range(2):
            Image.new("RGB", (16, 16), (n, 0, 0)).save(tmp_path / f"{n}.png")
        bare = PrepareConfig("folder", root=str(tmp_path), name="bare", size=16)
        prepare.run(bare, store, CPU)
    given = {k: places[v[1:]] if v[:1] == "@" else v for k, v in change.items()}
    config = {"source": places["bert"], "target": "reads", "data": "styles"} | given
    with pytest.raises(DclipError) as caught:
        encoder_map.run(EncoderMapConfig(**config), store, CPU)
    assert says in f"{caught.value.message} {caught.value.fix}" and caught.value.fix


# --- by command, in figures, and with Stable Diffusion


def test_encoders_and_mixtures_are_axes(
    store: Store, places: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(store.root, capsys)
    shared = ("--fixed", f"prompt={PROMPT}", "--fixed", "steps=3", "--fixed", "model=reads")
    shell("grid", "--x", f"encoder={places['bert']},bert-as-own", *shared, "--cell", "16")
    mixed = (*shared, "--fixed", f"encoder={places['tuned']}")
    shell("grid", "--x", "mix=0,0.5,1", "--y", "seed=0,1", *mixed, "--cell", "16")
    cells = [each for each in store.list("samples") if each.name == "cells"]
    assert sorted({each.config.get("mix", -1.0) for each in cells}) == [-1.0, 0.0, 0.5, 1.0]
    assert len(cells) == 2 + 6


def test_by_command(
    store: Store, places: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(store.root, capsys)
    _, err = shell(
        "encoder", "map", "--from", places["bert"], "--to", "reads", "--data", "styles",
        "--name", "by-command",
    )  # fmt: skip
    assert "dclip sample --prompt 'a smiling person' --encoder by-command" in err
    ask = ("sample", "--model", "reads", "--prompt", PROMPT, "--count", "1", "--steps", "2")
    _, err = shell(*ask, "--encoder", places["bert"])
    assert "warning" in err and "never saw" in err
    out, _ = shell("lineage", "encoder/by-command", "--json")
    assert "data/styles/v1" in out
    _, err = shell(*ask, "--encoder", places["wide"], code=2)
    assert err.count("error:") == 1 and "Traceback" not in err


def test_stable_diffusion_reads_by_another_encoder_too(
    store: Store, places: dict[str, str], tmp_path: Path
) -> None:
    pipeline(tmp_path / "sd")
    import_model.run(ImportConfig(source=str(tmp_path / "sd"), name="sd"), store, CPU)
    ask = {"model": "sd", "prompt": ("face",)}
    told = Stop()
    own = draw(store, **ask)
    assert np.abs(draw(store, told, encoder=places["bert"], **ask) - own).mean() > 0.5
    assert any("never saw" in line for line in told.said)
    assert np.array_equal(draw(store, encoder="sd", **ask), own)
    with pytest.raises(BadInput, match="states of 32 numbers"):
        draw(store, encoder=places["wide"], **ask)
    assert np.array_equal(draw(store, encoder=places["hf"], mix=0.0, **ask), own)


# --- the page


PAGE = (Path(__file__).parent.parent / "docs" / "encoders.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    for line in block.strip().splitlines()
]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_s_commands_are_understood(
    store: Store,
    places: dict[str, str],
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(places["bert"], tmp_path / "models" / "bert")
    named = {
        "bert-as-clip": "bert-as-own",
        "clip/tuned": places["tuned"],
        "--data styles": "--data large",
    }
    for name, own in named.items():
        command = (
            command.replace(name, own) if "--name" not in command or name[0] == "-" else command
        )
    prepare.run(PrepareConfig("faces", count=40, size=64, style="all", name="large"), store, CPU)
    words = shlex.split(command)
    if words[1] in ("sample", "grid"):  # not the newest, which reads attributes
        of_sample = ["--model", "reads", "--steps", "3"]
        of_grid = ["--fixed", "model=reads", "--fixed", "steps=3"]
        words += of_sample if words[1] == "sample" else of_grid
    assert words[0] == "dclip"
    out, _ = Shell(store.root, capsys)(*words[1:], "--dry-run", "--json")
    stage = "sample" if words[1] == "grid" else words[1]  # a figure's plan is of its cells
    assert json.loads(out)["plan"]["stage"].startswith(stage)
