"""Taking out of a store: remove, and gc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dclip.errors import BadInput, DclipError, StoreBusy, StoreError
from dclip.store import files as disk
from dclip.store.lineage import users
from dclip.store.paths import (
    VersionPath,
    check_inside,
    keep_highest,
    kinds,
    names,
    open_version,
    readable,
)
from dclip.store.reading import read_json
from dclip.store.refs import locate
from dclip.store.staging import OWNER
from dclip.store.tags import load_tags, refresh_links, save_tags

if TYPE_CHECKING:
    from dclip.store.store import Store


@dataclass(frozen=True)
class Removed:
    """An artifact that is gone.

    Attributes:
        ref: what it was called.
        bytes: that were freed.
        stays: where its files still are, if the version was a link to them; else "".
    """

    ref: str
    bytes: int
    stays: str = ""


def remove(store: Store, ref: str, *, force: bool = False) -> Removed:
    """Remove one version, in one step, whatever state it is in. Its number is not used again.

    Of a version that is a link, to files on another disk say, the link goes and the files stay.

    Args:
        store: the store.
        ref: the version; a bare name means its latest.
        force: remove it although others were made from it.

    Raises:
        BadInput: others were made from it (they are named), or it is not in the store.
        MissingArtifact: there is no such artifact.
        StoreBusy, StoreError: the store cannot be written now, or the version lies outside of it.
    """
    root = store.root
    locate(root, ref)  # before the lock, so that a mistyped name needs no writable store
    with store.exclusive(), disk.writing(root):
        at = locate(root, ref)
        if not isinstance(at, VersionPath):
            raise BadInput(f"{at.ref} is not in the store {root}", "remove that folder yourself")
        check_inside(root, at.path.parent)
        if not force and (made := users(root, at)) and not _has_twin(root, at):
            named = ", ".join(artifact.ref for artifact in made[:5])
            more = f" and {len(made) - 5} more" if len(made) > 5 else ""
            raise BadInput(
                f"{at.ref} is what {named}{more} came from",
                "remove those first, or say --force",
            )
        linked = at.path.is_symlink()
        stays = os.path.realpath(at.path) if linked and at.path.exists() else ""
        size = 0 if linked else disk.size_of(at.path)
        # The number before the folder: a kill in between must not let it come back.
        keep_highest(root, at.kind, at.name)
        with suppress(DclipError):  # tags that cannot be read are left as they are
            tags = load_tags(root, at.kind, at.name)
            kept = {tag: version for tag, version in tags.items() if version != at.version}
            if kept != tags:
                save_tags(root, at.kind, at.name, kept)
        gone = disk.retire(at.path, store.trash)
        disk.sync(root / at.kind / at.name)
        refresh_links(root, at.kind, at.name)
    disk.free(gone)
    return Removed(at.ref, size, stays)


def _has_twin(root: Path, at: VersionPath) -> bool:
    """Whether another copy of the same work stays for the dependents."""
    with suppress(DclipError):
        id = open_version(at).id
        return any(a.id == id and a.ref != at.ref for a in readable(root, at.kind))
    return False


@dataclass(frozen=True)
class Garbage:
    """Something that gc frees: its path, what it is in words, its bytes."""

    path: Path
    what: str
    bytes: int


@dataclass(frozen=True)
class Collected:
    """What :func:`gc` freed, or with ``dry_run`` would free; ``busy`` is what is in work now."""

    items: tuple[Garbage, ...]
    busy: tuple[str, ...]
    dry_run: bool

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.items)


def gc(store: Store, *, dry_run: bool = False) -> Collected:
    """Drop unfinished work that no process is at, and what removals left behind.

    Dropping unfinished work costs only that the same command begins anew instead of going on.

    Raises:
        StoreBusy: another process has the store locked.
        StoreError: the store cannot be written, or a folder of its own is a link: nothing behind a
            link is touched.
    """
    items: list[Garbage] = []
    busy: list[str] = []
    gone: list[Path] = []
    for folder in (store.staging, store.trash):
        disk.own_folder(folder)
    if not (store.staging.exists() or store.trash.exists()):
        return Collected((), (), dry_run)
    with ExitStack() as stack:
        try:
            stack.enter_context(store.exclusive())
        except StoreError:
            if not dry_run:  # looking is allowed in a read-only store
                raise
        with disk.writing(store.root):
            for folder in sorted(p for p in store.staging.glob("*") if p.is_dir()):
                what = _unfinished_words(folder)
                with ExitStack() as held:
                    try:
                        held.enter_context(_probe(store, folder.name))
                    except StoreBusy:
                        busy.append(what)
                        continue
                    items.append(Garbage(folder, what, disk.size_of(folder)))
                    if not dry_run:
                        gone.append(disk.retire(folder, store.trash))
            if not dry_run:
                _drop_free_locks(store)
            for path in sorted(store.trash.glob("*")):
                if path not in gone:
                    items.append(Garbage(path, "rubbish of a removal", disk.size_of(path)))
                    gone.append(path)
            for path in _interrupted_writes(store.root):
                items.append(Garbage(path, "rubbish of an interrupted write", disk.size_of(path)))
                gone.append(path)
            for path in store.hashes.drop_stale():
                items.append(Garbage(path, "hashes of files that are gone", disk.size_of(path)))
                gone.append(path)
    if not dry_run:
        for path in gone:
            disk.free(path)
    return Collected(tuple(items), tuple(busy), dry_run)


def _interrupted_writes(root: Path) -> Iterator[Path]:
    """What kills left in the folders of names; no link that leaves the store is followed."""
    for kind in kinds(root):
        for name in names(root, kind):
            folder = root / kind / name
            try:
                check_inside(root, folder)
                found = sorted(p for p in folder.iterdir() if p.name.startswith(disk.PART))
            except (StoreError, OSError):
                continue
            yield from found


def _probe(store: Store, key: str) -> ExitStack:
    """Hold the lock of ``key`` if no process works on it; StoreBusy if one does."""
    held = ExitStack()
    path = store.lock_path(key)
    if path.exists() and not path.is_symlink():
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


def _unfinished_words(folder: Path) -> str:
    with suppress(OSError, ValueError, KeyError, TypeError):
        owner = read_json(folder / OWNER)
        what = f"{owner['stage']} -> {owner['kind']}/{owner['name']}"
        return f"unfinished {what} of {owner['since'][:10]}"
    return "unfinished work"
