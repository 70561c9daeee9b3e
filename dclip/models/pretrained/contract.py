"""What a family of pretrained models is to those who import one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from dclip.diffusion.schedule import Schedule, ScheduleName
from dclip.models.checkpoint import GridRule, ModelInfo


@dataclass(frozen=True)
class Asked:
    """What the user says about a model, where its files do not or say it wrongly.

    Attributes:
        size: side of its pictures in pixels.
        schedule: name of its noise schedule.
        T: noise steps.
        prediction: ``"eps"``, ``"v"`` or ``"x0"``.
        grid: the rule of its labels.
        heads, head_channels: of an ADM network's attention, one of the two.
        qkv: the order of its joint projection.
        class_label: the class that a class-conditional model is to draw.
        domain: what its pictures show.
        frame: where they have the face.
    """

    size: int | None = None
    schedule: ScheduleName | None = None
    T: int | None = None
    prediction: Literal["eps", "v", "x0"] | None = None
    grid: GridRule | None = None
    heads: int | None = None
    head_channels: int | None = None
    qkv: Literal["legacy", "new"] | None = None
    class_label: int | None = None
    domain: str | None = None
    frame: str | None = None

    def noise(self, default: Schedule) -> Schedule:
        """The schedule, with what the user says in place of the default's own."""
        if self.schedule is None and self.T is None:
            return default
        if self.schedule is None and default.betas is None:
            name: Any = default.name
            return Schedule.make(name, self.T or default.T, default.ends)
        return Schedule.make(self.schedule or "linear", self.T or default.T)


@dataclass(frozen=True)
class Described:
    """What a family makes of a file's shapes and configs.

    Attributes:
        info: the model, without its source.
        notes: what the user should know: what was read, taken as published, or left out.
    """

    info: ModelInfo
    notes: tuple[str, ...] = ()


Shapes = Mapping[str, torch.Size]


@dataclass(frozen=True)
class Family:
    """One kind of pretrained model.

    Attributes:
        title: for messages.
        recognise: whether names of weights are this family's.
        describe: shapes, JSON configs by role (``unet``, ``scheduler``) and what the user says,
            to what the model is.
        convert: weights under the file's names to those of the bare network.
        asks: the settings of :class:`Asked` that only some families have.
    """

    title: str
    recognise: Callable[[Collection[str]], bool]
    describe: Callable[[Shapes, Mapping[str, Mapping[str, Any]], Asked], Described]
    convert: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    asks: tuple[str, ...] = ()
