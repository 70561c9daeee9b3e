"""invert: pictures of a data artifact to the latents that a model decodes back to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dclip.configs.invert import STEPS, InvertConfig, R
from dclip.context import Context
from dclip.data.arrays import ShardWriter
from dclip.data.dataset import DataSet, LatentSet
from dclip.data.images import save_png, to_float, to_uint8
from dclip.data.table import write_table
from dclip.device import describe, pick, placed, resolve_precision
from dclip.diffusion import ddim, ddpm, grids
from dclip.diffusion.inversion import REFINEMENTS, TOLERANCE, invert
from dclip.diffusion.network import EpsModel, InPrecision
from dclip.editing.plan import warn_of_frame
from dclip.errors import BadInput, DclipError
from dclip.figures.panel import panel
from dclip.guidance.prompts import preset, unfit
from dclip.guiding import preset_r
from dclip.metrics import mae, psnr
from dclip.models.checkpoint import ModelInfo, load_model, read_info
from dclip.random import key, normal, permutation
from dclip.stages.models import model_of_pixels
from dclip.stages.revisions import REVISIONS
from dclip.store import Artifact, Journal, Staging, Store, slug

EDIT_STEPS, EDIT_REFINEMENTS = 10, 1
"""How latents for an edit are made. Over few steps an exact inversion puts detail that the network
does not draw into the latent as fine noise, which shows as speckle in an edit; with offsets a
decode is exact without that."""
NOT_SETTINGS = ("data", "model", "name", "preset", "seed")
BOTH = "train+val"
PREVIEW_ROWS = 8
PSNR_POOR = 25.0  # below it colours and outlines differ visibly


def resolve(config: InvertConfig, available: int, info: ModelInfo) -> InvertConfig:
    """The config with every default filled in, and r as a timestep.

    Args:
        available: pictures that there are to take.
        info: the model.

    Raises:
        BadInput: r beyond the model's T.
    """
    if config.preset:
        imported = info.source is not None
        r = preset_r(preset(config.preset), info.schedule.T, imported=imported)
    else:
        r = info.schedule.timestep(R if config.r is None else config.r)
    filled = replace(
        config,
        r=r,
        preset=None,
        grid=config.grid or (info.grid if info.grid in grids.WALKS else "even"),
        steps=min(r, EDIT_STEPS if config.preset else STEPS)
        if config.steps is None
        else config.steps,
        count=min(config.count or available, available),
    )
    if config.encode == "noise" or config.method != "fixed-point":
        return filled
    return replace(
        filled,
        refinements=(EDIT_REFINEMENTS if config.preset else REFINEMENTS)
        if config.refinements is None
        else config.refinements,
        tolerance=TOLERANCE if config.tolerance is None else float(config.tolerance),
    )


def select(data: DataSet, split: str, count: int, seed: int) -> NDArray[np.int64]:
    """The sample numbers to invert, increasing; a larger count takes these and more.

    Args:
        count: how many, at most as many as there are. Of ``"train+val"`` a third comes from val,
            more where train has fewer than its two thirds, less where val has.
    """

    def first(name: str, n: int) -> NDArray[np.int64]:
        numbers = data.split(name)
        chosen: NDArray[np.int64] = permutation(len(numbers), seed, "invert", name)[:n]
        return numbers[chosen]

    if split != BOTH:
        return np.sort(first(split, count))
    train, val = len(data.split("train")), len(data.split("val"))
    from_val = min(val, max(count // 3, count - train))
    return np.sort(np.concatenate([first("train", count - from_val), first("val", from_val)]))


def name_of(data: str, model: str) -> str:
    """What latents are called: after their data, and their model where it has another name."""
    return data if data == model else slug(f"{data}-{model}")


def run(config: InvertConfig, store: Store, context: Context = Context()) -> Artifact:
    """Invert pictures and commit them as a ``latents`` artifact.

    Raises:
        BadInput: r or steps that do not fit the model's schedule, pictures that do not fit its
            network, or no pictures in the split.
        MissingArtifact: no data in the store.
        DclipError: the network does not give finite latents.
    """
    source = store.resolve(config.data, "data", context.report)
    base = model_of_pixels(config.model, store, context.report)
    data, info = DataSet(source.path), read_info(base.path)
    parts = ("train", "val") if config.split == BOTH else (config.split,)
    available = sum(len(data.split(part)) for part in parts)
    if not available:
        raise BadInput(
            f"{source.ref} has no pictures in {config.split}",
            "choose another --split, or prepare the data with another one",
        )
    resolved = resolve(config, available, info)
    assert isinstance(resolved.r, int) and resolved.steps and resolved.grid
    if config.preset:
        if why := unfit(config.preset, info.domain):
            context.report.warn(why)
        found = preset(config.preset).suited(info.source is not None)
        context.report.note(
            f"inverting to r={resolved.r}, for {config.preset}"
            + (f" ({found.source})" if info.source is not None else "")
        )
    elif isinstance(config.r, float):
        context.report.note(f"r={resolved.r}, {config.r:g} of T={info.schedule.T}")
    if config.grid is None and resolved.grid != "even":
        context.report.note(f"grid {resolved.grid}, as published for {base.ref}")
    grid = grids.walk(resolved.grid, resolved.r, resolved.steps, info.schedule.T)
    inversion = grids.upward(resolved.grid, grid)
    _check_size(data.size, source, info, base, context)
    warn_of_frame(base, info, source, context.report)
    device = pick(context)
    resolved = replace(resolved, precision=resolve_precision(config.precision, device))
    assert resolved.steps is not None
    return store.build(
        stage="invert",
        revision=REVISIONS["invert"],
        device=describe(device),
        kind="latents",
        name=config.name or name_of(source.name, base.name),
        config={
            **{k: v for k, v in asdict(resolved).items() if k not in NOT_SETTINGS},
            **({"method": None} if resolved.encode == "noise" else {}),
        },
        inputs={"data": source, "model": base},
        seed=config.seed,
        context=context,
        estimate={
            "images": resolved.count,
            # Until the tolerance is met, where there is one.
            f"network_calls_per_image{'_at_most' if resolved.tolerance else ''}": (
                0
                if resolved.encode == "noise"
                else (len(inversion) - 1) * (1 + (resolved.refinements or 0))
            ),
            "bytes": resolved.count * 3 * data.size**2 * 5,
        },
        make=lambda staging: _Inversion(
            resolved, grid, data, base.path, device, context, staging
        ).run(),
    )


def _check_size(
    size: int, source: Artifact, info: ModelInfo, base: Artifact, context: Context
) -> None:
    if size == info.image_size:
        return
    how = f"`dclip prepare ... --size {info.image_size}`"
    if size % info.config.stride:
        raise BadInput(
            f"{source.ref} has {size}-pixel images, but {base.ref} needs a multiple of"
            f" {info.config.stride} and was trained on {info.image_size}",
            how,
        )
    context.report.warn(
        f"{base.ref} was trained on {info.image_size}-pixel images, and {source.ref} has"
        f" {size}: results will be better after {how}"
    )


class _Inversion:
    """One inversion: batches from fixed borders, so that a resumed run computes the same."""

    def __init__(
        self,
        config: InvertConfig,
        grid: Sequence[int],
        data: DataSet,
        model: Path,
        device: torch.device,
        context: Context,
        staging: Staging,
    ) -> None:
        self.config, self.grid, self.data, self.device = config, grid, data, device
        self.context, self.staging = context, staging
        network, self.info = load_model(model, device)
        placed(network, device, config.precision)
        self.network: EpsModel = InPrecision(network, device, config.precision)
        self.chosen = select(data, config.split, config.count, config.seed)

    def run(self) -> dict[str, Any]:
        journal = self._write_arrays()
        columns = self.data.table.take(self.chosen)
        psnrs, maes = journal.column("psnr"), journal.column("mae")
        write_table(self.staging.path / "samples.csv", columns | {"psnr": psnrs, "mae": maes})
        self._preview()
        mean, splits = float(np.mean(psnrs)), list(columns.get("split", ()))
        if self.config.encode == "noise":
            self.context.report.note(
                f"noised, not inverted: what these latents decode to is {mean:.1f} dB from their"
                " pictures, and no decode returns them"
            )
        elif mean < PSNR_POOR and self.config.method != "simplified":
            self.context.report.warn(
                f"the latents decode to their pictures with {mean:.1f} dB only: invert with more"
                " --steps, to a smaller --r, or train the model longer"
            )
        images = len(psnrs)
        calls = sum(row["calls"] * len(row["psnr"]) for row in journal.entries)
        return {
            "images": images,
            **{name: n for name in ("train", "val", "test") if (n := splits.count(name))},
            "psnr": mean,
            "psnr_min": float(np.min(psnrs)),
            "mae": float(np.mean(maes)),
            "network_calls_per_image": calls / images,
        }

    @torch.no_grad()
    def _write_arrays(self) -> Journal:
        """Fill ``latents.zarr`` and ``reference.zarr``, going on where the journal ends."""
        total, shape = len(self.chosen), (3, self.data.size, self.data.size)
        to = self.staging.path
        with (
            ShardWriter(to / "latents.zarr", shape, np.float32, total=total) as latents,
            ShardWriter(to / "reference.zarr", shape, np.uint8, total=total) as references,
        ):
            journal = Journal(
                self.staging.scratch / "batches.jsonl",
                lambda entry: len(entry["psnr"]),
                at_most=min(latents.done, references.done),
            )
            done = journal.done
            latents.rewind(done)
            references.rewind(done)
            with self.context.report.task("inverting", total, done=done) as task:
                for start in range(done, total, self.config.batch):
                    u8 = self.data.images(self.chosen[start : start + self.config.batch])
                    x0 = to_float(torch.from_numpy(u8)).to(self.device)
                    if self.config.encode == "noise":
                        ids = [self.data.ids[i] for i in self.chosen[start : start + len(u8)]]
                        x_r, calls = self._noised(x0, ids), 0
                    else:
                        x_r, calls = self._invert(x0)
                    decoded = self._decode(x_r)
                    latents.append(x_r.cpu().numpy())
                    references.append(u8)
                    measured = psnr(decoded, x0).tolist()
                    journal.add(psnr=measured, mae=mae(decoded, x0).tolist(), calls=calls)
                    task.advance(len(u8), psnr=float(np.mean(measured)))
            latents.finish()
            references.finish()
        return journal

    def _noised(self, x0: Tensor, ids: Sequence[str]) -> Tensor:
        """Pictures at r, with noise keyed by the seed and each picture's id."""
        keys = [key(self.config.seed, "encode", each) for each in ids]
        eps = normal(keys, tuple(x0.shape[1:])).to(x0)
        return ddpm.q_sample(self.info.schedule, x0, self.grid[-1], eps)

    def _invert(self, x0: Tensor) -> tuple[Tensor, int]:
        counted = _Counted(self.network)
        x_r = invert(
            counted,
            self.info.schedule,
            x0,
            grids.upward(self.config.grid or "even", self.grid),
            method=self.config.method,  # type: ignore[arg-type]
            refinements=self.config.refinements or 0,
            tolerance=self.config.tolerance or 0,
        )
        if not bool(torch.isfinite(x_r).all()):
            raise DclipError(
                f"the inversion to r={self.config.r} gave values that are not finite",
                "use more --steps, a smaller --r, or a model that was trained longer",
            )
        return x_r, counted.calls

    def _decode(self, x_r: Tensor) -> Tensor:
        return ddim.decode(self.network, self.info.schedule, x_r, self.grid)

    @torch.no_grad()
    def _preview(self) -> None:
        """A few of the pictures, from end to end of the selection, on their way there and back."""
        made = LatentSet(self.staging.path)
        shown = np.unique(np.linspace(0, len(made) - 1, PREVIEW_ROWS).round().astype(np.int64))
        latents = torch.from_numpy(made.latents(shown))
        decoded = to_uint8(self._decode(latents.to(self.device))).cpu().numpy()
        originals = made.references(shown)
        difference = np.abs(originals.astype(np.int16) - decoded) * 10
        size = self.data.size
        amplified = difference.clip(0, 255).astype(np.uint8)
        sheet = panel(
            list(zip(originals, to_uint8(latents).numpy(), decoded, amplified, strict=True)),
            columns=(
                "original",
                f"latent r={self.config.r}",
                "decoded noise" if self.config.encode == "noise" else "reconstruction",
                "|difference| x10",
            ),
            labels=[
                f"{made.ids[i]} {value:.1f} dB"
                for i, value in zip(shown, made.measured("psnr")[shown], strict=True)
            ],
            cell=size * max(1, 128 // size),
        )
        save_png(self.staging.path / "preview.png", sheet)


class _Counted:
    """A network that counts its calls."""

    def __init__(self, model: EpsModel) -> None:
        self.model, self.calls = model, 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.model(x, t)
