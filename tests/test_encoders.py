"""Text encoders of transformers: a BERT and a CLIP from a folder, and models that read by them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sd_folder import tokenizer
from small_guide import write_clip

from dclip.configs.prepare import PrepareConfig
from dclip.configs.sample import SampleConfig
from dclip.configs.train import TrainConfig
from dclip.context import Context
from dclip.encoders.find import find_encoder
from dclip.errors import BadInput, DclipError, MissingArtifact
from dclip.stages import prepare, sample, train
from dclip.store import Artifact, Store

CPU = Context(device="cpu", workers=1)
WORDS = ("a", "person", "photo", "of", "smil", "##ing", "with", "glasses", "face", "red")


def write_bert(folder: Path, width: int = 16, *, seed: int = 0, positions: int = 64) -> Path:
    """A BERT of random weights, as transformers saves it."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(words), hidden_size=width, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=positions, initializer_range=0.5,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def write_hf_clip(folder: Path) -> Path:
    """A text tower of CLIP of random weights with its tokenizer, in one folder."""
    from transformers import CLIPTextConfig, CLIPTextModel

    words = tokenizer(folder.parent / "letters")
    words.save_pretrained(folder)
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=16, bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    CLIPTextModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("encoders")
    return {
        "clip": str(write_clip(root / "clip", context=64)),
        "bert": str(write_bert(root / "bert")),
        "hf-clip": str(write_hf_clip(root / "hf")),
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, places: dict[str, str]) -> Store:
    """Data with captions, and models that read them by a CLIP and by a BERT."""
    store = Store(tmp_path_factory.mktemp("encoders-store"))
    prepare.run(PrepareConfig("faces", count=40, size=16, style="all"), store, CPU)
    for name in ("clip", "bert"):
        reader = TrainConfig(
            name=f"reads-{name}", size="micro", T=20, images=32, batch=16, lr=5e-2, ema=0.0,
            condition="text", encoder=places[name], precision="fp32",
        )  # fmt: skip
        train.run(reader, store, CPU)
    return store


def pictures(artifact: Artifact) -> np.ndarray:
    files = sorted((artifact.path / "images").iterdir())
    return np.stack([np.asarray(Image.open(f)).astype(int) for f in files])


SMALL = SampleConfig(model="reads-clip", prompt=("a smiling person",), cfg=8.0, count=2, steps=3)


def draw(store: Store, **change: Any) -> np.ndarray:
    return pictures(sample.run(replace(SMALL, **change), store, CPU))


def test_a_bert_gives_the_states_of_transformers_own(places: dict[str, str]) -> None:
    from transformers import BertModel, BertTokenizerFast

    encoder = find_encoder(places["bert"], Store(Path("nowhere")), CPU.report).load("cpu")
    prompts = ["a smiling person with glasses", "a face", ""]
    got = encoder.encode(prompts)
    network = BertModel.from_pretrained(places["bert"]).eval()
    words = BertTokenizerFast.from_pretrained(places["bert"])
    assert got.mask is not None and got.pooled is not None
    for row, prompt in enumerate(prompts):  # one by one, so without padding
        with torch.no_grad():
            wanted = network(**words(prompt, return_tensors="pt"))[0][0]
        assert int(got.mask[row].sum()) == len(wanted) == encoder.lengths([prompt])[0]
        torch.testing.assert_close(got.tokens[row, : len(wanted)], wanted, atol=1e-5, rtol=1e-5)
        mean = wanted.mean(0) / wanted.mean(0).norm()
        torch.testing.assert_close(got.pooled[row], mean, atol=1e-5, rtol=1e-5)
    assert encoder.info.width == 16 and encoder.info.context == 64
    assert encoder.ids(prompts).shape == (3, 64)


def test_a_clip_of_transformers_is_read_from_one_folder(places: dict[str, str]) -> None:
    from transformers import CLIPTextModel, CLIPTokenizer

    encoder = find_encoder(places["hf-clip"], Store(Path("nowhere")), CPU.report).load("cpu")
    words = CLIPTokenizer.from_pretrained(places["hf-clip"])
    ids = words(["face"], padding="max_length", max_length=16, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        wanted = CLIPTextModel.from_pretrained(places["hf-clip"]).eval()(ids)[0]
    torch.testing.assert_close(encoder.encode(["face"]).tokens, wanted)
    assert encoder.info.kind == "hf-clip" and encoder.info.where == places["hf-clip"]


def test_a_model_trained_with_a_bert_reads_by_it(store: Store) -> None:
    made = sample.run(replace(SMALL, model="reads-bert"), store, CPU)
    other = draw(store, model="reads-bert", prompt=("a red face",))
    assert np.abs(pictures(made) - other).max() > 5


def test_captions_too_long_for_an_encoder_are_refused(store: Store, places: dict[str, str]) -> None:
    config = TrainConfig(
        name="reads-hf", size="micro", T=20, images=4, batch=4, condition="text",
        encoder=places["hf-clip"], data="faces-all", precision="fp32",
    )  # fmt: skip
    with pytest.raises(BadInput, match="at most 16"):  # its words are letters
        train.run(config, store, CPU)


@pytest.mark.parametrize(
    ("what", "says"),
    [("t5", "'t5' of transformers"), ("no-weights", "cannot be loaded"), ("gone", "BERT")],
)
def test_folders_that_are_no_encoder_are_one_line(
    places: dict[str, str], tmp_path: Path, what: str, says: str
) -> None:
    if what != "gone":
        (tmp_path / what).mkdir()
        kind = "t5" if what == "t5" else "bert"
        (tmp_path / what / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(DclipError) as caught:
        found = find_encoder(str(tmp_path / what), Store(tmp_path / "store"), CPU.report)
        found.load("cpu")
    assert says in f"{caught.value.message} {caught.value.fix}"


def test_without_transformers_the_fix_is_the_extra(
    places: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    found = find_encoder(places["bert"], Store(Path("nowhere")), CPU.report)
    with pytest.raises(BadInput, match="transformers") as caught:
        found.load("cpu")
    assert caught.value.fix == "pip install 'dclip[text]'"


def test_a_prompt_too_long_for_a_bert_is_refused(store: Store) -> None:
    with pytest.raises(BadInput, match="reads at most 64"):
        draw(store, model="reads-bert", prompt=("a red face " * 30,))


def test_a_bert_that_is_gone_is_missing(store: Store, tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "short-lived")
    config = TrainConfig(
        name="orphan", size="micro", T=20, images=4, batch=4, condition="text",
        encoder=str(folder), data="faces-all", precision="fp32",
    )  # fmt: skip
    train.run(config, store, CPU)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(MissingArtifact, match="is gone"):
        draw(store, model="orphan")


def test_a_folder_whose_files_have_changed_is_another_encoder(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bert(tmp_path / "bert")
    monkeypatch.chdir(tmp_path)
    settings = TrainConfig(
        name="moved", size="micro", T=20, images=16, batch=16, condition="text",
        encoder="bert", precision="fp32",
    )  # fmt: skip
    first = train.run(settings, store, CPU)
    monkeypatch.chdir("/")  # the folder was named from another place
    assert len(draw(store, model="moved", name="from-elsewhere")) == 2
    config = tmp_path / "bert" / "config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(MissingArtifact, match="has changed"):
        draw(store, model="moved", seed=3)
    monkeypatch.chdir(tmp_path)
    assert train.run(settings, store, CPU).id != first.id
