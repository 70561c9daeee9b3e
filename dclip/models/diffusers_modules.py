"""Networks of diffusers: its classes, imported late, and their errors in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dclip.errors import BadInput

_UNBUILDABLE = (
    ValueError, TypeError, ZeroDivisionError, NotImplementedError, AssertionError, RuntimeError,
    AttributeError,
)  # fmt: skip
"""What the library raises for settings that do not go together."""


def diffusers_class(name: str, extra: str) -> Any:
    """A class of diffusers.

    Args:
        name: e.g. ``"UNet2DModel"``.
        extra: the extra of dclip that brings the library.

    Raises:
        BadInput: diffusers is not installed.
    """
    try:
        import diffusers
    except ImportError as e:
        raise BadInput(
            f"this model needs the package diffusers ({e})", f"pip install 'dclip[{extra}]'"
        ) from e
    return getattr(diffusers, name)


def build(name: str, extra: str, settings: Mapping[str, Any]) -> Any:
    """A network of diffusers with fresh weights.

    Args:
        name, extra: see :func:`diffusers_class`.
        settings: of its constructor.

    Raises:
        BadInput: as :func:`diffusers_class`, or settings that do not go together.
    """
    found = diffusers_class(name, extra)
    try:
        return found(**settings)
    except _UNBUILDABLE as e:
        said = str(e).partition("\n")[0]
        raise BadInput(
            f"diffusers builds no {name} of these settings ({said})", "check the config.json"
        ) from e
