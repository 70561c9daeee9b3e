"""How well whole photos are edited, on drawn faces whose truth is known.

`python benchmarks/photos.py` prints the tables of docs/photos.md; it needs `dclip[photos]`.
`--with smiling --with blond-hair` instead tries tuned models of a store on the embedded base.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dclip.data import faces
from dclip.editing.editor import load_editor
from dclip.photos import back
from dclip.photos.back import Change, cut, mask_at, put_back
from dclip.photos.colours import Plain
from dclip.photos.find import FaceFinder
from dclip.photos.frames import Frame, Transform
from dclip.store import Store

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import photo_scenes as scenes

EDITS = ("smiling", "not smiling", "glasses", "no glasses", "beard", "old", "lipstick",
         "blond hair", "black hair", "sketch", "cartoon", "zombie")  # fmt: skip
PLAIN = Plain()
WHOLE = Transform.of_box(0, 0, 256, 256)
Pixels = np.ndarray


def enlarged(square: Tensor, photo: Pixels) -> Pixels:
    large = F.interpolate(square[None], size=photo.shape[:2], mode="bicubic", align_corners=False)
    return np.asarray(large[0].permute(1, 2, 0).numpy() * 127.5)


def small_picture(photo: Pixels, before: Tensor, after: Tensor) -> Pixels:
    return np.asarray((enlarged(after, photo) + 127.5).clip(0, 255))


def plain_change(photo: Pixels, before: Tensor, after: Tensor) -> Pixels:
    return np.asarray((photo + enlarged(after - before, photo)).clip(0, 255))


def carried(photo: Pixels, before: Tensor, after: Tensor) -> Pixels:
    return put_back(photo, [Change(WHOLE, before, after, (False, False))], PLAIN)


def coarse(photo: Pixels, before: Tensor, after: Tensor) -> Pixels:
    """The change without its finest detail: a mean over 3 x 3 pixels of the square."""
    return plain_change(photo, before, before + back._box((after - before)[None])[0])


def blurred(x: Tensor) -> Tensor:
    """What an editor that loses detail makes of a square."""
    return 0.4 * x + 0.6 * back._box(x[None])[0]


def by_a_blurring_editor(photo: Pixels, before: Tensor, after: Tensor) -> Pixels:
    return carried(photo, before, blurred(after))


def less_its_reconstruction(photo: Pixels, before: Tensor, after: Tensor) -> Pixels:
    return carried(photo, before, before + blurred(after) - blurred(before))


def psnr(a: Pixels, b: Pixels) -> float:
    return float(10 * np.log10(255**2 / max(np.square(a.astype(float) - b).mean(), 1e-3)))


def sharpness(a: Pixels, region: Pixels) -> float:
    """Energy of what a mean over 3 x 3 pixels takes away, inside a region."""
    x = torch.from_numpy(a.astype(np.float32)).permute(2, 0, 1)[None]
    fine = (x - F.avg_pool2d(F.pad(x, (1,) * 4, mode="replicate"), 3, 1))[0].permute(1, 2, 0)
    return float(np.square(fine.numpy()[region]).mean())


def truth_table(count: int) -> None:
    """A perfect edit at 64 pixels, put back at 256, against the truth at 256, inside the edit."""
    ways: dict[str, Callable[[Pixels, Tensor, Tensor], Pixels]] = {
        "small picture": small_picture, "change": plain_change, "coarse change": coarse,
        "guided change": carried, "blurring editor": by_a_blurring_editor,
        "less reconstruction": less_its_reconstruction,
    }  # fmt: skip
    print(f"{'edit':<14}" + "".join(f"{name:>22}" for name in ways))
    total = {name: [] for name in ways}  # type: ignore[var-annotated]
    for edit in EDITS:
        rows = {name: [] for name in ways}  # type: ignore[var-annotated]
        chosen = (p for i in range(400) if faces.applicable(p := faces.sample(7, i), edit))
        for params in (next(chosen) for _ in range(count)):
            photo = faces.draw(params, size=256)
            truth = faces.truth(params, edit, size=256)
            region = faces.edit_region(params, edit, size=256)
            before, after = (cut(p, WHOLE, 64, PLAIN) for p in (photo, truth))
            for name, way in ways.items():
                result = way(photo, before, after)
                sharp = sharpness(result, region) / sharpness(truth, region)
                rows[name].append((psnr(result[region], truth[region]), sharp))
        means = {name: np.mean(values, axis=0) for name, values in rows.items()}
        for name, value in means.items():
            total[name].append(value)
        print(f"{edit:<14}" + "".join(f"{m[0]:>14.1f} dB {m[1]:>4.2f}" for m in means.values()))
    means = {name: np.mean(values, axis=0) for name, values in total.items()}
    print(f"{'mean':<14}" + "".join(f"{m[0]:>14.1f} dB {m[1]:>4.2f}" for m in means.values()))


def tuned_table(store: str, name: str, count: int) -> None:
    """A tuned model's edit at 64 pixels, put back at 256, against the truth at 256."""
    editor = load_editor(Store(store), [(name, 1.0)], torch.device("cpu"))
    target = name.replace("-", " ")
    chosen = (p for i in range(400) if faces.applicable(p := faces.sample(9, i), target))
    params = [next(chosen) for _ in range(count)]
    photos = [faces.draw(p, size=256) for p in params]
    before = torch.stack([cut(photo, WHOLE, 64, PLAIN) for photo in photos])
    after = editor.decode(editor.invert(before)).clamp(-1, 1).cpu()
    rows = []
    for p, photo, x, y in zip(params, photos, before, after, strict=True):
        truth = faces.truth(p, target, size=256)
        region = faces.edit_region(p, target, size=256)
        ways = (photo, small_picture(photo, x, y), plain_change(photo, x, y), carried(photo, x, y))
        rows.append([
            (psnr(way[region], truth[region]), sharpness(way, region) / sharpness(truth, region))
            for way in ways
        ])  # fmt: skip
    said = ("photo", "small picture", "change", "guided change")
    means = np.mean(rows, axis=0)
    print(
        f"{name}: "
        + ", ".join(f"{w} {m[0]:.1f} dB {m[1]:.2f}" for w, m in zip(said, means, strict=True))
    )


