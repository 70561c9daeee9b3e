"""Pictures packed into arrays, tars and parquet files, made by the libraries that define them."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_cli import Shell
from small_store import CPU

from dclip.configs.prepare import PrepareConfig
from dclip.data.dataset import DataSet
from dclip.data.packed import columns_of
from dclip.errors import BadInput
from dclip.stages import prepare
from dclip.store import Artifact, Store

SIDE, COUNT = 16, 6
CAPTIONS = [f"face number {i}" for i in range(COUNT)]
LABELS = [0, 1, 2, 0, 1, 2]
SMILES = [True, False, True, True, False, False]


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8)


def png(picture: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()


def prepared(store: Path, source: str, root: Path, **more: Any) -> Artifact:
    return prepare.run(PrepareConfig(source, root=str(root), size=SIDE, **more), Store(store), CPU)


def shown(artifact: Artifact) -> np.ndarray:
    data = DataSet(artifact.path)
    return data.images(np.arange(len(data.ids))).transpose(0, 2, 3, 1)


def attribute(artifact: Artifact, name: str) -> list[int]:
    return DataSet(artifact.path).attribute(name).tolist()


# --- numpy


def save_npz(place: Path, pixels: np.ndarray, **more: Any) -> Path:
    np.savez(place / "pictures.npz", images=pixels, **more)
    return place / "pictures.npz"


def test_an_npz_with_captions_classes_and_attributes(tmp_path: Path, pixels: np.ndarray) -> None:
    root = save_npz(
        tmp_path, pixels, captions=CAPTIONS, labels=LABELS, smiling=SMILES,
        names=["cat", "dog", "bird"],
    )  # fmt: skip
    made = prepared(tmp_path / "store", "npz", root)
    assert made.name == "pictures" and np.array_equal(shown(made), pixels)
    assert DataSet(made.path).captions == CAPTIONS
    assert attribute(made, "dog") == [-1, 1, -1, -1, 1, -1]
    assert attribute(made, "smiling") == [1, -1, 1, 1, -1, -1]


@pytest.mark.parametrize(
    ("change", "exact"),
    [
        (lambda p: p, True),
        (lambda p: p.transpose(0, 3, 1, 2), True),
        (lambda p: p.astype(np.float32) / 255, True),
        (lambda p: p.astype(np.float64) / 127.5 - 1, True),
        (lambda p: p.astype(np.float32), True),
        (lambda p: p.astype(np.int64), True),
        (lambda p: p.astype(np.float32) / 255 * 1.01, False),  # a small overshoot is clipped
        (lambda p: p[..., 0], None),
        (lambda p: p[..., 0] > 127, None),
    ],
)
def test_an_npy_of_any_usual_range(
    tmp_path: Path, pixels: np.ndarray, change: Callable[[np.ndarray], np.ndarray], exact: bool
) -> None:
    np.save(tmp_path / "x.npy", change(pixels))
    got = shown(prepared(tmp_path / "store", "npz", tmp_path / "x.npy")).astype(int)
    if exact is None:
        grey = change(pixels).astype(int) * (255 if change(pixels).dtype == bool else 1)
        assert np.array_equal(got, np.repeat(grey[..., None], 3, -1))
    else:
        assert np.abs(got - pixels).max() <= (0 if exact else 3)


def test_the_same_pictures_elsewhere_are_up_to_date(tmp_path: Path, pixels: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", pixels)
    np.save(tmp_path / "b.npy", pixels)
    pixels[3, 0, 0, 0] ^= 1
    np.save(tmp_path / "c.npy", pixels)
    a, b, c = (
        prepared(tmp_path / "store", "npz", tmp_path / f"{name}.npy", name="x") for name in "abc"
    )
    assert a.id == b.id != c.id
    assert prepared(tmp_path / "store", "npz", tmp_path / "c.npy", limit=2).metrics["images"] == 2


# --- webdataset


def save_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def members(pixels: np.ndarray, numbers: range) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for i in numbers:
        found[f"train/{i:04d}.png"] = png(pixels[i])
        found[f"train/{i:04d}.txt"] = CAPTIONS[i].encode()
        found[f"train/{i:04d}.cls"] = str(LABELS[i]).encode()
        found[f"train/{i:04d}.json"] = json.dumps({"smiling": SMILES[i], "url": f"u{i}"}).encode()
    return found


def test_shards_of_a_webdataset(tmp_path: Path, pixels: np.ndarray) -> None:
    save_tar(tmp_path / "a-000.tar", members(pixels, range(4)))
    save_tar(
        tmp_path / "a-001.tar", members(pixels, range(4, 6)) | {"train/lone.txt": b"no picture"}
    )
    made = prepared(tmp_path / "store", "webdataset", tmp_path)
    assert np.array_equal(shown(made), pixels)
    assert DataSet(made.path).captions == CAPTIONS
    assert DataSet(made.path).ids[0] == "train/0000"
    assert attribute(made, "class_1") == [-1, 1, -1, -1, 1, -1]
    assert attribute(made, "smiling") == [1, -1, 1, 1, -1, -1]


def test_a_damaged_picture_in_a_tar_is_listed(tmp_path: Path, pixels: np.ndarray) -> None:
    broken = members(pixels, range(3)) | {"train/0001.png": png(pixels[1])[:60]}
    made = prepared(tmp_path / "store", "webdataset", save_tar(tmp_path / "a.tar", broken))
    assert made.metrics["images"] == 2
    with (made.path / "skipped.csv").open() as file:
        assert next(row for row in list(csv.reader(file))[1:])[0] == "train/0001.png"


# --- parquet


def save_parquet(path: Path, pixels: np.ndarray, numbers: range, **change: Any) -> Path:
    """As Hugging Face's datasets writes an Image and a ClassLabel."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    said = {"info": {"features": {
        "image": {"_type": "Image"}, "label": {"names": ["cat", "dog", "bird"],
                                               "_type": "ClassLabel"},
        "text": {"dtype": "string", "_type": "Value"},
    }}}  # fmt: skip
    columns = {
        "image": [{"bytes": png(pixels[i]), "path": f"{i}.png"} for i in numbers],
        "label": [LABELS[i] for i in numbers],
        "text": [CAPTIONS[i] for i in numbers],
        "smiling": [SMILES[i] for i in numbers],
    } | change
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(said)})
    pq.write_table(table, path, row_group_size=2)
    return path


