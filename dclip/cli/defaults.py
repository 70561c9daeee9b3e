"""The defaults that a stage's ``--help`` shows, read from its config without importing it.

A stage imports torch, which would make ``--help`` slow; a default written again in the command line
would one day be wrong. So the config's source is read: its fields' defaults are literals, or
constants of the same module.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

import dclip


def config_defaults(place: str) -> dict[str, Any]:
    """Return the literal defaults of a config dataclass by field.

    Args:
        place: module below ``dclip`` and class, ``"stages.train:TrainConfig"``.
    """
    module, name = place.split(":")
    path = Path(dclip.__file__).parent.joinpath(*module.split(".")).with_suffix(".py")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    constants: dict[str, Any] = {}
    for node in body:
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=value):
                _keep(constants, target, value, constants)
            case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value):
                _keep(constants, target, value, constants)
    fields = next(n.body for n in body if isinstance(n, ast.ClassDef) and n.name == name)
    defaults: dict[str, Any] = {}
    for node in fields:
        match node:
            case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value):
                _keep(defaults, target, value, constants)
    return defaults


def _keep(into: dict[str, Any], name: str, value: ast.expr, known: dict[str, Any]) -> None:
    if isinstance(value, ast.Name) and value.id in known:
        into[name] = known[value.id]
        return
    try:
        into[name] = ast.literal_eval(value)
    except ValueError:
        return  # computed: its help text has to say it


class StageCommand(TyperCommand):
    """A subcommand whose help shows its stage's own defaults."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        place = getattr(self.callback, "config_place", None)
        defaults = config_defaults(place) if place else {}
        for param in self.params:
            value = defaults.get(param.name or "")
            if value is not None and value is not False and value != ():
                # Help ends the process, so that this default is shown and never used.
                param.default = value
                param.show_default = True  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)
