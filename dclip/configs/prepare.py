"""The config of ``prepare``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from annotated_types import Ge, Le
from pydantic import AfterValidator

from dclip.config import Needs, Option, nearest, settings
from dclip.configs.common import Count, Crop, DomainName, FrameName, Name, Seed
from dclip.data.sources import SOURCES, Source
from dclip.domains import DRAWN_FACES, FACE_FRAMES, FACES, PHOTOS
from dclip.errors import BadInput

DRAWN = "faces"
"""The one source that is drawn and not read."""


class _Sources(Sequence[str]):
    """The names of some rows of :data:`SOURCES`, whenever they are asked for."""

    def __init__(self, suits: Callable[[Source], bool]) -> None:
        self._suits = suits

    def _names(self) -> list[str]:
        return [name for name, row in SOURCES.items() if self._suits(row)]

    def __getitem__(self, index: Any) -> Any:
        return self._names()[index]

    def __len__(self) -> int:
        return len(self._names())


def _needs(suits: Callable[[Source], bool]) -> Needs:
    return Needs("source", _Sources(suits))  # type: ignore[arg-type]


def _taking(option: str) -> Needs:
    return _needs(lambda row: option in row.options)


_PHOTOS = _needs(lambda _row: True)
_LOOSE = _needs(lambda row: row.domain == PHOTOS)


def _check_source(value: str) -> str:
    names = [*SOURCES, DRAWN]
    if value not in names:
        raise BadInput(f"source {value!r} is unknown", nearest(value, names))
    return value


def parse_split(text: str) -> tuple[int, ...]:
    """Percentages of train, val and perhaps test: "90/10" or "80/10/10".

    Raises:
        BadInput: not whole percentages that sum to 100, or nothing to train on.
    """
    match = re.fullmatch(r"(\d{1,3})/(\d{1,3})(?:/(\d{1,3}))?", text)
    shares = tuple(int(part) for part in match.groups() if part) if match else ()
    if sum(shares) != 100 or shares[0] == 0:
        raise BadInput(f"cannot split {text!r}", "use percentages such as 90/10 or 80/10/10")
    return shares


def _check_split(value: str) -> str:
    if value != "official" and not re.search("[0-9]", value):
        raise BadInput(
            f"split {value!r} is unknown", f"{nearest(value, ['official'])}, or e.g. 90/10"
        )
    if value != "official":
        parse_split(value)
    return value


def _check_style(value: str) -> str:
    from dclip.data.faces import STYLES  # numpy
    from dclip.data.rendered import ALL_STYLES, PAIRS

    known = ("photo", *(style for style in STYLES if style != "photo"), ALL_STYLES, PAIRS)
    if value not in known:
        raise BadInput(f"style {value!r} is unknown", nearest(value, known))
    return value


@settings
class PrepareConfig:
    """What to prepare, and how. The pictures enter the result by content, not by path."""

    source: Annotated[str, AfterValidator(_check_source)]
    """Where the pictures come from: CelebA, a folder of photos, or faces that dclip draws."""
    root: Annotated[str | None, Option(metavar="DIR"), _PHOTOS] = None
    """Where the photos are: the folder or file, for CelebA also img_align_celeba.zip,
    for hf the data set's name, ORG/NAME or ORG/NAME@REVISION."""
    subset: Annotated[str | None, Option(metavar="NAME"), _taking("subset")] = None
    """Which of the data set's subsets (configs): else the only one, or default."""
    part: Annotated[str | None, Option(metavar="NAME"), _taking("part")] = None
    """Which of the data set's own splits: else train, or the only one."""
    column: Annotated[str | None, Option(metavar="NAME"), _taking("column")] = None
    """Column of the pictures: else found by its name and type."""
    caption: Annotated[str | None, Option(metavar="NAME"), _taking("caption")] = None
    """Column of the captions: else the first of caption, text, captions, prompt and others."""
    size: Annotated[int, Ge(16), Le(1024), Option(metavar="N")] | None = None
    """Side in pixels: else 128, for drawn faces 64."""
    crop: Annotated[Crop | None, _PHOTOS] = None
    """center, face, or a number of pixels: else face for CelebA, center for
    CelebA-HQ and a folder."""
    split: Annotated[str, AfterValidator(_check_split), Option(metavar="A/B")] = "90/10"
    """Percentages for train/val, or train/val/test; for CelebA also official."""
    limit: Annotated[Count | None, _PHOTOS] = None
    """Take only the first N pictures."""
    count: Annotated[
        Annotated[int, Ge(1), Le(10_000_000), Option(metavar="N")] | None,
        Needs("source", ("faces",)),
    ] = None
    """How many faces to draw: else 6000."""
    style: Annotated[str, AfterValidator(_check_style), Option(metavar="STYLE")] | None = None
    """Of drawn faces: photo, another style, all, or pairs. Of photos only pairs: each photo is
    followed by the same photo filtered as a drawing or an old picture."""
    strict: Annotated[bool, _PHOTOS] = False
    """Fail at an unreadable picture instead of leaving it out."""
    download: Annotated[bool, Needs("source", ("celeba",))] = False
    """Fetch CelebA into --root first if it is not there."""
    domain: Annotated[DomainName | None, _LOOSE] = None
    """What the pictures show: faces, dogs, churches, bedrooms or photos. Else photos."""
    frame: Annotated[FrameName | None, _LOOSE] = None
    """Where the pictures have the face, so that photos are brought there for an edit: celeba or
    ffhq (also CelebA-HQ's). Else center, which looks for no face; with --align ffhq."""
    align: Annotated[bool, _LOOSE] = False
    """Find the faces of each photo and cut each out so that it lies where --frame has it."""
    max_faces: Annotated[Count | None, _LOOSE, Needs("align")] = None
    """Take only so many faces of a photo, the largest, e.g. 1."""
    name: Name | None = None
    """Name of the new artifact: else the source's."""
    seed: Seed = 0
    """Decides the split, and which faces are drawn."""

    def __post_init__(self) -> None:
        if self.source != DRAWN:
            if self.style not in (None, "pairs"):
                raise BadInput(
                    f"photos have no style {self.style!r}", "use --style pairs, or leave it out"
                )
            if self.root is None:
                raise BadInput("where are the photos?", f"`dclip prepare {self.source} --root DIR`")
        framed = self.frame in FACE_FRAMES or self.align
        if self.align and self.frame not in (None, *FACE_FRAMES):
            raise BadInput(
                f"the frame {self.frame} has no face to align", "use --frame celeba or ffhq"
            )
        if framed and self.domain not in (None, FACES):
            raise BadInput(
                f"{self.domain} have no place in a frame of faces",
                "leave --align and --frame out, or say --domain faces",
            )
        if framed and self.frame != "celeba" and self.crop not in (None, "center"):
            raise BadInput(
                f"--crop {self.crop} would leave the frame {self.frame or 'ffhq'}",
                "leave it out, or say --frame celeba, which has crops",
            )
        if self.split == "official" and self.source != "celeba":
            raise BadInput(f"{self.source} has no official split", "use e.g. --split 90/10")

    @property
    def shows(self) -> str:
        """What the pictures show, a name in :data:`dclip.domains.DOMAINS`."""
        if self.source == DRAWN:
            return DRAWN_FACES
        framed = self.frame in FACE_FRAMES or self.align
        return self.domain or (FACES if framed else SOURCES[self.source].domain)

    @property
    def side(self) -> int:
        """Side of the pictures in pixels."""
        return self.size or (64 if self.source == DRAWN else 128)
