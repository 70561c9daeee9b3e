"""The published networks once more, slow and plain: functions of the file's weights, in float64.

Independent of the package: written from the papers (Ho et al. 2020, appendix B; Dhariwal & Nichol
2021, section 3 and appendix A) and the names in the files. Also random files of those layouts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


def _swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def _group_norm(x: Tensor, w: Weights, name: str, eps: float) -> Tensor:
    b, c = x.shape[:2]
    groups = x.reshape(b, 32, -1)
    mean = groups.mean(2, keepdim=True)
    variance = ((groups - mean) ** 2).mean(2, keepdim=True)
    normal = ((groups - mean) / torch.sqrt(variance + eps)).reshape(x.shape)
    shape = (1, c) + (1,) * (x.dim() - 2)
    return normal * w[f"{name}.weight"].view(shape) + w[f"{name}.bias"].view(shape)


def _conv(x: Tensor, w: Weights, name: str, **options: int) -> Tensor:
    return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], **options)


def _linear(x: Tensor, w: Weights, name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One head, (B,c,L) each."""
    scores = torch.einsum("bci,bcj->bij", q, k) / math.sqrt(q.shape[1])
    return torch.einsum("bij,bcj->bci", torch.softmax(scores, dim=2), v)


# --- the first DDPM layout


def ddpm(w: Weights, x: Tensor, k: Tensor, levels: int, blocks: int) -> Tensor:
    """The noise that the network predicts at timesteps ``k``, which count from 0."""
    w = {name: value.to(x.dtype) for name, value in w.items()}
    half = w["conv_in.weight"].shape[0] // 2
    frequencies = [math.exp(-math.log(10000) * i / (half - 1)) for i in range(half)]
    angles = k.to(x.dtype)[:, None] * torch.tensor(frequencies, dtype=x.dtype)
    e = torch.cat([angles.sin(), angles.cos()], dim=1)
    e = _linear(_swish(_linear(e, w, "temb.dense.0")), w, "temb.dense.1")

    def residual(x: Tensor, name: str) -> Tensor:
        h = _conv(_swish(_group_norm(x, w, f"{name}.norm1", 1e-6)), w, f"{name}.conv1", padding=1)
        h = h + _linear(_swish(e), w, f"{name}.temb_proj")[:, :, None, None]
        h = _conv(_swish(_group_norm(h, w, f"{name}.norm2", 1e-6)), w, f"{name}.conv2", padding=1)
        if f"{name}.nin_shortcut.weight" in w:
            x = _conv(x, w, f"{name}.nin_shortcut")
        return x + h

    def attention(x: Tensor, name: str) -> Tensor:
        h = _group_norm(x, w, f"{name}.norm", 1e-6)
        q, key, v = (_conv(h, w, f"{name}.{part}").flatten(2) for part in "qkv")
        return x + _conv(_attend(q, key, v).view(x.shape), w, f"{name}.proj_out")

    skips = [_conv(x, w, "conv_in", padding=1)]
    for level in range(levels):
        for j in range(blocks):
            h = residual(skips[-1], f"down.{level}.block.{j}")
            if f"down.{level}.attn.{j}.q.weight" in w:
                h = attention(h, f"down.{level}.attn.{j}")
            skips.append(h)
        if level < levels - 1:
            padded = F.pad(skips[-1], (0, 1, 0, 1))  # right and bottom alone
            skips.append(_conv(padded, w, f"down.{level}.downsample.conv", stride=2))
    h = residual(skips[-1], "mid.block_1")
    h = residual(attention(h, "mid.attn_1"), "mid.block_2")
    for level in reversed(range(levels)):
        for j in range(blocks + 1):
            h = residual(torch.cat([h, skips.pop()], dim=1), f"up.{level}.block.{j}")
            if f"up.{level}.attn.{j}.q.weight" in w:
                h = attention(h, f"up.{level}.attn.{j}")
        if level > 0:
            h = h.repeat_interleave(2, 2).repeat_interleave(2, 3)
            h = _conv(h, w, f"up.{level}.upsample.conv", padding=1)
    return _conv(_swish(_group_norm(h, w, "norm_out", 1e-6)), w, "conv_out", padding=1)


