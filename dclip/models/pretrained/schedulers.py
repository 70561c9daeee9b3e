"""diffusers' ``scheduler_config.json``: the schedule, what is predicted, and the published grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dclip.config import from_dict
from dclip.diffusion.schedule import Schedule, ScheduleName
from dclip.errors import BadInput
from dclip.models.checkpoint import GridRule, ModelInfo
from dclip.models.pretrained.contract import Asked

Spacing = Literal["leading", "trailing", "linspace"]

SCHEDULERS: dict[str, dict[str, Any]] = {
    "DDPMScheduler": {"clip_sample": True},
    "DDPMParallelScheduler": {"clip_sample": True},
    "DDIMScheduler": {"clip_sample": True},
    "DDIMParallelScheduler": {"clip_sample": True},
    "DDIMInverseScheduler": {"clip_sample": True},
    "PNDMScheduler": {"set_alpha_to_one": False},
    **{
        f"{name}Scheduler": {"timestep_spacing": "linspace"}
        for name in (
            "DPMSolverMultistep", "DPMSolverSinglestep", "DEISMultistep", "UniPCMultistep",
            "LMSDiscrete", "EulerDiscrete", "EulerAncestralDiscrete",
        )
    },
    **{
        f"{name}Scheduler": {
            "timestep_spacing": "linspace", "beta_start": 0.00085, "beta_end": 0.012
        }
        for name in ("HeunDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete")
    },
}  # fmt: skip
"""The schedulers over the noise schedules of this package, and where a config that leaves a
setting out means something else than :class:`SchedulerConfig`."""

_BETAS: dict[str, ScheduleName] = {
    "linear": "linear",
    "scaled_linear": "scaled-linear",
    "squaredcos_cap_v2": "cosine",
}
_PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
_VARIANCES = {
    "fixed_small": "small",
    "fixed_small_log": "small",
    "fixed_large": "large",
    "fixed_large_log": "large",
    "learned_range": "learned-range",
}


@dataclass(frozen=True)
class SchedulerConfig:
    """The settings that say what a network was trained for, under diffusers' names.

    What else a config holds (a solver's order, say) belongs to samplers that are not used here.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    prediction_type: str = "epsilon"
    variance_type: str | None = "fixed_small"
    clip_sample: bool = False
    clip_sample_range: float = 1.0
    set_alpha_to_one: bool = True
    steps_offset: int = 0
    timestep_spacing: Spacing = "leading"
    thresholding: bool = False
    rescale_betas_zero_snr: bool = False


def read_scheduler(
    config: Mapping[str, Any], asked: Asked, learned: bool
) -> tuple[dict[str, Any], list[str]]:
    """The fields of :class:`dclip.models.checkpoint.ModelInfo` that a scheduler's config says.

    Args:
        config: ``scheduler_config.json``.
        learned: whether the network puts out a variance.

    Raises:
        BadInput: a scheduler of another kind of noise, or settings that are none.
    """
    name = config.get("_class_name", "DDPMScheduler")
    if name not in SCHEDULERS:
        raise BadInput(
            f"the scheduler {name!r} is not one of those that dclip knows noise schedules of",
            f"it knows {', '.join(SCHEDULERS)}",
        )
    own = SchedulerConfig.__dataclass_fields__
    known = {k: v for k, v in config.items() if k in own}
    read = from_dict(
        SchedulerConfig, SCHEDULERS[name] | known, defaults=True, where="scheduler_config.json"
    )
    if read.rescale_betas_zero_snr:
        raise BadInput(
            "this scheduler rescales its betas to end at no signal at all"
            " (rescale_betas_zero_snr), from where no picture can be predicted",
            "import a model without it",
        )
    for value, allowed in (
        (read.beta_schedule, _BETAS),
        (read.prediction_type, _PREDICTIONS),
        (read.variance_type or "fixed_small", _VARIANCES),
    ):
        if value not in allowed:
            raise BadInput(
                f"scheduler_config.json says {value!r}", f"dclip knows {', '.join(allowed)}"
            )
    if read.trained_betas is not None:
        schedule = Schedule.trained(read.trained_betas)
    else:
        plain = _BETAS[read.beta_schedule]
        ends = None if plain == "cosine" else (read.beta_start, read.beta_end)
        schedule = Schedule.make(plain, read.num_train_timesteps, ends)
    notes = []
    if read.thresholding:
        notes.append("its sampler's dynamic thresholding is left out")
    if read.clip_sample and read.clip_sample_range != 1:
        notes.append(f"its sampler clamps to {read.clip_sample_range}; here it is 1")
    variance = _VARIANCES[read.variance_type or "fixed_small"]
    if learned != (variance == "learned-range"):
        variance = "learned-range" if learned else "small"
    return {
        "schedule": asked.noise(schedule),
        "prediction": asked.prediction or _PREDICTIONS[read.prediction_type],
        "grid": asked.grid or read.timestep_spacing,
        "steps_offset": 0 if asked.grid else read.steps_offset,
        "grid_end": 0 if asked.grid or read.set_alpha_to_one else 1,
        "clip_sample": read.clip_sample,
        "variance": variance,
    }, notes


def scheduler_settings(info: ModelInfo) -> dict[str, Any]:
    """What :func:`read_scheduler` reads, as the settings of diffusers' DDIM or DDPM scheduler."""
    schedule = info.schedule
    names = {v: k for k, v in _BETAS.items()}
    settings: dict[str, Any] = {
        "num_train_timesteps": schedule.T,
        "prediction_type": {v: k for k, v in _PREDICTIONS.items()}[info.prediction],
        "clip_sample": info.clip_sample,
        "steps_offset": info.steps_offset,
        "timestep_spacing": _spacing(info.grid),
    }
    if schedule.name in names and schedule.betas is None:
        settings["beta_schedule"] = names[schedule.name]
        if schedule.name != "cosine":
            settings["beta_start"], settings["beta_end"] = schedule.range
    else:
        settings["trained_betas"] = [schedule.beta(t) for t in range(1, schedule.T + 1)]
    return settings


def _spacing(rule: GridRule) -> Spacing:
    """diffusers' name of a rule, or of the nearest: it has neither ours nor DiffusionCLIP's."""
    if rule == "even":
        return "trailing"
    return "linspace" if rule == "diffusionclip" else rule
