"""Noise schedules: the share of the photo that is left after ``t`` noise steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from dclip.errors import BadInput

ScheduleName = Literal["linear", "linear-rescaled", "cosine"]

# A step that removes everything (beta = 1) has no inverse; Nichol & Dhariwal clip here too.
_BETA_MAX = 0.999


def _linear_beta(T: int, scale: float) -> Tensor:
    """Ho et al. 2020 (2006.11239), section 4: 1e-4 .. 0.02, made for T = 1000."""
    return torch.linspace(1e-4 * scale, 0.02 * scale, T, dtype=torch.float64).clamp(max=_BETA_MAX)


def _cosine_beta(T: int) -> Tensor:
    """Nichol & Dhariwal 2021 (2102.09672), equation (17), with their offset s = 0.008."""
    s = 0.008
    u = torch.arange(T + 1, dtype=torch.float64) / T
    f = torch.cos((u + s) / (1 + s) * math.pi / 2) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=_BETA_MAX)


@dataclass(frozen=True, eq=False)
class Schedule:
    """An immutable noise schedule, equal to another of the same ``name`` and ``T``.

    ``t`` counts applied noise steps: ``alpha_bar[0] == 1`` is the photo itself, and a paper's or
    diffusers' zero-based step ``k`` is our ``t = k + 1``.

    Attributes:
        name: ``"linear"``, ``"linear-rescaled"`` or ``"cosine"``.
        T: number of noise steps.
        alpha_bar: float64 (T+1,), strictly decreasing from 1, above 0.

    Raises:
        BadInput: an ``alpha_bar`` that is not such a table.
    """

    name: str
    T: int
    alpha_bar: Tensor = field(repr=False)
    _kept: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        ab = self.alpha_bar
        if ab.dtype != torch.float64 or ab.shape != (self.T + 1,):
            raise BadInput(
                f"alpha_bar of schedule '{self.name}' is {ab.dtype} {tuple(ab.shape)}",
                fix=f"give float64 of shape ({self.T + 1},)",
            )
        if ab[0] != 1 or not bool((ab[1:] < ab[:-1]).all()) or not bool(ab[-1] > 0):
            raise BadInput(
                f"alpha_bar of schedule '{self.name}' with T={self.T} does not fall strictly "
                "from 1 to above 0",
                fix="take fewer steps T, or another schedule",
            )

    @staticmethod
    def make(name: ScheduleName = "linear-rescaled", T: int = 200) -> Schedule:
        """Build a schedule by name.

        ``"linear"`` is 1e-4 .. 0.02 for any T. That range was made for T = 1000: at T = 200 it ends
        at alpha_bar_T = 0.13, with much of the photo left, and sampling from pure noise starts at a
        state that is not in training. ``"linear-rescaled"`` multiplies the range by 1000/T and so
        ends in noise at any T; at T = 1000 the two are the same.

        Raises:
            BadInput: an unknown name, T below 1, or so large a T that alpha_bar vanishes.
        """
        if T < 1:
            raise BadInput(f"T={T} noise steps", fix="give T of 1 or more, e.g. 200")
        if name == "linear":
            beta = _linear_beta(T, 1.0)
        elif name == "linear-rescaled":
            beta = _linear_beta(T, 1000 / T)
        elif name == "cosine":
            beta = _cosine_beta(T)
        else:
            raise BadInput(
                f"unknown schedule '{name}'",
                fix=f"choose one of {', '.join(get_args(ScheduleName))}",
            )
        one = torch.ones(1, dtype=torch.float64)
        return Schedule(name, T, torch.cat([one, torch.cumprod(1 - beta, dim=0)]))

    def coefficients(self, t: int) -> tuple[float, float]:
        """``(sqrt(alpha_bar_t), sqrt(1 - alpha_bar_t))`` as Python floats, for t in 0..T.

        Raises:
            BadInput: t outside 0..T.
        """
        self._check(t, 0)
        ab = float(self.alpha_bar[t])
        return math.sqrt(ab), math.sqrt(1 - ab)

    def gather(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """The same pair per sample: ``t`` int64 (B,) -> two (B,1,1,1) like ``like``.

        (As many trailing ones as ``like`` (B,...) has dimensions; dtype and device are its too.)
        """
        shape = (-1,) + (1,) * (like.dim() - 1)
        a, b = (table[t.to(like.device)] for table in self._tables(like.dtype, like.device))
        return a.view(shape), b.view(shape)

    def _tables(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """Both coefficients of every timestep, on a device; kept for later calls."""
        if (dtype, device) not in self._kept:
            # Rounded on the CPU before it moves: some devices have no float64.
            tables = (self.alpha_bar.sqrt(), (1 - self.alpha_bar).sqrt())
            a, b = (table.to(dtype).to(device) for table in tables)
            self._kept[dtype, device] = a, b
        return self._kept[dtype, device]

    def beta(self, t: int) -> float:
        """Variance that noise step ``t`` (1..T) adds: ``1 - alpha_bar_t / alpha_bar_{t-1}``.

        Raises:
            BadInput: t outside 1..T.
        """
        self._check(t, 1)
        return 1 - float(self.alpha_bar[t]) / float(self.alpha_bar[t - 1])

    @property
    def terminal_snr(self) -> float:
        """Signal to noise ``alpha_bar_T / (1 - alpha_bar_T)`` of the last state: 0 is noise."""
        ab = float(self.alpha_bar[-1])
        return ab / (1 - ab)

    def to_dict(self) -> dict[str, Any]:
        """``{"name": ..., "T": ...}``, all that :meth:`from_dict` needs."""
        return {"name": self.name, "T": self.T}

    @staticmethod
    def from_dict(mapping: Mapping[str, Any]) -> Schedule:
        """The schedule that :meth:`to_dict` described.

        Raises:
            BadInput: missing or unknown keys, a T that is not an integer, or as :meth:`make`.
        """
        if set(mapping) != {"name", "T"}:
            raise BadInput(f"schedule with keys {sorted(mapping)}", fix="give exactly name and T")
        T = mapping["T"]
        if not isinstance(T, int) or isinstance(T, bool):
            raise BadInput(f"schedule with T={T!r}", fix="give T as an integer, e.g. 200")
        return Schedule.make(mapping["name"], T)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule):
            return NotImplemented
        return (self.name, self.T) == (other.name, other.T)

    def __hash__(self) -> int:
        return hash((self.name, self.T))

    def _check(self, t: int, low: int) -> None:
        if not low <= t <= self.T:
            raise BadInput(f"t={t} is outside {low}..{self.T}", fix=f"choose t in {low}..{self.T}")
