"""The names of work: the cache key before it is done, the id after it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dclip.config import jsonable

if TYPE_CHECKING:
    from dclip.store.manifest import FileEntry

FORMAT = 2
LOGS = "logs/"  # files that may hold times: checked by verify, left out of the id


def canonical(value: Any) -> bytes:
    """One spelling for equal values: sorted keys, no spaces, ASCII, finite numbers, 1.0 as 1."""
    plain = _whole(jsonable(value))
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def _whole(value: Any) -> Any:
    """Whole floats as ints: ``strength=1`` and ``strength=1.0`` are one setting."""
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def digest(value: Any) -> str:
    """SHA-256 in hex of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical(value)).hexdigest()


def cache_key(
    stage: str,
    revision: int,
    kind: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    seed: int,
) -> str:
    """What names a piece of work before it is done; ``inputs`` are role -> artifact id."""
    return digest(
        {
            "format": FORMAT,
            "stage": stage,
            "revision": revision,
            "kind": kind,
            "config": config,
            "inputs": inputs,
            "seed": seed,
        }
    )


def artifact_id(key: str, files: Iterable[FileEntry]) -> str:
    """What names a piece of work once done: its cache key and every file outside ``logs/``.

    Name, version, times, software, device and metrics are no part of it, so that equal work has
    equal ids in any store.
    """
    kept = [f for f in sorted(files, key=lambda f: f.path) if not f.path.startswith(LOGS)]
    return digest({"key": key, "files": [[f.path, f.size, f.sha256] for f in kept]})
