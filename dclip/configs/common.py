"""Types of settings that several configs share."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, BeforeValidator

from dclip.config import OneOf, Option, nearest
from dclip.errors import BadInput

MOST = 2**31 - 1
"""The largest count: more is a slip of the fingers, and beyond what arrays are indexed with."""

Count = Annotated[int, Ge(1), Le(MOST), Option(metavar="N")]
"""A whole number of 1 or more."""

Seed = Annotated[int, Ge(0), Lt(2**63), Option(metavar="N")]
"""Decides everything random."""

Factor = Annotated[float, Ge(0), Le(1e6), Option(metavar="X")]
"""A weight or factor of 0 or more."""

Share = Annotated[float, Ge(0), Lt(1), Option(metavar="X")]
"""A share from 0 to below 1."""

Rate = Annotated[float, Gt(0), Lt(1), Option(metavar="X")]
"""A learning rate."""

Norm = Annotated[float, Gt(0), Le(1e6), Option(metavar="X")]
"""A limit of the gradient's norm. At 0 nothing would be learnt."""

Locality = Annotated[float, Ge(0), Le(0.4), Option(metavar="X")]
"""See :func:`dclip.editing.mask.localised`."""

Name = Annotated[str, Option(metavar="NAME")]
"""Of an artifact."""

Precision = Literal["auto", "fp32", "bf16"]
"""What networks compute in; auto takes bf16 where that is faster."""


def _several(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    return tuple(str(item) for item in value) if isinstance(value, list) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_several)]
"""Several texts; one stands for a list of one."""


AsTuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
"""Takes a list for a tuple, as JSON has it."""


def _read_numbers(value: Any, info: Any) -> Any:
    from dclip.editing.spec import numbers

    if isinstance(value, bool) or not isinstance(value, int | float | str | list | tuple):
        return value
    return numbers(value, info.field_name)


Numbers = Annotated[tuple[float, ...], BeforeValidator(_read_numbers), Option(metavar="X[,X...]")]
"""One number, several, or a text of them between commas."""


def _read_counts(value: Any, info: Any) -> Any:
    found = _read_numbers(value, info)
    if isinstance(found, tuple) and all(isinstance(n, float) and n.is_integer() for n in found):
        return tuple(int(n) for n in found)
    return found


Counts = Annotated[tuple[Count, ...], BeforeValidator(_read_counts), Option(metavar="N[,N...]")]
"""One whole number, several, or a text of them between commas."""


def _read_depth(value: Any, info: Any) -> Any:
    """A whole number for a timestep, a number with a point for a share."""
    name, how = (
        info.field_name,
        "give a whole number for a timestep, as 100, or a share of T with a point, as 0.5",
    )
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"[-+]?\d+", text):
            value = int(text)
        elif re.fullmatch(r"[-+]?(\d+\.\d*|\.\d+)", text):
            value = float(text)
        else:
            raise BadInput(f"{name} {value!r} is no number", how)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if isinstance(value, float) and not 0 < value <= 1:
        raise BadInput(f"{name} is {value:.9g}, and a share of T is above 0 and at most 1.0", how)
    if isinstance(value, int) and not 1 <= value <= MOST:
        raise BadInput(f"{name} is {value}", f"{how}; timesteps begin at 1")
    return value


Depth = Annotated[int | float, BeforeValidator(_read_depth), Option(metavar="N|X")]
"""How far into the noise: a whole number is a timestep, 1..T; a number with a point is a share of
T, above 0 and at most 1.0. So 1 is the first timestep and 1.0 is T, see
:meth:`dclip.diffusion.schedule.Schedule.timestep`."""


def _read_faces(value: Any) -> Any:
    if isinstance(value, int | str) and not isinstance(value, bool):
        value = (value,)
    if not isinstance(value, list | tuple):
        return value
    if value and all(isinstance(n, int) and not isinstance(n, bool) for n in value):
        value = (",".join(map(str, value)),)
    return tuple(_numbers_of(text) if isinstance(text, str) else text for text in value)


def _numbers_of(text: str) -> str:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and 0 < int(part) <= MOST for part in parts):
        raise BadInput(f"face {text!r} is no number of a face", "count from 1, e.g. 1 or 1,3")
    return ",".join(dict.fromkeys(str(int(part)) for part in parts))


FaceNumbers = Annotated[tuple[str, ...], BeforeValidator(_read_faces), Option(metavar="N[,N...]")]
"""Faces of a photo, 1 is the leftmost: groups of them, each ``"1"`` or ``"1,3"``. None is all."""


def _check_crop(value: str) -> str:
    if not value.isdigit() and value not in CROPS:
        raise BadInput(
            f"crop {value!r} is unknown", f"{nearest(value, CROPS)}, or a number of pixels"
        )
    from dclip.data.images import check_crop  # torch

    return check_crop(value)


CROPS = ("center", "face")

Crop = Annotated[str, AfterValidator(_check_crop), Option(metavar="HOW")]
"""``center``, ``face``, or a number of pixels."""


DomainName = Annotated[str, AfterValidator(OneOf("dclip.domains:DOMAINS")), Option(metavar="NAME")]
"""What pictures show: a row of :data:`dclip.domains.DOMAINS`."""

FrameName = Annotated[str, AfterValidator(OneOf("dclip.domains:FRAMES")), Option(metavar="FRAME")]
"""Where pictures have the face: one of :data:`dclip.domains.FRAMES`."""


def _check_file(value: str) -> str:
    from dclip.textfile import check_file

    check_file(value, "file")
    return value


File = Annotated[str, AfterValidator(_check_file), Option(metavar="FILE")]
"""A file, and neither a folder, a pipe nor a device."""

Preset = Annotated[
    str,
    AfterValidator(OneOf("dclip.guidance.prompts:PRESETS", "dclip presets")),
    Option(metavar="NAME"),
]
"""A named edit of :data:`dclip.guidance.prompts.PRESETS`."""


Walk = Annotated[str, AfterValidator(OneOf("dclip.diffusion.grids:WALKS")), Option(metavar="RULE")]
"""How timesteps are spread between 0 and r."""


def check_edits(value: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse tuned models that are not written ``REF[:STRENGTH][@LOW-HIGH]``."""
    from dclip.editing.spec import parse_parts

    for text in value:
        parse_parts(text)
    return value


Edits = Annotated[
    Texts,
    AfterValidator(check_edits),
    Option(flags=("--with",), metavar="REF[:X]", ref="tuned"),
]
"""Tuned models, each ``REF[:STRENGTH][@LOW-HIGH]``, several joined with ``+``."""

Split = Annotated[Literal["train", "val", "test", "all"], Option(metavar="SPLIT")]
"""Which part of a data artifact."""

Mix = Literal["weights", "noise"]
"""How several tuned models are combined, see :class:`dclip.editing.plan.Plan`."""


def _check_guides(value: tuple[str, ...]) -> tuple[str, ...]:
    from dclip.guidance.steering import parse  # torch

    for text in value:
        parse(text)
    return value


Guides = Annotated[Texts, AfterValidator(_check_guides), Option(metavar="KIND:WHAT[:X]")]
"""What to steer by, see :func:`dclip.guidance.steering.parse`."""


def ref(kind: str) -> Option:
    """The mark of a setting that names an artifact of ``kind``."""
    return Option(metavar="REF", ref=kind)
