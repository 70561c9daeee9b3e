"""inspect: a model's schedule as sigmas, and a picture as the model sees it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dclip.configs.inspect import InspectConfig
from dclip.context import Context
from dclip.data.images import to_float, to_uint8
from dclip.data.photos import photo_files
from dclip.device import describe, pick
from dclip.diffusion.ddpm import q_sample
from dclip.diffusion.schedule import Schedule
from dclip.diffusion.sigma import sigma
from dclip.figures.curves import save_curves
from dclip.figures.panel import panel
from dclip.latent.autoencoder import Autoencoder
from dclip.latent.diffusers_kl import DiffusersAutoencoder
from dclip.latent.files import load_decoder
from dclip.models.checkpoint import read_info
from dclip.random import key, normal
from dclip.stages.revisions import REVISIONS
from dclip.stages.sample import walk_of
from dclip.store import Artifact, Staging, Store, slug

Decoder = Autoencoder | DiffusersAutoencoder

CELL = 160
REACH = 3.0  # standard deviations of a latent from black to white


def run(config: InspectConfig, store: Store, context: Context = Context()) -> Artifact:
    """Draw what a model works on, and commit it as a ``figure`` artifact.

    ``sigmas.png`` has the noise by signal at each step of a sampler, which are the sigmas of LMS
    and the other samplers in sigma form; ``numbers.json`` its numbers. With a photo ``panel.png``
    shows it noised. Of a model of latents (Rombach et al. 2022, 2112.10752) it shows each channel
    of the latent, its decode, and the decode of the noised latent.

    Raises:
        BadInput: steps or timesteps beyond the schedule, or a photo that cannot be read.
        MissingArtifact: no such model.
    """
    base = store.resolve(config.model, "model", context.report)
    info = read_info(base.path)
    schedule = info.schedule
    if config.train_timesteps is not None:
        schedule = schedule.in_steps(config.train_timesteps)
    asked_of = replace(info, schedule=schedule)
    # LMS, as the other samplers in sigma form, ends at the picture.
    walks = {n: walk_of(asked_of, info.grid, n, "lms") for n in dict.fromkeys(config.steps)}
    T = schedule.T
    asked = config.t or tuple(max(1, T * quarter // 4) for quarter in (1, 2, 3))
    noised = [schedule.timestep(t) for t in dict.fromkeys(asked)]
    photos = None
    if config.photo is not None:
        photos = photo_files([config.photo], size=info.image_size, like=info.crop,
                             report=context.report)  # fmt: skip
    device = pick(context)

    def make(staging: Staging) -> dict[str, Any]:
        sigmas = {n: [sigma(schedule, t) for t in reversed(walk)] for n, walk in walks.items()}
        curves = {f"{n} steps": list(enumerate(values)) for n, values in sigmas.items()}
        # The last sigma is 0, which has no place on an axis of powers.
        curves = {name: points[:-1] for name, points in curves.items()}
        title = f"sigma at each step, {schedule.name}, T = {T}"
        save_curves(staging.path / "sigmas.png", curves, x_label="step", title=title, log=True)
        text = json.dumps({"T": T, "sigmas": sigmas}, indent=1)
        (staging.path / "numbers.json").write_text(text + "\n")
        metrics: dict[str, Any] = {"sigma_max": sigma(schedule, T)}
        if photos is not None:
            x = to_float(torch.from_numpy(photos.load(0)))[None].to(device)
            decoder = None if info.latent is None else load_decoder(base.path, device)
            metrics |= _panel(staging.path / "panel.png", x, decoder, schedule, noised, config.seed)
        return metrics

    return store.build(
        stage="inspect",
        revision=REVISIONS["inspect"],
        device=describe(device),
        kind="figure",
        name=config.name or slug(base.name, "inspect"),
        config={
            "photo": photos.fingerprint() if photos else None,
            "steps": list(walks),
            "t": noised if photos else [],
            "train_timesteps": config.train_timesteps,
        },
        inputs={"model": base},
        seed=config.seed,
        context=context,
        make=make,
    )


def _panel(
    file: Path,
    x: Tensor,
    decoder: Decoder | None,
    schedule: Schedule,
    noised: Sequence[int],
    seed: int,
) -> dict[str, float]:
    """Draw a picture x (1, 3, S, S) as the model sees it: a row for each timestep.

    Returns:
        Of a model of latents, how well the picture comes back, and its latent's deviation.
    """
    found: dict[str, float] = {}
    rows: list[list[NDArray[np.uint8] | None]] = []
    with torch.no_grad():
        z = x if decoder is None else decoder.latents(x)
        eps = normal([key(seed, "inspect")], tuple(z.shape[1:])).to(x.device)
        for t in (0, *noised):
            ts = torch.full((1,), t, dtype=torch.int64, device=x.device)
            z_t = q_sample(schedule, z, ts, eps) if t else z
            made = z_t if decoder is None else decoder.decode(z_t)
            channels = [] if decoder is None else [_grey(channel) for channel in z_t[0]]
            rows.append([None if t else _picture(x), *channels, _picture(made)])
            if t == 0 and decoder is not None:
                error = float(((made.clamp(-1, 1) - x) / 2).square().mean())
                found = {"psnr": -10 * math.log10(error), "latent_std": float(z.std())}
    shown = [] if decoder is None else [f"channel {n + 1}" for n in range(z.shape[1])]
    heads = ["photo", *shown, "noised" if decoder is None else "decoded"]
    labels = [f"t = {t}" for t in (0, *noised)]
    panel(rows, columns=heads, labels=labels, cell=CELL).save(file)
    return found


def _picture(x: Tensor) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = to_uint8(x)[0].cpu().numpy()
    return pixels


def _grey(channel: Tensor) -> NDArray[np.uint8]:
    """A channel (H, W) as grey levels (3, H, W): zero is the middle."""
    level = (channel / REACH * 127.5 + 127.5).round().clamp(0, 255).byte().cpu().numpy()
    return np.stack([level] * 3)
