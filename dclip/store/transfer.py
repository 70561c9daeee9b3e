"""Artifacts between stores: export copies out of one, import_artifact into one."""

from __future__ import annotations

import fnmatch
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dclip.errors import BadInput, CorruptArtifact, DclipError, MissingArtifact
from dclip.hashing import HashCache
from dclip.store import files as disk
from dclip.store.artifact import Artifact, check_files
from dclip.store.build import adopt
from dclip.store.ids import LOGS
from dclip.store.manifest import MANIFEST, Manifest, describe, dump, recomputed_id
from dclip.store.paths import check_inside, open_version, readable, version_paths
from dclip.store.refs import Notes
from dclip.store.staging import Request, copy_files, copy_plain

if TYPE_CHECKING:
    from dclip.store.store import Store

RECORDS = ("*.png", "samples/*", "snapshots/*", f"{LOGS}*")
"""Files of an artifact that tell how it came about and that no stage reads."""

NEEDED = ("model", "clip", "tuned")
"""Kinds of inputs without which an artifact cannot be used for editing."""


def slim(manifest: Manifest) -> Manifest:
    """The manifest of the artifact without its :data:`RECORDS`: another artifact, by its id."""
    files = tuple(
        entry
        for entry in manifest.files
        if not any(fnmatch.fnmatchcase(entry.path, pattern) for pattern in RECORDS)
    )
    lean = replace(manifest, files=files)
    return replace(lean, id=recomputed_id(lean))


def export(artifact: Artifact, directory: Path | str, *, lean: bool = False) -> Path:
    """Copy an artifact's folder, manifest and all, byte for byte.

    Args:
        artifact: what to copy.
        directory: the new folder; its parent must exist, it must not (an empty one may).
        lean: leave out its logs and pictures; the copy is an artifact of its own.

    Raises:
        BadInput: ``directory`` has something in it, is inside a store, or cannot be there.
        CorruptArtifact: the artifact is not what its manifest says, or holds links.
        StoreError: the system refuses to write it.
    """
    with _new_folder(directory, artifact) as part:
        _copy(artifact, part, lean=lean)
    return Path(directory).expanduser()


def needed(store: Store, artifact: Artifact) -> list[Artifact]:
    """What ``artifact`` cannot be used without: the base and the CLIPs that it was tuned with.

    Raises:
        MissingArtifact, CorruptArtifact: one of them is gone or damaged.
    """
    found: dict[str, Artifact] = {}
    for role, used in artifact.manifest.inputs.items():
        if used["kind"] in NEEDED and used["id"] not in found:
            inside = store.input(artifact, role)
            found[inside.id] = inside
            if inside.kind == "tuned":
                found |= {each.id: each for each in needed(store, inside)}
    return list(found.values())


def export_with_base(store: Store, artifact: Artifact, directory: Path | str) -> Sequence[Artifact]:
    """Copy an artifact and what it cannot be used without into a new folder.

    The folder is laid out as a store, so that it can be used with ``--store`` as it is, or be
    imported into another store by :func:`import_artifact`.

    Returns:
        what was copied, ``artifact`` first.

    Raises: as :func:`export` and :func:`needed`.
    """
    items = [artifact, *needed(store, artifact)]
    with _new_folder(directory, artifact) as part:
        for item in items:
            own = Artifact.open(item.path).manifest  # by its own name, where it is embedded
            _copy(item, part / own.kind / own.name / f"v{own.version}")
    return items


