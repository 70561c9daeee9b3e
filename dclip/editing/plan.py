"""The plan of an edit: tuned models, their base and the grid. No weights are read for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dclip.context import Reporter, Silent
from dclip.diffusion import grids, unseen
from dclip.diffusion.inversion import REFINEMENTS
from dclip.domains import DOMAINS, FACE_FRAMES
from dclip.editing.mask import check_locality
from dclip.editing.spec import PartSpec
from dclip.errors import BadInput
from dclip.models.checkpoint import ModelInfo, read_info
from dclip.store import Artifact, Store

MIXES = ("weights", "noise")
STEPS = 20  # where a tuned model does not say how many it was made with

_SILENT = Silent()


class DrawnOnly(BadInput):
    """Photos for a model that knows only drawn faces."""


def check_domain(info: ModelInfo, domain: str, *, anyway: bool, report: Reporter = _SILENT) -> None:
    """Refuse photos for a model that knows only drawn faces.

    Args:
        info: the base model.
        domain: what the pictures to edit show.
        anyway: the user insists, and is warned.

    Raises:
        DrawnOnly: what a model that can edit them takes.
    """
    if not DOMAINS[info.domain].drawn or DOMAINS[domain].drawn:
        return
    what = "this model knows only faces that dclip draws: on a photo it paints drawn features"
    if anyway:
        report.warn(what)
        return
    raise DrawnOnly(
        what,
        "for photos, train a base on photos and tune it (docs/training.md); --anyway insists,"
        " e.g. for pictures of drawn faces",
    )


def warn_of_frame(base: Artifact, info: ModelInfo, data: Artifact, report: Reporter) -> None:
    """Warn where pictures have the face in another place than the base's have it.

    Args:
        base, info: the base model.
        data: the pictures to edit, a ``data`` artifact.
    """
    knows, shows = (
        f"{name}, crop {crop}" if name == "celeba" else name
        for name, crop in (
            (info.frame, info.crop),
            (data.config["frame"], data.config["crop"] or "center"),
        )
    )
    if info.frame in FACE_FRAMES and shows != knows:
        again = f"--align --frame {info.frame}"
        again += f" --crop {info.crop}" if info.frame == "celeba" else ""
        report.warn(
            f"{base.ref} knows faces in the frame {knows}, {data.ref} has the frame {shows}: edits"
            f" suffer. Of photos, `dclip prepare folder --root DIR {again}` brings faces there"
        )


@dataclass(frozen=True)
class Part:
    """One tuned model with the strength and window of :class:`PartSpec`."""

    artifact: Artifact
    strength: float = 1.0
    window: tuple[int, int] | None = None

    def acts(self, t: int) -> bool:
        """Whether it acts at timestep ``t``: above its ``t_min`` and within the window."""
        if t <= int(self.artifact.config.get("t_min") or 0):
            return False
        return self.window is None or self.window[0] <= t <= self.window[1]


@dataclass(frozen=True)
class Plan:
    """The tuned models, base and grid of an edit.

    Attributes:
        base: the base model of all parts.
        info: what the base is.
        parts: the tuned models; none is the base alone.
        r: the timestep that photos are inverted to.
        steps: steps of the decode.
        inversion_steps: least steps of the inversion; the decode's timesteps are among its own.
        mix: ``"weights"`` adds up the scaled weight differences; ``"noise"`` adds up the scaled
            differences of the predicted noise, ``eps_base + sum s_i (eps_i - eps_base)``.
        refinements: of each inversion step: as in the latents that the parts were tuned on.
        locality: see :func:`dclip.editing.mask.localised`.
        rule: how timesteps are spread, of :data:`dclip.diffusion.grids.WALKS`.
        method: of the inversion.
        encode: ``"inversion"``, or ``"noise"``: photos are noised to r in closed form instead.
        rounds: of :func:`dclip.diffusion.unseen.brought`, before all that.
        rounds_r: the timestep that each of them noises to; None is ``r``.
    """

    base: Artifact
    info: ModelInfo
    parts: tuple[Part, ...]
    r: int
    steps: int
    inversion_steps: int
    mix: str
    refinements: int
    locality: float
    rule: str = "even"
    method: str = "fixed-point"
    encode: str = "inversion"
    rounds: int = 0
    rounds_r: int | None = None

    @property
    def grid(self) -> tuple[int, ...]:
        """Timesteps of the decode, 0 to r."""
        return self._walk(self.steps)

    @property
    def inversion_grid(self) -> tuple[int, ...]:
        """Timesteps of the inversion: those of the decode, and others up to ``inversion_steps``."""
        fine = self._walk(max(self.steps, self.inversion_steps))
        return grids.upward(self.rule, sorted({*fine, *self.grid}))

    @property
    def round_grid(self) -> tuple[int, ...]:
        """Timesteps of the decode of each round."""
        r = self.rounds_r or self.r
        return grids.walk(self.rule, r, min(r, unseen.STEPS), self.info.schedule.T)

    @property
    def start_steps(self) -> int:
        """Steps from a photo to the state that is decoded."""
        inversion = 0 if self.encode == "noise" else len(self.inversion_grid) - 1
        return inversion + (self.rounds and self.rounds * (len(self.round_grid) - 1))

    @property
    def keeps_photos(self) -> bool:
        """Whether strength 0 can be the photo: not after noise."""
        return self.encode == "inversion" and not self.rounds

    def _walk(self, steps: int) -> tuple[int, ...]:
        return grids.walk(self.rule, self.r, steps, self.info.schedule.T)

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

    @property
    def written(self) -> str:
        """As a user writes it for ``--with``: ``sketch:0.8+smiling@1-40``."""
        parts = (PartSpec(p.artifact.name, p.strength, p.window) for p in self.parts)
        return "+".join(map(str, parts))

    def idle(self) -> list[str]:
        """What to warn of, for each part that acts at none of the grid's timesteps."""
        found = []
        for part in self.parts:
            if not any(part.acts(t) for t in self.grid[1:]):
                timesteps = ", ".join(map(str, self.grid[1:]))
                where = f"above t={int(part.artifact.config.get('t_min') or 0)}"
                if part.window is not None:
                    where += f" and within {part.window[0]}..{part.window[1]}"
                found.append(
                    f"{part.artifact.name} changes nothing: it acts {where}, and the decode's"
                    f" timesteps are {timesteps}"
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
            "inversion_steps": self.inversion_steps,
            "refinements": self.refinements,
            "mix": self.mix,
            "locality": self.locality,
            "grid": self.rule,
            "inversion": self.method,
            "encode": self.encode,
            "rounds": self.rounds,
            "rounds_r": self.rounds_r,
        }


