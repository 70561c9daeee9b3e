"""Whether artifacts are what their manifests say; the answer is data, not an exception."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dclip.context import Reporter, Silent
from dclip.errors import CorruptArtifact, DclipError
from dclip.hashing import HashCache
from dclip.store import files as disk
from dclip.store.artifact import Artifact
from dclip.store.manifest import MANIFEST
from dclip.store.names import TAGS, parse
from dclip.store.paths import (
    VersionPath,
    names_in_use,
    open_version,
    readable,
    version_paths,
    versions,
)
from dclip.store.refs import ASSETS, locate
from dclip.store.tags import load_tags

_JUNK = {".DS_Store", "Thumbs.db", "desktop.ini"}  # file browsers leave these anywhere


@dataclass(frozen=True)
class Problem:
    """Something in a store that is not as its manifest says.

    Attributes:
        ref: the artifact.
        what: ``missing``, ``size``, ``hash``, ``extra``, ``link``, ``manifest``, ``format`` (of
            another dclip, or not to be reached), ``input`` or ``tag``.
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
    root: Path,
    ref: str | None = None,
    *,
    full: bool = False,
    report: Reporter | None = None,
    hashes: HashCache | None = None,
) -> Verification:
    """Compare artifacts with their manifests.

    A manifest's own id and cache key, its keys and its values are checked whenever it is read.

    Args:
        root: the store.
        ref: one artifact; None for all of the store, tags included.
        full: read every byte and compare SHA-256, instead of presence and size alone, and check
            what the manifests say of their inputs.
        report: shown the progress of a full check.
        hashes: learns what a full check reads.

    Raises:
        MissingArtifact, BadInput: ``ref`` leads nowhere. Damage is returned, not raised.
    """
    at = list(version_paths(root)) if ref is None else [locate(root, ref)]
    problems: list[Problem] = []
    artifacts: list[Artifact] = []
    for each in at:
        try:
            artifacts.append(open_version(each) if isinstance(each, VersionPath) else each)
        except CorruptArtifact as error:
            problems.append(Problem(each.ref, "manifest", MANIFEST, error.message))
        except DclipError as error:
            problems.append(Problem(each.ref, "format", MANIFEST, error.message))
    total = sum(artifact.manifest.size for artifact in artifacts)
    kinds = {a.id: a.kind for a in readable(root)} if full else {}
    known = HashCache() if hashes is None else hashes
    with ExitStack() as stack:
        advance = None
        if full:
            task = stack.enter_context((report or Silent()).task("Verifying", total, unit="B"))
            advance = task.advance
        for artifact in artifacts:
            problems += _check_files(artifact, known if full else None, advance)
            problems += _check_inputs(artifact, kinds) if full else []
    known.save()
    if ref is None:
        problems += _dangling_tags(root)
    files = sum(len(artifact.manifest.files) for artifact in artifacts)
    return Verification(len(at), files, total, full, tuple(problems))


def _check_files(
    artifact: Artifact, hashes: HashCache | None, advance: Callable[[int], None] | None
) -> Iterator[Problem]:
    ref, manifest = artifact.ref, artifact.manifest
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
        elif hashes is not None:
            try:
                file = artifact.path / entry.path
                changed = hashes.file(file, fresh=True, on_bytes=advance) != entry.sha256
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
    yield from _extra_folders(artifact)


def _extra_folders(artifact: Artifact) -> Iterator[Problem]:
    """Folders in an artifact that no file of it is in, and that hold nothing."""
    for top, folders, names in os.walk(artifact.path):
        if not folders and not names and Path(top) != artifact.path:
            path = Path(top).relative_to(artifact.path).as_posix()
            yield Problem(artifact.ref, "extra", path, f"the empty folder {path} is not part of it")


def _check_inputs(artifact: Artifact, kinds: Mapping[str, str]) -> Iterator[Problem]:
    """What a manifest says of its inputs that cannot be so."""
    for role, used in artifact.manifest.inputs.items():
        kind, ref = kinds.get(used["id"], used["kind"]), used["ref"]
        if kind != used["kind"]:
            detail = f"its input {role} is said to be of kind {used['kind']} and is a {kind}"
            yield Problem(artifact.ref, "input", MANIFEST, detail)
        parsed = parse(ref)
        named = (ref in ASSETS and ref.startswith(f"{used['kind']}/")) or (
            parsed is not None and parsed.version is not None and parsed.kind == used["kind"]
        )
        if not named and not Path(ref).is_absolute():
            detail = f"its input {role} has the reference {ref!r}, which is none of a {kind}"
            yield Problem(artifact.ref, "input", MANIFEST, detail)


def _dangling_tags(root: Path) -> Iterator[Problem]:
    for kind, name in names_in_use(root):
        ref = f"{kind}/{name}"
        try:
            tags = load_tags(root, kind, name)
        except DclipError as error:
            yield Problem(ref, "tag", TAGS, error.message)
            continue
        have = {at.version for at in versions(root, kind, name)}
        for tag, version in tags.items():
            if version not in have:
                yield Problem(ref, "tag", "", f"the tag {tag} is on v{version}, which is gone")
