"""Every setting of every stage counts: another value makes another result, and the first value the
first result again. And a setting that has no effect with the others is refused."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import photo_scenes as scenes
import pytest
import torch
import typer
from PIL import Image
from settings_cases import DROP, ELSEWHERE, STAGES, Stage
from small_guide import write_clip
from small_store import CPU, SIZE, add_base, add_tuned, copied
from test_data_packed import png, save_parquet
from torch import nn

import dclip.configs
from dclip import hub
from dclip.cli.app import app, main
from dclip.config import Excludes, Needs, marks, spelled
from dclip.configs.autoencoder_train import AutoencoderTrainConfig
from dclip.configs.edit import EditConfig
from dclip.configs.guidance import GuidanceConfig, UpdateConfig
from dclip.configs.invert import InvertConfig
from dclip.configs.judge_train import JudgeTrainConfig
from dclip.configs.prepare import PrepareConfig
from dclip.configs.train import TrainConfig
from dclip.data import celeba
from dclip.data.dataset import DataSet
from dclip.errors import BadInput
from dclip.guidance.kinds import LOSSES
from dclip.models.prediction import FromVelocity
from dclip.photos.find import Face
from dclip.stages import autoencoder_train, edit, invert, judge_train, prepare, train
from dclip.store import Artifact, Planned

SHARED = (GuidanceConfig, UpdateConfig)  # parts of finetune's


def config_classes() -> Iterator[type]:
    """Every config of a stage that there is."""
    for module in pkgutil.iter_modules(dclip.configs.__path__):
        found = importlib.import_module(f"dclip.configs.{module.name}")
        for cls in vars(found).values():
            own = inspect.isclass(cls) and cls.__module__ == found.__name__
            if own and hasattr(cls, "__pydantic_fields__") and cls not in SHARED:
                yield cls


def fields(cls: type) -> list[str]:
    return [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]


# --- what the stages work on


class World:
    """A store with a little of everything, and files beside it."""

    def __init__(self, root: Path, trained: Path) -> None:
        self.store = copied(trained, root / "store")
        self.files: dict[str, str] = {"nothing": str(root / "nothing")}
        self.outcomes: dict[str, Any] = {}
        for number, name in enumerate(("clip", "clip2")):
            self.files[name] = str(write_clip(root / name, context=64, seed=number))
        self._artifacts()
        self._files(root)

    def _artifacts(self) -> None:
        store = self.store
        for name, style, size in (
            ("plain", "all", 16),
            ("pairs", "pairs", 16),
            ("large", "all", 32),
        ):
            drawn = PrepareConfig("faces", count=24, size=size, style=style, name=name, seed=1)
            prepare.run(drawn, store, CPU)
        add_base(store, "other", seed=5)
        auto = AutoencoderTrainConfig(data="plain", name="auto", images=16, batch=4)
        autoencoder_train.run(auto, store, CPU)
        reader = TrainConfig(
            data="faces", name="reader", size="micro", T=20, images=64, batch=16, lr=5e-2, ema=0.0,
            condition="text", encoder=self.files["clip"],
        )  # fmt: skip
        train.run(reader, store, CPU)
        add_tuned(store, "smiling", seed=2, full=True)
        for seed, name in enumerate(("read", "read-too")):
            read = InvertConfig(data="faces", model="reader", r=12, steps=4, count=8, seed=seed)
            invert.run(dataclasses.replace(read, name=name), store, CPU)
        more = InvertConfig(data="faces", model="faces", r=12, steps=4, count=24, seed=1)
        invert.run(dataclasses.replace(more, name="more"), store, CPU)
        for seed, name in enumerate(("judge", "other-judge")):
            # They differ enough that a few pictures tell.
            little = JudgeTrainConfig(data=("pairs",), name=name, images=8 + 40 * seed, batch=4)
            judge_train.run(dataclasses.replace(little, seed=seed, lr=3e-2), store, CPU)
        for name, tuned in (("edits", "sketch"), ("other-edits", "smiling")):
            few = EditConfig(data="faces", count=2, tuned=(tuned,), name=name)
            edit.run(few, store, CPU)
        data = DataSet(store.resolve("faces", "data").path)
        chosen = data.split("train")
        counts = {n: int((data.attribute(n)[chosen] == 1).sum()) for n in data.attribute_names}
        some = next(name for name, count in counts.items() if 8 < count < len(chosen) - 8)
        self.files |= {"where": f"{some}=1", "expected": f"{data.attribute_names[0]}=1"}

    def _files(self, root: Path) -> None:
        rng = np.random.default_rng(0)

        def folder(name: str, files: Mapping[str, str], shape: tuple[int, int]) -> None:
            path = root / name
            path.mkdir(parents=True)
            for file in files:
                if file.startswith("broken"):
                    (path / file).write_bytes(b"no picture")
                else:
                    noise = rng.integers(0, 255, (*shape, 3), dtype=np.uint8)
                    Image.fromarray(noise).save(path / file)
                self.files[files[file]] = str(path / file)
            self.files[name] = str(path)

        folder("album", {"a.png": "photo", "b.png": "photo2"}, (40, 48))
        folder("photos", {"c.png": "photo3"}, (40, 48))
        folder("spoilt", {"d.png": "photo4", "broken.png": "broken"}, (40, 48))
        white = np.zeros((40, 48), np.uint8)
        white[:, 24:] = 255
        Image.fromarray(white).save(root / "mask.png")
        self.files["mask"] = str(root / "mask.png")
        (root / "party").mkdir()
        party = [(110, 110), (310, 110)]
        sitters = [scenes.Sitter(n, place, 140 + 20 * n) for n, place in enumerate(party)]
        self.faces = [scenes.face_at(sitter) for sitter in sitters]
        place = scenes.save(scenes.scene((420, 220), sitters), root / "party" / "party.png")
        self.files["party"] = str(place)
        folder("celeba/img_align_celeba", {"000001.jpg": "star"}, (218, 178))
        self.files["celeba"] = str(root / "celeba")
        (root / "nothing").mkdir()
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 8))
        self.files["face"] = str(root / "face.pt")
        torch.jit.script(network).save(self.files["face"])  # type: ignore[no-untyped-call]
        data = DataSet(self.store.resolve("pairs", "data").path)
        name = data.attribute_names[0]
        sides = [{"where": [f"{name}={v}"], "prompts": [f"{v} of it"]} for v in (1, -1)]
        self.files["contrasts"] = str(root / "contrasts.json")
        Path(self.files["contrasts"]).write_text(json.dumps([{"name": "it", "sides": sides}]))

    def value(self, value: Any) -> Any:
        """A value of a case, with files for their names."""
        if isinstance(value, tuple):
            return tuple(self.value(each) for each in value)
        return self.files[value[1:]] if isinstance(value, str) and value[:1] == "@" else value

    def config(self, stage: Stage, *layers: Mapping[str, Any]) -> Any:
        values = {"name": "made", "precision": "fp32"}  # no name that a case refers to
        values = {k: v for k, v in values.items() if k in fields(stage.config)}
        for layer in (stage.base, *layers):
            values |= layer
        given = {k: self.value(v) for k, v in values.items() if v is not DROP}
        return stage.config(**given)

    def outcome(self, stage: Stage, config: Any, looks_at: str, *, again: bool = False) -> Any:
        """What a piece of work comes to: what is looked at, or a refusal."""
        work = importlib.import_module(f"dclip.stages.{stage.module}").run
        key = f"{stage.module} {looks_at} {config}"
        if key in self.outcomes and not again:
            return self.outcomes[key]
        context = dataclasses.replace(CPU, force=again or looks_at in ("calls", "types"))
        try:
            with Calls() as calls:
                if looks_at == "plan":
                    with pytest.raises(Planned) as planned:
                        work(config, self.store, dataclasses.replace(CPU, dry_run=True))
                    found: Any = [*planned.value.before, planned.value.plan]
                else:
                    found = seen(stage, work(config, self.store, context), looks_at, calls)
        except BadInput as error:
            found = error
        self.outcomes[key] = found
        return found


class Finder:
    """Finds the faces of the party, and in a small photo one that fills it."""

    version = "of tests"

    def __init__(self, party: list[Face]) -> None:
        self.party = party

    def find(self, pixels: np.ndarray) -> list[Face]:
        height, width = pixels.shape[:2]
        if width > 100:
            return list(self.party)
        small = scenes.Sitter(0, (width / 2, height / 2), min(width, height))
        found = scenes.face_at(small)
        return [dataclasses.replace(found, box=(0.0, 0.0, float(width), float(height)))]


class Calls:
    """The batch sizes of all calls of noise predictors, and the types that layers compute in."""

    def __enter__(self) -> Calls:
        self.sizes: list[int] = []
        self.types: set[torch.dtype] = set()

        def record(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(module, FromVelocity):
                self.sizes.append(len(inputs[0]))
            if isinstance(module, nn.Conv2d):
                self.types.add(output.dtype)

        self.handle = nn.modules.module.register_module_forward_hook(record)
        return self

    def __exit__(self, *error: object) -> None:
        self.handle.remove()


def seen(stage: Stage, made: Artifact, looks_at: str, calls: Calls) -> Any:
    if looks_at == "files":
        found = {f.path: f.sha256 for f in made.manifest.files if f.path.startswith(stage.core)}
        assert found
        return found
    if looks_at in ("calls", "types"):
        return calls.sizes if looks_at == "calls" else calls.types
    return {"name": made.name, "domain": made.config.get("domain"), **made.metrics}[looks_at]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Iterator[World]:
    """With curves and sheets left out, which no setting is seen in."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("train", "finetune", "clip_train", "judge_train", "autoencoder_train"):
            patch.setattr(f"dclip.stages.{module}.save_curves", lambda *_, **__: None)
        patch.setattr("dclip.stages.train.PANEL_IMAGES", 1)
        patch.setattr("dclip.stages.finetune.SNAPSHOTS", 1)
        patch.setattr("dclip.stages.finetune.HELD_OUT", 2)
        patch.setattr("dclip.stages.judge_train.SCORED", 2)
        # Of one vocabulary for all CLIPs, which takes longer to read than they take to run.
        patch.setattr(open_clip, "get_tokenizer", functools.cache(open_clip.get_tokenizer))
        blank = Image.new("RGB", (8, 8))
        patch.setattr("dclip.stages.finetune.panel", lambda *_, **__: blank)
        patch.setattr("dclip.stages.grid.save_pdf", lambda *_, **__: None)
        patch.setattr(train._Training, "_panel", lambda *_: None)
        patch.setattr(edit._Editing, "_panel", lambda *_: None)
        patch.setattr("dclip.stages.eval._Evaluation._panels", lambda *_: None)
        made = World(tmp_path_factory.mktemp("world"), trained)
        patch.setattr("dclip.editing.whole.FaceFinder", lambda: Finder(made.faces))
        patch.setattr("dclip.editing.whole.available", lambda: True)
        yield made


