"""The artifact store, through its public doors."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_kit import Heard, edit_manifest, folder_in_memory, never, put, tree, write_two

from dclip import config as configs
from dclip.config import from_dict, to_dict
from dclip.context import Context
from dclip.errors import (
    BadInput,
    CorruptArtifact,
    DclipError,
    MissingArtifact,
    StoreBusy,
    StoreError,
)
from dclip.store import (
    Artifact,
    Lineage,
    Planned,
    Staging,
    Store,
    atomic,
    check_name,
    export,
    slim,
    slug,
)
from dclip.store import refs as store_refs
from dclip.store.ids import canonical
from dclip.store.manifest import recomputed_id

# A shared machine may take any time for an example; 50 find what 100 do.
quick = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What syncing is for, a power cut, no test can make; that it happens has its own test."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "artifacts")


# --- making --------------------------------------------------------------------------------------


def test_build_writes_a_browsable_artifact(store: Store) -> None:
    made = put(store)
    assert (made.ref, made.fresh, made.version) == ("data/faces/v1", True, 1)
    assert made.path == store.root / "data" / "faces" / "v1"
    said = json.loads((made.path / "manifest.json").read_text())
    assert said["format"] == 2
    assert said["id"] == made.id
    assert said["stage"] == "prepare"
    assert said["config"] == {"size": 64}
    assert said["metrics"] == {"loss": 0.5}
    assert set(said["versions"]) == {"dclip", "python", "torch"}
    assert [f["path"] for f in said["files"]] == ["images/0.png", "table.csv"]
    assert (store.root / "data" / "faces" / "latest" / "table.csv").read_text() == "a,b\n1,2\n"
    assert not any(p for p in store.staging.iterdir() if p.name != "store.lock")


def test_nothing_is_created_before_the_first_write(store: Store) -> None:
    with pytest.raises(MissingArtifact):
        store.resolve(None, "data")
    assert store.list() == []
    assert store.verify().problems == ()
    assert store.gc().items == ()
    with pytest.raises(Planned):
        put(store, context=Context(dry_run=True))
    assert not store.root.exists()


def test_unchanged_work_is_up_to_date(store: Store) -> None:
    first = put(store)
    before = tree(store.root)
    again = put(store, make=never)
    assert again == first
    assert not again.fresh
    assert tree(store.root) == before


@pytest.mark.parametrize("change", ["config", "seed", "input", "role", "kind", "revision"])
def test_changed_work_is_a_new_version(store: Store, change: str) -> None:
    a = put(store, "one", config={"size": 1})
    b = put(store, "two", config={"size": 2})
    base: dict[str, Any] = {"inputs": {"data": a}, "kind": "latents"}
    first = put(store, "x", **base)
    changed: dict[str, dict[str, Any]] = {
        "config": {"config": {"size": 65}},
        "seed": {"seed": 1},
        "input": {"inputs": {"data": b}},
        "role": {"inputs": {"photos": a}},
        "kind": {"kind": "edits"},
        "revision": {"revision": 2},
    }
    second = put(store, "x", **{**base, **changed[change]})
    assert second.fresh
    assert second.id != first.id
    assert second.ref == ("edits/x/v1" if change == "kind" else "latents/x/v2")


def test_the_manifest_says_what_computed_and_the_id_does_not(store: Store, tmp_path: Path) -> None:
    here = put(store, revision=3, device="cuda: NVIDIA H100")
    there = put(Store(tmp_path / "there"), revision=3, device="cpu (2 threads)")
    assert here.manifest.made_on["device"] == "cuda: NVIDIA H100"
    assert "device" not in put(store, config={"size": 1}).manifest.made_on
    assert here.manifest.made_on["system"]
    assert (here.id, here.manifest.key) == (there.id, there.manifest.key)
    assert Artifact.open(here.path).manifest == here.manifest
    assert here.manifest.revision == 3
    copied = put(store, "copy", revision=3, device="mps", make=never)
    assert copied.manifest.made_on == here.manifest.made_on  # where its bytes were computed


def test_going_back_to_an_older_config_finds_its_version_and_says_so(store: Store) -> None:
    put(store, config={"size": 64})
    put(store, config={"size": 128})
    heard = Heard()
    back = put(store, config={"size": 64}, context=Context(report=heard), make=never)
    assert (back.ref, back.fresh) == ("data/faces/v1", False)
    assert "data/faces/v2 is newer" in heard.notes[0]


def test_force_makes_a_new_version_with_the_same_id(store: Store) -> None:
    first = put(store)
    forced = put(store, context=Context(force=True))
    assert (forced.ref, forced.fresh, forced.id) == ("data/faces/v2", True, first.id)


def test_equal_work_under_another_name_is_copied_not_repeated(store: Store) -> None:
    first = put(store, "faces")
    copy = put(store, "people", make=never)
    assert (copy.ref, copy.id, copy.fresh) == ("data/people/v1", first.id, True)
    store.remove("data/faces")
    assert store.verify("people", full=True).problems == ()


def test_a_copy_is_not_taken_from_damaged_bytes(store: Store) -> None:
    first = put(store, "faces")
    (first.path / "table.csv").write_text("x,y\n8,9\n")  # the same size
    other = put(store, "people")
    assert other.id == first.id
    assert store.verify("people", full=True).problems == ()


def test_equal_work_has_equal_ids_in_two_stores_whatever_the_name(tmp_path: Path) -> None:
    def logged(text: str) -> Callable[[Staging], Mapping[str, Any]]:
        def make(staging: Staging) -> Mapping[str, Any]:
            (staging.path / "logs").mkdir(exist_ok=True)
            (staging.path / "logs" / "stats.jsonl").write_text(text)
            return {**write_two(staging), "seconds": len(text)}

        return make

    ids = []
    for place, name, text in (("a", "faces", "slow day"), ("b", "other", "fast")):
        store = Store(tmp_path / place)
        data = put(store, name, make=logged(text))
        ids.append((data.id, put(store, kind="latents", inputs={"data": data}).id))
    assert ids[0] == ids[1]


def test_payload_bytes_and_paths_are_part_of_the_id(tmp_path: Path) -> None:
    def one(path: str, data: bytes) -> str:
        def make(staging: Staging) -> Mapping[str, Any]:
            (staging.path / path).write_bytes(data)
            return {}

        return put(Store(tmp_path / f"{path}-{data.hex()}"), make=make).id

    assert len({one("a", b"1"), one("a", b"2"), one("b", b"1")}) == 3


def test_a_dry_run_plans(store: Store) -> None:
    with pytest.raises(Planned) as planned:
        store.build(
            stage="prepare",
            kind="data",
            name="faces",
            config={"size": 64},
            inputs={},
            seed=3,
            context=Context(dry_run=True),
            make=never,
            estimate={"bytes": 1000, "seconds": float("inf")},
        )
    plan = planned.value.plan
    assert (plan["stage"], plan["cached"], plan["ref"]) == ("prepare", False, None)
    assert plan["estimate"] == {"bytes": 1000, "seconds": None}
    json.dumps(plan, allow_nan=False)
    put(store)
    with pytest.raises(Planned) as planned:
        put(store, context=Context(dry_run=True), make=never)
    assert planned.value.plan["cached"]
    assert planned.value.plan["ref"] == "data/faces/v1"


def test_metrics_that_are_no_numbers_become_null(store: Store) -> None:
    import numpy as np

    def make(staging: Staging) -> Mapping[str, Any]:
        return {"loss": float("nan"), "psnr": [np.float32(2.5), np.inf], "n": np.int64(3)}

    made = put(store, make=make)
    text = (made.path / "manifest.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert made.metrics == {"loss": None, "psnr": [2.5, None], "n": 3}


def test_a_config_with_nan_is_refused(store: Store) -> None:
    with pytest.raises(BadInput, match=r"config\.rate is nan"):
        put(store, config={"rate": float("nan")})
    assert not store.root.exists()


def test_a_damaged_artifact_is_made_again(store: Store) -> None:
    first = put(store)
    (first.path / "images" / "0.png").unlink()
    heard = Heard()
    second = put(store, context=Context(report=heard))
    assert (second.ref, second.id) == ("data/faces/v2", first.id)
    assert "images/0.png is missing" in heard.warnings[0]


def test_an_empty_folder_is_left_out(store: Store) -> None:
    def make(staging: Staging) -> Mapping[str, Any]:
        (staging.path / "samples" / "of").mkdir(parents=True)
        return write_two(staging)

    made = put(store, make=make)
    assert sorted(p.name for p in made.path.iterdir()) == ["images", "manifest.json", "table.csv"]
    assert store.verify().problems == ()


@pytest.mark.parametrize("kind", ["link", "manifest"])
def test_a_payload_of_other_than_plain_files_is_refused(store: Store, kind: str) -> None:
    def make(staging: Staging) -> Mapping[str, Any]:
        if kind == "link":
            (staging.path / "away").symlink_to("/etc/hostname")
        else:
            (staging.path / "manifest.json").write_text("{}")
        return {}

    with pytest.raises(ValueError, match="away" if kind == "link" else "manifest.json"):
        put(store, make=make)
    assert store.list() == []


def test_everything_is_on_the_disk_before_it_becomes_visible(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    monkeypatch.setattr(os, "fsync", lambda fd: synced.add(os.fstat(fd).st_ino))
    real = os.rename
    seen: list[str] = []

    def rename(source: Any, target: Any, *args: Any, **more: Any) -> None:
        if Path(target).name == "v1":
            inside = [Path(source), *Path(source).rglob("*")]
            assert {p.name for p in inside if p.stat().st_ino not in synced} == set()
            seen.extend(p.name for p in inside)
            synced.clear()
        real(source, target, *args, **more)

    monkeypatch.setattr(os, "rename", rename)
    put(store)
    assert sorted(seen) == ["0.png", "images", "manifest.json", "payload", "table.csv"]
    assert (store.root / "data" / "faces").stat().st_ino in synced  # the rename itself


# --- interruption --------------------------------------------------------------------------------


def counted(staging: Staging, stop_at: int, stop: BaseException) -> Mapping[str, Any]:
    """Five files, one a step, with the step kept in scratch; interrupted before ``stop_at``."""
    at = staging.scratch / "step"
    done = int(at.read_text()) if at.exists() else 0
    for step in range(done, 5):
        if step == stop_at:
            raise stop
        (staging.path / f"{step}.txt").write_text(str(step))
        at.write_text(str(step + 1))
    return {"steps": 5, "began": done}


@pytest.mark.parametrize(
    "stop",
    [KeyboardInterrupt(), RuntimeError("a bug"), BadInput("a bad picture"), SystemExit(1)],
    ids=lambda stop: type(stop).__name__,
)
def test_interrupted_work_goes_on_where_it_stopped(store: Store, stop: BaseException) -> None:
    with pytest.raises(type(stop)):
        put(store, make=lambda staging: counted(staging, 3, stop))
    assert store.list() == []
    with pytest.raises(Planned) as planned:
        put(store, context=Context(dry_run=True))
    assert planned.value.plan["resumes"]
    heard = Heard()
    made = put(
        store, context=Context(report=heard), make=lambda staging: counted(staging, -1, KeyError())
    )
    assert made.metrics == {"steps": 5, "began": 3}
    assert heard.notes == ["going on with what was left of data/faces"]
    whole = put(Store(store.root / "else"), make=lambda staging: counted(staging, -1, KeyError()))
    assert made.id == whole.id


def test_work_that_is_refused_with_nothing_kept_leaves_nothing(store: Store) -> None:
    def make(staging: Staging) -> Mapping[str, Any]:
        (staging.path / "half.txt").write_text("half")
        raise BadInput("no")

    with pytest.raises(BadInput):
        put(store, make=make)
    assert [p.name for p in store.staging.iterdir() if p.is_dir()] == []
    assert not put(store, make=lambda staging: {"resumed": staging.resumed}).metrics["resumed"]


def test_half_written_files_are_gone_when_work_resumes(store: Store) -> None:
    def killed(staging: Staging) -> Mapping[str, Any]:
        writer = atomic(staging.path / "a.png")
        part = writer.__enter__()
        assert part.suffix == ".png"
        part.write_text("half")
        os.link(part, staging.path / ".part-as-a-kill-leaves-it.png")
        raise KeyboardInterrupt

    def make(staging: Staging) -> Mapping[str, Any]:
        with atomic(staging.path / "a.png") as part:
            part.write_text("whole")
        return {}

    with pytest.raises(KeyboardInterrupt):
        put(store, make=killed)
    assert [f.path for f in put(store, make=make).manifest.files] == ["a.png"]


def test_finished_work_is_committed_without_the_work(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dclip.store.build._commit", stopped)
        with pytest.raises(KeyboardInterrupt):
            put(store)
    assert put(store, make=never).ref == "data/faces/v1"


def test_finished_work_that_was_tampered_with_is_made_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dclip.store.build._commit", stopped)
        with pytest.raises(KeyboardInterrupt):
            put(store)
    (table,) = store.staging.glob("*/payload/table.csv")
    table.write_text("longer than it was\n")
    made = put(store)
    assert (made.path / "table.csv").read_text() == "a,b\n1,2\n"


# --- two writers ---------------------------------------------------------------------------------


def test_a_second_writer_of_the_same_work_is_turned_away_with_who_holds_it(store: Store) -> None:
    def make(staging: Staging) -> Mapping[str, Any]:
        with pytest.raises(StoreBusy, match=f"process {os.getpid()} on .* is making this"):
            put(store, make=never)
        return write_two(staging)

    assert put(store, make=make).ref == "data/faces/v1"


def test_writers_of_different_work_do_not_disturb_each_other(store: Store) -> None:
    together = threading.Barrier(4)
    made: list[Artifact] = []

    def work(size: int) -> None:
        def make(staging: Staging) -> Mapping[str, Any]:
            together.wait(20)  # all four are inside make at once
            return write_two(staging)

        made.append(put(store, config={"size": size}, make=make))

    threads = [threading.Thread(target=work, args=(size,)) for size in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(a.ref for a in made) == [f"data/faces/v{v}" for v in (1, 2, 3, 4)]
    assert len({a.id for a in made}) == 4
    assert store.verify(full=True).problems == ()


def test_work_that_another_process_finished_meanwhile_is_not_repeated(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Store.exclusive
    others: list[Artifact] = []

    def exclusive(self: Store) -> Any:
        monkeypatch.setattr(Store, "exclusive", real)
        others.append(put(Store(store.root)))  # after our look at what is done, before our lock
        return real(self)

    monkeypatch.setattr(Store, "exclusive", exclusive)
    assert put(store, make=never) == others[0]


def test_work_inside_work_is_possible(store: Store) -> None:
    def outer(staging: Staging) -> Mapping[str, Any]:
        return {"inner": put(store, "inner", config={"size": 1}).ref}

    assert put(store, "outer", make=outer).metrics == {"inner": "data/inner/v1"}


# --- full, read-only, newer ----------------------------------------------------------------------


class Rusty(Exception):
    """As a writer in another language reports it."""


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        Rusty("I/O error: No space left on device (os error 28)"),
    ],
    ids=["errno", "quota", "text"],
)
def test_a_disk_that_fills_during_the_work_is_one_line_and_keeps_what_was_done(
    store: Store, error: Exception
) -> None:
    with pytest.raises(StoreError, match="no space left") as caught:
        put(store, make=lambda staging: counted(staging, 4, error))
    assert "run the same command again" in caught.value.fix
    assert "\n" not in caught.value.message + caught.value.fix
    made = put(store, make=lambda staging: counted(staging, -1, error))
    assert made.metrics["began"] == 4


@pytest.mark.parametrize("beside", [False, True], ids=["in-place", "atomic"])
def test_a_writer_that_hides_why_it_failed_is_seen_through(
    store: Store, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    def torch_save(path: Path) -> None:
        path.write_bytes(b"x" * 1000)
        raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 640 vs 534")

    def make(staging: Staging) -> Mapping[str, Any]:
        if not beside:
            torch_save(staging.scratch / "checkpoint.pt")
        with atomic(staging.scratch / "checkpoint.pt") as part:
            torch_save(part)
        return {}

    with pytest.raises(RuntimeError):
        put(store, make=make)

    def usage(path: Any) -> Any:  # full for as long as the failed file is there
        left = any(p.stat().st_size >= 1000 for p in store.root.rglob("*checkpoint.pt"))
        return SimpleNamespace(free=0 if left else 10**8)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(StoreError, match="no space left"):
        put(store, make=make)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("function", ["os.rename", "os.replace", "os.mkdir", "os.fsync"])
def test_a_system_that_refuses_to_write_is_one_line_and_nothing_is_seen(
    store: Store, monkeypatch: pytest.MonkeyPatch, function: str, code: int
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    made = []
    with monkeypatch.context() as patch:

        def make(staging: Staging) -> Mapping[str, Any]:
            made.append(write_two(staging))
            patch.setattr(function, refuse)  # from the commit on
            return made[0]

        with pytest.raises(StoreError) as caught:
            put(store, make=make)
    assert "\n" not in str(caught.value)
    assert ("no space" in str(caught.value)) == (code == errno.ENOSPC)
    assert ("read-only" in str(caught.value)) == (code in (errno.EROFS, errno.EACCES))
    assert store.list() == []
    assert put(store).ref == "data/faces/v1"


def test_a_read_only_store_can_be_read_but_not_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = put(store)
    put(store, "old", kind="latents", inputs={"data": data})
    store.tag("faces", "good")
    real = os.open

    def read_only(path: Any, flags: int, *args: Any, **more: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *args, **more)

    def refuse(path: Any, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", read_only)
        for name in ("mkdir", "rename", "replace", "unlink", "symlink"):
            patch.setattr(os, name, refuse)
        assert store.resolve("faces@good", "data") == data
        assert put(store, make=never) == data
        assert len(store.list()) == 2
        assert store.verify(full=True).problems == ()
        assert store.lineage("old").inputs[0].ref == "data/faces/v1"
        assert store.gc(dry_run=True).items == ()
        for write in (
            lambda: put(store, config={"size": 1}),
            lambda: store.tag("faces", "best"),
            lambda: store.remove("old"),
            lambda: store.gc(),
        ):
            with pytest.raises(StoreError, match="cannot be written"):
                write()


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere"
)
def test_a_store_without_permission_is_one_line(store: Store) -> None:
    put(store)
    folders = [store.root, *(p for p in store.root.rglob("*") if p.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert put(store, make=never).ref == "data/faces/v1"
        with pytest.raises(StoreError, match="cannot be written"):
            put(store, config={"size": 1})
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_a_store_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="not a folder"):
        Store(tmp_path / "file")
    with pytest.raises(StoreError, match=r"not usable as a folder|cannot be written"):
        put(Store(tmp_path / "file" / "below"))


def test_a_newer_format_asks_for_an_upgrade_and_blocks_nothing_else(store: Store) -> None:
    old, new = put(store, "old", config={"size": 1}), put(store, "new")
    edit_manifest(new, format=3, surprise=True)
    with pytest.raises(StoreError, match="data/new/v1 was written by a newer dclip") as caught:
        store.resolve("new", "data")
    assert "upgrade dclip" in caught.value.fix
    assert store.resolve("old", "data") == old
    for look in (store.list, lambda report: [store.resolve(None, "data", report)]):
        heard = Heard()
        assert list(look(report=heard)) == [old]
        assert "newer dclip" in heard.warnings[0]
    assert [p.what for p in store.verify().problems] == ["format"]
    assert put(store, "new").ref == "data/new/v2"  # the newer version is left alone
    edit_manifest(new, format=1)
    with pytest.raises(StoreError, match="data/new/v1 was written by an older dclip") as caught:
        store.resolve("new/v1", "data")
    assert "make it again" in caught.value.fix


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b'{"format": "2"}', b'{"format": 2}', b"\xff\xfe\x00"],
)
def test_a_broken_manifest_is_told_as_such(store: Store, text: bytes) -> None:
    made = put(store)
    (made.path / "manifest.json").write_bytes(text)
    with pytest.raises(CorruptArtifact, match="data/faces/v1") as caught:
        store.resolve("faces", "data")
    assert "dclip rm data/faces/v1" in caught.value.fix
    assert [p.what for p in store.verify().problems] == ["manifest"]
    assert put(store).ref == "data/faces/v2"
    store.remove("data/faces/v1")
    assert store.verify().problems == ()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "7"},
        {"files": [{"path": "../../secret", "size": 1, "sha256": "0"}]},
        {"files": [{"path": "/etc/passwd", "size": 1, "sha256": "0"}]},
        {"files": [{"size": 1}]},
        {"inputs": {"data": "faces"}},
        {"kind": "model"},
    ],
    ids=str,
)
def test_a_manifest_is_read_strictly(store: Store, change: dict[str, Any]) -> None:
    edit_manifest(put(store), **change)
    with pytest.raises(CorruptArtifact):
        store.resolve("faces", "data")


# --- references ----------------------------------------------------------------------------------


def test_every_form_of_reference(store: Store) -> None:
    one = put(store, config={"size": 1})
    two = put(store, config={"size": 2})
    put(store, "x", kind="latents", inputs={"data": two})
    store.tag("faces/v1", "good")
    folder = store.root / "data" / "faces"
    forms = {
        one: ["faces/v1", "data/faces/v1", "faces@good", "data/faces@good", "faces@v1"],
        two: ["faces", "data/faces", "faces@latest", f"{two.path}/", str(folder)],
    }
    forms[one] += [one.id, one.id[:6], str(one.path), str(folder / "good")]
    forms[two] += [two.id[:10], str(folder / "latest")]
    for artifact, texts in forms.items():
        for text in texts:
            assert store.resolve(text, "data") == artifact, text
            assert store.find(text) == artifact, text
            with pytest.raises(DclipError):
                store.resolve(text, "model")


def test_relative_paths_lead_to_the_artifact(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = put(store)
    monkeypatch.chdir(tmp_path)
    assert store.resolve("artifacts/data/faces/v1", "data").ref == made.ref
    assert store.resolve("./artifacts/data/faces/v1/", "data").ref == made.ref


def test_without_a_name_the_newest_of_the_kind_is_taken_and_told(store: Store) -> None:
    put(store, "zebra", config={"size": 1})
    put(store, "zebra", config={"size": 2})
    newest = put(store, "apple", config={"size": 3})
    put(store, "later", kind="latents")
    heard = Heard()
    assert store.resolve(None, "data", heard) == newest
    assert heard.notes == ["using data/apple/v1"]


@pytest.mark.parametrize("kind", ["data", "model", "clip", "latents", "tuned"])
def test_a_missing_kind_names_the_command_that_makes_it(store: Store, kind: str) -> None:
    commands = {
        "data": "dclip prepare faces",
        "model": "dclip train",
        "clip": "dclip clip train",
        "latents": "dclip invert",
        "tuned": "dclip finetune --target sketch",
    }
    with pytest.raises(MissingArtifact) as caught:
        store.resolve(None, kind)
    assert f"`{commands[kind]}`" in caught.value.fix
    with pytest.raises(MissingArtifact) as caught:
        store.resolve("nothing-like-it", kind)
    assert f"`{commands[kind]}`" in caught.value.fix


def test_a_mistyped_reference_is_told_what_is_near(store: Store) -> None:
    put(store, "celeba-128")
    put(store, "faces")
    for text, near in (("celeba", "celeba-128"), ("face", "faces"), ("data/facess", "data/faces")):
        with pytest.raises(MissingArtifact) as caught:
            store.resolve(text, "data")
        assert near in caught.value.fix
    with pytest.raises(MissingArtifact, match="no version v7") as caught:
        store.resolve("faces/v7", "data")
    assert "v1" in caught.value.fix
    with pytest.raises(MissingArtifact, match="no tag 'best'"):
        store.resolve("faces@best", "data")
    with pytest.raises(MissingArtifact, match="data/faces is of another kind"):
        store.resolve("faces", "model")


def test_an_ambiguous_reference_lists_the_choices(store: Store) -> None:
    put(store, "x")
    put(store, "x", kind="latents")
    with pytest.raises(BadInput) as caught:
        store.find("x")
    assert "data/x or latents/x" in caught.value.fix
    assert store.find("latents/x").kind == "latents"


@pytest.mark.parametrize("text", ["", "  ", "a/b/c/d", "@x", "faces@", "..", "v1", "a\0b", "🙂"])
def test_what_is_no_reference_is_an_error_of_ours(store: Store, text: str) -> None:
    put(store)
    with pytest.raises((BadInput, MissingArtifact)):
        store.resolve(text, "data")
    with pytest.raises((BadInput, MissingArtifact)):
        store.find(text)


def test_resolving_refuses_an_artifact_with_a_missing_file(store: Store) -> None:
    made = put(store)
    (made.path / "table.csv").unlink()
    for ref in (None, "faces", made.id[:8], str(made.path)):
        with pytest.raises(CorruptArtifact, match=r"table\.csv is missing"):
            store.resolve(ref, "data")
    assert store.find("faces", check=False).id == made.id


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    """A package that ships a model, exported from some other store."""
    made = put(Store(tmp_path / "workshop"), "base", kind="model", config={"width": 32})
    package = tmp_path / "package"
    (package / "assets").mkdir(parents=True)
    monkeypatch.setattr(store_refs.dclip, "__file__", str(package / "__init__.py"))
    export(made, package / "assets" / "base")
    return made


def test_the_embedded_artifact_serves_where_nothing_else_is(
    store: Store, shipped: Artifact
) -> None:
    for ref in ("embedded", "model/embedded", shipped.id[:9]):
        found = store.resolve(ref, "model")
        assert (found.id, found.ref, found.fresh) == (shipped.id, "model/embedded", False)
    assert store.find("model/embedded").id == shipped.id
    heard = Heard()
    assert store.resolve(None, "model", heard, default="embedded").id == shipped.id
    assert heard.notes == ["using model/embedded"]
    own = put(store, "own", kind="model")
    assert store.resolve(None, "model", default="embedded") == own
    with pytest.raises(MissingArtifact, match="no embedded clip"):
        store.resolve("embedded", "clip")
    with pytest.raises(MissingArtifact, match="no embedded model"):
        store.resolve("embedded-text", "model")
    with pytest.raises(BadInput, match="is of kind model; clip is needed"):
        store.resolve("embedded-text", "clip")
    with pytest.raises(BadInput):
        store.resolve("embedded", "data")
    with pytest.raises(BadInput):
        store.remove("model/embedded")


def test_export_copies_byte_for_byte(store: Store, tmp_path: Path) -> None:
    made = put(store)
    out = export(made, tmp_path / "out")
    assert tree(out) == tree(made.path)
    loaded = Artifact.open(out)
    assert (loaded.id, loaded.name, loaded.version) == (made.id, "faces", 1)
    with pytest.raises(BadInput, match="not empty"):
        export(made, out)
    (made.path / "table.csv").unlink()
    with pytest.raises(DclipError):
        export(made, tmp_path / "bad")
    assert not list(tmp_path.glob("*bad*"))


def test_a_lean_export_is_an_artifact_without_its_records(store: Store, tmp_path: Path) -> None:
    def make(staging: Staging) -> dict[str, Any]:
        for name in ("weights.bin", "loss.png", "samples/one.png", "logs/stats.jsonl"):
            (staging.path / name).parent.mkdir(exist_ok=True)
            (staging.path / name).write_text(name)
        return {"loss": 0.5}

    made = store.build(
        stage="train", kind="model", name="m", config={}, inputs={}, seed=0,
        context=Context(), make=make,
    )  # fmt: skip
    out = export(made, tmp_path / "lean", lean=True)
    assert sorted(p.name for p in out.iterdir()) == ["manifest.json", "weights.bin"]
    lean = Artifact.open(out)
    assert lean.id == slim(made.manifest).id != made.id and lean.metrics == made.metrics
    assert recomputed_id(lean.manifest) == lean.id


def test_open_needs_an_artifact(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact):
        Artifact.open(tmp_path)
    with pytest.raises(MissingArtifact):
        Artifact.open(tmp_path / "nowhere")


# --- names ---------------------------------------------------------------------------------------

BAD_NAMES = ["", " ", ".", "..", "a/b", "a\\b", "../up", ".hidden", "a\nb", "a\0b", "x" * 65]
BAD_NAMES += ["v3", "latest", "embedded", "tags.json", "con", "NUL.txt", "a ", "-rf", "a@b", "né"]


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_a_bad_name_is_refused_with_a_good_one(store: Store, name: str) -> None:
    with pytest.raises(BadInput) as caught:
        put(store, name, make=never)
    assert "\n" not in caught.value.message
    suggestion = caught.value.fix.split("'")[1]
    assert check_name(suggestion) == suggestion
    assert not store.root.exists()
    with pytest.raises(BadInput):
        put(store, kind=name, make=never)


@quick
@given(st.text(max_size=100))
def test_a_slug_is_always_a_name_and_names_stay_as_they_are(text: str) -> None:
    assert check_name(slug(text)) == slug(text)
    try:
        check_name(text)
    except BadInput:
        return
    assert slug(text) == text
    assert Path(text).name == text
    assert len(text.encode()) <= 64


# --- tags ----------------------------------------------------------------------------------------


def test_tags_stay_move_and_go(store: Store) -> None:
    one, two = put(store, config={"size": 1}), put(store, config={"size": 2})
    store.tag("faces/v1", "best")
    assert Store(store.root).resolve("faces@best", "data") == one
    assert (store.root / "data" / "faces" / "best").readlink() == Path("v1")
    store.tag("faces", "best")
    assert store.resolve("faces@best", "data") == two
    assert store.tags(two) == ["latest", "best"]
    assert store.tags(one) == []
    store.untag("faces", "best")
    assert not (store.root / "data" / "faces" / "best").is_symlink()
    with pytest.raises(MissingArtifact):
        store.resolve("faces@best", "data")
    with pytest.raises(MissingArtifact):
        store.untag("faces", "best")


@pytest.mark.parametrize("tag", ["latest", "v2", "../x", "", "tags.json", "embedded"])
def test_reserved_and_bad_tags_are_refused(store: Store, tag: str) -> None:
    put(store)
    before = tree(store.root)
    with pytest.raises(BadInput):
        store.tag("faces", tag)
    assert tree(store.root) == before


def test_tags_work_where_links_do_not(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "symlink", refuse)
    one = put(store, config={"size": 1})
    store.tag("faces", "best")
    two = put(store, config={"size": 2})
    assert store.resolve("faces@best", "data") == one
    assert store.resolve("faces", "data") == two
    assert not any(p.is_symlink() for p in store.root.rglob("*"))


def test_damaged_tags_are_told_and_do_not_hide_the_artifact(store: Store) -> None:
    made = put(store)
    store.tag("faces", "best")
    (store.root / "data" / "faces" / "tags.json").write_text("{")
    with pytest.raises(CorruptArtifact, match=r"tags\.json is damaged"):
        store.resolve("faces@best", "data")
    assert store.resolve("faces", "data") == made
    assert [p.what for p in store.verify().problems] == ["tag"]


# --- verify --------------------------------------------------------------------------------------


def damage_missing(path: Path) -> None:
    (path / "table.csv").unlink()


def damage_size(path: Path) -> None:
    (path / "table.csv").write_text("a")


def damage_extra(path: Path) -> None:
    (path / "images" / "new.png").write_text("a")


def damage_link(path: Path) -> None:
    (path / "table.csv").rename(path / "moved")
    (path / "table.csv").symlink_to("moved")


def damage_hash(path: Path) -> None:
    (path / "table.csv").write_text("a,b\n1,3\n")


def damage_manifest(path: Path) -> None:
    edit_manifest(Artifact.open(path), config={"size": 65})


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (damage_missing, {"missing"}),
        (damage_size, {"size"}),
        (damage_extra, {"extra"}),
        (damage_link, {"link", "extra"}),
        (damage_manifest, {"manifest"}),
    ],
)
def test_a_quick_verify_finds(store: Store, harm: Callable[[Path], None], what: set[str]) -> None:
    put(store, "sound", config={"size": 1})
    harm(put(store).path)
    for ref in (None, "faces", "data/faces/v1"):
        found = store.verify(ref)
        assert {p.what for p in found.problems} == what
        assert {p.ref for p in found.problems} == {"data/faces/v1"}
    assert store.verify("sound").problems == ()


def test_only_a_full_verify_finds_a_changed_byte(store: Store) -> None:
    put(store, "sound", config={"size": 1})
    damage_hash(put(store).path)
    assert store.verify().problems == ()
    found = store.verify(full=True)
    assert (found.artifacts, found.files, found.full) == (2, 4, True)
    assert [(p.ref, p.what, p.path) for p in found.problems] == [
        ("data/faces/v1", "hash", "table.csv")
    ]


def test_verify_looks_at_artifacts_outside_too(
    store: Store, shipped: Artifact, tmp_path: Path
) -> None:
    assert store.verify("model/embedded", full=True).problems == ()
    (tmp_path / "package" / "assets" / "base" / "table.csv").unlink()
    for ref in ("model/embedded", str(tmp_path / "package" / "assets" / "base")):
        assert [p.what for p in store.verify(ref).problems] == ["missing"]
        with pytest.raises(CorruptArtifact):
            store.resolve(ref, "model")


def test_what_file_browsers_leave_is_no_problem(store: Store) -> None:
    (put(store).path / "images" / ".DS_Store").write_text("")
    assert store.verify(full=True).problems == ()


# --- lineage, removal, gc ------------------------------------------------------------------------


@pytest.fixture
def chain(store: Store) -> dict[str, Artifact]:
    data = put(store)
    model = put(store, "base", kind="model", inputs={"data": data})
    latents = put(store, "x", kind="latents", inputs={"data": data, "model": model})
    return {"data": data, "model": model, "latents": latents}


def shown(node: Lineage) -> tuple[Any, ...]:
    return (node.role, node.ref, node.state, *(shown(below) for below in node.inputs))


def test_lineage_is_the_tree_of_inputs(
    store: Store, chain: dict[str, Artifact], shipped: Artifact, tmp_path: Path
) -> None:
    data = ("data", "data/faces/v1", "present")
    assert shown(store.lineage("latents/x")) == (
        "",
        "latents/x/v1",
        "present",
        data,
        ("model", "model/base/v1", "present", data),
    )
    away = Artifact.open(export(chain["data"], tmp_path / "away"))
    mixed = put(
        store,
        "y",
        kind="latents",
        config={"size": 9},
        inputs={"data": away, "model": store.resolve("embedded", "model")},
    )
    embedded = ("model", "model/embedded", "embedded")
    assert shown(store.lineage(mixed.ref))[3:] == (data, embedded)
    store.remove("data/faces", force=True)
    outside = ("data", str(tmp_path / "away"), "outside")
    assert shown(store.lineage(mixed.ref))[3:] == (outside, embedded)
    shutil.rmtree(tmp_path / "away")
    assert [below.state for below in store.lineage(mixed.ref).inputs] == ["missing", "embedded"]
    assert [below.state for below in store.lineage("latents/x").inputs] == ["missing", "present"]


def test_an_input_is_found_by_its_id_wherever_it_is(
    store: Store, chain: dict[str, Artifact], shipped: Artifact, tmp_path: Path
) -> None:
    assert store.input(chain["latents"], "model") == chain["model"]
    away = Artifact.open(export(chain["data"], tmp_path / "away"))
    store.remove("data/faces", force=True)
    with pytest.raises(MissingArtifact, match="made from data/faces/v1, which is gone"):
        store.input(chain["model"], "data")
    with pytest.raises(MissingArtifact, match="without a photo"):
        store.input(chain["model"], "photo")
    base = store.resolve("embedded", "model")
    mixed = put(store, "y", kind="latents", config={"n": 9}, inputs={"data": away, "model": base})
    assert store.input(mixed, "data").path == away.path
    assert store.input(mixed, "model") == base
    (away.path / "table.csv").unlink()
    with pytest.raises(CorruptArtifact):
        store.input(mixed, "data")
    with pytest.raises(MissingArtifact, match=f"no data has the id {away.id[:12]}"):
        store.resolve(away.id, "data")


def test_dependents_are_what_was_made_from_it(store: Store, chain: dict[str, Artifact]) -> None:
    assert [a.ref for a in store.dependents("data/faces")] == ["latents/x/v1", "model/base/v1"]
    assert store.dependents("latents/x") == []


def test_what_others_came_from_is_not_removed(store: Store, chain: dict[str, Artifact]) -> None:
    before = tree(store.root)
    with pytest.raises(BadInput, match="model/base/v1") as caught:
        store.remove("data/faces")
    assert "latents/x/v1" in caught.value.message
    assert tree(store.root) == before
    for ref in ("latents/x", "model/base", "data/faces"):
        store.remove(ref)
    assert store.list() == []


def test_removal_by_force_and_of_one_of_two_copies(
    store: Store, chain: dict[str, Artifact]
) -> None:
    put(store, context=Context(force=True))  # the same work once more
    assert store.remove("faces/v1").ref == "data/faces/v1"
    assert store.lineage("latents/x").inputs[0].ref == "data/faces/v2"
    with pytest.raises(BadInput):
        store.remove("faces/v2")
    removed = store.remove("faces/v2", force=True)
    assert removed.bytes > 0
    with pytest.raises(MissingArtifact):
        store.resolve("faces", "data")


def test_a_removed_version_number_never_comes_back(store: Store) -> None:
    for size in (1, 2):
        put(store, config={"size": size})
    store.tag("faces/v2", "best")
    store.remove("faces/v2")
    assert store.verify().problems == ()  # nor is a tag left on it
    assert store.resolve("faces", "data").version == 1
    with pytest.raises(MissingArtifact):
        store.resolve("faces@best", "data")
    assert put(store, config={"size": 2}).ref == "data/faces/v3"
    store.remove("faces/v3")
    store.remove("faces/v1")
    assert put(store).ref == "data/faces/v4"


def test_gc_frees_unfinished_work_and_nothing_else(store: Store) -> None:
    put(store)
    before = tree(store.root)
    with pytest.raises(KeyboardInterrupt):
        put(store, config={"size": 7}, make=lambda d: counted(d, 3, KeyboardInterrupt()))
    (store.trash / "0123-v1").mkdir(parents=True)
    (store.trash / "0123-v1" / "left").write_bytes(b"x" * 100)

    def make(staging: Staging) -> Mapping[str, Any]:
        would = store.gc(dry_run=True)
        assert len(would.items) == 2
        assert would.bytes > 100
        assert store.gc(dry_run=True) == would  # it only looked
        did = store.gc()
        assert [item.what for item in did.items] == [item.what for item in would.items]
        assert "unfinished prepare -> data/faces" in did.items[0].what
        assert len(did.busy) == 1 and "data/busy" in did.busy[0]
        return write_two(staging)

    put(store, "busy", config={"size": 8}, make=make)
    assert store.gc().items == ()
    store.remove("busy")
    (store.root / "data" / "busy" / ".last-v1").unlink()
    assert tree(store.root) == before
    assert [p.name for p in store.staging.iterdir()] == ["store.lock"]


# --- configs -------------------------------------------------------------------------------------


class Method(Enum):
    DDIM = "ddim"
    FIXED = "fixed-point"


@configs.settings
class Inner:
    rate: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)


@configs.settings
class Config:
    name: str
    size: int = 64
    ratio: float | None = None
    method: Method = Method.DDIM
    recipe: Literal["a", "b"] = "a"
    levels: tuple[int, ...] = (1, 2)
    inner: Inner = Inner()
    words: list[str] = dataclasses.field(default_factory=list)
    extra: dict[str, int] = dataclasses.field(default_factory=dict)
    folder: Path = Path("x")
    on: bool = True


finite = st.floats(allow_nan=False, allow_infinity=False)
configs = st.builds(
    Config,
    name=st.text(),
    size=st.integers(),
    ratio=st.none() | finite,
    method=st.sampled_from(Method),
    recipe=st.sampled_from(["a", "b"]),
    levels=st.lists(st.integers()).map(tuple),
    inner=st.builds(Inner, rate=finite, betas=st.tuples(finite, finite)),
    words=st.lists(st.text()),
    extra=st.dictionaries(st.text(), st.integers()),
    on=st.booleans(),
)


@quick
@given(configs)
def test_a_config_survives_json(config: Config) -> None:
    plain = json.loads(json.dumps(to_dict(config), allow_nan=False))
    assert from_dict(Config, plain) == config
    assert canonical(plain) == canonical(config)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@quick
@given(st.dictionaries(st.text(), json_values))
def test_canonical_json_has_one_spelling(value: dict[str, Any]) -> None:
    turned = dict(reversed(value.items()))
    assert canonical(turned) == canonical(value)
    assert canonical(json.loads(json.dumps(value))) == canonical(value)
    back = json.loads(canonical(value))
    assert back == value
    assert canonical(back) == canonical(value)


@quick
@given(json_values, json_values)
def test_canonical_json_tells_values_apart(a: Any, b: Any) -> None:
    # Python itself takes True for 1; JSON, and a config, do not.
    assert (canonical(a) == canonical(b)) == (a == b and repr_kind(a) == repr_kind(b))


def repr_kind(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: repr_kind(item) for key, item in value.items()}
    if isinstance(value, list):
        return [repr_kind(item) for item in value]
    return isinstance(value, bool)


def test_a_whole_float_is_the_same_setting_as_the_int(store: Store) -> None:
    put(store, config={"strength": 1})
    assert not put(store, config={"strength": 1.0}, make=never).fresh


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sise": 64}, "sise is unknown"),
        ({"size": None}, r"Config\.size is None"),
        ({"size": "64"}, r"Config\.size is '64'"),
        ({"size": True}, r"Config\.size is True"),
        ({"size": 1.5}, r"Config\.size is 1\.5"),
        ({"ratio": float("nan")}, r"Config\.ratio is nan"),
        ({"method": "dim"}, r"Config\.method is 'dim'"),
        ({"recipe": "c"}, r"Config\.recipe 'c' is unknown"),
        ({"levels": [1, "2"]}, r"Config\.levels\.1 is '2'"),
        ({"inner": {"rate": 1, "betas": [1]}}, r"Config\.inner\.betas\.1 is missing"),
        ({"inner": {"rate": 1}}, r"Config\.inner lacks 'betas'"),
        ({"inner": 3}, r"Config\.inner is 3"),
        ({"on": "yes"}, r"Config\.on is 'yes'"),
    ],
    ids=str,
)
def test_a_config_that_does_not_fit_is_told_where(change: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        from_dict(Config, {**to_dict(Config("x")), **change})
    assert caught.value.fix


def test_missing_keys_are_named_unless_defaults_are_asked_for() -> None:
    with pytest.raises(BadInput, match="lacks 'size', 'ratio'"):
        from_dict(Config, {"name": "x"})
    assert from_dict(Config, {"name": "x", "inner": {}}, defaults=True) == Config("x")
    with pytest.raises(BadInput, match="name is missing"):
        from_dict(Config, {}, defaults=True)


def test_the_store_needs_no_torch() -> None:
    code = "import sys, dclip.store; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
