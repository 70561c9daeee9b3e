"""CelebA as people have it: the official zip, torchvision's layout, or an extracted folder.

The data set: Liu, Luo, Wang, Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015.
"""

from __future__ import annotations

import csv
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dclip.context import Reporter, Silent
from dclip.data.celeba_captions import caption
from dclip.data.source import Item, file_mark, mark_files, read_file
from dclip.errors import BadInput

ZIP = "img_align_celeba.zip"
FOLDER = "img_align_celeba"
PARTITIONS: Mapping[str, str] = {"0": "train", "1": "val", "2": "test"}

_PICTURES = (".jpg", ".jpeg", ".png")
_CLUTTER = ("__MACOSX/", ".DS_Store", "Thumbs.db", "desktop.ini")
_SILENT = Silent()
_LARGEST = 256 * 2**20  # bytes: what unpacks to more is no photo

_GET_IT = (
    "download img_align_celeba.zip and the list_*.txt files from "
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html into one folder and give that as --root"
)
_DAMAGED = "download it again; Google Drive sometimes sends a web page or a part in its place"


@dataclass(frozen=True)
class CelebA:
    """CelebA's pictures with what the lists say of each.

    Columns: the 40 attributes as "1"/"-1" (``list_attr_celeba``), ``partition`` as train, val or
    test (``list_eval_partition``), ``identity`` (``identity_CelebA``); each where the list is
    there, empty where it has no row for the picture. ``caption`` is English made of the attributes.
    Lists may have more rows than there are pictures.
    """

    place: Path
    items: tuple[Item, ...]
    columns: Mapping[str, Sequence[str]]
    notes: tuple[str, ...]
    reader: Callable[[Item], bytes]
    name: str = "celeba"

    def read(self, item: Item) -> bytes:
        return self.reader(item)


def open_celeba(root: Path | str, limit: int | None = None, report: Reporter = _SILENT) -> CelebA:
    """Find CelebA below ``root`` and read its lists.

    Args:
        root: the zip itself; the folder that holds it, or ``img_align_celeba/`` (also one inside
            another); torchvision's root (the parent of ``celeba/``); the official tree with
            ``Img/``, ``Anno/``, ``Eval/``; or the folder of pictures itself.
        limit: only the first so many pictures by name.
        report: shown the progress of reading many loose files.

    Raises:
        BadInput: nothing found, a damaged zip, a member or list that is not CelebA's.
    """
    root = Path(root).expanduser()
    if not root.exists():
        raise BadInput(f"no such folder: {root}", _GET_IT)
    try:
        archive, folder = _find(root)
    except OSError as error:
        raise BadInput(f"{root} cannot be read: {error.strerror or error}") from None
    notes: list[str] = []
    if archive is not None:
        try:
            return _with_lists(*_open_zip(archive, limit), archive, root, notes)
        except BadInput as error:
            if folder is None:
                raise
            notes.append(f"{error.message}: taking {folder} instead")
    if folder is None:
        raise BadInput(f"no CelebA pictures in {root}: neither {ZIP} nor {FOLDER}/*.jpg", _GET_IT)
    return _with_lists(*_open_folder(folder, limit, report), folder, root, notes)


def download(root: Path | str) -> None:
    """Fetch CelebA into ``root/celeba`` through torchvision (1.4 GB from Google Drive).

    Raises:
        BadInput: it cannot be had, offline or because Google Drive refuses; says how else.
    """
    try:
        from torchvision.datasets import CelebA as TorchvisionCelebA

        TorchvisionCelebA(str(Path(root).expanduser()), split="all", download=True)
    except Exception as error:  # torchvision, gdown and requests raise what they like
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise BadInput(f"CelebA could not be downloaded: {reason}", _GET_IT) from None


def _find(root: Path) -> tuple[Path | None, Path | None]:
    """The zip and the folder of pictures, whichever are there."""
    if root.is_file():
        return root, None
    archive = folder = None
    for base in (root, root / "celeba", root / "Img", root / "celeba" / "Img"):
        if archive is None and (base / ZIP).is_file():
            archive = base / ZIP
        for candidate in (base / FOLDER, base / FOLDER / FOLDER):
            if folder is None and _has_pictures(candidate):
                folder = candidate
    if archive is None and folder is None and _has_pictures(root):
        folder = root
    return archive, folder


def _has_pictures(folder: Path) -> bool:
    return folder.is_dir() and any(_stem(entry.name) is not None for entry in folder.iterdir())


