"""Tables, data sets, and finding CelebA and folders of pictures."""

from __future__ import annotations

import io
import re
import shutil
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dclip.data import celeba
from dclip.data.arrays import ShardWriter
from dclip.data.celeba import download, open_celeba
from dclip.data.celeba_captions import caption
from dclip.data.dataset import DataSet, LatentSet, open_samples
from dclip.data.folder import open_folder
from dclip.data.source import fingerprint
from dclip.data.table import SampleTable, write_table
from dclip.errors import BadInput, CorruptArtifact

COUNT = 10


def pixels(count: int = COUNT, size: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, size, size), dtype=np.uint8)


def write_array(path: Path, data: np.ndarray) -> None:
    with ShardWriter(path, data.shape[1:], data.dtype, total=len(data), per_shard=3) as writer:
        writer.append(data)
        writer.finish()


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    write_array(tmp_path / "images.zarr", pixels())
    write_table(
        tmp_path / "samples.csv",
        {
            "Smiling": [1, -1] * 5,
            "Male": [1, 1, -1, -1, 0, 1, 1, -1, -1, 0],
            "id": [f"p{i}" for i in range(COUNT)],
            "index": list(range(COUNT)),
            "split": ["train"] * 7 + ["val"] * 2 + ["test"],
            "caption": [f'a "quoted", caption {i}' for i in range(COUNT)],
            "identity": ["7", "8"] * 5,
        },
    )
    return DataSet(tmp_path)


# --- what a data artifact holds


def test_pictures_in_the_order_asked_for(data: DataSet) -> None:
    assert (len(data), data.size) == (COUNT, 4)
    assert np.array_equal(data.images([9, 0, 4, 0]), pixels()[[9, 0, 4, 0]])


def test_columns(data: DataSet) -> None:
    assert data.ids[3] == "p3"
    assert data.captions[2] == 'a "quoted", caption 2'
    assert data.attribute_names == ("Smiling", "Male")
    assert data.attribute("Male").tolist() == [1, 1, -1, -1, 0, 1, 1, -1, -1, 0]
    assert data.table.text("style") == [""] * COUNT


def test_splits(data: DataSet) -> None:
    assert data.split("train").tolist() == list(range(7))
    assert data.split("val").tolist() == [7, 8]
    assert data.split("test").tolist() == [9]
    assert data.split("all").tolist() == list(range(COUNT))
    with pytest.raises(BadInput, match="unknown split"):
        data.split("dev")


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], list(range(COUNT))),
        (["Smiling=1"], [0, 2, 4, 6, 8]),
        (["Smiling=1", "Male=-1"], [2, 8]),
        (["Male=0"], [4, 9]),
        (["Male!=1", "split=train"], [2, 3, 4]),
        (["identity=8", "id!=p1"], [3, 5, 7, 9]),
    ],
)
def test_where(data: DataSet, conditions: list[str], expected: list[int]) -> None:
    assert data.where(*conditions).tolist() == expected


def test_where_says_what_it_cannot_do(data: DataSet) -> None:
    with pytest.raises(BadInput, match="no 'Smilling'") as caught:
        data.where("Smilling=1")
    assert "Smiling" in caught.value.fix
    with pytest.raises(BadInput, match="cannot read the condition"):
        data.where("Smiling")
    with pytest.raises(BadInput, match="is 1"):
        data.where("Smiling=yes")


def test_rows_of_other_number_than_pictures_are_corrupt(data: DataSet) -> None:
    write_table(data.path / "samples.csv", {"id": ["a"]})
    with pytest.raises(CorruptArtifact, match="1 rows for 10"):
        _ = DataSet(data.path).ids


@pytest.mark.parametrize(
    "text", ["", "name\nx\n", "id,Smiling\na,1\nb\n", "id,Smiling\na,perhaps\n", "id,psnr\na,x\n"]
)
def test_a_table_that_is_none_is_corrupt(tmp_path: Path, text: str) -> None:
    (tmp_path / "samples.csv").write_text(text)
    with pytest.raises(CorruptArtifact, match=r"samples\.csv"):
        SampleTable(tmp_path / "samples.csv")


def test_an_empty_folder_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(CorruptArtifact):
        DataSet(tmp_path)


