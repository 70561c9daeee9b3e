"""``dclip judge``: the network that judges edits and guides none."""

from __future__ import annotations

from typing import Annotated

from dclip.cli.common import Run, add, command, group
from dclip.cli.options import Batch, Name, Precision, Seed, Seen, option, ref


@command(
    "dclip judge train",
    "dclip judge train --data pairs --data styles --images 200000",
    "dclip judge train --data celeba --name celeba-judge",
    config="stages.judge_train:JudgeTrainConfig",
)
def train(
    run: Run,
    data: Annotated[
        list[str] | None,
        ref("data", "--data", help="Data artifact with labels; again for more: else the newest."),
    ] = None,
    name: Name = None,
    images: Seen = None,
    batch: Batch = None,
    lr: Annotated[float | None, option("--lr", metavar="X", help="AdamW's peak rate.")] = None,
    other: Annotated[
        float | None,
        option("--other", metavar="X", help="Share of spoilt pictures, which are of no style."),
    ] = None,
    precision: Precision = None,
    seed: Seed = None,
) -> None:
    """Train a judge of attributes and style on labelled pictures: drawn faces, or CelebA.

    It guides no edit, so that its verdict on one counts.
    """
    from dclip.stages import judge_train as stage

    config = run.config(
        stage.JudgeTrainConfig,
        data=data or None,
        name=name,
        images=images,
        batch=batch,
        lr=lr,
        other=other,
        precision=precision,
        seed=seed,
    )
    run.stage(
        stage.run, config, next_commands=lambda made: [run.hint("eval", "--judge", made.name)]
    )


judge = group("Make the judge that scores the edits.", "dclip judge train")
add(judge, train)
