"""UNet: our noise-prediction network, in sizes from a laptop to 256x256.

A residual U-Net after Ho et al. 2020 and Dhariwal & Nichol 2021 (scale-shift time conditioning,
self-attention at low resolution), with a pixel-unshuffle stem (``patch``): patches of pixels become
channels, since a small U-Net spends most of its time at full resolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le, Len, MultipleOf
from torch import Tensor, nn

from dclip.config import settings
from dclip.diffusion.conditioning import Condition
from dclip.encoders.contract import EncoderInfo
from dclip.errors import BadInput
from dclip.models.tiny import sinusoidal


@settings
class UNetConfig:
    """The shape of a U-Net.

    Attributes:
        channels: width at the first level.
        mults: width multiple of each level; each level after the first halves the side.
        blocks: residual blocks a level on the way down (one more on the way up).
        attention: levels (0 = first) with self-attention after each block.
        heads: attention heads.
        patch: side of the pixel-unshuffle stem; level 0 works at ``side / patch``.
        refine: channels at full resolution before the last convolution, which sees the input
            too: without it the grid of the patches shows in the pixels.
    """

    prediction: ClassVar[str] = "v"

    channels: Annotated[int, Ge(16), MultipleOf(16), Le(4096)] = 64
    mults: Annotated[tuple[Annotated[int, Ge(1), Le(64)], ...], Len(1, 10)] = (1, 2, 2)
    blocks: Annotated[int, Ge(1), Le(16)] = 1
    attention: tuple[int, ...] = (2,)
    heads: Annotated[int, Ge(1), Le(256)] = 4
    patch: Annotated[int, Ge(1), Le(64)] = 2
    refine: Annotated[int, Ge(0), Le(4096)] = 16

    def __post_init__(self) -> None:
        if any(level not in range(len(self.mults)) for level in self.attention):
            raise BadInput(
                f"unet: attention levels {self.attention} are not within 0..{len(self.mults) - 1}"
            )
        if any(self.channels * self.mults[level] % self.heads for level in self.attention):
            raise BadInput(
                f"unet: {self.heads} heads do not divide the width at an attention level"
            )

    @property
    def stride(self) -> int:
        """The image side must be a multiple of this."""
        return self.patch << (len(self.mults) - 1)


SIZES: dict[str, UNetConfig] = {
    "latent": UNetConfig(channels=96, mults=(1, 2), attention=(0, 1), patch=1),
    "micro": UNetConfig(channels=32, mults=(1, 2), attention=(1,), patch=4),
    "laptop": UNetConfig(channels=64, mults=(1, 2, 2), attention=(2,), patch=2),
    "small": UNetConfig(channels=96, mults=(1, 2, 3, 4), blocks=2, attention=(2, 3), patch=2),
    "medium": UNetConfig(channels=128, mults=(1, 1, 2, 3, 4), blocks=2, attention=(3, 4), patch=1),
    "large": UNetConfig(
        channels=128, mults=(1, 1, 2, 2, 4, 4), blocks=2, attention=(4, 5), patch=1
    ),
}
"""``latent`` for latents of 16x16; ``micro`` for tests; ``laptop`` 64x64 on a CPU; ``small``
128x128 and ``medium`` 128x128 on an 8 GB GPU; ``large`` 256x256."""


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(16 if channels % 32 else 32, channels, eps=1e-5)


class ResBlock(nn.Module):
    """GroupNorm, SiLU, 3x3, twice; the time scales and shifts the second norm's output."""

    def __init__(self, c_in: int, c_out: int, time_dim: int) -> None:
        super().__init__()
        self.norm1 = _norm(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time = nn.Linear(time_dim, 2 * c_out)
        self.norm2 = _norm(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)
        # Each block starts as its skip, so that depth does not slow the start of training.
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.time(e)[:, :, None, None].chunk(2, dim=1)
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        out: Tensor = h + self.skip(x)
        return out


def _in_order(x: Tensor) -> Tensor:
    """A transposed view as CUDA's kernels of attention take it: they refuse some strides."""
    # Not contiguous(): of a picture of one position it keeps the view, whose stride is refused.
    return x.clone(memory_format=torch.contiguous_format) if x.is_cuda else x


class Attention(nn.Module):
    """Self-attention over positions, residual; then over a text, where there is one."""

    def __init__(self, channels: int, heads: int, context: int = 0) -> None:
        super().__init__()
        self.heads = heads
        self.norm = _norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]
        self.text = CrossAttention(channels, heads, context) if context else None

    def forward(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w)
        q, k, v = _in_order(qkv.transpose(-1, -2)).unbind(1)
        borrowed = None if condition is None else condition.borrowed
        if borrowed is not None and borrowed.layout:
            q, k = q[borrowed.rows], k[borrowed.rows]
        y = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = x + self.out(y.transpose(-1, -2).reshape(b, c, h, w))
        if self.text is not None:
            assert condition is not None, "a network that reads text is given one"
            out = self.text(out, condition)
        return out


