"""What identifies files: SHA-256 of the whole content, remembered while it does not change."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from dclip.errors import BadInput

_FORMAT = 1
_MOMENT = 2_000_000_000  # ns; the coarsest clock of a file system in use (FAT) ticks so
_MOST = 256 << 20  # bytes of a list of remembered hashes; a larger one is not ours
_Row = list[int | str]  # size, mtime_ns, ctime_ns, inode, SHA-256


def sha256(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """The SHA-256 of a file in hex, read a megabyte at a time.

    Args:
        path: a plain file.
        on_bytes: told how many more bytes were read.

    Raises:
        OSError: it cannot be read, or is no plain file (a named pipe would keep us for ever).
    """
    digest = hashlib.sha256()
    with open(path, "rb", opener=_plain) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            if on_bytes is not None:
                on_bytes(len(block))
    return digest.hexdigest()


def _plain(path: str, flags: int) -> int:
    fd = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return fd


class HashCache:
    """SHA-256 of files, read again only when a file's size, times or inode have changed.

    One list for every folder whose files were hashed. A list that is damaged is not used. A file
    that was written within two seconds before it was read is not remembered, since a later change
    might leave its times as they are.

    Args:
        folder: where the lists are kept; nothing is written where its parent does not exist, or
            cannot be written. None remembers for this object alone.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._lists: dict[Path, dict[str, _Row]] = {}
        self._changed: set[Path] = set()
        self._lock = threading.Lock()

    def file(
        self, path: Path, *, fresh: bool = False, on_bytes: Callable[[int], None] | None = None
    ) -> str:
        """The SHA-256 of a file in hex.

        Args:
            path: a plain file, or a link to one.
            fresh: read it whatever is remembered.
            on_bytes: told how many more bytes were dealt with.

        Raises:
            OSError: it cannot be read.
        """
        path = path.absolute()
        before = _mark(path.stat())
        known = self._of(path.parent)
        row = known.get(path.name)
        if not fresh and row is not None and row[:4] == before:
            if on_bytes is not None:
                on_bytes(int(before[0]))
            return str(row[4])
        began = time.time_ns()
        found = sha256(path, on_bytes)
        after = _mark(path.stat())
        settled = after == before and max(int(after[1]), int(after[2])) < began - _MOMENT
        with self._lock:
            if settled:
                known[path.name] = [*after, found]
                self._changed.add(path.parent)
            elif known.pop(path.name, None) is not None:
                self._changed.add(path.parent)
        return found

    def save(self) -> None:
        """Write what was learnt; where that is not possible, the files are read again next time."""
        if self._folder is None or not self._folder.parent.parent.is_dir():
            self._changed.clear()
            return
        from dclip.store.files import write_atomic  # the store uses this module

        if self._folder.is_symlink() or self._folder.parent.is_symlink():
            return
        with self._lock, suppress(OSError):
            while self._changed:
                place = self._changed.pop()
                self._folder.mkdir(parents=True, exist_ok=True)
                body = {
                    "format": _FORMAT,
                    "folder": os.fsdecode(place).encode("utf-8", "backslashreplace").decode(),
                    "files": self._lists[place],
                }
                write_atomic(self._list(place), json.dumps(body | {"check": _check(body)}).encode())

    def drop_stale(self) -> list[Path]:
        """The lists of folders that are gone; the caller may remove them."""
        stale = []
        if self._folder is not None and not self._folder.is_symlink():
            with suppress(OSError):
                for path in sorted(self._folder.glob("*.json")):
                    body = _load(path)
                    if body is None or not Path(str(body["folder"])).is_dir():
                        stale.append(path)
        return stale

    def _list(self, place: Path) -> Path:
        assert self._folder is not None
        return self._folder / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:32]}.json"

    def _of(self, place: Path) -> dict[str, _Row]:
        with self._lock:
            if place not in self._lists:
                body = None if self._folder is None else _load(self._list(place))
                self._lists[place] = {} if body is None else body["files"]  # type: ignore[assignment]
            return self._lists[place]


def _mark(info: os.stat_result) -> _Row:
    return [info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino]


def _check(body: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _load(path: Path) -> dict[str, object] | None:
    """A list of hashes as it was written, or None."""
    try:
        info = path.lstat()
        if not stat.S_ISREG(info.st_mode) or info.st_size > _MOST:
            return None
        body = json.loads(path.read_bytes())
        check = body.pop("check")
        if body["format"] != _FORMAT or check != _check(body):
            return None
        return body if isinstance(body["files"], dict) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def hash_files(
    paths: Sequence[Path],
    cache: HashCache | None = None,
    *,
    workers: int = 8,
    on_file: Callable[[], None] | None = None,
) -> list[str]:
    """The SHA-256 of every file's whole content, in order; "" for one that cannot be read.

    Args:
        paths: plain files, or links to some.
        cache: remembers the hashes of files that do not change.
        workers: threads; hashing and reading go on side by side.
        on_file: called after each file, for progress.
    """
    known = HashCache() if cache is None else cache

    def one(path: Path) -> str:
        try:
            return known.file(path)
        except (OSError, ValueError):
            return ""

    found = []
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(paths), 1024):  # not all futures at once
            for result in pool.map(one, paths[start : start + 1024]):
                found.append(result)
                if on_file is not None:
                    on_file()
    known.save()
    return found


def identify(
    path: Path | str, cache: HashCache | None = None, *, suffixes: Iterable[str] | None = None
) -> str:
    """What identifies an input file or folder: a SHA-256 in hex of its whole content.

    A file is its bytes, whatever its name. A folder is its plain files' relative paths and bytes,
    linked files and folders included, empty folders not. Times, owners and the place do not count.

    Args:
        path: a file or a folder.
        cache: remembers the hashes of files that do not change.
        suffixes: of a folder, the endings of the files that count (``.json``); None for all.

    Raises:
        BadInput: it is not there, cannot be read, or is neither a file nor a folder.
    """
    path = Path(path)
    known = HashCache() if cache is None else cache
    try:
        if not path.is_dir():
            found = known.file(path)
            known.save()
            return found
        files = _below(path, None if suffixes is None else tuple(suffixes))
        digest = hashlib.sha256()
        for name, file in files:
            digest.update(os.fsencode(name) + b"\0" + known.file(file).encode() + b"\n")
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        place = getattr(error, "filename", None) or path
        raise BadInput(f"{place} cannot be read: {why}", "check the path") from None
    known.save()
    return digest.hexdigest()


def _below(folder: Path, suffixes: tuple[str, ...] | None) -> list[tuple[str, Path]]:
    """The files below a folder by relative path, sorted; each linked folder is entered once."""
    found: list[tuple[str, Path]] = []
    seen: set[tuple[int, int]] = set()

    def stop(error: OSError) -> None:
        raise error

    for top, folders, names in os.walk(folder, followlinks=True, onerror=stop):
        info = Path(top).stat()
        if (info.st_dev, info.st_ino) in seen:
            folders.clear()
            continue
        seen.add((info.st_dev, info.st_ino))
        folders.sort()  # so that a folder linked twice is met under the same name every time
        for name in names:
            file = Path(top, name)
            if suffixes is None or file.suffix.lower() in suffixes:
                found.append((file.relative_to(folder).as_posix(), file))
    return sorted(found)
