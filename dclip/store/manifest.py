"""What an artifact says about itself: the manifest, written once and read strictly."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dclip import hashing
from dclip.errors import BadInput, CorruptArtifact, MissingArtifact, StoreError
from dclip.store import files as disk
from dclip.store.ids import FORMAT, artifact_id, cache_key
from dclip.store.names import LARGEST_VERSION, valid
from dclip.store.reading import read_json

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class FileEntry:
    """One payload file: path below the artifact with forward slashes, bytes, SHA-256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything known about an artifact but its payload.

    Attributes:
        format: version of this layout; others are refused.
        id: SHA-256 over what the artifact is; see :func:`dclip.store.ids.artifact_id`.
        key: SHA-256 over what it was asked to be; see :func:`dclip.store.ids.cache_key`.
        stage, kind, name, version: what made it, and where it was put.
        revision: of the stage's algorithm; another revision is other work.
        config: the stage's resolved config.
        inputs: role -> ``{"id", "kind", "ref"}`` of the artifacts it was made from. The ref is the
            one of that day; the id is what counts.
        seed: the seed.
        versions: of dclip, torch and python.
        made_on: the device and what else of the machine decides on rounding; not part of the id.
        created: UTC, ISO 8601 with microseconds, so that text order is time order.
        metrics: what ``make`` returned; NaN and infinity as ``None``.
        files: the payload, sorted by path.
    """

    format: int
    id: str
    key: str
    stage: str
    revision: int
    kind: str
    name: str
    version: int
    config: Mapping[str, Any]
    inputs: Mapping[str, Mapping[str, str]]
    seed: int
    versions: Mapping[str, str]
    made_on: Mapping[str, str]
    created: str
    metrics: Mapping[str, Any]
    files: tuple[FileEntry, ...]

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return sum(entry.size for entry in self.files)

    def to_json(self) -> dict[str, Any]:
        """As ``manifest.json`` holds it."""
        return {
            "format": self.format,
            "id": self.id,
            "key": self.key,
            "stage": self.stage,
            "revision": self.revision,
            "kind": self.kind,
            "name": self.name,
            "version": self.version,
            "created": self.created,
            "seed": self.seed,
            "config": dict(self.config),
            "inputs": {role: dict(ref) for role, ref in self.inputs.items()},
            "versions": dict(self.versions),
            "made_on": dict(self.made_on),
            "metrics": dict(self.metrics),
            "files": [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in self.files],
        }


def recomputed_key(manifest: Manifest) -> str:
    """The cache key that the rest of the manifest calls for."""
    return cache_key(
        manifest.stage,
        manifest.revision,
        manifest.kind,
        manifest.config,
        {role: ref["id"] for role, ref in manifest.inputs.items()},
        manifest.seed,
    )


def recomputed_id(manifest: Manifest) -> str:
    """The id that the rest of the manifest calls for."""
    return artifact_id(recomputed_key(manifest), manifest.files)


def describe(folder: Path, on_bytes: Callable[[int], None] | None = None) -> tuple[FileEntry, ...]:
    """Hash every file below ``folder``.

    Raises:
        ValueError: something that is no plain file, or a file called ``manifest.json`` at the top.
        BadInput: a file's name is one that not every system can hold.
    """
    entries = []
    for path, info in disk.walk(folder):
        if not disk.regular(info):
            raise ValueError(f"a payload holds plain files only; {path} is none")
        if path == MANIFEST:
            raise ValueError(f"{MANIFEST} is the store's own; call the payload file otherwise")
        if why := unfit(path):
            raise BadInput(
                f"an artifact cannot hold a file named {path!a}: {why}",
                "rename what it was made from, in letters, digits, - and _",
            )
        entries.append(FileEntry(path, info.st_size, hashing.sha256(folder / path, on_bytes)))
    return tuple(entries)


def unfit(path: str) -> str:
    """Why ``path`` cannot be that of a payload file, in words; "" where it can."""
    parts = path.split("/")
    if "\\" in path or "\0" in path:
        return "it has a backslash or a NUL"
    if any(part in ("", ".", "..") for part in parts):
        return "it leads out of the artifact"
    try:
        longest = max(len(part.encode()) for part in parts)
    except UnicodeEncodeError:
        return "it is not UTF-8"
    return f"a part of it has {longest} bytes" if longest > 255 else ""


def now() -> str:
    """The time in UTC as manifests write it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def software() -> dict[str, str]:
    """Versions worth remembering; torch's without importing it."""
    import platform
    from importlib import metadata

    from dclip import __version__

    found = {"dclip": __version__, "python": platform.python_version()}
    try:
        found["torch"] = metadata.version("torch")
    except metadata.PackageNotFoundError:
        found["torch"] = "absent"
    return found


def surroundings(device: str | None) -> dict[str, str]:
    """What decides on the rounding of a result, for :attr:`Manifest.made_on`.

    Args:
        device: the device in words, such as ``cuda: NVIDIA H100``; None where none computed.
    """
    import platform

    found = {} if device is None else {"device": device}
    found["system"] = f"{platform.system()} {platform.machine()}".strip()
    torch = sys.modules.get("torch")  # where it is not loaded, nothing was computed with it
    if torch is not None and hasattr(torch, "get_float32_matmul_precision"):
        found["float32 matmul precision"] = str(torch.get_float32_matmul_precision())
    return found


