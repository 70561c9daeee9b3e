"""Taking out of a store: remove, gc; and export, which copies out of it."""

from __future__ import annotations

import fnmatch
import json
import secrets
import shutil
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dclip.errors import BadInput, DclipError, StoreBusy, StoreError
from dclip.store import files as disk
from dclip.store.lineage import users
from dclip.store.manifest import LOGS, MANIFEST, Artifact, Manifest, dump, recomputed_id
from dclip.store.places import Place, open_place, readable, versions
from dclip.store.refs import locate
from dclip.store.staging import OWNER
from dclip.store.tags import Tags, load_tags, refresh_links, save_tags

if TYPE_CHECKING:
    from dclip.store.store import Store


@dataclass(frozen=True)
class Removed:
    """An artifact that is gone: its ref, and the bytes that were freed."""

    ref: str
    bytes: int


def remove(store: Store, ref: str, *, force: bool = False) -> Removed:
    """Remove one version, in one step. Its number is not used again.

    Args:
        store: the store.
        ref: the version; a bare name means its latest.
        force: remove it although others were made from it.

    Raises:
        BadInput: others were made from it (they are named), or it is not in the store.
        MissingArtifact: there is no such artifact.
        StoreBusy, StoreError: the store cannot be written now.
    """
    root = store.root
    locate(root, ref)  # before the lock, so that a mistyped name needs no writable store
    with store.exclusive(), disk.writing(root):
        place = locate(root, ref)
        if not isinstance(place, Place):
            raise BadInput(f"{place.ref} is not in the store {root}", "remove that folder yourself")
        if not force and (made := users(root, place)) and not _has_twin(root, place):
            named = ", ".join(artifact.ref for artifact in made[:5])
            more = f" and {len(made) - 5} more" if len(made) > 5 else ""
            raise BadInput(
                f"{place.ref} is what {named}{more} came from",
                "remove those first, or say --force",
            )
        size = disk.size_of(place.path)
        kind, name = place.kind, place.name
        tags = Tags()
        with suppress(DclipError):
            tags = load_tags(root, kind, name)
        last = max([tags.last, *(each.version for each in versions(root, kind, name))])
        kept = {tag: version for tag, version in tags.tags.items() if version != place.version}
        # The counter before the folder: a kill in between must not let the number come back.
        save_tags(root, kind, name, Tags(last, kept))
        gone = disk.retire(place.path, store.trash)
        disk.sync(root / kind / name)
        refresh_links(root, kind, name)
    disk.free(gone)
    return Removed(place.ref, size)


def _has_twin(root: Path, place: Place) -> bool:
    """Whether another copy of the same work stays for the dependents."""
    with suppress(DclipError):
        id = open_place(place, check=False).id
        return any(a.id == id and a.ref != place.ref for a in readable(root, place.kind))
    return False


@dataclass(frozen=True)
class Garbage:
    """Something that gc frees: its path, what it is in words, its bytes."""

    path: Path
    what: str
    bytes: int


@dataclass(frozen=True)
class Collected:
    """What :func:`gc` freed, or with ``dry_run`` would free; ``busy`` are drafts in work now."""

    items: tuple[Garbage, ...]
    busy: tuple[str, ...]
    dry_run: bool

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.items)


def gc(store: Store, *, dry_run: bool = False) -> Collected:
    """Drop drafts that no process works on, and what removals left behind.

    A dropped draft costs only that the same command begins anew instead of going on.

    Raises:
        StoreBusy, StoreError: the store cannot be written.
    """
    items: list[Garbage] = []
    busy: list[str] = []
    gone: list[Path] = []
    if not (store.staging.exists() or store.trash.exists()):
        return Collected((), (), dry_run)
    with ExitStack() as stack:
        try:
            stack.enter_context(store.exclusive())
        except StoreError:
            if not dry_run:  # looking is allowed in a read-only store
                raise
        with disk.writing(store.root):
            for staging in sorted(p for p in store.staging.glob("*") if p.is_dir()):
                what = _draft_words(staging)
                with ExitStack() as held:
                    try:
                        held.enter_context(_probe(store, staging.name))
                    except StoreBusy:
                        busy.append(what)
                        continue
                    items.append(Garbage(staging, what, disk.size_of(staging)))
                    if not dry_run:
                        gone.append(disk.retire(staging, store.trash))
            if not dry_run:
                _drop_free_locks(store)
            for path in sorted(store.trash.glob("*")):
                if path not in gone:
                    items.append(Garbage(path, "rubbish of a removal", disk.size_of(path)))
                    gone.append(path)
            for path in sorted(store.root.glob(f"*/*/{disk.PART}*")):
                items.append(Garbage(path, "rubbish of an interrupted write", disk.size_of(path)))
                gone.append(path)
    if not dry_run:
        for path in gone:
            disk.free(path)
    return Collected(tuple(items), tuple(busy), dry_run)


def _probe(store: Store, key: str) -> ExitStack:
    """Hold the lock of ``key`` if no process works on it; StoreBusy if one does."""
    held = ExitStack()
    path = store.lock_path(key)
    if path.exists():
        with suppress(OSError):  # a read-only store: nobody can be writing it
            held.enter_context(disk.lock(path, wait=0, busy=lambda: StoreBusy("in work")))
    return held


def _drop_free_locks(store: Store) -> None:
    for path in store.staging.glob("*.lock"):
        key = path.name.removesuffix(".lock")
        if path == store.store_lock or (store.staging / key).exists():
            continue
        with suppress(StoreBusy, OSError), _probe(store, key):
            path.unlink()


def _draft_words(staging: Path) -> str:
    with suppress(OSError, ValueError, KeyError, TypeError):
        owner = json.loads((staging / OWNER).read_bytes())
        what = f"{owner['stage']} -> {owner['kind']}/{owner['name']}"
        return f"unfinished {what} of {owner['since'][:10]}"
    return "unfinished work"


# --- export --------------------------------------------------------------------------------------


RECORDS = ("*.png", "samples/*", "snapshots/*", f"{LOGS}*")
"""Files of an artifact that tell how it came about and that no stage reads."""


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
        BadInput: ``directory`` has something in it, or cannot be there.
        CorruptArtifact: the copy is not what the manifest says.
        StoreError: the system refuses to write it.
    """
    directory = Path(directory)
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise BadInput(f"{directory} exists and is not a folder", "name a new folder")
    if directory.exists() and any(directory.iterdir()):
        raise BadInput(f"{directory} is not empty", "name a new folder, or empty that one")
    if not directory.absolute().parent.is_dir():
        raise BadInput(f"there is no folder {directory.parent}", "make it first")
    part = directory.with_name(f"{disk.PART}{secrets.token_hex(4)}-{directory.name}")
    Artifact.open(artifact.path, ref=artifact.ref)
    manifest = slim(artifact.manifest) if lean else artifact.manifest
    with disk.writing(directory, "the folder"):
        try:
            for entry in manifest.files:
                target = part / entry.path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(artifact.path / entry.path, target)
            if lean:
                (part / MANIFEST).write_bytes(dump(manifest))
            else:
                part.mkdir(exist_ok=True)
                shutil.copyfile(artifact.path / MANIFEST, part / MANIFEST)
            Artifact.open(part, ref=artifact.ref)
            disk.sync_tree(part)
            part.replace(directory)
            disk.sync(directory.absolute().parent)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    return directory
