"""``dclip eval``: scores of a tuned model against truth, a judge and a CLIP that did not guide."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dclip.cli.common import Run, command
from dclip.configs.eval import EvalConfig

if TYPE_CHECKING:
    from dclip.store import Artifact

TABLE = "eval.json"
COLUMNS = {
    "what": "",
    "faces": "faces",
    "success": "success",
    "identity@1": "identity@1",
    "gain": "gain",
    "progress": "progress",
    "kept_psnr": "rest kept, dB",
    "kept_ssim": "rest: SSIM",
    "kept_lpips": "rest: LPIPS",
    "judge_target": "judge: target",
    "judge_kept": "judge: rest kept",
    "judge_picture": "judge: a picture",
    "s_dir": "S_dir",
    "s_dir_held_out": "S_dir held-out",
    "face_similarity": "same face",
    "verified": "same person",
}
QUALITY = {"decode": "decode of strength 0", "mae": "MAE", "psnr": "PSNR, dB", "ssim": "SSIM"}


@command(
    "dclip eval",
    "dclip eval --with sketch --held-out other-clip",
    "dclip eval --with smiling --strengths 0,0.5,1,1.5 --count 32 --json",
    "dclip eval --with smiling --data celeba --where Smiling=-1 --judge celeba-judge",
    "dclip eval --edits sketch                     # edits that `dclip edit` made",
    config=EvalConfig,
)
def eval_(run: Run, config: EvalConfig) -> None:
    """Score a tuned model on held-out pictures: against the truth, a judge and another CLIP.

    Drawn faces have a drawn truth for most presets; the judge's verdict on it and on the originals
    stands beside that on the edits. docs/evaluation.md says what each score means.
    """
    from dclip.stages import eval as stage

    made = run.stage(
        stage.run,
        config,
        show=lambda made: (
            {"table": _table(made)}
            if run.out.mode == "json"
            else {TABLE: made.path / TABLE} | _in_words(_table(made))
        ),
        next_commands=lambda made: [
            run.hint("edit", *run.to_edit(made), "--with", w) for w in config.tuned
        ],
    )
    if made is None or run.out.mode != "human":
        return
    table = _table(made)
    rows = table["rows"]
    run.out.table(rows, _present(rows, COLUMNS), identity="what")
    if quality := [{"decode": k, **v} for k, v in table["reconstruction"].items()]:
        lpips = {"lpips": "LPIPS"} if "lpips" in quality[0] else {}
        run.out.table(quality, QUALITY | lpips, identity="decode")


def _table(made: Artifact) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((made.path / TABLE).read_text(encoding="utf-8"))
    return table


def _present(rows: list[dict[str, Any]], columns: dict[str, str]) -> dict[str, str]:
    """The columns in which some row says something."""
    return {k: head for k, head in columns.items() if any(row.get(k) is not None for row in rows)}


def _in_words(table: dict[str, Any]) -> dict[str, str]:
    return {
        f"{name} grows with strength": (
            f"{'yes' if found['mean'] else 'no'}; for {found['faces']:.0%} of the faces"
        )
        for name, found in (table["monotone"] or {}).items()
    }
