"""What may be a name, and how a reference such as ``model/base/v3`` or ``faces@best`` reads."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from dclip.errors import BadInput

LATEST = "latest"
EMBEDDED = "embedded"
SHIPPED = (EMBEDDED, "embedded-text")
"""Names of what the package ships."""
TAGS = "tags.json"

VERSION = re.compile(r"v([1-9][0-9]{0,8})")
LARGEST_VERSION = 999_999_999
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
# Windows opens devices by these names whatever their suffix.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{d}{i}" for d in ("com", "lpt") for i in range(1, 10))}


def check_name(name: str, what: str = "name") -> str:
    """Return ``name`` if it is safe as a folder on any system and unambiguous in a reference.

    That is 1 to 64 of letters, digits, ``.``, ``_``, ``-``, beginning and ending with a letter or
    digit; not ``v3`` (a version), ``latest``, ``embedded``, ``embedded-text`` or a device
    name of Windows.

    Raises:
        BadInput: it is not; the fix names the nearest one that is.
    """
    if not isinstance(name, str) or not valid(name):
        shown = name if isinstance(name, str) else type(name).__name__
        shown = shown if len(shown) <= 40 else f"{shown[:40]}..."
        raise BadInput(f"{shown!r} cannot be a {what}", f"use for example {slug(str(shown))!r}")
    return name


def valid(name: str) -> bool:
    """Whether :func:`check_name` would take ``name``."""
    return (
        _NAME.fullmatch(name) is not None
        and VERSION.fullmatch(name) is None
        and name.lower() not in (LATEST, *SHIPPED, TAGS)
        and name.split(".")[0].lower() not in _DEVICES
    )


def slug(text: str, fallback: str = "artifact") -> str:
    """The valid name nearest to ``text``; ``fallback`` where nothing of it can stay."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", plain)[:64].strip("-._")
    if not plain:
        return fallback
    return plain if valid(plain) else f"{fallback}-{plain}"[:64].strip("-._")


def valid_tag(tag: str) -> bool:
    """Whether ``tag`` can be one: a name that does not read as timesteps, such as ``60-100``."""
    return valid(tag) and re.fullmatch(r"\d+-\d+", tag) is None


@dataclass(frozen=True)
class Reference:
    """A parsed ``[kind/]name[/vN | @tag]``."""

    kind: str | None
    name: str
    version: int | None = None
    tag: str = LATEST


def parse(text: str) -> Reference | None:
    """Read a store reference; None for what can only be an id, a path or a mistake."""
    body, at, tag = text.partition("@")
    parts = body.split("/")
    version = None
    if len(parts) > 1 and (match := VERSION.fullmatch(parts[-1])):
        version = int(match[1])
        parts.pop()
    if not 1 <= len(parts) <= 2 or not all(valid(part) for part in parts):
        return None
    if at and (version is not None or not tag):
        return None
    if tag and (match := VERSION.fullmatch(tag)):  # name@v3 says plainly what it means
        version, tag = int(match[1]), ""
    return Reference(parts[0] if len(parts) == 2 else None, parts[-1], version, tag or LATEST)