CASES = [
    pytest.param(name, field, id=f"{name}-{field}")
    for name, stage in STAGES.items()
    for field in [*fields(stage.config), *(each for each in stage.cases if "." in each)]
]


def test_every_config_has_a_stage_and_every_loss_a_case() -> None:
    assert {stage.config for stage in STAGES.values()} | set(ELSEWHERE) == set(config_classes())
    named = {each.removeprefix("weights.") for each in STAGES["finetune"].cases if "." in each}
    assert named == set(LOSSES)
    for stage in STAGES.values():
        assert {each for each in stage.cases if "." not in each} <= set(fields(stage.config))


@pytest.mark.parametrize(("name", "field"), CASES)
def test_another_value_makes_another_result(world: World, name: str, field: str) -> None:
    stage = STAGES[name]
    case = stage.case(field)
    assert field.split(".")[0] in case.change, "the case changes another field"
    first = world.outcome(stage, world.config(stage, case.base), case.looks_at)
    other = world.outcome(stage, world.config(stage, case.base, case.change), case.looks_at)
    refusals = [each for each in (first, other) if isinstance(each, BadInput)]
    if case.refused is None:
        assert not refusals and first != other
    else:
        (refusal,) = refusals
        assert case.refused in refusal.message


@pytest.mark.parametrize("name", [name for name in STAGES if name != "demo"])
def test_the_first_values_make_the_first_result_again(world: World, name: str) -> None:
    stage = STAGES[name]
    config = world.config(stage)
    first = world.outcome(stage, config, "files")
    assert world.outcome(stage, config, "files", again=True) == first


