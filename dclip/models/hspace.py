"""Edits in h-space, the narrowest state of a U-Net (Kwon et al. 2023, 2210.10960, "Asyrp").

A small block sees the state h and the timestep and says what to add to h. The files that its
authors published are of two forms, one a network family; both are this one block.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from dclip.config import from_dict, settings
from dclip.errors import BadInput, CorruptArtifact
from dclip.models.adm import ADM
from dclip.models.checkpoint import load_weights, read_weights
from dclip.models.prediction import bare

GROUPS = 32
START = 0.1
"""Of a new block's last layer: a share of the usual random start."""


@settings
class HSpaceConfig:
    """The shape of a block.

    Attributes:
        form: ``"ddpm"`` or ``"adm"``, after the network that it edits. ADM's normalises h first,
            and its norms have an epsilon of 1e-5, not 1e-6.
        channels: of h.
        time: of the timestep's embedding.
        t_min: the timestep above which it acts: Asyrp's t_edit, which counts from 0, is the same.
    """

    form: Literal["ddpm", "adm"]
    channels: int
    time: int
    t_min: int = 0

    def __post_init__(self) -> None:
        if self.channels % GROUPS or not 0 < self.channels <= 8192 or not 0 < self.time <= 32768:
            raise BadInput(f"h-space: {self.channels} channels, time {self.time}")


class HSpaceBlock(nn.Module):
    """(h, e) -> the difference of h: h (B,C,H,W), e (B,time) the timestep's embedding.

    Kwon et al. 2023, appendix F: 1x1 convolution, the timestep added, norm, swish, 1x1.
    """

    def __init__(self, config: HSpaceConfig) -> None:
        super().__init__()
        self.config = config
        c, eps = config.channels, 1e-6 if config.form == "ddpm" else 1e-5
        self.norm1 = nn.GroupNorm(GROUPS, c, eps=eps) if config.form == "adm" else None
        self.conv1 = nn.Conv2d(c, c, 1)
        self.time = nn.Linear(config.time, c)
        self.norm2 = nn.GroupNorm(GROUPS, c, eps=eps)
        self.conv2 = nn.Conv2d(c, c, 1)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        if self.norm1 is not None:
            h = F.silu(self.norm1(h))
        h = self.conv1(h) + self.time(F.silu(e))[:, :, None, None]
        out: Tensor = self.conv2(F.silu(self.norm2(h)))
        return out


class HSpaceEdit(nn.Module):
    """``eps = model(x, t)`` with blocks' differences added to h; several act on the same h.

    Args:
        model: the network, or what turned its prediction into eps.
        parts: (block, strength) of each edit; strengths may be negative.

    Raises:
        BadInput: a network without an h-space, or a block of another one's.
    """

    def __init__(self, model: nn.Module, parts: Sequence[tuple[HSpaceBlock, float]]) -> None:
        super().__init__()
        self.model = model
        self.blocks = nn.ModuleList(block for block, _ in parts)
        self.parts = list(parts)
        network = _with_h_space(model)
        self.bottleneck: nn.Module = network.bottleneck  # type: ignore[assignment]
        self.time_layers: nn.Module = network.time_layers  # type: ignore[assignment]
        width, time = h_space_shape(self.bottleneck, self.time_layers)
        for block, _ in parts:
            if (block.config.channels, block.config.time) != (width, time):
                raise BadInput(
                    f"an h-space edit of {block.config.channels} channels (time"
                    f" {block.config.time}) on a network of {width} (time {time})",
                    "use it with the base that it was made for",
                )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        timestep, seen = int(t[0]), {}

        def keep(_: nn.Module, __: object, e: Tensor) -> None:
            seen["e"] = e

        def edit(_: nn.Module, __: object, h: Tensor) -> Tensor:
            edited = h
            for block, strength in self.parts:
                if strength != 0 and timestep > block.config.t_min:
                    edited = edited + strength * block(h, seen["e"])
            return edited

        hooks = [
            self.time_layers.register_forward_hook(keep),
            self.bottleneck.register_forward_hook(edit),
        ]
        try:
            out: Tensor = self.model(x, t)
        finally:
            for hook in hooks:
                hook.remove()
        return out


def _with_h_space(model: nn.Module) -> nn.Module:
    network = bare(model)
    if getattr(network, "bottleneck", None) is None:
        raise BadInput(
            f"a {type(network).__name__} has no h-space that Asyrp's edits fit",
            "use a base with a U-Net: one of `dclip train`, or of the DDPM or ADM family",
        )
    return network


def new_block(model: nn.Module, t_min: int, seed: int) -> HSpaceBlock:
    """A block for training on a network: of its form and widths, with a small random difference.

    Not with none: where a picture did not move, the direction of its move is undefined.

    Args:
        model: the network, or what turned its prediction into eps.
        t_min: the timestep above which the block acts.
        seed: of the random start.

    Raises:
        BadInput: a network without an h-space, or of widths that no block has.
    """
    network = _with_h_space(model)
    width, time = h_space_shape(network.bottleneck, network.time_layers)  # type: ignore[arg-type]
    if width % GROUPS:
        raise BadInput(
            f"the network's narrowest state has {width} channels, no multiple of {GROUPS}",
            "use another --recipe",
        )
    form: Literal["ddpm", "adm"] = "adm" if isinstance(network, ADM) else "ddpm"
    block = HSpaceBlock(HSpaceConfig(form, width, time, t_min))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in (block.conv1, block.time, block.conv2):
            limit = layer.weight[0].numel() ** -0.5
            layer.weight.uniform_(-limit, limit, generator=generator)
            layer.bias.zero_()  # type: ignore[union-attr]
        block.conv2.weight.mul_(START)
    return block


