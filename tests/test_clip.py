"""The door to open_clip: directories, preprocessing, prompts, errors; and what trains a guide."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from small_guide import CONFIG, write_clip
from torch import Tensor

import dclip.assets
from dclip.context import Silent
from dclip.data.dataset import DataSet
from dclip.device import autocast
from dclip.domains import DRAWN_FACES
from dclip.errors import BadInput, CorruptArtifact, DclipError, MissingArtifact
from dclip.fingerprints import fingerprint
from dclip.guidance import views
from dclip.guidance.clip import (
    LEAST_SIZE,
    Guide,
    load_guide,
    new_model,
    save_guide,
    usual_rate,
    words,
)
from dclip.guidance.prompts import presets_of, split_sources
from dclip.guiding import find_clip
from dclip.store import Store
from dclip.training import clip as ct
from dclip.training import contrasts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def guide(folder: Path) -> Guide:
    return load_guide(str(folder))


def pictures(n: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth uint8 pictures (n, H, W, 3), far enough from black and white to be resized."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 5, 5, generator=generator)
    x = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True).clamp(0, 1)
    return (x * 155 + 50).round().byte().permute(0, 2, 3, 1).numpy()


def ours(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


# --- open_clip's own format


def test_a_saved_directory_is_open_clips_own(guide: Guide, tmp_path: Path) -> None:
    save_guide(tmp_path, guide)
    where = f"local-dir:{tmp_path}"
    model, transform = open_clip.create_model_from_pretrained(where)
    tokenizer = open_clip.get_tokenizer(where)
    again = load_guide(str(tmp_path))
    shown, prompts = pictures(3, 16, 16), ["a photo of a person", "a pencil sketch"]
    with torch.no_grad():
        theirs = torch.stack([transform(Image.fromarray(p)) for p in shown])
        image = F.normalize(model.encode_image(theirs), dim=-1)
        text = F.normalize(model.encode_text(tokenizer(prompts)), dim=-1)
        assert torch.allclose(again.embed_image(ours(shown)), image, atol=1e-5)
        assert torch.allclose(again.embed_text(prompts), text, atol=1e-5)
        # float16 on disk costs little.
        assert torch.allclose(guide.embed_image(ours(shown)), image, atol=5e-3)


def test_a_guide_is_frozen_and_in_float32(guide: Guide) -> None:
    parameters = list(guide.model.parameters())
    assert not guide.model.training and not any(p.requires_grad for p in parameters)
    assert {p.dtype for p in parameters} == {torch.float32}


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("side", [(16, 16), (40, 40), (30, 20), (20, 37), (10, 10)], ids=str)
def test_preprocessing_is_that_of_open_clip(
    tmp_path: Path, resize_mode: str, interpolation: str, side: tuple[int, int]
) -> None:
    write_clip(tmp_path, resize_mode=resize_mode, interpolation=interpolation, fill_color=200)
    _, transform = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")
    shown = pictures(2, *side)
    theirs = torch.stack([transform(Image.fromarray(p)) for p in shown])
    found = load_guide(str(tmp_path)).preprocess(ours(shown))
    # Theirs rounds to whole pixel values after resizing: 0.5 / 255 in the units of a std of 0.2.
    # Twice that, for it does so after each of the two axes.
    assert (found - theirs).abs().max() < (1e-5 if side == (16, 16) else 2 * 0.5 / 255 / 0.2 + 1e-3)


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_preprocessing_fits_a_tower_that_is_not_square(resize_mode: str) -> None:
    transform = open_clip.image_transform((16, 24), is_train=False, resize_mode=resize_mode)
    plain = Guide(
        "wide", torch.nn.Identity(), list, (16, 24), resize_mode=resize_mode,
        mean=torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(1, 3, 1, 1),
        std=torch.tensor(open_clip.OPENAI_DATASET_STD).view(1, 3, 1, 1),
    )  # fmt: skip
    for side in ((40, 40), (19, 50), (50, 19)):
        shown = pictures(1, *side)
        found = plain.preprocess(ours(shown))
        assert (found - transform(Image.fromarray(shown[0]))).abs().max() < 2 * 0.5 / 255 / 0.26


def test_gradients_flow_through_preprocessing_to_every_pixel(guide: Guide) -> None:
    x = ours(pictures(1, 24, 24)).requires_grad_(True)
    guide.embed_image(x)[0, 0].backward()
    assert x.grad is not None and (x.grad.abs().amax(1) > 0).all()


def test_weights_are_read_with_the_activation_that_they_were_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenAI's weights want QuickGELU; open_clip takes plain GELU for them and only warns."""
    weights = write_clip(tmp_path) / "open_clip_model.safetensors"
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-test", CONFIG)
    tag = {"file": str(weights), "quick_gelu": True, "mean": [0.5] * 3, "std": [0.5] * 3}
    known = open_clip.pretrained._PRETRAINED
    monkeypatch.setitem(known, "tiny-test", {"openai": tag, "other": tag | {"quick_gelu": False}})
    model = open_clip.create_model("tiny-test", force_quick_gelu=True).eval()
    model.load_state_dict(load_file(weights))
    prompts = ["a photo of a person"]
    with torch.no_grad():
        tokens = open_clip.get_tokenizer("tiny-test")(prompts)
        expected = F.normalize(model.encode_text(tokens), dim=-1)
    quick = load_guide("tiny-test:openai")
    assert torch.allclose(quick.embed_text(prompts), expected, atol=1e-6)
    assert not torch.allclose(
        load_guide("tiny-test:other").embed_text(prompts), expected, atol=1e-4
    )
    save_guide(tmp_path / "saved", quick)  # and the directory says so
    assert torch.allclose(
        load_guide(str(tmp_path / "saved")).embed_text(prompts), expected, atol=5e-3
    )


