"""What planned work will take: time and memory, from one short measurement on this machine."""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dclip.device import choose
from dclip.errors import DclipError
from dclip.models.checkpoint import ModelInfo, read_info
from dclip.store import Store

MEASURED = 2  # pictures of the measured network call


@dataclass(frozen=True)
class _Work:
    """What of a plan the network decides.

    Attributes:
        info: the network.
        pictures: forward passes in all, counted by picture.
        batch: pictures at a time.
        training: whether each is followed by a backward pass.
        without: what is not counted, in words.
    """

    info: ModelInfo
    pictures: float
    batch: int
    training: bool = False
    without: str = ""


def cost(plan: Mapping[str, Any], store: Store, device: str) -> dict[str, Any]:
    """Seconds and bytes that a planned stage takes at about, for ``train``, ``invert``,
    ``finetune`` and ``edit``; empty for others and for work whose inputs are not made yet.

    One call of the network is timed, on the device that would be used; what its layers put out
    is counted. Reading, writing and the CLIP of a fine-tuning are left out, as the result says.
    """
    if plan.get("cached") or not plan.get("estimate"):
        return {}
    try:
        work = _work(plan, store)
    except DclipError:
        return {}
    if work is None:
        return {}
    seconds, held, weights = _measure(work, choose(device))
    copies = 5 if work.training else 1  # with gradients, Adam's two and the average
    left_out = "; ".join(filter(None, ("reading and writing", work.without)))
    return {
        "seconds": float(f"{seconds * work.pictures:.2g}"),
        "memory_bytes": round(held * work.batch + copies * weights),
        "measured": f"one network call of {MEASURED} pictures here; without {left_out}",
    }


def _work(plan: Mapping[str, Any], store: Store) -> _Work | None:
    config, estimate, stage = plan["config"], plan["estimate"], plan["stage"]
    if stage == "train":
        pictures = estimate["updates"] * config["batch"] * config["accumulate"]
        info = ModelInfo.from_dict(config["model"])
        return _Work(info, pictures, config["batch"], training=True)
    if stage not in ("invert", "finetune", "edit"):
        return None
    used = plan["inputs"]["model"]
    info = read_info(store.resolve(used["id"], "model").path)
    if stage == "invert":
        calls = config["steps"] * (2 + (config.get("refinements") or 0))  # and once to decode
        return _Work(info, config["count"] * calls, config["batch"])
    if stage == "edit":
        calls = estimate["steps"] * (1 + config["refinements"] / 2)
        return _Work(info, calls, min(estimate["photos"], 16))
    # Of the final picture every step counts, and is computed again on the way back.
    deep = config["decode_steps"] * 1.3 if config["recipe"] == "unrolled" else 1.6
    without = "the CLIP and the losses"
    return _Work(info, estimate["images"] * deep, config["batch"], training=True, without=without)


def _measure(work: _Work, device: torch.device) -> tuple[float, float, int]:
    """Seconds and bytes of activations for a picture, and bytes of the weights."""
    network = work.info.build().to(device)
    x = torch.zeros(MEASURED, *work.info.shape, device=device)
    t = torch.ones(MEASURED, dtype=torch.int64, device=device)
    weights = sum(p.numel() * p.element_size() for p in network.parameters())

    def call() -> None:
        if work.training:
            network(x, t).square().mean().backward()
        else:
            with torch.no_grad():
                network(x, t)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    held = _Held(network, keep=work.training)
    call()  # the first call also sets things up, and is not timed
    held.close()
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) / MEASURED, held.most / MEASURED, weights


class _Held:
    """Counts the bytes of layers' outputs that exist at once.

    Args:
        keep: whether all of them stay until the backward pass.
    """

    def __init__(self, network: nn.Module, *, keep: bool) -> None:
        self.keep, self.now, self.most = keep, 0, 0
        leaves = [m for m in network.modules() if not list(m.children())]
        self._hooks = [leaf.register_forward_hook(self._after) for leaf in leaves]

    def _after(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            return
        size = output.numel() * output.element_size()
        self.now += size
        self.most = max(self.most, self.now)
        if not self.keep:
            weakref.finalize(output, self._gone, size)

    def _gone(self, size: int) -> None:
        self.now -= size

    def close(self) -> None:
        """Stop counting."""
        for hook in self._hooks:
            hook.remove()
