"""Axes of a figure of samples, as a user writes them: ``cfg=1,2,5`` or ``prompt=a cat;a dog``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from dclip.config import nearest
from dclip.errors import BadInput

AXES: dict[str, tuple[str, str]] = {
    "seed": ("seed", "seed {}"),
    "steps": ("steps", "{} steps"),
    "sampler": ("sampler", "{}"),
    "cfg": ("cfg", "cfg {}"),
    "rescale": ("rescale", "rescale {}"),
    "prompt": ("prompt", "{}"),
    "negative": ("negative", "not {}"),
    "guide": ("guide", "{}"),
    "encoder": ("encoder", "{}"),
    "eta": ("eta", "eta {}"),
    "grid": ("grid", "{}"),
    "model": ("model", "{}"),
    "tuned": ("tuned", "{}"),
    "strength": ("strength", "strength {}"),
    "through": ("through", "through {}"),
    "train-timesteps": ("train_timesteps", "T = {}"),
    "r": ("r", "r = {}"),
    "locality": ("locality", "locality {}"),
    "with": ("tuned", "{}"),
    "source": ("source", "from {}"),
    "encode": ("encode", "{}"),
    "mix": ("mix", "mixed {}"),
}
"""What may stand on an axis: the setting that it changes, of ``dclip sample`` or for photos of
``dclip edit``, and its label."""

SEVERAL = ("prompt", "guide")
"""Settings that hold several texts; an axis gives them one, or several joined with `` + ``."""


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        name: in :data:`AXES`.
        values: of its setting, in order.
    """

    name: str
    values: tuple[Any, ...]

    def settings(self, number: int) -> dict[str, Any]:
        """The setting that the value of that number changes."""
        return {AXES[self.name][0]: self.values[number]}

    def label(self, number: int) -> str:
        """What stands beside its row or column."""
        value = self.values[number]
        shown = " + ".join(value) if isinstance(value, list) else value
        return AXES[self.name][1].format(shown if shown != "" else "nothing")


def parse_axis(text: str) -> Axis:
    """Read ``NAME=VALUE,VALUE``; with a semicolon in it values are parted there instead.

    Raises:
        BadInput: not of that form, an unknown axis, no value, or one twice.
    """
    name, equals, rest = text.partition("=")
    name = name.strip()
    if not equals:
        raise BadInput(f"cannot read the axis {text!r}", "write e.g. cfg=1,2,5 or seed=0,1,2")
    if name not in AXES:
        raise BadInput(f"unknown axis {name!r}", nearest(name, AXES))
    parts = [part.strip() for part in rest.split(";" if ";" in rest else ",")]
    if not any(parts) or (name != "negative" and not all(parts)):
        raise BadInput(f"the axis {name} has an empty value", f"write e.g. {name}=A,B")
    values = tuple(_value(name, part) for part in parts)
    twice = [part for n, part in enumerate(parts) if values[n] in values[:n]]
    if twice:
        raise BadInput(f"the axis {name} has {twice[0]!r} twice", "give each value once")
    return Axis(name, values)


def _value(name: str, text: str) -> Any:
    if name in SEVERAL:
        return [part.strip() for part in text.split(" + ")]
    try:
        number = json.loads(text)
    except ValueError:
        return text
    return number if isinstance(number, int | float) and not isinstance(number, bool) else text


def parse_setting(text: str) -> tuple[str, Any]:
    """Read ``NAME=VALUE``, a setting that all cells share.

    Raises:
        BadInput: not of that form.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise BadInput(f"cannot read the setting {text!r}", "write e.g. steps=20")
    name = name.strip().replace("-", "_")
    return name, _value(name, value.strip())
