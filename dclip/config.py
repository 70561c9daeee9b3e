"""Configs: frozen, validated dataclasses, and their form as plain data.

A config is a dataclass made by :func:`settings`. Pydantic checks every value strictly; the text
under a field is its description, which the command line shows as the option's help. Marks in a
field's ``Annotated`` say the rest: :class:`Option` how the command line spells it, :class:`Needs`
and :class:`Excludes` with which other settings it has an effect.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import json
import math
import typing
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import PurePath
from typing import Any, TypeVar

import pydantic
from annotated_types import Ge, Le
from pydantic.dataclasses import dataclass as pydantic_dataclass

from dclip.errors import BadInput

T = TypeVar("T")

_STRICT = pydantic.ConfigDict(
    strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
)


@dataclass(frozen=True)
class Option:
    """How the command line spells a setting.

    Attributes:
        flags: names of the option; none given is ``--the-field-s-name``.
        metavar: what stands for the value in the help.
        ref: the kind of artifact that the setting names, which the shell completes.
        argument: whether it is given by position and not by name.
        file_only: whether only a config file sets it, since it is rarely touched.
    """

    flags: tuple[str, ...] = ()
    metavar: str | None = None
    ref: str | None = None
    argument: bool = False
    file_only: bool = False


@dataclass(frozen=True)
class Needs:
    """A setting has an effect only where another one is set.

    Attributes:
        field: the other setting.
        values: what it has to be; none given is any value that is not empty.
    """

    field: str
    values: tuple[Any, ...] = ()

    def broken(self, config: Any) -> str | None:
        """Why the setting has no effect, or None where it has one."""
        value = getattr(config, self.field)
        if value in self.values if self.values else value not in (None, (), False, ""):
            return None
        name = spelled(type(config), self.field)
        return f"with {name} {value}" if self.values else f"without {name}"


@dataclass(frozen=True)
class Excludes:
    """A setting has no effect where another one is set.

    Attributes:
        field: the other setting.
    """

    field: str

    def broken(self, config: Any) -> str | None:
        """Why the setting has no effect, or None where it has one."""
        value = getattr(config, self.field)
        return None if value in (None, (), False) else f"with {spelled(type(config), self.field)}"


@dataclass(frozen=True)
class OneOf:
    """A validator: one of a table's names, with the nearest ones where it is none.

    Attributes:
        table: ``"module:NAME"`` of a mapping or a tuple. It is imported when a value is checked,
            so that a config needs no torch.
        listed: the command that lists them, where they are too many for a line.
    """

    table: str
    listed: str | None = None

    def names(self) -> list[str]:
        """The names that there are."""
        module, _, name = self.table.partition(":")
        return list(getattr(importlib.import_module(module), name))

    def __call__(self, value: str, info: pydantic.ValidationInfo) -> str:
        names = self.names()
        if value not in names:
            fix = nearest(value, names)
            if self.listed is not None:
                close = fix.partition("? ")[0] + "? " if fix.startswith("did you") else ""
                fix = f"{close}`{self.listed}` lists them"
            raise BadInput(f"{info.field_name} {value!r} is unknown", fix)
        return value


def nearest(name: str, known: Collection[str]) -> str:
    """``did you mean ...?`` with the nearest names and all of them, for a fix."""
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    every = f"use one of {', '.join(known)}"
    return f"did you mean {' or '.join(close)}? {every[0].upper()}{every[1:]}" if close else every


def flag(field: str) -> str:
    """The option's name for a field: ``t_min`` is ``--t-min``."""
    return f"--{field.replace('_', '-')}"


@typing.dataclass_transform(frozen_default=True)
def settings(cls: type[T]) -> type[T]:
    """Make a class a config: a frozen dataclass whose values are checked.

    Raises (on construction):
        BadInput: a value of another type or out of range, an unknown setting, or one that has no
            effect with the others; the message names it.
    """
    made: Any = pydantic_dataclass(cls, frozen=True, config=_STRICT)
    checked = made.__init__

    def __init__(self: Any, *args: Any, **values: Any) -> None:
        try:
            checked(self, *args, **values)
        except pydantic.ValidationError as error:
            raise _bad_input(cls, error, "") from None
        changed = (f.name for f in _fields(self) if getattr(self, f.name) != _default(f))
        check_effects(self, changed)

    made.__init__ = __init__
    return typing.cast("type[T]", made)


