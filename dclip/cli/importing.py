"""``dclip import``: a pretrained model from elsewhere."""

from __future__ import annotations

from dclip.cli.common import Run, command
from dclip.configs.import_model import ImportConfig


@command(
    "dclip import google/ddpm-celebahq-256                 # needs dclip[hub]",
    "dclip import celeba_hq.ckpt --name celebahq",
    "dclip import afhq_dog_4m.pt --dry-run                 # what it is, and what it costs",
    "dclip import human_neanderthal_t401.pth --base celebahq",
    config=ImportConfig,
)
def import_(run: Run, config: ImportConfig) -> None:
    """Import a pretrained diffusion model, in diffusers', DDPM's or guided-diffusion's format.

    With --base a network or edit that was tuned from it becomes a tuned model. docs/models.md lists
    the files that people have.
    """
    from dclip.stages import import_model as stage

    run.stage(
        stage.run,
        config,
        next_commands=lambda made: [
            run.hint("edit", *run.to_edit(made), "--with", made.name)
            if made.kind == "tuned"
            else run.hint("sample", "--model", made.name)
        ],
    )
