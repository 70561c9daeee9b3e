"""What an artifact says about itself: the manifest, the cache key, the id, and loading them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dclip.config import jsonable
from dclip.errors import CorruptArtifact, MissingArtifact, StoreError
from dclip.store import files as disk

FORMAT = 1
MANIFEST = "manifest.json"
LOGS = "logs/"  # files that may hold times: checked by verify, left out of the id


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
        format: version of this layout; newer ones are refused.
        id: SHA-256 over what the artifact is; see :func:`artifact_id`.
        key: SHA-256 over what it was asked to be; see :func:`cache_key`.
        stage, kind, name, version: what made it, and where it was put.
        config: the stage's resolved config.
        inputs: role -> ``{"id", "kind", "ref"}`` of the artifacts it was made from. The ref is the
            one of that day; the id is what counts.
        seed: the seed.
        versions: of dclip, torch and python.
        created: UTC, ISO 8601 with microseconds, so that text order is time order.
        metrics: what ``make`` returned; NaN and infinity as ``None``.
        files: the payload, sorted by path.
    """

    format: int
    id: str
    key: str
    stage: str
    kind: str
    name: str
    version: int
    config: Mapping[str, Any]
    inputs: Mapping[str, Mapping[str, str]]
    seed: int
    versions: Mapping[str, str]
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
            "kind": self.kind,
            "name": self.name,
            "version": self.version,
            "created": self.created,
            "seed": self.seed,
            "config": dict(self.config),
            "inputs": {role: dict(ref) for role, ref in self.inputs.items()},
            "versions": dict(self.versions),
            "metrics": dict(self.metrics),
            "files": [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in self.files],
        }


@dataclass(frozen=True)
class Artifact:
    """A finished artifact on disk.

    Attributes:
        manifest: what it says about itself.
        path: its folder; payload files lie directly in it.
        ref: how to name it to a command: ``kind/name/vN``, ``kind/embedded`` or a path.
        fresh: whether this call made it; false for one that was there already.
    """

    manifest: Manifest
    path: Path
    ref: str
    fresh: bool = field(default=False, compare=False)

    def __hash__(self) -> int:
        return hash((self.id, self.ref))

    @property
    def id(self) -> str:
        """SHA-256 in hex of what the artifact is; equal wherever the same work was done."""
        return self.manifest.id

    @property
    def kind(self) -> str:
        return self.manifest.kind

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def version(self) -> int:
        return self.manifest.version

    @property
    def config(self) -> Mapping[str, Any]:
        return self.manifest.config

    @property
    def metrics(self) -> Mapping[str, Any]:
        return self.manifest.metrics

    @classmethod
    def open(cls, path: Path | str, *, ref: str | None = None, check: bool = True) -> Artifact:
        """Load an artifact's folder, wherever it is.

        Args:
            path: the folder.
            ref: how messages and manifests call it; the path by default.
            check: see that every payload file is there with its size. Zarr reads a missing shard
                as zeros without a word, so only those who repair or report turn this off.

        Raises:
            MissingArtifact: no such folder, or no manifest in it.
            CorruptArtifact: an unreadable manifest, or (``check``) missing or resized files.
            StoreError: a newer format.
        """
        path = Path(path)
        manifest = load(path, ref or str(path))
        artifact = cls(manifest, path, ref or str(path))
        if check and (wrong := damage(artifact)):
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise CorruptArtifact(
                f"{artifact.ref} is damaged: {wrong[0]}{more}",
                f"`dclip verify {artifact.ref}` lists it; running the command that made it again "
                "makes a sound version",
            )
        return artifact


def damage(artifact: Artifact) -> list[str]:
    """The payload files that are missing or of another size, in words."""
    wrong = []
    for entry in artifact.manifest.files:
        try:
            info = (artifact.path / entry.path).lstat()
        except (FileNotFoundError, NotADirectoryError):
            wrong.append(f"{entry.path} is missing")
            continue
        except OSError as error:
            wrong.append(f"{entry.path} cannot be reached: {error.strerror}")
            continue
        if not disk.regular(info):
            wrong.append(f"{entry.path} is not a plain file")
        elif info.st_size != entry.size:
            wrong.append(f"{entry.path} has {info.st_size} bytes instead of {entry.size}")
    return wrong


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
    stage: str, kind: str, config: Mapping[str, Any], inputs: Mapping[str, str], seed: int
) -> str:
    """What names a piece of work before it is done; ``inputs`` are role -> artifact id."""
    return digest(
        {
            "format": FORMAT,
            "stage": stage,
            "kind": kind,
            "config": config,
            "inputs": inputs,
            "seed": seed,
        }
    )


