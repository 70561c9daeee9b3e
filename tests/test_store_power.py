"""Power cuts: what was written and not synced may be gone, in any combination.

A SIGKILL loses nothing that was written; a power cut loses the page cache. Here every fsync is
remembered. At a chosen moment the disk is rebuilt as a power cut may leave it: of each file the
bytes of its last sync, or what was written since, or a part of it, or zeros; of each folder, name
by name, the entry of its last sync or the present one. The store is then opened on that disk.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from store_kit import folder_in_memory, put

from dclip.context import Context
from dclip.errors import MissingArtifact
from dclip.store import Journal, Staging, Store, export, import_artifact

pytestmark = pytest.mark.skipif(
    not Path("/dev/shm").is_dir(), reason="needs a file system that does not use inodes again"
)
EFFORT = int(os.environ.get("DCLIP_ATTACKS", "1"))  # how many times as much is tried
CHANGES = ("rename", "replace", "unlink", "mkdir", "rmdir", "symlink")


class PowerCut(BaseException):
    pass


class Disk:
    """Remembers what is synced below ``root``, and cuts the power before the n-th event."""

    def __init__(self, root: Path, cut_at: int, image: Path, seed: int) -> None:
        self.root, self.cut_at, self.image = root, cut_at, image
        self.chance = random.Random(seed * 1000 + cut_at)
        self.files: dict[int, bytes] = {}
        self.folders: dict[int, dict[str, int]] = {}
        self.links: dict[int, str] = {}
        self.kinds: dict[int, str] = {}
        self.events, self.off = 0, False
        self.lock = threading.RLock()
        self.real = {name: getattr(os, name) for name in (*CHANGES, "fsync")}
        for path in (root, *root.rglob("*")):  # all that is there already is on the disk
            self.remember(path)

    def remember(self, path: Path) -> None:
        info = path.lstat()
        if stat.S_ISDIR(info.st_mode):
            self.folders[info.st_ino] = {e.name: e.inode() for e in os.scandir(path)}
        elif stat.S_ISREG(info.st_mode):
            self.files[info.st_ino] = path.read_bytes()

    def event(self) -> None:
        with self.lock:
            if self.off:
                raise PowerCut
            self.events += 1
            if self.events == self.cut_at:
                self.off = True
                self.rebuild()
                raise PowerCut

    def fsync(self, fd: int) -> None:
        with self.lock:
            self.event()
            self.remember(Path(f"/proc/self/fd/{fd}").resolve())

    def install(self, patch: pytest.MonkeyPatch) -> None:
        def counted(name: str) -> Callable[..., Any]:
            def call(*args: Any, **more: Any) -> Any:
                with self.lock:
                    self.event()
                    return self.real[name](*args, **more)

            return call

        for name in CHANGES:
            patch.setattr(os, name, counted(name))
        patch.setattr(os, "fsync", self.fsync)

    def rebuild(self) -> None:
        """The disk after the cut, at ``image``; made with the functions of before the patches."""
        live: dict[int, Path] = {}
        for path in (self.root, *self.root.rglob("*")):
            live[path.lstat().st_ino] = path
        self._write(self.root.lstat().st_ino, self.image, live)

    def _write(self, inode: int, target: Path, live: dict[int, Path]) -> None:
        path = live.get(inode)
        if path is not None and path.is_symlink():
            self.real["symlink"](path.readlink(), target)
        elif inode in self.folders or (path is not None and path.is_dir()):
            self.real["mkdir"](target)
            synced = self.folders.get(inode, {})
            now = {} if path is None else {e.name: e.inode() for e in os.scandir(path)}
            for name in sorted(synced.keys() | now.keys()):
                chosen = self.chance.choice([synced.get(name), now.get(name)])
                if chosen is not None:
                    self._write(chosen, target / name, live)
        elif path is not None or inode in self.files:
            target.write_bytes(self._bytes(self.files.get(inode), path))

    def _bytes(self, synced: bytes | None, path: Path | None) -> bytes:
        now = synced if path is None else path.read_bytes()
        assert now is not None
        if now == synced:
            return now
        part = now[: self.chance.randrange(len(now) + 1)]
        return self.chance.choice([synced or b"", now, part, bytes(len(now))])


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder


def steps(staging: Staging) -> dict[str, Any]:
    """Three files, none of them synced, and a journal of them."""
    journal = Journal(staging.scratch / "steps.jsonl", lambda entry: 1)
    for step in range(journal.done, 3):
        (staging.path / f"{step}.bin").write_bytes(bytes([step + 1]) * 300)
        journal.add(step=step)
    return {"steps": journal.done}


def prepared(root: Path) -> None:
    """faces v1 and v2, v1 tagged, the model base made from v1, and what gc is to free."""
    store = Store(root)
    one = put(store, config={"size": 1}, make=steps)
    put(store, config={"size": 2}, make=steps)
    put(store, "base", kind="model", inputs={"data": one}, make=steps)
    store.tag("faces/v1", "best")

    def stop(staging: Staging) -> dict[str, Any]:
        steps(staging)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        put(store, "half", make=stop)
    (store.trash / "0123-v1").mkdir(parents=True, exist_ok=True)
    (store.trash / "0123-v1" / "left").write_bytes(b"x" * 100)


def commit(store: Store) -> None:
    put(store, config={"size": 3}, make=steps)


def again(store: Store) -> None:
    put(store, config={"size": 1}, make=steps, context=Context(force=True))


def tag(store: Store) -> None:
    store.tag("faces/v2", "best")


def remove(store: Store) -> None:
    store.remove("faces/v2")


def gc(store: Store) -> None:
    store.gc()


def take(store: Store) -> None:
    import_artifact(store, store.root.parent / "exported")


ACTIONS = [commit, again, tag, remove, gc, take]


@pytest.mark.attack("a power cut that loses what was not synced")
@pytest.mark.parametrize("action", ACTIONS)
def test_a_power_cut_leaves_every_version_whole(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    action: Callable[[Store], None],
    record_property: Callable[[str, object], None],
) -> None:
    prepared(tmp_path / "origin")
    other = put(Store(tmp_path / "workshop"), "other", kind="model", config={"n": 9}, make=steps)
    export(other, tmp_path / "exported")
    ids = {a.ref: a.id for a in Store(tmp_path / "origin").list()}
    whole = Store(tmp_path / "whole")
    expected = put(whole, config={"size": 3}, make=steps).id
    tried = 0
    for seed in range(EFFORT):
        cut_at = 0
        while True:
            cut_at += 1
            root, image = tmp_path / "live", tmp_path / "image"
            for folder in (root, image):
                shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(tmp_path / "origin", root, symlinks=True)
            disk = Disk(root, cut_at, image, seed)
            with monkeypatch.context() as patch:
                disk.install(patch)
                with suppress(PowerCut):
                    action(Store(root))
                finished = not disk.off
                if finished:  # the work was reported as done: a cut right after loses none of it
                    disk.rebuild()
                    disk.off = True
            check(Store(image), action, ids, expected, finished)
            tried += 1
            if finished:
                break
    assert tried > 4 * EFFORT
    record_property("tried", tried)


def check(
    store: Store, action: Callable[[Store], None], ids: dict[str, str], expected: str, done: bool
) -> None:
    found = {a.ref: a.id for a in store.list()}
    assert store.verify(full=True).problems == ()
    gone = {"data/faces/v2"} if action is remove else set()
    assert ids.items() - found.items() <= {(ref, ids[ref]) for ref in gone}
    best = store.resolve("faces@best", "data").version
    assert best == 1 or action is tag
    if done:
        assert best == (2 if action is tag else 1)
        assert (found.keys() >= gone) == (action is not remove)
        added = {commit: 1, again: 1, take: 1, remove: -1}.get(action, 0)
        assert len(found) == len(ids) + added
    if action is remove:
        with suppress(MissingArtifact):
            remove(store)
    elif not done:
        action(store)
    made = put(store, config={"size": 3}, make=steps)
    assert made.id == expected
    assert made.version >= 3  # v2 was there: its number never comes back
    store.gc()
    assert store.verify(full=True).problems == ()
    assert store.gc().items == ()