@dataclass(frozen=True)
class Plans:
    """The plans of one edit: one for everything, or one for each group of faces.

    Attributes:
        plans: on one base, each with an r and steps of its own.
        faces: the faces of each plan by number, 1 is the leftmost; none where one is for all.
    """

    plans: tuple[Plan, ...]
    faces: tuple[tuple[int, ...], ...] = ()

    @property
    def base(self) -> Artifact:
        """The base model of all of them."""
        return self.plans[0].base

    @property
    def info(self) -> ModelInfo:
        """What the base is."""
        return self.plans[0].info

    @property
    def parts(self) -> tuple[Part, ...]:
        """The tuned models of all of them."""
        return tuple(part for plan in self.plans for part in plan.parts)

    @property
    def several(self) -> bool:
        """Whether faces get different edits."""
        return len(self.plans) > 1

    @property
    def written(self) -> str:
        """As a user writes each for ``--with``, with commas between several."""
        return ", ".join(plan.written for plan in self.plans)

    @property
    def keeps_photos(self) -> bool:
        """Whether strength 0 can be the photo: not after noise."""
        return all(plan.keeps_photos for plan in self.plans)

    def of(self, face: int) -> int | None:
        """Which plan a face has; None where there are several and it has none of them."""
        if not self.several:
            return 0
        return next((k for k, numbers in enumerate(self.faces) if face in numbers), None)

    def caption(self, strength: float = 1.0, *, always: bool = False) -> str:
        """As :meth:`Plan.caption`; of several ``1: smiling, 2: sketch 0.5``."""
        captions = [plan.caption(strength, always=always) for plan in self.plans]
        if not self.several:
            return captions[0]
        groups = ["+".join(map(str, numbers)) for numbers in self.faces]
        return ", ".join(f"{who}: {what}" for who, what in zip(groups, captions, strict=True))

    def inputs(self) -> dict[str, Artifact]:
        """As :meth:`Plan.inputs`, of all of them."""
        return replace(self.plans[0], parts=self.parts).inputs()

    def settings(self) -> dict[str, Any]:
        """As :meth:`Plan.settings`; of several, a list of them with their faces."""
        if not self.several:
            return self.plans[0].settings()
        return {
            "edits": [
                {"face": list(numbers), **plan.settings()}
                for numbers, plan in zip(self.faces, self.plans, strict=True)
            ]
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
    r: int | float | None = None,
    steps: int | None = None,
    mix: str | None = None,
    refinements: int | None = None,
    locality: float | None = None,
    grid: str | None = None,
    encode: str | None = None,
    rounds: int = 0,
    rounds_r: int | float | None = None,
) -> Plan:
    """Fill in what is not given from the tuned models: the largest r, steps and refinements.

    Of locality the smallest: a style beside a smile still changes everything.

    Args:
        r: timestep to invert to, or a share of T, see :meth:`Schedule.timestep`.
        steps: steps of the decode, and then of the inversion too.
        mix: see :class:`Plan`; None takes "weights".
        refinements: of each inversion step.
        locality: of the edits, see :func:`dclip.editing.mask.localised`.
        grid: rule by which timesteps are spread.
        encode, rounds: see :class:`Plan`.
        rounds_r: as ``r``.

    Raises:
        BadInput: tuned models that were made with different grids or encodings, r, steps or
            locality out of range, an unknown mix, or a window beyond r.
    """
    info = read_info(base.path)
    known = [part.artifact.config for part in parts]
    if r is None:
        if not known or not all(config.get("r") for config in known):
            raise BadInput("no tuned model says which r it was made for", "give it, e.g. --r 100")
        r = max(int(config["r"]) for config in known)
    r = info.schedule.timestep(r)
    made_with = [_steps(config) for config in known] or [(STEPS, STEPS)]
    inversion_steps = steps if steps is not None else min(r, max(pair[0] for pair in made_with))
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
    if mix not in MIXES:
        raise BadInput(f"mix {mix!r} is unknown", f"use one of {', '.join(MIXES)}")
    check_locality(locality)
    plan = Plan(
        base, info, tuple(parts), r, steps, inversion_steps, mix, refinements, locality,
        rule=grid or _alike(parts, "grid", "even"),
        method=_inversion(parts),
        encode=encode or _alike(parts, "encode", "inversion"),
        rounds=rounds,
        rounds_r=None if rounds_r is None else info.schedule.timestep(rounds_r),
    )  # fmt: skip
    _ = plan.inversion_grid, plan.start_steps  # refuses r and steps that do not fit
    return plan


