"""Does a CLIP know the way? Its pixel gradient against the way to the drawn truth.

    python benchmarks/guide.py                                       # the embedded CLIP
    python benchmarks/guide.py --clip DIR --targets smiling glasses  # another one
    python benchmarks/guide.py --tuned "{}-stepwise"                 # at tuned models' edits too

For drawn faces of each target two numbers a state, means over the faces: the cosine between the
gradient of what fine-tuning maximises (the move along the text's direction, in the colours that the
preset shows the guide) and the way that is left to the drawn truth; and how much of the edit the
CLIP believes to be done, 0 at the photo and 1 at the truth. The states are mixtures of photo and
truth, by the truth's share, and edits of tuned models, by strength. A guide whose cosine is 0 at an
edit that it believes to be done will not take that edit any further.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dclip.configs.eval import SEED
from dclip.context import Context
from dclip.data import faces
from dclip.data.images import to_float
from dclip.device import choose
from dclip.editing.editor import Editor, Networks
from dclip.editing.plan import Part, make_plan
from dclip.evaluation import samples
from dclip.guidance.clip import Guide, load_guide
from dclip.guidance.kinds import KINDS
from dclip.guidance.objective import recoloured
from dclip.guidance.prompts import PRESETS, preset
from dclip.guiding import find_clip
from dclip.store import Store, slug

TARGETS = tuple(name for name in PRESETS if name in faces.TARGETS)
MIXTURES, STRENGTHS = (0.0, 0.4, 0.7), (0.5, 1.0)


def states(
    store: Store, target: str, tuned: str | None, count: int
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Photos and truths, (N, 3, 64, 64) in [-1, 1], and the pictures of each state by its name."""
    drawn = samples.draw(4 * count, SEED, 64)
    assert drawn.params is not None
    chosen = [i for i, p in enumerate(drawn.params) if faces.applicable(p, target)][:count]
    truths = np.stack([faces.truth(drawn.params[i], target, size=64) for i in chosen])
    photos = drawn.originals[chosen]
    truth = to_float(torch.from_numpy(truths.transpose(0, 3, 1, 2).copy()))
    found = {f"mixture {share:g}": photos + share * (truth - photos) for share in MIXTURES}
    if tuned is not None:
        model = store.find(f"tuned/{tuned.format(slug(target))}")
        plan = make_plan(store.input(model, "model"), [Part(model)])
        editor = Editor(plan, Networks(plan.base, choose()))
        start = editor.invert(photos)
        for strength in STRENGTHS:
            edits = editor.decode(start, strength).clamp(-1, 1).float().cpu()
            found[f"edit {strength:g}"] = edits
    return photos, truth, found


def known(
    guide: Guide, target: str, photos: Tensor, truth: Tensor, x: Tensor
) -> tuple[float, float]:
    """Mean cosine of the gradient at ``x`` with the way to the truth; mean share believed done."""
    pair = preset(target)
    saturation = KINDS[pair.kind].saturation
    assert saturation is not None

    def embed(pictures: Tensor) -> Tensor:
        return guide.embed_image(recoloured(pictures, saturation))

    with torch.no_grad():
        before, after = embed(photos), embed(truth)
        ways = F.normalize(guide.move(pair.target, pair.source).of(before), dim=-1)
    x = x.clone().requires_grad_(True)
    moved = ((embed(x) - before) * ways).sum(-1)
    (gradient,) = torch.autograd.grad(moved.sum(), x)
    # A guide that is shown grey views can say nothing of colours.
    left = recoloured(truth - x.detach(), min(saturation, 1.0))
    cosine = F.cosine_similarity(gradient.flatten(1), left.flatten(1)).mean()
    whole = ((after - before) * ways).sum(-1)
    return float(cosine), float((moved.detach() / whole).mean())


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", default="embedded", help="as `dclip finetune --clip` takes it")
    parser.add_argument("--store", type=Path, default=Path("artifacts"))
    parser.add_argument("--tuned", metavar="NAME", help='tuned models, "{}" for the target')
    parser.add_argument("--targets", nargs="+", default=TARGETS, choices=TARGETS, metavar="NAME")
    parser.add_argument("--faces", type=int, default=16)
    options = parser.parse_args()
    store = Store(options.store)
    guide = load_guide(find_clip(options.clip, store, Context().report)[0])
    for number, target in enumerate(options.targets):
        photos, truth, found = states(store, target, options.tuned, options.faces)
        if number == 0:
            print(f"{'target':<12}", *(f"{name:>14}" for name in found))
        cells = [known(guide, target, photos, truth, x) for x in found.values()]
        row = " ".join(f"{cosine:>8.2f}{share:>6.2f}" for cosine, share in cells)
        print(f"{target:<12} {row}", flush=True)


if __name__ == "__main__":
    main()
