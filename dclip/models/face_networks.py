"""Face recognition networks in the files that people have: ArcFace's IR-SE50 and MobileFaceNet."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dclip.errors import BadInput
from dclip.models.checkpoint import load_weights
from dclip.photos.frames import Frame, similarity

Points = NDArray[np.float64]

MOBILE_POINTS = ((30.2946, 51.6963), (65.5318, 51.5014), (48.0252, 71.7366), (33.5493, 92.3655),
                 (62.7299, 92.2041))  # fmt: skip
"""Where the five points lie in the 112x96 (height, width) pictures of MobileFaceNet's training."""

ARCFACE_CROP = (35, 223, 32, 220)  # rows and columns of a 256x256 face in FFHQ's frame

_WRAPPED = ("net_state_dict", "state_dict", "model_state_dict", "model")
_BLOCKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


class _Inverted(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 linear; added to the input where shapes allow."""

    def __init__(self, inside: int, outside: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inside * expansion
        self.added = stride == 1 and inside == outside
        self.conv = nn.Sequential(
            nn.Conv2d(inside, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.PReLU(wide),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide),
            nn.PReLU(wide), nn.Conv2d(wide, outside, 1, bias=False), nn.BatchNorm2d(outside),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.added else y


class _Conv(nn.Module):
    """Convolution, batch norm, and PReLU unless linear."""

    def __init__(
        self, inside: int, outside: int, kernel: int | tuple[int, int], stride: int = 1,
        padding: int = 0, *, groups: int = 1, linear: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outside)
        self.prelu = nn.Identity() if linear else nn.PReLU(outside)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.prelu(self.bn(self.conv(x)))
        return y


class MobileFaceNet(nn.Module):
    """Chen et al., "MobileFaceNets", 1804.07573: (B, 3, 112, 96) to features (B, 128).

    Pixels are (x - 127.5) / 128 of 0..255. The weights' names are those of the public PyTorch
    checkpoints trained on CASIA-WebFace.
    """

    shape = (112, 96)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _Conv(3, 64, 3, 2, 1)
        self.dw_conv1 = _Conv(64, 64, 3, 1, 1, groups=64)
        blocks, inside = [], 64
        for expansion, outside, count, first in _BLOCKS:
            for number in range(count):
                stride = first if number == 0 else 1
                blocks.append(_Inverted(inside, outside, stride, expansion))
                inside = outside
        self.blocks = nn.Sequential(*blocks)
        self.conv2 = _Conv(128, 512, 1)
        self.linear7 = _Conv(512, 512, (7, 6), groups=512, linear=True)
        self.linear1 = _Conv(512, 128, 1, linear=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.dw_conv1(self.conv1(x)))
        y: Tensor = self.linear1(self.linear7(self.conv2(x)))
        return y.flatten(1)

    def embed(self, x: Tensor) -> Tensor:
        """Features of a face (values in [-1, 1]) and of its mirror image, added: (B, 128)."""
        x = x * (127.5 / 128)
        both: Tensor = self(x) + self(x.flip(-1))
        return both

    def points(self) -> Points:
        """The five points in its pictures, in pixels, as x, y."""
        return np.array(MOBILE_POINTS)


class _Squeeze(nn.Module):
    """Hu et al., "Squeeze-and-Excitation Networks", 1709.01507, reduction 16."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * weights.sigmoid()


class _Residual(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if inside != outside:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inside), nn.Conv2d(inside, outside, 3, 1, 1, bias=False),
            nn.PReLU(outside), nn.Conv2d(outside, outside, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outside), _Squeeze(outside),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return y


class ArcFace(nn.Module):
    """The improved residual network of 50 layers of ArcFace (Deng et al., 1801.07698) with
    squeeze and excitation: (B, 3, 112, 112) in [-1, 1] to features (B, 512).

    The weights' names are those of ``model_ir_se50.pth``, which DiffusionCLIP's identity loss uses.
    """

    shape = (112, 112)

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        body, inside = [], 64
        for outside, count in ((64, 3), (128, 4), (256, 14), (512, 3)):
            for number in range(count):
                body.append(_Residual(inside, outside, 2 if number == 0 else 1))
                inside = outside
        self.body = nn.Sequential(*body)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512), nn.Dropout(0.6), nn.Flatten(), nn.Linear(512 * 7 * 7, 512),
            nn.BatchNorm1d(512),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.output_layer(self.body(self.input_layer(x)))
        return y

    def embed(self, x: Tensor) -> Tensor:
        """Features (B, 512) of faces (B, 3, 112, 112) in [-1, 1]."""
        features: Tensor = self(x)
        return features

    def points(self) -> Points:
        """The five points in its pictures, in pixels: those of FFHQ's mean face under the crop."""
        top, bottom, left, _ = ARCFACE_CROP
        return (Frame("ffhq").points() * 256 - (left, top)) * (112 / (bottom - top))


