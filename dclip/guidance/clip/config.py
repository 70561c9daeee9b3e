"""What ``open_clip_config.json`` may say: known keys, each with a type and a range.

The file comes from strangers, and open_clip hands parts of it to other libraries, which fetch
files, read other folders and run code found there where a key asks for it. So a key that is not
listed here is refused, and no value listed here can name a place or a class.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dclip.errors import BadInput, CorruptArtifact

FILE = "open_clip_config.json"
LARGEST_FILE = 1 << 20  # bytes; open_clip's own have at most 1,000
LARGEST_SIDE = 1024  # pixels; open_clip's own have at most 512

Check = Callable[[Any], bool]
Table = Mapping[str, tuple[Check, str]]
"""By key: whether a value will do, and in words what will."""


def _whole(least: int, most: int) -> tuple[Check, str]:
    return (
        lambda v: type(v) is int and least <= v <= most,
        f"a whole number from {least} to {most}",
    )


def _number(least: float, most: float) -> tuple[Check, str]:
    return (
        lambda v: type(v) in (int, float) and least <= v <= most,  # which NaN is not
        f"a number from {least:g} to {most:g}",
    )


def _one_of(*choices: Any) -> tuple[Check, str]:
    return (
        lambda v: any(type(v) is type(c) and v == c for c in choices),
        "one of " + ", ".join(json.dumps(c) for c in choices),
    )


def _either(*rules: tuple[Check, str]) -> tuple[Check, str]:
    return lambda v: any(check(v) for check, _ in rules), " or ".join(words for _, words in rules)


def _several(rule: tuple[Check, str], count: int) -> tuple[Check, str]:
    return (
        lambda v: type(v) in (list, tuple) and len(v) == count and all(rule[0](each) for each in v),
        f"{count} of {rule[1]}",
    )


def _only(table: Table) -> tuple[Check, str]:
    return (
        lambda v: type(v) is dict and all(k in table and table[k][0](x) for k, x in v.items()),
        "an object of " + ", ".join(f"{k}: {words}" for k, (_, words) in table.items()),
    )


def _timm_name(value: Any) -> bool:
    if type(value) is not str:
        return False
    import timm

    # Only what timm has built in: "hf-hub:" and "local-dir:" would read what lies elsewhere.
    return value.isprintable() and ":" not in value and bool(timm.is_model(value.split(".")[0]))


_FLAG = (lambda v: type(v) is bool, "true or false")
_NONE = _one_of(None)
_SIDE = _whole(1, LARGEST_SIDE)
_LAYERS = _whole(1, 256)
_WIDTH = _whole(1, 16384)
_HEADS = _whole(1, 1024)
_SCALE = _either(_number(-100, 100), _NONE)
_EPS = _only({"eps": _number(1e-12, 1)})
_APPROXIMATE = _only({"approximate": _one_of("none", "tanh")})

_BLOCKS: Table = {
    "mlp_ratio": _number(0.01, 64),
    "ls_init_value": _SCALE,
    "output_tokens": _FLAG,
    "act_kwargs": _either(_APPROXIMATE, _NONE),
    "norm_kwargs": _either(_EPS, _NONE),
    "block_type": _one_of(None, "default", "custom"),
    "final_ln_after_pool": _FLAG,
    **{
        name: _FLAG
        for name in (
            "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn",
            "scale_fc",
        )
    },
}  # fmt: skip

VISION: Table = {
    **_BLOCKS,
    "layers": _either(_LAYERS, _several(_LAYERS, 4)),
    "width": _WIDTH,
    "head_width": _WIDTH,
    "patch_size": _either(_SIDE, _several(_SIDE, 2), _NONE),
    "image_size": _either(_SIDE, _several(_SIDE, 2)),
    "patch_dropout": _number(0, 0.99),
    "attentional_pool": _either(_FLAG, _one_of("parallel", "cascade")),
    "attn_pooler_queries": _whole(1, 4096),
    "attn_pooler_heads": _HEADS,
    "no_ln_pre": _FLAG,
    "pos_embed_type": _one_of("learnable", "sin_cos_2d"),
    "pool_type": _one_of("tok", "avg", "none"),
    "timm_model_name": _either((_timm_name, "a model that timm has built in"), _NONE),
    "timm_model_pretrained": _FLAG,  # never obeyed: the weights are the folder's
    "timm_pool": _one_of("", "avg", "avgmax", "max", "token", "map", "abs_attn", "rot_attn"),
    "timm_proj": _one_of("linear", "mlp", "none", "", None),
    "timm_proj_bias": _FLAG,
    "timm_drop": _number(0, 0.99),
    "timm_drop_path": _either(_number(0, 0.99), _NONE),
}

TOKENIZER: Table = {
    "clean": _one_of("lower", "whitespace", "canonicalize"),
    "strip_sep_token": _FLAG,
}
"""Of a tokenizer's settings those that change how text is cleaned, and none that names a class."""

HF_TEXT_MODELS = (
    "roberta-base", "xlm-roberta-base", "xlm-roberta-large", "google/mt5-base", "google/mt5-xl",
    "facebook/nllb-200-distilled-600M", "facebook/nllb-200-distilled-1.3B",
)  # fmt: skip
"""Text towers of ``transformers`` that open_clip's own models use; only their settings are read."""


def _tokenizer_name(value: Any) -> bool:
    # Only whether it is empty counts: the tokenizer is the folder's own, see tokenizer.py.
    return value is None or (type(value) is str and len(value) <= 200 and value.isprintable())


