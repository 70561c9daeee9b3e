"""Data sets of the Hugging Face hub, played by a server on this machine."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants, hf_hub_download
from small_cli import Shell
from small_store import CPU
from test_data_packed import CAPTIONS, members, png, save_parquet, save_tar
from test_hub import OF_BRANCHES, Hub, server  # noqa: F401

from dclip.configs.prepare import PrepareConfig
from dclip.data.dataset import DataSet
from dclip.errors import BadInput
from dclip.stages import prepare
from dclip.store import Artifact, Store

pytestmark = pytest.mark.attack("a data set of the hub that is away, closed or without pictures")

pytest.importorskip("pyarrow")


@pytest.fixture
def hub(server: Hub, tmp_path: Path) -> Hub:  # noqa: F811
    """A data set of two shards to train on, one to test on."""
    server.repos["org/cats"] = {
        "README.md": b"cats",
        "data/train-00000-of-00002.parquet": shard(tmp_path, range(4)),
        "data/train-00001-of-00002.parquet": shard(tmp_path, range(4, 6)),
        "data/test-00000-of-00001.parquet": shard(tmp_path, range(1)),
    }
    return server


def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)


def shard(place: Path, numbers: range, **change: Any) -> bytes:
    return save_parquet(place / "made.parquet", pixels(), numbers, **change).read_bytes()


def prepared(place: Path, root: str, **more: Any) -> Artifact:
    return prepare.run(PrepareConfig("hf", root=root, size=16, **more), Store(place / "s"), CPU)


def shown(artifact: Artifact) -> np.ndarray:
    data = DataSet(artifact.path)
    return data.images(np.arange(len(data.ids))).transpose(0, 2, 3, 1)


def test_a_data_set_by_its_name(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = Shell(tmp_path / "s", capsys)
    _, err = shell("prepare", "hf", "--root", "org/cats", "--size", "16")
    assert "the split train is taken, not test: --part names another" in err
    made = Store(tmp_path / "s").resolve("cats", "data")
    assert np.array_equal(shown(made), pixels())
    assert DataSet(made.path).captions == CAPTIONS
    assert len(shown(prepared(tmp_path, "org/cats", part="test"))) == 1
    asked = len(hub.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert prepared(tmp_path, "org/cats").id == made.id
    assert len(hub.asked) == asked


def test_offline_the_files_that_hf_download_fetched_are_read(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = "data/train-00000-of-00002.parquet"
    hf_hub_download("org/cats", first, repo_type="dataset")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    shell = Shell(tmp_path / "s", capsys)
    _, err = shell("prepare", "hf", "--root", "org/cats", "--size", "16")
    assert "the hub cannot be asked what org/cats has" in err and "this machine, 1" in err
    made = Store(tmp_path / "s").resolve("cats", "data")
    assert np.array_equal(shown(made), pixels()[:4])
    with pytest.raises(BadInput, match="dogs"):
        prepared(tmp_path, "org/dogs")


def test_a_dry_run_fetches_nothing(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(tmp_path / "s", capsys)
    asked = ("prepare", "hf", "--root", "org/cats", "--size", "16", "--dry-run")
    _, err = shell(*asked, code=2)
    shards = [name for name in hub.repos["org/cats"] if "train" in name]
    size = sum(len(hub.repos["org/cats"][name]) for name in shards) / 1e3
    assert "nothing to plan with" in err
    assert f"2 files of {size:.1f} kB ({', '.join(shards)})" in " ".join(err.split())
    assert not [address for address in hub.asked if "/resolve/" in address]
    prepared(tmp_path, "org/cats")
    fetched = len(hub.asked)
    out, _ = shell(*asked)
    assert "data/cats" in out
    assert len(hub.asked) == fetched


def test_a_dry_run_needs_no_more_shards_than_the_limit_does(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared(tmp_path, "org/cats", limit=3)
    asked = ("prepare", "hf", "--root", "org/cats", "--size", "16", "--dry-run")
    shell = Shell(tmp_path / "s", capsys)
    out, _ = shell(*asked, "--limit", "3")
    assert "data/cats" in out
    _, err = shell(*asked, "--limit", "5", code=2)
    assert "nothing to plan with" in err
    assert not any("00001-of-00002" in address for address in hub.asked)


def test_a_limit_fetches_no_more_shards_than_it_needs(hub: Hub, tmp_path: Path) -> None:
    assert np.array_equal(shown(prepared(tmp_path, "org/cats", limit=3)), pixels()[:3])
    assert not any("00001-of-00002" in address for address in hub.asked)
    assert np.array_equal(shown(prepared(tmp_path, "org/cats", limit=5)), pixels()[:5])


def test_shards_of_one_data_set_are_of_one_commit(hub: Hub, tmp_path: Path) -> None:
    assert np.array_equal(shown(prepared(tmp_path, "org/cats", limit=3)), pixels()[:3])
    train = "data/train-0000{}-of-00002.parquet".format
    files = hub.repos["org/cats"]
    hub.repos["org/cats"] = files | {train(1): shard(tmp_path, range(2))}
    hub.commits["org/cats"] = "2" * 40
    with pytest.raises(BadInput):  # the second shard of the first commit is gone, not replaced
        prepared(tmp_path, "org/cats", limit=5)


def test_columns_are_named(hub: Hub, tmp_path: Path) -> None:
    more = {
        "other": [png(255 - p) for p in pixels()],
        "words": [f"words {i}" for i in range(6)],
    }
    hub.repos["org/cats"] = {"train.parquet": shard(tmp_path, range(6), **more)}
    made = prepared(tmp_path, "org/cats", column="other", caption="words")
    assert np.array_equal(shown(made), 255 - pixels())
    assert DataSet(made.path).captions == more["words"]


def test_what_the_hub_converted_is_read(hub: Hub, tmp_path: Path) -> None:
    hub.repos["org/cats"] = {"a.csv": b""}
    hub.branches["org/cats", "refs/convert/parquet"] = {
        "default/train/0000.parquet": shard(tmp_path, range(4)),
        "default/train/0001.parquet": shard(tmp_path, range(4, 6)),
    }
    made = prepared(tmp_path, "org/cats")
    assert np.array_equal(shown(made), pixels())
    fetched = [address for address in hub.asked if "/resolve/" in address]
    assert fetched and all(OF_BRANCHES in address for address in fetched)


def test_captions_of_tars_are_named(hub: Hub, tmp_path: Path) -> None:
    tar = save_tar(tmp_path / "a.tar", members(pixels(), range(6))).read_bytes()
    hub.repos["org/cats"] = {"train/000.tar": tar}
    with pytest.raises(BadInput, match="--caption"):
        prepared(tmp_path, "org/cats", caption="nowhere")


def test_tars_are_read(hub: Hub, tmp_path: Path) -> None:
    tar = save_tar(tmp_path / "a.tar", members(pixels(), range(6))).read_bytes()
    hub.repos["org/cats"] = {"train/000.tar": tar}
    made = prepared(tmp_path, "org/cats")
    assert np.array_equal(shown(made), pixels()) and made.name == "cats"


def test_what_is_wrong_is_one_line(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shard(tmp_path, range(2))
    hub.repos["org/two"] = {"a/train.parquet": data, "b/train.parquet": data}
    hub.repos["org/parts"] = {"test.parquet": data, "val.parquet": data}
    hub.repos["org/shut"] = {"train.parquet": data}
    hub.repos["org/text"] = {"train.csv": b"a,b"}
    hub.repos["org/words"] = {"train.parquet": shard(tmp_path, range(2), image=["a", "b"])}
    hub.gated.add("org/shut")
    shell = Shell(tmp_path / "s", capsys)
    for args, said in (
        (["org/none"], "has no data set org/none"),
        (["org/two"], "several subsets: a, b"),
        (["org/two", "--subset", "c"], "no subset 'c'"),
        (["org/parts"], "several splits: test, validation"),
        (["org/parts", "--part", "train"], "no split 'train'"),
        (["org/shut"], "access to org/shut has to be granted"),
        (["org/text"], "no parquet files and no tars"),
        (["org/words"], "none is of pictures"),
        (["org/cats", "--column", "label"], "no pictures in a column label"),
        (["org/cats", "--caption", "words"], "no column words for --caption"),
    ):
        _, err = shell("prepare", "hf", "--root", *args, code=2)
        assert said in " ".join(err.split()) and err.count("error:") == 1
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput, match="HF_HUB_OFFLINE is set") as caught:
        prepared(tmp_path, "org/new")
    assert "hf download --repo-type dataset org/new" in caught.value.fix


def test_several_columns_of_captions_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_parquet(tmp_path / "a.parquet", pixels(), range(6), caption=["c"] * 6)
    shell = Shell(tmp_path / "s", capsys)
    _, err = shell("prepare", "parquet", "--root", str(path), "--size", "16")
    assert "taken from the column caption, not from text" in err
    shell("prepare", "parquet", "--root", str(path), "--size", "16", "--caption", "text")
    made = Store(tmp_path / "s").resolve("a", "data")
    rows = list(csv.DictReader(io.StringIO((made.path / "samples.csv").read_text())))
    assert [row["caption"] for row in rows] == CAPTIONS
