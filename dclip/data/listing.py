"""The pictures below a folder, and a count of everything else that lies there."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from dclip.data.formats import SUFFIXES, UNFINISHED, UNREAD, missing, sniff
from dclip.data.paths import open_file, shown

METADATA = ("metadata.jsonl", "metadata.csv")
"""Captions as Hugging Face's imagefolder has them, in any folder beside the pictures."""

_TEXT = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".md", ".html", ".xml", ".yaml", ".yml")
_CLUTTER = ("thumbs.db", "desktop.ini")
_CONVERT = "save it as PNG or JPEG"

# What a picture without a picture's suffix is taken for. TIFF is not among them: most cameras'
# raw files begin as a TIFF does, and hold a small preview first.
_TAKEN = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "HEIC")


@dataclass(frozen=True)
class Listing:
    """What lies below a folder.

    Attributes:
        files: the pictures, relative paths with forward slashes, sorted.
        left_out: pictures that are not read: relative path to the reason, sorted by path.
        passed_over: how many other things were not looked at, by what they are.
        remarks: what else the user wants to know, e.g. which linked folders were followed.
        metadata: Hugging Face's captions files, as ``files``.
    """

    files: tuple[str, ...]
    left_out: Mapping[str, str]
    passed_over: Mapping[str, int]
    remarks: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """What was left out and passed over, one line for each reason."""
        lines = left_out_notes(self.left_out)
        if self.passed_over:
            counts = ", ".join(f"{what} ({count})" for what, count in self.passed_over.items())
            lines.append(f"passed over: {counts}")
        return [*lines, *self.remarks]


def left_out_notes(left_out: Mapping[str, str]) -> list[str]:
    """One line for each reason that pictures were left out for, with how many and the first."""
    reasons: dict[str, list[str]] = {}
    for file, reason in left_out.items():
        reasons.setdefault(reason, []).append(file)
    return [
        f"{_pictures(len(files))} left out ({_some(files)}): {reason}"
        for reason, files in reasons.items()
    ]


def _some(files: list[str]) -> str:
    return shown(files[0], 60) + (", ..." if len(files) > 1 else "")


def _pictures(count: int) -> str:
    return f"{count} picture{'s' if count > 1 else ''}"


def list_pictures(root: Path) -> Listing:
    """Look through a folder, its subfolders, and the folders that it links to.

    A folder is read once, whatever links lead to it, under its own path where it lies below
    ``root``; links that lead back to ``root`` or above it are not followed. Hidden files and
    folders are passed over. A file whose suffix says nothing is known by its first bytes.
    """
    walk = _Walk(root)
    walk.through(root, "")
    # Real folders first: a picture's id is then its own path, not that of a link to it.
    while walk.links:
        links, walk.links = sorted(walk.links), []
        for relative, path in links:
            walk.follow(relative, path)
    return Listing(
        tuple(sorted(walk.files)),
        dict(sorted(walk.left_out.items())),
        dict(sorted(walk.passed.items())),
        tuple(walk.remarks()),
        tuple(sorted(walk.metadata)),
    )


class _Walk:
    def __init__(self, root: Path) -> None:
        self.files: list[str] = []
        self.left_out: dict[str, str] = {}
        self.passed: Counter[str] = Counter()
        self.links: list[tuple[str, Path]] = []
        self.metadata: list[str] = []
        self._root = root.resolve()
        self._seen: set[tuple[int, int]] = set()
        self._odd: list[str] = []
        self._followed: list[str] = []

    def remarks(self) -> list[str]:
        lines = []
        if self._odd:
            lines.append(
                "files without a picture's suffix that are pictures are taken: "
                f"{len(self._odd)} ({_some(sorted(self._odd))})"
            )
        if self._followed:
            lines.append(f"linked folders followed: {_some(self._followed)}")
        return lines

    def follow(self, relative: str, path: Path) -> None:
        """Go through a folder that a link leads to, unless it was read, or holds ``root``."""
        target = path.resolve()
        if self._root.is_relative_to(target):
            self.passed["links that lead back"] += 1
        elif self.through(path, relative):
            self._followed.append(relative)

    def through(self, top: Path, relative: str) -> bool:
        """Go through a real folder; whether it had not been read before."""
        waiting, first = [(top, relative)], True
        while waiting:
            folder, within = waiting.pop()
            try:
                status = folder.stat()
                entries = list(os.scandir(folder))
            except OSError:
                self.passed["folders that may not be read"] += 1
                first = False
                continue
            if (status.st_dev, status.st_ino) in self._seen:
                if first:
                    self.passed["links to folders that were read"] += 1
                    return False
                continue
            first = False
            self._seen.add((status.st_dev, status.st_ino))
            for entry in entries:
                name = f"{within}/{entry.name}" if within else entry.name
                if (below := self._entry(entry, name)) is not None:
                    waiting.append((below, name))
        return True

    def _entry(self, entry: os.DirEntry[str], name: str) -> Path | None:
        """Put an entry where it belongs; a folder to go through is handed back."""
        path = Path(entry.path)
        try:
            mode = entry.stat().st_mode  # of what a link leads to
        except OSError:
            broken = entry.is_symlink()
            self.passed["broken links" if broken else "files that may not be read"] += 1
            return None
        if stat.S_ISDIR(mode):
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                self.passed["hidden folders"] += 1
            elif entry.is_symlink():
                self.links.append((name, path))
            else:
                return path
        else:
            self._file(path, entry.name, name)
        return None

    def _file(self, path: Path, base: str, name: str) -> None:
        suffix = PurePath(base).suffix.lower()
        if base.startswith("._"):
            self.passed["macOS ._ files"] += 1
        elif base.startswith("."):
            if suffix in SUFFIXES:
                self.passed["hidden pictures"] += 1
        elif base in METADATA:
            self.metadata.append(name)
        elif suffix in (".heic", ".heif", ".hif", ".avif"):
            self._picture(name, "AVIF" if suffix == ".avif" else "HEIC")
        elif suffix in SUFFIXES:
            self.files.append(name)
        elif suffix in UNREAD:
            self.left_out[name] = f"{UNREAD[suffix]} is not read: {_CONVERT}"
        elif suffix not in _TEXT and base.lower() not in _CLUTTER:
            self._unknown(path, name, suffix)

    def _unknown(self, path: Path, name: str, suffix: str) -> None:
        try:
            with open_file(path) as file:
                kind = sniff(file.read(64))
        except OSError:
            self.passed["files that may not be read"] += 1
            return
        if kind in _TAKEN and suffix in UNFINISHED:
            self.left_out[name] = "an unfinished download: download it again"
        elif kind in _TAKEN:
            if self._picture(name, kind):
                self._odd.append(name)
        elif kind in ("JPEG XL", "JPEG 2000", "Photoshop"):
            self.left_out[name] = f"{kind} is not read: {_CONVERT}"
        elif kind == "TIFF":
            self.left_out[name] = "TIFF under another suffix: name it .tif if it is no camera raw"
        else:
            self.passed["files that are no pictures"] += 1

    def _picture(self, name: str, kind: str) -> bool:
        if fix := missing(kind):
            self.left_out[name] = f"{kind} cannot be read here: {fix}"
            return False
        self.files.append(name)
        return True
