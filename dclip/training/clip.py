"""Training a CLIP to be a guide: losses, augmentation, and adversarial examples.

Gradients of adversarially trained networks change what people see (Tsipras et al. 2019, "Robustness
may be at odds with accuracy", section 3; Santurkar et al. 2019, "Image synthesis with a single
(robust) classifier"), so a guide is trained on adversarial examples of its own losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """What one update sees.

    Attributes:
        pixels: (B, 3, H, W) in [-1, 1].
        same_caption: (B, B) bool, captions i and j are equal, so that neither is a negative.
        labels: for each contrast, the side of each sample, int64 (B,), -1 for none.
        pairs: (P, 2) int64, rows that show the same subject before and after one change.
        mixing: (P, MIXING) uniform in [0, 1), how :func:`mixtures` mixes each pair.
        grain: (P, 3, H, W) uniform in [-1, 1), the noise that some mixtures carry.
    """

    pixels: Tensor
    same_caption: Tensor
    labels: tuple[Tensor, ...]
    pairs: Tensor
    mixing: Tensor
    grain: Tensor


@dataclass(frozen=True)
class TextSide:
    """Unit-length text embeddings of one update.

    Attributes:
        captions: (B, D), one a sample.
        sides: for each contrast (sides, D).
    """

    captions: Tensor
    sides: tuple[Tensor, ...]

    def detach(self) -> TextSide:
        """The same without gradients."""
        return TextSide(self.captions.detach(), tuple(s.detach() for s in self.sides))


def contrastive(image: Tensor, text: Tensor, scale: Tensor, same: Tensor) -> Tensor:
    """Symmetric InfoNCE (Radford et al. 2021) that counts equal captions as positives too."""
    logits = scale * image @ text.T
    target = same.float() / same.float().sum(1, keepdim=True)
    rows = -(target * logits.log_softmax(1)).sum(1).mean()
    columns = -(target * logits.T.log_softmax(1)).sum(1).mean()
    return (rows + columns) / 2


def contrast_loss(
    image: Tensor, sides: Sequence[Tensor], labels: Sequence[Tensor], scale: float = 10.0
) -> Tensor:
    """Cross-entropy between the sides of each contrast, averaged over contrasts.

    Prompts that differ in one word have nearly equal embeddings at first, and their similarities
    differ too little to learn from. So the sides are centred and normalised, which leaves the
    directions between them, as edits use them.
    """
    total, used = image.new_zeros(()), image.new_zeros(())
    for side, label in zip(sides, labels, strict=True):
        # A contrast that no sample of the batch shows counts for nothing; no branch, which would
        # wait for the device.
        known = (label >= 0).sum()
        directions = F.normalize(side - side.mean(0, keepdim=True), dim=-1, eps=1e-4)
        logits = scale * image @ directions.T
        summed = F.cross_entropy(logits, label, ignore_index=-1, reduction="sum")
        total = total + summed / known.clamp_min(1)
        used = used + (known > 0)
    return total / used.clamp_min(1)


def pair_moves(
    image: Tensor, pairs: Tensor, labels: Sequence[Tensor], sides: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """How each change moves the picture's embedding and the prompts' one, both (M, D)."""
    moved, said = [image[:0]], [image[:0]]
    before, after = pairs.unbind(1)
    for side, label in zip(sides, labels, strict=True):
        a, b = label[before], label[after]
        changed = (a >= 0) & (b >= 0) & (a != b)
        moved.append(image[after[changed]] - image[before[changed]])
        said.append(side[b[changed]] - side[a[changed]])
    return torch.cat(moved), torch.cat(said)


def pair_loss(image: Tensor, batch: Batch, sides: Sequence[Tensor]) -> Tensor:
    """How far the pictures' difference is from the prompts' difference, in direction and length.

    For two pictures of one subject that differ in one property. Length counts because an edit
    overshoots where the text difference is longer than the pictures' own. The value is
    ``1 - cos + sqrt(1 + q^2) - 1`` with q the log of the quotient of the lengths; a quotient does
    not fall where both are short, so that equal embeddings of all pictures are no minimum.
    """
    moved, said = pair_moves(image, batch.pairs, batch.labels, sides)
    if not len(moved):
        return image.new_zeros(())
    turned = 1 - F.cosine_similarity(moved, said, dim=-1)
    q = (_length(moved) / _length(said)).log()
    loss: Tensor = turned + (1 + q.square()).sqrt() - 1
    return loss.mean()


def _length(x: Tensor) -> Tensor:
    # Two equal pictures have length 0, whose log is not finite.
    return (x.square().sum(-1) + 1e-6).sqrt()


MIXING = 2 + 16 + 2 + 48
"""Random numbers that one mixture takes."""


def mixtures(
    before: Tensor, after: Tensor, mixing: Tensor, grain: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mixtures of the pictures of pairs, as partial edits, and the share of the edit in each.

    Brightness and colour are mixed by different amounts, also below 0 and above 1, and in every
    other picture the amount varies over the picture: fine-tuning shows the guide such edits. Half
    of them get a tint or grain on top, which belongs to no edit.

    Args:
        before, after: (P, 3, H, W) in [-1, 1].
        mixing: (P, MIXING) uniform in [0, 1).
        grain: (P, 3, H, W) uniform in [-1, 1).

    Returns:
        mixtures like ``before``; shares (P,) of the edit, without tint and grain, where a pixel
        changed by more than the edit counts as less; and in which of them tint or grain does not
        count, bool (P,). Where the edit repaints the whole picture, the share is that of
        :func:`_covered`, and tint and grain count against it.
    """
    numbers, places, strength, tint = torch.split(mixing, [2, 16, 2, 48], dim=1)
    # Colour goes up to 2.4 times as far, so that a guide also knows inverted colours.
    amounts = numbers * numbers.new_tensor([2.0, 2.8]) - 0.4
    local = _spread(places.view(-1, 1, 4, 4), before).clamp(0, 1)
    place = torch.where((places[:, 0] < 0.5).view(-1, 1, 1, 1), torch.ones_like(local), local)
    change = after - before
    grey = change.mean(1, keepdim=True)
    brightness, colour = amounts.view(-1, 2, 1, 1, 1).unbind(1)
    mixed = (before + place * (brightness * grey + colour * (change - grey))).clamp(-1, 1)
    size = change.square().sum(1)
    gone = ((mixed - before) * change).sum(1) / size.clamp_min(1e-6)
    counted = size * (1 - (1 - gone).abs())
    share = counted.flatten(1).sum(1) / size.flatten(1).sum(1).clamp_min(1e-6)
    corners = tint.view(-1, 3, 4, 4)
    # The first corner's colour tints the whole picture, the others make the tint uneven.
    wash = (corners[:, :, :1, :1] - 0.5) + 0.5 * (_spread(corners, before) - 0.5)
    coarse, kind = strength.unbind(1)
    wash = torch.where((kind < 0.5).view(-1, 1, 1, 1), wash, _grained(grain, kind))
    washed = coarse >= 0.5
    amount = torch.where(washed, 2.4 * (coarse - 0.5), 0).view(-1, 1, 1, 1)
    final = (mixed + amount * wash).clamp(-1, 1)
    repaints = size.flatten(1).sum(1) > REPAINTED * before.shape[1:].numel()
    # A tint makes a drawing less of a drawing, but a smile no less of a smile.
    share = torch.where(repaints, _covered(before, final, after), share)
    return final, share, washed & ~repaints


