"""The inner loops of fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dclip.diffusion import asymmetric, ddim, ddpm
from dclip.diffusion.network import EpsModel, predict
from dclip.guidance.clamp import in_range
from dclip.recipes.contract import Batch, LossAndTerms, Problem


def per_step(problem: Problem, batch: Batch) -> Iterator[LossAndTerms]:
    """A loss and an update at every reverse step, on x0_hat against the photo.

    Section 4.5 of the report. The state moves on with the noise predicted before the update and
    carries no gradient, so memory does not grow with the steps.
    """
    x = batch.latents
    for s, t in _down(problem):
        eps = predict(problem.model, x, t)
        x0 = ddim.x0_hat(problem.schedule, x, eps, t)
        yield problem.objective(x0, batch.photos, batch.draw)
        x = ddim.step(problem.schedule, x, eps.detach(), t, s)


def stepwise(problem: Problem, batch: Batch) -> Iterator[LossAndTerms]:
    """Like :func:`per_step`, on the tuned model's own states, against the frozen model's x0_hat.

    First both networks decode the same latents down to ``t_min``, without gradients. Their
    estimates differ by the edit alone, since both are equally blurred (StyleGAN-NADA compares
    frozen and tuned outputs in the same way). Then follow as many updates as there were steps, each
    on states of all timesteps mixed: with one update for each step in turn, as in the report, they
    undo each other. In its own states the network learns not to edit twice; trained on states of
    unedited photos (:func:`one_step`), it adds the whole edit at every decode step.
    """
    schedule = problem.schedule
    states, references, timesteps = [], [], []
    with torch.no_grad():
        x = still = batch.latents
        for s, t in _down(problem):
            eps_still = predict(problem.frozen, still, t)
            references.append(ddim.x0_hat(schedule, still, eps_still, t).clamp(-1, 1))
            still = ddim.step(schedule, still, eps_still, t, s)
            states.append(x)
            timesteps.append(torch.full((len(x),), t, device=x.device))
            x = ddim.step(schedule, x, predict(problem.model, x, t), t, s)
    seen, shown, at = torch.cat(states), torch.cat(references), torch.cat(timesteps)
    order = torch.randperm(len(seen), generator=batch.generator).to(seen.device)
    for part in torch.split(order, len(batch.latents)):
        noised, timestep = seen[part], at[part]
        eps = problem.model(noised, timestep).to(noised.dtype)
        x0 = in_range(ddim.x0_hat(schedule, noised, eps, timestep))
        yield problem.objective(x0, shown[part], batch.draw)


def _down(problem: Problem) -> list[tuple[int, int]]:
    """The grid's (s, t) pairs with t above ``t_min``, from r down."""
    return [(s, t) for s, t in reversed(list(pairwise(problem.grid))) if t > problem.t_min]


def unrolled(problem: Problem, batch: Batch) -> Iterator[LossAndTerms]:
    """One loss on the final picture, through all decode steps; DiffusionCLIP's own loop.

    At and below ``t_min`` the base decodes, as it will in edits. Each step is recomputed in the
    backward pass (gradient checkpointing), so memory grows by one state a step.
    """
    x = batch.latents
    for s, t in reversed(list(pairwise(problem.grid))):
        model = problem.model if t > problem.t_min else problem.frozen

        def step(state: Tensor, t: int = t, s: int = s, model: EpsModel = model) -> Tensor:
            return ddim.step(problem.schedule, state, predict(model, state, t), t, s)

        x = checkpoint(step, x, use_reentrant=False)
    yield problem.objective(in_range(x), batch.photos, batch.draw)


def h_space(problem: Problem, batch: Batch) -> Iterator[LossAndTerms]:
    """A loss and an update at every step above ``t_min``, on the edited x0_hat; Asyrp's own loop.

    Kwon et al. 2023 (2210.10960), as their code has it: against the frozen model's x0_hat at the
    same step of its own decode. The state moves on by the asymmetric step (equation 5) with what
    was predicted before the update.
    """
    schedule = problem.schedule
    x = still = batch.latents
    for s, t in _down(problem):
        with torch.no_grad():
            eps_still = predict(problem.frozen, still, t)
            reference = ddim.x0_hat(schedule, still, eps_still, t).clamp(-1, 1)
            still = ddim.step(schedule, still, eps_still, t, s)
            eps = predict(problem.frozen, x, t)
        eps_edited = predict(problem.model, x, t)
        x0 = in_range(ddim.x0_hat(schedule, x, eps_edited, t))
        yield problem.objective(x0, reference, batch.draw)
        x = asymmetric.step(schedule, x, eps, eps_edited.detach(), t, s)


def one_step(problem: Problem, batch: Batch) -> Iterator[LossAndTerms]:
    """A loss on the one-step estimate of x0 at a random timestep above ``t_min``.

    After "Towards Real-time Text-driven Image Manipulation with Unconditional Diffusion Models"
    (2304.04344): noising in closed form, no inversion, no decode. The reference is the frozen
    network's estimate from the same noisy state, which is equally blurred.
    """
    t, x = _noised(problem, batch)
    with torch.no_grad():
        reference = ddim.x0_hat(problem.schedule, x, predict(problem.frozen, x, t), t)
    x0 = ddim.x0_hat(problem.schedule, x, predict(problem.model, x, t), t)
    yield problem.objective(in_range(x0), reference.clamp(-1, 1), batch.draw)


def one_step_photo(problem: Problem, batch: Batch) -> Iterator[LossAndTerms]:
    """As :func:`one_step`, against the photo itself, as 2304.04344 does.

    Against the frozen network's estimate a loss of the direction alone has no gradient before the
    first update: the two estimates are the same, and a difference of zero points nowhere.
    """
    t, x = _noised(problem, batch)
    x0 = ddim.x0_hat(problem.schedule, x, predict(problem.model, x, t), t)
    yield problem.objective(in_range(x0), batch.photos, batch.draw)


def _noised(problem: Problem, batch: Batch) -> tuple[int, Tensor]:
    """A random timestep above ``t_min``, and the photos noised to it."""
    low, r = problem.t_min, problem.grid[-1]
    t = low + 1 + int(batch.draw(1) * (r - low))
    noise = torch.randn(batch.photos.shape, generator=batch.generator).to(batch.photos)
    return t, ddpm.q_sample(problem.schedule, batch.photos, t, noise)
