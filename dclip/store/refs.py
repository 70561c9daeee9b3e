"""How artifacts are named and found: names, references, versions, tags, and "the newest"."""

from __future__ import annotations

import difflib
import json
import os
import re
import secrets
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import dclip
from dclip.errors import BadInput, CorruptArtifact, DclipError, MissingArtifact, StoreError
from dclip.store import files as disk
from dclip.store.manifest import FORMAT, MANIFEST, Artifact, Manifest, load

LATEST = "latest"
EMBEDDED = "embedded"
TAGS = "tags.json"

# What a user types to get an artifact of a kind; also the known kinds, in pipeline order.
MAKERS = {
    "data": "dclip prepare faces",
    "model": "dclip train",
    "clip": "dclip clip train",
    "samples": "dclip sample",
    "latents": "dclip invert",
    "tuned": "dclip finetune --target sketch",
    "edits": "dclip edit",
    "figure": "dclip grid",
}
ASSETS = {"model": "base", "clip": "clip"}  # kind -> folder below dclip/assets

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_VERSION = re.compile(r"v([1-9][0-9]{0,8})")
_ID = re.compile(r"[0-9a-f]{6,64}")
# Windows opens devices by these names whatever their suffix.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{d}{i}" for d in ("com", "lpt") for i in range(1, 10))}


