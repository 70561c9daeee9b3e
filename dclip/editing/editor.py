"""From photos and tuned models to edits: what the edit and grid stages share.

A photo is inverted with the base model; the latent is decoded with the base plus the tuned models'
differences. At every step the decode adds what the base alone would have missed ("direct
inversion", Ju et al. 2023, 2310.01506), so that strength 0 is the photo itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from dclip.configs.common import Precision
from dclip.context import Reporter, Silent
from dclip.data.images import to_uint8
from dclip.device import placed
from dclip.diffusion import ddim, ddpm, optimised, unseen
from dclip.diffusion.inversion import invert_with_offsets
from dclip.diffusion.network import ByTimestep, EpsModel, InPrecision
from dclip.diffusion.schedule import Schedule
from dclip.editing.mask import localised
from dclip.editing.plan import Part, Plan, find_plan
from dclip.editing.spec import PartSpec
from dclip.editing.words import Differences, Words
from dclip.errors import BadInput, DclipError
from dclip.guidance.steered import Steering
from dclip.latent.files import load_decoder
from dclip.models.checkpoint import load_model
from dclip.models.hspace import HSpaceBlock, HSpaceEdit, is_hspace, read_hspace
from dclip.models.tuned import Deltas, merged, read_deltas
from dclip.random import key, normal
from dclip.store import Artifact, Store

_SILENT = Silent()

Step = Callable[[], None]
"""Called after every step of an inversion or decode, for progress."""


class Networks:
    """A base's network and the differences of models tuned from it, each read once.

    Args:
        base: the base model's artifact.
        device: where the networks work.
        precision: what they compute in: ``"fp32"`` or ``"bf16"``.
    """

    def __init__(self, base: Artifact, device: torch.device, precision: Precision = "fp32") -> None:
        self.base, self.device, self.precision = base, device, precision
        network, self.info = load_model(base.path, device, latents=True)
        self.autoencoder = load_decoder(base.path, device) if self.info.latent else None
        self.network = placed(network, device, precision)
        self._deltas: dict[str, Deltas] = {}
        self._blocks: dict[str, list[HSpaceBlock]] = {}

    def blocks(self, artifact: Artifact) -> list[HSpaceBlock]:
        """The h-space blocks of a tuned artifact; none of one that changes weights."""
        if not is_hspace(artifact.path):
            return []
        if artifact.id not in self._blocks:
            blocks = [block.to(self.device) for block in read_hspace(artifact.path)]
            self._blocks[artifact.id] = blocks
        return self._blocks[artifact.id]

    def deltas(self, artifact: Artifact) -> Deltas:
        """The weight differences of a tuned artifact."""
        if artifact.id not in self._deltas:
            self._deltas[artifact.id] = read_deltas(artifact.path, self.network)
        return self._deltas[artifact.id]


@dataclass(frozen=True)
class Inverted:
    """Photos with their latents, from which edits are decoded.

    Attributes:
        photos: (B,3,H,W) in [-1, 1]; after :attr:`Plan.rounds`, what these made of them.
        x_r: their states at timestep r, or those of their latents (B,C,h,w).
        offsets: (S,B,C,h,w), the error of each step of the base's decode; None where the states
            were noised in closed form, which no decode returns from.
        lost: (B,3,H,W), what the autoencoder loses of the photos; None where there is none.
        move: like x_r, what optimised latents add to it at strength 1; None where none are.
    """

    photos: Tensor
    x_r: Tensor
    offsets: Tensor | None
    lost: Tensor | None
    move: Tensor | None = None


class Editor:
    """Inverts photos with the base and decodes them with the tuned models.

    Args:
        plan: the tuned models and the grid.
        networks: of the plan's base.
        steering: what steers the decode beside the plan's tuned models, by the same strength.
        seed: of the noise, where the plan takes any; it is keyed by each picture's content too.
        words: what the photos and their edits show, to a network that reads.
    """

    def __init__(
        self,
        plan: Plan,
        networks: Networks,
        steering: Steering | None = None,
        seed: int = 0,
        words: Words | None = None,
    ) -> None:
        self.plan, self.networks, self.steering, self.seed = plan, networks, steering, seed
        self.words = words
        self.schedule = plan.info.schedule
        self.device = networks.device

    @property
    def edits(self) -> bool:
        """Whether anything but the base takes part."""
        return bool(self.plan.parts) or self.steering is not None or self.words is not None

    @property
    def optimises(self) -> bool:
        """Whether latents are optimised instead of decodes steered."""
        return self.steering is not None and self.steering.through == "latent"

    @torch.no_grad()
    def invert(self, x0: Tensor, on_step: Step | None = None) -> Inverted:
        """Invert photos, keep each decode step's error, and optimise the latents where asked to.

        The offsets are against the inversion's own states, so they also correct a decode in fewer
        steps than the inversion's.

        With :attr:`Plan.rounds` the base first makes pictures of its own kind of them, and with
        ``encode`` noise they are noised instead.

        Args:
            x0: (B,3,H,W) in [-1, 1].
            on_step: called after each of :attr:`Plan.start_steps`, and each of optimising.

        Raises:
            DclipError: the network does not give finite latents.
        """
        photos = x0.to(self.device, torch.float32)
        plan, base = self.plan, self._network(0.0)
        noise = partial(self._noise, [_content(picture) for picture in x0])
        if plan.rounds:
            photos = unseen.brought(
                base,
                self.schedule,
                photos,
                plan.round_grid,
                plan.rounds,
                noise=lambda number: noise(photos, "round", number),
                on_step=on_step,
            ).clamp(-1, 1)
        start, lost = photos, None
        if (autoencoder := self.networks.autoencoder) is not None:
            start = autoencoder.latents(photos)
            lost = photos - autoencoder.decode(start)
        if plan.encode == "noise":
            x_r = ddpm.q_sample(self.schedule, start, plan.r, noise(start, "encode"))
            return self._optimised(Inverted(photos, x_r, None, lost), noise, on_step)
        x_r, offsets = invert_with_offsets(
            base,
            self.schedule,
            start,
            plan.inversion_grid,
            method=plan.method,  # type: ignore[arg-type]
            refinements=plan.refinements,
            decode_grid=self.plan.grid,
            on_step=None if on_step is None else lambda *_: on_step(),
        )
        if not bool(torch.isfinite(x_r).all()):
            raise DclipError(
                f"the inversion to r={self.plan.r} gave values that are not finite",
                "use more --steps, a smaller --r, or a model that was trained longer",
            )
        return self._optimised(Inverted(photos, x_r, offsets, lost), noise, on_step)

    def _noise(self, contents: Sequence[str], like: Tensor, *purpose: int | str) -> Tensor:
        """Noise of the shape of ``like``, keyed by the seed and each picture."""
        keys = [key(self.seed, *purpose, content) for content in contents]
        return normal(keys, tuple(like.shape[1:])).to(like)

    def _optimised(
        self, start: Inverted, noise: Callable[..., Tensor], on_step: Step | None
    ) -> Inverted:
        if self.steering is None or not self.optimises:
            return start
        by = optimised.move(
            self._network(1.0),
            self.schedule,
            self.steering.loss(photos=start.photos),
            start.x_r,
            self.plan.grid,
            start=optimised.START * noise(start.x_r, "latent"),
            offsets=start.offsets,
            on_step=on_step,
        )
        return replace(start, move=by)

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
            direct: replay the offsets, so that strength 0 returns the photo to rounding (there are
                none after noise), and keep the edit where it acts (:attr:`Plan.locality`). Else
                decode plainly.
            on_step: called after each step of :attr:`Plan.grid`.

        Returns:
            (B,3,H,W), not clipped.
        """
        seen = Differences()
        model, x_r = self._network(strength, seen), start.x_r
        if start.move is not None:
            x_r = x_r + strength * start.move
        elif self.steering is not None:
            model = self.steering.over(model, self.schedule, photos=start.photos, strength=strength)
        edits = ddim.decode(
            model,
            self.schedule,
            x_r,
            self.plan.grid,
            offsets=start.offsets if direct else None,
            on_step=(lambda index, t, x, clean: on_step()) if on_step else None,
        )
        if self.networks.autoencoder is not None:
            edits = self.networks.autoencoder.decode(edits)
        if direct and start.lost is not None:
            edits = edits + start.lost
        return localised(edits, start.photos, self.plan.locality, seen.map) if direct else edits

    def _network(self, strength: float, seen: Differences | None = None) -> EpsModel:
        if self.words is not None:
            return self._in_precision(self.words.over(self.networks.network, strength, seen))
        parts = [
            replace(part, strength=strength * part.strength)
            for part in self.plan.parts
            if strength * part.strength != 0
        ]
        base = self.networks.network
        in_h = [part for part in parts if self.networks.blocks(part.artifact)]
        parts = [part for part in parts if part not in in_h]
        if in_h and self.plan.mix != "weights":
            raise BadInput("Asyrp's edits cannot be mixed by noise", "leave --mix noise out")
        if in_h:
            summed = _Summed(self.networks, parts)
            asymmetric = _Asymmetric(summed, self.networks, in_h, self.schedule, self.plan.grid)
            return self._in_precision(asymmetric)
        if not parts:
            return self._in_precision(base)
        if self.plan.mix == "weights":
            return self._in_precision(_Summed(self.networks, parts))
        networks = [merged(base, [(self.networks.deltas(p.artifact), 1.0)]) for p in parts]
        return self._in_precision(_Mixed(base, list(zip(parts, networks, strict=True))))

    def _in_precision(self, model: EpsModel) -> EpsModel:
        return InPrecision(model, self.device, self.networks.precision)


