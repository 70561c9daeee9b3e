"""From photos and tuned models to edits: what the edit and grid stages share.

A photo is inverted with the base model; the state that comes out is decoded with the base plus the
tuned models' differences. The decode takes the base's own errors back at every step ("direct
inversion", Ju et al. 2023, 2310.01506), so that strength 0 is the photo itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dclip.context import Reporter, Silent
from dclip.diffusion import ddim
from dclip.diffusion.inversion import REFINEMENTS, invert_with_offsets
from dclip.diffusion.network import EpsModel
from dclip.errors import BadInput, DclipError
from dclip.locality import check_locality, localised
from dclip.models.checkpoint import ModelInfo, load_model, read_info
from dclip.models.tuned import Deltas, merged, read_deltas
from dclip.store import Artifact, Store

MIXES = ("weights", "noise")
STEPS = 20  # where a tuned model does not say how many it was made with

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
_PART = re.compile(
    rf"(?P<ref>.+?)(?::(?P<strength>{_NUMBER}))?(?:@(?P<low>\d+)-(?P<high>\d+))?", re.DOTALL
)
_SILENT = Silent()

Step = Callable[[], None]
"""Called after every step of an inversion or decode, for progress."""


@dataclass(frozen=True)
class PartSpec:
    """One tuned model as a user names it.

    Attributes:
        ref: its reference; None is the newest.
        strength: 0 is the photo, 1 what was learnt; below 0 the other way, above 1 further.
        window: labels t (low, high) at which it acts; None is all that it was tuned at.
    """

    ref: str | None = None
    strength: float = 1.0
    window: tuple[int, int] | None = None


def parse_parts(text: str) -> tuple[PartSpec, ...]:
    """Read ``REF[:STRENGTH][@LOW-HIGH]``, several joined with ``+``.

    ``sketch:0.8``, ``smiling@best:-0.5``, ``sketch:0.8@60-100+smiling``.

    Raises:
        BadInput: not of that form.
    """
    return tuple(_parse_part(item.strip(), text) for item in re.split(r"(?<!:)\+", text))


def _parse_part(item: str, text: str) -> PartSpec:
    match = _PART.fullmatch(item)
    how = "write NAME, NAME:STRENGTH or NAME:STRENGTH@LOW-HIGH, e.g. sketch:0.8"
    if match is None:
        raise BadInput(f"cannot read the edit {text!r}", how)
    ref, low, high = match["ref"], match["low"], match["high"]
    if ":" in ref and not Path(ref).exists():
        name, _, number = ref.partition(":")
        raise BadInput(f"strength {number!r} of {name} is not a number", how)
    window = (int(low), int(high)) if low else None
    if window and not 1 <= window[0] <= window[1]:
        raise BadInput(
            f"{text!r} is to act at t from {low} to {high}",
            "write a low label of 1 or more, then a high one, e.g. @60-100",
        )
    return PartSpec(ref, float(match["strength"] or 1), window)


def numbers(values: float | Sequence[float] | str, what: str) -> tuple[float, ...]:
    """One number, several, or a text of them between commas, as a tuple without repeats.

    Raises:
        BadInput: a text that is not numbers, none at all, or numbers that captions and file names,
            which have six digits, cannot tell apart.
    """
    if isinstance(values, str):
        parts = [part.strip() for part in values.split(",")]
        if not all(re.fullmatch(_NUMBER, part) for part in parts):
            raise BadInput(f"{what} {values!r} is not a list of numbers", "write e.g. 0,0.5,1")
        values = [float(part) for part in parts]
    elif isinstance(values, int | float):
        values = [values]
    if not values:
        raise BadInput(f"{what} is empty", "write e.g. 0,0.5,1")
    found = tuple(dict.fromkeys(float(value) + 0.0 for value in values))
    if len({f"{value:g}" for value in found}) < len(found):
        raise BadInput(f"{what} has numbers that are alike to six digits", "leave one out")
    return found


def check_how(mix: str | None, locality: float | None, direct: bool = True) -> None:
    """Refuse a way to edit that there is not; None is what the tuned models say.

    Raises:
        BadInput: an unknown mix, a locality out of range, or one without ``direct``.
    """
    if mix is not None and mix not in MIXES:
        raise BadInput(f"mix {mix!r} is unknown", f"use one of {', '.join(MIXES)}")
    if locality is not None:
        check_locality(locality)
        if locality and not direct:
            raise BadInput("a plain decode has no locality", "leave --no-direct out")


@dataclass(frozen=True)
class Part:
    """One tuned model with the strength and window of :class:`PartSpec`."""

    artifact: Artifact
    strength: float = 1.0
    window: tuple[int, int] | None = None

    def acts(self, t: int) -> bool:
        """Whether it acts at label ``t``: where it was tuned to, and within the window."""
        if t <= int(self.artifact.config.get("until") or 0):
            return False
        return self.window is None or self.window[0] <= t <= self.window[1]


@dataclass(frozen=True)
class Plan:
    """An edit before any weights are read: what with, and on which grid.

    Attributes:
        base: the base model of all parts.
        info: what the base is.
        parts: the tuned models; none is the base alone.
        r: the label that photos are inverted to.
        steps: steps of the decode.
        steps_for: steps of the inversion, at least; the decode's labels are always among its own.
        mix: ``"weights"`` adds up the scaled weight differences; ``"noise"`` adds up the scaled
            differences of the predicted noise, ``eps_base + sum s_i (eps_i - eps_base)``.
        refinements: of each inversion step: as in the latents that the parts were tuned on.
        locality: see :func:`dclip.locality.localised`.
    """

    base: Artifact
    info: ModelInfo
    parts: tuple[Part, ...]
    r: int
    steps: int
    steps_for: int
    mix: str
    refinements: int
    locality: float

    @property
    def grid(self) -> tuple[int, ...]:
        """Labels of the decode, 0 to r."""
        return ddim.grid(self.r, self.steps, self.info.schedule.T)

    @property
    def inversion_grid(self) -> tuple[int, ...]:
        """Labels of the inversion: those of the decode, and more where ``steps_for`` asks."""
        fine = ddim.grid(self.r, max(self.steps, self.steps_for), self.info.schedule.T)
        return tuple(sorted({*fine, *self.grid}))

    def caption(self, strength: float = 1.0, *, always: bool = False) -> str:
        """``sketch``, ``sketch 0.5``, ``sketch 0.8 + smiling −0.5``.

        Args:
            strength: factor on every part's own strength.
            always: name a strength of 1 too, for a row of several.
        """
        if not self.parts:
            return "reconstruction"
        words = []
        for part in self.parts:
            scaled = strength * part.strength
            number = f"{scaled:.3g}".replace("-", "−")  # a minus sign, and no break before it
            plain = scaled == 1 and not always
            where = f"\u00a0t\u00a0{part.window[0]}–{part.window[1]}" if part.window else ""
            words.append(part.artifact.name + ("" if plain else f"\u00a0{number}") + where)
        return " + ".join(words)

    def idle(self) -> list[str]:
        """What to warn of, for each part that acts at none of the grid's labels."""
        found = []
        for part in self.parts:
            if not any(part.acts(t) for t in self.grid[1:]):
                labels = ", ".join(map(str, self.grid[1:]))
                where = f"above t={int(part.artifact.config.get('until') or 0)}"
                if part.window is not None:
                    where += f" and within {part.window[0]}..{part.window[1]}"
                found.append(
                    f"{part.artifact.name} changes nothing: it acts {where}, and the decode's"
                    f" labels are {labels}"
                )
        return found

    def inputs(self) -> dict[str, Artifact]:
        """The artifacts that an edit is made from, by role: ``model``, ``tuned``, ``tuned2`` …"""
        unique = list({part.artifact.id: part.artifact for part in self.parts}.values())
        roles = ["tuned", *(f"tuned{n}" for n in range(2, len(unique) + 1))]
        return {"model": self.base, **dict(zip(roles, unique, strict=False))}

    def settings(self) -> dict[str, Any]:
        """What decides the edit beyond the inputs, as plain values."""
        return {
            "parts": [
                {"tuned": part.artifact.id, "strength": part.strength, "window": part.window}
                for part in self.parts
            ],
            "r": self.r,
            "steps": self.steps,
            "steps_for": self.steps_for,
            "refinements": self.refinements,
            "mix": self.mix,
            "locality": self.locality,
        }


