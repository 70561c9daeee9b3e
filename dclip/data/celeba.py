"""CelebA as people have it: the official zip, Kaggle's, torchvision's layout, a folder, CelebA-HQ.

The data sets: Liu, Luo, Wang, Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015;
CelebA-HQ: Karras, Aila, Laine, Lehtinen, ICLR 2018, with the attribute list of Lee, Liu, Wu, Luo,
"MaskGAN" (CelebAMask-HQ), CVPR 2020.
"""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from dclip.context import Reporter, Silent
from dclip.data.celeba_captions import caption
from dclip.data.celeba_lists import (
    HQ_LIST,
    LISTS,
    OTHER_LISTS,
    ListFile,
    picture_stem,
    read_lists,
    unpadded,
)
from dclip.data.paths import (
    MAX_FILE_BYTES,
    MAX_TEXT_BYTES,
    is_there,
    read_bytes,
    read_file,
    shown,
    user_path,
    why,
)  # fmt: skip
from dclip.data.source import Item, file_mark, mark_files
from dclip.data.zips import ZipReader, base_name, is_clutter, members_of, safe
from dclip.errors import BadInput

ZIP = "img_align_celeba.zip"
FOLDER = "img_align_celeba"
HQ_FOLDERS = ("CelebA-HQ-img", "celeba_hq_256", "data1024x1024", "data512x512", "data256x256")
"""What the pictures' folder is called in the usual copies of CelebA-HQ."""

_SILENT = Silent()
_GET_IT = (
    "download img_align_celeba.zip and the list_*.txt files from "
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html into one folder and give that as --root"
)


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
    crop: str = "face"
    frame: str = "celeba"
    name: str = "celeba"

    @property
    def left_out(self) -> Mapping[str, str]:
        """None: what is no picture of CelebA's is refused or counted in a note."""
        return {}

    def read(self, item: Item) -> bytes:
        return self.reader(item)


@dataclass
class _Found:
    """Pictures before the lists are joined to them."""

    place: Path
    files: list[str]
    marks: list[str]
    reader: Callable[[Item], bytes]
    lists: list[ListFile]
    notes: list[str]
    hq: bool


def open_celeba(root: Path | str, limit: int | None = None, report: Reporter = _SILENT) -> CelebA:
    """Find CelebA below ``root`` and read its lists.

    Args:
        root: the zip itself, the official one or Kaggle's with the lists in it; the folder that
            holds it, or ``img_align_celeba/`` (also one inside another); torchvision's root (the
            parent of ``celeba/``); the official tree with ``Img/``, ``Anno/``, ``Eval/``;
            CelebAMask-HQ's folder; or the folder of pictures itself.
        limit: only the first so many pictures by name.
        report: shown the progress of reading many loose files.

    Raises:
        BadInput: nothing found, a damaged zip, a member or list that is not CelebA's.
    """
    root = user_path(root)
    if not is_there(root):
        raise BadInput(f"no such folder: {shown(str(root))}", _GET_IT)
    try:
        archive, folder = _find(root)
        if archive is not None:
            try:
                return _joined(_open_zip(archive, root, limit))
            except BadInput as error:
                if folder is None:
                    raise
                instead = f"{error.message}: taking {shown(str(folder))} instead"
                found = _open_folder(folder, root, limit, report)
                found.notes.insert(0, instead)
                return _joined(found)
        if folder is not None:
            return _joined(_open_folder(folder, root, limit, report))
    except OSError as error:
        raise BadInput(
            f"{shown(str(root))} cannot be read: {why(error)}", "check its permissions"
        ) from None
    raise BadInput(
        f"no CelebA pictures in {shown(str(root))}: neither {ZIP} nor {FOLDER}/*.jpg", _GET_IT
    )


