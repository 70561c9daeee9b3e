"""``dclip demo``: the whole pipeline on drawn faces and the embedded models."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dclip.cli import evaluate
from dclip.cli.common import Run, command
from dclip.configs.demo import DemoConfig

if TYPE_CHECKING:
    from dclip.store import Artifact

TABLE = "table.json"
SHOWN = (
    "faces", "success", "identity@1", "gain", "progress", "kept_psnr", "judge_target", "judge_kept",
)  # fmt: skip
COLUMNS = {"strength": "strength", **{name: evaluate.COLUMNS[name] for name in SHOWN}}


@command(
    "dclip demo",
    "dclip demo --target smiling",
    "dclip demo --target cartoon --faces 64 --json",
    config=DemoConfig,
)
def demo(run: Run, config: DemoConfig) -> None:
    """Draw faces, invert them, tune toward a target, edit, and score against the drawn truth.

    It writes a panel, a strip of growing strength and a table. No download is needed; every part of
    it is an ordinary artifact that `dclip ls` lists.
    """
    from dclip.stages import demo as stage

    made = run.stage(
        stage.run,
        config,
        show=lambda made: {TABLE: made.path / TABLE},
        next_commands=lambda made: [
            run.hint("edit", "--data", "demo", "--with", made.name),
        ],
    )
    if made is not None and run.out.mode == "human":
        run.out.table(_strengths(made), COLUMNS, identity="strength")


def _strengths(made: Artifact) -> list[dict[str, Any]]:
    table = json.loads((made.path / TABLE).read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = table["strengths"]
    return rows
