"""Image files to pixels and back: decode, orient, crop, resize, convert, save."""

from __future__ import annotations

import io
import threading
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from dclip.data.formats import SUFFIXES as SUFFIXES  # others ask for them here
from dclip.data.formats import missing, pillow_formats, sniff, sound_png
from dclip.data.paths import read_bytes, shown, why
from dclip.data.pixels import TILE, Converter, tiles
from dclip.errors import BadInput
from dclip.store import atomic

if TYPE_CHECKING:
    import torch

MAX_PIXELS = 150_000_000
"""Largest picture that is decoded, in pixels as decoded: four bytes each must fit in memory."""

MAX_JPEG_PIXELS = 400_000_000
"""Largest JPEG, in pixels as stored: the decoder can shrink it on the way."""

FACE_FRACTION = 148 / 178
"""Side of the "face" crop over the short side: CelebA's 178x218 gives 148x148 at (15, 35)."""

_LARGE = 16_000_000  # pixels from which only one picture is decoded at a time
_one_large = threading.Lock()

# The limits above are ours and refuse with a clear line; Pillow's own warning, at a lower size,
# would be a second voice. A filter set per call would race between decoding threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # damaged metadata

_ORIENTATION = 0x0112  # EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Decoded:
    """A decoded picture.

    Attributes:
        pixels: (H, W, 3) uint8 sRGB.
        notes: what was done that the eye would not expect, e.g. "several frames: first one taken".
    """

    pixels: NDArray[np.uint8]
    notes: tuple[str, ...] = ()


def check_crop(crop: str) -> str:
    """Return ``crop`` if it is "center", "face" or a whole number of pixels.

    Raises:
        BadInput: for anything else.
    """
    if crop in ("center", "face"):
        return crop
    if crop.isascii() and crop.isdigit() and len(crop) < 10 and int(crop) > 0:
        return crop
    raise BadInput(
        f"unknown crop {shown(crop)!r}", "use center, face, or a number of pixels such as 148"
    )


def decode(
    source: bytes | Path | str,
    *,
    size: int | None = None,
    crop: str = "none",
    name: str | None = None,
) -> Decoded:
    """Decode an image file to 8-bit sRGB, cropped and resized.

    EXIF orientation and the colour profile are applied; 16-bit, 32-bit and float samples are
    scaled to 8 bits; transparency is laid over white; of an animation the first frame is taken.

    Args:
        source: the file, or its bytes.
        size: side of the square result; None keeps the crop's own size.
        crop: "none", "center" (centre square by the short side), "face" (the centre square of
            148/178 of the short side, CelebA's usual 148x148), or a number of pixels for a centre
            square of that side (at most the short side).
        name: what to call the picture in messages; the path by default.

    Returns:
        pixels (size, size, 3), or the crop's own size.

    Raises:
        BadInput: not an image, truncated, too large, or not readable at all.
    """
    label = shown(name or ("image" if isinstance(source, bytes) else str(source)))
    data = source if isinstance(source, bytes) else _read(Path(source), label)
    try:
        return _decode(data, size, crop, label)
    except (BadInput, MemoryError):
        raise
    except Exception as error:  # on damaged bytes, decoders raise nearly anything
        kind = sniff(data[:64])
        for bare in (False, True) if kind == "PNG" else ():
            try:
                read = _decode(sound_png(data, bare=bare), size, crop, label)
            except Exception:
                continue
            lost = "its metadata and colour profile are" if bare else "some of its metadata is"
            return Decoded(read.pixels, (*read.notes, f"{lost} damaged or too long: left out"))
        raise _unreadable(error, kind, label) from None


def _read(path: Path, label: str) -> bytes:
    try:
        return read_bytes(path)
    except FileNotFoundError:
        raise BadInput(f"no such image: {label}", "check the path") from None
    except (OSError, ValueError) as error:
        if path.is_dir():
            raise BadInput(f"{label} is a folder, not an image", "name a file in it") from None
        raise BadInput(f"{label} may not be read: {why(error)}", "check the file") from None


