"""Safetensors files that carry a checksum of all their bytes, read without torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dclip.store.reading import parse_json

BLANK = "0" * 64  # stands in the file's metadata, under "check", until it is signed
_LONGEST = 100 << 20  # bytes of a header


def sign(path: Path) -> None:
    """Put the SHA-256 of a safetensors file into its metadata, where ``check`` is :data:`BLANK`.

    The hash is over the file with the blank. The file is not synced.

    Raises:
        ValueError: it has no such metadata.
    """
    header = _header(path)
    at = header.find(f'"check":"{BLANK}"'.encode())
    if at < 0:
        raise ValueError(f"{path} has no blank checksum")
    digest = _digest(path, header)
    with path.open("r+b") as stream:
        stream.seek(8 + at + len('"check":"'))
        stream.write(digest.encode())


def signed_metadata(path: Path) -> dict[str, str]:
    """The metadata of a file that :func:`sign` signed.

    Raises:
        ValueError: it is not whole, or any byte of it is not as it was signed.
        OSError: it cannot be read.
    """
    header = _header(path)
    metadata = parse_json(header).get("__metadata__")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("check"), str):
        raise ValueError("it has no checksum")
    check = metadata["check"]
    written = f'"check":"{check}"'.encode()
    if len(check) != len(BLANK) or header.count(written) != 1:
        raise ValueError("its checksum is damaged")
    if _digest(path, header.replace(written, f'"check":"{BLANK}"'.encode())) != check:
        raise ValueError("a byte of it is not as it was written")
    return {str(key): str(value) for key, value in metadata.items()}


def _header(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(_LONGEST, size - 8):
            raise ValueError("it is cut short")
        return stream.read(length)


def _digest(path: Path, header: bytes) -> str:
    digest = hashlib.sha256(len(header).to_bytes(8, "little") + header)
    with path.open("rb") as stream:
        stream.seek(8 + len(header))
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
