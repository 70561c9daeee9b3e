"""``dclip doctor``: what a bug report needs, and whether the pieces load."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from dclip import __version__
from dclip.cli.common import Run, command
from dclip.cli.output import size

PACKAGES = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "zarr",
    "safetensors",
    "numpy",
    "pillow",
    "typer",
    "rich",
)
VARIABLES = ("DCLIP_STORE", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "HF_HOME")


@command(
    "dclip doctor",
    "dclip doctor --json > report.json    # attach this to a bug report",
)
def doctor(run: Run) -> None:
    """Check the installation, the machine and the store, for yourself or for a bug report.

    Every check that fails says why; the others stand as they are.
    """
    report, problems = _report(run)
    if run.out.mode == "json":
        run.out.data(report | {"problems": problems})
        return
    run.out.record(report)
    for name in problems:
        run.out.warn(f"{name} does not work")


def _report(run: Run) -> tuple[dict[str, Any], dict[str, str]]:
    """Every check's finding, and those that failed."""
    from importlib import metadata

    checks: dict[str, Callable[[], Any]] = {
        "dclip": lambda: f"{__version__} in {Path(__file__).parents[1]}",
        "python": lambda: f"{platform.python_version()} in {sys.prefix}",
        "system": lambda: f"{platform.system()} {platform.release()} {platform.machine()}",
        **{name: partial(metadata.version, name) for name in PACKAGES},
        "processors": _processors,
        "memory": _memory,
        "torch device": _device,
        "torch threads": _threads,
        "environment": lambda: {k: os.environ[k] for k in VARIABLES if k in os.environ} or "unset",
        "store": lambda: _store(run),
        "store disk": lambda: _disk(run.store_path),
        "embedded model": lambda: _embedded_model(run, "embedded"),
        "embedded text model": lambda: _embedded_model(run, "embedded-text"),
        "embedded clip": lambda: _embedded_clip(run),
        "embedded judge": lambda: _embedded_judge(run),
    }
    report: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name, check in checks.items():
        try:
            report[name] = check()
        except Exception as error:  # a broken piece is a finding here, whatever it raises
            problems[name] = " ".join(f"{type(error).__name__}: {error}".split())
            report[name] = f"FAILED: {problems[name]}"
    return report, problems


def _processors() -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{usable} usable of {os.cpu_count()}"


def _memory() -> str:
    page = os.sysconf("SC_PAGE_SIZE")
    free, total = os.sysconf("SC_AVPHYS_PAGES") * page, os.sysconf("SC_PHYS_PAGES") * page
    return f"{size(free)} free of {size(total)}"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name(0)} (CUDA {torch.version.cuda})"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _disk(path: Path) -> str:
    # The store's folder may not be there yet: the disk is that of the nearest folder that is.
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    usage = shutil.disk_usage(there)
    access = "" if os.access(there, os.W_OK) else ", not writable"
    return f"{size(usage.free)} free of {size(usage.total)}{access}"


def _store(run: Run) -> str:
    path = run.store_path
    if not path.exists():
        return f"{path} (nothing made yet)"
    artifacts = run.store.list()
    kinds = sorted({artifact.kind for artifact in artifacts})
    counts = ", ".join(f"{sum(a.kind == kind for a in artifacts)} {kind}" for kind in kinds)
    return f"{path.absolute()}: {counts or 'empty'}"


def _embedded_model(run: Run, ref: str) -> str:
    artifact = run.store.resolve(ref, "model")
    from dclip.latent.files import load_decoder
    from dclip.models.checkpoint import load_model

    _, info = load_model(artifact.path, latents=True)
    if info.latent is not None:
        load_decoder(artifact.path, "cpu")
    return f"loads ({artifact.id[:12]})"


def _embedded_clip(run: Run) -> str:
    artifact = run.store.resolve("embedded", "clip")
    from dclip.guidance.clip import load_guide

    load_guide(str(artifact.path))
    return f"loads ({artifact.id[:12]})"


def _embedded_judge(run: Run) -> str:
    artifact = run.store.resolve("embedded", "judge")
    from dclip.evaluation.judge import load_judge

    load_judge(artifact.path)
    return f"loads ({artifact.id[:12]})"
