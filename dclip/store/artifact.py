"""A finished artifact on disk, and whether its files are what its manifest says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dclip.errors import CorruptArtifact
from dclip.hashing import HashCache
from dclip.store import files as disk
from dclip.store.manifest import Manifest, load


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
            check: see that every payload file is there with its size, since zarr reads a missing
                shard as zeros. :meth:`dclip.store.Store.resolve` also compares the content.

        Raises:
            MissingArtifact: no such folder, or no manifest in it.
            CorruptArtifact: an unreadable manifest, or (``check``) missing or resized files.
            StoreError: another format.
        """
        path = Path(path)
        artifact = cls(load(path, ref or str(path)), path, ref or str(path))
        if check:
            check_files(artifact)
        return artifact


Check = Callable[[Artifact], None]
"""Raises CorruptArtifact where an artifact's files are not what its manifest says."""


def check_files(artifact: Artifact, hashes: HashCache | None = None, **how: Any) -> None:
    """Refuse an artifact whose files are not what its manifest says; see :func:`damage`.

    Raises:
        CorruptArtifact: the first of its files that is not, and how many more are not.
    """
    if wrong := damage(artifact, hashes, **how):
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        full = "" if hashes is None else " --full"
        raise CorruptArtifact(
            f"{artifact.ref} is damaged: {wrong[0]}{more}",
            f"`dclip verify {artifact.ref}{full}` lists it; running the command that made it again "
            "makes a sound version",
        )


def damage(
    artifact: Artifact,
    hashes: HashCache | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> list[str]:
    """What is wrong with the payload's files, in words.

    Args:
        artifact: what to look at.
        hashes: also compares every file's SHA-256, as far as it changed since it was last read;
            None looks for presence and size alone.
        on_bytes: told how many more bytes were hashed.
    """
    wrong = []
    try:
        # Links are listed and not followed: a file behind a linked folder counts as missing.
        there = dict(disk.walk(artifact.path))
    except OSError as error:
        return [f"its folder cannot be read: {error.strerror or error}"]
    for entry in artifact.manifest.files:
        info = there.get(entry.path)
        if info is None:
            wrong.append(f"{entry.path} is missing")
        elif not disk.regular(info):
            wrong.append(f"{entry.path} is not a plain file")
        elif info.st_size != entry.size:
            wrong.append(f"{entry.path} has {info.st_size} bytes instead of {entry.size}")
    if wrong or hashes is None:
        return wrong
    for entry in artifact.manifest.files:
        try:
            found = hashes.file(artifact.path / entry.path, on_bytes=on_bytes)
        except OSError as error:
            wrong.append(f"{entry.path} cannot be read: {error.strerror or error}")
            continue
        if found != entry.sha256:
            wrong.append(f"{entry.path} has other content than was written (SHA-256)")
    hashes.save()
    return wrong
