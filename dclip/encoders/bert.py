"""BERT (Devlin et al. 2019, 1810.04805) in transformers' format: states of its last layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dclip.diffusion.conditioning import Condition
from dclip.encoders.contract import EncoderInfo, check_length
from dclip.encoders.hf_clip import loaded, missing_transformers

LONGEST = 77
"""Tokens that are read at most, as many as CLIP reads: a caption needs no 512."""


class BertEncoder:
    """``BertModel`` and its tokenizer of one folder; nothing in it is run.

    ``pooled`` is the mean of the states of the prompt's tokens, of unit length: untuned, BERT's
    mean says more of a sentence than its first state (Reimers & Gurevych 2019, 1908.10084, table
    1).

    Args:
        folder: as ``save_pretrained`` of model and tokenizer write it.
        where: see :class:`dclip.encoders.contract.EncoderInfo`.

    Raises:
        BadInput: transformers is not installed.
        CorruptArtifact: files that are missing or do not fit.
    """

    def __init__(self, folder: Path, device: str | torch.device, where: str) -> None:
        try:
            from transformers import BertModel
            from transformers import BertTokenizerFast as Words  # type: ignore[attr-defined]
        except ImportError as e:
            raise missing_transformers(where, e) from e
        self.name, self.device = where, torch.device(device)
        self.tokenizer: Any = loaded(Words, folder, where)
        model: Any = loaded(BertModel, folder, where, use_safetensors=True, add_pooling_layer=False)
        self.model = model.to(self.device).eval().requires_grad_(False)
        width = int(model.config.hidden_size)
        self.info = EncoderInfo(
            kind="bert",
            where=where,
            width=width,
            context=min(LONGEST, int(model.config.max_position_embeddings)),
            pooled=width,
        )

    @property
    def tower(self) -> Mapping[str, Tensor]:
        """As :meth:`dclip.encoders.contract.TextEncoder.tower`."""
        return dict(self.model.named_parameters())

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Condition:
        """As :meth:`dclip.encoders.contract.TextEncoder.encode`; padding is masked."""
        ids = self.ids(prompts)
        lengths = torch.tensor(self.lengths(prompts), device=self.device)
        mask = torch.arange(ids.shape[1], device=self.device)[None] < lengths[:, None]
        states: Tensor = self.model(ids, attention_mask=mask.long())[0].float()
        mean = (states * mask[..., None]).sum(1) / lengths[:, None]
        return Condition(states, mask, F.normalize(mean, dim=-1))

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """As :meth:`dclip.encoders.contract.TextEncoder.ids`; raises BadInput for a long one."""
        for prompt, length in zip(prompts, self.lengths(prompts), strict=True):
            check_length(self.name, prompt, length, self.info.context)
        found: Tensor = self.tokenizer(
            list(prompts), padding="max_length", max_length=self.info.context, return_tensors="pt"
        )["input_ids"]
        return found.to(self.device)

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """How many tokens each prompt has, with its start and its end, without padding."""
        return [len(ids) for ids in self.tokenizer(list(prompts))["input_ids"]]

    def warning(self, prompt: str) -> str | None:
        """Its vocabulary is open: None."""
        return None
