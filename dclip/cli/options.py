"""Options that several stages have, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from dclip.cli.settings import Flags, load_config, store_path


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

    A reference is completed in the form that is being typed: name, name/vN or kind/name/vN.
    """
    found = set()
    for version in root.glob(f"{kind or '*'}/*/v*"):
        ref = version.relative_to(root).as_posix()
        _, name, last = ref.split("/")
        found |= {ref} | ({name, f"{name}/{last}"} if kind else set())
    return sorted(ref for ref in found if ref.startswith(incomplete))


def preset_names(incomplete: str) -> list[str]:
    """List the presets that begin so, for the shell."""
    from dclip.guidance.prompts import PRESETS

    return [name for name in PRESETS if name.startswith(incomplete)]


def ref(kind: str | None, *names: str, help: str) -> Any:
    """An option that names an artifact of ``kind``; the shell completes it."""
    return typer.Option(*names, metavar="REF", help=help, autocompletion=_refs(kind))


def ref_argument(help: str, kind: str | None = None) -> Any:
    """An argument that names an artifact of ``kind``, or of any; the shell completes it."""
    return typer.Argument(metavar="REF", help=help, autocompletion=_refs(kind))


Data = Annotated[str | None, ref("data", "--data", help="Data artifact: else the newest.")]
Model = Annotated[
    str | None, ref("model", "--model", help="Base model: else the newest, else the embedded one.")
]
Latents = Annotated[str | None, ref("latents", "--latents", help="Latents: else the newest.")]
Name = Annotated[str | None, option("--name", metavar="NAME", help="Name of the new artifact.")]
Seed = Annotated[int | None, option("--seed", metavar="N", help="Seed of everything random.")]
Batch = Annotated[int | None, option("--batch", metavar="N", help="Images at once.")]
Precision = Annotated[
    str | None, option("--precision", metavar="KIND", help="fp32, bf16 or auto (the faster).")
]
Face = Annotated[
    Path | None,
    option("--face", metavar="FILE", help="TorchScript face network, for the face's identity."),
]
R = Annotated[
    int | None,
    option("--r", metavar="N", help="Noise label to invert to: else that of the tuning."),
]
StepsEachWay = Annotated[
    int | None, option("--steps", metavar="N", help="Steps each way: else those of the tuning.")
]
Mix = Annotated[
    str | None,
    option("--mix", metavar="HOW", help="weights, or noise: how several models are combined."),
]
LOCALITY = "Below this share of its strongest change an edit shows the photo; 0: the edit alone."
Locality = Annotated[
    float | None, option("--locality", metavar="X", help=f"{LOCALITY} Else as tuned.")
]
Seen = Annotated[int | None, option("--images", metavar="N", help="Pictures to see in all.")]
