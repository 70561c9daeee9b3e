"""A store that the first release of this format wrote stays readable."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from make_store_fixture import FIXTURE, build
from store_kit import never

from dclip.store import Store

IDS = {
    "data/faces/v1": "3aa8254697562954fc2f4459578c797d6a001cc7b58aa5909e57308b0980810e",
    "data/faces/v2": "b39738a07fb1f2d51d7b2a75842cd2c9788ea963bcda2611349914cf25224b46",
    "model/base/v1": "806fac9ce85ba8b68f053d4a86573185e2c3dd9c3e72c09d0398245d61af7d82",
    "tuned/sketch/v1": "41a4f3bc2e51af08c5dd25d96e07f9d8bb80fe5b42ffcc0af62cb969ae7780a0",
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    shutil.copytree(FIXTURE, tmp_path / "store", symlinks=True)
    return Store(tmp_path / "store")


def test_every_artifact_of_the_fixture_is_found_and_whole(store: Store) -> None:
    assert {a.ref: a.id for a in store.list()} == IDS
    assert store.verify(full=True).problems == ()
    assert store.resolve("faces@best", "data").version == 1
    assert store.resolve(None, "data").version == 2
    assert store.find(IDS["model/base/v1"][:8]).ref == "model/base/v1"
    tuned = store.find("sketch")
    assert store.input(tuned, "model").ref == "model/base/v1"
    assert store.lineage("sketch").inputs[1].inputs[0].ref == "data/faces/v2"


def test_the_fixture_s_manifests_say_what_was_written(store: Store) -> None:
    manifest = store.find("base").manifest
    assert (manifest.stage, manifest.revision, manifest.seed) == ("make-model", 3, 7)
    assert manifest.made_on["device"] == "cpu (2 threads)"
    assert manifest.metrics == {"loss": 0.25, "not a number": None, "files": 2}
    assert [f.path for f in manifest.files] == ["logs/stats.jsonl", "model.bin"]
    config = store.find("faces/v2").config
    assert config == {"size": 64, "text": "café", "list": [1, 2.5, None, True], "inner": {"a": 0.0}}


def test_the_work_of_the_fixture_is_up_to_date_and_new_work_goes_beside_it(store: Store) -> None:
    assert [a.id for a in build(store, never)] == list(IDS.values())
    assert not any(a.fresh for a in build(store, never))
    store.tag("faces/v2", "other")
    store.remove("sketch")
    assert build(store)[3].ref == "tuned/sketch/v2"
