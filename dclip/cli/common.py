"""What every subcommand shares: its options, its store, its output and how it runs a stage."""

from __future__ import annotations

import functools
import inspect
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.markup import escape

from dclip.cli.options import StageCommand, gathered, parameters
from dclip.cli.output import Mode, Output
from dclip.cli.settings import ConfigFile, Flags, build_config, load_config, store_path
from dclip.context import Context
from dclip.errors import BadInput

if TYPE_CHECKING:
    from dclip.cli.progress import LiveReporter, PlainReporter, QuietReporter
    from dclip.store import Artifact, Store

C = TypeVar("C")
Function = Callable[..., None]

PANEL = "Common options"


def switch(*names: str, help: str, panel: str | None = None) -> Any:
    """An on/off option; Typer would show its type as ``<bool>``."""
    return typer.Option(*names, help=escape(help), metavar="", rich_help_panel=panel)


def _option(*names: str, help: str, metavar: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=PANEL, **more)


def _switch(*names: str, help: str) -> Any:
    return switch(*names, help=help, panel=PANEL)


# One table for the options that may stand before or after any subcommand.
_SHARED: dict[str, Any] = {
    "store": Annotated[
        Path | None,
        _option(
            "--store",
            metavar="DIR",
            help="Where artifacts live: else DCLIP_STORE, else ./artifacts.",
        ),
    ],
    "json": Annotated[bool | None, _switch("--json", help="Write one JSON document to stdout.")],
    "quiet": Annotated[bool | None, _switch("--quiet", "-q", help="Write ids alone to stdout.")],
    "debug": Annotated[bool | None, _switch("--debug", help="Show the traceback of an error.")],
    "no_verify": Annotated[
        bool | None,
        _switch("--no-verify", help="Do not compare artifacts with their hashes as they are read."),
    ],
}
_STAGE: dict[str, Any] = {
    "config": Annotated[
        Path | None,
        _option(
            "--config", metavar="FILE", help="Defaults for the options, in TOML: else ./dclip.toml."
        ),
    ],
    "device": Annotated[
        str | None, _option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")
    ],
    "workers": Annotated[
        int | None, _option("--workers", metavar="N", min=1, help="Processes or threads for data.")
    ],
    "force": Annotated[
        bool | None, _switch("--force", help="Make a new version of unchanged work.")
    ],
    "dry_run": Annotated[
        bool | None, _switch("--dry-run", help="Show what would be done, and do nothing.")
    ],
}
ALL_SHARED = _SHARED | _STAGE


@dataclass
class State:
    """What one process of ``dclip`` knows beyond its current command.

    Attributes:
        flags: the shared options typed so far.
        command: the command line's words, ``dclip prepare faces``.
        failure: what ended the command. Typer turns some exceptions into its own exits, so the
            original is kept here for ``main`` to explain.
    """

    flags: Flags = field(default_factory=Flags)
    command: str = "dclip"
    failure: BaseException | None = None


