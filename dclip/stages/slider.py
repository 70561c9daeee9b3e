"""slider: an edit by words becomes a tuned model, which needs no words any more."""

from __future__ import annotations

import math
import shutil
from contextlib import closing
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from dclip.configs.slider import SliderConfig
from dclip.context import Context
from dclip.data.dataset import LatentSet
from dclip.data.images import to_float, to_pixels
from dclip.device import autocast, describe, pick, resolve_precision
from dclip.diffusion import ddim, grids
from dclip.editing.mask import localised
from dclip.editing.plan import like_latents
from dclip.editing.words import Words, wording
from dclip.encoders.find import encoder_of
from dclip.errors import BadInput
from dclip.figures.curves import save_curves
from dclip.figures.panel import panel
from dclip.models.checkpoint import load_model, read_info
from dclip.models.tuned import Adapter, merged
from dclip.random import key, of_round, permutation
from dclip.stages.revisions import REVISIONS
from dclip.store import Artifact, Staging, Store, slug
from dclip.training.loop import Loop

HELD_OUT = 8
SNAPSHOTS = 4
NOT_SETTINGS = ("prompt", "cfg", "latents", "name")


def run(config: SliderConfig, store: Store, context: Context = Context()) -> Artifact:
    """Tune a network's weights to its own edit by words and commit a ``tuned`` artifact.

    Raises:
        BadInput: a model that reads nothing, or words that it cannot read.
        MissingArtifact: no latents in the store.
    """
    assert config.prompt is not None
    latents = store.resolve(config.latents, "latents", context.report)
    base = store.input(latents, "model")
    info = read_info(base.path)
    if info.text is None:
        raise BadInput(
            f"{base.ref} reads neither captions nor attributes",
            "invert with one that does, of `dclip train --condition attributes`",
        )
    words = wording(encoder_of(base, info.text, store), config.prompt, config.source, config.cfg)
    context.report.note(f"from {words.source!r} to {words.target!r}")
    data = LatentSet(latents.path)
    if not len(data.split("train")):
        raise BadInput(f"{latents.ref} has no training latents", "invert again with --split train")
    device = pick(context)
    made_like = like_latents(latents)
    steps = made_like["inversion_steps"]
    settings = {
        **{k: v for k, v in asdict(config).items() if k not in NOT_SETTINGS},
        **words.settings,
        "target": words.target,
        **made_like,
        "decode_steps": steps,
        "precision": resolve_precision(config.precision, device),
    }
    return store.build(
        stage="slider",
        revision=REVISIONS["slider"],
        device=describe(device),
        kind="tuned",
        name=config.name or slug(words.target),
        config=settings,
        inputs={"latents": latents, "model": base, **words.inputs},
        seed=config.seed,
        context=context,
        estimate={
            "updates": config.updates,
            "images": config.updates * config.batch,
            # Of each state: told nothing, source, target, and the tuned network twice.
            "network_calls_forward": config.updates * config.batch * 5
            + SNAPSHOTS * HELD_OUT * steps * 4,
            "network_calls_backward": config.updates * config.batch,
        },
        make=lambda staging: _Slider(
            config,
            settings,
            words.load(device, context.report),
            data,
            base,
            device,
            context,
            staging,
        ).run(),
    )


