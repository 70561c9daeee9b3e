"""Noise schedules: the share of the photo that is left after ``t`` noise steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from dclip.errors import BadInput

ScheduleName = Literal["linear", "linear-rescaled", "cosine", "scaled-linear"]

_ENDS = {"linear": (1e-4, 0.02), "scaled-linear": (0.00085, 0.012)}
"""First and last beta as published, of the schedules that take others."""

TRAINED = "trained"
"""The name of a schedule that is given as its betas."""

MOST_STEPS = 100_000
"""No published chain comes near it; a description that asks for more is broken."""

# A step that removes everything (beta = 1) has no inverse; Nichol & Dhariwal clip here too.
_BETA_MAX = 0.999


def _linear_beta(T: int, start: float, end: float) -> Tensor:
    """Ho et al. 2020 (2006.11239), section 4: 1e-4 .. 0.02, made for T = 1000."""
    return torch.linspace(start, end, T, dtype=torch.float64).clamp(max=_BETA_MAX)


def _scaled_linear_beta(T: int, start: float, end: float) -> Tensor:
    """Rombach et al. 2022 (2112.10752): the square roots are linear, not the betas."""
    return torch.linspace(start**0.5, end**0.5, T, dtype=torch.float64) ** 2


def _cosine_beta(T: int) -> Tensor:
    """Nichol & Dhariwal 2021 (2102.09672), equation (17), with their offset s = 0.008."""
    s = 0.008
    u = torch.arange(T + 1, dtype=torch.float64) / T
    f = torch.cos((u + s) / (1 + s) * math.pi / 2) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=_BETA_MAX)


def _alpha_bar(beta: Tensor) -> Tensor:
    """alpha_bar of t = 0..T from the T betas."""
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, dim=0)])


def _numbers(value: Any, what: str) -> tuple[float, ...]:
    """A list of numbers out of a description, strictly."""
    if not isinstance(value, list | tuple) or not all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in value
    ):
        raise BadInput(f"schedule with {what} {value!r}", fix="give a list of numbers")
    return tuple(float(v) for v in value)


@dataclass(frozen=True, eq=False)
class Schedule:
    """An immutable noise schedule, equal to another that :meth:`to_dict` describes alike.

    ``t`` counts applied noise steps: ``alpha_bar[0] == 1`` is the photo itself, and a paper's or
    diffusers' zero-based step ``k`` is our ``t = k + 1``.

    Attributes:
        name: ``"linear"``, ``"linear-rescaled"``, ``"cosine"``, ``"scaled-linear"``,
            or ``"trained"`` for one that is given as its betas.
        T: number of noise steps.
        alpha_bar: float64 (T+1,), strictly decreasing from 1, above 0.
        ends: first and last beta, where they are not the name's own.
        betas: all of them, of a ``"trained"`` schedule.

    Raises:
        BadInput: an ``alpha_bar`` that is not such a table.
    """

    name: str
    T: int
    alpha_bar: Tensor = field(repr=False)
    ends: tuple[float, float] | None = None
    betas: tuple[float, ...] | None = field(default=None, repr=False)
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
    def make(
        name: ScheduleName = "linear-rescaled",
        T: int = 200,
        ends: tuple[float, float] | None = None,
    ) -> Schedule:
        """Build a schedule by name.

        ``"linear"`` is 1e-4 .. 0.02 for any T. That range was made for T = 1000: at T = 200 it ends
        at alpha_bar_T = 0.13, with much of the photo left, and sampling from pure noise starts at a
        state that is not in training. ``"linear-rescaled"`` multiplies the range by 1000/T and so
        ends in noise at any T; at T = 1000 the two are the same.

        Args:
            ends: first and last beta of ``"linear"`` or ``"scaled-linear"``, where they are
                not the published ones.

        Raises:
            BadInput: an unknown name, T below 1, so large a T that alpha_bar vanishes, or ends
                that are no betas.
        """
        if not 1 <= T <= MOST_STEPS:
            raise BadInput(f"T={T} noise steps", fix=f"give T in 1..{MOST_STEPS}, e.g. 200")
        if ends is not None and (name not in _ENDS or not all(0 < beta < 1 for beta in ends)):
            raise BadInput(
                f"betas from {ends[0]} to {ends[1]} for the schedule '{name}'",
                fix=f"give two between 0 and 1, with one of {', '.join(_ENDS)}",
            )
        start, end = ends or _ENDS.get(name, (0.0, 0.0))
        if name == "linear":
            beta = _linear_beta(T, start, end)
        elif name == "linear-rescaled":
            beta = _linear_beta(T, 1e-4 * 1000 / T, 0.02 * 1000 / T)
        elif name == "cosine":
            beta = _cosine_beta(T)
        elif name == "scaled-linear":
            beta = _scaled_linear_beta(T, start, end)
        else:
            raise BadInput(
                f"unknown schedule '{name}'",
                fix=f"choose one of {', '.join(get_args(ScheduleName))}",
            )
        other = ends if ends != _ENDS.get(name) else None
        return Schedule(name, T, _alpha_bar(beta), ends=other)

    @staticmethod
    def trained(betas: Sequence[float]) -> Schedule:
        """The schedule of given betas, one a noise step, as a checkpoint may bring them.

        Raises:
            BadInput: none, too many, or a beta that is not between 0 and 1.
        """
        values = tuple(float(beta) for beta in betas)
        if not 1 <= len(values) <= MOST_STEPS or not all(0 < beta < 1 for beta in values):
            raise BadInput(
                f"{len(values)} betas that are not all between 0 and 1",
                fix=f"give 1 to {MOST_STEPS} of them, each above 0 and below 1",
            )
        beta = torch.tensor(values, dtype=torch.float64)
        return Schedule(TRAINED, len(values), _alpha_bar(beta), betas=values)

    def in_steps(self, T: int) -> Schedule:
        """The same range of betas in another number of noise steps.

        What a scheduler's ``num_train_timesteps`` changes without the network's knowing: with
        fewer steps the walk begins at less noise, with more at more noise, and the network is asked
        at labels that it was not trained on.

        Raises:
            BadInput: a schedule that is no range of betas, or a T that :meth:`make` refuses.
        """
        if self.name not in (*_ENDS, "linear-rescaled"):
            raise BadInput(
                f"the schedule {self.name} is no range of betas, to be had in {T} steps",
                "leave the number of training timesteps out",
            )
        kind: ScheduleName = "scaled-linear" if self.name == "scaled-linear" else "linear"
        return Schedule.make(kind, T, self.range)

    def timestep(self, r: int | float) -> int:
        """The timestep that ``r`` means: itself, or the nearest to a share of T.

        Args:
            r: an int is a timestep in 1..T, a float a share above 0 and at most 1: 1 is the first
                timestep, 1.0 is T.

        Raises:
            BadInput: out of range.
        """
        if isinstance(r, float):
            if not 0 < r <= 1:
                raise BadInput(f"r={r:g} of T", fix="give a share above 0 and at most 1.0")
            return max(1, math.floor(r * self.T + 0.5))
        if not 1 <= r <= self.T:
            raise BadInput(f"r={r} is outside 1..{self.T}", fix=f"choose --r in 1..{self.T}")
        return r

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
    def range(self) -> tuple[float, float]:
        """First and last beta that the schedule was made from, or has."""
        return self.ends or _ENDS.get(self.name) or (self.beta(1), self.beta(self.T))

    @property
    def terminal_snr(self) -> float:
        """Signal to noise ``alpha_bar_T / (1 - alpha_bar_T)`` of the last state: 0 is noise."""
        ab = float(self.alpha_bar[-1])
        return ab / (1 - ab)

    def to_dict(self) -> dict[str, Any]:
        """``{"name": ..., "T": ...}``, and ``ends`` or ``betas`` where the name does not say."""
        plain: dict[str, Any] = {"name": self.name, "T": self.T}
        if self.ends is not None:
            plain["ends"] = list(self.ends)
        if self.betas is not None:
            plain["betas"] = list(self.betas)
        return plain

    @staticmethod
    def from_dict(mapping: Mapping[str, Any]) -> Schedule:
        """The schedule that :meth:`to_dict` described.

        Raises:
            BadInput: missing or unknown keys, a T that is not an integer, betas that are no
                numbers, or as :meth:`make` and :meth:`trained`.
        """
        own = {"betas"} if mapping.get("name") == TRAINED else {"ends"} & set(mapping)
        if set(mapping) != {"name", "T"} | own:
            raise BadInput(
                f"schedule with keys {sorted(mapping)}",
                fix=f"give name and T, ends where they are others, betas to the name '{TRAINED}'",
            )
        T = mapping["T"]
        if not isinstance(T, int) or isinstance(T, bool):
            raise BadInput(f"schedule with T={T!r}", fix="give T as an integer, e.g. 200")
        if own == {"betas"}:
            betas = _numbers(mapping["betas"], "betas")
            if len(betas) != T:
                raise BadInput(f"{len(betas)} betas for T={T}", fix="give one a noise step")
            return Schedule.trained(betas)
        ends = _numbers(mapping["ends"], "ends") if own else None
        if ends is not None and len(ends) != 2:
            raise BadInput(f"schedule with ends {ends}", fix="give two, the first and last beta")
        return Schedule.make(mapping["name"], T, (ends[0], ends[1]) if ends else None)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule):
            return NotImplemented
        return self._description == other._description

    def __hash__(self) -> int:
        return hash(self._description)

    @property
    def _description(self) -> tuple[Any, ...]:
        return (self.name, self.T, self.ends, self.betas)

    def _check(self, t: int, low: int) -> None:
        if not low <= t <= self.T:
            raise BadInput(f"t={t} is outside {low}..{self.T}", fix=f"choose t in {low}..{self.T}")
