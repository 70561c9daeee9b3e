"""The door to open_clip: any of its models, frozen, as a differentiable guide.

Nothing else in dclip imports open_clip. A guide takes pixels in [-1, 1] and applies the model's
own preprocessing (resize, mean, std) differentiably.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import re
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from dclip.errors import BadInput, CorruptArtifact
from dclip.guidance.losses import directional
from dclip.guidance.prompts import split_sources

DEFAULT_PRETRAINED = "ViT-B-32:openai"


@dataclass(frozen=True)
class Move:
    """Where a text sends pictures: from what a source says of them to the target.

    Attributes:
        sources: unit-length embeddings of the source prompts, (K, D).
        differences: the target's embedding less each of them, (K, D).
    """

    sources: Tensor
    differences: Tensor

    def of(self, before: Tensor) -> Tensor:
        """The difference for each picture (B, D), from the source that it is most like.

        Args:
            before: unit-length embeddings of the pictures as they are, (B, D).
        """
        sources, differences = self.sources.to(before), self.differences.to(before)
        return differences[(before @ sources.T).argmax(dim=-1)]

    def units(self) -> Tensor:
        """The directions (K, D): d_text, equation (4) of the report, one a source."""
        return F.normalize(self.differences, dim=-1)

    def cosine(self, after: Tensor, before: Tensor) -> Tensor:
        """Cosine between the pictures' move and the text's, (B,); 0 where nothing has moved."""
        return 1 - directional(after, before, F.normalize(self.of(before), dim=-1))

    def lengthened(self, lengths: Tensor) -> Move:
        """The same ways with other lengths (K,)."""
        return Move(self.sources, self.units() * lengths.to(self.differences)[:, None])


@dataclass(frozen=True)
class Guide:
    """A frozen CLIP.

    Attributes:
        name: what the user asked for, e.g. ``"ViT-B-32:openai"``.
        model: an open_clip model with ``encode_image`` and ``encode_text``.
        tokenizer: strings to token ids, int64 (N, context).
        size: (height, width) of the image tower's input.
        mean, std: per-channel normalisation of pixels in [0, 1], (1, 3, 1, 1).
        resize_mode: as in open_clip's preprocess config: ``"squash"`` distorts, ``"shortest"`` fits
            the shorter side and crops, ``"longest"`` fits the longer side and pads.
        interpolation: ``"bicubic"`` or ``"bilinear"``.
        fill: what padding shows, 0 to 1.
        words: lower-case words that a small CLIP was taught; None where it knows open vocabulary.
        config: open_clip's ``model_cfg``, to save the model again.
    """

    name: str
    model: nn.Module
    tokenizer: Callable[..., Tensor]
    size: tuple[int, int]
    mean: Tensor
    std: Tensor
    resize_mode: str = "shortest"
    interpolation: str = "bicubic"
    fill: float = 0.0
    words: frozenset[str] | None = field(default=None, repr=False)
    config: dict[str, Any] | None = field(default=None, repr=False)

    def preprocess(self, x: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] to the image tower's input, differentiably."""
        x = (x + 1) / 2
        if tuple(x.shape[-2:]) != self.size:
            target = self._resized(*x.shape[-2:])
            x = F.interpolate(
                x, target, mode=self.interpolation, align_corners=False, antialias=True
            )
            # Too much is cropped, too little padded; the odd pixel goes where open_clip has it.
            missing = [side - own for side, own in zip(self.size, target, strict=True)]
            top, left = (n // 2 if n > 0 else -round(-n / 2) for n in missing)
            sides = (left, missing[1] - left, top, missing[0] - top)
            x = F.pad(x, sides, value=self.fill)  # negative: cropped
        out: Tensor = (x - self.mean) / self.std
        return out

    def _resized(self, height: int, width: int) -> list[int]:
        """What open_clip resizes pictures of that size to, before it crops or pads them."""
        if self.resize_mode == "squash":
            return list(self.size)
        ratios = (height / self.size[0], width / self.size[1])
        if self.resize_mode == "shortest" and self.size[0] == self.size[1]:
            # Torchvision's own resize, which rounds down.
            side, short = self.size[0], min(height, width)
            return [int(side * height / short), int(side * width / short)]
        ratio = max(ratios) if self.resize_mode == "longest" else min(ratios)
        return [round(height / ratio), round(width / ratio)]

    def embed_image(self, x: Tensor) -> Tensor:
        """Unit-length image embeddings (B, D) of pixels (B, 3, H, W) in [-1, 1]."""
        return F.normalize(self.model.encode_image(self.preprocess(x)).float(), dim=-1)  # type: ignore[operator]

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Unit-length text embeddings (N, D).

        Raises:
            BadInput: an empty prompt, or one longer than the model's context.
        """
        for prompt in prompts:
            self.check(prompt)
        tokens = self.tokenizer(list(prompts)).to(self.mean.device)
        return F.normalize(self.model.encode_text(tokens).float(), dim=-1)  # type: ignore[operator]

    def move(self, target: str, source: str) -> Move:
        """Where the prompts send a picture; ``source`` may name several, separated by semicolons.

        Raises:
            BadInput: an empty prompt, one that is too long, or prompts that mean the same.
        """
        names = split_sources(source)
        to, *come_from = self.embed_text([target, *names])
        sources = torch.stack(come_from)
        differences = to - sources
        for name, difference in zip(names, differences, strict=True):
            if float(difference.norm()) < 1e-4:
                raise BadInput(
                    f"the prompts {target!r} and {name!r} are the same to {self.name}",
                    "choose a target that differs from the source",
                )
        return Move(sources, differences)

    def check(self, prompt: str) -> None:
        """Raise BadInput for an empty prompt or one that the context would cut."""
        if not prompt.strip():
            raise BadInput("the prompt is empty", "say what to see, e.g. --target sketch")
        context = getattr(self.tokenizer, "context_length", None) or 77
        encode = getattr(self.tokenizer, "encode", None)
        if encode is None:
            return
        length = len(encode(prompt)) + 2
        if length > context:
            raise BadInput(
                f"the prompt has {length} tokens, but {self.name} reads at most {context}:"
                f" {prompt[:40]!r}...",
                "shorten it",
            )

    def unknown_words(self, prompt: str) -> list[str]:
        """Words of ``prompt`` that this CLIP was never taught; empty for open-vocabulary models."""
        if self.words is None:
            return []
        return [w for w in re.findall(r"[a-z]+", prompt.lower()) if w not in self.words]

    def warning(self, prompt: str) -> str | None:
        """One line about unknown words, with near and known ones, or None."""
        unknown = self.unknown_words(prompt)
        if not unknown or self.words is None:
            return None
        near = [m for w in unknown for m in difflib.get_close_matches(w, self.words, 2, 0.75)]
        known = ", ".join(sorted(self.words - COMMON))
        hint = f"did you mean {', '.join(near)}?" if near else f"it knows: {known}"
        return (
            f"{self.name} never saw {', '.join(repr(w) for w in unknown)}, so this direction may be"
            f" noise: {hint}"
        )


COMMON = frozenset(
    [
        "a",
        "an",
        "the",
        "of",
        "with",
        "and",
        "in",
        "on",
        "as",
        "is",
        "who",
        "has",
        "no",
        "not",
        "without",
        "to",
        "by",
    ]
)
"""Words too plain to list to a person who looks for ideas."""


def load_guide(spec: str, device: str | torch.device = "cpu", *, name: str | None = None) -> Guide:
    """Load a CLIP, frozen, in float32.

    Args:
        spec: a directory in open_clip's format, ``"NAME:PRETRAINED"`` (any open_clip model and
            tag, e.g. ``"ViT-B-32:laion2b_s34b_b79k"``), or ``"hf-hub:ORG/REPO"``.
        name: what messages call it; None takes ``spec``, or a directory's last part.

    Raises:
        BadInput: an unknown model or tag, or weights that are not here and cannot be fetched.
        CorruptArtifact: a directory whose config or weights cannot be read.
    """
    import open_clip

    path = Path(spec)
    if path.is_dir():
        model, tokenizer = _load_directory(path)
        config = json.loads((path / "open_clip_config.json").read_text())["model_cfg"]
    else:
        model, tokenizer = _load_pretrained(spec)
        architecture, _, tag = spec.partition(":")
        config = open_clip.get_model_config(architecture)
        if config is not None and _quick_gelu(architecture, tag):
            config["quick_gelu"] = True
    called = name or (path.name if path.is_dir() else spec)
    guide = _guide(called, model, tokenizer, device, _words(path / "words.json"), config)
    guide.model.eval().requires_grad_(False)
    return guide


def _words(file: Path) -> list[str] | None:
    if not file.is_file():
        return None
    try:
        return [str(word) for word in json.loads(file.read_text())["words"]]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise CorruptArtifact(f"{file} is no list of words ({e})", "remove or restore it") from e


def fingerprint(path: str) -> str:
    """What identifies a CLIP or network outside the store: its name, or its files' content.

    Args:
        path: a folder in open_clip's format, a file, ``NAME:TAG``, or ``NAME:FILE``.
    """
    place = Path(path)
    if place.is_dir():
        inside = sorted(p for p in place.rglob("*") if p.is_file())
        files = [p for p in inside if p.suffix in (".json", ".safetensors", ".txt")]
    elif place.exists():
        files = [place]
    else:
        name, _, tag = path.partition(":")
        if not tag or not Path(tag).is_file():
            return path
        return f"{name}:{fingerprint(tag)}"
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def _guide(
    name: str,
    model: nn.Module,
    tokenizer: Callable[..., Tensor],
    device: str | torch.device,
    words: Sequence[str] | None = None,
    config: dict[str, Any] | None = None,
) -> Guide:
    import open_clip

    cfg = open_clip.get_model_preprocess_cfg(model)
    size = cfg.get("size", 224)
    mean = cfg.get("mean", open_clip.OPENAI_DATASET_MEAN)
    std = cfg.get("std", open_clip.OPENAI_DATASET_STD)
    return Guide(
        name=name,
        model=model.to(device),
        tokenizer=tokenizer,
        size=(size, size) if isinstance(size, int) else (int(size[0]), int(size[1])),
        mean=torch.tensor(mean, device=device).view(1, 3, 1, 1),
        std=torch.tensor(std, device=device).view(1, 3, 1, 1),
        resize_mode=cfg.get("resize_mode") or "shortest",
        interpolation=cfg.get("interpolation") or "bicubic",
        fill=(cfg.get("fill_color") or 0) / 255,
        words=frozenset(words) if words is not None else None,
        config=config,
    )


MODELS: dict[str, dict[str, Any]] = {
    "small": {
        "timm_model_name": "resnet10t",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
    },
    "small-convnext": {
        "timm_model_name": "convnext_atto",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
    },
}
"""Image towers for a CLIP trained from nothing on a CPU; ``small-convnext`` shares no design with
``small``, so that one can judge what the other guided."""

LEAST_SIZE = 32
"""Side of the smallest pictures that a tower of :data:`MODELS` can halve as often as it does.

