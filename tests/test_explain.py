"""The explanation on the plane: its closed form, what its networks learn, and its files."""

import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from dclip.context import Context, Silent
from dclip.diffusion import ddpm
from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput
from dclip.explain.networks import NO_CLASS, guided_by_class, train_denoiser
from dclip.explain.run import Size, learn, run
from dclip.explain.spiral import ARMS, PLACES, Spiral, exact_eps, spiral
from dclip.stages import explain
from dclip.store import Store

DOCS = Path(__file__).parent.parent / "docs"
SCHEDULE = Schedule.make("linear-rescaled", 100)
SMALL = Size(points=600, clip_steps=150, denoiser_steps=400, shown=100)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def lesson():
    return learn(0, Silent(), SMALL)


@pytest.mark.parametrize("t", [3, 40, 100])
def test_the_exact_field_is_the_score_of_the_gaussian_mixture(t):
    """eps = -sqrt(1 - ab) grad log p_t, with the density written out and differentiated."""
    data = spiral(50, generator()).points.double()
    a, b = SCHEDULE.coefficients(t)
    x = torch.randn(20, 2, generator=generator(1), dtype=torch.float64).requires_grad_()
    components = torch.distributions.MultivariateNormal(
        a * data, covariance_matrix=b**2 * torch.eye(2, dtype=torch.float64)
    )
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=torch.zeros(50, dtype=torch.float64)), components
    )
    (score,) = torch.autograd.grad(mixture.log_prob(x).sum(), x)
    got = exact_eps(SCHEDULE, data, x.detach(), t)
    assert torch.allclose(got, -b * score, atol=1e-9)


def test_the_learned_field_is_the_exact_one_of_a_mixture():
    """Three blobs, which a short training can learn: nearly the same field."""
    centres = torch.tensor([[0.6, 0.0], [-0.4, 0.5], [-0.3, -0.6]])
    arm = torch.arange(900) % 3
    points = centres[arm] + 0.15 * torch.randn(900, 2, generator=generator())
    data = Spiral(points, arm, torch.zeros_like(arm))
    torch.manual_seed(0)
    model = train_denoiser(data, SCHEDULE, 400, generator(1), lambda: None)
    for t in (20, 40, 80):
        x = ddpm.q_sample(SCHEDULE, points, t, torch.randn(900, 2, generator=generator(t)))
        exact, at = exact_eps(SCHEDULE, points, x, t), torch.full((900,), t)
        error = (model.of()(x, at) - exact).norm() / exact.norm()
        assert float(error) < 0.16, t
        only = exact_eps(SCHEDULE, points[arm == 1], x, t)
        told = (model.of(1)(x, at) - only).norm() / only.norm()
        untold = (model.of()(x, at) - only).norm() / only.norm()
        assert float(told) < 0.2
        assert float(told) < float(untold) or t == 80


def test_class_guidance_is_the_formula():
    def red(x, t):
        return x + 1

    def none(x, t):
        return 2 * x

    x, t = torch.randn(5, 2, generator=generator()), torch.full((5,), 3)
    for scale in (0.0, 1.0, 4.0, -0.5):
        want = 2 * x + scale * (x + 1 - 2 * x)
        assert torch.allclose(guided_by_class(red, none, scale)(x, t), want)


def test_the_spiral():
    data = spiral(900, generator())
    assert float(data.points.abs().max()) < 1.1
    assert torch.bincount(data.arm).tolist() == [300, 300, 300]
    assert set(data.place.tolist()) == {0, 1}
    radius = data.points.norm(dim=1)
    assert float(radius[data.place == 0].max()) < float(radius[data.place == 1].min()) + 0.15
    assert data.share(data.points) == 1
    assert data.share(data.points, 0) == pytest.approx(1 / 3)
    assert data.share(data.points + 5) == 0


def test_clip_learns_which_words_are_whose(lesson):
    data, clip = lesson.data, lesson.clip
    table = torch.cat([clip.embed_text(f"{arm} {place}") for arm in ARMS for place in PLACES])
    said = (clip.embed_points(data.points) @ table.T).argmax(1)
    assert float((said == data.arm * len(PLACES) + data.place).float().mean()) > 0.8


