"""Work that was interrupted and then damaged: it goes on from what is sound, to the same id."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from store_kit import Heard, folder_in_memory, put
from torch import nn

from dclip.context import Context, Silent
from dclip.data.arrays import ShardWriter
from dclip.models.state import load_state, save_state
from dclip.store import Artifact, Journal, Staging, Store
from dclip.store.signed import signed_metadata
from dclip.training import loop as training

Record = Callable[[str, object], None]
EFFORT = int(os.environ.get("DCLIP_ATTACKS", "1"))  # how many times as much is tried
PIECES = 6


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


class Stop(KeyboardInterrupt):
    pass


# --- pieces and a journal ------------------------------------------------------------------------


class Pieces:
    """Work in pieces: a picture each, rows of an array, and a journal; counts what it does."""

    def __init__(self, stop_before: int | None = None, stop_unnoted: int | None = None) -> None:
        self.stop_before, self.stop_unnoted = stop_before, stop_unnoted
        self.did: list[int] = []

    def __call__(self, staging: Staging) -> dict[str, Any]:
        shape = (3, 2, 2)
        with ShardWriter(staging.path / "x.zarr", shape, np.uint8, total=12, per_shard=4) as writer:
            journal = Journal(
                staging.scratch / "pieces.jsonl", lambda entry: entry["n"], at_most=writer.done
            )
            writer.rewind(journal.done)
            for piece in range(journal.done // 2, PIECES):
                if piece == self.stop_before:
                    raise Stop
                self.did.append(piece)
                (staging.path / "images").mkdir(exist_ok=True)
                (staging.path / "images" / f"{piece}.png").write_bytes(bytes([piece]) * 50)
                writer.append(np.full((2, *shape), piece, np.uint8))
                if piece == self.stop_unnoted:
                    raise Stop
                journal.add(n=2, value=[piece / 8])
            writer.finish()
        (staging.path / "table.csv").write_text("done\n")
        return {"values": journal.column("value")}


@pytest.fixture
def whole(tmp_path: Path) -> Artifact:
    return put(Store(tmp_path / "whole"), make=Pieces())


def interrupt(store: Store, pieces: Pieces) -> Path:
    """Run until it stops; returns its staging folder."""
    with pytest.raises(Stop):
        put(store, make=pieces)
    (folder,) = (p for p in store.staging.iterdir() if p.is_dir())
    return folder


def resume(store: Store, whole: Artifact) -> tuple[list[int], list[str]]:
    """Finish it; returns the pieces that were made and what was noted."""
    again, heard = Pieces(), Heard()
    made = put(store, make=again, context=Context(report=heard))
    assert (made.id, made.metrics) == (whole.id, whole.metrics)
    assert store.verify(full=True).problems == ()
    return again.did, heard.notes


@pytest.mark.parametrize("unnoted", range(PIECES))
def test_a_stop_between_a_piece_and_its_note_costs_that_piece_alone(
    store: Store, whole: Artifact, unnoted: int
) -> None:
    interrupt(store, Pieces(stop_unnoted=unnoted))
    did, notes = resume(store, whole)
    assert did == list(range(unnoted, PIECES))
    assert notes == ["going on with what was left of data/faces"]


def cut(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def zero(path: Path, chance: random.Random) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flip(path: Path, chance: random.Random) -> None:
    raw = bytearray(path.read_bytes())
    raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    path.write_bytes(raw)


def drop(path: Path, chance: random.Random) -> None:
    path.unlink()


@pytest.mark.attack("a damaged file of interrupted work")
@pytest.mark.parametrize("harm", [cut, zero, flip, drop])
@pytest.mark.parametrize(
    ("which", "first"),
    # A shard is sealed after pieces 1 and 3: from within a shard work goes back to its beginning.
    [("images/3.png", 2), ("images/0.png", 0), ("x.zarr/c/0/0/0/0", 0), ("x.zarr/.partial", 4)],
)
def test_a_damaged_piece_is_made_again(
    store: Store, whole: Artifact, harm: Callable[..., None], which: str, first: int
) -> None:
    folder = interrupt(store, Pieces(stop_before=5))
    path = folder / "payload" / which
    if harm is zero and not any(path.read_bytes()):
        harm = cut
    harm(path, random.Random(3))
    did, notes = resume(store, whole)
    assert did == list(range(first, PIECES))
    assert any("is damaged" in note for note in notes)


@pytest.mark.attack("a damaged file of interrupted work")
@pytest.mark.parametrize("harm", [cut, zero, flip])
def test_a_damaged_journal_counts_as_far_as_it_is_sound(
    store: Store, whole: Artifact, harm: Callable[..., None], record_property: Record
) -> None:
    tried = 6 * EFFORT
    for seed in range(tried):
        each = Store(store.root / str(seed))
        folder = interrupt(each, Pieces(stop_before=5))
        harm(folder / "scratch" / "pieces.jsonl", random.Random(seed))
        resume(each, whole)
    record_property("tried", tried)


def test_a_changed_line_is_no_longer_counted(store: Store, whole: Artifact) -> None:
    folder = interrupt(store, Pieces(stop_before=5))
    path = folder / "scratch" / "pieces.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b'"value": [0.375]', b'"value": [0.625]')
    path.write_bytes(b"".join(lines))
    did, _ = resume(store, whole)
    assert did == [2, 3, 4, 5]


@pytest.mark.attack("something else among interrupted work")
@pytest.mark.parametrize("name", ["extra.bin", "images/9.png", "x.zarr/c/9/0/0/0", "manifest.json"])
def test_what_no_record_knows_is_not_committed(store: Store, whole: Artifact, name: str) -> None:
    folder = interrupt(store, Pieces(stop_before=5))
    (folder / "payload" / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / "payload" / name).write_bytes(b"left by something else")
    did, _ = resume(store, whole)
    assert did == [5]


@pytest.mark.attack("finished work that is changed before its commit")
@pytest.mark.parametrize("harm", [cut, zero, flip, drop])
@pytest.mark.parametrize("which", ["payload/images/3.png", "finished.json", "payload/table.csv"])
def test_finished_work_that_was_changed_is_made_again(
    store: Store,
    whole: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[..., None],
    which: str,
) -> None:
    def stopped(*_: Any) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr("dclip.store.build._commit", stopped)
        folder = interrupt(store, Pieces())
    harm(folder / which, random.Random(5))
    did, notes = resume(store, whole)
    if which != "finished.json" or harm is not drop:
        assert did == list(range(PIECES))
        assert any("beginning anew" in note for note in notes)


# --- a training loop and its checkpoint ----------------------------------------------------------


class Training:
    """Eight updates of a small network through the loop that trainings share."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.began = -1

    def __call__(self, staging: Staging) -> dict[str, Any]:
        torch.manual_seed(0)
        network = nn.Linear(4, 4)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
        loop = training.Loop(
            staging,
            updates=8,
            images=2,
            modules={"net": network},
            optimizer=optimizer,
            limit=10.0,
        )
        self.began = loop.step
        with closing(loop.rounds(Silent(), "train")) as rounds:
            for step in rounds:
                if step == self.stop_at:
                    raise Stop
                optimizer.zero_grad()
                loss = network(torch.full((2, 4), step / 8)).square().mean()
                loss.backward()
                loop.update(loss)
                loop.add({"loss": loss.detach()})
                if step % 2:
                    (staging.path / "snapshots").mkdir(exist_ok=True)
                    (staging.path / "snapshots" / f"{step}.txt").write_text(str(float(loss)))
        (staging.path / "curve.json").write_text(json.dumps(loop.stats.curve("loss")))
        weights = network.weight.detach().double().flatten().tolist()
        (staging.path / "weights.json").write_text(json.dumps(weights))
        return {"loss": loop.stats.rows[-1]["loss"]}


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)


