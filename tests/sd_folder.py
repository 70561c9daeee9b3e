"""A folder as StableDiffusionPipeline saves it: random weights, small widths, our vocabulary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

SCHEDULE = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "steps_offset": 1, "set_alpha_to_one": False,
}  # fmt: skip


def tokenizer(folder: Path) -> CLIPTokenizer:
    """One of letters, and of a few merged words; at most 16 tokens."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{x}</w>" for x in letters), "fa", "ce</w>", "face</w>"]
    vocabulary = {word: n for n, word in enumerate(words)}
    vocabulary |= {"<|startoftext|>": len(vocabulary), "<|endoftext|>": len(vocabulary) + 1}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\nf a\nc e</w>\nfa ce</w>\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16
    )


def pipeline(root: Path, *, prediction: str = "epsilon", **unet: Any) -> StableDiffusionPipeline:
    """The pipeline, saved to ``root`` too."""
    torch.manual_seed(0)
    words = tokenizer(root.parent / "words")
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words), hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=16, projection_dim=16,
            bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )  # fmt: skip
    network = UNet2DConditionModel(
        **{
            "sample_size": 8, "block_out_channels": (32, 64), "layers_per_block": 1,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": 16, "attention_head_dim": 2,
        } | unet
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(32, 32), norm_num_groups=8, latent_channels=4, sample_size=16,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    with torch.no_grad():
        for module in (text, network, vae):
            for value in module.parameters():
                value.add_(0.05 * torch.randn(value.shape))
    scheduler = PNDMScheduler(skip_prk_steps=True, prediction_type=prediction, **SCHEDULE)
    made = StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=words, unet=network, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    made.save_pretrained(root)
    return made


def ddim(scheduler: PNDMScheduler) -> DDIMScheduler:
    """The same noise, stepped by DDIM."""
    return DDIMScheduler.from_config(scheduler.config, clip_sample=False)
