"""The Fréchet distance between two sets of pictures, by features of any network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dclip.errors import BadInput


def frechet_distance(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """``|m_x - m_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2))``, 0 for equal sets.

    Heusel et al. 2017 (1706.08500), equation (6), there by Inception's features ("FID"). It is
    larger the fewer pictures there are, so compare only at equal numbers.

    Args:
        x, y: features, (N, D) and (M, D), two rows or more each.

    Raises:
        BadInput: fewer than two rows, or features of other widths.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise BadInput(
            f"features {x.shape} and {y.shape} cannot be compared",
            "give two pictures or more of each, and features of one network",
        )
    s_x, s_y = (np.cov(each, rowvar=False).reshape(x.shape[1], -1) for each in (x, y))
    values, vectors = np.linalg.eigh(s_x)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    # The eigenvalues of S_x S_y are those of this symmetric product.
    product = np.linalg.eigvalsh(root @ s_y @ root).clip(0)
    moved = np.square(x.mean(0) - y.mean(0)).sum()
    return float(max(0.0, moved + np.trace(s_x) + np.trace(s_y) - 2 * np.sqrt(product).sum()))
