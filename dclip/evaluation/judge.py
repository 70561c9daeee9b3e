"""The judge: a small network that names attributes and style, and guides nothing.

A CLIP that guided an edit scores it too high. The judge has another design than every CLIP here
(depthwise convolutions with squeeze-and-excitation after MobileNetV3, Howard et al. 2019,
1905.02244), learns from labels instead of texts, and has a class for damaged pictures, so that they
do not pass for edits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Le, Len, MultipleOf
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dclip.config import from_dict, settings, to_dict
from dclip.errors import BadInput, CorruptArtifact

OTHER = "other"
"""The class of pictures of no style: noise, blotches, tints, blends."""

WEIGHTS, SETTINGS = "judge.safetensors", "judge.json"
BATCH = 64

Numbers = NDArray[np.float64]


@settings
class JudgeShape:
    """What a judge is, beside its weights.

    Attributes:
        attributes: names of the attributes, one logit each.
        styles: names of the styles, :data:`OTHER` last; empty where the data has no styles.
        size: side of the pictures that it takes.
        widths: channels at a half, a quarter and an eighth of that.
        blocks: blocks of each.

    Raises:
        BadInput: no attributes and no styles, or a size that cannot be halved three times.
    """

    attributes: tuple[str, ...]
    styles: tuple[str, ...]
    size: Annotated[int, Ge(8), MultipleOf(8), Le(4096)]
    widths: Annotated[tuple[Annotated[int, Ge(1), Le(4096)], ...], Len(3, 3)] = (24, 56, 120)
    blocks: Annotated[tuple[Annotated[int, Ge(0), Le(64)], ...], Len(3, 3)] = (1, 3, 5)

    def __post_init__(self) -> None:
        if not self.attributes and not self.styles:
            raise BadInput("a judge needs attributes or styles")


class _Block(nn.Module):
    """Depthwise 3x3, squeeze-and-excitation, pointwise; residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        squeezed = max(8, width // 4)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.squeeze = nn.Conv2d(width, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, width, 1)
        self.pointwise = nn.Conv2d(width, width, 1, bias=False)
        self.out = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.norm(self.depthwise(x)))
        gate = torch.sigmoid(self.excite(F.silu(self.squeeze(h.mean((2, 3), keepdim=True)))))
        out: Tensor = x + self.out(self.pointwise(h * gate))
        return out


# Kernel and padding of the strided convolutions: wide at the pixels, where channels are few, narrow
# where a wide one would have most of the weights.
_STRIDED = ((5, 2), (3, 1), (2, 0))


