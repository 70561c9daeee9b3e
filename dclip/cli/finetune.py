"""``dclip finetune`` and ``dclip presets``: a base model tuned toward a text."""

from __future__ import annotations

from typing import Annotated

import typer

from dclip.cli.common import Run, command
from dclip.cli.options import (
    Batch,
    Face,
    Latents,
    Name,
    Precision,
    Seed,
    option,
    preset_names,
    ref,
)


@command(
    "dclip finetune --target sketch",
    "dclip finetune --target 'a person in the rain' --source 'a person' --updates 300",
    "dclip finetune --preset smiling --identity 1.0 --name smile",
    "dclip finetune --target sketch --recipe simplified    # the report's Table 1",
    "dclip finetune --target sketch --clip ViT-B-32:openai",
    "dclip finetune --target sketch --clip ViT-B-32:openai --clip ViT-B-16:openai",
    config="stages.finetune:FinetuneConfig",
)
def finetune(
    run: Run,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="TEXT",
            help="What to see: a prompt, or a preset's name.",
            autocompletion=preset_names,
        ),
    ] = None,
    source: Annotated[
        str | None,
        option(
            "--source",
            metavar="TEXT",
            help="What is there: else a photo of a person. Several, separated by semicolons:"
            " each photo starts from the one that the CLIP sees in it.",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            help="A pair of prompts from `dclip presets`, instead.",
            autocompletion=preset_names,
        ),
    ] = None,
    latents: Latents = None,
    clip: Annotated[
        list[str] | None,
        ref(
            "clip",
            "--clip",
            help="CLIP: an artifact, a folder, or open_clip's NAME:TAG; else the newest, else the "
            "embedded one. Again for several together.",
        ),
    ] = None,
    name: Name = None,
    recipe: Annotated[
        str | None,
        option(
            "--recipe",
            metavar="NAME",
            help="stepwise, one-step, unrolled or simplified: else unrolled for drawings,"
            " stepwise for the rest.",
        ),
    ] = None,
    lr: Annotated[float | None, option("--lr", metavar="X", help="Adam's rate.")] = None,
    direction: Annotated[
        float | None, option("--direction", metavar="X", help="Weight of the directional loss.")
    ] = None,
    goal: Annotated[
        float | None,
        option("--goal", metavar="X", help="Weight of the loss that says how far an edit goes."),
    ] = None,
    identity: Annotated[
        float | None, option("--identity", metavar="X", help="Weight of the identity loss (L1).")
    ] = None,
    colour: Annotated[
        float | None, option("--colour", metavar="X", help="Weight of the identity of colours.")
    ] = None,
    speckle: Annotated[
        float | None, option("--speckle", metavar="X", help="Weight against coloured speckle.")
    ] = None,
    propagation: Annotated[
        float | None,
        option("--propagation", metavar="X", help="Weight for alike pixels to change alike."),
    ] = None,
    grey: Annotated[
        float | None, option("--grey", metavar="X", help="Weight for no colours to be left.")
    ] = None,
    batch: Batch = None,
    updates: Annotated[int | None, option("--updates", metavar="N", help="Updates in all.")] = None,
    epochs: Annotated[
        int | None, option("--epochs", metavar="N", help="Passes over the latents, instead.")
    ] = None,
    steps: Annotated[
        int | None, option("--steps", metavar="N", help="Decode steps in training.")
    ] = None,
    views: Annotated[
        int | None,
        option("--views", metavar="N", help="Augmented views that the CLIP sees; 0 for none."),
    ] = None,
    rank: Annotated[
        int | None, option("--rank", metavar="N", help="Rank of the adapter; 0 tunes every weight.")
    ] = None,
    until: Annotated[
        float | None,
        option(
            "--until",
            metavar="X",
            help="Share of r below which the base decodes alone; 0 for none.",
        ),
    ] = None,
    chroma: Annotated[
        float | None,
        option("--chroma", metavar="X", help="What the CLIP sees of colours: 0 is grey."),
    ] = None,
    reach: Annotated[
        float | None,
        option("--reach", metavar="X", help="How far the edit is to go; each kind has its own."),
    ] = None,
    soften: Annotated[
        float | None,
        option("--soften", metavar="X", help="Most blur of the CLIP's views; 1: half resolution."),
    ] = None,
    decay: Annotated[
        float | None, option("--decay", metavar="X", help="Share of the rate left at the end.")
    ] = None,
    precision: Precision = None,
    face: Face = None,
    face_weight: Annotated[
        float | None, option("--face-weight", metavar="X", help="Weight of the face's identity.")
    ] = None,
    seed: Seed = None,
) -> None:
    """Tune a base model toward a text, on inverted latents.

    What is not given comes from the recipe. Held-out pictures score it as it goes.
    """
    from dclip.stages import finetune as stage

    config = run.config(
        stage.FinetuneConfig,
        target=target,
        source=source,
        preset=preset,
        latents=latents,
        clip=clip or None,
        name=name,
        recipe=recipe,
        lr=lr,
        direction=direction,
        goal=goal,
        identity=identity,
        colour=colour,
        speckle=speckle,
        propagation=propagation,
        grey=grey,
        batch=batch,
        updates=updates,
        epochs=epochs,
        steps=steps,
        views=views,
        rank=rank,
        until=until,
        chroma=chroma,
        reach=reach,
        soften=soften,
        decay=decay,
        precision=precision,
        face=face,
        face_weight=face_weight,
        seed=seed,
    )
    run.stage(
        stage.run,
        config,
        next_commands=lambda made: [
            run.hint("edit", "photo.jpg", "--tuned", made.name),
            run.hint("grid", "--tuned", made.name),
        ],
    )


@command(
    "dclip presets",
    "dclip presets --json",
    'dclip finetune --preset "$(dclip presets -q | head -1)"',
)
def presets(run: Run) -> None:
    """List the presets: names for pairs of prompts."""
    from dclip.guidance.prompts import PRESETS, split_sources

    rows, whole = [], run.out.mode == "json"
    for name, pair in PRESETS.items():
        first, *others = split_sources(pair.source)
        rows.append(
            {
                "name": name,
                "target": pair.target,
                "source": pair.source if whole or not others else f"{first}, or {len(others)} more",
                "kind": pair.kind,
                "r": pair.r,
            }
        )
    columns = {"name": "preset", "source": "from", "target": "to", "kind": "kind", "r": "r of 200"}
    run.out.table(rows, columns, identity="name")