@contextmanager
def _new_folder(directory: Path | str, artifact: Artifact) -> Iterator[Path]:
    """A hidden folder that takes the place of ``directory`` when the block ends well."""
    try:
        directory = Path(directory).expanduser()
        if b"\0" in os.fsencode(directory):
            raise ValueError("a NUL in it")
        if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
            raise BadInput(f"{directory} exists and is not a folder", "name a new folder")
        if directory.exists() and any(directory.iterdir()):
            raise BadInput(f"{directory} is not empty", "name a new folder, or empty that one")
        if not directory.absolute().parent.is_dir():
            raise BadInput(f"there is no folder {directory.parent}", "make it first")
        part = directory.with_name(f"{disk.PART}{secrets.token_hex(4)}-{directory.name[:100]}")
        if (inside := _store_around(directory, artifact)) is not None:
            raise BadInput(
                f"{directory} is inside the store {inside}, where only finished work belongs",
                "name a folder elsewhere; `dclip tag` gives a version another name",
            )
    except (OSError, ValueError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise BadInput(
            f"{str(directory)!a} cannot be a folder: {why or error}", "name another"
        ) from None
    with disk.writing(directory, "the folder"):
        try:
            part.mkdir()
            yield part
            disk.sync_tree(part)
            part.replace(directory)
            disk.sync(directory.absolute().parent)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


def _store_around(directory: Path, artifact: Artifact) -> Path | None:
    """The store that ``directory`` would be in, if any: the artifact's own, or one in use."""
    above = directory.resolve().parents
    own = artifact.path.absolute().parent.parent.parent
    in_store = f"{artifact.kind}/{artifact.name}/v{artifact.version}" == artifact.ref
    if in_store and own.resolve() in above:
        return own
    return next((each for each in above if (each / ".staging" / "store.lock").exists()), None)


def _copy(artifact: Artifact, target: Path, *, lean: bool = False) -> None:
    """Copy an artifact's files and manifest into a new folder, and see that they are right."""
    Artifact.open(artifact.path, ref=artifact.ref)  # also refuses links
    manifest = slim(artifact.manifest) if lean else artifact.manifest
    target.mkdir(parents=True, exist_ok=True)
    copy_files(artifact.path, manifest, target)
    if describe(target) != tuple(sorted(manifest.files, key=lambda entry: entry.path)):
        check_files(artifact, HashCache())
        raise CorruptArtifact(
            f"{artifact.ref} changed while it was copied", "run the same command again"
        )
    if lean:
        (target / MANIFEST).write_bytes(dump(manifest))
    else:
        copy_plain(artifact.path / MANIFEST, target / MANIFEST)
    Artifact.open(target, ref=artifact.ref)


# --- import --------------------------------------------------------------------------------------


def import_artifact(store: Store, folder: Path | str, report: Notes | None = None) -> Artifact:
    """Copy what :func:`export` or :func:`export_with_base` wrote into a store.

    Every byte is compared with the manifest; what no manifest names stays behind. An artifact that
    the store has already, by its id, is not copied again. Kind, name, config, metrics and the time
    of making stay; the version is the next one of the name.

    Args:
        store: where to.
        folder: an artifact's folder, or one of several artifacts laid out as a store.
        report: warned of a base or CLIP that the artifact needs and the store does not hold.

    Returns:
        the artifact; of several, the one that none of the others was made from. ``fresh`` if it
        was copied now.

    Raises:
        MissingArtifact: there is no artifact in ``folder``.
        BadInput: ``folder`` cannot be read, or holds several artifacts that do not belong together.
        CorruptArtifact: a file is not what its manifest says, or is a link.
        StoreBusy, StoreError: the store cannot be written.
    """
    found = list({artifact.id: artifact for artifact in _artifacts_in(folder)}.values())
    used = {i["id"] for artifact in found for i in artifact.manifest.inputs.values()}
    tops = [artifact for artifact in found if artifact.id not in used]
    if len(tops) != 1:
        raise BadInput(
            f"{folder} holds several artifacts that do not belong together: "
            + ", ".join(artifact.ref for artifact in tops[:5]),
            "name the folder of one of them",
        )
    for artifact in found:  # all of them before the first is copied
        check_files(artifact, HashCache())
    for artifact in found:
        if artifact is not tops[0]:
            _take(store, artifact)
    made = _take(store, tops[0])
    if report is not None:
        try:
            needed(store, made)
        except MissingArtifact as error:
            report.warn(f"{error.message}; export it with --with-base to bring that too")
    return made


def _artifacts_in(folder: Path | str) -> list[Artifact]:
    try:
        folder = Path(folder).expanduser().absolute()
        if not folder.is_dir():
            raise MissingArtifact(f"there is no folder {folder}", "check the path")
        if (folder / MANIFEST).exists():
            return [Artifact.open(folder, check=False)]
        found = []
        for at in version_paths(folder):
            check_inside(folder, at.path)
            found.append(open_version(at))
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput(f"{folder} cannot be read: {error}", "check the path") from None
    if not found:
        raise MissingArtifact(
            f"there is no artifact in {folder}",
            "name a folder that `dclip export` wrote: it holds a manifest.json",
        )
    return found


def _take(store: Store, artifact: Artifact) -> Artifact:
    """The store's own copy of an artifact from outside."""
    for own in readable(store.root, artifact.kind):
        if own.id == artifact.id:
            try:
                check_files(own, store.hashes)
                return own
            except DclipError:
                continue
    m = artifact.manifest
    inputs = {role: dict(used) for role, used in m.inputs.items()}
    request = Request(m.stage, m.kind, m.name, dict(m.config), inputs, m.seed, m.revision, m.key)
    return adopt(store, artifact, request)
