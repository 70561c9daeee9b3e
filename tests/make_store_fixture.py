"""Makes ``tests/fixtures/store_v2``: a store as this release writes it, for later ones to read.

Run once a store format, ``python tests/make_store_fixture.py``, and never again after a release:
``test_store_fixture.py`` opens it for ever.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dclip.context import Context
from dclip.store import Artifact, Staging, Store

FIXTURE = Path(__file__).parent / "fixtures" / "store_v2"


def writer(files: Mapping[str, bytes]) -> Callable[[Staging], Mapping[str, Any]]:
    def make(staging: Staging) -> Mapping[str, Any]:
        for path, content in files.items():
            (staging.path / path).parent.mkdir(parents=True, exist_ok=True)
            (staging.path / path).write_bytes(content)
        return {"loss": 0.25, "not a number": float("nan"), "files": len(files)}

    return make


def build(
    store: Store, make: Callable[[Staging], Mapping[str, Any]] | None = None
) -> list[Artifact]:
    """Everything in the fixture; ``make`` instead of the work itself."""

    def one(kind: str, name: str, files: Mapping[str, bytes], **more: Any) -> Artifact:
        return store.build(
            stage=f"make-{kind}",
            kind=kind,
            name=name,
            seed=7,
            context=Context(),
            make=make or writer(files),
            device="cpu (2 threads)",
            **more,
        )

    table = b"index,id\n0,a\n"
    old = one("data", "faces", {"samples.csv": table}, config={"size": 32}, inputs={})
    config = {"size": 64, "text": "caf\u00e9", "list": [1, 2.5, None, True], "inner": {"a": -0.0}}
    data = one("data", "faces", {"samples.csv": table * 2}, config=config, inputs={})
    weights = {"model.bin": bytes(range(256)), "logs/stats.jsonl": b'{"step": 1}\n'}
    base = one("model", "base", weights, config={"T": 200}, inputs={"data": data}, revision=3)
    tuned = one(
        "tuned",
        "sketch",
        {"adapter.bin": bytes(64), "snapshots/0.png": b"png"},
        config={"target": "sketch"},
        inputs={"model": base, "data": data},
    )
    return [old, data, base, tuned]


if __name__ == "__main__":
    shutil.rmtree(FIXTURE, ignore_errors=True)
    made = Store(FIXTURE)
    build(made)
    made.tag("faces/v1", "best")
    for own in (".staging", ".trash", ".cache"):
        shutil.rmtree(FIXTURE / own, ignore_errors=True)
