"""Editing: exactness, strength, combination, and the edit stage on every kind of input."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import Stop
from PIL import Image
from small_store import CPU, SIZE, STEPS, R, T, add_base, add_tuned, copied
from torch import Tensor

from dclip.configs.edit import EditConfig
from dclip.configs.prepare import PrepareConfig
from dclip.context import Context
from dclip.data.dataset import DataSet
from dclip.data.images import decode, to_float
from dclip.data.photos import fitting_crop, unique_names
from dclip.diffusion import ddim
from dclip.editing.editor import load_editor
from dclip.editing.mask import localised
from dclip.editing.plan import make_plan
from dclip.editing.results import copy_pictures
from dclip.editing.spec import PartSpec, parse_parts
from dclip.errors import BadInput, MissingArtifact
from dclip.models.checkpoint import load_model
from dclip.models.tuned import read_deltas
from dclip.stages import prepare
from dclip.stages.edit import run
from dclip.store import Artifact, Store

DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Store:
    store = copied(trained, tmp_path_factory.mktemp("edit") / "store")
    add_tuned(store, "smiling", seed=2, full=True)
    return store


@pytest.fixture(scope="module")
def photos(store: Store) -> Tensor:
    """Held-out faces, (4,3,16,16) in [-1, 1]."""
    data = DataSet(store.resolve("faces", "data").path)
    return to_float(torch.from_numpy(data.images(data.split("val")[:4])))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos as people have them: nested, equal stems, grey, CMYK, and one that is none."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for place, mode in (("a.png", "RGB"), ("b.jpg", "CMYK"), ("sub/a.jpg", "L")):
        pixels = rng.integers(0, 255, (24, 20, 3), dtype=np.uint8)
        (folder / place).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).convert(mode).save(folder / place)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    return folder


def config(*photos: Path | str, **more: Any) -> EditConfig:
    given = {"tuned": ("sketch",), "anyway": True, "align": "crop" in more} | more
    return EditConfig(photos=tuple(str(p) for p in photos), **given)


def rows(artifact: Artifact) -> list[dict[str, str]]:
    with (artifact.path / "samples.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


# --- the editor


def test_strength_0_is_the_photo_itself_and_offsets_are_why(store: Store, photos: Tensor) -> None:
    editor = load_editor(store, [("sketch", 1.0)], DEVICE, steps=2)
    start = editor.invert(photos)
    assert (editor.decode(start, 0.0) - photos).abs().max() < 1e-4
    plain = (editor.decode(start, 0.0, direct=False) - photos).abs().max()
    assert plain > 10 * (editor.decode(start, 0.0) - photos).abs().max()


def test_strength_0_is_the_photo_where_the_inversion_is_finer_than_the_decode(
    store: Store, photos: Tensor
) -> None:
    add_tuned(store, "coarse", seed=3, settings={"inversion_steps": 10, "decode_steps": 3})
    editor = load_editor(store, [("coarse", 1.0)], DEVICE)
    assert (editor.plan.steps, len(editor.plan.grid) - 1) == (3, 3)
    assert len(editor.plan.inversion_grid) - 1 >= 10
    start = editor.invert(photos)
    assert (editor.decode(start, 0.0) - photos).abs().max() < 1e-4
    assert (editor.decode(start, 1.0) - photos).abs().mean() > 1e-3


@pytest.mark.parametrize("name", ["sketch", "smiling"])  # an adapter, and full differences
def test_the_edit_moves_away_from_the_photo_as_strength_grows(
    store: Store, photos: Tensor, name: str
) -> None:
    editor = load_editor(store, [(name, 1.0)], DEVICE)
    start = editor.invert(photos)
    moved = [
        float((editor.decode(start, s) - photos).square().mean())
        for s in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert moved == sorted(moved)
    assert moved[-1] > 4 * moved[1] > 0


def test_a_combination_by_weights_is_the_sum_of_the_scaled_differences(
    store: Store, photos: Tensor
) -> None:
    editor = load_editor(store, [("sketch", 0.8), ("smiling", -0.5)], DEVICE)
    start = editor.invert(photos)
    base, info = load_model(store.resolve("faces", "model").path)
    own = base.state_dict()
    for name, strength in (("sketch", 0.8), ("smiling", -0.5)):
        for key, value in read_deltas(store.resolve(name, "tuned").path, base).items():
            own[key] = own[key] + 0.5 * strength * value
    base.load_state_dict(own)
    expected = ddim.decode(
        base, info.schedule, start.x_r, ddim.grid(R, STEPS), offsets=start.offsets
    )
    assert torch.allclose(editor.decode(start, 0.5), expected, atol=1e-5)


def test_noise_mixing_of_one_model_at_1_is_that_model(store: Store, photos: Tensor) -> None:
    by_noise = load_editor(store, [("sketch", 1.0)], DEVICE, mix="noise")
    by_weights = load_editor(store, [("sketch", 1.0)], DEVICE)
    start = by_noise.invert(photos)
    expected = by_weights.decode(start)
    assert torch.allclose(by_noise.decode(start), expected, atol=1e-5)
    assert (by_noise.decode(start, 0.0) - photos).abs().max() < 1e-4


def test_noise_mixing_adds_up_the_differences_of_the_predictions(
    store: Store, photos: Tensor
) -> None:
    editor = load_editor(store, [("sketch", 0.8), ("smiling", -0.5)], DEVICE, steps=1, mix="noise")
    start = editor.invert(photos)
    x_r, t = start.x_r, torch.full((len(photos),), R)
    base = editor.networks.network
    one = load_editor(store, [("sketch", 1.0)], DEVICE)._network(1.0)
    two = load_editor(store, [("smiling", 1.0)], DEVICE)._network(1.0)
    with torch.no_grad():
        eps = base(x_r, t) + 0.8 * (one(x_r, t) - base(x_r, t)) - 0.5 * (two(x_r, t) - base(x_r, t))
    expected = ddim.step(editor.schedule, x_r, eps, R, 0)
    assert torch.allclose(editor.decode(start, direct=False), expected, atol=1e-5)


def test_a_local_edit_leaves_the_photo_where_it_hardly_acts(store: Store, photos: Tensor) -> None:
    add_tuned(store, "local", seed=1, settings={"locality": 0.3})
    add_tuned(store, "anywhere", seed=1)
    local, anywhere = (load_editor(store, [(name, 1.0)], DEVICE) for name in ("local", "anywhere"))
    start = local.invert(photos)
    everywhere, kept = anywhere.decode(start), local.decode(start)
    assert torch.equal(kept, localised(everywhere, photos, 0.3))
    assert (kept == photos).float().mean() > (everywhere == photos).float().mean()
    assert (local.decode(start, 0.0) - photos).abs().max() < 1e-4
    # What the user says comes first; a plain decode has nothing to return to.
    off = load_editor(store, [("local", 1.0)], DEVICE, locality=0.0)
    assert torch.equal(off.decode(start), everywhere)
    plain = local.decode(start, direct=False)
    assert torch.equal(plain, anywhere.decode(start, direct=False))
    # Beside an edit of everything it is one.
    both = load_editor(store, [("local", 1.0), ("sketch", 1.0)], DEVICE)
    assert both.plan.locality == 0 and local.plan.locality == 0.3


@pytest.mark.parametrize("mix", ["weights", "noise"])
def test_a_window_says_at_which_t_a_model_acts(store: Store, photos: Tensor, mix: str) -> None:
    def moved(window: tuple[int, int] | None) -> Tensor:
        spec = PartSpec("sketch", 1.0, window)
        editor = load_editor(store, [spec], DEVICE, mix=mix)
        start = editor.invert(photos)
        return editor.decode(start) - photos

    # The decode of r = 12 in 4 steps asks the network at t = 12, 9, 6 and 3.
    assert moved((4, 5)).abs().max() < 1e-4
    everything = moved(None)
    assert torch.equal(moved((1, R)), everything)
    early, late = moved((9, 12)), moved((3, 6))
    assert early.abs().mean() > 1e-4 and late.abs().mean() > 1e-4
    assert not torch.allclose(early, late, atol=1e-4)
    assert not torch.allclose(early, everything, atol=1e-4)


def test_where_a_model_was_not_tuned_the_base_decodes(store: Store, photos: Tensor) -> None:
    add_tuned(store, "early", seed=1, settings={"t_min": 6})
    add_tuned(store, "whole", seed=1)
    early, whole = (load_editor(store, [(name, 1.0)], DEVICE) for name in ("early", "whole"))
    windowed = load_editor(store, [PartSpec("whole", 1.0, (7, R))], DEVICE)
    start = early.invert(photos)
    expected = windowed.decode(start)
    assert torch.equal(early.decode(start), expected)
    assert not torch.allclose(whole.decode(start), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"tuned": ("above@4-5",)}, "above t=6 and within 4..5"),
        ({"tuned": ("above",), "r": 6}, "above t=6, and the decode's timesteps are"),
        ({"tuned": ("sketch@4-5",)}, "within 4..5, and the decode's timesteps are 3, 6, 9, 12"),
        ({"tuned": ("above",)}, None),
        ({"tuned": ("above@1-5", "sketch@4-5")}, "sketch changes nothing"),
    ],
)
def test_an_edit_that_acts_nowhere_is_warned_of(
    store: Store, folder: Path, changes: dict[str, Any], why: str | None
) -> None:
    add_tuned(store, "above", seed=1, settings={"t_min": 6})
    notes = Stop()
    run(config(folder / "a.png", **changes), store, replace(CPU, report=notes))
    about = [each for each in notes.said if "changes nothing" in each]
    assert bool(about) == (why is not None)
    assert why is None or why in about[-1]


def test_models_of_different_bases_do_not_combine(store: Store) -> None:
    add_base(store, "other", seed=5)
    add_tuned(store, "stranger", seed=4, base="other")
    with pytest.raises(BadInput, match=r"model/faces/v1.*model/other/v1") as caught:
        load_editor(store, [("sketch", 1.0), ("stranger", 1.0)], DEVICE)
    assert "tuned/sketch/v1" in caught.value.message


def test_settings_come_from_the_models_the_largest_of_several(store: Store) -> None:
    add_tuned(store, "far", seed=6, settings={"r": 18, "decode_steps": 6, "inversion_steps": 6})
    plan = load_editor(store, [("sketch", 1.0), ("far", 1.0)], DEVICE).plan
    assert (plan.r, plan.steps) == (18, 6)
    plan = load_editor(store, [("far", 1.0)], DEVICE, r=5).plan
    assert (plan.r, plan.steps) == (5, 5)
    with pytest.raises(BadInput, match=f"1..{T}"):
        make_plan(plan.base, plan.parts, r=T + 1)
    with pytest.raises(BadInput, match="steps do not fit"):
        make_plan(plan.base, plan.parts, r=5, steps=6)
    windowed = [replace(plan.parts[0], window=(3, 4))]
    assert make_plan(plan.base, windowed).mix == "weights"
    with pytest.raises(BadInput, match="begins at r=2"):
        make_plan(plan.base, windowed, r=2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sketch", [PartSpec("sketch")]),
        ("sketch:0.8", [PartSpec("sketch", 0.8)]),
        ("sketch:-1", [PartSpec("sketch", -1.0)]),
        ("sketch@best:+.5", [PartSpec("sketch@best", 0.5)]),
        ("sketch/v2:0.8@60-100", [PartSpec("sketch/v2", 0.8, (60, 100))]),
        ("sketch@60-100", [PartSpec("sketch", 1.0, (60, 100))]),
        ("a:0.5 + b:-2", [PartSpec("a", 0.5), PartSpec("b", -2.0)]),
    ],
)
def test_edits_are_read_as_documented(text: str, expected: list[PartSpec]) -> None:
    assert parse_parts(text) == tuple(expected)


@pytest.mark.parametrize("text", ["sketch:much", "sketch:nan", "sketch:", "sketch@9-3", "a:1+"])
def test_what_is_no_edit_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        EditConfig(photos=("x.png",), tuned=(text,))


# --- the stage


def test_a_folder_gives_an_edit_of_each_photo_that_can_be_read(store: Store, folder: Path) -> None:
    notes = Stop()
    made = run(config(folder, side_by_side=True), store, replace(CPU, report=notes))
    table = rows(made)
    assert [row["file"] for row in table] == ["a.png", "b.jpg", "sub/a.jpg"]
    assert [row["picture"] for row in table] == [f"images/{n}.png" for n in ("a", "b", "a-2")]
    assert all(float(row["change"]) > 0 for row in table)
    assert len({row["sha256"] for row in table}) == 3
    for row in table:
        edit, original = (
            pixels(made.path / place)
            for place in (row["picture"], row["picture"].replace("images", "originals"))
        )
        assert edit.shape == original.shape == (SIZE, SIZE, 3)
        change = np.abs(edit / 255 - original / 255).mean()
        assert float(row["change"]) == pytest.approx(change, abs=1e-5)
    assert (made.path / "images" / "a_panel.png").is_file()
    assert (made.path / "panel.png").is_file()
    assert (made.path / "skipped.csv").read_text().splitlines()[1].startswith("broken.jpg,")
    assert made.metrics["photos"] == 3 and made.metrics["skipped"] == 1
    assert "1 of 4 photos could not be read" in notes.said[-1]
    again = run(config(folder, side_by_side=True), store, replace(CPU, report=(notes := Stop())))
    assert not again.fresh and "1 of 4 photos" in notes.said[-1]
    with pytest.raises(BadInput, match="1 of 4"):
        run(config(folder, side_by_side=True, strict=True), store, CPU)


def test_the_edit_is_what_the_editor_makes_of_the_photo(store: Store, folder: Path) -> None:
    made = run(config(folder / "b.jpg", strength="0,0.5"), store, CPU)
    original = decode(folder / "b.jpg", size=SIZE, crop="center").pixels
    assert np.array_equal(pixels(made.path / "originals" / "b.png"), original)
    assert np.array_equal(pixels(made.path / "images" / "b_0.png"), original)
    editor = load_editor(store, [("sketch", 0.5)], DEVICE)
    x0 = to_float(torch.from_numpy(original.transpose(2, 0, 1).copy()))[None]
    expected = editor.decode(editor.invert(x0))[0].permute(1, 2, 0).numpy()
    got = pixels(made.path / "images" / "b_0.5.png") / 127.5 - 1
    assert np.abs(got - expected.clip(-1, 1)).max() <= 1 / 127.5


def test_the_reconstruction_is_the_plain_decode_where_it_is_asked_for(
    store: Store, folder: Path
) -> None:
    photo = folder / "b.jpg"
    original = decode(photo, size=SIZE, crop="center").pixels
    x0 = to_float(torch.from_numpy(original.transpose(2, 0, 1).copy()))[None]
    editor = load_editor(store, [("sketch", 1.0)], DEVICE)
    plain = editor.decode(editor.invert(x0), 0.0, direct=False)
    error = (plain.clamp(-1, 1) - x0).square().mean() / 4
    for changes in ({"side_by_side": True}, {"direct": False}):
        made = run(config(photo, **changes), store, CPU)
        (row,) = rows(made)
        assert float(row["psnr"]) == pytest.approx(float(-10 * error.log10()), abs=0.02)
        assert made.metrics["psnr"] == pytest.approx(float(row["psnr"]), abs=0.01)
    for changes, columns in (({}, 2), ({"side_by_side": True}, 3)):
        made = run(config(photo, **changes), store, CPU)
        with Image.open(made.path / "panel.png") as panel:
            assert columns * 128 < panel.width < (columns + 1) * 128
    (row,) = rows(run(config(photo), store, CPU))
    assert "psnr" not in row


def test_content_identifies_the_work_and_not_the_path(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    first = run(config(folder / "a.png"), store, CPU)
    shutil.copy(folder / "a.png", tmp_path / "a.png")
    moved = run(config(tmp_path / "a.png"), store, CPU)
    assert not moved.fresh and moved.ref == first.ref
    Image.fromarray(255 - pixels(folder / "a.png")).save(tmp_path / "a.png")
    changed = run(config(tmp_path / "a.png"), store, CPU)
    assert changed.fresh and changed.id != first.id


def test_samples_of_a_data_artifact_are_chosen_by_split_and_condition(store: Store) -> None:
    data = DataSet(store.resolve("faces", "data").path)
    name = next(n for n in data.attribute_names if 4 < (data.attribute(n) == 1).sum() < 60)
    given = EditConfig(data="faces", where=(f"{name}=1",), count=3, tuned=("sketch",))
    made = run(given, store, CPU)
    chosen = made.config["samples"]
    assert set(chosen) <= set(data.split("val").tolist()) and 0 < len(chosen) <= 3
    assert (data.attribute(name)[chosen] == 1).all()
    for number, row in zip(chosen, rows(made), strict=True):
        assert row["file"] == data.ids[number]
        shown = pixels(made.path / row["picture"].replace("images", "originals"))
        assert np.array_equal(shown, data.images([number])[0].transpose(1, 2, 0))
    other = run(replace(given, seed=1, split="train", where=()), store, CPU)
    assert set(other.config["samples"]) <= set(data.split("train").tolist())
    with pytest.raises(BadInput, match="no samples"):
        run(replace(given, where=("id=nobody",)), store, CPU)


def test_equal_work_in_two_stores_has_one_id_also_after_an_interruption(
    store: Store, tmp_path: Path
) -> None:
    other = Store(tmp_path / "other")
    shutil.copytree(store.root, other.root, symlinks=True)
    shutil.rmtree(other.root / "edits", ignore_errors=True)
    given = EditConfig(data="faces", split="all", count=20, tuned=("sketch", "smiling:-1"))
    with pytest.raises(KeyboardInterrupt):
        run(given, other, replace(CPU, report=Stop(15)))
    assert not other.list("edits")
    resumed = Stop()
    one, two = run(given, store, CPU), run(given, other, replace(CPU, report=resumed))
    assert one.fresh and two.fresh and one.id == two.id
    assert resumed.began == [16 * 2 * STEPS]  # a whole batch, there and back
    assert len(rows(one)) == 20


def test_nothing_readable_is_bad_input_and_leaves_no_trace(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    before = {a.ref for a in store.list()}
    with pytest.raises(BadInput, match=r"^broken.jpg is not an image"):
        run(config(folder / "broken.jpg"), store, CPU)
    with pytest.raises(BadInput, match=r"broken\.jpg"):
        run(config(folder / "broken.jpg", folder / "b.jpg", strict=True), store, CPU)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no pictures"):
        run(config(tmp_path / "empty"), store, CPU)
    with pytest.raises(BadInput, match="no such photo"):
        run(config(tmp_path / "typo.jpg"), store, CPU)
    with pytest.raises(MissingArtifact, match="sketsh"):
        run(config(folder, tuned=("sketsh",)), store, CPU)
    assert {a.ref for a in store.list()} == before
    assert not [p for p in store.staging.iterdir() if p.is_dir()]


@pytest.mark.parametrize(
    "bad",
    [
        {"photos": ()},
        {"data": "faces"},
        {"where": ("Smiling=1",)},
        {"crop": "round"},
        {"strength": "much"},
        {"strength": ()},
        {"strength": "0.1234567,0.1234568"},
        {"mix": "stir"},
        {"locality": 0.5},
        {"locality": 0.2, "direct": False},
    ],
)
def test_settings_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        EditConfig(**({"photos": ("x.png",)} | bad))


def test_copies_never_replace_another_picture_unasked(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    made = run(config(folder / "a.png"), store, CPU)
    (target,) = copy_pictures(made, tmp_path / "new" / "out")
    assert target.read_bytes() == (made.path / "images" / "a.png").read_bytes()
    copy_pictures(made, tmp_path / "new" / "out")
    target.write_bytes(b"mine")
    with pytest.raises(BadInput, match="there already"):
        copy_pictures(made, tmp_path / "new" / "out")
    assert target.read_bytes() == b"mine"
    copy_pictures(made, tmp_path / "new" / "out", overwrite=True)
    assert target.read_bytes() != b"mine"
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(BadInput, match="is a file"):
        copy_pictures(made, tmp_path / "file")


def test_one_picture_is_copied_to_a_file_of_that_name_and_format(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    made = run(config(folder / "a.png"), store, CPU)
    picture = made.path / "images" / "a.png"
    (target,) = copy_pictures(made, tmp_path / "edited.PNG")
    assert target.read_bytes() == picture.read_bytes()
    (target,) = copy_pictures(made, tmp_path / "new" / "edited.jpg")
    with Image.open(target) as image, Image.open(picture) as original:
        assert (image.format, image.size) == ("JPEG", original.size)
    with pytest.raises(BadInput, match="there already"):
        copy_pictures(run(config(folder / "b.jpg"), store, CPU), target)
    both = run(config(folder / "a.png", folder / "b.jpg"), store, CPU)
    with pytest.raises(BadInput, match="2 pictures do not fit"):
        copy_pictures(both, tmp_path / "other.png")
    assert not (tmp_path / "other.png").exists()


def test_photos_are_cropped_as_the_models_data_was(store: Store, tmp_path: Path) -> None:
    """A model of photos says so itself, also where its data is gone; and takes photos unasked."""
    other = Store(tmp_path / "store")
    shutil.copytree(store.root, other.root, symlinks=True)
    rng = np.random.default_rng(1)
    album = tmp_path / "album"
    album.mkdir()
    for n in range(8):
        noise = rng.integers(0, 255, (218, 178, 3), dtype=np.uint8)
        Image.fromarray(noise).save(album / f"{n}.png")
    closely = PrepareConfig("folder", root=str(album), size=SIZE, crop="face", name="album")
    prepare.run(closely, other, CPU)
    add_base(other, "album", data="album")
    add_tuned(other, "album", seed=1, base="album")
    shutil.rmtree(other.root / "data" / "album")
    photo = album / "0.png"
    for given, crop in ((None, "face"), ("center", "center")):
        made = run(EditConfig(photos=(str(photo),), tuned=("album",), crop=given), other, CPU)
        expected = decode(photo, size=SIZE, crop=crop).pixels
        assert np.array_equal(pixels(made.path / "originals" / "0.png"), expected)
    drawn = run(config(photo), other, CPU)  # of drawn faces, which are not cropped
    assert np.array_equal(pixels(drawn.path / "originals" / "0.png"), expected)


def test_the_crop_follows_the_data_where_that_means_something() -> None:
    assert fitting_crop((178, 218), None) == "face"
    assert fitting_crop((178, 218), "120") == "120"
    assert fitting_crop((3000, 4000), "face") == "face"
    assert fitting_crop((3000, 4000), "120") == fitting_crop((3000, 4000), None) == "center"
    assert fitting_crop((64, 64), "face") == "center"


def test_names_of_files_are_safe_and_never_meet() -> None:
    given = ["a", "A", "a-2", "x/../y", "..", "a_panel", "caf\u00e9", "p" * 300, "con\x00trol"]
    names = unique_names(given)
    files = [f"{n}{end}".lower() for n in names for end in ("", "_panel")]
    assert len(set(files)) == len(files)
    assert names[0] == "a" and names[6] == "caf\u00e9"
    assert all(n and "/" not in n and "\x00" not in n and len(n) < 130 for n in names)
    assert not any(n.startswith(".") for n in names)


def test_a_dry_run_tells_the_settings_and_reads_no_weights(store: Store, folder: Path) -> None:
    from dclip.store import Planned

    with pytest.raises(Planned) as caught:
        run(config(folder, r=7), store, Context(device="cpu", workers=1, dry_run=True))
    plan = caught.value.plan
    assert (plan["config"]["r"], plan["config"]["steps"]) == (7, 4)
    assert plan["estimate"]["photos"] == 4
