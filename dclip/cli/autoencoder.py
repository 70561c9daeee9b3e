"""``dclip autoencoder``: between pictures and the latents of latent diffusion."""

from __future__ import annotations

from dclip.cli.common import Run, add, command, group
from dclip.configs.autoencoder_train import AutoencoderTrainConfig


@command(
    "dclip autoencoder train",
    "dclip autoencoder train --data faces-all --images 40000",
    config=AutoencoderTrainConfig,
)
def train(run: Run, config: AutoencoderTrainConfig) -> None:
    """Train an autoencoder: pictures to latents of a quarter of their side, and back.

    A network that denoises latents is trained by `dclip train --latent`.
    """
    from dclip.stages import autoencoder_train as stage

    run.stage(
        stage.run, config, next_commands=lambda made: [run.hint("train", "--latent", made.name)]
    )


autoencoder = group("Make the autoencoder of latent diffusion.", "dclip autoencoder train")
add(autoencoder, train)
