"""``dclip prepare``: photos or rendered faces in, a data artifact out."""

from __future__ import annotations

from dclip.cli.common import Function, Run, add, command, group
from dclip.configs.prepare import DRAWN, PrepareConfig
from dclip.data.sources import SOURCES, Source


def _of_files(name: str, source: Source) -> Function:
    """The command that prepares a source of :data:`SOURCES`."""

    def prepare(run: Run, config: PrepareConfig) -> None:
        _prepare(run, config)

    prepare.__name__, prepare.__doc__ = name, source.help
    return command(*source.examples, config=PrepareConfig, fixed={"source": name})(prepare)


@command(
    "dclip prepare faces",
    "dclip prepare faces --count 20000 --size 64",
    "dclip prepare faces --style all --name styles    # what a CLIP is trained on",
    config=PrepareConfig,
    fixed={"source": DRAWN},
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
for name, source in SOURCES.items():
    add(prepare, _of_files(name, source))
add(prepare, faces)
