"""How well whole photos of real faces are edited: CelebA faces composed on larger canvases.

`python benchmarks/photos_celeba.py --root DIR` prints the numbers of docs/photos.md; it needs
`dclip[photos]` and CelebA (`img_align_celeba.zip`). `--sheet FILE` writes a contact sheet. CelebA
is for non-commercial research: nothing that this writes may be published.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms
from torch import Tensor

from dclip.data.images import to_float
from dclip.photos.back import mask_at
from dclip.photos.files import read_photo
from dclip.photos.find import FaceFinder
from dclip.photos.frames import CELEBA_POINTS, Frame, Transform
from dclip.photos.saving import photo_bytes
from dclip.photos.whole import edit_photo

FRAME, SIZE, CANVAS, FACES = Frame("celeba", "face"), 64, (1300, 1100), 4
Pixels = np.ndarray


def lit(x: Tensor) -> Tensor:
    """A coarse edit that is known at every resolution: light from the left, warm."""
    line = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype)
    return x * (1 - 0.25 * line) + torch.tensor([0.1, 0.0, -0.1]).view(3, 1, 1) * (1 - line)


def tinted(x: Tensor) -> Tensor:
    """An edit of dark places alone, as a hair colour is: they turn golden."""
    dark = torch.sigmoid((-0.25 - x.mean(-3, keepdim=True)) * 12)
    return x + dark * (torch.tensor([0.55, 0.35, 0.0]).view(3, 1, 1))


EDITS: dict[str, Callable[[Tensor], Tensor]] = {"light": lit, "dark to gold": tinted}


def composite(archive: zipfile.ZipFile, names: list[str], number: int) -> tuple[Pixels, list]:
    """A photo of four faces, turned, scaled and lit; and where the five points of each lie."""
    rng = np.random.default_rng(number)
    width, height = CANVAS
    tones = rng.uniform(60, 200, (5, 7, 3)).astype(np.uint8)
    wall = Image.fromarray(tones).resize(CANVAS, Image.Resampling.BICUBIC)
    canvas = np.asarray(wall, np.float64) + rng.normal(0, 3, (height, width, 1))
    placed = []
    for k in range(FACES):
        with Image.open(io.BytesIO(archive.read(names[FACES * number + k]))) as image:
            scale, turn = rng.uniform(0.8, 2.4), rng.uniform(-0.52, 0.52)
            middle = complex(330 + 640 * (k % 2), 280 + 540 * (k // 2))
            z = scale * np.exp(1j * turn)
            corner = middle - z * complex(89, 109)
            way = Transform(((z.real, -z.imag, corner.real), (z.imag, z.real, corner.imag)))
            ends = way.to_square(np.array([(0, 0), (1, 0), (0, 1)], np.float64))
            o, x, y = ends
            back = (x[0] - o[0], y[0] - o[0], o[0], x[1] - o[1], y[1] - o[1], o[1])
            how = (CANVAS, Image.Transform.AFFINE, back, Image.Resampling.BICUBIC)
            laid = np.asarray(image.convert("RGB").transform(*how), np.float64)
            inside = np.asarray(Image.new("L", image.size, 255).transform(*how))[..., None] / 255
        canvas = canvas * (1 - inside) + laid * rng.uniform(0.7, 1.1) * inside
        placed.append(way.to_photo(np.array(CELEBA_POINTS)))
    return np.rint(canvas.clip(0, 255)).astype(np.uint8), placed


def saved(pixels: Pixels, number: int, folder: Path) -> Path:
    """The photo as a file that is stored turned by one of EXIF's orientations, with a profile."""
    turns = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    orientation = 1 + number % 8
    image = Image.fromarray(pixels)
    turn = turns[orientation]
    image = image if turn is None else image.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = folder / f"{number}.png"
    image.save(path, exif=exif, icc_profile=profile)
    return path


def seam(change: Pixels, mask: Pixels) -> tuple[float, float]:
    """Mean step of a change between neighbours across the mask's border, and inside the mask."""
    steps = np.maximum(
        np.abs(np.diff(change, axis=0))[:, :-1], np.abs(np.diff(change, axis=1))[:-1]
    ).max(axis=-1)
    inside = mask > 0
    border = (inside[1:, :-1] != inside[:-1, :-1]) | (inside[:-1, 1:] != inside[:-1, :-1])
    return float(steps[border].mean()), float(steps[(mask == 1)[:-1, :-1]].mean())


def psnr(a: Pixels, b: Pixels) -> float:
    return float(10 * np.log10(255**2 / max(np.square(a.astype(float) - b).mean(), 1e-3)))


