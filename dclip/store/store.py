"""The store: find artifacts, and make them once, completely, in a way that survives any kill.

A piece of work is done in a staging folder, ``<root>/.staging/<key>/``, under a lock that dies with
its process. It becomes visible by one rename of the payload folder in it, after every byte is on
the disk. The steps, and what a kill between them leaves:

1. ``make`` fills ``payload/`` and ``scratch/``: resumed by the next run.
2. the payload is hashed and synced, then ``finished.json`` is written: the next run goes on at 3.
3. under the store's lock a version number is chosen, ``manifest.json`` written, and the payload
   renamed to ``<kind>/<name>/vN``: the artifact is there, whole. A staging folder without a payload
   is rubbish, and the next run clears it away.
4. links for browsing, and the staging folder's removal.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dclip.config import jsonable, to_dict
from dclip.context import Context, Reporter
from dclip.errors import (
    BadInput,
    CorruptArtifact,
    DclipError,
    MissingArtifact,
    StoreBusy,
    StoreError,
)
from dclip.hashing import HashCache
from dclip.store import files as disk
from dclip.store import lineage, refs, tags, transfer, upkeep, verify
from dclip.store.artifact import Artifact, check_files, damage
from dclip.store.ids import FORMAT, artifact_id, cache_key
from dclip.store.manifest import MANIFEST, Manifest, dump, now, software, surroundings
from dclip.store.names import LATEST, check_name, valid_tag
from dclip.store.paths import (
    VersionPath,
    age,
    check_inside,
    highest,
    keep_highest,
    open_version,
    readable,
    version_paths,
    versions,
)
from dclip.store.reading import storable
from dclip.store.staging import Request, Staging, Workspace

_SHOW_READING = (
    512 << 20
)  # bytes from which reading an input to verify it takes long enough to show
_STORE_LOCK_WAIT = 60.0  # seconds; the lock is held for renames and small writes only


class Planned(Exception):
    """What a dry run comes to instead of an artifact.

    Attributes:
        plan: ``stage``, ``kind``, ``name``, ``config``, ``inputs``, ``seed``, ``revision``,
            ``key``, ``cached`` (whether the work is done already), ``ref`` (where, or None),
            ``resumes`` (whether an interrupted run would go on), ``estimate``.
        before: the plans of what would be made first, for a stage that runs others. Where those
            are not made yet, the ids of ``inputs`` and the ``key`` cannot be known and are None.
    """

    def __init__(self, plan: dict[str, Any], before: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(f"{plan['stage']} -> {plan['kind']}/{plan['name']}")
        self.plan, self.before = plan, list(before)


@dataclass(frozen=True)
class _Origin:
    """With what, on what and when an artifact's bytes were computed, as its manifest says."""

    versions: Mapping[str, str]
    made_on: Mapping[str, str]
    created: str


@dataclass(frozen=True)
class Broken:
    """A version in the store whose manifest cannot be used.

    Attributes:
        at: where it lies.
        error: what is wrong with it, and what to do.
    """

    at: VersionPath
    error: DclipError

    @property
    def state(self) -> str:
        """``corrupt``, or ``unreadable``: of another format, or not to be reached now."""
        return "corrupt" if isinstance(self.error, CorruptArtifact) else "unreadable"


