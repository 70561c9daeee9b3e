"""A stage's result on a small fixed input does not change while its revision stays.

``python tests/test_revisions.py`` writes the results of today beside the revisions of today. Raise
the number in ``dclip/stages/revisions.py`` first, where a result has changed on purpose.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pretrained_reference import ddpm_file

from dclip.configs.autoencoder_train import AutoencoderTrainConfig
from dclip.configs.clip_train import ClipTrainConfig
from dclip.configs.edit import EditConfig
from dclip.configs.encoder_map import EncoderMapConfig
from dclip.configs.eval import EvalConfig
from dclip.configs.explain import ExplainConfig
from dclip.configs.finetune import FinetuneConfig
from dclip.configs.grid import GridConfig
from dclip.configs.import_model import ImportConfig
from dclip.configs.inspect import InspectConfig
from dclip.configs.invert import InvertConfig
from dclip.configs.judge_train import JudgeTrainConfig
from dclip.configs.prepare import PrepareConfig
from dclip.configs.sample import SampleConfig
from dclip.configs.slider import SliderConfig
from dclip.configs.train import TrainConfig
from dclip.context import Context
from dclip.data.arrays import ShardReader
from dclip.models.checkpoint import read_weights
from dclip.stages import (
    autoencoder_train,
    clip_train,
    edit,
    encoder_map,
    eval,
    explain,
    finetune,
    grid,
    import_model,
    inspect,
    invert,
    judge_train,
    prepare,
    sample,
    slider,
    train,
)
from dclip.stages.revisions import REVISIONS
from dclip.store import Artifact, Store

KNOWN = Path(__file__).parent / "fixtures" / "revisions.json"
CPU = Context(device="cpu", workers=1)
TOLERANCE = 0.05
"""Relative to the spread of the numbers: what processors differ by after a few updates. A changed
algorithm differs by more, or a change of it by less than this is not seen."""

NOT_LOSSES = ("step", "images", "seconds")
UNTESTED = {"demo": "runs the other stages"}


def summary(artifact: Artifact) -> dict[str, list[float]]:
    """Mean, spread and a few probes of every array, network and picture of an artifact."""
    found = {}
    for path in sorted(artifact.path.rglob("*")):
        name = path.relative_to(artifact.path).as_posix()
        if name.endswith(".zarr/zarr.json"):
            reader = ShardReader(path.parent)
            found[path.parent.name] = _numbers(np.asarray(reader[np.arange(len(reader))]))
        elif path.suffix == ".safetensors":
            weights = read_weights(path)
            flat = [weights[key].float().numpy().ravel() for key in sorted(weights)]
            found[name] = _numbers(np.concatenate(flat))
        elif path.suffix == ".png" and path.parent.name == "images":
            found[name] = _numbers(np.asarray(Image.open(path).convert("RGB")))
        elif name == "logs/stats.jsonl":
            row = json.loads(path.read_text().splitlines()[0])
            found["first losses"] = [
                float(f"{v:.6g}") for k, v in sorted(row.items()) if k not in NOT_LOSSES
            ]
        elif name in ("eval.json", "numbers.json"):
            found[name] = _numbers(np.array(list(_leaves(json.loads(path.read_text())))))
    if artifact.kind == "figure" and not found:
        found["panel.png"] = _numbers(np.asarray(Image.open(artifact.path / "panel.png")))
    return found


def _leaves(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in _leaves(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in _leaves(item)]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


def _numbers(values: np.ndarray) -> list[float]:
    flat = values.astype(np.float64).ravel()
    probes = flat[np.linspace(0, len(flat) - 1, 6).astype(int)]
    return [float(f"{v:.6g}") for v in (flat.mean(), flat.std(), *probes)]


def results(folder: Path, context: Context = CPU) -> dict[str, dict[str, list[float]]]:
    """The summary of each stage's result on a small fixed input."""
    store, made = Store(folder / "store"), {}

    def keep(stage: str, run: Callable[..., Artifact], config: Any) -> Artifact:
        artifact = run(config, store, context)
        made[stage] = summary(artifact)
        return artifact

    keep("prepare", prepare.run, PrepareConfig("faces", count=24, size=16, style="photo"))
    small = {"size": "micro", "T": 20, "images": 48, "batch": 8, "precision": "fp32"}
    keep("train", train.run, TrainConfig(data="faces", **small))
    auto = AutoencoderTrainConfig(data="faces", images=16, batch=8, precision="fp32")
    keep("autoencoder-train", autoencoder_train.run, auto)
    keep("sample", sample.run, SampleConfig(model="faces", count=2, steps=4))
    keep("invert", invert.run, InvertConfig(model="faces", data="faces", r=12, steps=4, count=12))
    words = PrepareConfig("faces", count=48, size=32, style="all", name="words")
    prepare.run(words, store, context)
    clip = ClipTrainConfig(data="words", images=32, batch=16, precision="fp32")
    keep("clip-train", clip_train.run, clip)
    keep("encoder-map", encoder_map.run, EncoderMapConfig(source="embedded", data="words"))
    judge = JudgeTrainConfig(data=("words",), images=64, batch=16, precision="fp32")
    keep("judge-train", judge_train.run, judge)
    tuning = FinetuneConfig(
        target="sketch", clip=("embedded",), updates=2, batch=2, rank=2, precision="fp32"
    )
    keep("finetune", finetune.run, tuning)
    keep("edit", edit.run, EditConfig(data="faces", tuned=("sketch",), count=2))
    keep("grid", grid.run, GridConfig(tuned=("sketch",), rows=2))
    keep("eval", eval.run, EvalConfig(tuned=("sketch",), count=4, strengths="1"))
    reader = TrainConfig(data="faces", name="reader", condition="attributes", **small)
    train.run(reader, store, context)
    read = InvertConfig(model="reader", data="faces", r=12, steps=4, count=8, name="read")
    invert.run(read, store, context)
    words = {"prompt": "smiling", "latents": "read", "updates": 2, "batch": 2, "rank": 2}
    keep("slider", slider.run, SliderConfig(precision="fp32", cfg=4.0, **words))
    keep("explain", explain.run, ExplainConfig(points=60, clip_steps=5, denoiser_steps=5))
    keep("inspect", inspect.run, InspectConfig(model="faces", steps=(4,)))
    source = folder / "small.ckpt"
    torch.save(ddpm_file(), source)
    keep("import", import_model.run, ImportConfig(source=str(source), size=16))
    return made


def test_no_result_changes_while_its_revision_stays(tmp_path: Path) -> None:
    known = json.loads(KNOWN.read_text())
    assert known["revisions"] == REVISIONS, f"run `python {Path(__file__).name}` and commit"
    now = results(tmp_path)
    assert set(now) | set(UNTESTED) == set(REVISIONS)
    for stage, files in known["results"].items():
        assert now[stage].keys() == files.keys(), stage
        for name, numbers in files.items():
            pairs = list(zip(now[stage][name], numbers, strict=True))
            if name == "first losses":  # made before the first update, so nearly exact
                moved = max(abs(a - b) / max(abs(b), 1e-3) for a, b in pairs)
                allowed = TOLERANCE / 10
            else:
                moved = max(abs(a - b) for a, b in pairs)
                allowed = TOLERANCE * max(abs(numbers[1]), 1e-3)
            assert moved <= allowed, (
                f"the result of {stage} has changed ({name}): raise REVISIONS[{stage!r}]"
            )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        document = {"revisions": REVISIONS, "results": results(Path(folder))}
    KNOWN.write_text(json.dumps(document, indent=1) + "\n")
    sys.stdout.write(f"wrote {KNOWN}\n")
