"""Where photos come from: the table that ``prepare`` and its commands read.

A new source is a function ``(root, limit, report) -> FileSource`` (:mod:`dclip.data.source`) and a
row of :data:`SOURCES`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dclip.domains import FACES, PHOTOS

if TYPE_CHECKING:
    from dclip.data.source import FileSource


@dataclass(frozen=True)
class Source:
    """A place that encoded pictures are read from.

    Attributes:
        opener: ``"module:function"``; it is imported when it is used.
        help: of the command ``dclip prepare NAME``.
        examples: command lines for that help.
        domain: what its pictures show, a name in :data:`dclip.domains.DOMAINS`.
        options: settings of ``prepare`` that the opener takes too, by name.
        fetches: whether the opener takes ``fetch`` too, which is False in a dry run: it then
            refuses to read what is not on this machine.
    """

    opener: str
    help: str
    examples: tuple[str, ...] = ()
    domain: str = PHOTOS
    options: tuple[str, ...] = ()
    fetches: bool = False

    def load(self) -> Callable[..., FileSource]:
        """The opener: ``(root, limit, report, **options) -> FileSource``."""
        module, _, name = self.opener.partition(":")
        found: Callable[..., FileSource] = getattr(importlib.import_module(module), name)
        return found


SOURCES: dict[str, Source] = {
    "celeba": Source(
        "dclip.data.celeba:open_celeba",
        "Prepare CelebA, in any form that people have it in.\n\n"
        "The lists of attributes, partition and identities are used where they lie beside the"
        " pictures.",
        (
            "dclip prepare celeba --root ~/celeba",
            "dclip prepare celeba --root img_align_celeba.zip --size 64 --limit 5000",
            "dclip prepare celeba --root ~/celeba --download --split official",
            "dclip prepare celeba --root ~/celeba --style pairs    # for dclip clip train",
        ),
        FACES,
    ),
    "folder": Source(
        "dclip.data.folder:open_folder",
        "Prepare a folder of pictures of anything aligned.",
        (
            "dclip prepare folder --root photos",
            "dclip prepare folder --root photos --size 64 --crop face --strict",
            "dclip prepare folder --root photos --align    # the faces of each photo",
            "dclip prepare folder --root photos --caption prompt    # that column of their table",
        ),
        options=("caption",),
    ),
    "npz": Source(
        "dclip.data.npz:open_npz",
        "Prepare an array of pictures, .npy or .npz.",
        ("dclip prepare npz --root pictures.npz --size 64",),
        options=("caption",),
    ),
    "webdataset": Source(
        "dclip.data.webdataset:open_webdataset",
        "Prepare tar files of samples, as webdataset writes them.",
        ("dclip prepare webdataset --root shards/ --size 64",),
        options=("caption",),
    ),
    "parquet": Source(
        "dclip.data.parquet:open_parquet",
        "Prepare parquet files of pictures, as Hugging Face's datasets writes them.",
        ("dclip prepare parquet --root data/ --size 64",),
        options=("column", "caption"),
    ),
    "hf": Source(
        "dclip.data.hf:open_hf",
        "Prepare a data set of the Hugging Face hub, which is fetched first.",
        (
            "dclip prepare hf --root ORG/NAME --size 64 --limit 5000",
            "dclip prepare hf --root ORG/NAME --subset faces --part train --caption text",
        ),
        options=("subset", "part", "column", "caption"),
        fetches=True,
    ),
}
"""By the name that ``prepare`` takes. Faces that dclip draws are no files: they are prepared by
``prepare faces`` (:class:`dclip.data.rendered.Rendered`)."""