def artifact_id(
    stage: str,
    kind: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    seed: int,
    files: tuple[FileEntry, ...],
    format: int = FORMAT,
) -> str:
    """What names a piece of work once done: the request and every file outside ``logs/``.

    Name, version, times, software versions and metrics are no part of it, so that equal work has
    equal ids in any store.
    """
    return digest(
        {
            "format": format,
            "stage": stage,
            "kind": kind,
            "config": config,
            "inputs": inputs,
            "seed": seed,
            "files": [
                [f.path, f.size, f.sha256]
                for f in sorted(files, key=lambda f: f.path)
                if not f.path.startswith(LOGS)
            ],
        }
    )


def recomputed_id(manifest: Manifest) -> str:
    """The id that the rest of the manifest calls for."""
    return artifact_id(
        manifest.stage,
        manifest.kind,
        manifest.config,
        {role: ref["id"] for role, ref in manifest.inputs.items()},
        manifest.seed,
        manifest.files,
        manifest.format,
    )


def describe(folder: Path, on_bytes: Callable[[int], None] | None = None) -> tuple[FileEntry, ...]:
    """Hash every file below ``folder``.

    Raises:
        ValueError: something that is no plain file, or a file called ``manifest.json`` at the top.
    """
    entries = []
    for path, info in disk.walk(folder):
        if not disk.regular(info):
            raise ValueError(f"a payload holds plain files only; {path} is none")
        if path == MANIFEST:
            raise ValueError(f"{MANIFEST} is the store's own; call the payload file otherwise")
        if "\\" in path:
            raise ValueError(f"a payload's file names hold no backslash; {path!r} does")
        entries.append(FileEntry(path, info.st_size, disk.sha256(folder / path, on_bytes)))
    return tuple(entries)


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
        CorruptArtifact: it is not what this format says.
        StoreError: it is of a newer format, or cannot be read.
    """
    try:
        raw = (folder / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise MissingArtifact(f"{ref} is not an artifact: it has no {MANIFEST}") from None
    except OSError as error:
        raise StoreError(f"{ref} cannot be read: {error.strerror or error}") from error
    try:
        data = json.loads(raw)
        if not isinstance(data, dict) or not isinstance(data["format"], int):
            raise TypeError("no format")
    except (ValueError, KeyError, TypeError) as error:
        raise _broken(ref, f"not a manifest ({error})") from None
    if data["format"] > FORMAT:
        raise StoreError(
            f"{ref} was written by a newer dclip (format {data['format']}; this one reads up to "
            f"{FORMAT})",
            "pip install --upgrade dclip",
        )
    return _parse(data, ref)


_FIELDS: dict[str, type | tuple[type, ...]] = {
    "format": int,
    "id": str,
    "key": str,
    "stage": str,
    "kind": str,
    "name": str,
    "version": int,
    "created": str,
    "seed": int,
    "config": dict,
    "inputs": dict,
    "versions": dict,
    "metrics": dict,
    "files": list,
}


def _broken(ref: str, why: str) -> CorruptArtifact:
    return CorruptArtifact(
        f"the manifest of {ref} cannot be used: {why}", f"`dclip rm {ref}`, then make it again"
    )


def _parse(data: dict[str, Any], ref: str) -> Manifest:
    if data.keys() != _FIELDS.keys():
        odd = sorted(data.keys() ^ _FIELDS.keys())
        raise _broken(ref, f"missing or unknown keys {', '.join(odd)}")
    for key, kind in _FIELDS.items():
        if not isinstance(data[key], kind) or isinstance(data[key], bool):
            raise _broken(ref, f"{key} is {data[key]!r}")
    try:
        files = tuple(
            FileEntry(str(f["path"]), int(f["size"]), str(f["sha256"])) for f in data["files"]
        )
        inputs = {
            str(role): {"id": str(i["id"]), "kind": str(i["kind"]), "ref": str(i["ref"])}
            for role, i in data["inputs"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _broken(ref, f"files or inputs are malformed ({error})") from None
    for entry in files:
        # A manifest may come from anyone: it must not lead verify or export out of its folder.
        if entry.path.startswith("/") or "\\" in entry.path or ".." in entry.path.split("/"):
            raise _broken(ref, f"the path {entry.path!r} leads out of the artifact")
    return Manifest(
        **{
            **data,
            "files": files,
            "inputs": inputs,
        }
    )