@pytest.mark.parametrize("name", ["small", "small-convnext"])
def test_a_new_model_is_one_that_open_clip_can_load(name: str, tmp_path: Path) -> None:
    made = new_model(name, 32)
    save_guide(tmp_path, made)
    assert load_guide(str(tmp_path)).embed_image(torch.zeros(1, 3, 32, 32)).shape == (1, 128)
    assert any(p.requires_grad for p in made.model.parameters())


@pytest.mark.parametrize("name", ["small", "small-convnext"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_new_model_trains_on_the_smallest_pictures_that_it_takes(
    name: str, precision: str
) -> None:
    made = new_model(name, LEAST_SIZE)
    made.model.train()
    for _ in range(5):
        with autocast(torch.device("cpu"), precision):
            made.embed_image(torch.randn(4, 3, LEAST_SIZE, LEAST_SIZE)).sum().backward()
    gradients = [p.grad for p in made.model.visual.parameters()]  # type: ignore[union-attr]
    assert all(bool(g is not None and g.isfinite().all() and g.norm() < 1e6) for g in gradients)
    with pytest.raises(BadInput, match="32 pixels or more, not 31"):
        new_model(name, LEAST_SIZE - 1)


# --- prompts


def test_prompts_that_cannot_be_are_refused(guide: Guide) -> None:
    for prompt in ("", "  \n"):
        with pytest.raises(BadInput, match="empty"):
            guide.embed_text([prompt])
    fits, too_long = "face " * 14, "face " * 15  # context 16, with its start and its end
    guide.check(fits)
    with pytest.raises(BadInput, match=r"17 tokens.*at most 16"):
        guide.embed_text(["a face", too_long])


def test_equal_prompts_have_no_direction(guide: Guide) -> None:
    for source in ("a sketch", "a photo; a sketch"):
        with pytest.raises(BadInput, match="same to tiny"):
            guide.move("a sketch", source)
    with pytest.raises(BadInput, match="empty"):
        guide.move("a sketch", "a photo;")
    found = guide.move("a sketch", "a photo")
    to, source = guide.embed_text(["a sketch", "a photo"])
    assert torch.allclose(found.differences, (to - source)[None], atol=1e-6)
    assert torch.allclose(found.units(), F.normalize(to - source, dim=0)[None], atol=1e-6)


def test_each_picture_moves_from_the_source_that_it_is_most_like(guide: Guide) -> None:
    to, first, second = guide.embed_text(["a sketch", "a photo", "a face"])
    move = guide.move("a sketch", "a photo; a face")
    before = F.normalize(torch.stack([second, first, second + 0.1 * to]), dim=-1)
    wanted = torch.stack([to - second, to - first, to - second])
    assert torch.allclose(move.of(before), wanted, atol=1e-6)
    after = F.normalize(before + 0.1 * torch.randn(3, len(to)), dim=-1)
    cosine = F.cosine_similarity(after - before, wanted, dim=-1)
    assert torch.allclose(move.cosine(after, before), cosine, atol=1e-5)
    assert move.cosine(before, before).tolist() == [0, 0, 0]
    longer = move.lengthened(torch.tensor([2.0, 3.0])).of(before)
    assert longer.norm(dim=-1).tolist() == pytest.approx([3, 2, 3], abs=1e-5)
    assert torch.allclose(F.normalize(longer, dim=-1), F.normalize(wanted, dim=-1), atol=1e-6)


def test_a_small_clip_warns_of_words_that_it_never_saw(folder: Path, tmp_path: Path) -> None:
    path = write_clip(tmp_path)
    (path / "words.json").write_text(json.dumps({"words": ["a", "photo", "of", "sketch", "hair"]}))
    small = load_guide(str(path), name="CLIP mine")
    assert small.warning("A photo, of hair") is None  # the comma is in dclip's own captions
    assert "never saw '!'" in (small.warning("a photo!") or "")
    warning = small.warning("a sketsh of a unicorn")
    assert warning is not None and "\n" not in warning
    assert "CLIP mine never saw 'sketsh', 'unicorn'" in warning
    assert "did you mean sketch?" in warning
    stranger = small.warning("a unicorn")
    assert stranger is not None and stranger.endswith("it knows: hair, photo, sketch")
    assert load_guide(str(folder)).warning("a unicorn") is None  # open vocabulary: no list


LISTED = ["a", "photo", "of", "sketch", "hair", "face", "smiling", "3"]


@given(
    known=st.lists(st.sampled_from([*LISTED, ",", "-", " "]), max_size=6),
    strange=st.text(min_size=1, max_size=8),
    at=st.integers(0, 6),
)
@example(known=["a"], strange="微笑", at=1)
@example(known=["a"], strange="😀", at=1)
@example(known=["a"], strange="!?", at=0)
@example(known=["a"], strange="caf\u0301e", at=0)
@example(known=["a"], strange="7", at=0)
@example(known=["a"], strange="\u200b", at=0)
def test_nothing_that_a_small_clip_never_saw_goes_without_a_warning(
    known: list[str], strange: str, at: int
) -> None:
    prompt = " ".join([*known[:at], strange, *known[at:]])
    warned = words.warning("small", prompt, LISTED)
    # Taken away what is listed and white space, nothing may be left of a prompt without a warning.
    parts = unicodedata.normalize("NFC", prompt).lower().replace(",", " ").replace("-", " ").split()
    if all(part in LISTED for part in parts):
        assert warned is None or strange not in (",", "-", *LISTED)
    elif not any(mark in strange for mark in ",-"):
        assert warned is not None and "\n" not in warned and "small never saw" in warned
    assert words.warning("small", " ".join(known), LISTED) is None


def test_the_presets_are_known_to_the_embedded_clip() -> None:
    known = words.read(Path(dclip.assets.__path__[0]) / "clip")
    assert known is not None
    for preset in presets_of(DRAWN_FACES).values():
        for prompt in (preset.target, *split_sources(preset.source)):
            assert words.warning("embedded", prompt, known) is None, prompt
    assert words.warning("embedded", "a clean-shaven human, with glasses", known) is None


def test_many_unknown_words_are_counted() -> None:
    said = words.warning("small", "b c d e f g h", LISTED)
    assert said is not None and "'b', 'c', 'd', 'e', 'f' and 2 more" in said


# --- weights in a file


def test_a_file_needs_the_tag_whose_weights_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """104 of open_clip's 196 tags differ from its defaults in mean, std, interpolation or GELU."""
    folder = write_clip(tmp_path / "clip")
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-test", CONFIG)
    own = {"hf_hub": "x/", "mean": [0.3] * 3, "std": [0.2] * 3, "interpolation": "bilinear",
           "resize_mode": "squash", "quick_gelu": True}  # fmt: skip
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-test", {"own": own})
    alone, pickled = tmp_path / "alone.safetensors", tmp_path / "alone.pt"
    weights = load_file(folder / "open_clip_model.safetensors")
    save_file(weights, alone)
    torch.save({"state_dict": {f"module.{k}": v for k, v in weights.items()}}, pickled)
    for spec in (f"tiny-test:{alone}", str(alone), str(pickled)):
        with pytest.raises(BadInput, match="does not say") as caught:
            load_guide(spec)
        assert ":TAG=" in caught.value.fix and str(tmp_path) in caught.value.fix
    prompts = ["a photo of a person"]
    plain = load_guide(f"tiny-test:={alone}")
    assert plain.mean.flatten().tolist() == pytest.approx(open_clip.OPENAI_DATASET_MEAN)
    for file in (alone, pickled):
        tagged = load_guide(f"tiny-test:own={file}")
        assert tagged.mean.flatten().tolist() == pytest.approx([0.3] * 3)
        assert (tagged.interpolation, tagged.resize_mode) == ("bilinear", "squash")
        assert not torch.allclose(tagged.embed_text(prompts), plain.embed_text(prompts), atol=1e-4)
    beside = load_guide(str(folder / "open_clip_model.safetensors"))  # its config says it all
    assert beside.mean.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])


