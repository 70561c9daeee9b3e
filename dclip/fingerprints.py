"""What identifies a CLIP or a network that lies outside the store."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dclip.hashing import sha256


def fingerprint(spec: str) -> str:
    """The name of weights that have one, else the SHA-256 of all that the files hold.

    Args:
        spec: a folder in open_clip's format, a file, ``NAME:TAG``, ``NAME:TAG=FILE`` or
            ``hf-hub:ORG/REPO``.
    """
    place = Path(spec)
    if is_dir(place):
        inside = sorted(p for p in place.rglob("*") if p.is_file())
        return _digest([p for p in inside if p.suffix in (".json", ".safetensors", ".txt")], place)
    if is_file(place):
        return sha256(place)
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


def _digest(files: list[Path], root: Path) -> str:
    """One hash of files by their paths below ``root`` and their whole content."""
    digest = hashlib.sha256()
    for file in files:
        name = file.relative_to(root).as_posix().encode("utf-8", "surrogateescape")
        digest.update(name + b"\0" + sha256(file).encode() + b"\n")
    return digest.hexdigest()
