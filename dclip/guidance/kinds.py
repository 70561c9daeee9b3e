"""The tables of fine-tuning: its losses, and what each kind of edit takes.

A new loss is a function in :mod:`dclip.guidance.losses` and a row of :data:`LOSSES`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from dclip.configs.guidance import GuidanceConfig
from dclip.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """One term of what fine-tuning minimises.

    Attributes:
        function: its name in :mod:`dclip.guidance.losses`.
        needs: the names of the function's arguments, of those that
            :class:`dclip.guidance.objective.Objective` has: ``x``, ``reference``, ``draw``,
            ``face`` (once a batch); ``e_image``, ``e_reference``, ``difference``, ``goal``,
            ``target`` (for each CLIP).
        help: of the option, one line.
        by_kind: its weight for each kind of edit; else 0.
    """

    function: str
    needs: tuple[str, ...]
    help: str
    by_kind: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def by_clip(self) -> bool:
        """Whether it compares embeddings, so that each CLIP gives one."""
        return "e_image" in self.needs

    def load(self) -> Callable[..., Tensor]:
        """The function."""
        found: Callable[..., Tensor] = getattr(
            importlib.import_module("dclip.guidance.losses"), self.function
        )
        return found


_EMBEDDINGS = ("e_image", "e_reference", "difference")
_PICTURES = ("x", "reference")

LOSSES: dict[str, Loss] = {
    "direction": Loss(
        "directional",
        _EMBEDDINGS,
        "Weight of the directional CLIP loss.",
        {"style": 0.5, "character": 0.5, "drawing": 0.5, "attribute": 0.5, "colour": 0.5},
    ),
    "log_direction": Loss(
        "log_directional",
        _EMBEDDINGS,
        "Weight of the directional CLIP loss as DiffusionCLIP's code has it, -log((1 + cos) / 2).",
    ),
    "global_clip": Loss(
        "global_distance",
        ("e_image", "target"),
        "Weight of the global CLIP loss, the distance to the target text; kept for comparison.",
    ),
    "goal": Loss(
        "goal_distance",
        ("e_image", "e_reference", "goal"),
        "Weight of the CLIP loss that also says how far an edit goes.",
        {"style": 2.0, "character": 2.0, "drawing": 4.0, "attribute": 1.0, "colour": 5.0},
    ),
    "identity": Loss(
        "identity_l1",
        _PICTURES,
        "Weight of the pixels' difference to the photo (L1).",
        {"style": 0.4, "character": 0.4, "attribute": 1.0, "colour": 0.7},
    ),
    "colour": Loss(
        "colour_l1",
        _PICTURES,
        "Weight of the colours' difference to the photo (L1).",
        {"attribute": 4.0},
    ),
    "lpips": Loss(
        "perceptual",
        _PICTURES,
        "Weight of the perceptual distance to the photo (LPIPS, with AlexNet).",
    ),
    "speckle": Loss(
        "speckle",
        _PICTURES,
        "Weight against colours that vary from pixel to pixel.",
        {"style": 0.7, "character": 0.7, "drawing": 0.7, "colour": 0.7},
    ),
    "propagation": Loss(
        "propagation",
        (*_PICTURES, "draw"),
        "Weight against similar pixels that change differently.",
        {"style": 3.0, "character": 3.0, "drawing": 0.5, "colour": 6.0},
    ),
    "grey": Loss(
        "colourfulness", ("x",), "Weight against colours that are left.", {"drawing": 12.0}
    ),
    "structure": Loss(
        "structure",
        _PICTURES,
        "Weight of the photo's local contrast (SSIM).",
        {"style": 1.0, "character": 1.0, "drawing": 2.0, "attribute": 0.5, "colour": 1.0},
    ),
    "face_identity": Loss(
        "face_identity",
        ("face", *_PICTURES),
        "Weight of the face's identity, by the network of --face: else 1.",
    ),
}
"""docs/lab/recipes.md says how the weights were found."""

KINDS: dict[str, GuidanceConfig] = {
    "style": GuidanceConfig(
        t_min=0.1, saturation=1.0, goal_scale=1.5, blur=1.0, locality=0.0, scale=1.0
    ),
    "character": GuidanceConfig(
        t_min=0.1, saturation=1.0, goal_scale=1.5, blur=1.0, locality=0.14, scale=1.25
    ),
    "drawing": GuidanceConfig(
        t_min=0.1, saturation=1.5, goal_scale=1.35, blur=1.0, locality=0.0, scale=1.0
    ),
    "attribute": GuidanceConfig(
        t_min=0.35, saturation=0.0, goal_scale=1.9, blur=0.0, locality=0.1, scale=1.0
    ),
    "colour": GuidanceConfig(
        t_min=0.2, saturation=1.0, goal_scale=1.9, blur=0.0, locality=0.16, scale=1.0
    ),
}
"""What each kind of edit takes where neither user nor recipe says otherwise.

Attributes have a high ``t_min``: the base's own last steps draw what it knows, such as a smile, and
would undo a style that it never saw. They have ``saturation`` 0: in colour a small CLIP takes red
lips for a smile.
"""


def weights_of(kind: str) -> dict[str, float]:
    """The losses' weights for a kind of edit."""
    return {name: loss.by_kind.get(kind, 0.0) for name, loss in LOSSES.items()}


def check_weights(weights: Mapping[str, float]) -> None:
    """Refuse weights of unknown losses, and weights below 0.

    Raises:
        BadInput: it names the weight, and the losses that exist.
    """
    from dclip.config import nearest

    for name, weight in weights.items():
        if name not in LOSSES:
            raise BadInput(f"loss {name!r} is unknown", nearest(name, LOSSES))
        if weight < 0:
            raise BadInput(f"{name} is {weight:g}", "it must be 0 or more")
