"""Choosing and describing the device."""

from __future__ import annotations

import torch

from dclip.configs.common import Precision
from dclip.errors import BadInput


def pick(device: str = "auto") -> torch.device:
    """The torch device for ``"auto"`` (CUDA, then MPS, then CPU) or a device string.

    Raises:
        BadInput: a device that this machine or torch build does not have.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as e:
        if "out of memory" in str(e).lower():
            raise  # it is here, and full
        raise BadInput(f"device {device!r} is not available here", "use --device cpu") from e
    return chosen


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
