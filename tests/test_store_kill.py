"""SIGKILL at any moment: what is visible is whole, and the same call again ends the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_kit import folder_in_memory

from dclip.store import Store

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder


# The work: a few files, a checkpoint after each, sleeping between the two halves of each file.
WORK = """
import os, signal, sys, time
from dclip.context import Context
from dclip.store import Store, atomic, write_atomic

def make(pause, steps):
    def run(staging):
        at = staging.scratch / "step"
        for step in range(int(at.read_text()) if at.exists() else 0, steps):
            with atomic(staging.path / f"{step}.bin") as part:
                part.write_bytes(bytes([step]) * 5000)
                time.sleep(pause)
                with part.open("ab") as stream:
                    stream.write(bytes([step]) * 5000)
            write_atomic(at, str(step + 1).encode())
        return {"steps": steps}
    return run

def build(root, pause=0.0, size=1, force=False, steps=8):
    return Store(root).build(
        stage="prepare", kind="data", name="faces", config={"size": size}, inputs={}, seed=0,
        context=Context(force=force), make=make(pause, steps),
    )
"""

# Run an action in a forked child that is killed just before its n-th change to the disk, for n from
# 1 until the child gets through. Each n starts from a store in the same state.
SWEEP = (
    WORK
    + """
import json
os.fsync = lambda fd: None  # a SIGKILL loses nothing that was written; only speed is at stake here
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.symlink", "os.link"}

def arm(n):
    left = n
    def hook(event, args):
        nonlocal left
        write = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if event in CHANGES or write:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

def state(root):
    store = Store(root)
    found = store.verify(full=True)
    return {
        "refs": {a.ref: a.id for a in store.list()},
        "problems": [str(p) for p in found.problems],
        "tags": {a.ref: list(store.tags(a)) for a in store.list()},
    }

def sweep(folder, prepare, act, then=None):
    n, out = 0, []
    while True:
        n += 1
        root = os.path.join(folder, str(n))
        prepare(root)
        pid = os.fork()
        if pid == 0:
            arm(n)
            act(root)
            os._exit(0)
        killed = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        after = state(root)
        (then or act)(root)
        again = state(root)
        again["rubbish"] = [i.what for i in Store(root).gc().items]
        again["hidden"] = sorted(p.name for p in Store(root).staging.iterdir())
        out.append({"killed": killed, "after": after, "again": again})
        if not killed:
            print(json.dumps(out))
            return
"""
)


def python(code: str, *args: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, *args], stdout=subprocess.PIPE)


def sweep(code: str, folder: Path) -> list[dict]:  # type: ignore[type-arg]
    import json

    process = python(SWEEP + code, str(folder))
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    found: list[dict] = json.loads(out)  # type: ignore[type-arg]
    assert [step["killed"] for step in found] == [True] * (len(found) - 1) + [False]
    for step in found:
        assert step["after"]["problems"] == step["again"]["problems"] == []
        assert step["again"]["hidden"] == ["store.lock"]
    return found


def test_a_build_killed_before_any_change_to_the_disk(tmp_path: Path) -> None:
    found = sweep(
        "sweep(sys.argv[1], lambda root: None, lambda root: build(root, steps=2))", tmp_path
    )
    assert len(found) > 25  # the sweep did go through work and commit
    whole = found[-1]["again"]["refs"]
    assert list(whole) == ["data/faces/v1"]
    for step in found:
        assert step["after"]["refs"] in ({}, whole)
        assert step["again"]["refs"] == whole
    # Killed early nothing is there yet, killed late it is: both sides of the rename were met.
    assert {len(step["after"]["refs"]) for step in found if step["killed"]} == {0, 1}


def test_a_forced_build_killed_after_its_commit_begins_anew(tmp_path: Path) -> None:
    code = """
def prepare(root):
    build(root, steps=1)
sweep(sys.argv[1], prepare, lambda root: build(root, steps=1, force=True))
"""
    found = sweep(code, tmp_path)
    for step in found:
        refs = step["again"]["refs"]
        assert len(set(refs.values())) == 1  # every version is the same work, wholly done
        assert len(refs) == len(step["after"]["refs"]) + 1


def test_a_removal_killed_before_any_change_to_the_disk(tmp_path: Path) -> None:
    code = """
