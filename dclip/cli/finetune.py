"""``dclip finetune`` and ``dclip presets``: a base model tuned toward a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dclip.cli.common import Run, command
from dclip.configs.finetune import FinetuneConfig

if TYPE_CHECKING:
    from dclip.store import Artifact


@command(
    "dclip finetune --target sketch",
    "dclip finetune --target 'a person in the rain' --source 'a person' --updates 300",
    "dclip finetune --target 'a person with a hat' --source 'a person' --kind attribute",
    "dclip finetune --preset smiling --identity 0.5 --name smile",
    "dclip finetune --target sketch --recipe simplified    # the report's Table 1",
    "dclip finetune --target sketch --clip ViT-B-32:openai",
    "dclip finetune --target sketch --clip ViT-B-32:openai --clip ViT-B-16:openai",
    config=FinetuneConfig,
)
def finetune(run: Run, config: FinetuneConfig) -> None:
    """Tune a base model toward a text, on inverted latents.

    What is not given comes from the recipe. Held-out pictures score it as it goes.
    """
    from dclip.stages import finetune as stage

    run.stage(
        stage.run,
        config,
        next_commands=lambda made: [
            run.hint("edit", *run.to_edit(made), "--with", _named(made)),
            run.hint("grid", "--with", _named(made)),
        ],
    )


def _named(made: Artifact) -> str:
    """Its name, with the version where it was made before: a newer one may have the name."""
    return made.name if made.fresh else f"{made.name}/v{made.version}"