def _grained(grain: Tensor, kind: Tensor) -> Tensor:
    """Grain of one, two or four pixels; in half of the pictures of colour alone.

    ``kind`` is uniform in [0.5, 1), (P,).
    """
    which = ((kind - 0.5) * 12).long().clamp(0, 5).view(-1, 1, 1, 1)
    sizes = [
        F.interpolate(n * F.avg_pool2d(grain, n), grain.shape[-2:], mode="nearest")
        for n in (1, 2, 4)
    ]
    out = torch.where(which % 3 == 0, sizes[0], torch.where(which % 3 == 1, sizes[1], sizes[2]))
    return torch.where(which < 3, out, out - out.mean(1, keepdim=True))


def _covered(before: Tensor, x: Tensor, after: Tensor) -> Tensor:
    """The share of the distance from ``before`` to ``after`` (P, 3, H, W) that ``x`` covers, (P,).

    Brightness and colour count equally. By plain pixel differences colour would hardly count in a
    pencil sketch, which changes brightness most.
    """

    def parts(change: Tensor) -> tuple[Tensor, Tensor]:
        grey = change.mean(1, keepdim=True).expand_as(change)
        return grey.square().flatten(1).sum(1), (change - grey).square().flatten(1).sum(1)

    (grey, colour), (grey_left, colour_left) = parts(after - before), parts(after - x)
    grey = grey.clamp_min(1e-6)
    unit = colour.maximum(0.1 * grey)  # grey photos have no colour to lose
    left = (grey_left / grey + colour_left / unit) / (1 + colour / unit)
    return (1 - left.sqrt()).clamp(0, 1)


REPAINTED = 0.12
"""Mean squared change of a pixel from which an edit repaints the picture."""


