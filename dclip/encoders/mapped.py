"""One text encoder's states as another one's, by linear maps that were fitted to captions.

Each place of the target has a map of its own, since what a state says depends on how far into the
prompt it is. It takes the source's state of the same word, the states of a few words before it, the
mean of all up to it and the mean of all: a causal tower as CLIP's has read no more than that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from safetensors.torch import save_file
from torch import Tensor

from dclip.config import from_dict, settings
from dclip.diffusion.conditioning import Condition
from dclip.encoders.contract import EncoderInfo, TextEncoder
from dclip.encoders.placing import Places
from dclip.errors import BadInput, CorruptArtifact
from dclip.models.checkpoint import check_weights, read_weights

WEIGHTS, CONFIG = "map.safetensors", "encoder.json"


@settings
class MapInfo:
    """What a map lies between, as its ``encoder.json`` says it.

    Attributes:
        source, target: the encoders whose states it takes and makes.
        before: how many tokens before a token it takes too.
        places: how many places have a map; later ones take the last.
        masked: whether padding is no part of the target's states.
    """

    source: EncoderInfo
    target: EncoderInfo
    before: Annotated[int, Ge(0), Le(64)]
    places: Annotated[int, Ge(1), Le(65536)]
    masked: bool

    @property
    def width(self) -> int:
        """Numbers that a state is made of."""
        return (self.before + 3) * self.source.width + 1

    def shapes(self) -> dict[str, torch.Size]:
        """The shape of every weight."""
        states = torch.Size((self.places, self.width, self.target.width))
        pooled = torch.Size((self.width, self.target.pooled))
        return {"states": states} | ({"pooled": pooled} if self.target.pooled else {})


@dataclass(frozen=True)
class LinearMap:
    """Maps of states: ``states`` (places, width, D), and of the embedding ``pooled`` (width, P).

    Attributes:
        info: what it lies between.
        weights: by the names of :meth:`MapInfo.shapes`.
    """

    info: MapInfo
    weights: Mapping[str, Tensor]

    def save(self, path: Path) -> None:
        """Write both files into ``path``."""
        path.mkdir(parents=True, exist_ok=True)
        save_file(
            {k: v.float().cpu().contiguous() for k, v in self.weights.items()}, path / WEIGHTS
        )
        (path / CONFIG).write_text(json.dumps(asdict(self.info), indent=1, sort_keys=True) + "\n")


def read_map_info(path: Path) -> MapInfo:
    """Read ``encoder.json`` of the artifact directory ``path``.

    Raises:
        CorruptArtifact: not a readable description.
    """
    file = path / CONFIG
    try:
        given = json.loads(file.read_text())
        sides = {side: from_dict(EncoderInfo, given[side]) for side in ("source", "target")}
        return from_dict(MapInfo, given | sides)
    except (BadInput, OSError, ValueError, KeyError, TypeError) as e:
        raise CorruptArtifact(
            f"{file} cannot be read as a map of text encoders ({e})", "make it again"
        ) from e


def load_map(path: Path, device: str | torch.device = "cpu") -> LinearMap:
    """The map of an artifact.

    Raises:
        BadInput: weights of another shape.
        CorruptArtifact: unreadable files.
    """
    info, weights = read_map_info(path), read_weights(path / WEIGHTS)
    shapes = {k: v.shape for k, v in weights.items()}
    check_weights(info.shapes(), shapes, str(path / WEIGHTS))
    return LinearMap(info, {k: v.to(device) for k, v in weights.items()})


@dataclass(frozen=True)
class Taken:
    """What maps take of a source's states, place by place of the target.

    Attributes:
        aligned: (N, M, D) the state of the source's token at each place.
        so_far: (N, M, D) the mean of the states up to it.
        mean: (N, D) of all of a prompt's states.
        before: see :class:`MapInfo`.
    """

    aligned: Tensor
    so_far: Tensor
    mean: Tensor
    before: int

    @staticmethod
    def of(states: Tensor, lengths: Tensor, places: Tensor, before: int) -> Taken:
        """What is taken of states (N, L, D) of prompts of ``lengths`` (N,).

        Args:
            places: (N, M), see :class:`dclip.encoders.placing.Places`.
        """
        numbers = torch.arange(states.shape[1], device=states.device)
        states = states * (numbers < lengths[:, None])[..., None]
        so_far = states.cumsum(1) / (numbers + 1)[:, None]
        at = places[..., None].expand(-1, -1, states.shape[2])
        mean = states.sum(1) / lengths[:, None]
        return Taken(states.gather(1, at), so_far.gather(1, at), mean, before)

    @staticmethod
    def joined(parts: Sequence[Taken]) -> Taken:
        """The rows of several."""
        return Taken(
            torch.cat([part.aligned for part in parts]),
            torch.cat([part.so_far for part in parts]),
            torch.cat([part.mean for part in parts]),
            parts[0].before,
        )

    def at(self, place: int | Tensor) -> Tensor:
        """(N, width) for one place of the target, or for one of each row (N,)."""
        n = len(self.mean)
        place = torch.as_tensor(place, device=self.mean.device).expand(n)
        rows = torch.arange(n, device=self.mean.device)
        near = [
            self.aligned[rows, (place - k).clamp_min(0)] * (place >= k)[:, None]
            for k in range(self.before + 1)
        ]
        one = torch.ones_like(self.mean[:, :1])
        return torch.cat([*near, self.so_far[rows, place], self.mean, one], dim=1)


class MappedEncoder:
    """A source's states, mapped: as the target would have read the prompt.

    The target's tokenizer says how many tokens there are; its network is not asked.

    Args:
        source, target: the encoders of the map.
        linear: the map.
        where: see :class:`dclip.encoders.contract.EncoderInfo`.
    """

    def __init__(
        self, source: TextEncoder, target: TextEncoder, linear: LinearMap, where: str
    ) -> None:
        self.name, self.source, self.target, self.linear = where, source, target, linear
        own = linear.info.target
        self.info = EncoderInfo(
            kind="map", where=where, width=own.width, context=own.context, pooled=own.pooled
        )
        for side, known in ((source, linear.info.source), (target, own)):
            if (side.info.width, side.info.context) != (known.width, known.context):
                raise BadInput(f"{where} was fitted to another {side.name}", "make the map again")
        self._places = Places(source, target)

    @property
    def tower(self) -> Mapping[str, Tensor]:
        """As :meth:`dclip.encoders.contract.TextEncoder.tower`: none of its own."""
        return {}

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Condition:
        """As :meth:`dclip.encoders.contract.TextEncoder.encode`."""
        taken = take(self.source, prompts, self._places, self.linear.info.before)
        states, pooled = self.linear.weights["states"], self.linear.weights.get("pooled")
        numbers = range(self.info.context)
        made = [taken.at(j) @ states[min(j, len(states) - 1)] for j in numbers]
        tokens = torch.stack(made, dim=1)
        lengths = torch.tensor(self.lengths(prompts), device=tokens.device)
        mask = torch.arange(tokens.shape[1], device=tokens.device)[None] < lengths[:, None]
        whole = None if pooled is None else F.normalize(taken.at(lengths - 1) @ pooled, dim=-1)
        return Condition(tokens, mask if self.linear.info.masked else None, whole)

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """As :meth:`dclip.encoders.contract.TextEncoder.ids`: the target's."""
        return self.target.ids(prompts)

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """As :meth:`dclip.encoders.contract.TextEncoder.lengths`: the target's."""
        return self.target.lengths(prompts)

    def warning(self, prompt: str) -> str | None:
        """As :meth:`dclip.encoders.contract.TextEncoder.warning`: the source's, which reads."""
        return self.source.warning(prompt)


def take(source: TextEncoder, prompts: Sequence[str], places: Places, before: int) -> Taken:
    """What maps take of prompts.

    Raises:
        BadInput: a prompt that an encoder cannot read.
    """
    tokens = source.encode(prompts).tokens
    lengths = torch.tensor(source.lengths(prompts), device=tokens.device)
    return Taken.of(tokens, lengths, places(prompts).to(tokens.device), before)
