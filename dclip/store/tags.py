"""A name's tags (``tags.json``), and the links that show them to people."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from dclip.errors import CorruptArtifact, DclipError, StoreError
from dclip.store import files as disk
from dclip.store.ids import FORMAT
from dclip.store.manifest import other_format
from dclip.store.names import LARGEST_VERSION, LATEST, TAGS, VERSION, valid_tag
from dclip.store.paths import versions
from dclip.store.reading import read_json


def load_tags(root: Path, kind: str, name: str) -> dict[str, int]:
    """A name's tags and the versions that they are on; none where there is no file.

    ``latest`` is not among them: it is the highest version there is, so that no kill can leave it
    behind. The links that show tags in a file browser are for people and are never read.

    Raises:
        CorruptArtifact: the file is not what it should be.
        StoreError: another format, or it cannot be read.
    """
    path = root / kind / name / TAGS
    try:
        data = read_json(path)
        number, tags = data.get("format"), data.get("tags")
        if not isinstance(number, int) or isinstance(number, bool) or not number > 0:
            raise ValueError("it has no format")
        if number > FORMAT:
            raise other_format(str(path), number)
        if number < FORMAT:
            raise ValueError(f"it is of format {number}")
        if data.keys() != {"format", "tags"} or not isinstance(tags, dict):
            raise ValueError("its keys are not format and tags")
        for tag, version in tags.items():
            whole = isinstance(version, int) and not isinstance(version, bool)
            if not valid_tag(tag) or not whole or not 0 < version <= LARGEST_VERSION:
                raise ValueError(f"{ascii(tag)[:60]} on {ascii(version)[:60]} is not a tag")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise CorruptArtifact(
            f"{path} is damaged: {error}",
            "move that file away: its tags are lost, the artifacts and their numbers are not",
        ) from None
    return dict(tags)


def save_tags(root: Path, kind: str, name: str, tags: Mapping[str, int]) -> None:
    """Write a name's tags in one step. The caller holds the store's lock and has read them."""
    data = {"format": FORMAT, "tags": dict(sorted(tags.items()))}
    disk.write_atomic(root / kind / name / TAGS, (json.dumps(data, indent=2) + "\n").encode())


def refresh_links(root: Path, kind: str, name: str) -> None:
    """Make ``latest`` and the tags browsable as relative links, as far as the disk allows links.

    Only links of our own form, to a version beside them, are changed or removed.
    """
    folder = root / kind / name
    have = {at.version for at in versions(root, kind, name)}
    wanted = {}
    with suppress(DclipError):
        tags = load_tags(root, kind, name)
        wanted = {tag: f"v{version}" for tag, version in tags.items() if version in have}
    if have:
        wanted[LATEST] = f"v{max(have)}"
    with suppress(OSError, NotImplementedError):
        for entry in list(folder.iterdir()):
            if _ours(entry) and entry.name not in wanted:
                entry.unlink()
        for tag, target in wanted.items():
            link = folder / tag
            there = link.is_symlink() or link.exists()
            if there and (not _ours(link) or str(link.readlink()) == target):
                continue
            part = folder / f"{disk.PART}{secrets.token_hex(4)}"
            part.symlink_to(target, target_is_directory=True)
            part.replace(link)


def _ours(path: Path) -> bool:
    """Whether ``path`` is a link as :func:`refresh_links` makes them."""
    if not path.is_symlink() or VERSION.fullmatch(path.name):
        return False
    return VERSION.fullmatch(str(path.readlink())) is not None
