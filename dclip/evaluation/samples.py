"""The pictures that an evaluation edits, or that were edited before, and what is known of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dclip.data import faces
from dclip.data.dataset import DataSet
from dclip.data.images import decode, to_float
from dclip.data.photos import photo_samples
from dclip.data.rendered import Rendered
from dclip.errors import BadInput
from dclip.random import permutation
from dclip.store import Artifact, Store


@dataclass(frozen=True)
class EvalSamples:
    """N pictures.

    Attributes:
        originals: (N, 3, H, W) in [-1, 1].
        params: of drawn faces; None where they are photos, or drawn in another style.
        labels: attributes by name, int8 (N,): 1 yes, -1 no, 0 unknown.
        people: who each shows, "" where that is unknown; empty where it is of none.
        edits: (N, 3, H, W) for each of ``strengths``, where they exist already.
        strengths: increasing; empty where there are no edits.
        inputs, settings: their origin, for a manifest.
    """

    originals: Tensor
    params: Sequence[faces.FaceParams] | None = None
    labels: Mapping[str, NDArray[np.int8]] = field(default_factory=dict)
    people: Sequence[str] = ()
    edits: Sequence[Tensor] = ()
    strengths: tuple[float, ...] = ()
    inputs: Mapping[str, Artifact] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.originals)


def draw(count: int, seed: int, size: int) -> EvalSamples:
    """The first ``count`` faces of the drawn data set ``seed``."""
    source = Rendered(count, seed, "photo", size)
    index = range(count)
    params = [source.drawing_of(i)[0] for i in index]
    shown = [faces.facts(each, "photo") for each in params]
    return EvalSamples(
        to_float(torch.from_numpy(source.draw(index))),
        params=params,
        labels={
            name: np.array([1 if each[name] else -1 for each in shown], np.int8)
            for name in shown[0]
        },
        settings={"drawn": count, "content": source.fingerprint()},
    )


def take(
    artifact: Artifact, split: str, where: Sequence[str], count: int, seed: int, size: int
) -> EvalSamples:
    """Samples of a data artifact, chosen by ``seed``.

    Raises:
        BadInput: fewer than two samples with these conditions.
    """
    data = DataSet(artifact.path)
    chosen = data.split(split)
    if where:
        chosen = np.intersect1d(chosen, data.where(*where))
    if len(chosen) < 2:
        which = " and ".join([f"split {split}", *where])
        few = "only one sample" if len(chosen) else "no samples"
        raise BadInput(f"{artifact.ref} has {few} with {which}", "choose another --split")
    chosen = np.sort(chosen[permutation(len(chosen), seed, "eval")[:count]])
    photos = photo_samples(data, chosen, size=size)
    pixels = np.stack([photos.load(i) for i in range(len(photos))])
    found = EvalSamples(to_float(torch.from_numpy(pixels)), settings={"samples": chosen.tolist()})
    return _known(found, artifact, data, chosen)


@dataclass(frozen=True)
class Squares:
    """The files of an edits artifact's squares: of whole photos those of their faces.

    Attributes:
        originals: one for each square.
        edits: by strength, increasing, in the same order.
        photos: numbers of the photos that they are of.
    """

    originals: tuple[Path, ...]
    edits: Mapping[float, tuple[Path, ...]]
    photos: tuple[int, ...]


def squares_of(artifact: Artifact) -> Squares:
    """Where an edits artifact has its squares."""
    with (artifact.path / "samples.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    strengths = tuple(sorted({float(row["strength"]) for row in rows}))
    order = sorted({int(row["index"]) for row in rows})
    faces_of = _faces_of(artifact)
    pairs = [(s, i) for s in strengths for i in order]
    found_at = {(float(row["strength"]), int(row["index"])): row for row in rows}
    several = len(strengths) > 1
    originals: list[str] = []
    edits: dict[float, list[str]] = {s: [] for s in strengths}
    for s, i in pairs:
        name, picture = found_at[s, i]["name"], found_at[s, i]["picture"]
        if name in faces_of:
            squares = [f"faces/{name}/{number}" for number in faces_of[name]]
            edits[s] += [f"{at}{f'_{s:g}' if several else ''}.png" for at in squares]
            originals += [f"{at}_original.png" for at in squares] if s == strengths[0] else []
        else:
            edits[s].append(picture)
            originals += [f"originals/{name}.png"] if s == strengths[0] else []
    return Squares(
        tuple(artifact.path / file for file in originals),
        {s: tuple(artifact.path / file for file in files) for s, files in edits.items()},
        tuple(order),
    )


def edited(artifact: Artifact, store: Store) -> EvalSamples:
    """The originals and edits of an edits artifact, with what its data says of them.

    Of whole photos these are the squares of their faces.

    Raises:
        BadInput: it has a single picture, with which nothing can be compared.
    """
    squares = squares_of(artifact)
    if len(squares.originals) < 2:
        raise BadInput(f"{artifact.ref} has one picture", "edit some more")
    found = EvalSamples(
        _read(squares.originals),
        edits=[_read(files) for files in squares.edits.values()],
        strengths=tuple(squares.edits),
        settings={"photos": len(squares.photos)},
    )
    if "data" not in artifact.manifest.inputs:
        return found
    source = store.input(artifact, "data")
    samples = np.array(artifact.config["samples"], dtype=np.int64)[list(squares.photos)]
    return _known(found, source, DataSet(source.path), samples)


def _faces_of(artifact: Artifact) -> dict[str, list[int]]:
    """The numbers of the faces that were edited in whole photos, by the photo's name."""
    file = artifact.path / "faces.json"
    if not file.exists():
        return {}
    photos = json.loads(file.read_text(encoding="utf-8"))
    return {
        photo["name"]: [face["number"] for face in photo["faces"] if not face["skipped"]]
        for photo in photos
    }


def _known(
    samples: EvalSamples, source: Artifact, data: DataSet, numbers: NDArray[np.int64]
) -> EvalSamples:
    return replace(
        samples,
        params=_params(source, data, numbers),
        labels={name: data.attribute(name)[numbers] for name in data.attribute_names},
        people=[data.table.text("identity")[i] for i in numbers],
        inputs={"data": source},
    )


def _params(
    source: Artifact, data: DataSet, numbers: NDArray[np.int64]
) -> list[faces.FaceParams] | None:
    if source.config.get("source") != "faces":
        return None
    style = str(source.config["style"])
    found = []
    for i in numbers:
        _, seed, number = data.ids[i].split("-")
        drawn = Rendered(int(number) + 1, int(seed), style, data.size)
        params, shown = drawn.drawing_of(int(number))
        if shown != "photo":
            return None
        found.append(params)
    return found


def _read(files: Sequence[Path]) -> Tensor:
    pixels = [decode(file.read_bytes()).pixels.transpose(2, 0, 1) for file in files]
    return to_float(torch.from_numpy(np.stack(pixels)))
