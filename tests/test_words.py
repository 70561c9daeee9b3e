"""Networks that read attributes, and edits by words: no tuning, the photo at strength 0."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fakes import Stop
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_store import CPU, copied
from torch import Tensor

from dclip.configs.edit import EditConfig
from dclip.configs.invert import InvertConfig
from dclip.configs.prepare import PrepareConfig
from dclip.configs.sample import SampleConfig
from dclip.configs.slider import SliderConfig
from dclip.configs.train import TrainConfig
from dclip.data.dataset import DataSet
from dclip.diffusion import ddim
from dclip.diffusion.conditioning import Condition, Prompted
from dclip.diffusion.inversion import invert_with_offsets
from dclip.diffusion.schedule import Schedule
from dclip.editing.editor import Editor
from dclip.editing.mask import localised
from dclip.editing.words import Words, wording
from dclip.encoders.attributes import AttributeEncoder
from dclip.encoders.find import FoundEncoder
from dclip.errors import BadInput
from dclip.models.checkpoint import load_model, read_info
from dclip.stages import edit, invert, prepare, sample, slider, train
from dclip.store import Artifact, Store
from dclip.training import loop as training
from dclip.training.reading import Attributes, attributes_of, parts_of

NAMES = ("Smiling", "No_Beard", "Blond_Hair")
ENCODER = AttributeEncoder(NAMES)

prompts = st.lists(st.sampled_from([-1, 0, 1]), min_size=3, max_size=3)


@pytest.mark.parametrize(
    ("prompt", "values"),
    [
        ("", [0, 0, 0]),
        ("smiling", [1, 0, 0]),
        ("not smiling, blond hair", [-1, 0, 1]),
        ("Blond_Hair=0,  SMILING=1", [1, 0, -1]),
        ("-smiling", [-1, 0, 0]),
        ("no beard", [0, 1, 0]),  # an attribute's own name wins
        ("not no beard", [0, -1, 0]),
        ("smiling, smiling", [1, 0, 0]),
    ],
)
def test_attributes_are_read_as_people_write_them(prompt: str, values: list[int]) -> None:
    assert ENCODER.values([prompt]).tolist() == [values]
    condition = ENCODER.encode([prompt, ""])
    assert condition.pooled is not None and condition.pooled.tolist() == [values, [0, 0, 0]]
    assert condition.tokens.shape == (2, 0, 0)


@given(prompts)
def test_a_prompt_says_what_its_values_are(values: list[int]) -> None:
    row = np.array(values, dtype=np.int8)
    assert ENCODER.values([ENCODER.prompt(row)]).tolist() == [values]


@pytest.mark.parametrize(
    ("prompt", "says", "fix"),
    [
        ("smilng", "no attribute 'smilng'", "Smiling"),
        ("a castle by the sea", "no attribute", "Smiling, No_Beard, Blond_Hair"),
        ("smiling, not smiling", "asks for Smiling and rules it out", "once"),
        ("smiling=2", "neither on nor off", "smiling=1"),
    ],
)
def test_what_is_no_attribute_is_refused(prompt: str, says: str, fix: str) -> None:
    with pytest.raises(BadInput, match=says) as error:
        ENCODER.encode([prompt])
    assert fix in str(error.value.fix)


@pytest.mark.parametrize(
    ("target", "source", "texts"),
    [
        ("smiling", None, ("not Smiling", "Smiling")),
        ("smiling", "", ("", "Smiling")),
        ("smiling", "blond hair", ("Blond_Hair", "Smiling, Blond_Hair")),
        ("not blond hair", "blond hair", ("Blond_Hair", "not Blond_Hair")),
    ],
)
def test_attributes_that_the_edit_does_not_name_stay(
    target: str, source: str | None, texts: tuple[str, str]
) -> None:
    found = wording(FoundEncoder("attributes", "", names=NAMES), target, source, 3.0)
    assert (found.source, found.target) == texts


def test_text_is_taken_whole() -> None:
    found = wording(FoundEncoder("clip", "nowhere"), "a smiling person", None, 3.0)
    assert (found.source, found.target) == ("", "a smiling person")


# What the two predictions make of a photo, by arithmetic of its own.

SCHEDULE = Schedule.make("linear", 20)
SOURCE, TARGET = (Condition(torch.zeros(1, 0, 0), None, torch.tensor([[v]])) for v in (0.0, 1.0))


def reader(x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
    """A network whose answer to 1 differs in the left half alone."""
    assert condition is not None and condition.pooled is not None
    left = torch.zeros_like(x)
    left[..., : x.shape[-1] // 2] = 1.0
    return 0.3 * torch.tanh(x) + 0.2 * condition.pooled[:, :, None, None] * left


def editor(scale: float, locality: float = 0.0) -> Editor:
    grid = ddim.grid(12, 6)
    plan = SimpleNamespace(
        info=SimpleNamespace(schedule=SCHEDULE), parts=(), grid=grid, inversion_grid=grid, rounds=0,
        encode="inversion", method="fixed-point", refinements=2, r=12, locality=locality,
    )  # fmt: skip
    networks = SimpleNamespace(
        network=reader, device=torch.device("cpu"), precision="fp32", autoencoder=None
    )
    return Editor(plan, networks, words=Words(SOURCE, TARGET, scale))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def photos() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1


def test_an_edit_by_words_follows_the_difference_of_two_predictions(photos: Tensor) -> None:
    by_words = editor(3.0)
    start = by_words.invert(photos)
    walk = Prompted(reader, SOURCE)
    x_r, offsets = invert_with_offsets(
        walk, SCHEDULE, photos, by_words.plan.grid, method="fixed-point", refinements=2
    )
    assert torch.equal(start.x_r, x_r)

    def eps(x: Tensor, t: Tensor) -> Tensor:
        first, second = reader(x, t, SOURCE.expanded(2)), reader(x, t, TARGET.expanded(2))
        return first + 0.5 * 3.0 * (second - first)

    expected = ddim.decode(eps, SCHEDULE, x_r, by_words.plan.grid, offsets=offsets)
    torch.testing.assert_close(by_words.decode(start, 0.5), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(by_words.decode(start, 0.0), photos, atol=1e-5, rtol=0)


def test_the_photo_returns_where_the_predictions_agree(photos: Tensor) -> None:
    start = editor(3.0).invert(photos)
    plain, masked = (editor(3.0, locality).decode(start) for locality in (0.0, 0.1))
    far = 12  # beyond the window over which differences are averaged
    assert torch.equal(masked[..., far:], photos[..., far:])
    torch.testing.assert_close(masked[..., :5], plain[..., :5], atol=1e-6, rtol=0)
    assert (plain[..., :5] - photos[..., :5]).abs().mean() > 0.05


def test_a_map_decides_where_an_edit_stays() -> None:
    photo, change = torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)
    by = torch.zeros(1, 1, 16, 16)
    by[..., :8] = 1.0
    kept = localised(photo + change, photo, 0.1, by)
    assert kept[..., :7].min() == 1 and kept[..., 10:].max() == 0


# The stages.


def write_celeba(root: Path, count: int = 96) -> None:
    """CelebA's layout with plain pictures: the odd ones are white, the others black."""
    folder = root / "img_align_celeba"
    folder.mkdir(parents=True)
    rows = []
    for number in range(1, count + 1):
        white = number % 2
        shade = np.full((218, 178, 3), 200 if white else 55, np.uint8)
        shade += (np.random.default_rng(number).integers(0, 40, (1, 1, 3))).astype(np.uint8)
        Image.fromarray(shade).save(folder / f"{number:06d}.jpg")
        rows.append(f"{number:06d}.jpg {1 if white else -1} {1 if number % 3 else -1}")
    text = "\n".join([str(count), "White Third", *rows])
    (root / "list_attr_celeba.txt").write_text(text + "\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("words")
    write_celeba(folder / "celeba")
    store = Store(folder / "store")
    prepare.run(PrepareConfig("celeba", root=str(folder / "celeba"), size=16), store, CPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train._Training, "_panel", lambda *_: None)  # one after every third update
        patch.setattr(train._Training, "_validation", lambda *_: 0.0)
        train.run(TRAINING, store, CPU)
    latents = InvertConfig(model="bw", data="celeba", r=15, steps=5, count=40, name="bw")
    invert.run(latents, store, CPU)
    return store


TRAINING = TrainConfig(
    size="micro", T=20, images=3200, batch=32, lr=5e-3, ema=0.9, condition="attributes", name="bw"
)
EDIT = EditConfig(
    data="celeba", model="bw", split="all", where=("White=-1",), count=4, prompt="white", steps=6
)


def pictures(artifact: Artifact, folder: str = "images") -> np.ndarray:
    files = sorted(artifact.path.glob(f"{folder}/*"))
    return np.stack([np.asarray(Image.open(file).convert("RGB"), np.float64) for file in files])


def test_a_trained_network_edits_by_an_attribute_and_strength_0_is_the_photo(made: Store) -> None:
    info = read_info(made.resolve("bw", "model").path)
    assert info.text is not None and info.text.names == ("White", "Third")
    lighter = edit.run(EDIT, made, CPU)
    assert lighter.config["source"] == "not White" and lighter.config["prompt"] == "White"
    black = pictures(lighter, "originals")
    assert pictures(lighter).mean() > black.mean() + 40
    still = edit.run(replace(EDIT, strength=(0.0,), name="still"), made, CPU)
    assert np.abs(pictures(still) - black).max() <= 1
    same = edit.run(replace(EDIT, prompt="White=1"), made, CPU)
    assert same.id == lighter.id


SLIDER = SliderConfig(prompt="white", latents="bw", updates=60, batch=8, rank=4)


def test_a_slider_edits_without_words_as_far_as_the_words_do(made: Store) -> None:
    tuned = slider.run(SLIDER, made, CPU)
    assert tuned.kind == "tuned" and tuned.metrics["missing"] < 0.5
    first = tuned.metrics["scores"][0]["missing"]
    assert tuned.metrics["missing"] < first
    shown = replace(EDIT, model=None, prompt=None, tuned=("White",), steps=None)
    by_words = pictures(edit.run(replace(EDIT, r=15, steps=5, source=""), made, CPU))
    photos = pictures(edit.run(replace(EDIT, strength=(0.0,), name="still"), made, CPU))
    lighter, between = (
        pictures(edit.run(replace(shown, strength=(s,), name=f"s{s:g}"), made, CPU)).mean()
        for s in (1.0, 0.5)
    )
    assert lighter - photos.mean() > 0.5 * (by_words.mean() - photos.mean()) > 10
    assert photos.mean() + 5 < between < lighter - 5


def test_a_slider_resumes_to_the_byte(made: Store) -> None:
    again = replace(SLIDER, updates=12)
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
        slider.run(again, made, replace(CPU, report=Stop(8)))
    halves = slider.run(again, made, replace(CPU, report=(stop := Stop())))
    assert stop.began == [5 * 8]  # the round of five steps that was saved
    whole = slider.run(again, made, replace(CPU, force=True))
    weights = [(each.path / "adapter.safetensors").read_bytes() for each in (whole, halves)]
    assert weights[0] == weights[1]


def test_it_draws_what_the_attributes_say(made: Store) -> None:
    base = SampleConfig(model="bw", count=4, steps=10)
    white, black = (
        pictures(sample.run(replace(base, prompt=(p,), cfg=1.0, name=n), made, CPU)).mean()
        for p, n in (("white", "w"), ("not white", "b"))
    )
    assert white > black + 60


def test_a_plain_network_begins_as_itself(made: Store) -> None:
    plain = train.run(replace(TRAINING, condition="none", images=16, name="plain"), made, CPU)
    more = replace(TRAINING, init="plain", size="laptop", T=200, images=1, lr=1e-30, name="more")
    network, _ = load_model(train.run(more, made, CPU).path)
    before, _ = load_model(plain.path)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 9])
    asked = AttributeEncoder(("White", "Third")).encode(["white"])
    expected = before(x, t)
    torch.testing.assert_close(network(x, t, asked), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(network(x, t), expected, atol=1e-4, rtol=0)


def test_what_is_shown_is_decided_by_the_picture_alone(made: Store) -> None:
    data = DataSet(made.resolve("celeba", "data").path)
    reading = Attributes(data, AttributeEncoder(("White", "Third")), seed=1)
    part = np.arange(40).repeat(50)
    keys = [(data.ids[i], turn) for turn, i in enumerate(part)]
    pooled = parts_of(reading.shown(part, keys))[2].numpy()
    few = parts_of(reading.shown(part[7:9], keys[7:9]))[2].numpy()
    assert np.array_equal(pooled[7:9], few)
    known = attributes_of(data)
    truth = np.stack([known[name][part] for name in ("White", "Third")], 1)
    assert ((pooled == truth) | (pooled == 0)).all()
    whole, empty = (pooled != 0).all(1).mean(), (pooled == 0).all(1).mean()
    # Of the 45 % that are shown in part, a third show both and a third neither: E[u^2] = 1/3.
    assert abs(whole - 0.60) < 0.04 and abs(empty - 0.25) < 0.04


def test_styles_are_attributes_where_there_are_several(tmp_path: Path) -> None:
    store = Store(tmp_path)
    several = prepare.run(PrepareConfig("faces", count=12, size=16, style="all"), store, CPU)
    one = prepare.run(PrepareConfig("faces", count=12, size=16, name="one"), store, CPU)
    found = attributes_of(DataSet(several.path))
    sketches = found["sketch"]
    styles = DataSet(several.path).table.text("style")
    assert [style == "sketch" for style in styles] == (sketches == 1).tolist()
    assert "photo" not in attributes_of(DataSet(one.path))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prompt": "wite"}, "no attribute 'wite'"),
        ({"prompt": ""}, "asks for nothing"),
        ({"prompt": "white", "source": "white"}, "asks for nothing"),
        ({"prompt": None, "model": None, "source": "white"}, "--source"),
        ({"model": None, "tuned": ("sketch",)}, "--prompt has no effect with --with"),
        ({"cfg": 200.0}, "cfg is 200.0"),
    ],
)
def test_words_that_cannot_be_are_one_line(
    made: Store, change: dict[str, object], says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        edit.run(replace(EDIT, **change), made, CPU)  # type: ignore[arg-type]


def test_a_model_that_reads_nothing_is_refused(trained: Path, tmp_path: Path) -> None:
    store = copied(trained, tmp_path / "store")
    asked = EditConfig(data="faces", prompt="smiling", count=1)
    with pytest.raises(BadInput, match="reads no text"):
        edit.run(replace(asked, model="faces"), store, CPU)


LATENT = EditConfig(
    data="faces", model="embedded-text", prompt="a pencil sketch of a person",
    source="a photo of a person", count=1, steps=2, r=0.4,
)  # fmt: skip


def test_a_model_of_latents_edits_and_strength_0_is_the_photo(
    trained: Path, tmp_path: Path
) -> None:
    store = copied(trained, tmp_path / "store")
    made = edit.run(replace(LATENT, strength=(0.0, 1.0)), store, CPU)
    photo = pictures(made, "originals")
    still, edited = pictures(made)
    assert np.abs(still - photo[0]).max() <= 1  # the autoencoder's own loss would be far more
    assert np.abs(edited - photo[0]).mean() > 1
    plain = edit.run(replace(LATENT, strength=(0.0,), direct=False, name="plain"), store, CPU)
    assert np.abs(pictures(plain)[0] - photo[0]).max() > 5
    again = edit.run(replace(LATENT, model=None, strength=(0.0, 1.0)), store, CPU)
    assert again.id == made.id  # the embedded one where the store has none that reads


@pytest.mark.parametrize("change", [{"guide": ("colour:green:1",)}, {"rounds": 2}])
def test_what_works_on_pixels_is_refused_for_latents(
    trained: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    store = copied(trained, tmp_path / "store")
    with pytest.raises(BadInput, match=f"denoises latents, and --{next(iter(change))} works on"):
        edit.run(replace(LATENT, **change), store, CPU)  # type: ignore[arg-type]


def test_a_slider_needs_a_model_that_reads(trained: Path, tmp_path: Path) -> None:
    store = copied(trained, tmp_path / "store")
    with pytest.raises(BadInput, match="model/faces/v1 reads neither"):
        slider.run(SliderConfig(prompt="smiling"), store, CPU)
    with pytest.raises(BadInput, match="what is the edit"):
        SliderConfig()


def test_data_must_have_the_attributes(made: Store, tmp_path: Path) -> None:
    for k in range(4):
        Image.new("RGB", (16, 16), (k * 60, 0, 0)).save(tmp_path / f"{k}.png")
    prepare.run(PrepareConfig("folder", root=str(tmp_path), size=16, name="plain"), made, CPU)
    with pytest.raises(BadInput, match="no attributes to train on"):
        train.run(replace(TRAINING, data="plain"), made, CPU)
    more = TrainConfig(data="plain", init="bw", images=16)
    with pytest.raises(BadInput, match="no attribute White, Third"):
        train.run(more, made, CPU)
    described = json.loads((made.resolve("bw", "model").path / "model.json").read_text())
    assert described["text"]["kind"] == "attributes"