@pytest.fixture(autouse=True)
def _no_download(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """What would be fetched lies beside the store."""

    def download(root: str) -> None:
        celeba_folder = Path(root) / "celeba" / "img_align_celeba"
        celeba_folder.mkdir(parents=True)
        Image.new("RGB", (178, 218), (200, 100, 50)).save(celeba_folder / "000001.jpg")

    monkeypatch.setattr(celeba, "download", download)
    if "prepare" not in request.node.name:
        return
    pets = request.getfixturevalue("tmp_path_factory").getbasetemp() / "pets"
    files = [f"{each}-00000.parquet" for each in ("default/train", "default/test", "other/train")]
    if not pets.exists():
        for number, file in enumerate(files):
            (pets / file).parent.mkdir(parents=True, exist_ok=True)
            save_pets(pets / file, number)
    monkeypatch.setattr(hub, "names", lambda *_, **__: ("0" * 40, files))
    monkeypatch.setattr(hub, "fetch", lambda *_, **__: pets)


def save_pets(path: Path, seed: int) -> None:
    """A data set's shard with two columns of pictures and two of captions."""
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 16, 3), np.uint8)
    second = [png(255 - pixels[i]) for i in range(6)]
    save_parquet(path, pixels, range(6), second=second, caption=["a pet"] * 6)