def main() -> None:
    """Print the numbers; write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="folder with img_align_celeba.zip")
    parser.add_argument("--photos", type=int, default=12)
    parser.add_argument("--sheet", help="a picture file for the contact sheet")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    finder = FaceFinder()
    found = wanted = false = 0
    same_file = 0
    seams: list[tuple[float, float]] = []
    against: dict[str, list[tuple[float, float, float]]] = {name: [] for name in EDITS}
    rows: list[Pixels] = []
    with (
        zipfile.ZipFile(Path(asked.root) / "img_align_celeba.zip") as archive,
        tempfile.TemporaryDirectory() as folder,
    ):
        names = sorted(n for n in archive.namelist() if n.endswith(".jpg"))[::97]
        for number in range(asked.photos):
            pixels, placed = composite(archive, names, number)
            photo = read_photo(saved(pixels, number, Path(folder)))
            assert np.array_equal(photo.pixels, pixels)  # upright, whatever the orientation
            faces = finder.find(photo.view())
            eyes = [np.hypot(*(points[1] - points[0])) for points in placed]
            hits = {
                k
                for face in faces
                for k, points in enumerate(placed)
                if np.abs(np.array(face.points) - points).mean() < 0.25 * eyes[k]
            }
            found, wanted, false = found + len(hits), wanted + FACES, false + len(faces) - len(hits)
            still = edit_photo(photo, faces, FRAME, lambda x: x, size=SIZE)
            same_file += photo_bytes(photo, still.pixels)[0] == photo.data
            masks = [
                mask_at(s.transform, *np.meshgrid(np.arange(CANVAS[0]) + 0.5,
                                                  np.arange(CANVAS[1]) + 0.5))
                for s in still.spots if not s.skipped
            ]  # fmt: skip
            whole = to_float(torch.from_numpy(pixels.transpose(2, 0, 1).copy()))
            shown = [pixels]
            for name, edit in EDITS.items():
                done = edit_photo(photo, faces, FRAME, edit, size=SIZE)
                shown.append(done.pixels)
                change = done.pixels.astype(float) - pixels
                seams += [seam(change, mask) for mask in masks]
                if name == "light":
                    continue  # it depends on the place in the square; its seam is what counts
                truth = ((edit(whole).clamp(-1, 1) + 1) * 127.5).numpy().transpose(1, 2, 0)
                core = np.max(masks, axis=0) == 1
                small = _enlarged(photo, still, edit)
                asked_for = core & (np.abs(truth - pixels).max(-1) > 8)
                against[name].append((
                    psnr(pixels[asked_for], truth[asked_for]),
                    psnr(small[asked_for], truth[asked_for]),
                    psnr(done.pixels[asked_for], truth[asked_for]),
                ))  # fmt: skip
            if len(rows) < 4:
                halves = [np.asarray(Image.fromarray(p).resize((650, 550))) for p in shown]
                rows.append(np.concatenate(halves, axis=1))
    print(f"faces found {found} of {wanted}, false {false}")
    print(f"put back at strength 0, files equal byte for byte: {same_file} of {asked.photos}")
    border, inside = np.mean(seams, axis=0)
    print(f"seam: a step of {border:.2f} of 255 across the mask's border, {inside:.2f} inside it")
    for name, values in against.items():
        if values:
            before, small, carried = np.mean(values, axis=0)
            print(
                f"{name}, against the edit at full resolution where it acts: photo {before:.1f} dB,"
                f" enlarged small picture {small:.1f}, carried change {carried:.1f}"
            )
    if asked.sheet:
        Image.fromarray(np.concatenate(rows)).save(asked.sheet)


def _enlarged(photo: object, still: object, edit: Callable[[Tensor], Tensor]) -> Pixels:
    """The photo with each edited small picture enlarged over its face."""
    result = photo.pixels.astype(float)  # type: ignore[attr-defined]
    height, width = result.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    for spot in still.spots:  # type: ignore[attr-defined]
        if spot.skipped:
            continue
        square = edit(still.before[spot.number])  # type: ignore[attr-defined]
        at = spot.transform.to_square(np.stack([x, y], -1).reshape(-1, 2)).reshape(height, width, 2)
        grid = torch.from_numpy((2 * at - 1).astype(np.float32))[None]
        up = torch.nn.functional.grid_sample(
            square[None], grid, mode="bicubic", padding_mode="border", align_corners=False
        )[0]
        inside = mask_at(spot.transform, x, y) == 1
        result[inside] = ((up.clamp(-1, 1) + 1) * 127.5).numpy().transpose(1, 2, 0)[inside]
    return result


if __name__ == "__main__":
    main()