def test_latents_with_rows_taken_from_the_data(data: DataSet, tmp_path: Path) -> None:
    folder, chosen = tmp_path / "latents", data.split("val")
    latents = np.random.default_rng(1).standard_normal((2, 3, 4, 4)).astype(np.float32)
    write_array(folder / "latents.zarr", latents)
    write_array(folder / "reference.zarr", data.images(chosen))
    columns = data.table.take(chosen)
    write_table(folder / "samples.csv", {**columns, "psnr": [40.5, 41.0], "mae": [0.01, 0.02]})
    opened = open_samples(folder)
    assert isinstance(opened, LatentSet)
    assert np.array_equal(opened.latents([1, 0]), latents[[1, 0]])
    assert np.array_equal(opened.references([0]), pixels()[7:8])
    assert opened.ids == ["p7", "p8"]
    assert opened.table.text("index") == ["0", "1"]
    assert opened.measured("psnr").tolist() == [40.5, 41.0]
    assert opened.attribute("Male").tolist() == [-1, -1]
    assert opened.attribute_names == data.attribute_names
    assert isinstance(open_samples(data.path), DataSet)


# --- CelebA as people have it

NAMES = [f"{n:06d}.jpg" for n in (2, 5, 11, 12, 40, 41)]
ATTRIBUTES = ["Male", "Smiling", "Young"]


def photo(name: str) -> bytes:
    """A picture of CelebA's size that differs from the others'."""
    shade = int(name[:6])
    file = io.BytesIO()
    Image.new("RGB", (178, 218), (shade * 5, 100, 255 - shade * 5)).save(file, "JPEG")
    return file.getvalue()