def find_parts(
    store: Store, specs: Sequence[PartSpec], report: Reporter = _SILENT
) -> tuple[Part, ...]:
    """The tuned artifacts that are named; None for a reference takes the newest.

    Raises:
        MissingArtifact: a name that the store does not hold.
    """
    return tuple(
        Part(store.resolve(spec.ref, "tuned", report), spec.strength, spec.window) for spec in specs
    )


def find_base(store: Store, parts: Sequence[Part]) -> Artifact:
    """The base model that all of the parts were tuned from.

    Raises:
        BadInput: they were tuned from different ones.
        MissingArtifact: it is not there any more.
    """
    first = parts[0].artifact
    base = first.manifest.inputs["model"]
    for part in parts[1:]:
        other = part.artifact.manifest.inputs["model"]
        if other["id"] != base["id"]:
            raise BadInput(
                f"{first.ref} was tuned from {base['ref']}, {part.artifact.ref} from"
                f" {other['ref']} ({base['id'][:8]} and {other['id'][:8]})",
                "combine models that were tuned from the same base",
            )
    return store.input(first, "model")


def make_plan(
    base: Artifact,
    parts: Sequence[Part],
    *,
    r: int | None = None,
    steps: int | None = None,
    mix: str | None = None,
    refinements: int | None = None,
    locality: float | None = None,
) -> Plan:
    """Fill in what is not given from the tuned models: the largest r, steps and refinements.

    Of locality the smallest: a style beside a smile still changes everything.

    Args:
        r: label to invert to.
        steps: steps of the decode, and then of the inversion too.
        mix: see :class:`Plan`; None takes "weights".
        refinements: of each inversion step.
        locality: of the edits, see :func:`dclip.locality.localised`.

    Raises:
        BadInput: r, steps or locality out of range, an unknown mix, or a window beyond r.
    """
    info = read_info(base.path)
    known = [part.artifact.config for part in parts]
    if r is None:
        if not known or not all(config.get("r") for config in known):
            raise BadInput("no tuned model says which r it was made for", "give it, e.g. --r 100")
        r = max(int(config["r"]) for config in known)
    made_with = [_steps(config) for config in known] or [(STEPS, STEPS)]
    steps_for = steps if steps is not None else min(r, max(pair[0] for pair in made_with))
    steps = steps if steps is not None else min(r, max(pair[1] for pair in made_with))
    mix = mix or MIXES[0]
    for part in parts:
        if part.window and part.window[0] > r:
            raise BadInput(
                f"{part.artifact.name} is to act at t in {part.window[0]}..{part.window[1]},"
                f" but the edit begins at r={r}",
                f"choose a window within 1..{r}, or a larger --r",
            )
    if refinements is None:
        said = [config["refinements"] for config in known if "refinements" in config]
        refinements = max(map(int, said), default=REFINEMENTS)
    if locality is None:
        locality = min((float(config.get("locality") or 0) for config in known), default=0.0)
    check_how(mix, locality)
    plan = Plan(base, info, tuple(parts), r, steps, steps_for, mix, refinements, locality)
    _ = plan.inversion_grid  # refuses r and steps that do not fit
    return plan


