"""Whatever lies in lists, tables, zips, pictures and names: one clear line, or a right result."""

from __future__ import annotations

import io
import json
import os
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from picture_files import encoded, icc_profile, png_chunk, tiff, with_chunk
from PIL import Image

from dclip.context import Context
from dclip.data.arrays import ShardReader, ShardWriter
from dclip.data.celeba import open_celeba
from dclip.data.dataset import DataSet
from dclip.data.folder import open_folder
from dclip.data.images import check_crop, decode
from dclip.data.paths import read_bytes, shown, user_path
from dclip.data.photos import photo_files, unique_names
from dclip.data.rendered import MAX_COUNT, Rendered
from dclip.data.table import SampleTable, write_csv
from dclip.errors import BadInput, CorruptArtifact, DclipError
from dclip.stages.prepare import PrepareConfig, run
from dclip.store import Planned, Store

NAMES = [f"{n:06d}.jpg" for n in range(1, 7)]
many = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

pytestmark = pytest.mark.attack("pictures, lists, archives and names from strangers")


@st.composite
def damage(draw: st.DrawFn, data: bytes) -> bytes:
    """``data`` with some of it changed, taken out, put in, doubled or cut off."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(out)))
        length = draw(st.integers(1, 12))
        how = draw(st.sampled_from(["change", "drop", "insert", "double", "cut"]))
        if how == "change":
            out[at : at + length] = draw(st.binary(min_size=1, max_size=length))
        elif how == "drop":
            del out[at : at + length]
        elif how == "insert":
            odd = (b"\0", b"\xff", b"\n", b"\r", b'"', b",", b"<", b"\xed\xa0\x80", b"9" * 5000)
            out[at:at] = draw(st.one_of(st.binary(max_size=length), st.sampled_from(odd)))
        elif how == "double":
            out[at:at] = out[at : at + 40]
        else:
            del out[at:]
    return bytes(out)


def one_line(error: DclipError) -> None:
    assert error.message and error.fix
    assert "\n" not in error.message and len(error.message) < 400


def photo(shade: int) -> bytes:
    return encoded(Image.new("RGB", (12, 14), (shade * 20, 100, 50)), "JPEG")


ATTRIBUTES = "6\nSmiling Male\n" + "".join(f"{n}  1 {'1' if n < '3' else '-1'}\n" for n in NAMES)
LISTS = {
    "list_attr_celeba.txt": ATTRIBUTES,
    "list_attr_celeba.csv": "image_id,Smiling,Male\n" + "".join(f"{n},1,-1\n" for n in NAMES),
    "list_eval_partition.txt": "".join(f"{n} {i % 3}\n" for i, n in enumerate(NAMES)),
    "list_eval_partition.csv": "image_id,partition\n" + "".join(f"{n},0\n" for n in NAMES),
    "identity_CelebA.txt": "".join(f"{n} {i}00\n" for i, n in enumerate(NAMES)),
}


@pytest.fixture(scope="module")
def celeba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("celeba")
    (root / "img_align_celeba").mkdir()
    for shade, name in enumerate(NAMES):
        (root / "img_align_celeba" / name).write_bytes(photo(shade))
    return root


@many
@given(name=st.sampled_from(sorted(LISTS)), data=st.data())
def test_any_list(celeba: Path, name: str, data: st.DataObject) -> None:
    path = celeba / name
    path.write_bytes(data.draw(damage(LISTS[name].encode())))
    try:
        read = open_celeba(celeba)
    except BadInput as error:
        one_line(error)
        return
    finally:
        path.unlink()
    allowed = {"partition": {"train", "val", "test", ""}, "identity": None, "caption": None}
    for column, values in read.columns.items():
        assert len(values) == len(NAMES)
        if column not in allowed:
            assert column.isascii() and set(values) <= {"1", "-1", "0", ""}
        elif allowed[column]:
            assert set(values) <= allowed[column]
        else:
            assert column == "caption" or all(v == "" or v.isdigit() for v in values)


@many
@given(
    name=st.sampled_from(["captions.csv", "captions.txt", "metadata.csv", "metadata.jsonl"]),
    data=st.data(),
)
def test_any_captions(celeba: Path, name: str, data: st.DataObject) -> None:
    folder = celeba / "img_align_celeba"
    if name == "metadata.jsonl":
        rows = [json.dumps({"file_name": n, "text": f"a face, {n}"}) for n in NAMES]
    else:
        rows = ["file_name,text,split", *(f'{n},"a face, {n}",train' for n in NAMES)]
    path = folder / name
    path.write_bytes(data.draw(damage("\n".join(rows).encode())))
    try:
        read = open_folder(folder)
    except BadInput as error:
        one_line(error)
        return
    finally:
        path.unlink()
    assert len(read.items) == len(NAMES)
    for caption in read.columns.get("caption", []):
        assert "\n" not in caption and caption.encode().decode() == caption


def zip_of(compression: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for shade, name in enumerate(NAMES):
            archive.writestr(f"img_align_celeba/{name}", photo(shade))
        archive.writestr("list_attr_celeba.txt", ATTRIBUTES)
    return file.getvalue()


@many
@given(compression=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]), data=st.data())
def test_any_zip(tmp_path: Path, compression: int, data: st.DataObject) -> None:
    path = tmp_path / "img_align_celeba.zip"
    sound = zip_of(compression)
    # Half of the damage goes into the directory at the end, where every size and offset is.
    split = data.draw(st.sampled_from([0, sound.index(b"PK\x01\x02")]))
    path.write_bytes(sound[:split] + data.draw(damage(sound[split:])))
    try:
        read = open_celeba(path)
    except BadInput as error:
        one_line(error)
        return
    for item in read.items:
        try:
            content = read.read(item)
        except BadInput as error:
            one_line(error)
            continue
        # The checksum is the zip's: what passes it is what was put in, under some name.
        assert content in [photo(shade) for shade in range(6)] or len(content) < 9000


def samples_of_formats() -> list[bytes]:
    ramp = np.arange(144, dtype=np.uint8).reshape(12, 12)
    rgb = Image.fromarray(np.stack([ramp, ramp[::-1], ramp.T], axis=-1))
    icc = icc_profile(b"RGB ", np.array([[0.6, 0.2, 0.15], [0.3, 0.6, 0.1], [0.02, 0.1, 0.7]]), 2.2)
    exif = Image.Exif()
    exif[0x0112] = 6
    text = png_chunk(b"tEXt", b"prompt\0a face")
    return [
        tiff(ramp.astype(np.uint32) * 2**24),
        tiff(ramp.astype(np.int32), tags={341: 255}),
        tiff((ramp / 143).astype(np.float32), white_is_zero=True),
        tiff(ramp.astype(np.uint16), white_is_zero=True),
        with_chunk(encoded(rgb, icc_profile=icc, exif=exif), text),
        encoded(rgb.convert("P"), transparency=3),
        encoded(rgb.convert("CMYK"), "JPEG", exif=exif),
        encoded(rgb, "JPEG", icc_profile=icc, progressive=True),
        encoded(rgb, "WEBP", icc_profile=icc),
        encoded(rgb, "TIFF", compression="tiff_lzw"),
        encoded(rgb.convert("LA"), "PNG"),
        encoded(rgb, "GIF", save_all=True, append_images=[rgb.rotate(90)]),
    ]


FORMATS = samples_of_formats()


@settings(max_examples=400, deadline=None)
@given(which=st.integers(0, len(FORMATS) - 1), data=st.data(), size=st.sampled_from([None, 16]))
def test_any_picture(which: int, data: st.DataObject, size: int | None) -> None:
    try:
        read = decode(data.draw(damage(FORMATS[which])), size=size, crop="center", name="a.img")
    except BadInput as error:
        one_line(error)
        assert "a.img" in error.message
        return
    assert read.pixels.dtype == np.uint8 and read.pixels.shape[2] == 3
    assert size is None or read.pixels.shape == (16, 16, 3)
    assert all(note.isprintable() for note in read.notes)


# --- names

if os.name == "nt":
    names = st.text(st.characters(codec="utf-8", exclude_characters='\\/:*?"<>|'), min_size=1)
else:
    names = st.binary(min_size=1, max_size=240).filter(
        lambda raw: not {0, 47} & set(raw) and raw not in (b".", b"..")
    ).map(os.fsdecode)  # fmt: skip


@settings(max_examples=12, deadline=None)
@given(st.lists(names, min_size=1, max_size=4, unique=True))
@example(["a\rb", 'c"d,e', "f\ng", "\udcff"])
def test_any_names_of_files_come_through(
    tmp_path_factory: pytest.TempPathFactory, stems: list[str]
) -> None:
    root = tmp_path_factory.mktemp("names")
    folder = root / "photos"
    folder.mkdir()
    files = {f"n{stem}.png" for stem in stems}
    try:
        for file in files:
            (folder / file).write_bytes(encoded(Image.new("RGB", (16, 16))))
        (folder / "broken.png").write_bytes(b"nothing")
    except OSError:  # a file system that does not want them
        return
    made = run(PrepareConfig("folder", root=str(folder), size=16), Store(root / "store"))
    assert set(DataSet(made.path).ids) == files
    assert made.metrics["skipped"] == 1
    photos = photo_files([folder], size=16)
    for name in photos.names:
        (root / f"{name}.png").write_bytes(b"x")
    assert len(list(root.glob("*.png"))) == len(photos) == len(files) + 1
    shutil.rmtree(root)


@many
@given(st.text())
@example("a\0b")
@example("~" + "x" * 40)
@example("y" * 70_000)
def test_any_place(text: str) -> None:
    try:
        path = user_path(text)
    except BadInput as error:
        one_line(error)
        return
    assert isinstance(path, Path)
    assert shown(text).isprintable() and len(shown(text)) <= 121


@many
@given(st.text())
@example("9" * 5000)
@example("²")
def test_any_crop(text: str) -> None:
    try:
        assert check_crop(text) == text
    except BadInput as error:
        one_line(error)


@many
@given(st.lists(st.text(max_size=300), max_size=5))
def test_any_names_become_names_of_files(given_names: list[str]) -> None:
    unique = unique_names(given_names)
    assert len({name.lower() for name in unique}) == len(given_names)
    for name in unique:
        assert name.encode() and len(name.encode()) <= 245 and "/" not in name and "\0" not in name


# --- tables and arrays

cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(cells, cells), max_size=6))
@example([("a\rb", "\r\n"), ('"', ","), ("", "\udc80")])
def test_a_table_reads_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("table") / "samples.csv"
    write_csv(path, ["id", "caption"], rows)
    table = SampleTable(path)
    assert list(zip(table.ids, table.text("caption"), strict=True)) == rows
    assert [p.name for p in path.parent.iterdir()] == ["samples.csv"]


def test_half_a_character_in_a_table_becomes_a_question_mark(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["id"], [["x\ud800y"]])
    assert SampleTable(tmp_path / "a.csv").ids == ["x?y"]


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_csv(path, ["id"], [["old"]])

    def rows() -> object:
        yield ["new"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_csv(path, ["id"], rows())  # type: ignore[arg-type]
    assert SampleTable(path).ids == ["old"]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.fixture(scope="module")
def array(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    pixels = np.arange(7 * 3 * 4 * 4, dtype=np.uint8).reshape(7, 3, 4, 4)
    shape = (3, 4, 4)
    with ShardWriter(path / "images.zarr", shape, np.uint8, total=7, per_shard=3) as writer:
        writer.append(pixels)
        writer.finish()
    write_csv(path / "samples.csv", ["id", "Smiling"], [[f"p{i}", "1"] for i in range(7)])
    return path


@many
@given(data=st.data())
def test_any_table(tmp_path: Path, array: Path, data: st.DataObject) -> None:
    path = tmp_path / "samples.csv"
    path.write_bytes(data.draw(damage((array / "samples.csv").read_bytes())))
    try:
        table = SampleTable(path)
    except CorruptArtifact as error:
        one_line(error)
        return
    assert all(len(table.attribute(name)) == len(table) for name in table.attribute_names)


odd_values = st.sampled_from(
    [0, -1, 1, 2, 3, 6, 8, 9, 2**31, 2**62, 10**30, 1e400, float("nan"), True, None, "7", "uint9",
     [], [7], {}, [[[[]]]], [2**40, 3, 4, 4], [7, 3, 2**40, 4], "float64", ",O", "\ud800"]
)  # fmt: skip


@st.composite
def changed(draw: st.DrawFn, value: object) -> object:
    """JSON with one of its values, anywhere, made another or taken out."""
    if isinstance(value, dict) and value:
        key = draw(st.sampled_from(sorted(value)))
        if draw(st.integers(0, 9)) == 0:
            return {name: each for name, each in value.items() if name != key}
        return {**value, key: draw(changed(value[key]))}
    if isinstance(value, list) and value:
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], draw(changed(value[at])), *value[at + 1 :]]
    return draw(odd_values)


@many
@given(data=st.data())
def test_any_description_of_an_array(array: Path, data: st.DataObject) -> None:
    path = array / "images.zarr" / "zarr.json"
    sound = path.read_bytes()
    right = ShardReader(array / "images.zarr")[:]
    meta = json.loads(sound)
    new = data.draw(changed(meta))
    tracemalloc.start()
    try:
        path.write_text(json.dumps(new))
        samples = DataSet(array)
        assert np.array_equal(samples.images(range(len(samples))), right)
        assert samples.ids == [f"p{i}" for i in range(7)]
    except CorruptArtifact as error:
        one_line(error)
    finally:
        path.write_bytes(sound)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 50e6


@pytest.mark.parametrize("text", ["[" * 200_000, "", "\0", '{"shape": 9', "1e999", "\udcff"])
def test_text_that_is_no_description(array: Path, tmp_path: Path, text: str) -> None:
    shutil.copytree(array, tmp_path / "a")
    (tmp_path / "a/images.zarr/zarr.json").write_text(text, errors="surrogateescape")
    with pytest.raises(CorruptArtifact, match=r"zarr\.json") as caught:
        DataSet(tmp_path / "a")
    one_line(caught.value)


def test_an_array_that_says_it_has_more_or_fewer_is_corrupt(array: Path, tmp_path: Path) -> None:
    for count in (1, 3, 6, 8, 9, 10, 2**40):
        root = tmp_path / str(count)
        shutil.copytree(array, root)
        meta = json.loads((root / "images.zarr/zarr.json").read_text())
        meta["shape"][0] = count
        (root / "images.zarr/zarr.json").write_text(json.dumps(meta))
        with pytest.raises(CorruptArtifact):
            DataSet(root)


def test_an_array_of_zarrs_that_says_it_is_vast_is_not_gone_through(tmp_path: Path) -> None:
    import zarr

    made = zarr.create_array(str(tmp_path / "a.zarr"), shape=(4, 3, 4, 4), chunks=(1, 3, 4, 4),
                             dtype="uint8")  # fmt: skip
    made[:] = 1
    assert len(ShardReader(tmp_path / "a.zarr")) == 4
    meta = json.loads((tmp_path / "a.zarr/zarr.json").read_text())
    meta["shape"][0] = 2**40
    (tmp_path / "a.zarr/zarr.json").write_text(json.dumps(meta))
    with pytest.raises(CorruptArtifact, match="chunk files"):
        ShardReader(tmp_path / "a.zarr")


# --- pipes, devices, numbers


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize(
    "door",
    [
        lambda path: decode(path),
        lambda path: SampleTable(path),
        lambda path: open_folder(path),
        lambda path: open_celeba(path),
        lambda path: photo_files([path], size=16).load(0),
        lambda path: read_bytes(path),
    ],
)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_keeps_nobody(
    tmp_path: Path, door: Callable[[Path], object], kind: str
) -> None:
    path = tmp_path / "a.png"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises((DclipError, OSError), match=r"a\.png|zero"):
        door(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("file", ["zarr.json", "c/2/0/0/0"])
def test_a_pipe_in_an_array_keeps_nobody(array: Path, tmp_path: Path, file: str) -> None:
    shutil.copytree(array, tmp_path / "a")
    (tmp_path / "a/images.zarr" / file).unlink()
    os.mkfifo(tmp_path / "a/images.zarr" / file)
    with pytest.raises(CorruptArtifact, match="no regular file"):
        DataSet(tmp_path / "a")


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1001))
    assert len(read_bytes(tmp_path / "a", 1001)) == 1001
    with pytest.raises(OSError, match="more than"):
        read_bytes(tmp_path / "a", 1000)


def test_ten_million_faces_are_planned_in_little_memory(tmp_path: Path) -> None:
    config = PrepareConfig("faces", count=10_000_000, size=16)
    tracemalloc.start()
    try:
        with pytest.raises(Planned) as caught:
            run(config, Store(tmp_path / "store"), Context(dry_run=True))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.plan["estimate"]["images"] == 10_000_000
    assert peak < 20e6


def test_items_of_faces_are_named_when_asked_for() -> None:
    items = Rendered(20_000_000, 3, "photo", 16).items()
    assert (len(items), items[-1].id) == (20_000_000, "face-3-19999999")
    assert [item.file for item in items[5:7]] == ["face-3-000005.png", "face-3-000006.png"]
    with pytest.raises(IndexError):
        items[20_000_000]


@pytest.mark.parametrize("count", [0, -1, MAX_COUNT + 1, 2**63, 10**30])
def test_counts_that_cannot_be_are_refused(count: int) -> None:
    with pytest.raises(BadInput, match="faces") as caught:
        Rendered(count, 0, "photo", 16)
    assert str(MAX_COUNT) in caught.value.fix
