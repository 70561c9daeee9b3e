"""import: a pretrained model from elsewhere as a base, or its tuned copy as a difference."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from dclip.configs.import_model import ImportConfig
from dclip.context import Context
from dclip.errors import BadInput
from dclip.models.checkpoint import ModelInfo, load_model, read_info, save_model
from dclip.models.hspace import HSpaceBlock, HSpaceEdit, is_asyrp, read_asyrp, save_hspace
from dclip.models.pretrained import Asked
from dclip.models.pretrained.differences import read_differences, save_differences
from dclip.models.pretrained.files import SUFFIXES, read_tensors, sha256
from dclip.models.pretrained.opening import Opened, open_source
from dclip.stages.revisions import REVISIONS
from dclip.store import Artifact, Staging, Store, slug
from dclip.store.manifest import MANIFEST

HALF_MOST = torch.finfo(torch.float16).max
PUBLISHED_R = 501
"""DiffusionCLIP's t_0 = 500, whose timesteps count from 0, where a file's name does not say it."""

PUBLISHED_STEPS = 40


def run(config: ImportConfig, store: Store, context: Context = Context()) -> Artifact:
    """Import a pretrained model as a ``model`` artifact, or its tuned copy as a ``tuned`` one.

    What ``dclip export`` wrote is copied in as it is.

    Raises:
        BadInput: a source that is not there or of no known family, or that says too little.
        CorruptArtifact: files that are cut off, missing or damaged.
        MissingArtifact: the base is not in the store.
    """
    folder = Path(config.source).expanduser()
    if holds_artifacts(folder):
        if context.dry_run:
            raise BadInput(f"{folder} was exported by dclip", "leave --dry-run out: it is copied")
        return store.import_artifact(folder, context.report)
    if config.base is not None:
        return _import_tuned(config, store, context)
    opened = _open(config)
    info = opened.info
    assert info.source is not None
    for note in (*opened.notes, _licence(info)):
        context.report.note(note)
    return store.build(
        stage="import",
        revision=REVISIONS["import"],
        kind="model",
        name=config.name or slug(_stem(info.source.id), "model"),
        config={"model": info.to_dict(), "storage": config.storage},
        inputs={},
        seed=0,
        context=context,
        estimate=estimate(info, opened.size) if context.dry_run else None,
        make=lambda staging: _make(staging, opened, config.storage, context),
    )


def holds_artifacts(folder: Path) -> bool:
    """Whether ``dclip export`` wrote a folder: an artifact, or several laid out as a store."""
    try:
        return (folder / MANIFEST).is_file() or any(folder.glob(f"*/*/v*/{MANIFEST}"))
    except (OSError, ValueError):
        return False


def _stem(id: str) -> str:
    """The last part of a path or hub id, without the suffix of a weight file."""
    path = Path(id)
    return path.stem if path.suffix in SUFFIXES else path.name


def _open(config: ImportConfig) -> Opened:
    path = Path(config.source).expanduser()
    if path.is_file() and path.stat().st_size < 64 << 20 and is_asyrp(read_tensors(path)):
        raise BadInput(
            f"{config.source} is one of Asyrp's edits, which change a base model",
            "give the base that it was made for with --base",
        )
    return open_source(config.source, Asked(**config.asked()), config.revision)


def _licence(info: ModelInfo) -> str:
    assert info.source is not None
    if info.source.licence:
        return f"licence, as its card states it: {info.source.licence}"
    return "no model card states a licence: see where the file comes from"


def estimate(info: ModelInfo, size: int) -> dict[str, Any]:
    """What a model costs: parameters, bytes on disk and in memory, work of one network call."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = info.build()
        raw = getattr(network, "network", network)
        raw(torch.empty(1, *info.shape), torch.ones(1, dtype=torch.int64))
    parameters = sum(p.numel() for p in network.parameters())
    return {
        "recognised": f"{info.architecture}, {info.image_size} pixels, T = {info.schedule.T}",
        "parameters": parameters,
        "bytes": size,
        "memory_of_weights": 4 * parameters,
        "gflop_per_network_call": round(counter.get_total_flops() / 1e9, 1),
    }


