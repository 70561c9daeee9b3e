"""Where in a store artifacts lie, and loading them from there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from dclip.errors import CorruptArtifact, DclipError, MissingArtifact, StoreError
from dclip.store.manifest import MANIFEST, Artifact, Manifest, load
from dclip.store.names import VERSION


@dataclass(frozen=True, order=True)
class Place:
    """Where in a store an artifact lies; its manifest may be unreadable."""

    kind: str
    name: str
    version: int
    path: Path = field(compare=False)

    @property
    def ref(self) -> str:
        return f"{self.kind}/{self.name}/v{self.version}"


def _folders(path: Path) -> list[str]:
    """Names of the visible folders in ``path``, sorted; none where it does not exist."""
    try:
        with os.scandir(path) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error


def kinds(root: Path) -> list[str]:
    return _folders(root)


def versions(root: Path, kind: str, name: str) -> list[Place]:
    """The versions of a name, oldest first."""
    folder = root / kind / name
    found = [
        Place(kind, name, int(match[1]), folder / entry)
        for entry in _folders(folder)
        if (match := VERSION.fullmatch(entry))
    ]
    return sorted(found)


def places(root: Path, kind: str | None = None) -> Iterator[Place]:
    """Every artifact's place, by kind, name, version."""
    for each in kinds(root) if kind is None else [kind]:
        for name in _folders(root / each):
            yield from versions(root, each, name)


def read(place: Place) -> Manifest:
    """The manifest at ``place``, under the name that its folder has now.

    Raises:
        CorruptArtifact: unreadable, absent, or of another kind than its folder.
        StoreError: a newer format.
    """
    try:
        manifest = load(place.path, place.ref)
    except MissingArtifact as error:
        raise CorruptArtifact(
            f"{place.ref} has no {MANIFEST}", f"`dclip rm {place.ref}`, then make it again"
        ) from error
    if manifest.kind != place.kind:
        raise CorruptArtifact(
            f"{place.ref} holds an artifact of kind {manifest.kind}",
            f"move the folder back below {manifest.kind}/",
        )
    return replace(manifest, name=place.name, version=place.version)


def open_place(place: Place, *, check: bool = True) -> Artifact:
    """Load the artifact at ``place``; see :meth:`Artifact.open` for ``check`` and errors."""
    manifest = read(place)
    if check:
        Artifact.open(place.path, ref=place.ref)
    return Artifact(manifest, place.path, place.ref)


def readable(root: Path, kind: str | None = None) -> Iterator[Artifact]:
    """Every artifact whose manifest can be read; payloads are not looked at."""
    for place in places(root, kind):
        with suppress(DclipError):
            yield open_place(place, check=False)


def age(artifact: Artifact) -> tuple[str, int, str]:
    """Sorts from old to new."""
    return (artifact.manifest.created, artifact.version, artifact.name)