TEXT: Table = {
    **_BLOCKS,
    "context_length": _whole(3, 4096),
    "vocab_size": _whole(1, 2_000_000),
    "hf_tokenizer_name": (_tokenizer_name, "a short name"),
    "tokenizer_mode": _one_of(None, "", "clips"),
    "tokenizer_kwargs": _either(_only(TOKENIZER), _NONE),
    "width": _WIDTH,
    "heads": _HEADS,
    "layers": _LAYERS,
    "embed_cls": _FLAG,
    "pad_id": _whole(0, 2_000_000),
    "eos_id": _whole(0, 2_000_000),
    "no_causal_mask": _FLAG,
    "pool_type": _one_of("first", "last", "argmax", "eos", "none"),
    "proj_bias": _FLAG,
    "proj_type": _one_of("linear", "none"),
    "hf_model_name": _one_of(None, *HF_TEXT_MODELS),
    "hf_model_pretrained": _FLAG,  # never obeyed: the weights are the folder's
    "hf_proj_type": _one_of("linear", "mlp", None),
    "hf_pooler_type": _one_of(
        "mean_pooler", "max_pooler", "cls_pooler", "cls_last_hidden_state_pooler", None
    ),
}

MULTIMODAL: Table = {
    **{
        key: TEXT[key]
        for key in ("context_length", "vocab_size", "width", "heads", "layers", "ls_init_value")
    },
    "mlp_ratio": _number(0.01, 64),
    "dim_head": _WIDTH,
    "n_queries": _whole(1, 4096),
    "attn_pooler_heads": _HEADS,
}

MODEL: Table = {
    "embed_dim": _WIDTH,
    "quick_gelu": _FLAG,
    "custom_text": _FLAG,
    "init_logit_scale": _number(-100, 100),
    "init_logit_bias": _SCALE,
    "nonscalar_logit_scale": _FLAG,
}

PREPROCESS: Table = {
    "size": _either(_SIDE, _several(_SIDE, 2)),
    "mode": _one_of("RGB"),
    "mean": _several(_number(-10, 10), 3),
    "std": _several(_number(1e-3, 10), 3),
    "interpolation": _one_of("bicubic", "bilinear"),
    "resize_mode": _one_of("shortest", "longest", "squash"),
    "fill_color": _whole(0, 255),
}


def read_json(file: Path, what: str) -> Any:
    """What a small JSON file says.

    Raises:
        CorruptArtifact: too large, unreadable, or no JSON.
    """
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise CorruptArtifact(f"{file} is too large to be {what}", "restore it")
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        reason = "nested too deeply" if isinstance(e, RecursionError) else " ".join(str(e).split())
        raise CorruptArtifact(f"{file} is not {what} ({reason[:160]})", "restore it") from e


def read_config(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ``model_cfg`` and ``preprocess_cfg`` of a file in open_clip's format, checked.

    Raises:
        BadInput: a key or a value that is not allowed, or no preprocessing.
        CorruptArtifact: no JSON, or no such object.
    """
    content = read_json(file, "open_clip's description of a model")
    if type(content) is not dict or type(content.get("model_cfg")) is not dict:
        raise CorruptArtifact(
            f"{file} has no model_cfg", "it must be as open_clip wrote it beside the weights"
        )
    model = check_model_config(content["model_cfg"], str(file))
    preprocess = content.get("preprocess_cfg")
    if type(preprocess) is not dict or not {"mean", "std"} <= set(preprocess):
        raise BadInput(
            f"{file} does not say how pictures are prepared (preprocess_cfg with mean and std)",
            'add it as the weights were trained, e.g. "preprocess_cfg": {"mean": [0.5, 0.5, 0.5],'
            ' "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "shortest"}',
        )
    _check(preprocess, PREPROCESS, f"{file}: preprocess_cfg")
    return model, dict(preprocess)


def check_model_config(model: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A checked copy of open_clip's ``model_cfg``.

    Args:
        where: what messages call its place.

    Raises:
        BadInput: a key or a value that is not allowed.
    """
    parts: dict[str, Table] = {
        "vision_cfg": VISION, "text_cfg": TEXT, "multimodal_cfg": MULTIMODAL
    }  # fmt: skip
    _check({k: v for k, v in model.items() if k not in parts}, MODEL, f"{where}: model_cfg")
    if "embed_dim" not in model:
        raise BadInput(f"{where}: model_cfg has no embed_dim", "restore the file")
    checked = dict(model)
    for name, table in parts.items():
        if name not in model and name == "multimodal_cfg":
            continue
        part = model.get(name)
        if type(part) is not dict:
            raise BadInput(f"{where}: model_cfg has no object {name}", "restore the file")
        _check(part, table, f"{where}: {name}")
        checked[name] = dict(part)
    return checked


def _check(values: Mapping[str, Any], table: Table, where: str) -> None:
    for key, value in values.items():
        if key not in table:
            raise BadInput(
                f"{where} has the key {_shown(key)}, which dclip does not pass on",
                f"remove it; the keys that count are {', '.join(table)}",
            )
        check, words = table[key]
        if not check(value):
            raise BadInput(f"{where}: {key} is {_shown(value)}", f"it must be {words}")


def _shown(value: Any) -> str:
    """A value from a stranger's file in a message: short, printable, on one line."""
    try:
        text = json.dumps(value)
    except RecursionError:
        return "nested too deeply"
    return text if len(text) <= 60 else text[:60] + "..."