def find_plan(
    store: Store,
    specs: Sequence[PartSpec],
    report: Reporter = _SILENT,
    *,
    r: int | None = None,
    steps: int | None = None,
    mix: str | None = None,
    locality: float | None = None,
) -> Plan:
    """:func:`make_plan` of the tuned models that are named, on their common base.

    Warns of parts that act at none of the plan's labels.

    Raises:
        BadInput: models of different bases, or settings that do not fit.
        MissingArtifact: they are not there.
    """
    parts = find_parts(store, specs, report)
    base = find_base(store, parts)
    plan = make_plan(base, parts, r=r, steps=steps, mix=mix, locality=locality)
    for idle in plan.idle():
        report.warn(idle)
    return plan


def _steps(config: Any) -> tuple[int, int]:
    """(steps_for, steps_gen) that a tuned model was made with."""
    steps_gen = config.get("steps_gen") or config.get("steps_for") or STEPS
    return int(config.get("steps_for") or steps_gen), int(steps_gen)


class Weights:
    """A base's network and the differences of models tuned from it, each read once.

    Args:
        base: the base model's artifact.
        device: where the networks work.
    """

    def __init__(self, base: Artifact, device: torch.device) -> None:
        self.base = base
        self.device = device
        self.network, self.info = load_model(base.path, device)
        self._deltas: dict[str, Deltas] = {}

    def deltas(self, artifact: Artifact) -> Deltas:
        """The weight differences of a tuned artifact."""
        if artifact.id not in self._deltas:
            self._deltas[artifact.id] = read_deltas(artifact.path, self.network)
        return self._deltas[artifact.id]


