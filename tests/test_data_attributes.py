"""Attributes of a folder: tables that people have, and subfolders as classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from small_store import CPU

from dclip.configs.prepare import PrepareConfig
from dclip.data.dataset import DataSet
from dclip.data.folder import open_folder
from dclip.errors import BadInput
from dclip.stages import prepare
from dclip.store import Store


def pictures(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (number * 20, 0, 0)).save(root / name)
    return root


def columns(root: Path) -> dict[str, list[str]]:
    return {name: list(values) for name, values in open_folder(root).columns.items()}


def test_a_table_of_attributes_is_read(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png", "c.png")
    table = "file,smiling,tall,age\na.png,1,1,31\nb.png,0,-1,40\nc.png,yes,0,\nd.png,1,1,5\n"
    (tmp_path / "attributes.csv").write_text(table)
    found = open_folder(tmp_path)
    assert columns(tmp_path) == {"smiling": ["1", "-1", "1"], "tall": ["1", "-1", "0"]}
    assert any("not used: age" in note for note in found.notes)


def test_columns_beside_captions_are_attributes(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    rows = [
        {"file_name": "a.png", "text": "a man, smiling", "Smiling": True},
        {"file_name": "b.png", "text": "a woman", "Smiling": False},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert columns(tmp_path) == {
        "caption": ["a man, smiling", "a woman"], "Smiling": ["1", "-1"],
    }  # fmt: skip
    (tmp_path / "captions.csv").write_text('image;caption;hat\na.png;"one; two";0\nb.png;b;1\n')
    assert columns(tmp_path)["hat"] == ["-1", "1"]


def test_flickrs_captions_with_bare_commas_have_no_attributes(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    (tmp_path / "captions.txt").write_text("image,caption\na.png,one, two\nb.png,three\n")
    assert columns(tmp_path) == {"caption": ["one, two", "three"]}


def test_subfolders_are_classes(tmp_path: Path) -> None:
    pictures(tmp_path, "cats/a.png", "dogs/b.png", "dogs/c.png")
    assert columns(tmp_path) == {"cats": ["1", "-1", "-1"], "dogs": ["-1", "1", "1"]}
    assert any("the folders are classes: cats, dogs" in n for n in open_folder(tmp_path).notes)
    (tmp_path / "attributes.csv").write_text("file,old\na.png,1\nb.png,0\nc.png,0\n")
    assert columns(tmp_path) == {"old": ["1", "-1", "-1"]}  # a table says more


@pytest.mark.parametrize(
    "names",
    [
        ("train/a.png", "test/b.png"),
        ("a.png", "cats/b.png"),
        ("cats/a.png", "cats/b.png"),
        tuple(f"{n}/a.png" for n in range(101)),
    ],
)
def test_other_folders_are_no_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert columns(pictures(tmp_path, *names)) == {}


def test_a_table_of_other_pictures_is_refused(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    (tmp_path / "attributes.csv").write_text("file,old\nx.png,1\n")
    with pytest.raises(BadInput, match="names none of the pictures"):
        open_folder(tmp_path)


def test_they_reach_the_data_artifact_and_change_its_key(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    root = pictures(tmp_path / "own", *(f"{k}/{n}.png" for k in ("cats", "dogs") for n in range(6)))
    config = PrepareConfig("folder", root=str(root), size=16)
    made = prepare.run(config, store, CPU)
    data = DataSet(made.path)
    assert data.attribute_names == ("cats", "dogs")
    assert (data.attribute("cats") == -data.attribute("dogs")).all()
    assert len(data.where("cats=1")) == 6
    rows = [f"{k}/{n}.png,{n % 2}" for k in ("cats", "dogs") for n in range(6)]
    (root / "attributes.csv").write_text("\n".join(["file,odd", *rows]))
    again = prepare.run(config, store, CPU)
    assert again.id != made.id and DataSet(again.path).attribute_names == ("odd",)


def test_names_with_accents_are_matched_as_captions_are(tmp_path: Path) -> None:
    """macOS may write the accent as a character of its own."""
    pictures(tmp_path, "cafe\u0301.png", "b.png")
    (tmp_path / "attributes.csv").write_text("file,old\ncaf\u00e9.png,1\nb.png,0\n")
    assert columns(tmp_path) == {"old": ["-1", "1"]}
