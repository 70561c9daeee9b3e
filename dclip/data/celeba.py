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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from dclip.data.source import Item, file_mark, mark_files, read_file
from dclip.errors import BadInput

ZIP = "img_align_celeba.zip"
FOLDER = "img_align_celeba"
PARTITIONS: Mapping[str, str] = {"0": "train", "1": "val", "2": "test"}

_PICTURES = (".jpg", ".jpeg", ".png")
_CLUTTER = ("__MACOSX/", ".DS_Store", "Thumbs.db", "desktop.ini")
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
    there and has a row for the picture. Lists may have more rows than there are pictures.
    """

    place: Path
    items: tuple[Item, ...]
    notes: tuple[str, ...]
    reader: Callable[[Item], bytes]
    name: str = "celeba"

    def read(self, item: Item) -> bytes:
        return self.reader(item)


def open_celeba(root: Path | str, limit: int | None = None) -> CelebA:
    """Find CelebA below ``root`` and read its lists.

    Args:
        root: the zip itself; the folder that holds it, or ``img_align_celeba/`` (also one inside
            another); torchvision's root (the parent of ``celeba/``); the official tree with
            ``Img/``, ``Anno/``, ``Eval/``; or the folder of pictures itself.
        limit: only the first so many pictures by name.

    Raises:
        BadInput: nothing found, a damaged zip, a member or list that is not CelebA's.
    """
    root = Path(root).expanduser()
    if not root.exists():
        raise BadInput(f"no such folder: {root}", _GET_IT)
    archive, folder = _find(root)
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
    return _with_lists(*_open_folder(folder, limit), folder, root, notes)


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
    return folder.is_dir() and any(p.suffix.lower() in _PICTURES for p in folder.iterdir())


def _open_folder(folder: Path, limit: int | None) -> tuple[list[Item], Callable[[Item], bytes]]:
    names = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in _PICTURES)[:limit]
    marks = mark_files([folder / name for name in names])
    items = [Item(Path(n).stem, n, mark=m) for n, m in zip(names, marks, strict=True)]
    return items, lambda item: read_file(folder / item.file, item.file)


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
        if Path(parts[-1]).suffix.lower() not in _PICTURES or ".." in parts:
            raise BadInput(
                f"{path} has a member that is not a CelebA picture: {member.filename!r}",
                f"give the official {ZIP}, or use: dclip prepare folder --root DIR",
            )
        if member.flag_bits & 0x1:
            raise BadInput(f"{path} is encrypted", "unpack it and give the folder")
        if parts[-1] in wanted:
            raise BadInput(f"{path} holds {parts[-1]} twice", f"give the official {ZIP}")
        wanted[parts[-1]] = member
    if not wanted:
        raise BadInput(f"{path} holds no pictures", f"give the official {ZIP}")
    names = sorted(wanted)[:limit]
    items = [
        Item(Path(n).stem, n, mark=file_mark(wanted[n].file_size, wanted[n].CRC)) for n in names
    ]
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
    columns: dict[str, dict[str, str]] = {item.id: {} for item in items}
    missing = []
    for stem, read in (
        ("list_attr_celeba", _read_attributes),
        ("list_eval_partition", _read_partition),
        ("identity_CelebA", _read_identity),
    ):
        path = next(
            (p / f"{stem}{s}" for p in places for s in (".txt", ".csv")
             if (p / f"{stem}{s}").is_file()),
            None,
        )  # fmt: skip
        if path is None:
            missing.append(stem)
            continue
        try:
            read(path, columns)
        except UnicodeDecodeError:
            raise BadInput(f"{path} is not a text file", _GET_IT) from None
    if missing:
        notes.append(f"no {', '.join(missing)} beside the pictures: prepared without")
    joined = tuple(replace(item, columns=columns[item.id]) for item in items)
    return CelebA(place, joined, tuple(notes), reader)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows of a list: official (blank-separated) or Kaggle's CSV, with their line numbers."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".csv":
            yield from enumerate(csv.reader(file), 1)
        else:
            for number, line in enumerate(file, 1):
                yield number, line.split()


def _is_row(fields: Sequence[str]) -> bool:
    return bool(fields) and Path(fields[0]).suffix.lower() in _PICTURES


def _bad(path: Path, number: int, why: str) -> BadInput:
    return BadInput(f"{path} line {number}: {why}", "give CelebA's own list")


def _read_attributes(path: Path, columns: Mapping[str, dict[str, str]]) -> None:
    names: list[str] = []
    for number, fields in _rows(path):
        if not _is_row(fields):
            # The count of rows, then the names; Kaggle's header starts with "image_id".
            if len(fields) > 1:
                names = fields[1:] if path.suffix == ".csv" else fields
            continue
        wanted = columns.get(fields[0].rpartition(".")[0])
        if wanted is None:
            continue
        if len(fields) != len(names) + 1:
            raise _bad(path, number, f"{len(fields) - 1} values for {len(names)} attributes")
        for name, value in zip(names, fields[1:], strict=True):
            if value not in ("1", "-1"):
                raise _bad(path, number, f"{name} is {value!r}, not 1 or -1")
            wanted[name] = value


def _read_partition(path: Path, columns: Mapping[str, dict[str, str]]) -> None:
    for number, fields in _rows(path):
        if not _is_row(fields):
            continue
        if len(fields) != 2 or fields[1] not in PARTITIONS:
            raise _bad(path, number, "not a picture and 0, 1 or 2")
        wanted = columns.get(fields[0].rpartition(".")[0])
        if wanted is not None:
            wanted["partition"] = PARTITIONS[fields[1]]


def _read_identity(path: Path, columns: Mapping[str, dict[str, str]]) -> None:
    for number, fields in _rows(path):
        if not _is_row(fields):
            continue
        if len(fields) != 2 or not fields[1].isdigit():
            raise _bad(path, number, "not a picture and a number")
        wanted = columns.get(fields[0].rpartition(".")[0])
        if wanted is not None:
            wanted["identity"] = fields[1]
