"""The draft: where work is done unseen, what a kill leaves of it, and when it is complete."""

from __future__ import annotations

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
from dclip.context import Context
from dclip.errors import DclipError
from dclip.store import files as disk
from dclip.store.manifest import MANIFEST, Artifact, FileEntry, describe, now

FINISHED = "finished.json"
OWNER = "owner.json"
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
            owner = json.loads((self.folder / OWNER).read_bytes())
            return f"process {owner['pid']} on {owner['host']} (since {owner['since'][:19]}Z)"
        return "another process"

    def open(self, request: Request) -> Staging:
        """The draft as an earlier attempt left it, or a new one."""
        with disk.writing(self.root):
            if self.folder.exists() and not self.payload.exists():
                self.discard()  # its payload was committed, or it never began
            self._sign(request)
            disk.make_folder(self.scratch)
            self.payload.mkdir(exist_ok=True)
            (self.payload / MANIFEST).unlink(missing_ok=True)
            disk.drop_parts(self.folder)
            resumed = any(self.payload.iterdir()) or any(self.scratch.iterdir())
        return Staging(self.payload, self.scratch, resumed)

    def work(
        self, request: Request, context: Context, make: Callable[[Staging], Mapping[str, Any]]
    ) -> None:
        """Run ``make`` to its end and seal the payload, unless an earlier attempt came that far.

        Raises:
            StoreError: no space, or the store went read-only. The draft stays.
        """
        staging = self.open(request)
        if self.sealed() is not None:
            return
        if staging.resumed:
            context.report.note(f"going on with what was left of {request.kind}/{request.name}")
        try:
            metrics = make(staging)
        except Exception as error:
            if disk.disk_full(error, self.root):
                raise disk.full_disk_error(self.root) from error
            if isinstance(error, OSError) and str(error.filename).startswith(str(self.root)):
                with disk.writing(self.root):
                    raise
            if isinstance(error, DclipError) and not any(disk.walk(self.scratch)):
                with suppress(OSError):  # nothing to go on from, and the reason will not go away
                    self.discard()
            raise
        plain = jsonable(dict(metrics or {}), nonfinite=True, where="metrics")
        total = sum(info.st_size for _, info in disk.walk(self.payload))
        with disk.writing(self.root), ExitStack() as stack:
            advance = None
            if total >= _SHOW_HASHING:
                task = stack.enter_context(context.report.task("Checking in", total, unit="B"))
                advance = task.advance
            self._seal(Sealed(plain, describe(self.payload, advance)))

    def copy(self, source: Artifact, request: Request) -> bool:
        """Seal a copy of equal work; False where the source's bytes are not what it says."""
        manifest = source.manifest
        with disk.writing(self.root):
            self.discard()
            self._sign(request)
            copy = self.folder / "copy"
            copy.mkdir()
            for entry in manifest.files:
                target = copy / entry.path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source.path / entry.path, target)
            if describe(copy) != manifest.files:
                self.discard()
                return False
            copy.rename(self.payload)
            self._seal(Sealed(dict(manifest.metrics), manifest.files))
        return True

    def sealed(self) -> Sealed | None:
        """The complete payload; None where ``make`` has yet to finish."""
        marker = self.folder / FINISHED
        with disk.writing(self.root):
            try:
                data = json.loads(marker.read_bytes())
            except FileNotFoundError:
                return None
            files = tuple(FileEntry(*entry) for entry in data["files"])
            there = [(path, info.st_size) for path, info in disk.walk(self.payload)]
            if there == [(f.path, f.size) for f in files]:
                return Sealed(data["metrics"], files)
            marker.unlink()  # someone changed the payload since
            return None

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
        disk.sync_tree(self.payload)
        files = [[f.path, f.size, f.sha256] for f in sealed.files]
        data = json.dumps({"metrics": sealed.metrics, "files": files}, allow_nan=False)
        disk.write_atomic(self.folder / FINISHED, data.encode())
