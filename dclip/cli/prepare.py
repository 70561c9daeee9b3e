"""``dclip prepare``: photos or rendered faces in, a data artifact out."""

from __future__ import annotations

from dclip.cli.common import Run, add, command, group
from dclip.configs.prepare import PrepareConfig


@command(
    "dclip prepare celeba --root ~/celeba",
    "dclip prepare celeba --root img_align_celeba.zip --size 64 --limit 5000",
    "dclip prepare celeba --root ~/celeba --download --split official",
    "dclip prepare celeba --root ~/celeba --style pairs    # for dclip clip train",
    config=PrepareConfig,
    fixed={"source": "celeba"},
)
def celeba(run: Run, config: PrepareConfig) -> None:
    """Prepare CelebA, in any form that people have it in.

    The lists of attributes, partition and identities are used where they lie beside the pictures.
    """
    _prepare(run, config)


@command(
    "dclip prepare folder --root photos",
    "dclip prepare folder --root photos --size 64 --crop face --strict",
    config=PrepareConfig,
    fixed={"source": "folder"},
)
def folder(run: Run, config: PrepareConfig) -> None:
    """Prepare a folder of pictures of anything aligned."""
    _prepare(run, config)


@command(
    "dclip prepare faces",
    "dclip prepare faces --count 20000 --size 64",
    "dclip prepare faces --style all --name styles    # what a CLIP is trained on",
    config=PrepareConfig,
    fixed={"source": "faces"},
)
def faces(run: Run, config: PrepareConfig) -> None:
    """Draw faces, with attributes and captions: no download needed."""
    _prepare(run, config)


def _prepare(run: Run, config: PrepareConfig) -> None:
    from dclip.stages import prepare as stage

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