def find_plan(
    store: Store,
    specs: Sequence[PartSpec],
    report: Reporter = _SILENT,
    *,
    r: int | float | None = None,
    steps: int | None = None,
    mix: str | None = None,
    locality: float | None = None,
    grid: str | None = None,
    encode: str | None = None,
    rounds: int = 0,
    rounds_r: int | float | None = None,
) -> Plan:
    """:func:`make_plan` of the tuned models that are named, on their common base.

    Warns of parts that act at none of the plan's timesteps.

    Raises:
        BadInput: models of different bases, or settings that do not fit.
        MissingArtifact: they are not there.
    """
    parts = find_parts(store, specs, report)
    base = find_base(store, parts)
    plan = make_plan(
        base, parts, r=r, steps=steps, mix=mix, locality=locality, grid=grid, encode=encode,
        rounds=rounds, rounds_r=rounds_r,
    )  # fmt: skip
    for idle in plan.idle():
        report.warn(idle)
    return plan


def _inversion(parts: Sequence[Part]) -> str:
    """The method that all tuned models were made with, else the most exact."""
    found = {part.artifact.config.get("inversion") for part in parts}
    return (found.pop() if len(found) == 1 else None) or "fixed-point"


def _alike(parts: Sequence[Part], setting: str, default: str) -> str:
    """What all tuned models were made with."""
    found = {part.artifact.name: part.artifact.config.get(setting) or default for part in parts}
    if len(set(found.values())) > 1:
        (one, a), *others = found.items()
        other, b = next(pair for pair in others if pair[1] != a)
        raise BadInput(
            f"{one} was tuned with {setting} {a}, {other} with {b}",
            f"say which with --{setting}",
        )
    return next(iter(found.values()), default)


def like_latents(latents: Artifact) -> dict[str, Any]:
    """What a tuned model's config takes over from its latents, so that edits are made alike."""
    made = latents.config
    return {
        "r": int(made["r"]),
        "inversion_steps": int(made["steps"]),
        "refinements": int(made.get("refinements") or 0),
        "grid": made.get("grid") or "even",
        "encode": made.get("encode") or "inversion",
        "inversion": made.get("method"),
    }


def _steps(config: Any) -> tuple[int, int]:
    """(inversion_steps, decode_steps) that a tuned model was made with."""
    decode_steps = config.get("decode_steps") or config.get("inversion_steps") or STEPS
    return int(config.get("inversion_steps") or decode_steps), int(decode_steps)
