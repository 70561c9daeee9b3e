"""Members of a zip file, read from many threads, and never more of them than is declared."""

from __future__ import annotations

import os
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from dclip.data.paths import open_file, shown, why
from dclip.errors import BadInput

_DAMAGED = "download it again; Google Drive sometimes sends a web page or a part in its place"
_ERRORS = (
    zipfile.BadZipFile, OSError, EOFError, struct.error, zlib.error, ValueError, OverflowError,
    NotImplementedError, IndexError, KeyError, RuntimeError,
)  # fmt: skip


def members_of(path: Path) -> list[zipfile.ZipInfo]:
    """The files in a zip, by its directory.

    Raises:
        BadInput: no zip, or a damaged or encrypted one.
    """
    place = shown(str(path))
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
    except PermissionError as error:
        raise BadInput(f"{place} cannot be read: {why(error)}", "check its permissions") from None
    except _ERRORS as error:
        if isinstance(error, OSError) and error.strerror:
            raise BadInput(f"{place} cannot be read: {why(error)}", "give the zip file") from None
        raise BadInput(f"{place} is not a complete zip file", _DAMAGED) from None
    if any(member.flag_bits & 0x1 for member in members):
        raise BadInput(f"{place} is encrypted", "unpack it and give the folder")
    return members


class ZipReader:
    """Members of a zip by name, from any thread: one file handle each, one directory for all.

    zipfile's own handle is shared behind a lock, and one ZipFile a thread would parse the 200,000
    entries of the full archive again in each.

    Args:
        path: the zip.
        members: what is read, by the names that :meth:`read` is given.
    """

    def __init__(self, path: Path, members: Mapping[str, zipfile.ZipInfo]) -> None:
        self._path = path
        self._members = members
        self._local = threading.local()

    def read(self, name: str, most: int) -> bytes:
        """A member's bytes.

        Raises:
            BadInput: larger than ``most`` or than the zip says, or damaged.
        """
        member = self._members[name]
        label = shown(name)
        if member.file_size > most:
            raise BadInput(
                f"{label} is too large: {member.file_size >> 20} MB", f"most is {most >> 20} MB"
            )
        try:
            data = self._extract(self._handle(), member)
        except _ERRORS as error:
            raise BadInput(f"{label} cannot be unpacked: {why(error)}", _DAMAGED) from None
        if len(data) != member.file_size or zlib.crc32(data) != member.CRC:
            raise BadInput(f"{label} is damaged in the zip: its checksum is wrong", _DAMAGED)
        return data

    def _handle(self) -> BinaryIO:
        handle: BinaryIO | None = getattr(self._local, "handle", None)
        if handle is None:
            handle = self._local.handle = open_file(self._path)
        return handle

    @staticmethod
    def _extract(handle: BinaryIO, member: zipfile.ZipInfo) -> bytes:
        # Local file header, APPNOTE.TXT 4.3.7: 30 bytes, then name and extra field, then data.
        handle.seek(member.header_offset)
        signature, name_length, extra_length = struct.unpack("<4s22xHH", handle.read(30))
        if signature != b"PK\x03\x04":
            raise OSError("no local header where the directory says")
        start = handle.seek(name_length + extra_length, 1)
        if not 0 <= member.compress_size <= os.fstat(handle.fileno()).st_size - start:
            raise OSError("it is longer than the zip")
        if member.compress_type == zipfile.ZIP_STORED:
            if member.compress_size != member.file_size:
                raise OSError("its two sizes differ")
            return handle.read(member.file_size)
        if member.compress_type != zipfile.ZIP_DEFLATED:
            raise NotImplementedError(f"compression method {member.compress_type}")
        inflate = zlib.decompressobj(-15)
        data = inflate.decompress(handle.read(member.compress_size), member.file_size + 1)
        if len(data) > member.file_size:
            raise OSError(f"it unpacks to more than the {member.file_size} bytes that the zip says")
        return data


def is_clutter(name: str) -> bool:
    """Whether a member was put in by an operating system."""
    parts = name.replace("\\", "/").split("/")
    return (
        "__MACOSX" in parts
        or parts[-1].startswith("._")
        or parts[-1] in (".DS_Store", "Thumbs.db", "desktop.ini")
    )


def base_name(member: zipfile.ZipInfo) -> str:
    """A member's name without its folders."""
    return member.filename.replace("\\", "/").rsplit("/", 1)[-1]


def safe(members: Iterable[zipfile.ZipInfo]) -> bool:
    """Whether no member's name climbs out of the folder that it would be unpacked to."""
    return not any(
        ".." in m.filename.replace("\\", "/").split("/") or m.filename.startswith(("/", "\\"))
        for m in members
    )
