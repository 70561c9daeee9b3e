"""Choosing and describing the device."""

from __future__ import annotations

import torch

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
        raise BadInput(f"device {device!r} is not available here", "use --device cpu") from e
    return chosen