def _unreadable(error: Exception, kind: str | None, label: str) -> BadInput:
    if isinstance(error, Image.DecompressionBombError):
        return _too_large(label)
    if fix := missing(kind):
        return BadInput(f"{label} is not an image that can be read here: it is {kind}", fix)
    if isinstance(error, UnidentifiedImageError):
        what = f": a {kind} of an unusual kind, or damaged" if kind else ""
        return BadInput(
            f"{label} is not an image that can be read{what}",
            "save it as PNG or JPEG" if kind else f"give one of: {kinds()}",
        )
    return BadInput(f"{label} is damaged: {why(error)}", "replace or remove the file")


def kinds() -> str:
    """The suffixes of pictures, for messages."""
    return " ".join(suffix[1:] for suffix in SUFFIXES)


def shape_of(data: bytes) -> tuple[int, int]:
    """Width and height as stored; (0, 0) for what is no picture, which decoding then tells."""
    try:
        with _open(data) as image:
            return image.size
    except Exception:  # on damaged bytes, decoders raise nearly anything
        return (0, 0)


def _open(data: bytes) -> Image.Image:
    if sniff(data[:4]) == "JPEG":
        # Not by Image.open, which refuses from 179 million pixels, and would take a JPEG with a
        # depth map or a second eye behind it (MPO) for an animation.
        return JpegImageFile(io.BytesIO(data))
    return Image.open(io.BytesIO(data), formats=pillow_formats())


def _decode(data: bytes, size: int | None, crop: str, label: str) -> Decoded:
    with _open(data) as image:
        width, height = image.size
        if min(width, height) < 1:
            raise BadInput(f"{label} has no pixels", "replace or remove the file")
        side = _side(min(width, height), crop)
        if image.format == "JPEG":
            # Of a progressive one the decoder holds all of it before it shrinks.
            most = MAX_PIXELS if image.info.get("progressive") else MAX_JPEG_PIXELS
            if width * height > most:
                raise _too_large(label, f"{width}x{height}", most)
            if size is not None:
                # The decoder can drop to 1/2, 1/4, 1/8 while decoding: less time and memory. Twice
                # the final size is kept so that the last, antialiased step still decides.
                scale = 2 * size / (side or min(width, height))
                if scale < 1:
                    image.draft(None, (int(width * scale) + 1, int(height * scale) + 1))
        pixels = image.width * image.height
        if pixels > MAX_PIXELS:
            raise _too_large(label, f"{width}x{height}")
        notes = []
        if getattr(image, "is_animated", False):
            image.seek(0)
            notes.append("several frames: first one taken")
        # Several large pictures at once, one a thread, would need several times the memory.
        with _one_large if pixels > _LARGE else nullcontext():
            image.load()
            shrink = min(image.size) / min(width, height)
            convert = Converter(image, label)
            turn = _TURNS.get(_orientation(image))
            if size is not None:
                rgb = _resized(image, convert, _centre(image.size, side and side * shrink), size)
                if turn is not None:
                    rgb = rgb.transpose(turn)
                return Decoded(np.array(rgb), (*notes, *convert.notes))
            whole = np.empty((image.height, image.width, 3), dtype=np.uint8)
            for left, top, right, bottom in tiles(*image.size):
                part = convert(image.crop((left, top, right, bottom)))
                whole[top:bottom, left:right] = np.asarray(part)
    return Decoded(_cropped(_turned(whole, turn), side), (*notes, *convert.notes))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata is no reason to refuse sound pixels
        return 1


def _turned(pixels: NDArray[np.uint8], turn: Image.Transpose | None) -> NDArray[np.uint8]:
    """What Pillow's ``transpose`` does, as a view."""
    if turn is None:
        return pixels
    turns = {
        Image.Transpose.FLIP_LEFT_RIGHT: pixels[:, ::-1],
        Image.Transpose.FLIP_TOP_BOTTOM: pixels[::-1],
        Image.Transpose.ROTATE_180: pixels[::-1, ::-1],
        Image.Transpose.TRANSPOSE: pixels.swapaxes(0, 1),
        Image.Transpose.TRANSVERSE: pixels[::-1, ::-1].swapaxes(0, 1),
        Image.Transpose.ROTATE_270: pixels[::-1].swapaxes(0, 1),
        Image.Transpose.ROTATE_90: pixels[:, ::-1].swapaxes(0, 1),
    }
    return turns[turn]