from dclip.errors import MissingArtifact
def prepare(root):
    build(root, steps=1)
    build(root, steps=1, size=2)
    Store(root).tag("faces/v2", "best")
def act(root):
    try:
        Store(root).remove("faces/v2")
    except MissingArtifact:
        pass
sweep(sys.argv[1], prepare, act)
"""
    found = sweep(code, tmp_path)
    assert len(found) > 5
    for step in found:
        assert set(step["after"]["refs"]) in ({"data/faces/v1"}, {"data/faces/v1", "data/faces/v2"})
        assert step["again"]["tags"] == {"data/faces/v1": ["latest"]}


def test_a_removed_number_stays_gone_whenever_the_removal_is_killed(tmp_path: Path) -> None:
    code = """
from dclip.errors import MissingArtifact
def prepare(root):
    build(root, steps=1)
def act(root):
    try:
        Store(root).remove("faces/v1")
    except MissingArtifact:
        pass
def then(root):
    act(root)
    build(root, steps=1, size=2)
sweep(sys.argv[1], prepare, act, then)
"""
    for step in sweep(code, tmp_path):
        assert list(step["again"]["refs"]) == ["data/faces/v2"]


def test_killed_at_random_moments_until_it_gets_through(tmp_path: Path) -> None:
    code = WORK + "print(build(sys.argv[1], pause=0.04).id)"
    whole, _ = python(code, str(tmp_path / "whole")).communicate(timeout=60)
    chance = random.Random(7)
    store = Store(tmp_path / "store")
    kills = 0
    for step in (0, 3, 6, 7):
        process = python(code, str(store.root))
        while process.poll() is None and not list(store.staging.glob(f"*/payload/{step}.bin")):
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.06))
        process.kill()
        process.communicate(timeout=60)
        kills += process.returncode == -signal.SIGKILL
        assert store.verify(full=True).problems == ()
        assert [a.ref for a in store.list()] in ([], ["data/faces/v1"])
    assert kills >= 2
    out, _ = python(code, str(store.root)).communicate(timeout=60)
    assert out == whole
    assert [a.ref for a in store.list()] == ["data/faces/v1"]


def test_two_processes_want_the_same_work(tmp_path: Path) -> None:
    code = (
        WORK
        + """
from dclip.errors import StoreBusy
try:
    print("made" if build(sys.argv[1], pause=0.1).fresh else "found")
except StoreBusy as error:
    print("busy" if "is making this data already" in error.message else error)
"""
    )
    both = [python(code, str(tmp_path)) for _ in range(2)]
    said = sorted(process.communicate(timeout=60)[0].decode().strip() for process in both)
    assert said in (["busy", "made"], ["found", "made"])
    assert [a.ref for a in Store(tmp_path).list()] == ["data/faces/v1"]


def test_a_worker_that_outlives_the_killed_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    code = (
        WORK
        + """
def orphan(staging):
    if os.fork() == 0:  # as a pool's worker does, it waits for work that never comes
        os.close(1)
        time.sleep(60)
        os._exit(0)
    print("working", flush=True)
    time.sleep(60)
make = lambda pause, steps: orphan
build(sys.argv[1])
"""
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"working\n"
        process.kill()
        process.wait()
        again = python(WORK + "print(build(sys.argv[1]).ref)", str(tmp_path))
        assert again.communicate(timeout=60)[0] == b"data/faces/v1\n"
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_ctrl_c_passes_through_and_the_next_run_goes_on(tmp_path: Path) -> None:
    code = (
        WORK
        + """
try:
    build(sys.argv[1], pause=0.2)
except KeyboardInterrupt:
    print("interrupted")
"""
    )
    process = python(code, str(tmp_path))
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".staging/*/payload/2.bin")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0] == b"interrupted\n"
    assert Store(tmp_path).list() == []
    (step,) = tmp_path.glob(".staging/*/scratch/step")
    assert int(step.read_text()) >= 2
    done, _ = python(WORK + "print(build(sys.argv[1]).id)", str(tmp_path)).communicate(timeout=60)
    other = str(tmp_path / "else")
    whole, _ = python(WORK + "print(build(sys.argv[1]).id)", other).communicate(timeout=60)
    assert done == whole
