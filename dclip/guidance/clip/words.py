"""Which words of a prompt a small CLIP was never trained on."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Collection
from pathlib import Path

from dclip.errors import CorruptArtifact
from dclip.guidance.clip.config import read_json

FILE = "words.json"

PLAIN = frozenset(
    ["a", "an", "the", "of", "with", "and", "in", "on", "as", "is", "who", "has", "no", "not",
     "without", "to", "by"]
)  # fmt: skip
"""Words that are no use to a person who looks for ideas, so they are not listed."""

MARKS = frozenset(",-")
"""The marks that every maker of captions in dclip writes, so every CLIP trained here knows them."""

SHOWN = 5

_TOKEN = re.compile(r"[^\W\d_]+|\d+|_+|[^\w\s]+")


def tokens(text: str) -> list[str]:
    """All that a text says: words in lower case, numbers, and runs of marks or emoji.

    Nothing but white space is left out. Letters of every script count, with their accents.
    """
    return _TOKEN.findall(unicodedata.normalize("NFC", text).lower())


def unknown(prompt: str, words: Collection[str]) -> list[str]:
    """The tokens of ``prompt`` that are not among ``words``, each once, in their order."""
    return list(dict.fromkeys(t for t in tokens(prompt) if t not in words and t not in MARKS))


def warning(name: str, prompt: str, words: Collection[str]) -> str | None:
    """One line about tokens that a CLIP never saw, with near and known words, or None.

    Args:
        name: what the line calls the CLIP.
        words: what it was trained on.
    """
    missing = unknown(prompt, words)
    if not missing:
        return None
    named = [word for word in words if word[:1].isalpha()]
    near = [m for w in missing for m in difflib.get_close_matches(w, named, 2, 0.75)]
    known = ", ".join(sorted(set(named) - PLAIN))
    hint = f"did you mean {', '.join(near)}?" if near else f"it knows: {known}"
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    return (
        f"{name} never saw {', '.join(repr(w) for w in missing[:SHOWN])}{more}, so what this prompt"
        f" asks for may be noise: {hint}"
    )


def read(folder: Path) -> frozenset[str] | None:
    """The words in ``words.json`` of a folder; None where it has no such file.

    Raises:
        CorruptArtifact: the file is no list of words.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    content = read_json(file, "a list of words")
    listed = content.get("words") if type(content) is dict else None
    if type(listed) is not list or not all(type(word) is str for word in listed):
        raise CorruptArtifact(f"{file} is not a list of words", "remove or restore it")
    return frozenset(listed)
