"""``dclip encoder``: what reads prompts for a model."""

from __future__ import annotations

from dclip.cli.common import Run, add, command, group
from dclip.configs.encoder_map import EncoderMapConfig


@command(
    "dclip encoder map",
    "dclip encoder map --from models/bert --data styles --name bert-as-clip",
    "dclip encoder map --from ViT-B-32:openai --to my-model",
    config=EncoderMapConfig,
)
def map_(run: Run, config: EncoderMapConfig) -> None:
    """Fit a linear map from one text encoder's states to those that a model reads.

    The states of the same captions are regressed on each other; no network is trained.
    """
    from dclip.stages import encoder_map as stage

    run.stage(
        stage.run,
        config,
        next_commands=lambda made: [
            run.hint("sample", "--prompt", "a smiling person", "--encoder", made.name)
        ],
    )


encoder = group("Read prompts by another text encoder.", "dclip encoder map --from models/bert")
add(encoder, map_)
