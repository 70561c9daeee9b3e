"""``dclip invert``: pictures to latents."""

from __future__ import annotations

from dclip.cli.common import Run, command
from dclip.configs.invert import InvertConfig


@command(
    "dclip invert",
    "dclip invert --r 100 --steps 50",
    "dclip invert --preset sketch             # as far as that edit is made for",
    "dclip invert --split val --count 0        # every held-out picture",
    "dclip invert --method ddim --name plain     # one network call a step",
    config=InvertConfig,
)
def invert(run: Run, config: InvertConfig) -> None:
    """Invert pictures to the latents that a model decodes back to them.

    Each picture's round trip is measured (PSNR, MAE). The same command resumes where it stopped.
    """
    from dclip.stages import invert as stage

    run.stage(
        stage.run,
        config,
        next_commands=lambda made: [
            run.hint("finetune", "--target", config.preset or "sketch", "--latents", made.name)
        ],
    )
