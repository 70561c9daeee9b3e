"""``dclip clip``: the CLIP that guides."""

from __future__ import annotations

from dclip.cli.common import Run, add, command, group
from dclip.configs.clip_train import ClipTrainConfig


@command(
    "dclip clip train",
    "dclip clip train --data styles --images 400000 --name my-clip",
    config=ClipTrainConfig,
)
def train(run: Run, config: ClipTrainConfig) -> None:
    """Train a CLIP on pictures with captions, in open_clip's own format.

    The attack's schedule and weight decay are set in the config file: section clip.train.
    """
    from dclip.stages import clip_train as stage

    run.stage(
        stage.run,
        config,
        next_commands=lambda made: [
            run.hint("finetune", "--target", "sketch", "--clip", made.name)
        ],
    )


clip = group("Make the CLIP that guides the edits.", "dclip clip train")
add(clip, train)