``small-convnext`` runs out of pixels below. ``small`` would stride over a single pixel, where
oneDNN's bf16 gradient of the weights has entries never written to (torch 2.15 on a CPU)."""

_SMALL_TEXT = {
    "context_length": 32, "vocab_size": 49408, "width": 48, "heads": 4, "layers": 3,
}  # fmt: skip


def check_model(name: str, image_size: int) -> None:
    """Whether :func:`new_model` can make a model.

    Raises:
        BadInput: an unknown name, or pictures that are too small for the model.
    """
    import open_clip

    if name not in MODELS and name not in open_clip.list_models():
        near = difflib.get_close_matches(name, [*MODELS, *open_clip.list_models()], 3)
        raise BadInput(f"unknown CLIP model {name!r}", f"use e.g. {', '.join(near or MODELS)}")
    if name in MODELS and image_size < LEAST_SIZE:
        raise BadInput(
            f"{name} needs pictures of {LEAST_SIZE} pixels or more, not {image_size}",
            f"`dclip prepare ... --size {LEAST_SIZE}` or more",
        )


FRESH_RATES = {"small": 1e-3, "small-convnext": 3e-4}
"""Without batch normalisation the embeddings draw together at a higher rate, for good."""

LARGE = 100_000_000  # bytes; ViT-B/32 has 300 million in half precision


