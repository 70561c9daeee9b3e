"""Folders of pictures as people have them: nothing vanishes without a count."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from picture_files import tiff
from PIL import Image

from dclip.context import Silent
from dclip.data import formats, listing
from dclip.data.celeba import open_celeba
from dclip.data.folder import open_folder
from dclip.data.listing import list_pictures
from dclip.data.photos import photo_files
from dclip.data.source import fingerprint
from dclip.errors import BadInput

HEIC = struct.pack(">I4s4sI", 24, b"ftyp", b"heic", 0) + b"mif1heic" + bytes(100)
needs_links = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")


def picture(path: Path, shade: int = 0, kind: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(path, format=kind)


def said(root: Path) -> str:
    return "\n".join(open_folder(root).notes)


@pytest.fixture
def without_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tuple(name for name in formats.pillow_formats() if name not in ("AVIF", "HEIF"))
    monkeypatch.setattr(formats, "pillow_formats", lambda: plain)


# --- what is taken and what is left out


@pytest.mark.usefixtures("without_plugins")
def test_every_kind_that_is_not_read_is_left_out_by_name_and_reason(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    for name in ("IMG_1.HEIC", "IMG_2.heic", "b.avif", "c.jxl", "d.psd", "e.dng", "f.svg"):
        (tmp_path / name).write_bytes(HEIC)
    picture(tmp_path / "g.jpg.crdownload", kind="JPEG")
    (tmp_path / "h.nikon").write_bytes(b"II*\0" + bytes(60))
    found = open_folder(tmp_path)
    assert [item.id for item in found.items] == ["a.jpg"]
    assert set(found.left_out) == {p.name for p in tmp_path.iterdir()} - {"a.jpg"}
    notes = "\n".join(found.notes)
    assert "2 pictures left out (IMG_1.HEIC, ...): HEIC" in notes
    assert "pip install 'dclip[heic]'" in notes
    for word in ("AVIF", "JPEG XL", "Photoshop", "camera raw", "vector", "unfinished", "TIFF"):
        assert "1 picture left out" in notes and word in notes, word


@pytest.mark.usefixtures("without_plugins")
def test_only_pictures_that_cannot_be_read_is_an_error_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(HEIC)
    for door in (open_folder, lambda root: photo_files([root], size=16)):
        with pytest.raises(BadInput, match=r"none of the 1 pictures.*HEIC") as caught:
            door(tmp_path)
        assert caught.value.fix == "pip install 'dclip[heic]'"


def test_a_format_is_read_as_soon_as_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / "b.heic").write_bytes(HEIC)
    prints = set()
    for there in (False, True):
        plain = set(formats.pillow_formats()) - {"HEIF"}
        now = tuple(plain | {"HEIF"} if there else plain)
        monkeypatch.setattr(formats, "pillow_formats", lambda now=now: now)
        found = open_folder(tmp_path)
        assert len(found.items) == 1 + there and len(found.left_out) == 1 - there
        prints.add(fingerprint(found.items, found.columns, found.left_out))
    assert len(prints) == 2


def test_what_is_left_out_is_part_of_what_the_source_is(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    before = open_folder(tmp_path)
    (tmp_path / "b.psd").write_bytes(b"8BPS")
    after = open_folder(tmp_path)
    assert fingerprint(before.items, {}, before.left_out) != fingerprint(
        after.items, {}, after.left_out
    )


@pytest.mark.parametrize("name", ["photo", "photo.jpg_large", "photo.2024-06-01", "photo.bin"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_pictures_under_odd_names_are_taken_by_content(
    tmp_path: Path, name: str, kind: str
) -> None:
    picture(tmp_path / name, kind=kind)
    (tmp_path / "other.bin").write_bytes(b"no picture at all")
    found = open_folder(tmp_path)
    assert [item.id for item in found.items] == [name]
    assert "without a picture's suffix" in found.notes[-1]
    assert "passed over: files that are no pictures (1)" in found.notes[0]


def test_hidden_and_macos_files_are_counted(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    for name in ("._a.jpg", "._b.jpg"):
        (tmp_path / name).write_bytes(b"\0\x05\x16\x07")
    picture(tmp_path / ".c.png")
    picture(tmp_path / ".thumbs" / "d.png")
    (tmp_path / "notes.md").write_text("text is nobody's picture")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    assert (
        said(tmp_path) == "passed over: hidden folders (1), hidden pictures (1), macOS ._ files (2)"
    )
    assert len(open_folder(tmp_path).items) == 1


def test_an_ordinary_folder_says_nothing(tmp_path: Path) -> None:
    for name in ("b/a.png", "a.JPG", "c.tiff"):
        picture(tmp_path / name)
    assert said(tmp_path) == ""


# --- linked folders


@needs_links
def test_linked_folders_are_followed_once_and_under_real_names(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "elsewhere"
    picture(root / "z/1.png")
    picture(other / "2.png")
    picture(other / "deep/3.png")
    (root / "a").symlink_to(root / "z")  # sorts before what it leads to
    (root / "b").symlink_to(other)
    (root / "c").symlink_to(other / "deep")
    (other / "back").symlink_to(root)
    (root / "z/self").symlink_to(root / "z")
    (root / "up").symlink_to(tmp_path)
    (root / "lost").symlink_to(tmp_path / "nothing")
    (root / "l1").symlink_to(root / "l2")
    (root / "l2").symlink_to(root / "l1")
    found = list_pictures(root)
    assert found.files == ("b/2.png", "b/deep/3.png", "z/1.png")
    assert found.passed_over == {
        "broken links": 3,
        "links that lead back": 2,
        "links to folders that were read": 3,
    }
    assert found.remarks == ("linked folders followed: b",)


@needs_links
def test_a_linked_root_is_read(tmp_path: Path) -> None:
    picture(tmp_path / "real/1.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert list_pictures(tmp_path / "link").files == ("1.png",)


@needs_links
@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root reads everything")
def test_a_closed_folder_is_counted(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "closed").mkdir(mode=0)
    assert "folders that may not be read (1)" in said(tmp_path)


# --- captions


def captions(root: Path) -> dict[str, str]:
    found = open_folder(root)
    return dict(zip([i.id for i in found.items], found.columns["caption"], strict=True))


@pytest.fixture
def two(tmp_path: Path) -> Path:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "file,caption,split\na.png,one, and more,train\nb.png,two,val\n",
        "split,file,caption\ntrain,a.png,one, and more\nval,b.png,two\n",
        'caption,file\n"one, and more",a.png\ntwo,b.png\n',
        "caption,split,file\none, and more,train,a.png\ntwo,val,b.png\n",
        "one_thing,other\na.png,one, and more\nb.png,two\n",
        "a.png,one, and more\nb.png,two\n",
        "File_Name|Text|n\na.png|one, and more|0\nb.png|two|0\n",
        "image\tcaption\na.png\tone, and more\nb.png\ttwo\n",
        "\ufefffile;caption\r\na.png;one, and more\r\n\r\nb.png;two\r\n",
    ],
)
def test_columns_are_found_by_their_header(two: Path, text: str) -> None:
    (two / "captions.csv").write_text(text, encoding="utf-8", newline="")
    assert captions(two) == {"a.png": "one, and more", "b.png": "two"}


def test_columns_that_are_not_used_are_told(two: Path) -> None:
    (two / "captions.csv").write_text("file,caption,split\na.png,one,train\nb.png,two,val\n")
    assert "not used: split" in said(two)


def test_columns_that_nobody_can_tell_are_refused(two: Path) -> None:
    (two / "captions.csv").write_text("a,b,c\na.png,one,train\n")
    with pytest.raises(BadInput, match="line 1: which columns") as caught:
        open_folder(two)
    assert "file,caption" in caught.value.fix


def test_one_column_of_several_holds_the_captions_and_a_note_says_which(two: Path) -> None:
    rows = [{"file_name": "a.png", "text": "one"},
            {"file_name": "b.png", "text": "two", "caption": "second"}]  # fmt: skip
    (two / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert captions(two) == {"a.png": "", "b.png": "second"}
    assert "of the column 'caption' of metadata.jsonl, not of 'text'" in said(two)
    assert "1 of 2 pictures have no caption" in said(two)
    (two / "captions.csv").write_text("file,text,prompt\na.png,one,x\nb.png,two,y\n")
    assert captions(two) == {"a.png": "one", "b.png": "two"}
    assert "of the column 'text' of captions.csv, not of 'prompt'" in said(two)
    (two / "captions.csv").write_text("file,text,split\na.png,one,train\nb.png,two,val\n")
    assert "of the column" not in said(two)


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("captions.csv", "file,Caption,Style\na.png,one,flat\nb.png,two,oil\n"),
        ("metadata.csv", "file_name,text,style\na.png,one,flat\nb.png,two,oil\n"),
        (
            "metadata.jsonl",
            '{"file_name": "a.png", "text": "one", "style": "flat"}\n'
            '{"file_name": "b.png", "text": "two", "style": "oil"}\n',
        ),
    ],
)
def test_a_named_column_holds_the_captions(two: Path, name: str, table: str) -> None:
    (two / name).write_text(table)
    found = open_folder(two, caption="style")
    assert list(found.columns["caption"])[:2] == ["flat", "oil"]
    assert "of the column" not in "\n".join(found.notes)
    with pytest.raises(BadInput, match="no column mood for --caption") as refused:
        open_folder(two, caption="mood")
    assert "style" in str(refused.value.fix).lower()


def test_a_named_column_needs_a_table_with_names(two: Path) -> None:
    with pytest.raises(BadInput, match="no table"):
        open_folder(two, caption="style")
    (two / "captions.txt").write_text("a.png,one\n")
    with pytest.raises(BadInput, match="no column") as refused:
        open_folder(two, caption="style")
    assert "header" in str(refused.value.fix)


def test_captions_that_are_not_used_are_counted(two: Path) -> None:
    (two / "captions.csv").write_text("file,caption\na.png,1\na.png,2\na.png,3\nz.png,4\n")
    notes = said(two)
    assert "1 of 2 pictures have no caption" in notes
    assert "further captions of the same pictures, not used: 2" in notes
    assert "captions of pictures that are not there: 1" in notes


def test_hugging_faces_metadata(two: Path) -> None:
    picture(two / "sub/c.png")
    rows = [{"file_name": "a.png", "text": "one"}, {"file_name": "b.png", "text": "two\nlines"}]
    (two / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (two / "sub/metadata.csv").write_text("file_name,caption\nc.png,three\n")
    assert captions(two) == {"a.png": "one", "b.png": "two lines", "sub/c.png": "three"}
    (two / "captions.txt").write_text("file,caption\na.png,mine\n")
    assert captions(two)["a.png"] == "mine"
    assert "from captions.txt, not from metadata.jsonl, sub/metadata.csv" in said(two)


def test_accents_match_however_they_are_written(tmp_path: Path) -> None:
    picture(tmp_path / "e\u0301te\u0301.png")
    (tmp_path / "captions.csv").write_text("file,caption\n\u00e9t\u00e9.png,summer\n", "utf-8")
    assert list(captions(tmp_path).values()) == ["summer"]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("metadata.jsonl", b'{"file_name": "a.png", "text": "x"}\n{"file', "line 2"),
        ("metadata.jsonl", b"[1]", "line 1"),
        ("metadata.jsonl", b'{"text": "x"}', "no file_name"),
        ("metadata.jsonl", b"[" * 100_000, "line 1"),
        ("captions.csv", b"file,caption\na.png\n", "line 2"),
        ("captions.csv", b"file,caption\na.png,\xff\n", "cannot be read"),
        ("captions.csv", b"file,caption\nz.png,x\n", "names none"),
        ("captions.csv", b"", "names none"),
    ],
)
def test_captions_that_cannot_be_read_name_the_line(
    two: Path, name: str, data: bytes, said: str
) -> None:
    (two / name).write_bytes(data)
    with pytest.raises(BadInput, match=said) as caught:
        open_folder(two)
    assert caught.value.fix


def test_half_a_character_in_json_becomes_a_question_mark(two: Path) -> None:
    (two / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "x\\ud800\\u0000y"}')
    assert captions(two)["a.png"] == "x?y"


def test_a_text_beside_a_picture_that_is_none_is_counted(two: Path) -> None:
    (two / "a.txt").write_text("fine")
    (two / "b.txt").write_bytes(b"\xff\xfe\xff")
    assert "captions beside pictures that cannot be read as UTF-8 text: 1 (b.png)" in said(two)
    assert captions(two)["a.png"] == "fine"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["a.txt", "captions.csv", "metadata.jsonl", "odd", "c.png"])
def test_a_named_pipe_keeps_nobody(two: Path, name: str) -> None:
    os.mkfifo(two / name)
    if name == "metadata.jsonl":
        with pytest.raises(BadInput, match="no regular file"):
            open_folder(two)
    else:
        found = open_folder(two)
        assert len(found.items) == 2 + (name == "c.png")
    with pytest.raises(BadInput):
        photo_files([two / name], size=16).load(0)


# --- places


@pytest.mark.parametrize(
    "place", ["a\0b", "~nosuchuser-here/x", "x" * 300, "y/" * 3000, "\ud800", "nowhere"]
)
@pytest.mark.parametrize("door", [open_folder, lambda place: photo_files([place], size=16)])
def test_places_that_cannot_be_are_refused_in_one_line(
    door: Callable[[str], object], place: str
) -> None:
    with pytest.raises(BadInput) as caught:
        door(place)
    assert caught.value.fix
    assert caught.value.message.isprintable() and len(caught.value.message) < 300


@pytest.mark.skipif(os.name == "nt", reason="Windows does not delete a current folder")
@pytest.mark.parametrize("place", [".", "a.png", "x/y"])
def test_a_deleted_current_folder_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for door in (open_folder, open_celeba, lambda where: photo_files([where], size=16)):
        with pytest.raises(BadInput, match="current folder is gone") as caught:
            door(place)
        assert "cd to" in caught.value.fix


def test_photos_say_what_was_left_out_and_how_they_were_read(tmp_path: Path) -> None:
    said: list[str] = []

    class Said(Silent):
        def note(self, message: str) -> None:
            said.append(message)

    values = np.arange(64, dtype=np.int32).reshape(8, 8)
    (tmp_path / "a.tif").write_bytes(tiff(values))
    (tmp_path / "b.psd").write_bytes(b"8BPS")
    photos = photo_files([tmp_path], size=16, report=Said())
    assert photos.files == ("a.tif",)
    assert said == ["1 picture left out (b.psd): Photoshop is not read: save it as PNG or JPEG"]
    for _ in range(2):
        assert photos.load(0).shape == (3, 16, 16)
    assert said[1:] == ["a.tif: 32-bit samples from 0 to 63: taken as 0 to 255, a guess"]


def test_control_characters_of_names_are_shown_escaped(tmp_path: Path) -> None:
    if os.name == "nt":
        pytest.skip("no such names")
    picture(tmp_path / "a.jpg")
    (tmp_path / "\x1b[31mred\n.psd").write_bytes(b"8BPS")
    (note,) = open_folder(tmp_path).notes
    assert note.isprintable() and "\\x1b[31mred\\n" in note


def test_listing_counts_every_entry(tmp_path: Path) -> None:
    """Whatever lies there is a picture, left out, passed over, or text."""
    names = ["a.png", "b.heic", "c.jxl", "d.bin", "._e", "f.txt", "Thumbs.db", ".g.png", "h.part"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    found = list_pictures(tmp_path)
    quiet = sum(Path(name).suffix in listing._TEXT or name in ("Thumbs.db",) for name in names)
    counted = len(found.files) + len(found.left_out) + sum(found.passed_over.values())
    assert counted + quiet == len(names)


def test_a_header_with_a_line_break_in_a_quoted_field_is_still_one_line(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    header = 'file_name,text,"a face,,train\nb.png,a face,x",y'
    (tmp_path / "captions.csv").write_text(f"{header}\na.png,c\n")
    with pytest.raises(BadInput, match="has 2 columns, not") as caught:
        open_folder(tmp_path)
    assert "\n" not in caught.value.message
