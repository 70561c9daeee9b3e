"""The explanation, made live: two small networks are trained and shown at work on a spiral."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from dclip.context import Reporter, Silent
from dclip.diffusion import ddim, ddpm
from dclip.diffusion.guidance import Guided
from dclip.diffusion.network import EpsModel
from dclip.diffusion.samplers import SAMPLERS
from dclip.diffusion.schedule import Schedule
from dclip.explain import drawing as draw
from dclip.explain.networks import (
    Denoiser,
    PointsAndWords,
    guided_by_class,
    train_clip,
    train_denoiser,
)
from dclip.explain.spiral import ARMS, PLACES, Spiral, exact_eps, spiral
from dclip.guidance.steering import spherical
from dclip.random import key, normal

T = 100
SHOWN = 600
STEPS = 50
PROMPT = "green"


@dataclass(frozen=True)
class Size:
    """How much is computed; the defaults take 20 seconds on one core.

    Attributes:
        points: of the data.
        clip_steps, denoiser_steps: of training.
        shown: points of each cloud.
    """

    points: int = 3000
    clip_steps: int = 500
    denoiser_steps: int = 2500
    shown: int = SHOWN


@dataclass(frozen=True)
class Lesson:
    """What the figures are drawn from.

    Attributes:
        data: the spiral.
        clip, denoiser: the trained networks.
        schedule: the noise schedule, 100 steps.
        start: standard normal points (N, 2), where every sampler starts from.
        noise: a sampler's noise, keyed by the timestep and the point.
    """

    data: Spiral
    clip: PointsAndWords
    denoiser: Denoiser
    schedule: Schedule
    start: Tensor
    noise: Callable[[int], Tensor]

    def draw(
        self, model: EpsModel, sampler: str = "ddim", steps: int = STEPS, still: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Points (N, 2) out of noise, and their ways (steps + 1, N, 2); ``still`` adds no noise."""
        way = [self.start]
        grid = ddim.grid(T, steps, T)
        with torch.no_grad():
            end = SAMPLERS[sampler](
                model,
                self.schedule,
                self.start,
                grid,
                noise=(lambda s: torch.zeros_like(self.start)) if still else self.noise,
                on_step=lambda index, t, x, x0: way.append(x),
                clip_x0=True,
            )
        return end, torch.stack(way)


def run(
    out: Path, seed: int = 0, report: Reporter | None = None, size: Size = Size()
) -> list[Path]:
    """Train both networks, draw every figure, and write the numbers that the text quotes.

    Args:
        out: folder for the files; made where it is not there.
        seed: decides the data, the networks and the noise.

    Returns:
        The files: PNG pictures, ``paths.gif`` and ``numbers.json``.
    """
    out.mkdir(parents=True, exist_ok=True)
    lesson = learn(seed, report or Silent(), size)
    numbers: dict[str, float] = {}
    files = [figure(lesson, out, numbers) for figure in FIGURES]
    place = out / "numbers.json"
    place.write_text(json.dumps({k: round(v, 3) for k, v in numbers.items()}, indent=1) + "\n")
    return [*files, place]


def learn(seed: int, report: Reporter, size: Size = Size()) -> Lesson:
    """Make the data and train the two networks."""
    # Fresh weights come from torch's own generator, which is the caller's: it is put back.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "explain", "weights"))
        generator = torch.Generator().manual_seed(key(seed, "explain"))
        data, schedule = spiral(size.points, generator), Schedule.make("linear-rescaled", T)
        with report.task("points and words", size.clip_steps, unit="step") as task:
            clip = train_clip(data, size.clip_steps, generator, lambda: task.advance(1))
        with report.task("noise", size.denoiser_steps, unit="step") as task:
            denoiser = train_denoiser(
                data, schedule, size.denoiser_steps, generator, lambda: task.advance(1)
            )

    @cache  # every sampler asks for the same
    def noise(t: int) -> Tensor:
        return normal([key(seed, "explain", i, t) for i in range(size.shown)], (2,))

    return Lesson(data, clip, denoiser, schedule, noise(T), noise)


