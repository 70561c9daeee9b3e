"""Attacks on the store: damaged and hostile files. ``benchmarks/attacks.py`` counts them.

A test that tries several things says how many with ``record_property("tried", n)``.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_kit import Heard, edit_manifest, folder_in_memory, never, put, tree, write_two

from dclip.cli.app import main
from dclip.context import Context
from dclip.errors import BadInput, CorruptArtifact, DclipError, StoreError
from dclip.store import Artifact, Staging, Store, export, import_artifact

Record = Callable[[str, object], None]
EFFORT = int(os.environ.get("DCLIP_ATTACKS", "1"))  # how many times as much is tried
links = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "artifacts")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Somebody's folder, which nothing may touch."""
    folder = tmp_path / "somebody"
    (folder / "faces").mkdir(parents=True)
    (folder / "diary.txt").write_text("private")
    (folder / ".part-mine").write_text("private")
    (folder / "faces" / ".part-mine").write_text("private")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def interrupted(store: Store, name: str = "half") -> None:
    def stop(staging: Staging) -> dict[str, Any]:
        (staging.scratch / "step").write_text("1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        put(store, name, config={"half": name}, make=stop)


# --- links ---------------------------------------------------------------------------------------


@links
@pytest.mark.attack("a folder of the store is a link to somebody's folder")
@pytest.mark.parametrize("which", [".trash", ".staging", ".cache", "data", "data/faces"])
@pytest.mark.parametrize("unfinished", [False, True], ids=["finished", "unfinished"])
def test_nothing_behind_a_link_that_leaves_is_touched(
    store: Store, secret: Path, which: str, unfinished: bool
) -> None:
    put(store)
    if unfinished:
        interrupted(store)
    at = store.root / which
    kept = store.root / "kept"
    at.rename(kept) if at.exists() else None
    at.symlink_to(secret, target_is_directory=True)
    before = content(secret)
    for act in (
        store.gc,
        lambda: put(store, config={"size": 2}),
        lambda: store.tag("faces", "best"),
        lambda: store.remove("faces"),
        lambda: store.list(),
        lambda: store.verify(full=True),
        lambda: store.resolve(None, "data"),
    ):
        try:
            act()
        except DclipError as error:
            assert "\n" not in str(error) and error.fix
        assert content(secret) == before


@links
@pytest.mark.attack("a folder of the store is a link to somebody's folder")
def test_a_version_behind_a_linked_kind_is_read_and_never_removed(
    store: Store, tmp_path: Path
) -> None:
    made = put(store)
    (store.root / "data").rename(tmp_path / "elsewhere")
    (store.root / "data").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    before = content(tmp_path / "elsewhere")
    assert store.resolve("faces", "data").id == made.id
    with pytest.raises(StoreError, match="leads out of the store"):
        store.remove("faces")
    asked = []
    with pytest.raises(StoreError, match="leads out of the store"):
        put(store, config={"size": 2}, make=lambda staging: asked.append(1) or {})
    assert not asked  # said before the work
    assert content(tmp_path / "elsewhere") == before


IN_WORK = ["store.lock", "KEY.lock", "KEY", "KEY/payload", "KEY/scratch", "KEY/owner.json"]
IN_WORK += ["KEY/payload/x", "KEY/finished.json"]


@links
@pytest.mark.attack("a file of the store is a link to somebody's file")
@pytest.mark.parametrize("which", IN_WORK)
def test_links_among_work_in_progress(store: Store, secret: Path, which: str) -> None:
    interrupted(store)
    (key,) = (p.name for p in store.staging.iterdir() if p.is_dir())
    at = store.staging / which.replace("KEY", key)
    shutil.rmtree(at) if at.is_dir() else at.unlink(missing_ok=True)
    target = secret if which in ("KEY", "KEY/payload", "KEY/scratch") else secret / "diary.txt"
    at.symlink_to(target)
    before = content(secret)
    try:
        put(store, "half", config={"half": "half"})
    except StoreError as error:
        assert ".lock" in which and "link" in error.message
    else:
        assert store.verify(full=True).problems == ()
        assert tree(store.find("half").path).keys() == {
            "images/0.png",
            "table.csv",
            "manifest.json",
        }
    try:
        store.gc()
    except StoreError as error:
        assert ".lock" in which and "link" in error.message
    assert content(secret) == before


@links
@pytest.mark.attack("a link inside an artifact")
@pytest.mark.parametrize("which", ["images", "images/0.png", "table.csv", "manifest.json"])
def test_a_link_inside_an_artifact_is_not_copied_out(
    store: Store, tmp_path: Path, which: str
) -> None:
    made = put(store)
    shutil.move(made.path / which, tmp_path / "moved")
    (made.path / which).symlink_to(tmp_path / "moved")
    for act in (
        lambda: export(made, tmp_path / "out"),
        lambda: store.resolve("faces", "data"),
        lambda: store.resolve(str(made.path), "data"),
        lambda: import_artifact(Store(tmp_path / "other"), made.path),
    ):
        with pytest.raises(CorruptArtifact):
            act()
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".part*"))
    assert Store(tmp_path / "other").list() == []
    assert store.verify().problems
    assert put(store).version == 2  # it is not taken for done


