"""The config of ``edit``."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le

from dclip.config import Excludes, Needs, Option, settings
from dclip.configs.common import (
    Count,
    Crop,
    Depth,
    Edits,
    FaceNumbers,
    File,
    Guides,
    Locality,
    Mix,
    Name,
    Numbers,
    Precision,
    Seed,
    Split,
    Texts,
    Walk,
    ref,
)
from dclip.editing.spec import PartSpec, parse_parts
from dclip.errors import BadInput

_SAMPLES = Needs("data")
_WHOLE = Excludes("crop"), Excludes("data")


@settings
class EditConfig:
    """What to edit, with what, and how far. Photos enter the result by content, not by path."""

    photos: Annotated[Texts, Option(argument=True, metavar="PHOTO"), Excludes("data")] = ()
    """Image files, and folders of them."""
    tuned: Edits = ()
    """Tuned model, with a strength after a colon; again for more: else the newest."""
    guide: Guides = ()
    """Steer the decode, with or without tuned models: 'direction:a serious person->a smiling
    person', colour:#20c040, image:FILE, each with a strength after a colon. Again for several."""
    clip: Annotated[Texts, ref("clip"), Needs("guide")] = ()
    """CLIP that steers: else the newest, else that of the model's domain."""
    through: Annotated[Literal["x0", "network", "latent"], Needs("guide")] = "x0"
    """What the steering gradient passes: the clean estimate alone, or the network too (slower).
    latent steers no step: it optimises each photo's latent for the decoded picture (slowest)."""
    model: Annotated[str | None, ref("model"), Excludes("tuned")] = None
    """Base model to edit with alone: by --prompt, --guide, --rounds or --encode noise. Else the
    newest, else the embedded one."""
    prompt: Annotated[str | None, Option(metavar="TEXT"), Excludes("tuned")] = None
    """What the edit is to show, to a model that reads captions or attributes, with no tuning: 'a
    smiling person', or 'smiling, not eyeglasses'."""
    source: Annotated[str | None, Option(metavar="TEXT"), Needs("prompt")] = None
    """What the photo shows: else the opposite of the attributes in --prompt, of a caption
    nothing."""
    encoder: Annotated[str | None, Option(metavar="ENCODER", ref="encoder"), Needs("prompt")] = None
    """Text encoder in the place of the model's own: a map, a CLIP, or a folder with a BERT."""
    cfg: Annotated[float, Ge(-100), Le(100), Option(metavar="X"), Needs("prompt")] | None = None
    """How far from --source to --prompt at strength 1: else 1.5 of attributes, 3 of captions."""
    strength: Numbers = (1.0,)
    """How far: 0 is the photo; one or several, 0,0.5."""
    data: Annotated[str | None, ref("data")] = None
    """Data artifact to take photos from, instead."""
    split: Annotated[Split, _SAMPLES] = "val"
    """Of --data: train, val, test or all."""
    where: Annotated[Texts, Option(metavar="NAME=X"), _SAMPLES] = ()
    """Of --data: only such samples, as Smiling=-1."""
    count: Annotated[Count, _SAMPLES] = 8
    """Of --data: how many samples."""
    crop: Annotated[Crop | None, Excludes("data")] = None
    """center, face, or a number of pixels: else as the model's data was; square ones are whole."""
    align: Annotated[bool, *_WHOLE] = True
    """Find the faces of a whole photo and edit them in their places (needs the extra
    "photos"); --no-align crops it."""
    face: Annotated[FaceNumbers, Needs("align"), *_WHOLE] = ()
    """Which faces of a whole photo, counted from the left: 1, or 1,3. Else all. Again for others
    that get another edit: --face 1 --with smiling --face 2 --with old."""
    max_faces: Annotated[Count | None, Needs("align"), *_WHOLE] = None
    """Edit only so many, the largest, of a whole photo's faces."""
    r: Depth | None = None
    """How far to invert: a timestep, as 100, or a share of T, as 0.5. Else that of the tuning, or
    0.5 without one."""
    steps: Count | None = None
    """Steps each way: else those of the tuning."""
    grid: Walk | None = None
    """How timesteps are spread: even, trailing, linspace or diffusionclip. Else as tuned."""
    encode: Literal["inversion", "noise"] | None = None
    """noise begins at photos with noise added (SDEdit), not at inverted ones; then strength 0 is
    not the photo. Else as tuned."""
    rounds: Annotated[int, Ge(0), Le(1000), Option(metavar="N")] = 0
    """First make strokes, drawings or portraits pictures of the base's own kind: noise them to r
    and decode them by the base, so many times. DiffusionCLIP takes 10."""
    rounds_r: Annotated[Depth, Needs("rounds")] | None = None
    """How far each round noises, as --r: else as far as --r. Less keeps more of the picture."""
    mix: Mix | None = None
    """How several models are combined: their weights, or their predicted noise. Else weights."""
    locality: Annotated[Locality, Needs("direct")] | None = None
    """Below this share of its strongest change an edit shows the photo; 0 shows the edit alone.
    Else as tuned."""
    mask: Annotated[File | None, Excludes("data")] = None
    """A picture of the photo's own size: where it is white the photo may change, where it is black
    it stays as it is."""
    direct: bool = True
    """Take the base's own errors back at every step, so that strength 0 is the photo."""
    side_by_side: bool = False
    """Also write original, plain reconstruction and edit in one picture, and its PSNR."""
    strict: Annotated[bool, Excludes("data")] = False
    """Fail at an unreadable photo instead of leaving it out."""
    anyway: bool = False
    """Edit photos with a model that knows only drawn faces."""
    precision: Precision = "fp32"
    """What the networks compute in: fp32, bf16 (faster on most GPUs), or auto."""
    name: Name | None = None
    """Name of the new artifact: else the tuned model's."""
    seed: Seed = 0
    """Decides which samples of --data are taken, and the noise of --rounds, --encode noise and
    --through latent."""

    def __post_init__(self) -> None:
        noised = bool(self.rounds) or self.encode == "noise"
        alone = self.guide or noised or self.prompt is not None
        if self.model is not None and not self.tuned and not alone:
            raise BadInput(
                "--model has no effect without --prompt, --guide, --rounds or --encode noise",
                "give one of them, or --with and a tuned model, which knows its base",
            )
        if self.seed and self.data is None and not noised and self.through != "latent":
            raise BadInput(
                "--seed has no effect without --data, --rounds, --encode noise or --through latent",
                "leave --seed out",
            )
        if not self.photos and self.data is None:
            raise BadInput("what is to edit?", "name photos or folders, or give --data REF")
        if len(self.face) > 1:
            self._check_faces()

    def _check_faces(self) -> None:
        """Refuse several groups of faces that have not one edit each."""
        if len(self.face) != len(self.tuned):
            raise BadInput(
                f"{len(self.face)} times --face and {len(self.tuned)} times --with do not pair",
                "give each --face one --with, as --face 1 --with smiling --face 2 --with old+beard;"
                " or one --face 1,2 for the same edit",
            )
        numbers = [n for group in self.faces for n in group]
        twice = next((n for n in numbers if numbers.count(n) > 1), None)
        if twice is not None:
            raise BadInput(
                f"face {twice} has two edits",
                f"join them: --face {twice} --with smiling+old",
            )

    @property
    def faces(self) -> tuple[tuple[int, ...], ...]:
        """The groups of faces that are named; none is all of them together."""
        return tuple(tuple(map(int, group.split(","))) for group in self.face)

    @property
    def edits(self) -> tuple[tuple[PartSpec, ...], ...]:
        """The tuned models of each group of faces; one for all where there are not several."""
        return tuple(map(parse_parts, self.tuned)) if len(self.face) > 1 else (self.parts,)

    @property
    def parts(self) -> tuple[PartSpec, ...]:
        """The tuned models that are named, or the newest; none where a base or guides edit."""
        named = tuple(part for text in self.tuned for part in parse_parts(text))
        alone = self.guide or self.model is not None or self.prompt is not None
        return named or (() if alone else (PartSpec(),))
