"""Which pictures can be read here, by suffix and by content, and what to do about the others."""

from __future__ import annotations

import importlib
import importlib.util
import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from functools import cache

from PIL import Image

SUFFIXES: tuple[str, ...] = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".apng",
    ".webp",
    ".bmp",
    ".dib",
    ".tif",
    ".tiff",
    ".gif",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
    ".avif",
    ".heic",
    ".heif",
    ".hif",
)
"""What counts as a picture in a folder (compared in lower case)."""

UNREAD: Mapping[str, str] = {
    **dict.fromkeys((".jxl",), "JPEG XL"),
    **dict.fromkeys((".jp2", ".j2k", ".jpf", ".jpx"), "JPEG 2000"),
    **dict.fromkeys((".psd", ".psb"), "Photoshop"),
    **dict.fromkeys((".xcf",), "GIMP"),
    **dict.fromkeys((".exr",), "OpenEXR"),
    **dict.fromkeys((".hdr", ".pfm"), "high dynamic range"),
    **dict.fromkeys((".tga", ".pcx", ".dds", ".ico", ".icns", ".sgi", ".ras", ".xbm", ".xpm"),
                    "an old format"),
    **dict.fromkeys((".svg", ".svgz", ".eps", ".ai"), "vector graphics"),
    **dict.fromkeys(
        (".dng", ".nef", ".cr2", ".cr3", ".crw", ".arw", ".srw", ".orf", ".rw2", ".raf", ".pef"),
        "camera raw",
    ),
}  # fmt: skip
"""Suffixes of pictures in formats that are not read."""

UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".filepart")
"""What browsers add to the name of a file that they have not got whole."""

_CONVERT = "save it as PNG or JPEG"
_FIXES: Mapping[str, str] = {
    "HEIC": "pip install 'dclip[heic]'",
    "AVIF": "pip install -U 'pillow>=11.3'",
    "a macOS ._ file": "remove it: it holds no pixels",
    "a web page": "download the picture again",
    "a Git LFS pointer": "git lfs pull",
    "empty": "download or copy it again",
}
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")

# Nothing that runs a program (EPS starts Ghostscript) and no format that only looks like one.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM", "AVIF", "HEIF")

# Of PNG's chunks that are not needed to decode it, those that change what is seen.
_SEEN = (b"tRNS", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf")
_PNG = b"\x89PNG\r\n\x1a\n"


@cache
def pillow_formats() -> tuple[str, ...]:
    """The formats that Pillow may open, HEIC among them where pillow-heif is installed."""
    Image.init()
    if importlib.util.find_spec("pillow_heif") is not None:
        with suppress(Exception):  # built for another Pillow: the same as not there
            importlib.import_module("pillow_heif").register_heif_opener()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def missing(kind: str | None) -> str:
    """What to do to have pictures of a kind read; "" where they are."""
    if kind == "HEIC" and "HEIF" in pillow_formats():
        return ""
    if kind is None or kind in pillow_formats():
        return ""
    return _FIXES.get(kind, _CONVERT)


def sniff(head: bytes) -> str | None:
    """What a file is by its first 32 bytes or more; None for what is not known here.

    Pillow's names of formats, "HEIC", or words for a message such as "a web page".
    """
    if not head:
        return "empty"
    for begin, kind in (
        (b"\xff\xd8\xff", "JPEG"),
        (_PNG, "PNG"),
        (b"GIF8", "GIF"),
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"II+\0", "TIFF"),
        (b"MM\0+", "TIFF"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cJXL ", "JPEG XL"),
        (b"\0\0\0\x0cjP  ", "JPEG 2000"),
        (b"8BPS", "Photoshop"),
        (b"\0\x05\x16\x07", "a macOS ._ file"),
        (b"version https://git-lfs", "a Git LFS pointer"),
    ):
        if head.startswith(begin):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        brands = [head[8:12], *(head[i : i + 4] for i in range(16, len(head), 4))]
        if any(brand in (b"avif", b"avis") for brand in brands):
            return "AVIF"
        if any(brand in _HEIC for brand in brands) or brands[0] in (b"mif1", b"msf1"):
            return "HEIC"
        return None
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":
        return "a web page"
    return None


def sound_png(data: bytes, *, bare: bool) -> bytes:
    """A PNG without the chunks that decoding does not need, and those with a wrong checksum.

    Long or damaged text is no reason to refuse sound pixels (PNG specification, 13.2: a damaged
    ancillary chunk may be passed over).

    Args:
        data: the file.
        bare: leave out colour profile and orientation too.
    """
    if not data.startswith(_PNG):
        return data
    parts, at = [_PNG], len(_PNG)
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if end > len(data):
            break
        needed = not kind[0] & 0x20
        useful = kind == b"tRNS" if bare else kind in _SEEN
        checksum = zlib.crc32(data[at + 4 : end - 4]).to_bytes(4, "big")
        if needed or (useful and checksum == data[end - 4 : end]):
            parts.append(data[at:end])
        at = end
    parts.append(data[at:])
    return b"".join(parts)