def _cropped(pixels: NDArray[np.uint8], side: int | None) -> NDArray[np.uint8]:
    if side is not None:
        left, top, _, _ = _centre((pixels.shape[1], pixels.shape[0]), side)
        x, y = round(left - 0.01), round(top - 0.01)
        pixels = pixels[y : y + side, x : x + side]
    return np.ascontiguousarray(pixels)


def _resized(
    image: Image.Image, convert: Converter, box: tuple[float, float, float, float], size: int
) -> Image.Image:
    """The box of a picture in RGB, (size, size), antialiased.

    A large one is converted and shrunk by a whole number part by part, so that no more than a part
    is held in RGB; the last step, from at least three times the size, decides the result.
    """
    left, top = int(box[0]), int(box[1])
    width, height = int(np.ceil(box[2])) - left, int(np.ceil(box[3])) - top
    factor = max(1, int(min(box[2] - box[0], box[3] - box[1]) / size / 3.0))
    parts = list(tiles(width, height, factor))
    if len(parts) == 1:
        if image.width * image.height > width * height + TILE * TILE:
            image = image.crop((left, top, left + width, top + height))
            box = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
        rgb = convert(image)
        return rgb.resize((size, size), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
    canvas = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for x, y, right, bottom in parts:
        part = convert(image.crop((left + x, top + y, left + right, top + bottom)))
        canvas.paste(part.reduce(factor) if factor > 1 else part, (x // factor, y // factor))
    scaled = (
        (box[0] - left) / factor,
        (box[1] - top) / factor,
        min((box[2] - left) / factor, canvas.width),
        min((box[3] - top) / factor, canvas.height),
    )
    return canvas.resize((size, size), Image.Resampling.LANCZOS, box=scaled)


def _too_large(label: str, shape: str = "", most: int = MAX_PIXELS) -> BadInput:
    return BadInput(
        f"{label} is too large{': ' + shape if shape else ''}",
        f"scale it below {most // 1_000_000} million pixels first",
    )


def _side(short: int, crop: str) -> int | None:
    if crop == "none":
        return None
    if crop == "center":
        return short
    if crop == "face":
        return max(1, round(short * FACE_FRACTION))
    return min(short, int(check_crop(crop)))


def _centre(shape: tuple[int, int], side: float | None) -> tuple[float, float, float, float]:
    if side is None:
        return (0.0, 0.0, float(shape[0]), float(shape[1]))
    # A draft decode rounds sizes up, so the scaled side may pass the edge by a fraction.
    side = min(side, *shape)
    left, top = (shape[0] - side) / 2, (shape[1] - side) / 2
    return (left, top, left + side, top + side)


def to_float(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 in 0..255 to float32 in [-1, 1]: ``x = u8 / 127.5 - 1``. Any shape."""
    import torch

    return pixels.to(torch.float32).div_(127.5).sub_(1.0)


def to_uint8(x: torch.Tensor) -> torch.Tensor:
    """float in [-1, 1] to uint8, rounded to nearest, clipped outside. Any shape.

    Exactly undoes :func:`to_float`.
    """
    import torch

    return x.detach().to(torch.float32).add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def to_pixels(x: torch.Tensor) -> NDArray[np.uint8]:
    """:func:`to_uint8` as an array on the CPU, same shape: what panels and files are made of."""
    pixels: NDArray[np.uint8] = to_uint8(x).cpu().numpy()
    return pixels


def save_png(path: Path, pixels: NDArray[np.uint8] | torch.Tensor | Image.Image) -> Path:
    """Write a PNG that is either complete or not there.

    Args:
        path: the file; missing folders are made.
        pixels: (H, W, 3) uint8 array, (3, H, W) uint8 tensor, or a Pillow image.
    """
    if isinstance(pixels, Image.Image):
        image = pixels
    elif isinstance(pixels, np.ndarray):
        image = Image.fromarray(pixels)
    else:
        image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part:
        image.save(part, format="PNG")
    return path
