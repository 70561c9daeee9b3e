"""``ls``, ``show``, ``lineage``, ``verify``, ``tag``, ``export``, ``rm``, ``gc``: the store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.tree import Tree

from dclip.cli.common import Run, command, switch
from dclip.cli.options import ref_argument
from dclip.cli.output import here, size
from dclip.cli.settings import check_names
from dclip.errors import BadInput, CorruptArtifact, DclipError
from dclip.text import printable

if TYPE_CHECKING:
    from dclip.store import Artifact, Broken, Lineage

Ref = Annotated[str, ref_argument("name, name/v2, name@tag, kind/name/v2, an id, or a folder.")]


def _row(run: Run, artifact: Artifact) -> dict[str, Any]:
    manifest = artifact.manifest
    return {
        "id": artifact.id,
        "ref": artifact.ref,
        "kind": artifact.kind,
        "name": artifact.name,
        "version": artifact.version,
        "tags": _tags(run, artifact),
        "stage": manifest.stage,
        "created": manifest.created,
        "bytes": manifest.size,
        "path": str(artifact.path),
        "state": "sound",
        "about": _about(artifact),
    }


def _about(artifact: Artifact) -> str:
    """What an artifact is of, in a few words: an edit's photo, edit and strengths."""
    config, metrics = artifact.config, artifact.metrics
    if artifact.kind == "edits" and "photo" in metrics:
        strengths = config.get("strength")
        if isinstance(strengths, list):
            strengths = ", ".join(f"{s:g}" if isinstance(s, float) else str(s) for s in strengths)
        return f"{metrics['photo']}: {metrics.get('edit')} at {strengths}"
    if artifact.kind == "tuned":
        return str(config.get("target", ""))
    if artifact.kind == "latents":
        return f"r {config.get('r')}, {config.get('steps')} steps"
    return ""


def _tags(run: Run, artifact: Artifact) -> list[str]:
    """An artifact's tags; where they cannot be read, that is told and nothing else stops."""
    try:
        return list(run.store.tags(artifact))
    except DclipError as error:
        run.report.warn(printable(f"{error.message}; {error.fix}"))
        return []


def _broken_row(broken: Broken) -> dict[str, Any]:
    from dclip.store.files import size_of

    at = broken.at
    return {
        "id": "",
        "ref": at.ref,
        "kind": at.kind,
        "name": at.name,
        "version": at.version,
        "tags": [],
        "stage": "",
        "created": "",
        "bytes": 0 if at.path.is_symlink() else size_of(at.path),
        "path": str(at.path),
        "state": broken.state,
        "about": "",
    }


def _seen(value: Any) -> Any:
    """A value from a manifest as it may be shown: no control character reaches the terminal."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(str(key)): _seen(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_seen(item) for item in value]
    return value


def _record(run: Run, document: dict[str, Any], identity: str) -> None:
    run.out.record(document if run.out.mode == "json" else _seen(document), identity=identity)


@command("dclip ls", "dclip ls tuned", "dclip ls latents -q    # ids alone", "dclip ls --json")
def ls(
    run: Run,
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="[KIND]",
            help="data, model, autoencoder, clip, samples, latents, tuned, edits, figure, judge"
            " or eval; else all",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List the artifacts of the store; those that are corrupt are marked so."""
    from dclip.store import MAKERS, Broken

    if kind is not None:
        check_names([kind], MAKERS, "", "kind of artifact")
    rows = []
    for entry in run.store.entries(kind):
        if isinstance(entry, Broken):
            run.report.warn(printable(f"{entry.error.message}; {entry.error.fix}"))
            rows.append(_broken_row(entry))
        else:
            rows.append(_row(run, entry))
    order = list(MAKERS)  # the pipeline's order
    rows.sort(key=lambda row: order.index(row["kind"]) if row["kind"] in order else len(order))
    if run.out.mode == "quiet":
        rows = [row for row in rows if row["id"]]
    if run.out.mode == "human":
        for row in rows:
            row |= {"id": row["id"][:12] or f"({row['state']})", "bytes": size(row["bytes"])}
            row["created"] = row["created"][:16].replace("T", " ")
    columns = {"ref": "artifact", "id": "id", "tags": "tags", "bytes": "size", "created": "made"}
    if any(row["about"] for row in rows):
        columns |= {"about": "of"}
    made_by = MAKERS.get(kind or "data", "")
    run.out.table(rows, columns, empty=f"nothing here yet: {run.store_path} (try {made_by})")


