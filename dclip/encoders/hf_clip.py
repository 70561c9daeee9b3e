"""The text tower of a CLIP in transformers' format, as Stable Diffusion ships it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dclip.diffusion.conditioning import Condition
from dclip.encoders.contract import EncoderInfo
from dclip.errors import BadInput, CorruptArtifact

ENCODER, TOKENIZER = "text_encoder", "tokenizer"


class HfClipEncoder:
    """``CLIPTextModel`` and ``CLIPTokenizer`` of a folder; nothing in it is run.

    Args:
        folder: holds ``text_encoder/`` and ``tokenizer/``.

    Raises:
        BadInput: transformers is not installed.
        CorruptArtifact: files that are missing or do not fit.
    """

    def __init__(self, folder: Path, device: str | torch.device, name: str) -> None:
        try:
            from transformers import CLIPTextModel, CLIPTokenizer
            from transformers.utils import logging
        except ImportError as e:
            raise BadInput(
                f"{name} needs the package transformers ({e})", "pip install 'dclip[text]'"
            ) from e
        self.name, self.device = name, torch.device(device)
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # dclip shows its own
        try:
            self.tokenizer: Any = CLIPTokenizer.from_pretrained(
                str(folder / TOKENIZER), local_files_only=True
            )
            model: Any = CLIPTextModel.from_pretrained(
                str(folder / ENCODER), local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError, RuntimeError, TypeError, KeyError) as e:
            said = str(e).partition("\n")[0]
            raise CorruptArtifact(
                f"the text encoder of {name} cannot be loaded ({said})", "import it again"
            ) from e
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.info = EncoderInfo(
            kind="hf-clip",
            where=".",
            width=int(model.config.hidden_size),
            context=int(model.config.max_position_embeddings),
        )

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Condition:
        """States of all tokens after the last norm, padding included, as Stable Diffusion's."""
        return Condition(self.model(self.ids(prompts))[0].float())

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """As :meth:`dclip.encoders.contract.TextEncoder.ids`; raises BadInput for a long one."""
        longest = self.info.context
        for prompt in prompts:
            length = len(self.tokenizer(prompt)["input_ids"])
            if length > longest:
                raise BadInput(
                    f"the prompt has {length} tokens, but {self.name} reads at most {longest}:"
                    f" {prompt[:40]!r}...",
                    "shorten it",
                )
        ids: Tensor = self.tokenizer(
            list(prompts), padding="max_length", max_length=longest, return_tensors="pt"
        )["input_ids"]
        return ids.to(self.device)

    def warning(self, prompt: str) -> str | None:
        """Its vocabulary is open: None."""
        return None