def download(root: Path | str) -> None:
    """Fetch CelebA into ``root/celeba`` through torchvision (1.4 GB from Google Drive).

    Raises:
        BadInput: it cannot be had: its helper gdown is missing, offline, or Google Drive refuses;
            says how else.
    """
    if not _installed("gdown"):
        raise BadInput(
            "to download CelebA from Google Drive needs the package gdown", "pip install gdown"
        )
    try:
        from torchvision.datasets import CelebA as TorchvisionCelebA

        TorchvisionCelebA(str(user_path(root)), split="all", download=True)
    except Exception as error:  # torchvision, gdown and requests raise what they like
        raise BadInput(f"CelebA could not be downloaded: {why(error)}", _GET_IT) from None


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # imported, but not by the usual machinery
        return True


def _find(root: Path) -> tuple[Path | None, Path | None]:
    """The zip and the folder of pictures, whichever are there."""
    if root.is_file():
        return root, None
    if not root.is_dir():
        return None, None
    archive = folder = None
    bases = (root, root / "celeba", root / "Img", root / "celeba" / "Img", root / "CelebAMask-HQ")
    for base in bases:
        if archive is None and (base / ZIP).is_file():
            archive = base / ZIP
        inside = (FOLDER, f"{FOLDER}/{FOLDER}", *HQ_FOLDERS)
        for candidate in (base / name for name in inside):
            if folder is None and _has_pictures(candidate):
                folder = candidate
    if archive is None and folder is None and _has_pictures(root):
        folder = root
    if archive is None and folder is None:
        # Kaggle's archive, as a browser has named it.
        zips = [path for path in root.iterdir() if path.suffix == ".zip" and path.is_file()]
        archive = zips[0] if len(zips) == 1 else None
    return archive, folder


def _has_pictures(folder: Path) -> bool:
    return folder.is_dir() and any(_is_picture(path.name) for path in folder.iterdir())


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and picture_stem(name) is not None


def _in_order(names: Sequence[str]) -> list[str]:
    """By number where the names are numbers, as CelebA-HQ's 0.jpg, 1.jpg, ... 10.jpg are."""
    return sorted(names, key=lambda n: (n.rfind(".") if n[0].isdigit() else 0, n))


def _open_folder(folder: Path, root: Path, limit: int | None, report: Reporter) -> _Found:
    inside = [path.name for path in folder.iterdir()]
    files = _in_order([name for name in inside if _is_picture(name)])
    notes = []
    hidden = sum(name.startswith("._") for name in inside)
    if hidden:
        notes.append(f"passed over: macOS ._ files ({hidden})")
    other = [
        name
        for name in inside
        if not _is_picture(name)
        and not name.startswith(".")
        and PurePath(name).stem not in (*LISTS, *OTHER_LISTS, HQ_LIST)
        and not is_clutter(name)
        and (folder / name).is_file()
    ]
    if other:
        notes.append(
            f"left out of {shown(str(folder))}, since they are no pictures of CelebA's: "
            f"{len(other)} files ({shown(min(other), 60)})"
        )
    files = files[:limit]
    marks = mark_files([folder / name for name in files], report)
    lists = _lists_near(folder, root, (*LISTS, HQ_LIST))
    hq = folder.name in HQ_FOLDERS
    return _Found(
        folder,
        files,
        marks,
        lambda item: read_file(folder / item.file, item.file),
        lists,
        notes,
        hq,
    )


