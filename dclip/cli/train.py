"""``dclip train``: a noise-prediction network from a data artifact."""

from __future__ import annotations

from dclip.cli.common import Run, command
from dclip.configs.train import TrainConfig


@command(
    "dclip train",
    "dclip train --size small --epochs 50 --device cuda",
    "dclip train --network tiny --epochs 10 --batch 30    # the report's network",
    "dclip train --init embedded --images 100000          # go on from another model",
    config=TrainConfig,
)
def train(run: Run, config: TrainConfig) -> None:
    """Train a diffusion model (DDPM noise prediction) on a data artifact.

    Every epoch draws a panel of samples. The same command resumes an interrupted training exactly.
    """
    from dclip.stages import train as stage

    run.stage(
        stage.run,
        config,
        next_commands=lambda made: [
            run.hint("sample", "--model", made.name),
            run.hint("invert", "--model", made.name),
        ],
    )
