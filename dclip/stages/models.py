"""Which model a stage takes where none is named."""

from __future__ import annotations

from contextlib import suppress

from dclip.context import Reporter
from dclip.errors import DclipError
from dclip.models.checkpoint import ModelInfo, read_info
from dclip.store import Artifact, Store
from dclip.store.names import EMBEDDED, EMBEDDED_TEXT


def model_of_pixels(ref: str | None, store: Store, report: Reporter) -> Artifact:
    """The model that ``ref`` names; else the newest that works on pixels, else the embedded one.

    Raises: as :meth:`dclip.store.Store.resolve`.
    """

    def suits(artifact: Artifact) -> bool:
        info = _info(artifact)
        return info is None or info.latent is None

    return store.resolve(ref, "model", report, default=EMBEDDED, suits=suits)


def model_of_text(ref: str | None, store: Store, report: Reporter) -> Artifact:
    """The model that ``ref`` names; else the newest that reads text, else the embedded one.

    Raises: as :meth:`dclip.store.Store.resolve`.
    """

    def suits(artifact: Artifact) -> bool:
        info = _info(artifact)
        return info is not None and info.text is not None

    return store.resolve(ref, "model", report, default=EMBEDDED_TEXT, suits=suits)


def _info(artifact: Artifact) -> ModelInfo | None:
    with suppress(DclipError):
        return read_info(artifact.path)
    return None
