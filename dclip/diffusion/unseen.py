"""From pictures of another kind to those that a model draws: noise and decode, again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from dclip.diffusion import ddim, ddpm
from dclip.diffusion.network import EpsModel
from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput

STEPS = 6
"""Of each round's decode, as in DiffusionCLIP's code."""


def brought(
    model: EpsModel,
    schedule: Schedule,
    x0: Tensor,
    grid: Sequence[int],
    rounds: int,
    *,
    noise: Callable[[int], Tensor],
    on_step: Callable[[], None] | None = None,
) -> Tensor:
    """Noise pictures to ``grid[-1]`` and decode them, ``rounds`` times.

    One round is SDEdit (Meng et al. 2022, 2108.01073): the noise hides what is not of the model's
    kind, and the decode draws what it knows in its place. DiffusionCLIP (2110.02711, section 3.5)
    repeats it, with fresh noise each time, so that a smaller r does, which keeps more of the
    picture; its K_DDPM is ``rounds``.

    Args:
        x0: (B,C,H,W) in [-1, 1].
        grid: increasing timesteps from 0.
        noise: ``noise(k)`` is the standard normal draw of round k, like ``x0``.
        on_step: called after each decode step.

    Raises:
        BadInput: rounds below 0, or a grid that does not fit.
    """
    if rounds < 0:
        raise BadInput(f"{rounds} rounds", "give 0 or more")
    x = x0
    for number in range(rounds):
        x = ddpm.q_sample(schedule, x, grid[-1], noise(number))
        x = ddim.decode(
            model, schedule, x, grid, on_step=None if on_step is None else lambda *_: on_step()
        )
    return x
