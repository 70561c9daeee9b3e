"""The losses of fine-tuning against closed forms, and where their gradients go."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dclip.guidance.clip import Move
from dclip.guidance.losses import (
    colour_l1,
    colourfulness,
    directional,
    face_identity,
    global_distance,
    goal_distance,
    identity_l1,
    log_directional,
    propagation,
    speckle,
    structure,
)


def units(n: int, d: int = 5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 2, 2.0, math.pi])
def test_directional_is_one_minus_the_cosine_of_the_angle(angle: float) -> None:
    d_text = torch.tensor([1.0, 0.0], dtype=torch.float64)
    reference = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    for length in (1e-3, 0.1, 5.0):  # how far the edit went does not matter
        move = length * torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)
        found = directional(reference + move, reference, d_text)
        assert float(found) == pytest.approx(1 - math.cos(angle), abs=1e-9)


def test_directional_matches_the_formula_sample_by_sample() -> None:
    e, ref, d_text = units(4, seed=1), units(4, seed=2), units(4, seed=3)
    d_img = (e - ref) / (e - ref).norm(dim=1, keepdim=True)
    expected = 1 - (d_img * d_text).sum(1)
    assert torch.allclose(directional(e, ref, d_text), expected, atol=1e-12)
    assert torch.allclose(
        directional(e, ref, d_text[0]), 1 - (d_img * d_text[0]).sum(1), atol=1e-12
    )


def test_directional_gradient_is_that_of_the_formula() -> None:
    ref, d_text = units(3, seed=2), units(1, seed=3)[0]
    e = units(3, seed=1).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: directional(x, ref, d_text), (e,))


def test_an_edit_that_has_not_moved_is_worth_1_and_pulls_nowhere() -> None:
    start = units(2)
    e = start.clone()
    e[1] = units(1, seed=5)[0]
    e.requires_grad_(True)
    loss = directional(e, start, units(1, seed=3)[0])
    assert float(loss[0].detach()) == 1.0
    loss.sum().backward()
    assert e.grad is not None and torch.isfinite(e.grad).all()
    assert not e.grad[0].any() and e.grad[1].abs().sum() > 0


def test_goal_is_1_at_the_start_0_there_and_more_beyond() -> None:
    start = units(3)
    difference = 0.8 * units(1, seed=4)[0]
    there = F.normalize(start + difference, dim=-1)
    assert torch.allclose(goal_distance(start, start, difference), torch.ones(3).double())
    assert goal_distance(there, start, difference).abs().max() < 1e-9
    beyond = F.normalize(start + 3 * difference, dim=-1)
    assert (goal_distance(beyond, start, difference) > 0.1).all()


def test_goal_expects_the_whole_difference_of_the_text() -> None:
    start, difference = units(1), 0.5 * units(1, seed=4)[0]
    e = start.clone().requires_grad_(True)
    for _ in range(500):  # gradient descent on the sphere
        (gradient,) = torch.autograd.grad(
            goal_distance(F.normalize(e, dim=-1), start, difference).sum(), e
        )
        e = (e - 0.05 * gradient).detach().requires_grad_(True)
    found = F.normalize(e.detach(), dim=-1)
    assert torch.allclose(found, F.normalize(start + difference, dim=-1), atol=1e-3)


def test_identity_is_the_mean_absolute_difference_of_each_picture() -> None:
    x = torch.zeros(2, 3, 4, 4)
    x[1, 0] = 0.6
    assert identity_l1(x, torch.zeros_like(x)).tolist() == pytest.approx([0.0, 0.2])


def test_face_identity_pulls_the_picture_back_to_the_face() -> None:
    """DiffusionCLIP's own code took this loss on a detached picture: its gradient was zero."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 8)).requires_grad_(False)
    reference = torch.randn(2, 3, 4, 4)
    assert face_identity(network, reference, reference).abs().max() < 1e-6
    x = (reference + 0.5 * torch.randn(2, 3, 4, 4)).requires_grad_(True)
    loss = face_identity(network, x, reference)
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    assert gradient.flatten(1).norm(dim=1).min() > 1e-3
    assert (face_identity(network, x - 0.1 * gradient, reference) < loss).all()