def test_shards_of_hugging_face(tmp_path: Path, pixels: np.ndarray) -> None:
    save_parquet(tmp_path / "train-00000-of-00002.parquet", pixels, range(5))
    save_parquet(tmp_path / "train-00001-of-00002.parquet", pixels, range(5, 6))
    made = prepared(tmp_path / "store", "parquet", tmp_path)
    assert np.array_equal(shown(made), pixels)
    assert DataSet(made.path).captions == CAPTIONS
    assert attribute(made, "bird") == [-1, -1, 1, -1, -1, 1]
    assert attribute(made, "smiling") == [1, -1, 1, 1, -1, -1]
    few = prepared(tmp_path / "store", "parquet", tmp_path, limit=3)
    assert np.array_equal(shown(few), pixels[:3])


def test_rows_without_a_picture_are_listed(tmp_path: Path, pixels: np.ndarray) -> None:
    cells = [{"bytes": png(pixels[i]), "path": None} for i in range(2)]
    cells.append({"bytes": None, "path": "elsewhere/2.jpg"})
    root = save_parquet(tmp_path / "a.parquet", pixels, range(3), image=cells)
    made = prepared(tmp_path / "store", "parquet", root)
    assert made.metrics["images"] == 2 and made.metrics["skipped"] == 1
    assert attribute(made, "dog") == [-1, 1]


def test_without_pyarrow_the_one_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(BadInput) as caught:
        prepared(tmp_path / "store", "parquet", tmp_path)
    assert "pip install 'dclip[parquet]'" in caught.value.fix


