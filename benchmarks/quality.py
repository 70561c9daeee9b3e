"""Edits of held-out drawn faces by the embedded models: every target, every recipe.

    python benchmarks/quality.py                                        # all of it: an hour or more
    python benchmarks/quality.py --targets smiling --recipes stepwise   # a part

Each recipe tunes on the same 64 faces, with the embedded base and CLIP, in a process of its own
whose time and memory are measured, and is scored by `dclip eval` on the same 64 faces that nothing
was trained on. Rows are merged into docs/lab/results.json, so parts add up; the tables between the
markers in docs/lab/results.md and one panel a target (docs/lab/quality-*.jpg) are written from it.
What the store has is not made again. Rows of another base, CLIP or judge than the present ones are
dropped.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dclip.configs.eval import FACES, EvalConfig
from dclip.configs.eval import SEED as EVAL_SEED
from dclip.configs.invert import InvertConfig
from dclip.configs.prepare import PrepareConfig
from dclip.context import Context
from dclip.data import faces
from dclip.data.images import to_uint8
from dclip.device import choose
from dclip.editing.editor import Editor, Networks
from dclip.editing.plan import Part, make_plan
from dclip.errors import MissingArtifact
from dclip.evaluation import samples
from dclip.figures.panel import panel
from dclip.guidance.prompts import PRESETS
from dclip.models.checkpoint import read_info
from dclip.recipes import BY_KIND, RECIPES
from dclip.stages import eval as evaluate
from dclip.stages import invert, prepare
from dclip.store import Artifact, Store, slug

ROOT = Path(__file__).resolve().parents[1]
TARGETS = (
    "sketch", "cartoon", "zombie", "smiling", "not smiling",
    "blond hair", "black hair", "glasses", "no glasses",
)  # fmt: skip
SEED = 77_000  # of the faces to tune on; no shipped model was trained on them
SHOWN = 8
PANEL_BYTES = 60_000
BEGIN, END = "<!-- quality: begin -->", "<!-- quality: end -->"
FIXED = ("model", "clip", "judge")

COLUMNS = {
    "recipe": ("recipe", "text"),
    "success": ("success", "share"),
    "identity@1": ("identity@1", "share"),
    "gain": ("gain", "number"),
    "progress": ("progress", "number"),
    "monotone": ("gain / progress grow", "text"),
    "kept_psnr": ("rest kept, dB", "decibel"),
    "judge_target": ("judge: target", "share"),
    "judge_target_truth": ("of truth", "share"),
    "judge_kept": ("judge: rest kept", "share"),
    "judge_kept_truth": ("of truth", "share"),
    "judge_picture": ("judge: a picture", "share"),
    "s_dir": ("S_dir", "number"),
    "s_dir_held_out": ("held out", "number"),
    "direct_psnr": ("strength 0, dB", "decibel"),
    "locality": ("locality", "number"),
    "updates": ("updates", "count"),
    "tune_seconds": ("fine-tune, s", "decibel"),
    "tune_mb": ("MB", "count"),
    "edit_seconds": ("edit, s", "number"),
    "edit_peak_mb": ("MB", "count"),
}


def latents_for(store: Store, target: str, context: Context) -> Artifact:
    """64 faces to tune on and some to watch, inverted for the target with the embedded base."""
    data = prepare.run(
        PrepareConfig("faces", count=80, seed=SEED, split="80/20", name="quality"),
        store,
        context,
    )
    config = InvertConfig(
        data=data.id, model="embedded", name="quality", preset=target, split="all", count=0
    )
    return invert.run(config, store, context)


def tune(
    store: Store, target: str, recipe: str, latents: Artifact, updates: int | None
) -> tuple[Artifact, dict[str, float]]:
    """Fine-tune in another process; its seconds from start to end and its peak memory in MB."""
    name = f"{slug(target)}-{recipe}"
    command = [
        sys.executable, "-m", "dclip", "--store", str(store.root.resolve()), "finetune",
        "--preset", target, "--latents", latents.id, "--clip", "embedded",
        "--recipe", recipe, "--name", name, "--json",
        *(["--updates", str(updates)] if updates else []),
    ]  # fmt: skip
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    found = json.loads(said)
    cost = {
        "tune_seconds": round(time.monotonic() - started, 1),
        "tune_mb": round(used.ru_maxrss * 1024 / 1e6),
    }
    return store.find(found["ref"]), cost if found["fresh"] else {}


def measure(
    store: Store,
    target: str,
    recipe: str,
    options: Any,
    known: Mapping[str, Any],
    keep: Callable[[dict[str, Any]], None],
) -> None:
    """One row: what `dclip eval` says of one recipe, and what tuning took.

    Args:
        known: the row as it is so far, or empty.
        keep: takes the row, first with what tuning took: that cannot be measured again.
    """
    context = Context()
    latents = latents_for(store, target, context)
    tuned, cost = tune(store, target, recipe, latents, options.updates)
    if not cost and known.get("tuned") == tuned.id:  # made earlier: measured then
        cost = {k: known[k] for k in ("tune_seconds", "tune_mb") if k in known}
    begun = cost | {
        "target": target,
        "recipe": recipe,
        "locality": tuned.config["locality"],
        "updates": tuned.metrics["updates"],
        "tuned": tuned.id,
        **{role: store.resolve("embedded", role).id for role in FIXED},
    }
    keep(begun)
    scored = evaluate.run(
        EvalConfig(
            tuned=(tuned.id,), count=options.faces, held_out=options.held_out,
            strengths=options.strengths, name=f"{slug(target)}-{recipe}",
        ),
        store,
        context,
    )  # fmt: skip
    table = json.loads((scored.path / evaluate.TABLE).read_text(encoding="utf-8"))
    truth = next(row for row in table["rows"] if row["what"] == "truth")
    grows = table["monotone"] or {}
    row = {k: v for k, v in scored.metrics.items() if k in COLUMNS or k == "faces"}
    keep(
        begun
        | row
        | {
            "monotone": " / ".join("yes" if g["mean"] else "no" for g in grows.values()) or None,
            "judge_target_truth": truth.get("judge_target"),
            "judge_kept_truth": truth.get("judge_kept"),
            "eval": scored.id,
        }
    )


def picture(store: Store, target: str, rows: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """A panel of one target: originals, every recipe's edits, and the truth; a JPEG."""
    size = read_info(store.resolve("embedded", "model").path).image_size
    drawn = samples.draw(FACES, EVAL_SEED, size)
    assert drawn.params is not None
    shown = [i for i, p in enumerate(drawn.params) if faces.applicable(p, target)][:SHOWN]
    photos = drawn.originals[shown]
    bands: list[list[NDArray[np.uint8]]] = [[to_uint8(x).numpy() for x in photos]]
    labels = ["original"]
    for row in rows:
        try:
            tuned = store.find(row["tuned"])
        except MissingArtifact:  # made in another store
            continue
        plan = make_plan(store.input(tuned, "model"), [Part(tuned)])
        editor = Editor(plan, Networks(plan.base, choose()))
        edits = editor.decode(editor.invert(photos)).clamp(-1, 1).cpu()
        bands.append([to_uint8(x).numpy() for x in edits])
        labels.append(row["recipe"])
    truths = [faces.truth(drawn.params[i], target, size=size) for i in shown]
    bands.append([np.ascontiguousarray(t.transpose(2, 0, 1)) for t in truths])
    sheet = panel(bands, labels=[*labels, "truth"], title=target, cell=64)
    for quality in range(90, 20, -5):
        held = io.BytesIO()
        sheet.convert("RGB").save(held, "JPEG", quality=quality, optimize=True)
        if len(held.getvalue()) <= PANEL_BYTES:
            break
    file = folder / f"quality-{slug(target)}.jpg"
    file.write_bytes(held.getvalue())
    return file


