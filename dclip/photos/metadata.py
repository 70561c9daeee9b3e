"""What a picture file carries besides its pixels: PNG chunks, and the small picture in EXIF."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_PNG = b"\x89PNG\r\n\x1a\n"
_KEPT = (b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf", b"pHYs", b"tIME", b"tEXt", b"zTXt", b"iTXt")
_EXIF = b"Exif\0\0"
_ROWS = 256  # of a PNG that are squeezed at a time
_OFFSET, _LENGTH = 0x0201, 0x0202  # of the small picture, tags of EXIF's second directory


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The sound chunks of a PNG file as (kind, content); it ends where the file is damaged."""
    at = len(_PNG)
    while data.startswith(_PNG) and at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        content = data[at + 8 : at + 8 + length]
        check = data[at + 8 + length : at + 12 + length]
        if len(check) < 4:
            return
        if zlib.crc32(kind + content) == struct.unpack(">I", check)[0]:
            yield kind, content
        at += 12 + length


def png_depth(data: bytes) -> tuple[int, int] | None:
    """Bits a sample and the colour type of a PNG file; None for what is none."""
    for kind, content in chunks(data):
        if kind == b"IHDR" and len(content) == 13:
            return content[8], content[9]
    return None


def png_bytes(pixels: NDArray[np.unsignedinteger[Any]], kept: bytes = b"") -> bytes:
    """A PNG file of 8 or 16 bits a sample.

    Args:
        pixels: (H, W) grey, or (H, W, C): grey and alpha, RGB, RGBA.
        kept: another PNG file, whose profile, EXIF, texts, date and resolution are carried over.
    """
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    height, width, channels = planes.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    head = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, colour, 0, 0, 0)
    parts = [_PNG, _chunk(b"IHDR", head)]
    parts += [_chunk(kind, content) for kind, content in chunks(kept) if kind in _KEPT]
    squeeze, above = (
        zlib.compressobj(6),
        np.zeros((1, width * channels * pixels.itemsize), np.uint8),
    )
    for start in range(0, height, _ROWS):
        part = planes[start : start + _ROWS]
        wide = np.ascontiguousarray(part.astype(part.dtype.newbyteorder(">")))
        rows = wide.view(np.uint8).reshape(len(part), -1)
        # The filter "up" (RFC 2083, 6.4): each byte less the one above.
        lines = np.full((len(rows), 1 + rows.shape[1]), 2, np.uint8)
        lines[:, 1:] = rows - np.concatenate([above, rows[:-1]])
        above = rows[-1:]
        parts.append(_chunk(b"IDAT", squeeze.compress(lines.tobytes())))
    parts += [_chunk(b"IDAT", squeeze.flush()), _chunk(b"IEND", b"")]
    return b"".join(parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def with_thumbnail(exif: bytes, picture: Image.Image) -> bytes:
    """EXIF whose small picture, if it has one, shows ``picture``; nothing else in it moves.

    The new one takes the place of the old one, so it is made to be no longer than that. Where it
    cannot be, or the EXIF is damaged, it comes back as it was.

    Args:
        exif: the block as in a JPEG file, with or without its name.
        picture: the photo as stored, that is before its orientation is applied.
    """
    start = len(_EXIF) if exif.startswith(_EXIF) else 0
    try:
        at, length = _thumbnail(exif[start:])
        with Image.open(io.BytesIO(exif[start + at : start + at + length])) as old:
            size = old.size
    except (struct.error, IndexError, OSError, ValueError, KeyError):
        return exif
    for quality in (80, 60, 40, 20, 5):
        out = io.BytesIO()
        picture.convert("RGB").resize(size, Image.Resampling.BOX).save(out, "JPEG", quality=quality)
        if len(out.getvalue()) <= length:
            new = out.getvalue().ljust(length, b"\0")
            return exif[: start + at] + new + exif[start + at + length :]
    return exif


def _thumbnail(tiff: bytes) -> tuple[int, int]:
    """Where the small JPEG lies in a TIFF block, and its length."""
    order = {b"II": "<", b"MM": ">"}[tiff[:2]]
    first = struct.unpack(order + "I", tiff[4:8])[0]
    count = struct.unpack(order + "H", tiff[first : first + 2])[0]
    second = struct.unpack(order + "I", tiff[first + 2 + 12 * count :][:4])[0]
    if not second:
        raise KeyError("no second directory")
    count = struct.unpack(order + "H", tiff[second : second + 2])[0]
    found = {}
    for number in range(count):
        entry = tiff[second + 2 + 12 * number :][:12]
        tag, kind, _ = struct.unpack(order + "HHI", entry[:8])
        if kind == 4:
            found[tag] = struct.unpack(order + "I", entry[8:])[0]
    at, length = found[_OFFSET], found[_LENGTH]
    if at + length > len(tiff):
        raise ValueError("beyond the block")
    return at, length
