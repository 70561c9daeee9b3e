"""Several targets in one run of the command: each is what it would be alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import Stop
from small_cli import Shell
from small_guide import write_clip
from small_store import CPU, copied

from dclip.configs.finetune import FinetuneConfig
from dclip.errors import BadInput
from dclip.stages import finetune
from dclip.stages.finetune import for_targets
from dclip.store import Store

SMALL = ("--latents", "faces", "--updates", "2", "--batch", "2", "--rank", "2",
         "--decode-steps", "2", "--recipe", "stepwise")  # fmt: skip


@pytest.fixture
def store(tmp_path: Path, trained: Path) -> Store:
    return copied(trained, tmp_path / "store")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_clip(tmp_path_factory.mktemp("clip") / "tiny"))


def test_each_target_is_what_it_would_be_alone(
    store: Store, clip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(store.root, capsys)
    words = ("--target", "sketch", "--also", "a smiling person", *SMALL, "--clip", clip, "--json")
    out, err = shell("finetune", *words)
    made = json.loads(out)["made"]
    assert [each["name"] for each in made] == ["sketch", "a-smiling-person"]
    assert "target 1 of 2: sketch" in err and "target 2 of 2: a smiling person" in err
    for target, each in zip(("sketch", "a smiling person"), made, strict=True):
        alone, _ = shell("finetune", "--target", target, *SMALL, "--clip", clip, "--json")
        assert json.loads(alone)["id"] == each["id"] and not json.loads(alone)["fresh"]


def test_a_dry_run_plans_all_of_them(
    store: Store, clip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(store.list("tuned"))
    words = ("--target", "sketch", "--also", "smiling", *SMALL, "--clip", clip)
    out, _ = Shell(store.root, capsys)("finetune", *words, "--name", "mine", "--dry-run", "--json")
    found = json.loads(out)
    assert [found["before"][0]["name"], found["plan"]["name"]] == ["mine-sketch", "mine-smiling"]
    assert len(store.list("tuned")) == before


def test_an_interrupted_run_goes_on_with_the_target_that_it_stopped_in(
    store: Store, clip: str
) -> None:
    config = FinetuneConfig(
        target="sketch", clip=(clip,), latents="faces", updates=3, batch=2, rank=2,
        decode_steps=2, recipe="stepwise",
    )  # fmt: skip
    from dataclasses import replace

    from dclip.training import loop

    configs = for_targets(config, ["smiling"])
    before = {each.id for each in store.list("tuned")}
    stop = Stop(after=8)  # updates of both, and pictures of panels, are advances
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            finetune.run_each(configs, store, replace(CPU, report=stop))
    done = [each for each in store.list("tuned") if each.id not in before]
    again = finetune.run_each(configs, store, CPU)
    assert [each.fresh for each in again] == [not done, True]
    assert all(again[0].id == each.id for each in done)


@pytest.mark.parametrize(
    ("also", "said"),
    [
        (("--also", "sketch"), "there twice"),
        (("--also", " "), "the prompt is empty"),
        (("--also", "smiling", "--also", "smiling"), "there twice"),
    ],
)
def test_bad_targets_are_told_before_anything_is_tuned(
    store: Store, clip: str, capsys: pytest.CaptureFixture[str], also: tuple[str, ...], said: str
) -> None:
    before = len(store.list("tuned"))
    words = ("--target", "sketch", *also, *SMALL, "--clip", clip)
    _, err = Shell(store.root, capsys)("finetune", *words, code=2)
    assert said in err and "Traceback" not in err
    assert len(store.list("tuned")) == before


def test_a_later_target_that_cannot_be_tuned_stops_before_the_first(
    store: Store, clip: str
) -> None:
    config = FinetuneConfig(target="sketch", clip=(clip,), latents="faces", updates=2)
    same = for_targets(config, ["a photo of a person"])  # what is there already
    before = len(store.list("tuned"))
    with pytest.raises(BadInput, match="same"):
        finetune.run_each(same, store, CPU)
    assert len(store.list("tuned")) == before
