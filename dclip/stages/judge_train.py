"""judge train: a judge of attributes and style, from labelled pictures."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dclip.configs.judge_train import JudgeTrainConfig
from dclip.context import Context
from dclip.data.dataset import DataSet
from dclip.data.images import to_float
from dclip.device import autocast, describe, pick, resolve_precision
from dclip.errors import BadInput
from dclip.evaluation.judge import OTHER, JudgeNetwork, JudgeShape, joined, load_judge, save_judge
from dclip.figures.curves import save_curves
from dclip.metrics import auc
from dclip.random import key, permutation
from dclip.stages.revisions import REVISIONS
from dclip.store import Artifact, Staging, Store
from dclip.training import judge as jt
from dclip.training.loop import Loop, decay_groups, warm_cosine

LOG_EVERY = 40  # updates: the log ships with the embedded judge
SCORED = 4000  # held-out pictures
SCORED_AT_ONCE = 128


def run(config: JudgeTrainConfig, store: Store, context: Context = Context()) -> Artifact:
    """Train a judge and commit it as a ``judge`` artifact.

    Raises:
        BadInput: data without labels, or of different attributes or sizes.
        MissingArtifact: no data in the store.
    """
    refs: tuple[str | None, ...] = config.data or (None,)
    sources = [store.resolve(ref, "data", context.report) for ref in refs]
    data = _Labelled(sources)
    device = pick(context)
    config = replace(config, precision=resolve_precision(config.precision, device))
    settings = {k: v for k, v in asdict(config).items() if k not in ("data", "name")}
    roles = ["data", *(f"data{n}" for n in range(2, len(sources) + 1))]
    return store.build(
        stage="judge-train",
        revision=REVISIONS["judge-train"],
        device=describe(device),
        kind="judge",
        name=config.name or sources[0].name,
        config={**settings, "attributes": data.names, "styles": data.styles},
        inputs=dict(zip(roles, sources, strict=True)),
        seed=config.seed,
        context=context,
        estimate={"images": config.images, "updates": config.images // config.batch},
        make=lambda staging: _Training(config, data, device, context, staging).run(),
    )


class _Labelled:
    """Several data artifacts as one: pictures, and labels as arrays.

    Attributes:
        names: attributes.
        styles: styles that occur, :data:`OTHER` last; empty where no sample has one.
        labels: int8 (N, len(names)): 1 yes, -1 no, 0 unknown.
        style: int64 (N,): the style's number, -1 where unknown.
    """

    def __init__(self, sources: Sequence[Artifact]) -> None:
        self.sets = [DataSet(source.path) for source in sources]
        first = self.sets[0]
        self.names, self.size = first.attribute_names, first.size
        for source, data in zip(sources, self.sets, strict=True):
            if data.attribute_names != self.names or data.size != self.size:
                raise BadInput(
                    f"{source.ref} has other attributes or another size than {sources[0].ref}",
                    "use data that was prepared alike",
                )
        self.starts = np.cumsum([0, *(len(data) for data in self.sets)])
        columns = [np.concatenate([d.attribute(n) for d in self.sets]) for n in self.names]
        self.labels = np.stack(columns, 1) if columns else np.empty((self.starts[-1], 0), np.int8)
        styles = [style for data in self.sets for style in data.table.text("style")]
        found = sorted({style for style in styles if style})
        if not np.any(self.labels) and not found:
            raise BadInput(
                f"{sources[0].ref} has no attributes and no styles",
                "prepare faces, or CelebA with its list of attributes",
            )
        self.styles = (*found, OTHER) if found else ()
        self.style = np.array([found.index(s) if s else -1 for s in styles], dtype=np.int64)
        self.pairs = [
            f"{number}/{pair}" if pair else ""
            for number, data in enumerate(self.sets)
            for pair in data.table.text("pair")
        ]
        if not len(self.split("train")):
            raise BadInput(
                f"{sources[0].ref} has no training images", "prepare it with another --split"
            )

    def split(self, name: str) -> NDArray[np.int64]:
        parts = [
            start + data.split(name) for start, data in zip(self.starts, self.sets, strict=False)
        ]
        return np.concatenate(parts)

    def images(self, index: NDArray[np.int64]) -> Tensor:
        """Pictures (n, 3, H, W) in [-1, 1]."""
        out = np.empty((len(index), 3, self.size, self.size), np.uint8)
        which = np.searchsorted(self.starts, index, side="right") - 1
        for number, data in enumerate(self.sets):
            rows = np.flatnonzero(which == number)
            if len(rows):
                out[rows] = data.images(index[rows] - self.starts[number])
        return to_float(torch.from_numpy(out))


class _Training:
    def __init__(
        self,
        config: JudgeTrainConfig,
        data: _Labelled,
        device: torch.device,
        context: Context,
        staging: Staging,
    ) -> None:
        self.config, self.data, self.device = config, data, device
        self.context, self.staging = context, staging
        torch.manual_seed(key(config.seed, "judge"))
        shape = JudgeShape(data.names, data.styles, data.size)
        network = JudgeNetwork(shape).train()
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.train, self.val = data.split("train"), data.split("val")
        self.batch = config.batch - config.batch % 2
        self.updates = max(1, config.images // self.batch)
        self.optimizer = torch.optim.AdamW(
            decay_groups(network), lr=config.lr, weight_decay=config.weight_decay
        )
        self._epoch, self._units = -1, np.empty((0, 2), np.int64)

    def run(self) -> dict[str, Any]:
        loop = Loop(
            self.staging,
            updates=self.updates,
            images=self.batch,
            modules={"model": self.network},
            optimizer=self.optimizer,
            limit=self.config.max_grad_norm,
            log_every=LOG_EVERY,
        )
        with closing(loop.rounds(self.context.report, "training the judge")) as rounds:
            for step in rounds:
                loop.add(self._update(loop, step))
        curves = {k: loop.stats.curve(k) for k in ("attributes", "style")}
        save_curves(self.staging.path / "loss.png", curves, title="judge", log=True)
        save_judge(self.staging.path, self.network)
        return {
            "images": self.updates * self.batch,
            "updates": self.updates,
            "parameters": sum(p.numel() for p in self.network.parameters()),
            **self._scores(),
        }

    def _rate(self, step: int) -> float:
        warmup = max(1, min(200, self.updates // 20))
        return warm_cosine(self.config.lr, step, self.updates, warmup, floor=0.005)

    def _batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures, attribute labels (B, A) with 0 for unknown, style labels (B,) with -1."""
        per_update = self.batch // 2
        per_epoch = max(1, len(self.train) // self.batch)
        epoch, at = divmod(step, per_epoch)
        if epoch != self._epoch:
            order = permutation(len(self.train), self.config.seed, "judge-order", epoch)
            two = jt.units(self.data.pairs, self.train, order)
            self._units = two[permutation(len(two), self.config.seed, "judge-units", epoch)]
            self._epoch = epoch
        chosen = np.resize(self._units, (per_epoch * per_update, 2))
        index = chosen[at * per_update : (at + 1) * per_update].reshape(-1)
        seed = key(self.config.seed, "judge-augment", step)
        return self._pictures(index, seed, self.config.other)

    def _pictures(
        self, index: NDArray[np.int64], seed: int, other: float, *, harder: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Samples two by two, a share of them damaged."""
        generator = torch.Generator().manual_seed(seed)

        def rand(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator)

        x = self.data.images(index).to(self.device)
        labels = torch.from_numpy(self.data.labels[index]).to(self.device, torch.float32)
        style = torch.from_numpy(self.data.style[index]).to(self.device)
        spoilt = (rand(len(index)) < other).nonzero()[:, 0]  # on the CPU: its size is needed
        if self.data.styles and len(spoilt):
            rows = spoilt.to(self.device)
            x[rows] = jt.spoil(x[rows], x[self._partners(index)][rows], rand)
            labels[rows] = 0
            style[rows] = len(self.data.styles) - 1
        if harder:
            x = jt.augment(x, rand)
        return x.to(memory_format=torch.channels_last), labels, style

    def _partners(self, index: NDArray[np.int64]) -> Tensor:
        """The picture that each is blended with: the other of its pair, or one of another pair.

        The latter where the two are of one style: they differ in an attribute, and their blend is a
        face.
        """
        mate = np.arange(len(index)) ^ 1
        pairs = np.array([self.data.pairs[i] for i in index])
        style = self.data.style[index]
        alike = (pairs == pairs[mate]) & (pairs != "") & (style == style[mate])
        stranger = (np.arange(len(index)) + 2) % len(index)
        return torch.from_numpy(np.where(alike, stranger, mate)).to(self.device)

    def _update(self, loop: Loop, step: int) -> dict[str, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(step)
        x, labels, style = self._batch(step)
        with autocast(self.device, self.config.precision):
            logits = self.network(x)
        logits = logits.float()
        count = labels.shape[1]
        known = (labels != 0).float()
        each = F.binary_cross_entropy_with_logits(
            logits[:, :count], (labels > 0).float(), reduction="none"
        )
        parts = {"attributes": (each * known).sum() / known.sum().clamp_min(1)}
        if self.data.styles:
            summed = F.cross_entropy(logits[:, count:], style, ignore_index=-1, reduction="sum")
            parts["style"] = summed / (style >= 0).sum().clamp_min(1)
        loss = torch.stack(list(parts.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        loop.update(loss)
        return {"loss": loss.detach(), **{k: v.detach() for k, v in parts.items()}}

    def _scores(self) -> dict[str, Any]:
        """Held-out accuracy and AUC of each attribute, and of the style, of the saved judge."""
        judge = load_judge(self.staging.path, self.device)
        index = self.val[permutation(len(self.val), self.config.seed, "judge-scored")[:SCORED]]
        index = index[: len(index) - len(index) % 2]
        if not len(index):
            return {}
        # An even number each: a damaged picture may be blended with the other of its pair.
        parts = [index[at : at + SCORED_AT_ONCE] for at in range(0, len(index), SCORED_AT_ONCE)]
        verdict = joined([judge(self.data.images(part)) for part in parts])
        labels = self.data.labels[index]
        accuracy: dict[str, float] = {}
        areas: dict[str, float] = {}
        for column, name in enumerate(self.data.names):
            known = labels[:, column] != 0
            if not known.any():
                continue
            p, yes = verdict.attributes[known, column], labels[known, column] > 0
            accuracy[name] = round(float(((p > 0.5) == yes).mean()), 4)
            if 0 < yes.sum() < len(yes):
                areas[name] = round(auc(p, yes), 4)
        scores: dict[str, Any] = {"accuracy": accuracy, "auc": areas}
        if accuracy:
            scores["mean_accuracy"] = float(np.mean(list(accuracy.values())))
        truth = self.data.style[index]
        if self.data.styles and (truth >= 0).any():
            found = verdict.styles.argmax(1)
            scores["style_accuracy"] = float((found == truth)[truth >= 0].mean())
            other = []
            for number, part in enumerate(parts):
                seed = key(self.config.seed, "judge-spoilt", number)
                spoilt, _, _ = self._pictures(part, seed, 1.0, harder=False)
                other.append(judge(spoilt).styles.argmax(1) == len(self.data.styles) - 1)
            scores["other_found"] = float(np.concatenate(other).mean())
        return scores
