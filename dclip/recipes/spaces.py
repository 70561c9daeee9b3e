"""What fine-tuning trains: differences of weights, or a block in h-space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dclip.diffusion import asymmetric, ddim
from dclip.diffusion.schedule import Schedule
from dclip.models.hspace import HSpaceEdit, new_block, save_hspace, scaled
from dclip.models.tuned import Above, Adapter, Full, merged
from dclip.random import key


class Space(Protocol):
    """A network with trainable differences: ``eps = space(x, t)``, with gradients to them alone."""

    @property
    def delta(self) -> nn.Module:
        """The differences."""

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """The noise, as :data:`dclip.diffusion.network.EpsModel`."""

    def refresh(self) -> None:
        """Take up the differences' present values; before each update."""

    def release(self) -> None:
        """Let go of what :meth:`refresh` made."""

    def decode(self, x_r: Tensor, schedule: Schedule, grid: Sequence[int], scale: float) -> Tensor:
        """Decode states (B,C,H,W) at ``grid[-1]`` as edits will, without gradients."""

    def save(self, path: Path, scale: float) -> None:
        """Write the payload of a ``tuned`` artifact, ``scale`` times as strong."""


class Weights:
    """Differences of the weights: low-rank ones, or with ``rank`` 0 of every weight."""

    def __init__(self, base: nn.Module, rank: int, t_min: int, seed: int) -> None:
        self.base, self.t_min = base, t_min
        device = next(base.parameters()).device
        self.delta: Adapter | Full = (
            Adapter(base, rank, key(seed, "adapter")) if rank else Full(base)
        ).to(device)
        self._merged: dict[str, Tensor] = {}

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = functional_call(self.base, self._merged, (x, t))
        return out

    def refresh(self) -> None:
        """Merge the weights once an update: a decode calls the network many times, and recomputes
        some of the calls."""
        self.release()  # the old ones go before new ones are made
        self._merged = self.delta.merged(dict(self.base.named_parameters()))

    def release(self) -> None:
        """Let go of the merged weights."""
        self._merged = {}

    @torch.no_grad()
    def decode(self, x_r: Tensor, schedule: Schedule, grid: Sequence[int], scale: float) -> Tensor:
        """As :meth:`Space.decode`; at and below ``t_min`` the base decodes."""
        deltas = {k: v.detach() for k, v in self.delta.deltas().items()}
        model = Above(self.t_min, merged(self.base, [(deltas, scale)]), self.base)
        return ddim.decode(model, schedule, x_r, grid)

    def save(self, path: Path, scale: float) -> None:
        """As :meth:`Space.save`."""
        self.delta.save(path, scale)


class HSpace:
    """A block that adds to the U-Net's narrowest state, applied as Asyrp does."""

    def __init__(self, base: nn.Module, t_min: int, seed: int) -> None:
        self.base, self.t_min = base, t_min
        self.delta = new_block(base, t_min, key(seed, "h-space")).to(next(base.parameters()).device)
        self._edited = HSpaceEdit(base, [(self.delta, 1.0)])

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self._edited(x, t)
        return out

    def refresh(self) -> None:
        """Nothing: the block itself is called."""

    def release(self) -> None:
        """Nothing is held."""

    @torch.no_grad()
    def decode(self, x_r: Tensor, schedule: Schedule, grid: Sequence[int], scale: float) -> Tensor:
        """As :meth:`Space.decode`, by the asymmetric step."""
        edited = HSpaceEdit(self.base, [(self.delta, scale)])
        return asymmetric.decode(self.base, edited, schedule, x_r, grid, t_min=self.t_min)

    def save(self, path: Path, scale: float) -> None:
        """As :meth:`Space.save`."""
        save_hspace([scaled(self.delta, scale)], path)


def space(kind: str, base: nn.Module, rank: int, t_min: int, seed: int) -> Space:
    """What a recipe trains, at its start.

    Args:
        kind: :attr:`dclip.recipes.Recipe.space`.
        base: the network, frozen.
        rank: of an adapter; 0 is every weight.
        t_min: at and below this timestep the base decodes alone.
        seed: of the random start.

    Raises:
        BadInput: a network without an h-space.
    """
    return HSpace(base, t_min, seed) if kind == "h" else Weights(base, rank, t_min, seed)
