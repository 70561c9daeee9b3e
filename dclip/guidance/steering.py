"""What steers a sampler: losses on the clean estimate, and how users write them.

``KIND:VALUE:SCALE``, for example ``clip:a smiling person:2`` or ``colour:#20c040:1``. Each kind is
one function and one row of :data:`KINDS`; :func:`steering` adds several up for
:class:`dclip.diffusion.guidance.Guided`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ImageColor
from torch import Tensor

from dclip.data.images import decode, to_float
from dclip.diffusion.guidance import Loss
from dclip.errors import BadInput
from dclip.guidance.clamp import in_range
from dclip.guidance.clip import Guide
from dclip.guidance.losses import directional, face_identity, identity_l1, perceptual
from dclip.guidance.views import augment
from dclip.random import key

LARGEST = 1000.0
"""The largest scale that is taken. Those that work lie between 0.01 and 10 (docs/guidance.md)."""

ARROW = "->"


@dataclass(frozen=True)
class Steer:
    """One thing to steer by, as a user wrote it.

    Attributes:
        kind: a name in :data:`KINDS`.
        value: what that kind steers by: a prompt, a colour, a file; empty where it takes none.
        scale: how strongly; below 0 steers away.
    """

    kind: str
    value: str
    scale: float

    def __str__(self) -> str:
        return ":".join(part for part in (self.kind, self.value, f"{self.scale:g}") if part)


@dataclass(frozen=True)
class Given:
    """What losses may need beside the picture, for one batch.

    Attributes:
        guides: CLIPs; their losses are averaged.
        photos: (B, 3, H, W) in [-1, 1], what the pictures started from.
        faces: face recognition networks by their files, pixels (B, 3, H, W) to features (B, D).
        keys: a key for each picture, that decides its crops.
        views: random crops of each picture that the CLIPs see; 0 shows the picture itself.
    """

    guides: Sequence[Guide] = ()
    photos: Tensor | None = None
    faces: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    keys: Sequence[int] = ()
    views: int = 0


@dataclass(frozen=True)
class Kind:
    """A row of :data:`KINDS`.

    Attributes:
        make: from the value and what is given to the loss.
        value: what its value is; empty where it takes none.
        needs: fields of :class:`Given` that it cannot do without.
        scale: a scale that shows and does no harm, found by looking at the embedded base.
        about: one line for people.
    """

    make: Callable[[str, Given], Loss]
    value: str
    needs: tuple[str, ...]
    scale: float
    about: str


def spherical(a: Tensor, b: Tensor) -> Tensor:
    """Half the squared angle between unit vectors (..., D), ``2 arcsin(|a - b| / 2)^2``.

    The squared great-circle distance, after Crowson's CLIP guidance. Its gradient falls with the
    distance, so that what is reached is not pulled at.
    """
    half = (a - b).square().sum(-1).clamp_min(1e-12).sqrt() / 2
    return 2 * half.clamp_max(1 - 1e-6).asin() ** 2


def _clip(prompt: str, given: Given) -> Loss:
    wanted = [guide.embed_text([prompt]) for guide in given.guides]
    return _towards(wanted, given)


def _image(file: str, given: Given) -> Loss:
    pixels = torch.from_numpy(np.array(decode(file).pixels))[None].permute(0, 3, 1, 2)
    picture = to_float(pixels)
    wanted = []
    for guide in given.guides:
        with torch.no_grad():
            wanted.append(guide.embed_image(picture.to(guide.mean.device)))
    return _towards(wanted, given)


def _towards(wanted: Sequence[Tensor], given: Given) -> Loss:
    def loss(x0: Tensor, t: Tensor) -> Tensor:
        seen = _views(in_range(x0).float(), t, given)
        each = [
            spherical(guide.embed_image(seen), to).view(-1, len(x0)).mean(0)
            for guide, to in zip(given.guides, wanted, strict=True)
        ]
        return torch.stack(each).mean(0)

    return loss


def _direction(texts: str, given: Given) -> Loss:
    source, arrow, target = (part.strip() for part in texts.partition(ARROW))
    if not (source and arrow and target):
        raise BadInput(
            f"the direction {texts!r} does not say from what to what",
            f"write e.g. direction:a serious person {ARROW} a smiling person:2",
        )
    assert given.photos is not None
    photos, moves = given.photos.float(), [guide.move(target, source) for guide in given.guides]

    def loss(x0: Tensor, t: Tensor) -> Tensor:
        # The same crops of both, so that what differs is the edit.
        seen, shown = _views(in_range(x0).float(), t, given), _views(photos, t, given)
        each = []
        for guide, move in zip(given.guides, moves, strict=True):
            with torch.no_grad():
                before = guide.embed_image(shown)
            unit = F.normalize(move.of(before), dim=-1)
            each.append(directional(guide.embed_image(seen), before, unit).view(-1, len(x0)))
        return torch.stack(each).mean(dim=(0, 1))

    return loss


def _colour(name: str, given: Given) -> Loss:
    wanted = torch.tensor(colour(name))

    def loss(x0: Tensor, t: Tensor) -> Tensor:
        return identity_l1(x0, wanted.to(x0).view(1, 3, 1, 1))

    return loss


def _photo(_: str, given: Given) -> Loss:
    photos = given.photos
    assert photos is not None
    return lambda x0, t: identity_l1(x0, photos)


def _lpips(_: str, given: Given) -> Loss:
    photos = given.photos
    assert photos is not None
    return lambda x0, t: perceptual(x0, photos)


def _face(file: str, given: Given) -> Loss:
    photos, network = given.photos, given.faces[file]
    assert photos is not None
    return lambda x0, t: face_identity(network, in_range(x0).float(), photos.float())


def total_variation(x: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels, both ways, one value a picture (B,).

    Mahendran & Vedaldi 2015 (1412.0035), section 3, with beta = 2. It is about the grain of pixels,
    of whatever size they are.

    Args:
        x: (B, C, H, W).
    """
    down = (x[..., 1:, :] - x[..., :-1, :]).square().flatten(1).mean(1)
    across = (x[..., 1:] - x[..., :-1]).square().flatten(1).mean(1)
    return down + across