@pytest.fixture
def trained(tmp_path: Path, often: None) -> Artifact:
    return put(Store(tmp_path / "trained"), kind="model", make=Training())


def stop_training(store: Store) -> Path:
    with pytest.raises(Stop):
        put(store, kind="model", make=Training(stop_at=5))
    (folder,) = (p for p in store.staging.iterdir() if p.is_dir())
    return folder


def go_on(store: Store, trained: Artifact) -> tuple[int, list[str]]:
    again, heard = Training(), Heard()
    made = put(store, kind="model", make=again, context=Context(report=heard))
    assert (made.id, made.metrics) == (trained.id, trained.metrics)
    return again.began, heard.notes


def test_an_interrupted_training_goes_on(store: Store, trained: Artifact) -> None:
    stop_training(store)
    assert go_on(store, trained) == (5, ["going on with what was left of model/faces"])


@pytest.mark.attack("a damaged checkpoint or log of an interrupted training")
@pytest.mark.parametrize("harm", [cut, zero, flip])
@pytest.mark.parametrize(
    "which", ["scratch/state.safetensors", "payload/logs/stats.jsonl", "payload/snapshots/1.txt"]
)
def test_a_damaged_checkpoint_or_what_it_counts_on_begins_the_work_anew(
    store: Store,
    trained: Artifact,
    harm: Callable[..., None],
    which: str,
    record_property: Record,
) -> None:
    tried = 5 * EFFORT if harm is not zero else 1
    for seed in range(tried):
        each = Store(store.root / str(seed))
        folder = stop_training(each)
        harm(folder / which, random.Random(seed))
        began, notes = go_on(each, trained)
        assert began == 0
        assert len(notes) == 1 and "is damaged" in notes[0] and "anew" in notes[0]
    record_property("tried", tried)


@pytest.mark.attack("a damaged checkpoint or log of an interrupted training")
def test_bad_lines_after_the_checkpoint_do_not_count(store: Store, trained: Artifact) -> None:
    folder = stop_training(store)
    with (folder / "payload" / "logs" / "stats.jsonl").open("ab") as log:
        log.write(b'{"step": "x"}\n[]\nnot json\n\xff\xfe\n{"step": 6, "los')
    assert go_on(store, trained)[0] == 5


@pytest.mark.attack("a damaged checkpoint or log of an interrupted training")
def test_a_log_that_is_broken_before_the_first_checkpoint(store: Store, trained: Artifact) -> None:
    folder = stop_training(store)
    (folder / "scratch" / "state.safetensors").unlink()
    (folder / "payload" / "logs" / "stats.jsonl").write_bytes(b"[1]\n{}\nnull\n")
    assert go_on(store, trained)[0] == 0


def test_a_checkpoint_says_itself_that_it_is_damaged(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    path = tmp_path / "state.safetensors"
    save_state(path, {"step": 3}, modules={"net": network}, optimizer=optimizer)
    sound = path.read_bytes()
    found = load_state(path, modules={"net": network}, optimizer=optimizer)
    assert found is not None and found[0] == {"step": 3}
    before = {k: v.clone() for k, v in network.state_dict().items()}
    for at in range(len(sound)):
        raw = bytearray(sound)
        raw[at] ^= 1 << at % 8
        path.write_bytes(raw)
        with pytest.raises(ValueError):
            signed_metadata(path)
        if at % 50 == 0:
            assert load_state(path, modules={"net": network}, optimizer=optimizer) is None
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
