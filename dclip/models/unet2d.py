"""diffusers' ``UNet2DModel`` as a network of ours; the module itself is theirs (``dclip[hub]``).

The original DDPM networks are this module too, with other names for the weights: one network to
test, to export and to tune serves both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from dclip.config import settings
from dclip.configs.common import AsTuple
from dclip.errors import BadInput
from dclip.models.diffusers_modules import build

DownBlock = Literal[
    "DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D", "SkipDownBlock2D",
    "AttnSkipDownBlock2D",
]  # fmt: skip
UpBlock = Literal[
    "UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D", "SkipUpBlock2D",
    "AttnSkipUpBlock2D",
]  # fmt: skip


@settings
class UNet2DConfig:
    """The settings of a ``UNet2DModel``, under its own names; only these reach the library.

    Attributes:
        attention_head_dim: channels of a head; None is one head.
        num_class_embeds: classes, of a class-conditional network.
    """

    sample_size: int | None = None
    in_channels: int = 3
    out_channels: int = 3
    center_input_sample: bool = False
    time_embedding_type: Literal["positional", "learned"] = "positional"
    time_embedding_dim: int | None = None
    freq_shift: int = 0
    flip_sin_to_cos: bool = True
    down_block_types: Annotated[tuple[DownBlock, ...], AsTuple] = (
        "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D",
    )  # fmt: skip
    mid_block_type: Literal["UNetMidBlock2D"] | None = "UNetMidBlock2D"
    up_block_types: Annotated[tuple[UpBlock, ...], AsTuple] = (
        "AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D",
    )  # fmt: skip
    block_out_channels: Annotated[tuple[int, ...], AsTuple] = (224, 448, 672, 896)
    layers_per_block: int = 2
    mid_block_scale_factor: float = 1.0
    downsample_padding: int = 1
    downsample_type: Literal["conv", "resnet"] = "conv"
    upsample_type: Literal["conv", "resnet"] = "conv"
    dropout: float = 0.0
    act_fn: Literal["silu", "swish", "mish", "gelu", "relu"] = "silu"
    attention_head_dim: int | None = 8
    norm_num_groups: int | None = 32
    attn_norm_num_groups: int | None = None
    norm_eps: float = 1e-5
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    add_attention: bool = True
    class_embed_type: None = None
    num_class_embeds: int | None = None
    num_train_timesteps: int | None = None

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        if not levels == len(self.down_block_types) == len(self.up_block_types):
            raise BadInput(
                f"unet2d: {levels} widths, {len(self.down_block_types)} blocks down and"
                f" {len(self.up_block_types)} up"
            )
        bounds = {
            "sample_size": (1, 4096), "in_channels": (1, 64), "out_channels": (1, 128),
            "time_embedding_dim": (1, 16384), "freq_shift": (0, 1), "layers_per_block": (1, 16),
            "downsample_padding": (0, 1), "attention_head_dim": (1, 8192),
            "norm_num_groups": (1, 8192), "attn_norm_num_groups": (1, 8192),
            "num_class_embeds": (1, 100_000), "num_train_timesteps": (1, 100_000),
            "dropout": (0, 1), "norm_eps": (0, 1), "mid_block_scale_factor": (1e-3, 1e3),
        }  # fmt: skip
        for field, (low, high) in bounds.items():
            value = getattr(self, field)
            if value is not None and not low <= value <= high:
                raise BadInput(f"unet2d: {field} is {value}", f"it is within {low}..{high}")
        if not 1 <= levels <= 10 or not all(1 <= c <= 8192 for c in self.block_out_channels):
            raise BadInput(f"unet2d: widths {self.block_out_channels}", "1 to 10 of 1..8192")
        if self.time_embedding_type == "learned" and self.num_train_timesteps is None:
            raise BadInput("unet2d: a learned time embedding without num_train_timesteps")
        if self.out_channels not in (self.in_channels, 2 * self.in_channels):
            raise BadInput(
                f"unet2d: {self.in_channels} channels in and {self.out_channels} out",
                "as many come out as go in, or twice as many with a learned variance",
            )

    @property
    def stride(self) -> int:
        """The image side must be a multiple of this."""
        return 1 << (len(self.block_out_channels) - 1)

    @property
    def learned_variance(self) -> bool:
        """Whether further channels say the variance of a step."""
        return self.out_channels != self.in_channels

    @property
    def classes(self) -> int | None:
        """How many, of a class-conditional network."""
        return self.num_class_embeds


class UNet2D(nn.Module):
    """``eps = model(x, t)``: x (B,C,H,W), sides multiples of ``config.stride``; t (B,) in 1..T.

    Attributes:
        class_label: the class that a class-conditional network is asked for.
    """

    def __init__(self, config: UNet2DConfig) -> None:
        super().__init__()
        self.config = config
        self.class_label: int | None = None
        self.unet = build("UNet2DModel", "hub", asdict(config))

    @property
    def bottleneck(self) -> nn.Module:
        """The module whose output is the narrowest state, the h-space of Kwon et al. 2023."""
        middle: nn.Module = self.unet.mid_block
        return middle

    @property
    def time_layers(self) -> nn.Module:
        """The module whose output is the timestep's embedding."""
        layers: nn.Module = self.unet.time_embedding
        return layers

    @property
    def pixel_layers(self) -> Sequence[nn.Module]:
        """The first and the last layers, which adapters leave as they are."""
        return [self.unet.conv_in, self.unet.conv_out]

    def raw(self, x: Tensor, t: Tensor) -> Tensor:
        """All that the network puts out, for labels 1..T; (B,2C,H,W) with a learned variance."""
        label = None
        if self.config.classes is not None:
            if self.class_label is None:
                raise BadInput("a class-conditional network without a class", "give --class")
            label = torch.full_like(t, self.class_label)
        out: Tensor = self.unet(x, t - 1, class_labels=label, return_dict=False)[0]
        return out

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.raw(x, t)[:, : x.shape[1]]

    def with_variance(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """As :func:`dclip.diffusion.variance.LearnsVariance.with_variance`."""
        if not self.config.learned_variance:
            raise BadInput("this network did not learn the variance of its steps")
        eps, v = self.raw(x, t).chunk(2, dim=1)
        return eps, v