def clip_figure(lesson: Lesson, out: Path, numbers: dict[str, float]) -> Path:
    """Points with their words, and how near the plane is to a few texts."""
    data, clip, n = lesson.data, lesson.clip, 80
    texts = [f"{arm} {place}" for arm in ARMS for place in PLACES]
    table = torch.cat([clip.embed_text(text) for text in texts])
    said = (clip.embed_points(data.points) @ table.T).argmax(1)
    truth = data.arm * len(PLACES) + data.place
    numbers["clip: right of six captions"] = float((said == truth).float().mean())
    figure, panels = draw.sheet(4)
    draw.cloud(panels[0], data.points[:900], draw.by_arm(data.arm[:900]))
    panels[0].set_title("points and their colour", fontsize=8)
    for panel, text in zip(panels[1:], ("red", "outer", "green outer"), strict=True):
        places = draw.plane(n, draw.EDGE)
        likeness = (clip.embed_points(places) @ clip.embed_text(text).T)[:, 0]
        draw.shade(panel, likeness, n, draw.EDGE)
        draw.cloud(panel, data.points[:600], "grey", size=1)
        panel.set_title(f"how much like “{text}”", fontsize=8)
    return draw.save(figure, out / "clip.png")


def walk_figure(lesson: Lesson, out: Path, numbers: dict[str, float]) -> Path:
    """Noise added step by step: q(x_t | x_{t-1}) = N(sqrt(1 - beta) x, beta)."""
    data, schedule = lesson.data, lesson.schedule
    x = data.points[: len(lesson.start)]
    way = [x]
    for t in range(1, T + 1):
        beta = schedule.beta(t)
        x = (1 - beta) ** 0.5 * x + beta**0.5 * lesson.noise(t)[: len(x)]
        way.append(x)
    numbers["walk: standard deviation at T"] = float(x.std())
    shown = (0, T // 10, T // 4, T // 2, T)
    figure, panels = draw.sheet(len(shown), edge=draw.WIDE)
    colours = draw.by_arm(data.arm[: len(x)])
    for panel, t in zip(panels, shown, strict=True):
        draw.cloud(panel, way[t], colours)
        panel.set_title(f"t = {t}: alpha_bar = {float(schedule.alpha_bar[t]):.2g}", fontsize=8)
    draw.paths(panels[-1], torch.stack(way)[:, :3], "grey")
    return draw.save(figure, out / "walk.png")


def field_figure(lesson: Lesson, out: Path, numbers: dict[str, float]) -> Path:
    """The learned field, minus eps, above the exact one of the data."""
    schedule, model = lesson.schedule, lesson.denoiser.of()
    shown = (T // 20, T // 10, T // 4, T)
    figure, panels = draw.sheet(len(shown), 2, edge=1.1)
    places = draw.plane(15, 1.0)
    for k, t in enumerate(shown):
        a = schedule.coefficients(t)[0]
        states = ddpm.q_sample(schedule, lesson.data.points, t, _like(lesson, t))
        for row, name in enumerate(("learned", "exact")):
            panel = panels[row * len(shown) + k]
            draw.cloud(panel, a * lesson.data.points[:600], "grey", size=1)
            field = _field(lesson, places, t, model if name == "learned" else None)
            draw.arrows(panel, places, -field, "blue" if name == "learned" else "red")
            panel.set_title(f"{name}, t = {t}", fontsize=8)
        learned, exact = _field(lesson, states, t, model), _field(lesson, states, t, None)
        numbers[f"field: relative error at t = {t}"] = float(
            (learned - exact).norm() / exact.norm()
        )
    return draw.save(figure, out / "field.png")


def _like(lesson: Lesson, t: int) -> Tensor:
    """Noise for every data point."""
    noise = lesson.noise(t)
    return noise.repeat(-(-len(lesson.data.points) // len(noise)), 1)[: len(lesson.data.points)]


def _field(lesson: Lesson, places: Tensor, t: int, model: EpsModel | None) -> Tensor:
    if model is None:
        return exact_eps(lesson.schedule, lesson.data.points, places, t)
    with torch.no_grad():
        return model(places, torch.full((len(places),), t))


def sampling_figure(lesson: Lesson, out: Path, numbers: dict[str, float]) -> Path:
    """DDPM's cloud, the same without its noise, DDIM's paths, and fewer steps."""
    data, model = lesson.data, lesson.denoiser.of()
    runs = {
        "DDPM, 100 steps": lesson.draw(model, "ddpm", 100),
        "DDPM without noise": lesson.draw(model, "ddpm", 100, still=True),
        "DDIM, 50 steps": lesson.draw(model, "ddim", 50),
        "DDIM, 20 steps": lesson.draw(model, "ddim", 20),
        "DPM-Solver++, 20 steps": lesson.draw(model, "dpmpp-2m", 20),
        "DDIM, 5 steps": lesson.draw(model, "ddim", 5),
    }
    figure, panels = draw.sheet(len(runs))
    for panel, (name, (end, way)) in zip(panels, runs.items(), strict=True):
        if name == "DDIM, 50 steps":
            draw.paths(panel, way[:, :40])
        draw.cloud(panel, end, draw.by_arm(data.arm[data.nearest(end)[0]]))
        panel.set_title(name, fontsize=8)
        numbers[f"on the spiral: {name}"] = data.share(end)
        numbers[f"spread: {name}"] = float(end.std())
    return draw.save(figure, out / "sampling.png")


def class_figure(lesson: Lesson, out: Path, numbers: dict[str, float]) -> Path:
    """A class alone, with classifier-free guidance, and classes to avoid."""
    data, of = lesson.data, lesson.denoiser.of
    red, blue = ARMS.index("red"), ARMS.index("blue")
    models = {
        "red": (of(red), red),
        "red, scale 2": (guided_by_class(of(red), of(), 2), red),
        "red, scale 6": (guided_by_class(of(red), of(), 6), red),
        "no class": (of(), blue),
        "not blue, scale -0.5": (guided_by_class(of(blue), of(), -0.5), blue),
        "red, away from blue, 1.3": (guided_by_class(of(red), of(blue), 1.3), red),
    }
    figure, panels = draw.sheet(len(models))
    for panel, (name, (model, arm)) in zip(panels, models.items(), strict=True):
        end, _ = lesson.draw(model)
        draw.cloud(panel, end, draw.by_arm(data.arm[data.nearest(end)[0]]))
        panel.set_title(name, fontsize=8)
        numbers[f"on the spiral: {name}"] = data.share(end)
        numbers[f"{ARMS[arm]}, {name}"] = data.share(end, arm)
        numbers[f"spread: {name}"] = float(end.std())
    return draw.save(figure, out / "classes.png")


def guidance_figure(lesson: Lesson, out: Path, numbers: dict[str, float]) -> Path:
    """The network without classes, steered by the likeness of its x0_hat to a text."""
    data, clip = lesson.data, lesson.clip
    wanted = clip.embed_text(PROMPT)
    arm = ARMS.index(PROMPT)
    scales = (0.0, 1.0, 3.0, 10.0, 100.0)
    figure, panels = draw.sheet(len(scales))
    for panel, scale in zip(panels, scales, strict=True):
        model = Guided(
            lesson.denoiser.of(),
            lesson.schedule,
            lambda x0, t: spherical(clip.embed_points(x0), wanted),
            scale,
            data_std=float(data.points.std()),
        )
        end, _ = lesson.draw(model)
        draw.cloud(panel, end, draw.by_arm(data.arm[data.nearest(end)[0]]))
        panel.set_title(f"“{PROMPT}”, scale {scale:g}", fontsize=8)
        numbers[f"on the spiral: guided, scale {scale:g}"] = data.share(end)
        numbers[f"{PROMPT}, guided, scale {scale:g}"] = data.share(end, arm)
    return draw.save(figure, out / "guidance.png")


def animation(lesson: Lesson, out: Path, numbers: dict[str, float]) -> Path:
    """DDPM and DDIM from the same noise, side by side."""
    model = lesson.denoiser.of()
    walks = [lesson.draw(model, name, 30)[1][:, :300] for name in ("ddpm", "ddim")]
    # By where DDIM ends: points of one colour start together there, and do not for DDPM.
    colours = draw.by_arm(lesson.data.arm[lesson.data.nearest(walks[1][-1])[0]])
    return draw.animate(out / "paths.gif", ("DDPM", "DDIM"), walks, colours)


FIGURES = (
    clip_figure,
    walk_figure,
    field_figure,
    sampling_figure,
    class_figure,
    guidance_figure,
    animation,
)
"""In the order of the text, docs/explain.md."""
