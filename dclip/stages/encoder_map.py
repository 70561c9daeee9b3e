"""encoder map: one text encoder's states to another one's, from the captions of a data artifact."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from dclip.configs.encoder_map import EncoderMapConfig
from dclip.context import Context
from dclip.data.dataset import DataSet
from dclip.device import describe, pick
from dclip.encoders.contract import EncoderInfo
from dclip.encoders.find import SIDES, FoundEncoder, find_encoder
from dclip.encoders.fitting import explained, fit, read
from dclip.encoders.mapped import MappedEncoder
from dclip.errors import BadInput
from dclip.random import permutation
from dclip.stages.revisions import REVISIONS
from dclip.store import Artifact, Staging, Store

HELD_OUT = 10  # one caption of so many is held out


def run(config: EncoderMapConfig, store: Store, context: Context = Context()) -> Artifact:
    """Fit a linear map between two text encoders and commit it as an ``encoder`` artifact.

    Raises:
        BadInput: data without captions, two encoders that are one, or one that makes no states.
        MissingArtifact: no data in the store, or no such encoder.
    """
    data = store.resolve(config.data, "data", context.report)
    texts = sorted({text.strip() for text in DataSet(data.path).captions} - {""})
    if len(texts) < 2 * HELD_OUT:
        raise BadInput(
            f"{data.ref} has {len(texts)} different captions, which are too few to fit a map to",
            f"prepare data with {2 * HELD_OUT} different captions or more",
        )
    order = permutation(len(texts), config.seed, "encoder-map")
    held = len(texts) // HELD_OUT
    kept = [texts[i] for i in order[held:]][: config.captions]
    held_out = [texts[i] for i in order[:held]]
    sides = [find_encoder(spec, store, context.report) for spec in (config.source, config.target)]
    for side in sides:
        if side.names or side.sides:
            raise BadInput(f"{side.called} makes no states of its own", "name a CLIP or a BERT")
    device = pick(context)
    settings = {k: v for k, v in asdict(config).items() if k not in _NOT_SETTINGS}
    outside = {
        role: None if side.artifact else [side.where, side.content]
        for role, side in zip(SIDES, sides, strict=True)
    }
    named = {role: side.artifact for role, side in zip(SIDES, sides, strict=True) if side.artifact}

    def make(staging: Staging) -> dict[str, Any]:
        source, target = (side.load(device, context.report) for side in sides)
        infos = (_said(source.info, sides[0]), _said(target.info, sides[1]))
        with context.report.task("reading captions", len(kept) + 1, unit="caption") as task:
            linear = fit(
                source, target, kept, before=config.before, sides=infos, advance=task.advance
            )
        linear.save(staging.path)
        mapped = MappedEncoder(source, target, linear, "the map")
        wanted = read(target, held_out)
        return {
            "captions": len(kept),
            "held_out": len(held_out),
            "weights": sum(w.numel() for w in linear.weights.values()),
            **explained(read(mapped, held_out), wanted),
        }

    return store.build(
        stage="encoder-map",
        revision=REVISIONS["encoder-map"],
        device=describe(device),
        kind="encoder",
        name=config.name or data.name,
        config=settings | outside,
        inputs={"data": data, **named},
        seed=config.seed,
        context=context,
        estimate={"captions": len(kept)},
        make=make,
    )


_NOT_SETTINGS = ("source", "target", "data", "name", "seed")


def _said(info: EncoderInfo, found: FoundEncoder) -> EncoderInfo:
    """What the artifact says of a side: where it is, and what its files held."""
    return replace(
        info, where=found.called if found.artifact else info.where, content=found.content
    )