def ddpm_file(
    widths: Sequence[int] = (32, 64, 64), blocks: int = 1, attention: Sequence[int] = (1,),
    seed: int = 0,
) -> Weights:  # fmt: skip
    """Random weights of that layout, in its own names and order."""
    make = _Random(seed)
    c, time = widths[0], 4 * widths[0]
    make.linear("temb.dense.0", c, time)
    make.linear("temb.dense.1", time, time)
    make.conv("conv_in", 3, c, 3)

    def residual(name: str, c_in: int, c_out: int) -> None:
        make.norm(f"{name}.norm1", c_in)
        make.conv(f"{name}.conv1", c_in, c_out, 3)
        make.linear(f"{name}.temb_proj", time, c_out)
        make.norm(f"{name}.norm2", c_out)
        make.conv(f"{name}.conv2", c_out, c_out, 3)
        if c_in != c_out:
            make.conv(f"{name}.nin_shortcut", c_in, c_out, 1)

    def attend(name: str, c: int) -> None:
        make.norm(f"{name}.norm", c)
        for part in ("q", "k", "v", "proj_out"):
            make.conv(f"{name}.{part}", c, c, 1)

    skips, width = [c], c
    for level, wide in enumerate(widths):
        for j in range(blocks):
            residual(f"down.{level}.block.{j}", width, wide)
            if level in attention:
                attend(f"down.{level}.attn.{j}", wide)
            width = wide
            skips.append(width)
        if level < len(widths) - 1:
            make.conv(f"down.{level}.downsample.conv", width, width, 3)
            skips.append(width)
    residual("mid.block_1", width, width)
    attend("mid.attn_1", width)
    residual("mid.block_2", width, width)
    for level, wide in reversed(list(enumerate(widths))):
        for j in range(blocks + 1):
            residual(f"up.{level}.block.{j}", width + skips.pop(), wide)
            if level in attention:
                attend(f"up.{level}.attn.{j}", wide)
            width = wide
        if level > 0:
            make.conv(f"up.{level}.upsample.conv", width, width, 3)
    make.norm("norm_out", width)
    make.conv("conv_out", width, 3, 3)
    return make.weights


# --- ADM


