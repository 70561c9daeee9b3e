"""The latent whose decode has the least loss; no weight changes.

Latent optimisation, which DiffusionCLIP (Kim et al. 2022, 2110.02711) compares with fine-tuning: a
network that is tuned once edits every photo, a latent is optimised for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dclip.diffusion import ddim
from dclip.diffusion.guidance import Loss
from dclip.diffusion.network import ByTimestep, EpsModel, network_at
from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput

UPDATES, RATE, START = 20, 0.02, 0.01
"""Updates, how far each moves a latent (root mean square), and the deviation of the noise that is
added at first. Found on drawn faces (docs/guidance.md)."""


def move(
    model: EpsModel,
    schedule: Schedule,
    loss: Loss,
    x_r: Tensor,
    grid: Sequence[int],
    *,
    start: Tensor,
    offsets: Tensor | None = None,
    updates: int = UPDATES,
    rate: float = RATE,
    on_step: Callable[[], None] | None = None,
) -> Tensor:
    """What to add to latents so that the loss of their decoded pictures falls.

    Gradient descent, each step of one length for each picture: ``-rate * g / rms(g)``. Adam, which
    makes the steps of all values alike, changes the whole picture where a mouth is meant.

    The gradient passes all decode steps. Each is computed again in the backward pass (gradient
    checkpointing), so memory grows by one state a step. A picture's result does not depend on the
    others of its batch.

    Args:
        model: the noise predictor; its weights get no gradient.
        loss: of the decoded pictures, one value each; asked with timestep 0.
        x_r, grid, offsets: as for :func:`dclip.diffusion.ddim.decode`.
        start: what is added at first, of the shape of ``x_r``. With offsets the decode of ``x_r``
            is the photo, and losses that compare with the photo have no gradient there.
        on_step: called after each step of each decode.

    Returns:
        Of the shape of ``x_r``; without updates it is ``start``.

    Raises:
        BadInput: a loss that is not finite.
    """
    by = start.clone().requires_grad_()
    told = None if on_step is None else lambda *_: on_step()
    ended = torch.zeros(len(x_r), dtype=torch.int64, device=x_r.device)
    with torch.enable_grad():
        for _ in range(updates):
            decoded = ddim.decode(
                _Checkpointed(model), schedule, x_r + by, grid, offsets=offsets, on_step=told
            )
            losses = loss(decoded, ended)
            if not bool(torch.isfinite(losses).all()):
                raise BadInput(
                    "the loss of the optimised latent is not finite",
                    "lower the guides' strengths, or compute in float32",
                )
            (gradient,) = torch.autograd.grad(losses.sum(), by)
            with torch.no_grad():
                by -= rate * gradient / _rms(gradient)
    return by.detach()


def _rms(x: Tensor) -> Tensor:
    """Of each picture (B,C,H,W), shaped (B,1,1,1); not 0."""
    return x.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-20)


class _Checkpointed(ByTimestep):
    """A noise predictor that keeps no activations for the backward pass."""

    def __init__(self, model: EpsModel) -> None:
        self.model = model

    def at(self, t: int) -> EpsModel:
        """The network at timestep ``t``."""
        network = network_at(self.model, t)

        def eps(x: Tensor, timesteps: Tensor) -> Tensor:
            out: Tensor = checkpoint(network, x, timesteps, use_reentrant=False)  # type: ignore[assignment]
            return out

        return eps
