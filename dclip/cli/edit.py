"""``dclip edit``: photos in, edited photos out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dclip.cli.common import Run, command, switch
from dclip.cli.options import Locality, Mix, Name, R, Seed, StepsEachWay, option, ref
from dclip.errors import BadInput

if TYPE_CHECKING:
    from dclip.store import Artifact


@command(
    "dclip edit photo.jpg",
    "dclip edit photo.jpg --strength 0.8 --out edited.png",
    "dclip edit photos/ --strength 0.8 --out edited",
    "dclip edit me.jpg you.jpg --strength 0,0.5,1,1.5 --side-by-side",
    "dclip edit photo.png --with sketch:0.8 --with smiling:0.5   # two edits at once",
    "dclip edit photo.png --with sketch@60-100 --with smiling    # sketch at high noise alone",
    "dclip edit --data celeba --where Smiling=-1 --count 16 --with smiling",
    config="stages.edit:EditConfig",
)
def edit(
    run: Run,
    photos: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PHOTO", help="Image files, and folders of them."),
    ] = None,
    tuned: Annotated[
        list[str] | None,
        option(
            "--with",
            "--tuned",
            metavar="REF[:X]",
            help="Tuned model, with a strength after a colon; again for more: else the newest.",
        ),
    ] = None,
    strength: Annotated[
        str | None,
        option(
            "--strength", metavar="X[,X...]", help="How far: 0 is the photo; one or several, 0,0.5."
        ),
    ] = None,
    data: Annotated[
        str | None, ref("data", "--data", help="Data artifact to take photos from, instead.")
    ] = None,
    split: Annotated[
        str | None, option("--split", metavar="SPLIT", help="--data: train, val, test or all.")
    ] = None,
    where: Annotated[
        list[str] | None,
        option("--where", metavar="NAME=X", help="--data: only such samples, as Smiling=-1."),
    ] = None,
    count: Annotated[
        int | None, option("--count", metavar="N", help="--data: how many samples.")
    ] = None,
    crop: Annotated[
        str | None,
        option(
            "--crop",
            metavar="HOW",
            help="center, face, or pixels: else as the model's data was; square ones are whole.",
        ),
    ] = None,
    r: R = None,
    steps: StepsEachWay = None,
    mix: Mix = None,
    locality: Locality = None,
    direct: Annotated[
        bool | None,
        switch("--direct/--no-direct", help="Take the base's own errors back at every step."),
    ] = None,
    side_by_side: Annotated[
        bool | None,
        switch("--side-by-side", help="Also write original, reconstruction and edit in one."),
    ] = None,
    out: Annotated[
        Path | None,
        option(
            "--out",
            metavar="PLACE",
            help="Copy the pictures to this folder, or one to this file (--force overwrites).",
        ),
    ] = None,
    strict: Annotated[
        bool | None, switch("--strict", help="Fail at an unreadable photo instead of skipping it.")
    ] = None,
    name: Name = None,
    seed: Seed = None,
) -> None:
    """Edit photos with tuned models, at any strength, one or several together."""
    from dclip.stages import edit as stage

    config = run.config(
        stage.EditConfig,
        photos=photos or None,
        tuned=tuned or None,
        strength=strength,
        data=data,
        split=split,
        where=where or None,
        count=count,
        crop=crop,
        r=r,
        steps=steps,
        mix=mix,
        locality=locality,
        direct=direct,
        side_by_side=side_by_side,
        strict=strict,
        name=name,
        seed=seed,
    )

    if out is not None and stage.is_picture(out):
        one = len(config.photos) == 1 and not Path(config.photos[0]).is_dir()
        if not one or len(config.strengths) > 1 or config.side_by_side:
            raise BadInput(f"several pictures do not fit in {out}", "name a folder with --out")

    def found(made: Artifact) -> Mapping[str, Any]:
        images = sorted(made.path.glob("images/*"))
        where: dict[str, Any] = {} if out is None else {"out": out}
        if run.out.mode == "json":
            where |= {"images": [str(image) for image in images]}
        elif len(images) == 1:
            where |= {"picture": images[0]}
        else:
            where |= {"pictures": made.path / "images"}
        if out is not None:
            stage.copy_pictures(made, out, overwrite=bool(run.flags.force))
        return where

    run.stage(
        stage.run,
        config,
        show=found,
        next_commands=lambda made: [
            run.hint("grid", *_with(tuned), *_at(strength), *map(str, photos or ()))
        ],
    )


def _at(strength: str | None) -> list[str]:
    return ["--strengths", strength] if strength else []


def _with(tuned: list[str] | None) -> list[str]:
    return ["--tuned", "+".join(tuned)] if tuned else []
