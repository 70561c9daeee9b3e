"""The prepare stage: what it makes, and that nothing but the pictures decides it."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dclip.context import Context, Silent
from dclip.data import faces, filters, shard_writer
from dclip.data.dataset import DataSet
from dclip.errors import BadInput
from dclip.stages import prepare
from dclip.stages.prepare import PrepareConfig, parse_split, run
from dclip.store import Artifact, Planned, Store
from dclip.training import contrasts


class Recorder(Silent):
    """Keeps what was said, and can die after a number of pictures as Ctrl-C would."""

    def __init__(self, die_after: int | None = None) -> None:
        self.said: list[str] = []
        self.advanced = 0
        self.done_before = 0
        self.die_after = die_after

    @contextmanager
    def task(
        self, description: str, total: int | None, *, unit: str = "img", done: int = 0
    ) -> Iterator[Recorder]:
        if unit == "img":
            self.done_before = done
        yield self

    def advance(self, n: int = 1, **stats: float) -> None:
        self.advanced += n
        if self.die_after is not None and self.advanced >= self.die_after:
            raise KeyboardInterrupt

    def note(self, message: str) -> None:
        self.said.append(message)

    def warn(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def make(store: Store, *, workers: int = 1, **settings: object) -> Artifact:
    return run(PrepareConfig(**settings), store, Context(workers=workers))  # type: ignore[arg-type]


def picture(path: Path, shade: int, size: tuple[int, int] = (24, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade % 256, shade // 256, 77)).save(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """330 pictures of one colour each, 5 of them unreadable."""
    root = tmp_path_factory.mktemp("photos")
    for i in range(330):
        picture(root / f"{i % 3}/{i:03d}.png", i)
    for i in (0, 64, 65, 200, 329):
        (root / f"{i % 3}/{i:03d}.png").write_bytes(b"no picture")
    return root


def celeba(root: Path, *, zipped: bool) -> Path:
    names = [f"{n:06d}.jpg" for n in range(1, 13)]
    root.mkdir(parents=True)
    for i, name in enumerate(names):
        picture(root / "img_align_celeba" / name, 20 * i, (178, 218))
    lines = [f"{name} {' 1' if i % 2 else '-1'} -1" for i, name in enumerate(names)]
    (root / "list_attr_celeba.txt").write_text("12\nSmiling Male\n" + "\n".join(lines) + "\n")
    (root / "list_eval_partition.txt").write_text(
        "".join(f"{name} {min(i // 4, 2)}\n" for i, name in enumerate(names))
    )
    if zipped:
        with zipfile.ZipFile(root / "img_align_celeba.zip", "w") as archive:
            for name in names:
                archive.write(root / "img_align_celeba" / name, f"img_align_celeba/{name}")
        shutil.rmtree(root / "img_align_celeba")
    return root


def test_folder_of_pictures(store: Store, photos: Path) -> None:
    report = Recorder()
    config = PrepareConfig("folder", root=str(photos), size=16)
    artifact = run(config, store, Context(workers=2, report=report))
    data = DataSet(artifact.path)
    assert (len(data), data.size) == (325, 16)
    assert artifact.metrics["images"] == 325
    assert artifact.metrics["skipped"] == 5
    for i in (0, 100, 324):
        shade = int(Path(data.ids[i]).stem)
        assert data.images([i])[0, :, 8, 8].tolist() == [shade % 256, shade // 256, 77]
    with (artifact.path / "skipped.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["file"][2:5] for row in rows) == ["000", "064", "065", "200", "329"]
    assert all("not an image" in row["reason"] for row in rows)
    assert any("5 of 330" in line for line in report.said)
    preview = np.asarray(Image.open(artifact.path / "preview.png"))
    assert (preview[..., 2] == 77).sum() == 64 * 16 * 16  # of each as it is
    assert len(data.split("train")) == 293
    assert len(data.split("val")) == 32
    assert sorted([*data.split("train"), *data.split("val")]) == list(range(325))


def test_workers_do_not_matter(tmp_path: Path, photos: Path) -> None:
    ids = {
        make(Store(tmp_path / str(n)), workers=n, source="folder", root=str(photos), size=16).id
        for n in (1, 2, 5)
    }
    assert len(ids) == 1


@pytest.mark.parametrize("small_shards", [False, True])
@pytest.mark.parametrize("workers", [1, 2])
def test_interrupted_anywhere_ends_with_the_same_artifact(
    tmp_path: Path,
    photos: Path,
    workers: int,
    small_shards: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if small_shards:
        monkeypatch.setattr(shard_writer, "SHARD_BYTES", 50 * 3 * 16 * 16)
    config = PrepareConfig("folder", root=str(photos), size=16)
    whole = run(config, Store(tmp_path / "whole"), Context(workers=workers))
    store = Store(tmp_path / "killed")
    for die_after in (1, 130, 65):
        report = Recorder(die_after)
        with pytest.raises(KeyboardInterrupt):
            run(config, store, Context(workers=workers, report=report))
    last = Recorder()
    again = run(config, store, Context(workers=workers, report=last))
    assert again.id == whole.id
    assert again.fresh
    assert last.done_before > 0, "went on, did not begin again"
    assert last.done_before + last.advanced == 330


@pytest.mark.parametrize("when", ["table", "sheet"])
def test_interrupted_after_the_pixels(
    tmp_path: Path, photos: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PrepareConfig("folder", root=str(photos), size=16)
    whole = run(config, Store(tmp_path / "whole"))
    name = {"table": "write_csv", "sheet": "save_png"}[when]

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(prepare, name, die)
        with pytest.raises(KeyboardInterrupt):
            run(config, Store(tmp_path / "killed"))
    assert run(config, Store(tmp_path / "killed")).id == whole.id


KILLED = """
import sys
from dclip.context import Context, Silent
from dclip.stages.prepare import PrepareConfig, run
from dclip.store import Store

