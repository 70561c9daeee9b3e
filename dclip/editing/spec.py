"""How a user writes an edit: which tuned models, how strong, and at which timesteps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dclip.errors import BadInput

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
_PART = re.compile(
    rf"(?P<ref>.+?)(?::(?P<strength>{_NUMBER}))?(?:@(?P<low>\d+)-(?P<high>\d+))?", re.DOTALL
)


@dataclass(frozen=True)
class PartSpec:
    """One tuned model as a user names it.

    Attributes:
        ref: its reference; None is the newest.
        strength: 0 is the photo, 1 what was learnt; below 0 the other way, above 1 further.
        window: timesteps t (low, high) at which it acts; None is all that it was tuned at.
    """

    ref: str | None = None
    strength: float = 1.0
    window: tuple[int, int] | None = None

    def __str__(self) -> str:
        """As :func:`parse_parts` reads it."""
        number = f"{self.strength:.9f}".rstrip("0").rstrip(".")
        strength = "" if self.strength == 1 else f":{number}"
        window = f"@{self.window[0]}-{self.window[1]}" if self.window else ""
        return f"{self.ref or ''}{strength}{window}"


def parse_parts(text: str) -> tuple[PartSpec, ...]:
    """Read ``REF[:STRENGTH][@LOW-HIGH]``, several joined with ``+``.

    ``sketch:0.8``, ``smiling@best:-0.5``, ``sketch:0.8@60-100+smiling``.

    Raises:
        BadInput: not of that form.
    """
    return tuple(_parse_part(item.strip(), text) for item in re.split(r"(?<!:)\+", text))


def _parse_part(item: str, text: str) -> PartSpec:
    match = _PART.fullmatch(item)
    how = "write NAME, NAME:STRENGTH or NAME:STRENGTH@LOW-HIGH, e.g. sketch:0.8"
    if match is None:
        raise BadInput(f"cannot read the edit {text!r}", how)
    ref, low, high = match["ref"], match["low"], match["high"]
    if ":" in ref and not Path(ref).exists():
        name, _, number = ref.partition(":")
        raise BadInput(f"strength {number!r} of {name} is not a number", how)
    window = (int(low), int(high)) if low else None
    if window and not 1 <= window[0] <= window[1]:
        raise BadInput(
            f"{text!r} is to act at t from {low} to {high}",
            "write a low timestep of 1 or more, then a high one, e.g. @60-100",
        )
    return PartSpec(ref, float(match["strength"] or 1), window)


def numbers(values: float | Sequence[float] | str, what: str) -> tuple[float, ...]:
    """One number, several, or a text of them between commas, as a tuple without repeats.

    Raises:
        BadInput: a text that is not numbers, none at all, or numbers that captions and file names,
            which have six digits, cannot tell apart.
    """
    if isinstance(values, str):
        parts = [part.strip() for part in values.split(",")]
        if not all(re.fullmatch(_NUMBER, part) for part in parts):
            raise BadInput(f"{what} {values!r} is not a list of numbers", "write e.g. 0,0.5,1")
        values = [float(part) for part in parts]
    elif isinstance(values, int | float):
        values = [values]
    if not values:
        raise BadInput(f"{what} is empty", "write e.g. 0,0.5,1")
    found = tuple(dict.fromkeys(float(value) + 0.0 for value in values))
    if len({f"{value:g}" for value in found}) < len(found):
        raise BadInput(f"{what} has numbers that are alike to six digits", "leave one out")
    return found
