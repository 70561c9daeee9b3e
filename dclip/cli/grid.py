"""``dclip grid``: figures for print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from dclip.cli.common import Run, command
from dclip.cli.options import option
from dclip.configs.grid import GridConfig

if TYPE_CHECKING:
    from dclip.store import Artifact


@command(
    "dclip grid",
    "dclip grid photo.jpg --columns original,reconstruction,edit",
    "dclip grid --out figure.pdf",
    "dclip grid --with sketch --with smiling --rows 5",
    "dclip grid --columns original,edit --strengths=-0.5,0,0.5,1    # a strip of strengths",
    "dclip grid --columns original,edit --steps 6,20,50",
    "dclip grid --columns original,edit:sketch@0.5,edit:sketch:0.8+smiling --transpose",
    "dclip grid --x cfg=1,2,5,8 --y seed=0,1,2 --fixed 'prompt=a smiling person'",
    "dclip grid --x steps=5,10,40 --y sampler=ddim,ddpm,dpmpp-2m --fixed model=embedded",
    config=GridConfig,
)
def grid(
    run: Run,
    config: GridConfig,
    out: Annotated[
        Path | None,
        option(
            "--out",
            metavar="FILE",
            help="Write the figure here too: a .pdf, .png or another picture, or a folder for both"
            " (--force overwrites).",
        ),
    ] = None,
) -> None:
    """Draw a figure of photos, latents and edits, as PNG and PDF for print (300 dpi)."""
    from dclip.editing import results
    from dclip.stages import grid as stage

    if out is not None:
        results.check_figure_place(out)
    written: list[Path] = []

    def write(made: Artifact) -> None:
        if out is not None:
            overwrite = bool(run.flags.force)
            written.extend(results.copy_figure(made, out, config.photos, overwrite=overwrite))

    def shown(made: Artifact) -> dict[str, object]:
        return {"written": [str(path) for path in written]} if run.out.mode == "json" else {}

    def first(made: Artifact) -> tuple[list[Path], str]:
        width, height = results.size_of(made.path / "panel.png")
        return written or [made.path / "panel.png"], f"{width} x {height} pixels"

    run.stage(stage.run, config, ready=write, first=first, show=shown)
