"""Options that every command shares, and the config file below them.

Precedence, highest first: a flag after the subcommand, the same flag before it, an environment
variable, the config file, the stage's own default.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dclip.config import flag, from_dict, jsonable, spelled
from dclip.errors import BadInput
from dclip.textfile import read_text

CONFIG_FILE = Path("dclip.toml")
DEFAULT_STORE = Path("artifacts")
FILE_GLOBALS = ("store", "device", "workers")  # what may stand above the sections of the file

C = TypeVar("C")


@dataclass(frozen=True)
class Flags:
    """The shared options as typed; None means not given."""

    store: Path | None = None
    config: Path | None = None
    json: bool | None = None
    quiet: bool | None = None
    debug: bool | None = None
    no_verify: bool | None = None
    device: str | None = None
    workers: int | None = None
    force: bool | None = None
    dry_run: bool | None = None

    def given(self) -> dict[str, Any]:
        """Name the options that were typed, with their values."""
        pairs = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        return {name: value for name, value in pairs if value is not None}

    def below(self, inner: Flags) -> Flags:
        """Lay ``inner`` (typed after the subcommand) over these."""
        return dataclasses.replace(self, **inner.given())


@dataclass(frozen=True)
class ConfigFile:
    """A parsed config file.

    Attributes:
        path: where it was read, or None where there is none.
        content: its tables.
    """

    path: Path | None
    content: Mapping[str, Any]

    def section(self, *names: str) -> Mapping[str, Any]:
        """Return the table of a command, ``section("prepare", "celeba")``; empty if absent."""
        table: Any = self.content
        for name in names:
            table = table.get(name, {})
            if not isinstance(table, Mapping):
                raise BadInput(
                    f"{self.path}: {name} must be a section",
                    fix=f"write [{'.'.join(names)}] on a line of its own",
                )
        return typing.cast(Mapping[str, Any], table)

    def value(self, name: str, kind: type[Any]) -> Any:
        """Return a key that stands above the sections, or None."""
        value = self.content.get(name)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise BadInput(
                f"{self.path}: {name} must be {_name(kind)}, not {value!r}",
                fix=f"correct {name} in {self.path}",
            )
        return value


Sections = Mapping[str, Collection[str]]
"""Sections of the config file: commands, and groups with the names of theirs."""


def load_config(path: Path | None, sections: Sections | None) -> ConfigFile:
    """Read ``--config``, or ``dclip.toml`` in the current folder, or nothing.

    Args:
        path: the file that the user named, if any.
        sections: those that some command reads; None does not ask.

    Raises:
        BadInput: the named file is missing, is not TOML, or has a section that no command reads.
    """
    if path is None:
        if not CONFIG_FILE.exists():
            return ConfigFile(None, {})
        path = CONFIG_FILE
    try:
        content = tomllib.loads(read_text(path, "config file"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise BadInput(
                f"cannot read the config file {path}: {reason}",
                fix="give --config an existing TOML file",
            ) from error
        raise BadInput(
            f"{path} is not valid TOML: {error}", fix=f"correct {path} (https://toml.io)"
        ) from error
    if sections is not None:
        check_names(content, [*FILE_GLOBALS, *sections], f"in {path}", "section")
        for group, inner in sections.items():
            if inner and isinstance(table := content.get(group, {}), Mapping):
                check_names(table, inner, f"in [{group}] of {path}", "section")
    return ConfigFile(path, content)


def store_path(flags: Flags, file: ConfigFile) -> Path:
    """Return where the store is: flag, DCLIP_STORE, config file, ./artifacts."""
    if flags.store is not None:
        return flags.store
    named = os.environ.get("DCLIP_STORE") or file.value("store", str)
    return Path(named).expanduser() if named else DEFAULT_STORE


def near(name: str, known: Collection[str]) -> str:
    """Return ``did you mean ...?`` with the nearest known names, or all of them if few."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(sorted(known))}" if known else "nothing can be set here"


def check_names(given: Collection[str], known: Collection[str], where: str, what: str) -> None:
    """Raise BadInput for the first of ``given`` that is not ``known``, with near names."""
    for name in given:
        if name not in known:
            raise BadInput(f"unknown {what} {name!r} {where}".rstrip(), fix=near(name, known))


def build_config(
    cls: type[C], cli: Mapping[str, Any], section: Mapping[str, Any], where: str, help: str
) -> C:
    """Build a stage's config from flags over the config file over its own defaults.

    Args:
        cls: the stage's frozen config dataclass.
        cli: values from flags by field name; None means not given.
        section: the command's table of the config file; ``-`` and ``_`` are the same in keys.
        where: names the section in errors.
        help: the command that explains the options, for the fix.

    Raises:
        BadInput: an unknown key, a value of the wrong type, a missing one, or what ``cls`` refuses.
        TypeError: a flag that is no field of ``cls``.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    from dclip.cli.options import option_names

    typed = {name: value for name, value in cli.items() if value is not None}
    given = {name: jsonable(value, where=flag(name)) for name, value in typed.items()}
    known = option_names(cls)
    from_file = {key.replace("-", "_"): value for key, value in section.items()}
    check_names(from_file, known, where, "key")
    from_file = {known[key]: value for key, value in from_file.items()}
    weights = {name: from_file.pop(name) for name in set(from_file) - fields.keys()}
    if weights := weights | from_file.get("weights", {}) | given.get("weights", {}):
        given["weights"] = weights
    values = from_file | given
    for name, field in fields.items():
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if required and name not in values:
            raise BadInput(f"{spelled(cls, name)} is needed", fix=help)
    try:
        return from_dict(cls, values, defaults=True, where=".".join(help.split()[1:-1]))
    except BadInput as error:
        if not section:
            raise
        # The value may be one that the user did not type, in a file that they forgot.
        raise BadInput(f"{error.message} (options {where} count too)", error.fix) from error


def _name(kind: type[Any]) -> str:
    return {int: "a whole number", str: "a text"}.get(kind, kind.__name__)
