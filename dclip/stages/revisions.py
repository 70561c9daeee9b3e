"""The revision of each stage's algorithm, which is part of its artifacts' keys.

Raise a stage's number with every change after which equal settings and inputs give another result;
``tests/test_revisions.py`` fails where a result has changed and its number has not. Work of an
earlier revision is then made again instead of being called up to date.
"""

from __future__ import annotations

REVISIONS: dict[str, int] = {
    "prepare": 1,
    "train": 3,
    "import": 1,
    "sample": 1,
    "invert": 1,
    "finetune": 2,
    "slider": 2,
    "edit": 2,
    "grid": 1,
    "eval": 3,
    "clip-train": 1,
    "judge-train": 1,
    "autoencoder-train": 1,
    "encoder-map": 1,
    "demo": 1,
    "explain": 1,
    "inspect": 1,
}