def test_a_clip_is_found_once_and_loaded_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "own")
    store, report = Store(tmp_path / "store"), Silent()
    folder, file = (
        find_clip(spec, store, report) for spec in ("own", "own/open_clip_model.safetensors")
    )
    named, embedded = (find_clip(spec, store, report) for spec in ("ViT-B-32:openai", "embedded"))
    assert folder.key == fingerprint("own") and named.key == "ViT-B-32:openai"
    assert embedded.artifact is not None and embedded.key == embedded.artifact.id
    assert [each.is_here for each in (folder, file, named, embedded)] == [True, True, False, True]
    prompts = ["a face"]
    assert torch.equal(folder.load("cpu").embed_text(prompts), file.load("cpu").embed_text(prompts))
    assert embedded.load("cpu").name == f"CLIP {embedded.artifact.ref}"
    with pytest.raises(MissingArtifact, match="nowhere"):
        find_clip("nowhere", store, report)


# --- what cannot be loaded


@pytest.mark.parametrize(
    ("spec", "message", "fix"),
    [
        ("ViT-B-33:openai", "neither a directory nor an open_clip model", "ViT-B-32"),
        ("ViT-B-32:opena", "no pretrained weights 'opena'", "openai"),
        ("ViT-B-32", "no pretrained weights ''", "ViT-B-32:TAG"),
        ("nowhere/to/be/found", "neither a directory nor an open_clip model", "ViT-B-32:openai"),
    ],
)
def test_an_unknown_clip_is_refused_with_the_nearest(spec: str, message: str, fix: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        load_guide(spec)
    assert fix in caught.value.fix


def _weights(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        file = path / "open_clip_model.safetensors"
        weights = load_file(file)
        change(weights)
        save_file(weights, file)

    return spoil


def _config(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        file = path / "open_clip_config.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return spoil


SPOILT: dict[str, tuple[Callable[[Path], object], type[DclipError], str]] = {
    "NaN": (
        _weights(lambda w: w["visual.proj"].fill_(torch.nan)), CorruptArtifact, "NaN.*visual.proj"
    ),
    "a missing weight": (
        _weights(lambda w: w.pop("visual.proj")), CorruptArtifact, "visual.proj is missing"
    ),
    "an unknown weight": (
        _weights(lambda w: w.update({"visual.own": torch.zeros(2)})), CorruptArtifact,
        "visual.own is unknown",
    ),
    "another shape": (
        _weights(lambda w: w.update({"visual.proj": torch.zeros(2, 2)})), CorruptArtifact,
        r"visual.proj is \(2, 2\), not \(32, 16\)",
    ),
    "no weights": (
        lambda p: (p / "open_clip_model.safetensors").unlink(), BadInput, "safetensors is missing"
    ),
    "truncated weights": (
        lambda p: (p / "open_clip_model.safetensors").write_bytes(b"12345678"), CorruptArtifact,
        "not a readable safetensors file",
    ),
    "no config": (
        lambda p: (p / "open_clip_config.json").unlink(), BadInput, "no open_clip directory"
    ),
    "a broken config": (
        lambda p: (p / "open_clip_config.json").write_text("{"), CorruptArtifact, "is not open_clip"
    ),
    "an empty config": (
        lambda p: (p / "open_clip_config.json").write_text("{}"), CorruptArtifact, "no model_cfg"
    ),
    "no preprocessing": (_config(lambda c: c.pop("preprocess_cfg")), BadInput, "how pictures are"),
    "half of the preprocessing": (
        _config(lambda c: c["preprocess_cfg"].pop("std")), BadInput, "how pictures are"
    ),
    "a model of transformers": (
        lambda p: (p / "open_clip_config.json").rename(p / "config.json"), BadInput,
        "a model of transformers",
    ),
    "broken words": (
        lambda p: (p / "words.json").write_text("[]"), CorruptArtifact, "not a list of words"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILT)
def test_a_spoilt_directory_is_refused_in_one_line(tmp_path: Path, what: str) -> None:
    spoil, kind, words = SPOILT[what]
    spoil(write_clip(tmp_path))
    with pytest.raises(kind, match=words) as caught:
        load_guide(str(tmp_path))
    assert "\n" not in caught.value.message


def test_an_unknown_model_to_train_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadInput, match="smal-convnext") as caught:
        new_model("smal-convnext", 32)
    assert "small-convnext" in caught.value.fix


# --- adversarial examples and augmentation


def test_the_attack_stays_in_the_ball_and_in_range_and_raises_the_loss(guide: Guide) -> None:
    x = ours(pictures(4, 16, 16))
    before = guide.embed_image(x).detach()

    def loss(y: Tensor) -> Tensor:
        return -(guide.embed_image(y) * before).sum(-1).mean()

    # At the pictures themselves, the loss's minimum, the gradient is zero: begin beside them.
    x = (x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    last = float(loss(x))
    for radius in (0.5, 2.5):
        found = ct.attack(loss, x, torch.full((len(x),), radius), 3)
        distance = (found - x).flatten(1).norm(dim=1)
        assert (distance <= radius * (1 + 1e-5)).all() and (distance > 0.5 * radius).all()
        assert found.min() >= -1 and found.max() <= 1 and not found.requires_grad
        value = float(loss(found))
        assert value > last + 1e-4
        last = value


def uniform(seed: int) -> Callable[[int], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda n: torch.rand(n, generator=generator)


def test_a_group_shares_its_crop_and_colours() -> None:
    x = ours(pictures(3, 16, 16))
    same = views.augment(torch.cat([x, x]), uniform(0), torch.arange(3).repeat(2))
    assert torch.equal(same[:3], same[3:])
    apart = views.augment(x[:1].repeat(2, 1, 1, 1), uniform(0))
    assert (apart[0] - apart[1]).abs().mean() > 1e-2
    assert same.min() >= -1 and same.max() <= 1


def test_augmentation_without_colour_only_crops() -> None:
    flat = torch.tensor([0.3, -0.2, 0.8]).view(1, 3, 1, 1).expand(2, 3, 16, 16)
    assert torch.allclose(views.augment(flat, uniform(1), colour=0.0), flat, atol=1e-6)
    assert not torch.allclose(views.augment(flat, uniform(1)), flat, atol=1e-2)
    # A ramp stays a ramp, less steep: a crop of 80 to 100 % blown up to the whole.
    ramp = torch.linspace(-0.9, 0.9, 16).view(1, 1, 1, 16).expand(1, 3, 16, 16)
    found = views.augment(ramp, uniform(2), colour=0.0)[0, 0, 8]
    steps = (found[1:] - found[:-1])[4:-4]
    whole = float(ramp[0, 0, 0, 1] - ramp[0, 0, 0, 0])
    assert torch.allclose(steps, steps.mean().expand_as(steps), atol=1e-5)
    assert 0.8 * whole - 1e-5 <= float(steps.mean()) <= whole + 1e-5


def test_gradients_flow_through_augmentation() -> None:
    x = (0.5 * ours(pictures(1, 16, 16))).requires_grad_(True)
    views.augment(x, uniform(0)).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 1


# --- the losses that make a guide


def embeddings(n: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_contrastive_is_clips_loss_and_equal_captions_are_no_negatives() -> None:
    image, text, scale = embeddings(4, 0), embeddings(4, 1), torch.tensor(12.0)
    expected = open_clip.ClipLoss()(image, text, scale)
    found = ct.contrastive(image, text, scale, torch.eye(4, dtype=torch.bool))
    assert float(found) == pytest.approx(float(expected), abs=1e-5)
    text[1] = text[0]
    same = torch.eye(4, dtype=torch.bool)
    same[0, 1] = same[1, 0] = True
    swapped = image[[1, 0, 2, 3]]  # which of the two is which cannot matter then
    values = [float(ct.contrastive(i, text, scale, same)) for i in (image, swapped)]
    assert values[0] == pytest.approx(values[1], abs=1e-5)


def test_a_contrast_uses_the_directions_between_its_prompts_alone() -> None:
    image = embeddings(5, 0)
    sides = [embeddings(2, 1)]
    labels = [torch.tensor([0, 1, 0, 1, -1])]
    found = ct.contrast_loss(image, sides, labels)
    d = F.normalize(sides[0][0] - sides[0][1], dim=0)
    logit = 20 * image[:4] @ d  # the two centred sides are d and -d
    expected = F.binary_cross_entropy_with_logits(logit, 1.0 - labels[0][:4])
    assert float(found) == pytest.approx(float(expected), abs=1e-5)
    assert float(ct.contrast_loss(image, sides, [torch.full((5,), -1)])) == 0


def test_a_pair_is_to_move_as_its_prompts_do() -> None:
    side = embeddings(2, 1)
    start = embeddings(1, 0)[0]
    move = side[1] - side[0]

    def loss(image: Tensor, labels: list[int]) -> float:
        pairs = torch.tensor([[0, 1]])
        batch = ct.Batch(
            image, torch.eye(2) > 0, (torch.tensor(labels),), pairs, *2 * [torch.empty(0)]
        )
        return float(ct.pair_loss(image, batch, [side]))

    there = torch.stack([start, start + move])
    assert loss(there, [0, 1]) == pytest.approx(0, abs=1e-5)
    assert loss(there, [1, 0]) == pytest.approx(2, abs=1e-5)
    short = torch.stack([start, start + 0.5 * move])  # the right way, but not far enough
    assert loss(short, [0, 1]) == pytest.approx((1 + math.log(2) ** 2) ** 0.5 - 1, abs=1e-5)
    assert loss(there, [1, 1]) == 0 == loss(there, [-1, 1])  # nothing changed, or nobody knows


@given(seed=st.integers(0, 2**31), shrink=st.floats(0.1, 1.0))
def test_no_loss_falls_where_all_pictures_and_words_draw_together(seed: int, shrink: float) -> None:
    """Else that is where a fresh network goes, and it never comes back."""
    side, start, other, mixed = (embeddings(1, seed % 2**20 + i)[0] for i in range(4))
    pairs = torch.tensor([[0, 1]])

    def drawn(by: float) -> tuple[Tensor, Tensor, Tensor]:
        ends = torch.stack([start, start + by * (other - start)])
        return ends, torch.stack([side, side + by * (mixed - side)]), start + by * (mixed - start)

    def pair(by: float) -> float:
        image, sides, _ = drawn(by)
        labels = (torch.tensor([0, 1]),)
        batch = ct.Batch(image, torch.eye(2) > 0, labels, pairs, *2 * [torch.empty(0)])
        return float(ct.pair_loss(image, batch, [sides]))

    def mixture(by: float) -> float:
        image, _, half = drawn(by)
        share, washed = torch.tensor([-0.3]), torch.tensor([True])
        return float(ct.mixture_loss(image, half[None], share, washed, pairs))

    assert pair(0.2 * shrink) == pytest.approx(pair(1.0), rel=0.02, abs=1e-3)
    assert mixture(shrink) == pytest.approx(mixture(1.0), rel=0.02, abs=1e-3)


def test_a_drawing_in_the_colours_of_the_photo_is_less_of_a_drawing() -> None:
    before = torch.tensor([0.4, -0.3, -0.1]).view(1, 3, 1, 1).expand(3, 3, 16, 16)
    after = torch.full_like(before, 0.55)
    mixing = torch.rand(3, ct.MIXING, generator=torch.Generator().manual_seed(0))
    grain = 2 * torch.rand(before.shape, generator=torch.Generator().manual_seed(1)) - 1
    mixing[:, 2] = mixing[:, 18] = 0.0  # everywhere alike, no wash
    shares = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    mixing[:, :2] = (shares + 0.4) / torch.tensor([2.0, 2.8])
    _, share, washed = ct.mixtures(before, after, mixing, grain)
    # Two parts of which each is half of the distance: one done leaves the square root of a half.
    assert torch.allclose(share, torch.tensor([1.0, 1 - 0.5**0.5, 1 - 0.5**0.5]), atol=0.02)
    mixing[:, 18] = 0.9
    for kind in (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.999):  # a wash, then all sorts of grain
        mixing[:, 19] = kind
        _, share, washed = ct.mixtures(before, after, mixing, grain)
        assert share[0] < 0.9 and not washed.any()


def test_a_mixture_is_asked_for_its_own_share_of_the_way() -> None:
    before, after = 0.5 * ours(pictures(6, 16, 16)), 0.5 * ours(pictures(6, 16, 16, seed=1))
    mixing = torch.rand(6, ct.MIXING, generator=torch.Generator().manual_seed(0))
    grain = torch.zeros_like(before)
    mixing[:, 2] = 0.0  # everywhere alike
    mixing[:, 18] = 0.0  # no wash of colour
    both = torch.tensor([0.0, 0.5, 1.0, 0.25, 0.0, 1.0])[:, None]
    mixing[:, :2] = (both + 0.4) / torch.tensor([2.0, 2.8])
    mixed, share, washed = ct.mixtures(before, after, mixing, grain)
    wanted = torch.tensor([0.0, 0.5, 1.0, 0.25, 0.0, 1.0])
    assert torch.allclose(share, wanted, atol=1e-4) and not washed.any()
    mixing[:, :2] = (1.5 + 0.4) / torch.tensor(
        [2.0, 2.8]
    )  # past the end, which is no better than short of it
    assert (ct.mixtures(before, after, mixing, grain)[1] < 0.99).all()
    way = before + wanted.view(-1, 1, 1, 1) * (after - before)
    assert torch.allclose(mixed, way, atol=1e-5)
    image = embeddings(4, 3)
    pairs = torch.tensor([[0, 1], [2, 3]])
    start, end = image[pairs[:, 0]], image[pairs[:, 1]]
    whole, none, plain = torch.ones(2), torch.zeros(2), torch.zeros(2) > 0

    def loss(mixed: Tensor, share: Tensor, washed: Tensor) -> float:
        return float(ct.mixture_loss(image, mixed, share, washed, pairs))

    assert loss(end, whole, plain) == pytest.approx(0, abs=1e-6)
    assert loss(end, none, plain) == pytest.approx(1, abs=1e-4)
    # Under a wash of colour it may fall short of its share, but not pass it.
    assert loss(start, whole, ~plain) == 0 and loss(end, none, ~plain) > 0.5


# --- contrasts


def test_contrasts_come_from_a_file_and_go_back(tmp_path: Path) -> None:
    made = (
        contrasts.binary("smile", "Smiling", ("a smile", "no smile")),
        *contrasts.faces()[:2],
    )
    file = tmp_path / "contrasts.json"
    file.write_text(json.dumps(contrasts.to_json(made)))
    assert contrasts.read(file) == made


@pytest.mark.parametrize(
    "content",
    [
        "{", "{}[]", '{"name": "x"}', '[{"name": "x"}]',
        '[{"name": "x", "sides": [{"where": ["a=1"], "prompts": ["p"]}]}]',
        '[{"name": "x", "sides": [{"where": ["a=1"], "prompts": ["p"]},'
        ' {"where": ["a=-1"], "prompts": ["p", "q"]}]}]',
        '[{"name": "x", "sides": [{"where": "a=1", "prompts": "p"},'
        ' {"where": "a=-1", "prompts": "q"}]}]',
    ],
)  # fmt: skip
def test_a_file_of_no_contrasts_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "contrasts.json"
    file.write_text(content)
    with pytest.raises(BadInput) as caught:
        contrasts.read(file)
    assert "\n" not in caught.value.message
    with pytest.raises(BadInput, match="none"):
        contrasts.read(tmp_path / "none.json")


def test_labels_are_the_sides_that_samples_show() -> None:
    class Data(DataSet):
        def __init__(self) -> None:
            pass

        def __len__(self) -> int:
            return 4

        def where(self, *conditions: str) -> np.ndarray:
            return np.array({"glasses=1": [0, 2], "glasses=-1": [1]}[conditions[0]])

    found = contrasts.binary("g", "glasses", ("yes", "no")).labels(Data())
    assert found.tolist() == [0, 1, 0, -1]


@pytest.mark.parametrize("name", ["face.pth", "face.ts", "face", "ViT-B-32.pt"])
def test_a_fingerprint_sees_new_weights_whatever_their_file_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    specs = [name, f"ViT-B-32:openai={name}"]
    Path(name).write_bytes(b"old")
    old = [fingerprint(spec) for spec in specs]
    Path(name).write_bytes(b"new")
    assert all(fingerprint(spec) != before for spec, before in zip(specs, old, strict=True))
    assert fingerprint("ViT-B-32:openai") == "ViT-B-32:openai"


def test_a_large_clip_with_weights_is_trained_gently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rate that teaches a small one wipes out what a large one knows."""
    own = str(write_clip(tmp_path / "own"))
    assert usual_rate("small", None) > usual_rate("ViT-B-32", None) > usual_rate("small", "a:b")
    assert usual_rate("small", own) == 5e-4
    monkeypatch.setattr("dclip.guidance.clip.fresh.LARGE", 1000)
    assert usual_rate("small", own) == usual_rate("small", "ViT-B-32:openai") == 1e-5
