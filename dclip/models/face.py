"""Face recognition networks that users bring."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dclip.errors import BadInput
from dclip.fingerprints import is_file
from dclip.memory import enough_memory, out_of_memory
from dclip.models.face_networks import holds_face_network, read_face_network
from dclip.photos.frames import Frame

Reader = tuple[Callable[[Path], bool], Callable[[Path, Frame], nn.Module]]
"""Whether a file holds weights of an architecture, and how they are read: the file, and where the
pictures that the network is to see have the face."""

KNOWN: dict[str, Reader] = {
    "ArcFace IR-SE50 or MobileFaceNet": (holds_face_network, read_face_network),
}
"""Architectures that dclip has itself, by name: their files hold weights and no program."""

FFHQ = Frame("ffhq")


def load_face_network(
    path: str,
    device: torch.device,
    size: int,
    *,
    frame: Frame = FFHQ,
    trust: bool = False,
) -> nn.Module:
    """A frozen network, pixels (B, 3, H, W) in [-1, 1] to features (B, D).

    A TorchScript file is a program. It runs as soon as it is loaded, and what it may call includes
    writing over files (``torch.from_file``). So one is loaded only where the user trusts it.

    Args:
        path: weights of an architecture in :data:`KNOWN`, or a TorchScript file.
        size: side of the pictures that it is to see; it resizes them itself if it must.
        frame: where those pictures have the face; a TorchScript network has to know it itself.
        trust: whether to load a TorchScript file.

    Raises:
        BadInput: the file is no such network, none for pictures of this size, or a TorchScript file
            that is not trusted.
        DclipError: not enough memory.
    """
    file = Path(path)
    if not is_file(file):
        raise BadInput(f"{path} is no file", "give the file of a face recognition network")
    with enough_memory(f"the face network {path}", "take a smaller one, or --device cpu"):
        # Nothing but a look at its parts before a program is told apart from weights.
        known = () if _is_program(file) else KNOWN.values()
        for holds, read in known:
            if holds(file):
                network = read(file, frame).to(device)
                break
        else:
            network = _torchscript(file, device, trust)
        for parameter in network.parameters():  # a script module has no requires_grad_ of its own
            parameter.requires_grad_(False)
        network.eval()
        _check_features(network, file, device, size)
    return network


def is_torchscript(file: Path) -> bool:
    """Whether a file is a TorchScript program, by its parts; nothing of it is loaded."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    return any("/code/" in name or name.endswith("/constants.pkl") for name in names)


def _is_program(file: Path) -> bool:
    try:
        return is_torchscript(file)
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def _torchscript(file: Path, device: torch.device, trust: bool) -> Any:
    if not _is_program(file):
        kinds = ["a TorchScript network", *(f"weights of {name}" for name in KNOWN)]
        raise BadInput(
            f"{file} is not {' or '.join(kinds)}",
            "save the network with torch.jit.trace(network, example).save(path)",
        )
    if not trust:
        raise BadInput(
            f"{file} is a TorchScript program, which can write over your files when it is loaded",
            "give --trust too if you know where it comes from",
        )
    try:
        return torch.jit.load(str(file), map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as e:
        raise BadInput(
            f"{file} is no TorchScript network ({str(e).splitlines()[0]})",
            "save it with torch.jit.trace(network, example).save(path)",
        ) from e


def _check_features(network: nn.Module, file: Path, device: torch.device, size: int) -> None:
    try:
        with torch.no_grad():
            features = network(torch.zeros(2, 3, size, size, device=device))
        sound = features.ndim == 2 and len(features) == 2
    except (RuntimeError, AttributeError, TypeError, ValueError) as e:
        if out_of_memory(e):
            raise
        sound = False
    if not sound:
        raise BadInput(
            f"{file} does not make features (B, D) of pictures (B, 3, {size}, {size})",
            "trace it with what resizes pictures to its own size in front of it",
        )
