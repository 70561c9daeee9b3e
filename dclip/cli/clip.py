"""``dclip clip``: the CLIP that guides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from dclip.cli.common import Run, add, command, group
from dclip.cli.options import Batch, Data, Name, Precision, Seed, Seen, option


@command(
    "dclip clip train",
    "dclip clip train --data styles --images 400000 --name my-clip",
    config="stages.clip_train:ClipTrainConfig",
)
def train(
    run: Run,
    data: Data = None,
    name: Name = None,
    init: Annotated[
        str | None,
        option(
            "--init", metavar="CLIP", help="CLIP to go on from (folder or NAME:TAG): else fresh."
        ),
    ] = None,
    model: Annotated[
        str | None,
        option("--model", metavar="NAME", help="small, small-convnext, or any open_clip model."),
    ] = None,
    contrasts: Annotated[
        Path | None,
        option(
            "--contrasts", metavar="FILE", help="JSON of contrasts: else those of the attributes."
        ),
    ] = None,
    images: Seen = None,
    batch: Batch = None,
    accumulate: Annotated[
        int | None,
        option("--accumulate", metavar="N", help="Batches an update, told apart together."),
    ] = None,
    lr: Annotated[
        float | None,
        option("--lr", metavar="X", help="AdamW's peak rate: else what suits the CLIP."),
    ] = None,
    radius: Annotated[
        float | None,
        option(
            "--radius",
            metavar="X",
            help="L2 radius of adversarial pictures: 0 for none, else 4 at 64 pixels a side.",
        ),
    ] = None,
    precision: Precision = None,
    seed: Seed = None,
) -> None:
    """Train a CLIP on pictures with captions, in open_clip's own format.

    The attack's schedule and weight decay are set in the config file: section clip.train.
    """
    from dclip.stages import clip_train as stage

    config = run.config(
        stage.ClipTrainConfig,
        data=data,
        name=name,
        init=init,
        model=model,
        contrasts=contrasts,
        images=images,
        batch=batch,
        accumulate=accumulate,
        lr=lr,
        radius=radius,
        precision=precision,
        seed=seed,
    )
    run.stage(
        stage.run,
        config,
        next_commands=lambda made: [
            run.hint("finetune", "--target", "sketch", "--clip", made.name)
        ],
    )


clip = group("Make the CLIP that guides the edits.", "dclip clip train")
add(clip, train)
