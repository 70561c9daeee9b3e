"""``dclip grid``: figures for print."""

from __future__ import annotations

from dclip.cli.common import Run, command
from dclip.configs.grid import GridConfig


@command(
    "dclip grid",
    "dclip grid photo.jpg --columns original,reconstruction,edit",
    "dclip grid --tuned sketch --tuned smiling --rows 5",
    "dclip grid --columns original,edit --strengths=-0.5,0,0.5,1    # a strip of strengths",
    "dclip grid --columns original,edit --steps 6,20,50",
    "dclip grid --columns original,edit:sketch@0.5,edit:sketch:0.8+smiling --transpose",
    config=GridConfig,
)
def grid(run: Run, config: GridConfig) -> None:
    """Draw a figure of photos, latents and edits, as PNG and PDF for print (300 dpi)."""
    from dclip.stages import grid as stage

    run.stage(stage.run, config)
