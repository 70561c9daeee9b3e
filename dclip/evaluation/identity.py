"""Whether a face network takes an edit for the same person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dclip.metrics import auc

FALSE_ACCEPTS = 0.01
"""Share of pairs of different people that pass for one person."""

LEAST_PAIRS = 100  # fewer say nothing of one pair in a hundred


@dataclass(frozen=True)
class Verification:
    """The threshold of "the same person", set on the originals themselves.

    Attributes:
        threshold: cosine above which two pictures show one person: :data:`FALSE_ACCEPTS` of the
            pairs of different people are above it.
        pairs: how many pairs of different people it was set on.
        same_pairs: how many pairs of one person there are, where the people are known.
        same_accepted: share of those above the threshold; None where there are none.
        auc: share of (pair of one person, pair of different people) in which the former is the more
            alike: the area under the ROC curve; None where there are no pairs of one person.
    """

    threshold: float
    pairs: int
    same_pairs: int = 0
    same_accepted: float | None = None
    auc: float | None = None


def calibrated(features: Tensor, people: Sequence[str] = ()) -> Verification | None:
    """Set the threshold on pairs of different originals.

    Args:
        features: of the originals, (N, D).
        people: who each shows, where that is known: pairs of one person do not count. Unknown
            ("") counts as somebody else.

    Returns:
        None with fewer than :data:`LEAST_PAIRS` pairs.
    """
    unit = F.normalize(features.double(), dim=1)
    who = np.array([name or f"\0{n}" for n, name in enumerate(people or [""] * len(features))])
    first, second = np.triu_indices(len(features), 1)
    different = who[first] != who[second]
    if different.sum() < LEAST_PAIRS:
        return None
    alike = (unit @ unit.T)[torch.from_numpy(first), torch.from_numpy(second)].numpy()
    threshold = float(np.quantile(alike[different], 1 - FALSE_ACCEPTS, method="higher"))
    pairs, same = int(different.sum()), int((~different).sum())
    if not same:
        return Verification(threshold, pairs)
    accepted = float((alike[~different] > threshold).mean())
    return Verification(threshold, pairs, same, accepted, auc(alike, ~different))
