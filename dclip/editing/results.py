"""Where an edit's pictures go: beside the photos, or to a place that the user names."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from dclip.data.images import SUFFIXES
from dclip.errors import BadInput
from dclip.photos.files import read_photo
from dclip.photos.saving import photo_bytes
from dclip.store import Artifact, slug
from dclip.store.files import free_name, write_atomic


@dataclass(frozen=True)
class _Picture:
    """One picture of an ``edits`` artifact and what it is called outside.

    Attributes:
        source: the file in the artifact.
        photo: the photo's own file, if it is still where it was named.
        root: the folder that was named, if the photo was found in one.
        below: the photo's folder, below the one that was named.
        name: of the copy: ``photo-smiling.png``.
    """

    source: Path
    photo: Path | None
    root: Path | None
    below: PurePosixPath
    name: str


def is_picture(place: Path) -> bool:
    """Whether a place for copies names a picture, ``edited.png``, and not a folder of them."""
    return place.suffix.lower() in SUFFIXES and not place.expanduser().is_dir()


def copy_pictures(
    artifact: Artifact, place: Path, photos: Sequence[str] = (), *, overwrite: bool = False
) -> list[Path]:
    """Copy an ``edits`` artifact's pictures to a place; returns where each one is.

    A folder gets ``photo-smiling.png`` and the like, in the subfolders that the photos were in.

    Args:
        place: a folder, made where it is not there; for a single picture also a file of any format
            that Pillow writes.
        photos: the files and folders that were edited; none of them is ever replaced.
        overwrite: replace files of the same names; files that are the same already always pass.

    Raises:
        BadInput: a file of that name with another content, several pictures for one file, a format
            that cannot be written, or a file where the folder is to be.
    """
    pictures = _pictures(artifact, photos)
    place = place.expanduser()
    one = is_picture(place)
    if one and len(pictures) > 1:
        raise BadInput(
            f"{len(pictures)} pictures do not fit in {place}", "name a folder with --out"
        )
    if place.exists() and not (one or place.is_dir()):
        raise BadInput(f"{place} is a file", "name a folder with --out")
    targets = [place if one else place / each.below / each.name for each in pictures]
    originals = {each.photo.resolve() for each in pictures if each.photo}
    pairs = zip((each.source for each in pictures), targets, strict=True)
    _copy(list(pairs), originals, artifact, overwrite)
    return targets


def _copy(
    pairs: Sequence[tuple[Path, Path]], originals: set[Path], artifact: Artifact, overwrite: bool
) -> None:
    """Write files to their targets: all of them, or none where one must not be replaced."""
    other = [
        (source, target) for source, target in pairs if not _holds(target, _as(source, target))
    ]
    for _, target in other:
        if target.resolve() in originals:
            raise BadInput(f"{target} is the photo itself", "name another place with --out")
        if not overwrite and target.exists():
            raise BadInput(
                f"{target} is there already",
                f"name another place, or say --force (all of it is in {artifact.path})",
            )
    for source, target in other:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, _as(source, target))


def check_figure_place(place: Path) -> None:
    """Refuse a file for a figure that is neither a PDF nor a picture.

    Raises:
        BadInput: a file of another kind.
    """
    suffix = place.suffix.lower()
    if suffix and suffix != ".pdf" and not is_picture(place) and not place.expanduser().is_dir():
        raise BadInput(
            f"cannot write {suffix} figures", "name a .pdf or .png file, or a folder for both"
        )


def copy_figure(
    artifact: Artifact, place: Path, photos: Sequence[str] = (), *, overwrite: bool = False
) -> list[Path]:
    """Copy a ``figure`` artifact's panel to a file, or its PNG and PDF to a folder.

    Args:
        place: a ``.pdf`` or a picture, or a folder, which gets ``NAME.png`` and ``NAME.pdf``.
        photos: the files that it shows; none of them is ever replaced.
        overwrite: replace files of the same names; files that are the same already always pass.

    Returns:
        Where they are.

    Raises:
        BadInput: as :func:`copy_pictures`.
    """
    check_figure_place(place)
    place = place.expanduser()
    png, pdf = artifact.path / "panel.png", artifact.path / "panel.pdf"
    if place.suffix.lower() == ".pdf" and not place.is_dir():
        pairs = [(pdf, place)]
    elif is_picture(place):
        pairs = [(png, place)]
    else:
        if place.exists() and not place.is_dir():
            raise BadInput(f"{place} is a file", "name a folder, or a .pdf or .png file")
        pairs = [(each, place / f"{artifact.name}{each.suffix}") for each in (png, pdf)]
    originals = {Path(photo).expanduser().resolve() for photo in photos}
    _copy(pairs, originals, artifact, overwrite)
    return [target for _, target in pairs]


def place_pictures(artifact: Artifact, photos: Sequence[str]) -> list[Path]:
    """Copy an ``edits`` artifact's pictures to where the photos are; returns where each one is.

    ``photo.jpg`` gets ``photo-smiling.png`` beside it, or ``photo-smiling.jpg`` where the whole
    photo was edited; a folder ``photos`` gets a folder
    ``photos-smiling`` beside it, with the same subfolders. No other file is replaced: a name that
    is taken gets a number.

    Args:
        photos: the files and folders that were edited.

    Raises:
        OSError: a folder that cannot be written to.
    """
    placed = []
    for each in _pictures(artifact, photos):
        if each.photo is None:
            continue
        if each.root is None:
            folder = each.photo.parent
        else:
            root = each.root.resolve()
            folder = root.with_name(f"{root.name}-{_label(artifact)}") / each.below
        folder.mkdir(parents=True, exist_ok=True)
        content = each.source.read_bytes()
        target = free_name(folder / each.name, content)
        if not target.exists():
            write_atomic(target, content)
        placed.append(target)
    return placed


def size_of(picture: Path) -> tuple[int, int]:
    """Width and height of a picture in pixels."""
    with Image.open(picture) as image:
        return image.size


def _label(artifact: Artifact) -> str:
    """What the edit is called in file names: ``smiling``, ``sketch_0.8-smiling``."""
    return slug(str(artifact.metrics.get("edit") or artifact.name).replace(":", "_"))


def _pictures(artifact: Artifact, photos: Sequence[str]) -> list[_Picture]:
    """The artifact's pictures in order, each with the photo that it was made of."""
    with (artifact.path / "samples.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    label, found = _label(artifact), []
    taken: dict[str, str] = {}  # a copy's path -> the photo's number
    homes = {row["index"]: row["file"] for row in rows}
    places = _homes(homes, photos)
    for row in rows:
        photo, root = places[row["index"]]
        below = PurePosixPath(row["file"]).parent if root is not None else PurePosixPath()
        plain = PurePosixPath(row["file"]).stem if root is not None or photo else row["name"]
        number, stem = 1, plain
        while taken.setdefault(f"{below / stem}".lower(), row["index"]) != row["index"]:
            number += 1
            stem = f"{plain}-{number}"
        far = "" if float(row["strength"]) == 1 else f"_{float(row['strength']):g}"
        name = f"{stem}-{label}{far}{Path(row['picture']).suffix}"
        found.append(_Picture(artifact.path / row["picture"], photo, root, below, name))
        panel = artifact.path / "images" / f"{row['name']}_panel.png"
        if panel.exists() and all(each.source != panel for each in found):
            found.append(_Picture(panel, photo, root, below, f"{stem}-{label}_panel.png"))
    return found


def _homes(
    files: dict[str, str], photos: Sequence[str]
) -> dict[str, tuple[Path | None, Path | None]]:
    """Each photo's file and the folder that was named, by the photo's number."""
    places = [Path(photo).expanduser() for photo in photos]
    used: set[Path] = set()
    found: dict[str, tuple[Path | None, Path | None]] = {}
    for number, file in files.items():
        found[number] = (None, None)
        for place in places:
            folder = place.is_dir()
            path = place / file if folder else place
            if path in used or not path.exists() or not (folder or place.name == file):
                continue
            used.add(path)
            found[number] = (path, place if folder else None)
            break
    return found


def _holds(target: Path, content: bytes) -> bool:
    return target.is_file() and target.read_bytes() == content


def _as(source: Path, target: Path) -> bytes:
    """A picture's bytes, converted to the format that the target's name says if it is another."""
    if target.suffix.lower() == source.suffix.lower():
        return source.read_bytes()
    photo = read_photo(source)
    return photo_bytes(photo, photo.pixels, target)[0]
