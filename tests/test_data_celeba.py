"""CelebA as it is found, and its lists and zips when they are not what they should be."""

from __future__ import annotations

import io
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from dclip.context import Context, Silent
from dclip.data import celeba, celeba_lists, source, zips
from dclip.data.celeba import download, open_celeba
from dclip.data.dataset import DataSet
from dclip.errors import BadInput
from dclip.stages.prepare import PrepareConfig, run
from dclip.store import Store

NAMES = [f"{n:06d}.jpg" for n in range(1, 13)]
ATTRIBUTES = "Smiling Male Young"


def photo(shade: int, shape: tuple[int, int] = (178, 218)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", shape, (shade * 20, 100, 50)).save(file, "JPEG")
    return file.getvalue()


def pictures(folder: Path, names: list[str] = NAMES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for shade, name in enumerate(names):
        (folder / name).write_bytes(photo(shade))
    return folder


def attributes(names: list[str] = NAMES, no: str = "-1") -> str:
    rows = [" ".join("1" if (i >> k) & 1 else no for k in range(3)) for i in range(len(names))]
    lines = "".join(f"{name}  {row}\n" for name, row in zip(names, rows, strict=True))
    return f"{len(names)}\n{ATTRIBUTES}\n{lines}"


def comma(text: str) -> str:
    """Kaggle's form of the list of attributes."""
    _, header, *rows = text.splitlines()
    return "\n".join(["image_id," + ",".join(header.split())] + [",".join(r.split()) for r in rows])


def partition(names: list[str] = NAMES) -> str:
    return "".join(f"{name} {i // 4}\n" for i, name in enumerate(names))


@pytest.fixture
def found(tmp_path: Path) -> Path:
    pictures(tmp_path / "img_align_celeba")
    (tmp_path / "list_attr_celeba.txt").write_text(attributes())
    (tmp_path / "list_eval_partition.txt").write_text(partition())
    (tmp_path / "identity_CelebA.txt").write_text("".join(f"{n} 1234\n" for n in NAMES))
    return tmp_path


# --- as it is found


def kaggle(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for shade, name in enumerate(NAMES):
            archive.writestr(f"img_align_celeba/img_align_celeba/{name}", photo(shade))
        archive.writestr("list_attr_celeba.csv", comma(attributes()) + "\n")
        archive.writestr("list_eval_partition.csv", comma(f"0\npartition\n{partition()}") + "\n")
        archive.writestr("list_bbox_celeba.csv", "image_id,x_1\n")
        archive.writestr("list_landmarks_align_celeba.csv", "image_id,lefteye_x\n")
    return path


def kaggle_itself(root: Path) -> Path:
    return kaggle(root / "archive.zip")


def kaggle_in_a_folder(root: Path) -> Path:
    kaggle(root / "archive (1).zip")
    return root


def kaggle_unpacked(root: Path) -> Path:
    with zipfile.ZipFile(kaggle(root / "a.zip")) as archive:
        archive.extractall(root / "out")
    return root / "out"


@pytest.mark.parametrize("layout", [kaggle_itself, kaggle_in_a_folder, kaggle_unpacked])
def test_kaggles_archive(tmp_path: Path, layout: Callable[[Path], Path]) -> None:
    read = open_celeba(layout(tmp_path))
    assert [item.file for item in read.items] == NAMES
    assert [read.read(item) for item in read.items] == [photo(i) for i in range(12)]
    assert read.columns["Male"] == ["-1", "-1", "1", "1"] * 3
    assert read.columns["partition"] == ["train"] * 4 + ["val"] * 4 + ["test"] * 4
    assert read.crop == "face"
    assert read.notes == ("no identity_CelebA beside the pictures: prepared without",)


@pytest.mark.parametrize("padding", [1, 5])
@pytest.mark.parametrize("inside", ["CelebA-HQ-img", "celeba_hq_256"])
def test_celeba_hq(tmp_path: Path, padding: int, inside: str) -> None:
    numbers = [f"{n}.jpg" for n in range(12)]
    pictures(tmp_path / inside, [f"{n:0{padding}d}.jpg" for n in range(12)])
    (tmp_path / "CelebAMask-HQ-attribute-anno.txt").write_text(attributes(numbers))
    # Lists of CelebA beside it are of other people under the same numbers.
    (tmp_path / "list_eval_partition.txt").write_text(partition())
    for root in (tmp_path, tmp_path / inside):
        read = open_celeba(root)
        assert [int(item.id) for item in read.items] == list(range(12))
        assert read.columns["Smiling"] == ["-1", "1"] * 6
        assert "partition" not in read.columns
        assert read.crop == "center"
        assert "taken whole" in read.notes[0]
    said = []

    class Said(Silent):
        def note(self, message: str) -> None:
            said.append(message)

    store = Store(tmp_path / "store")
    config = PrepareConfig("celeba", root=str(tmp_path), size=16)
    assert run(config, store, Context(report=Said())).config["crop"] == "center"
    assert any("taken whole" in line for line in said)
    narrow = PrepareConfig("celeba", root=str(tmp_path), size=16, crop="face")
    assert run(narrow, store).config["crop"] == "face"


def test_attributes_of_0_and_1(found: Path) -> None:
    (found / "list_attr_celeba.txt").write_text(attributes(no="0"))
    read = open_celeba(found)
    assert read.columns["Male"] == ["-1", "-1", "1", "1"] * 3
    assert "0 where CelebA has -1" in read.notes[0]


def test_0_beside_minus_1_is_unknown(found: Path) -> None:
    text = attributes().replace("000001.jpg  -1 -1 -1", "000001.jpg  0 -1 -1")
    (found / "list_attr_celeba.txt").write_text(text)
    read = open_celeba(found)
    assert read.columns["Smiling"][:2] == ["0", "1"]
    assert not read.notes


def test_appledouble_files_are_no_pictures(found: Path) -> None:
    for name in NAMES:
        (found / "img_align_celeba" / f"._{name}").write_bytes(b"\0\x05\x16\x07" + bytes(50))
    (found / "img_align_celeba" / "readme.html").write_text("x")
    read = open_celeba(found, limit=10)
    assert [item.file for item in read.items] == NAMES[:10]
    assert read.notes[0] == "passed over: macOS ._ files (12)"
    assert "readme.html" in read.notes[1] and "1 files" in read.notes[1]
    artifact = run(
        PrepareConfig("celeba", root=str(found), size=16, limit=10), Store(found / "store")
    )
    assert (len(DataSet(artifact.path)), artifact.metrics["skipped"]) == (10, 0)


def test_a_download_without_its_helper_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "gdown", raising=False)
    sys.path_importer_cache.clear()
    with pytest.raises(BadInput, match="gdown") as caught:
        download(tmp_path)
    assert caught.value.fix == "pip install gdown"


# --- lists


LISTS = ["list_attr_celeba", "list_eval_partition", "identity_CelebA"]


@pytest.mark.parametrize("stem", LISTS)
@pytest.mark.parametrize("suffix", [".txt", ".csv"])
def test_a_web_page_in_place_of_a_list(found: Path, stem: str, suffix: str) -> None:
    (found / f"{stem}.txt").unlink()
    (found / f"{stem}{suffix}").write_text("\n <!DOCTYPE html>\n<html><p>Quota exceeded</html>\n")
    with pytest.raises(BadInput, match="web page, not CelebA's list") as caught:
        open_celeba(found)
    assert stem in caught.value.message and "again" in caught.value.fix


def test_a_list_cut_anywhere_is_found(found: Path) -> None:
    whole = attributes()
    for end in range(len(whole) - 1):
        (found / "list_attr_celeba.txt").write_text(whole[:end])
        with pytest.raises(BadInput, match="list_attr_celeba"):
            open_celeba(found, limit=3)
    (found / "list_attr_celeba.txt").write_text(whole[:-1])  # only the last line's end is missing
    assert open_celeba(found).columns["Young"] == ["-1"] * 4 + ["1"] * 4 + ["-1"] * 4


def test_a_list_without_a_count_that_was_cut_is_told(found: Path) -> None:
    lines = partition().splitlines(keepends=True)
    (found / "list_eval_partition.txt").write_text("".join(lines[:9]))
    read = open_celeba(found)
    assert any("3 of 12 pictures have no row in" in note for note in read.notes)
    assert read.columns["partition"][9:] == [""] * 3
    (found / "list_eval_partition.txt").write_text("".join(lines[:9]) + "0000")
    with pytest.raises(BadInput, match="line 10"):
        open_celeba(found)
    people = (found / "identity_CelebA.txt").read_text()
    (found / "list_eval_partition.txt").write_text("".join(lines))
    (found / "identity_CelebA.txt").write_text(people[:-3])  # 12 of 1234
    assert any("may have been cut" in note for note in open_celeba(found).notes)


@pytest.mark.parametrize("stem", LISTS)
def test_one_bad_byte_in_a_row(found: Path, stem: str) -> None:
    path = found / f"{stem}.txt"
    data = path.read_bytes()
    path.write_bytes(data[:-2] + b"\xff\n")
    with pytest.raises(BadInput, match=rf"{stem}.txt line {data.count(10)}") as caught:
        open_celeba(found)
    assert caught.value.message.isprintable()
    assert open_celeba(found, limit=5).columns["partition"], "a row that is not wanted"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2\nSmiling Smiling\n000001.jpg 1 1\n000002.jpg 1 1\n", "twice"),
        ("2\nSmiling caption\n000001.jpg 1 1\n000002.jpg 1 1\n", "may not be called 'caption'"),
        ("2\n1 -1\n000001.jpg 1 1\n000002.jpg 1 1\n", "names of the attributes are missing"),
        ("2\nSmiling <p>\n000001.jpg 1 1\n000002.jpg 1 1\n", "not the name"),
        ("3\nSmiling Male\n000001.jpg 1 1\n000002.jpg 1 1\n", "says 3 rows and has 2"),
        ("Smiling Male\n000001.jpg 1 1\n000002.jpg 1 1\n", "not the number of rows"),
        ("2\nSmiling Male\n000001.jpg 1 1\n000001.jpg 1 1\n", "was there before"),
        ("2\nSmiling Male\n000001.jpg 1 1\nnobody 1 1\n", "not with a picture's name"),
        ("1\nSmiling Male\n009999.jpg 1 1\n", "no row for any of the 12"),
        ("", "is empty"),
        ("2\n", "no names"),
        ("9" * 5000 + "\n", "not the number of rows"),
    ],
)
def test_a_list_that_is_not_one_says_why(found: Path, text: str, why: str) -> None:
    (found / "list_attr_celeba.txt").write_text(text)
    with pytest.raises(BadInput, match=why) as caught:
        open_celeba(found)
    assert caught.value.fix and len(caught.value.message) < 300


