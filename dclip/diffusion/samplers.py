"""The samplers by name, all on one contract.

``sampler(model, schedule, x, grid, noise=..., on_step=None, clip_x0=False) -> x``. Adding one is a
function, in :mod:`dclip.diffusion.solvers`, and a row in :data:`SAMPLERS`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from dclip.diffusion import ddim, ddpm
from dclip.diffusion.network import EpsModel, OnStep
from dclip.diffusion.schedule import Schedule
from dclip.diffusion.solvers import (
    Noise,
    sample_ddim,
    sample_dpmpp_2m,
    sample_heun,
    sample_lms,
    sample_pndm,
)
from dclip.errors import BadInput


@dataclass(frozen=True)
class Sampler:
    """A row of :data:`SAMPLERS`, called as every sampler is.

    Attributes:
        name: what users call it.
        function: the walk.
        stochastic: whether it draws noise at each step.
        calls: network calls for so many steps.
        source: where it is from.
        end: whether its walk ends where diffusers' ``set_alpha_to_one`` says, as that of its
            scheduler does; else at the picture.
    """

    name: str
    function: Callable[..., Tensor]
    stochastic: bool
    calls: Callable[[int], int]
    source: str
    end: bool = False

    def __call__(
        self,
        model: EpsModel,
        schedule: Schedule,
        x: Tensor,
        grid: Sequence[int],
        *,
        noise: Noise | None = None,
        on_step: OnStep | None = None,
        clip_x0: bool = False,
    ) -> Tensor:
        """Walk a state at ``grid[-1]`` down to ``grid[0]``.

        Args:
            x: (B,...) at timestep ``grid[-1]``; standard normal where that is T.
            grid: increasing timesteps, as from :mod:`dclip.diffusion.grids`.
            noise: see :data:`dclip.diffusion.solvers.Noise`; only stochastic samplers ask for it.
            on_step: see :data:`dclip.diffusion.network.OnStep`.
            clip_x0: clamp x0_hat to [-1, 1] at each network call.

        Raises:
            BadInput: a stochastic sampler without noise, or a grid that does not fit.
        """
        drawn = {}
        if self.stochastic:
            if noise is None:
                raise BadInput(f"sampler {self.name!r} is stochastic", fix="give it noise")
            drawn["noise"] = noise
        return self.function(model, schedule, x, grid, on_step=on_step, clip_x0=clip_x0, **drawn)


def _one_each(steps: int) -> int:
    return steps


SAMPLERS: dict[str, Sampler] = {
    row.name: row
    for row in (
        Sampler("ddim", ddim.decode, False, _one_each, "Song et al. 2021, 2010.02502", end=True),
        Sampler("ddpm", ddpm.sample_ddpm, True, _one_each, "Ho et al. 2020, 2006.11239"),
        # In sigma form the same maps as the two above; known by these names elsewhere.
        Sampler("euler", sample_ddim, False, _one_each, "Karras et al. 2022, 2206.00364"),
        Sampler(
            "euler-ancestral",
            partial(sample_ddim, eta=1.0),
            True,
            _one_each,
            "k-diffusion, sample_euler_ancestral",
        ),
        Sampler("heun", sample_heun, False, lambda n: 2 * n - 1, "Karras et al. 2022, 2206.00364"),
        Sampler("dpmpp-2m", sample_dpmpp_2m, False, _one_each, "Lu et al. 2022, 2211.01095"),
        Sampler("lms", sample_lms, False, _one_each, "k-diffusion, sample_lms"),
        Sampler(
            "plms",
            sample_pndm,
            False,
            lambda n: n + (n > 1),
            "Liu et al. 2022, 2202.09778, without Runge-Kutta steps",
            end=True,
        ),
        Sampler(
            "pndm",
            partial(sample_pndm, warm_up=True),
            False,
            lambda n: n + 9,
            "Liu et al. 2022, 2202.09778",
            end=True,
        ),
    )
}
"""Every sampler by name."""


def find_sampler(name: str) -> Sampler:
    """The sampler of that name.

    Raises:
        BadInput: there is none; the fix names the nearest.
    """
    if name not in SAMPLERS:
        near = difflib.get_close_matches(name.lower(), SAMPLERS, 3)
        raise BadInput(
            f"sampler {name!r} is unknown",
            f"did you mean {', '.join(near)}?" if near else f"use one of {', '.join(SAMPLERS)}",
        )
    return SAMPLERS[name]
