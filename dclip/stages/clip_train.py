"""clip train: a CLIP from an image-caption artifact, contrastive and adversarially robust."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dclip.configs.clip_train import ClipTrainConfig
from dclip.context import Context
from dclip.data.dataset import DataSet
from dclip.data.images import to_float
from dclip.device import autocast, describe, pick, resolve_precision
from dclip.errors import BadInput
from dclip.figures.curves import save_curves
from dclip.fingerprints import fingerprint
from dclip.guidance import views
from dclip.guidance.clip import (
    check_model,
    load_guide,
    new_model,
    save_guide,
    usual_rate,
)
from dclip.guidance.clip.words import tokens
from dclip.guiding import find_clip
from dclip.random import key, permutation
from dclip.stages.revisions import REVISIONS
from dclip.store import Artifact, Staging, Store
from dclip.training import clip as ct
from dclip.training import contrasts as contrast_tables
from dclip.training.held import HeldTokens
from dclip.training.loop import Loop, decay_groups, warm_cosine

MAX_LOGIT_SCALE = math.log(50.0)
RADIUS = 4.0  # of adversarial examples at 64 pixels a side


def run(config: ClipTrainConfig, store: Store, context: Context = Context()) -> Artifact:
    """Train a CLIP and commit it as a ``clip`` artifact in open_clip's own directory format.

    Raises:
        BadInput: data without captions, or a config that cannot be.
        MissingArtifact: no data in the store.
    """
    source = store.resolve(config.data, "data", context.report)
    data = DataSet(source.path)
    if not any(data.captions):
        raise BadInput(
            f"{source.ref} has no captions",
            "prepare faces, or a folder with captions.csv (docs/clip.md)",
        )
    if config.contrasts:
        contrasts = contrast_tables.read(Path(config.contrasts))
    else:
        contrasts = contrast_tables.fitting(data)
    if _units(data, data.split("train")).size < 2:
        raise BadInput(
            f"{source.ref} has fewer than two training images, which are told from each other",
            "prepare more, or with another --split",
        )
    for contrast in contrasts:
        contrast.labels(data)  # refuses attributes that the data does not have
    if config.init is None:
        check_model(config.model, data.size)
    device = pick(context)
    inputs, init = {"data": source}, config.init
    if init is not None:
        init, artifact = find_clip(init, store, context.report)
        inputs |= {"init": artifact} if artifact else {}
    if config.lr is None:
        config = replace(config, lr=usual_rate(config.model, init))
        context.report.note(f"lr {config.lr:g}")
    if config.radius is None:
        config = replace(config, radius=round(RADIUS * data.size / 64, 3))
    config = replace(config, precision=resolve_precision(config.precision, device))
    settings = {k: v for k, v in asdict(config).items() if k not in ("data", "name", "contrasts")}
    return store.build(
        stage="clip-train",
        revision=REVISIONS["clip-train"],
        device=describe(device),
        kind="clip",
        name=config.name or source.name,
        config={
            **settings,
            "init": fingerprint(init) if init else None,
            "contrasts": contrast_tables.to_json(contrasts),
        },
        inputs=inputs,
        seed=config.seed,
        context=context,
        estimate={"images": config.images, "updates": config.images // config.update},
        make=lambda staging: _Training(
            config, init, data, contrasts, device, context, staging
        ).run(),
    )


class _Training:
    def __init__(
        self,
        config: ClipTrainConfig,
        init: str | None,
        data: DataSet,
        contrasts: tuple[contrast_tables.Contrast, ...],
        device: torch.device,
        context: Context,
        staging: Staging,
    ) -> None:
        assert config.lr is not None and config.radius is not None
        self.lr, self.radius = config.lr, config.radius
        self.config, self.data, self.contrasts = config, data, contrasts
        self.device, self.context, self.staging = device, context, staging
        torch.manual_seed(key(config.seed, "clip"))
        self.guide = (
            load_guide(init, device) if init else new_model(config.model, data.size, device)
        )
        if self.guide.config is None:
            raise BadInput(
                f"{self.guide.name} has no config that could be saved with what is trained",
                "download it (`hf download ORG/REPO --local-dir DIR`) and give --init DIR",
            )
        self.init = init
        self.held = self._original() if config.hold_tokens else None
        self.model = self.guide.model.train().requires_grad_(True)
        # A third faster on a CPU as on a GPU; a text tower has no images.
        self.model.visual.to(memory_format=torch.channels_last)  # type: ignore[union-attr, call-overload]
        self.captions = np.array(data.captions)
        self.tokens = self.guide.tokenizer(list(self.captions))
        self.labels = [torch.from_numpy(c.labels(data)) for c in contrasts]
        self.prompts = [
            [
                self.guide.tokenizer([s.prompts[k] for s in c.sides])
                for k in range(len(c.sides[0].prompts))
            ]
            for c in contrasts
        ]
        self.train, self.val = data.split("train"), data.split("val")
        self.units = _units(data, self.train)
        self.per_update: int = max(1, config.update // self.units.shape[1])
        self.per_epoch = max(1, len(self.units) // self.per_update)
        self.updates: int = max(1, config.images // (self.per_update * self.units.shape[1]))
        self.optimizer = torch.optim.AdamW(
            decay_groups(self.model),
            lr=self.lr,
            betas=(0.9, 0.98),
            weight_decay=config.weight_decay,
        )
        self.loop = Loop(
            staging,
            updates=self.updates,
            images=self.per_update * self.units.shape[1],
            modules={"model": self.model},
            optimizer=self.optimizer,
            limit=config.max_grad_norm,
        )

    def _original(self) -> HeldTokens:
        assert self.init is not None
        return HeldTokens(self.guide, load_guide(self.init, self.device))

    def run(self) -> dict[str, Any]:
        loop = self.loop
        with closing(loop.rounds(self.context.report, "training CLIP")) as rounds:
            for step in rounds:
                loop.add(self._update(step))
        named = ("loss", "contrastive", "contrast", "pair", "mixture", "tokens moved")
        curves = {k: loop.stats.curve(k) for k in named}
        if self.updates >= 2 * self.per_epoch:
            curves["loss by epoch"] = self._by_epoch()
        save_curves(self.staging.path / "loss.png", curves, title="CLIP training")
        save_guide(self.staging.path, self.guide)
        (self.staging.path / "words.json").write_text(
            json.dumps({"words": self._words()}, indent=1) + "\n"
        )
        return {"images": loop.updates * loop.images, "updates": loop.updates, **self._scores()}

    def _by_epoch(self) -> list[tuple[float, float]]:
        """The mean loss of every whole epoch, at its end."""
        points, n = self.loop.stats.curve("loss"), self.per_epoch
        ends = range(n, len(points) + 1, n)
        return [(points[end - 1][0], sum(y for _, y in points[end - n : end]) / n) for end in ends]

    def _words(self) -> list[str]:
        text = [*self.captions, *(p for c in self.contrasts for s in c.sides for p in s.prompts)]
        return sorted({w for t in text for w in tokens(t)})

    def _strength(self, step: int) -> float:
        """The share of the full attack radius, 0 to 1."""
        progress = step / self.updates
        if self.radius == 0 or progress < self.config.clean:
            return 0.0
        if self.config.ramp <= 0:
            return 1.0
        return min((progress - self.config.clean) / self.config.ramp, 1.0)

    def _weights(self, step: int) -> ct.Weights:
        """The losses' weights.

        From fresh weights that of mixtures grows in the second half: earlier it makes all
        embeddings equal.
        """
        grown = min(max((step / self.updates - 0.5) / 0.3, 0.0), 1.0)
        return ct.Weights(mixture=self.config.mixture * (1.0 if self.config.init else grown))

    def _rate(self, step: int) -> float:
        warmup = max(1, min(500, self.updates // 10))
        return warm_cosine(self.lr, step, self.updates, warmup, floor=0.02)

    def _batch(self, step: int) -> tuple[ct.Batch, np.ndarray, Tensor, Tensor]:
        epoch, at = divmod(step, self.per_epoch)
        order = permutation(len(self.units), self.config.seed, "clip-order", epoch)
        rows = self.units[order[at * self.per_update : (at + 1) * self.per_update]]
        index = rows.reshape(-1)
        n, width = rows.shape
        groups = torch.arange(n).repeat_interleave(width)
        generator = torch.Generator().manual_seed(key(self.config.seed, "clip-augment", step))
        x = to_float(torch.from_numpy(self.data.images(index)).to(self.device))
        x = views.augment(x, lambda k: torch.rand(k, generator=generator), groups)
        mirrored = (torch.rand(n, generator=generator) < 0.5).repeat_interleave(width)
        x[mirrored.to(self.device)] = x[mirrored.to(self.device)].flip(-1)
        # Half of the pairs are blurred, as the estimates of x0 in fine-tuning are.
        amount = (4 * torch.rand(n, generator=generator) - 2).clamp_min(0).repeat_interleave(width)
        x = views.blur(x, amount.to(self.device)).to(memory_format=torch.channels_last)
        names = self.captions[index]
        pairs = torch.arange(n * width).view(n, width) if width == 2 else torch.empty(0, 2).long()
        return (
            ct.Batch(
                pixels=x,
                same_caption=torch.from_numpy(names[:, None] == names[None]).to(self.device),
                labels=tuple(label[index].to(self.device) for label in self.labels),
                pairs=pairs.to(self.device),
                mixing=torch.rand(len(pairs), ct.MIXING, generator=generator).to(self.device),
                grain=(2 * torch.rand(len(pairs), *x.shape[1:], generator=generator) - 1).to(x),
            ),
            index,
            torch.rand(len(self.prompts), generator=generator),
            torch.rand(n, generator=generator).repeat_interleave(width).to(self.device),
        )

    def _embed(self, x: Tensor) -> Tensor:
        return self._in_parts(self.guide.embed_image, x)

    def _in_parts(self, network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """``network(x)`` in parts of one batch, each recomputed for its gradient to save memory."""
        if self.config.accumulate == 1 or not torch.is_grad_enabled():
            return network(x)
        parts = x.tensor_split(math.ceil(len(x) / self.config.batch))
        return torch.cat([checkpoint(network, part, use_reentrant=False) for part in parts])

    def _text(self, index: np.ndarray, choice: Tensor) -> ct.TextSide:
        """Captions of the batch and one wording of every contrast, in one text tower call."""
        parts = [self.tokens[index]]
        for prompts, u in zip(self.prompts, choice.numpy(), strict=True):
            parts.append(prompts[int(u * len(prompts))])
        tokens = torch.cat(parts).to(self.device)
        embedded = F.normalize(self._in_parts(self.model.encode_text, tokens).float(), dim=-1)  # type: ignore[arg-type]
        captions, *sides = torch.split(embedded, [len(p) for p in parts])
        return ct.TextSide(captions, tuple(sides))

    def _update(self, step: int) -> dict[str, Any]:
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(step)
        batch, index, choice, u = self._batch(step)
        strength = self._strength(step)
        radius = torch.zeros(())
        weights = self._weights(step)
        with autocast(self.device, self.config.precision):
            text = self._text(index, choice)
            scale = self.model.logit_scale.exp()  # type: ignore[operator]
            pixels = batch.pixels
            if strength > 0:
                # With one radius alone a network learns to hide its gradients.
                limit = ct.radii(batch, self.radius, self.config.share)
                radius = strength * (0.25 + 0.75 * u) * limit
                fixed, fixed_scale = text.detach(), scale.detach()
                pixels = ct.attack(
                    lambda x: ct.image_loss(self._embed, x, batch, fixed, fixed_scale, weights)[0],
                    pixels,
                    radius,
                    self.config.attack_steps,
                )
            loss, parts = ct.image_loss(self._embed, pixels, batch, text, scale, weights)
            if self.held is not None:
                moved = self._in_parts(self.held, self.tokens[index].to(self.device))
                parts["tokens moved"] = moved.mean()
                loss = loss + self.config.hold_tokens * parts["tokens moved"]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.loop.update(loss)
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)  # type: ignore[operator, union-attr]
        return {
            "loss": loss.detach(),
            **{k: v.detach() for k, v in parts.items()},
            "radius": radius.mean(),
        }

    @torch.no_grad()
    def _scores(self) -> dict[str, Any]:
        """Held-out retrieval, contrast accuracy and pair agreement of the finished model."""
        self.model.eval()
        units = _units(self.data, self.val)[:512]
        if not len(units):
            return {}
        index = units.reshape(-1)
        images = torch.cat(
            [
                self.guide.embed_image(
                    to_float(torch.from_numpy(self.data.images(part)).to(self.device))
                )
                for part in np.array_split(index, max(1, len(index) // 128))
            ]
        )
        text = self._text(index, torch.zeros(len(self.prompts)))
        scores: dict[str, Any] = {}
        if self.init is not None:
            with suppress(BadInput):  # a tower whose states are not read
                held = self.held or self._original()
                moved = held(self.tokens[index].to(self.device))
                scores["tokens_moved"] = float(moved.mean())
        ranks = (images @ text.captions.T).argsort(1, descending=True)[:, :10].cpu().numpy()
        names = self.captions[index]
        hit = names[ranks] == names[:, None]
        scores["retrieval"] = {"R@1": float(hit[:, 0].mean()), "R@10": float(hit.any(1).mean())}
        accuracy = {}
        for contrast, side, label in zip(self.contrasts, text.sides, self.labels, strict=True):
            wanted = label[index].to(self.device)
            known = wanted >= 0
            if bool(known.any()):
                right = (images @ side.T).argmax(1)[known] == wanted[known]
                accuracy[contrast.name] = round(float(right.float().mean()), 4)
        scores["contrast_accuracy"] = accuracy
        if units.shape[1] == 2:
            moved, said = ct.pair_moves(
                images,
                torch.arange(len(index), device=self.device).view(-1, 2),
                [label[index].to(self.device) for label in self.labels],
                text.sides,
            )
            if len(moved):
                scores["pair_cosine"] = float(F.cosine_similarity(moved, said, dim=-1).mean())
                scores["pair_length"] = float((moved.norm(dim=-1) / said.norm(dim=-1)).mean())
        return scores


def _units(data: DataSet, index: np.ndarray) -> np.ndarray:
    """Sample numbers that go through training together: (n, 2) in data of pairs, else (n, 1).

    A pair is two pictures of one subject, before and after one change; the ``pair`` column gives
    both the same value.
    """
    names = data.table.text("pair")
    chosen = [(names[i], int(i)) for i in index]
    if not chosen or not all(name for name, _ in chosen):
        return np.asarray(index, dtype=np.int64)[:, None]
    groups: dict[str, list[int]] = {}
    for name, i in chosen:
        groups.setdefault(name, []).append(i)
    return np.array([g for g in groups.values() if len(g) == 2], dtype=np.int64).reshape(-1, 2)
