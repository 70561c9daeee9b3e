"""A CLIP of a few layers with random weights, and a reporter that interrupts the work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

from dclip.context import Silent
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


class Stop(Silent):
    """Interrupts after so many updates; keeps where each task began and what was said."""

    def __init__(self, after: int | None = None) -> None:
        self.left = after
        self.began: list[int] = []
        self.said: list[str] = []

    @contextmanager
    def task(
        self, description: str, total: int | None, *, unit: str = "img", done: int = 0
    ) -> Iterator[Any]:
        self.began.append(done)
        yield self

    def advance(self, n: int = 1, **stats: float) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    def note(self, message: str) -> None:
        self.said.append(message)

    warn = note
