"""What identifies files, and how long it is remembered."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_kit import folder_in_memory, put

from dclip import hashing
from dclip.errors import BadInput
from dclip.hashing import HashCache, hash_files, identify
from dclip.store import Store
from dclip.text import printable


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read, by name."""
    monkeypatch.setattr(hashing, "_MOMENT", -(10**18))  # no file is too new to be remembered
    real, seen = hashing.sha256, []

    def counted(path: Path, on_bytes: object = None) -> str:
        seen.append(path.name)
        return real(path)

    monkeypatch.setattr(hashing, "sha256", counted)
    return seen


def test_a_file_is_its_whole_content_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"x" * 200_000)
    first = identify(file)
    assert first == hashlib.sha256(b"x" * 200_000).hexdigest()
    file.rename(tmp_path / "b.bin")
    assert identify(str(tmp_path / "b.bin")) == first
    with (tmp_path / "b.bin").open("r+b") as stream:
        stream.seek(150_000)
        stream.write(b"y")
    assert identify(tmp_path / "b.bin") != first


def test_a_folder_is_its_files_paths_and_bytes(tmp_path: Path) -> None:
    one = tmp_path / "one"
    (one / "sub").mkdir(parents=True)
    (one / "config.json").write_text("{}")
    (one / "sub" / "w.safetensors").write_bytes(b"weights")
    (one / "README.md").write_text("hello")
    full, part = identify(one), identify(one, suffixes=[".json", ".safetensors"])
    assert full != part
    (one / "README.md").write_text("bye")
    (one / "empty").mkdir()
    assert identify(one) != full
    assert identify(one, suffixes=[".json", ".safetensors"]) == part
    # As hubs lay models out: links to files elsewhere.
    two = tmp_path / "two"
    two.mkdir()
    (two / "config.json").symlink_to(one / "config.json")
    (two / "sub").symlink_to(one / "sub", target_is_directory=True)
    (two / "sub2").symlink_to(two, target_is_directory=True)  # in a circle
    assert identify(two, suffixes=[".json", ".safetensors"]) == part
    (one / "sub" / "w.safetensors").write_bytes(b"Weights")
    assert identify(two, suffixes=[".json", ".safetensors"]) != part


@given(st.dictionaries(st.sampled_from(["a", "b", "ab", "c/d"]), st.binary(max_size=4), max_size=3))
def test_different_folders_differ(files: dict[str, bytes]) -> None:
    with folder_in_memory() as folder:
        for at in ("x", "y"):
            for name, content in files.items():
                (folder / at / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / at / name).write_bytes(content)
            (folder / at).mkdir(exist_ok=True)
        assert identify(folder / "x") == identify(folder / "y")
        (folder / "y" / "a").write_bytes(files.get("a", b"") + b"\0")
        assert identify(folder / "x") != identify(folder / "y")


@pytest.mark.parametrize("what", ["nothing", "pipe", "nul", "circle", "~nosuchuser"])
def test_what_cannot_be_read_is_bad_input(tmp_path: Path, what: str) -> None:
    path = tmp_path / what
    if what == "pipe":
        os.mkfifo(path)
    elif what == "circle":
        path.symlink_to(path)
    with pytest.raises(BadInput) as caught:
        identify(str(path) + ("\0" if what == "nul" else ""))
    assert caught.value.fix


def test_content_is_read_once_while_nothing_changes(tmp_path: Path, reads: list[str]) -> None:
    store = Store(tmp_path / "store")
    put(store)
    reads.clear()
    for _ in range(2):
        store.resolve("faces", "data")
    assert sorted(reads) == ["0.png", "table.csv"]
    Store(store.root).resolve("faces", "data")  # remembered on disk
    assert len(reads) == 2
    for change in ("times", "content", "inode"):
        file = store.find("faces", check=False).path / "table.csv"
        if change == "times":
            os.utime(file, ns=(10**18, 10**18))
        elif change == "content":
            file.write_bytes(file.read_bytes())
        else:
            (file.parent / "new").write_bytes(file.read_bytes())
            (file.parent / "new").replace(file)
        reads.clear()
        Store(store.root).resolve("faces", "data")
        assert "table.csv" in reads and reads.count("table.csv") == 1, change


def test_a_file_written_just_now_is_not_remembered(tmp_path: Path) -> None:
    cache = HashCache(tmp_path / ".cache" / "hashes")
    (tmp_path / "new").write_bytes(b"1")
    first = cache.file(tmp_path / "new")
    cache.save()
    assert not (tmp_path / ".cache").exists()
    (tmp_path / "new").write_bytes(b"2")
    assert cache.file(tmp_path / "new") != first


@pytest.mark.parametrize("harm", ["cut", "flip", "link", "format"])
def test_a_damaged_list_is_not_believed(tmp_path: Path, reads: list[str], harm: str) -> None:
    file, folder = tmp_path / "files" / "a", tmp_path / "home" / ".cache" / "hashes"
    file.parent.mkdir()
    (tmp_path / "home").mkdir()
    file.write_bytes(b"content")
    cache = HashCache(folder)
    found = cache.file(file)
    cache.save()
    assert HashCache(folder).file(file) == found and len(reads) == 1
    (path,) = folder.iterdir()
    text = path.read_text()
    if harm == "cut":
        path.write_text(text[:-10])
    elif harm == "flip":
        path.write_text(text.replace(found[:6], "000000"))
    elif harm == "format":
        path.write_text(text.replace('"format": 1', '"format": 2'))
    else:
        path.rename(tmp_path / "away")
        path.symlink_to(tmp_path / "away")
    assert HashCache(folder).file(file) == found
    assert len(reads) == 2


def test_gc_drops_the_lists_of_folders_that_are_gone(tmp_path: Path, reads: list[str]) -> None:
    store = Store(tmp_path / "store")
    put(store)
    put(store, config={"size": 2})
    store.resolve("faces/v1", "data")
    store.resolve("faces/v2", "data")
    lists = list((store.root / ".cache" / "hashes").iterdir())
    assert store.gc().items == ()
    store.remove("faces/v1")
    freed = store.gc().items
    assert {item.what for item in freed} == {"hashes of files that are gone"}
    left = list((store.root / ".cache" / "hashes").iterdir())
    assert 0 < len(left) == len(lists) - len(freed)


def test_many_files_in_order_and_what_cannot_be_read(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.jpg" for n in range(30)]
    for path in paths:
        path.write_text(path.name)
    paths[7].unlink()
    count: list[int] = []
    found = hash_files(paths, on_file=lambda: count.append(1))
    assert found[7] == "" and len(count) == 30
    assert [found[n] for n in (0, 29)] == [identify(paths[0]), identify(paths[29])]


@given(st.text())
def test_printable_text_has_nothing_that_a_terminal_obeys(text: str) -> None:
    shown = printable(text)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in shown)
    assert printable(shown) == shown
    shown.encode()


def test_printable_keeps_scripts_and_escapes_the_rest() -> None:
    assert printable("naïve 笑顔 улыбка 🙂 a_b") == "naïve 笑顔 улыбка 🙂 a_b"
    assert printable("a\x1b[2Jb\x9b\n\u202e\udcff") == "a\\x1b[2Jb\\x9b\\x0a\\u202e\\udcff"