@dataclass
class Run:
    """One run of one subcommand.

    Attributes:
        flags: the shared options, those after the subcommand over those before it.
        words: the subcommand, ``("prepare", "faces")``.
        file: the config file.
        out: the sink.
    """

    flags: Flags
    words: tuple[str, ...]
    file: ConfigFile
    out: Output

    @cached_property
    def report(self) -> LiveReporter | PlainReporter | QuietReporter:
        """Where progress, notes and warnings go."""
        from dclip.cli.progress import reporter_for  # rich's progress is slow to import

        return reporter_for(self.out)

    @property
    def store_path(self) -> Path:
        """The folder of the store."""
        return store_path(self.flags, self.file)

    @cached_property
    def store(self) -> Store:
        """The store; its folder is created by the first write."""
        from dclip.store import Store

        return Store(self.store_path, verify=not self.flags.no_verify)

    @cached_property
    def context(self) -> Context:
        """How a stage shall run."""
        asked = Context(
            report=self.report, force=bool(self.flags.force), dry_run=bool(self.flags.dry_run)
        )
        if device := self.flags.device or self.file.value("device", str):
            asked = replace(asked, device=device)
        workers = self.flags.workers or self.file.value("workers", int)
        if workers is not None:
            if workers < 1:
                raise BadInput(f"{self.file.path}: workers is below 1", "use 1 or more")
            asked = replace(asked, workers=workers)
        return asked

    def config(self, cls: type[C], values: Mapping[str, Any]) -> C:
        """Build a stage's config: flags over the config file over defaults."""
        section = self.file.section(*self.words)
        where = f"in [{'.'.join(self.words)}] of {self.file.path}"
        if section:
            self.out.note(f"options {where}: {', '.join(section)}")
        return build_config(cls, values, section, where, f"dclip {' '.join(self.words)} --help")

    def stage(
        self,
        work: Callable[[C, Store, Context], Artifact],
        config: C,
        *,
        ready: Callable[[Artifact], None] = lambda _: None,
        first: Callable[[Artifact], tuple[Sequence[Path], str] | None] = lambda _: None,
        next_commands: Callable[[Artifact], Sequence[str]] = lambda _: (),
        show: Callable[[Artifact], Mapping[str, Any]] = lambda _: {},
    ) -> Artifact | None:
        """Run a stage and show its artifact; None after a dry run, whose plan is shown.

        Args:
            ready: what is to be done with the artifact before it is shown.
            first: files that a person is shown before all else, and what they are.
            next_commands: whole command lines that go on from here.
            show: further results, by name.
        """
        made = self._made(lambda: [work(config, self.store, self.context)])
        if made is None:
            return None
        (artifact,) = made
        ready(artifact)
        self.out.artifact(
            artifact,
            first=first(artifact),
            next_commands=next_commands(artifact),
            show=show(artifact),
        )
        return artifact

    def stages(
        self,
        work: Callable[[Store, Context], Sequence[Artifact]],
        *,
        next_commands: Callable[[Artifact], Sequence[str]] = lambda _: (),
    ) -> None:
        """Run what makes one artifact or several, and show each; of a dry run the plans.

        As JSON several are one document, ``{"made": [...]}``.
        """
        made = self._made(lambda: work(self.store, self.context))
        if made is None:
            return
        if len(made) > 1 and self.out.mode == "json":
            self.out.several(made)
            return
        for artifact in made:
            self.out.artifact(artifact, next_commands=next_commands(artifact))

    def _made(self, work: Callable[[], Sequence[Artifact]]) -> Sequence[Artifact] | None:
        """What the work makes; None after a dry run, whose plans are shown."""
        from dclip.store import Planned

        try:
            with self.report.watching():
                return work()
        except Planned as planned:
            from dclip.cost import cost

            plans = [
                dict(each) | ({"cost": found} if (found := cost(each, self.store, device)) else {})
                for device in (self.context.device,)
                for each in (*planned.before, planned.plan)
            ]
            self.out.plan(plans[-1], plans[:-1])
            return None

    def to_edit(self, made: Artifact) -> tuple[str, ...]:
        """What a hint names to be edited by a model: a photo, or drawn data if it knows no more."""
        from dclip.domains import DOMAINS
        from dclip.errors import DclipError
        from dclip.models.checkpoint import read_info

        try:
            base = made if made.kind == "model" else self.store.input(made, "model")
            if not DOMAINS[read_info(base.path).domain].drawn:
                return ("photo.jpg",)
            drawn = [
                data.name
                for data in self.store.list("data")
                if DOMAINS[data.config.get("domain", "photos")].drawn
            ]
        except (DclipError, KeyError):
            return ("photo.jpg",)
        # Without drawn data in the store, `--make` draws some.
        return ("--data", drawn[-1]) if drawn else ("--data", "faces", "--make")

    def hint(self, *words: str) -> str:
        """Write a command that goes on from here, with the shared options that were typed."""
        keep = [
            item
            for name in ("store", "config", "device")
            if (value := getattr(self.flags, name)) is not None
            for item in (f"--{name}", str(value))
        ]
        return shlex.join(["dclip", *words, *keep])


def examples(*lines: str) -> str:
    """Lay example commands out for the end of a ``--help``; ``# ...`` explains the line above."""
    return "\n".join(["[bold]Examples[/bold]", *(f"  {escape(line)}" for line in lines)])


