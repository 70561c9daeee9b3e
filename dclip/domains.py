"""What data and models show, and what hangs on it: one table.

A data artifact names its domain, a model keeps that of the data it was trained on, and everything
that differs between domains is a column here.
"""

from __future__ import annotations

from dataclasses import dataclass

DRAWN_FACES = "drawn-faces"
FACES = "faces"
PHOTOS = "photos"


@dataclass(frozen=True)
class Domain:
    """One kind of pictures.

    Attributes:
        summary: what they show, in words.
        source: prompt of what a picture shows before any edit.
        clip: the CLIP that guides where none is named and the store has none.
        judge: the judge that scores where none is named; None where there is none.
        drawn: whether the renderer draws them, so that edits have a drawn truth.
    """

    summary: str
    source: str
    clip: str = "ViT-B-32:openai"
    judge: str | None = None
    drawn: bool = False


DOMAINS: dict[str, Domain] = {
    DRAWN_FACES: Domain(
        "faces that dclip draws", "a photo of a person", "embedded", "embedded", drawn=True
    ),
    FACES: Domain("photos of faces", "a photo of a person"),
    "dogs": Domain("photos of dogs' faces", "a photo of a dog"),
    "churches": Domain("photos of churches", "a photo of a church"),
    "bedrooms": Domain("photos of bedrooms", "a photo of a bedroom"),
    PHOTOS: Domain("photos of anything aligned", "a photo"),
}
