"""The store: a folder of artifacts, to find them, make them, name them and keep them in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from dclip.store import build, lineage, refs, tags, transfer, upkeep, verify
from dclip.store import files as disk
from dclip.store.artifact import Artifact, check_files
from dclip.store.names import LATEST, check_name, valid_tag
from dclip.store.paths import (
    VersionPath,
    check_inside,
    open_version,
    version_paths,
    versions,
)
from dclip.store.staging import Staging, Workspace

_SHOW_READING = 512 << 20  # bytes from which the reading of an input is shown
_STORE_LOCK_WAIT = 60.0  # seconds; the lock is held for renames and small writes only


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
        self.verifies = verify

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    # --- finding

    def resolve(
        self,
        ref: str | None,
        kind: str,
        report: refs.Notes | None = None,
        default: str | None = None,
        suits: Callable[[Artifact], bool] | None = None,
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
            suits: which artifacts to choose from where ``ref`` is None.

        Raises:
            MissingArtifact: nothing fits; the fix is a near name or the command that makes one.
            BadInput: ``ref`` is ambiguous or of another kind.
            CorruptArtifact, StoreError: it is there but cannot be used.
        """
        return refs.resolve(self.root, ref, kind, report, default, self.check, suits)

    def find(self, ref: str, *, check: bool = True) -> Artifact:
        """The artifact of any kind that ``ref`` names; errors as :meth:`resolve`.

        Args:
            ref: as for :meth:`resolve`; a name that several kinds have needs its kind before it.
            check: refuse an artifact whose files are not what its manifest says.
        """
        return refs.find(self.root, ref, check=self.check if check else None)

    def locate(self, ref: str) -> VersionPath | Artifact:
        """Where ``ref`` leads: a version of this store, which may be damaged, or an artifact
        outside; errors as :meth:`resolve`."""
        return refs.locate(self.root, ref)

    def input(self, artifact: Artifact, role: str) -> Artifact:
        """What ``artifact`` was made from: :func:`dclip.store.lineage.input_of`."""
        return lineage.input_of(self.root, artifact, role, self.check)

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

    def check(self, artifact: Artifact, report: Reporter | None = None) -> None:
        """Refuse an artifact whose files are not what its manifest says.

        Args:
            artifact: of this store or from elsewhere.
            report: shown the progress where a large one is read.

        Raises:
            CorruptArtifact: they are not.
        """
        if not self.verifies:
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
        request = build.ask(stage, kind, name, config, inputs, seed, revision)
        return build.run(self, request, inputs, context, make, estimate, accept, device)

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
    def sole_writer(self, kind: str, key: str) -> Iterator[None]:
        """Hold the lock of the work ``key``, which makes an artifact of ``kind``.

        Raises:
            StoreBusy: another process does this very work.
            StoreError: the store cannot be written.
        """

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
