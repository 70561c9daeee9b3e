"""A CLIP of a few layers with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

from dclip.guidance.clip import write_config

CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def write_clip(
    path: Path, *, size: int = 16, context: int = 16, seed: int = 0, **preprocess: Any
) -> Path:
    """A directory in open_clip's format, made without dclip's own saving."""
    path.mkdir(parents=True, exist_ok=True)
    config = {
        **CONFIG,
        "vision_cfg": {**CONFIG["vision_cfg"], "image_size": size},
        "text_cfg": {**CONFIG["text_cfg"], "context_length": context},
    }
    settings = {"size": size, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]} | preprocess
    write_config(path, config, settings)
    torch.manual_seed(seed)
    model = open_clip.create_model(f"local-dir:{path}", load_weights=False)
    weights = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(weights, path / "open_clip_model.safetensors")
    return path
