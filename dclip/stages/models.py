"""Which model a stage takes where none is named."""

from __future__ import annotations

from contextlib import suppress

from dclip.context import Reporter
from dclip.errors import DclipError
from dclip.models.checkpoint import ModelInfo, read_info
from dclip.store import Artifact, Store


def model_of_pixels(ref: str | None, store: Store, report: Reporter) -> Artifact:
    """The model that ``ref`` names; else the newest that works on pixels, else the embedded one.

    Raises: as :meth:`dclip.store.Store.resolve`.
    """
    return store.resolve(ref, "model", report, default="embedded", suits=_of_pixels)


def model_of_text(ref: str | None, store: Store, report: Reporter) -> Artifact:
    """The model that ``ref`` names; else the newest that reads text, else the embedded one.

    Raises: as :meth:`dclip.store.Store.resolve`.
    """
    return store.resolve(ref, "model", report, default="embedded-text", suits=_reads)


def _of_pixels(artifact: Artifact) -> bool:
    info = _info(artifact)
    return info is None or info.latent is None


def _reads(artifact: Artifact) -> bool:
    info = _info(artifact)
    return info is not None and info.text is not None


def _info(artifact: Artifact) -> ModelInfo | None:
    with suppress(DclipError):
        return read_info(artifact.path)
    return None
