"""``dclip prepare``: photos or rendered faces in, a data artifact out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from dclip.cli.common import Run, add, command, group, switch
from dclip.cli.options import Name, Seed, option

CONFIG = "stages.prepare:PrepareConfig"

Size = Annotated[
    int | None, option("--size", metavar="N", help="Side in pixels: else 128, for faces 64.")
]
Split = Annotated[
    str | None,
    option("--split", metavar="A/B", help="Percentages for train/val, or train/val/test."),
]
Limit = Annotated[int | None, option("--limit", metavar="N", help="Only the first N pictures.")]
FilteredPairs = Annotated[
    str | None,
    option(
        "--style", metavar="pairs", help="Each photo again, filtered as a drawing or an old one."
    ),
]
Strict = Annotated[
    bool | None, switch("--strict", help="Fail at an unreadable picture instead of skipping it.")
]


@command(
    "dclip prepare celeba --root ~/celeba",
    "dclip prepare celeba --root img_align_celeba.zip --size 64 --limit 5000",
    "dclip prepare celeba --root ~/celeba --download --split official",
    "dclip prepare celeba --root ~/celeba --style pairs    # for dclip clip train",
    config=CONFIG,
)
def celeba(
    run: Run,
    root: Annotated[
        Path | None,
        option(
            "--root",
            metavar="DIR",
            help="torchvision's folder, img_align_celeba.zip, or the extracted pictures.",
        ),
    ] = None,
    size: Size = None,
    crop: Annotated[
        str | None, option("--crop", metavar="HOW", help="face, center, or pixels: else face.")
    ] = None,
    split: Annotated[
        str | None,
        option("--split", metavar="A/B", help="Percentages for train/val[/test], or official."),
    ] = None,
    limit: Limit = None,
    style: FilteredPairs = None,
    download: Annotated[
        bool | None, switch("--download", help="Fetch CelebA into --root first if it is not there.")
    ] = None,
    strict: Strict = None,
    name: Name = None,
    seed: Seed = None,
) -> None:
    """Prepare CelebA, in any form that people have it in.

    The lists of attributes, partition and identities are used where they lie beside the pictures.
    """
    _prepare(
        run,
        root=root,
        size=size,
        crop=crop,
        split=split,
        limit=limit,
        style=style,
        download=download,
        strict=strict,
        name=name,
        seed=seed,
    )


@command(
    "dclip prepare folder --root photos",
    "dclip prepare folder --root photos --size 64 --crop face --strict",
    config=CONFIG,
)
def folder(
    run: Run,
    root: Annotated[
        Path | None, option("--root", metavar="DIR", help="Folder of pictures, with subfolders.")
    ] = None,
    size: Size = None,
    crop: Annotated[
        str | None, option("--crop", metavar="HOW", help="center, face, or pixels: else center.")
    ] = None,
    split: Split = None,
    limit: Limit = None,
    style: FilteredPairs = None,
    strict: Strict = None,
    name: Name = None,
    seed: Seed = None,
) -> None:
    """Prepare a folder of pictures of anything aligned."""
    _prepare(
        run,
        root=root,
        size=size,
        crop=crop,
        split=split,
        limit=limit,
        style=style,
        strict=strict,
        name=name,
        seed=seed,
    )


@command(
    "dclip prepare faces",
    "dclip prepare faces --count 20000 --size 64",
    "dclip prepare faces --style all --name styles    # what a CLIP is trained on",
    config=CONFIG,
)
def faces(
    run: Run,
    count: Annotated[
        int | None, option("--count", metavar="N", help="How many faces to draw: else 6000.")
    ] = None,
    size: Size = None,
    style: Annotated[
        str | None,
        option("--style", metavar="STYLE", help="photo, another style, all, or pairs: else photo."),
    ] = None,
    split: Split = None,
    name: Name = None,
    seed: Seed = None,
) -> None:
    """Draw faces, with attributes and captions: no download needed."""
    _prepare(run, count=count, size=size, style=style, split=split, name=name, seed=seed)


def _prepare(run: Run, **values: Any) -> None:
    from dclip.stages import prepare as stage

    config = run.config(stage.PrepareConfig, source=run.words[-1], **values)
    run.stage(
        stage.run, config, next_commands=lambda made: [run.hint("train", "--data", made.name)]
    )


prepare = group(
    "Turn photos, or faces drawn by dclip itself, into a data artifact.",
    "dclip prepare celeba --root ~/celeba",
    "dclip prepare folder --root photos",
    "dclip prepare faces",
)
for function in (celeba, folder, faces):
    add(prepare, function)
