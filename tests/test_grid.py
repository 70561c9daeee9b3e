"""Panels and figures: nothing overlaps or is cut, and each cell shows what its caption says."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from small_store import CPU, SIZE, R, add_tuned, copied

from dclip.configs.grid import ColumnSpec, GridConfig, parse_column
from dclip.data.dataset import LatentSet
from dclip.data.images import to_float, to_uint8
from dclip.editing.editor import as_picture, load_editor
from dclip.errors import BadInput, MissingArtifact
from dclip.figures.panel import PAPER, font, layout, sheet, wrap
from dclip.figures.pdf import save_pdf
from dclip.stages.grid import run
from dclip.store import Artifact, Store

DEVICE = torch.device("cpu")
CELL = 64


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Store:
    store = copied(trained, tmp_path_factory.mktemp("grid") / "store")
    add_tuned(store, "smiling", seed=2, full=True, settings={"r": 6, "decode_steps": 3})
    return store


def shown(figure: Artifact, row: int, column: int, rows: int, columns: int) -> np.ndarray:
    """The picture in a cell of a figure without captions, at its own size."""
    blank = [[np.zeros((SIZE, SIZE, 3), np.uint8)] * columns] * rows
    place = layout(blank, cell=CELL).pictures[row * columns + column]
    page = np.asarray(Image.open(figure.path / "panel.png"))
    block = page[place.y : place.y + CELL, place.x : place.x + CELL]
    scale = CELL // SIZE
    small = block[::scale, ::scale]
    assert np.array_equal(small.repeat(scale, 0).repeat(scale, 1), block), "not crisp"
    return small


def bare(columns: str, **more: Any) -> GridConfig:
    return GridConfig(columns=columns, captions=False, cell=CELL, **more)


def held_out(store: Store, figure: Artifact) -> np.ndarray:
    """The photos that a figure shows, (N,3,H,W) uint8."""
    latents = LatentSet(store.resolve(None, "latents").path)
    chosen = figure.config["samples"]
    assert set(chosen) <= set(latents.split("val").tolist())
    return latents.references(chosen)


# --- panels


words = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), max_size=60)


@settings(max_examples=40, deadline=None)
@example(columns=[], labels=["00000000000"] * 2, title="", cell=32, group=None)
@given(
    columns=st.lists(words, max_size=4),
    labels=st.lists(words, max_size=4),
    title=words,
    cell=st.sampled_from([32, 96, 128, 384]),
    group=st.sampled_from([None, 2]),
)
def test_nothing_in_a_panel_overlaps_or_is_cut(
    columns: list[str], labels: list[str], title: str, cell: int, group: int | None
) -> None:
    rows = [[np.zeros((3, 8, 8), np.uint8)] * 4 for _ in range(4)]
    panel = layout(rows, columns=columns, labels=labels, title=title, cell=cell, group=group)
    boxes = [(p.x, p.y, p.x + p.image.width, p.y + p.image.height) for p in panel.pictures]
    assert len(boxes) == 16
    for text in panel.texts:
        if text.text.strip():
            left, top, right, bottom = font(text.size).getbbox(text.text, anchor=f"{text.anchor}s")
            # Stacked accents may rise above what a font calls its height.
            top = max(top, -text.size)
            boxes.append((text.x + left, text.y + top, text.x + right, text.y + bottom))
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 0 and top >= 0 and right <= panel.width and bottom <= panel.height
        for a, b, c, d in boxes[:i]:
            assert right <= a + 1 or c <= left + 1 or bottom <= b + 1 or d <= top + 1


def test_long_captions_are_wrapped_then_cut() -> None:
    size, width = 12, 100
    for text in (
        "one two three four five",
        "IMG_20230411_183059_holiday_at_the_lake.jpg",
        "x" * 99,
    ):
        lines = wrap(text, width, size)
        assert 1 < len(lines) <= 3
        assert all(font(size).getlength(line) <= width for line in lines)
    assert wrap("a b", width, size) == ["a b"]
    assert wrap("IMG_20230411_183059", width, size)[0].endswith("_")
    assert wrap("word " * 99, width, size)[-1].endswith("…")
    kept = wrap("sketch\u00a00.8 + smiling\u00a0−0.5", width, size)
    assert [line.split(" +")[0] for line in kept] == ["sketch\u00a00.8", "smiling\u00a0−0.5"]


def test_pictures_of_any_shape_are_shown_whole_and_blank_cells_stay_blank() -> None:
    wide = np.full((10, 20, 3), 7, np.uint8)
    panel = layout([[wide, None]], cell=40)
    (picture,) = panel.pictures
    assert picture.image.size == (40, 20)
    page = np.asarray(panel.draw())
    assert (page[picture.y : picture.y + 20, picture.x : picture.x + 40] == 7).all()
    assert (page[:, panel.width // 2 + 10 :] == PAPER).all()
    assert sheet([wide] * 5, columns=2, cell=20).height > 3 * 20


# --- the grammar of columns


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("original", ColumnSpec("original")),
        ("edit", ColumnSpec("edit")),
        ("edit@0.5", ColumnSpec("edit", "", 0.5)),
        ("edit:sketch", ColumnSpec("edit", "sketch")),
        ("edit:sketch@-1", ColumnSpec("edit", "sketch", -1.0)),
        ("edit:sketch@best", ColumnSpec("edit", "sketch@best")),
        ("edit:a:0.8@5-9+b@0.5", ColumnSpec("edit", "a:0.8@5-9+b", 0.5)),
    ],
)
def test_columns_are_read_as_documented(text: str, expected: ColumnSpec) -> None:
    assert parse_column(text) == expected


@pytest.mark.parametrize(
    "bad",
    [
        {"columns": "original,edti"},
        {"columns": ""},
        {"columns": "latent@0.5"},
        {"columns": "original:sketch"},
        {"columns": "edit:sketch:much"},
        {"strengths": "0,,1"},
        {"steps": "2.5"},
        {"steps": 0},
        {"rows": 0},
        {"cell": 3},
        {"crop": "face"},
        {"mix": "stir"},
        {"locality": -0.1},
        {"locality": 0.2, "direct": False},
        {"photos": ("a.png",), "latents": "faces"},
    ],
)
def test_settings_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        GridConfig(**bad)


# --- the stage


def test_by_default_it_is_the_report_s_figure(store: Store) -> None:
    figure = run(GridConfig(tuned=("sketch",)), store, CPU)
    assert [c["caption"] for c in figure.config["columns"]] == ["original", "latent", "sketch"]
    assert figure.metrics["photos"] == 3
    assert figure.manifest.inputs["latents"]["id"] == store.resolve("faces", "latents").id
    page = Image.open(figure.path / "panel.png")
    assert page.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    assert figure.metrics["width_mm"] == pytest.approx(page.width / 300 * 25.4, abs=0.1)
    newest = run(GridConfig(), store, CPU)
    assert newest.name == "smiling"


def test_each_cell_shows_what_its_column_says(store: Store) -> None:
    columns = "original,latent,reconstruction,edit,edit:smiling@0.5,edit@0"
    figure = run(bare(columns, tuned=("sketch",), rows=2), store, CPU)
    photos = held_out(store, figure)
    x0 = to_float(torch.from_numpy(photos))
    sketch = load_editor(store, [("sketch", 1.0)], DEVICE)
    smiling = load_editor(store, [("smiling", 1.0)], DEVICE)
    assert (sketch.plan.r, smiling.plan.r) == (R, 6)  # each model at its own r
    start = sketch.invert(x0)
    expected = [
        photos,
        as_picture(start.x_r).numpy(),
        photos,
        to_uint8(sketch.decode(start)).numpy(),
        to_uint8(smiling.decode(smiling.invert(x0), 0.5)).numpy(),
        photos,
    ]
    for j, pictures in enumerate(expected):
        for i in range(2):
            cell = shown(figure, i, j, 2, 6).astype(int)
            assert np.abs(cell - pictures[i].transpose(1, 2, 0)).max() <= 1, (i, j)
    assert not np.array_equal(shown(figure, 0, 3, 2, 6), shown(figure, 0, 0, 2, 6))


def test_strengths_steps_and_models_spread_into_columns(store: Store) -> None:
    given = GridConfig(
        tuned=("sketch", "sketch:0.8+smiling"),
        columns="original,edit,edit:smiling@2",
        strengths="0.5,1",
        steps="2,4",
        rows=1,
        cell=CELL,
    )
    figure = run(given, store, CPU)
    captions = [c["caption"].replace("\u00a0", " ") for c in figure.config["columns"]]
    assert captions[:3] == ["original", "sketch 0.5, 2 steps", "sketch 1, 2 steps"]
    assert captions[5] == "sketch 0.4 + smiling 0.5, 2 steps"
    assert captions[-2:] == ["smiling 2, 2 steps", "smiling 2, 4 steps"]
    assert len(captions) == 1 + 2 * 2 * 2 + 2 == figure.metrics["columns"]


def test_columns_of_the_base_start_where_the_edits_do(store: Store) -> None:
    """A model tuned on latents of one refinement is shown on such, beside whatever columns."""
    add_tuned(store, "quick", seed=1, settings={"refinements": 1})
    one = {"rows": 1, "direct": False}
    alone = run(bare("edit", tuned=("quick",), **one), store, CPU)
    beside = run(bare("latent,reconstruction,edit", tuned=("quick",), **one), store, CPU)
    many = run(bare("latent,edit", tuned=("sketch",), **one), store, CPU)
    quick = run(bare("latent,edit", tuned=("quick",), **one), store, CPU)
    assert [c["refinements"] for c in beside.config["columns"]] == [1, 1, 1]
    assert np.array_equal(shown(alone, 0, 0, 1, 1), shown(beside, 0, 2, 1, 3))
    assert not np.array_equal(shown(many, 0, 0, 1, 2), shown(quick, 0, 0, 1, 2))
    base = run(bare("latent", tuned=("smiling",), **one), store, CPU)
    assert [c["r"] for c in base.config["columns"]] == [6]  # its own, though no column edits
    with pytest.raises(BadInput, match="r is 0"):
        run(bare("original,latent", r=0), store, CPU)


def test_plain_decodes_show_what_few_steps_lose(store: Store) -> None:
    given = bare("original,reconstruction", steps="1,6", direct=False, rows=1, tuned=("sketch",))
    figure = run(given, store, CPU)
    assert figure.metrics["columns"] == 3
    original, one, six = (shown(figure, 0, j, 1, 3).astype(int) for j in range(3))
    assert np.abs(one - original).mean() > np.abs(six - original).mean()


def test_transposed_photos_stand_beside_each_other(store: Store) -> None:
    figure = run(bare("original,edit", rows=3, transpose=True, tuned=("sketch",)), store, CPU)
    photos = held_out(store, figure)
    for j in range(3):
        assert np.array_equal(shown(figure, 0, j, 2, 3), photos[j].transpose(1, 2, 0))


def test_photos_may_be_given(store: Store, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8) for _ in range(4)]
    for n, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{n}.png")
    figure = run(bare("original", photos=(str(tmp_path),), anyway=True), store, CPU)
    assert figure.metrics["photos"] == 4
    assert np.array_equal(shown(figure, 2, 0, 4, 1), pictures[2])
    figure = run(bare("original,edit", photos=(str(tmp_path),), rows=2, anyway=True), store, CPU)
    assert figure.metrics["photos"] == 2 and "latents" not in figure.manifest.inputs
    (tmp_path / "0.png").write_bytes(b"none")
    with pytest.raises(BadInput, match=r"0\.png"):
        run(bare("original,edit", photos=(str(tmp_path),), rows=2, anyway=True), store, CPU)


def test_equal_figures_are_equal_bytes_in_any_store(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    shutil.copytree(store.root, other.root, symlinks=True)
    shutil.rmtree(other.root / "figure", ignore_errors=True)
    shutil.rmtree(store.root / "figure", ignore_errors=True)
    given = GridConfig(rows=2, title="Größe — ½", cell=CELL)
    one, two = run(given, store, CPU), run(given, other, CPU)
    assert one.fresh and two.fresh and one.id == two.id
    pdf = (one.path / "panel.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-") and b"CreationDate" not in pdf
    again = run(replace(given, title="another"), store, CPU)
    assert again.id != one.id


def test_the_page_of_a_pdf_is_as_large_as_the_panel_in_print(tmp_path: Path) -> None:
    panel = layout([[np.zeros((8, 8, 3), np.uint8)] * 2], columns=["a", "$b_1$ % \\"], cell=300)
    save_pdf(tmp_path / "a.pdf", panel, 300)
    box = f"/MediaBox [ 0 0 {panel.width * 72 / 300:g} {panel.height * 72 / 300:g} ]"
    assert box.encode() in (tmp_path / "a.pdf").read_bytes()


def test_what_is_missing_is_said_with_the_command_that_makes_it(
    store: Store, tmp_path: Path
) -> None:
    with pytest.raises(MissingArtifact) as caught:
        run(GridConfig(), Store(tmp_path / "none"), CPU)
    assert "dclip finetune" in caught.value.fix
    other = Store(tmp_path / "other")
    shutil.copytree(store.root, other.root, symlinks=True)
    shutil.rmtree(other.root / "latents")
    with pytest.raises(MissingArtifact) as caught:
        run(GridConfig(), other, CPU)
    assert "dclip invert" in caught.value.fix
    shutil.rmtree(other.root / "model")
    with pytest.raises(MissingArtifact, match=r"model/faces/v1, which is gone"):
        run(GridConfig(photos=("x.png",)), other, CPU)
