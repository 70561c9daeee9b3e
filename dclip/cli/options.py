"""A stage's options, made from its config: names, types, help, defaults and completion."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import AfterValidator
from rich.markup import escape

from dclip import config as configs
from dclip.cli.settings import Flags, load_config, store_path
from dclip.config import Needs, OneOf

STRENGTHS = ("0.5", "0.8", "1", "1.5", "-1")
"""That completion offers."""


def option(*names: str, help: str, metavar: str | None = None, **more: Any) -> Any:
    """An option of a stage; not given is None, which means the stage's own default."""
    return typer.Option(*names, help=escape(help), metavar=metavar, **more)


def _refs(kind: str | None) -> Any:
    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        # While completing nothing is run: what stands before the subcommand is in its parents.
        levels = [ctx, *(level for level in (ctx.parent, ctx.find_root()) if level is not None)]
        store = next((level.params["store"] for level in levels if level.params.get("store")), None)
        root = store_path(Flags(store=store), load_config(None, None))
        return names_in(root, kind, incomplete)

    return complete


def names_in(root: Path, kind: str | None, incomplete: str) -> list[str]:
    """List the references in a store that begin with ``incomplete``, for the shell.

    A reference is completed in the form that is being typed: name, name/vN or kind/name/vN. Of
    tuned models, joined with ``+``, the last one is completed; after its colon some strengths, and
    presets, which ``--make`` makes, stand beside the models.
    """
    before, plus, incomplete = incomplete.rpartition("+")
    name, colon, number = incomplete.rpartition(":")
    if kind == "tuned" and colon:
        return [before + plus + f"{name}:{s}" for s in STRENGTHS if s.startswith(number)]
    found = set()
    for version in root.glob(f"{kind or '*'}/*/v*"):
        ref = version.relative_to(root).as_posix()
        _, name, last = ref.split("/")
        found |= {ref} | ({name, f"{name}/{last}"} if kind else set())
    if kind == "tuned":
        from dclip.guidance.prompts import PRESETS

        found |= {preset for preset in PRESETS if " " not in preset}
    return sorted(before + plus + ref for ref in found if ref.startswith(incomplete))


def ref_argument(help: str, kind: str | None = None) -> Any:
    """An argument that names an artifact of ``kind``, or of any; the shell completes it."""
    return typer.Argument(metavar="REF", help=help, autocompletion=_refs(kind))


def parameters(cls: type, fixed: Mapping[str, Any]) -> list[inspect.Parameter]:
    """A command's parameters for a config: one for each setting that has an effect.

    Those of a config's bases stand in panels of their own.

    Args:
        cls: a config made by :func:`dclip.config.settings`.
        fixed: settings that the command decides, such as ``prepare``'s source.
    """
    found: list[inspect.Parameter] = []
    for field in dataclasses.fields(cls):
        if field.name in fixed or configs.option(cls, field.name).file_only:
            continue
        if any(_without_effect(mark, fixed) for mark in configs.marks(cls, field.name)):
            continue
        base = configs.defined_in(cls, field.name)
        panel = None if base is cls else (base.__doc__ or "").split(".")[0]
        if typing.get_origin(configs.plain_type(cls, field.name)) is dict:
            found += _weights(panel)
        else:
            found.append(_parameter(cls, field, panel))
    return found


def _without_effect(mark: Any, fixed: Mapping[str, Any]) -> bool:
    return isinstance(mark, Needs) and mark.field in fixed and fixed[mark.field] not in mark.values


def gathered(values: Mapping[str, Any], cls: type) -> dict[str, Any]:
    """Values by parameter as values by setting: the losses' weights are one table."""
    from dclip.guidance.kinds import LOSSES

    own = {field.name for field in dataclasses.fields(cls)}
    found = {k: v for k, v in values.items() if k in own and v is not None and v != []}
    given = {k: v for k, v in values.items() if k in LOSSES and k not in own and v is not None}
    return found | ({"weights": given} if given else {})


def _weights(panel: str | None) -> Iterator[inspect.Parameter]:
    from dclip.guidance.kinds import LOSSES

    for name, loss in LOSSES.items():
        made = option(configs.flag(name), metavar="X", help=loss.help, rich_help_panel=panel)
        yield _keyword(name, Annotated[float | None, made])


def _parameter(cls: type, field: dataclasses.Field[Any], panel: str | None) -> inspect.Parameter:
    hint, own = configs.plain_type(cls, field.name), configs.option(cls, field.name)
    help = configs.description(cls, field.name)
    flags = own.flags or (configs.flag(field.name),)
    more: dict[str, Any] = {"help": escape(help), "rich_help_panel": panel}
    if own.ref is not None:
        more["autocompletion"] = _refs(own.ref)
    for mark in configs.marks(cls, field.name):
        if isinstance(mark, AfterValidator) and isinstance(mark.func, OneOf):
            more["autocompletion"] = _names(mark.func)
    if hint is bool:
        if field.default is True:
            flags = (f"{flags[0]}/--no-{flags[0][2:]}",)
        return _keyword(
            field.name, Annotated[bool | None, typer.Option(*flags, metavar="", **more)]
        )
    if typing.get_origin(hint) is typing.Literal:
        names = [str(value) for value in typing.get_args(hint)]
        more["autocompletion"] = lambda incomplete: [n for n in names if n.startswith(incomplete)]
        more["metavar"] = "|".join(names)
        kind: Any = str
    else:
        kind = hint if hint in (int, float) else str
        more["metavar"] = own.metavar or "TEXT"
    if hint == tuple[str, ...] and own.metavar != "LIST":
        if own.argument:
            return _keyword(field.name, Annotated[list[str] | None, typer.Argument(**more)])
        kind = list[str]
    made = typer.Argument(**more) if own.argument else typer.Option(*flags, **more)
    return _keyword(field.name, Annotated[kind | None, made])


def _names(table: OneOf) -> Any:
    return lambda incomplete: [name for name in table.names() if name.startswith(incomplete)]


def _keyword(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def option_names(cls: type) -> dict[str, str]:
    """Every name that a config file may call a setting by, with the setting's own."""
    from dclip.guidance.kinds import LOSSES

    names = {}
    for field in dataclasses.fields(cls):
        names[field.name] = field.name
        for flag in configs.option(cls, field.name).flags:
            names[flag.strip("-").replace("-", "_")] = field.name
        if typing.get_origin(configs.plain_type(cls, field.name)) is dict:
            names |= {name: name for name in LOSSES}
    return names


class StageCommand(typer.core.TyperCommand):
    """A subcommand whose help shows its config's defaults."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        cls = getattr(self.callback, "config", None)
        defaults = {f.name: f.default for f in dataclasses.fields(cls)} if cls else {}
        for param in self.params:
            value = defaults.get(param.name or "")
            if value is not False and value not in (None, (), "", dataclasses.MISSING):
                if isinstance(value, tuple):
                    value = ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
                # Help ends the process, so that this default is shown and never used.
                param.default = value
                param.show_default = True  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)
