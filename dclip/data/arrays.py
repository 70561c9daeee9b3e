"""Sample arrays on disk: zarr v3, sharded, uncompressed, one sample a chunk.

Any zarr v3 reader opens them. Our own reader maps the shard files into memory and goes through
each shard's index, because random reads through zarr itself are one to two orders of magnitude
slower (``benchmarks/loader.py``). Layout: zarr v3 core specification and its "sharding codec".

A shard file is its samples one after another, then the index: one (offset, nbytes) pair of
little-endian uint64 a sample (both 2**64 - 1 where there is none), then the CRC-32C of the pairs.
So a shard under construction is a plain file that grows at its end: that is what makes a killed
writer able to go on at the last whole sample.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import NDArray

from dclip.data.paths import open_file, read_bytes, shown, why
from dclip.data.shard_writer import MISSING, shard_path
from dclip.data.shard_writer import ShardWriter as ShardWriter  # both are asked for here
from dclip.errors import CorruptArtifact

_METADATA_BYTES = 2**20
_MOST = 2**48  # of samples, or of values along an axis: more than any disk holds
_MOST_OF_CHUNK = 2**28  # values, of an array that another program wrote
_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")
_OPEN_SHARDS = 128  # each open map holds a file descriptor, and a process has about a thousand


class ShardReader:
    """Reads samples of a zarr v3 array by number, fast in any order.

    Shards are mapped lazily, a bounded number at a time; pickling (worker processes) carries the
    path alone, and a fork shares the read-only maps. An array that is not of the layout above
    (compressed, other chunks) is read through zarr.

    Args:
        path: the array's folder.

    Raises:
        CorruptArtifact: not a zarr array; or, when read, a shard that is missing, short, or whose
            index fails its checksum. Never the fill value in place of a lost shard. What the array
            says of its size is held against its last shard when it is opened.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._meta = self._read_metadata()
        self.shape: tuple[int, ...] = tuple(self._meta["shape"])
        self._per_shard = self._fast_layout()
        self._maps: dict[int, _Shard] = {}
        self._zarr: Any = None
        if self._per_shard is None:
            self.dtype: np.dtype[Any] = np.dtype(self._fallback().dtype)
        else:
            self.dtype = np.dtype(self._meta["data_type"]).newbyteorder("<")
            self._check_size()

    def __len__(self) -> int:
        return self.shape[0]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def __getitem__(self, key: int | slice | Sequence[int] | NDArray[Any]) -> NDArray[Any]:
        """Samples by number, slice or list of numbers (in that order, repeats allowed).

        Returns:
            a copy: (*sample) for a number, (n, *sample) otherwise.

        Raises:
            IndexError: a number outside the array.
        """
        if isinstance(key, slice):
            return self._read(np.arange(*key.indices(len(self)), dtype=np.int64))
        if isinstance(key, int | np.integer):
            number = int(key) + len(self) if key < 0 else int(key)
            one: NDArray[Any] = self._read(np.array([number], dtype=np.int64))[0]
            return one
        numbers = np.asarray(key)
        if numbers.dtype == np.bool_ or (numbers.size and numbers.dtype.kind not in "iu"):
            raise IndexError(f"samples are named by whole numbers, not {numbers.dtype}")
        return self._read(numbers.astype(np.int64).reshape(-1))

    def _read(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        if len(numbers) and (numbers.min() < 0 or numbers.max() >= len(self)):
            bad = int(numbers.min() if numbers.min() < 0 else numbers.max())
            raise IndexError(f"sample {bad} is outside 0..{len(self) - 1} of {self.path}")
        if self._per_shard is None:
            return self._read_through_zarr(numbers)
        out = np.empty((len(numbers), *self.shape[1:]), dtype=self.dtype)
        if not len(numbers):
            return out
        shards = numbers // self._per_shard
        if (shards == shards[0]).all():
            self._map(int(shards[0])).take(numbers % self._per_shard, out, slice(None))
            return out
        order = np.argsort(shards, kind="stable")
        starts = np.flatnonzero(np.diff(shards[order], prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
            where = order[start:stop]
            shard = int(shards[where[0]])
            self._map(shard).take(numbers[where] % self._per_shard, out, where)
        return out

    def _map(self, number: int) -> _Shard:
        shard = self._maps.get(number)
        if shard is None:
            assert self._per_shard is not None
            shard = _Shard(
                shard_path(self.path, number, len(self.shape) - 1),
                self._per_shard,
                self.shape[1:],
                self.dtype,
                self._meta["fill_value"],
            )
            # Single dict operations only: threads share a reader without a lock.
            for oldest in list(self._maps)[: max(0, len(self._maps) - _OPEN_SHARDS + 1)]:
                self._maps.pop(oldest, None)
            self._maps[number] = shard
        return shard

    def _read_metadata(self) -> dict[str, Any]:
        try:
            data = read_bytes(self.path / "zarr.json", _METADATA_BYTES)
            meta: dict[str, Any] = json.loads(data.decode("utf-8"))
            if meta["zarr_format"] != 3 or meta["node_type"] != "array":
                raise ValueError("not a zarr v3 array")
            shape = meta["shape"]
            if not isinstance(shape, list) or not shape or not all(map(_is_axis, shape)):
                raise ValueError(f"its shape is {shown(str(shape), 60)}")
        except (FileNotFoundError, NotADirectoryError):
            raise CorruptArtifact(
                f"{self.path} is not a zarr v3 array: no zarr.json", "make the artifact again"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CorruptArtifact(
                f"{self.path}/zarr.json cannot be used: {why(error)}", "make the artifact again"
            ) from None
        return meta

    def _check_size(self) -> None:
        """Hold the declared shape against the files before anything is sized by it.

        Raises:
            CorruptArtifact: the last shard is missing, there are shards behind it, or its samples
                are of another size or number.
        """
        assert self._per_shard is not None
        last, within = divmod(len(self) - 1, self._per_shard)
        self._map(last).check_end(within)
        behind = shard_path(self.path, last + 1, len(self.shape) - 1)
        if behind.exists():
            raise _damaged(behind, f"zarr.json says that there are {len(self)} samples")

    def _fast_layout(self) -> int | None:
        """Samples a shard, or None where the array is not laid out as this module writes it."""
        meta = self._meta
        rest = list(self.shape[1:])
        try:
            chunk = meta["chunk_grid"]["configuration"]["chunk_shape"]
            (sharding,) = meta["codecs"]
            config = sharding["configuration"]
            (inner,) = config["codecs"]
            matches = (
                sharding["name"] == "sharding_indexed"
                and meta["chunk_grid"]["name"] == "regular"
                and meta["chunk_key_encoding"]
                == {"name": "default", "configuration": {"separator": "/"}}
                and list(chunk[1:]) == rest
                and list(config["chunk_shape"]) == [1, *rest]
                and inner["name"] == "bytes"
                and (inner.get("configuration") or {}).get("endian", "little") == "little"
                and [c["name"] for c in config["index_codecs"]] == ["bytes", "crc32c"]
                and config.get("index_location", "end") == "end"
                and meta["data_type"] in _TYPES
                and _is_axis(chunk[0])
                and _fills(meta["fill_value"], meta["data_type"])
            )
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            return None
        return int(chunk[0]) if matches else None

    def _fallback(self) -> Any:
        if self._zarr is None:
            import zarr

            self._check_chunks()
            try:
                array = zarr.open_array(str(self.path), mode="r")
            except Exception as error:
                raise CorruptArtifact(
                    f"{self.path} cannot be read by zarr: {why(error)}", "make the artifact again"
                ) from None
            lost = int(array.nchunks) - int(array.nchunks_initialized)
            if hasattr(array, "_nshards"):
                lost = int(array._nshards) - int(array._nshards_initialized)
            if lost > 0:
                raise CorruptArtifact(
                    f"{lost} chunk files of {self.path} are missing", "prepare the data again"
                )
            self._zarr = array
        return self._zarr

    def _check_chunks(self) -> None:
        """Hold the declared chunks against the files: zarr would go through every declared one."""
        try:
            chunks = self._meta["chunk_grid"]["configuration"]["chunk_shape"]
            if len(chunks) != len(self.shape) or not all(map(_is_axis, chunks)):
                raise ValueError("bad chunks")
            if math.prod(chunks) > _MOST_OF_CHUNK:
                raise ValueError("large chunks")
            declared = math.prod(-(-n // m) for n, m in zip(self.shape, chunks, strict=True))
        except (KeyError, TypeError, ValueError):
            raise CorruptArtifact(
                f"{self.path}/zarr.json cannot be used: its chunks", "make the artifact again"
            ) from None
        there = sum(len(files) for _, _, files in os.walk(self.path)) - 1
        if declared > there:
            raise CorruptArtifact(
                f"{declared - there} chunk files of {self.path} are missing",
                "prepare the data again",
            )

    def _read_through_zarr(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        if not len(numbers):
            return np.empty((0, *self.shape[1:]), dtype=self.dtype)
        array = self._fallback()
        first, last = int(numbers[0]), int(numbers[-1])
        try:
            if last - first + 1 == len(numbers) and (np.diff(numbers) == 1).all():
                return np.asarray(array[first : last + 1])
            unique, where = np.unique(numbers, return_inverse=True)  # zarr wants them sorted
            rows: NDArray[Any] = np.asarray(array.oindex[unique])
        except Exception as error:  # on damaged bytes, codecs raise nearly anything
            raise _damaged(self.path / "c", why(error)) from None
        return rows[where]


class _Shard:
    """One shard file, mapped; samples by their number within the shard."""

    def __init__(
        self,
        path: Path,
        per_shard: int,
        sample_shape: tuple[int, ...],
        dtype: np.dtype[Any],
        fill_value: float,
    ) -> None:
        nbytes = math.prod(sample_shape) * dtype.itemsize
        index_size = 16 * per_shard + 4
        self._path = path
        try:
            with open_file(path) as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise CorruptArtifact(f"shard {path} is missing", "make the artifact again") from None
        except OSError as error:
            raise _damaged(path, why(error)) from None
        except ValueError:  # an empty file cannot be mapped
            raise _damaged(path, "it is empty") from None
        if len(self._map) < index_size:
            raise _damaged(path, "it is shorter than its index")
        tail = self._map[-index_size:]
        if int.from_bytes(tail[-4:], "little") != crc32c(tail[:-4]):
            raise _damaged(path, "its index fails the checksum")
        index = np.frombuffer(tail[:-4], dtype="<u8").reshape(per_shard, 2)
        present = index[:, 0] != MISSING
        bounds = index[present].astype(np.int64)
        data_size = len(self._map) - index_size
        if (
            (bounds < 0).any()
            or (bounds[:, 1] != nbytes).any()
            or (bounds[:, 0] > data_size - nbytes).any()
        ):
            raise _damaged(path, "its index points outside the file")
        self._offsets = np.where(present, index[:, 0], 0).astype(np.int64)
        self._absent = ~present
        self._fill = fill_value
        raw = np.frombuffer(self._map, dtype=np.uint8, count=data_size)
        self._raw = raw
        self._nbytes = nbytes
        # Our writer lays samples end to end in order: then the shard is one plain array.
        count = int(present.sum())
        plain = bool(present[:count].all()) and bool(
            (self._offsets[:count] == np.arange(count) * nbytes).all()
        )
        self._plain: NDArray[Any] | None = None
        if plain:
            self._plain = raw[: count * nbytes].view(dtype).reshape(count, *sample_shape)

    def check_end(self, last: int) -> None:
        """Number ``last`` has to be the shard's last sample, as zarr.json says.

        Our writer leaves no sample out: an array that is said to be longer than it is would end in
        black pictures.
        """
        held = int(np.flatnonzero(~self._absent).max(initial=-1)) + 1
        if held != last + 1:
            raise _damaged(
                self._path, f"it ends with sample {held}, where zarr.json says {last + 1}"
            )

    def take(
        self, numbers: NDArray[np.int64], out: NDArray[Any], where: slice | NDArray[np.int64]
    ) -> None:
        """Copy samples ``numbers`` to ``out[where]``."""
        if self._plain is not None and numbers.max() < len(self._plain):
            if isinstance(where, slice) and (np.diff(numbers) == 1).all():
                out[where] = self._plain[numbers[0] : numbers[0] + len(numbers)]
            elif isinstance(where, slice):
                np.take(self._plain, numbers, axis=0, out=out, mode="clip")
            else:
                for number, row in zip(numbers.tolist(), where.tolist(), strict=True):
                    out[row] = self._plain[number]
            return
        rows = range(len(out)) if isinstance(where, slice) else where.tolist()
        for number, row in zip(numbers.tolist(), rows, strict=True):
            if self._absent[number]:
                # The index is checksummed: an absent entry is a writer's word for "all fill".
                out[row] = self._fill
            else:
                offset = int(self._offsets[number])
                sample = self._raw[offset : offset + self._nbytes].view(out.dtype)
                out[row] = sample.reshape(out.shape[1:])


def _is_axis(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MOST


def _fills(value: object, dtype: str) -> bool:
    """Whether a fill value is one of the type's own."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return abs(value) <= 2.0**15
    limits = np.iinfo(kind)
    return isinstance(value, int) and limits.min <= value <= limits.max


def _damaged(path: Path, why: str) -> CorruptArtifact:
    return CorruptArtifact(f"shard {path} is damaged: {why}", "make the artifact again")
