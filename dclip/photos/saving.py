"""Edited photos to files: in the photo's own format, with what it carried, over nobody's file."""

from __future__ import annotations

import io
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dclip.errors import BadInput
from dclip.photos.back import Array
from dclip.photos.files import TURNS, Photo, stored, turned
from dclip.photos.metadata import png_bytes, with_thumbnail
from dclip.store.files import PART, free_name, sync

_WRITTEN = {"MPO": "JPEG", "DIB": "BMP", "GIF": "PNG"}  # formats that are written as another
_NO_ALPHA = ("JPEG", "BMP", "PPM")
_EXIF_TOO = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF")  # these say how the photo is turned


def beside(photo: Path, word: str = "edited") -> Path:
    """A free name in the photo's folder: ``holiday-edited.jpg``, then ``holiday-edited-2.jpg``."""
    return free_name(photo.with_name(f"{photo.stem}-{word}{photo.suffix}"))


def photo_bytes(
    photo: Photo, pixels: Array, target: Path | None = None
) -> tuple[bytes, str, tuple[str, ...]]:
    """The file of the photo with other pixels, see :func:`write_photo`.

    Args:
        pixels: of the photo's shape and type.
        target: whose suffix names the format; None for the photo's own.

    Returns:
        Its bytes, its suffix (another than the photo's where its format cannot be written), notes.

    Raises:
        BadInput: a format that cannot be written or holds no transparency where the photo has some.
    """
    wanted = target or photo.path
    kind = _kind(photo, wanted, target is not None)
    if kind == photo.format and np.array_equal(pixels, photo.pixels):
        return photo.data, wanted.suffix, ()
    notes: list[str] = []
    kind, suffix = _writable(photo, kind, wanted, target is not None, notes)
    return _encode(photo, pixels, kind, notes), suffix, tuple(notes)


def write_photo(
    photo: Photo, pixels: Array, target: Path | None = None, *, overwrite: bool = False
) -> tuple[Path, tuple[str, ...]]:
    """Write the photo with other pixels, in its own format or the one that ``target`` names.

    EXIF, profile, resolution and texts are kept, and the EXIF's small picture shows the new pixels.
    The stored picture is turned as the original's was, so that its EXIF stays right. A JPEG keeps
    its quantisation tables and subsampling. Equal pixels in the same format give a copy of the file
    byte for byte.

    Args:
        pixels: of the photo's shape and type.
        target: a file; None for a free name beside the photo, see :func:`beside`.
        overwrite: replace a file that is there; the photo itself is never replaced.

    Returns:
        Where it was written (with another suffix where the format cannot be written), and notes.

    Raises:
        BadInput: the photo itself or a file that is there, a format that cannot be written or
            holds no transparency where the photo has some, or a folder that cannot be written to.
    """
    target = target.expanduser() if target else None
    if target and target.is_dir():
        raise BadInput(f"{target} is a folder", "name a file in it")
    content, suffix, notes = photo_bytes(photo, pixels, target)
    wanted = target or beside(photo.path.with_suffix(suffix))
    _check_place(photo, wanted, overwrite)
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        if not _put(content, wanted, overwrite):
            raise _taken(wanted)
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInput(f"{wanted} cannot be written: {reason}", "name another folder") from None
    return wanted, notes


def _check_place(photo: Photo, target: Path, overwrite: bool) -> None:
    same = target.resolve() == photo.path.resolve()
    with suppress(OSError):
        same = same or target.samefile(photo.path)
    if same:
        raise BadInput(f"{target} is the photo itself", "name another file")
    if target.exists() and not overwrite:
        raise _taken(target)


def _taken(target: Path) -> BadInput:
    return BadInput(f"{target} is there already", "name another file")


def _put(content: bytes, target: Path, overwrite: bool) -> bool:
    """All of the file or none; without ``overwrite`` not in place of one that came meanwhile."""
    part = target.with_name(f"{PART}{secrets.token_hex(4)}-{target.name}")
    try:
        part.write_bytes(content)
        sync(part)
        if overwrite:
            part.replace(target)
            return True
        try:
            os.link(part, target)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            if target.exists():
                return False
            part.replace(target)
        return True
    finally:
        part.unlink(missing_ok=True)


def _kind(photo: Photo, target: Path, named: bool) -> str:
    """The format to write: the photo's own unless the name says another."""
    if not named or target.suffix.lower() == photo.path.suffix.lower():
        return photo.format
    Image.init()
    kind = Image.registered_extensions().get(target.suffix.lower())
    if kind is None:
        raise BadInput(f"cannot write {target.suffix or 'a file without suffix'}",
                       "name a .jpg, .png, .webp or .tif file")  # fmt: skip
    return photo.format if _WRITTEN.get(photo.format) == kind else kind


