"""LPIPS, the perceptual distance of pictures: its network, for scores and as a loss."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal
from urllib.parse import urlparse

import torch
import torch.nn.functional as F
from torch import Tensor

from dclip.errors import BadInput

LPIPS_NETWORK: Literal["alex", "squeeze"] = "alex"
LEAST = 64  # the side of the patches that LPIPS was fitted on


def lpips_weights() -> Path:
    """Where torchvision keeps the ImageNet weights that LPIPS stands on.

    The packages ``lpips`` and torchmetrics read the same file; the weights of its layers' channels
    lie in torchmetrics.
    """
    from torchvision import models

    weights = {
        "alex": models.AlexNet_Weights.IMAGENET1K_V1,
        "squeeze": models.SqueezeNet1_1_Weights.IMAGENET1K_V1,
    }[LPIPS_NETWORK]
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name


def lpips_missing() -> BadInput | None:
    """Why LPIPS cannot be computed, and what to do; None where it can.

    The weights, some 240 MB, are not downloaded without being asked for.
    """
    file = lpips_weights()
    if file.is_file():
        return None
    return BadInput(
        "AlexNet's weights are not on this machine",
        f"copy {file.name} to {file.parent}, or with a connection, "
        "`python -c \"import torchvision; torchvision.models.alexnet(weights='DEFAULT')\"` "
        "fetches them",
    )


def lpips(x: Tensor, reference: Tensor) -> Tensor:
    """LPIPS (Zhang et al. 2018, 1801.03924, equation 1), one value a sample (B,), from 0.

    With AlexNet, as the paper's own code; differentiable in ``x``. Smaller pictures are enlarged to
    :data:`LEAST` pixels, below which AlexNet has no place for its last layers.

    Args:
        x, reference: (B, 3, H, W) in [-1, 1].

    Raises:
        BadInput: the weights are not on this machine.
    """
    network = _network(str(lpips_weights()), str(x.device))
    with torch.autocast(x.device.type, enabled=False):
        distance: Tensor = network(_large(x), _large(reference))
    return distance.flatten()


def _large(x: Tensor) -> Tensor:
    side = min(x.shape[-2:])
    if side >= LEAST:
        return x.float()
    size = [round(each * LEAST / side) for each in x.shape[-2:]]
    return F.interpolate(x.float(), size, mode="bilinear", align_corners=False)


@lru_cache(maxsize=2)
def _network(file: str, device: str) -> Any:
    """The frozen network of the weights in ``file``, read once a process."""
    if missing := lpips_missing():
        raise missing
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    try:
        # torchmetrics would run what a pickle says; this loader takes tensors alone.
        torch.load(file, "cpu", weights_only=True)
        metric = LearnedPerceptualImagePatchSimilarity(net_type=LPIPS_NETWORK)
    except (RuntimeError, OSError, EOFError, ValueError, UnpicklingError) as e:
        raise BadInput(f"{file} holds no weights for LPIPS", "remove it and fetch it again") from e
    return metric.net.to(device).eval().requires_grad_(False)
