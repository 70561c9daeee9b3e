"""Whether artifacts are what their manifests say; the answer is data, not an exception."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dclip.context import Reporter, Silent
from dclip.errors import DclipError, StoreError
from dclip.store import files as disk
from dclip.store.manifest import MANIFEST, Artifact, recomputed_id
from dclip.store.places import Place, open_place, places, versions
from dclip.store.refs import locate
from dclip.store.tags import load_tags

_JUNK = {".DS_Store", "Thumbs.db", "desktop.ini"}  # file browsers leave these anywhere


@dataclass(frozen=True)
class Problem:
    """Something in a store that is not as its manifest says.

    Attributes:
        ref: the artifact.
        what: ``missing``, ``size``, ``hash``, ``extra``, ``link``, ``manifest``, ``newer`` or
            ``tag``.
        path: the file below the artifact, or "" for the artifact itself.
        detail: the same in words.
    """

    ref: str
    what: str
    path: str
    detail: str

    def __str__(self) -> str:
        return f"{self.ref}: {self.detail}"


@dataclass(frozen=True)
class Verification:
    """What :func:`verify` looked at and found; sound if there are no ``problems``."""

    artifacts: int
    files: int
    bytes: int
    full: bool
    problems: tuple[Problem, ...]


def verify(
    root: Path, ref: str | None = None, *, full: bool = False, report: Reporter | None = None
) -> Verification:
    """Compare artifacts with their manifests.

    Args:
        root: the store.
        ref: one artifact; None for all of the store, tags included.
        full: read every byte and compare SHA-256, instead of presence and size alone.
        report: shown the progress of a full check.

    Raises:
        MissingArtifact, BadInput: ``ref`` leads nowhere. Damage is returned, not raised.
    """
    at = list(places(root)) if ref is None else [locate(root, ref)]
    problems: list[Problem] = []
    artifacts: list[Artifact] = []
    for place in at:
        try:
            artifacts.append(open_place(place, check=False) if isinstance(place, Place) else place)
        except StoreError as error:
            problems.append(Problem(place.ref, "newer", MANIFEST, error.message))
        except DclipError as error:
            problems.append(Problem(place.ref, "manifest", MANIFEST, error.message))
    total = sum(artifact.manifest.size for artifact in artifacts)
    with ExitStack() as stack:
        task = None
        if full:
            task = stack.enter_context((report or Silent()).task("Verifying", total, unit="B"))
        for artifact in artifacts:
            problems += _check(artifact, full)
            if task is not None:
                task.advance(artifact.manifest.size)
    if ref is None:
        problems += _dangling_tags(root)
    files = sum(len(artifact.manifest.files) for artifact in artifacts)
    return Verification(len(at), files, total, full, tuple(problems))


def _check(artifact: Artifact, full: bool) -> Iterator[Problem]:
    ref, manifest = artifact.ref, artifact.manifest
    if recomputed_id(manifest) != manifest.id:
        yield Problem(ref, "manifest", MANIFEST, "the manifest was changed: its id does not fit")
    there = dict(disk.walk(artifact.path))
    there.pop(MANIFEST, None)
    for entry in manifest.files:
        info = there.pop(entry.path, None)
        if info is None:
            yield Problem(ref, "missing", entry.path, f"{entry.path} is missing")
        elif not disk.regular(info):
            yield Problem(ref, "link", entry.path, f"{entry.path} is not a plain file")
        elif info.st_size != entry.size:
            detail = f"{entry.path} has {info.st_size} bytes instead of {entry.size}"
            yield Problem(ref, "size", entry.path, detail)
        elif full:
            try:
                changed = disk.sha256(artifact.path / entry.path) != entry.sha256
            except OSError as error:
                detail = f"{entry.path} cannot be read: {error.strerror}"
                yield Problem(ref, "hash", entry.path, detail)
                continue
            if changed:
                detail = f"{entry.path} has other content than was written (SHA-256)"
                yield Problem(ref, "hash", entry.path, detail)
    for path in there:
        if path.rpartition("/")[2] not in _JUNK:
            yield Problem(ref, "extra", path, f"{path} is not part of it")


def _dangling_tags(root: Path) -> Iterator[Problem]:
    for kind, name in sorted({(place.kind, place.name) for place in places(root)}):
        ref = f"{kind}/{name}"
        try:
            tags = load_tags(root, kind, name).tags
        except DclipError as error:
            yield Problem(ref, "tag", "tags.json", error.message)
            continue
        have = {place.version for place in versions(root, kind, name)}
        for tag, version in tags.items():
            if version not in have:
                yield Problem(ref, "tag", "", f"the tag {tag} is on v{version}, which is gone")