class Store:
    """A folder of artifacts.

    Args:
        root: the folder. Nothing is created before the first write.
        verify: compare the content of artifacts with their SHA-256 when they are read: every file
            once, and again when its size, times or inode have changed. Without it presence and size
            are compared.

    Raises:
        StoreError: ``root`` is a file, or there is no current folder to begin from.
        BadInput: ``root`` cannot be a path.
    """

    def __init__(self, root: Path | str, *, verify: bool = True) -> None:
        self.root = _root(root)
        self.staging = self.root / ".staging"
        self.trash = self.root / ".trash"
        self.store_lock = self.staging / "store.lock"
        self.hashes = HashCache(self.root / ".cache" / "hashes")
        self._verify = verify

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
                what the package ships. None takes the newest sound one of the kind, by creation
                time across names, and says through ``report`` which, and what was passed over.
            kind: what is needed.
            report: told which artifact was taken where ``ref`` is None.
            default: the reference to take where ``ref`` is None and the store holds none.

        Raises:
            MissingArtifact: nothing fits; the fix is a near name or the command that makes one.
            BadInput: ``ref`` is ambiguous or of another kind.
            CorruptArtifact, StoreError: it is there but cannot be used.
        """
        return refs.resolve(self.root, ref, kind, report, default, self._check)

    def find(self, ref: str, *, check: bool = True) -> Artifact:
        """The artifact of any kind that ``ref`` names; errors as :meth:`resolve`.

        Args:
            ref: as for :meth:`resolve`; a name that several kinds have needs its kind before it.
            check: refuse an artifact whose files are not what its manifest says.
        """
        return refs.find(self.root, ref, check=self._check if check else None)

    def locate(self, ref: str) -> VersionPath | Artifact:
        """Where ``ref`` leads: a version of this store, which may be damaged, or an artifact
        outside; errors as :meth:`resolve`."""
        return refs.locate(self.root, ref)

    def input(self, artifact: Artifact, role: str) -> Artifact:
        """What ``artifact`` was made from: :func:`dclip.store.lineage.input_of`."""
        return lineage.input_of(self.root, artifact, role, self._check)

    def list(self, kind: str | None = None, report: refs.Notes | None = None) -> Sequence[Artifact]:
        """Every artifact, by kind, name and version; ``report`` is warned of unreadable ones."""
        found = []
        for entry in self.entries(kind):
            if isinstance(entry, Artifact):
                found.append(entry)
            elif report is not None:
                report.warn(f"{entry.error.message}; {entry.error.fix}")
        return found

    def entries(self, kind: str | None = None) -> Sequence[Artifact | Broken]:
        """Every version, by kind, name and version, those that cannot be used included."""
        found: list[Artifact | Broken] = []
        for at in version_paths(self.root, kind):
            try:
                found.append(open_version(at))
            except DclipError as error:
                found.append(Broken(at, error))
        return found

    def _check(self, artifact: Artifact, report: Reporter | None = None) -> None:
        """Refuse an artifact whose files are not what its manifest says."""
        if not self._verify:
            check_files(artifact)
            return
        with ExitStack() as stack:
            advance = None
            if report is not None and artifact.manifest.size >= _SHOW_READING:
                title, total = f"Verifying {artifact.ref}", artifact.manifest.size
                advance = stack.enter_context(report.task(title, total, unit="B")).advance
            check_files(artifact, self.hashes, on_bytes=advance)

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
        make: Callable[[Staging], Mapping[str, Any]],
        estimate: Mapping[str, Any] | None = None,
        accept: Callable[[Artifact], None] | None = None,
        revision: int = 1,
        device: str | None = None,
    ) -> Artifact:
        """Return the artifact of this work, doing the work only where it is not done yet.

        Args:
            stage, kind, name: what makes it, what it is, where it goes.
            config: everything that changes the result; a mapping or a dataclass of plain values.
            inputs: role -> the artifacts it is made from.
            seed: the seed.
            context: ``force`` makes a new version of done work, ``dry_run`` only plans.
            make: fills ``staging.path`` and returns the metrics. Called again with the same
                staging folder after an interruption, and then must come to the same files.
            estimate: what a dry run may say of size and time.
            accept: raises where done work will not do, before it is returned or copied.
            revision: of the stage's algorithm; raise it with every change after which equal
                settings give another result. Work of an earlier revision is not up to date.
            device: what computes, in words, such as ``cuda: NVIDIA H100``; the manifest keeps it.

        Returns:
            The artifact, ``fresh`` if it was made now. Work that exists under another name is
            copied, not done again.

        Raises:
            Planned: ``context.dry_run``.
            StoreBusy: another process does this very work.
            StoreError: full disk, read-only store. What was done is kept for the next run.
            CorruptArtifact: an input is not what it should be, or changed during the work.
            BadInput: a bad name, or a config with NaN.
        """
        request = _request(stage, kind, name, config, inputs, seed, revision)
        found = None if context.force else self._done(request, context)
        if found is not None and accept is not None:
            accept(found)
        if context.dry_run:
            raise Planned(self._plan(request, found, estimate))
        if found is not None and found.name == name:
            return self._up_to_date(found, context)
        check_inside(self.root, self.root / kind / name)  # said now, not after the work
        for used in inputs.values():
            self._check(used, context.report)
        with self._sole_writer(kind, request.key):
            if not context.force:  # another process may have finished it since
                found = self._done(request, context)
                if found is not None and accept is not None:
                    accept(found)
                if found is not None and found.name == name:
                    return self._up_to_date(found, context)
            workspace = Workspace(self.root, request.key)
            if found is not None and workspace.copy(found, request):
                origin = _Origin(found.manifest.versions, found.manifest.made_on, now())
            else:
                workspace.work(request, context, make)
                self._check_still(inputs, workspace)
                origin = _Origin(software(), surroundings(device), now())
            return self._commit(request, workspace, origin)

    def _check_still(self, inputs: Mapping[str, Artifact], workspace: Workspace) -> None:
        """Refuse a result whose inputs changed while it was made; its manifest would be wrong."""
        for role, used in inputs.items():
            try:
                self._check(used)
            except CorruptArtifact as error:
                with disk.writing(self.root):
                    workspace.discard()
                raise CorruptArtifact(
                    f"the input {role} changed during the work, whose result is dropped: "
                    f"{error.message}",
                    error.fix,
                ) from error

    def _done(self, request: Request, context: Context) -> Artifact | None:
        """The newest sound artifact of this work, one of the right name before others."""
        same = [a for a in readable(self.root, request.kind) if a.manifest.key == request.key]
        same.sort(key=lambda a: (a.name == request.name, age(a)), reverse=True)
        for artifact in same:
            wrong = damage(artifact, self.hashes if self._verify else None)
            if not wrong:
                return artifact
            context.report.warn(f"{artifact.ref} is damaged ({wrong[0]}); not using it")
        return None

    def _up_to_date(self, found: Artifact, context: Context) -> Artifact:
        newest = versions(self.root, found.kind, found.name)[-1]
        if newest.version > found.version:
            context.report.note(
                f"{found.ref} holds this work already; {newest.ref} is newer, so name "
                f"{found.ref} to use it"
            )
        return found

    def _plan(
        self, request: Request, found: Artifact | None, estimate: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        return {
            "stage": request.stage,
            "kind": request.kind,
            "name": request.name,
            "config": request.config,
            "inputs": request.inputs,
            "seed": request.seed,
            "revision": request.revision,
            "key": request.key,
            "cached": found is not None,
            "ref": None if found is None else found.ref,
            "resumes": found is None and Workspace(self.root, request.key).payload.exists(),
            "estimate": None if estimate is None else jsonable(estimate, nonfinite=True),
        }

    def _commit(self, request: Request, workspace: Workspace, origin: _Origin) -> Artifact:
        """Make the sealed payload visible as the next version."""
        sealed = workspace.sealed()
        if sealed is None:
            raise StoreError(
                f"the files of {request.kind}/{request.name} changed while they were committed",
                "see that nothing else writes there, then run the same command again",
            )
        with self.exclusive(), disk.writing(self.root):
            check_inside(self.root, self.root / request.kind / request.name)
            folder = self.root / request.kind / request.name
            disk.make_folder(folder)
            manifest = Manifest(
                format=FORMAT,
                id=artifact_id(request.key, sealed.files),
                key=request.key,
                stage=request.stage,
                revision=request.revision,
                kind=request.kind,
                name=request.name,
                version=1 + highest(self.root, request.kind, request.name),
                config=request.config,
                inputs=request.inputs,
                seed=request.seed,
                versions=origin.versions,
                made_on=origin.made_on,
                created=origin.created,
                metrics=sealed.metrics,
                files=sealed.files,
            )
            disk.write_atomic(workspace.payload / MANIFEST, dump(manifest))
            version = f"v{manifest.version}"
            at = VersionPath(request.kind, request.name, manifest.version, folder / version)
            disk.move_folder(workspace.payload, at.path)
            disk.sync(folder)
            disk.sync(workspace.folder)
            keep_highest(self.root, request.kind, request.name)
            tags.refresh_links(self.root, request.kind, request.name)
        with suppress(OSError, DclipError):  # the artifact is there; what stays is gc's
            workspace.discard()
            with self.exclusive():
                self.lock_path(workspace.folder.name).unlink(missing_ok=True)
        return replace(open_version(at), fresh=True)

    def adopt(self, artifact: Artifact, request: Request) -> Artifact:
        """Copy an artifact from elsewhere in as the next version of its name."""
        check_inside(self.root, self.root / request.kind / request.name)
        # Not the work's own staging folder, in which an unfinished run of it may wait.
        key = f"import-{artifact.id}"
        with self._sole_writer(request.kind, key):
            workspace = Workspace(self.root, key)
            if not workspace.copy(artifact, request):
                raise CorruptArtifact(
                    f"{artifact.ref} changed while it was copied", "run the same command again"
                )
            was = artifact.manifest
            origin = _Origin(was.versions, was.made_on, was.created)
            return self._commit(request, workspace, origin)

    def import_artifact(self, folder: Path | str, report: refs.Notes | None = None) -> Artifact:
        """Copy what an export wrote in: :func:`dclip.store.transfer.import_artifact`."""
        return transfer.import_artifact(self, folder, report)

    # --- locks

    def lock_path(self, key: str) -> Path:
        """The file whose lock means that a process works on ``key``."""
        return self.staging / f"{key}.lock"

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the store's own lock: for choosing versions, tags, removal; moments only.

        Raises:
            StoreBusy: another process kept it for a minute.
            StoreError: the store cannot be written.
        """

        def busy() -> StoreBusy:
            return StoreBusy(
                f"another process keeps the store {self.root} locked", "wait for it, then try again"
            )

        stack = ExitStack()
        disk.own_folder(self.staging)
        with disk.writing(self.root):
            disk.make_folder(self.staging)
            stack.enter_context(disk.lock(self.store_lock, wait=_STORE_LOCK_WAIT, busy=busy))
        with stack:
            yield

    @contextmanager
    def _sole_writer(self, kind: str, key: str) -> Iterator[None]:
        def busy() -> StoreBusy:
            owner = Workspace(self.root, key).owner()
            return StoreBusy(
                f"{owner} is making this {kind} already",
                "wait for it to finish, then run the same command: it will be up to date",
            )

        stack = ExitStack()
        # The lock file is opened under the store's lock, and only deleted under it, so that no two
        # processes can hold "the" lock on two different files of that name.
        with self.exclusive(), disk.writing(self.root):
            stack.enter_context(disk.lock(self.lock_path(key), wait=0, busy=busy))
        with stack:
            yield

    # --- tags

    def tag(self, ref: str, tag: str) -> Artifact:
        """Point ``tag`` at the artifact ``ref``; a tag that its name had elsewhere moves.

        Raises:
            BadInput: no valid tag, or ``ref`` is not in the store. Else as :meth:`find`.
        """
        check_name(tag, "tag")
        if not valid_tag(tag):
            raise BadInput(
                f"{tag!r} cannot be a tag: after an @ it reads as timesteps",
                f"use for example 't{tag}'",
            )
        with self._changing(ref) as at:
            artifact = open_version(at)
            new = tags.load_tags(self.root, at.kind, at.name) | {tag: at.version}
            tags.save_tags(self.root, at.kind, at.name, new)
        return artifact

    def untag(self, ref: str, tag: str) -> None:
        """Take ``tag`` off the name that ``ref`` leads to.

        Raises:
            MissingArtifact: there is no such tag. Else as :meth:`tag`.
        """
        with self._changing(ref) as at:
            old = tags.load_tags(self.root, at.kind, at.name)
            if tag not in old:
                has = ", ".join(sorted(old)) or "none"
                raise MissingArtifact(f"{at.kind}/{at.name} has no tag {tag!r}", f"its tags: {has}")
            new = {each: version for each, version in old.items() if each != tag}
            tags.save_tags(self.root, at.kind, at.name, new)

    def tags(self, artifact: Artifact) -> Sequence[str]:
        """The tags on an artifact of this store, ``latest`` first.

        Raises:
            CorruptArtifact, StoreError: they cannot be read.
        """
        have = versions(self.root, artifact.kind, artifact.name)
        if artifact.version not in {each.version for each in have}:
            return []
        found = tags.load_tags(self.root, artifact.kind, artifact.name)
        on = sorted(tag for tag, version in found.items() if version == artifact.version)
        return [LATEST, *on] if have[-1].version == artifact.version else on

    @contextmanager
    def _changing(self, ref: str) -> Iterator[VersionPath]:
        refs.locate(self.root, ref)  # before the lock: a mistyped name needs no writable store
        with self.exclusive(), disk.writing(self.root):
            at = refs.locate(self.root, ref)
            if not isinstance(at, VersionPath):
                raise BadInput(
                    f"{at.ref} is not in the store {self.root}", "only its artifacts have tags"
                )
            check_inside(self.root, at.path.parent)
            yield at
            tags.refresh_links(self.root, at.kind, at.name)

    # --- upkeep; each documented at the function it calls

    def verify(
        self, ref: str | None = None, *, full: bool = False, report: Reporter | None = None
    ) -> verify.Verification:
        """Compare artifacts with their manifests: :func:`dclip.store.verify.verify`."""
        return verify.verify(self.root, ref, full=full, report=report, hashes=self.hashes)

    def lineage(self, ref: str) -> lineage.Lineage:
        """The tree of what ``ref`` was made from: :func:`dclip.store.lineage.lineage`."""
        return lineage.lineage(self.root, ref)

    def dependents(self, ref: str) -> Sequence[Artifact]:
        """What was made directly from ``ref``: :func:`dclip.store.lineage.dependents`."""
        return lineage.dependents(self.root, ref)

    def remove(self, ref: str, *, force: bool = False) -> upkeep.Removed:
        """Remove one version: :func:`dclip.store.upkeep.remove`."""
        return upkeep.remove(self, ref, force=force)

    def gc(self, *, dry_run: bool = False) -> upkeep.Collected:
        """Drop unfinished work and rubbish: :func:`dclip.store.upkeep.gc`."""
        return upkeep.gc(self, dry_run=dry_run)


