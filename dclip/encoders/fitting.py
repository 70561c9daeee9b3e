"""Fit a map from one text encoder's states to another one's, and score it on other captions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from dclip.diffusion.conditioning import Condition
from dclip.encoders.contract import EncoderInfo, TextEncoder
from dclip.encoders.mapped import LinearMap, MapInfo, Taken, take
from dclip.encoders.placing import Places
from dclip.training.reading import EMPTY

AT_ONCE = 256  # captions that are read together

PENALTIES = (10.0, 1.0, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5)
"""Of large weights: those that are tried on a tenth of the captions."""


def fit(
    source: TextEncoder,
    target: TextEncoder,
    texts: Sequence[str],
    *,
    before: int,
    sides: tuple[EncoderInfo, EncoderInfo],
    advance: Callable[[int], None] = lambda _: None,
) -> LinearMap:
    """The map that comes nearest on ``texts``.

    The empty prompt, which guidance always asks for, counts as much as in training
    (:data:`dclip.training.reading.EMPTY`).

    Args:
        before: see :class:`dclip.encoders.mapped.MapInfo`.
        sides: what the encoders are, for those who load the map.
        advance: told of how many captions have been read since.

    Raises:
        BadInput: a caption that one of them cannot read.
    """
    texts = ["", *texts]
    taken, wanted = _read(source, target, texts, before, advance)
    weight = torch.ones(len(texts), device=wanted.tokens.device)
    weight[0] = EMPTY / (1 - EMPTY) * (len(texts) - 1)
    there = _there(wanted)
    # Captions are no longer than some place, and what lies behind it has nothing to learn from.
    places = int(there[1:].any(0).sum())

    def each_place() -> Iterator[Problem]:
        for j, rows in enumerate(there.T[:places]):
            yield taken.at(j)[rows], wanted.tokens[rows, j], weight[rows]

    weights = {"states": torch.stack(ridges(each_place))}
    if wanted.pooled is not None:
        ends = torch.tensor(target.lengths(texts), device=weight.device) - 1
        whole: Problem = (taken.at(ends), wanted.pooled, weight)
        (weights["pooled"],) = ridges(lambda: iter([whole]))
    masked = wanted.mask is not None
    info = MapInfo(source=sides[0], target=sides[1], before=before, places=places, masked=masked)
    return LinearMap(info, weights)


Problem = tuple[Tensor, Tensor, Tensor]
"""x (N, F), whose last number is 1, y (N, D), and the weight of each row (N,); in no order."""


def ridges(problems: Callable[[], Iterator[Problem]]) -> list[Tensor]:
    """For each problem the W (F, D) that makes ``x W`` nearest to ``y``; solved in float64.

    Ridge regression (Hoerl & Kennard 1970). The penalty, relative to the mean square of ``x``, is
    the one of :data:`PENALTIES` by which the first nine tenths of all problems' rows tell the last
    ones best.

    Args:
        problems: makes them anew at each call, so that they need not be held together.
    """
    missed = torch.zeros(len(PENALTIES), dtype=torch.float64)
    for problem in problems():
        x, y, weight = (part.double() for part in problem)
        n = len(x) - len(x) // 10
        for i, w in enumerate(_solved(x[:n], y[:n], weight[:n], PENALTIES)):
            missed[i] += (x[n:] @ w - y[n:]).square().sum().cpu()
    best = (PENALTIES[int(missed.argmin())],)
    found = []
    for problem in problems():
        x, y, weight = (part.double() for part in problem)
        found.append(_solved(x, y, weight, best)[0].float())
    return found


def _solved(x: Tensor, y: Tensor, weight: Tensor, penalties: Sequence[float]) -> list[Tensor]:
    share = (weight / weight.sum())[:, None]
    # Centred, so that the mean is free of the penalty: it goes with the constant, the last of x.
    middle, aim = (share * x).sum(0), (share * y).sum(0)
    x, y = x - middle, y - aim
    gram, cross = x.T @ (share * x), x.T @ (share * y)
    size = gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    found = []
    for penalty in penalties:
        # Where all rows are equal, as the first token's are, there is nothing but the mean.
        w = torch.linalg.solve(gram + penalty * size, cross) if size.any() else 0 * cross
        w[-1] = aim - middle[:-1] @ w[:-1]
        found.append(w)
    return found


def explained(made: Condition, wanted: Condition) -> dict[str, float]:
    """How much of what differs between prompts is right: R^2 of states, and of the embedding.

    1 is every state exact, 0 as far off as the mean state of each place, below 0 further. Dropped
    states are scored as they lie, place by place, and what is missing at the end as 0.

    Args:
        made, wanted: conditions of the same prompts; of the same widths.
    """
    there = _there(wanted)
    n, context = wanted.tokens.shape[:2]
    tokens = torch.zeros_like(wanted.tokens)
    shared = min(context, made.tokens.shape[1])
    tokens[:, :shared] = made.tokens[:, :shared].to(tokens)
    counts = there.sum(0).clamp_min(1)
    mean = (wanted.tokens * there[..., None]).sum(0) / counts[:, None]
    scores = {"r2": _r2(tokens[there], wanted.tokens[there], mean.expand(n, -1, -1)[there])}
    if made.pooled is not None and wanted.pooled is not None:
        mean = wanted.pooled.mean(0, keepdim=True)
        scores["r2_pooled"] = _r2(made.pooled, wanted.pooled, mean)
    return scores


def read(encoder: TextEncoder, texts: Sequence[str]) -> Condition:
    """``encoder.encode`` of many texts, a part at a time."""
    return Condition.joined([encoder.encode(part) for part in _parts(texts)])


def _read(
    source: TextEncoder,
    target: TextEncoder,
    texts: Sequence[str],
    before: int,
    advance: Callable[[int], None],
) -> tuple[Taken, Condition]:
    places = Places(source, target)
    taken, wanted = [], []
    for part in _parts(texts):
        # By parts, since all places of a context take many times the memory of a caption's.
        taken.append(take(source, part, places, before))
        wanted.append(target.encode(part))
        advance(len(part))
    return Taken.joined(taken), Condition.joined(wanted)


def _parts(texts: Sequence[str]) -> list[Sequence[str]]:
    return [texts[at : at + AT_ONCE] for at in range(0, len(texts), AT_ONCE)]


def _there(condition: Condition) -> Tensor:
    """Bool (N, L): which states count."""
    if condition.mask is not None:
        return condition.mask
    return torch.ones(condition.tokens.shape[:2], dtype=torch.bool, device=condition.tokens.device)


def _r2(made: Tensor, wanted: Tensor, mean: Tensor) -> float:
    made, wanted, mean = (part.double() for part in (made, wanted, mean))
    return float(1 - (made - wanted).square().sum() / (wanted - mean).square().sum())