class _Summed(ByTimestep):
    """The base plus the scaled differences of the parts that act at t."""

    def __init__(self, networks: Networks, parts: Sequence[Part]) -> None:
        self.networks, self.parts = networks, parts
        self._merged: dict[tuple[int, ...], nn.Module] = {}

    def at(self, t: int) -> nn.Module:
        """The merged network at timestep ``t``."""
        acting = tuple(i for i, part in enumerate(self.parts) if part.acts(t))
        if not acting:
            return self.networks.network
        if acting not in self._merged:
            chosen = [self.parts[i] for i in acting]
            self._merged[acting] = merged(
                self.networks.network,
                [(self.networks.deltas(part.artifact), part.strength) for part in chosen],
            )
        return self._merged[acting]


class _Asymmetric(ByTimestep):
    """The noise with which DDIM's step is Asyrp's (:mod:`dclip.diffusion.asymmetric`).

    ``x_s = a_s x0_hat(eps') + b_s eps`` is DDIM's step of one eps, which depends on the step's end
    too: so on the decode's grid. Offsets and everything else of a decode stay as they are.
    """

    def __init__(
        self,
        plain: _Summed,
        networks: Networks,
        parts: Sequence[Part],
        schedule: Schedule,
        grid: Sequence[int],
    ) -> None:
        self.plain, self.networks, self.parts = plain, networks, parts
        self.schedule, self.grid = schedule, grid

    def at(self, t: int) -> EpsModel:
        """The noise at timestep ``t``, for the step to the next lower one of the grid."""
        network = self.plain.at(t)
        blocks = [
            (block, part.strength)
            for part in self.parts
            if part.acts(t)
            for block in self.networks.blocks(part.artifact)
        ]
        if not blocks:
            return network
        edited = HSpaceEdit(network, blocks)
        s = max(lower for lower in self.grid if lower < t)
        (a_t, b_t), (a_s, b_s) = self.schedule.coefficients(t), self.schedule.coefficients(s)
        ratio = a_s / a_t

        def eps(x: Tensor, timesteps: Tensor) -> Tensor:
            along = b_s * network(x, timesteps) - ratio * b_t * edited(x, timesteps)
            mixed: Tensor = along / (b_s - ratio * b_t)
            return mixed

        return eps


