"""Artifacts from one store to another: export with what it needs, and import."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from store_kit import Heard, folder_in_memory, never, put, tree

from dclip.cli.app import main
from dclip.errors import BadInput, CorruptArtifact, MissingArtifact
from dclip.store import Artifact, Staging, Store, export, export_with_base, import_artifact


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def file_of(text: str) -> Any:
    def make(staging: Staging) -> Mapping[str, Any]:
        (staging.path / "weights").write_text(text)
        return {"length": len(text)}

    return make


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "artifacts")


@pytest.fixture
def tuned(store: Store) -> Artifact:
    """tuned/sketch from latents, the base mine/v2 and the CLIP words; mine from data."""
    data = put(store)
    put(store, "mine", kind="model", config={"n": 1}, inputs={"data": data}, make=file_of("1"))
    base = put(store, "mine", kind="model", inputs={"data": data}, make=file_of("base"))
    clip = put(store, "words", kind="clip", make=file_of("clip"))
    latents = put(store, "x", kind="latents", inputs={"data": data, "model": base})
    inputs = {"latents": latents, "model": base, "clip": clip}
    return put(store, "sketch", kind="tuned", inputs=inputs, make=file_of("tuned"))


def test_a_tuned_model_reaches_another_machine_with_its_base_and_clip(
    store: Store, tuned: Artifact, tmp_path: Path
) -> None:
    copied = export_with_base(store, tuned, tmp_path / "out")
    assert sorted(a.ref for a in copied) == ["clip/words/v1", "model/mine/v2", "tuned/sketch/v1"]
    assert copied[0].ref == tuned.ref
    shutil.rmtree(store.root)
    for there in (Store(tmp_path / "out"), Store(tmp_path / "there")):
        if there.root.name == "there":
            put(there, "mine", kind="model", config={"other": 1}, make=file_of("another"))
            taken = there.import_artifact(tmp_path / "out")
            assert (taken.id, taken.fresh, taken.ref) == (tuned.id, True, "tuned/sketch/v1")
            assert {a.ref for a in there.list()} == {
                "tuned/sketch/v1",
                "clip/words/v1",
                "model/mine/v1",
                "model/mine/v2",
            }
        found = there.resolve("sketch", "tuned")
        assert there.input(found, "model").config == {"size": 64}
        assert (there.input(found, "clip").path / "weights").read_text() == "clip"
        assert found.manifest.created == tuned.manifest.created
        assert found.metrics == tuned.metrics
        assert there.verify(full=True).problems == ()
        again = there.import_artifact(tmp_path / "out")
        assert (again.ref, again.fresh) == ("tuned/sketch/v1", False)


def test_one_artifact_is_imported_alone_and_says_what_it_lacks(
    store: Store, tuned: Artifact, tmp_path: Path
) -> None:
    export(tuned, tmp_path / "out")
    there, heard = Store(tmp_path / "there"), Heard()
    taken = import_artifact(there, str(tmp_path / "out"), heard)
    assert [a.ref for a in there.list()] == ["tuned/sketch/v1"]
    assert tree(taken.path) == tree(tuned.path)
    assert "--with-base" in heard.warnings[0]
    # It is that work: the same request is up to date.
    inputs = {role: store.input(tuned, role) for role in tuned.manifest.inputs}
    assert put(there, "sketch", kind="tuned", inputs=inputs, make=never).id == tuned.id


def test_an_import_takes_the_next_number_and_leaves_unfinished_work(
    store: Store, tuned: Artifact, tmp_path: Path
) -> None:
    export(tuned, tmp_path / "out")
    there = Store(tmp_path / "there")
    inputs = {role: store.input(tuned, role) for role in tuned.manifest.inputs}

    def stop(staging: Staging) -> Mapping[str, Any]:
        (staging.scratch / "step").write_text("1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        put(there, "sketch", kind="tuned", inputs=inputs, make=stop)
    put(there, "sketch", kind="tuned", config={"other": 1})
    assert there.import_artifact(tmp_path / "out").ref == "tuned/sketch/v2"
    assert list(there.staging.glob("*/scratch/step"))


def test_an_embedded_base_goes_with_it_under_its_own_name(store: Store, tmp_path: Path) -> None:
    base = store.resolve("embedded", "model")
    made = put(store, "mine", kind="tuned", inputs={"model": base})
    export_with_base(store, made, tmp_path / "out")
    there = Store(tmp_path / "out")
    assert [a.ref for a in there.list()][1:] == ["tuned/mine/v1"]
    assert there.list("model")[0].id == base.id
    assert there.verify(full=True).problems == ()


def test_a_base_that_is_gone_is_told_and_nothing_is_left(
    store: Store, tuned: Artifact, tmp_path: Path
) -> None:
    store.remove("mine/v2", force=True)
    with pytest.raises(MissingArtifact, match="model/mine/v2, which is gone"):
        export_with_base(store, tuned, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.attack("an imported folder that is not what it says")
@pytest.mark.parametrize("harm", ["flip", "missing", "link", "manifest", "version-link"])
def test_a_damaged_import_is_refused_whole(
    store: Store, tuned: Artifact, tmp_path: Path, harm: str
) -> None:
    export_with_base(store, tuned, tmp_path / "out")
    version = tmp_path / "out" / "model" / "mine" / "v2"
    weights = version / "weights"
    if harm == "flip":
        weights.write_text("bAse")
    elif harm == "missing":
        weights.unlink()
    elif harm == "link":
        weights.rename(tmp_path / "away")
        weights.symlink_to(tmp_path / "away")
    elif harm == "version-link":
        version.rename(tmp_path / "away")
        version.symlink_to(tmp_path / "away")
    else:
        text = (version / "manifest.json").read_text()
        (version / "manifest.json").write_text(text.replace('"size": 64', '"size": 65'))
    there = Store(tmp_path / "there")
    with pytest.raises(Exception) as caught:
        there.import_artifact(tmp_path / "out")
    assert isinstance(caught.value, CorruptArtifact) or "leads out" in str(caught.value)
    assert there.list() == []


def test_what_is_no_artifact_is_told(store: Store, tuned: Artifact, tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact, match="no artifact"):
        store.import_artifact(tmp_path)
    with pytest.raises(MissingArtifact, match="no folder"):
        store.import_artifact(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="do not belong together"):
        Store(tmp_path / "there").import_artifact(_two(tmp_path))


def _two(tmp_path: Path) -> Path:
    two = Store(tmp_path / "two")
    put(two, "a", config={"n": 1})
    put(two, "b", config={"n": 2})
    return two.root


def test_the_command_exports_with_the_base(
    store: Store, tuned: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    at = ["--store", str(store.root)]
    assert main(["export", "sketch", out, "--with-base", "--lean", *at]) == 2
    capsys.readouterr()
    assert main(["export", "sketch", out, "--with-base", "--json", *at]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["with"] == ["clip/words/v1", "model/mine/v2"]
    assert main(["verify", "--full", "--store", out]) == 0
    assert main(["export", "sketch", str(store.root / "x"), *at]) == 2