class Tell(Silent):
    def task(self, *args, **options):
        return self
    def __enter__(self):
        return self
    def __exit__(self, *error):
        pass
    def advance(self, n=1, **stats):
        print(n, flush=True)
        sys.stdin.readline()

run(PrepareConfig("folder", root=sys.argv[1], size=16), Store(sys.argv[2]), Context(report=Tell()))
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_killed_for_good_ends_with_the_same_artifact(tmp_path: Path, photos: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(photos), str(tmp_path / "killed")]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for _ in range(2):
        assert process.stdout.readline()
        process.stdin.write(b"\n")
        process.stdin.flush()
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    config = PrepareConfig("folder", root=str(photos), size=16)
    report = Recorder()
    again = run(config, Store(tmp_path / "killed"), Context(report=report))
    assert report.done_before >= 128
    assert again.id == run(config, Store(tmp_path / "whole")).id


def test_same_pictures_elsewhere_are_up_to_date(store: Store, photos: Path, tmp_path: Path) -> None:
    first = make(store, source="folder", root=str(photos), size=16, name="a")
    copy = tmp_path / "elsewhere"
    shutil.copytree(photos, copy, copy_function=shutil.copyfile)
    second = make(store, source="folder", root=str(copy), size=16, name="a")
    assert (second.id, second.fresh) == (first.id, False)
    picture(copy / "0/003.png", 999)
    third = make(store, source="folder", root=str(copy), size=16, name="a")
    assert third.fresh
    assert third.version == 2
    assert third.id != first.id


def test_place_of_the_photos_is_told_outside_what_identifies_them(
    store: Store, photos: Path
) -> None:
    artifact = make(store, source="folder", root=str(photos), size=16)
    assert str(photos) not in (artifact.path / "manifest.json").read_text()
    assert str(photos) in (artifact.path / "logs/source.json").read_text()


@pytest.mark.parametrize("key", ["size", "crop", "split", "seed", "limit"])
def test_every_setting_makes_other_work(store: Store, photos: Path, key: str) -> None:
    settings = {"size": 24, "crop": "9", "split": "80/20", "seed": 1, "limit": 300}
    base = {"source": "folder", "root": str(photos), "size": 16}
    assert make(store, **base).id != make(store, **{**base, key: settings[key]}).id


