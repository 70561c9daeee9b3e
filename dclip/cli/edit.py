"""``dclip edit``: photos in, edited photos out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from dclip.cli.common import Run, command
from dclip.cli.options import option
from dclip.configs.edit import EditConfig
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
    config=EditConfig,
)
def edit(
    run: Run,
    config: EditConfig,
    out: Annotated[
        Path | None,
        option(
            "--out",
            metavar="PATH",
            help="Copy the pictures to this folder, or one to this file (--force overwrites).",
        ),
    ] = None,
) -> None:
    """Edit photos with tuned models, at any strength, one or several together."""
    from dclip.stages import edit as stage

    if out is not None and stage.is_picture(out):
        one = len(config.photos) == 1 and not Path(config.photos[0]).is_dir()
        if not one or len(config.strength) > 1 or config.side_by_side:
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
        next_commands=lambda made: [run.hint("grid", *_with(config), *_at(config), *config.photos)],
    )


def _at(config: EditConfig) -> list[str]:
    if config.strength == EditConfig.strength:
        return []
    return ["--strengths", ",".join(f"{s:g}" for s in config.strength)]


def _with(config: EditConfig) -> list[str]:
    return ["--with", "+".join(config.tuned)] if config.tuned else []
