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


def uniforms(keys: Sequence[int], count: int) -> np.ndarray:
    """``count`` uniform numbers in [0, 1) for each key, float64 (len(keys), count)."""
    return np.stack([np.random.default_rng(k).random(count) for k in keys])


def of_round(samples: int, batch: int, number: int, *parts: int | str) -> np.ndarray:
    """The sample numbers of a round of training, int64 (batch,).

    Rounds pass over all samples, each pass in an order decided by ``parts`` and its number. The
    last round of a pass is filled up from the pass's beginning.

    Args:
        samples: how many there are.
        batch: of a round.
        number: of the round, from 0.
    """
    rounds = -(-samples // batch)
    turn, at = divmod(number, rounds)
    order = np.resize(permutation(samples, *parts, turn), rounds * batch)
    return order[at * batch : (at + 1) * batch]


def permutation(n: int, *parts: int | str) -> np.ndarray:
    """A shuffle of 0..n-1, int64 (n,), decided by ``parts`` alone."""
    return np.random.default_rng(key(*parts)).permutation(n)
