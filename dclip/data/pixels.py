"""Any Pillow mode to 8-bit sRGB: wide samples scaled, colour profiles applied, alpha over white."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from dclip.data.paths import shown
from dclip.errors import BadInput

TILE = 2048
"""Side of the part that is converted at a time: a conversion needs many bytes a pixel."""

_OVERSHOOT = 1.25  # values up to so much over a range are clipped to it
_MOST = 0.95  # share of a float picture's values that its range has to hold
_SCALES = tuple(2.0**bits - 1 for bits in (8, 10, 12, 14, 15, 16, 24, 31, 32))  # what white may be
_BITS, _PHOTOMETRIC, _FORMAT, _LARGEST = 258, 262, 339, 341  # TIFF tags
_BLACK_POINT: Any = 0x2000  # cmsFLAGS_BLACKPOINTCOMPENSATION; Pillow names it from 10.3 on
_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab "}
_NAMES = {"RGB ": "RGB", "GRAY": "grey", "CMYK": "CMYK", "Lab ": "Lab"}


def tiles(
    width: int, height: int, step: int = 1, most: int | None = None
) -> Iterator[tuple[int, int, int, int]]:
    """Boxes (left, top, right, bottom) that cover a picture.

    Args:
        width, height: the picture's, in pixels.
        step: the boxes begin at multiples of it.
        most: their largest side, :data:`TILE` by default, or ``step`` where that is more.
    """
    side = max(step, (most or TILE) // step * step)
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield left, top, min(left + side, width), min(top + side, height)


class Converter:
    """How one picture's parts become RGB: decided on the whole picture, applied to any part.

    Args:
        image: an opened and loaded picture.
        label: what to call it in messages.

    Raises:
        BadInput: it holds values that are not numbers.
    """

    def __init__(self, image: Image.Image, label: str) -> None:
        self.notes: list[str] = []
        self._narrow: Callable[[Image.Image], Image.Image] | None = None
        if image.mode.startswith("I") or image.mode == "F":
            self._narrow = _Wide(image, label, self.notes).narrow
        self._alpha = (
            image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
        )
        mode = "L" if self._narrow or image.mode in ("LA", "La", "1") else image.mode
        mode = "RGB" if mode in ("P", "PA", "RGBA", "RGBa", "RGBX", "YCbCr", "HSV") else mode
        self._colours = self._profile(image.info.get("icc_profile"), mode)

    def __call__(self, part: Image.Image) -> Image.Image:
        """The part in RGB, over white where it is transparent."""
        if self._narrow is not None:
            clear = part.info.get("transparency")
            values = np.asarray(part)
            part = self._narrow(part)
            if isinstance(clear, int):
                part.paste(255, mask=Image.fromarray((values == clear).astype(np.uint8) * 255))
            return self._to_rgb(part)
        if not self._alpha:
            return self._to_rgb(part)
        if part.mode in ("LA", "La"):
            part = part.convert("LA")
            base, alpha = part.getchannel("L"), part.getchannel("A")
        else:
            part = part.convert("RGBA")
            base, alpha = part.convert("RGB"), part.getchannel("A")
        white = Image.new("RGB", part.size, (255, 255, 255))
        return Image.composite(self._to_rgb(base), white, alpha)

    def _to_rgb(self, part: Image.Image) -> Image.Image:
        if self._colours is None:
            return part if part.mode == "RGB" else part.convert("RGB")
        space = _SPACES.get(part.mode)
        if space is None:  # palettes, YCbCr and the like hold what their RGB is
            part = part.convert("L" if part.mode == "1" else "RGB")
        return ImageCms.applyTransform(part, self._colours) or part

    def _profile(self, icc: object, mode: str) -> Any:
        """The transform to sRGB; None where there is nothing to do."""
        if mode == "LAB":
            source = ImageCms.createProfile("LAB")
            return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "LAB", "RGB")
        if not isinstance(icc, bytes) or not icc:
            return None
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            space = profile.profile.xcolor_space
            if _SPACES.get(mode) != space:
                named = _NAMES.get(space, "other")
                self.notes.append(f"its colour profile is for {named} pictures: not applied")
                return None
            transform = ImageCms.buildTransform(
                profile,
                ImageCms.createProfile("sRGB"),
                mode,
                "RGB",
                ImageCms.Intent.RELATIVE_COLORIMETRIC,
                flags=_BLACK_POINT,
            )
            if _changes_little(transform, mode):
                return None
            name = shown(" ".join((ImageCms.getProfileDescription(profile) or "").split()), 40)
        except Exception:  # a damaged profile is no reason to refuse sound pixels
            self.notes.append("its colour profile is damaged: not applied")
            return None
        self.notes.append(f"colours converted from {name or 'its profile'} to sRGB")
        return transform


def _changes_little(transform: Any, mode: str) -> bool:
    """Whether a profile is sRGB or as good as: most cameras add one, and nothing is to be done."""
    before: NDArray[np.uint8]
    if mode == "RGB":
        levels = np.linspace(0, 255, 9).round().astype(np.uint8)
        before = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
    elif mode == "L":
        before = np.arange(256, dtype=np.uint8).reshape(16, 16)
    else:
        return False
    image = Image.fromarray(np.ascontiguousarray(before))
    after = np.asarray(ImageCms.applyTransform(image, transform)).astype(int)
    plain = before if mode == "RGB" else before[..., None]
    return bool(np.abs(after - plain.astype(int)).max() <= 1)


class _Wide:
    """Grey of 10 to 32 bits, or float, to 8 bits: black and white decided by type and tags.

    Integers of up to 16 bits span their type. Of wider ones and of floats, of which people write
    any range, the largest value says which of the usual ranges is meant; that is noted as a guess.
    """

    def __init__(self, image: Image.Image, label: str, notes: list[str]) -> None:
        tags = getattr(image, "tag_v2", None) or {}
        self._inverted = _number(tags, _PHOTOMETRIC) == 0  # Pillow inverts 8 bits only
        self._unsigned = False
        bits = 16
        if tags:
            bits = int(_number(tags, _BITS) or 16)
            if image.mode == "I" and bits == 32:
                self._unsigned = _number(tags, _FORMAT) == 1  # Pillow reads them as signed
        self._label = label
        if image.mode == "F":
            self._white = self._float_white(image, notes)
        elif bits <= 16 and (not tags or _number(tags, _FORMAT) in (None, 1)):
            # Pillow widens PNG and PGM to 16 bits, and leaves TIFF's 12 as they are.
            self._white = self._sixteen_white(image, bits, tags, notes)
        else:
            self._white = self._integer_white(image, bits, tags, notes)

    def narrow(self, part: Image.Image) -> Image.Image:
        """A part in mode L."""
        scaled = np.clip(self._values(part) / self._white, 0.0, 1.0)
        if self._inverted:
            scaled = 1.0 - scaled
        return Image.fromarray(np.rint(scaled * 255.0).astype(np.uint8))

    def _values(self, part: Image.Image) -> NDArray[np.float64]:
        values = np.asarray(part)
        if self._unsigned:
            values = np.ascontiguousarray(values).view(np.uint32)
        out: NDArray[np.float64] = values.astype(np.float64)
        return out

    def _parts(self, image: Image.Image) -> Iterator[NDArray[np.float64]]:
        for box in tiles(*image.size):
            values = self._values(image.crop(box))
            if not np.isfinite(values).all():
                raise BadInput(
                    f"{self._label} holds values that are not numbers", "replace or remove the file"
                )
            yield values

    def _float_white(self, image: Image.Image, notes: list[str]) -> float:
        ranges = (1.0, 255.0, 65535.0)
        top, low, inside, count = -np.inf, np.inf, np.zeros(3), 0
        for values in self._parts(image):
            top, low = max(top, float(values.max())), min(low, float(values.min()))
            inside += [(values <= each * _OVERSHOOT).sum() for each in ranges]
            count += values.size
        white = next(
            (each for each, n in zip(ranges, inside, strict=True) if n >= _MOST * count), top
        )
        if white != 1.0:
            notes.append(f"float samples up to {top:.4g}: taken as 0 to {white:.6g}, a guess")
        elif top > white or low < 0:
            notes.append(f"float samples from {low:.3g} to {top:.3g}: clipped to 0 to 1")
        return max(white, np.finfo(np.float64).tiny)

    def _sixteen_white(self, image: Image.Image, bits: int, tags: Any, notes: list[str]) -> float:
        full = _full_scale(tags, 2.0**bits - 1)
        top = max(float(values.max()) for values in self._parts(image))
        if 0 < top <= full / 16:
            notes.append(f"{bits}-bit samples reach {top:.0f} of {full:.0f}: as dark as stored")
        return full

    def _integer_white(self, image: Image.Image, bits: int, tags: Any, notes: list[str]) -> float:
        full = 2.0 ** (bits if self._unsigned else bits - 1) - 1
        if (named := _full_scale(tags, full)) < full:
            return named
        top, low = -np.inf, np.inf
        for values in self._parts(image):
            top, low = max(top, float(values.max())), min(low, float(values.min()))
        white = next((each for each in (255.0, 65535.0) if top <= each < full), full)
        if white != full or low < 0 or top < full / 256:
            notes.append(
                f"{bits}-bit samples from {low:.0f} to {top:.0f}: "
                f"taken as 0 to {white:.0f}, a guess"
            )
        return white


def _full_scale(tags: Any, full: float) -> float:
    """The largest sample value that the tags name, where it is one that a full scale may have.

    Others are statistics of the one picture: to scale by them would change its contrast.
    """
    named = _number(tags, _LARGEST)
    return named if named is not None and named in _SCALES and named <= full else full


def _number(tags: Any, tag: int) -> float | None:
    """A tag's first value where it is a number, whatever a damaged file holds there."""
    value = tags.get(tag)
    value = value[0] if isinstance(value, tuple) and value else value
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