@command("dclip show tuned/sketch/v2", "dclip show model/faces --json")
def show(run: Run, ref: Ref) -> None:
    """Show an artifact's manifest: configuration, inputs, metrics and files."""
    artifact = run.store.find(ref, check=False)
    manifest = artifact.manifest
    if run.out.mode != "human":
        more = {"ref": artifact.ref, "path": str(artifact.path)}
        document = manifest.to_json() | more | {"tags": _tags(run, artifact)}
        run.out.record(document, identity=artifact.id)
        return
    _record(
        run,
        {
            "artifact": artifact.ref,
            "id": artifact.id,
            "path": here(artifact.path),
            "tags": _tags(run, artifact),
            "made by": f"{manifest.stage} (revision {manifest.revision})",
            "made at": manifest.created[:19].replace("T", " ") + " UTC",
            **{f"made on {name}": value for name, value in manifest.made_on.items()},
            "size": f"{size(manifest.size)} in {len(manifest.files)} files",
            **{f"input {role}": used["ref"] for role, used in manifest.inputs.items()},
            "seed": manifest.seed,
            **{f"config.{name}": value for name, value in manifest.config.items()},
            **{f"metric {name}": value for name, value in manifest.metrics.items()},
            **{f"version of {name}": value for name, value in manifest.versions.items()},
        },
        artifact.id,
    )


@command("dclip lineage tuned/sketch", "dclip lineage edits/photos/v1 --json")
def lineage(run: Run, ref: Ref) -> None:
    """Show what an artifact was made from, as a tree."""
    top = run.store.lineage(ref)
    nodes = list(_walk(top))
    run.out.tree(_tree(top), asdict(top), list(dict.fromkeys(node.id for node in nodes)))


def _walk(node: Lineage) -> Iterator[Lineage]:
    yield node
    for below in node.inputs:
        yield from _walk(below)


def _tree(node: Lineage, tree: Tree | None = None) -> Tree:
    role = f"[dim]{escape(printable(node.role))}:[/dim] " if node.role else ""
    state = "" if node.state == "present" else f" [yellow]({escape(node.state)})[/yellow]"
    label = f"{role}{escape(printable(node.ref))}  [dim]{node.id[:12]}[/dim]{state}"
    branch = Tree(label) if tree is None else tree.add(label)
    for below in node.inputs:
        _tree(below, branch)
    return branch


@command("dclip verify", "dclip verify --full", "dclip verify tuned/sketch/v1 --full --json")
def verify(
    run: Run,
    ref: Annotated[str | None, ref_argument("An artifact: else all of the store.")] = None,
    full: Annotated[
        bool, switch("--full", help="Read every byte and compare SHA-256, not sizes alone.")
    ] = False,
) -> None:
    """Check that artifacts are what their manifests say; exit code 4 if one is not."""
    found = run.store.verify(ref, full=full, report=run.report)
    if run.out.mode == "json":
        run.out.data(asdict(found))
    elif run.out.mode == "quiet":
        for broken in dict.fromkeys(problem.ref for problem in found.problems):
            run.out.line(broken)
    else:
        how = "every byte" if full else "presence and sizes"
        run.out.line(
            f"{found.artifacts} artifacts, {found.files} files, {size(found.bytes)}: {how}"
        )
        for problem in found.problems:
            run.out.line(printable(str(problem)))
    if found.problems:
        broken_refs = list(dict.fromkeys(problem.ref for problem in found.problems))
        noun = "problem" if len(found.problems) == 1 else "problems"
        raise CorruptArtifact(
            f"{len(found.problems)} {noun} in {', '.join(broken_refs[:3])}"
            + (" and others" if len(broken_refs) > 3 else ""),
            fix=f"the command that made it makes a sound version again; `dclip rm {broken_refs[0]}`"
            " removes this one",
        )


@command("dclip tag tuned/sketch/v2 best", "dclip tag tuned/sketch best --delete")
def tag(
    run: Run,
    ref: Ref,
    tag: Annotated[str, typer.Argument(metavar="TAG", help="The tag, for sketch@TAG.")],
    delete: Annotated[bool, switch("--delete", help="Take the tag off instead.")] = False,
) -> None:
    """Give a version a name of its own; a tag that another version of the name had moves."""
    if delete:
        artifact = run.store.find(ref, check=False)
        run.store.untag(ref, tag)
    else:
        artifact = run.store.tag(ref, tag)
    row = _row(run, artifact)
    shown = row if run.out.mode == "json" else {"artifact": artifact.ref, "tags": row["tags"]}
    _record(run, shown, artifact.id)


