"""Sharded arrays, held against zarr's own reading, and their way through interruptions."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from dclip.data import arrays
from dclip.data.arrays import ShardReader, ShardWriter
from dclip.data.shard_writer import samples_per_shard
from dclip.errors import CorruptArtifact

SHAPE = (3, 4, 4)


def samples(count: int, dtype: str = "uint8") -> np.ndarray:
    random = np.random.default_rng(0)
    if dtype == "uint8":
        return random.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    return random.standard_normal((count, *SHAPE)).astype(dtype)


def write(path: Path, data: np.ndarray, per_shard: int) -> Path:
    with ShardWriter(path, SHAPE, data.dtype, total=len(data), per_shard=per_shard) as writer:
        writer.append(data)
        writer.finish()
    return path


def content(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("count", [1, 7, 8, 17])
def test_zarr_and_our_reader_read_what_was_written(tmp_path: Path, dtype: str, count: int) -> None:
    data = samples(count, dtype)
    path = write(tmp_path / "a.zarr", data, per_shard=8)
    theirs = zarr.open_array(str(path), mode="r")
    assert np.array_equal(theirs[:], data)
    assert theirs.chunks == (1, *SHAPE)
    ours = ShardReader(path)
    assert (len(ours), ours.shape, ours.dtype) == (count, data.shape, data.dtype)
    assert np.array_equal(ours[:], data)
    assert np.array_equal(ours[count - 1], data[count - 1])
    assert np.array_equal(ours[-1], data[-1])


@pytest.fixture(scope="module")
def seventeen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("arrays") / "a.zarr", samples(17), per_shard=5)


@settings(max_examples=100, deadline=None)
@given(numbers=st.lists(st.integers(0, 16), max_size=40))
def test_any_numbers_in_any_order_with_repeats(seventeen: Path, numbers: list[int]) -> None:
    assert np.array_equal(ShardReader(seventeen)[numbers], samples(17)[np.array(numbers, int)])


@settings(max_examples=50, deadline=None)
@given(st.slices(17))
def test_any_slice(seventeen: Path, key: slice) -> None:
    assert np.array_equal(ShardReader(seventeen)[key], samples(17)[key])


def test_numbers_outside_are_errors(seventeen: Path) -> None:
    reader = ShardReader(seventeen)
    for bad in (17, -18, [0, 17], [-1]):
        with pytest.raises(IndexError):
            reader[bad]
    with pytest.raises(IndexError):
        reader[np.array([0.5])]


def test_what_is_read_is_a_copy(seventeen: Path) -> None:
    reader = ShardReader(seventeen)
    reader[0:3][:] = 0
    assert np.array_equal(reader[0:3], samples(17)[0:3])


def test_few_maps_are_open_at_a_time(seventeen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_OPEN_SHARDS", 2)
    reader = ShardReader(seventeen)
    numbers = np.random.default_rng(1).integers(0, 17, 200)
    assert np.array_equal(reader[numbers], samples(17)[numbers])
    assert len(reader._maps) <= 2


def _read_all(reader: ShardReader) -> bytes:
    return reader[:].tobytes()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_reads_in_other_processes(seventeen: Path, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    reader = ShardReader(seventeen)
    reader[0]
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(_read_all, (reader,)) == samples(17).tobytes()


def test_pickle_carries_the_path_alone(seventeen: Path) -> None:
    reader = ShardReader(seventeen)
    reader[:]
    data = pickle.dumps(reader)
    assert len(data) < 1000
    assert np.array_equal(pickle.loads(data)[:], samples(17))


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    cut=st.integers(0, 10_000),
    per_shard=st.integers(1, 6),
)
def test_a_killed_writer_goes_on_and_ends_with_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], cut: int, per_shard: int
) -> None:
    folder = tmp_path_factory.mktemp("kill")
    data = samples(sum(sizes))
    whole = write(folder / "whole.zarr", data, per_shard)
    path, total = folder / "killed.zarr", len(data)

    first = ShardWriter(path, SHAPE, np.uint8, total=total, per_shard=per_shard)
    for size in sizes[: cut % (len(sizes) + 1)]:
        first.append(data[first.done : first.done + size])
    first._close()  # what the death of the process does to the file
    partial = path / ".partial"
    if partial.exists():  # killed in the middle of a write: some bytes of the next sample
        with partial.open("ab") as file:
            file.write(b"torn"[: cut % 5])

    with ShardWriter(path, SHAPE, np.uint8, total=total, per_shard=per_shard) as again:
        assert again.done == first.done
        again.append(data[again.done :])
        again.finish()
    assert content(path) == content(whole)


def test_killed_inside_finish_or_after_it(tmp_path: Path) -> None:
    data = samples(7)
    path = write(tmp_path / "a.zarr", data, per_shard=5)
    before = content(path)
    (path / "zarr.json").unlink()
    for _ in range(2):
        with ShardWriter(path, SHAPE, np.uint8, total=7, per_shard=5) as writer:
            assert writer.done == 7
            writer.finish()
        assert content(path) == before


def test_killed_while_the_index_was_written(tmp_path: Path) -> None:
    data = samples(5)
    path = write(tmp_path / "a.zarr", data, per_shard=5)
    before = content(path)
    shard = path / "c/0/0/0/0"
    (path / ".partial").write_bytes(shard.read_bytes()[:-10])
    shard.unlink()
    with ShardWriter(path, SHAPE, np.uint8, total=5, per_shard=5) as writer:
        writer.append(data[writer.done :])
        writer.finish()
    assert content(path) == before


@pytest.mark.parametrize("back_to", range(13))
def test_rewinding_forgets_what_came_after(tmp_path: Path, back_to: int) -> None:
    data = samples(12)
    with ShardWriter(tmp_path / "a.zarr", SHAPE, np.uint8, total=12, per_shard=5) as writer:
        writer.append(255 - data)
        writer.rewind(0)
        writer.append(np.concatenate([data[:back_to], 255 - data[back_to:]]))
        writer.rewind(back_to)
        assert writer.done == back_to
        writer.append(data[back_to:])
        writer.finish()
    assert content(tmp_path / "a.zarr") == content(write(tmp_path / "b.zarr", data, per_shard=5))


def test_an_unfinished_array_is_not_readable(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a.zarr", SHAPE, np.uint8, total=4) as writer:
        writer.append(samples(4))
    with pytest.raises(CorruptArtifact, match=r"zarr\.json"):
        ShardReader(tmp_path / "a.zarr")


def test_other_shapes_and_types_are_refused(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a.zarr", SHAPE, np.uint8, total=4) as writer:
        with pytest.raises(ValueError, match="expected"):
            writer.append(samples(2, "float32"))
        with pytest.raises(ValueError, match="expected"):
            writer.append(samples(2)[:, :1])
        with pytest.raises(ValueError, match="at least one"):
            writer.finish()


def test_shards_aim_at_tens_of_megabytes() -> None:
    for side in (64, 128, 256):
        count = samples_per_shard((3, side, side), np.uint8, 10**6)
        assert 32e6 < count * 3 * side**2 < 64e6
    assert samples_per_shard((3, 64, 64), np.uint8, 10) == 10
    assert samples_per_shard((3, 9000, 9000), np.float32, 10) == 1


def test_a_lost_shard_is_an_error_and_not_black_pictures(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", samples(12), per_shard=5)
    (path / "c/1/0/0/0").unlink()
    reader = ShardReader(path)
    assert np.array_equal(reader[:5], samples(12)[:5])
    with pytest.raises(CorruptArtifact, match="missing"):
        reader[5]


@pytest.mark.parametrize("damage", ["short", "empty", "index", "beyond"])
def test_a_damaged_shard_is_an_error(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path / "a.zarr", samples(5), per_shard=5)
    shard = path / "c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    if damage == "short":
        data = data[:40]
    elif damage == "empty":
        data = bytearray()
    elif damage == "index":
        data[-20] ^= 1
    else:
        data = data[100:]
    shard.write_bytes(data)
    with pytest.raises(CorruptArtifact, match="damaged"):
        ShardReader(path)[0]


def test_metadata_that_is_not_an_array_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", samples(2), per_shard=2)
    for text in ("{", "[]", '{"zarr_format": 2}'):
        (path / "zarr.json").write_text(text)
        with pytest.raises(CorruptArtifact):
            ShardReader(path)


LAYOUTS = {
    "ours by zarr": {"chunks": (1, *SHAPE), "shards": (4, *SHAPE), "compressors": None},
    "compressed": {"chunks": (1, *SHAPE), "shards": (4, *SHAPE)},
    "several a chunk": {"chunks": (2, *SHAPE), "shards": (4, *SHAPE), "compressors": None},
    "no shards": {"chunks": (3, *SHAPE)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reads_arrays_that_zarr_wrote(tmp_path: Path, layout: str) -> None:
    data = samples(10)
    data[3] = 0  # zarr leaves chunks of the fill value out
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=data.shape, dtype="uint8", **LAYOUTS[layout]
    )
    array[:] = data
    reader = ShardReader(tmp_path / "a.zarr")
    assert np.array_equal(reader[[7, 3, 3, 0]], data[[7, 3, 3, 0]])
    assert np.array_equal(reader[2:9], data[2:9])
    assert reader[[]].shape == (0, *SHAPE)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_lost_chunk_file_of_zarrs_is_an_error(tmp_path: Path, layout: str) -> None:
    data = samples(10)
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=data.shape, dtype="uint8", **LAYOUTS[layout]
    )
    array[:] = data
    (tmp_path / "a.zarr/c/1/0/0/0").unlink()
    with pytest.raises(CorruptArtifact, match="missing"):
        ShardReader(tmp_path / "a.zarr")[4]


def test_samples_in_any_order_within_the_file(tmp_path: Path) -> None:
    """The specification lets a writer place the samples as it likes; the index decides."""
    data = samples(4)
    path = write(tmp_path / "a.zarr", data, per_shard=4)
    order = [2, 0, 3, 1]
    pairs = np.zeros((4, 2), dtype="<u8")
    pairs[order, 0] = np.arange(4) * 48
    pairs[:, 1] = 48
    index = pairs.tobytes()
    checksum = int(arrays.crc32c(index)).to_bytes(4, "little")
    (path / "c/0/0/0/0").write_bytes(data[order].tobytes() + index + checksum)
    assert np.array_equal(zarr.open_array(str(path), mode="r")[:], data)
    assert np.array_equal(ShardReader(path)[[3, 1, 1, 0]], data[[3, 1, 1, 0]])
