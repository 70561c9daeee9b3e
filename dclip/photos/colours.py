"""What the numbers in a photo mean: bit depth, grey, colour profiles."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from dclip.photos.back import Array, Colours

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's mode L


@dataclass(frozen=True)
class Plain:
    """sRGB or what passes for it: the numbers are the colours.

    Attributes:
        grey: the photo is grey and stays so: a change alters its brightness alone.
    """

    grey: bool = False

    def seen(self, pixels: Array) -> NDArray[np.float32]:
        """Pixels (H, W, 3) as sRGB in [-1, 1]."""
        top = np.float32(np.iinfo(pixels.dtype).max / 2)
        return pixels.astype(np.float32) / top - 1

    def changed(self, pixels: Array, change: NDArray[np.float32]) -> Array:
        """The pixels with a change of sRGB (in [-1, 1]) added; equal where it is 0."""
        if self.grey:
            change = np.repeat((change @ _LUMA)[..., None], 3, axis=-1)
        return _added(pixels, change * np.float32(np.iinfo(pixels.dtype).max / 2))


@dataclass(frozen=True)
class Profiled:
    """The numbers of another RGB space, such as Display P3, by the photo's own profile.

    A change is what the profile makes of the changed colour less what it makes of the colour, in
    steps of 1/255, so that colours without a change are not rounded.

    Attributes:
        to_srgb, from_srgb: LittleCMS transforms of 8-bit RGB.
    """

    to_srgb: Any
    from_srgb: Any

    def seen(self, pixels: Array) -> NDArray[np.float32]:
        """Pixels (H, W, 3) as sRGB in [-1, 1]."""
        return _convert(self.to_srgb, _eight(pixels)).astype(np.float32) / 127.5 - 1

    def changed(self, pixels: Array, change: NDArray[np.float32]) -> Array:
        """The pixels with a change of sRGB (in [-1, 1]) added; equal where it is 0."""
        old = _convert(self.to_srgb, _eight(pixels))
        new = _eight(_added(old, change * np.float32(127.5)))
        step = _convert(self.from_srgb, new).astype(np.float32) - _convert(self.from_srgb, old)
        return _added(pixels, step * np.float32(np.iinfo(pixels.dtype).max / 255))


def colours_of(profile: bytes | None, grey: bool) -> tuple[Colours, str]:
    """What a photo's profile says, and a note where something other than sRGB was found.

    A damaged profile, or one for other than RGB pictures, is not applied; it is still kept.
    """
    if grey or not profile:
        return Plain(grey), ""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != "RGB ":
            return Plain(), "its colour profile is not for RGB pictures: not applied"
        srgb = ImageCms.createProfile("sRGB")
        how = ImageCms.Intent.RELATIVE_COLORIMETRIC
        both = Profiled(
            ImageCms.buildTransform(source, srgb, "RGB", "RGB", how),
            ImageCms.buildTransform(srgb, source, "RGB", "RGB", how),
        )
        levels = np.linspace(0, 255, 9).round().astype(np.uint8)
        cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
        if np.abs(_convert(both.to_srgb, cube).astype(int) - cube).max() <= 1:
            return Plain(), ""
        name = " ".join((ImageCms.getProfileDescription(source) or "").split())[:40]
    except Exception:  # LittleCMS raises nearly anything on a damaged profile
        return Plain(), "its colour profile is damaged: not applied"
    return both, f"colours seen through the profile {name or 'in the file'}"


def _added(pixels: Array, change: NDArray[np.float32]) -> Array:
    moved = np.rint(pixels.astype(np.float32) + change).clip(0, np.iinfo(pixels.dtype).max)
    added: Array = np.where(change == 0, pixels, moved.astype(pixels.dtype))
    return added


def _eight(pixels: Array) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, order="C", copy=False)
    return np.rint(pixels / np.float32(257)).astype(np.uint8)


def _convert(transform: Any, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(ImageCms.applyTransform(image, transform))