def _make(staging: Staging, opened: Opened, storage: str, context: Context) -> dict[str, Any]:
    with context.report.task("importing", opened.size, unit="B") as task:
        weights = opened.weights()
        if opened.parts is not None:
            opened.parts.copy(staging.path)
        dtype = None
        if storage == "fp16":
            dtype = torch.float16
            for name, value in weights.items():
                if value.is_floating_point() and float(value.abs().max()) > HALF_MOST:
                    raise BadInput(
                        f"{name} has weights beyond {HALF_MOST:.0f}, the largest number of half"
                        " precision",
                        "import it without --storage fp16",
                    )
        save_model(staging.path, opened.info, weights, dtype=dtype)
        task.advance(opened.size)
    return {"parameters": sum(v.numel() for v in weights.values()), "bytes": opened.size}


# --- tuned sources


def _import_tuned(config: ImportConfig, store: Store, context: Context) -> Artifact:
    base = store.resolve(config.base, "model", context.report)
    info = read_info(base.path)
    file = Path(config.source).expanduser()
    if not file.is_file():
        raise BadInput(f"{config.source} is no file", "give the .pth file of the tuned network")
    data = read_tensors(file)
    make: Callable[[Staging], Mapping[str, Any]]
    settings: dict[str, Any] = {
        "source_file": file.name,
        "sha256": sha256(file),
        "target": slug(file.stem, "edit"),
        "r": _r(config, file.name, info),
        "inversion_steps": PUBLISHED_STEPS,
        "decode_steps": PUBLISHED_STEPS,
        # As the code of DiffusionCLIP and of Asyrp inverts and decodes.
        "grid": "diffusionclip",
        "inversion": "diffusionclip",
    }
    if is_asyrp(data):
        blocks = read_asyrp(data, str(file), config.t_min)
        HSpaceEdit(load_model(base.path)[0], [(block, 1.0) for block in blocks])  # it fits
        settings |= {"method": "asyrp", "t_min": blocks[0].config.t_min}
        make = _keep_blocks(blocks)
    else:
        settings |= {"method": "weights", "t_min": 0}
        make = _keep_differences(file, base, info, context)
    return store.build(
        stage="import",
        revision=REVISIONS["import"],
        kind="tuned",
        name=config.name or slug(file.stem, "tuned"),
        config=settings,
        inputs={"model": base},
        seed=0,
        context=context,
        estimate={"bytes": file.stat().st_size},
        make=make,
    )


def _r(config: ImportConfig, name: str, info: ModelInfo) -> int:
    """The label to invert to: DiffusionCLIP's file names end in their t_0, as in ``..._t401``."""
    said = re.search(r"_t(\d{2,4})(?=[_.])", name)
    return info.schedule.timestep(config.r or (int(said.group(1)) + 1 if said else PUBLISHED_R))


def _keep_blocks(blocks: list[HSpaceBlock]) -> Callable[[Staging], Mapping[str, Any]]:
    def make(staging: Staging) -> Mapping[str, Any]:
        save_hspace(blocks, staging.path)
        return {"parameters": sum(p.numel() for b in blocks for p in b.parameters())}

    return make


def _keep_differences(
    file: Path, base: Artifact, info: ModelInfo, context: Context
) -> Callable[[Staging], Mapping[str, Any]]:
    def make(staging: Staging) -> Mapping[str, Any]:
        with context.report.task("comparing with the base", None, unit="B"):
            deltas = read_differences(file, load_model(base.path)[0], info)
            save_differences(deltas, staging.path)
        norm = sum(float(d.square().sum()) for d in deltas.values()) ** 0.5
        return {"changed": len(deltas), "norm": norm}

    return make
