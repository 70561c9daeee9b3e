"""Writing sample arrays: what grows at its end, and goes on where a killed writer stopped.

The layout is told in :mod:`dclip.data.arrays`, which reads it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import DTypeLike, NDArray

from dclip.store.files import sync, write_atomic

SHARD_BYTES = 48 * 2**20
"""What a shard aims at; the last may be smaller, and so is the only one of a small array."""

MISSING = 2**64 - 1
"""Offset and size, in a shard's index, of a sample that is not there."""

_sync_data = getattr(os, "fdatasync", os.fsync)


def samples_per_shard(sample_shape: Sequence[int], dtype: DTypeLike, total: int) -> int:
    """How many samples go into a shard of an array of at most ``total`` samples."""
    nbytes = math.prod(sample_shape) * np.dtype(dtype).itemsize
    return max(1, min(total, SHARD_BYTES // nbytes))


def _metadata(
    shape: tuple[int, ...], per_shard: int, dtype: np.dtype[Any], attributes: dict[str, Any]
) -> dict[str, Any]:
    # Written by hand, not by zarr: the bytes enter the artifact's id and must not change with
    # zarr's version.
    little: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [per_shard, *shape[1:]]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [1, *shape[1:]],
                    "codecs": [little if dtype.itemsize > 1 else {"name": "bytes"}],
                    "index_codecs": [little, {"name": "crc32c"}],
                    "index_location": "end",
                },
            }
        ],
        "attributes": attributes,
        "storage_transformers": [],
    }


def _index_bytes(count: int, per_shard: int, nbytes: int) -> bytes:
    index = np.full((per_shard, 2), MISSING, dtype="<u8")
    index[:count, 0] = np.arange(count, dtype=np.uint64) * np.uint64(nbytes)
    index[:count, 1] = nbytes
    pairs = index.tobytes()
    return pairs + int(crc32c(pairs)).to_bytes(4, "little")


class ShardWriter:
    """Writes an array sample after sample, and goes on where a killed writer stopped.

    ``done`` says how many samples are already safe on disk; append from there. The array becomes
    readable with :meth:`finish`; the bytes are the same however often the writing was interrupted.

    Args:
        path: the array's folder, e.g. ``draft.path / "images.zarr"``.
        sample_shape: shape of one sample, e.g. (3, H, W).
        dtype: uint8, float32, ...
        total: an upper bound on the number of samples; with the shape it fixes the shard size.
        per_shard: samples a shard; :func:`samples_per_shard` of the above by default.

    Raises:
        OSError: the disk is full or read-only.
    """

    def __init__(
        self,
        path: Path | str,
        sample_shape: Sequence[int],
        dtype: DTypeLike,
        *,
        total: int,
        per_shard: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.sample_shape = tuple(int(n) for n in sample_shape)
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.per_shard = per_shard or samples_per_shard(self.sample_shape, self.dtype, total)
        self._nbytes = math.prod(self.sample_shape) * self.dtype.itemsize
        self._file: BinaryIO | None = None
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "zarr.json").unlink(missing_ok=True)
        self._done = self._find_done()

    @property
    def done(self) -> int:
        """Samples that are on disk."""
        return self._done

    def append(self, samples: NDArray[Any]) -> None:
        """Add samples, (n, *sample_shape), and wait until they are on disk.

        Raises:
            ValueError: another shape or type than the array's.
        """
        if samples.shape[1:] != self.sample_shape or samples.dtype != self.dtype:
            raise ValueError(
                f"expected (n, {self.sample_shape}) {self.dtype}, "
                f"got {samples.shape} {samples.dtype}"
            )
        samples = np.ascontiguousarray(samples)
        while len(samples):
            file = self._open()
            part = samples[: self.per_shard - self._done % self.per_shard]
            file.write(part.reshape(-1).view(np.uint8).data)
            self._done += len(part)
            if self._done % self.per_shard == 0:
                self._seal(self.per_shard)
            samples = samples[len(part) :]
        if self._file is not None:
            self._file.flush()
            _sync_data(self._file.fileno())

    def rewind(self, done: int) -> None:
        """Drop every sample after the first ``done``, e.g. those that a journal does not know."""
        if not 0 <= done <= self._done:
            raise ValueError(f"cannot rewind to {done}: {self._done} samples are there")
        if done == self._done:
            return
        self._close()
        shard, rest = divmod(done, self.per_shard)
        for later in range(shard + 1, -(-self._done // self.per_shard) + 1):
            self._shard(later).unlink(missing_ok=True)
        if self._shard(shard).exists():
            self._shard(shard).replace(self._partial)
        if self._partial.exists():
            os.truncate(self._partial, rest * self._nbytes)
        self._done = done

    def finish(self, attributes: dict[str, Any] | None = None) -> None:
        """Complete the array with the samples written so far.

        Raises:
            ValueError: there is no sample.
        """
        if not self._done:
            raise ValueError("an array needs at least one sample")
        rest = self._done % self.per_shard
        if rest:
            self._open()
            self._seal(rest)
        self._close()
        self._partial.unlink(missing_ok=True)
        metadata = _metadata(
            (self._done, *self.sample_shape), self.per_shard, self.dtype, attributes or {}
        )
        write_atomic(self.path / "zarr.json", json.dumps(metadata, indent=1).encode())

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the file. Does not finish: an interrupted array stays unfinished."""
        self._close()

    @property
    def _partial(self) -> Path:
        return self.path / ".partial"

    def _shard(self, number: int) -> Path:
        return shard_path(self.path, number, len(self.sample_shape))

    def _find_done(self) -> int:
        """Count what an earlier writer left: sealed shards, then whole samples of the open one."""
        full_size = self.per_shard * self._nbytes + 16 * self.per_shard + 4
        shard = 0
        while self._shard(shard).exists() and self._shard(shard).stat().st_size == full_size:
            shard += 1
        if self._shard(shard).exists():
            # The last, short shard of a writer that was killed inside finish(): open it again.
            self._shard(shard).replace(self._partial)
            size = self._partial.stat().st_size - 16 * self.per_shard - 4
        else:
            size = self._partial.stat().st_size if self._partial.exists() else 0
        count = min(max(0, size) // self._nbytes, self.per_shard)
        if count == self.per_shard:
            count -= 1  # killed while the index was being written: take the last sample again
        if self._partial.exists():
            os.truncate(self._partial, count * self._nbytes)
        return shard * self.per_shard + count

    def _open(self) -> BinaryIO:
        if self._file is None:
            self._file = self._partial.open("ab")
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _seal(self, count: int) -> None:
        file = self._open()
        file.write(_index_bytes(count, self.per_shard, self._nbytes))
        file.flush()
        os.fsync(file.fileno())
        self._close()
        target = self._shard((self._done - 1) // self.per_shard)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._partial.replace(target)
        sync(target.parent)


def shard_path(array: Path, number: int, sample_axes: int) -> Path:
    """Where shard ``number`` of an array lies; its samples have so many axes."""
    return array.joinpath("c", str(number), *["0"] * sample_axes)
