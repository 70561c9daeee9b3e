"""Saving and restoring a training loop: weights, averages, optimizer, counters, in one file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


def save_state(
    path: Path,
    counters: Mapping[str, Any],
    *,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    extra: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> None:
    """Write everything that a loop needs to go on, atomically.

    Args:
        counters: JSON-able numbers, e.g. the step.
        modules: networks by role.
        extra: further tensor dictionaries by role, e.g. an EMA's.
    """
    tensors: dict[str, Tensor] = {}
    for role, module in modules.items():
        tensors |= {f"module/{role}/{k}": v for k, v in module.state_dict().items()}
    for role, values in (extra or {}).items():
        tensors |= {f"extra/{role}/{k}": v for k, v in values.items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{k}": torch.as_tensor(v) for k, v in values.items()}
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    beside = path.with_suffix(".tmp")
    save_file(tensors, beside, metadata={"counters": json.dumps(dict(counters))})
    with beside.open("rb") as f:
        os.fsync(f.fileno())
    beside.replace(path)


def load_state(
    path: Path, *, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]] | None:
    """Restore what :func:`save_state` wrote; None where there is nothing to resume.

    Returns:
        the counters and the extra tensor dictionaries.
    """
    if not path.is_file():
        return None
    groups: dict[str, dict[str, dict[str, Tensor]]] = {"module": {}, "extra": {}, "optimizer": {}}
    with safe_open(path, framework="pt") as f:
        counters = json.loads(f.metadata()["counters"])
        for name in f.keys():  # noqa: SIM118 (safe_open is no mapping)
            group, role, key = name.split("/", 2)
            groups[group].setdefault(role, {})[key] = f.get_tensor(name)
    for role, module in modules.items():
        module.load_state_dict(groups["module"].get(role, {}))
    state = optimizer.state_dict()
    state["state"] = {int(i): values for i, values in groups["optimizer"].items()}
    optimizer.load_state_dict(state)
    return counters, groups["extra"]


class StatsLog:
    """``stats.jsonl``: one JSON object a line, cut back to the checkpoint when a run resumes."""

    def __init__(self, path: Path, keep_steps: int) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            for line in path.read_text().splitlines():
                try:
                    row = json.loads(line)
                except ValueError:  # the line that a kill cut short
                    break
                if row["step"] <= keep_steps:
                    self.rows.append(row)
        # Written beside: a kill in between must not lose rows that the checkpoint counts on.
        beside = path.with_suffix(".tmp")
        beside.write_text("".join(json.dumps(r) + "\n" for r in self.rows))
        beside.replace(path)
        self._file = path.open("a", buffering=1)

    def add(self, **row: Any) -> None:
        """Append a row; it must have ``step``."""
        self.rows.append(row)
        self._file.write(json.dumps(row) + "\n")

    def curve(self, name: str, x: str = "images") -> list[tuple[float, float]]:
        """The (x, value) points of the rows that have ``name``."""
        return [(r[x], r[name]) for r in self.rows if name in r]