@pytest.mark.attack("a copy into the store")
@pytest.mark.parametrize("where", ["data/other", "data/faces/v9", "model/x", "new", ".staging/x"])
def test_an_export_into_a_store_is_refused(store: Store, tmp_path: Path, where: str) -> None:
    made = put(store)
    (store.root / where).parent.mkdir(parents=True, exist_ok=True)
    before = sorted(store.root.rglob("*"))
    for artifact in (made, put(Store(tmp_path / "other"), config={"size": 2})):
        with pytest.raises(BadInput, match="inside the store"):
            export(artifact, store.root / where)
    assert sorted(store.root.rglob("*")) == before


# --- names in files ------------------------------------------------------------------------------

CLIMBING = [
    "../../../somebody",
    "..",
    "/etc",
    "a/b",
    "",
    "v2",
    "latest",
    "a\0b",
    "x" * 300,
    "60-100",
]


@pytest.mark.attack("tags.json names what is no tag")
@pytest.mark.parametrize("name", CLIMBING, ids=lambda name: ascii(name)[:20])
def test_tag_names_are_checked_as_they_are_read(store: Store, secret: Path, name: str) -> None:
    put(store)
    path = store.root / "data" / "faces" / "tags.json"
    path.write_text(json.dumps({"format": 2, "tags": {name: 1}}))
    before, others = path.read_bytes(), content(secret)
    for act in (lambda: store.tag("faces", "best"), lambda: store.resolve("faces@best", "data")):
        with pytest.raises(CorruptArtifact, match=r"tags\.json is damaged"):
            act()
    assert put(store, config={"size": 2}).version == 2
    store.remove("faces/v2")
    assert path.read_bytes() == before
    assert content(secret) == others
    assert not [p for p in store.root.parent.rglob("*") if p.is_symlink() and p.name != "latest"]


BAD_PATHS = ["../x", "/etc/passwd", "a/../../x", "a\\b", "", ".", "a//b", "a\0b", "y" * 300]
BAD_PATHS += ["manifest.json", "\ud800"]


