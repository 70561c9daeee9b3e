"""Whole photos from their files: upright, in their own size, depth and colours."""

from __future__ import annotations

import importlib
import importlib.util
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from dclip.data.images import MAX_PIXELS, decode
from dclip.data.paths import read_file
from dclip.errors import BadInput
from dclip.photos.back import Array, Colours
from dclip.photos.colours import Plain, colours_of
from dclip.photos.metadata import png_depth

_ORIENTATION = 0x0112  # EXIF tag
TURNS = {
    2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True),
    8: (1, False),
}  # fmt: skip
"""EXIF's orientations that are not upright: quarter turns to the left, then whether mirrored."""

BACK = {6: 8, 8: 6}
"""Orientations whose turn another one undoes; the others undo themselves."""

_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM", "AVIF", "HEIF")
# TIFF tags of what the photo is about, not of how its pixels are stored.
_TIFF_KEPT = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432, 33723, 34377)


@dataclass(frozen=True)
class Photo:
    """A photo as it is seen, with what its file needs to be written again.

    Attributes:
        path: its file.
        data: the file's bytes.
        pixels: (H, W, 3) uint8 or uint16, upright, in the photo's own colours.
        alpha: (H, W) of the same type, or None.
        colours: what the pixels mean.
        format: Pillow's name of the file's format.
        grey: whether the file is grey, and is written so.
        orientation: EXIF's, 1 to 8, that was applied.
        notes: what a person would not expect.
        info: the file's metadata, by Pillow's names.
    """

    path: Path
    data: bytes = field(repr=False)
    pixels: Array = field(repr=False)
    alpha: Array | None = field(repr=False)
    colours: Colours
    format: str
    grey: bool
    orientation: int
    notes: tuple[str, ...]
    info: Mapping[str, Any] = field(repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as seen."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def view(self) -> NDArray[np.uint8]:
        """What a person sees, (H, W, 3) uint8 sRGB, over white where it is transparent."""
        if self.alpha is None and self.pixels.dtype == np.uint8 and isinstance(self.colours, Plain):
            return np.ascontiguousarray(self.pixels)
        out = np.empty(self.pixels.shape, np.uint8)
        for start in range(0, len(out), 512):
            rows = slice(start, start + 512)
            seen = self.colours.seen(self.pixels[rows]) * 127.5 + 127.5
            if self.alpha is not None:
                share = self.alpha[rows, :, None] / np.float32(np.iinfo(self.alpha.dtype).max)
                seen = 255 - (255 - seen) * share
            out[rows] = np.rint(seen).astype(np.uint8)
        return out


def read_photo(path: Path | str) -> Photo:
    """Read a whole photo in its own size, depth and colours.

    Grey stays grey; palettes become RGB; 16 bits stay 16 (colour TIFF: where OpenCV is installed);
    CMYK and other rare kinds of pixels are converted to 8-bit sRGB, which is noted.

    Raises:
        BadInput: no picture, damaged, too large, or an animation or several pages, of which one
            edited picture would be a part.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise BadInput(f"no such photo: {path}", "check the path")
    if path.is_dir():
        raise BadInput(f"{path} is a folder, not a photo")
    data = read_file(path, str(path))
    try:
        with Image.open(io.BytesIO(data), formats=_known()) as image:
            return _read(path, data, image)
    except (BadInput, MemoryError):
        raise
    except Exception:  # on damaged bytes, decoders raise nearly anything
        decode(data, name=str(path))  # tells what is wrong, in one line
        raise BadInput(f"{path} cannot be read whole", "save it as PNG or JPEG") from None


def _read(path: Path, data: bytes, image: Image.Image) -> Photo:
    if image.width * image.height > MAX_PIXELS:
        raise BadInput(
            f"{path} is too large: {image.width}x{image.height}",
            f"scale it below {MAX_PIXELS // 1_000_000} million pixels first",
        )
    kind = image.format or ""
    frames = getattr(image, "n_frames", 1)
    notes = []
    if frames > 1 and kind == "MPO":
        notes.append("a second picture in its file (a depth map, say) is not kept")
    elif frames > 1:
        what = "pages" if kind == "TIFF" else "frames"
        raise BadInput(f"{path} has {frames} {what}", "save the one that you want as a photo")
    info = {str(name): value for name, value in image.info.items()}
    if kind in ("JPEG", "MPO"):
        # Known once the file is opened, and lost with the pixels.
        info["qtables"] = getattr(image, "quantization", None)
        info["subsampling"] = JpegImagePlugin.get_sampling(image)
    if kind == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        info["tiff"] = {tag: tags[tag] for tag in _TIFF_KEPT if tag in tags}
    if kind == "WEBP":
        info["lossless"] = b"VP8L" in data[:64]
    image.load()
    turn = _orientation(image)  # asked once loaded: Pillow turns TIFF by itself
    planes, grey, more = _planes(path, data, image, kind)
    notes += more
    planes = turned(planes, turn)
    pixels = np.repeat(planes[..., :1], 3, axis=-1) if planes.shape[-1] < 3 else planes[..., :3]
    alpha = planes[..., -1] if planes.shape[-1] in (2, 4) else None
    if alpha is not None and (alpha == np.iinfo(alpha.dtype).max).all():
        info["opaque"] = True
    profile = info.get("icc_profile")
    if image.mode in ("CMYK", "LAB"):
        profile = info["icc_profile"] = None  # the pixels are sRGB now
    colours, note = colours_of(profile if isinstance(profile, bytes) else None, grey)
    notes += [note] if note else []
    return Photo(path, data, np.ascontiguousarray(pixels), alpha, colours, kind, grey, turn,
                 tuple(notes), info)  # fmt: skip


def _planes(
    path: Path, data: bytes, image: Image.Image, kind: str
) -> tuple[Array, bool, list[str]]:
    """The stored pixels (H, W, 1 to 4), whether they are grey, and notes."""
    mode, notes = image.mode, []
    depth = png_depth(data) if kind == "PNG" else None
    if depth in ((16, 2), (16, 4), (16, 6)) or (
        kind == "TIFF" and _tiff_bits(image) == 16 and mode in ("RGB", "RGBA")
    ):
        deep = _sixteen(data, image)
        if deep is not None:
            grey = depth == (16, 4)
            return (deep[..., [0, 3]] if grey else deep), grey, []
        notes = ["16 bits read as 8: pip install 'dclip[photos]' keeps them"]
    clear = "transparency" in image.info
    if mode in ("I;16", "I;16B", "I;16L") and not clear and _tiff_bits(image) in (None, 16):
        values = np.asarray(image.convert("I;16")) if mode != "I;16" else np.asarray(image)
        return values.astype(np.uint16)[..., None], True, []
    if mode in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX"):
        grey = mode in ("1", "L", "LA", "La")
        notes += ["1 bit a pixel: written with 8"] if mode == "1" else []
        alpha = clear or mode in ("LA", "La", "PA", "RGBA", "RGBa")
        image = image.convert(("LA" if alpha else "L") if grey else ("RGBA" if alpha else "RGB"))
        planes = np.asarray(image)
        return (planes[..., None] if planes.ndim == 2 else planes), grey, notes
    # Straight from the file, since decoding knows more of rare kinds than converting does.
    upright = decode(data, name=str(path))
    return (
        stored(upright.pixels, _orientation(image)),
        False,
        [f"{mode} pixels converted to 8-bit sRGB", *upright.notes],
    )


def _tiff_bits(image: Image.Image) -> int | None:
    tags = getattr(image, "tag_v2", None) if image.format == "TIFF" else None
    bits = tags.get(258) if tags else None
    return int(bits[0] if isinstance(bits, tuple) else bits) if bits else None


def _sixteen(data: bytes, image: Image.Image) -> Array | None:
    """A colour picture of 16 bits by OpenCV, since Pillow reads 8; None where that fails."""
    if importlib.util.find_spec("cv2") is None:
        return None
    cv2: Any = importlib.import_module("cv2")
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    found = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if found is None or found.dtype != np.uint16 or found.ndim != 3:
        return None
    if found.shape[:2] != (image.height, image.width):  # turned otherwise than by Pillow
        return None
    deep: NDArray[np.uint16] = found[..., [2, 1, 0, 3][: found.shape[2]]]
    return deep


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata is no reason to refuse sound pixels
        return 1


def turned(planes: Array, orientation: int) -> Array:
    """Pixels (H, W, ...) as stored to pixels as EXIF's orientation has them seen."""
    if orientation not in TURNS:
        return planes
    quarters, mirrored = TURNS[orientation]
    result = np.rot90(planes, quarters)
    upright: Array = np.ascontiguousarray(result[:, ::-1] if mirrored else result)
    return upright


def stored(planes: Array, orientation: int) -> Array:
    """Undoes :func:`turned`."""
    return turned(planes, BACK.get(orientation, orientation))


def _known() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]
