"""The oldest releases that pyproject.toml admits work: installed in an environment of their own.

Several gigabytes are fetched, so this runs by ``pytest -m slow tests/test_lower_bounds.py`` alone.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lower_bounds() -> list[str]:
    """Every dependency at the oldest release that is admitted, ``name==version``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = [re.fullmatch(r"([\w-]+)>=([\d.]+)", each) for each in project["dependencies"]]
    return [f"{found[1]}=={found[2]}" for found in bounds if found]


def test_every_dependency_declares_its_oldest_release() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert len(lower_bounds()) == len(project["dependencies"])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_pipeline_runs_with_the_oldest_releases(tmp_path: Path) -> None:
    def call(*words: str) -> str:
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    call(sys.executable, "-m", "venv", "old")
    python = str(tmp_path / "old" / "bin" / "python")
    (tmp_path / "oldest.txt").write_text("\n".join(lower_bounds()) + "\n")
    call(python, "-m", "pip", "install", "-q", "-c", "oldest.txt", str(ROOT))
    dclip = str(tmp_path / "old" / "bin" / "dclip")
    cpu = ("--device", "cpu")
    call(dclip, "prepare", "faces", "--count", "24", "--size", "16")
    call(dclip, "train", "--size", "micro", "-T", "20", "--images", "32", "--batch", "8", *cpu)
    call(dclip, "sample", "--model", "faces", "--count", "2", "--steps", "4", *cpu)
    call(dclip, "invert", "--model", "faces", "--r", "8", "--steps", "4", "--count", "8", *cpu)
    tuning = ("--target", "sketch", "--clip", "embedded", "--updates", "2", "--batch", "2")
    call(dclip, "finetune", *tuning, *cpu)
    call(dclip, "edit", "--data", "faces", "--with", "sketch", "--count", "2", *cpu)
    call(dclip, "grid", "--with", "sketch", "--rows", "2", *cpu)
    call(dclip, "verify", "--full")
