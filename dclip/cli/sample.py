"""``dclip sample``: pictures out of noise."""

from __future__ import annotations

from collections.abc import Mapping

from dclip.cli.common import Run, command
from dclip.configs.sample import SampleConfig


@command(
    "dclip sample",
    "dclip sample --model embedded --count 64 --steps 25",
    "dclip sample --sampler ddpm --steps 200",
    "dclip sample --tuned sketch --strength 0.7",
    config=SampleConfig,
)
def sample(run: Run, config: SampleConfig) -> None:
    """Draw pictures from pure noise with a base or a tuned model.

    A picture depends on the seed and its own number: more of them begin with the same ones.
    """
    from dclip.stages import sample as stage

    run.stage(
        stage.run,
        config,
        next_commands=lambda made: [_next(run, made.manifest.inputs)],
    )


def _next(run: Run, inputs: Mapping[str, Mapping[str, str]]) -> str:
    if "tuned" in inputs:
        return run.hint("edit", "photo.jpg", "--with", inputs["tuned"]["ref"])
    return run.hint("invert", "--model", inputs["model"]["ref"])