def _tv(_: str, given: Given) -> Loss:
    return lambda x0, t: total_variation(x0)


KINDS: dict[str, Kind] = {
    "clip": Kind(_clip, "a prompt", ("guides",), 1.0, "look like a text, in the eyes of CLIP"),
    "direction": Kind(
        _direction,
        f"a prompt, {ARROW}, a prompt",
        ("guides", "photos"),
        0.05,
        "change from one text to another, in the eyes of CLIP",
    ),
    "image": Kind(
        _image, "an image file", ("guides",), 1.0, "look like a picture, in the eyes of CLIP"
    ),
    "colour": Kind(_colour, "a colour", (), 0.5, "be of a colour"),
    "photo": Kind(_photo, "", ("photos",), 1.0, "stay near the photo, pixel by pixel (L1)"),
    "lpips": Kind(
        _lpips, "", ("photos",), 1.0, "stay near the photo to a network of pictures (LPIPS)"
    ),
    "face": Kind(
        _face,
        "the file of a face recognition network",
        ("photos", "faces"),
        1.0,
        "stay the same person to the network",
    ),
    "tv": Kind(_tv, "", (), 0.1, "be smooth (total variation)"),
}
"""Everything that steers, by name."""

ALIASES = {"color": "colour", "text": "clip"}


def parse(text: str) -> Steer:
    """``KIND:VALUE:SCALE`` as a :class:`Steer`; a text without a colon is a prompt.

    The scale may be left out where nothing else has a colon, and a value may stand in quotes.

    Raises:
        BadInput: an unknown kind, a missing or superfluous value, no such colour, or a scale that
            is no number, not finite or beyond :data:`LARGEST`.
    """
    if not text.strip():
        raise BadInput("nothing to steer by", "write e.g. clip:a smiling person:1")
    if ":" not in text:
        name = _kind_name(text)
        if name in KINDS and not KINDS[name].value:
            return Steer(name, "", KINDS[name].scale)
        return Steer("clip", _unquoted(text), KINDS["clip"].scale)
    kind, _, rest = text.partition(":")
    name = _kind_name(kind)
    if name not in KINDS:
        near = difflib.get_close_matches(name, [*KINDS, *ALIASES], 2)
        raise BadInput(
            f"{kind.strip()!r} is nothing to steer by",
            (f"did you mean {', '.join(near)}? " if near else f"use one of {', '.join(KINDS)}; ")
            + f"a prompt with a colon is written clip:{text}:1",
        )
    row = KINDS[name]
    value, colon, last = rest.rpartition(":")
    if not row.value:
        if value.strip():
            raise BadInput(f"{name} takes no value, got {value!r}", f"write {name}:{last}")
        return Steer(name, "", _scale(last, text) if last.strip() else row.scale)
    if colon and not _quoted(rest):
        scale = _scale(last, text)
    else:
        value, scale = rest, row.scale
        if _number(value) is not None:
            raise BadInput(f"{text!r} has no value", f"write {name}:VALUE:{value.strip()}")
    value = _unquoted(value)
    if not value:
        raise BadInput(f"{text!r} has no value", f"{name} takes {row.value}")
    if name == "colour":
        colour(value)
    return Steer(name, value, scale)