def party(number: int) -> list[scenes.Sitter]:
    rng = np.random.default_rng(number)
    return [
        scenes.Sitter(
            4 * number + k,
            (260 + 420 * (k % 2) + rng.uniform(-20, 20), 230 + 400 * (k // 2)),
            rng.uniform(110, 330), rng.uniform(-0.5, 0.5), rng.uniform(0.6, 1.15),
        )
        for k in range(4)
    ]  # fmt: skip


def scene_table(count: int) -> None:
    """Photos of four faces, turned up to 29 degrees, 110 to 330 pixels, lit 0.6 to 1.15."""
    finder, frame = FaceFinder(), Frame("drawn")
    hits = wanted = extra = 0
    zero, seconds = 0.0, 0.0
    seams: dict[str, list[tuple[float, float]]] = {"pasted": [], "carried": []}
    for number in range(count):
        sitters = party(number)
        photo = scenes.scene((940, 860), sitters)
        start = time.perf_counter()
        found = finder.find(photo)
        seconds += time.perf_counter() - start
        wanted += len(sitters)
        right = sum(any(_hit(f.points, s) for f in found) for s in sitters)
        hits, extra = hits + right, extra + len(found) - right
        for face in found:
            place = frame.place(face.points)
            before = cut(photo, place, 64, PLAIN)
            same = put_back(photo, [Change(place, before, before.clone())], PLAIN)
            zero = max(zero, float(np.abs(same.astype(int) - photo).max()))
            # An editor that shifts all colours a little and changes the middle a lot.
            line = torch.linspace(-1, 1, 64)
            spot = 0.4 * torch.exp(-(line[:, None] ** 2 + line[None, :] ** 2) / 0.1)
            shift = torch.tensor([0.05, -0.03, 0.04]).view(3, 1, 1)
            moved = put_back(photo, [Change(place, before, before + spot + shift)], PLAIN)
            y, x = np.mgrid[:860, :940] + 0.5
            mask = mask_at(place, x, y)
            u, v = np.moveaxis(place.to_square(np.stack([x, y], -1).reshape(-1, 2)), -1, 0)
            far = ((2 * u - 1) ** 2 + (2 * v - 1) ** 2).reshape(x.shape)[..., None]
            full = 127.5 * (0.4 * np.exp(-far / 0.1) + shift.flatten().numpy())
            pasted = np.where(mask[..., None] > 0, full, 0.0)
            seams["carried"].append(_seam(moved.astype(float) - photo, mask))
            seams["pasted"].append(_seam(pasted, mask))
    print(f"faces found {hits} of {wanted}, false {extra}, {seconds / count:.2f} s a photo")
    print(f"largest error of a zero change: {zero:g} of 255")
    for name, values in seams.items():
        border, inside = np.mean(values, axis=0)
        print(f"{name}: a step of {border:.2f} of 255 across the border, {inside:.2f} inside")


def _hit(points: tuple[tuple[float, float], ...], sitter: scenes.Sitter) -> bool:
    return bool(np.abs(np.array(points) - sitter.points()).mean() < 0.1 * sitter.side)


def _seam(change: Pixels, mask: Pixels) -> tuple[float, float]:
    """Mean step of the change between neighbours, across the mask's border and inside it."""
    steps = np.maximum(
        np.abs(np.diff(change, axis=0))[:, :-1], np.abs(np.diff(change, axis=1))[:-1]
    )
    step, inside = steps.max(axis=-1), mask > 0
    border = (inside[1:, :-1] != inside[:-1, :-1]) | (inside[:-1, 1:] != inside[:-1, :-1])
    return float(step[border].mean()), float(step[(mask == 1)[:-1, :-1]].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--with", dest="tuned", action="append", help="a tuned model")
    parser.add_argument("--store", default="artifacts")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in asked.tuned or ():
        tuned_table(asked.store, name, 16)
    if asked.tuned:
        return
    print(truth_table.__doc__)
    truth_table(8)
    print()
    print(scene_table.__doc__)
    scene_table(10)


if __name__ == "__main__":
    main()
