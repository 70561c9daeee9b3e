"""What a data artifact and a latents artifact hold, opened for reading."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dclip.data.arrays import ShardReader
from dclip.data.table import SampleTable
from dclip.errors import CorruptArtifact

Indices = NDArray[np.int64] | Sequence[int]


class _Samples:
    """Arrays beside a ``samples.csv``; the table is read when first asked for."""

    def __init__(self, path: Path | str, reader: ShardReader) -> None:
        self.path = Path(path)
        self._reader = reader
        shape = reader.shape
        if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
            raise CorruptArtifact(
                f"{reader.path} holds {shape}, not square RGB pictures", "make the artifact again"
            )

    def __len__(self) -> int:
        return len(self._reader)

    @property
    def size(self) -> int:
        """Side of the pictures in pixels."""
        return self._reader.shape[2]

    @cached_property
    def table(self) -> SampleTable:
        table = SampleTable(self.path / "samples.csv")
        if len(table) != len(self):
            raise CorruptArtifact(
                f"{table.path} has {len(table)} rows for {len(self)} pictures",
                "make the artifact again",
            )
        return table

    @property
    def ids(self) -> list[str]:
        return self.table.ids

    @property
    def captions(self) -> list[str]:
        """One caption a sample, empty where there is none."""
        return self.table.text("caption")

    @property
    def attribute_names(self) -> tuple[str, ...]:
        return self.table.attribute_names

    def attribute(self, name: str) -> NDArray[np.int8]:
        """An attribute of every sample: 1 yes, -1 no, 0 unknown. See :class:`SampleTable`."""
        return self.table.attribute(name)

    def split(self, name: str) -> NDArray[np.int64]:
        """Sample numbers of "train", "val", "test" or "all". See :class:`SampleTable`."""
        return self.table.split(name)

    def where(self, *conditions: str) -> NDArray[np.int64]:
        """Sample numbers that meet every ``NAME=VALUE``. See :class:`SampleTable`."""
        return self.table.where(*conditions)


class DataSet(_Samples):
    """A data artifact: pictures, splits, attributes, captions. Safe to fork and to pickle.

    Args:
        path: the artifact's folder (``artifact.path``).

    Raises:
        CorruptArtifact: the folder does not hold what a data artifact holds.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, ShardReader(Path(path) / "images.zarr"))

    def images(self, indices: Indices) -> NDArray[np.uint8]:
        """Pictures (n, 3, H, W) uint8 RGB, in the order asked for."""
        return self._reader[np.asarray(indices, dtype=np.int64)]


class LatentSet(_Samples):
    """A latents artifact: latents, the pictures that they decode to, and the round trip's error.

    Args:
        path: the artifact's folder.

    Raises:
        CorruptArtifact: the folder does not hold what a latents artifact holds.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, ShardReader(Path(path) / "latents.zarr"))
        self._pictures = ShardReader(Path(path) / "reference.zarr")
        if self._pictures.shape != self._reader.shape:
            raise CorruptArtifact(
                f"{self.path} holds latents {self._reader.shape} "
                f"for pictures {self._pictures.shape}",
                "invert again",
            )

    def latents(self, indices: Indices) -> NDArray[np.float32]:
        """x_r of the samples, (n, 3, H, W) float32."""
        return self._reader[np.asarray(indices, dtype=np.int64)]

    def references(self, indices: Indices) -> NDArray[np.uint8]:
        """The original pictures, (n, 3, H, W) uint8."""
        return self._pictures[np.asarray(indices, dtype=np.int64)]

    def measured(self, name: str) -> NDArray[np.float64]:
        """ "psnr" (dB) or "mae" (0..1) of each sample's round trip."""
        return self.table.numbers(name)


def open_samples(path: Path | str) -> DataSet | LatentSet:
    """Open whichever of the two an artifact's folder holds."""
    folder = Path(path)
    return LatentSet(folder) if (folder / "latents.zarr").is_dir() else DataSet(folder)
