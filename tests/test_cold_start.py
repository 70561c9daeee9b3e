"""From nothing to an edit: what an error answers, what --make makes, what hints lead to."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_cli import COMMANDS, Shell, add_clip, save_photo
from small_store import CPU, SIZE, T, add_base, add_tuned, small_store

from dclip.cli.common import Run
from dclip.configs.prepare import PrepareConfig
from dclip.configs.train import TrainConfig
from dclip.data.sources import SOURCES
from dclip.stages import prepare, train
from dclip.store import Store

HINT = re.compile(r"^next: (dclip .*)$", re.MULTILINE)


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    monkeypatch.chdir(tmp_path)
    save_photo(tmp_path / "photo.jpg")
    return Shell(tmp_path / "store", capsys)


def small_photos(shell: Shell) -> Store:
    """A base of photos, and a CLIP, so that nothing is fetched."""
    store = Store(shell.store)
    for n in range(12):
        save_photo(Path("people") / f"{n}.png", seed=n, shape=(SIZE, SIZE))
    config = PrepareConfig("folder", root="people", domain="faces", size=SIZE, split="60/40")
    prepare.run(config, store, CPU)
    tiny = TrainConfig(name="people", size="micro", T=T, images=32, batch=8, lr=5e-3)
    train.run(tiny, store, CPU)
    add_clip(store)
    return store


def test_a_preset_in_an_empty_store_is_answered_with_the_whole_chain(shell: Shell) -> None:
    out, err = shell("edit", "photo.jpg", "--with", "smiling", code=3)
    assert out == ""
    first, fix, *steps = err.splitlines()
    assert first.startswith("error: smiling is a preset") and "photos" in first
    assert f"dclip edit photo.jpg --with smiling --make --root DIR --store {shell.store}" in fix
    assert [step.split()[0] for step in steps] == ["data", "model", "latents", "tuned", "edits"]
    assert all(step.split()[1] == "missing" for step in steps)
    chain = [step.split(None, 2)[2] for step in steps]
    assert chain[0] == "dclip prepare folder --root DIR --domain faces --name photos"
    assert chain[3] == "dclip finetune --preset smiling --latents photos --name smiling"
    assert not shell.store.exists()


def test_the_chain_for_drawn_faces_needs_no_photos(shell: Shell) -> None:
    _, err = shell("edit", "--data", "faces", "--with", "blond hair", code=3)
    fix, steps = err.splitlines()[1], err.splitlines()[2:]
    assert "--root" not in fix and "--make" in fix
    assert "prepare faces" in steps[0]
    assert steps[1].split()[:2] == ["model", "model/embedded"]
    assert "--preset 'blond hair'" in steps[2] and "--name blond-hair" in steps[3]


def test_what_is_there_is_no_part_of_what_is_missing(shell: Shell) -> None:
    small_photos(shell)
    _, err = shell("edit", "photo.jpg", "--with", "smiling", code=3)
    fix, steps = err.splitlines()[1], err.splitlines()[2:]
    assert "--root" not in fix
    assert [step.split()[:2] for step in steps] == [
        ["model", "model/people/v1"],
        ["latents", "missing"],
        ["tuned", "missing"],
        ["edits", "missing"],
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["photo.jpg", "--with", "smilng"], "smiling (a preset)"),
        (["photo.jpg"], "dclip edit photo.jpg --with smiling"),
        (["photo.jpg", "--with", "smiling", "--make"], "--root DIR"),
        (["photo.jpg", "--with", "smiling", "--root", "people"], "--make"),
    ],
)
def test_what_cannot_be_made_is_told_with_its_fix(
    shell: Shell, words: list[str], says: str
) -> None:
    _, err = shell("edit", *words, code=None)
    assert err.startswith("error: ") and "fix: " in err
    assert says in err
    assert not shell.store.exists()


def test_make_plans_every_stage_from_a_folder_of_photos(shell: Shell) -> None:
    for n in range(3):
        save_photo(Path("people") / f"{n}.png", seed=n)
    words = ["edit", "photo.jpg", "--with", "smiling:0.5", "--make", "--root", "people"]
    document = json.loads(shell(*words, "--dry-run", "--json")[0])
    plans = [*document["before"], document["plan"]]
    assert [plan["stage"] for plan in plans] == ["prepare", "train", "invert", "finetune", "edit"]
    assert plans[0]["config"]["domain"] == "faces"
    assert plans[4]["inputs"]["tuned"]["ref"] == "tuned/smiling, to be made"
    assert not list(shell.store.glob("*/*"))


def test_make_makes_what_is_missing_and_then_the_edit(shell: Shell) -> None:
    store = small_photos(shell)
    words = ["edit", "photo.jpg", "--with", "smiling:0.5", "--make", "--device", "cpu"]
    words.append("--no-align")  # the photo is noise
    made = json.loads(shell(*words, "--json")[0])
    assert (made["kind"], made["fresh"]) == ("edits", True)
    tuned = store.resolve("smiling", "tuned")
    assert store.input(tuned, "model").ref == "model/people/v1"
    assert store.input(tuned, "latents").name == "people"
    assert made["metrics"]["edit"] == "smiling:0.5"
    again = json.loads(shell(*words, "--json")[0])
    assert (again["fresh"], again["id"]) == (False, made["id"])
    # Now it is a tuned model as any other.
    assert json.loads(shell(*words[:4], "--no-align", "--json")[0])["id"] == made["id"]


def test_a_model_of_drawn_faces_is_no_answer_for_a_photo(shell: Shell) -> None:
    add_tuned(small_store(shell.store), "smiling", seed=3)
    words = ("--with", "smiling", "--device", "cpu")
    _, err = shell("edit", "photo.jpg", *words, code=3)
    assert "is a preset that no model in this store is tuned to for photos" in err
    assert "model    missing" in err
    _, err = shell("edit", "photo.jpg", *words, "--anyway", "--no-align")
    assert "warning: this model knows only faces that dclip draws" in " ".join(err.split())


def test_hints_never_name_the_command_that_was_run(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = {
        **{("prepare", source): ["--root", "x"] for source in SOURCES},
        ("finetune",): ["--target", "sketch"],
        ("slider",): ["--prompt", "smiling"],
        ("import",): ["model.ckpt"],
        ("encoder", "map"): ["--from", "x"],
        ("edit",): ["photo.jpg", "--with", "a", "--strength", "0.5"],
        ("eval",): ["--with", "a"],
    }
    store = Store(shell.store)
    prepare.run(PrepareConfig("faces", count=16, size=SIZE), store, CPU)
    base = add_base(store, "faces")
    manifest = replace(
        base.manifest,
        inputs={role: {"id": base.id, "ref": base.ref, "kind": "model"} for role in ("model",)},
    )
    hints: list[str] = []

    def stage(self: Run, work: Any, config: Any, *, next_commands: Any = None, **_: Any) -> None:
        for kind in ("tuned", "edits"):
            made = replace(base, manifest=replace(manifest, kind=kind))
            hints.extend(next_commands(made) if next_commands else [])

    monkeypatch.setattr(Run, "stage", stage)
    monkeypatch.setattr(Run, "stages", lambda self, work, **more: stage(self, work, None, **more))
    told = 0
    for words, command in COMMANDS:
        if getattr(command.callback, "config", None) is None:  # type: ignore[attr-defined]
            continue
        hints.clear()
        shell(*words, *needed.get(words, []))
        told += len(hints)
        for hint in hints:
            typed = shlex.split(hint)[1:]
            assert tuple(typed[: len(words)]) != words
            # It can be typed as it stands: every option is known, and no photo is named to a
            # model that knows drawn faces alone.
            assert "photo.jpg" not in typed or words == ("edit",)
            known = next(c for w, c in COMMANDS if tuple(typed[: len(w)]) == w)
            flags = {flag for param in known.params for flag in param.opts}  # type: ignore[attr-defined]
            assert {word for word in typed if word.startswith("--")} <= flags
    assert told > 8


def test_the_examples_in_the_help_can_be_typed(shell: Shell) -> None:
    for _, command in COMMANDS:
        epilog = command.epilog.replace("\\[", "[")  # type: ignore[attr-defined]
        for line in re.findall(r"^  (dclip [^#>|\n]*)", epilog, re.MULTILINE):
            typed = shlex.split(line.split('"$(')[0])[1:]
            known = next(c for w, c in COMMANDS if tuple(typed[: len(w)]) == w)
            flags = {f for param in known.params for f in (*param.opts, *param.secondary_opts)}  # type: ignore[attr-defined]
            used = {word.split("=")[0] for word in typed if re.match("-[-a-zA-Z]", word)}
            assert used <= flags, line


def test_the_chain_takes_celeba_for_what_it_is(shell: Shell) -> None:
    from dclip.stages.chain import Chain, _Making

    seen: list[Any] = []
    making = _Making(SimpleNamespace(data=None, parts=()), Store(shell.store), CPU, None)  # type: ignore[arg-type]
    chain = Chain(Store(shell.store), CPU)
    chain.make = lambda *args, **_: seen.append(args[3])  # type: ignore[method-assign]
    making.chain = chain
    (Path("data") / "img_align_celeba").mkdir(parents=True)
    (Path("plain")).mkdir()
    for place in ("data", "plain", "somewhere/img_align_celeba.zip"):
        making._prepare(place)
    assert [config.source for config in seen] == ["celeba", "folder", "celeba"]


def test_a_guide_is_recorded_by_name_and_path(shell: Shell) -> None:
    store = small_store(shell.store)
    clip = add_clip(store)
    words = ("--target", "sketch", "--updates", "1", "--batch", "2", "--device", "cpu")
    made = json.loads(shell("finetune", *words, "--json")[0])
    assert made["metrics"]["guides"] == [
        {"name": "clip/small/v1", "path": str(clip.path.resolve()), "id": clip.id}
    ]
