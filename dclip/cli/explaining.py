"""``dclip explain``: how CLIP, DDPM, DDIM and guidance work, on points in the plane."""

from __future__ import annotations

from dclip.cli.common import Run, command
from dclip.configs.explain import ExplainConfig


@command("dclip explain", "dclip explain --seed 1 --name again", config=ExplainConfig)
def explain(run: Run, config: ExplainConfig) -> None:
    """Train a small CLIP and a small denoiser on a spiral, and draw how they work.

    Pictures and an animation, in half a minute; docs/explain.md is the text that goes with them.
    """
    from dclip.stages import explain as stage

    run.stage(stage.run, config)