def check_effects(config: Any, given: typing.Iterable[str]) -> None:
    """Refuse settings that have no effect with the others.

    Args:
        config: made by :func:`settings`.
        given: the fields that the user set.

    Raises:
        BadInput: the first that has none, and which other setting makes it so.
    """
    for name in given:
        for mark in marks(type(config), name):
            if isinstance(mark, Needs | Excludes) and (why := mark.broken(config)):
                own, other = (spelled(type(config), each) for each in (name, mark.field))
                keep = f"give {other}" if isinstance(mark, Needs) else f"leave {other} out"
                raise BadInput(f"{own} has no effect {why}", f"{keep}, or leave {own} out")


def marks(cls: type, field: str) -> list[Any]:
    """What stands in a field's ``Annotated`` beside its type."""
    return list(_hints(cls)[field][1])


def option(cls: type, field: str) -> Option:
    """How the command line spells a field: its own mark over that of its type."""
    found = Option()
    for mark in marks(cls, field):
        if isinstance(mark, Option):
            own = {f.name: getattr(mark, f.name) for f in dataclasses.fields(mark)}
            found = dataclasses.replace(found, **{k: v for k, v in own.items() if v})
    return found


def spelled(cls: type, field: str) -> str:
    """How users know a setting: its option's longest name, or its place among the arguments."""
    own = option(cls, field)
    if own.argument:
        return own.metavar or field.upper()
    return max(own.flags, key=len) if own.flags else flag(field)


def plain_type(cls: type, field: str) -> Any:
    """A field's type without its marks and without None."""
    return _hints(cls)[field][0]


def description(cls: Any, field: str) -> str:
    """The text under a field, on one line."""
    # A class's own source has only its own fields.
    fields = (getattr(base, "__pydantic_fields__", {}).get(field) for base in cls.__mro__)
    found = next((f.description for f in fields if f is not None and f.description), "")
    return " ".join(found.split())


def defined_in(cls: type, field: str) -> type:
    """The class, of ``cls`` and its bases, that a field was written in."""
    return next(base for base in cls.__mro__ if field in inspect.get_annotations(base))


@cache
def _hints(cls: type) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    found = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        extras: list[Any] = []
        while True:
            args = typing.get_args(hint)
            if typing.get_origin(hint) is typing.Annotated:
                extras = [*args[1:], *extras]  # a field's own marks come last
                hint = args[0]
            elif type(None) in args and len(args) == 2:
                hint = next(arg for arg in args if arg is not type(None))
            else:
                break
        found[name] = hint, tuple(extras)
    return found


def _fields(config: Any) -> tuple[dataclasses.Field[Any], ...]:
    return tuple(f for f in dataclasses.fields(config) if f.init)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def to_dict(config: Any) -> dict[str, Any]:
    """The dataclass (or mapping) as nested dicts, lists, strings, finite numbers, bools and None.

    Raises:
        BadInput: a value is NaN or infinite, which JSON cannot say.
        TypeError: a value has no JSON form.
    """
    plain = jsonable(config)
    if not isinstance(plain, dict):
        raise TypeError(f"a config is a dataclass or a mapping, not {type(config).__name__}")
    return plain


def jsonable(value: Any, *, nonfinite: bool = False, where: str = "config") -> Any:
    """``value`` in JSON's own types: tuples become lists, paths and enums what they stand for.

    Args:
        value: dataclasses, mappings with string keys, lists, tuples, paths, enums, numpy and torch
            scalars and small arrays, and JSON's own types.
        nonfinite: turn NaN and infinity into ``None`` instead of refusing them.
        where: how messages name the value.

    Raises:
        BadInput: NaN or infinity where ``nonfinite`` is false.
        TypeError: a value has no JSON form.
    """
    if isinstance(value, Enum):
        return jsonable(value.value, nonfinite=nonfinite, where=where)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value) + 0.0  # -0.0 and 0.0 are the same setting: one spelling
        if nonfinite:
            return None
        raise BadInput(f"{where} is {value}", "give a finite number")
    if isinstance(value, PurePath):
        return value.as_posix()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        out: dict[str, Any] = {}
        for key, item in value.items():
            key = key.value if isinstance(key, Enum) else key
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}; JSON's keys are strings")
            out[key] = jsonable(item, nonfinite=nonfinite, where=f"{where}.{key}")
        return out
    if isinstance(value, list | tuple):
        return [
            jsonable(item, nonfinite=nonfinite, where=f"{where}[{i}]")
            for i, item in enumerate(value)
        ]
    if hasattr(value, "tolist"):  # numpy's and torch's scalars and arrays, with neither imported
        return jsonable(value.tolist(), nonfinite=nonfinite, where=where)
    raise TypeError(f"{where} is a {type(value).__name__}, which JSON cannot hold")


