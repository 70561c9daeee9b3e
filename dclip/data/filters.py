"""Photos filtered to look like drawings and old photos, so that a CLIP can learn styles on them.

Drawn faces can be drawn again in another style; of a photo, a filter's picture is the nearest thing
to a true edit that there is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from dclip.colour import LUMA
from dclip.random import key

MEDIA: Mapping[str, tuple[str, ...]] = {
    "sketch": ("a pencil sketch", "a pencil drawing", "a sketch"),
    "cartoon": ("a cartoon", "a cartoon drawing"),
    "bw": ("a black and white photo", "a monochrome photo"),
    "sepia": ("a sepia photo",),
}
"""The styles, named as those of drawn faces, and what captions call them."""

COLOURLESS = ("sketch", "bw", "sepia")
"""Those of the styles that show no colours."""

UNSEEN_COLOURS = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Rosy_Cheeks")
"""Attributes of CelebA that nobody can see there."""

_LUMA = np.array(LUMA, np.float32)


def style_of(name: str) -> str:
    """The style in which the picture of that name is shown, the same always."""
    return tuple(MEDIA)[key("filter", name) % len(MEDIA)]


def filtered(pixels: NDArray[np.uint8], style: str) -> NDArray[np.uint8]:
    """A photo in a style.

    Args:
        pixels: (H, W, 3) uint8.
        style: a name of :data:`MEDIA`.

    Returns:
        (H, W, 3) uint8.
    """
    grey = pixels.astype(np.float32) @ _LUMA
    if style == "sketch":
        # A dodge of the photo by its own blurred negative leaves lines; some of the shading stays.
        around = _blurred(255.0 - grey, len(pixels) / 24)
        lines = np.minimum(255.0, 255.0 * grey / np.maximum(255.0 - around, 1.0))
        out = 0.7 * 255.0 * (lines / 255.0) ** 2 + 0.3 * (105.0 + 0.6 * grey)
        return _rgb(np.repeat(out[..., None], 3, axis=2))
    if style == "cartoon":
        smooth = Image.fromarray(pixels).filter(ImageFilter.MedianFilter(5))
        flat = 51.0 * np.round(np.asarray(smooth, np.float32) / 51.0)
        mean = flat.mean(axis=2, keepdims=True)
        edges = _blurred(grey, len(pixels) / 40) - grey  # dark lines are darker than around them
        ink = np.clip(1.0 - np.maximum(edges - 8.0, 0.0) / 48.0, 0.0, 1.0)
        return _rgb((mean + 1.4 * (flat - mean)) * ink[..., None])
    if style == "sepia":
        return _rgb(grey[..., None] * np.array([1.07, 0.9, 0.67], np.float32) + 8.0)
    return _rgb(np.repeat(grey[..., None], 3, axis=2))


def columns_of_pairs(
    ids: Sequence[str], columns: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """The columns of photos that are each followed by themselves in a style."""
    styles = [style_of(name) for name in ids]
    out = {name: [value for value in column for _ in range(2)] for name, column in columns.items()}
    for name in UNSEEN_COLOURS:
        for row, style in enumerate(styles):
            if name in out and style in COLOURLESS:
                out[name][2 * row + 1] = "0"
    if "caption" in out:
        for row, (name, style) in enumerate(zip(ids, styles, strict=True)):
            out["caption"][2 * row + 1] = _caption(out["caption"][2 * row], name, style)
    out["style"] = [style for styled in styles for style in ("photo", styled)]
    out["pair"] = [name for name in ids for _ in range(2)]
    return out


def _caption(text: str, name: str, style: str) -> str:
    if not text:
        return ""
    media = MEDIA[style]
    medium = media[key("medium", name) % len(media)]
    return f"{medium} of {re.sub(r'^an? (photo|portrait|picture) of ', '', text)}"


def _blurred(plane: NDArray[Any], radius: float) -> NDArray[Any]:
    image = Image.fromarray(np.clip(plane, 0, 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32)


def _rgb(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