class _Slider:
    """One tuning: what it works on, and its loop.

    After Concept Sliders (Gandikota et al. 2023, 2311.12092, equation 7): the tuned network, told
    nothing, is to predict what the base predicts along the difference of two prompts. There states
    are drawn from noise; here they are those of photos on their way through the tuned network's own
    decode, as an edit meets them.
    """

    def __init__(
        self,
        config: SliderConfig,
        settings: dict[str, Any],
        words: Words,
        data: LatentSet,
        base: Artifact,
        device: torch.device,
        context: Context,
        staging: Staging,
    ) -> None:
        self.config, self.settings, self.words = config, settings, words
        self.data, self.device, self.context, self.staging = data, device, context, staging
        self.base, self.info = load_model(base.path, device)
        self.train, self.val = data.split("train"), data.split("val")
        start = key(config.seed, "adapter")
        self.delta = Adapter(self.base, config.rank, start).to(device)
        self.optimizer = torch.optim.Adam(self.delta.parameters(), lr=config.lr)
        self.grid = grids.walk(settings["grid"], settings["r"], settings["decode_steps"])

    def run(self) -> dict[str, Any]:
        config = self.config
        loop = Loop(
            self.staging,
            updates=config.updates,
            images=config.batch,
            modules={"delta": self.delta},
            optimizer=self.optimizer,
            limit=1.0,
            counters={"round": 0, "scores": []},
        )
        every, counters = max(1, math.ceil(config.updates / SNAPSHOTS)), loop.counters
        with closing(loop.rounds(self.context.report, "tuning")) as rounds:
            for _ in rounds:
                seen = self._states(counters["round"])
                order = permutation(len(seen[0]), config.seed, "states", counters["round"])
                for part in np.array_split(order, len(self.grid) - 1):
                    for group in self.optimizer.param_groups:
                        group["lr"] = config.lr * (1 - 0.9 * loop.step / config.updates)
                    self.optimizer.zero_grad(set_to_none=True)
                    x, t, goal, way = (each[torch.from_numpy(part)] for each in seen)
                    miss = (self._predict(self._tuned(), x, t) - goal).square().mean((1, 2, 3))
                    # The share of the edit that is missing: at every timestep 1 before the first
                    # update, however small the difference is there.
                    loss = (miss / way.clamp_min(1e-8)).mean()
                    loss.backward()  # type: ignore[no-untyped-call]
                    loop.update(loss)
                    loop.add({"loss": loss.detach()})
                    if loop.step % every == 0 or loop.done:
                        self._snapshot(counters)
                    if loop.done:
                        break
                counters["round"] += 1
        curves = {"missing share": loop.stats.curve("loss")}
        save_curves(self.staging.path / "loss.png", curves, title=self.settings["target"])
        # Not before the end: a checkpoint counts on the files that were there when it was made.
        last = self.staging.path / "snapshots" / f"update_{loop.step:05d}.png"
        shutil.copyfile(last, self.staging.path / "panel.png")
        self.delta.save(self.staging.path, 1.0)
        return {
            "updates": loop.step,
            "parameters": sum(p.numel() for p in self.delta.parameters()),
            "loss": float(np.mean([value for _, value in curves["missing share"][-20:]])),
            **{k: counters["scores"][-1][k] for k in ("missing", "l1")},
            "scores": counters["scores"],
        }

    def _tuned(self) -> dict[str, Tensor]:
        own = dict(self.base.named_parameters())
        return self.delta.merged(own)

    def _predict(self, weights: dict[str, Tensor], x: Tensor, t: Tensor) -> Tensor:
        """The noise that the network predicts, told nothing, with other weights."""
        with autocast(self.device, self.settings["precision"]):
            out: Tensor = functional_call(self.base, weights, (x, t))
        return out.float()

    @torch.no_grad()
    def _goal(self, x: Tensor, t: Tensor) -> Tensor:
        """What the words make of the prediction: ``eps + cfg (eps_target - eps_source)``."""
        return self._predict({}, x, t) + self._move(x, t)

    def _move(self, x: Tensor, t: Tensor) -> Tensor:
        with autocast(self.device, self.settings["precision"]):
            source, target = (
                self.base(x, t, each.expanded(len(x)))
                for each in (self.words.source, self.words.target)
            )
        move: Tensor = self.words.scale * (target - source).float()
        return move

    @torch.no_grad()
    def _states(self, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """States of a batch on its way through the tuned decode, timesteps, goals and ways.

        A way is the mean square of what lies between the base's prediction and the goal.
        """
        weights = self._tuned()
        x = torch.from_numpy(self.data.latents(self._batch(number))).to(self.device)
        states, timesteps, goals, ways = [], [], [], []
        for s, t in reversed(list(pairwise(self.grid))):
            at = torch.full((len(x),), t, dtype=torch.int64, device=self.device)
            states.append(x)
            timesteps.append(at)
            move = self._move(x, at)
            goals.append(self._predict({}, x, at) + move)
            ways.append(move.square().mean((1, 2, 3)))
            x = ddim.step(self.info.schedule, x, self._predict(weights, x, at), t, s)
        return torch.cat(states), torch.cat(timesteps), torch.cat(goals), torch.cat(ways)

    def _batch(self, number: int) -> np.ndarray:
        config, count = self.config, len(self.train)
        index: np.ndarray = self.train[of_round(count, config.batch, number, config.seed, "slider")]
        return index

    @torch.no_grad()
    def _snapshot(self, counters: dict[str, Any]) -> None:
        """Decode held-out latents with the present weights and by the words; keep a panel.

        ``missing`` is the mean absolute difference of the two, over that of the words' from the
        photos; ``l1`` the mean pixel change.
        """
        index = (self.val if len(self.val) else self.train)[:HELD_OUT]
        photos = to_float(torch.from_numpy(self.data.references(index)).to(self.device))
        latents = torch.from_numpy(self.data.latents(index)).to(self.device)
        deltas = {k: v.detach() for k, v in self.delta.deltas().items()}
        networks = (self._goal, merged(self.base, [(deltas, 1.0)]))
        by_words, tuned = (
            ddim.decode(network, self.info.schedule, latents, self.grid).clamp(-1, 1)
            for network in networks
        )
        edits = localised(tuned, photos, self.config.locality).clamp(-1, 1)
        step = counters["step"]
        way = (by_words - photos).abs().mean().clamp_min(1e-8)
        counters["scores"].append(
            {
                "step": step,
                "images": step * self.config.batch,
                "missing": float((tuned - by_words).abs().mean() / way),
                "l1": float((edits - photos).abs().mean()),
            }
        )
        folder = self.staging.path / "snapshots"
        folder.mkdir(exist_ok=True)
        sheet = panel(
            [[to_pixels(x) for x in shown] for shown in (photos, by_words, edits)],
            labels=["original", "by words", "edit"],
            title=f"{self.settings['target']}, update {step}",
            cell=96,
        )
        sheet.save(folder / f"update_{step:05d}.png")
