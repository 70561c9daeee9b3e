"""What planned work will take: time and memory, from the network's shapes and one short call.

Memory is counted on tensors without data, and so costs nothing at any size. Seconds are those of a
call on this machine; where the picture is large, of a smaller one, in proportion to its work.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dclip.device import choose
from dclip.errors import DclipError
from dclip.models.checkpoint import ModelInfo, read_info
from dclip.models.tuned import Adapter
from dclip.recipes import recipe
from dclip.store import Store

TIMED_WORK = 4e9  # floating-point operations of the call that is timed, at most
LARGEST_TIMED = 400e6  # parameters: a larger network is not built for a plan
FLOAT = 4  # bytes


@dataclass(frozen=True)
class Work:
    """What of a plan the network decides.

    Attributes:
        info: the network.
        forward: forward calls in all, counted by picture.
        backward: those of them that a backward call follows.
        batch: pictures at a time.
        copies: of the weights: parameters, merged ones, gradients, an optimizer's two moments.
        states: pictures that are held beside them, for each of the batch.
        rank: of an adapter, which has copies of its own; 0 is none.
        without: what is not counted, in words.
    """

    info: ModelInfo
    forward: float
    backward: float = 0
    batch: int = 1
    copies: int = 1
    states: int = 0
    rank: int = 0
    without: str = ""


@dataclass(frozen=True)
class Memory:
    """Bytes that a network takes, counted on its shapes.

    Attributes:
        weights: of its parameters.
        forward: the most of its layers' outputs that exist at once, for a picture.
        held: what a call keeps for its backward call, for a picture.
        flops: floating-point operations of a forward call of a picture.
    """

    weights: int
    forward: int
    held: int
    flops: float

    def of(self, work: Work) -> int:
        """Bytes that planned work holds at most."""
        state = FLOAT * torch.Size(work.info.shape).numel()
        calls = self.held if work.backward else self.forward
        adapter = 4 * _adapter_bytes(work.info, work.rank) if work.rank else 0
        return round(
            work.copies * self.weights + adapter + work.batch * (calls + work.states * state)
        )


def cost(plan: Mapping[str, Any], store: Store, device: str) -> dict[str, Any]:
    """Seconds and bytes that a planned stage takes at about, for ``train``, ``sample``, ``invert``,
    ``finetune``, ``slider``, ``edit`` and ``import`` (there of one network call of one picture);
    empty for others and for work whose inputs are not made yet.

    Reading, writing and the CLIP of a fine-tuning are left out, as the result says.
    """
    if plan.get("cached") or not plan.get("estimate"):
        return {}
    try:
        work = work_of(plan, store)
    except DclipError:
        return {}
    if work is None:
        return {}
    memory = memory_of(work.info)
    left_out = "; ".join(filter(None, ("reading and writing", work.without)))
    found: dict[str, Any] = {}
    timed = "one network call here"
    if memory.weights <= FLOAT * LARGEST_TIMED:
        forward, backward = seconds_of(work, choose(device), memory.flops)
        found["seconds"] = float(f"{forward * work.forward + backward * work.backward:.2g}")
    else:
        timed = "the network's shapes; no time, since so large a network is not built for a plan"
    return found | {
        "memory_bytes": memory.of(work),
        "measured": f"{timed}; without {left_out}",
    }


def work_of(plan: Mapping[str, Any], store: Store) -> Work | None:
    """The network's part of a stage's plan; None where there is none.

    Raises:
        DclipError: an input that cannot be read.
    """
    config, estimate, stage = plan["config"], plan["estimate"], plan["stage"]
    if stage == "train":
        pictures = estimate["updates"] * config["batch"] * config["accumulate"]
        info = ModelInfo.from_dict(config["model"])
        # Parameters, their average, gradients and Adam's two moments.
        return Work(info, pictures, pictures, config["batch"], copies=5)
    if stage == "import" and "model" in config:
        return Work(ModelInfo.from_dict(config["model"]), 1)
    if stage not in ("sample", "invert", "finetune", "slider", "edit"):
        return None
    used = plan["inputs"]["model"]
    info = read_info(store.resolve(used["id"], "model").path)
    if stage == "sample":
        calls = estimate["images"] * estimate["network_calls_per_image"]
        copies = 2 if "tuned" in plan["inputs"] else 1
        return Work(info, calls, batch=min(config["batch"], estimate["images"]), copies=copies)
    if stage == "invert":
        calls = config["steps"] * (2 + (config.get("refinements") or 0))  # and once to decode
        return Work(info, config["count"] * calls, batch=config["batch"])
    if stage == "edit":
        # By words the decode asks the network twice a step.
        calls = estimate["steps"] * (1 + config["refinements"] / 2 + ("prompt" in config))
        return Work(info, calls, batch=min(estimate["photos"], 16), copies=2)
    chosen = recipe(config["recipe"]) if stage == "finetune" else None
    held = chosen.calls.states if chosen else 2  # states and goals
    return Work(
        info,
        estimate["network_calls_forward"],
        estimate["network_calls_backward"],
        config["batch"],
        copies=finetune_copies(config["rank"], chosen.space if chosen else "weights"),
        states=held * config["decode_steps"],
        rank=config["rank"],
        without="the CLIP and the losses",
    )


def finetune_copies(rank: int, space: str = "weights") -> int:
    """How often a fine-tuning holds the weights: the base, the merged ones and their gradients.

    Of all weights (``rank`` 0) also the differences and Adam's two moments; in h-space the base
    alone, beside which a block of it is small.
    """
    if space == "h":
        return 1
    return 3 if rank else 6


def memory_of(info: ModelInfo) -> Memory:
    """The memory of a network, from its shapes: nothing of it is made."""
    with torch.device("meta"):
        network = info.build()
    x = torch.empty(1, *info.shape, device="meta")
    t = torch.ones(1, dtype=torch.int64, device="meta")
    outputs = _Outputs(network)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        _bare_call(network, x, t)
    outputs.close()
    held: dict[int, Tensor] = {}
    own = {p.untyped_storage()._cdata for p in network.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in own:
            held[storage] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        kept = _bare_call(network, x, t)
    del kept
    return Memory(
        sum(p.numel() * p.element_size() for p in network.parameters()),
        outputs.most,
        sum(tensor.untyped_storage().nbytes() for tensor in held.values()),
        float(counter.get_total_flops()),
    )


def _bare_call(network: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """A call of the network itself: what makes eps of its output reads a schedule on the CPU."""
    out: Tensor = getattr(network, "network", network)(x, t)
    return out


def seconds_of(work: Work, device: torch.device, whole: float) -> tuple[float, float]:
    """Seconds of a forward call and of the backward call after it, for a picture.

    Args:
        work: says which network, and whether a backward call follows.
        device: where it is called.
        whole: floating-point operations of a call, :attr:`Memory.flops`.
    """
    info, share = work.info, 1.0
    stride = int(getattr(info.config, "stride", 1))
    while whole * share > TIMED_WORK and info.latent is None:
        side = info.image_size // 2
        if side % stride or side < 16:
            break
        info = replace(info, image_size=side)
        share = memory_of(info).flops / whole
    network = info.build().to(device)
    x = torch.zeros(1, *info.shape, device=device)
    t = torch.ones(1, dtype=torch.int64, device=device)
    forward = backward = 0.0
    for _ in range(2):  # the first call also sets things up
        start = _now(device)
        with torch.set_grad_enabled(bool(work.backward)):
            out = network(x, t)
        middle = _now(device)
        if work.backward:
            out.square().mean().backward()
        forward, backward = middle - start, _now(device) - middle
    return forward / share, backward / share


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _adapter_bytes(info: ModelInfo, rank: int) -> int:
    with torch.device("meta"):
        adapter = Adapter(info.build(), rank)
    return sum(FLOAT * p.numel() for p in adapter.parameters())


class _Outputs:
    """Counts the bytes of layers' outputs that exist at once, without gradients."""

    def __init__(self, network: nn.Module) -> None:
        self.now = self.most = 0
        leaves = [m for m in network.modules() if not list(m.children())]
        self._hooks = [leaf.register_forward_hook(self._after) for leaf in leaves]

    def _after(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            return
        size = output.numel() * output.element_size()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(output, self._gone, size)

    def _gone(self, size: int) -> None:
        self.now -= size

    def close(self) -> None:
        """Stop counting."""
        for hook in self._hooks:
            hook.remove()
