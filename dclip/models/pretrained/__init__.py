"""Pretrained models that users bring: which family a file is of, and what is in it.

A family is one file of this folder and one row of :data:`FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Collection

from dclip.models.pretrained import ddpm, diffusers_unet, guided
from dclip.models.pretrained.contract import Asked, Family

FAMILIES: dict[str, Family] = {
    "diffusers": diffusers_unet.FAMILY,
    "ddpm": ddpm.FAMILY,
    "guided": guided.FAMILY,
}


def recognise(keys: Collection[str]) -> str | None:
    """The family whose names of weights these are; None where it is none of them."""
    return next((name for name, family in FAMILIES.items() if family.recognise(keys)), None)


__all__ = ["FAMILIES", "Asked", "Family", "recognise"]
