"""The store: find artifacts, and make them once, completely, in a way that survives any kill.

A piece of work is done in a draft, ``<root>/.staging/<key>/``, under a lock that dies with its
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

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from dclip.config import jsonable, to_dict
from dclip.context import Context, Reporter
from dclip.errors import BadInput, DclipError, MissingArtifact, StoreBusy, StoreError
from dclip.store import files as disk
from dclip.store import lineage, refs, tags, upkeep, verify
from dclip.store.manifest import (
    FORMAT,
    MANIFEST,
    Artifact,
    Manifest,
    artifact_id,
    cache_key,
    damage,
    dump,
    now,
    software,
)
from dclip.store.names import LATEST, check_name
from dclip.store.places import Place, age, open_place, places, readable, versions
from dclip.store.staging import Request, Staging, Workspace

_STORE_LOCK_WAIT = 60.0  # seconds; the lock is held for renames and small writes only


class Planned(Exception):
    """What a dry run comes to instead of an artifact.

    Attributes:
        plan: ``stage``, ``kind``, ``name``, ``config``, ``inputs``, ``seed``, ``key``, ``cached``
            (whether the work is done already), ``ref`` (where, or None), ``resumes`` (whether an
            interrupted run would go on), ``estimate``.
        before: the plans of what would be made first, for a stage that runs others. Where those
            are not made yet, the ids of ``inputs`` and the ``key`` cannot be known and are None.
    """

    def __init__(self, plan: dict[str, Any], before: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(f"{plan['stage']} -> {plan['kind']}/{plan['name']}")
        self.plan, self.before = plan, list(before)


class Store:
    """A folder of artifacts.

    Args:
        root: the folder. Nothing is created before the first write.

    Raises:
        StoreError: ``root`` is a file.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).expanduser().absolute()
        self.staging = self.root / ".staging"
        self.trash = self.root / ".trash"
        self.store_lock = self.staging / "store.lock"
        if self.root.exists() and not self.root.is_dir():
            raise StoreError(
                f"the store {self.root} is not a folder",
                "choose another with --store DIR or DCLIP_STORE",
            )

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

    def input(self, artifact: Artifact, role: str) -> Artifact:
        """What ``artifact`` was made from: :func:`dclip.store.lineage.input_of`."""
        return lineage.input_of(self.root, artifact, role)

    def list(self, kind: str | None = None, report: refs.Notes | None = None) -> Sequence[Artifact]:
        """Every artifact, by kind, name and version; ``report`` is warned of unreadable ones."""
        found = []
        for place in places(self.root, kind):
            try:
                found.append(open_place(place, check=False))
            except DclipError as error:
                if report is not None:
                    report.warn(error.message)
        return found

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
            accept: raises where done work will not do, before it is returned or copied.

        Returns:
            The artifact, ``fresh`` if it was made now. Work that exists under another name is
            copied, not done again.

        Raises:
            Planned: ``context.dry_run``.
            StoreBusy: another process does this very work.
            StoreError: full disk, read-only store. What was done is kept for the next run.
            BadInput: a bad name, or a config with NaN.
        """
        request = _request(stage, kind, name, config, inputs, seed)
        found = None if context.force else self._done(request, context)
        if found is not None and accept is not None:
            accept(found)
        if context.dry_run:
            raise Planned(self._plan(request, found, estimate))
        if found is not None and found.name == name:
            return self._up_to_date(found, context)
        with self._sole_writer(request):
            if not context.force:  # another process may have finished it since
                found = self._done(request, context)
                if found is not None and accept is not None:
                    accept(found)
                if found is not None and found.name == name:
                    return self._up_to_date(found, context)
            workspace = Workspace(self.root, request.key)
            if found is None or not workspace.copy(found, request):
                workspace.work(request, context, make)
            return self._commit(request, workspace)

    def _done(self, request: Request, context: Context) -> Artifact | None:
        """The newest sound artifact of this work, one of the right name before others."""
        same = [a for a in readable(self.root, request.kind) if a.manifest.key == request.key]
        same.sort(key=lambda a: (a.name == request.name, age(a)), reverse=True)
        for artifact in same:
            wrong = damage(artifact)
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
            "key": request.key,
            "cached": found is not None,
            "ref": None if found is None else found.ref,
            "resumes": found is None and Workspace(self.root, request.key).payload.exists(),
            "estimate": None if estimate is None else jsonable(estimate, nonfinite=True),
        }

    def _commit(self, request: Request, workspace: Workspace) -> Artifact:
        """Make the sealed payload visible as the next version."""
        sealed = workspace.sealed()
        if sealed is None:
            raise StoreError(
                f"the files of {request.kind}/{request.name} changed while they were committed",
                "see that nothing else writes there, then run the same command again",
            )
        with self.exclusive(), disk.writing(self.root):
            folder = self.root / request.kind / request.name
            disk.make_folder(folder)
            have = [place.version for place in versions(self.root, request.kind, request.name)]
            last = tags.load_tags(self.root, request.kind, request.name).last
            manifest = Manifest(
                format=FORMAT,
                id=artifact_id(
                    request.stage,
                    request.kind,
                    request.config,
                    request.input_ids,
                    request.seed,
                    sealed.files,
                ),
                key=request.key,
                stage=request.stage,
                kind=request.kind,
                name=request.name,
                version=1 + max([last, *have]),
                config=request.config,
                inputs=request.inputs,
                seed=request.seed,
                versions=software(),
                created=now(),
                metrics=sealed.metrics,
                files=sealed.files,
            )
            disk.write_atomic(workspace.payload / MANIFEST, dump(manifest))
            place = Place(
                request.kind, request.name, manifest.version, folder / f"v{manifest.version}"
            )
            workspace.payload.rename(place.path)
            disk.sync(folder)
            disk.sync(workspace.folder)
            tags.refresh_links(self.root, request.kind, request.name)
        with suppress(OSError, DclipError):  # the artifact is there; what stays is gc's
            workspace.discard()
            with self.exclusive():
                self.lock_path(request.key).unlink(missing_ok=True)
        return replace(open_place(place, check=False), fresh=True)

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
        with disk.writing(self.root):
            disk.make_folder(self.staging)
            stack.enter_context(disk.lock(self.store_lock, wait=_STORE_LOCK_WAIT, busy=busy))
        with stack:
            yield

    @contextmanager
    def _sole_writer(self, request: Request) -> Iterator[None]:
        def busy() -> StoreBusy:
            owner = Workspace(self.root, request.key).owner()
            return StoreBusy(
                f"{owner} is making this {request.kind} already",
                "wait for it to finish, then run the same command: it will be up to date",
            )

        stack = ExitStack()
        # The lock file is opened under the store's lock, and only deleted under it, so that no two
        # processes can hold "the" lock on two different files of that name.
        with self.exclusive(), disk.writing(self.root):
            stack.enter_context(disk.lock(self.lock_path(request.key), wait=0, busy=busy))
        with stack:
            yield

    # --- tags

    def tag(self, ref: str, tag: str) -> Artifact:
        """Point ``tag`` at the artifact ``ref``; a tag that its name had elsewhere moves.

        Raises:
            BadInput: no valid tag, or ``ref`` is not in the store. Else as :meth:`find`.
        """
        check_name(tag, "tag")
        if re.fullmatch(r"\d+-\d+", tag):
            raise BadInput(
                f"{tag!r} cannot be a tag: after an @ it reads as labels of a schedule",
                f"use for example 't{tag}'",
            )
        with self._changing(ref) as place:
            old = tags.load_tags(self.root, place.kind, place.name)
            new = replace(old, tags={**old.tags, tag: place.version})
            tags.save_tags(self.root, place.kind, place.name, new)
        return open_place(place, check=False)

    def untag(self, ref: str, tag: str) -> None:
        """Take ``tag`` off the name that ``ref`` leads to.

        Raises:
            MissingArtifact: there is no such tag. Else as :meth:`tag`.
        """
        with self._changing(ref) as place:
            old = tags.load_tags(self.root, place.kind, place.name)
            if tag not in old.tags:
                has = ", ".join(sorted(old.tags)) or "none"
                raise MissingArtifact(
                    f"{place.kind}/{place.name} has no tag {tag!r}", f"its tags: {has}"
                )
            new = replace(old, tags={k: v for k, v in old.tags.items() if k != tag})
            tags.save_tags(self.root, place.kind, place.name, new)

    def tags(self, artifact: Artifact) -> Sequence[str]:
        """The tags on an artifact of this store, ``latest`` first."""
        place = (artifact.kind, artifact.name)
        have = versions(self.root, *place)
        if artifact.version not in {each.version for each in have}:
            return []
        found = tags.load_tags(self.root, *place).tags
        on = sorted(tag for tag, version in found.items() if version == artifact.version)
        return [LATEST, *on] if have[-1].version == artifact.version else on

    @contextmanager
    def _changing(self, ref: str) -> Iterator[Place]:
        refs.locate(self.root, ref)  # before the lock: a mistyped name needs no writable store
        with self.exclusive(), disk.writing(self.root):
            place = refs.locate(self.root, ref)
            if not isinstance(place, Place):
                raise BadInput(
                    f"{place.ref} is not in the store {self.root}", "only its artifacts have tags"
                )
            yield place
            tags.refresh_links(self.root, place.kind, place.name)

    # --- upkeep; each documented at the function it calls

    def verify(
        self, ref: str | None = None, *, full: bool = False, report: Reporter | None = None
    ) -> verify.Verification:
        """Compare artifacts with their manifests: :func:`dclip.store.verify.verify`."""
        return verify.verify(self.root, ref, full=full, report=report)

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
        """Drop dead drafts and rubbish: :func:`dclip.store.upkeep.gc`."""
        return upkeep.gc(self, dry_run=dry_run)


def _request(
    stage: str,
    kind: str,
    name: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, Artifact],
    seed: int,
) -> Request:
    check_name(kind, "kind")
    check_name(name)
    plain = to_dict(config)
    used = {
        role: {"id": artifact.id, "kind": artifact.kind, "ref": artifact.ref}
        for role, artifact in sorted(inputs.items())
    }
    ids = {role: ref["id"] for role, ref in used.items()}
    seed = int(seed)
    key = cache_key(stage, kind, plain, ids, seed)
    return Request(stage, kind, name, plain, used, seed, key)
