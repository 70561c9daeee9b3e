"""``dclip train``: a noise-prediction network from a data artifact."""

from __future__ import annotations

from typing import Annotated

from dclip.cli.common import Run, command, switch
from dclip.cli.options import Batch, Data, Name, Precision, Seed, option, ref


@command(
    "dclip train",
    "dclip train --size small --epochs 50 --device cuda",
    "dclip train --network tiny --epochs 10 --batch 30    # the report's network",
    "dclip train --init embedded --images 100000          # go on from another model",
    config="stages.train:TrainConfig",
)
def train(
    run: Run,
    data: Data = None,
    name: Name = None,
    init: Annotated[
        str | None, ref("model", "--init", help="Model whose weights to start from: else fresh.")
    ] = None,
    network: Annotated[str | None, option("--network", metavar="NET", help="unet or tiny.")] = None,
    size: Annotated[
        str | None,
        option("--size", metavar="SIZE", help="U-Net size: micro, laptop, small, medium or large."),
    ] = None,
    schedule: Annotated[
        str | None,
        option("--schedule", metavar="KIND", help="linear-rescaled, linear or cosine."),
    ] = None,
    T: Annotated[
        int | None, option("-T", "--timesteps", metavar="N", help="Diffusion steps.")
    ] = None,
    epochs: Annotated[
        float | None, option("--epochs", metavar="X", help="Passes over the training images.")
    ] = None,
    images: Annotated[
        int | None,
        option("--images", metavar="N", help="Images to see in all, instead of --epochs."),
    ] = None,
    batch: Batch = None,
    accumulate: Annotated[
        int | None, option("--accumulate", metavar="N", help="Batches an update.")
    ] = None,
    lr: Annotated[
        float | None,
        option("--lr", metavar="X", help="Adam's rate: else 5e-4 for unet, 2e-4 for tiny."),
    ] = None,
    decay: Annotated[
        str | None, option("--decay", metavar="KIND", help="cosine: the rate falls; or constant.")
    ] = None,
    ema: Annotated[
        float | None, option("--ema", metavar="X", help="Decay of the weights' average.")
    ] = None,
    max_grad_norm: Annotated[
        float | None, option("--max-grad-norm", metavar="X", help="Limit of the gradient's norm.")
    ] = None,
    flip: Annotated[
        bool | None, switch("--flip/--no-flip", help="Mirror half of the images.")
    ] = None,
    precision: Precision = None,
    storage: Annotated[
        str | None, option("--storage", metavar="KIND", help="Weights on disk: fp32 or fp16.")
    ] = None,
    seed: Seed = None,
) -> None:
    """Train a diffusion model (DDPM noise prediction) on a data artifact.

    Every epoch draws a panel of samples. The same command resumes an interrupted training exactly.
    """
    from dclip.stages import train as stage

    config = run.config(
        stage.TrainConfig,
        data=data,
        name=name,
        init=init,
        network=network,
        size=size,
        schedule=schedule,
        T=T,
        epochs=epochs,
        images=images,
        batch=batch,
        accumulate=accumulate,
        lr=lr,
        decay=decay,
        ema=ema,
        max_grad_norm=max_grad_norm,
        flip=flip,
        precision=precision,
        storage=storage,
        seed=seed,
    )
    run.stage(
        stage.run,
        config,
        next_commands=lambda made: [
            run.hint("sample", "--model", made.name),
            run.hint("invert", "--model", made.name),
        ],
    )
