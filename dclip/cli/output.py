"""The one sink of the command line: data on stdout, everything else on stderr.

Three modes: ``human`` (rich), ``json`` (exactly one document a command), ``quiet`` (ids alone).
A command hands over what it has; how that looks is decided here and nowhere else.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape as _markup
from rich.table import Table
from rich.tree import Tree

from dclip.text import UNSAFE, printable

if TYPE_CHECKING:
    from dclip.store import Artifact

Mode = Literal["human", "json", "quiet"]

# Wide enough that no path is wrapped or cut when stdout goes to a file or another program.
PIPE_WIDTH = 400

_COMMAND = re.compile(r"`(dclip [^`]*)`")

PICTURES = (".png", ".pdf")
WHOLE = ("ref", "id", "name", "path")
"""Columns whose values are for copying: they are never broken over lines."""
NARROWEST = 12  # characters that other columns keep at least
MOST_FILES = 4  # that are named one by one


def short(value: Any) -> str:
    """Write one value for a person: floats to four significant figures, lists joined."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {short(item)}" for key, item in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(short(item) for item in value) or "-"
    return str(value)


def size(count: float) -> str:
    """Write a number of bytes for a person, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Write how long something takes, for a person: to a minute, an hour or a day."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.0f} s"


def here(path: Path) -> str:
    """Write a path for a person: relative where it is below the current folder."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def pictures(artifact: Artifact) -> list[Path]:
    """The pictures at the top of an artifact: what a person wants to open first."""
    found = [p for p in artifact.path.iterdir() if p.suffix in PICTURES]
    return sorted(found, key=lambda p: (PICTURES.index(p.suffix), p.name))


def summary(artifact: Artifact) -> dict[str, Any]:
    """The JSON form of an artifact that a command made or found."""
    return {
        "id": artifact.id,
        "kind": artifact.kind,
        "name": artifact.name,
        "version": artifact.version,
        "ref": artifact.ref,
        "path": str(artifact.path),
        "fresh": artifact.fresh,
        "metrics": dict(artifact.metrics),
        "pictures": [str(p) for p in pictures(artifact)],
    }


