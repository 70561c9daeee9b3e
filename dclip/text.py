"""Text from files and manifests made safe to show on a terminal."""

from __future__ import annotations

import re

# Control characters, invisible and direction-changing characters, line separators, lone surrogates:
# a terminal obeys the first, a reader is misled by the others.
UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
"""What a terminal acts on, or does not show."""


def printable(text: str) -> str:
    r"""``text`` with every character that a terminal acts on, or that cannot be seen, escaped.

    ``"a\x1b[2Jb"`` becomes the visible ``a\x1b[2Jb``; lone surrogates, which stand for bytes of
    file names that are not UTF-8, become ``\udcff``. Printable text in any script stays as it is.
    """
    return UNSAFE.sub(lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
