"""dclip from a notebook or a script: functions, results, errors."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_cli import save_photo
from small_store import SIZE, STEPS, R, small_store

import dclip
from dclip.errors import BadInput, MissingArtifact
from dclip.store import Store

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("api") / "store"
    small_store(root)
    return root


def test_the_import_is_instant_and_names_are_there() -> None:
    code = (
        "import sys, dclip\n"
        "heavy = {'torch', 'numpy', 'PIL', 'pydantic', 'rich', 'typer'} & set(sys.modules)\n"
        "print(sorted(heavy), 'edit' in dir(dclip), dclip.edit.__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[] True edit\n"
    with pytest.raises(AttributeError, match="no attribute 'edti'"):
        dclip.edti  # noqa: B018


def test_every_function_is_documented_and_runs_its_stage() -> None:
    for name in dclip.__all__:
        assert getattr(dclip, name).__doc__, name


def test_stages_follow_one_another_and_take_results(tmp_path: Path) -> None:
    common = {"store": tmp_path / "s", "device": "cpu", "workers": 1, "quiet": True}
    data = dclip.prepare("faces", count=24, size=SIZE, split="60/40", **common)
    model = dclip.train(data=data, size="micro", T=20, images=16, batch=8, **common)
    latents = dclip.invert(data=data, model=model, r=R, steps=STEPS, count=4, **common)
    assert latents.manifest.inputs["data"]["ref"] == data.ref == "data/faces/v1"
    assert latents.manifest.inputs["model"]["id"] == model.id
    assert [each.ref for each in dclip.ls(store=tmp_path / "s")] == [
        data.ref,
        latents.ref,
        model.ref,
    ]
    assert not dclip.invert(data=data, model=model, r=R, steps=STEPS, count=4, **common).fresh


def test_an_edit_of_a_file_and_of_a_picture(root: Path, tmp_path: Path) -> None:
    path = save_photo(tmp_path / "me.png", shape=(SIZE, SIZE))
    common = {"store": root, "device": "cpu", "quiet": True, "anyway": True}
    made = dclip.edit(path, with_="sketch:0.5", **common)
    assert made.manifest.config["parts"][0]["strength"] == 0.5
    assert [image.size for image in made.images] == [(SIZE, SIZE)]
    with Image.open(path) as image:
        held = dclip.edit([image.copy()], with_="sketch:0.5", **common)
    assert np.array_equal(np.asarray(held.images[0]), np.asarray(made.images[0]))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["me.png"]
    dclip.edit(path, with_="sketch:0.5", out=tmp_path / "out", **common)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["me-sketch_0.5.png"]
    with pytest.raises(BadInput, match="a photo is a ndarray"):
        dclip.edit([np.zeros((4, 4, 3))], **common)


def test_a_result_shows_as_a_picture(root: Path) -> None:
    latents = dclip.find("latents/faces", store=root)
    png = latents._repr_png_()
    assert png is not None and png == (latents.path / "preview.png").read_bytes()
    page = latents._repr_html_()
    assert "latents/faces/v1" in page
    shown = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert [base64.b64decode(each) for each in shown] == [png]
    assert repr(latents).startswith("<latents/faces/v1  ")
    # A tuned model made here has no picture, and is shown by its name.
    tuned = dclip.find("tuned/sketch", store=root)
    assert tuned._repr_png_() is None and "tuned/sketch/v1" in tuned._repr_html_()


def test_losses_are_keywords_as_they_are_options(root: Path) -> None:
    from dclip.api import _config
    from dclip.configs.finetune import FinetuneConfig

    config = _config(FinetuneConfig, {"target": "sketch", "identity": 0.5, "clip": "x"}, {})
    assert (config.weights, config.clip) == ({"identity": 0.5}, ("x",))


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"stpes": 3}, "steps"), ({"r": "many"}, "a timestep, as 100"), ({"method": "ddin"}, "ddim")],
)
def test_errors_carry_their_fix_into_the_traceback(
    root: Path, settings: dict[str, object], says: str
) -> None:
    with pytest.raises(BadInput) as caught:
        dclip.invert(store=root, **settings)
    assert says in " ".join(caught.value.__notes__)


def test_a_cold_start_tells_the_chain(tmp_path: Path) -> None:
    save_photo(tmp_path / "me.png")
    with pytest.raises(MissingArtifact) as caught:
        dclip.edit(tmp_path / "me.png", with_="smiling", store=tmp_path / "none", quiet=True)
    assert any("dclip finetune --preset smiling" in note for note in caught.value.__notes__)


def test_the_store_is_that_of_the_environment(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DCLIP_STORE", str(root))
    assert {each.kind for each in dclip.ls()} >= {"data", "latents", "model", "tuned"}
    assert dclip.ls(store=Store(tmp_path / "none")) == []