@dataclass(frozen=True)
class Inverted:
    """Photos and what an edit of them starts from.

    Attributes:
        photos: (B,3,H,W) in [-1, 1].
        x_r: their states at label r, same shape.
        offsets: (S,B,3,H,W), what the base's decode of each step misses.
    """

    photos: Tensor
    x_r: Tensor
    offsets: Tensor


class Editor:
    """Inverts photos with the base and decodes them with the tuned models, in float32.

    Args:
        plan: what with, and on which grid.
        weights: of the plan's base.
    """

    def __init__(self, plan: Plan, weights: Weights) -> None:
        self.plan, self.weights = plan, weights
        self.schedule = plan.info.schedule
        self.device = weights.device

    @torch.no_grad()
    def invert(self, x0: Tensor, on_step: Step | None = None) -> Inverted:
        """Invert photos, and keep what the base's decode of each step misses.

        The offsets lead along the inversion's own states, so they also make up for a decode of
        fewer steps than the inversion has.

        Args:
            x0: (B,3,H,W) in [-1, 1].
            on_step: called after each step of :attr:`Plan.inversion_grid`.

        Raises:
            DclipError: the network does not give finite latents.
        """
        photos = x0.to(self.device, torch.float32)
        x_r, offsets = invert_with_offsets(
            self.weights.network,
            self.schedule,
            photos,
            self.plan.inversion_grid,
            refinements=self.plan.refinements,
            decode_grid=self.plan.grid,
            on_step=None if on_step is None else lambda *_: on_step(),
        )
        if not bool(torch.isfinite(x_r).all()):
            raise DclipError(
                f"the inversion to r={self.plan.r} gave values that are not finite",
                "use more --steps, a smaller --r, or a model that was trained longer",
            )
        return Inverted(photos, x_r, offsets)

    @torch.no_grad()
    def decode(
        self,
        start: Inverted,
        strength: float = 1.0,
        *,
        direct: bool = True,
        on_step: Step | None = None,
    ) -> Tensor:
        """Decode states with every part at ``strength`` times its own.

        Args:
            start: from :meth:`invert`.
            direct: replay the offsets, so that strength 0 returns the photo to rounding, and keep
                the edit where it acts (:attr:`Plan.locality`). Else decode plainly.
            on_step: called after each step of :attr:`Plan.grid`.

        Returns:
            (B,3,H,W), not clipped.
        """
        edits = ddim.decode(
            self._network(strength),
            self.schedule,
            start.x_r,
            self.plan.grid,
            offsets=start.offsets if direct else None,
            on_step=(lambda index, t, x, clean: on_step()) if on_step else None,
        )
        return localised(edits, start.photos, self.plan.locality) if direct else edits

    def _network(self, strength: float) -> EpsModel:
        parts = [
            replace(part, strength=strength * part.strength)
            for part in self.plan.parts
            if strength * part.strength != 0
        ]
        base = self.weights.network
        if not parts:
            return base
        if self.plan.mix == "weights":
            return _Summed(self.weights, parts)
        networks = [merged(base, [(self.weights.deltas(p.artifact), 1.0)]) for p in parts]
        return _Mixed(base, list(zip(parts, networks, strict=True)))


