"""Making an artifact: once, completely, in a way that survives any kill.

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

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dclip.config import jsonable, to_dict
from dclip.context import Context
from dclip.errors import BadInput, CorruptArtifact, DclipError, StoreError
from dclip.store import files as disk
from dclip.store import tags
from dclip.store.artifact import Artifact, damage
from dclip.store.ids import FORMAT, artifact_id, cache_key
from dclip.store.manifest import MANIFEST, Manifest, dump, now, software, surroundings
from dclip.store.names import LARGEST_VERSION, check_name
from dclip.store.paths import (
    VersionPath,
    age,
    check_inside,
    highest,
    keep_highest,
    open_version,
    readable,
    versions,
)
from dclip.store.reading import storable
from dclip.store.staging import Request, Staging, Workspace

if TYPE_CHECKING:
    from dclip.store.store import Store


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


def ask(
    stage: str,
    kind: str,
    name: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, Artifact],
    seed: int,
    revision: int,
) -> Request:
    """A piece of work as the store sees it, with its cache key.

    Raises:
        BadInput: a bad name, or settings that no manifest can hold.
    """
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


def run(
    store: Store,
    request: Request,
    inputs: Mapping[str, Artifact],
    context: Context,
    make: Callable[[Staging], Mapping[str, Any]],
    estimate: Mapping[str, Any] | None,
    accept: Callable[[Artifact], None] | None,
    device: str | None,
) -> Artifact:
    """See :meth:`dclip.store.Store.build`."""
    found = None if context.force else _done(store, request, context)
    if found is not None and accept is not None:
        accept(found)
    if context.dry_run:
        raise Planned(_plan(store, request, found, estimate))
    if found is not None and found.name == request.name:
        return _up_to_date(store, found, context)
    # Said now, not after the work.
    check_inside(store.root, store.root / request.kind / request.name)
    for used in inputs.values():
        store.check(used, context.report)
    with store.sole_writer(request.kind, request.key):
        if not context.force:  # another process may have finished it since
            found = _done(store, request, context)
            if found is not None and accept is not None:
                accept(found)
            if found is not None and found.name == request.name:
                return _up_to_date(store, found, context)
        workspace = Workspace(store.root, request.key)
        if found is not None and workspace.copy(found, request):
            origin = _Origin(found.manifest.versions, found.manifest.made_on, now())
        else:
            workspace.work(request, context, make)
            _check_still(store, inputs, workspace)
            origin = _Origin(software(), surroundings(device), now())
        return _commit(store, request, workspace, origin)


def _check_still(store: Store, inputs: Mapping[str, Artifact], workspace: Workspace) -> None:
    """Refuse a result whose inputs changed while it was made; its manifest would be wrong."""
    for role, used in inputs.items():
        try:
            store.check(used)
        except CorruptArtifact as error:
            with disk.writing(store.root):
                workspace.discard()
            raise CorruptArtifact(
                f"the input {role} changed during the work, whose result is dropped: "
                f"{error.message}",
                error.fix,
            ) from error


def _done(store: Store, request: Request, context: Context) -> Artifact | None:
    """The newest sound artifact of this work, one of the right name before others."""
    same = [a for a in readable(store.root, request.kind) if a.manifest.key == request.key]
    same.sort(key=lambda a: (a.name == request.name, age(a)), reverse=True)
    for artifact in same:
        wrong = damage(artifact, store.hashes if store.verifies else None)
        if not wrong:
            return artifact
        context.report.warn(f"{artifact.ref} is damaged ({wrong[0]}); not using it")
    return None


def _up_to_date(store: Store, found: Artifact, context: Context) -> Artifact:
    newest = versions(store.root, found.kind, found.name)[-1]
    if newest.version > found.version:
        context.report.note(
            f"{found.ref} holds this work already; {newest.ref} is newer, so name "
            f"{found.ref} to use it"
        )
    return found


def _plan(
    store: Store, request: Request, found: Artifact | None, estimate: Mapping[str, Any] | None
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
        "resumes": found is None and Workspace(store.root, request.key).payload.exists(),
        "estimate": None if estimate is None else jsonable(estimate, nonfinite=True),
    }


def _commit(store: Store, request: Request, workspace: Workspace, origin: _Origin) -> Artifact:
    """Make the sealed payload visible as the next version."""
    sealed = workspace.sealed()
    if sealed is None:
        raise StoreError(
            f"the files of {request.kind}/{request.name} changed while they were committed",
            "see that nothing else writes there, then run the same command again",
        )
    with store.exclusive(), disk.writing(store.root):
        check_inside(store.root, store.root / request.kind / request.name)
        folder = store.root / request.kind / request.name
        disk.make_folder(folder)
        number = 1 + highest(store.root, request.kind, request.name)
        if number > LARGEST_VERSION:
            raise StoreError(f"{folder} has no version number left", "use another --name")
        manifest = Manifest(
            format=FORMAT,
            id=artifact_id(request.key, sealed.files),
            key=request.key,
            stage=request.stage,
            revision=request.revision,
            kind=request.kind,
            name=request.name,
            version=number,
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
        at = VersionPath(request.kind, request.name, number, folder / f"v{number}")
        disk.move_folder(workspace.payload, at.path)
        disk.sync(folder)
        disk.sync(workspace.folder)
        keep_highest(store.root, request.kind, request.name)
        tags.refresh_links(store.root, request.kind, request.name)
    with suppress(OSError, DclipError):  # the artifact is there; what stays is gc's
        workspace.discard()
        with store.exclusive():
            store.lock_path(workspace.folder.name).unlink(missing_ok=True)
    return replace(open_version(at), fresh=True)


def adopt(store: Store, artifact: Artifact, request: Request) -> Artifact:
    """Copy an artifact from elsewhere in as the next version of its name."""
    check_inside(store.root, store.root / request.kind / request.name)
    # Not the work's own staging folder, in which an unfinished run of it may wait.
    key = f"import-{artifact.id}"
    with store.sole_writer(request.kind, key):
        workspace = Workspace(store.root, key)
        if not workspace.copy(artifact, request):
            raise CorruptArtifact(
                f"{artifact.ref} changed while it was copied", "run the same command again"
            )
        was = artifact.manifest
        origin = _Origin(was.versions, was.made_on, was.created)
        return _commit(store, request, workspace, origin)