def test_strict_fails_with_the_file_and_leaves_no_artifact(store: Store, photos: Path) -> None:
    with pytest.raises(BadInput, match=r"0/000\.png"):
        make(store, source="folder", root=str(photos), size=16, strict=True)
    assert not (store.root / "data").exists()


def test_strict_refuses_an_artifact_with_gaps_that_is_there(store: Store, photos: Path) -> None:
    make(store, source="folder", root=str(photos), size=16)
    with pytest.raises(BadInput, match="5 pictures"):
        make(store, source="folder", root=str(photos), size=16, strict=True)
    before = sorted(store.root.rglob("*"))
    with pytest.raises(BadInput, match="could not be read"):  # nor is it copied to a new name
        make(store, source="folder", root=str(photos), size=16, strict=True, name="other")
    assert sorted(store.root.rglob("*")) == before


def test_pictures_of_formats_that_are_not_read_are_skipped_by_name(
    store: Store, tmp_path: Path
) -> None:
    root = tmp_path / "p"
    for i in range(5):
        picture(root / f"{i}.png", i)
    for name in ("a.jxl", "b.psd"):
        (root / name).write_bytes(b"x")
    (root / "4.png").write_bytes(b"no picture")
    report = Recorder()
    config = PrepareConfig("folder", root=str(root), size=16)
    artifact = run(config, store, Context(report=report))
    assert (artifact.metrics["images"], artifact.metrics["skipped"]) == (4, 3)
    with (artifact.path / "skipped.csv").open() as file:
        rows = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    assert rows.keys() == {"4.png", "a.jxl", "b.psd"} and "JPEG XL" in rows["a.jxl"]
    assert any("3 of 7 pictures" in line for line in report.said)
    with pytest.raises(BadInput, match=r"2 of 7 pictures.*a\.jxl") as caught:
        make(store, source="folder", root=str(root), size=16, strict=True)
    assert "--strict" in caught.value.fix
    (root / "b.psd").unlink()
    assert make(store, source="folder", root=str(root), size=16).metrics["skipped"] == 2


def test_what_was_done_to_many_pictures_is_one_note(store: Store, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 20), (0, 0, 90 * i)) for i in range(3)]
    (tmp_path / "p").mkdir()
    for i in range(70):
        path = tmp_path / f"p/{i:02d}.gif"
        frames[0].save(path, save_all=True, append_images=frames[1:])
    report = Recorder()
    config = PrepareConfig("folder", root=str(tmp_path / "p"), size=16)
    run(config, store, Context(report=report, workers=2))
    assert report.said == ["00.gif and 69 more: several frames: first one taken"]


def test_strict_changes_nothing_where_all_is_well(tmp_path: Path) -> None:
    picture(tmp_path / "p/a.png", 1)
    made = [
        make(Store(tmp_path / str(s)), source="folder", root=str(tmp_path / "p"), strict=s).id
        for s in (False, True)
    ]
    assert made[0] == made[1]