def test_a_list_inside_a_zip_is_checked_too(tmp_path: Path) -> None:
    path = kaggle(tmp_path / "a.zip")
    with zipfile.ZipFile(path) as archive:
        members = {m.filename: archive.read(m) for m in archive.infolist()}
    members["list_attr_celeba.csv"] = b"<html>"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(BadInput, match="web page"):
        open_celeba(path)


def test_columns_are_one_object_for_each_value(found: Path) -> None:
    """200,000 rows of 40 attributes: eight million pointers, and not as many strings."""
    read = open_celeba(found)
    assert len({id(value) for name in ("Smiling", "Male") for value in read.columns[name]}) == 2


# --- zips


def lying(path: Path, member: str, *, says: int) -> None:
    """Change the unpacked size that the zip's directory and local header tell of a member."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
        at = archive.start_dir
    struct.pack_into("<I", data, info.header_offset + 22, says)
    name = member.encode()
    while data[at + 46 : at + 46 + len(name)] != name:
        lengths = struct.unpack_from("<HHH", data, at + 28)
        at += 46 + sum(lengths)
    struct.pack_into("<I", data, at + 24, says)
    path.write_bytes(data)


def test_a_member_that_lies_about_its_size_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "img_align_celeba.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("img_align_celeba/000001.jpg", bytes(50_000_000))
        archive.writestr("img_align_celeba/000002.jpg", photo(2))
    lying(path, "img_align_celeba/000001.jpg", says=9000)
    unpacked = []
    real = zlib.decompressobj

    class Watched:
        def __init__(self, bits: int) -> None:
            self._inner = real(bits)

        def decompress(self, data: bytes, most: int) -> bytes:
            out = self._inner.decompress(data, most)
            unpacked.append(len(out))
            return out

    monkeypatch.setattr(zips.zlib, "decompressobj", Watched)
    read = open_celeba(tmp_path)
    with pytest.raises(BadInput, match=r"000001\.jpg cannot be unpacked: .*more than the 9000"):
        read.read(read.items[0])
    assert max(unpacked) <= 9001
    assert read.read(read.items[1]) == photo(2)


@pytest.mark.parametrize("says", [2**31, 600 * 2**20])
def test_a_member_that_says_that_it_is_huge_is_refused_unread(tmp_path: Path, says: int) -> None:
    path = tmp_path / "img_align_celeba.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("img_align_celeba/000001.jpg", photo(1))
    lying(path, "img_align_celeba/000001.jpg", says=says)
    read = open_celeba(tmp_path)
    with pytest.raises(BadInput, match="too large") as caught:
        read.read(read.items[0])
    assert caught.value.fix


def test_a_stored_member_of_two_sizes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "img_align_celeba.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("img_align_celeba/000001.jpg", photo(1))
    lying(path, "img_align_celeba/000001.jpg", says=100)
    read = open_celeba(tmp_path)
    with pytest.raises(BadInput, match="two sizes differ"):
        read.read(read.items[0])


def test_large_members_of_zip_and_folder_are_the_same_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Marks are of all bytes, on disk as in a zip."""
    monkeypatch.setattr(source, "_READ", 4096)
    random = Image.effect_noise((600, 600), 80)
    file = io.BytesIO()
    random.save(file, "PNG")
    assert len(file.getvalue()) > 100_000
    folder = tmp_path / "f/img_align_celeba"
    folder.mkdir(parents=True)
    (folder / "000001.png").write_bytes(file.getvalue())
    (tmp_path / "z").mkdir()
    with zipfile.ZipFile(tmp_path / "z/img_align_celeba.zip", "w") as archive:
        archive.write(folder / "000001.png", "img_align_celeba/000001.png")
    first, second = open_celeba(tmp_path / "f"), open_celeba(tmp_path / "z")
    assert first.items == second.items
    changed = bytearray(file.getvalue())
    changed[-30] ^= 1  # behind the first 64 KB, of the same size
    (folder / "000001.png").write_bytes(changed)
    assert open_celeba(tmp_path / "f").items != second.items


def test_names_of_lists_that_are_used() -> None:
    assert celeba.LISTS is celeba_lists.LISTS
    assert set(LISTS) == set(celeba_lists.LISTS)
