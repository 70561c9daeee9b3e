"""The text tower of a CLIP in transformers' format, as Stable Diffusion ships it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dclip.diffusion.conditioning import Condition
from dclip.encoders.contract import EncoderInfo, check_length
from dclip.errors import BadInput, CorruptArtifact

ENCODER, TOKENIZER = "text_encoder", "tokenizer"


class HfClipEncoder:
    """``CLIPTextModel`` and ``CLIPTokenizer`` of a folder; nothing in it is run.

    Args:
        folder: holds ``text_encoder/`` and ``tokenizer/``, or the files of both in itself.
        where: see :class:`dclip.encoders.contract.EncoderInfo`.

    Raises:
        BadInput: transformers is not installed.
        CorruptArtifact: files that are missing or do not fit.
    """

    def __init__(self, folder: Path, device: str | torch.device, where: str) -> None:
        try:
            from transformers import CLIPTextModel, CLIPTokenizer
        except ImportError as e:
            raise missing_transformers(where, e) from e
        self.name, self.device = where, torch.device(device)
        parts = (folder / TOKENIZER, folder / ENCODER)
        words, network = parts if parts[1].is_dir() else (folder, folder)
        self.tokenizer: Any = loaded(CLIPTokenizer, words, where)
        model: Any = loaded(CLIPTextModel, network, where, use_safetensors=True)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.info = EncoderInfo(
            kind="hf-clip",
            where=where,
            width=int(model.config.hidden_size),
            context=int(model.config.max_position_embeddings),
        )

    @property
    def tower(self) -> Mapping[str, Tensor]:
        """As :meth:`dclip.encoders.contract.TextEncoder.tower`."""
        return dict(self.model.named_parameters())

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Condition:
        """States of all tokens after the last norm, padding included, as Stable Diffusion's."""
        return Condition(self.model(self.ids(prompts))[0].float())

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """As :meth:`dclip.encoders.contract.TextEncoder.ids`; raises BadInput for a long one."""
        for prompt, length in zip(prompts, self.lengths(prompts), strict=True):
            check_length(self.name, prompt, length, self.info.context)
        ids: Tensor = self.tokenizer(
            list(prompts), padding="max_length", max_length=self.info.context, return_tensors="pt"
        )["input_ids"]
        return ids.to(self.device)

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """How many tokens each prompt has, with its start and its end, without padding."""
        return [len(ids) for ids in self.tokenizer(list(prompts))["input_ids"]]

    def warning(self, prompt: str) -> str | None:
        """Its vocabulary is open: None."""
        return None


def missing_transformers(name: str, error: ImportError) -> BadInput:
    """What to raise where transformers cannot be imported."""
    return BadInput(f"{name} needs the package transformers ({error})", "pip install 'dclip[text]'")


def loaded(kind: Any, folder: Path, name: str, **options: Any) -> Any:
    """A network or a tokenizer of transformers from a folder; never from the network.

    Raises:
        CorruptArtifact: files that are missing or do not fit.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # dclip shows its own
    try:
        return kind.from_pretrained(str(folder), local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as e:
        said = str(e).partition("\n")[0]
        raise CorruptArtifact(
            f"the text encoder of {name} cannot be loaded ({said})",
            "fetch its files again, or import the model again",
        ) from e
