"""Two small networks: one predicts noise at points of the plane, one joins points and words."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dclip.diffusion import ddpm
from dclip.diffusion.network import EpsModel
from dclip.diffusion.schedule import Schedule
from dclip.explain.spiral import ARMS, PLACES, Spiral
from dclip.models.ema import EMA
from dclip.training.clip import contrastive

SMEAR = 0.4
NO_CLASS = len(ARMS)
DROPPED = 0.4
"""Share of training points whose class is hidden, so that one network learns both (Ho & Salimans
2022, 2207.12598, algorithm 1)."""

WAVES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""What the network sees of a coordinate beside its value: sines of so many radians."""

Progress = Callable[[], None]


class Denoiser(nn.Module):
    """``eps = model(x, t, arm)`` for points (B, 2), t int64 (B,) and classes int64 (B,)."""

    def __init__(self, schedule: Schedule, width: int = 128, frequencies: int = 8) -> None:
        super().__init__()
        self.T = schedule.T
        self.frequencies = frequencies
        self.arms = nn.Embedding(NO_CLASS + 1, 16)
        # Waves over the plane too: a small network of the plain coordinates draws soft shapes.
        inputs = 2 + 4 * len(WAVES) + 2 * frequencies + 16
        self.layers = nn.Sequential(
            nn.Linear(inputs, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, 2),
        )

    def forward(self, x: Tensor, t: Tensor, arm: Tensor) -> Tensor:
        u = t[:, None] / self.T
        waves = u * math.pi * torch.arange(1, self.frequencies + 1, device=x.device)
        plane = (x[:, :, None] * x.new_tensor(WAVES)).flatten(1)
        features = [x, plane.sin(), plane.cos(), waves.sin(), waves.cos(), self.arms(arm)]
        eps: Tensor = self.layers(torch.cat(features, dim=1))
        return eps

    def of(self, arm: int = NO_CLASS) -> EpsModel:
        """The plain contract ``eps = model(x, t)`` for one class, or for none."""
        return lambda x, t: self(x, t, torch.full((len(x),), arm, device=x.device))


def guided_by_class(plus: EpsModel, minus: EpsModel, scale: float) -> EpsModel:
    """Classifier-free guidance: ``eps_minus + scale (eps_plus - eps_minus)``.

    Ho & Salimans 2022 (2207.12598), equation (6). ``minus`` is the model without a class, or with
    the one to avoid ("negative"). Scale 1 is ``plus`` alone, 0 is ``minus`` alone.
    """

    def model(x: Tensor, t: Tensor) -> Tensor:
        away = minus(x, t)
        return away + scale * (plus(x, t) - away)

    return model


def train_denoiser(
    data: Spiral,
    schedule: Schedule,
    steps: int,
    generator: torch.Generator,
    on_step: Progress,
    batch: int = 512,
) -> Denoiser:
    """Train to predict the noise in points of every timestep, with and without their class."""
    model = Denoiser(schedule)
    average = EMA(model, 0.99)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        chosen = torch.randint(len(data.points), (batch,), generator=generator)
        arm = data.arm[chosen].clone()
        arm[torch.rand(batch, generator=generator) < DROPPED] = NO_CLASS
        # The lowest timesteps hold most of the shape: two thirds of the training go to a fifth.
        share = torch.rand(batch, generator=generator) ** 4
        t = 1 + (share * schedule.T).long().clamp_max(schedule.T - 1)
        eps = torch.randn(batch, 2, generator=generator)
        network = partial(model, arm=arm)
        loss = ddpm.loss(network, schedule, data.points[chosen], t, eps).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        average.update(model)
        on_step()
    model.load_state_dict(average.weights)
    return model.eval().requires_grad_(False)


class PointsAndWords(nn.Module):
    """A CLIP of the plane: points and captions such as "red outer" as unit vectors (B, D)."""

    def __init__(self, width: int = 64, dimensions: int = 8) -> None:
        super().__init__()
        self.words = (*ARMS, *PLACES)
        self.points = nn.Sequential(
            nn.Linear(2, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, dimensions),
        )
        self.table = nn.Embedding(len(self.words), dimensions)
        self.scale = 10.0

    def embed_points(self, x: Tensor) -> Tensor:
        return F.normalize(self.points(x), dim=-1)

    def embed_text(self, caption: str) -> Tensor:
        """The caption's words, added up; (1, D)."""
        numbers = torch.tensor([self.words.index(word) for word in caption.split()])
        return F.normalize(self.table(numbers).sum(0, keepdim=True), dim=-1)

    def embed_captions(self, arm: Tensor, place: Tensor) -> Tensor:
        return F.normalize(self.table(arm) + self.table(place + len(ARMS)), dim=-1)


def train_clip(
    data: Spiral, steps: int, generator: torch.Generator, on_step: Progress, batch: int = 256
) -> PointsAndWords:
    """Contrastive: of all pairs in a batch, a point and its own caption shall be most alike.

    Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision".
    """
    model = PointsAndWords()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        chosen = torch.randint(len(data.points), (batch,), generator=generator)
        arm, place = data.arm[chosen], data.place[chosen]
        caption = arm * len(PLACES) + place
        # Smeared by up to half the spiral: guidance asks at estimates that lie between the arms.
        smear = SMEAR * torch.rand(batch, 1, generator=generator)
        points = data.points[chosen] + smear * torch.randn(batch, 2, generator=generator)
        loss = contrastive(
            model.embed_points(points),
            model.embed_captions(arm, place),
            torch.tensor(model.scale),
            caption[:, None] == caption,
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        on_step()
    return model.eval().requires_grad_(False)