@command(
    "dclip export tuned/sketch/v2 sketch-model",
    "dclip export tuned/sketch sketch --with-base    # to use it on another machine",
    "dclip export edits/photos results",
    "dclip export celebahq celebahq-diffusers --to diffusers",
    "dclip export base dclip/assets/base --lean",
)
def export(
    run: Run,
    ref: Ref,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")],
    lean: Annotated[
        bool,
        typer.Option("--lean", help="Without logs and pictures; that is an artifact of its own."),
    ] = False,
    with_base: Annotated[
        bool,
        switch("--with-base", help="And the base and CLIPs that it needs; DIR is then a store."),
    ] = False,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="diffusers", help="A base or tuned model for diffusers."),
    ] = None,
) -> None:
    """Copy an artifact out of the store, manifest and all; the copy can be used like it.

    `dclip import DIR` takes it into another store.
    """
    if to is not None:
        _to_diffusers(run, ref, directory, to, lean or with_base)
        return
    from dclip.store import export as copy
    from dclip.store import export_with_base, slim

    if lean and with_base:
        raise BadInput("--lean and --with-base exclude each other", "choose one of them")
    artifact = run.store.find(ref)
    if with_base:
        copied = export_with_base(run.store, artifact, directory)
        document = {
            "artifact": artifact.ref,
            "with": [each.ref for each in copied[1:]],
            "path": str(directory),
            "id": artifact.id,
        }
        _record(run, document, artifact.id)
        return
    path = copy(artifact, directory, lean=lean)
    identity = slim(artifact.manifest).id if lean else artifact.id
    _record(run, {"artifact": artifact.ref, "path": str(path), "id": identity}, identity)


def _to_diffusers(run: Run, ref: str, out: Path, to: str, more: bool) -> None:
    from dclip.models.checkpoint import load_model
    from dclip.models.pretrained.export import to_diffusers
    from dclip.models.tuned import read_deltas

    if to != "diffusers":
        raise BadInput(f"there is no export to {to!r}", "use --to diffusers, or leave it out")
    if more:
        raise BadInput("--to diffusers is a copy of another format", "leave the other options out")
    artifact = run.store.find(ref)
    if artifact.kind not in ("model", "tuned"):
        raise BadInput(f"{artifact.ref} is no model", "name a base or a tuned model")
    base, parts = artifact, []
    if artifact.kind == "tuned":
        base = run.store.input(artifact, "model")
        parts = [(read_deltas(artifact.path, load_model(base.path)[0]), 1.0)]
        if artifact.config.get("t_min"):
            run.report.warn(
                f"{artifact.ref} leaves the timesteps up to {artifact.config['t_min']} to its base;"
                " the exported model acts at all of them"
            )
    to_diffusers(base.path, out, parts)
    _record(run, {"artifact": artifact.ref, "path": str(out), "id": artifact.id}, artifact.id)


@command(
    "dclip rm tuned/sketch/v1", "dclip rm data/old/v1 data/old/v2", "dclip rm faces/v1 --force"
)
def rm(
    run: Run,
    refs: Annotated[
        list[str], ref_argument("What to remove; a bare name means its latest version.")
    ],
    force: Annotated[
        bool | None, switch("--force", help="Remove it although others were made from it.")
    ] = None,
) -> None:
    """Remove versions, corrupt ones too; refused while other artifacts were made from them."""
    # All of them are looked up before any goes; their manifests need not be readable.
    found = dict.fromkeys(run.store.locate(ref).ref for ref in refs)
    removed = []
    try:
        for ref in found:
            removed.append(run.store.remove(ref, force=bool(force)))
    except DclipError:
        for one in removed:
            run.out.note(printable(f"removed {one.ref}"))
        raise
    for one in removed:
        if one.stays:
            run.out.note(printable(f"{one.ref} was a link; its files stay in {one.stays}"))
    _list_freed(run, [{"ref": one.ref, "bytes": one.bytes} for one in removed], "ref", "removed")


@command("dclip gc --dry-run", "dclip gc")
def gc(
    run: Run,
    dry_run: Annotated[
        bool | None, switch("--dry-run", help="Show what would go, and remove nothing.")
    ] = None,
) -> None:
    """Free what interrupted runs and removals left behind; artifacts stay.

    An unfinished run that is collected begins anew instead of resuming.
    """
    found = run.store.gc(dry_run=bool(dry_run))
    for busy in found.busy:
        run.out.note(printable(f"left alone, in work now: {busy}"))
    rows = [
        {"path": str(item.path), "what": item.what, "bytes": item.bytes} for item in found.items
    ]
    _list_freed(run, rows, "path", "would free" if dry_run else "freed")


def _list_freed(run: Run, rows: list[dict[str, Any]], identity: str, verb: str) -> None:
    total = size(sum(row["bytes"] for row in rows))
    if run.out.mode == "human":
        for row in rows:
            row |= _seen(row) | {"bytes": size(row["bytes"])}
    columns = {"ref": "artifact", "what": "what", "path": "path", "bytes": "size"}
    shown = {key: heading for key, heading in columns.items() if rows and key in rows[0]}
    run.out.table(rows, shown, identity=identity, empty="nothing to free")
    if rows:
        run.out.note(f"{verb} {total}")