def write_lists(folder: Path, kind: str = "txt") -> None:
    """Lists of more rows than there are pictures, as CelebA's are."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{n:06d}.jpg" for n in range(1, 51)]
    rows = [[1 if (i >> k) & 1 else -1 for k in range(3)] for i in range(1, 51)]
    lines = [f"{n} {' '.join(f'{v:2d}' for v in row)}" for n, row in zip(names, rows, strict=True)]
    if kind == "txt":
        text = f"50\n{' '.join(ATTRIBUTES)} \n" + "\n".join(lines) + "\n"
        (folder / "list_attr_celeba.txt").write_text(text)
        text = "".join(f"{n} {i % 3}\n" for i, n in enumerate(names))
        (folder / "list_eval_partition.txt").write_text(text)
    else:
        text = f"image_id,{','.join(ATTRIBUTES)}\n"
        text += "".join(f"{n},{','.join(map(str, r))}\n" for n, r in zip(names, rows, strict=True))
        (folder / "list_attr_celeba.csv").write_text(text)
        text = "image_id,partition\n" + "".join(f"{n},{i % 3}\n" for i, n in enumerate(names))
        (folder / "list_eval_partition.csv").write_text(text)
    text = "".join(f"{n} {1000 + i}\n" for i, n in enumerate(names))
    (folder / "identity_CelebA.txt").write_text(text)


def write_zip(path: Path, names: list[str] = NAMES, prefix: str = "img_align_celeba/") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(prefix), b"")
        for i, name in enumerate(reversed(names)):
            method = zipfile.ZIP_DEFLATED if i % 2 else zipfile.ZIP_STORED
            archive.writestr(prefix + name, photo(name), compress_type=method)
    return path


def write_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        (folder / name).write_bytes(photo(name))


def zipped(root: Path) -> Path:
    write_zip(root / "img_align_celeba.zip")
    write_lists(root)
    return root


def the_zip_itself(root: Path) -> Path:
    return zipped(root) / "img_align_celeba.zip"


def torchvisions(root: Path) -> Path:
    write_folder(root / "celeba/img_align_celeba")
    write_lists(root / "celeba")
    return root


def extracted(root: Path) -> Path:
    write_folder(root / "img_align_celeba")
    write_lists(root)
    return root


def kaggles(root: Path) -> Path:
    write_folder(root / "img_align_celeba/img_align_celeba")
    write_lists(root, "csv")
    return root


def flat(root: Path) -> Path:
    write_folder(root)
    write_lists(root)
    return root


def lists_beside_the_folder(root: Path) -> Path:
    return extracted(root) / "img_align_celeba"


def official_tree(root: Path) -> Path:
    write_zip(root / "Img/img_align_celeba.zip")
    write_lists(root / "Anno")
    (root / "Eval").mkdir()
    (root / "Anno/list_eval_partition.txt").rename(root / "Eval/list_eval_partition.txt")
    return root


LAYOUTS = [
    zipped,
    the_zip_itself,
    torchvisions,
    extracted,
    kaggles,
    flat,
    lists_beside_the_folder,
    official_tree,
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_celeba(tmp_path: Path, layout: Callable[[Path], Path]) -> None:
    found = open_celeba(layout(tmp_path / "there"))
    assert [item.file for item in found.items] == NAMES
    assert [item.id for item in found.items] == [name[:6] for name in NAMES]
    assert [found.read(item) for item in found.items] == [photo(name) for name in NAMES]
    assert found.columns["identity"] == ["1001", "1004", "1010", "1011", "1039", "1040"]
    assert found.columns["partition"] == ["val", "val", "val", "test", "train", "val"]
    assert found.columns["Male"] == ["-1", "1", "1", "-1", "-1", "1"]
    assert set(found.columns) == {"identity", "partition", "caption", *ATTRIBUTES}
    assert not found.notes
    reference = open_celeba(zipped(tmp_path / "reference"))
    assert fingerprint(found.items, found.columns) == fingerprint(
        reference.items, reference.columns
    )


def test_captions_of_celeba_say_what_is_true_and_differ() -> None:
    person = {"Male": "1", "Smiling": "-1", "Young": "-1", "Eyeglasses": "1", "No_Beard": "1"}
    person |= {"Gray_Hair": "1", "Wavy_Hair": "1", "Bald": "-1", "Wearing_Hat": "-1"}
    texts = [caption(person, f"{n:06d}") for n in range(200)]
    assert texts == [caption(person, f"{n:06d}") for n in range(200)]
    words = {word for text in texts for word in re.findall(r"[a-z]+", text)}
    assert {"man", "serious", "old", "glasses", "gray", "wavy", "hair", "person"} <= words
    assert not words & {"woman", "smiling", "happy", "young", "beard", "hat", "bald", "blond"}
    assert len(set(texts)) > 60 and not any(re.search(r"\ba [aeiou]", text) for text in texts)
    assert caption({}, "000001") == "" == caption(dict.fromkeys(person, ""), "000001")


def test_fingerprint_sees_pictures_lists_and_names(tmp_path: Path) -> None:
    def now() -> str:
        found = open_celeba(tmp_path)
        return fingerprint(found.items, found.columns)

    extracted(tmp_path)
    seen = [now()]
    target = tmp_path / "img_align_celeba" / NAMES[0]
    target.write_bytes(photo(NAMES[1]))
    seen.append(now())
    attributes = tmp_path / "list_attr_celeba.txt"
    attributes.write_text(attributes.read_text().replace("000005.jpg  1", "000005.jpg -1"))
    seen.append(now())
    target.rename(target.with_name("000003.jpg"))
    seen.append(now())
    attributes.write_text(attributes.read_text().replace("000049.jpg  1", "000049.jpg -1"))
    assert now() == seen[-1], "a row of a picture that is not there changes nothing"
    assert len(set(seen)) == 4


def test_limit_takes_the_first_by_name(tmp_path: Path) -> None:
    for layout in (zipped, extracted):
        found = open_celeba(layout(tmp_path / layout.__name__), limit=2)
        assert [item.file for item in found.items] == NAMES[:2]
        assert found.columns["identity"] == ["1001", "1004"]


def test_without_lists(tmp_path: Path) -> None:
    write_folder(tmp_path / "img_align_celeba")
    found = open_celeba(tmp_path)
    assert len(found.items) == len(NAMES)
    assert not found.columns
    assert "list_attr_celeba" in found.notes[0]


def test_a_picture_without_a_row_has_empty_columns(tmp_path: Path) -> None:
    extracted(tmp_path)
    (tmp_path / "img_align_celeba/000099.jpg").write_bytes(photo("000099.jpg"))
    found = open_celeba(tmp_path)
    assert {name: column[-1] for name, column in found.columns.items()} == dict.fromkeys(
        found.columns, ""
    )


def test_png_copies_use_the_jpg_lists(tmp_path: Path) -> None:
    write_lists(tmp_path)
    (tmp_path / "img_align_celeba").mkdir()
    Image.new("RGB", (178, 218)).save(tmp_path / "img_align_celeba/000002.png")
    assert open_celeba(tmp_path).columns["identity"] == ["1001"]


def test_zip_read_from_many_threads(tmp_path: Path) -> None:
    found = open_celeba(zipped(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        data = list(pool.map(found.read, list(found.items) * 50))
    assert data == [photo(name) for name in NAMES] * 50


def test_truncated_zip_is_one_line(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "img_align_celeba.zip")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadInput, match="not a complete zip"):
        open_celeba(tmp_path)


def test_a_web_page_in_place_of_the_zip(tmp_path: Path) -> None:
    (tmp_path / "img_align_celeba.zip").write_text("<html>Quota exceeded</html>")
    with pytest.raises(BadInput, match="not a complete zip") as caught:
        open_celeba(tmp_path)
    assert "Google Drive" in caught.value.fix


def test_a_folder_stands_in_for_a_damaged_zip(tmp_path: Path) -> None:
    extracted(tmp_path)
    (tmp_path / "img_align_celeba.zip").write_text("half")
    found = open_celeba(tmp_path)
    assert len(found.items) == len(NAMES)
    assert "not a complete zip" in found.notes[0]


@pytest.mark.parametrize(
    "member", ["img_align_celeba/readme.txt", "../000001.jpg", "img_align_celeba/a.exe"]
)
def test_a_wrong_member_is_named(tmp_path: Path, member: str) -> None:
    path = write_zip(tmp_path / "img_align_celeba.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, b"x")
    with pytest.raises(BadInput, match="not a CelebA picture") as caught:
        open_celeba(tmp_path)
    assert member in caught.value.message


def test_what_systems_add_to_a_zip_is_passed_over(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "img_align_celeba.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/img_align_celeba/._000002.jpg", b"x")
        archive.writestr("img_align_celeba/.DS_Store", b"x")
    assert len(open_celeba(tmp_path).items) == len(NAMES)


def test_a_name_twice_and_none_at_all(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "img_align_celeba.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"again/{NAMES[0]}", photo(NAMES[0]))
    with pytest.raises(BadInput, match="twice"):
        open_celeba(tmp_path)
    write_zip(path, [])
    with pytest.raises(BadInput, match="no pictures"):
        open_celeba(tmp_path)


def test_a_picture_as_jpg_and_as_png_is_refused(tmp_path: Path) -> None:
    extracted(tmp_path)
    Image.new("RGB", (178, 218)).save(tmp_path / "img_align_celeba/000002.png")
    with pytest.raises(BadInput, match=r"as \.jpg and as \.png"):
        open_celeba(tmp_path)


def test_a_damaged_member_is_a_bad_picture_not_a_bad_zip(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "img_align_celeba.zip")
    with zipfile.ZipFile(path) as archive:
        where = archive.getinfo(f"img_align_celeba/{NAMES[0]}").header_offset
    data = bytearray(path.read_bytes())
    data[where + 200] ^= 0xFF
    path.write_bytes(data)
    found = open_celeba(tmp_path)
    with pytest.raises(BadInput, match=NAMES[0]):
        found.read(found.items[0])
    assert found.read(found.items[1]) == photo(NAMES[1])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list_attr_celeba.txt", "1\nMale Smiling\n000002.jpg 1\n"),
        ("list_attr_celeba.txt", "1\nMale Smiling\n000002.jpg 1 7\n"),
        ("list_attr_celeba.txt", "000002.jpg 1 1\n"),
        ("list_eval_partition.txt", "000002.jpg 3\n"),
        ("list_eval_partition.txt", "000002.jpg\n"),
        ("identity_CelebA.txt", "000002.jpg nobody\n"),
    ],
)
def test_a_list_that_is_not_celebas_names_its_line(tmp_path: Path, name: str, text: str) -> None:
    extracted(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=rf"{name} line {text.count(chr(10))}"):
        open_celeba(tmp_path)


def test_a_binary_list_is_refused(tmp_path: Path) -> None:
    extracted(tmp_path)
    (tmp_path / "list_attr_celeba.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(BadInput, match="not a text file"):
        open_celeba(tmp_path)


def test_nothing_there_says_where_to_get_it(tmp_path: Path) -> None:
    for root in (tmp_path / "none", tmp_path):
        with pytest.raises(BadInput) as caught:
            open_celeba(root)
        assert "mmlab" in caught.value.fix


def test_a_download_that_fails_says_how_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision.datasets

    monkeypatch.setattr(celeba, "_installed", lambda package: True)

    def offline(*args: object, **options: object) -> None:
        assert options == {"split": "all", "download": True}
        raise OSError("Name or service\nnot known")

    monkeypatch.setattr(torchvision.datasets, "CelebA", offline)
    with pytest.raises(BadInput, match="Name or service not known") as caught:
        download(tmp_path)
    assert "mmlab" in caught.value.fix


# --- folders


def picture(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(path)


def test_a_folder_is_read_recursively_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.JPG", "a/b/c.webp", ".hidden/x.png", ".y.png"):
        picture(tmp_path / name)
    (tmp_path / "notes.md").write_text("no picture")
    found = open_folder(tmp_path)
    assert [item.id for item in found.items] == ["a/b/c.webp", "a/z.JPG", "b.png"]
    assert found.read(found.items[2]) == (tmp_path / "b.png").read_bytes()
    assert [item.id for item in open_folder(tmp_path, limit=1).items] == ["a/b/c.webp"]


@pytest.mark.parametrize("name", ["captions.csv", "captions.txt"])
def test_captions_from_a_table(tmp_path: Path, name: str) -> None:
    for file in ("Images/a.png", "Images/b.png", "c.png", "d.png"):
        picture(tmp_path / file)
    (tmp_path / name).write_text(
        "image,caption\n"
        "a.png,A man , with a hat .\n"
        "a.png,the second of five\n"
        'Images/b.png,"quoted, too"\n'
        "c.png,plain\n"
        "elsewhere.png,nobody\n"
    )
    found = open_folder(tmp_path)
    assert dict(zip([i.id for i in found.items], found.columns["caption"], strict=True)) == {
        "Images/a.png": "A man , with a hat .",
        "Images/b.png": "quoted, too",
        "c.png": "plain",
        "d.png": "",
    }
    assert "1 of 4 pictures have no caption" in found.notes


def test_a_bare_name_that_fits_two_pictures_captions_neither(tmp_path: Path) -> None:
    for file in ("x/a.png", "y/a.png", "b.png"):
        picture(tmp_path / file)
    (tmp_path / "captions.csv").write_text("file,caption\na.png,whose?\nb.png,mine\n")
    assert open_folder(tmp_path).columns["caption"] == ["mine", "", ""]


def test_captions_beside_the_pictures(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / "a.txt").write_text("two\nlines \n")
    assert open_folder(tmp_path).columns["caption"] == ["two lines", ""]


def test_captions_of_other_pictures_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "captions.csv").write_text("file,caption\nz.png,who\n")
    with pytest.raises(BadInput, match="names none"):
        open_folder(tmp_path)
    (tmp_path / "captions.csv").write_text("file,caption\na.png\n")
    with pytest.raises(BadInput, match="line 2"):
        open_folder(tmp_path)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        open_folder(tmp_path / "none")
    with pytest.raises(BadInput, match="no pictures") as caught:
        open_folder(tmp_path)
    assert "jpg" in caught.value.fix
    picture(tmp_path / "a.png")
    with pytest.raises(BadInput, match="is a file"):
        open_folder(tmp_path / "a.png")


def test_folder_fingerprint_is_content_not_place_or_time(tmp_path: Path) -> None:
    def of(root: Path) -> str:
        found = open_folder(root)
        return fingerprint(found.items, found.columns)

    picture(tmp_path / "a/x.png", 1)
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    assert of(tmp_path / "a") == of(tmp_path / "b")
    picture(tmp_path / "b/x.png", 2)
    assert of(tmp_path / "a") != of(tmp_path / "b")
