"""ADM: the U-Net of "Diffusion Models Beat GANs" (Dhariwal & Nichol 2021, 2105.05233).

Written from the paper (section 3, appendix A) and the shapes of the published files. Modules are
named as in those files, so that weights load as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dclip.config import settings
from dclip.configs.common import AsTuple
from dclip.errors import BadInput

GROUPS = 32


@settings
class ADMConfig:
    """The shape of an ADM network.

    Attributes:
        channels: the width that ``mults`` multiply; the timestep's embedding has it too.
        mults: width multiple of each level; each level after the first halves the side.
        blocks: residual blocks a level on the way down (one more on the way up).
        attention: levels (0 = first) with self-attention after each block.
        heads: attention heads at every width; None where ``head_channels`` says it.
        head_channels: channels of a head.
        qkv: ``"legacy"``: the rows of the joint projection are (head, 3, channel);
            ``"new"``: (3, head, channel). Shapes do not tell.
        updown: resolution changes inside residual blocks, not by convolutions.
        scale_shift: the timestep scales and shifts; else it is added.
        in_channels: of the picture.
        learned_variance: twice as many channels come out, the further ones say the variance.
        classes: how many, of a class-conditional network.
    """

    channels: int = 128
    mults: Annotated[tuple[float, ...], AsTuple] = (1, 1, 2, 2, 4, 4)
    blocks: int = 1
    attention: Annotated[tuple[int, ...], AsTuple] = (4,)
    heads: int | None = None
    head_channels: int | None = 64
    qkv: Literal["legacy", "new"] = "legacy"
    updown: bool = True
    scale_shift: bool = True
    in_channels: int = 3
    learned_variance: bool = True
    classes: int | None = None

    def __post_init__(self) -> None:
        if not (1 <= len(self.mults) <= 10 and 1 <= self.blocks <= 16 and self.channels >= 1):
            levels = len(self.mults)
            raise BadInput(f"adm: {levels} levels of {self.blocks} blocks, {self.channels} wide")
        if any(width % GROUPS or not 0 < width <= 8192 for width in self.widths):
            raise BadInput(f"adm: widths {self.widths} are not multiples of {GROUPS} up to 8192")
        if any(level not in range(len(self.mults)) for level in self.attention):
            raise BadInput(
                f"adm: attention levels {self.attention} are not within 0..{len(self.mults) - 1}"
            )
        if (self.heads is None) == (self.head_channels is None):
            raise BadInput("adm: give heads or head_channels, one of them")
        for width in {self.widths[level] for level in self.attention} | {self.widths[-1]}:
            if width % (self.heads or self.head_channels or 1):
                what = f"{self.heads} heads" if self.heads else f"{self.head_channels} a head"
                raise BadInput(f"adm: {what} do not divide the {width} channels of an attention")
        if self.classes is not None and self.classes < 1:
            raise BadInput(f"adm: {self.classes} classes")

    @property
    def widths(self) -> list[int]:
        """Channels of each level."""
        return [int(mult * self.channels) for mult in self.mults]

    @property
    def stride(self) -> int:
        """The image side must be a multiple of this."""
        return 1 << (len(self.mults) - 1)

    def heads_at(self, width: int) -> int:
        """Attention heads where there are ``width`` channels."""
        return self.heads or width // (self.head_channels or width)


def embed_timesteps(k: Tensor, dim: int) -> Tensor:
    """Timesteps (B,) -> (B, dim): cosines first, then sines, of frequencies 1 .. 1/10000.

    The published files count timesteps from 0, and divide the exponent by half the dimension.
    """
    half = dim // 2
    powers = torch.arange(half, dtype=torch.float32, device=k.device) / half
    angles = k.float()[:, None] * torch.exp(-math.log(10000) * powers)
    embedded = torch.cat([angles.cos(), angles.sin()], dim=1)
    return F.pad(embedded, (0, dim % 2))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-5)


class Residual(nn.Module):
    """norm, SiLU, (resample,) 3x3; the timestep; norm, SiLU, 3x3; plus the (resampled) input."""

    def __init__(
        self, c_in: int, c_out: int, time: int, scale_shift: bool, resample: str = ""
    ) -> None:
        super().__init__()
        self.resample, self.scale_shift = resample, scale_shift
        self.in_layers = nn.Sequential(_norm(c_in), nn.SiLU(), nn.Conv2d(c_in, c_out, 3, padding=1))
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(time, 2 * c_out if scale_shift else c_out)
        )
        # The third place was dropout's; fine-tuning and sampling use none.
        self.out_layers = nn.Sequential(
            _norm(c_out), nn.SiLU(), nn.Identity(), nn.Conv2d(c_out, c_out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        if self.resample == "up":
            return F.interpolate(x, scale_factor=2.0, mode="nearest")
        return x

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        norm, act, convolution = self.in_layers
        h = convolution(self._resampled(act(norm(x))))
        time = self.emb_layers(e)[:, :, None, None].to(h.dtype)
        if self.scale_shift:
            scale, shift = time.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + time)
        out: Tensor = self.skip_connection(self._resampled(x)) + h
        return out


class Attention(nn.Module):
    """Self-attention over positions, residual."""

    def __init__(self, channels: int, heads: int, legacy: bool) -> None:
        super().__init__()
        self.heads, self.legacy = heads, legacy
        self.norm = _norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        flat = x.flatten(2)
        rows = self.qkv(self.norm(flat))
        per_head = (b, self.heads, 3, c // self.heads, -1)
        split = (
            rows.view(per_head)
            if self.legacy
            else rows.view(b, 3, self.heads, c // self.heads, -1).transpose(1, 2)
        )
        q, k, v = split.transpose(-1, -2).unbind(2)
        y = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(b, c, -1)
        out: Tensor = (flat + self.proj_out(y)).view(b, c, height, width)
        return out


class Downsample(nn.Module):
    """3x3 with stride 2, padded on all sides."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.op(x)
        return out