def dump(manifest: Manifest) -> bytes:
    """``manifest.json``'s bytes: for people to read, so indented."""
    return (json.dumps(manifest.to_json(), indent=2, allow_nan=False) + "\n").encode("ascii")


def load(folder: Path, ref: str) -> Manifest:
    """Read ``folder``'s manifest, strictly.

    Args:
        folder: an artifact's folder.
        ref: how messages call it.

    Raises:
        MissingArtifact: there is none.
        CorruptArtifact: it is not what this format says, or its id or key does not fit the rest.
        StoreError: it is of another format, or cannot be read.
    """
    try:
        data = read_json(folder / MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingArtifact(f"{ref} is not an artifact: it has no {MANIFEST}") from None
    except OSError as error:
        raise StoreError(f"{ref} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise broken(ref, f"not a manifest ({error})") from None
    number: Any = data.get("format")
    if not _whole(number) or number < 1:
        raise broken(ref, "not a manifest (no format)")
    if number != FORMAT:
        raise other_format(ref, number)
    return _parse(data, ref)


def other_format(what: str, number: int) -> StoreError:
    """The error for a file of an older or a newer format."""
    if number > FORMAT:
        return StoreError(
            f"{what} was written by a newer dclip (format {number}; this one reads {FORMAT})",
            "pip install --upgrade dclip",
        )
    return StoreError(
        f"{what} was written by an older dclip (format {number}; this one reads {FORMAT})",
        f"make it again with this dclip{_removal(what)}",
    )


def broken(ref: str, why: str) -> CorruptArtifact:
    """The error for a manifest that cannot be used."""
    return CorruptArtifact(
        f"the manifest of {ref} cannot be used: {why}", f"make it again{_removal(ref)}"
    )


def _removal(ref: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+/v[0-9]+", ref):
        return f"; `dclip rm {ref}` removes this one"
    return "; remove that folder yourself"


_FIELDS: dict[str, type] = {
    "format": int,
    "id": str,
    "key": str,
    "stage": str,
    "revision": int,
    "kind": str,
    "name": str,
    "version": int,
    "created": str,
    "seed": int,
    "config": dict,
    "inputs": dict,
    "versions": dict,
    "made_on": dict,
    "metrics": dict,
    "files": list,
}
_HASH = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.A)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _parse(data: dict[str, Any], ref: str) -> Manifest:
    if data.keys() != _FIELDS.keys():
        odd = sorted(data.keys() ^ _FIELDS.keys())
        raise broken(ref, f"missing or unknown keys {', '.join(map(_brief, odd[:5]))}")
    for key, kind in _FIELDS.items():
        if not isinstance(data[key], kind) or isinstance(data[key], bool):
            raise broken(ref, f"{key} is {_brief(data[key])}")
    sound = {
        "id": _HASH.fullmatch(data["id"]),
        "key": _HASH.fullmatch(data["key"]),
        "stage": valid(data["stage"]),
        "revision": 1 <= data["revision"] <= LARGEST_VERSION,
        "kind": valid(data["kind"]),
        "name": valid(data["name"]),
        "version": 1 <= data["version"] <= LARGEST_VERSION,
        "created": _TIME.fullmatch(data["created"]),
        "versions": all(isinstance(value, str) for value in data["versions"].values()),
        "made_on": all(isinstance(value, str) for value in data["made_on"].values()),
        "inputs": all(_input(used) for used in data["inputs"].values()),
        "files": all(_entry(each) for each in data["files"]),
    }
    for key, fits in sound.items():
        if not fits:
            raise broken(ref, f"{key} is {_brief(data[key])}")
    for each in data["files"]:
        # A manifest may come from anyone: it must not lead verify or export out of its folder.
        if each["path"] == MANIFEST or (why := unfit(each["path"])):
            why = why if each["path"] != MANIFEST else "that is the manifest"
            raise broken(ref, f"a file is named {_brief(each['path'])}: {why}")
    files = tuple(FileEntry(each["path"], each["size"], each["sha256"]) for each in data["files"])
    if len({entry.path for entry in files}) != len(files):
        raise broken(ref, "a file is listed twice")
    manifest = Manifest(**{**data, "files": files})
    key = recomputed_key(manifest)
    if manifest.key != key or manifest.id != artifact_id(key, files):
        raise broken(ref, "it was changed: its id or key does not fit the rest")
    return manifest


def _input(used: Any) -> bool:
    return (
        isinstance(used, dict)
        and used.keys() == {"id", "kind", "ref"}
        and all(isinstance(value, str) for value in used.values())
        and _HASH.fullmatch(used["id"]) is not None
        and valid(used["kind"])
        and 0 < len(used["ref"]) <= 4096
    )


def _entry(each: Any) -> bool:
    return (
        isinstance(each, dict)
        and each.keys() == {"path", "size", "sha256"}
        and isinstance(each["path"], str)
        and _whole(each["size"])
        and 0 <= each["size"] < 2**63
        and isinstance(each["sha256"], str)
        and _HASH.fullmatch(each["sha256"]) is not None
    )


def _brief(value: Any) -> str:
    shown = ascii(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}..."