def cell(value: Any, kind: str) -> str:
    """One cell of a Markdown table."""
    if value is None:
        return "–"
    match kind:
        case "share":
            return f"{value:.0%}".replace("%", " %")
        case "decibel":
            return f"{value:.1f}"
        case "number":
            return f"{value:.2f}"
        case "count":
            return f"{value:.0f}"
    return str(value)


def table(rows: Sequence[Mapping[str, Any]], first: str) -> str:
    """Rows as Markdown; columns in which no row says anything are left out."""
    columns = {
        k: v for k, v in COLUMNS.items() if k != first and any(r.get(k) is not None for r in rows)
    }
    head = [first, "faces", *(heading for heading, _ in columns.values())]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [cell(row.get(key), kind) for key, (_, kind) in columns.items()]
        lines.append("| " + " | ".join([str(row[first]), str(row["faces"]), *cells]) + " |")
    return "\n".join(lines)


def written(rows: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """What stands between the markers."""
    parts = []
    if chosen := [row for row in rows if row["recipe"] == BY_KIND[PRESETS[row["target"]].kind]]:
        parts += ["### Every target, by the default recipe", table(chosen, "target")]
    for target in dict.fromkeys(row["target"] for row in rows):
        own = [row for row in rows if row["target"] == target]
        parts += [f"### {target}", table(own, "recipe")]
        if (folder / (name := f"quality-{slug(target)}.jpg")).is_file():
            parts.append(f"![{target}: originals, edits and truth]({name})")
    return "\n\n".join([BEGIN, *parts, END])


def update(page: Path, text: str) -> None:
    """Put ``text`` between the markers of a page, or at its end where it has none."""
    before = page.read_text(encoding="utf-8") if page.is_file() else "# Results\n"
    if BEGIN in before and END in before:
        head, _, rest = before.partition(BEGIN)
        page.write_text(head + text + rest.partition(END)[2], encoding="utf-8")
    else:
        page.write_text(f"{before.rstrip()}\n\n{text}\n", encoding="utf-8")


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, default=Path("artifacts"))
    parser.add_argument("--docs", type=Path, help="where the results go: else docs/lab/")
    parser.add_argument("--targets", nargs="+", default=TARGETS, choices=TARGETS, metavar="NAME")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--held-out", metavar="CLIP", help="a CLIP that did not guide, for S_dir")
    parser.add_argument("--faces", type=int, default=FACES, help="held-out faces")
    parser.add_argument("--strengths", default=EvalConfig.strengths, help="with commas between")
    parser.add_argument("--updates", type=int, help="of every recipe, for a quick look")
    options = parser.parse_args()
    if options.updates and options.docs is None:
        parser.error("rows of other --updates are not for docs/lab/: say where with --docs")
    options.docs = options.docs or ROOT / "docs" / "lab"
    torch.manual_seed(0)
    store, data = Store(options.store), options.docs / "results.json"
    options.docs.mkdir(parents=True, exist_ok=True)
    found = json.loads(data.read_text(encoding="utf-8")) if data.is_file() else []
    present = {role: store.resolve("embedded", role).id for role in FIXED}
    rows = {
        (row["target"], row["recipe"]): row
        for row in found
        if all(row[role] == present[role] for role in FIXED)
    }
    if len(rows) < len(found):
        print(f"dropped {len(found) - len(rows)} rows of other models", file=sys.stderr)
    for target in options.targets:
        for recipe in options.recipes:
            key = (target, recipe)

            def keep(row: dict[str, Any], key: tuple[str, str] = key) -> None:
                rows[key] = row
                ordered = [rows[t, r] for t in TARGETS for r in RECIPES if (t, r) in rows]
                data.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")

            measure(store, target, recipe, options, rows.get(key, {}), keep)
            # In the tables' own order; rows that a kill left half done come with the next run.
            done = [rows[t, r] for t in TARGETS for r in RECIPES if "eval" in rows.get((t, r), {})]
            own = [row for row in done if row["target"] == target]
            picture(store, target, own, options.docs)
            update(options.docs / "results.md", written(done, options.docs))
            print(table([rows[key]], "recipe"), flush=True)


if __name__ == "__main__":
    main()