class Upsample(nn.Module):
    """Nearest neighbour, twice the side, then 3x3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class Stage(nn.ModuleList):
    """Modules one after the other; residual blocks get the timestep too."""

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        for module in self:
            x = module(x, e) if isinstance(module, Residual) else module(x)
        return x


class ADM(nn.Module):
    """``eps = model(x, t)``: x (B,C,H,W), sides multiples of ``config.stride``; t (B,) in 1..T.

    Attributes:
        class_label: the class that a class-conditional network is asked for.
    """

    def __init__(self, config: ADMConfig) -> None:
        super().__init__()
        self.config = config
        self.class_label: int | None = None
        time = 4 * config.channels
        widths = config.widths
        levels = range(len(widths))
        self.time_embed = nn.Sequential(
            nn.Linear(config.channels, time), nn.SiLU(), nn.Linear(time, time)
        )
        if config.classes is not None:
            self.label_emb = nn.Embedding(config.classes, time)

        def residual(c_in: int, c_out: int, resample: str = "") -> Residual:
            return Residual(c_in, c_out, time, config.scale_shift, resample)

        def attend(level: int) -> Iterator[nn.Module]:
            if level in config.attention:
                yield attention(widths[level])

        def attention(width: int) -> Attention:
            return Attention(width, config.heads_at(width), config.qkv == "legacy")

        width = widths[0]
        self.input_blocks = nn.ModuleList(
            [Stage([nn.Conv2d(config.in_channels, width, 3, padding=1)])]
        )
        skips = [width]
        for level in levels:
            for _ in range(config.blocks):
                block = residual(width, widths[level])
                width = widths[level]
                self.input_blocks.append(Stage([block, *attend(level)]))
                skips.append(width)
            if level != levels[-1]:
                smaller = residual(width, width, "down") if config.updown else Downsample(width)
                self.input_blocks.append(Stage([smaller]))
                skips.append(width)
        self.middle_block = Stage(
            [residual(width, width), attention(width), residual(width, width)]
        )
        self.output_blocks = nn.ModuleList()
        for level in reversed(levels):
            for number in range(config.blocks + 1):
                parts: list[nn.Module] = [residual(width + skips.pop(), widths[level])]
                width = widths[level]
                parts += attend(level)
                if level != 0 and number == config.blocks:
                    parts.append(residual(width, width, "up") if config.updown else Upsample(width))
                self.output_blocks.append(Stage(parts))
        out = config.in_channels * (2 if config.learned_variance else 1)
        self.out = nn.Sequential(_norm(width), nn.SiLU(), nn.Conv2d(width, out, 3, padding=1))

    @property
    def bottleneck(self) -> nn.Module:
        """The module whose output is the narrowest state, the h-space of Kwon et al. 2023."""
        return self.middle_block

    @property
    def time_layers(self) -> nn.Module:
        """The module whose output is the timestep's embedding."""
        return self.time_embed

    @property
    def pixel_layers(self) -> Sequence[nn.Module]:
        """The first and the last layers, which adapters leave as they are."""
        return [self.input_blocks[0], self.out]

    def raw(self, x: Tensor, t: Tensor) -> Tensor:
        """All that the network puts out, for labels 1..T; (B,2C,H,W) with a learned variance."""
        e = self.time_embed(embed_timesteps(t - 1, self.config.channels).to(x.dtype))
        if self.config.classes is not None:
            if self.class_label is None:
                raise BadInput("a class-conditional network without a class", "give --class")
            label = torch.full_like(t, self.class_label)
            e = e + self.label_emb(label)
        h, skips = x, []
        for stage in self.input_blocks:
            h = stage(h, e)
            skips.append(h)
        h = self.middle_block(h, e)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], dim=1), e)
        out: Tensor = self.out(h)
        return out

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.raw(x, t)[:, : x.shape[1]]

    def with_variance(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """As :func:`dclip.diffusion.variance.LearnsVariance.with_variance`."""
        if not self.config.learned_variance:
            raise BadInput("this network did not learn the variance of its steps")
        eps, v = self.raw(x, t).chunk(2, dim=1)
        return eps, v
