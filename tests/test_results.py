"""Where an edit's pictures go, and what of an edit its artifact says."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from small_cli import Shell, save_photo
from small_store import SIZE, add_base, add_tuned, small_store

from dclip.store import Store


@pytest.fixture(scope="module")
def made_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results") / "store"
    store = small_store(root)
    add_tuned(store, "smiling", seed=2)
    return root


@pytest.fixture
def shell(
    made_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    save_photo(tmp_path / "photo.jpg")
    yield Shell(made_store, capsys)
    shutil.rmtree(made_store / "edits", ignore_errors=True)


EDIT = ("--with", "smiling", "--anyway", "--no-align", "--device", "cpu")


def below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_the_picture_stands_beside_the_photo_and_is_named_first(shell: Shell) -> None:
    out, _ = shell("edit", "photo.jpg", *EDIT)
    assert out.splitlines()[0] == f"photo-smiling.png  {SIZE} x {SIZE} pixels"
    assert below(Path.cwd()) == ["photo-smiling.png", "photo.jpg"]
    document = json.loads(shell("edit", "photo.jpg", *EDIT, "--json")[0])
    assert document["fresh"] is False
    assert [Path(path).name for path in document["written"]] == ["photo-smiling.png"]
    assert Path("photo-smiling.png").read_bytes() == Path(document["images"][0]).read_bytes()
    # The same again is no second picture.
    assert below(Path.cwd()) == ["photo-smiling.png", "photo.jpg"]


def test_a_name_that_is_taken_gets_a_number(shell: Shell) -> None:
    Path("photo-smiling.png").write_bytes(b"mine")
    for _ in range(2):
        out, _err = shell("edit", "photo.jpg", *EDIT)
        assert out.startswith("photo-smiling-2.png  ")
    assert Path("photo-smiling.png").read_bytes() == b"mine"
    assert below(Path.cwd()) == ["photo-smiling-2.png", "photo-smiling.png", "photo.jpg"]


def test_strengths_and_models_are_in_the_names(shell: Shell) -> None:
    save_photo(Path("photo.jpg"), seed=5)
    words = ("--with", "sketch:0.5+smiling", "--strength", "0.5,1", "--side-by-side")
    shell("edit", "photo.jpg", *words, *EDIT[2:])
    assert below(Path.cwd()) == [
        "photo-sketch_0.5-smiling.png",
        "photo-sketch_0.5-smiling_0.5.png",
        "photo-sketch_0.5-smiling_panel.png",
        "photo.jpg",
    ]


def test_a_folder_keeps_its_subfolders_and_no_picture_is_put_into_it(shell: Shell) -> None:
    for n, name in enumerate(("a.png", "a.jpg", "in/a.png", "in/deep/b.png")):
        save_photo(Path("album") / name, seed=n)
    before = below(Path("album"))
    out, _ = shell("edit", "album", *EDIT)
    kept = ["a-2-smiling.png", "a-smiling.png", "in/a-smiling.png", "in/deep/b-smiling.png"]
    assert below(Path("album-smiling")) == kept
    assert below(Path("album")) == before
    shell("edit", "album", *EDIT, "--out", "here")
    assert below(Path("here")) == kept
    assert out.splitlines()[0].startswith("album-smiling/")


def test_of_many_pictures_the_folder_is_named(shell: Shell) -> None:
    for n in range(6):
        save_photo(Path("album") / f"{n}.png", seed=n)
    out, _ = shell("edit", "album", *EDIT)
    assert out.splitlines()[0] == f"album-smiling/  6 pictures, {SIZE} x {SIZE} pixels"


def test_out_takes_one_picture_as_a_file_and_never_the_photo(shell: Shell) -> None:
    out, _ = shell("edit", "photo.jpg", *EDIT, "--out", "new.jpg")
    assert out.splitlines()[0] == f"new.jpg  {SIZE} x {SIZE} pixels"
    with Image.open("new.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (SIZE, SIZE))
    before = Path("photo.jpg").read_bytes()
    for more in ([], ["--force"]):
        _, err = shell("edit", "photo.jpg", *EDIT, "--out", "photo.jpg", *more, code=2)
        assert "is the photo itself" in err
    assert Path("photo.jpg").read_bytes() == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written_to_costs_the_copy_alone(shell: Shell) -> None:
    save_photo(Path("locked/photo.png"))
    Path("locked").chmod(0o500)
    _, err = shell("edit", "locked/photo.png", *EDIT)
    Path("locked").chmod(0o700)
    assert "warning: the pictures are in" in err


def test_a_copy_that_fails_beside_the_photo_is_a_warning(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dclip.editing.results.write_atomic", full)
    out, err = shell("edit", "photo.jpg", *EDIT)
    assert "warning: the pictures are in" in err and "No space left" in err
    assert "edits/smiling/v1/images/photo.png" in out.replace("\\", "/").splitlines()[0]


def test_an_edit_says_its_photo_and_itself(shell: Shell) -> None:
    for n in range(2):
        save_photo(Path("album") / f"{n}.png", seed=n)
    made = json.loads(shell("edit", "album", *EDIT, "--strength", "0.5", "--json")[0])
    assert made["metrics"]["photo"] == "0.png and 1 more"
    assert made["metrics"]["edit"] == "smiling"
    manifest = json.loads((Path(made["path"]) / "manifest.json").read_text())
    assert manifest["config"]["strength"] == [0.5]


def test_samples_of_data_are_written_to_out_alone(shell: Shell) -> None:
    words = ("--data", "faces", "--count", "2", *EDIT[:2], "--device", "cpu")
    shell("edit", *words)
    assert below(Path.cwd()) == ["photo.jpg"]
    shell("edit", *words, "--out", "drawn")
    assert len(below(Path("drawn"))) == 2
    assert all(name.endswith("-smiling.png") for name in below(Path("drawn")))


def test_a_figure_goes_where_it_is_wanted(shell: Shell) -> None:
    grid = ("grid", "--with", "smiling", "--rows", "1", "--device", "cpu")
    out, _ = shell(*grid, "--out", "figure.pdf")
    assert out.splitlines()[0].startswith("figure.pdf  ")
    assert Path("figure.pdf").read_bytes().startswith(b"%PDF")
    shell(*grid, "--out", "both")
    assert below(Path("both")) == ["smiling.pdf", "smiling.png"]
    Path("both/smiling.png").write_bytes(b"mine")
    assert "there already" in shell(*grid, "--out", "both", code=2)[1]
    shell(*grid, "--out", "both", "--force")
    assert Path("both/smiling.png").read_bytes() != b"mine"
    assert "cannot write .txt" in shell(*grid, "--out", "figure.txt", code=2)[1]


def test_latents_are_named_after_their_data_and_model(shell: Shell) -> None:
    store = Store(shell.store)
    add_base(store, "other", seed=3)
    words = ("invert", "--data", "faces", "--count", "2", "--r", "4", "--steps", "2")
    own = json.loads(shell(*words, "--model", "faces", "--device", "cpu", "--json")[0])
    assert own["name"] == "faces"
    made = json.loads(shell(*words, "--model", "other", "--device", "cpu", "--json")[0])
    assert made["name"] == "faces-other"
