"""``dclip invert``: pictures to latents."""

from __future__ import annotations

from typing import Annotated

import typer

from dclip.cli.common import Run, command
from dclip.cli.options import Batch, Data, Model, Name, Seed, option, preset_names


@command(
    "dclip invert",
    "dclip invert --r 100 --steps 50",
    "dclip invert --preset sketch             # as far as that edit is made for",
    "dclip invert --split val --count 0        # every held-out picture",
    "dclip invert --method ddim --name plain     # one network call a step",
    config="stages.invert:InvertConfig",
)
def invert(
    run: Run,
    data: Data = None,
    model: Model = None,
    name: Name = None,
    r: Annotated[
        int | None, option("--r", metavar="N", help="Noise label to invert to, in 1..T: else 50.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            help="Instead: the r of an edit from `dclip presets`.",
            autocompletion=preset_names,
        ),
    ] = None,
    steps: Annotated[
        int | None, option("--steps", metavar="N", help="Steps up to r: else 40, or r if less.")
    ] = None,
    method: Annotated[
        str | None, option("--method", metavar="HOW", help="fixed-point, ddim or simplified.")
    ] = None,
    refinements: Annotated[
        int | None,
        option(
            "--refinements",
            metavar="N",
            help="fixed-point: at most so many network calls a step after the first.",
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        option("--tolerance", metavar="X", help="fixed-point: what a decoded step may miss by."),
    ] = None,
    split: Annotated[
        str | None,
        option(
            "--split", metavar="SPLIT", help="train+val (2/3 and 1/3), train, val, test or all."
        ),
    ] = None,
    count: Annotated[
        int | None, option("--count", metavar="N", help="How many pictures; 0 takes them all.")
    ] = None,
    batch: Batch = None,
    seed: Seed = None,
) -> None:
    """Invert pictures to the latents that a model decodes back to them.

    Each picture's round trip is measured (PSNR, MAE). The same command resumes where it stopped.
    """
    from dclip.stages import invert as stage

    config = run.config(
        stage.InvertConfig,
        data=data,
        model=model,
        name=name,
        r=r,
        preset=preset,
        steps=steps,
        method=method,
        refinements=refinements,
        tolerance=tolerance,
        split=split,
        count=count,
        batch=batch,
        seed=seed,
    )
    run.stage(
        stage.run,
        config,
        next_commands=lambda made: [
            run.hint("finetune", "--target", preset or "sketch", "--latents", made.name)
        ],
    )
