"""dclip: edit photos of faces (and other aligned domains) by text with diffusion models.

In a notebook or script, ``dclip.edit("me.jpg", with_="smiling")`` and the other functions of
:mod:`dclip.api`, which is imported when one of them is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dclip.api import (
        Result,
        demo,
        edit,
        evaluate,
        find,
        finetune,
        grid,
        inspect,
        invert,
        ls,
        map_encoder,
        prepare,
        sample,
        slider,
        train,
        train_autoencoder,
        train_clip,
        train_judge,
    )

__all__ = [
    "Result",
    "demo",
    "edit",
    "evaluate",
    "find",
    "finetune",
    "grid",
    "inspect",
    "invert",
    "ls",
    "map_encoder",
    "prepare",
    "sample",
    "slider",
    "train",
    "train_autoencoder",
    "train_clip",
    "train_judge",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'dclip' has no attribute {name!r}")
    from dclip import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
