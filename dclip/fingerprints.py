"""What identifies a CLIP or a network that lies outside the store."""

from __future__ import annotations

import hashlib
from pathlib import Path


def fingerprint(spec: str) -> str:
    """The name of weights that have one, else the SHA-256 of all that the files hold.

    Args:
        spec: a folder in open_clip's format, a file, ``NAME:TAG``, ``NAME:TAG=FILE`` or
            ``hf-hub:ORG/REPO``.
    """
    place = Path(spec)
    if is_dir(place):
        inside = sorted(p for p in place.rglob("*") if p.is_file())
        return _digest([p for p in inside if p.suffix in (".json", ".safetensors", ".txt")])
    if is_file(place):
        return _digest([place])
    name, separator, file = spec.partition("=")
    if not separator or not is_file(Path(file).expanduser()):
        return spec
    return f"{name}={fingerprint(str(Path(file).expanduser()))}"


def is_file(path: Path) -> bool:
    """Whether a file is there; a name that no file can have (too long, NUL) is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_dir(path: Path) -> bool:
    """Whether a folder is there; a name that no folder can have (too long, NUL) is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode("utf-8", "surrogateescape"))
        with file.open("rb") as content:
            while block := content.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
