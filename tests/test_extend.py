"""The worked examples of docs/extend.md: each block is put into its file, and the last one run."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_guide import write_clip
from small_store import CPU, small_store

from dclip.configs.sample import SampleConfig
from dclip.data import faces
from dclip.data.dataset import DataSet
from dclip.models.checkpoint import load_model
from dclip.stages import sample
from dclip.store import Artifact, Store

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "extend.md").read_text()
SECTIONS = {
    title: re.findall(r"```python\n(.*?)```", body, flags=re.DOTALL)
    for title, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, flags=re.DOTALL | re.M)
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("extend")
    small_store(root / "store")
    write_clip(root / "clip")
    return root


@pytest.fixture
def put() -> Iterator[Any]:
    """Puts blocks into modules, which are as they were when the test is over."""
    kept: list[tuple[ModuleType, dict[str, Any], dict[str, Any]]] = []
    new: list[str] = []

    def put(block: str) -> None:
        path = re.match(r"# dclip/(\S+)\.py\n", block)
        assert path is not None
        name = f"dclip.{path[1].replace('/', '.')}"
        parent, _, leaf = name.rpartition(".")
        if (ROOT / "dclip" / f"{path[1]}.py").exists():
            module = importlib.import_module(name)
            own = dict(vars(module))
            tables = {k: v.copy() for k, v in own.items() if isinstance(v, dict) and k.isupper()}
            kept.append((module, own, tables))
        else:
            module = sys.modules[name] = ModuleType(name)
            setattr(importlib.import_module(parent), leaf, module)
            new.append(name)
        exec(compile(block, path[0], "exec"), vars(module))

    yield put
    for module, own, tables in reversed(kept):
        for name in set(vars(module)) - set(own):
            delattr(module, name)
        for name, table in tables.items():
            own[name].clear()
            own[name].update(table)
    for name in new:
        parent, _, leaf = name.rpartition(".")
        delattr(sys.modules[parent], leaf)
        del sys.modules[name]


def run(
    title: str, put: Any, made: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The names that the last block of a section leaves."""
    shutil.copytree(made / "store", folder / "store", symlinks=True)
    monkeypatch.chdir(folder)
    *blocks, last = SECTIONS[title]
    for block in blocks:
        put(block)
    names: dict[str, Any] = {
        "store": Store(folder / "store"),
        "context": CPU,
        "clip": str(made / "clip"),
    }
    exec(compile(last, title, "exec"), names)
    return names


def test_a_loss(put: Any, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned: Artifact = run("A loss", put, made, tmp_path, monkeypatch)["tuned"]
    assert tuned.config["weights"]["darkening"] == 2
    assert tuned.config["weights"]["direction"] == 0.5
    rows = (tuned.path / "logs" / "stats.jsonl").read_text().splitlines()
    assert len(rows) == 2
    assert all("darkening" in json.loads(row) for row in rows)


def test_a_sampler(put: Any, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("A sampler", put, made, tmp_path, monkeypatch)

    def drawn(sampler: str, steps: int) -> list[np.ndarray]:
        config = SampleConfig(sampler=sampler, steps=steps, count=2)
        return pictures(sample.run(config, names["store"], CPU))

    assert len(pictures(names["samples"])) == 2
    assert not np.array_equal(drawn("ab2", 5), drawn("ddim", 5))
    assert not np.array_equal(drawn("ab2", 5), drawn("ddpm", 5))
    assert np.array_equal(drawn("ab2", 1), drawn("ddim", 1))


def pictures(samples: Artifact) -> list[np.ndarray]:
    return [np.asarray(Image.open(file)) for file in sorted((samples.path / "images").iterdir())]


def test_a_network(put: Any, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("A network", put, made, tmp_path, monkeypatch)
    model: Artifact = names["model"]
    network, info = load_model(model.path)
    assert (info.architecture, info.prediction, info.config.channels) == ("plain", "eps", 16)
    assert type(network).__name__ == "Plain"
    assert model.config["lr"] == 1e-3
    config = SampleConfig(model="plain", steps=2, count=1)
    assert len(pictures(sample.run(config, names["store"], CPU))) == 1


def test_a_data_source(
    put: Any, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = np.stack([faces.draw(faces.sample(3, i), size=16) for i in range(10)])
    captions = [f"face {i}" for i in range(10)]
    for number, pixels in enumerate(drawn):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    lines = [f"{number}.png\t{text}" for number, text in enumerate(captions)]
    (tmp_path / "album.txt").write_text("\n".join(lines))
    artifact: Artifact = run("A data source", put, made, tmp_path, monkeypatch)["data"]
    data = DataSet(artifact.path)
    assert artifact.name == "album"
    assert artifact.config["domain"] == "photos"
    assert np.array_equal(data.images(np.arange(10)), drawn.transpose(0, 3, 1, 2))
    assert data.captions == captions


def test_a_stage(put: Any, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dclip.cli.app import app, main

    monkeypatch.setattr(app, "registered_commands", [*app.registered_commands])
    names = run("A stage", put, made, tmp_path, monkeypatch)
    assert names["code"] == 0
    figure = names["store"].resolve("figure/faces", "figure")
    data = DataSet(names["store"].resolve("faces", "data").path)
    mean = data.images(data.split("train")).mean(0).transpose(1, 2, 0).round()
    assert np.array_equal(np.asarray(Image.open(figure.path / "mean.png")), mean)
    assert main(["average", "--store", str(names["store"].root)]) == 0
    assert names["store"].resolve("figure/faces", "figure").id == figure.id
    assert main(["average", "--split", "val", "--store", str(names["store"].root)]) == 0
    assert names["store"].resolve("figure/faces", "figure").id != figure.id


def test_every_section_with_code_is_run() -> None:
    tested = {"A loss", "A sampler", "A network", "A data source", "A stage"}
    assert {title for title, blocks in SECTIONS.items() if blocks} == tested
