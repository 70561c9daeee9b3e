"""Face recognition networks that users bring."""

from __future__ import annotations

from typing import Any

import torch

from dclip.errors import BadInput


def load_face_network(path: str, device: torch.device) -> Any:
    """A frozen TorchScript network, pixels (B, 3, H, W) in [-1, 1] to features (B, D).

    Raises:
        BadInput: the file is no such network.
    """
    try:
        network = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as e:
        raise BadInput(
            f"{path} is no TorchScript network ({str(e).splitlines()[0]})",
            "save it with torch.jit.trace(network, example).save(path)",
        ) from e
    for parameter in network.parameters():  # a script module has no requires_grad_ of its own
        parameter.requires_grad_(False)
    return network.eval()