class Notes(Protocol):
    """The part of :class:`dclip.context.Reporter` that finding needs."""

    def note(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...


# --- names ---------------------------------------------------------------------------------------


def check_name(name: str, what: str = "name") -> str:
    """Return ``name`` if it is safe as a folder on any system and unambiguous in a reference.

    That is 1 to 64 of letters, digits, ``.``, ``_``, ``-``, beginning and ending with a letter or
    digit; not ``v3`` (a version), ``latest``, ``embedded`` or a device name of Windows.

    Raises:
        BadInput: it is not; the fix names the nearest one that is.
    """
    if not isinstance(name, str) or not _valid(name):
        shown = str(name) if len(str(name)) <= 40 else f"{str(name)[:40]}..."
        raise BadInput(f"{shown!r} cannot be a {what}", f"use for example {slug(str(name))!r}")
    return name


def _valid(name: str) -> bool:
    return (
        _NAME.fullmatch(name) is not None
        and _VERSION.fullmatch(name) is None
        and name.lower() not in (LATEST, EMBEDDED, TAGS)
        and name.split(".")[0].lower() not in _DEVICES
    )


def slug(text: str, fallback: str = "artifact") -> str:
    """The valid name nearest to ``text``; ``fallback`` where nothing of it can stay."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", plain)[:64].strip("-._")
    if not plain:
        return fallback
    return plain if _valid(plain) else f"{fallback}-{plain}"[:64].strip("-._")


# --- places --------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Place:
    """Where in a store an artifact lies; its manifest may be unreadable."""

    kind: str
    name: str
    version: int
    path: Path = field(compare=False)

    @property
    def ref(self) -> str:
        return f"{self.kind}/{self.name}/v{self.version}"


def _folders(path: Path) -> list[str]:
    """Names of the visible folders in ``path``, sorted; none where it does not exist."""
    try:
        with os.scandir(path) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error


def kinds(root: Path) -> list[str]:
    return _folders(root)


def versions(root: Path, kind: str, name: str) -> list[Place]:
    """The versions of a name, oldest first."""
    folder = root / kind / name
    found = [
        Place(kind, name, int(match[1]), folder / entry)
        for entry in _folders(folder)
        if (match := _VERSION.fullmatch(entry))
    ]
    return sorted(found)


def places(root: Path, kind: str | None = None) -> Iterator[Place]:
    """Every artifact's place, by kind, name, version."""
    for each in kinds(root) if kind is None else [kind]:
        for name in _folders(root / each):
            yield from versions(root, each, name)


def read(place: Place) -> Manifest:
    """The manifest at ``place``, under the name that its folder has now.

    Raises:
        CorruptArtifact: unreadable, absent, or of another kind than its folder.
        StoreError: a newer format.
    """
    try:
        manifest = load(place.path, place.ref)
    except MissingArtifact as error:
        raise CorruptArtifact(
            f"{place.ref} has no {MANIFEST}", f"`dclip rm {place.ref}`, then make it again"
        ) from error
    if manifest.kind != place.kind:
        raise CorruptArtifact(
            f"{place.ref} holds an artifact of kind {manifest.kind}",
            f"move the folder back below {manifest.kind}/",
        )
    return replace(manifest, name=place.name, version=place.version)


def open_place(place: Place, *, check: bool = True) -> Artifact:
    """Load the artifact at ``place``; see :meth:`Artifact.open` for ``check`` and errors."""
    manifest = read(place)
    if check:
        Artifact.open(place.path, ref=place.ref)
    return Artifact(manifest, place.path, place.ref)


def readable(root: Path, kind: str | None = None) -> Iterator[Artifact]:
    """Every artifact whose manifest can be read; payloads are not looked at."""
    for place in places(root, kind):
        with suppress(DclipError):
            yield open_place(place, check=False)


def age(artifact: Artifact) -> tuple[str, int, str]:
    """Sorts from old to new."""
    return (artifact.manifest.created, artifact.version, artifact.name)


def embedded(kind: str) -> Artifact:
    """The artifact of ``kind`` that the package ships.

    Raises:
        BadInput: the package ships none of that kind.
        MissingArtifact: this installation lacks it.
    """
    if kind not in ASSETS:
        raise BadInput(f"nothing of kind {kind} is embedded in dclip", f"make one: `{maker(kind)}`")
    path = Path(dclip.__file__).parent / "assets" / ASSETS[kind]
    if not (path / MANIFEST).exists():
        raise MissingArtifact(
            f"this installation of dclip has no embedded {kind}",
            f"reinstall it, or make your own: `{maker(kind)}`",
        )
    found = Artifact.open(path, ref=f"{kind}/{EMBEDDED}")
    return replace(found, manifest=replace(found.manifest, name=EMBEDDED))


def maker(kind: str) -> str:
    """The command that makes an artifact of ``kind``."""
    return MAKERS.get(kind, f"dclip {kind}")


# --- references ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """A parsed ``[kind/]name[/vN | @tag]``."""

    kind: str | None
    name: str
    version: int | None = None
    tag: str = LATEST


def parse(text: str) -> Reference | None:
    """Read a store reference; None for what can only be an id, a path or a mistake."""
    body, at, tag = text.partition("@")
    parts = body.split("/")
    version = None
    if len(parts) > 1 and (match := _VERSION.fullmatch(parts[-1])):
        version = int(match[1])
        parts.pop()
    if not 1 <= len(parts) <= 2 or not all(_valid(part) for part in parts):
        return None
    if at and (version is not None or not tag):
        return None
    if tag and (match := _VERSION.fullmatch(tag)):  # name@v3 says plainly what it means
        version, tag = int(match[1]), ""
    return Reference(parts[0] if len(parts) == 2 else None, parts[-1], version, tag or LATEST)


def resolve(
    root: Path, ref: str | None, kind: str, report: Notes | None, default: str | None
) -> Artifact:
    """See :meth:`dclip.store.Store.resolve`."""
    if ref is not None:
        return find(root, ref, kind)
    found = [open_place(place, check=False) for place in places(root, kind)]
    if found:
        newest = max(found, key=age)
        Artifact.open(newest.path, ref=newest.ref)
    elif default is not None:
        newest = find(root, default, kind)
    else:
        raise MissingArtifact(f"the store {root} holds no {kind}", f"make one: `{maker(kind)}`")
    if report is not None:
        report.note(f"using {newest.ref}")
    return newest


def find(root: Path, ref: str, kind: str | None = None, *, check: bool = True) -> Artifact:
    """The artifact that ``ref`` names, of ``kind`` or (None) of any.

    Raises:
        BadInput: it names several artifacts, or one of another kind.
        MissingArtifact: it names none; the fix says what comes near, or how to make one.
        CorruptArtifact, StoreError: it is there but cannot be used.
    """
    place = locate(root, ref, kind)
    if isinstance(place, Artifact):
        return place
    return open_place(place, check=check)


def locate(root: Path, ref: str, kind: str | None = None) -> Place | Artifact:
    """Where ``ref`` leads: a place in the store (which may be damaged), or an artifact outside.

    Raises: as :func:`find`, but for the artifact's own state.
    """
    ref = ref.strip()
    if not ref:
        raise BadInput("an empty artifact name", "name one, such as `faces` or `model/base/v1`")
    if ref in (EMBEDDED, *(f"{each}/{EMBEDDED}" for each in ASSETS)):
        return _embedded(ref, kind)
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


def _embedded(ref: str, kind: str | None) -> Artifact:
    said = ref.removesuffix(EMBEDDED).rstrip("/") or None
    if said is None and kind is None:
        raise BadInput(
            "several artifacts are embedded",
            f"say one of {', '.join(f'{k}/{EMBEDDED}' for k in ASSETS)}",
        )
    if said and kind and said != kind:
        raise _wrong_kind(ref, said, kind)
    return embedded(said or kind or "")


def _wrong_kind(ref: str, found: str, kind: str) -> BadInput:
    return BadInput(
        f"{ref} is of kind {found}; {kind} is needed here", f"make one: `{maker(kind)}`"
    )


def _by_name(root: Path, ref: Reference, kind: str | None) -> Place | None:
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
        tags = load_tags(root, found_kind, ref.name).tags
        if ref.tag not in tags:
            has = ", ".join(sorted(tags)) or "none"
            raise MissingArtifact(
                f"{full} has no tag {ref.tag!r}", f"its tags: {has}; or name a version"
            )
        wanted = tags[ref.tag]
    for place in found:
        if place.version == wanted:
            return place
    has = ", ".join(f"v{place.version}" for place in found)
    raise MissingArtifact(f"{full} has no version v{wanted}", f"it has {has}")


def _by_id(root: Path, prefix: str, kind: str | None) -> Place | Artifact | None:
    found = [a for a in readable(root) if a.id.startswith(prefix)]
    for each in ASSETS:
        with suppress(DclipError):
            if (asset := embedded(each)).id.startswith(prefix):
                found.append(asset)
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
    if best.name == EMBEDDED:
        return best
    return Place(best.kind, best.name, best.version, best.path)


def _by_path(root: Path, ref: str, kind: str | None) -> Place | Artifact | None:
    path = Path(ref).expanduser()
    try:
        path = path.resolve()
        if not path.is_dir():
            return None
    except (OSError, ValueError, RuntimeError):
        return None
    found: Place | Artifact | None = None
    with suppress(ValueError):
        inside = path.relative_to(root.resolve()).parts
        if len(inside) in (2, 3) and (parsed := parse("/".join(inside))):
            found = _by_name(root, parsed, parsed.kind)
    if found is None and (path / MANIFEST).exists():
        found = Artifact.open(path)
    if found is not None and kind is not None and found.kind != kind:
        raise _wrong_kind(found.ref, found.kind, kind)
    return found


def _not_found(root: Path, ref: str, kind: str | None) -> DclipError:
    """The error for a reference that names nothing: what is near, then how to make one."""
    explicit = ref.startswith((".", "/", "~")) or Path(ref).is_absolute() or "\\" in ref
    what = kind or "artifact"
    if explicit:
        return MissingArtifact(
            f"{ref} is not the folder of an artifact",
            f"`dclip ls` shows the store's; or make one: `{maker(kind)}`" if kind else "`dclip ls`",
        )
    parsed = parse(ref)
    body = f"{parsed.kind}/{parsed.name}" if parsed and parsed.kind else ref.partition("@")[0]
    have = sorted({(place.kind, place.name) for place in places(root)})
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


# --- tags ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tags:
    """``tags.json`` of a name: user tags, and the highest version ever, which is not used again.

    ``latest`` is not stored: it is the highest version there is, so that no kill can leave it
    behind. The links that show tags in a file browser are for people and are never read.
    """

    last: int = 0
    tags: dict[str, int] = field(default_factory=dict)


def load_tags(root: Path, kind: str, name: str) -> Tags:
    """Read a name's tags; empty where there is no file.

    Raises:
        CorruptArtifact: the file is not what it should be.
        StoreError: a newer format.
    """
    path = root / kind / name / TAGS
    try:
        data: Any = json.loads(path.read_bytes())
        if data["format"] > FORMAT:
            raise StoreError(
                f"{path} was written by a newer dclip (format {data['format']})",
                "pip install --upgrade dclip",
            )
        return Tags(int(data["last"]), {str(k): int(v) for k, v in data["tags"].items()})
    except (FileNotFoundError, NotADirectoryError):
        return Tags()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CorruptArtifact(
            f"{path} is damaged", "delete that file: its tags are lost, the artifacts are not"
        ) from None


def save_tags(root: Path, kind: str, name: str, tags: Tags) -> None:
    """Write a name's tags in one step. The caller holds the store's lock."""
    data = {"format": FORMAT, "last": tags.last, "tags": dict(sorted(tags.tags.items()))}
    disk.write_atomic(root / kind / name / TAGS, (json.dumps(data, indent=2) + "\n").encode())


def check_tag(tag: str) -> str:
    """Return ``tag`` if a user may set it.

    Raises:
        BadInput: it is no valid name, or one that the store gives itself.
    """
    return check_name(tag, "tag")


def refresh_links(root: Path, kind: str, name: str) -> None:
    """Make ``latest`` and the tags browsable as relative links, as far as the disk allows links."""
    folder = root / kind / name
    have = {place.version for place in versions(root, kind, name)}
    wanted = {}
    with suppress(DclipError):
        tags = load_tags(root, kind, name).tags
        wanted = {tag: f"v{version}" for tag, version in tags.items() if version in have}
    if have:
        wanted[LATEST] = f"v{max(have)}"
    with suppress(OSError, NotImplementedError):
        for entry in list(folder.iterdir()):
            if entry.is_symlink() and entry.name not in wanted:
                entry.unlink()
        for tag, target in wanted.items():
            link = folder / tag
            if link.is_symlink() and link.readlink() == Path(target):
                continue
            if link.exists() and not link.is_symlink():
                continue
            part = folder / f"{disk.PART}{secrets.token_hex(4)}"
            part.symlink_to(target, target_is_directory=True)
            part.replace(link)
