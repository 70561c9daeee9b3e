"""A name's tags and version counter (``tags.json``), and the links that show them to people."""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dclip.errors import CorruptArtifact, DclipError, StoreError
from dclip.store import files as disk
from dclip.store.manifest import FORMAT
from dclip.store.names import LATEST, TAGS
from dclip.store.places import versions


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