# --- what is wrong


def _tar(tmp_path: Path, pixels: np.ndarray) -> bytes:
    return save_tar(tmp_path / "sound.tar", members(pixels, range(2))).read_bytes()


BAD: dict[str, tuple[str, Callable[[Path, np.ndarray], Path], str]] = {
    "objects": (
        "npz",
        lambda p, x: _saved(p / "x.npy", lambda f: np.save(f, np.array([{}, 1], object))),
        "can run code",
    ),
    "which": ("npz", lambda p, x: _saved(p / "x.npz", lambda f: np.savez(f, a=x, b=x)), "images"),
    "range": ("npz", lambda p, x: _saved(p / "x.npy", lambda f: np.save(f, x * 4.0)), "span 0 to"),
    "nan": ("npz", lambda p, x: _saved(p / "x.npy", lambda f: np.save(f, x * np.nan)), "NaN"),
    "shape": ("npz", lambda p, x: _saved(p / "x.npy", lambda f: np.save(f, x[0, 0])), "shape"),
    "web page": ("npz", lambda p, x: _text(p / "x.npz"), "cannot be read"),
    "folder": ("npz", lambda p, x: p, "is a folder"),
    "no tar": ("webdataset", lambda p, x: p, "no .tar"),
    "cut tar": (
        "webdataset",
        lambda p, x: _saved(p / "cut.tar", lambda f: f.write_bytes(_tar(p, x)[:1700])),
        "not a whole tar",
    ),
    "page as tar": ("webdataset", lambda p, x: _text(p / "x.tar"), "not a whole tar"),
    "texts alone": (
        "webdataset",
        lambda p, x: save_tar(p / "t.tar", {"a.txt": b"x"}),
        "no pictures",
    ),
    "twice": (
        "webdataset",
        lambda p, x: [save_tar(p / f"{n}.tar", members(x, range(1))) for n in "ab"][-1].parent,
        "two shards",
    ),
    "page as parquet": ("parquet", lambda p, x: _text(p / "x.parquet"), "no whole parquet"),
    "no parquet": ("parquet", lambda p, x: p, "no .parquet"),
    "nothing there": ("parquet", lambda p, x: p / "nobody", "no such file"),
}


def _saved(path: Path, write: Callable[[Path], Any]) -> Path:
    write(path)
    return path


def _text(path: Path) -> Path:
    path.write_text("<html>404</html>")
    return path


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_read_is_one_line(
    what: str, tmp_path: Path, pixels: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    source, make, said = BAD[what]
    if source == "parquet":
        pytest.importorskip("pyarrow")
    (tmp_path / "in").mkdir()
    root = make(tmp_path / "in", pixels)
    shell = Shell(tmp_path / "store", capsys)
    _, err = shell("prepare", source, "--root", str(root), "--size", str(SIDE), code=2)
    assert said in err and "Traceback" not in err and err.count("error:") == 1
    assert not Store(tmp_path / "store").list("data")


# --- what a table says


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(0, 9)), min_size=1, max_size=30))
def test_each_class_is_an_attribute_of_its_own_pictures(labels: list[int | None]) -> None:
    columns, _ = columns_of({"label": labels})
    known = sorted({label for label in labels if label is not None})
    if len(known) < 2:
        return
    assert list(columns) == [f"class_{label}" for label in known]
    for row, label in enumerate(labels):
        values = [columns[name][row] for name in columns]
        expected = ["0"] * len(known)
        if label is not None:
            expected = ["1" if other == label else "-1" for other in known]
        assert values == expected


def test_columns_that_are_no_attributes_are_told() -> None:
    table = {"url": ["a", "b"], "width": [512, 640], "id": [1, 0], "hat": ["yes", None]}
    columns, notes = columns_of(table)
    assert columns == {"hat": ["1", "0"]}
    assert "url" in notes[0] and "width" in notes[0] and "id" in notes[0]
