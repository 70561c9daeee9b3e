"""The brightness of colours, for arrays and tensors alike."""

from __future__ import annotations

from typing import Any, TypeVar

Pixels = TypeVar("Pixels", bound=Any)

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the brightness (ITU-R BT.601)."""


def luma(rgb: Pixels) -> Pixels:
    """The brightness of pictures (..., 3, H, W), (..., 1, H, W): arrays or tensors."""
    red, green, blue = (weight * rgb[..., i : i + 1, :, :] for i, weight in enumerate(LUMA))
    brightness: Pixels = red + green + blue
    return brightness
