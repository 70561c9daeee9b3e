"""Image files to pixels and back: decode, orient, crop, resize, convert, save."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from dclip.errors import BadInput
from dclip.store import atomic

if TYPE_CHECKING:
    import torch

SUFFIXES: tuple[str, ...] = (
    ".jpg",
    ".jpeg",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".tif",
    ".tiff",
    ".gif",
    ".ppm",
    ".pgm",
    ".pbm",
    ".avif",
)
"""What counts as an image file in a folder (compared in lower case)."""

MAX_PIXELS = 150_000_000
"""Largest picture that is decoded, in pixels: three bytes each must fit in memory many times."""

FACE_FRACTION = 148 / 178
"""Side of the "face" crop over the short side: CelebA's 178x218 gives 148x148 at (15, 35)."""

# Nothing that runs a program (EPS starts Ghostscript) and no format that only looks like one.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM", "AVIF")

# The limit above is ours and refuses with a clear line; Pillow's own warning, at a lower size,
# would be a second voice. A filter set per call would race between decoding threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # damaged metadata


@dataclass(frozen=True)
class Decoded:
    """A decoded picture.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        notes: what was done that the eye would not expect, e.g. "animated: first frame taken".
    """

    pixels: NDArray[np.uint8]
    notes: tuple[str, ...] = ()


def check_crop(crop: str) -> str:
    """Return ``crop`` if it is "center", "face" or a whole number of pixels.

    Raises:
        BadInput: for anything else.
    """
    if crop in ("center", "face") or (crop.isascii() and crop.isdigit() and int(crop) > 0):
        return crop
    raise BadInput(f"unknown crop {crop!r}", "use center, face, or a number of pixels such as 148")


def decode(
    source: bytes | Path | str,
    *,
    size: int | None = None,
    crop: str = "none",
    name: str | None = None,
) -> Decoded:
    """Decode an image file to 8-bit RGB, cropped and resized.

    EXIF orientation is applied; 16-bit and float samples are scaled to 8 bits; transparency is
    laid over white; of an animation the first frame is taken. Colour profiles are not applied.

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
    label = name or ("image" if isinstance(source, bytes) else str(source))
    try:
        if isinstance(source, bytes):
            return _decode(io.BytesIO(source), size, crop, label)
        with Path(source).open("rb") as file:
            return _decode(file, size, crop, label)
    except BadInput:
        raise
    except UnidentifiedImageError:
        raise BadInput(
            f"{label} is not an image that can be read",
            f"give one of: {' '.join(s[1:] for s in SUFFIXES)}",
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(label) from None
    except FileNotFoundError:
        raise BadInput(f"no such image: {label}") from None
    except IsADirectoryError:
        raise BadInput(f"{label} is a folder, not an image") from None
    except PermissionError:
        raise BadInput(f"{label} may not be read", "check its permissions") from None
    except MemoryError:  # says nothing about the picture
        raise
    except Exception as error:  # on damaged bytes, decoders raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"{label} is damaged: {reason}", "replace or remove the file") from None


def _decode(file: io.IOBase, size: int | None, crop: str, label: str) -> Decoded:
    with Image.open(file, formats=_formats()) as image:  # type: ignore[arg-type]
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise _too_large(label, f"{width}x{height}")
        if min(width, height) < 1:
            raise BadInput(f"{label} has no pixels")
        side = _side(min(width, height), crop)
        if size is not None and image.format in ("JPEG", "MPO"):
            # The decoder can drop to 1/2, 1/4, 1/8 while decoding: less time and memory. Twice the
            # final size is kept so that the last, antialiased step still decides the picture.
            scale = 2 * size / (side or min(width, height))
            if scale < 1:
                image.draft(None, (int(width * scale) + 1, int(height * scale) + 1))
        notes = []
        # MPO is a JPEG with a depth map or a second eye behind it, not an animation.
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            image.seek(0)
            notes.append("several frames: first one taken")
        image.load()
        rgb = _rgb(_upright(image), label)
    shrink = min(rgb.size) / min(width, height)
    if side is not None:
        box = _centre(rgb.size, side * shrink)
    else:
        box = (0.0, 0.0, float(rgb.width), float(rgb.height))
    if size is not None:
        rgb = rgb.resize((size, size), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
    elif side is not None:
        left, top = round(box[0] - 0.01), round(box[1] - 0.01)
        rgb = rgb.crop((left, top, left + side, top + side))
    return Decoded(np.array(rgb, dtype=np.uint8), tuple(notes))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata is no reason to refuse sound pixels
        return image


def _formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _too_large(label: str, shape: str = "") -> BadInput:
    return BadInput(
        f"{label} is too large{': ' + shape if shape else ''}",
        f"scale it below {MAX_PIXELS // 1_000_000} million pixels first",
    )


def _side(short: int, crop: str) -> int | None:
    if crop == "none":
        return None
    if crop == "center":
        return short
    if crop == "face":
        return max(1, round(short * FACE_FRACTION))
    return min(short, int(check_crop(crop)))


def _centre(shape: tuple[int, int], side: float) -> tuple[float, float, float, float]:
    # A draft decode rounds sizes up, so the scaled side may pass the edge by a fraction.
    side = min(side, *shape)
    left, top = (shape[0] - side) / 2, (shape[1] - side) / 2
    return (left, top, left + side, top + side)


def _rgb(image: Image.Image, label: str) -> Image.Image:
    """Any Pillow mode to RGB: wide samples scaled, transparency over white."""
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return _narrow(image, label).convert("RGB")
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _narrow(image: Image.Image, label: str) -> Image.Image:
    """Grey of 16 or 32 bits, or float, to 8 bits.

    Pillow's "I" holds 16-bit PNGs and 32-bit TIFFs alike, and "F" floats of any range, so the
    range is taken from the mode where it says it and from the largest value where it does not.
    """
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise BadInput(f"{label} holds values that are not numbers", "replace or remove the file")
    top = float(values.max(initial=0.0))
    if image.mode.startswith("I;16"):
        full = 65535.0
    else:
        full = next((f for f in (1.0, 255.0, 65535.0) if top <= f), top)
        if image.mode == "I":
            full = max(full, 65535.0)
    scaled = np.clip(np.rint(values * (255.0 / full)), 0, 255).astype(np.uint8)
    return Image.fromarray(scaled, mode="L") if scaled.ndim == 2 else Image.fromarray(scaled)


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