NETWORKS: Mapping[str, tuple[str, type[MobileFaceNet] | type[ArcFace]]] = {
    "arcface": ("output_layer.3.weight", ArcFace),
    "mobilefacenet": ("linear7.conv.weight", MobileFaceNet),
}
"""A network by name, with a weight that no other one has."""


class FaceFeatures(nn.Module):
    """Unit features of faces in a model's squares, by a recognition network.

    The part of the square that the network knows faces by is cut out by the similarity between
    their five points, here and there; it can be differentiated. ArcFace on FFHQ's frame gets the
    crop that DiffusionCLIP gives it: resized to 256, rows 35 to 223, columns 32 to 220, to 112.

    Args:
        network: one of :data:`NETWORKS`.
        frame: where the squares have the face.

    Raises:
        BadInput: a frame without faces.
    """

    def __init__(self, network: MobileFaceNet | ArcFace, frame: Frame) -> None:
        super().__init__()
        self.network = network
        self.points = frame.points()
        self._published = isinstance(network, ArcFace) and frame.name == "ffhq"

    def forward(self, x: Tensor, points: Points | None = None) -> Tensor:
        """Squares (B, 3, S, S) in [-1, 1] to unit features (B, D).

        Args:
            points: (B, 5, 2) of each face in the unit square, where they are known; else each
                face is taken to be where the frame has the mean one.
        """
        if points is None and self._published:
            top, bottom, left, right = ARCFACE_CROP
            if x.shape[-1] != 256:
                x = F.adaptive_avg_pool2d(x, 256)
            face = F.adaptive_avg_pool2d(x[..., top:bottom, left:right], self.network.shape)
        else:
            face = self._cut(x, self.points[None] if points is None else points)
        return F.normalize(self.network.embed(face), dim=1)

    def _cut(self, x: Tensor, points: Points) -> Tensor:
        """Each face as the network's training had it, (B, 3, *shape)."""
        height, width = self.network.shape
        places = [similarity(self.network.points(), each) for each in points]
        fine = max(1.0, float(np.mean([place.side for place in places])) * x.shape[-1])
        if fine > 1.5:  # a bilinear look-up would skip pixels
            side = max(1, round(x.shape[-1] / fine))
            x = F.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
        # affine_grid's way: from -1..1 over the face to -1..1 over the square.
        rows = []
        for place in places:
            (a, b, c), (d, e, f) = place.matrix
            rows.append(
                [
                    [a * width, b * height, a * width + b * height + 2 * c - 1],
                    [d * width, e * height, d * width + e * height + 2 * f - 1],
                ]
            )
        theta = torch.tensor(rows, dtype=x.dtype, device=x.device).expand(len(x), 2, 3)
        grid = F.affine_grid(theta, [len(x), 3, height, width], align_corners=False)
        return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def read_face_network(path: Path | str, frame: Frame) -> FaceFeatures:
    """A frozen recognition network from ``model_ir_se50.pth``, a MobileFaceNet's file, or the like.

    Which network it is follows from the names of its weights. Pickles are read with torch's
    ``weights_only``, which runs no code.

    Args:
        path: safetensors, or what ``torch.save`` wrote: weights, or a dictionary that holds them.
        frame: where the squares that it will see have the face.

    Raises:
        BadInput: no such file, one that cannot be read, another network, or weights that are
            missing, unknown or misshapen.
    """
    path = Path(path).expanduser()
    weights = _weights(path)
    for mark, network in NETWORKS.values():
        if mark in weights:
            built = network()
            load_weights(built, weights, str(path))
            return FaceFeatures(built, frame).eval().requires_grad_(False)
    raise BadInput(
        f"{path} holds no face network known by the names of its weights",
        f"known are {', '.join(NETWORKS)}; others as TorchScript",
    )


def holds_face_network(path: Path) -> bool:
    """Whether a file holds weights of one of :data:`NETWORKS`."""
    try:
        weights = _weights(path)
    except BadInput:
        return False
    return any(mark in weights for mark, _ in NETWORKS.values())


def _weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise BadInput(f"no such file: {path}", "check the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, ValueError, EOFError,
            KeyError) as error:  # fmt: skip
        lines = str(error).splitlines() or [type(error).__name__]
        raise BadInput(f"{path} cannot be read as weights ({lines[0][:100]})",
                       "save them with safetensors.torch.save_file(state_dict, ...)"
                       ) from error  # fmt: skip
    for name in _WRAPPED:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
            break
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise BadInput(f"{path} holds no weights", "give the file of a network's state_dict")
    return {str(name).removeprefix("module."): value for name, value in found.items()}
