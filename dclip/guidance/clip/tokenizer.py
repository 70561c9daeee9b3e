"""How a CLIP cuts prompts into tokens: open_clip's own tokenizer, or one of ``transformers``.

A tokenizer of ``transformers`` may name Python code that lies beside it. None is ever run: its
class must be one that the library has built in, and code from a folder is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from dclip import hub
from dclip.context import Reporter
from dclip.errors import BadInput, CorruptArtifact
from dclip.guidance.clip.config import read_json

FILES = ("tokenizer.json", "tokenizer_config.json")
MORE_FILES = ("config.json", "special_tokens_map.json", "*.model", "vocab.txt", "vocab.json",
              "merges.txt")  # fmt: skip

CLASSES = frozenset(
    name + fast
    for name in (
        "BertTokenizer", "RobertaTokenizer", "XLMRobertaTokenizer", "T5Tokenizer", "MT5Tokenizer",
        "NllbTokenizer", "GemmaTokenizer", "LlamaTokenizer", "SiglipTokenizer", "CLIPTokenizer",
        "PreTrainedTokenizer", "TokenizersBackend",
    )
    for fast in ("", "Fast")
)  # fmt: skip
KINDS = frozenset(
    ["bert", "roberta", "xlm-roberta", "t5", "mt5", "m2m_100", "gemma", "siglip", "clip"]
)
"""What ``config.json`` calls a model, where ``tokenizer_config.json`` names no class."""


def needs_transformers(config: Mapping[str, Any]) -> bool:
    """Whether a checked config asks for a tokenizer or a text tower of ``transformers``."""
    text = config["text_cfg"]
    return bool(text.get("hf_tokenizer_name") or text.get("hf_model_name"))


def require_transformers(called: str) -> None:
    """Raise BadInput where ``transformers`` is not installed."""
    try:
        import transformers  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as e:
        raise BadInput(
            f"{called} needs the package transformers for its prompts", "pip install transformers"
        ) from e


def fetch_tokenizer(config: Mapping[str, Any], report: Reporter | None = None) -> Path | None:
    """The files of the tokenizer that one of open_clip's own models names; None without a name."""
    name = config["text_cfg"].get("hf_tokenizer_name")
    if not name:
        return None
    return hub.fetch(name, FILES, optional=MORE_FILES, report=report)


def fetch_text_tower(
    config: Mapping[str, Any], called: str, report: Reporter | None = None
) -> Path | None:
    """The settings of the text tower of ``transformers`` that a config names; None without a name.

    They come from the hub alone: by its bare name ``transformers`` would take a folder of that name
    in the current folder first.

    Raises:
        BadInput: no ``transformers``, or settings that name code.
    """
    name = config["text_cfg"].get("hf_model_name")
    if not name:
        return None
    require_transformers(called)
    folder = hub.fetch(name, ["config.json"], report=report)
    if "auto_map" in _object(folder / "config.json"):
        raise BadInput(f"{name} names Python code of its own (auto_map), which dclip never runs")
    return folder


def load_tokenizer(
    config: Mapping[str, Any], folder: Path | None, called: str
) -> Callable[..., Tensor]:
    """The tokenizer of a checked config: strings to token ids, int64 (N, context).

    Args:
        folder: where the files of a tokenizer of ``transformers`` lie, if the config asks for one.
        called: what messages call the model.

    Raises:
        BadInput: no ``transformers``, no files, or a tokenizer that is not one of :data:`CLASSES`.
        CorruptArtifact: files that cannot be read.
    """
    text = config["text_cfg"]
    length = int(text.get("context_length", 77))
    settings = dict(text.get("tokenizer_kwargs") or {})
    if not text.get("hf_tokenizer_name"):
        own = _simple(length, str(settings.get("clean", "lower")))
        if int(text.get("vocab_size", 49408)) < own.vocab_size:
            raise CorruptArtifact(
                f"{called} knows {text['vocab_size']} tokens, and its tokenizer makes"
                f" {own.vocab_size}",
                "its open_clip_config.json must be as it was saved",
            )
        tokenizer: Callable[..., Tensor] = own
        return tokenizer
    require_transformers(called)
    if folder is None:
        raise BadInput(f"{called} has no tokenizer beside it", "give a folder with its files")
    check_files(folder)
    try:
        from open_clip.tokenizer import HFTokenizer

        return HFTokenizer(  # type: ignore[no-any-return]
            str(folder),
            context_length=length,
            tokenizer_mode=text.get("tokenizer_mode"),
            trust_remote_code=False,
            local_files_only=True,
            **settings,
        )
    except Exception as e:
        reason = " ".join(str(e).split())[:160] or type(e).__name__
        raise CorruptArtifact(
            f"the tokenizer in {folder} cannot be read ({reason})", "fetch its files again"
        ) from e


@cache
def _simple(length: int, clean: str) -> Any:
    import open_clip

    return open_clip.SimpleTokenizer(context_length=length, clean=clean)


def check_files(folder: Path) -> None:
    """Refuse the files of a tokenizer that name code, or a class that is not known.

    Raises: as :func:`load_tokenizer`.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise BadInput(
                f"{folder} lacks {name}, which its open_clip_config.json asks for",
                "copy the tokenizer's files from the model's page into it",
            )
    told = _object(folder / "tokenizer_config.json")
    beside = _object(folder / "config.json") if (folder / "config.json").is_file() else {}
    for file, content in (("tokenizer_config.json", told), ("config.json", beside)):
        if "auto_map" in content:
            raise BadInput(
                f"{folder / file} names Python code of its own (auto_map), which dclip never runs",
                "take a model whose tokenizer is part of transformers",
            )
    kind = told.get("tokenizer_class") or beside.get("tokenizer_class")
    if kind is None and beside.get("model_type") in KINDS:
        return
    if not isinstance(kind, str) or kind not in CLASSES:
        raise BadInput(
            f"{folder / 'tokenizer_config.json'} asks for a tokenizer of class {ascii(kind)[:60]},"
            " which dclip does not load",
            f"it loads {', '.join(sorted(CLASSES))}",
        )


def _object(file: Path) -> dict[str, Any]:
    content = read_json(file, "a description of a tokenizer")
    if type(content) is not dict:
        raise CorruptArtifact(f"{file} is not a description of a tokenizer", "restore it")
    return content
