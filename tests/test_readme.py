"""Every command that the README shows is run here, as it is written there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dclip.data import faces
from dclip.data.images import to_float
from dclip.evaluation.judge import load_judge

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
PIPELINE = [shlex.split(line, comments=True) for line in BLOCKS[2].strip().splitlines()]

# The pipeline's defaults are for real photos; these make it small without changing a command.
SMALL = """
[prepare.celeba]
size = 32
[train]
size = "micro"
images = 96
batch = 8
[invert]
count = 9
steps = 4
[finetune]
clip = "embedded"
updates = 2
batch = 2
views = 0
[grid]
rows = 2
"""


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    assert command[0] == "dclip"
    return subprocess.run(
        [sys.executable, "-m", "dclip", *command[1:]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photos = tmp_path / "DIR" / "img_align_celeba"
    photos.mkdir(parents=True)
    for i in range(24):
        face = faces.draw(faces.sample(5, i), size=64)
        Image.fromarray(np.pad(face, ((90, 64), (57, 57), (0, 0)), mode="edge")).save(
            photos / f"{i + 1:06d}.jpg"
        )
    Image.fromarray(faces.draw(faces.sample(6, 0), size=96)).save(tmp_path / "photo.jpg")
    (tmp_path / "dclip.toml").write_text(SMALL)
    return tmp_path


def test_the_pipeline_runs_as_written(folder: Path) -> None:
    for command in PIPELINE:
        done = run(command, folder)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr}"
    made = {p.parent.parent.name for p in (folder / "artifacts").glob("*/*/v1")}
    assert made == {"data", "model", "latents", "tuned", "edits", "figure"}
    assert list((folder / "artifacts").glob("edits/*/v1/images/photo*"))  # .jpg with dclip[photos]
    assert list((folder / "artifacts").glob("figure/*/v1/panel.pdf"))


def test_commands_named_in_the_text_exist(tmp_path: Path) -> None:
    named = set(re.findall(r"`dclip ([a-z]+)[^`]*`", README)) | {c[1] for c in PIPELINE}
    for name in named - {"COMMAND"}:
        assert run(["dclip", name, "--help"], tmp_path).returncode == 0, name


def test_the_two_commands_install_into_an_environment_of_their_own() -> None:
    demo, tests = BLOCKS[0].strip(), BLOCKS[1].strip()
    assert demo.splitlines() == [demo]
    assert demo.endswith("&& .venv/bin/dclip demo")
    assert tests.endswith("&& .venv/bin/python -m pytest")
    for command in (demo, tests):
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_the_tree_names_what_is_there() -> None:
    tree = README.split("## The tree")[1].split("```")[1]
    named = re.findall(r"^  (\w+(?:/|\.py))", tree, flags=re.MULTILINE)
    for name in named:
        assert (ROOT / "dclip" / name).exists(), name
    folders = {
        p.name for p in (ROOT / "dclip").iterdir() if p.is_dir() and not p.name.startswith("_")
    }
    assert folders == {n.rstrip("/") for n in named if n.endswith("/")}


def test_every_page_that_the_readme_links_to_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).is_file(), target


def test_the_edit_by_words_runs_as_written(tmp_path: Path) -> None:
    (command,) = re.findall(r"`(dclip edit face\.png [^`]*)`", README)
    drawn = faces.draw(faces.sample(20261, 4), size=64)
    Image.fromarray(drawn).save(tmp_path / "face.png")
    done = run(shlex.split(command), tmp_path)
    assert done.returncode == 0, done.stderr
    edited = np.asarray(Image.open(tmp_path / "face-a-face-with-glasses.png").convert("RGB"))
    judge = load_judge(ROOT / "dclip" / "assets" / "judge")
    both = torch.from_numpy(np.stack([drawn, edited]).transpose(0, 3, 1, 2).copy())
    before, after = judge(to_float(both)).attribute("glasses")
    assert before < 0.5 < after
