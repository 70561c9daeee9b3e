"""``dclip finetune`` and ``dclip presets``: a base model tuned toward a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dclip.cli.common import Run, command
from dclip.cli.options import (
    LOCALITY,
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
    kind: Annotated[
        str | None,
        option(
            "--kind",
            metavar="KIND",
            help="style, drawing, character, attribute or colour: which settings it takes. Else the"
            " preset's, or style.",
        ),
    ] = None,
    latents: Latents = None,
    clip: Annotated[
        list[str] | None,
        ref(
            "clip",
            "--clip",
            help="CLIP: an artifact, a folder, or open_clip's NAME:TAG. Again for several "
            "together. Else the newest, else the embedded one for drawn faces, ViT-B-32:openai "
            "for photos.",
        ),
    ] = None,
    name: Name = None,
    recipe: Annotated[
        str | None,
        option(
            "--recipe",
            metavar="NAME",
            help="stepwise, one-step, unrolled or simplified: else stepwise for styles and"
            " characters, unrolled for the rest.",
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
    structure: Annotated[
        float | None,
        option("--structure", metavar="X", help="Weight of the identity of local patterns."),
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
    t_min: Annotated[
        float | None,
        option(
            "--t-min",
            metavar="X",
            help="Share of r below which the base decodes alone; 0 for none.",
        ),
    ] = None,
    saturation: Annotated[
        float | None,
        option("--saturation", metavar="X", help="What the CLIP sees of colours: 0 is grey."),
    ] = None,
    goal_scale: Annotated[
        float | None,
        option(
            "--goal-scale", metavar="X", help="How far the edit is to go; each kind has its own."
        ),
    ] = None,
    blur: Annotated[
        float | None,
        option("--blur", metavar="X", help="Most blur of the CLIP's views; 1: half resolution."),
    ] = None,
    locality: Annotated[float | None, option("--locality", metavar="X", help=LOCALITY)] = None,
    scale: Annotated[
        float | None,
        option("--scale", metavar="X", help="Strength 1 is so many times what was tuned."),
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
        kind=kind,
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
        structure=structure,
        batch=batch,
        updates=updates,
        epochs=epochs,
        steps=steps,
        views=views,
        rank=rank,
        t_min=t_min,
        saturation=saturation,
        goal_scale=goal_scale,
        blur=blur,
        locality=locality,
        scale=scale,
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
            run.hint("edit", "photo.jpg", "--with", _named(made)),
            run.hint("grid", "--tuned", _named(made)),
        ],
    )


def _named(made: Artifact) -> str:
    """Its name, with the version where it was made before: a newer one may have the name."""
    return made.name if made.fresh else f"{made.name}/v{made.version}"


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