def scaled(block: HSpaceBlock, scale: float) -> HSpaceBlock:
    """A copy whose difference is ``scale`` times as large."""
    copied = copy.deepcopy(block)
    with torch.no_grad():
        for value in copied.conv2.parameters():
            value.mul_(scale)
    return copied


def h_space_shape(bottleneck: nn.Module, time_layers: nn.Module) -> tuple[int, int]:
    """(channels of h, size of the timestep's embedding) of a network's two modules."""
    norms = [m for m in bottleneck.modules() if isinstance(m, nn.GroupNorm)]
    layers = [m for m in time_layers.modules() if isinstance(m, nn.Linear)]
    return norms[-1].num_channels, layers[-1].out_features


# --- files

_NAMES: dict[str, dict[str, str]] = {
    "ddpm": {"conv1": "conv1", "temb_proj": "time", "norm2": "norm2", "conv2": "conv2"},
    "adm": {
        "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time",
        "out_layers.0": "norm2", "out_layers.3": "conv2",
    },
}  # fmt: skip

T_EDIT = {"celeba": 516, "church": 370, "bedroom": 369, "dog": 444}
"""Where Asyrp's edits stop by default, by the domain that the published files' names hold: the
timestep at which LPIPS between x0_hat and the photo reaches .33 (dogs .3); Kwon et al. 2023,
section 3.3 and its appendix."""


def is_asyrp(data: Any) -> bool:
    """Whether a file holds what :func:`read_asyrp` reads."""
    first = data.get("0") if isinstance(data, Mapping) else None
    return isinstance(first, Mapping) and bool(
        {"temb_proj.weight", "emb_layers.1.weight"} & set(first)
    )


def read_asyrp(data: Any, where: str, t_min: int | None = None) -> list[HSpaceBlock]:
    """The blocks of a file that Asyrp's training wrote.

    Args:
        data: what the file holds: blocks under ``"0"``, ``"1"`` ..., beside the optimizer's state.
        where: the file's name, for messages, and for the domain.
        t_min: Asyrp's t_edit; None takes :data:`T_EDIT`'s of the domain, or 500 as in its README.

    Raises:
        BadInput: no such file.
    """
    numbered = {
        int(k): v
        for k, v in (data.items() if isinstance(data, Mapping) else ())
        if isinstance(k, str) and k.isdigit()
    }
    if any(isinstance(v, Tensor) for v in numbered.values()):
        raise BadInput(
            f"{where} holds a difference of h for each timestep, not a block",
            "dclip reads the edits that were trained with --train_delta_block",
        )
    states = [numbered[k] for k in sorted(numbered)]
    if not states or not all(isinstance(state, Mapping) for state in states):
        held = (
            f"a table of {', '.join(map(str, list(data)[:5]))}"
            if isinstance(data, Mapping)
            else f"a {type(data).__name__}"
        )
        raise BadInput(f"{where} is none of Asyrp's edits; it holds {held}", "give its .pth file")
    if t_min is None:
        domain = next((t for word, t in T_EDIT.items() if word in where.lower()), 500)
        t_min = domain
    return [_read_block(state, where, t_min) for state in states]


def _read_block(state: Mapping[str, Any], where: str, t_min: int) -> HSpaceBlock:
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)}
    form: Literal["ddpm", "adm"] = "adm" if "in_layers.0.weight" in tensors else "ddpm"
    names = {f"{old}.{kind}": f"{new}.{kind}" for old, new in _NAMES[form].items()
             for kind in ("weight", "bias")}  # fmt: skip
    time = tensors.get("temb_proj.weight" if form == "ddpm" else "emb_layers.1.weight")
    if time is None or time.ndim != 2:
        raise BadInput(
            f"{where} is none of Asyrp's edits; its block holds {', '.join(list(state)[:5])}",
            "give its .pth file",
        )
    block = HSpaceBlock(HSpaceConfig(form, time.shape[0], time.shape[1], t_min))
    named = {names.get(k, k): v.float() for k, v in tensors.items()}
    load_weights(block, named, where)
    return block.eval().requires_grad_(False)


def save_hspace(blocks: Sequence[HSpaceBlock], path: Path) -> None:
    """Write ``hspace.safetensors`` and ``hspace.json`` into ``path``."""
    path.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{i}.{k}": v.detach().cpu().contiguous()
        for i, block in enumerate(blocks)
        for k, v in block.state_dict().items()
    }
    save_file(tensors, path / "hspace.safetensors")
    configs = {"blocks": [asdict(block.config) for block in blocks]}
    (path / "hspace.json").write_text(json.dumps(configs, indent=1, sort_keys=True) + "\n")


def is_hspace(path: Path) -> bool:
    """Whether a tuned artifact's folder holds h-space blocks."""
    return (path / "hspace.json").is_file()


def read_hspace(path: Path) -> list[HSpaceBlock]:
    """The blocks that :func:`save_hspace` wrote.

    Raises:
        BadInput: settings or weights that do not go together.
        CorruptArtifact: unreadable files, NaN or infinity.
    """
    try:
        configs = json.loads((path / "hspace.json").read_text())["blocks"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise CorruptArtifact(
            f"{path / 'hspace.json'} cannot be read ({e})", "import the edit again"
        ) from e
    weights = read_weights(path / "hspace.safetensors")
    blocks = []
    for i, config in enumerate(configs):
        block = HSpaceBlock(from_dict(HSpaceConfig, config, where="hspace.json"))
        own = {k.partition(".")[2]: v for k, v in weights.items() if k.startswith(f"{i}.")}
        load_weights(block, own, str(path / "hspace.safetensors"))
        blocks.append(block.eval().requires_grad_(False))
    return blocks
