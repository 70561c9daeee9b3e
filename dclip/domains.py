"""What data and models show, and what hangs on it: one table.

A data artifact names its domain, a model keeps that of the data it was trained on, and everything
that differs between domains is a column here.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from dclip.errors import BadInput

DRAWN_FACES = "drawn-faces"
FACES = "faces"
PHOTOS = "photos"

FRAMES = ("celeba", "ffhq", "drawn", "center", "none")
"""Where pictures have the face, see :class:`dclip.photos.frames.Frame`; the last two have none."""

FACE_FRAMES = FRAMES[:3]


@dataclass(frozen=True)
class Domain:
    """One kind of pictures.

    Attributes:
        summary: what they show, in words.
        source: prompt of what a picture shows before any edit.
        clip: the CLIP that guides where none is named and the store has none.
        judge: the judge that scores where none is named; None where there is none.
        drawn: whether the renderer draws them, so that edits have a drawn truth.
        words: other words that users call it by.
    """

    summary: str
    source: str
    clip: str = "ViT-B-32:openai"
    judge: str | None = None
    drawn: bool = False
    words: tuple[str, ...] = ()


DOMAINS: dict[str, Domain] = {
    DRAWN_FACES: Domain(
        "faces that dclip draws",
        "a photo of a person",
        "embedded",
        "embedded",
        drawn=True,
        words=("drawn", "drawn-face"),
    ),
    FACES: Domain("photos of faces", "a photo of a person", words=("face", "people", "person")),
    "dogs": Domain("photos of dogs' faces", "a photo of a dog", words=("dog",)),
    "churches": Domain("photos of churches", "a photo of a church", words=("church",)),
    "bedrooms": Domain("photos of bedrooms", "a photo of a bedroom", words=("bedroom",)),
    PHOTOS: Domain("photos of anything aligned", "a photo", words=("photo",)),
}


def find_domain(name: str) -> str:
    """The domain that a user means: its name, or a word for it.

    Raises:
        BadInput: there is none, with the nearest.
    """
    known = {word: key for key, row in DOMAINS.items() for word in (key, *row.words)}
    if name.strip().lower() in known:
        return known[name.strip().lower()]
    near = dict.fromkeys(known[word] for word in difflib.get_close_matches(name.lower(), known, 3))
    raise BadInput(
        f"domain {name!r} is unknown",
        (f"did you mean {' or '.join(near)}? Use" if near else "use")
        + f" one of {', '.join(DOMAINS)}",
    )
