"""``dclip sample``: pictures out of noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dclip.cli.common import Run, command
from dclip.configs.sample import SampleConfig

if TYPE_CHECKING:
    from dclip.store import Artifact


@command(
    "dclip sample",
    "dclip sample --model embedded --count 64 --steps 25",
    'dclip sample --prompt "a pencil sketch of a bald person with glasses"',
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
        next_commands=lambda made: [_next(run, made)],
    )


def _next(run: Run, made: Artifact) -> str:
    inputs = made.manifest.inputs
    if "prompt" in made.config:
        fixed = (f"model={inputs['model']['ref']}", f"prompt={made.config['prompt'][0]}")
        return run.hint("grid", "--x", "cfg=1,2,5,8", *(w for f in fixed for w in ("--fixed", f)))
    if "tuned" in inputs:
        return run.hint("edit", *run.to_edit(made), "--with", inputs["tuned"]["ref"])
    return run.hint("invert", "--model", inputs["model"]["ref"])