def _spread(values: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(values, like.shape[-2:], mode="bicubic", align_corners=False)


def mixture_loss(
    image: Tensor, mixed: Tensor, share: Tensor, washed: Tensor, pairs: Tensor
) -> Tensor:
    """How far mixtures are embedded from their share of the way between the pair's embeddings.

    A plain mixture should lie at its share. One with tint or grain may fall short of its share, but
    not pass it. Fine-tuning shows a CLIP partial edits, which no other training picture is; without
    this loss a drawing in strong colours passed for a pencil sketch.

    Args:
        image: (B, D) embeddings of the batch; ``mixed``: (P, D) of the mixtures.
        share, washed: (P,), from :func:`mixtures`.
    """
    before, after = image[pairs[:, 0]].detach(), image[pairs[:, 1]].detach()
    way = after - before
    size = way.square().sum(-1)
    # Small edits count less, relative to the mean: with a fixed number for "small" the network
    # could lower the loss by shortening all differences.
    size = size.maximum(0.25 * size.mean()).clamp_min(1e-8)
    wanted = F.normalize(before + share[:, None] * way, dim=-1)
    plain = (mixed - wanted).square().sum(-1) / size
    passed = ((mixed - before) * way).sum(-1) / size - share
    return torch.where(washed, passed.clamp_min(0).square(), plain).mean()


@dataclass(frozen=True)
class Weights:
    """How much each loss counts."""

    contrastive: float = 0.3
    contrast: float = 2.0
    pair: float = 2.0
    mixture: float = 2.0


def image_loss(
    encode: Callable[[Tensor], Tensor],
    pixels: Tensor,
    batch: Batch,
    text: TextSide,
    scale: Tensor,
    weights: Weights,
) -> tuple[Tensor, dict[str, Tensor]]:
    """All losses of a batch whose pictures are ``pixels``; the total and its parts."""
    # Losses of weight 0 are not computed.
    some = len(batch.pairs) if weights.mixture else 0
    before, after = batch.pairs[:some].unbind(1)
    mixed, share, washed = mixtures(
        pixels[before], pixels[after], batch.mixing[:some], batch.grain[:some]
    )
    both = encode(torch.cat([pixels, mixed]))
    image, halfway = both[: len(pixels)], both[len(pixels) :]
    parts = {
        "contrastive": contrastive(image, text.captions, scale, batch.same_caption),
        "contrast": contrast_loss(image, text.sides, batch.labels),
        "pair": pair_loss(image, batch, text.sides),
        "mixture": mixture_loss(image, halfway, share.detach(), washed, batch.pairs)
        if len(mixed)
        else image.new_zeros(()),
    }
    total = sum(
        (getattr(weights, name) * value for name, value in parts.items()), image.new_zeros(())
    )
    return total, parts


def radii(batch: Batch, largest: float, share: float) -> Tensor:
    """The radius of the attack on each picture of a batch, (B,) L2 in [-1, 1] pixel units.

    A smile changes a face of 64x64 by about 10, a pencil sketch by 77, lipstick by 3. One radius
    for all would be larger than the small edits or too small for the large ones, so that of a
    picture in a pair is a share of the pair's difference (below 0.5 the two can never meet).

    Args:
        largest: no picture moves further.
        share: of the L2 distance between the two pictures of a pair; pictures that are in no pair
            may move by ``largest``.
    """
    limit = torch.full((len(batch.pixels),), largest, device=batch.pixels.device)
    before, after = batch.pairs.unbind(1)
    distance = (batch.pixels[after] - batch.pixels[before]).flatten(1).norm(dim=1)
    own = (share * distance).clamp_max(largest)
    limit[before] = own
    limit[after] = own
    return limit


def attack(loss: Callable[[Tensor], Tensor], x: Tensor, radius: Tensor, steps: int) -> Tensor:
    """L2 projected gradient ascent (Madry et al. 2018) from ``x``.

    Args:
        loss: scalar of the pictures.
        x: (B, 3, H, W) in [-1, 1].
        radius: (B,) largest L2 distance from ``x`` over a whole picture, in [-1, 1] pixel units.
        steps: gradient steps of ``1.5 * radius / steps`` each.
    """
    radius = radius.view(-1, 1, 1, 1)
    delta = torch.zeros_like(x)
    for _ in range(steps):
        delta = delta.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(x + delta), delta)
        unit = gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        delta = delta.detach() + 1.5 * radius / steps * unit
        norm = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        delta = delta * (radius / norm.clamp_min(1e-12)).clamp_max(1.0)
        delta = (x + delta).clamp(-1, 1) - x
    return (x + delta).detach()