def _open_zip(path: Path, root: Path, limit: int | None) -> _Found:
    place = shown(str(path))
    members = [m for m in members_of(path) if not is_clutter(m.filename)]
    if not safe(members):
        climbing = next(m.filename for m in members if not safe([m]))
        raise BadInput(
            f"{place} has a member that is not a CelebA picture: {shown(climbing)!r}",
            f"give the official {ZIP}",
        )
    wanted: dict[str, zipfile.ZipInfo] = {}
    lists: dict[str, zipfile.ZipInfo] = {}
    pictures = 0
    for member in members:
        name = base_name(member)
        if PurePath(name).suffix in (".txt", ".csv"):
            if PurePath(name).stem in (*LISTS, HQ_LIST):
                lists.setdefault(name, member)
                continue
            if PurePath(name).stem in OTHER_LISTS:
                continue
        if not _is_picture(name):
            raise BadInput(
                f"{place} has a member that is not a CelebA picture: {shown(member.filename)!r}",
                f"give the official {ZIP}, or use `dclip prepare folder --root DIR`",
            )
        pictures += 1
        wanted.setdefault(name, member)
    if not wanted:
        raise BadInput(f"{place} holds no pictures", f"give the official {ZIP}")
    if len(wanted) < pictures:
        raise BadInput(f"{place} holds pictures of the same name twice", f"give the official {ZIP}")
    files = _in_order(list(wanted))[:limit]
    marks = [file_mark(wanted[name].file_size, wanted[name].CRC) for name in files]
    reader = ZipReader(path, {**{name: wanted[name] for name in files}, **lists})
    inside = [ListFile(name, reader.read(name, MAX_TEXT_BYTES)) for name in lists]
    others = [stem for stem in (*LISTS, HQ_LIST) if stem not in {each.stem for each in inside}]
    hq = any(set(m.filename.split("/")) & set(HQ_FOLDERS) for m in wanted.values())
    return _Found(
        path,
        files,
        marks,
        lambda item: reader.read(item.file, MAX_FILE_BYTES),
        inside + _lists_near(path, root, others),
        [],
        hq,
    )


def _lists_near(place: Path, root: Path, stems: Sequence[str]) -> list[ListFile]:
    """The lists on disk beside the pictures, or beside what holds them."""
    found = []
    near = [place, place.parent, place.parent.parent, root, root / "celeba"]
    places = [p for base in near for p in (base, base / "Anno", base / "Eval")]
    for stem in stems:
        candidates = (p / f"{stem}{suffix}" for p in places for suffix in (".txt", ".csv"))
        path = next((p for p in candidates if p.is_file()), None)
        if path is not None:
            try:
                found.append(ListFile(str(path), read_bytes(path, MAX_TEXT_BYTES)))
            except OSError as error:
                raise BadInput(
                    f"{shown(str(path))} cannot be read: {why(error)}", "check the file"
                ) from None
    return found


def _joined(found: _Found) -> CelebA:
    """Join the lists to the pictures by stem: PNG copies of the data set keep the .jpg lists."""
    items = [
        Item(picture_stem(name) or name, name, mark)
        for name, mark in zip(found.files, found.marks, strict=True)
    ]
    if len({item.id for item in items}) < len(items):
        raise BadInput(
            f"{shown(str(found.place))} holds a picture as .jpg and as .png",
            "remove one of the two",
        )
    notes = found.notes
    lists = sorted(found.lists, key=lambda each: (*LISTS, HQ_LIST).index(each.stem))
    named = {each.stem for each in lists}
    hq = found.hq or (HQ_LIST in named and "list_attr_celeba" not in named)
    if hq:
        # CelebA's own lists number its own pictures: here the same numbers are other people.
        lists = [each for each in lists if each.stem == HQ_LIST]
        notes.append("CelebA-HQ: its pictures are cropped already, and taken whole without --crop")
        rows = {unpadded(item.id): row for row, item in enumerate(items)}
        if len(rows) < len(items):
            raise BadInput(
                f"{shown(str(found.place))} holds a number with and without leading zeros",
                "remove one of the two",
            )
        missing = [] if lists else [HQ_LIST]
    else:
        lists = [each for each in lists if each.stem != HQ_LIST]
        rows = {item.id: row for row, item in enumerate(items)}
        missing = [stem for stem in LISTS if stem not in named]
    columns = read_lists(lists, rows, notes, key=unpadded if hq else str)
    attributes = [name for name in columns if name not in ("identity", "partition")]
    if attributes:
        columns["caption"] = [
            caption({name: columns[name][row] for name in attributes}, item.id)
            for row, item in enumerate(items)
        ]
    if missing:
        notes.append(f"no {', '.join(missing)} beside the pictures: prepared without")
    return CelebA(
        found.place,
        tuple(items),
        columns,
        tuple(notes),
        found.reader,
        *(("center", "ffhq") if hq else ("face", "celeba")),
    )