class CrossAttention(nn.Module):
    """Attention from positions to the token states of a text, residual.

    Rombach et al. 2022 (2112.10752), section 3.3. Its output starts at zero, so that a network that
    learns to read begins as what it was.
    """

    def __init__(self, channels: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = _norm(channels)
        self.query = nn.Conv2d(channels, channels, 1)
        self.states = nn.LayerNorm(context)
        self.key_value = nn.Linear(context, 2 * channels)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, condition: Condition) -> Tensor:
        b, c, h, w = x.shape
        split = (b, self.heads, c // self.heads, h * w)
        q = _in_order(self.query(self.norm(x)).reshape(split).transpose(-1, -2))
        states = self.key_value(self.states(condition.tokens.to(x.dtype)))
        k, v = (
            part.reshape(b, -1, self.heads, c // self.heads).transpose(1, 2)
            for part in states.chunk(2, dim=-1)
        )
        mask = None if condition.mask is None else condition.mask[:, None, None, :]
        if condition.borrowed is None:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
            if mask is not None:
                scores = scores.masked_fill(~mask, -math.inf)
            y = condition.borrowed.maps(scores.softmax(dim=-1)) @ v
        out: Tensor = x + self.out(y.transpose(-1, -2).reshape(b, c, h, w))
        return out


class UNet(nn.Module):
    """(x, t) -> (B, C, H, W): x like it, H and W multiples of ``config.stride``; t (B,).

    One that reads text takes a :class:`Condition` too: it attends to the tokens' states, and adds
    the pooled embedding to the timestep's; of attributes there is that alone. Without a condition
    it is given that of the empty prompt, which lies beside the weights.

    Args:
        config: its shape.
        channels: C, 3 of pictures.
        text: widths of the text that it reads; None reads none.
    """

    reads_text: ClassVar[bool] = True

    def __init__(
        self, config: UNetConfig, channels: int = 3, text: EncoderInfo | None = None
    ) -> None:
        super().__init__()
        self.config, self.text = config, text
        context = text.width if text else 0
        c, d = config.channels, 4 * config.channels
        widths = [c * m for m in config.mults]
        levels = range(len(widths))
        pixels = channels * config.patch**2

        def attend(level: int) -> nn.Module:
            if level in config.attention:
                return Attention(widths[level], config.heads, context)
            return nn.Identity()

        self.time = nn.Sequential(nn.Linear(c, d), nn.SiLU(), nn.Linear(d, d), nn.SiLU())
        self.stem = nn.Conv2d(pixels, c, 3, padding=1)
        self.down = nn.ModuleList()
        skips = [c]
        width = c
        for level in levels:
            for _ in range(config.blocks):
                block = ResBlock(width, widths[level], d)
                width = widths[level]
                self.down.append(nn.ModuleList([block, attend(level)]))
                skips.append(width)
            if level != levels[-1]:
                self.down.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                skips.append(width)
        between = Attention(width, config.heads, context)
        self.middle = nn.ModuleList([ResBlock(width, width, d), between, ResBlock(width, width, d)])
        self.up = nn.ModuleList()
        for level in reversed(levels):
            for _ in range(config.blocks + 1):
                block = ResBlock(width + skips.pop(), widths[level], d)
                width = widths[level]
                self.up.append(nn.ModuleList([block, attend(level)]))
            if level != 0:
                self.up.append(nn.Conv2d(width, width, 3, padding=1))
        self.norm = _norm(width)
        self.head = nn.Conv2d(width, config.refine * config.patch**2, 3, padding=1)
        self.last = nn.Conv2d(config.refine + channels, channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        if text is not None:
            self.register_buffer("empty_tokens", torch.zeros(text.context, text.width))
            self.register_buffer("empty_mask", torch.ones(text.context, dtype=torch.bool))
            self.register_buffer("empty_pooled", torch.zeros(text.pooled))
        if text is not None and text.pooled:
            self.whole = nn.Linear(text.pooled, d)
            nn.init.zeros_(self.whole.weight)
            nn.init.zeros_(self.whole.bias)

    @property
    def bottleneck(self) -> nn.Module:
        """The module whose output is the narrowest state, the h-space of Kwon et al. 2023."""
        return self.middle[-1]

    @property
    def time_layers(self) -> nn.Module:
        """The module whose output is the timestep's embedding."""
        return self.time

    @property
    def pixel_layers(self) -> Sequence[nn.Module]:
        """The first and the last layers, which adapters leave as they are."""
        return [self.stem, self.head, self.last]

    def set_empty(self, condition: Condition) -> None:
        """Keep what the text encoder makes of the empty prompt, one row, beside the weights."""
        self.empty_tokens = condition.tokens[0].clone()
        if condition.mask is not None:
            self.empty_mask = condition.mask[0].clone()
        if condition.pooled is not None:
            self.empty_pooled = condition.pooled[0].clone()

    def _condition(self, given: Condition | None, rows: int) -> Condition | None:
        """The given condition, or the empty prompt's for every row.

        Another text encoder's may have no embedding of a width that fits: then the empty prompt's.
        """
        if self.text is None:
            return None
        pooled = self.empty_pooled[None] if self.text.pooled else None
        if given is not None and pooled is not None and not _fits(given.pooled, pooled):
            given = replace(given, pooled=pooled.expand(len(given), -1))
        empty = Condition(self.empty_tokens[None], self.empty_mask[None], pooled)
        return (given or empty).expanded(rows)

    def forward(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        e = self.time(sinusoidal(t, self.config.channels).to(x.dtype))
        condition = self._condition(condition, len(x))
        if condition is not None and condition.pooled is not None:
            # Of unit length as it comes: scaled to unit variance (Karras et al. 2022, 2206.00364,
            # their label embedding), without which its weights would learn many times slower.
            pooled = condition.pooled.to(x.dtype) * math.sqrt(condition.pooled.shape[1])
            e = e + self.whole(pooled)
        h = self.stem(F.pixel_unshuffle(x, self.config.patch))
        skips = [h]
        for stage in self.down:
            if isinstance(stage, nn.ModuleList):
                block, attend = stage
                h = _attended(attend, block(h, e), condition)
            else:
                h = stage(h)
            skips.append(h)
        first, attend, second = self.middle
        h = second(attend(first(h, e), condition), e)
        for stage in self.up:
            if isinstance(stage, nn.ModuleList):
                block, attend = stage
                h = _attended(attend, block(torch.cat([h, skips.pop()], dim=1), e), condition)
            else:
                h = stage(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        h = F.pixel_shuffle(self.head(F.silu(self.norm(h))), self.config.patch)
        out: Tensor = self.last(torch.cat([F.silu(h), x], dim=1))
        return out


def _fits(given: Tensor | None, own: Tensor) -> bool:
    return given is not None and given.shape[1:] == own.shape[1:]


def _attended(attend: nn.Module, h: Tensor, condition: Condition | None) -> Tensor:
    out: Tensor = attend(h, condition) if isinstance(attend, Attention) else attend(h)
    return out
