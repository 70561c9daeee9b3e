"""Weight files as other programs wrote them, opened without running any code that they hold."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dclip.errors import BadInput, CorruptArtifact

PICKLES = (".ckpt", ".pt", ".pth", ".bin")
SUFFIXES = (*PICKLES, ".safetensors")

_DEEPEST = 3  # of the dicts and lists that a checkpoint nests its weights in
_AGAIN = "download it again, and compare its size with the page's"


def sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with file.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def read_json(file: Path) -> dict[str, Any]:
    """A JSON file that holds a table.

    Raises:
        CorruptArtifact: it cannot be read as one.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise CorruptArtifact(f"{file} is no readable JSON ({e})", _AGAIN) from e
    if not isinstance(data, dict):
        raise CorruptArtifact(f"{file} holds no table of settings", _AGAIN)
    return data


def read_tensors(file: Path) -> Any:
    """What a weight file holds: a dict of tensors, or the dicts and lists around some.

    Raises:
        BadInput: no weight file, or a pickle that asks for more than tensors and plain values.
        CorruptArtifact: a file that is cut off or damaged.
    """
    try:
        with file.open("rb") as f:
            head = f.read(64)
    except OSError as e:
        raise BadInput(f"{file} cannot be read: {e.strerror or e}", "check the path") from e
    if not head:
        raise CorruptArtifact(f"{file} is empty", _AGAIN)
    if head.startswith(b"version https://git-lfs"):
        raise BadInput(
            f"{file} is a Git LFS pointer of {file.stat().st_size} bytes, not the weights",
            "run `git lfs pull`, or download the file itself from its page",
        )
    if head.lstrip()[:1] == b"<":
        raise BadInput(
            f"{file} is a web page, not the weights",
            "the download asked for a login or a confirmation: get the file in a browser",
        )
    # By content: people rename files, and a wrong suffix is no reason to refuse one.
    pickled = head.startswith((b"PK", b"\x80"))
    if head[8:9] == b"{" or (file.suffix == ".safetensors" and not pickled):
        return read_safetensors(file)
    if not pickled:
        raise BadInput(
            f"{file} is no checkpoint that torch can open",
            f"give a file of weights: {', '.join(SUFFIXES)}",
        )
    return _read_pickle(file, zipped=head[:2] == b"PK")


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        CorruptArtifact: it is cut off or damaged.
    """
    try:
        return load_file(file)
    except (SafetensorError, OSError) as e:
        raise CorruptArtifact(f"{file} is not a readable safetensors file ({e})", _AGAIN) from e


def _read_pickle(file: Path, *, zipped: bool) -> Any:
    try:
        # Mapped, a checkpoint with an optimizer in it costs no more memory than its network.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if file.suffix == ".safetensors":  # torch goes by the name of what it opens itself
                with file.open("rb") as f:
                    return torch.load(f, map_location="cpu", weights_only=True)
            return torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as e:
        text = str(e)
        if wanted := re.search(r"GLOBAL:? (\S+)", text):
            raise BadInput(
                f"{file} is refused: as a pickle it asks to run {wanted.group(1)}, and dclip takes"
                " tensors and plain values alone",
                "get it as safetensors, or save its state dict alone where you trust it",
            ) from e
        if "truncated" in text:
            raise CorruptArtifact(f"{file} is cut off", _AGAIN) from e
        reason = text.strip().splitlines()[-1] if "Weights only" not in text else ""
        raise BadInput(
            f"{file} is no checkpoint that torch can open" + (f" ({reason})" if reason else ""),
            f"give a file of weights: {', '.join(SUFFIXES)}",
        ) from e
    except (EOFError, IndexError, RuntimeError, OSError, ValueError, KeyError, TypeError,
            AttributeError, OverflowError, MemoryError) as e:  # fmt: skip
        said = str(e).strip().partition("\n")[0][:120]
        raise CorruptArtifact(
            f"{file} is cut off or damaged" + (f" ({said})" if said else ""), _AGAIN
        ) from e


def state_dicts(data: Any, where: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every dict of tensors within what a checkpoint holds, with the way to it.

    Training programs save lists (model, optimizer, step, average) or tables of such; a common
    ``module.``, which torch's data parallelism puts before each name, is taken off.
    """
    if where.count("/") > _DEEPEST:
        return
    if isinstance(data, Mapping):
        tensors = {k: v for k, v in data.items() if isinstance(k, str) and isinstance(v, Tensor)}
        if tensors and len(tensors) == len(data):
            if all(k.startswith("module.") for k in tensors):
                tensors = {k.removeprefix("module."): v for k, v in tensors.items()}
            yield where, tensors
            return
    numbered = dict(enumerate(data)) if isinstance(data, list | tuple) else {}
    for key, value in (data if isinstance(data, Mapping) else numbered).items():
        if isinstance(value, Mapping | list | tuple):
            yield from state_dicts(value, f"{where}/{key}")


def top_keys(data: Any, most: int = 5) -> str:
    """The first names that a file holds, for a message that says what was seen."""
    found = [k for _, tensors in state_dicts(data) for k in tensors]
    if not found and isinstance(data, Mapping):
        found = [str(k) for k in data]
    if not found:
        return f"a {type(data).__name__} and no weights"
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def check_finite(weights: Mapping[str, Tensor], where: str) -> None:
    """Refuse NaN and infinity, of which half precision makes one out of a weight above 65504.

    Raises:
        CorruptArtifact: a weight that holds one; it is named.
    """
    for name, value in weights.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            why = "; it overflowed in half precision" if value.dtype == torch.float16 else ""
            raise CorruptArtifact(
                f"{where} holds NaN or infinite weights in {name}{why}",
                "import the full-precision file of the same model" if why else _AGAIN,
            )
