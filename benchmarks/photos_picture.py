"""The README's picture: a photo of drawn faces before and after `dclip edit`.

The edits are made by the tuned models "smiling" and "blond-hair" of a store:

    dclip edit --data faces --with smiling --make
    dclip edit --data faces --with 'blond hair' --make
    python benchmarks/photos_picture.py docs/photos.jpg

It needs `dclip[photos]`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from dclip.cli.app import main as dclip

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import photo_scenes as scenes

SITTERS = [
    scenes.Sitter(3, (98, 118), 150, -0.06),
    scenes.Sitter(31, (258, 112), 160, 0.05),
    scenes.Sitter(6, (425, 124), 150, -0.03, 0.95),
    scenes.Sitter(5, (588, 112), 156, 0.07),
    scenes.Sitter(18, (748, 120), 150, -0.05),
]
EDIT = "--face 1,3,5 --with smiling --face 2,4 --with blond-hair --anyway"


def main() -> None:
    """Draw the photo, edit it, and write both below each other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the picture file to write")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        photo = scenes.save(scenes.scene((846, 236), SITTERS), Path(folder) / "group.png")
        edited = Path(folder) / "edited.png"
        code = dclip(["edit", str(photo), *shlex.split(EDIT), "--out", str(edited)])
        if code:
            raise SystemExit(code)
        pictures = [np.asarray(Image.open(each).convert("RGB")) for each in (photo, edited)]
    gap = np.full((8, pictures[0].shape[1], 3), 255, np.uint8)
    Image.fromarray(np.concatenate([pictures[0], gap, pictures[1]])).save(out, quality=92)


if __name__ == "__main__":
    main()