def usual_rate(model: str, init: str | None) -> float:
    """AdamW's peak rate for a CLIP trained from nothing, or from weights.

    From nothing what :data:`FRESH_RATES` says, or 5e-4 (CLIP's own for its ViT-B/32, Radford et al.
    2021); to go on with weights 5e-4 for a small one, and 1e-5 for a large one not to forget what
    it knows.

    Args:
        model: as :func:`new_model` takes it.
        init: a directory in open_clip's format, or ``NAME:TAG``; None where it is trained from
            nothing.
    """
    if init is None:
        return FRESH_RATES.get(model, 5e-4)
    weights = Path(init) / "open_clip_model.safetensors"
    small = weights.is_file() and weights.stat().st_size < LARGE  # without a file: to be fetched
    return 5e-4 if small else 1e-5


def new_model(name: str, image_size: int, device: str | torch.device = "cpu") -> Guide:
    """A CLIP with fresh weights, trainable.

    Args:
        name: a name in :data:`MODELS`, or any open_clip model.
        image_size: side of the pictures for a model of :data:`MODELS`; open_clip's keep theirs.

    Raises: as :func:`check_model`.
    """
    import open_clip

    check_model(name, image_size)
    if name in MODELS:
        config = {
            "embed_dim": 128,
            "vision_cfg": {"image_size": image_size, **MODELS[name]},
            "text_cfg": dict(_SMALL_TEXT),
        }
        preprocess = {
            "size": image_size, "mode": "RGB", "mean": [0.5] * 3, "std": [0.5] * 3,
            "interpolation": "bicubic", "resize_mode": "squash",
        }  # fmt: skip
    else:
        config = open_clip.get_model_config(name)
        preprocess = {}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        # Through a directory, so that what is trained is what open_clip will load.
        write_config(Path(folder), config, preprocess)
        where = f"local-dir:{folder}"
        model = open_clip.create_model(where, load_weights=False)
        tokenizer = open_clip.get_tokenizer(where)
    return _guide(name, model, tokenizer, device, config=config)