def _writable(
    photo: Photo, kind: str, target: Path, named: bool, notes: list[str]
) -> tuple[str, str]:
    """The format that holds the pixels, and its suffix: another one where nobody chose it."""
    wanted = _WRITTEN.get(kind, kind)
    deep = photo.pixels.dtype == np.uint16
    Image.init()
    known = wanted in Image.SAVE
    keeps_depth = wanted == "PNG" or (photo.grey and wanted == "TIFF" and photo.alpha is None)
    if not named and (not known or (deep and not keeps_depth and wanted == "TIFF")):
        wanted = "PNG"
    if named and (not known or kind == "GIF"):
        raise BadInput(f"{kind} pictures cannot be written here", "name a .png or .jpg file")
    if wanted in _NO_ALPHA and photo.alpha is not None and "opaque" not in photo.info:
        raise BadInput(f"{target.name} cannot hold the photo's transparency",
                       "name a .png or .webp file")  # fmt: skip
    if deep and wanted != "PNG" and not keeps_depth:
        notes.append("16 bits written as 8: name a .png file to keep them")
    if wanted == "PNG" and kind != "PNG" and not named:
        what = "16-bit colours in TIFF" if kind == "TIFF" else f"{kind} files"
        notes.append(f"{what} cannot be written here: written as PNG")
        return wanted, ".png"
    return wanted, target.suffix


def _encode(photo: Photo, pixels: Array, kind: str, notes: list[str]) -> bytes:
    planes = pixels[..., :1] if photo.grey else pixels
    if photo.alpha is not None and not (kind in _NO_ALPHA and "opaque" in photo.info):
        planes = np.concatenate([planes, photo.alpha[..., None]], axis=-1)
    exif = photo.info.get("exif")
    exif = exif if isinstance(exif, bytes) and exif else None
    keeps_turn = photo.orientation in TURNS and kind in _EXIF_TOO
    if keeps_turn and (exif or kind == photo.format):
        planes = stored(planes, photo.orientation)
    if planes.dtype == np.uint16 and kind not in ("PNG", "TIFF"):
        planes = np.rint(planes / np.float32(257)).astype(np.uint8)
    if planes.dtype == np.uint16 and kind == "TIFF" and planes.shape[-1] > 1:
        planes = np.rint(planes / np.float32(257)).astype(np.uint8)
    flat: Array = np.ascontiguousarray(planes[..., 0] if planes.shape[-1] == 1 else planes)
    if kind == "PNG" and photo.format == "PNG":
        return png_bytes(flat, photo.data)
    if kind == "PNG" and flat.dtype == np.uint16 and flat.ndim == 3:
        shell = io.BytesIO()  # a PNG that carries the metadata for the one with 16 bits
        Image.new("RGB", (1, 1)).save(shell, "PNG", **_options(photo, "PNG", exif))
        return png_bytes(flat, shell.getvalue())
    image = Image.fromarray(flat)
    if kind in ("JPEG", "WEBP", "AVIF", "HEIF") and image.mode == "LA":
        image = image.convert("RGBA")
    if exif:
        exif = with_thumbnail(exif, image if image.mode != "I;16" else image.convert("I"))
    out = io.BytesIO()
    options = _options(photo, kind, exif)
    try:
        image.save(out, kind, **options)
    except Exception as error:  # metadata that Pillow wrote once and refuses now
        kept = {name: options[name] for name in ("icc_profile", "quality") if name in options}
        out = io.BytesIO()
        upright = keeps_turn and kind != "PNG"
        plain = turned(flat, photo.orientation) if upright else flat
        try:
            Image.fromarray(plain).save(out, kind, **kept)
        except Exception:
            reason = " ".join(str(error).split())[:80]
            raise BadInput(f"{kind} refuses the picture: {reason}", "name a .png file") from None
        notes.append("its metadata could not be written and is left out")
    return out.getvalue()


def _options(photo: Photo, kind: str, exif: bytes | None) -> dict[str, Any]:
    info = photo.info
    names = {
        "JPEG": ("exif", "icc_profile", "xmp", "comment", "dpi"),
        "PNG": ("exif", "icc_profile", "dpi"),
        "WEBP": ("exif", "icc_profile", "xmp"),
        "TIFF": ("icc_profile", "dpi", "compression"),
        "AVIF": ("exif", "icc_profile", "xmp"),
        "HEIF": ("exif", "icc_profile", "xmp"),
        "BMP": ("dpi",),
    }.get(kind, ())
    options = {name: info[name] for name in names if info.get(name)}
    if "exif" in options:
        options["exif"] = exif
    if kind == "JPEG" and info.get("qtables") and photo.format in ("JPEG", "MPO"):
        options["qtables"] = info["qtables"]
        if info["subsampling"] >= 0:
            options["subsampling"] = info["subsampling"]
        options["progressive"] = bool(info.get("progressive"))
    elif kind in ("JPEG", "WEBP", "AVIF", "HEIF"):
        options["quality"] = 95
    if kind == "WEBP" and info.get("lossless"):
        options["lossless"] = True
    if kind == "TIFF" and photo.format == "TIFF":
        options["tiffinfo"] = info.get("tiff", {})
        if options.get("compression") in ("jpeg", "tiff_jpeg"):
            options["quality"] = 95
    elif kind == "TIFF" and exif:
        options["exif"] = exif
    return options
