"""Configs as plain data: a frozen dataclass to JSON-able values and, strictly, back again.

``from_dict(cls, to_dict(config)) == config`` for dataclasses of the types named at
:func:`from_dict`. What :func:`to_dict` returns is what manifests, cache keys and ``model.json``
hold.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from enum import Enum
from functools import cache
from pathlib import Path, PurePath
from typing import Any, TypeVar

from dclip.errors import BadInput

T = TypeVar("T")


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
    """Build the dataclass ``cls`` from plain data, refusing what does not fit.

    Field types may be str, int, float, bool, None, ``Path``, enums, ``Literal``, unions of these,
    ``list[X]``, ``tuple[X, ...]``, ``tuple[X, Y]``, ``dict[str, X]``, ``Any`` and dataclasses of
    these. An int is taken for a float; nothing else is converted.

    Args:
        cls: a dataclass.
        mapping: its fields' values, as from :func:`to_dict` or a TOML or JSON file.
        defaults: let absent keys take the field's default. Off, every field must be present, so
            that a saved config means the same after a default has changed.
        where: how messages call it; None takes the class's name.

    Raises:
        BadInput: unknown or missing keys, or a value of the wrong type; each is named. Also
            whatever the class's own ``__post_init__`` refuses.
    """
    result = _dataclass(cls, mapping, where or cls.__name__, defaults)
    return typing.cast(T, result)


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _dataclass(cls: type, mapping: Any, where: str, defaults: bool) -> Any:
    if not isinstance(mapping, Mapping):
        raise BadInput(f"{where} is {mapping!r}, not a table of settings")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    unknown = sorted(str(key) for key in mapping if key not in fields)
    missing = [
        name
        for name, f in fields.items()
        if name not in mapping
        and not (
            defaults
            and (
                f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
            )
        )
    ]
    if unknown or missing:
        parts = []
        if unknown:
            parts.append(f"does not know {_listed(unknown)}")
        if missing:
            parts.append(f"lacks {_listed(missing)}")
        raise BadInput(f"{where} {' and '.join(parts)}", f"its keys are {', '.join(fields)}")
    hints = _hints(cls)
    values = {
        name: _value(hints[name], item, f"{where}.{name}", defaults)
        for name, item in mapping.items()
    }
    return cls(**values)


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)


class _Mismatch(Exception):
    pass


def _value(hint: Any, value: Any, where: str, defaults: bool) -> Any:
    try:
        return _convert(hint, value, where, defaults)
    except _Mismatch:
        raise BadInput(f"{where} is {value!r}", f"give {_describe(hint)}") from None


def _convert(hint: Any, value: Any, where: str, defaults: bool) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _first_fit(args, value, where, defaults)
    if origin is typing.Annotated:
        return _convert(args[0], value, where, defaults)
    if origin is typing.Literal:
        for choice in args:
            if type(choice) is type(value) and choice == value:
                return choice
        raise _Mismatch
    if hint is Any:
        return value
    if hint is None or hint is type(None):
        if value is None:
            return None
        raise _Mismatch
    if hint in (list, tuple) or origin in (list, tuple):
        return _sequence(origin or hint, args, value, where, defaults)
    if hint is dict or origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise _Mismatch
        item = args[1] if args else Any
        return {k: _value(item, v, f"{where}.{k}", defaults) for k, v in value.items()}
    return _scalar(hint, value, where, defaults)


def _first_fit(args: tuple[Any, ...], value: Any, where: str, defaults: bool) -> Any:
    # An exact type wins over a conversion: 1 for `float | int` stays an int.
    for choice in args:
        if choice is type(value):
            return _convert(choice, value, where, defaults)
    for choice in args:
        try:
            return _convert(choice, value, where, defaults)
        except _Mismatch:
            continue
    raise _Mismatch


def _sequence(kind: Any, args: tuple[Any, ...], value: Any, where: str, defaults: bool) -> Any:
    if not isinstance(value, list | tuple):
        if value is not None and kind is tuple and args and args[-1] is Ellipsis:
            return (_convert(args[0], value, where, defaults),)  # one stands for a list of one
        raise _Mismatch
    if kind is tuple and args and args[-1] is not Ellipsis:
        if len(args) != len(value):
            raise _Mismatch
        items = list(args)
    else:
        items = [args[0] if args else Any] * len(value)
    return kind(
        _value(item, v, f"{where}[{i}]", defaults)
        for i, (item, v) in enumerate(zip(items, value, strict=True))
    )


def _scalar(hint: Any, value: Any, where: str, defaults: bool) -> Any:
    if not isinstance(hint, type):
        raise TypeError(f"{where}: a config cannot have a field of type {hint!r}")
    if dataclasses.is_dataclass(hint):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise _Mismatch
        return _dataclass(hint, value, where, defaults)
    if issubclass(hint, Enum):
        try:
            return hint(value)
        except ValueError:
            raise _Mismatch from None
    if issubclass(hint, PurePath):
        if isinstance(value, str | PurePath):
            return Path(value) if hint is Path else hint(value)
        raise _Mismatch
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _Mismatch
        try:
            number = float(value)
        except OverflowError:
            raise _Mismatch from None
        if not math.isfinite(number):
            raise _Mismatch
        return number
    if hint is int and isinstance(value, bool):
        raise _Mismatch
    if isinstance(value, hint):
        return value
    raise _Mismatch


def _describe(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(arg) for arg in args)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(arg) for arg in args)
    if origin in (list, tuple):
        if not args:
            return "a list"
        if len(args) == 1 or args[-1] is Ellipsis:
            return f"a list, each item {_describe(args[0])}"
        return "a list of " + ", ".join(_describe(arg) for arg in args)
    if hint is None or hint is type(None):
        return "nothing (null)"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(repr(member.value) for member in hint)
    names = {
        str: "a text",
        int: "a whole number",
        float: "a finite number",
        bool: "true or false",
        Path: "a path",
        dict: "a table",
    }
    return names.get(origin or hint, getattr(hint, "__name__", str(hint)))
