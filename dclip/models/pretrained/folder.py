"""Where a pretrained model's files are: a folder of this machine, or a repository on the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from dclip.errors import BadInput, CorruptArtifact
from dclip.models.pretrained.files import SUFFIXES, sha256

HUB = "https://huggingface.co"


class Folder(Protocol):
    """Named files, some of which may have to be fetched first.

    Attributes:
        id: how the user called it, without the way to it.
        revision: the hub's commit; None of a local folder.
        sizes: bytes of every file, by name with forward slashes.
    """

    id: str
    revision: str | None
    sizes: dict[str, int]

    def path(self, name: str) -> Path:
        """The file on this machine, fetched and checked if it was not here."""

    def sha256(self, name: str) -> str:
        """The file's SHA-256 in hex; known of a file on the hub before it is fetched."""

    @property
    def licence(self) -> str | None:
        """What the model card states."""


class LocalFolder:
    """A folder of this machine; two levels of it are looked at.

    Args:
        id: how messages call it; None takes its name.
        revision: the hub's commit that it was fetched at.
        only: the one file that counts, where the user named a file.
    """

    def __init__(
        self,
        root: Path,
        id: str | None = None,
        revision: str | None = None,
        only: str | None = None,
    ) -> None:
        self.root, self.id, self.revision = root, id or root.resolve().name, revision
        found = [root / only] if only else [*root.glob("*"), *root.glob("*/*")]
        self.sizes = {
            p.relative_to(root).as_posix(): p.stat().st_size for p in sorted(found) if p.is_file()
        }

    def path(self, name: str) -> Path:
        return self.root / name

    def sha256(self, name: str) -> str:
        return sha256(self.path(name))

    @property
    def licence(self) -> str | None:
        """``license:`` in the front matter of README.md, as the hub's model cards have it."""
        if "README.md" not in self.sizes:
            return None
        text = self.path("README.md").read_text(encoding="utf-8", errors="replace")
        front = re.match(r"---\s*\n(.*?)\n---", text, re.S)
        stated = re.search(r"^license:\s*[\"']?([\w.-]+)", front.group(1), re.M) if front else None
        return stated.group(1) if stated else None


class HubFolder:
    """A repository on the hub, at one commit.

    Args:
        id: ``OWNER/NAME``.
        revision: branch, tag or commit; None takes the default branch.

    Raises:
        BadInput: no such repository or revision, one that asks for a login, or no way to the hub.
    """

    def __init__(self, id: str, revision: str | None = None) -> None:
        from huggingface_hub import HfApi

        self.id = id
        with _told(id, revision):
            info = HfApi().model_info(id, revision=revision, files_metadata=True, timeout=20)
        self.revision = info.sha
        self._licence = getattr(info.card_data, "license", None) if info.card_data else None
        self.sizes, self._sums = {}, {}
        for file in info.siblings or []:
            self.sizes[file.rfilename] = int(file.size or 0)
            if file.lfs is not None:
                self._sums[file.rfilename] = str(file.lfs.sha256)

    def path(self, name: str) -> Path:
        from huggingface_hub import hf_hub_download

        with _told(self.id, self.revision):
            file = Path(hf_hub_download(self.id, name, revision=self.revision))
        known = self._sums.get(name)
        if known is not None and sha256(file) != known:
            raise CorruptArtifact(
                f"{name} of {self.id} is not what the hub says it is (SHA-256 differs)",
                f"remove {file.resolve()} and run the command again",
            )
        return file

    def sha256(self, name: str) -> str:
        return self._sums.get(name) or sha256(self.path(name))

    @property
    def licence(self) -> str | None:
        return str(self._licence) if self._licence else None


def open_hub(id: str, revision: str | None = None) -> Folder:
    """The repository, or what an earlier download left of it on this machine.

    Raises:
        BadInput: as :class:`HubFolder`.
    """
    try:
        return HubFolder(id, revision)
    except _Unreachable as e:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            kept = Path(snapshot_download(id, revision=revision, local_files_only=True))
        except (LocalEntryNotFoundError, ValueError, OSError):
            raise BadInput(e.message, e.fix) from e
        return LocalFolder(kept, id, kept.name)


class _Unreachable(BadInput):
    """The hub does not answer."""


@contextmanager
def _told(id: str, revision: str | None) -> Iterator[None]:
    """Turn what the hub's client raises into one line with the fix."""
    from huggingface_hub import errors

    page = f"{HUB}/{id}"
    try:
        yield
    except errors.GatedRepoError as e:
        raise BadInput(
            f"{id} is gated: its owner wants its terms accepted first",
            f"accept them at {page}, then `hf auth login`",
        ) from e
    except errors.RevisionNotFoundError as e:
        raise BadInput(f"{id} has no revision {revision!r}", f"see {page}/commits/main") from e
    except errors.RepositoryNotFoundError as e:
        raise BadInput(
            f"there is no file or folder {id} here, and no such model on the hub"
            " (or it is private)",
            f"check the name at {page}; a private one needs `hf auth login`",
        ) from e
    except errors.HFValidationError as e:
        raise BadInput(f"{id!r} is no file, no folder and no hub id", "check the path") from e
    except Exception as e:
        if not _is_network(e):
            raise
        raise _Unreachable(
            f"there is no file or folder {id} here, and huggingface.co cannot be reached",
            f"where there is a network, download from {page}/tree/{revision or 'main'} the"
            " config.json, scheduler_config.json and diffusion_pytorch_model.safetensors (or"
            " .bin) into a folder (or its one .ckpt or .pt), and pass the folder (or file)",
        ) from e


def _is_network(error: Exception) -> bool:
    """Whether the hub's client failed to reach it; which HTTP library it uses has changed."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    kinds: list[Any] = [kind for kind in type(error).__mro__ if kind is not object]
    return any(
        kind.__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "requests", "urllib3")
        or kind.__name__ in ("HfHubHTTPError", "LocalEntryNotFoundError")
        for kind in kinds
    )


def weight_files(folder: Folder) -> list[str]:
    """The names that may be weights, in order."""
    return [name for name in folder.sizes if name.endswith(SUFFIXES)]