class JudgeNetwork(nn.Module):
    """Pixels (B, 3, size, size) in [-1, 1] to logits (B, attributes + styles)."""

    def __init__(self, shape: JudgeShape) -> None:
        super().__init__()
        self.shape = shape
        layers: list[nn.Module] = []
        before = 3
        stages = zip(shape.widths, shape.blocks, _STRIDED, strict=True)
        for width, count, (kernel, padding) in stages:
            layers.append(nn.Conv2d(before, width, kernel, 2, padding, bias=False))
            layers += [nn.BatchNorm2d(width), nn.SiLU(), *(_Block(width) for _ in range(count))]
            before = width
        self.body = nn.Sequential(*layers)
        # Mean and maximum: a style is everywhere, glasses are in one place.
        self.head = nn.Linear(2 * before, len(shape.attributes) + len(shape.styles))

    def features(self, x: Tensor) -> Tensor:
        """What the head sees, (B, 2 * widths[-1])."""
        h = F.silu(self.body(x))
        return torch.cat([h.mean((2, 3)), h.amax((2, 3))], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


@dataclass(frozen=True)
class Verdict:
    """What a judge says of N pictures.

    Attributes:
        names: of the attributes.
        attributes: probability of each, (N, len(names)).
        style_names: of the styles, :data:`OTHER` last; empty where it knows none.
        styles: probability of each, (N, len(style_names)), rows that sum to 1.
    """

    names: tuple[str, ...]
    attributes: Numbers
    style_names: tuple[str, ...]
    styles: Numbers

    def attribute(self, name: str) -> Numbers:
        """Probability of an attribute, (N,); raises BadInput for one that it does not know."""
        return self.attributes[:, _index(name, self.names, "attribute")]

    def style(self, name: str) -> Numbers:
        """Probability of a style, (N,); raises BadInput for one that it does not know."""
        return self.styles[:, _index(name, self.style_names, "style")]

    @property
    def named_styles(self) -> list[str]:
        """The likeliest style of each picture; empty where it knows none."""
        if not self.style_names:
            return []
        return [self.style_names[i] for i in self.styles.argmax(1)]


def _index(name: str, names: Sequence[str], what: str) -> int:
    if name not in names:
        raise BadInput(
            f"the judge knows no {what} {name!r}", f"it knows {', '.join(names) or 'none'}"
        )
    return list(names).index(name)


def joined(verdicts: Sequence[Verdict]) -> Verdict:
    """One judge's verdicts on several batches of pictures, one or more, joined."""
    first = verdicts[0]
    return Verdict(
        first.names,
        np.concatenate([each.attributes for each in verdicts]),
        first.style_names,
        np.concatenate([each.styles for each in verdicts]),
    )


class Judge:
    """A trained judge, frozen. Call it with pixels (N, 3, H, W) in [-1, 1], of any size."""

    def __init__(self, network: JudgeNetwork) -> None:
        self.network = network.eval().requires_grad_(False)
        self.shape = network.shape

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Verdict:
        """Judge pictures (N, 3, H, W) in [-1, 1]; what lies outside is clipped."""
        count = len(self.shape.attributes)
        parts = [self.network(x).cpu().double() for x in self._batches(pixels)]
        logits = torch.cat(parts) if parts else torch.empty(0, count + len(self.shape.styles))
        return Verdict(
            self.shape.attributes,
            logits[:, :count].sigmoid().numpy(),
            self.shape.styles,
            logits[:, count:].softmax(1).numpy(),
        )

    @torch.no_grad()
    def features(self, pixels: Tensor) -> Numbers:
        """What it judges by, (N, 2 * widths[-1]), for distances between sets of pictures."""
        parts = [self.network.features(x).cpu().double() for x in self._batches(pixels)]
        return torch.cat(parts).numpy() if parts else np.empty((0, self.network.head.in_features))

    def _batches(self, pixels: Tensor) -> Iterator[Tensor]:
        size, weight = self.shape.size, self.network.head.weight
        for x in torch.split(pixels, BATCH):
            x = x.to(weight.device, weight.dtype).clamp(-1, 1)
            if x.shape[-2:] != (size, size):
                x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
            yield x


def save_judge(path: Path, network: JudgeNetwork) -> None:
    """Write ``judge.safetensors`` (float16) and ``judge.json`` into a folder."""
    weights = {
        k: (v.half() if v.is_floating_point() else v).detach().cpu().contiguous()
        for k, v in network.state_dict().items()
        if not k.endswith("num_batches_tracked")  # momentum is fixed: nothing reads it
    }
    save_file(weights, path / WEIGHTS)
    (path / SETTINGS).write_text(json.dumps(to_dict(network.shape), indent=1) + "\n")


def load_judge(path: Path | str, device: str | torch.device = "cpu") -> Judge:
    """The judge in an artifact's folder, in float32.

    Raises:
        CorruptArtifact: the folder does not hold a judge, or its weights do not fit.
    """
    folder = Path(path)
    try:
        settings: dict[str, Any] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        network = JudgeNetwork(from_dict(JudgeShape, settings))
        weights = {k: v.float() for k, v in load_file(folder / WEIGHTS).items()}
        lacking = network.load_state_dict(weights, strict=False)
        bad = [k for k in lacking.missing_keys if not k.endswith("num_batches_tracked")]
        if bad or lacking.unexpected_keys:
            raise ValueError(f"weights {', '.join(bad + lacking.unexpected_keys)}")
    except (OSError, ValueError, RuntimeError, SafetensorError, BadInput) as e:
        said = (str(e).splitlines() or [""])[0]
        raise CorruptArtifact(f"{folder} holds no judge ({said})", "train or fetch it again") from e
    return Judge(network.to(device))
