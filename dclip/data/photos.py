"""Photos to edit: files, folders or samples of an artifact, all used alike."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dclip.context import Reporter, Silent
from dclip.data.dataset import DataSet, LatentSet
from dclip.data.folder import none_found
from dclip.data.images import decode, shape_of
from dclip.data.listing import list_pictures
from dclip.data.paths import is_there, name_bytes, open_file, read_file, shown, user_path
from dclip.errors import BadInput

_SILENT = Silent()

CELEBA_SHAPE = (178, 218)
"""Width and height of CelebA's aligned photos, which are cropped as CelebA is."""

_UNSAFE = re.compile(r'[\\/:*?"<>|\x00-\x1f\x7f]|[\ud800-\udfff]')


@dataclass(frozen=True)
class Photos:
    """Some photos, read one at a time.

    Attributes:
        names: unique, and safe as file names whatever the file system does with letter case.
        files: a file's name, below its folder where a folder was named; or a sample's id.
        sha256: of each file's bytes; "" for samples of an artifact and for unreadable files.
        load: photo number -> (3, size, size) uint8 RGB; raises BadInput for an unreadable one.
            Safe from several threads.
        paths: of the files; empty for samples of an artifact.
    """

    names: tuple[str, ...]
    files: tuple[str, ...]
    sha256: tuple[str, ...]
    load: Callable[[int], NDArray[np.uint8]]
    paths: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def first(self, count: int) -> Photos:
        """The first so many of them."""
        few = slice(count)
        return Photos(
            self.names[few], self.files[few], self.sha256[few], self.load, self.paths[few]
        )

    def fingerprint(self) -> str:
        """A hash of what the photos are and are called, wherever they lie."""
        digest = hashlib.sha256()
        for row in zip(self.names, self.files, self.sha256, strict=True):
            digest.update(name_bytes("\0".join(row) + "\n"))
        return digest.hexdigest()


def photo_files(
    places: Sequence[str | Path],
    *,
    size: int,
    crop: str | None = None,
    like: str | None = None,
    workers: int = 8,
    report: Reporter = _SILENT,
) -> Photos:
    """The photos in files and folders, in the order given, a folder's sorted by path.

    Args:
        places: image files, and folders of them.
        size: side in pixels that they are resized to.
        crop: "center", "face" or a number of pixels; None lets :func:`fitting_crop` decide.
        like: the crop of the data that the model was trained on, where it is known.
        workers: threads to read the files with.
        report: told what was left out of the folders, and once for each photo that was read in a
            way that the user may not expect, e.g. with its colour profile.

    Raises:
        BadInput: a place that does not exist, a folder without pictures, or no places at all.
    """
    paths, files, notes = _find(places)
    for note in notes:
        report.note(note)
    told: set[int] = set()

    def load(number: int) -> NDArray[np.uint8]:
        data = read_file(paths[number], files[number])
        how = crop or fitting_crop(shape_of(data), like)
        read = decode(data, size=size, crop=how, name=files[number])
        if number not in told:
            told.add(number)
            for note in read.notes:
                report.note(f"{shown(files[number])}: {note}")
        return np.ascontiguousarray(read.pixels.transpose(2, 0, 1))

    with ThreadPoolExecutor(max(1, workers)) as pool:
        marks = tuple(pool.map(_content, paths))
    names = unique_names([path.stem for path in paths])
    return Photos(names, tuple(files), marks, load, tuple(paths))


def photo_samples(samples: DataSet | LatentSet, indices: NDArray[np.int64], *, size: int) -> Photos:
    """Samples of a data or latents artifact; resized where their size is not ``size``."""
    table = samples.table
    ids = [table.ids[i] for i in indices]

    def load(number: int) -> NDArray[np.uint8]:
        at = indices[number : number + 1]
        found = samples.references(at) if isinstance(samples, LatentSet) else samples.images(at)
        pixels: NDArray[np.uint8] = found[0]
        if pixels.shape[-1] == size:
            return pixels
        image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        resized = np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))
        return np.ascontiguousarray(resized.transpose(2, 0, 1))

    return Photos(unique_names(ids), tuple(ids), ("",) * len(ids), load)


def fitting_crop(shape: tuple[int, int], like: str | None) -> str:
    """How to crop a photo of (width, height) for a model whose training data was cropped ``like``.

    A square picture is taken whole: whoever made it has cropped it. CelebA's own photos are cropped
    as the data was, or as CelebA usually is. Of others the centre square is taken, the closer
    "face" one where the data was cropped so; a number of pixels means nothing for them.
    """
    if shape[0] == shape[1]:
        return "center"
    if shape == CELEBA_SHAPE:
        return like or "face"
    return "face" if like == "face" else "center"


def unique_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names that are safe for files and differ, also without regard to case: ``a``, ``a-2``.

    ``NAME_panel`` is kept free for every name, since the panels beside the pictures are called so.
    """
    taken: set[str] = set()
    unique = []
    for name in names:
        safe = _UNSAFE.sub("_", name).strip(" .")[:120] or "photo"
        number, trial = 1, safe
        while {trial.lower(), f"{trial}_panel".lower()} & taken:
            number += 1
            trial = f"{safe}-{number}"
        taken |= {trial.lower(), f"{trial}_panel".lower()}
        unique.append(trial)
    return tuple(unique)


def _find(places: Sequence[str | Path]) -> tuple[list[Path], list[str], list[str]]:
    paths: list[Path] = []
    files: list[str] = []
    notes: list[str] = []
    seen: set[Path] = set()
    for place in places:
        path = user_path(place)
        if not is_there(path):
            raise BadInput(f"no such photo or folder: {shown(str(place))}", "check the path")
        if path.is_dir():
            inside = list_pictures(path)
            if not inside.files:
                raise none_found(path, inside)
            notes += inside.notes()
            found = [(path / file, file) for file in inside.files]
        else:
            found = [(path, path.name)]
        for each, file in found:
            if each.resolve() not in seen:
                seen.add(each.resolve())
                paths.append(each)
                files.append(file)
    if not paths:
        raise BadInput("there are no photos to edit", "name files or folders")
    return paths, files, notes


def _content(path: Path) -> str:
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
