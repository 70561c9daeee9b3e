"""``dclip judge``: the network that judges edits and guides none."""

from __future__ import annotations

from dclip.cli.common import Run, add, command, group
from dclip.configs.judge_train import JudgeTrainConfig


@command(
    "dclip judge train",
    "dclip judge train --data pairs --data styles --images 200000",
    "dclip judge train --data celeba --name celeba-judge",
    config=JudgeTrainConfig,
)
def train(run: Run, config: JudgeTrainConfig) -> None:
    """Train a judge of attributes and style on labelled pictures: drawn faces, or CelebA.

    It guides no edit, so that its verdict on one counts.
    """
    from dclip.stages import judge_train as stage

    run.stage(
        stage.run, config, next_commands=lambda made: [run.hint("eval", "--judge", made.name)]
    )


judge = group("Make the judge that scores the edits.", "dclip judge train")
add(judge, train)