def test_samplers_guidance_and_classes_do_what_the_text_says(lesson):
    data, of = lesson.data, lesson.denoiser.of
    cloud, still = lesson.draw(of(), "ddpm")[0], lesson.draw(of(), "ddpm", still=True)[0]
    assert data.share(cloud) > 0.5
    # Without noise all end at one point or a few.
    places = [len({tuple(p) for p in (points * 20).round().tolist()}) for points in (still, cloud)]
    assert places[0] < 0.25 * places[1]
    red = lesson.draw(of(0))[0]
    assert data.share(red, 0) > 0.6 > 0.45 > data.share(lesson.draw(of(NO_CLASS))[0], 0)
    avoided = lesson.draw(guided_by_class(of(2), of(), -0.5))[0]
    assert data.share(avoided, 2) < 0.6 * data.share(lesson.draw(of())[0], 2)
    end, way = lesson.draw(of(), "ddim", 10)
    assert way.shape == (11, SMALL.shown, 2)
    assert torch.equal(way[0], lesson.start) and torch.equal(way[-1], end)


def test_every_file_is_drawn_and_the_stage_commits_the_same(tmp_path):
    size = Size(points=60, clip_steps=5, denoiser_steps=5)
    before = torch.random.get_rng_state()
    files = run(tmp_path / "a", 3, size=size)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [file.name for file in files] == [
        "clip.png",
        "walk.png",
        "field.png",
        "sampling.png",
        "classes.png",
        "guidance.png",
        "paths.gif",
        "numbers.json",
    ]
    for file in files[:-2]:
        with Image.open(file) as image:
            assert len(image.convert("RGB").getcolors(maxcolors=10**6)) > 3
    with Image.open(files[-2]) as film:
        assert film.n_frames > 20
    numbers = json.loads(files[-1].read_text())
    assert 0 <= numbers["on the spiral: DDPM, 100 steps"] <= 1
    store, cpu = Store(tmp_path / "store"), Context(device="cpu", workers=1)
    config = explain.ExplainConfig(points=60, clip_steps=5, denoiser_steps=5, seed=3)
    made = explain.run(config, store, cpu)
    assert made.kind == "figure" and made.fresh
    for file in files:
        assert (made.path / file.name).read_bytes() == file.read_bytes()
    assert not explain.run(config, store, cpu).fresh


def test_the_seed_decides(lesson):
    size = Size(points=60, clip_steps=1, denoiser_steps=1, shown=20)
    one, same, other = (learn(seed, Silent(), size) for seed in (3, 3, 4))
    for part in (lambda o: o.start, lambda o: o.data.points, lambda o: o.noise(7)):
        assert torch.equal(part(one), part(same)) and not torch.equal(part(one), part(other))
    assert torch.equal(one.denoiser.layers[0].weight, same.denoiser.layers[0].weight)
    assert not torch.equal(one.denoiser.layers[0].weight, other.denoiser.layers[0].weight)


@pytest.mark.parametrize("bad", [{"points": 3}, {"clip_steps": 0}, {"denoiser_steps": -1}])
def test_too_little_to_draw_is_refused(bad):
    with pytest.raises(BadInput) as refused:
        explain.ExplainConfig(**bad)
    assert refused.value.fix


def test_the_texts_pictures_are_there_and_small():
    text = (DOCS / "explain.md").read_text()
    shown = re.findall(r"\]\((explain/[^)]+)\)", text)
    assert len(shown) == 7
    assert sum((DOCS / name).stat().st_size for name in shown) < 600_000
    numbers = json.loads((DOCS / "explain" / "numbers.json").read_text())
    quoted = re.findall(r"\| `([^`]+)` \| ([\d.]+) \|", text)
    assert len(quoted) > 12
    for name, value in quoted:
        assert numbers[name] == pytest.approx(float(value), abs=0.006), name
