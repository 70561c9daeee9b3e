"""The store: find artifacts, and make them once, completely, in a way that survives any kill.

A piece of work is done in a draft, ``<root>/.drafts/<key>/``, under a lock that dies with its
process. It becomes visible by one rename of the draft's payload folder, after every byte is on the
disk. The steps, and what a kill between them leaves:

1. ``make`` fills ``payload/`` and ``scratch/``: resumed by the next run.
2. the payload is hashed and synced, then ``finished.json`` is written: the next run goes on at 3.
3. under the store's lock a version number is chosen, ``manifest.json`` written, and the payload
   renamed to ``<kind>/<name>/vN``: the artifact is there, whole. A draft without a payload is
   rubbish, and the next run clears it away.
4. links for browsing, and the draft's removal.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dclip.config import jsonable, to_dict
from dclip.context import Context
from dclip.errors import BadInput, DclipError, StoreBusy
from dclip.store import files as disk
from dclip.store import refs
from dclip.store.manifest import (
    FORMAT,
    MANIFEST,
    Artifact,
    FileEntry,
    Manifest,
    artifact_id,
    cache_key,
    damage,
    describe,
    dump,
    now,
    software,
)

FINISHED = "finished.json"
OWNER = "owner.json"
_STORE_LOCK_WAIT = 60.0  # seconds; the lock is held for renames and small writes only
_SHOW_HASHING = 256 << 20  # bytes from which hashing takes long enough to show


class Planned(Exception):
    """What a dry run comes to instead of an artifact.

    Attributes:
        plan: ``stage``, ``kind``, ``name``, ``config``, ``inputs``, ``seed``, ``key``, ``cached``
            (whether the work is done already), ``ref`` (where, or None), ``resumes`` (whether an
            interrupted run would go on), ``estimate``.
    """

    def __init__(self, plan: dict[str, Any]) -> None:
        super().__init__(f"{plan['stage']} -> {plan['kind']}/{plan['name']}")
        self.plan = plan


@dataclass(frozen=True)
class Draft:
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
class _Request:
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


class Store:
    """A folder of artifacts.

    Args:
        root: the folder. Nothing is created before the first write.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(os.path.abspath(Path(root).expanduser()))  # noqa: PTH100 (keeps links)

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    # --- finding

    def resolve(
        self,
        ref: str | None,
        kind: str,
        report: refs.Notes | None = None,
        default: str | None = None,
    ) -> Artifact:
        """The artifact of ``kind`` that ``ref`` names.

        Args:
            ref: ``name``, ``name/v3``, ``name@tag``, ``kind/name/v3``, an id or a unique beginning
                of one (6 digits or more), the path of an artifact's folder, or ``embedded`` for
                what the package ships. None takes the newest of the kind, by creation time across
                names, and says so through ``report``.
            kind: what is needed.
            report: told which artifact was taken where ``ref`` is None.
            default: the reference to take where ``ref`` is None and the store holds none.

        Raises:
            MissingArtifact: nothing fits; the fix is a near name or the command that makes one.
            BadInput: ``ref`` is ambiguous or of another kind.
            CorruptArtifact, StoreError: it is there but cannot be used.
        """
        return refs.resolve(self.root, ref, kind, report, default)

    def find(self, ref: str, *, check: bool = True) -> Artifact:
        """The artifact of any kind that ``ref`` names; errors as :meth:`resolve`.

        Args:
            ref: as for :meth:`resolve`; a name that several kinds have needs its kind before it.
            check: refuse an artifact with missing or resized files.
        """
        return refs.find(self.root, ref, check=check)

    # --- making

    def build(
        self,
        *,
        stage: str,
        kind: str,
        name: str,
        config: Mapping[str, Any],
        inputs: Mapping[str, Artifact],
        seed: int,
        context: Context,
        make: Callable[[Draft], Mapping[str, Any]],
        estimate: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """Return the artifact of this work, doing the work only where it is not done yet.

        Args:
            stage, kind, name: what makes it, what it is, where it goes.
            config: everything that changes the result; a mapping or a dataclass of plain values.
            inputs: role -> the artifacts it is made from.
            seed: the seed.
            context: ``force`` makes a new version of done work, ``dry_run`` only plans.
            make: fills ``draft.path`` and returns the metrics. Called again with the same draft
                after an interruption, and then must come to the same files.
            estimate: what a dry run may say of size and time.

        Returns:
            The artifact, ``fresh`` if it was made now. Work that exists under another name is
            copied, not done again.

        Raises:
            Planned: ``context.dry_run``.
            StoreBusy: another process does this very work.
            StoreError: full disk, read-only store.
            BadInput: a bad name, or a config with NaN.
        """
        request = self._request(stage, kind, name, config, inputs, seed)
        found = None if context.force else self._done(request, context)
        if context.dry_run:
            raise Planned(self._plan(request, found, estimate))
        if found is not None and found.name == name:
            return self._up_to_date(found, context)
        with self._sole_writer(request):
            if not context.force:  # another process may have finished it since
                found = self._done(request, context)
                if found is not None and found.name == name:
                    return self._up_to_date(found, context)
            if found is not None:
                self._copy_payload(found, request)
            else:
                self._work(request, context, make)
            return self._commit(request)

    def _request(
        self,
        stage: str,
        kind: str,
        name: str,
        config: Mapping[str, Any],
        inputs: Mapping[str, Artifact],
        seed: int,
    ) -> _Request:
        refs.check_name(kind, "kind")
        refs.check_name(name)
        plain = to_dict(config)
        seed = int(seed)
        used = {
            role: {"id": artifact.id, "kind": artifact.kind, "ref": artifact.ref}
            for role, artifact in sorted(inputs.items())
        }
        ids = {role: ref["id"] for role, ref in used.items()}
        key = cache_key(stage, kind, plain, ids, seed)
        return _Request(stage, kind, name, plain, used, seed, key)

    def _done(self, request: _Request, context: Context) -> Artifact | None:
        """The newest sound artifact of this work, one of the right name before others."""
        same = [a for a in refs.readable(self.root, request.kind) if a.manifest.key == request.key]
        same.sort(key=lambda a: (a.name == request.name, refs.age(a)), reverse=True)
        for artifact in same:
            wrong = damage(artifact)
            if not wrong:
                return artifact
            context.report.warn(f"{artifact.ref} is damaged ({wrong[0]}); not using it")
        return None

    def _up_to_date(self, found: Artifact, context: Context) -> Artifact:
        newest = refs.versions(self.root, found.kind, found.name)[-1]
        if newest.version > found.version:
            context.report.note(
                f"{found.ref} holds this work already; {newest.ref} is newer, so name "
                f"{found.ref} to use it"
            )
        return found

    def _plan(
        self, request: _Request, found: Artifact | None, estimate: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        return {
            "stage": request.stage,
            "kind": request.kind,
            "name": request.name,
            "config": request.config,
            "inputs": request.inputs,
            "seed": request.seed,
            "key": request.key,
            "cached": found is not None,
            "ref": None if found is None else found.ref,
            "resumes": found is None and (self._draft_folder(request.key) / "payload").exists(),
            "estimate": None if estimate is None else jsonable(estimate, nonfinite=True),
        }

    # --- locks

    @property
    def drafts(self) -> Path:
        return self.root / ".drafts"

    @property
    def trash(self) -> Path:
        return self.root / ".trash"

    def _draft_folder(self, key: str) -> Path:
        return self.drafts / key

    def lock_path(self, key: str) -> Path:
        """The file whose lock means that a process works on ``key``."""
        return self.drafts / f"{key}.lock"

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the store's own lock: for choosing versions, tags, removal; moments only.

        Raises:
            StoreBusy: another process kept it for a minute.
        """

        def busy() -> StoreBusy:
            return StoreBusy(
                f"another process keeps the store {self.root} locked", "wait for it, then try again"
            )

        with disk.writing(self.root):
            disk.make_folder(self.drafts)
            stack = ExitStack()
            stack.enter_context(
                disk.lock(self.drafts / "store.lock", wait=_STORE_LOCK_WAIT, busy=busy)
            )
        with stack:
            yield

    @contextmanager
    def _sole_writer(self, request: _Request) -> Iterator[None]:
        def busy() -> StoreBusy:
            return StoreBusy(
                f"{self._owner(request)} is making {request.kind}/{request.name} already",
                "wait for it to finish, then run the same command: it will be up to date",
            )

        stack = ExitStack()
        # The lock file is opened under the store's lock, and only deleted under it, so that no two
        # processes can hold "the" lock on two different files of that name.
        with self.exclusive(), disk.writing(self.root):
            stack.enter_context(disk.lock(self.lock_path(request.key), wait=0, busy=busy))
        with stack:
            yield

    def _owner(self, request: _Request) -> str:
        with suppress(OSError, ValueError, KeyError, TypeError):
            owner = json.loads((self._draft_folder(request.key) / OWNER).read_bytes())
            return f"process {owner['pid']} on {owner['host']} (since {owner['since']})"
        return "another process"

    # --- the draft

    def _draft(self, request: _Request) -> Draft:
        """Open the draft of ``request``, as an earlier attempt left it or new."""
        folder = self._draft_folder(request.key)
        payload, scratch = folder / "payload", folder / "scratch"
        with disk.writing(self.root):
            if folder.exists() and not payload.exists():
                disk.discard(folder, self.trash)  # committed, or never begun
            disk.make_folder(scratch)
            self._sign(folder, request)
            payload.mkdir(exist_ok=True)
            (payload / MANIFEST).unlink(missing_ok=True)
            disk.drop_parts(folder)
            resumed = any(payload.iterdir()) or any(scratch.iterdir())
        return Draft(payload, scratch, resumed)

    def _sign(self, folder: Path, request: _Request) -> None:
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": now(),
            "stage": request.stage,
            "kind": request.kind,
            "name": request.name,
        }
        disk.write_atomic(folder / OWNER, json.dumps(owner, indent=2).encode())

    def _work(
        self,
        request: _Request,
        context: Context,
        make: Callable[[Draft], Mapping[str, Any]],
    ) -> None:
        """Run ``make`` to its end and seal the payload, unless an earlier attempt did."""
        draft = self._draft(request)
        if self._sealed(request) is not None:
            return
        if draft.resumed:
            context.report.note(f"going on with {request.kind}/{request.name} where it stopped")
        try:
            metrics = make(draft)
        except Exception as error:
            if disk.disk_full(error, self.root):
                raise disk.full_disk_error(self.root) from error
            if isinstance(error, DclipError) and not any(disk.walk(draft.scratch)):
                with suppress(OSError):  # nothing to go on from, and the reason will not go away
                    disk.discard(self._draft_folder(request.key), self.trash)
            if isinstance(error, OSError) and str(error.filename).startswith(str(self.root)):
                with disk.writing(self.root):
                    raise
            raise
        plain = jsonable(dict(metrics or {}), nonfinite=True, where="metrics")
        total = sum(info.st_size for _, info in disk.walk(draft.path))
        with disk.writing(self.root), ExitStack() as stack:
            advance = None
            if total >= _SHOW_HASHING:
                task = stack.enter_context(context.report.task("Checking in", total, unit="B"))
                advance = task.advance
            self._seal(request, plain, describe(draft.path, advance))

    def _seal(
        self, request: _Request, metrics: Mapping[str, Any], files: tuple[FileEntry, ...]
    ) -> None:
        """Put the payload on the disk for good and note that it is complete."""
        folder = self._draft_folder(request.key)
        disk.sync_tree(folder / "payload")
        entries = [[f.path, f.size, f.sha256] for f in files]
        data = {"metrics": metrics, "files": entries}
        disk.write_atomic(folder / FINISHED, json.dumps(data, allow_nan=False).encode())

    def _sealed(self, request: _Request) -> tuple[dict[str, Any], tuple[FileEntry, ...]] | None:
        """Metrics and files of a complete payload; None where ``make`` has yet to finish."""
        folder = self._draft_folder(request.key)
        marker = folder / FINISHED
        with disk.writing(self.root):
            try:
                data = json.loads(marker.read_bytes())
            except FileNotFoundError:
                return None
            files = tuple(FileEntry(*entry) for entry in data["files"])
            there = [(p, i.st_size) for p, i in disk.walk(folder / "payload") if p != MANIFEST]
            if there == [(f.path, f.size) for f in files]:
                return data["metrics"], files
            marker.unlink()  # someone changed the payload since
            return None

    def _copy_payload(self, source: Artifact, request: _Request) -> None:
        """Seal a copy of equal work that goes by another name."""
        folder = self._draft_folder(request.key)
        with disk.writing(self.root):
            if folder.exists():
                disk.discard(folder, self.trash)
            disk.make_folder(folder)
            self._sign(folder, request)
            copy = folder / "copy"
            for entry in source.manifest.files:
                target = copy / entry.path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source.path / entry.path, target)
            copy.mkdir(exist_ok=True)
            copy.rename(folder / "payload")
            self._seal(request, source.manifest.metrics, source.manifest.files)

    # --- the commit

    def _commit(self, request: _Request) -> Artifact:
        """Make the sealed payload visible as the next version."""
        sealed = self._sealed(request)
        if sealed is None:
            raise BadInput(
                f"the draft of {request.kind}/{request.name} changed while it was committed",
                "run the same command again",
            )
        metrics, files = sealed
        draft = self._draft_folder(request.key)
        with self.exclusive(), disk.writing(self.root):
            folder = self.root / request.kind / request.name
            disk.make_folder(folder)
            have = refs.versions(self.root, request.kind, request.name)
            last = refs.load_tags(self.root, request.kind, request.name).last
            version = 1 + max([last, *(place.version for place in have)])
            manifest = Manifest(
                format=FORMAT,
                id=artifact_id(
                    request.stage,
                    request.kind,
                    request.config,
                    request.input_ids,
                    request.seed,
                    files,
                ),
                key=request.key,
                stage=request.stage,
                kind=request.kind,
                name=request.name,
                version=version,
                config=request.config,
                inputs=request.inputs,
                seed=request.seed,
                versions=software(),
                created=now(),
                metrics=metrics,
                files=files,
            )
            disk.write_atomic(draft / "payload" / MANIFEST, dump(manifest))
            target = folder / f"v{version}"
            (draft / "payload").rename(target)
            disk.sync(folder)
            disk.sync(draft)
            refs.refresh_links(self.root, request.kind, request.name)
        self._clear(request.key)
        place = refs.Place(request.kind, request.name, version, target)
        return replace(refs.open_place(place, check=False), fresh=True)

    def _clear(self, key: str) -> None:
        """Drop a draft that is done with; what cannot go now is gc's."""
        with suppress(OSError, DclipError):
            disk.discard(self._draft_folder(key), self.trash)
            with self.exclusive():
                self.lock_path(key).unlink(missing_ok=True)
