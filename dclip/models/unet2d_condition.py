"""diffusers' ``UNet2DConditionModel``, Stable Diffusion's network, as a network of ours.

The module itself is theirs (``dclip[text]``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from dclip.config import settings
from dclip.configs.common import AsTuple
from dclip.diffusion.conditioning import Condition
from dclip.encoders.contract import EncoderInfo
from dclip.errors import BadInput
from dclip.models.diffusers_modules import build

Down = Literal["DownBlock2D", "CrossAttnDownBlock2D"]
Up = Literal["UpBlock2D", "CrossAttnUpBlock2D"]


@settings
class UNet2DConditionConfig:
    """The settings of a ``UNet2DConditionModel`` that Stable Diffusion 1.x and 2.x have.

    Under diffusers' own names; only these reach the library.

    Attributes:
        attention_head_dim: the number of heads, one or one a level, whatever its name says
            (diffusers' issue 2011).
    """

    sample_size: int = 64
    in_channels: int = 4
    out_channels: int = 4
    center_input_sample: bool = False
    flip_sin_to_cos: bool = True
    freq_shift: int = 0
    down_block_types: Annotated[tuple[Down, ...], AsTuple] = (
        "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D",
    )  # fmt: skip
    up_block_types: Annotated[tuple[Up, ...], AsTuple] = (
        "UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D",
    )  # fmt: skip
    block_out_channels: Annotated[tuple[int, ...], AsTuple] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    downsample_padding: int = 1
    mid_block_scale_factor: float = 1.0
    act_fn: Literal["silu", "swish", "mish", "gelu", "relu"] = "silu"
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    cross_attention_dim: int = 768
    attention_head_dim: Annotated[int | tuple[int, ...], AsTuple] = 8
    use_linear_projection: bool = False
    upcast_attention: bool = False

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        if not levels == len(self.down_block_types) == len(self.up_block_types):
            raise BadInput(
                f"unet2d-condition: {levels} widths, {len(self.down_block_types)} blocks down and"
                f" {len(self.up_block_types)} up"
            )
        heads = self.attention_head_dim
        numbers = {
            "sample_size": (self.sample_size, 4096),
            "in_channels": (self.in_channels, 64),
            "layers_per_block": (self.layers_per_block, 16),
            "norm_num_groups": (self.norm_num_groups, 8192),
            "cross_attention_dim": (self.cross_attention_dim, 65536),
            "attention_head_dim": (max(heads) if isinstance(heads, tuple) else heads, 1024),
            "block_out_channels": (max(self.block_out_channels), 8192),
        }
        for field, (value, high) in numbers.items():
            if not 1 <= value <= high:
                raise BadInput(f"unet2d-condition: {field} is {value}", f"it is within 1..{high}")
        if self.in_channels != self.out_channels:
            raise BadInput(
                f"this network takes {self.in_channels} channels and gives {self.out_channels}",
                "give one for text to image: those for inpainting and for depth take more",
            )

    @property
    def stride(self) -> int:
        """The side of a latent must be a multiple of this."""
        return 1 << (len(self.block_out_channels) - 1)


class UNet2DCondition(nn.Module):
    """``eps = model(x, t, condition)``: x (B,C,H,W) latents, t (B,) in 1..T.

    Without a condition it is given the empty prompt's, which lies beside the weights.

    Args:
        config: its shape.
        channels: C.
        text: widths of the text that it reads.
    """

    reads_text: ClassVar[bool] = True

    def __init__(self, config: UNet2DConditionConfig, text: EncoderInfo, channels: int = 4) -> None:
        super().__init__()
        self.config = config
        if text.width != config.cross_attention_dim:
            raise BadInput(
                f"the text encoder's states have {text.width} numbers, the network reads"
                f" {config.cross_attention_dim}",
                "take the encoder that it was trained with",
            )
        self.unet: Any = build("UNet2DConditionModel", "text", asdict(config))
        self.register_buffer("empty_tokens", torch.zeros(text.context, text.width))

    @property
    def pixel_layers(self) -> Sequence[nn.Module]:
        """The first and the last layers, which adapters leave as they are."""
        return [self.unet.conv_in, self.unet.conv_out]

    def set_empty(self, condition: Condition) -> None:
        """Keep what the text encoder makes of the empty prompt, one row, beside the weights."""
        self.empty_tokens = condition.tokens[0].clone()

    def slice_attention(self) -> None:
        """Compute attention in parts, by diffusers' own means: slower, in less memory."""
        self.unet.set_attention_slice("auto")

    def forward(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        if condition is not None and condition.borrowed is not None:
            raise BadInput(
                "attention is not borrowed within diffusers' network",
                "edit with cross 0 and layout 0, or with a model that dclip trained",
            )
        states = self.empty_tokens[None] if condition is None else condition.tokens
        states = states.expand(len(x), *states.shape[1:]).to(x.dtype)
        # Their labels count from 0.
        out: Tensor = self.unet(x, t - 1, encoder_hidden_states=states, return_dict=False)[0]
        return out
