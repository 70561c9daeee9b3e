"""Fine-tuned copies of a pretrained model, e.g. DiffusionCLIP's .pth files, as differences."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dclip.errors import BadInput
from dclip.models.checkpoint import ModelInfo, check_weights
from dclip.models.pretrained import FAMILIES
from dclip.models.pretrained import files as disk
from dclip.models.pretrained.opening import pick
from dclip.models.tuned import Deltas

FARTHEST = 0.5
"""Norm of a difference over that of the base, above which the two were not trained from one
another: fine-tuning moves a network by a few hundredths, and unrelated ones are 1.4 apart."""


def read_differences(file: Path, base: nn.Module, info: ModelInfo) -> Deltas:
    """What a fine-tuned network's weights differ by from its base's.

    Args:
        file: the whole network after fine-tuning, in any family's layout.
        base: ``info.build()``'s network with the base's weights.
        info: what the base is.

    Returns:
        The differences of the weights that changed, float32, by the base's names.

    Raises:
        BadInput: another architecture, or a network that was not tuned from this base.
        CorruptArtifact: a file that is cut off or damaged, NaN or infinity.
    """
    family, tensors, _ = pick(disk.read_tensors(file), str(file))
    named = {info.prefix + k: v for k, v in FAMILIES[family].convert(tensors).items()}
    own = base.state_dict()
    try:
        check_weights(
            {k: v.shape for k, v in own.items()}, {k: v.shape for k, v in named.items()}, "it"
        )
    except BadInput as e:
        raise BadInput(
            f"{file} ({FAMILIES[family].title}) was not tuned from this base: {e.message}",
            "give the base that it was tuned from",
        ) from e
    disk.check_finite(named, str(file))
    deltas, far, size = {}, 0.0, 0.0
    for name, value in own.items():
        difference = named[name].float() - value.float().cpu()
        far += float(difference.square().sum())
        size += float(value.float().square().sum())
        if bool(difference.any()):
            deltas[name] = difference
    if not deltas:
        raise BadInput(f"{file} is the base itself: nothing in it was tuned", "give a tuned file")
    if far > FARTHEST**2 * size:
        raise BadInput(
            f"{file} was not tuned from this base: it is {(far / size) ** 0.5:.2f} of the base's"
            " own norm away",
            f"give the base that it was tuned from (fine-tuning stays below {FARTHEST})",
        )
    return deltas


def save_differences(deltas: Deltas, path: Path) -> None:
    """Write ``delta.safetensors`` as :class:`dclip.models.tuned.Full` does."""
    path.mkdir(parents=True, exist_ok=True)
    plain: dict[str, Tensor] = {
        k: v.detach().to("cpu", torch.float32).contiguous() for k, v in deltas.items()
    }
    save_file(plain, path / "delta.safetensors")
