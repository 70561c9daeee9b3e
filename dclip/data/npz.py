"""Arrays of pictures as numpy saves them: ``.npy``, and ``.npz`` with labels and captions."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dclip.context import Reporter, Silent
from dclip.data.packed import Packed, columns_of, looked_through, mark_of, number
from dclip.data.paths import is_there, open_file, shown, user_path, why
from dclip.data.source import Item
from dclip.errors import BadInput

PICTURES = ("images", "pictures", "x", "X", "arr_0")
_CHANNELS = (1, 3, 4)
_FIX = "give pictures as (N, H, W, 3) or (N, H, W), uint8, or floats in 0..1 or -1..1"
_SILENT = Silent()


def open_npz(
    root: Path | str,
    limit: int | None = None,
    report: Reporter = _SILENT,
    *,
    caption: str | None = None,
) -> Packed:
    """The pictures of one ``.npy`` or ``.npz`` file; a picture's number is its id.

    In an ``.npz`` the pictures are the array ``images``, ``pictures``, ``x`` or ``arr_0``, else the
    only one that can be. Its arrays with a value a picture are captions, classes and attributes, by
    :func:`dclip.data.packed.columns_of`. An ``.npy`` is not read into memory.

    Args:
        root: the file.
        limit: only the first so many pictures.
        report: shown the progress.
        caption: the array of the captions: else by its name.

    Raises:
        BadInput: no such file, no pictures in it, or a type or range of values that is none.
    """
    place = user_path(root)
    if not is_there(place):
        raise BadInput(f"no such file: {shown(str(place))}", "check the path")
    if place.is_dir():
        raise BadInput(f"{shown(str(place))} is a folder", "give the .npy or .npz file")
    arrays = _arrays(place)
    key = _key(arrays, place)
    pixels = _as_channels_last(arrays.pop(key), place)[:limit]
    if not len(pixels):
        raise BadInput(f"{shown(str(place))} holds no pictures", _FIX)
    scale, notes = _scale(pixels, place)
    size = len(pixels)

    def encoded(index: int) -> bytes:
        values = np.asarray(pixels[index])
        if pixels.dtype != np.uint8:
            values = np.rint((values.astype(np.float64) + scale[0]) * scale[1]).clip(0, 255)
        picture = values.astype(np.uint8)
        out = io.BytesIO()
        image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
        image.save(out, "PNG", compress_level=1)
        return out.getvalue()

    table = {
        name: values[:limit].tolist()
        for name, values in arrays.items()
        if values.ndim == 1 and len(values[:limit]) == size and name != "names"
    }
    columns, more = columns_of(table, _names(arrays, table), caption)
    marks = looked_through(size, lambda i: mark_of(np.asarray(pixels[i]).tobytes()), report)
    items = [Item(number(i), f"{number(i)}.png", mark) for i, mark in enumerate(marks)]
    return Packed(place, items, columns, [*notes, *more], lambda item: encoded(int(item.id)))


def _arrays(place: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file by name; never a pickle, which could run code."""
    try:
        open_file(place).close()  # a pipe would keep us for ever
        if zipfile.is_zipfile(place):
            with np.load(place, allow_pickle=False) as found:
                return {name: found[name] for name in found.files}
        return {"arr_0": np.load(place, mmap_mode="r", allow_pickle=False)}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        fix = "save it with numpy.save or numpy.savez"
        if "pickle" in str(error).lower() or "objects" in str(error):
            fix = "save it as an array of numbers: arrays of objects can run code"
        raise BadInput(f"{shown(str(place))} cannot be read: {why(error)}", fix) from None


def _key(arrays: Mapping[str, NDArray[Any]], place: Path) -> str:
    named = next((name for name in PICTURES if name in arrays), None)
    others = [name for name, values in arrays.items() if values.ndim == 4]
    if named is None and len(others) == 1:
        return others[0]
    if named is None:
        raise BadInput(
            f"{shown(str(place))} holds {shown(', '.join(arrays)) or 'nothing'}: which are the"
            " pictures is not clear",
            "call that array images",
        )
    return named


def _as_channels_last(pixels: NDArray[Any], place: Path) -> NDArray[Any]:
    """(N, H, W, C) of what may be (N, H, W), (N, H, W, C) or (N, C, H, W)."""
    if pixels.ndim == 3:
        return pixels[..., None]
    if pixels.ndim == 4 and pixels.shape[3] in _CHANNELS:
        return pixels
    if pixels.ndim == 4 and pixels.shape[1] in _CHANNELS:
        return np.moveaxis(pixels, 1, 3)
    raise BadInput(f"the pictures in {shown(str(place))} have the shape {pixels.shape}", _FIX)


def _scale(pixels: NDArray[Any], place: Path) -> tuple[tuple[float, float], list[str]]:
    """What is added to a value, and what that is multiplied by, to span 0 to 255."""
    if pixels.dtype == np.uint8:
        return (0.0, 1.0), []
    if pixels.dtype == bool:
        return (0.0, 255.0), ["values are true and false: taken as white and black"]
    if pixels.dtype.kind not in "fiu":
        raise BadInput(f"the pictures in {shown(str(place))} are {pixels.dtype}", _FIX)
    low, high = np.inf, -np.inf
    for start in range(0, len(pixels), 256):
        part = np.asarray(pixels[start : start + 256])
        low, high = min(low, float(part.min())), max(high, float(part.max()))
    if not np.isfinite([low, high]).all():
        raise BadInput(f"the pictures in {shown(str(place))} hold NaN or infinity", _FIX)
    ranges = {(-1.0, 1.0): (1.0, 127.5), (0.0, 1.0): (0.0, 255.0), (0.0, 255.0): (0.0, 1.0)}
    if pixels.dtype.kind != "f":
        ranges = {(0.0, 255.0): (0.0, 1.0)}
    # A resized picture overshoots its range by a little.
    slack = 0.02
    order = [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)]
    for bounds in order:
        reach = bounds[1] - bounds[0]
        inside = bounds[0] - slack * reach <= low and high <= bounds[1] + slack * reach
        if bounds in ranges and inside:
            note = f"values from {low:g} to {high:g}: taken as {bounds[0]:g} to {bounds[1]:g}"
            return ranges[bounds], [note]
    raise BadInput(f"the pictures in {shown(str(place))} span {low:g} to {high:g}", _FIX)


def _names(
    arrays: Mapping[str, NDArray[Any]], table: Mapping[str, Any]
) -> dict[str, list[str]] | None:
    """Names of classes: an array ``names`` of texts."""
    given = arrays.get("names")
    if given is None or given.dtype.kind not in "US":
        return None
    texts = [str(text) for text in given.tolist()]
    return {name: texts for name in table if name in ("label", "labels", "y", "class", "cls")}
