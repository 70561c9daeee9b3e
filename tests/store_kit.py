"""What the tests of the store share: small work, and a reporter that remembers."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dclip.context import Context, Silent
from dclip.store import Artifact, Staging, Store


class Heard(Silent):
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def write_two(staging: Staging) -> Mapping[str, Any]:
    (staging.path / "images").mkdir(exist_ok=True)
    (staging.path / "images" / "0.png").write_bytes(b"not really a picture")
    (staging.path / "table.csv").write_text("a,b\n1,2\n")
    return {"loss": 0.5}


def never(staging: Staging) -> Mapping[str, Any]:
    raise AssertionError("the work was done again")


def put(
    store: Store,
    name: str = "faces",
    *,
    kind: str = "data",
    config: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Artifact] | None = None,
    context: Context | None = None,
    make: Callable[[Staging], Mapping[str, Any]] = write_two,
    seed: int = 0,
    **more: Any,
) -> Artifact:
    return store.build(
        stage="prepare",
        kind=kind,
        name=name,
        config=config or {"size": 64},
        inputs=inputs or {},
        seed=seed,
        context=context or Context(),
        make=make,
        **more,
    )


def edit_manifest(artifact: Artifact, **changes: Any) -> None:
    path = artifact.path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def tree(root: Path) -> dict[str, bytes]:
    """Every visible file of a store and its bytes."""
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in sorted(root.rglob("*"))
        if p.is_file() and not p.relative_to(root).parts[0].startswith(".")
    }


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """A folder in memory where the system has one: these tests write thousands of small files."""
    memory = Path("/dev/shm")
    where = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where) as folder:
        yield Path(folder).resolve()