def write_config(path: Path, model: dict[str, Any], preprocess: dict[str, Any]) -> None:
    """Write ``open_clip_config.json``."""
    text = json.dumps({"model_cfg": model, "preprocess_cfg": preprocess}, indent=1)
    (path / "open_clip_config.json").write_text(text + "\n")


def save_guide(path: Path, guide: Guide) -> None:
    """Write a CLIP as a directory that ``open_clip`` loads by itself; float16 weights."""
    import open_clip

    if guide.config is None:
        raise BadInput(f"{guide.name} has no config to save")
    path.mkdir(parents=True, exist_ok=True)
    write_config(path, guide.config, dict(open_clip.get_model_preprocess_cfg(guide.model)))
    weights = {
        k: (v.half() if v.is_floating_point() else v).detach().cpu().contiguous()
        for k, v in guide.model.state_dict().items()
    }
    save_file(weights, path / "open_clip_model.safetensors")


def _load_directory(path: Path) -> tuple[nn.Module, Callable[..., Tensor]]:
    import open_clip

    if not (path / "open_clip_config.json").is_file():
        raise BadInput(
            f"{path} is no open_clip directory: open_clip_config.json is missing",
            "give a directory with open_clip_config.json and open_clip_model.safetensors",
        )
    weights = path / "open_clip_model.safetensors"
    if not weights.is_file():
        raise BadInput(
            f"{weights} is missing",
            "convert pickled weights with safetensors.torch.save_file where you trust them",
        )
    where = f"local-dir:{path.resolve()}"
    try:
        with _quiet():
            model = open_clip.create_model_from_pretrained(where, return_transform=False)
            tokenizer = open_clip.get_tokenizer(where)
    except Exception as e:
        raise CorruptArtifact(
            f"open_clip cannot load {path} ({_first_line(e)})",
            "its weights must fit its open_clip_config.json",
        ) from e
    bad = [k for k, v in model.state_dict().items() if not torch.isfinite(v.float()).all()]
    if bad:
        raise CorruptArtifact(f"{weights} holds NaN or infinite weights in {bad[0]}")
    return model, tokenizer


def _load_pretrained(spec: str) -> tuple[nn.Module, Callable[..., Tensor]]:
    import open_clip

    name, _, tag = spec.partition(":") if not spec.startswith("hf-hub:") else (spec, "", "")
    if not spec.startswith("hf-hub:"):
        known = open_clip.list_models()
        if name not in known:
            near = difflib.get_close_matches(name, known, 3)
            raise BadInput(
                f"CLIP {spec!r} is neither a directory nor an open_clip model",
                f"did you mean {', '.join(near)}?" if near else f"e.g. {DEFAULT_PRETRAINED}",
            )
        tags = open_clip.list_pretrained_tags_by_model(name)
        if tag not in tags and not Path(tag).is_file():
            raise BadInput(
                f"{name} has no pretrained weights {tag!r}",
                f"use {name}:TAG with one of {', '.join(tags)}",
            )
    try:
        with _quiet(), _no_retries_offline():
            model = open_clip.create_model_from_pretrained(
                name,
                pretrained=tag or None,
                return_transform=False,
                # open_clip warns, but computes another function, where the two disagree.
                force_quick_gelu=_quick_gelu(name, tag),
            )
            return model, open_clip.get_tokenizer(name)
    except Exception as e:
        raise BadInput(
            f"the weights of {spec} are not on this machine and cannot be fetched"
            f" ({_first_line(e)})",
            "run once with a connection (they stay in the Hugging Face cache), or give --clip a"
            " directory in open_clip's format, or use --clip embedded for rendered faces",
        ) from e


def _quick_gelu(name: str, tag: str) -> bool:
    """Whether the weights of that tag were trained with OpenAI's approximation of GELU."""
    import open_clip

    return bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu")) if tag else False


def _first_line(e: Exception) -> str:
    text = str(e).strip().splitlines()
    return (text[0] if text else type(e).__name__)[:160]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip's and the hub's log lines off the terminal; errors are raised anyway."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _no_retries_offline() -> Iterator[None]:
    """Without a network the hub client would retry for a minute before it says so."""
    from huggingface_hub import constants

    before: Any = constants.HF_HUB_OFFLINE
    host = urlparse(constants.ENDPOINT).hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