def test_nothing_readable_is_refused_and_leaves_no_artifact(store: Store, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for i in range(3):
        (tmp_path / f"p/{i}.jpg").write_text("nothing")
    with pytest.raises(BadInput, match="none of the 3"):
        make(store, source="folder", root=str(tmp_path / "p"))
    assert not (store.root / "data").exists()


def test_odd_pictures_all_come_through(store: Store, tmp_path: Path) -> None:
    root = tmp_path / "odd"
    root.mkdir()
    red = Image.new("RGB", (20, 30), (200, 10, 10))
    red.convert("CMYK").save(root / "cmyk.jpg")
    red.convert("L").save(root / "grey.png")
    Image.fromarray(np.full((20, 20), 40000, dtype=np.uint16)).save(root / "deep.png")
    red.save(root / "moving.gif", save_all=True, append_images=[Image.new("RGB", (20, 30))])
    exif = Image.Exif()
    exif[0x0112] = 6
    red.save(root / "turned.jpg", exif=exif)
    report = Recorder()
    artifact = run(PrepareConfig("folder", root=str(root)), store, Context(report=report))
    assert artifact.metrics["images"] == 5
    assert artifact.metrics["skipped"] == 0
    data = DataSet(artifact.path)
    assert data.size == 128
    deep = data.images([data.ids.index("deep.png")])
    assert np.abs(deep.astype(int) - round(40000 / 257)).max() <= 1
    assert [line for line in report.said if "moving.gif" in line]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_unicode(store: Store, tmp_path: Path) -> None:
    for name in (b"gr\xfcn.png", b"r\xf6t.png"):
        picture(tmp_path / "p" / os.fsdecode(name), 3)
    (tmp_path / "p" / os.fsdecode(b"r\xf6t.png")).write_bytes(b"nothing")
    artifact = make(store, source="folder", root=str(tmp_path / "p"))
    assert DataSet(artifact.path).ids == [os.fsdecode(b"gr\xfcn.png")]
    assert b"r\xf6t.png" in (artifact.path / "skipped.csv").read_bytes()


def test_dry_run_plans_and_writes_nothing(store: Store, photos: Path) -> None:
    with pytest.raises(Planned) as caught:
        run(PrepareConfig("folder", root=str(photos), size=16), store, Context(dry_run=True))
    assert caught.value.plan["estimate"] == {"images": 330, "bytes": 330 * 3 * 16 * 16}
    assert caught.value.plan["cached"] is False
    assert not store.root.exists()


def test_celeba_zip_and_folder_are_the_same_artifact(tmp_path: Path) -> None:
    made = [
        make(
            Store(tmp_path / f"store{zipped}"),
            source="celeba",
            root=str(celeba(tmp_path / f"celeba{zipped}", zipped=zipped)),
            size=32,
        )
        for zipped in (False, True)
    ]
    assert made[0].id == made[1].id
    assert made[0].config["crop"] == "face"
    data = DataSet(made[0].path)
    assert data.attribute_names == ("Smiling", "Male")
    assert data.where("Smiling=1", "partition=val").tolist() == [5, 7]
    assert len(data.split("val")) == 1


def test_celebas_official_split(store: Store, tmp_path: Path) -> None:
    root = celeba(tmp_path / "celeba", zipped=True)
    artifact = make(store, source="celeba", root=str(root), size=16, split="official")
    data = DataSet(artifact.path)
    assert [data.split(name).tolist() for name in ("train", "val", "test")] == [
        [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11],
    ]  # fmt: skip
    (root / "list_eval_partition.txt").unlink()
    with pytest.raises(BadInput, match="12 of 12 pictures have no row"):
        make(store, source="celeba", root=str(root), size=16, split="official")


def test_split_follows_the_pictures_not_their_number(tmp_path: Path) -> None:
    for i in range(40):
        picture(tmp_path / f"p/{i:02d}.png", i)

    def held_out() -> set[str]:
        artifact = make(
            Store(tmp_path / "store"),
            source="folder",
            root=str(tmp_path / "p"),
            size=16,
            split="70/20/10",
        )
        data = DataSet(artifact.path)
        assert [len(data.split(n)) for n in ("val", "test")] == [
            round(len(data) * 0.2), round(len(data) * 0.1),
        ]  # fmt: skip
        return {data.ids[i] for i in data.split("val")}

    before = held_out()
    (tmp_path / "p/00.png").unlink()
    assert len(before & held_out()) >= 6


# --- rendered faces


def test_pairs_of_photos_are_each_photo_and_itself_in_a_style(tmp_path: Path) -> None:
    root = celeba(tmp_path / "celeba", zipped=True)
    store = Store(tmp_path / "store")
    plain = DataSet(make(store, source="celeba", root=str(root), size=32).path)
    made = make(store, source="celeba", root=str(root), size=32, style="pairs", workers=2)
    assert (made.name, made.config["style"]) == ("celeba-pairs", "pairs")
    data = DataSet(made.path)
    assert len(data) == 24 and data.ids[::2] == plain.ids
    assert np.array_equal(data.images(range(0, 24, 2)), plain.images(range(12)))
    styles, pairs = data.table.text("style"), data.table.text("pair")
    assert set(styles[::2]) == {"photo"} and set(styles[1::2]) <= set(filters.MEDIA)
    assert pairs[::2] == pairs[1::2] == plain.ids
    assert data.table.text("split")[::2] == data.table.text("split")[1::2]
    for photo, after, style in zip(
        data.images(range(0, 24, 2)), data.images(range(1, 24, 2)), styles[1::2], strict=True
    ):
        assert np.array_equal(
            after, filters.filtered(photo.transpose(1, 2, 0), style).transpose(2, 0, 1)
        )
    assert all("photo of" in text or "portrait of" in text or " of " not in text
               for text in data.captions[::2])  # fmt: skip
    for text, style in zip(data.captions[1::2], styles[1::2], strict=True):
        assert text.startswith(filters.MEDIA[style])
    assert [c.name for c in contrasts.fitting(data)] == ["style"]


def test_filters_make_what_they_are_called() -> None:
    rows = np.linspace(40, 220, 48, dtype=np.uint8)
    photo = np.stack(np.broadcast_arrays(rows[:, None], rows[None], np.uint8(120)), axis=-1)
    photo = np.ascontiguousarray(photo)
    photo[16:32, 16:32] = (60, 30, 20)
    for style in ("sketch", "bw"):
        grey = filters.filtered(photo, style)
        assert grey.shape == photo.shape and (grey == grey[..., :1]).all()
    sketch, bw = filters.filtered(photo, "sketch"), filters.filtered(photo, "bw")
    assert sketch.mean() > bw.mean() + 40  # paper
    assert sketch[16, 24, 0] < sketch[8, 24, 0] - 40  # a line where the patch begins
    sepia = filters.filtered(photo, "sepia").astype(int)
    assert (sepia[..., 0] >= sepia[..., 1]).all() and (sepia[..., 1] >= sepia[..., 2]).all()
    assert len(np.unique(filters.filtered(photo, "cartoon").reshape(-1, 3), axis=0)) < 200


def test_faces(tmp_path: Path) -> None:
    made = [
        make(Store(tmp_path / str(n)), workers=n, source="faces", count=40, seed=3, size=32)
        for n in (1, 2)
    ]
    assert made[0].id == made[1].id
    data = DataSet(made[0].path)
    assert (len(data), data.size) == (40, 32)
    params = faces.sample(3, 7)
    drawn = faces.draw(params, size=32, style="photo")
    assert np.array_equal(data.images([7])[0], drawn.transpose(2, 0, 1))
    assert data.captions[7] == faces.caption(params, "photo", seed=3, index=7)
    assert data.attribute_names == tuple(faces.attributes(params))
    assert data.attribute("smiling")[7] == (1 if faces.attributes(params)["smiling"] else -1)
    assert set(data.table.text("style")) == {"photo"}
    assert len(set(data.ids)) == 40


def test_faces_of_all_styles_are_half_photos(store: Store) -> None:
    count = 2 * len(faces.STYLES)
    data = DataSet(make(store, source="faces", count=count, style="all", size=16).path)
    styles = data.table.text("style")
    assert styles.count("photo") == count // 2
    assert set(styles) == set(faces.STYLES)


def test_pairs_stay_in_one_split(store: Store) -> None:
    artifact = make(store, source="faces", count=90, style="pairs", size=16, split="70/20/10")
    data = DataSet(artifact.path)
    splits: dict[str, set[str]] = {}
    for pair, split in zip(data.table.text("pair"), data.table.text("split"), strict=True):
        splits.setdefault(pair, set()).add(split)
    assert len(splits) == 45
    assert all(len(where) == 1 for where in splits.values())
    assert set().union(*splits.values()) == {"train", "val", "test"}


def test_faces_drawn_by_another_renderer_are_other_work(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make(store, source="faces", count=6, size=16)
    assert not make(store, source="faces", count=6, size=16).fresh
    old = faces.draw
    monkeypatch.setattr(faces, "draw", lambda *a, **o: 255 - old(*a, **o))
    second = make(store, source="faces", count=6, size=16)
    assert second.fresh
    assert second.id != first.id


def test_interrupted_faces_end_the_same(tmp_path: Path) -> None:
    config = PrepareConfig("faces", count=150, size=16)
    with pytest.raises(KeyboardInterrupt):
        run(config, Store(tmp_path / "a"), Context(workers=1, report=Recorder(64)))
    report = Recorder()
    again = run(config, Store(tmp_path / "a"), Context(workers=1, report=report))
    assert report.done_before == 64
    assert again.id == run(config, Store(tmp_path / "b")).id


# --- settings


@pytest.mark.parametrize(
    "settings",
    [
        {"source": "lmdb"},
        {"source": "folder"},
        {"source": "celeba"},
        {"source": "faces", "root": "x"},
        {"source": "faces", "crop": "center"},
        {"source": "faces", "limit": 3},
        {"source": "faces", "count": 0},
        {"source": "faces", "seed": -1},
        {"source": "faces", "split": "official"},
        {"source": "folder", "root": "x", "split": "official"},
        {"source": "folder", "root": "x", "count": 3},
        {"source": "folder", "root": "x", "style": "sketch"},
        {"source": "folder", "root": "x", "download": True},
        {"source": "folder", "root": "x", "size": 8},
        {"source": "folder", "root": "x", "size": 2000},
        {"source": "folder", "root": "x", "crop": "left"},
        {"source": "folder", "root": "x", "crop": "none"},
        {"source": "folder", "root": "x", "limit": 0},
        {"source": "folder", "root": "x", "split": "90/20"},
    ],
)
def test_settings_that_cannot_be_are_refused_with_a_fix(settings: dict[str, object]) -> None:
    with pytest.raises(BadInput) as caught:
        PrepareConfig(**settings)  # type: ignore[arg-type]
    assert caught.value.fix


def test_a_dry_run_downloads_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(root: object) -> None:
        raise AssertionError

    monkeypatch.setattr(prepare.celeba, "download", fetch)
    config = PrepareConfig("celeba", root=str(tmp_path), download=True)
    with pytest.raises(BadInput, match="is not in ") as caught:
        run(config, store, Context(dry_run=True))
    assert "1.4 GB" in caught.value.fix


def test_unknown_style_names_the_styles(store: Store) -> None:
    with pytest.raises(BadInput, match="is unknown") as caught:
        make(store, source="faces", style="sketchy")
    assert "sketch" in caught.value.fix


def test_splits_are_read() -> None:
    assert parse_split("90/10") == (90, 10)
    assert parse_split("80/10/10") == (80, 10, 10)
    assert parse_split("100/0") == (100, 0)
    for text in ("", "90", "90/10/0/0", "0/100", "89.5/10.5", "-10/110", "official"):
        with pytest.raises(BadInput, match="cannot split"):
            parse_split(text)


# --- the real thing

CELEBA = Path(os.environ.get("DCLIP_CELEBA", Path(__file__).parents[2] / "shared" / "celeba"))


@pytest.mark.celeba
@pytest.mark.skipif(not CELEBA.is_dir(), reason="no CelebA here")
def test_real_celeba(store: Store) -> None:
    config = PrepareConfig("celeba", root=str(CELEBA), size=64, limit=300)
    artifact = run(config, store, Context(workers=2))
    data = DataSet(artifact.path)
    assert (len(data), data.size) == (300, 64)
    assert len(data.attribute_names) == 40
    for name in ("Male", "Smiling", "Young"):
        assert 0.1 < (data.attribute(name) == 1).mean() < 0.95
    assert all(identity.isdigit() for identity in data.table.text("identity"))
    spread = data.images(data.split("all")).astype(float).std(axis=(1, 2, 3))
    assert np.median(spread) > 40, "photos, not grey"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_among_the_pictures_does_not_keep_it_for_ever(
    store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (40, 40), (80 * number, 20, 20)).save(folder / f"{number}.png")
    os.mkfifo(folder / "pipe.png")
    made = make(store, source="folder", root=str(folder), size=16)
    assert made.metrics["skipped"] == 1
    assert "no regular file" in (made.path / "skipped.csv").read_text()
