"""One command line in this process: its exit code, stdout and stderr."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from small_guide import write_clip
from small_store import CPU

from dclip.cli.app import app, main
from dclip.store import Artifact, Staging, Store


class Shell:
    """Runs ``dclip`` with a store."""

    def __init__(self, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.store, self.capsys = store, capsys

    def __call__(self, *words: str, code: int | None = 0) -> tuple[str, str]:
        """Stdout and stderr; the exit code is checked unless it is None."""
        self.capsys.readouterr()
        got = main([*words, "--store", str(self.store)])
        out, err = self.capsys.readouterr()
        assert code is None or got == code, err
        return out, err


def leaves(command: object, words: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], object]]:
    """Every subcommand that does something: its words and Typer's own object."""
    children = getattr(command, "commands", None)
    if children is None:
        return [(words, command)]
    return [leaf for name, child in children.items() for leaf in leaves(child, (*words, name))]


COMMANDS = leaves(typer.main.get_command(app))


def save_photo(path: Path, seed: int = 0, shape: tuple[int, int] = (24, 20)) -> Path:
    """A photo of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def add_clip(store: Store) -> Artifact:
    """A CLIP of random weights."""

    def make(staging: Staging) -> dict[str, float]:
        write_clip(staging.path)
        return {}

    return store.build(
        stage="clip.train",
        kind="clip",
        name="small",
        config={},
        inputs={},
        seed=0,
        context=CPU,
        make=make,
    )