def test_the_reference_of_a_face_gets_no_gradient() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 8)).requires_grad_(False)
    reference = torch.randn(1, 3, 4, 4, requires_grad=True)
    face_identity(network, torch.randn(1, 3, 4, 4, requires_grad=True), reference).backward()
    assert reference.grad is None


def test_colours_are_held_where_brightness_may_change() -> None:
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.5
    brighter = x + torch.linspace(-0.3, 0.3, 64).view(1, 1, 8, 8)
    assert float(colour_l1(brighter, x).abs().max()) < 1e-6
    assert float(speckle(brighter, x).abs().max()) < 1e-6
    assert float(identity_l1(brighter, x).min()) > 0.1
    tinted = x.clone()
    tinted[:, 2] += 0.3  # blue: luma 0.114 of it, so that the colours left are 0.3 times these
    wanted = 0.3 * (0.114 + 0.114 + 0.886) / 3
    assert torch.allclose(colour_l1(tinted, x), torch.full((3,), wanted))
    assert float(colourfulness(brighter - x).abs().max()) < 1e-6 < float(colourfulness(x).min())
    assert float(speckle(tinted, x).abs().max()) < 1e-6  # the same everywhere


def test_speckle_is_the_variation_beyond_the_references() -> None:
    flat, checks = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    checks[0, 2] = (torch.arange(8)[:, None] + torch.arange(8)) % 2  # every neighbour differs by 1
    wanted = 2 * (0.114 + 0.114 + 0.886) / 3
    assert torch.allclose(speckle(checks, flat), torch.tensor([wanted]))
    assert float(speckle(flat, checks)) == 0.0 == float(speckle(checks, checks))


def test_propagation_is_the_weighted_mean_over_pairs_of_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    x, reference = (torch.rand(2, 3, 4, 5, generator=generator).double() - 0.5 for _ in range(2))
    numbers = torch.rand(4 * 20, generator=generator)
    wanted = []
    for edit, photo in zip(x - reference, reference, strict=True):
        total = weights = 0.0
        for partners in numbers.view(4, 20).argsort(1).tolist():
            for p, q in enumerate(partners):
                (i, j), (k, m) = divmod(p, 5), divmod(q, 5)
                unlike = float((photo[:, i, j] - photo[:, k, m]).square().sum())
                far = ((i - k) / 4) ** 2 + ((j - m) / 5) ** 2
                weight = math.exp(-unlike / (2 * 0.12**2) - far / (2 * 0.5**2))
                total += weight * float((edit[:, i, j] - edit[:, k, m]).abs().mean())
                weights += weight
        wanted.append(total / weights)
    found = propagation(x, reference, lambda n: numbers[:n])
    assert found.tolist() == pytest.approx(wanted, rel=1e-6)


def test_what_looks_alike_is_to_change_alike() -> None:
    def draw(n: int) -> Tensor:
        return torch.rand(n, generator=torch.Generator().manual_seed(1))

    photo = torch.full((1, 3, 64, 64), -0.8)
    photo[..., 32:, :] = 0.8  # two things of one colour each
    one, half = photo.clone(), photo.clone()
    one[..., 32:, :] -= 0.5  # all of the lower
    half[..., 32:, :32] -= 0.5  # half of it
    assert float(propagation(photo + 0.3, photo, draw)) < 1e-6
    assert (
        float(propagation(one, photo, draw)) < 1e-6 < 0.05 < float(propagation(half, photo, draw))
    )
    x = half.clone().requires_grad_(True)
    propagation(x, photo, draw).sum().backward()
    assert x.grad is not None
    # It would go on where the half is, or back where it has begun.
    assert x.grad[..., 32:, :32].mean() < 0 < x.grad[..., 32:, 32:].mean()