def _root(root: Path | str) -> Path:
    """The store's folder as an absolute path."""
    fix = "choose another with --store DIR or DCLIP_STORE"
    try:
        found = Path(root).expanduser()
        os.fsencode(found)
        if "\0" in str(found):
            raise ValueError("a NUL in it")
        found = found.absolute()
    except FileNotFoundError:
        raise StoreError("the current folder is gone", "change to another (`cd`)") from None
    except (ValueError, RuntimeError) as error:
        raise BadInput(f"the store {str(root)!a} cannot be a path: {error}", fix) from None
    try:
        found.stat()
    except (FileNotFoundError, NotADirectoryError):
        return found
    except OSError as error:
        raise StoreError(
            f"the store {found} cannot be reached: {error.strerror or error}", fix
        ) from None
    if not found.is_dir():
        raise StoreError(f"the store {found} is not a folder", fix)
    return found


def _request(
    stage: str,
    kind: str,
    name: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, Artifact],
    seed: int,
    revision: int,
) -> Request:
    check_name(stage, "stage")
    check_name(kind, "kind")
    check_name(name)
    used = {
        role: {"id": artifact.id, "kind": artifact.kind, "ref": storable(artifact.ref)}
        for role, artifact in sorted(inputs.items())
    }
    ids = {role: ref["id"] for role, ref in used.items()}
    try:
        plain = storable(to_dict(config))
        seed = int(storable(int(seed)))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the settings of {stage} cannot be kept: {error}", "give others") from None
    key = cache_key(stage, revision, kind, plain, ids, seed)
    return Request(stage, kind, name, plain, used, seed, revision, key)
