"""benchmarks/quality.py: parts add up, tables say what the rows say, prose is left alone. And what
benchmarks/guide.py says of a CLIP that is known."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dclip.guidance.clip import Move
from dclip.recipes import RECIPES
from dclip.store import Store

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
FILE = BENCHMARKS / "quality.py"


@pytest.fixture(scope="module")
def quality() -> ModuleType:
    return loaded(FILE)


def loaded(file: Path) -> ModuleType:
    spec = util.spec_from_file_location(f"{file.stem}_benchmark", file)
    assert spec is not None and spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(target: str, recipe: str, **more: Any) -> dict[str, Any]:
    return {"target": target, "recipe": recipe, "faces": 64, "success": 0.953, **more}


def test_only_what_is_between_the_markers_changes(quality: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text("# Results\n\nBy hand.\n")
    quality.update(page, f"{quality.BEGIN}\nfirst\n{quality.END}")
    page.write_text(page.read_text() + "\nMore by hand.\n")
    quality.update(page, f"{quality.BEGIN}\nsecond\n{quality.END}")
    text = page.read_text()
    assert text.startswith("# Results\n\nBy hand.\n\n") and text.endswith("\nMore by hand.\n")
    assert "second" in text and "first" not in text


def test_a_table_says_what_was_measured_and_no_more(quality: ModuleType) -> None:
    rows = [row("sketch", "stepwise", kept_psnr=None), row("sketch", "unrolled", kept_psnr=28.04)]
    lines = quality.table(rows, "recipe").splitlines()
    assert lines[0] == "| recipe | faces | success | rest kept, dB |"
    assert lines[2:] == ["| stepwise | 64 | 95 % | – |", "| unrolled | 64 | 95 % | 28.0 |"]


def test_parts_add_up_and_rows_of_other_models_go(
    quality: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    now = {role: store.resolve("embedded", role).id for role in quality.FIXED}
    asked: list[tuple[str, str]] = []

    def measure(store: Any, target: str, recipe: str, options: Any, known: Any, keep: Any) -> None:
        asked.append((target, recipe))
        keep(row(target, recipe, **now))
        if target == "cartoon":
            raise KeyboardInterrupt  # tuned, and not scored yet
        keep(row(target, recipe, eval="e", **now))

    def picture(store: Any, target: str, rows: Any, folder: Path) -> None:
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / f"quality-{target}.jpg")

    monkeypatch.setattr(quality, "measure", measure)
    monkeypatch.setattr(quality, "picture", picture)
    data = tmp_path / "results.json"
    data.write_text(json.dumps([row("zombie", "stepwise", **{**now, "clip": "another"})]))
    first, second = list(RECIPES)[:2]
    for target, recipe in (("cartoon", first), ("smiling", second), ("sketch", first)):
        words = ["quality", "--store", str(store.root), "--docs", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", [*words, "--targets", target, "--recipes", recipe])
        with suppress(KeyboardInterrupt):
            quality.main()
    assert asked == [("cartoon", first), ("smiling", second), ("sketch", first)]
    kept = [(r["target"], r["recipe"]) for r in json.loads(data.read_text())]
    assert kept == [("sketch", first), ("cartoon", first), ("smiling", second)]
    page = (tmp_path / "results.md").read_text()
    assert (
        "### smiling" in page
        and "(quality-sketch.jpg)" in page
        and not {"zombie", "cartoon"} & set(page.split())
    )


def test_a_guide_that_sees_brightness_knows_the_way_to_a_brighter_picture() -> None:
    """And it believes half of the way to be half."""
    guide = loaded(BENCHMARKS / "guide.py")

    class Brightness:
        """Embeds the mean of a picture as an angle."""

        def embed_image(self, x: torch.Tensor) -> torch.Tensor:
            angle = x.mean((1, 2, 3)) / 10
            return torch.stack([angle.cos(), angle.sin()], dim=1)

        def move(self, target: str, source: str) -> Move:
            return Move(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))

    dark, bright = torch.full((2, 3, 8, 8), -0.5), torch.full((2, 3, 8, 8), 0.5)
    for share in (0.0, 0.5):
        x = dark + share * (bright - dark)
        cosine, done = guide.known(Brightness(), "blond hair", dark, bright, x)
        assert cosine == pytest.approx(1, abs=1e-4) and done == pytest.approx(share, abs=1e-4)
    darker, _ = guide.known(Brightness(), "blond hair", dark, dark - 0.3, dark)
    assert darker == pytest.approx(-1, abs=1e-4)