def from_dict(
    cls: type[T], mapping: Mapping[str, Any], *, defaults: bool = False, where: str | None = None
) -> T:
    """Build a config from plain data, as from :func:`to_dict` or a TOML or JSON file.

    ``from_dict(cls, to_dict(config)) == config``. An int is taken for a float and a list for a
    tuple; nothing else is converted.

    Args:
        cls: made by :func:`settings`.
        mapping: its fields' values.
        defaults: let absent keys take the field's default. Off, every field must be present, so
            that a saved config means the same after a default has changed.
        where: how messages call it; None takes the class's name.

    Raises:
        BadInput: unknown or missing keys, a value of the wrong type or out of range, or a setting
            that has no effect with the others; each is named.
    """
    where = where or cls.__name__
    if not isinstance(mapping, Mapping):
        raise BadInput(f"{where} is {mapping!r}, not a table of settings")
    if not defaults:
        _check_whole(cls, mapping, where)
    text = json.dumps(jsonable(mapping, where=where))
    try:
        # Of JSON the strict mode takes lists for tuples and texts for paths, and nothing else.
        config = _adapter(typing.cast(Hashable, cls)).validate_json(text)
    except pydantic.ValidationError as error:
        raise _bad_input(cls, error, f"{where}.") from None
    check_effects(config, [name for name in mapping if defaults])
    return typing.cast(T, config)


def _check_whole(cls: Any, mapping: Mapping[str, Any], where: str) -> None:
    """Refuse a table that lacks a setting, also one within it."""
    if absent := [f.name for f in _fields(cls) if f.name not in mapping]:
        raise BadInput(
            f"{where} lacks {', '.join(map(repr, absent))}",
            "it was changed, or saved by another dclip",
        )
    for f in _fields(cls):
        inner, value = plain_type(cls, f.name), mapping[f.name]
        if dataclasses.is_dataclass(inner) and isinstance(value, Mapping):
            _check_whole(inner, value, f"{where}.{f.name}")


@cache
def _adapter(cls: Hashable) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(typing.cast(Any, cls))


def _range(cls: Any, loc: Sequence[Any]) -> str | None:
    """What to give where a setting has both a least and a greatest value."""
    found = marks(cls, str(loc[0])) if loc and str(loc[0]) in _hints(cls) else []
    least = next((mark.ge for mark in found if isinstance(mark, Ge)), None)
    most = next((mark.le for mark in found if isinstance(mark, Le)), None)
    if least is None or most is None:
        return None
    return f"it must be within {_shown(least)}..{_shown(most)}"


def _shown(value: Any) -> Any:
    """What a limit, or a list of names, looks like in a message."""
    if isinstance(value, str):
        return value.replace("'", "").replace(" or ", ", ")
    return f"{value:g}" if isinstance(value, float) else value


_WORDS = {
    "int_type": "give a whole number",
    "int_from_float": "give a whole number",
    "float_type": "give a number",
    "finite_number": "give a finite number",
    "bool_type": "give true or false",
    "string_type": "give a text",
    "tuple_type": "give a list",
    "dict_type": "give a table",
    "dataclass_type": "give a table of settings",
    "greater_than": "it must be above {gt}",
    "greater_than_equal": "it must be {ge} or more",
    "less_than": "it must be below {lt}",
    "less_than_equal": "it must be at most {le}",
    "multiple_of": "it must be a multiple of {multiple_of}",
    "literal_error": "use one of {expected}",
}


def _bad_input(cls: Any, error: pydantic.ValidationError, where: str) -> BadInput:
    """The first thing that is wrong, in one line."""
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"]) or cls.__name__
    kind, value = first["type"], first["input"]
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        known = [f.name for f in _fields(cls)]
        return BadInput(f"{where}{name} is unknown", nearest(str(first["loc"][-1]), known))
    if kind == "missing":
        return BadInput(f"{where}{name} is missing", f"give {flag(str(first['loc'][-1]))}")
    context = {k: _shown(v) for k, v in first.get("ctx", {}).items()}
    if kind == "literal_error" and isinstance(value, str):
        choices = [str(choice) for choice in _choices(cls, first["loc"])]
        return BadInput(f"{where}{name} {value!r} is unknown", nearest(value, choices))
    words = _WORDS.get(kind)
    if kind in ("greater_than_equal", "less_than_equal") and (both := _range(cls, first["loc"])):
        words = both
    fix = words.format(**context) if words else first["msg"]
    shown = repr(value) if len(repr(value)) < 80 else f"{repr(value)[:77]}..."
    return BadInput(f"{where}{name} is {shown}", fix)


def _choices(cls: Any, loc: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values that a setting may have, where its type names them."""
    for part in loc:
        if isinstance(part, str) and part in _hints(cls):
            return typing.get_args(plain_type(cls, part))
    return ()
