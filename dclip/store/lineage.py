"""What an artifact was made from, and what was made from it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dclip.errors import DclipError, MissingArtifact
from dclip.store.artifact import Artifact, Check, check_files
from dclip.store.paths import VersionPath, age, open_version, readable
from dclip.store.refs import ASSETS, all_embedded, find, locate


@dataclass(frozen=True)
class Lineage:
    """A node of the tree of what an artifact was made from.

    Attributes:
        role: what it was to the node above, "" at the root.
        ref: where it is now, or was when it was used.
        id, kind: of the artifact.
        state: ``present``, ``embedded`` (shipped with dclip), ``outside`` (a folder out of the
            store) or ``missing`` (removed since).
        stage: what made it, "" if missing.
        inputs: what it was made from, empty if missing.
    """

    role: str
    ref: str
    id: str
    kind: str
    state: str
    stage: str
    inputs: tuple[Lineage, ...]


def lineage(root: Path, ref: str) -> Lineage:
    """The tree of inputs of ``ref``, down to what was made from nothing.

    Raises: as :meth:`dclip.store.Store.find`, but a damaged payload is no hindrance.
    """
    at = locate(root, ref)
    top = open_version(at) if isinstance(at, VersionPath) else at
    known: dict[str, Artifact] = {}
    known |= {asset.id: asset for asset in all_embedded()}
    for artifact in sorted(readable(root), key=age):
        known[artifact.id] = artifact
    exact = {artifact.ref: artifact for artifact in readable(root)}
    return _node("", top, known, exact)


def _node(
    role: str, artifact: Artifact, known: dict[str, Artifact], exact: dict[str, Artifact]
) -> Lineage:
    below = []
    for each, used in artifact.manifest.inputs.items():
        found = exact.get(used["ref"])
        if found is None or found.id != used["id"]:
            found = known.get(used["id"]) or _outside(used["ref"], used["id"])
        if found is None:
            below.append(Lineage(each, used["ref"], used["id"], used["kind"], "missing", "", ()))
        else:
            below.append(_node(each, found, known, exact))
    if artifact.ref in exact:
        state = "present"
    else:
        state = "embedded" if artifact.ref in ASSETS else "outside"
    stage = artifact.manifest.stage
    return Lineage(role, artifact.ref, artifact.id, artifact.kind, state, stage, tuple(below))


def _outside(ref: str, id: str) -> Artifact | None:
    with suppress(DclipError, OSError):
        if Path(ref).is_absolute() and (found := Artifact.open(ref, check=False)).id == id:
            return found
    return None


def input_of(root: Path, artifact: Artifact, role: str, check: Check = check_files) -> Artifact:
    """The artifact that ``artifact`` was made from in ``role``, wherever it is now.

    Raises:
        MissingArtifact: it had no such input, or that is gone.
        CorruptArtifact, StoreError: it is there but cannot be used.
    """
    used = artifact.manifest.inputs.get(role)
    if used is None:
        roles = ", ".join(artifact.manifest.inputs) or "nothing"
        raise MissingArtifact(
            f"{artifact.ref} was made without a {role}", f"it was made from: {roles}"
        )
    with suppress(MissingArtifact):
        return find(root, used["id"], used["kind"], check=check)
    if (away := _outside(used["ref"], used["id"])) is not None:
        check(away)
        return away
    raise MissingArtifact(
        f"{artifact.ref} was made from {used['ref']}, which is gone (id {used['id'][:12]})",
        f"make {artifact.ref} again from what there is",
    )


def dependents(root: Path, ref: str) -> list[Artifact]:
    """The store's artifacts that were made directly from ``ref``.

    Raises: as :meth:`dclip.store.Store.find`; of a damaged artifact, what is known is used.
    """
    return users(root, locate(root, ref))


def users(root: Path, at: VersionPath | Artifact) -> list[Artifact]:
    """:func:`dependents` of a version; by id, or by the recorded ref where that cannot be read."""
    id = ""
    with suppress(DclipError):
        id = (open_version(at) if isinstance(at, VersionPath) else at).id

    def uses(artifact: Artifact) -> bool:
        used = artifact.manifest.inputs.values()
        return any(i["id"] == id if id else i["ref"] == at.ref for i in used)

    return [artifact for artifact in readable(root) if uses(artifact)]
