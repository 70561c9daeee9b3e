"""Tuned models: weight differences to a base, as low-rank adapters or in full.

A difference times a strength scales the edit, and a sum of differences combines edits (after LoRA,
Hu et al. 2021, 2106.09685, and Concept Sliders, Gandikota et al. 2023, 2311.12092).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dclip.diffusion.network import ByTimestep, EpsModel
from dclip.errors import BadInput, CorruptArtifact
from dclip.models.checkpoint import load_weights, read_weights
from dclip.models.prediction import bare

Deltas = dict[str, Tensor]
"""Weight differences by parameter name, each shaped like its parameter."""


class Adapter(nn.Module):
    """Trainable low-rank differences for the convolution and linear weights of a network.

    A weight (out, in, k, k) gets ``up @ down`` with ``down`` (rank, in * k * k), random at first,
    and ``up`` (out, rank), zero at first, so that training starts at the base. A network's
    ``pixel_layers`` get none: tuned too, they add speckle that a CLIP does not see.

    Args:
        base: the network to adapt.
        rank: rank of each difference.
        seed: seed of the random starts.
    """

    def __init__(self, base: nn.Module, rank: int, seed: int = 0) -> None:
        super().__init__()
        if rank < 1:
            raise BadInput(f"rank must be at least 1, not {rank}")
        self.rank = rank
        generator = torch.Generator().manual_seed(seed)
        self.names: list[str] = []
        self.shapes: list[torch.Size] = []
        self.down = nn.ParameterList()
        self.up = nn.ParameterList()
        pixels = nn.ModuleList(getattr(bare(base), "pixel_layers", ()))
        kept = {id(weight) for weight in pixels.parameters()}
        for name, weight in base.named_parameters():
            if weight.ndim < 2 or id(weight) in kept:
                continue
            out, width = weight.shape[0], weight[0].numel()
            self.names.append(name)
            self.shapes.append(weight.shape)
            start = torch.randn(rank, width, generator=generator) / width**0.5
            self.down.append(nn.Parameter(start.to(weight.device)))
            self.up.append(nn.Parameter(torch.zeros(out, rank, device=weight.device)))

    def merged(self, base: Mapping[str, Tensor]) -> Deltas:
        """The adapted weights, with gradients to the adapter's; no difference is kept in full.

        Args:
            base: the network's weights by name.
        """
        return {
            name: torch.addmm(base[name].reshape(len(up), -1), up, down).view(shape)
            for name, shape, up, down in zip(
                self.names, self.shapes, self.up, self.down, strict=True
            )
        }

    def deltas(self) -> Deltas:
        """The differences, with gradients to the adapter's weights."""
        return {
            name: (up @ down).view(shape)
            for name, shape, up, down in zip(
                self.names, self.shapes, self.up, self.down, strict=True
            )
        }

    def save(self, path: Path, scale: float = 1.0) -> None:
        """Write ``adapter.safetensors`` (float16), ``scale`` times as strong, and its JSON."""
        tensors = {}
        for name, up, down in zip(self.names, self.up, self.down, strict=True):
            tensors[f"{name}/up"] = (scale * up.detach()).half().cpu().contiguous()
            tensors[f"{name}/down"] = down.detach().half().cpu().contiguous()
        save_file(tensors, path / "adapter.safetensors")
        (path / "adapter.json").write_text(json.dumps({"rank": self.rank}) + "\n")


class Full(nn.Module):
    """Trainable differences of full size for every parameter of a network."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.names = [name for name, _ in base.named_parameters()]
        self.values = nn.ParameterList(
            nn.Parameter(torch.zeros_like(p)) for _, p in base.named_parameters()
        )

    def merged(self, base: Mapping[str, Tensor]) -> Deltas:
        """The changed weights, with gradients to the differences.

        Args:
            base: the network's weights by name.
        """
        return {name: base[name] + value for name, value in self.deltas().items()}

    def deltas(self) -> Deltas:
        """The differences themselves."""
        return dict(zip(self.names, self.values, strict=True))

    def save(self, path: Path, scale: float = 1.0) -> None:
        """Write ``delta.safetensors`` (float32), ``scale`` times as strong, into ``path``."""
        save_file(
            {k: (scale * v.detach()).cpu().contiguous() for k, v in self.deltas().items()},
            path / "delta.safetensors",
        )


def read_deltas(path: Path, base: nn.Module) -> Deltas:
    """The weight differences of a tuned artifact's directory, checked against its base.

    Raises:
        CorruptArtifact: files missing, unreadable, or with NaN.
        BadInput: differences of another network.
    """
    if (path / "adapter.safetensors").is_file():
        stored = read_weights(path / "adapter.safetensors")
        names = {k.rsplit("/", 1)[0] for k in stored}
        shapes = {k: v.shape for k, v in base.state_dict().items()}
        deltas = {}
        for name in sorted(names):
            up, down = stored.get(f"{name}/up"), stored.get(f"{name}/down")
            if up is None or down is None or up.ndim != 2 or down.shape[:1] != up.shape[1:]:
                raise CorruptArtifact(
                    f"{path / 'adapter.safetensors'} holds no two halves of {name}",
                    "run `dclip verify --full`",
                )
            value = up @ down
            if name not in shapes or value.numel() != shapes[name].numel():
                raise BadInput(
                    f"{path} adapts another network ({name} does not fit)",
                    "use it with the base model that it was tuned from",
                )
            deltas[name] = value.view(shapes[name])
    elif (path / "delta.safetensors").is_file():
        deltas = read_weights(path / "delta.safetensors")
        parameters = {k: v for k, v in base.state_dict().items() if k in deltas}
        # The strict load of the checkpoint names what does not fit.
        zero = {k: torch.zeros_like(v) for k, v in base.state_dict().items() if k not in parameters}
        load_weights(copy.deepcopy(base), {**zero, **deltas}, str(path / "delta.safetensors"))
    elif (path / "hspace.safetensors").is_file():
        raise BadInput(
            f"{path} edits the network's h-space (Asyrp), and is no difference of weights",
            "use it with `dclip edit --with`",
        )
    else:
        raise CorruptArtifact(f"{path} holds no tuned weights", "run `dclip verify --full`")
    device = next(base.parameters()).device
    return {k: v.to(device) for k, v in deltas.items()}


def merged(base: nn.Module, parts: Iterable[tuple[Mapping[str, Tensor], float]]) -> nn.Module:
    """A frozen copy of ``base`` with scaled differences added; no parts, or all at 0, give base.

    Args:
        parts: (differences, strength) of each edit; strengths may be negative or above 1.
    """
    model = copy.deepcopy(base)
    own = dict(model.named_parameters())
    with torch.no_grad():
        for deltas, strength in parts:
            if strength != 0:
                for name, value in deltas.items():
                    own[name].add_(value, alpha=strength)
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class Above(ByTimestep):
    """One network above a timestep, and another at and below it.

    Attributes:
        t_min: the highest timestep of ``base``.
        tuned, base: the networks.
    """

    t_min: int
    tuned: EpsModel
    base: EpsModel

    def at(self, t: int) -> EpsModel:
        """The network at timestep ``t``."""
        return self.tuned if t > self.t_min else self.base
