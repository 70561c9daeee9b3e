"""JSON files of the store, read strictly: whoever wrote them, what comes back is plain."""

from __future__ import annotations

import hashlib
import json
import math
import re
import stat
from pathlib import Path
from typing import Any

from dclip.store.files import open_plain

LARGEST = 256 << 20  # bytes; a manifest of a million files has about 150 MB
_DEEPEST = 40
_DIGITS = 40
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        OSError: there is none, or it cannot be read.
        ValueError: no plain file, too large, not UTF-8, not JSON, no object; or it holds a key
            twice, NaN, infinity, half a surrogate pair, numbers of more than 40 digits, or brackets
            more than 40 deep. The text says which.
    """
    return parse_json(_read(path))


def _read(path: Path) -> bytes:
    info = path.lstat()
    if not stat.S_ISREG(info.st_mode):
        raise ValueError("it is not a plain file")
    if info.st_size > LARGEST:
        raise ValueError(f"it has {info.st_size} bytes")
    with open_plain(path) as stream:
        return stream.read(LARGEST)


def parse_json(raw: bytes) -> dict[str, Any]:
    """The JSON object in ``raw``; :func:`read_json` says what is refused with a ValueError."""
    text = raw.decode("utf-8")
    try:
        data = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_no_number,
            parse_float=_float,
            parse_int=_int,
        )
    except RecursionError:
        raise ValueError("its brackets are nested too deep") from None
    if not isinstance(data, dict):
        raise ValueError("it is not a JSON object")
    _check_inside(data, strings=_SURROGATE.search(text) is not None)
    return data


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is in it twice")
    return made


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is in it")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number in it is too large")
    return value


def _int(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a number in it has {len(text)} digits")
    return int(text)


def _check_inside(data: Any, *, strings: bool) -> None:
    """Refuse deep nesting, and half surrogate pairs where there may be some."""
    level = [data]
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.values()
                if strings:
                    for key in item:
                        _check_text(key)
            elif isinstance(item, list):
                below += item
            elif strings and isinstance(item, str):
                _check_text(item)
        if not below:
            return
        level = below
    raise ValueError("its brackets are nested too deep")


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half a surrogate pair is in it") from None


def storable(value: Any) -> Any:
    """``value``, of JSON's types, as :func:`read_json` will take it again.

    Bytes of file names that are not UTF-8 (half surrogate pairs in Python) become visible escapes.

    Raises:
        ValueError: it holds numbers of 40 digits or more, or is nested too deep.
    """
    return _storable(value, 0)


def _storable(value: Any, depth: int) -> Any:
    if depth >= _DEEPEST - 2:  # a manifest holds it two levels down
        raise ValueError("it is nested too deep")
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_storable(k, depth): _storable(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list):
        return [_storable(item, depth + 1) for item in value]
    if isinstance(value, int) and abs(value) >= 10 ** (_DIGITS - 1):
        raise ValueError(f"a number in it has more than {_DIGITS - 1} digits")
    return value


def checked(body: dict[str, Any]) -> bytes:
    """``body`` in one line of JSON with a checksum of itself, for :func:`unchecked`."""
    text = json.dumps(body, allow_nan=True)
    return f'{{"check": "{hashlib.sha256(text.encode()).hexdigest()}", "body": {text}}}'.encode()


_CHECKED = re.compile(rb'\{"check": "([0-9a-f]{64})", "body": (.*)\}', re.S)


def unchecked(raw: bytes) -> dict[str, Any]:
    """What :func:`checked` wrote.

    Raises:
        ValueError: a byte of it is not as it was written.
    """
    match = _CHECKED.fullmatch(raw)
    if match is None or hashlib.sha256(match[2]).hexdigest() != match[1].decode():
        raise ValueError("it is not as it was written")
    body: dict[str, Any] = json.loads(match[2])  # our own bytes
    return body
