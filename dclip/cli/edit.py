"""``dclip edit``: photos in, edited photos out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from dclip.cli.common import Run, command, switch
from dclip.cli.options import option
from dclip.configs.edit import EditConfig
from dclip.errors import BadInput

if TYPE_CHECKING:
    from dclip.store import Artifact


@command(
    "dclip edit photo.jpg --with smiling          # writes photo-smiling.jpg beside it",
    "dclip edit party.jpg --with smiling --face 1,3    # two of its faces, counted from the left",
    "dclip edit group.jpg --face 1 --with smiling --face 2,3 --with old    # each its own edit",
    "dclip edit face.png --with smiling --no-align     # a picture that is cropped already",
    "dclip edit photo.jpg --strength 0.8 --out edited.png",
    "dclip edit photos/ --strength 0.8 --out edited",
    "dclip edit me.jpg you.jpg --strength 0,0.5,1,1.5 --side-by-side",
    "dclip edit photo.png --with sketch:0.8 --with smiling:0.5   # two edits at once",
    "dclip edit photo.png --with sketch@60-100 --with smiling    # sketch at high noise alone",
    "dclip edit stroke.png --with sketch --rounds 2 --no-align   # strokes to a face to a sketch",
    "dclip edit me.jpg --guide 'clip:a smiling person:0.3'    # no tuned model",
    "dclip edit --data celeba --where Smiling=-1 --count 16 --with smiling",
    "dclip edit --data faces --with smiling --make    # drawn faces; minutes on a laptop",
    "dclip edit photo.jpg --with smiling --make --root ~/celeba   # hours: a base is trained",
    "dclip edit photo.jpg --with blond-hair --mask hair.png    # where hair.png is white",
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
            help="Write the pictures to this folder, or one to this file (--force overwrites):"
            " else beside the photos.",
        ),
    ] = None,
    make: Annotated[
        bool,
        switch("--make", help="Make what is missing of a preset's edit: data, base, latents, all."),
    ] = False,
    root: Annotated[
        str | None,
        option(
            "--root",
            metavar="DIR",
            help="With --make: photos to learn from, a folder, CelebA or a data artifact.",
        ),
    ] = None,
) -> None:
    """Edit photos with tuned models, at any strength, one or several together.

    Of a whole photo every face is edited in its place, and all else stays as it is; this needs
    dclip's extra "photos". A picture that is cropped to a face already comes back as large as the
    base model's: 64 pixels a side of the one that comes with dclip, which knows only drawn faces.
    """
    from dclip.editing import results
    from dclip.stages import chain

    if out is not None and results.is_picture(out):
        one = len(config.photos) == 1 and not Path(config.photos[0]).is_dir()
        if not one or len(config.strength) > 1 or config.side_by_side:
            raise BadInput(f"several pictures do not fit in {out}", "name a folder with --out")
    written: list[Path] = []

    def write(made: Artifact) -> None:
        if out is not None:
            overwrite = bool(run.flags.force)
            try:
                copies = results.copy_pictures(made, out, config.photos, overwrite=overwrite)
            except OSError as error:
                raise BadInput(
                    f"nothing can be written to {out}: {error.strerror or error}",
                    f"name another place with --out (the pictures are in {made.path / 'images'})",
                ) from error
            written.extend(copies)
            return
        try:
            written.extend(results.place_pictures(made, config.photos))
        except OSError as error:
            # The work is done and kept; only the copies have no place.
            run.out.warn(
                f"the pictures are in {made.path / 'images'} alone, since nothing can be written"
                f" beside the photos ({error.strerror or error}): see --out"
            )

    def shown(made: Artifact) -> Mapping[str, Any]:
        if run.out.mode != "json":
            return {}
        images = sorted(made.path.glob("images/*"))
        return {
            "images": [str(image) for image in images],
            "written": [str(path) for path in written],
            **({} if out is None else {"out": out}),
        }

    run.stage(
        lambda config, store, context: chain.run_edit(config, store, context, make=make, root=root),
        config,
        ready=write,
        first=lambda made: _first(made, written, results.size_of),
        show=shown,
        # A figure knows tuned models that act together, and neither guides nor rounds.
        next_commands=lambda made: (
            [run.hint("grid", *_with(config), *_at(config), *config.photos)]
            if not config.guide and not config.rounds and len(config.face) < 2
            else []
        ),
    )


def _first(made: Artifact, written: Sequence[Path], size_of: Any) -> tuple[Sequence[Path], str]:
    """The pictures, and how large they are."""
    pictures = written or sorted(made.path.glob("images/*"))
    sizes = {size_of(picture) for picture in pictures}
    width, height = sizes.pop()
    return pictures, "of different sizes" if sizes else f"{width} x {height} pixels"


def _at(config: EditConfig) -> list[str]:
    if config.strength == EditConfig.strength:
        return []
    return ["--strengths", ",".join(f"{s:g}" for s in config.strength)]


def _with(config: EditConfig) -> list[str]:
    return ["--with", "+".join(config.tuned)] if config.tuned else []
