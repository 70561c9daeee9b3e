"""The config of ``grid``, and how a user writes a figure's columns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le
from pydantic import AfterValidator, BeforeValidator

from dclip.config import Excludes, Needs, Option, settings
from dclip.configs.common import (
    Count,
    Counts,
    Crop,
    Depth,
    Edits,
    Locality,
    Mix,
    Name,
    Numbers,
    Precision,
    Seed,
    Texts,
    ref,
)
from dclip.editing.spec import parse_parts
from dclip.errors import BadInput

COLUMNS = ("original", "latent", "reconstruction", "edit")
_COLUMN = re.compile(
    r"(?P<kind>\w+)(?::(?P<spec>.+?))?(?:@(?P<strength>[-+]?(?:\d+\.?\d*|\.\d+)))?", re.DOTALL
)


@dataclass(frozen=True)
class ColumnSpec:
    """One column as a user names it.

    Attributes:
        kind: of :data:`COLUMNS`.
        spec: of an edit: which; "" stands for every one of the figure's.
        strength: of an edit; None takes the figure's strengths.
    """

    kind: str
    spec: str = ""
    strength: float | None = None


def parse_column(text: str) -> ColumnSpec:
    """Read ``original``, ``edit``, ``edit:sketch``, ``edit:sketch:0.8+smiling@0.5``.

    Raises:
        BadInput: not of that form.
    """
    match = _COLUMN.fullmatch(text)
    how = f"columns are {', '.join(COLUMNS)}, edit:NAME and edit:NAME@STRENGTH"
    if match is None or match["kind"] not in COLUMNS:
        raise BadInput(f"cannot read the column {text!r}", how)
    kind, spec, strength = match["kind"], match["spec"] or "", match["strength"]
    if kind != "edit" and (spec or strength):
        raise BadInput(f"the column {text!r} names a model or strength, which only edits have", how)
    if spec:
        parse_parts(spec)
    return ColumnSpec(kind, spec, float(strength) if strength else None)


def _split_columns(value: object) -> object:
    if isinstance(value, str):
        return tuple(text.strip() for text in value.split(","))
    return tuple(value) if isinstance(value, list) else value


def _check_columns(value: tuple[str, ...]) -> tuple[str, ...]:
    for text in value:
        parse_column(text)
    return value


def _check_axis(value: str | None) -> str | None:
    if value is not None:
        from dclip.figures.axes import parse_axis

        parse_axis(value)
    return value


@settings
class GridConfig:
    """What to show."""

    photos: Annotated[Texts, Option(argument=True, metavar="PHOTO"), Excludes("latents")] = ()
    """Image files and folders: else held-out photos of --latents."""
    x: Annotated[str | None, AfterValidator(_check_axis), Option(metavar="AXIS=A,B")] = None
    """A column for each value of a setting: with PHOTO of dclip edit, r=50,100,150, strength=,
    guide=, prompt=; else of dclip sample, cfg=1,2,5, seed=0,1, sampler=, prompt=, model=. With a
    semicolon in it values are parted there."""
    y: Annotated[str | None, AfterValidator(_check_axis), Option(metavar="AXIS=A,B")] = None
    """A row for each value. Without it of several photos each has a row."""
    fixed: Annotated[Texts, Option(metavar="NAME=VALUE"), Needs("x")] = ()
    """A setting of dclip edit or sample that all cells share, e.g. steps=20; again for more."""
    tuned: Edits = ()
    """Tuned model, or several joined with +; again for more columns: else the newest."""
    columns: Annotated[
        tuple[str, ...],
        BeforeValidator(_split_columns),
        AfterValidator(_check_columns),
        Option(metavar="LIST"),
    ] = ("original", "latent", "edit")
    """Of original, latent, reconstruction, edit, edit:NAME, edit:NAME@STRENGTH."""
    rows: Count | None = None
    """How many photos: else 3, or those named, up to 8."""
    strengths: Numbers = (1.0,)
    """Of the edits whose column names none; a column each: 0,0.5,1."""
    steps: Counts | None = None
    """Steps each way, a column each: else those of the tuning."""
    latents: Annotated[str | None, ref("latents")] = None
    """Latents whose held-out photos to show: else those that the model was tuned on."""
    r: Depth | None = None
    """How far to invert: a timestep, as 100, or a share of T, as 0.5. Else that of the tuning."""
    mix: Mix | None = None
    """How several models are combined: their weights, or their predicted noise. Else weights."""
    locality: Annotated[Locality, Needs("direct")] | None = None
    """Below this share of its strongest change an edit shows the photo; 0 shows the edit alone.
    Else as tuned."""
    direct: bool = True
    """Take the base's own errors back at every step, so that strength 0 is the photo."""
    crop: Annotated[Crop, Needs("photos")] | None = None
    """Of photos: center, face, or a number of pixels. Else as the model's data was."""
    anyway: Annotated[bool, Needs("photos")] = False
    """Edit photos with a model that knows only drawn faces."""
    captions: bool = True
    """Name the columns."""
    title: Annotated[str, Option(metavar="TEXT")] = ""
    """A heading."""
    transpose: bool = False
    """Photos beside each other instead of below."""
    cell: Annotated[int, Ge(16), Le(2048), Option(metavar="N")] | None = None
    """Pixels of a picture's side at 300 dpi: else about 384."""
    precision: Precision = "fp32"
    """What the networks compute in: fp32, bf16 (faster on most GPUs), or auto."""
    name: Name | None = None
    """Name of the figure: else the first tuned model's."""
    seed: Annotated[Seed, Excludes("photos")] = 0
    """Decides which held-out photos are shown."""

    @property
    def column_specs(self) -> tuple[ColumnSpec, ...]:
        """The columns, read."""
        return tuple(parse_column(text) for text in self.columns)
