"""``dclip grid``: figures for print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dclip.cli.common import Run, command, switch
from dclip.cli.options import Locality, Name, R, Seed, option, ref


@command(
    "dclip grid",
    "dclip grid photo.jpg --columns original,reconstruction,edit",
    "dclip grid --tuned sketch --tuned smiling --rows 5",
    "dclip grid --columns original,edit --strengths=-0.5,0,0.5,1    # a strip of strengths",
    "dclip grid --columns original,edit --steps 6,20,50",
    "dclip grid --columns original,edit:sketch@0.5,edit:sketch:0.8+smiling --transpose",
    config="stages.grid:GridConfig",
)
def grid(
    run: Run,
    photos: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PHOTO", help="Image files and folders: else held-out photos of --latents."
        ),
    ] = None,
    tuned: Annotated[
        list[str] | None,
        option(
            "--tuned",
            "--with",
            metavar="REF[:X]",
            help="Tuned model, or several joined with +; again for more columns: else the newest.",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        option(
            "--columns",
            metavar="LIST",
            help="Of original, latent, reconstruction, edit, edit:NAME, edit:NAME@STRENGTH.",
        ),
    ] = None,
    rows: Annotated[
        int | None,
        option("--rows", metavar="N", help="How many photos: else 3, or those named, up to 8."),
    ] = None,
    strengths: Annotated[
        str | None,
        option("--strengths", "--strength", metavar="X[,X...]", help="A column each: 0,0.5,1."),
    ] = None,
    steps: Annotated[
        str | None,
        option("--steps", metavar="N[,N...]", help="A column each: else those of the tuning."),
    ] = None,
    latents: Annotated[
        str | None,
        ref("latents", "--latents", help="Latents: else those that the model was tuned on."),
    ] = None,
    r: R = None,
    mix: Annotated[
        str | None, option("--mix", metavar="HOW", help="weights or noise, as in `dclip edit`.")
    ] = None,
    locality: Locality = None,
    direct: Annotated[
        bool | None,
        switch("--direct/--no-direct", help="Take the base's own errors back at every step."),
    ] = None,
    crop: Annotated[
        str | None, option("--crop", metavar="HOW", help="Of photos: center, face, or pixels.")
    ] = None,
    captions: Annotated[
        bool | None, switch("--captions/--no-captions", help="Name the columns.")
    ] = None,
    title: Annotated[str | None, option("--title", metavar="TEXT", help="A heading.")] = None,
    transpose: Annotated[
        bool | None, switch("--transpose", help="Photos beside each other instead of below.")
    ] = None,
    cell: Annotated[
        int | None,
        option(
            "--cell", metavar="N", help="Pixels of a picture's side at 300 dpi: else about 384."
        ),
    ] = None,
    name: Name = None,
    seed: Seed = None,
) -> None:
    """Draw a figure of photos, latents and edits, as PNG and PDF for print (300 dpi)."""
    from dclip.stages import grid as stage

    config = run.config(
        stage.GridConfig,
        photos=photos or None,
        tuned=tuned or None,
        columns=columns,
        rows=rows,
        strengths=strengths,
        steps=steps,
        latents=latents,
        r=r,
        mix=mix,
        locality=locality,
        direct=direct,
        crop=crop,
        captions=captions,
        title=title,
        transpose=transpose,
        cell=cell,
        name=name,
        seed=seed,
    )
    run.stage(stage.run, config)