@pytest.mark.attack("a manifest's file leads out of the artifact")
@pytest.mark.parametrize("path", BAD_PATHS, ids=lambda path: ascii(path)[:20])
def test_paths_in_a_manifest_stay_in_the_artifact(store: Store, tmp_path: Path, path: str) -> None:
    made = put(store)
    edit_manifest(made, files=[{"path": path, "size": 1, "sha256": "0" * 64}])
    with pytest.raises(CorruptArtifact):
        export(Artifact.open(made.path, check=False), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- one bad file --------------------------------------------------------------------------------


def text_of(manifest: dict[str, Any]) -> str:
    return json.dumps(manifest)


BROKEN: dict[str, Callable[[dict[str, Any]], str]] = {
    "empty": lambda m: "",
    "cut": lambda m: text_of(m)[:-40],
    "zeros": lambda m: "\0" * 500,
    "html": lambda m: "<!DOCTYPE html><html></html>",
    "list": lambda m: "[1, 2]",
    "infinity": lambda m: text_of(m | {"metrics": {"x": 12345}}).replace("12345", "Infinity"),
    "nan": lambda m: text_of(m | {"metrics": {"x": 12345}}).replace("12345", "NaN"),
    "1e999": lambda m: text_of(m | {"metrics": {"x": 12345}}).replace("12345", "1e999"),
    "surrogate": lambda m: text_of(m | {"metrics": {"x": "\ud800"}}),
    "surrogate-key": lambda m: text_of(m | {"metrics": {"\udfff": 1}}),
    "nested-lists": lambda m: text_of(m | {"metrics": {"x": 12345}}).replace(
        "12345", "[" * 200_000 + "]" * 200_000
    ),
    "nested-objects": lambda m: text_of(m | {"metrics": {"x": 12345}}).replace(
        "12345", '{"a":' * 900 + "1" + "}" * 900
    ),
    "only-brackets": lambda m: "[" * 200_000,
    "size-as-text": lambda m: text_of(m | {"files": [f | {"size": "7"} for f in m["files"]]}),
    "size-negative": lambda m: text_of(m | {"files": [f | {"size": -1} for f in m["files"]]}),
    "size-true": lambda m: text_of(m | {"files": [f | {"size": True} for f in m["files"]]}),
    "size-float": lambda m: text_of(m | {"files": [f | {"size": 7.0} for f in m["files"]]}),
    "digits": lambda m: text_of(m | {"seed": 12345}).replace("12345", "9" * 5000),
    "many-digits": lambda m: text_of(m | {"seed": 12345}).replace("12345", "9" * 300),
    "twice": lambda m: text_of(m)[:-1] + ', "seed": 7}',
    "file-twice": lambda m: text_of(m | {"files": m["files"] * 2}),
    "id": lambda m: text_of(m | {"id": "0" * 64}),
    "key": lambda m: text_of(m | {"key": "0" * 64}),
    "config": lambda m: text_of(m | {"config": {"size": 65}}),
    "revision": lambda m: text_of(m | {"revision": 2}),
    "version-zero": lambda m: text_of(m | {"version": 0}),
    "name-climbs": lambda m: text_of(m | {"name": "../x"}),
    "kind-climbs": lambda m: text_of(m | {"kind": "../x"}),
    "created": lambda m: text_of(m | {"created": "tomorrow\x1b[2J"}),
    "input": lambda m: text_of(m | {"inputs": {"data": {"id": "x"}}}),
    "utf-16": lambda m: text_of(m).encode("utf-16").decode("latin-1"),
    "format-float": lambda m: text_of(m | {"format": 2.0}),
    "format-huge": lambda m: text_of(m).replace('"format": 2', '"format": ' + "9" * 100),
}


@pytest.mark.attack("one broken manifest beside sound ones")
@pytest.mark.parametrize("how", BROKEN)
def test_one_broken_manifest_stops_nothing_else(
    store: Store,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sound = put(store, "old", config={"size": 1})
    bad = put(store, "new")
    user = put(store, "user", kind="model", inputs={"data": sound})
    path = bad.path / "manifest.json"
    broken = BROKEN[how](json.loads(path.read_text()))
    path.write_bytes(broken.encode("latin-1" if how == "utf-16" else "utf-8", "surrogatepass"))
    heard = Heard()
    assert store.resolve(None, "data", heard) == sound
    assert len(heard.warnings) == 1 and "dclip rm data/new/v1" in heard.warnings[0]
    assert list(store.list()) == [sound, user]
    assert [p.ref for p in store.verify(full=True).problems] == ["data/new/v1"]
    with pytest.raises(CorruptArtifact, match="data/new/v1") as caught:
        store.resolve("new", "data")
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()
    assert store.lineage("user").inputs[0].ref == "data/old/v1"
    with pytest.raises(CorruptArtifact, match="data/new/v1"):
        store.tag("new", "best")

    monkeypatch.setenv("DCLIP_STORE", str(store.root))
    assert main(["ls", "--json"]) == 0
    rows = {row["ref"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    states = {"data/old/v1": "sound", "data/new/v1": "corrupt", "model/user/v1": "sound"}
    assert rows == states
    assert main(["verify"]) == 4
    assert "dclip rm data/new/v1" in capsys.readouterr().err
    assert main(["rm", "data/new/v1"]) == 0
    assert main(["verify", "--full"]) == 0
    assert put(store, "new").ref == "data/new/v2"


def test_the_default_passes_over_what_is_broken_and_ends_with_the_embedded(store: Store) -> None:
    bad = put(store, "mine", kind="model")
    (bad.path / "manifest.json").write_text("{")
    heard = Heard()
    found = store.resolve(None, "model", heard, default="embedded")
    assert found.ref == "model/embedded"
    assert "passed over: the manifest of model/mine/v1" in heard.warnings[0]
    with pytest.raises(CorruptArtifact, match="model/mine/v1"):
        store.resolve(None, "model")


@links
@pytest.mark.attack("what is no file in place of one")
@pytest.mark.parametrize("what", ["pipe", "folder", "link", "link-to-itself"])
@pytest.mark.parametrize("which", ["manifest.json", "tags.json", "table.csv"])
def test_a_pipe_or_folder_in_place_of_a_file(
    store: Store, tmp_path: Path, what: str, which: str
) -> None:
    made = put(store)
    store.tag("faces", "best")
    path = (made.path if which != "tags.json" else made.path.parent) / which
    path.unlink()
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "link":
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.symlink_to(path)
    assert store.verify(full=True).problems
    with pytest.raises((CorruptArtifact, StoreError)):
        store.resolve("faces@best", "data")
    assert put(store, config={"size": 2}).version == 2
    assert store.remove("data/faces/v1").ref == "data/faces/v1"
    assert [a.ref for a in store.list()] == ["data/faces/v2"]


# --- nothing of the user's is lost ---------------------------------------------------------------


@links
@pytest.mark.attack("a version that was moved away and linked back")
def test_a_version_moved_to_another_disk_and_linked_back_stays(
    store: Store, tmp_path: Path
) -> None:
    made = put(store)
    shutil.move(made.path, tmp_path / "other-disk")
    made.path.symlink_to(tmp_path / "other-disk", target_is_directory=True)
    mine = made.path.parent / "favourite"
    mine.symlink_to(tmp_path / "other-disk", target_is_directory=True)
    before = content(tmp_path / "other-disk")
    put(store, config={"size": 2})
    store.tag("faces/v1", "best")
    store.remove("faces/v2")
    assert store.resolve("faces@best", "data").id == made.id
    assert made.path.is_symlink() and mine.is_symlink()
    assert store.verify(full=True).problems == ()
    (tmp_path / "other-disk").rename(tmp_path / "unplugged")
    assert put(store, config={"size": 3}).version == 3
    with pytest.raises(StoreError, match="is not there"):
        store.resolve("faces/v1", "data")
    assert [p.ref for p in store.verify().problems] == ["data/faces/v1"]
    (tmp_path / "unplugged").rename(tmp_path / "other-disk")
    gone = store.remove("faces/v1")
    assert gone.stays == str(tmp_path / "other-disk") and gone.bytes == 0
    assert not made.path.is_symlink()
    assert content(tmp_path / "other-disk") == before


BAD_TAGS = [b"", b"{", b"[]", b"\0" * 50, b'{"format": 3, "tags": {}}', b"[" * 200_000]
BAD_TAGS += [b'{"format": 2, "tags": {"a": 1, "a": 2}}', b'{"format": 2, "tags": {"a": 0}}']
BAD_TAGS += [b'{"format": 2, "tags": {"a": Infinity}}', b'{"format": 1, "last": 9, "tags": {}}']


@pytest.mark.attack("tags.json is damaged or newer")
@pytest.mark.parametrize("text", BAD_TAGS, ids=lambda text: ascii(text)[:30])
def test_tags_that_cannot_be_read_are_kept_and_numbers_do_not_return(
    store: Store, text: bytes
) -> None:
    for size in (1, 2, 3):
        put(store, config={"size": size})
    store.tag("faces/v1", "best")
    path = store.root / "data" / "faces" / "tags.json"
    path.write_bytes(text)
    store.remove("faces/v3")
    assert path.read_bytes() == text
    assert put(store, config={"size": 4}).version == 4
    for act in (lambda: store.tag("faces", "x"), lambda: store.untag("faces", "best")):
        with pytest.raises((CorruptArtifact, StoreError)):
            act()
    assert path.read_bytes() == text
    store.remove("faces/v4")
    path.unlink()
    assert put(store, config={"size": 5}).version == 5
    shutil.rmtree(store.root / "data" / "faces" / "v5")  # by hand
    assert put(store, config={"size": 6}).version == 6


@pytest.mark.attack("a folder of the store is on another disk")
@pytest.mark.parametrize("which", ["commit", "remove", "copy"])
def test_another_disk_is_copied_to(
    store: Store, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    real = os.rename

    def rename(source: Any, target: Any, *args: Any, **more: Any) -> None:
        hidden = [
            (".staging" in Path(p).parts) or (".trash" in Path(p).parts) for p in (source, target)
        ]
        if hidden[0] != hidden[1]:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source), None, str(target))
        real(source, target, *args, **more)

    first = put(store)
    monkeypatch.setattr(os, "rename", rename)
    if which == "commit":
        made = put(store, config={"size": 2})
        assert tree(made.path).keys() == tree(first.path).keys()
    elif which == "copy":
        assert put(store, "again", make=never).id == first.id
    else:
        store.remove("faces")
        assert not first.path.exists()
    assert store.verify(full=True).problems == ()
    assert not [p for p in store.root.rglob(".part-*")]


# --- damage --------------------------------------------------------------------------------------


def flip(path: Path, bit: int) -> None:
    """Change one bit and keep the file's size and its time of change, as a failing disk does."""
    info = path.stat()
    raw = bytearray(path.read_bytes())
    raw[bit // 8 % len(raw)] ^= 1 << bit % 8
    path.write_bytes(raw)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def weights(staging: Staging) -> dict[str, Any]:
    (staging.path / "model.bin").write_bytes(random.Random(1).randbytes(4096))
    (staging.path / "logs").mkdir(exist_ok=True)
    (staging.path / "logs" / "stats.jsonl").write_text('{"step": 1}\n')
    return {}


@pytest.mark.attack("a flipped bit in an input's files")
def test_a_flipped_bit_in_an_input_is_found_before_it_is_used(
    tmp_path: Path, record_property: Record
) -> None:
    chance = random.Random(7)
    tried = 9 * EFFORT
    for number in range(tried):
        store = Store(tmp_path / str(number))
        sound = put(store, "sound", kind="model", config={"size": 1}, make=weights)
        made = put(store, "base", kind="model", make=weights)
        use = {"model": store.resolve("base", "model")}
        assert put(store, "first", kind="latents", inputs=use).version == 1
        flip(
            made.path / chance.choice(["model.bin", "model.bin", "logs/stats.jsonl"]),
            chance.randrange(80),
        )
        for act in (
            lambda store=store: store.resolve("base", "model"),
            lambda store=store: store.find("base"),
            lambda store=store: store.input(store.find("first"), "model"),
            lambda store=store, use=use: put(
                store, "x", kind="latents", inputs=use, config={"n": 2}
            ),
        ):
            with pytest.raises(CorruptArtifact, match="other content than was written"):
                act()
        assert store.resolve(None, "model") == sound
        unchecked = Store(store.root, verify=False)
        assert unchecked.resolve("base", "model").id == made.id
        heard = Heard()
        again = put(store, "base", kind="model", make=weights, context=Context(report=heard))
        assert (again.version, again.id) == (2, made.id)
    record_property("tried", tried)


@pytest.mark.attack("an input that changes while it is used")
@pytest.mark.parametrize("how", ["flip", "remove", "replace"])
def test_an_input_that_changes_during_the_work_is_not_recorded(store: Store, how: str) -> None:
    base = put(store, "base", kind="model", make=weights)

    def make(staging: Staging) -> dict[str, Any]:
        if how == "flip":
            flip(base.path / "model.bin", 99)
        elif how == "remove":
            (base.path / "model.bin").unlink()
        else:
            (base.path / "model.bin").rename(base.path / "old")
            (base.path / "model.bin").write_bytes(bytes(4096))
        (staging.scratch / "step").write_text("1")
        return dict(write_two(staging))

    with pytest.raises(CorruptArtifact, match="the input model changed during the work"):
        put(store, "x", kind="latents", inputs={"model": base}, make=make)
    assert store.list("latents") == []
    assert not [p for p in store.staging.iterdir() if p.is_dir()]


@pytest.mark.attack("a flipped bit that only verify --full reads")
def test_a_full_verify_reads_again_what_is_remembered_as_sound(store: Store) -> None:
    made = put(store, make=weights)
    path = made.path / "model.bin"
    long_ago = path.stat().st_mtime_ns - 10**12
    os.utime(path, ns=(long_ago, long_ago))
    assert store.verify(full=True).problems == ()
    raw = bytearray(path.read_bytes())
    raw[5] ^= 4
    with path.open("r+b") as file:
        file.write(raw)
    os.utime(path, ns=(long_ago, long_ago))
    assert [p.what for p in Store(store.root).verify(full=True).problems] == ["hash"]
    with pytest.raises(CorruptArtifact):
        Store(store.root).resolve("faces", "data")


@pytest.mark.attack("what verify --full has to say of a manifest")
def test_a_full_verify_checks_references_and_empty_folders(store: Store) -> None:
    data = put(store)
    model = put(store, "base", kind="model", inputs={"data": data})
    inputs = json.loads((model.path / "manifest.json").read_text())["inputs"]
    assert store.verify(full=True).problems == ()
    edit_manifest(model, inputs={"data": inputs["data"] | {"kind": "clip", "ref": "clip/x/v1"}})
    assert {p.what for p in store.verify("base", full=True).problems} == {"input"}
    edit_manifest(model, inputs={"data": inputs["data"] | {"ref": "../../x"}})
    assert {p.what for p in store.verify("base", full=True).problems} == {"input"}
    edit_manifest(model, inputs=inputs)
    (model.path / "deep" / "er").mkdir(parents=True)
    assert {p.what for p in store.verify("base").problems} == {"extra"}


# --- every file of the store, changed at random --------------------------------------------------

quick = settings(
    max_examples=12 * EFFORT,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**60), 10**60)
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from(["../x", "\x1b[31m", "\ud800", "v1", "a" * 300, 2**63, -1, 1e308]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def spots(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value in a JSON document."""
    yield at
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        yield from spots(item, (*at, key))


def mutated(document: Any, data: st.DataObject) -> Any:
    """``document`` with one value replaced, dropped or added to."""
    at = data.draw(st.sampled_from(list(spots(document))))
    new = data.draw(json_values)
    if not at:
        return new
    *way, last = at
    document = json.loads(json.dumps(document))
    inside = document
    for key in way:
        inside = inside[key]
    if data.draw(st.booleans()) and isinstance(inside, dict):
        del inside[last]
    else:
        inside[last] = new
    return document


@pytest.mark.attack("a random change of a file of the store")
@pytest.mark.parametrize("which", ["manifest", "tags", "finished", "owner", "cache", "journal"])
def test_any_change_of_a_file_of_the_store_is_met_with_one_line(
    which: str, tmp_path: Path, record_property: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0
    origin = Store(tmp_path / "origin")
    data = put(origin, config={"size": 1, "list": [1, {"a": "b"}]})
    put(origin, "base", kind="model", inputs={"data": data})
    origin.tag("faces", "best")
    for p in data.path.rglob("*"):
        os.utime(p, ns=(10**18, 10**18))
    origin.hashes.drop_stale()

    def two_steps(staging: Staging) -> dict[str, Any]:
        from dclip.store import Journal

        journal = Journal(staging.scratch / "pieces.jsonl", lambda entry: entry["n"])
        for step in range(journal.done, 3):
            (staging.path / f"{step}.bin").write_bytes(bytes([step]) * 100)
            journal.add(n=1, made=[step])
            if step == 1 and stopping:
                raise KeyboardInterrupt
        return {"steps": journal.column("made")}

    stopping = True
    with pytest.raises(KeyboardInterrupt):
        put(origin, "slow", make=two_steps, config={"steps": 3})
    stopping = False
    whole = put(Store(tmp_path / "whole"), "slow", make=two_steps, config={"steps": 3})
    if which == "finished":
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

            def stopped(*_: Any) -> None:
                raise KeyboardInterrupt

            patch.setattr("dclip.store.build._commit", stopped)
            put(origin, "slow", make=two_steps, config={"steps": 3})
    paths = {
        "manifest": "data/faces/v1/manifest.json",
        "tags": "data/faces/tags.json",
        "finished": ".staging/*/finished.json",
        "owner": ".staging/*/owner.json",
        "cache": ".cache/hashes/*.json",
        "journal": ".staging/*/scratch/pieces.jsonl",
    }
    if which == "cache":
        monkeypatch.setattr("dclip.hashing._MOMENT", -(10**18))  # all is settled
        origin.find("faces")
    (path, *_) = origin.root.glob(paths[which])
    relative = path.relative_to(origin.root)
    lines = path.read_bytes().splitlines() if which == "journal" else [path.read_bytes()]

    @quick
    @given(st.data())
    def attack(data: st.DataObject) -> None:
        nonlocal tried
        tried += 1
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(origin.root, tmp_path / "copy", symlinks=True)
        number = data.draw(st.integers(0, len(lines) - 1))
        kind = data.draw(st.sampled_from(["value", "value", "bytes", "cut"]))
        raw = lines[number]
        if kind == "value":
            changed = json.dumps(mutated(json.loads(raw), data)).encode()
        elif kind == "cut":
            changed = raw[: data.draw(st.integers(0, len(raw)))]
        else:
            at = data.draw(st.integers(0, len(raw) - 1))
            changed = raw[:at] + data.draw(st.binary(min_size=1, max_size=4)) + raw[at + 1 :]
        new = [*lines[:number], changed, *lines[number + 1 :]]
        end = b"\n" if which == "journal" else b""
        (tmp_path / "copy" / relative).write_bytes(b"\n".join(new) + end)
        store = Store(tmp_path / "copy")
        for act in (
            lambda: store.find("faces@best"),
            lambda: store.resolve(None, "data", Heard()),
            lambda: store.input(store.find("base"), "data"),
            lambda: store.tag("faces", "other"),
            lambda: store.lineage("base"),
        ):
            try:
                act()
            except DclipError as error:
                assert "\n" not in str(error)
        store.list()
        store.verify(full=True)
        store.gc(dry_run=True)
        made = put(store, "slow", make=two_steps, config={"steps": 3})
        assert made.id == whole.id  # what was damaged is not in the result
        assert made.metrics == whole.metrics
        store.remove("data/faces/v1", force=True)
        assert all(p.what == "tag" for p in store.verify(full=True).problems)
        store.gc()

    attack()
    record_property("tried", tried)


# --- references and places -----------------------------------------------------------------------

ODD = ["~nosuchuser", "~nosuchuser/x", "a" * 300, "/" + "b" * 300, "x/" * 3000, "v" + "9" * 5000]
ODD += [
    "faces/v" + "9" * 5000,
    "a\0b",
    "/a\0b",
    "\ud800",
    "/\udcff",
    "./\ud800",
    "faces@",
    "@",
    "//",
]
ODD += ["data/faces/v1/", "faces@v1", "..", "../..", "embedded", "data/embedded", "9" * 64]
odd_text = st.text(max_size=40) | st.sampled_from(ODD)


@pytest.mark.attack("a reference, name or path that is none")
def test_any_reference_is_met_with_one_line(store: Store, record_property: Record) -> None:
    made = put(store)
    tried = 0

    @settings(quick, max_examples=100 * EFFORT)
    @given(odd_text)
    def attack(text: str) -> None:
        nonlocal tried
        tried += 1
        for act in (
            lambda: store.find(text),
            lambda: store.resolve(text, "data"),
            lambda: store.tag(text, "best"),
            lambda: store.tag("faces", text),
            lambda: store.untag("faces", text),
            lambda: store.verify(text),
            lambda: store.lineage(text),
            lambda: put(store, text, config={"n": 1}, context=Context(dry_run=True)),
        ):
            try:
                act()
            except DclipError as error:
                assert "\n" not in error.message
            except Exception as error:
                assert type(error).__name__ == "Planned"

    attack()
    assert store.resolve("faces/v1", "data") == made
    record_property("tried", tried)


STRANGE = ["~nosuchuser", "~nosuchuser/x", "a" * 300, "x/" * 3000, "a\0b", "\ud800", "/dev/null"]


@pytest.mark.attack("a reference, name or path that is none")
@pytest.mark.parametrize("place", STRANGE, ids=lambda place: ascii(place)[:20])
def test_a_store_or_folder_that_cannot_be_is_one_line(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    made = put(store)
    monkeypatch.chdir(tmp_path)
    for act in (
        lambda: put(Store(place), config={"n": 1}),
        lambda: Store(place).list(),
        lambda: export(made, place),
        lambda: import_artifact(store, place),
    ):
        try:
            act()
        except DclipError as error:
            assert "\n" not in error.message
    assert main(["ls", "--store", place]) in (0, 2, 6)
    assert main(["rm", place, "--store", str(store.root)]) in (2, 3)
    assert main(["export", "data/faces/v1", place, "--store", str(store.root)]) in (0, 2, 6)


@pytest.mark.attack("a reference, name or path that is none")
def test_a_current_folder_that_is_gone_is_one_line(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(StoreError, match="current folder is gone"):
        Store("artifacts")
    assert store.find("faces").version == 1
    assert main(["ls", "--store", str(store.root)]) == 0
    assert main(["ls"]) == 6


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8")
@pytest.mark.attack("a reference, name or path that is none")
def test_names_that_are_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / os.fsdecode(b"caf\xe9"))
    made = put(store, config={"photo": os.fsdecode(b"\xff.jpg")})
    assert made.config == {"photo": "\\udcff.jpg"}
    (store.root / "data" / os.fsdecode(b"\xe9")).mkdir()
    used = put(store, "y", kind="latents", inputs={"data": Artifact.open(made.path)})
    assert store.verify(full=True).problems == ()
    assert main(["ls", "--store", str(store.root)]) == 0
    assert main(["show", str(made.path)]) == 0
    assert main(["lineage", used.ref, "--store", str(store.root)]) == 0
    assert "\udcff" not in capsys.readouterr().out

    def make(staging: Staging) -> dict[str, Any]:
        (staging.path / os.fsdecode(b"\xff.png")).write_bytes(b"")
        return {}

    with pytest.raises(BadInput, match="cannot hold a file named"):
        put(store, "z", make=make)


@pytest.mark.attack("settings that cannot be kept")
@pytest.mark.parametrize(
    "value",
    [10**5000, 10**50, float("inf"), float("nan"), "deep"],
    ids=["5000-digits", "50-digits", "inf", "nan", "deep"],
)
def test_settings_that_cannot_be_kept_are_refused_before_the_work(store: Store, value: Any) -> None:
    if value == "deep":
        for _ in range(100):
            value = [value]
    with pytest.raises(BadInput):
        put(store, config={"x": value}, make=never)
    if isinstance(value, int):
        with pytest.raises(BadInput):
            put(store, seed=value, make=never)


@pytest.mark.attack("a system error that names no file")
@pytest.mark.parametrize("code", [errno.EIO, errno.EFBIG, errno.ENOSPC, errno.EDQUOT])
def test_a_failed_write_that_names_no_file_is_one_line(store: Store, code: int) -> None:
    def make(staging: Staging) -> dict[str, Any]:
        raise OSError(code, os.strerror(code))

    with pytest.raises(StoreError) as caught:
        put(store, make=make)
    assert "\n" not in str(caught.value)


@pytest.mark.attack("control characters in a manifest")
@pytest.mark.parametrize("character", ["\x1b]0;owned\x07", "\x9b2J", "\r", "\u202e", "\x7f"])
def test_control_characters_are_shown_escaped(
    store: Store, character: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = put(
        store,
        config={"prompt": f"a{character}b", f"k{character}": ["x", {"y": character}]},
        make=lambda staging: dict(write_two(staging)) | {f"m{character}": f"v{character}"},
    )
    (made.path / f"extra{character}").write_text("")
    used = put(store, "x", kind="latents", inputs={f"r{character}": made})
    edit_manifest(
        used,
        inputs={f"r{character}": {"id": made.id, "kind": "data", "ref": f"data/{character}/v1"}},
    )
    for command in (["show", "faces"], ["lineage", "x"], ["verify"], ["ls"], ["show", "x"]):
        main([*command, "--store", str(store.root)])
        said = capsys.readouterr().out
        assert character not in said, command