def command(
    *example_lines: str, config: type | None = None, fixed: Mapping[str, Any] | None = None
) -> Callable[[Function], Function]:
    """Make a subcommand of a function ``(run: Run, its own Typer parameters ...)``.

    It gets the shared options, a :class:`Run`, and examples at the end of its help.

    Args:
        example_lines: command lines, each with an optional ``# remark``.
        config: a stage's config: the function is ``(run, config, ...)``, and the command gets an
            option for each setting and those of a stage (device, workers, force, dry run, config).
        fixed: settings that the command decides itself.
    """
    shared = _SHARED | (_STAGE if config else {})

    def decorate(function: Function) -> Function:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        generated = []
        if config is not None:
            own, generated = own[1:], parameters(config, fixed or {})
        # A command may say for itself what one of the shared options means to it: rm's --force.
        redefined = [parameter.name for parameter in own if parameter.name in ALL_SHARED]
        known = [*(name for name in shared if name not in redefined), *redefined]

        @functools.wraps(function)
        def wrapper(ctx: typer.Context, **values: Any) -> None:
            state: State = ctx.obj
            try:
                typed = Flags(**{name: values.pop(name) for name in known})
                state.command = ctx.command_path
                before, state.flags = state.flags, state.flags.below(typed)
                for name in before.given():
                    if name not in known:
                        flag = f"--{name.replace('_', '-')}"
                        raise BadInput(f"{ctx.command_path} has no {flag}", fix=f"leave {flag} out")
                values |= {name: getattr(state.flags, name) for name in redefined}
                _invoke(function, open_run(ctx), config, fixed or {}, values, generated)
                sys.stdout.flush()  # a closed pipe shall be met here, not at exit
            except typer.Exit:
                raise
            except BaseException as error:
                state.failure = error
                raise typer.Exit(1) from error

        context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        _sign(
            wrapper,
            [
                context,
                *generated,
                *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own),
                *(shared_parameter(name, shared[name]) for name in known if name not in redefined),
            ],
        )
        wrapper.__dict__ |= {"epilog": examples(*example_lines), "config": config}
        return wrapper

    return decorate


def add(group: typer.Typer, function: Function, panel: str | None = None) -> None:
    """Add a subcommand made by :func:`command` to a group, under its function's name."""
    name = function.__name__.rstrip("_")
    group.command(
        name, cls=StageCommand, epilog=function.__dict__["epilog"], rich_help_panel=panel
    )(function)


def group(help: str, *example_lines: str) -> typer.Typer:
    """Make a group of subcommands that shows its help when called alone."""
    return typer.Typer(
        help=help,
        epilog=examples(*example_lines),
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def shared_parameter(name: str, annotation: Any) -> inspect.Parameter:
    """Describe one shared option to Typer; not given is None."""
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _sign(wrapper: Any, parameters: list[inspect.Parameter]) -> None:
    # Typer reads both the signature and the annotations.
    wrapper.__signature__ = inspect.Signature(parameters)
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}


def with_shared_options(function: Function) -> Function:
    """Give the root callback every shared option, kept in the :class:`State`."""
    own = list(inspect.signature(function, eval_str=True).parameters.values())

    @functools.wraps(function)
    def wrapper(ctx: typer.Context, **values: Any) -> None:
        ctx.obj.flags = Flags(**{name: values.pop(name) for name in ALL_SHARED})
        function(ctx, **values)

    _sign(
        wrapper,
        [
            *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own),
            *(shared_parameter(name, annotation) for name, annotation in ALL_SHARED.items()),
        ],
    )
    return wrapper


def open_run(ctx: typer.Context) -> Run:
    """Build the :class:`Run` of a subcommand from its context."""
    flags: Flags = ctx.obj.flags
    if flags.json and flags.quiet:
        raise BadInput("--json and --quiet exclude each other", fix="choose one of them")
    mode: Mode = "json" if flags.json else "quiet" if flags.quiet else "human"
    return Run(
        flags=flags,
        words=tuple(ctx.command_path.split()[1:]),
        file=load_config(flags.config, _sections(ctx.find_root().command)),
        out=Output(mode, flags.store),
    )


def _sections(group: Any) -> dict[str, dict[str, Any]]:
    """The sections that the config file may have: of commands that make something of a config."""
    found = {}
    for name, command in group.commands.items():
        inner = _sections(command) if hasattr(command, "commands") else {}
        if inner or getattr(command.callback, "config", None):
            found[name] = inner
    return found


def _invoke(
    function: Function,
    run: Run,
    config: type | None,
    fixed: Mapping[str, Any],
    values: dict[str, Any],
    generated: Sequence[inspect.Parameter],
) -> None:
    with warnings.catch_warnings():
        # Warnings of libraries are for developers; ours go through the reporter.
        if not run.flags.debug:
            warnings.simplefilter("ignore")
        if config is None:
            function(run, **values)
            return
        given = gathered({p.name: values.pop(p.name) for p in generated}, config)
        function(run, run.config(config, {**given, **fixed}), **values)