class _Summed:
    """The base plus the scaled differences of the parts that act at t."""

    def __init__(self, weights: Weights, parts: Sequence[Part]) -> None:
        self.weights, self.parts = weights, parts
        self._networks: dict[tuple[int, ...], nn.Module] = {}

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        label = int(t[0])
        acting = tuple(i for i, part in enumerate(self.parts) if part.acts(label))
        if acting not in self._networks:
            chosen = [self.parts[i] for i in acting]
            self._networks[acting] = merged(
                self.weights.network,
                [(self.weights.deltas(part.artifact), part.strength) for part in chosen],
            )
        eps: Tensor = self._networks[acting](x, t)
        return eps


class _Mixed:
    """``eps_base + sum s_i (eps_i - eps_base)`` over the parts that act at t.

    The arithmetic of composing diffusion models (Liu et al. 2022, 2206.01714), and of Asyrp's and
    SEGA's windows over t.
    """

    def __init__(self, base: nn.Module, parts: Sequence[tuple[Part, nn.Module]]) -> None:
        self.base, self.parts = base, parts

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        label = int(t[0])
        acting = [(part.strength, network) for part, network in self.parts if part.acts(label)]
        eps_base: Tensor = self.base(x, t)
        eps = eps_base
        for strength, network in acting:
            eps = eps + strength * (network(x, t) - eps_base)
        return eps


def load_editor(
    store: Store,
    tuned: Sequence[PartSpec | tuple[str | None, float]],
    device: torch.device,
    report: Reporter = _SILENT,
    *,
    r: int | None = None,
    steps: int | None = None,
    mix: str | None = None,
    locality: float | None = None,
) -> Editor:
    """Find tuned models and their base, and load them; see :func:`make_plan` for the settings.

    Args:
        tuned: (reference, strength) pairs, or :class:`PartSpec`; empty takes the newest.

    Raises:
        BadInput: models of different bases, or settings that do not fit.
        MissingArtifact, CorruptArtifact: they are not there, or not sound.
    """
    specs = [each if isinstance(each, PartSpec) else PartSpec(*each) for each in tuned]
    plan = find_plan(
        store, specs or [PartSpec()], report, r=r, steps=steps, mix=mix, locality=locality
    )
    return Editor(plan, Weights(plan.base, device))


def knows_drawn_faces(store: Store, base: Artifact) -> bool:
    """Whether ``base`` was trained on drawn faces, as the embedded one was."""
    if base.ref == "model/embedded":  # its data is not in the user's store
        return True
    try:
        return bool(store.input(base, "data").config.get("source") == "faces")
    except DclipError:
        return False


def data_crop(store: Store, base: Artifact) -> str | None:
    """How the data that ``base`` was trained on was cropped; None where nobody can tell."""
    try:
        crop = store.input(base, "data").config.get("crop")
    except DclipError:
        return None
    return str(crop) if crop else None


def as_picture(x_r: Tensor) -> Tensor:
    """Latents (B,3,H,W) as uint8 pictures.

    Two standard deviations span the range where that is wider than [-1, 1]: noise is not clipped
    to black and white, and a latent near its photo keeps the photo's contrast.
    """
    scale = (2 * x_r.flatten(1).std(1)).clamp(min=1.0).view(-1, 1, 1, 1)
    return (x_r / scale).add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
