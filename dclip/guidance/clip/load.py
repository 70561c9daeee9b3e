"""From what a user wrote to a loaded CLIP: a folder, a file, a name with a tag, or the hub."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dclip import hub
from dclip.context import Reporter
from dclip.errors import BadInput, CorruptArtifact, DclipError
from dclip.fingerprints import is_dir, is_file
from dclip.guidance.clip import config as configs
from dclip.guidance.clip import tokenizer as tokenizers
from dclip.guidance.clip import weights, words
from dclip.guidance.clip.guide import Guide
from dclip.memory import enough_memory, out_of_memory

DEFAULT_PRETRAINED = "ViT-B-32:openai"

WEIGHTS = "open_clip_model.safetensors"
PICKLED = "open_clip_pytorch_model.bin"
HUB = "hf-hub:"


@dataclass(frozen=True)
class Source:
    """Where the parts of a CLIP are.

    Attributes:
        name: what messages call it.
        config: checked ``model_cfg``.
        preprocess: checked ``preprocess_cfg``.
        weights: the file.
        folder: where the files of a tokenizer of ``transformers`` lie, if it needs one.
        words: what it was trained on, where a list says so.
        resize: whether the weights may have tables of positions of another size than the config
            says, as those of some of open_clip's own tags have.
    """

    name: str
    config: dict[str, Any]
    preprocess: dict[str, Any]
    weights: Path
    folder: Path | None = None
    words: frozenset[str] | None = None
    resize: bool = False


def load_guide(
    spec: str,
    device: str | torch.device = "cpu",
    *,
    name: str | None = None,
    report: Reporter | None = None,
) -> Guide:
    """Load a CLIP, frozen, in float32.

    Nothing that lies beside the weights is run, and no more memory is taken than their file
    justifies.

    Args:
        spec: a folder in open_clip's format; a file of weights in such a folder; ``NAME:TAG`` (any
            open_clip model and tag, e.g. ``"ViT-B-32:laion2b_s34b_b79k"``); ``NAME:TAG=FILE`` for
            weights of that tag in a file; ``hf-hub:ORG/REPO``, with ``@REVISION`` if wanted.
        name: what messages call it; None takes ``spec``, or a folder's last part.
        report: shows what is fetched.

    Raises:
        BadInput: an unknown model or tag, a config that asks for what is not allowed, or weights
            that are not here and cannot be fetched.
        CorruptArtifact: config or weights that cannot be read or do not belong together.
        DclipError: not enough memory.
    """
    source = find_source(spec, name, report)
    hf_folder = tokenizers.fetch_text_tower(source.config, source.name, report)
    model = weights.load(
        source.config, source.weights, source.name, hf_folder, resize=source.resize
    )
    tokenizer = tokenizers.load_tokenizer(source.config, source.folder, source.name)
    with enough_memory(f"{source.name} on {device}", "take a smaller model, or --device cpu"):
        guide = make_guide(
            source.name, model, tokenizer, source.preprocess, source.config, device, source.words
        )
    guide.model.eval().requires_grad_(False)
    if tokenizers.needs_transformers(source.config):
        _try_prompt(guide)
    return guide


def _try_prompt(guide: Guide) -> None:
    """Embed one prompt: a tokenizer of ``transformers`` may not belong to the text tower."""
    try:
        guide.embed_text(["a face"])
    except DclipError:
        raise
    except Exception as e:
        if out_of_memory(e):
            raise
        reason = " ".join(str(e).split())[:160] or type(e).__name__
        raise CorruptArtifact(
            f"{guide.name} cannot embed a prompt ({reason})",
            "its tokenizer's files must be those that it was trained with",
        ) from e


def find_source(spec: str, name: str | None = None, report: Reporter | None = None) -> Source:
    """Where the parts of a CLIP are; fetches those that are not here.

    Args and raises: as :func:`load_guide`.
    """
    path = Path(spec)
    if is_dir(path):
        return _folder(path, path / WEIGHTS, name or path.resolve().name)
    if is_file(path):
        return _file(path, name or path.name)
    if spec.startswith(HUB):
        repo, _, revision = spec.removeprefix(HUB).partition("@")
        return _hub(repo, revision or None, name or spec, report)
    return _tagged(spec, name or spec, report)


def _folder(path: Path, file: Path, called: str) -> Source:
    if not (path / configs.FILE).is_file():
        if (path / "preprocessor_config.json").is_file() or (path / "config.json").is_file():
            raise BadInput(
                f"{path} is a model of transformers, not of open_clip: it has no {configs.FILE}",
                "give a folder in open_clip's format, e.g. of a model whose page says OpenCLIP",
            )
        raise BadInput(
            f"{path} is no open_clip directory: {configs.FILE} is missing",
            f"give a directory with {configs.FILE} and {WEIGHTS}",
        )
    model, preprocess = configs.read_config(path / configs.FILE)
    if not file.is_file():
        raise BadInput(
            f"{file} is missing",
            "convert pickled weights with safetensors.torch.save_file where you trust them",
        )
    return Source(called, model, preprocess, file, path, words.read(path))


def _file(path: Path, called: str) -> Source:
    if (path.parent / configs.FILE).is_file():
        return _folder(path.parent, path, called)
    raise BadInput(
        f"{path} does not say which model its weights are of, nor how pictures are prepared",
        f"put its {configs.FILE} beside it, or say whose weights they are: NAME:TAG={path},"
        f" e.g. {DEFAULT_PRETRAINED}={path}",
    )


def _hub(repo: str, revision: str | None, called: str, report: Reporter | None) -> Source:
    folder = hub.fetch(repo, [configs.FILE], revision, report=report)
    model, preprocess = configs.read_config(folder / configs.FILE)
    if tokenizers.needs_transformers(model):
        tokenizers.require_transformers(called)
    wanted = list(tokenizers.FILES) if model["text_cfg"].get("hf_tokenizer_name") else []
    # At the commit of the config that was read, whatever the branch holds by now.
    at = hub.revision_of(folder)
    folder = hub.fetch(
        repo, [configs.FILE, WEIGHTS, *wanted], at, optional=tokenizers.MORE_FILES, report=report
    )
    return Source(called, model, preprocess, folder / WEIGHTS, folder, words.read(folder))


def _tagged(spec: str, called: str, report: Reporter | None) -> Source:
    import open_clip

    name, _, rest = spec.partition(":")
    tag, given, file = rest.partition("=")
    known = open_clip.list_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, 3)
        raise BadInput(
            f"CLIP {spec!r} is neither a directory nor an open_clip model",
            f"did you mean {', '.join(near)}?" if near else f"e.g. {DEFAULT_PRETRAINED}",
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not given and is_file(Path(rest).expanduser()):
        raise BadInput(
            f"{rest} does not say how its weights were trained: tags of {name} differ in mean, std,"
            " interpolation and activation",
            f"say whose weights they are: {name}:TAG={rest} with one of {', '.join(tags)}, or"
            f" {name}:={rest} for open_clip's own settings of {name}",
        )
    if tag not in tags and not (given and not tag):
        raise BadInput(
            f"{name} has no pretrained weights {tag!r}",
            f"use {name}:TAG with one of {', '.join(tags)}",
        )
    settings = open_clip.get_pretrained_cfg(name, tag) if tag else {}
    model = configs.check_model_config(open_clip.get_model_config(name), name)
    if settings.get("quick_gelu"):
        # open_clip warns, but computes another function, where the two disagree.
        model["quick_gelu"] = True
    if tokenizers.needs_transformers(model):
        tokenizers.require_transformers(called)
    preprocess = _defaults() | {k: v for k, v in settings.items() if k in configs.PREPROCESS}
    if given:
        path = Path(file).expanduser()
        if not is_file(path):
            raise BadInput(f"{file} is no file", f"the form is {name}:TAG=FILE")
    else:
        path = _fetch_weights(settings, report)
    folder = tokenizers.fetch_tokenizer(model, report)
    return Source(called, model, preprocess, path, folder, resize=True)


def _fetch_weights(settings: dict[str, Any], report: Reporter | None) -> Path:
    """The file of a tag; as safetensors where its repository has that, else a checkpoint."""
    if "file" in settings:
        return Path(settings["file"])
    repo, _, file = str(settings["hf_hub"]).rpartition("/")
    names = [Path(file).with_suffix(".safetensors").name, file] if file else [WEIGHTS, PICKLED]
    try:
        return hub.fetch(repo, names[:1], report=report) / names[0]
    except BadInput as safe:
        try:
            return hub.fetch(repo, names[1:], report=report) / names[1]
        except BadInput:
            raise safe from None


def _defaults() -> dict[str, Any]:
    from open_clip.transform import PreprocessCfg

    return asdict(PreprocessCfg())


def make_guide(
    name: str,
    model: nn.Module,
    tokenizer: Callable[..., Tensor],
    preprocess: dict[str, Any],
    config: dict[str, Any],
    device: str | torch.device,
    known: frozenset[str] | None = None,
) -> Guide:
    """A guide of parts that fit together; the size of its pictures is the network's own.

    Args:
        known: the words that the CLIP was trained on, where there is a list.
    """
    import open_clip

    tower: Any = model.visual
    chosen = _defaults() | preprocess | {"size": tower.image_size}
    open_clip.set_model_preprocess_cfg(model, chosen)
    size = chosen["size"]
    return Guide(
        name=name,
        model=model.to(device),
        tokenizer=tokenizer,
        size=(size, size) if isinstance(size, int) else (int(size[0]), int(size[1])),
        mean=_per_channel(chosen["mean"], device),
        std=_per_channel(chosen["std"], device),
        resize_mode=chosen["resize_mode"],
        interpolation=chosen["interpolation"],
        fill=chosen["fill_color"] / 255,
        words=known,
        config=config,
    )


def _per_channel(values: Sequence[float], device: str | torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, 3, 1, 1)


def write_config(path: Path, model: dict[str, Any], preprocess: dict[str, Any]) -> None:
    """Write ``open_clip_config.json``."""
    text = json.dumps({"model_cfg": model, "preprocess_cfg": preprocess}, indent=1)
    (path / configs.FILE).write_text(text + "\n")


def save_guide(path: Path, guide: Guide) -> None:
    """Write a CLIP as a directory that ``open_clip`` loads by itself; float16 weights."""
    import open_clip

    if guide.config is None:
        raise BadInput(f"{guide.name} has no config to save")
    path.mkdir(parents=True, exist_ok=True)
    write_config(path, guide.config, dict(open_clip.get_model_preprocess_cfg(guide.model)))
    stored = {
        k: (v.half() if v.is_floating_point() else v).detach().cpu().contiguous()
        for k, v in guide.model.state_dict().items()
    }
    save_file(stored, path / WEIGHTS)
    if hasattr(guide.tokenizer, "save_pretrained"):  # one of transformers
        guide.tokenizer.save_pretrained(str(path))
