"""``dclip slider``: an edit by words as a tuned model."""

from __future__ import annotations

from dclip.cli.common import Run, command
from dclip.configs.slider import SliderConfig


@command(
    "dclip slider --prompt smiling",
    "dclip slider --prompt 'blond hair, not black hair' --cfg 3 --name blond",
    "dclip slider --prompt 'a smiling person' --source 'a serious person' --latents photos",
    config=SliderConfig,
)
def slider(run: Run, config: SliderConfig) -> None:
    """Tune a model that reads to its own edit by words.

    The tuned model needs no words: it is asked once a step, where `dclip edit --prompt` asks twice,
    and is combined with others. No CLIP takes part.
    """
    from dclip.stages import slider as stage

    run.stage(
        stage.run,
        config,
        next_commands=lambda made: [
            run.hint("edit", *run.to_edit(made), "--with", made.name),
            run.hint("grid", "--with", made.name),
        ],
    )