def adm(
    w: Weights, x: Tensor, k: Tensor, heads: int, *, legacy: bool = True, label: int | None = None
) -> Tensor:
    """All that the network puts out; ``heads`` at the narrowest attention, all of one width."""
    w = {name: value.to(x.dtype) for name, value in w.items()}
    dim = w["time_embed.0.weight"].shape[1]
    frequencies = [math.exp(-math.log(10000) * i / (dim // 2)) for i in range(dim // 2)]
    angles = k.to(x.dtype)[:, None] * torch.tensor(frequencies, dtype=x.dtype)
    e = torch.cat([angles.cos(), angles.sin()], dim=1)
    e = _linear(_swish(_linear(e, w, "time_embed.0")), w, "time_embed.2")
    if label is not None:
        e = e + w["label_emb.weight"][label]
    per_head = min(v.shape[1] for n, v in w.items() if n.endswith("qkv.weight")) // heads

    def residual(x: Tensor, name: str, resample: str = "") -> Tensor:
        def sized(x: Tensor) -> Tensor:
            if resample == "down":
                b, c, height, width = x.shape
                return x.view(b, c, height // 2, 2, width // 2, 2).mean((3, 5))
            if resample == "up":
                return x.repeat_interleave(2, 2).repeat_interleave(2, 3)
            return x

        h = sized(_swish(_group_norm(x, w, f"{name}.in_layers.0", 1e-5)))
        h = _conv(h, w, f"{name}.in_layers.2", padding=1)
        time = _linear(_swish(e), w, f"{name}.emb_layers.1")[:, :, None, None]
        if time.shape[1] == 2 * h.shape[1]:
            scale, shift = time[:, : h.shape[1]], time[:, h.shape[1] :]
            h = _group_norm(h, w, f"{name}.out_layers.0", 1e-5) * (1 + scale) + shift
        else:
            h = _group_norm(h + time, w, f"{name}.out_layers.0", 1e-5)
        h = _conv(_swish(h), w, f"{name}.out_layers.3", padding=1)
        x = sized(x)
        if f"{name}.skip_connection.weight" in w:
            x = _conv(x, w, f"{name}.skip_connection")
        return x + h

    def attention(x: Tensor, name: str) -> Tensor:
        b, c, height, width = x.shape
        flat = x.flatten(2)
        matrix = w[f"{name}.qkv.weight"][:, :, 0]
        rows = torch.einsum("oc,bcl->bol", matrix, _group_norm(flat, w, f"{name}.norm", 1e-5))
        rows = rows + w[f"{name}.qkv.bias"][None, :, None]
        heads_here = []
        for head in range(c // per_head):
            if legacy:  # rows are (head, q k v, channel)
                at = [3 * per_head * head + part * per_head for part in range(3)]
            else:  # (q k v, head, channel)
                at = [c * part + head * per_head for part in range(3)]
            heads_here.append(_attend(*(rows[:, start : start + per_head] for start in at)))
        out = torch.einsum(
            "oc,bcl->bol", w[f"{name}.proj_out.weight"][:, :, 0], torch.cat(heads_here, dim=1)
        )
        return (flat + out + w[f"{name}.proj_out.bias"][None, :, None]).view(b, c, height, width)

    def stage(x: Tensor, name: str, after_first: str) -> Tensor:
        """The members of one stage, told apart by the names of their weights."""
        part = 0
        while any(n.startswith(f"{name}.{part}.") for n in w):
            inner = f"{name}.{part}"
            if f"{inner}.qkv.weight" in w:
                x = attention(x, inner)
            elif f"{inner}.op.weight" in w:
                x = _conv(x, w, f"{inner}.op", stride=2, padding=1)
            elif f"{inner}.conv.weight" in w:
                x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
                x = _conv(x, w, f"{inner}.conv", padding=1)
            else:
                x = residual(x, inner, after_first if part > 0 else "")
            part += 1
        return x

    updown = not any(".op." in n for n in w)
    per_level = blocks_of(w)
    skips = [_conv(x, w, "input_blocks.0.0", padding=1)]
    h = skips[0]
    at = 1
    while any(n.startswith(f"input_blocks.{at}.") for n in w):
        if updown and at % (per_level + 1) == 0:
            h = residual(h, f"input_blocks.{at}.0", "down")
        else:
            h = stage(h, f"input_blocks.{at}", "")
        skips.append(h)
        at += 1
    h = residual(h, "middle_block.0")
    h = residual(attention(h, "middle_block.1"), "middle_block.2")
    for k_out in range(at):
        h = stage(torch.cat([h, skips.pop()], dim=1), f"output_blocks.{k_out}", "up")
    return _conv(_swish(_group_norm(h, w, "out.0", 1e-5)), w, "out.2", padding=1)


def blocks_of(w: Weights) -> int:
    """Residual blocks a level: the first stage that doubles the side has that index."""
    k = 0
    while not any(
        f"output_blocks.{k}.{part}.{what}.weight" in w
        for part in (1, 2)
        for what in ("conv", "in_layers.0")
    ):
        k += 1
    return k


def adm_file(
    channels: int = 32, mults: Sequence[float] = (1, 2, 2), blocks: int = 1,
    attention: Sequence[int] = (1,), *, updown: bool = True, scale_shift: bool = True,
    learned: bool = True, classes: int | None = None, seed: int = 0,
) -> Weights:  # fmt: skip
    """Random weights of that layout, in its own names and order."""
    make = _Random(seed)
    time = 4 * channels
    make.linear("time_embed.0", channels, time)
    make.linear("time_embed.2", time, time)
    if classes:
        make.table("label_emb", classes, time)
    widths = [int(channels * mult) for mult in mults]

    def residual(name: str, c_in: int, c_out: int) -> None:
        make.norm(f"{name}.in_layers.0", c_in)
        make.conv(f"{name}.in_layers.2", c_in, c_out, 3)
        make.linear(f"{name}.emb_layers.1", time, 2 * c_out if scale_shift else c_out)
        make.norm(f"{name}.out_layers.0", c_out)
        make.conv(f"{name}.out_layers.3", c_out, c_out, 3)
        if c_in != c_out:
            make.conv(f"{name}.skip_connection", c_in, c_out, 1)

    def attend(name: str, c: int) -> None:
        make.norm(f"{name}.norm", c)
        make.conv1d(f"{name}.qkv", c, 3 * c)
        make.conv1d(f"{name}.proj_out", c, c)

    width = widths[0]
    make.conv("input_blocks.0.0", 3, width, 3)
    skips, at = [width], 1
    for level, wide in enumerate(widths):
        for _ in range(blocks):
            residual(f"input_blocks.{at}.0", width, wide)
            width = wide
            if level in attention:
                attend(f"input_blocks.{at}.1", width)
            skips.append(width)
            at += 1
        if level < len(widths) - 1:
            if updown:
                residual(f"input_blocks.{at}.0", width, width)
            else:
                make.conv(f"input_blocks.{at}.0.op", width, width, 3)
            skips.append(width)
            at += 1
    residual("middle_block.0", width, width)
    attend("middle_block.1", width)
    residual("middle_block.2", width, width)
    at = 0
    for level, wide in reversed(list(enumerate(widths))):
        for j in range(blocks + 1):
            residual(f"output_blocks.{at}.0", width + skips.pop(), wide)
            width, part = wide, 1
            if level in attention:
                attend(f"output_blocks.{at}.1", width)
                part = 2
            if level > 0 and j == blocks:
                if updown:
                    residual(f"output_blocks.{at}.{part}", width, width)
                else:
                    make.conv(f"output_blocks.{at}.{part}.conv", width, width, 3)
            at += 1
    make.norm("out.0", width)
    make.conv("out.2", width, 6 if learned else 3, 3)
    return make.weights


class _Random:
    """Weights that keep activations near 1, small enough at the input for an epsilon to show."""

    def __init__(self, seed: int) -> None:
        self.weights: Weights = {}
        self.generator = torch.Generator().manual_seed(seed)

    def _draw(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def _add(self, name: str, weight: Tensor) -> None:
        self.weights[f"{name}.weight"] = weight
        self.weights[f"{name}.bias"] = 0.1 * self._draw(weight.shape[0])

    def linear(self, name: str, c_in: int, c_out: int) -> None:
        self._add(name, self._draw(c_out, c_in) / math.sqrt(c_in))

    def conv(self, name: str, c_in: int, c_out: int, side: int) -> None:
        first = 0.02 if c_in == 3 else 1.0
        self._add(name, first * self._draw(c_out, c_in, side, side) / math.sqrt(c_in * side**2))
        if c_in == 3:
            self.weights[f"{name}.bias"] *= 0.02
        if c_out in (3, 6):
            self.weights[f"{name}.weight"] *= 0.3

    def conv1d(self, name: str, c_in: int, c_out: int) -> None:
        self._add(name, self._draw(c_out, c_in, 1) / math.sqrt(c_in))

    def norm(self, name: str, c: int) -> None:
        self.weights[f"{name}.weight"] = 1 + 0.1 * self._draw(c)
        self.weights[f"{name}.bias"] = 0.1 * self._draw(c)

    def table(self, name: str, rows: int, width: int) -> None:
        self.weights[f"{name}.weight"] = self._draw(rows, width)
