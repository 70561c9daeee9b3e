"""From a reference, or from none, to the artifact: "the newest", names, ids, paths, embedded."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import dclip
from dclip.errors import BadInput, DclipError, MissingArtifact, StoreError
from dclip.store.artifact import Artifact, Check, check_files
from dclip.store.manifest import MANIFEST
from dclip.store.names import LATEST, SHIPPED, Reference, parse
from dclip.store.paths import (
    VersionPath,
    age,
    kinds,
    open_version,
    readable,
    version_paths,
    versions,
)
from dclip.store.tags import load_tags
from dclip.text import printable

# What a user types to get an artifact of a kind; also the known kinds, in pipeline order.
MAKERS = {
    "data": "dclip prepare faces",
    "model": "dclip train",
    "autoencoder": "dclip autoencoder train",
    "clip": "dclip clip train",
    "encoder": "dclip encoder map --from FOLDER",
    "samples": "dclip sample",
    "latents": "dclip invert",
    "tuned": "dclip finetune --target sketch",
    "edits": "dclip edit",
    "figure": "dclip grid",
    "judge": "dclip judge train",
    "eval": "dclip eval",
}
ASSETS = {
    "model/embedded": "base",
    "model/embedded-text": "text",
    "clip/embedded": "clip",
    "judge/embedded": "judge",
}
"""What the package ships: its folder below ``dclip/assets``, by its reference."""

_ID = re.compile(r"[0-9a-f]{6,64}")


class Notes(Protocol):
    """The part of :class:`dclip.context.Reporter` that finding needs."""

    def note(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...


def embedded(ref: str) -> Artifact:
    """An artifact that the package ships; its payload is not looked at.

    Args:
        ref: one of :data:`ASSETS`.

    Raises:
        MissingArtifact: this installation lacks it.
    """
    kind, _, name = ref.partition("/")
    path = Path(dclip.__file__).parent / "assets" / ASSETS[ref]
    if not (path / MANIFEST).exists():
        raise MissingArtifact(
            f"this installation of dclip has no embedded {kind}",
            f"reinstall it, or make your own: `{maker(kind)}`",
        )
    found = Artifact.open(path, ref=ref, check=False)
    return replace(found, manifest=replace(found.manifest, name=name))


def all_embedded() -> Iterator[Artifact]:
    """Every artifact that this installation ships."""
    for ref in ASSETS:
        with suppress(DclipError):
            yield embedded(ref)


def maker(kind: str) -> str:
    """The command that makes an artifact of ``kind``."""
    return MAKERS.get(kind, f"dclip {kind}")


def resolve(
    root: Path,
    ref: str | None,
    kind: str,
    report: Notes | None,
    default: str | None,
    check: Check = check_files,
    suits: Callable[[Artifact], bool] | None = None,
) -> Artifact:
    """See :meth:`dclip.store.Store.resolve`."""
    if ref is not None:
        return find(root, ref, kind, check=check)
    unusable: list[DclipError] = []
    damaged: list[DclipError] = []
    found = []
    for at in version_paths(root, kind):
        try:
            found.append(open_version(at))
        except DclipError as error:
            unusable.append(error)
    newest = None
    for artifact in sorted(found, key=age, reverse=True):
        try:
            check(artifact)
        except DclipError as error:
            damaged.append(error)
            continue
        if suits is not None and not suits(artifact):
            continue
        newest = artifact
        break
    unusable = damaged + unusable[::-1]
    if newest is None and default is None:
        if unusable:
            raise unusable[0]
        raise MissingArtifact(f"the store {root} holds no {kind}", f"make one: `{maker(kind)}`")
    if report is not None:
        for each in unusable:
            report.warn(f"passed over: {each.message}; {each.fix}")
    if newest is None:
        newest = find(root, default or "", kind, check=check)
    if report is not None:
        report.note(f"using {newest.ref}")
    return newest


def find(
    root: Path, ref: str, kind: str | None = None, *, check: Check | None = check_files
) -> Artifact:
    """The artifact that ``ref`` names, of ``kind`` or (None) of any.

    Args:
        check: refuses an artifact whose files are not what they should be; None looks at none.

    Raises:
        BadInput: it names several artifacts, or one of another kind.
        MissingArtifact: it names none; the fix says what comes near, or how to make one.
        CorruptArtifact, StoreError: it is there but cannot be used.
    """
    at = locate(root, ref, kind)
    if isinstance(at, VersionPath):
        return open_version(at, check)
    if check is not None:
        check(at)
    return at


def locate(root: Path, ref: str, kind: str | None = None) -> VersionPath | Artifact:
    """Where ``ref`` leads: a version in the store (which may be damaged), or an artifact outside.

    Raises: as :func:`find`, but for the artifact's own state.
    """
    ref = ref.strip()
    if not ref:
        raise BadInput("an empty artifact name", "name one, such as `faces` or `model/base/v1`")
    if ref in SHIPPED or ref in ASSETS:
        return embedded(_asset(ref, kind))
    explicit = ref.startswith((".", "/", "~")) or Path(ref).is_absolute() or "\\" in ref
    if not explicit:
        parsed = parse(ref)
        if parsed is not None and (hit := _by_name(root, parsed, kind)):
            return hit
        if _ID.fullmatch(ref) and (found := _by_id(root, ref, kind)):
            return found
    if (outside := _by_path(root, ref, kind)) is not None:
        return outside
    raise _not_found(root, ref, kind)


def _asset(ref: str, kind: str | None) -> str:
    """Which of :data:`ASSETS` is meant, by its reference or its name alone."""
    meant = [each for each in ASSETS if ref in (each, each.partition("/")[2])]
    fitting = [each for each in meant if kind is None or each.startswith(f"{kind}/")]
    if len(fitting) > 1:
        raise BadInput("several artifacts are embedded", f"say one of {', '.join(fitting)}")
    if fitting:
        return fitting[0]
    assert kind is not None, "of any kind, all that is meant fits"
    if len(meant) == 1:
        raise _wrong_kind(ref, meant[0].partition("/")[0], kind)
    raise BadInput(f"nothing of kind {kind} is embedded in dclip", f"make one: `{maker(kind)}`")


def _wrong_kind(ref: str, found: str, kind: str) -> BadInput:
    return BadInput(
        f"{ref} is of kind {found}; {kind} is needed here", f"make one: `{maker(kind)}`"
    )


def _by_name(root: Path, ref: Reference, kind: str | None) -> VersionPath | None:
    where = [ref.kind or kind] if ref.kind or kind else kinds(root)
    named = {each: found for each in where if each and (found := versions(root, each, ref.name))}
    if not named:
        return None
    if len(named) > 1:
        raise BadInput(
            f"{ref.name} is the name of several artifacts",
            f"say which: {' or '.join(f'{each}/{ref.name}' for each in named)}",
        )
    (found_kind, found), *_ = named.items()
    if kind is not None and found_kind != kind:
        raise _wrong_kind(found[-1].ref, found_kind, kind)
    full = f"{found_kind}/{ref.name}"
    if ref.version is None and ref.tag == LATEST:
        return found[-1]
    wanted = ref.version
    if wanted is None:
        tags = load_tags(root, found_kind, ref.name)
        if ref.tag not in tags:
            has = ", ".join(sorted(tags)) or "none"
            raise MissingArtifact(
                f"{full} has no tag {ref.tag!r}", f"its tags: {has}; or name a version"
            )
        wanted = tags[ref.tag]
    for at in found:
        if at.version == wanted:
            return at
    has = ", ".join(f"v{at.version}" for at in found)
    raise MissingArtifact(f"{full} has no version v{wanted}", f"it has {has}")


def _by_id(root: Path, prefix: str, kind: str | None) -> VersionPath | Artifact | None:
    found = [a for a in readable(root) if a.id.startswith(prefix)]
    found += [asset for asset in all_embedded() if asset.id.startswith(prefix)]
    fitting = [a for a in found if kind is None or a.kind == kind]
    if not fitting:
        if found and kind is not None:
            raise _wrong_kind(found[0].ref, found[0].kind, kind)
        return None
    if len({a.id for a in fitting}) > 1:
        raise BadInput(
            f"several ids begin with {prefix}",
            f"say more digits, or one of {', '.join(a.ref for a in fitting[:5])}",
        )
    best = max(fitting, key=age)
    if best.ref in ASSETS:
        return best
    return VersionPath(best.kind, best.name, best.version, best.path)


def _by_path(root: Path, ref: str, kind: str | None) -> VersionPath | Artifact | None:
    try:
        path = Path(ref).expanduser().resolve()  # RuntimeError: no such user, or links in a circle
        if not path.is_dir():
            return None
    except (OSError, ValueError, RuntimeError):
        return None
    found: VersionPath | Artifact | None = None
    with suppress(ValueError):
        inside = path.relative_to(root.resolve()).parts
        if len(inside) in (2, 3) and (parsed := parse("/".join(inside))):
            found = _by_name(root, parsed, parsed.kind)
    if found is None and _has_manifest(path):
        found = Artifact.open(path, check=False)
    if found is not None and kind is not None and found.kind != kind:
        raise _wrong_kind(found.ref, found.kind, kind)
    return found


def _has_manifest(path: Path) -> bool:
    try:
        return (path / MANIFEST).exists()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error


def _not_found(root: Path, ref: str, kind: str | None) -> DclipError:
    """The error for a reference that names nothing: what is near, then how to make one."""
    explicit = ref.startswith((".", "/", "~")) or Path(ref).is_absolute() or "\\" in ref
    what = kind or "artifact"
    if explicit:
        return MissingArtifact(
            f"{printable(ref)} is not the folder of an artifact",
            f"`dclip ls` shows the store's; or make one: `{maker(kind)}`" if kind else "`dclip ls`",
        )
    if re.fullmatch(r"[0-9a-f]{16,64}", ref):
        return MissingArtifact(
            f"no {what} has the id {ref[:12]}...", "`dclip ls` shows what there is"
        )
    parsed = parse(ref)
    body = f"{parsed.kind}/{parsed.name}" if parsed and parsed.kind else ref.partition("@")[0]
    have = sorted({(at.kind, at.name) for at in version_paths(root)})
    if kind is not None and parsed is not None and parsed.kind is None:
        elsewhere = [each for each, name in have if name == parsed.name]
        if elsewhere:
            return MissingArtifact(
                f"no {kind} is named {ref!r} ({elsewhere[0]}/{parsed.name} is of another kind)",
                f"`dclip ls` shows what there is; make one: `{maker(kind)}`",
            )
    fitting = [(each, name) for each, name in have if kind is None or each == kind]
    names = [name for _, name in fitting] + [f"{each}/{name}" for each, name in fitting]
    near = list(dict.fromkeys(difflib.get_close_matches(body, names, n=3, cutoff=0.6)))
    if near:
        return MissingArtifact(f"no {what} is named {ref!r}", f"did you mean {' or '.join(near)}?")
    if kind is None:
        return MissingArtifact(f"no artifact is named {ref!r}", "`dclip ls` shows what there is")
    return MissingArtifact(
        f"no {kind} is named {ref!r}", f"`dclip ls` shows what there is; make one: `{maker(kind)}`"
    )