# Control characters, which a terminal would obey, invisible and direction-changing characters,
# which would deceive a reader, and lone surrogates, which stand for bytes that are no text.
def json_text(document: Any, encoding: str | None) -> str:
    """A document as JSON that a terminal shows as it is and that ``encoding`` can write."""
    text = json.dumps(document, indent=2, ensure_ascii=False, default=str)
    safe = UNSAFE.sub(lambda f: "\n" if f[0] == "\n" else json.dumps(f[0])[1:-1], text)
    try:
        safe.encode(encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return json.dumps(document, indent=2, default=str)
    return safe


def escape(text: str) -> str:
    """Text from outside as rich's markup shows it unchanged, but for :func:`printable`."""
    return _markup(printable(text))


def tolerant(stream: Any) -> Any:
    """Let a text stream write an escape for what its encoding lacks, instead of failing at it."""
    change = getattr(stream, "reconfigure", None)
    if change is not None and getattr(stream, "errors", None) in ("strict", "surrogateescape"):
        change(errors="backslashreplace")
    return stream


class _Console(Console):
    """A console that leaves it to us what a reader does that has gone away."""

    def on_broken_pipe(self) -> None:
        """Raise on, where rich would end the process with an exit code of its own."""
        raise


class Output:
    """Where every command writes.

    Attributes:
        mode: ``human``, ``json`` or ``quiet``.
        store: the ``--store`` that was typed; commands that messages name in backticks get it too,
            so that they can be pasted.
        out: stdout; data alone.
        err: stderr; notes, warnings, hints, progress and errors.
    """

    def __init__(self, mode: Mode = "human", store: Path | None = None) -> None:
        self.mode, self.store = mode, store
        wide = None if sys.stdout.isatty() else PIPE_WIDTH
        self.out = _Console(
            file=tolerant(sys.stdout), width=wide, highlight=False, soft_wrap=True, emoji=False
        )
        self.err = _Console(file=tolerant(sys.stderr), highlight=False, soft_wrap=True, emoji=False)

    def note(self, message: str) -> None:
        """Say what the user may want to know; silent in quiet mode."""
        if self.mode != "quiet":
            self.err.print(escape(self._pasteable(message)), style="dim")

    def warn(self, message: str) -> None:
        """Say what the user should act on; shown in every mode."""
        self.err.print(f"[yellow]warning:[/yellow] {escape(self._pasteable(message))}")

    def error(self, message: str, fix: str = "", steps: Sequence[str] = ()) -> None:
        """Tell a failure: one line, and the fix on a second one, with its steps below."""
        self.err.print(f"[bold red]error:[/bold red] {escape(' '.join(message.split()))}")
        if fix:
            fix = self._pasteable(" ".join(fix.split()))
            self.err.print(f"[bold]fix:[/bold] {escape(fix)}")
        for step in steps:
            self.err.print(f"  {escape(step)}")

    def _pasteable(self, message: str) -> str:
        if self.store is None:
            return message
        words = f" --store {shlex.quote(str(self.store))}"
        return _COMMAND.sub(lambda found: f"`{found[1]}{words}`", message)

    def next(self, commands: Sequence[str]) -> None:
        """Hint at what to type next; for people alone."""
        if self.mode == "human":
            for command in commands:
                self.err.print(f"[dim]next:[/dim] {escape(command)}")

    def data(self, document: Any) -> None:
        """Write a JSON document to stdout, whatever the mode."""
        # Not through rich, which would colour it.
        sys.stdout.write(json_text(document, sys.stdout.encoding) + "\n")

    def line(self, text: str) -> None:
        """Write one line of data to stdout, untouched by markup or wrapping."""
        self.out.print(printable(text), markup=False)

    def artifact(
        self,
        artifact: Artifact,
        *,
        first: tuple[Sequence[Path], str] | None = None,
        next_commands: Sequence[str] = (),
        show: Mapping[str, Any] | None = None,
    ) -> None:
        """Show the artifact that a stage made, or found to be up to date.

        Args:
            artifact: what the stage returned.
            first: files that a person is shown before all else, and what they are.
            next_commands: whole command lines that go on from here.
            show: further results for this screen, e.g. where copies were written.
        """
        extra = dict(show or {})
        if self.mode == "json":
            plain = {k: str(v) if isinstance(v, Path) else v for k, v in extra.items()}
            self.data(summary(artifact) | plain)
            return
        if self.mode == "quiet":
            self.line(artifact.id)
            return
        if first is not None:
            self._files(*first)
        state = "[bold green]made[/bold green]" if artifact.fresh else "[bold]up to date[/bold]"
        self.out.print(f"{state}  {escape(artifact.ref)}  [dim]{artifact.id[:12]}[/dim]")
        # What is listed for a person is what fits a line; the rest is in `show --json`.
        rows = {
            "path": here(artifact.path),
            **{key: short(value) for key, value in artifact.metrics.items() if _brief(value)},
            **{path.name: here(path) for path in pictures(artifact)},
            **{k: here(v) if isinstance(v, Path) else short(v) for k, v in extra.items()},
        }
        self.pairs(rows)
        self.next(next_commands)

    def several(self, artifacts: Sequence[Artifact]) -> None:
        """Several artifacts as one JSON document."""
        self.data({"made": [summary(artifact) for artifact in artifacts]})

    def _files(self, files: Sequence[Path], what: str) -> None:
        """Name files, a line each; of many the folder that they are in."""
        if len(files) > MOST_FILES:
            folder = Path(os.path.commonpath(files))
            self.line(f"{here(folder)}{os.sep}  {len(files)} pictures, {what}")
            return
        for file in files:
            self.line(f"{here(file)}  {what}")

    def pairs(self, rows: Mapping[str, str]) -> None:
        """Write aligned ``name  value`` lines (human mode's small table)."""
        width = max((len(key) for key in rows), default=0)
        for key, value in rows.items():
            self.out.print(f"  [cyan]{escape(key.ljust(width))}[/cyan]  {escape(value)}")

    def record(self, document: Mapping[str, Any], *, identity: str = "") -> None:
        """Show one thing: a JSON object, its id, or aligned lines."""
        if self.mode == "json":
            self.data(document)
        elif self.mode == "quiet":
            if identity:
                self.line(identity)
        else:
            self.pairs({key: short(value) for key, value in document.items()})

    def table(
        self,
        rows: Iterable[Mapping[str, Any]],
        columns: Mapping[str, str],
        *,
        identity: str = "id",
        empty: str = "nothing",
    ) -> None:
        """Show a list of things.

        Args:
            rows: the things, with every field that JSON should hold.
            columns: which fields a person sees, in order, with their headings.
            identity: the field that quiet mode prints.
            empty: what to tell a person when there are no rows.
        """
        rows = list(rows)
        if self.mode == "json":
            self.data(rows)
        elif self.mode == "quiet":
            for row in rows:
                self.line(str(row[identity]))
        elif not rows:
            self.note(empty)
        else:
            table = Table(box=None, pad_edge=False, header_style="bold")
            columns_of = [[printable(short(row.get(key))) for row in rows] for key in columns]
            wide = 0
            for (key, heading), cells in zip(columns.items(), columns_of, strict=True):
                whole = key in WHOLE
                longest = max(map(cell_len, (heading, *cells)))
                wide += (longest if whole else min(longest, NARROWEST)) + 2
                table.add_column(heading, overflow="fold", no_wrap=whole)
            for line in zip(*columns_of, strict=True):
                table.add_row(*map(_markup, line))
            # A terminal may wrap such a line; a reference cut in two could not be copied.
            before = self.out.width
            self.out.width = max(before, wide)
            self.out.print(table, soft_wrap=False)
            self.out.width = before

    def tree(self, tree: Tree, document: Any, identities: Sequence[str]) -> None:
        """Show a tree to a person, ``document`` as JSON, or the ids in it."""
        if self.mode == "json":
            self.data(document)
        elif self.mode == "quiet":
            for identity in identities:
                self.line(identity)
        else:
            self.out.print(tree, soft_wrap=False)

    def plan(self, plan: Mapping[str, Any], before: Sequence[Mapping[str, Any]] = ()) -> None:
        """Show what a dry run would do, after what it would do first.

        Quiet mode writes the cache keys, as far as they are known.
        """
        if self.mode == "json":
            first = {"before": [dict(each) for each in before]} if before else {}
            self.data({**first, "plan": dict(plan)})
            return
        for each in (*before, plan):
            if self.mode == "human":
                verdict = "up to date, nothing to do" if each.get("cached") else "would be made"
                name = escape(f"{each['kind']}/{each['name']}")
                self.out.print(f"[bold]plan[/bold]  {name}  [dim]{verdict}[/dim]")
                rows = {k: v for k, v in _flat(each) if k not in ("kind", "name", "cached")}
                self.pairs({k: short(v) for k, v in rows.items()})
            elif each.get("key"):
                self.line(str(each["key"]))


def _brief(value: Any) -> bool:
    return not isinstance(value, Mapping | list | tuple)


def _flat(plan: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Lay nested parts of a plan out as ``config.size`` and the like."""
    for key, value in plan.items():
        if isinstance(value, Mapping):
            for inner, item in value.items():
                if key == "inputs":
                    item = item["ref"]
                elif inner in ("bytes", "memory_bytes"):
                    item, inner = size(item), inner.removesuffix("_bytes")
                elif inner == "seconds":
                    item, inner = f"about {duration(item)}", "time"
                yield f"{key}.{inner}", item
        else:
            yield key, value
