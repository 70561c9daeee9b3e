"""Face recognition networks that users bring."""

from __future__ import annotations

from typing import Any

import torch

from dclip.errors import BadInput


def load_face_network(path: str, device: torch.device, size: int) -> Any:
    """A frozen TorchScript network, pixels (B, 3, H, W) in [-1, 1] to features (B, D).

    Args:
        size: side of the pictures that it is to see; it resizes them itself if it must.

    Raises:
        BadInput: the file is no such network, or none for pictures of this size.
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
    network.eval()
    try:
        features = network(torch.zeros(2, 3, size, size, device=device))
        sound = features.ndim == 2 and len(features) == 2
    except (RuntimeError, AttributeError):
        sound = False
    if not sound:
        raise BadInput(
            f"{path} does not make features (B, D) of pictures (B, 3, {size}, {size})",
            "trace it with what resizes pictures to its own size in front of it",
        )
    return network
