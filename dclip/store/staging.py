"""The staging folder: where work is done unseen, what a kill leaves, and when it is complete."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dclip.config import jsonable
from dclip.context import Context, Reporter
from dclip.errors import DclipError
from dclip.store import files as disk
from dclip.store import journal, ledger
from dclip.store.artifact import Artifact
from dclip.store.manifest import MANIFEST, FileEntry, Manifest, describe, now
from dclip.store.reading import checked, read_json, storable, unchecked
from dclip.store.signed import signed_metadata

FINISHED = "finished.json"
OWNER = "owner.json"
_OF_WRITING = (errno.EIO, errno.EFBIG, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENXIO)
_SHOW_HASHING = 256 << 20  # bytes from which hashing takes long enough to show


@dataclass(frozen=True)
class Staging:
    """Where ``make`` works; both folders survive a kill and come back to the next attempt.

    Attributes:
        path: the payload to be.
        scratch: checkpoints and the like; dropped at commit.
        resumed: whether an earlier attempt left something in either.
    """

    path: Path
    scratch: Path
    resumed: bool


@dataclass(frozen=True)
class Request:
    """A piece of work, as the store sees it before it is done."""

    stage: str
    kind: str
    name: str
    config: dict[str, Any]
    inputs: dict[str, dict[str, str]]
    seed: int
    revision: int
    key: str

    @property
    def input_ids(self) -> dict[str, str]:
        return {role: ref["id"] for role, ref in self.inputs.items()}


@dataclass(frozen=True)
class Sealed:
    """A complete payload: what ``make`` returned, and every file."""

    metrics: dict[str, Any]
    files: tuple[FileEntry, ...]


class Workspace:
    """The folder ``<root>/.staging/<key>/``. All but :meth:`owner` is for the key's lock holder.

    Args:
        root: the store's folder.
        key: the work's cache key.
    """

    def __init__(self, root: Path, key: str) -> None:
        self.root = root
        self.folder = root / ".staging" / key
        self.payload = self.folder / "payload"
        self.scratch = self.folder / "scratch"
        self.trash = root / ".trash"

    def owner(self) -> str:
        """Who works here, in words."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            owner = read_json(self.folder / OWNER)
            return f"process {owner['pid']} on {owner['host']} (since {owner['since'][:19]}Z)"
        return "another process"

    def open(self, request: Request, report: Reporter) -> Staging:
        """What an earlier attempt left, as far as it is sound, or an empty folder."""
        with disk.writing(self.root):
            if self._exists() and not self._is_ours():
                self.discard()  # its payload was committed, or it never began
            if self.folder.exists():
                self._repair(request, report)
            self._sign(request)
            disk.make_folder(self.scratch)
            self.payload.mkdir(exist_ok=True)
            resumed = any(self.payload.iterdir()) or any(self.scratch.iterdir())
        return Staging(self.payload, self.scratch, resumed)

    def _exists(self) -> bool:
        return self.folder.exists() or self.folder.is_symlink()

    def _is_ours(self) -> bool:
        """Whether the folders are there, and no links to somewhere else."""
        parts = [self.folder, self.payload]
        parts += [self.scratch] if self.scratch.is_symlink() or self.scratch.exists() else []
        return all(part.is_dir() and not part.is_symlink() for part in parts)

    def _repair(self, request: Request, report: Reporter) -> None:
        """Drop what an interrupted run left that is not what it wrote; see :mod:`.ledger`."""
        what = f"what was left of {request.kind}/{request.name}"
        disk.drop_parts(self.folder)
        disk.remove(self.payload / MANIFEST)
        odd = [name for name, info in disk.walk(self.folder) if not disk.regular(info)]
        if odd:
            report.note(f"{what} holds {odd[0]}, which is no plain file; beginning anew")
            self.discard()
            return
        known: set[str] | None = None
        for path in sorted(self.scratch.glob("*.safetensors")):
            why, counted = _checkpoint_damage(path, self.payload)
            if why:
                report.note(f"{what} is damaged ({why}); beginning anew")
                self.discard()
                return
            known = (known or set()) | counted
        for path in sorted(self.scratch.glob("*.jsonl")):
            dropped, counted = journal.repair(path, self.payload)
            if dropped:
                report.note(f"{what} is damaged; going back to before the damage")
            known = (known or set()) | counted
        if known is not None:  # what no record knows is made again
            for name, _ in list(disk.walk(self.payload)):
                if name not in known:
                    (self.payload / name).unlink()

    def work(
        self, request: Request, context: Context, make: Callable[[Staging], Mapping[str, Any]]
    ) -> None:
        """Run ``make`` to its end and seal the payload, unless an earlier attempt came that far.

        Raises:
            StoreError: no space, or the store went read-only. What was done stays.
        """
        if self._exists() and self._is_ours() and self._take_sealed(request, context.report):
            return
        staging = self.open(request, context.report)
        if staging.resumed:
            context.report.note(f"going on with what was left of {request.kind}/{request.name}")
        try:
            metrics = make(staging)
        except Exception as error:
            if disk.disk_full(error, self.root):
                raise disk.full_disk_error(self.root) from error
            if isinstance(error, OSError) and self._is_of_the_store(error):
                with disk.writing(self.root):
                    raise
            if isinstance(error, DclipError) and not any(disk.walk(self.scratch)):
                with suppress(OSError):  # nothing to go on from, and the reason will not go away
                    self.discard()
            raise
        plain = storable(jsonable(dict(metrics or {}), nonfinite=True, where="metrics"))
        total = sum(info.st_size for _, info in disk.walk(self.payload))
        with disk.writing(self.root), ExitStack() as stack:
            advance = None
            if total >= _SHOW_HASHING:
                task = stack.enter_context(context.report.task("Checking in", total, unit="B"))
                advance = task.advance
            self._seal(Sealed(plain, describe(self.payload, advance)))

    def _is_of_the_store(self, error: OSError) -> bool:
        """Whether ``error`` is about a file here; a failed write() may name none at all."""
        if error.filename is None:
            return error.errno in _OF_WRITING
        return os.fsdecode(error.filename).startswith(str(self.root))

    def _take_sealed(self, request: Request, report: Reporter) -> bool:
        """Whether an earlier attempt finished, and every byte is as it left it; else begin anew."""
        if not (self.folder / FINISHED).exists():
            return False
        sealed = self.sealed()
        with disk.writing(self.root):
            if sealed is not None:
                disk.drop_parts(self.folder)
                disk.remove(self.payload / MANIFEST)
                try:
                    if describe(self.payload) == sealed.files:
                        return True
                except ValueError:
                    pass
            report.note(
                f"what was left of {request.kind}/{request.name} was changed after it was "
                "finished; beginning anew"
            )
            self.discard()
        return False

    def copy(self, source: Artifact, request: Request) -> bool:
        """Seal a copy of equal work; False where the source's bytes are not what it says."""
        manifest = source.manifest
        with disk.writing(self.root):
            self.discard()
            self._sign(request)
            copy = self.folder / "copy"
            copy.mkdir()
            copy_files(source.path, manifest, copy)
            if describe(copy) != tuple(sorted(manifest.files, key=lambda entry: entry.path)):
                self.discard()
                return False
            copy.rename(self.payload)
            self._seal(Sealed(dict(manifest.metrics), manifest.files))
        return True

    def sealed(self) -> Sealed | None:
        """The complete payload; None where it is not there, or not as large as it was."""
        with disk.writing(self.root):
            try:
                data = unchecked((self.folder / FINISHED).read_bytes())
                files = tuple(FileEntry(*entry) for entry in data["files"])
            except FileNotFoundError:
                return None
            except (ValueError, KeyError, TypeError):
                return None
            there = dict(disk.walk(self.payload))
            there.pop(MANIFEST, None)  # of an attempt that was killed before its rename
            if {path: info.st_size for path, info in there.items()} != {
                f.path: f.size for f in files
            }:
                return None
            return Sealed(data["metrics"], files)

    def discard(self) -> None:
        """Drop all of it, in one step."""
        disk.discard(self.folder, self.trash)

    def _sign(self, request: Request) -> None:
        disk.make_folder(self.folder)
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": now(),
            "stage": request.stage,
            "kind": request.kind,
            "name": request.name,
        }
        disk.write_atomic(self.folder / OWNER, json.dumps(owner, indent=2).encode())

    def _seal(self, sealed: Sealed) -> None:
        """Put the payload on the disk for good, then note that it is complete."""
        disk.drop_empty_folders(self.payload)  # no manifest could tell of them
        disk.sync_tree(self.payload)
        files = [[f.path, f.size, f.sha256] for f in sealed.files]
        data = checked({"metrics": sealed.metrics, "files": files})
        disk.write_atomic(self.folder / FINISHED, data)


def copy_files(source: Path, manifest: Manifest, target: Path) -> None:
    """Copy a manifest's files from one folder to another; a link among them is an OSError."""
    for entry in manifest.files:
        to = target / entry.path
        to.parent.mkdir(parents=True, exist_ok=True)
        copy_plain(source / entry.path, to)


def copy_plain(source: Path, target: Path) -> None:
    """Copy a file into a new one; a link is an OSError."""
    with disk.open_plain(source) as read, target.open("xb") as write:
        shutil.copyfileobj(read, write, 1 << 20)


def _checkpoint_damage(path: Path, payload: Path) -> tuple[str, set[str]]:
    """What is wrong with a checkpoint or the payload it counts on, and which files those are."""
    try:
        metadata = signed_metadata(path)
        record = json.loads(metadata.get("payload", "{}"))
        evidence = ledger.Evidence(payload, [record])
        for name, value in record.items():
            if not evidence.holds(name, value):
                return f"{name} is not as it was written", set()
        return "", set(record) | evidence.renamed
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        return f"{path.name}: {error}", set()
