"""``dclip sample``: pictures out of noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from dclip.cli.common import Run, command
from dclip.cli.options import Batch, Model, Name, Seed, option, ref


@command(
    "dclip sample",
    "dclip sample --model embedded --count 64 --steps 25",
    "dclip sample --sampler ddpm --steps 200",
    "dclip sample --tuned sketch --strength 0.7",
    config="stages.sample:SampleConfig",
)
def sample(
    run: Run,
    model: Model = None,
    tuned: Annotated[
        str | None, ref("tuned", "--tuned", help="Tuned model to draw with, instead of a base.")
    ] = None,
    strength: Annotated[
        float | None,
        option("--strength", metavar="X", help="How much of the tuning: 0 is its base, 1 all."),
    ] = None,
    name: Name = None,
    count: Annotated[int | None, option("--count", metavar="N", help="How many pictures.")] = None,
    sampler: Annotated[
        str | None, option("--sampler", metavar="NAME", help="ddim, or ddpm (ancestral).")
    ] = None,
    steps: Annotated[
        int | None, option("--steps", metavar="N", help="Network calls a picture, in 1..T.")
    ] = None,
    batch: Batch = None,
    seed: Seed = None,
) -> None:
    """Draw pictures from pure noise with a base or a tuned model.

    A picture depends on the seed and its own number: more of them begin with the same ones.
    """
    from dclip.stages import sample as stage

    config = run.config(
        stage.SampleConfig,
        model=model,
        tuned=tuned,
        strength=strength,
        name=name,
        count=count,
        sampler=sampler,
        steps=steps,
        batch=batch,
        seed=seed,
    )
    run.stage(
        stage.run,
        config,
        next_commands=lambda made: [_next(run, made.manifest.inputs)],
    )


def _next(run: Run, inputs: Mapping[str, Mapping[str, str]]) -> str:
    if "tuned" in inputs:
        return run.hint("edit", "photo.jpg", "--with", inputs["tuned"]["ref"])
    return run.hint("invert", "--model", inputs["model"]["ref"])