def test_structure_is_the_contrast_and_structure_of_ssim() -> None:
    generator = torch.Generator().manual_seed(0)
    x, reference = (torch.rand(2, 3, 9, 10, generator=generator).double() - 0.5 for _ in range(2))
    luma = np.array([0.299, 0.587, 0.114]).reshape(3, 1, 1)
    wanted = []
    for edit, photo in zip(x.numpy(), reference.numpy(), strict=True):
        seen, shown = (edit * luma).sum(0), (photo * luma).sum(0)
        alike = []
        for i, j in product(range(9), range(10)):
            window = np.s_[max(i - 3, 0) : i + 4, max(j - 3, 0) : j + 4]  # cut off at the border
            (v_x, both), (_, v_r) = np.cov(seen[window].ravel(), shown[window].ravel(), ddof=0)
            alike.append((2 * both + 0.06**2) / (v_x + v_r + 0.06**2))
        wanted.append(1 - np.mean(alike))
    assert structure(x, reference).tolist() == pytest.approx(wanted, rel=1e-9)


def test_structure_lets_paper_be_white_and_minds_what_is_lost() -> None:
    photo = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5
    tint = torch.tensor([0.1, -0.05, 0.1]).view(1, 3, 1, 1)
    assert float(structure(photo, photo).abs().max()) < 1e-5
    assert float(structure(photo + 0.4 + tint, photo).abs().max()) < 1e-4
    stronger, inverted, gone = (
        float(structure(x, photo).min()) for x in (1.5 * photo, -photo, torch.zeros_like(photo))
    )
    assert stronger < 0.1 < 0.8 < gone < 1 < 1.6 < inverted < 2
    flat = torch.zeros_like(photo)  # where nothing is, a line may be drawn at some cost
    lines = flat.clone()
    lines[..., 16] = -0.5
    assert 0 < float(structure(lines, flat).max()) < 0.3
    x = (0.2 * photo).requires_grad_(True)
    structure(x, photo).sum().backward()
    assert x.grad is not None and float((x.grad * photo).sum()) < 0  # it would have it back


def test_the_global_loss_is_the_distance_to_the_text_however_far_the_edit_is_to_go() -> None:
    generator = torch.Generator().manual_seed(2)
    texts = F.normalize(torch.randn(3, 8, generator=generator, dtype=torch.float64), dim=-1)
    pictures = F.normalize(torch.randn(5, 8, generator=generator, dtype=torch.float64), dim=-1)
    move = Move(texts[1:], texts[0] - texts[1:], texts[0])
    for each in (move, move.lengthened(torch.tensor([3.0, 0.1]))):
        expected = [1 - float(p @ texts[0]) for p in pictures]
        assert global_distance(pictures, each.end).tolist() == pytest.approx(expected)
    assert torch.allclose(Move(texts[1:], texts[0] - texts[1:]).end, texts[0])


def test_log_directional_is_the_published_form_and_so_is_its_gradient() -> None:
    ref, d_text = units(3, seed=2), units(1, seed=3)[0]
    e = units(3, seed=1).requires_grad_(True)
    found = log_directional(e, ref, d_text)
    (gradient,) = torch.autograd.grad(found.sum(), e)
    for i in range(3):
        move = (e[i] - ref[i]).detach().numpy()
        text = d_text.numpy()
        cosine = move @ text / np.linalg.norm(move)
        assert found[i].item() == pytest.approx(-math.log((1 + cosine) / 2))
        # d(-log(1 + c)) = -dc / (1 + c), with dc of the cosine of a vector that is not of length 1.
        length = np.linalg.norm(move)
        slope = text / length - cosine * move / length**2
        assert np.allclose(gradient[i].numpy(), -slope / (1 + cosine))


def test_log_directional_stays_finite_where_an_edit_goes_the_other_way() -> None:
    d_text = torch.tensor([1.0, 0.0])
    reference = torch.tensor([[0.5, 0.5]])
    e = torch.tensor([[0.2, 0.5]], requires_grad=True)
    found = log_directional(e, reference, d_text)
    found.sum().backward()
    assert bool(torch.isfinite(found).all()) and bool(torch.isfinite(e.grad).all())  # type: ignore[arg-type]