def _open_folder(
    folder: Path, limit: int | None, report: Reporter
) -> tuple[list[Item], Callable[[Item], bytes]]:
    names = sorted(p.name for p in folder.iterdir() if _stem(p.name) is not None)[:limit]
    marks = mark_files([folder / name for name in names], report)
    items = _items(folder, names, marks)
    return items, lambda item: read_file(folder / item.file, item.file)


def _items(place: Path, names: Sequence[str], marks: Sequence[str]) -> list[Item]:
    items = [Item(_stem(n) or n, n, mark) for n, mark in zip(names, marks, strict=True)]
    if len({item.id for item in items}) < len(items):
        raise BadInput(f"{place} holds a picture as .jpg and as .png", "remove one of the two")
    return items


def _open_zip(path: Path, limit: int | None) -> tuple[list[Item], Callable[[Item], bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not _is_clutter(m)]
    except (zipfile.BadZipFile, EOFError, struct.error, ValueError):
        raise BadInput(f"{path} is not a complete zip file", _DAMAGED) from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from None
    wanted: dict[str, zipfile.ZipInfo] = {}
    for member in members:
        parts = member.filename.replace("\\", "/").split("/")
        if _stem(parts[-1]) is None or ".." in parts:
            raise BadInput(
                f"{path} has a member that is not a CelebA picture: {member.filename!r}",
                f"give the official {ZIP}, or use `dclip prepare folder --root DIR`",
            )
        if member.flag_bits & 0x1:
            raise BadInput(f"{path} is encrypted", "unpack it and give the folder")
        wanted.setdefault(parts[-1], member)
    if not wanted:
        raise BadInput(f"{path} holds no pictures", f"give the official {ZIP}")
    if len(wanted) < len(members):
        raise BadInput(f"{path} holds pictures of the same name twice", f"give the official {ZIP}")
    names = sorted(wanted)[:limit]
    items = _items(path, names, [file_mark(wanted[n].file_size, wanted[n].CRC) for n in names])
    return items, _ZipReader(path, {n: wanted[n] for n in names})


def _is_clutter(member: zipfile.ZipInfo) -> bool:
    name = member.filename
    return member.is_dir() or any(part in name for part in _CLUTTER)


class _ZipReader:
    """Members of a zip by name, from any thread: one file handle each, one directory for all.

    zipfile's own handle is shared behind a lock, and one ZipFile a thread would parse the 200,000
    entries of the full archive again in each.
    """

    def __init__(self, path: Path, members: Mapping[str, zipfile.ZipInfo]) -> None:
        self._path = path
        self._members = members
        self._local = threading.local()

    def __call__(self, item: Item) -> bytes:
        member = self._members[item.file]
        if member.file_size > _LARGEST:
            raise BadInput(f"{item.file} is too large: {member.file_size >> 20} MB")
        try:
            data = self._extract(self._handle(), member)
        except (OSError, zlib.error, struct.error, NotImplementedError) as error:
            raise BadInput(f"{item.file} cannot be unpacked: {error}") from None
        if len(data) != member.file_size or zlib.crc32(data) != member.CRC:
            raise BadInput(f"{item.file} is damaged in the zip: its checksum is wrong")
        return data

    def _handle(self) -> BinaryIO:
        handle: BinaryIO | None = getattr(self._local, "handle", None)
        if handle is None:
            handle = self._local.handle = self._path.open("rb")
        return handle

    @staticmethod
    def _extract(handle: BinaryIO, member: zipfile.ZipInfo) -> bytes:
        # Local file header, APPNOTE.TXT 4.3.7: 30 bytes, then name and extra field, then data.
        handle.seek(member.header_offset)
        header = handle.read(30)
        signature, name_length, extra_length = struct.unpack("<4s22xHH", header)
        if signature != b"PK\x03\x04":
            raise OSError("no local header where the directory says")
        handle.seek(name_length + extra_length, 1)
        data = handle.read(member.compress_size)
        if member.compress_type == zipfile.ZIP_STORED:
            return data
        if member.compress_type == zipfile.ZIP_DEFLATED:
            return zlib.decompress(data, -15, member.file_size)
        raise NotImplementedError(f"compression method {member.compress_type}")


def _with_lists(
    items: list[Item],
    reader: Callable[[Item], bytes],
    place: Path,
    root: Path,
    notes: list[str],
) -> CelebA:
    """Join the lists to the pictures by stem: PNG copies of the data set keep the .jpg lists."""
    near = [place.parent, place.parent.parent, root, root / "celeba"]
    places = [p for base in near for p in (base, base / "Anno", base / "Eval")]
    rows = {item.id: row for row, item in enumerate(items)}
    columns: dict[str, list[str]] = {}
    missing = []
    for stem, read in (
        ("identity_CelebA", _read_identity),
        ("list_eval_partition", _read_partition),
        ("list_attr_celeba", _read_attributes),
    ):
        candidates = (p / f"{stem}{suffix}" for p in places for suffix in (".txt", ".csv"))
        path = next((p for p in candidates if p.is_file()), None)
        if path is None:
            missing.append(stem)
            continue
        try:
            columns.update(read(path, rows))
        except UnicodeDecodeError:
            raise BadInput(f"{path} is not a text file", _GET_IT) from None
        except OSError as error:
            raise BadInput(f"{path} cannot be read: {error.strerror or error}") from None
    attributes = [name for name in columns if name not in ("identity", "partition")]
    if attributes:
        columns["caption"] = [
            caption({name: columns[name][row] for name in attributes}, item.id)
            for row, item in enumerate(items)
        ]
    if missing:
        notes.append(f"no {', '.join(missing)} beside the pictures: prepared without")
    return CelebA(place, tuple(items), columns, tuple(notes), reader)


def _lines(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Lines of a list, official (blank-separated) or Kaggle's CSV: number, first field, rest.

    The rest of an official line is one unsplit text: of 200,000 rows perhaps few are wanted.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".csv":
            for number, fields in enumerate(csv.reader(file), 1):
                if fields:
                    yield number, fields[0], fields[1:]
        else:
            for number, line in enumerate(file, 1):
                first, *rest = line.split(None, 1) or [""]
                yield number, first, rest


def _stem(name: str) -> str | None:
    """A picture's name without its suffix; None for what is not a picture's name.

    pathlib would do the same, and take seconds for the 200,000.
    """
    stem, _, suffix = name.rpartition(".")
    return stem if f".{suffix.lower()}" in _PICTURES else None


def _values(path: Path, rest: list[str]) -> list[str]:
    return rest if path.suffix == ".csv" else rest[0].split() if rest else []


def _bad(path: Path, number: int, why: str) -> BadInput:
    return BadInput(f"{path} line {number}: {why}", "give CelebA's own list")


def _read_attributes(path: Path, rows: Mapping[str, int]) -> dict[str, list[str]]:
    names: list[str] = []
    flags = {"1": "1", "-1": "-1"}  # one object for each value, not eight million
    found: list[list[str] | None] = [None] * len(rows)
    for number, first, rest in _lines(path):
        stem = _stem(first)
        if stem is None:
            # The count of rows, then the names; Kaggle's header starts with "image_id".
            values = _values(path, rest)
            if values:
                names = values if path.suffix == ".csv" else [first, *values]
            continue
        row = rows.get(stem)
        if row is None:
            continue
        values = _values(path, rest)
        if len(values) != len(names):
            raise _bad(path, number, f"{len(values)} values for {len(names)} attributes")
        try:
            found[row] = [flags[value] for value in values]
        except KeyError as error:
            raise _bad(path, number, f"a value is {error}, not 1 or -1") from None
    unknown = [""] * len(names)
    columns = zip(*(unknown if values is None else values for values in found), strict=True)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}


def _read_one(
    path: Path, rows: Mapping[str, int], what: str, value_of: Callable[[str], str | None]
) -> list[str]:
    """A list of one value a picture."""
    column = [""] * len(rows)
    for number, first, rest in _lines(path):
        stem = _stem(first)
        row = None if stem is None else rows.get(stem)
        if row is None:
            continue
        values = _values(path, rest)
        value = value_of(values[0]) if len(values) == 1 else None
        if value is None:
            raise _bad(path, number, f"not a picture and {what}")
        column[row] = value
    return column


def _read_partition(path: Path, rows: Mapping[str, int]) -> dict[str, list[str]]:
    return {"partition": _read_one(path, rows, "0, 1 or 2", PARTITIONS.get)}


def _read_identity(path: Path, rows: Mapping[str, int]) -> dict[str, list[str]]:
    def number(text: str) -> str | None:
        return text if text.isdigit() else None

    return {"identity": _read_one(path, rows, "a person's number", number)}
