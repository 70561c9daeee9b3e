"""Picture files of kinds that Pillow does not write, made from arrays."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def tiff(
    values: np.ndarray,
    *,
    order: str = "<",
    white_is_zero: bool = False,
    photometric: int | None = None,
    tags: dict[int, int] | None = None,
) -> bytes:
    """One uncompressed strip of grey or colour samples of the array's own type (TIFF 6.0)."""
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    entries = {
        256: width, 257: height, 259: 1, 262: 0 if white_is_zero else photometric or 1,
        273: 0, 277: channels, 278: height, 279: len(data), 339: kind, **(tags or {}),
    }  # fmt: skip
    bits = [8 * values.dtype.itemsize] * channels
    where = 8 + 2 + 12 * (len(entries) + 1) + 4
    behind = b""
    if channels > 2:
        behind = struct.pack(f"{order}{channels}H", *bits)
    entries[273] = where + len(behind)
    body = b""
    for tag in sorted([*entries, 258]):
        if tag == 258 and behind:
            body += struct.pack(f"{order}HHII", tag, 3, channels, where)
        elif tag == 258:
            body += struct.pack(f"{order}HHIHH", tag, 3, 1, bits[0], 0)
        else:
            body += struct.pack(f"{order}HHII", tag, 4, 1, entries[tag])
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    count = struct.pack(f"{order}H", len(entries) + 1)
    return head + count + body + bytes(4) + behind + data


def png_chunk(kind: bytes, data: bytes, *, sound: bool = True) -> bytes:
    checksum = zlib.crc32(kind + data) ^ (0 if sound else 1)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    """A PNG of raw rows, each with its filter byte; colour 0 grey, 2 RGB, 4 LA, 6 RGBA."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def with_chunk(data: bytes, chunk: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    return data[:33] + chunk + data[33:]


def _fixed(*numbers: float) -> bytes:
    return b"".join(struct.pack(">i", round(n * 65536)) for n in numbers)


def icc_profile(space: bytes, primaries: np.ndarray | None, gamma: float) -> bytes:
    """A minimal profile (ICC.1:2001): primaries as XYZ under D50 in columns, and a gamma.

    Args:
        space: b"RGB " or b"GRAY".
        primaries: (3, 3); None for grey.
    """
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    white = b"XYZ " + bytes(4) + _fixed(0.9642, 1.0, 0.8249)
    text = b"made here\0"
    desc = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78 + (-len(text)) % 4)
    tags = [(b"desc", desc), (b"wtpt", white)]
    if primaries is None:
        tags.append((b"kTRC", curve))
    else:
        for place, letter in enumerate(b"rgb"):
            column = b"XYZ " + bytes(4) + _fixed(*primaries[:, place])
            tags += [(bytes([letter]) + b"XYZ", column), (bytes([letter]) + b"TRC", curve)]
    at = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags:
        content += bytes(-len(content) % 4)
        table += struct.pack(">4sII", name, at + len(body), len(content))
        body += content
    header = bytearray(128)
    struct.pack_into(">I", header, 0, 128 + len(table) + len(body))
    struct.pack_into(">I", header, 8, 0x02400000)
    header[12:24] = b"mntr" + space + b"XYZ "
    header[36:40] = b"acsp"
    header[68:80] = _fixed(0.9642, 1.0, 0.8249)
    return bytes(header) + table + body
