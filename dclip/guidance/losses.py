"""The losses of fine-tuning, one value a sample each. :mod:`dclip.guidance.kinds` weighs them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dclip.colour import luma
from dclip.guidance.clamp import in_range
from dclip.models.perceptual import lpips


def directional(e_image: Tensor, e_reference: Tensor, difference: Tensor) -> Tensor:
    """L_dir = 1 - cos(d_img, d_text), one value a sample (B,) in [0, 2].

    Equation (6) of the report, (9) of DiffusionCLIP (2110.02711), after StyleGAN-NADA. Where
    ``d_img`` is zero the cosine is undefined: there the value is 1 and the gradient zero.

    Args:
        e_image: unit-length embeddings of the edited pictures (B, D).
        e_reference: unit-length embeddings of the pictures before the edit (B, D).
        difference: target's minus source's text embedding, of any length, (D,) or (B, D).
    """
    d_text = F.normalize(difference, dim=-1)
    d_img = e_image - e_reference
    norm = d_img.norm(dim=-1, keepdim=True)
    moved = norm > 1e-6
    unit = d_img / torch.where(moved, norm, torch.ones_like(norm))
    cosine = (unit * d_text).sum(-1)
    return 1 - torch.where(moved[:, 0], cosine, torch.zeros_like(cosine))


def log_directional(e_image: Tensor, e_reference: Tensor, difference: Tensor) -> Tensor:
    """-log((2 - L_dir) / 2), one value a sample (B,) from 0; large where edits go the other way.

    The form in which DiffusionCLIP's code (2110.02711) minimises :func:`directional`.

    Args: as :func:`directional`.
    """
    away = directional(e_image, e_reference, difference)
    return -((2 - away) / 2).clamp_min(1e-6).log()


def global_distance(e_image: Tensor, target: Tensor) -> Tensor:
    """Cosine distance of a picture to the target text, one value a sample (B,), 0 to 2.

    The global CLIP loss of StyleCLIP (Patashnik et al. 2021, 2103.17249) and equation (8) of
    DiffusionCLIP (2110.02711), which the directional loss replaced: it does not say what is to
    stay, and a picture can please it without showing the target.

    Args:
        e_image: unit-length embeddings (B, D).
        target: the text's, unit length (D,).
    """
    return 1 - e_image @ target


def goal_distance(e_image: Tensor, e_reference: Tensor, goal: Tensor) -> Tensor:
    """Cosine distance of an edit to its goal, one value a sample (B,): 1 before the edit, 0 there.

    The goal is the reference's embedding plus the text difference, normalised; the distance is
    divided by that of the reference. The directional loss does not say how far an edit should go;
    this one is lowest at an edit of the text difference's length.

    Args:
        e_image, e_reference: unit-length embeddings (B, D).
        goal: the text difference, of the length that the edit should have, (D,) or (B, D).
    """
    wanted = F.normalize(e_reference + goal, dim=-1)
    start = 1 - (e_reference * wanted).sum(-1)
    return (1 - (e_image * wanted).sum(-1)) / start.clamp_min(1e-6)


def identity_l1(x: Tensor, reference: Tensor) -> Tensor:
    """Mean absolute pixel difference, one value a sample (B,); equation (7) of the report.

    Args:
        x, reference: (B, 3, H, W) in [-1, 1].
    """
    return (x - reference).abs().flatten(1).mean(1)


def perceptual(x: Tensor, reference: Tensor) -> Tensor:
    """:func:`dclip.models.perceptual.lpips` of pictures (B, 3, H, W), one value a sample (B,)."""
    return lpips(in_range(x), reference)


def colours(x: Tensor) -> Tensor:
    """What is left of pictures (B, 3, H, W) without their brightness, same shape."""
    return x - luma(x)


def colour_l1(x: Tensor, reference: Tensor) -> Tensor:
    """Mean absolute difference of the colours alone, brightness apart, one value a sample (B,)."""
    return colourfulness(x - reference)


def colourfulness(x: Tensor) -> Tensor:
    """Mean absolute colour of pictures (B, 3, H, W) in [-1, 1], (B,); 0 where they are grey."""
    return colours(x).abs().flatten(1).mean(1)


def speckle(x: Tensor, reference: Tensor) -> Tensor:
    """Total variation of the colours above that of the reference, (B,).

    Anisotropic total variation (Rudin, Osher, Fatemi 1992) of what is left without brightness.
    Coloured speckle satisfies a small CLIP and has a high one.
    """

    def variation(z: Tensor) -> Tensor:
        across = (z[..., 1:] - z[..., :-1]).abs().flatten(1).mean(1)
        return across + (z[..., 1:, :] - z[..., :-1, :]).abs().flatten(1).mean(1)

    return (variation(colours(x)) - variation(colours(reference))).clamp_min(0)


ALIKE, NEAR, PROPAGATION_SIDE, PARTNERS = 0.12, 0.5, 64, 4


def propagation(x: Tensor, reference: Tensor, draw: Callable[[int], Tensor]) -> Tensor:
    """How differently an edit changes pixels that look alike and lie near each other, (B,).

    Edit propagation (AppProp, An & Pellacini 2008; after the colorization of Levin et al. 2004):
    the weighted mean of ``|change_p - change_q|`` over pairs of pixels. Their weight is
    ``exp(-|c_p - c_q|^2 / 2 ALIKE^2 - |p - q|^2 / 2 NEAR^2)``, with colours c of the reference in
    [-1, 1] and positions in sides of the picture. Without it only part of the hair turns blond.

    Args:
        x, reference: (B, 3, H, W) in [-1, 1]; compared at :data:`PROPAGATION_SIDE` pixels a side.
        draw: gives n numbers uniform in [0, 1); they pair the pixels, :data:`PARTNERS` each.
    """
    height, width = (min(PROPAGATION_SIDE, side) for side in x.shape[-2:])
    n = height * width
    seen = F.adaptive_avg_pool2d(reference, (height, width)).flatten(2)
    change = F.adaptive_avg_pool2d(x - reference, (height, width)).flatten(2)
    place = torch.stack(
        [
            (torch.arange(n, device=x.device) // width + 0.5) / height,
            (torch.arange(n, device=x.device) % width + 0.5) / width,
        ]
    ).to(x)
    apart, total = x.new_zeros(len(x)), x.new_zeros(len(x))
    for order in draw(PARTNERS * n).view(PARTNERS, n).argsort(dim=1).to(x.device):
        unlike = (seen - seen[..., order]).square().sum(1) / (2 * ALIKE**2)
        far = (place - place[:, order]).square().sum(0) / (2 * NEAR**2)
        weight = (-unlike - far).exp()
        apart = apart + (weight * (change - change[..., order]).abs().mean(1)).sum(1)
        total = total + weight.sum(1)
    return apart / total.clamp_min(torch.finfo(total.dtype).tiny)


WINDOW, SMALL = 7, 0.06**2


def structure(x: Tensor, reference: Tensor) -> Tensor:
    """One minus the contrast-structure part of SSIM, one value a sample (B,), 0 to 2.

    ``(2 s_xr + C) / (s_x^2 + s_r^2 + C)`` (Wang et al. 2004, equations (9) and (10)) of the
    brightness in windows of :data:`WINDOW` pixels. A change of mean brightness costs nothing; lost
    contours and grain that the reference does not have do.

    Args:
        x, reference: (B, 3, H, W) in [-1, 1].
    """
    seen, shown = (luma(picture) for picture in (x, reference))

    def mean(z: Tensor) -> Tensor:
        return F.avg_pool2d(z, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)

    m_x, m_r = mean(seen), mean(shown)
    v_x, v_r = mean(seen * seen) - m_x * m_x, mean(shown * shown) - m_r * m_r
    v_xr = mean(seen * shown) - m_x * m_r
    return 1 - ((2 * v_xr + SMALL) / (v_x + v_r + SMALL)).flatten(1).mean(1)


def face_identity(face: Callable[[Tensor], Tensor], x: Tensor, reference: Tensor) -> Tensor:
    """L_face = 1 - cos(f(x), f(reference)), one value a sample (B,), differentiable in ``x``.

    Args:
        face: a face recognition network: pixels (B, 3, H, W) in [-1, 1] to features (B, D).
    """
    with torch.no_grad():
        wanted = face(reference)
    return 1 - F.cosine_similarity(face(x), wanted, dim=-1)
