"""Choosing the device and the precision, and saying what was chosen."""

from __future__ import annotations

import platform
import warnings
from importlib.util import find_spec
from typing import TypeVar

import torch
from torch import nn

from dclip.configs.common import Precision
from dclip.context import Context
from dclip.errors import BadInput

KINDS = ("cpu", "cuda", "mps")
"""The kinds of device that dclip's code was written for."""

COMPILED = 2000
"""Calls of a network from which compiling it pays, see :func:`compile_for_training`."""

M = TypeVar("M", bound=nn.Module)


def pick(context: Context) -> torch.device:
    """The device that a stage works on; says what ``"auto"`` takes, and what torch warns of.

    Float32 is float32 on every device: the shorter TF32 of NVIDIA's GPUs, which would change
    results by about 1e-3, is off. ``--precision bf16`` is the way to be faster.

    Raises:
        BadInput: as :func:`choose`.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        device = choose(context.device)
    for warning in dict.fromkeys(str(each.message).split("\n")[0] for each in caught):
        context.report.warn(warning)  # e.g. of a driver that is too old for this torch
    if context.device == "auto":
        context.report.note(f"using device {describe(device)}")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return device


def choose(device: str = "auto") -> torch.device:
    """The torch device for ``"auto"`` (CUDA, then MPS, then CPU) or a device string.

    Raises:
        BadInput: no device of :data:`KINDS`, or one that this machine or torch build lacks.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as e:
        raise BadInput(f"there is no device {device!r}", "use --device cpu, cuda or mps") from e
    if chosen.type not in KINDS:
        raise BadInput(f"dclip does not run on {chosen.type}", "use --device cpu, cuda or mps")
    try:
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as e:
        if "out of memory" in str(e).lower():
            raise  # it is here, and full
        raise BadInput(f"device {device!r} is not available here", "use --device cpu") from e
    return chosen


def describe(device: torch.device) -> str:
    """The device in words: ``cpu (x86_64, 2 threads)``, ``cuda (NVIDIA H100)``."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"
    return str(device)


ENOUGH = 10 * 2**30
"""Bytes of free GPU memory below which large networks are run in a way that takes less."""


def scarce(device: torch.device) -> bool:
    """Whether a GPU of NVIDIA has less free memory than :data:`ENOUGH`."""
    return device.type == "cuda" and torch.cuda.mem_get_info(device)[0] < ENOUGH


def bf16_is_faster(device: torch.device) -> bool:
    """Whether autocast to bfloat16 makes training faster on the device.

    True on GPUs of NVIDIA that have it (Ampere and later: older ones emulate it, slowly), and on
    CPUs with bfloat16 instructions, where convolutions ran 1.6 times as fast.
    """
    if device.type == "cpu":
        # torch has no public question for it; where the private one is gone, fp32 is right too.
        asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(asked and asked())
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """``"fp32"`` or ``"bf16"``: ``"auto"`` is the one that trains faster on the device."""
    if precision == "auto":
        return "bf16" if bf16_is_faster(device) else "fp32"
    return precision


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Where networks compute in ``"bf16"``; nothing changes within it for ``"fp32"``."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def memory_format(device: torch.device, precision: str) -> torch.memory_format:
    """The layout in which the U-Net's convolutions run fastest.

    Channels last, except in bfloat16 on a CPU: 31 against 43 images a second of the ``laptop`` size
    on one core of an AMD EPYC (27 and 23 in float32).
    """
    if device.type == "cpu" and precision == "bf16":
        return torch.contiguous_format
    return torch.channels_last


def placed(network: M, device: torch.device, precision: Precision = "fp32") -> M:
    """A network on a device, in the layout in which its convolutions run fastest."""
    layout = memory_format(device, precision)
    return network.to(device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


def compile_for_training(network: nn.Module, device: torch.device, calls: int) -> bool:
    """Have torch compile a network whose training is long enough to pay for it.

    On NVIDIA's GPUs the small networks of dclip wait for Python to start their kernels. Compiled,
    a whole pass is one replay of a CUDA graph (``torch.compile``, "reduce-overhead"). Every call
    must then have inputs of the same shapes, and its gradients must be used before the next call.
    ``TORCH_COMPILE_DISABLE=1``, torch's own switch, prevents it.

    Args:
        network: it is compiled in place, and keeps the names of its weights.
        device: where it is.
        calls: how many calls the training makes.

    Returns:
        whether it will be compiled.
    """
    pays = device.type == "cuda" and calls >= COMPILED
    if not pays or find_spec("triton") is None:
        return False
    network.compile(mode="reduce-overhead", dynamic=False)
    return True
