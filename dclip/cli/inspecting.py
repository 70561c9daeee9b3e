"""``dclip inspect``: what a model works on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dclip.cli.common import Run, command
from dclip.configs.inspect import InspectConfig

if TYPE_CHECKING:
    from dclip.store import Artifact


@command(
    "dclip inspect",
    "dclip inspect photo.jpg --model sd15      # its four latent channels, noised and decoded",
    "dclip inspect --steps 10,40 --train-timesteps 600",
    config=InspectConfig,
)
def inspect(run: Run, config: InspectConfig) -> None:
    """Draw a model's schedule as sigmas, and a picture as the model sees it."""
    from dclip.stages import inspect as stage

    def first(made: Artifact) -> tuple[list[Path], str]:
        names = ("panel.png", "sigmas.png")
        return [made.path / name for name in names if (made.path / name).exists()], ""

    run.stage(stage.run, config, first=first)