def colour(name: str) -> tuple[float, float, float]:
    """A colour, ``#20c040`` or by its CSS name, as RGB in [-1, 1].

    Raises:
        BadInput: no such colour.
    """
    try:
        red, green, blue = ImageColor.getrgb(name.strip())[:3]
    except ValueError:
        raise BadInput(
            f"{name!r} is no colour", "write it like #20c040, or by name like green"
        ) from None
    return red / 127.5 - 1, green / 127.5 - 1, blue / 127.5 - 1


def steering(steers: Sequence[Steer], given: Given) -> Loss:
    """The sum of the losses, each by its scale.

    Raises:
        BadInput: nothing to steer by, an unknown kind, what it needs is not given, a prompt that
            the CLIP cannot read, or an image that cannot be read.
    """
    if not steers:
        raise BadInput("nothing to steer by", "give e.g. clip:a smiling person:1")
    terms: list[tuple[float, Loss]] = []
    for steer in steers:
        if steer.kind not in KINDS:
            raise BadInput(f"{steer.kind!r} is nothing to steer by", f"use {', '.join(KINDS)}")
        row = KINDS[steer.kind]
        for need in row.needs:
            held = getattr(given, need)
            if held is None or (need != "photos" and not held):
                raise BadInput(f"{steer.kind} {_MISSING[need][0]}", _MISSING[need][1])
        terms.append((steer.scale, row.make(steer.value, given)))

    def loss(x0: Tensor, t: Tensor) -> Tensor:
        total = x0.new_zeros(len(x0))
        for scale, term in terms:
            if scale:
                total = total + scale * term(x0, t).to(total.dtype)
        return total

    return loss


_MISSING = {
    "guides": ("needs a CLIP", "give one with --clip"),
    "photos": ("compares with the photo, and there is none", "use it with photos to edit"),
    "faces": ("needs a face recognition network", "write face:FILE:1"),
}


def _views(x: Tensor, t: Tensor, given: Given) -> Tensor:
    """Random crops of each picture, (views * B, 3, H, W), by its key and timestep alone."""
    if not given.views:
        return x
    if len(given.keys) != len(x):
        raise BadInput(
            f"{len(given.keys)} keys for the crops of {len(x)} pictures", "give one a picture"
        )

    def draw(n: int) -> Tensor:
        # As augment lays them out: one row of numbers for each view of each picture.
        rows = []
        for number, timestep in zip(given.keys, t.tolist(), strict=True):
            generator = torch.Generator().manual_seed(key(number, "views", timestep))
            rows.append(torch.rand(given.views, n // (given.views * len(x)), generator=generator))
        return torch.stack(rows, dim=1).flatten()

    return augment(x.repeat(given.views, 1, 1, 1), draw, colour=0.0)


def _kind_name(kind: str) -> str:
    name = kind.strip().lower()
    return ALIASES.get(name, name)


def _quoted(value: str) -> bool:
    value = value.strip()
    return len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"


def _unquoted(value: str) -> str:
    value = value.strip()
    return value[1:-1].strip() if _quoted(value) else value


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _scale(text: str, whole: str) -> float:
    scale = _number(text)
    if scale is None:
        raise BadInput(
            f"the scale {text.strip()!r} of {whole!r} is no number",
            "end it with a number, e.g. :1; put a value with a colon in quotes",
        )
    if not math.isfinite(scale) or abs(scale) > LARGEST:
        raise BadInput(
            f"the scale {text.strip()} of {whole!r} is out of range",
            f"use a number within -{LARGEST:g}..{LARGEST:g}, e.g. 1",
        )
    return scale
