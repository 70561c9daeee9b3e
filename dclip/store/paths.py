"""Where in a store artifacts lie, and loading them from there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from dclip.errors import CorruptArtifact, DclipError, MissingArtifact, StoreError
from dclip.store.artifact import Artifact, Check
from dclip.store.manifest import MANIFEST, Manifest, load
from dclip.store.names import VERSION, valid

_COUNTER = ".last-"  # begins the name of the empty file that holds a name's highest version


@dataclass(frozen=True, order=True)
class VersionPath:
    """Where in a store a version of an artifact lies; its manifest may be unreadable."""

    kind: str
    name: str
    version: int
    path: Path = field(compare=False)

    @property
    def ref(self) -> str:
        return f"{self.kind}/{self.name}/v{self.version}"


def _entries(path: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted by name; nothing where it does not exist."""
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise StoreError(f"{path} cannot be read: {why or error}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # a link to itself, say
        return entry.is_dir()
    return False


def _folders(path: Path) -> list[str]:
    """The folders in ``path`` that can be a kind or a name."""
    return [each.name for each in _entries(path) if valid(each.name) and _is_folder(each)]


def kinds(root: Path) -> list[str]:
    """The kinds that a store has folders of."""
    return _folders(root)


def names(root: Path, kind: str) -> list[str]:
    """The names of a kind that a store has folders of."""
    return _folders(root / kind)


def names_in_use(root: Path) -> list[tuple[str, str]]:
    """Every (kind, name) that has versions, sorted."""
    return sorted({(at.kind, at.name) for at in version_paths(root)})


def versions(root: Path, kind: str, name: str) -> list[VersionPath]:
    """The versions of a name, oldest first; a link to one on another disk that is away included."""
    folder = root / kind / name
    found = [
        VersionPath(kind, name, int(match[1]), folder / entry.name)
        for entry in _entries(folder)
        if (match := VERSION.fullmatch(entry.name)) and (entry.is_symlink() or _is_folder(entry))
    ]
    return sorted(found)


def highest(root: Path, kind: str, name: str) -> int:
    """The highest version number that a name ever had, as far as is known; 0 if none."""
    numbers = [0]
    for entry in _entries(root / kind / name):
        if match := VERSION.fullmatch(entry.name.removeprefix(_COUNTER)):
            numbers.append(int(match[1]))
    return max(numbers)


def keep_highest(root: Path, kind: str, name: str) -> None:
    """Write down the highest version number of a name, so that it is not used again.

    It is the name of an empty file, which no damage to a file's content can change. The caller
    holds the store's lock.
    """
    from dclip.store import files as disk

    folder = root / kind / name
    kept = folder / f"{_COUNTER}v{highest(root, kind, name)}"
    if not kept.exists():
        disk.write_atomic(kept, b"")
    for entry in _entries(folder):
        if entry.name.startswith(_COUNTER) and entry.name != kept.name:
            with suppress(OSError):
                (folder / entry.name).unlink()


def version_paths(root: Path, kind: str | None = None) -> Iterator[VersionPath]:
    """Every version in a store, by kind, name, version."""
    for each in kinds(root) if kind is None else [kind]:
        for name in names(root, each):
            yield from versions(root, each, name)


def read(at: VersionPath) -> Manifest:
    """The manifest of a version, under the name that its folder has now.

    Raises:
        CorruptArtifact: unreadable, absent, or of another kind than its folder.
        StoreError: another format, or a link to what is not there.
    """
    try:
        manifest = load(at.path, at.ref)
    except MissingArtifact as error:
        if at.path.is_symlink() and not at.path.exists():
            raise StoreError(
                f"{at.ref} is a link to {at.path.readlink()}, which is not there",
                f"connect that disk again; `dclip rm {at.ref}` removes the link",
            ) from error
        raise CorruptArtifact(
            f"{at.ref} has no {MANIFEST}", f"`dclip rm {at.ref}`, then make it again"
        ) from error
    if manifest.kind != at.kind:
        raise CorruptArtifact(
            f"{at.ref} holds an artifact of kind {manifest.kind}",
            f"move the folder back below {manifest.kind}/, or `dclip rm {at.ref}`",
        )
    return replace(manifest, name=at.name, version=at.version)


def open_version(at: VersionPath, check: Check | None = None) -> Artifact:
    """Load the artifact of a version; errors as :func:`read` and those of ``check``."""
    artifact = Artifact(read(at), at.path, at.ref)
    if check is not None:
        check(artifact)
    return artifact


def readable(root: Path, kind: str | None = None) -> Iterator[Artifact]:
    """Every artifact whose manifest can be read; payloads are not looked at."""
    for at in version_paths(root, kind):
        with suppress(DclipError):
            yield open_version(at)


def age(artifact: Artifact) -> tuple[str, int, str]:
    """Sorts from old to new."""
    return (artifact.manifest.created, artifact.version, artifact.name)


def check_inside(root: Path, folder: Path) -> None:
    """Refuse a folder that cannot be written, or where a link below the store leads out of it.

    Args:
        root: the store; itself it may be a link.
        folder: a kind's or name's folder in it, which need not exist.

    Raises:
        StoreError: one of its parts is a link that leaves the store, is no folder, or is read-only.
    """
    try:
        _check_inside(root, folder)
    except (OSError, RuntimeError) as error:  # links in a circle
        why = error.strerror if isinstance(error, OSError) else None
        raise StoreError(f"{folder} cannot be reached: {why or error}") from None


def _check_inside(root: Path, folder: Path) -> None:
    real = root.resolve()
    at = root
    for part in ("", *folder.relative_to(root).parts):
        at = at / part
        there = at.exists()
        if at != root and not at.resolve().is_relative_to(real):
            raise StoreError(
                f"{at} is a link that leads out of the store, to {at.resolve()}; dclip writes and "
                "removes nothing there",
                "put the whole store on that disk with --store DIR, or mount the disk at that "
                "folder instead of the link",
            )
        if there and not at.is_dir():
            raise StoreError(f"{at} is not a folder, which the store needs", "move that file away")