class _Mixed(ByTimestep):
    """``eps_base + sum s_i (eps_i - eps_base)`` over the parts that act at t.

    Composition of diffusion models as in Liu et al. 2022 (2206.01714); parts may act in a window of
    timesteps only, as in Asyrp and SEGA.
    """

    def __init__(self, base: nn.Module, parts: Sequence[tuple[Part, nn.Module]]) -> None:
        self.base, self.parts = base, parts

    def at(self, t: int) -> EpsModel:
        """The mixed prediction at timestep ``t``."""
        acting = [(part.strength, network) for part, network in self.parts if part.acts(t)]

        def eps(x: Tensor, timesteps: Tensor) -> Tensor:
            eps_base: Tensor = self.base(x, timesteps)
            mixed = eps_base
            for strength, network in acting:
                mixed = mixed + strength * (network(x, timesteps) - eps_base)
            return mixed

        return eps


def load_editor(
    store: Store,
    tuned: Sequence[PartSpec | tuple[str | None, float]],
    device: torch.device,
    report: Reporter = _SILENT,
    *,
    r: int | float | None = None,
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
    return Editor(plan, Networks(plan.base, device))


def _content(picture: Tensor) -> str:
    """What identifies a picture (3,H,W) in [-1, 1]: its pixels."""
    return hashlib.sha256(to_uint8(picture[None]).cpu().numpy().tobytes()).hexdigest()


def as_picture(x_r: Tensor) -> Tensor:
    """Latents (B,3,H,W) as uint8 pictures.

    Two standard deviations span the range where that is wider than [-1, 1]: noise is not clipped
    to black and white, and a latent near its photo keeps the photo's contrast.
    """
    scale = (2 * x_r.flatten(1).std(1)).clamp(min=1.0).view(-1, 1, 1, 1)
    return (x_r / scale).add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
