"""Figures of samples over axes, by the command: cells are samples, drawn once and kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_cli import Shell
from small_store import SIZE, copied
from test_sample_stage import make_store

from dclip.configs.edit import EditConfig
from dclip.configs.sample import SampleConfig
from dclip.context import Context
from dclip.data import faces
from dclip.data.images import save_png
from dclip.errors import BadInput
from dclip.evaluation.samples import squares_of
from dclip.figures.axes import AXES, parse_axis
from dclip.stages import edit, sample
from dclip.store import Store

CPU = Context(device="cpu")
FIXED = ("--fixed", "model=base", "--cell", "16", "--no-captions")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path / "store")


def panel(store: Store) -> np.ndarray:
    figure = max(store.list("figure"), key=lambda each: each.version)
    return np.asarray(Image.open(figure.path / "panel.png").convert("RGB")).astype(int)


def shows(page: np.ndarray, picture: np.ndarray) -> bool:
    """Whether a picture stands on the page somewhere."""
    h, w = picture.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(page[..., 0], (h, w))
    return bool((np.abs(windows - picture[..., 0]).max((-1, -2)) == 0).any())


def test_every_cell_is_the_sample_of_its_settings_and_is_kept(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(store.root, capsys)
    shell("grid", "--x", "steps=2,3", "--y", "seed=0,1", *FIXED)
    page = panel(store)
    before = {each.id for each in store.list("samples")}
    assert len(before) == 4
    for steps, seed in ((2, 0), (3, 0), (2, 1), (3, 1)):
        config = SampleConfig(model="base", steps=steps, seed=seed, count=1, batch=1, name="own")
        own = sample.run(config, store, CPU)
        assert shows(page, np.asarray(Image.open(own.path / "images/0000.png")).astype(int))
    own_ids = {each.id for each in store.list("samples")} - before
    shell("grid", "--x", "steps=2,3,4", "--y", "seed=0,1", *FIXED)
    more = {each.id for each in store.list("samples")} - before - own_ids
    assert len(more) == 2, "only the new column is drawn"


def test_a_killed_figure_keeps_the_cells_that_it_drew(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, calls = sample.run, []

    def counted(config: SampleConfig, *rest: object) -> object:
        if len(calls) == 2:
            calls.clear()
            raise KeyboardInterrupt
        calls.append(config.steps)
        return real(config, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("dclip.stages.cells.sample.run", counted)
    shell = Shell(store.root, capsys)
    shell("grid", "--x", "steps=2,3,4", *FIXED, code=130)
    assert len(store.list("samples")) == 2
    shell("grid", "--x", "steps=2,3", *FIXED)
    assert len(store.list("samples")) == 2


def test_without_a_model_the_newest_draws_every_cell(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(store.root, capsys)
    out, err = shell("grid", "--x", "steps=2,3", "--cell", "16")
    assert "using model/base/v1" in err and err.count("using model") == 1
    assert "panel.png" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--x", "cgf=1,2"), "did you mean cfg"),
        (("--x", "cfg"), "cannot read the axis"),
        (("--x", "steps=2,2"), "twice"),
        (("--x", "steps=2,"), "empty value"),
        (("--x", "steps=2,x"), "steps is 'x'"),
        (("--x", "steps=2", "--y", "steps=3"), "both axes are steps"),
        (("--x", "steps=2", "--fixed", "steps=3"), "on an axis and fixed"),
        (("--x", "steps=2", "--fixed", "count=3"), "a cell is one picture"),
        (("--x", "sampler=ddim,ddmp"), "ddpm"),
        (("--x", "eta=nan,1", "--fixed", "model=base"), "eta"),
        (("--x", "cfg=1,2", "--fixed", "model=base"), "cfg has no effect"),
        (("--x", "cfg=1,2"), "--fixed 'prompt="),
        (("--x", "prompt=a cat", "--fixed", "model=base"), "reads no text"),
        (("--x", f"seed={','.join(map(str, range(500)))}"), "500 cells are too many"),
        (("--x", "steps=2,99", "--fixed", "model=base"), "99 steps do not fit"),
        (("--x", "r=2,9", "--fixed", "model=base"), "name a photo, for a figure of edits"),
    ],
)
def test_bad_axes_are_one_line(
    store: Store, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    _, err = Shell(store.root, capsys)("grid", *words, code=2)
    assert said in err and "Traceback" not in err
    assert not store.list("figure")


# --- edits of photos over axes


@pytest.fixture(scope="module")
def edits(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> tuple[Store, Path]:
    """A store with a tuned "sketch", and a folder of three drawn faces."""
    place = tmp_path_factory.mktemp("edits")
    for number in range(3):
        save_png(place / "album" / f"{number}.png", faces.draw(faces.sample(5, number), size=SIZE))
    return copied(trained, place / "store"), place / "album"


def test_cells_with_photos_are_their_edits(
    edits: tuple[Store, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store, album = edits
    photo = album / "1.png"
    words = ("--with", "sketch", "--anyway", "--cell", str(SIZE), "--no-captions")
    Shell(store.root, capsys)("grid", str(photo), "--x", "r=6,12", "--y", "strength=0,1.5", *words)
    page = panel(store)
    assert shows(page, np.asarray(Image.open(photo).convert("RGB")).astype(int))
    for r in (6, 12):
        config = EditConfig(
            photos=(str(photo),), tuned=("sketch",), r=r, strength=(1.5,), anyway=True, name="own"
        )
        own = squares_of(edit.run(config, store, CPU)).edits[1.5][0]
        assert shows(page, np.asarray(Image.open(own).convert("RGB")).astype(int))


def test_several_photos_have_a_row_each(
    edits: tuple[Store, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store, album = edits
    words = ("--with", "sketch", "--anyway", "--cell", str(SIZE))
    shell = Shell(store.root, capsys)
    shell("grid", str(album), "--x", "strength=0,1", *words)
    figure = max(store.list("figure"), key=lambda each: each.version)
    assert figure.metrics["cells"] == 6 and figure.config["labels"] == ["0", "1", "2"]
    _, err = shell("grid", str(album), "--x", "strength=0,1", "--rows", "2", *words)
    assert "first 2 of 3 photos" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--x", "sampler=ddim,ddpm"), "an edit of a photo has no setting sampler"),
        (("--x", "r=4,8", "--y", "strength=0,1"), "name one photo, or one axis"),
        (("--x", "r=4,800", "--rows", "1"), "r=800"),
        (("--x", "r=4", "--fixed", "data=faces"), "a cell is one picture"),
    ],
)
def test_bad_axes_of_edits_are_one_line(
    edits: tuple[Store, Path],
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: str,
) -> None:
    store, album = edits
    before = len(store.list("figure"))
    _, err = Shell(store.root, capsys)("grid", str(album), "--anyway", *words, code=2)
    assert said in err and "Traceback" not in err
    assert len(store.list("figure")) == before


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=9, unique=True))
def test_numbers_are_read_back_in_order(values: list[int]) -> None:
    axis = parse_axis("seed=" + ",".join(map(str, values)))
    assert list(axis.values) == values
    assert [axis.settings(n) for n in range(len(values))] == [{"seed": v} for v in values]


def test_texts_may_hold_commas_where_a_semicolon_parts_them() -> None:
    axis = parse_axis("prompt=a man, smiling;a woman")
    assert axis.values == (["a man, smiling"], ["a woman"])
    assert [axis.label(n) for n in range(2)] == ["a man, smiling", "a woman"]
    two = parse_axis("guide=colour:#ff0000:1 + tv:1;colour:#00ff00:1")
    assert two.settings(0) == {"guide": ["colour:#ff0000:1", "tv:1"]}


def test_every_axis_is_a_setting_of_sample_or_edit() -> None:
    known = {**SampleConfig.__dataclass_fields__, **EditConfig.__dataclass_fields__}
    assert {setting for setting, _ in AXES.values()} <= set(known)


def test_an_axis_without_a_name_is_refused() -> None:
    with pytest.raises(BadInput, match="unknown axis ''"):
        parse_axis("=1,2")