# --- settings without an effect


def effects() -> Iterator[tuple[Stage, str, Needs | Excludes]]:
    for stage in STAGES.values():
        for field in fields(stage.config):
            for mark in marks(stage.config, field):
                if isinstance(mark, Needs | Excludes):
                    yield stage, field, mark


# What a config cannot do without; a condition's own setting comes over it.
LEAST: Mapping[str, Mapping[str, Any]] = {
    "prepare": {"source": "folder", "root": "x"},
    "finetune": {"target": "x"},
    "edit": {"photos": ("x.png",)},
    "encoder_map": {"source": "x"},
}
WITHOUT: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("edit", "data"): {"photos": ()},  # data stand for photos, and preset for a target
    ("finetune", "preset"): {"target": None},
}


def ineffective(stage: Stage, field: str, mark: Needs | Excludes) -> dict[str, Any]:
    """Values of which one, ``field``, has no effect."""
    values = dict(LEAST.get(stage.module, {}))
    if isinstance(mark, Excludes):
        values |= WITHOUT.get((stage.module, mark.field), {})
        values[mark.field] = stage.case(mark.field).change[mark.field]
    elif mark.values:
        every = [*stage.case(mark.field).change.values(), "faces", "folder", "ddim", "tiny", "none"]
        allowed = [each for each in every if _allowed(stage.config, mark.field, each)]
        values[mark.field] = next(each for each in allowed if each not in mark.values)
        if stage.module == "prepare" and values["source"] == "faces":
            del values["root"]
    elif type(getattr(stage.config, mark.field, None)) is bool:
        values[mark.field] = False
    case = stage.case(field)
    said = [layer[field] for layer in (case.change, case.base, stage.base) if field in layer]
    default = next(f.default for f in dataclasses.fields(stage.config) if f.name == field)
    values[field] = next(value for value in said if value not in (DROP, default))
    return values


def _allowed(cls: type, field: str, value: Any) -> bool:
    try:
        cls(**{field: value, "root": "x"} if field == "source" else {field: value})
    except BadInput as error:
        return "no effect" in error.message
    return True


@pytest.mark.parametrize(
    ("stage", "field", "mark"),
    [pytest.param(*each, id=f"{each[0].module}-{each[1]}-{each[2].field}") for each in effects()],
)
def test_a_setting_without_effect_is_refused_with_the_other_ones_name(
    stage: Stage, field: str, mark: Needs | Excludes
) -> None:
    values = ineffective(stage, field, mark)
    with pytest.raises(BadInput) as caught:
        stage.config(**values)
    said = caught.value
    assert said.message.startswith(f"{spelled(stage.config, field)} has no effect with")
    assert spelled(stage.config, mark.field) in said.message
    assert spelled(stage.config, field) in said.fix


def test_refusals_name_options_that_there_are() -> None:
    """As they are typed: ``--with`` and not ``--tuned``, ``--timesteps`` and not ``--T``."""
    names: dict[type, set[str]] = {}

    def walk(command: Any) -> None:
        for child in getattr(command, "commands", {}).values():
            walk(child)
        if config := getattr(command.callback, "config", None):
            found = names.setdefault(config, set())
            for param in command.params:
                found |= {*param.opts, *param.secondary_opts, param.metavar or ""}

    walk(typer.main.get_command(app))
    for stage, field, mark in effects():
        for each in (field, mark.field):
            if (stage.module, each) != ("prepare", "source"):  # a command of its own
                assert spelled(stage.config, each) in names[stage.config], (stage.module, each)


@pytest.mark.parametrize(
    ("words", "both"),
    [
        ("train --init embedded --size micro", ("--size", "--init")),
        ("train --init embedded -T 20", ("--timesteps", "--init")),
        ("train --images 4 --epochs 10", ("--epochs", "--images")),  # though 10 is the default
        ("edit x.png --data faces", ("PHOTO", "--data")),
        ("edit x.png --no-direct --locality 0.2", ("--locality", "--direct")),
        ("eval --edits a --with b", ("--with", "--edits")),
        ("finetune --target a --preset sketch", ("--target", "--preset")),
        ("invert --method ddim --tolerance 0.1", ("--tolerance", "--method ddim")),
        ("sample --strength 0.5", ("--strength", "--tuned")),
        ("clip train --init embedded --model small", ("--model", "--init")),
        ("grid --crop face", ("--crop", "PHOTO")),
    ],
)
def test_so_it_is_on_the_command_line(
    words: str, both: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words.split(), "--store", str(tmp_path / "none")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {both[0]} has no effect with") and both[1] in said
    assert not (tmp_path / "none").exists()
