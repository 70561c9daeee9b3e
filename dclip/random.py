"""Randomness keyed by (seed, purpose, sample id), never by batch, worker or rank.

One worker and eight draw the same noise for the same sample, and a resumed run goes on where it
stopped without any generator state to restore (after edm2's StackedRandomGenerator).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def key(*parts: int | str) -> int:
    """A 63-bit key from integers and strings, the same on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def normal(keys: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise, float32 (len(keys), *shape), one generator a sample."""
    out = torch.empty(len(keys), *shape)
    generator = torch.Generator()
    for row, k in zip(out, keys, strict=True):
        generator.manual_seed(k)
        torch.randn(shape, generator=generator, out=row)
    return out


def uniform(keys: Sequence[int]) -> np.ndarray:
    """Uniform numbers in [0, 1), float64 (len(keys),), one for each key."""
    # A key is uniform over 63 bits already; hashing it once more separates it from its other uses.
    return np.array([key(k, "uniform") / 2**63 for k in keys])


def permutation(n: int, *parts: int | str) -> np.ndarray:
    """A shuffle of 0..n-1, int64 (n,), decided by ``parts`` alone."""
    return np.random.default_rng(key(*parts)).permutation(n)
