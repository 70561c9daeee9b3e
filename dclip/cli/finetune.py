"""``dclip finetune`` and ``dclip presets``: a base model tuned toward a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from dclip.cli.common import Run, command
from dclip.cli.options import option
from dclip.configs.finetune import FinetuneConfig

if TYPE_CHECKING:
    from dclip.store import Artifact


@command(
    "dclip finetune --target sketch",
    "dclip finetune --target sketch --also smiling --also old    # a model of each",
    "dclip finetune --target 'a person in the rain' --source 'a person' --updates 300",
    "dclip finetune --target 'a person with a hat' --source 'a person' --kind attribute",
    "dclip finetune --preset smiling --identity 0.5 --name smile",
    "dclip finetune --target sketch --recipe simplified    # the report's Table 1",
    "dclip finetune --target sketch --clip ViT-B-32:openai",
    "dclip finetune --target sketch --clip ViT-B-32:openai --clip ViT-B-16:openai",
    config=FinetuneConfig,
)
def finetune(
    run: Run,
    config: FinetuneConfig,
    also: Annotated[
        list[str] | None,
        option(
            "--also",
            metavar="TEXT",
            help="A further target, tuned after the first with the same settings; again for more."
            " --name begins the names of all.",
        ),
    ] = None,
) -> None:
    """Tune a base model toward a text, on inverted latents.

    What is not given comes from the recipe. Held-out pictures score it as it goes.
    """
    from dclip.stages import finetune as stage

    run.stages(
        lambda store, context: stage.run_each(
            stage.for_targets(config, also or ()), store, context
        ),
        next_commands=lambda made: [
            run.hint("edit", *run.to_edit(made), "--with", _named(made)),
            run.hint("grid", "--with", _named(made)),
        ],
    )


def _named(made: Artifact) -> str:
    """Its name, with the version where it was made before: a newer one may have the name."""
    return made.name if made.fresh else f"{made.name}/v{made.version}"
