"""CLIPs to train: networks with fresh weights, and the rates for them."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import torch

from dclip.errors import BadInput
from dclip.fingerprints import is_file
from dclip.guidance.clip import config as configs
from dclip.guidance.clip import weights
from dclip.guidance.clip.guide import Guide
from dclip.guidance.clip.load import WEIGHTS, make_guide
from dclip.guidance.clip.tokenizer import fetch_text_tower, fetch_tokenizer, load_tokenizer

MODELS: dict[str, dict[str, Any]] = {
    "small": {
        "timm_model_name": "resnet10t",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
    },
    "small-convnext": {
        "timm_model_name": "convnext_atto",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
    },
}
"""Image towers of CLIPs that a CPU can train from fresh weights. The two share no design, so that
one can score edits that the other guided."""

LEAST_SIZE = 32
"""Side of the smallest pictures that the towers of :data:`MODELS` take.

They halve them five times. Below, ``small-convnext`` has no pixel left, and ``small`` would stride
over a single pixel, where oneDNN's bf16 gradient of the weights has entries never written to (torch
2.15 on a CPU)."""

_SMALL_TEXT = {
    "context_length": 32, "vocab_size": 49408, "width": 48, "heads": 4, "layers": 3,
}  # fmt: skip


def check_model(name: str, image_size: int) -> None:
    """Whether :func:`new_model` can make a model.

    Raises:
        BadInput: an unknown name, or pictures that are too small for the model.
    """
    import open_clip

    if name not in MODELS and name not in open_clip.list_models():
        near = difflib.get_close_matches(name, [*MODELS, *open_clip.list_models()], 3)
        raise BadInput(f"unknown CLIP model {name!r}", f"use e.g. {', '.join(near or MODELS)}")
    if name in MODELS and image_size < LEAST_SIZE:
        raise BadInput(
            f"{name} needs pictures of {LEAST_SIZE} pixels or more, not {image_size}",
            f"`dclip prepare ... --size {LEAST_SIZE}` or more",
        )


FRESH_RATES = {"small": 1e-3, "small-convnext": 3e-4}
"""Peak rates. At a higher one the embeddings of ``small-convnext``, which has no batch
normalisation, become equal and stay so."""

LARGE = 100_000_000  # bytes; ViT-B/32 has 300 million in half precision


def usual_rate(model: str, init: str | None) -> float:
    """AdamW's peak rate for a CLIP with fresh or with trained weights.

    For fresh weights :data:`FRESH_RATES`, or 5e-4 (CLIP's own for ViT-B/32, Radford et al. 2021).
    For trained weights 5e-4 where the file is small, and 1e-5 where it is large, since a higher
    rate destroys what a large model learned.

    Args:
        model: as :func:`new_model` takes it.
        init: a directory in open_clip's format, or ``NAME:TAG``; None for fresh weights.
    """
    if init is None:
        return FRESH_RATES.get(model, 5e-4)
    file = Path(init) / WEIGHTS
    small = is_file(file) and file.stat().st_size < LARGE  # without a file: to be fetched
    return 5e-4 if small else 1e-5


def new_model(name: str, image_size: int, device: str | torch.device = "cpu") -> Guide:
    """A CLIP with fresh weights, trainable.

    Args:
        name: a name in :data:`MODELS`, or any open_clip model.
        image_size: side of the pictures for a model of :data:`MODELS`; open_clip's keep theirs.

    Raises: as :func:`check_model`.
    """
    import open_clip

    check_model(name, image_size)
    if name in MODELS:
        config = {
            "embed_dim": 128,
            "vision_cfg": {"image_size": image_size, **MODELS[name]},
            "text_cfg": dict(_SMALL_TEXT),
        }
        preprocess = {
            "size": image_size, "mode": "RGB", "mean": [0.5] * 3, "std": [0.5] * 3,
            "interpolation": "bicubic", "resize_mode": "squash",
        }  # fmt: skip
    else:
        config = open_clip.get_model_config(name)
        preprocess = {}
    config = configs.check_model_config(config, name)
    model = weights.build(config, fetch_text_tower(config, name))
    tokenizer = load_tokenizer(config, fetch_tokenizer(config), name)
    return make_guide(name, model, tokenizer, preprocess, config, device)
