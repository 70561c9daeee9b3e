"""Each stage's subcommand, run for real on a small store: what it makes, shows and suggests."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from dclip.cli.app import app, main
from dclip.configs.demo import DemoConfig
from dclip.guidance.kinds import LOSSES
from dclip.store import Artifact, Staging, Store

TINY_DATA = ("prepare", "faces", "--count", "40", "--size", "32", "--workers", "1")
TINY_MODEL = (
    *("train", "--size", "micro", "-T", "20", "--images", "32", "--batch", "16"),
    *("--device", "cpu"),
)
TINY_CLIP = (*("clip", "train", "--images", "32", "--batch", "16"), *("--device", "cpu"))
TINY_LATENTS = ("invert", "--r", "8", "--steps", "2", "--count", "6", "--device", "cpu")


class Shop:
    """A store in which the commands of this file follow one another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([*args, "--store", str(self.folder)])
        return (code, *capsys.readouterr())

    def json(self, capsys: pytest.CaptureFixture[str], *args: str) -> Any:
        code, out, err = self(capsys, *args, "--json")
        assert code == 0, err
        return json.loads(out)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A store with tiny data, model, CLIP and latents, in a folder without a config file."""
    folder = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shop = Shop(folder / "store")
        for words in (TINY_DATA, TINY_MODEL, TINY_CLIP, TINY_LATENTS):
            assert main([*words, "-q", "--store", str(shop.folder)]) == 0
        yield shop


def stage_commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, type]]:
    for name, child in getattr(command, "commands", {}).items():
        yield from stage_commands(child, (*words, name))
    if config := getattr(command.callback, "config", None):
        yield " ".join(words), config


STAGES = dict(sorted(stage_commands(typer.main.get_command(app))))


@pytest.mark.parametrize("command", STAGES)
def test_the_help_shows_the_stage_s_own_defaults(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = {f.name: f.default for f in dataclasses.fields(STAGES[command])}
    default = fields.get("seed", fields.get("storage"))
    assert main([*command.split(), "--help"]) == 0
    shown = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    assert f"[default: {default}]" in shown


# Settings that are rarely touched: the config file's alone.
FILE_ONLY = {
    "clip train": {
        "weight_decay", "attack_steps", "share", "clean", "ramp", "mixture", "max_grad_norm",
    },
    "judge train": {"weight_decay", "max_grad_norm"},
    "autoencoder train": {"channels", "blocks", "kl", "max_grad_norm"},
}  # fmt: skip
OWN = {"subset", "part", "column", "caption"}  # of some sources
# Of the one config of three sources, each subcommand has the settings that mean something to it.
PREPARE = {
    "prepare celeba": {"source", "count", "domain", "frame", "align", "max_faces", *OWN},
    "prepare folder": {"source", "count", "download", "subset", "part", "column"},
    "prepare npz": {"source", "count", "download", "subset", "part", "column"},
    "prepare webdataset": {"source", "count", "download", "subset", "part", "column"},
    "prepare parquet": {"source", "count", "download", "subset", "part"},
    "prepare hf": {"source", "count", "download"},
    "prepare faces": {
        "source",
        "root",
        "crop",
        "limit",
        "strict",
        "download",
        "domain",
        "frame",
        "align",
        "max_faces",
        *OWN,
    },
}


@pytest.mark.parametrize("command", STAGES)
def test_every_setting_of_a_stage_is_an_option_or_known_to_be_none(command: str) -> None:
    found: Any = typer.main.get_command(app)
    for word in command.split():
        found = found.commands[word]
    options = {p.name for p in found.params}
    without = {field.name for field in dataclasses.fields(STAGES[command])} - options
    if "weights" in without:  # a table, whose losses are an option each
        assert set(LOSSES) <= options
        without.remove("weights")
    assert without == FILE_ONLY.get(command, set()) | PREPARE.get(command, set())


def test_a_stage_shows_its_artifact_and_what_comes_next(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = shop(capsys, *TINY_DATA, "--seed", "1", "--name", "other")
    assert code == 0
    assert out.startswith("made  data/other/v1  ")
    assert "preview.png" in out and "images" in out
    hint = next(line for line in err.splitlines() if line.startswith("next: "))
    words = shlex.split(hint.removeprefix("next: "))
    assert words == ["dclip", "train", "--data", "other", "--store", str(shop.folder)]
    code, out, _ = shop(capsys, *TINY_DATA, "--seed", "1", "--name", "other")
    assert (code, out.split("  ")[0]) == (0, "up to date")


def test_json_and_quiet_keep_stdout_pure(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    made = shop.json(capsys, *TINY_MODEL, "--data", "faces")
    assert made["fresh"] is False
    assert made["ref"] == "model/faces/v1"
    assert Path(made["path"]).is_dir()
    assert all(Path(picture).is_file() for picture in made["pictures"])
    code, out, err = shop(capsys, *TINY_MODEL, "--data", "faces", "-q")
    assert (code, out, err) == (0, made["id"] + "\n", "")


def test_the_newest_is_taken_and_said(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = shop(capsys, *TINY_MODEL, "--dry-run")
    assert "data/" in err


def test_a_dry_run_shows_the_plan_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    assert main([*TINY_DATA, "--dry-run", "--json", "--store", str(store)]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert (plan["stage"], plan["kind"], plan["cached"]) == ("prepare", "data", False)
    assert plan["config"]["count"] == 40
    assert not store.exists()
    assert main([*TINY_DATA, "--dry-run", "--store", str(store)]) == 0
    assert "would be made" in capsys.readouterr().out


def test_force_makes_a_new_version(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    args = ("prepare", "faces", "--count", "4", "--size", "16", "--name", "again")
    first = shop.json(capsys, *args)
    second = shop.json(capsys, *args, "--force")
    assert (first["version"], second["version"]) == (1, 2)
    assert first["id"] == second["id"]


def test_the_config_file_reaches_the_stage(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my.toml"
    file.write_text("[prepare.faces]\ncount = 3\nsize = 16\n")
    plan = shop.json(capsys, "prepare", "faces", "--size", "32", "--dry-run", "--config", str(file))
    assert (plan["plan"]["config"]["count"], plan["plan"]["config"]["size"]) == (3, 32)
    file.write_text("[prepare.faces]\ncuont = 3\n")
    code, out, err = shop(capsys, "prepare", "faces", "--config", str(file))
    assert (code, out) == (2, "")
    assert "unknown key 'cuont' in [prepare.faces]" in err and "count" in err


@pytest.mark.parametrize("value", ['"embedded"', '["embedded"]'])
def test_one_value_in_the_config_file_stands_for_a_list_of_one(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    file = tmp_path / "my.toml"
    args = ("finetune", "--target", "sketch", "--dry-run", "--config", str(file))
    file.write_text(f"[finetune]\nclip = {value}\n")
    assert shop.json(capsys, *args)["plan"]["inputs"]["clip"]
    file.write_text("[finetune]\nclip = 3\n")
    code, _, err = shop(capsys, *args)
    assert code == 2 and "finetune.clip is 3" in err and "give a list" in err


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("prepare", "folder"), 2, "--root DIR"),
        (("prepare", "folder", "--root", "nowhere"), 2, "nowhere"),
        (("prepare", "faces", "--size", "5"), 2, "16..1024"),
        (("prepare", "faces", "--name", "../x"), 2, "name"),
        (("train", "--size", "huge"), 2, "laptop"),
        (("train", "--data", "facse"), 3, "faces"),
        (("train", "--data", "model/faces/v1"), 2, "data"),
        (("train", "--lr", "fast"), 2, "--lr"),
        (("train", "--device", "quantum"), 2, "--device cpu"),
        (("sample", "--sampler", "ddpn"), 2, "ddpm"),
        (("sample", "--model", "faces", "--steps", "21"), 2, "--steps"),
        (("invert", "--model", "faces", "--r", "21"), 2, "1..20"),
        (("invert", "--r", "5", "--steps", "6"), 2, "--steps 5"),
        (("edit",), 2, "--data"),
        (("demo", "--target", "skecth"), 2, "sketch"),
        (("grid", "--columns", "edti"), 2, "original"),
        (("finetune",), 2, "--target"),
        (("finetune", "--target", " "), 2, "--target sketch"),
        (("finetune", "--target", "word " * 100), 2, "shorten"),
        (("finetune", "--target", "sketch", "--clip", "no-such-clip"), 3, "no-such-clip"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line_with_its_code_and_leaves_the_store_alone(
    shop: Shop,
    capsys: pytest.CaptureFixture[str],
    args: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    before = [p for p in sorted(shop.folder.rglob("*")) if ".cache" not in p.parts]
    got, out, err = shop(capsys, *args)
    assert (got, out) == (code, "")
    assert err.count("error: ") == 1 and "Traceback" not in err
    assert says in err
    assert [p for p in sorted(shop.folder.rglob("*")) if ".cache" not in p.parts] == before


def test_the_stages_follow_one_another_up_to_a_figure(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cpu = ("--device", "cpu")
    samples = shop.json(capsys, "sample", "--model", "faces", "--count", "2", "--steps", "2", *cpu)
    assert samples["kind"] == "samples"
    assert [Path(p).name for p in samples["pictures"]] == ["grid.png"]
    latents = shop.json(capsys, *TINY_LATENTS, "--data", "faces/v1", "--model", "faces/v1")
    assert (latents["kind"], latents["metrics"]["images"]) == ("latents", 6)
    code, out, err = shop(
        *(capsys, "finetune", "--target", "sketch", "--latents", "faces", "--clip", "faces"),
        *("--updates", "1", "--batch", "2", "--views", "0", *cpu),
    )
    assert code == 0, err
    assert out.startswith("made  tuned/sketch/v1  ")
    hint = rf"dclip edit --data \S+ --with sketch --store {shop.folder} --device cpu"
    assert re.search(hint, err)
    photo = Path(latents["path"]) / "preview.png"
    edits = shop.json(capsys, "edit", str(photo), "--anyway", "--out", str(tmp_path / "out"), *cpu)
    assert edits["out"] == str(tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["preview-sketch.png"]
    assert edits["images"] == [str(Path(edits["path"]) / "images" / "preview.png")]
    again = shop(
        capsys, "edit", str(photo), "--anyway", "--out", str(tmp_path / "edited.jpg"), *cpu
    )
    assert again[0] == 0 and "up to date" in again[1] and (tmp_path / "edited.jpg").is_file()
    several = ("--strength", "0.5,1", "--out", str(tmp_path / "two.png"))
    code, _, err = shop(capsys, "edit", str(photo), "--anyway", *several, *cpu)
    assert code == 2 and "several pictures do not fit" in err
    figure = shop.json(capsys, "grid", "--rows", "1", "--with", "sketch", *cpu)
    assert [Path(p).name for p in figure["pictures"]] == ["panel.png", "panel.pdf"]
    roots = shop(capsys, "lineage", edits["ref"])[1]
    assert "tuned: tuned/sketch/v1" in roots and "data: data/faces/v1" in roots


def test_the_demo_shows_its_pictures_and_a_table(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dclip.context import Context
    from dclip.stages import demo

    # What the demo computes is tested with its stage; here, how its figure is shown.
    rows = [{"strength": 0.5, "faces": 4, "success": 0.25, "gain": 1.5}]

    def figure(config: DemoConfig, store: Store, context: Context) -> Artifact:
        def make(staging: Staging) -> dict[str, float]:
            (staging.path / "panel.png").write_bytes(b"png")
            (staging.path / "table.json").write_text(json.dumps({"strengths": rows}))
            return {"success": 0.25}

        return store.build(
            stage="demo",
            kind="figure",
            name="demo",
            config={"target": config.target},
            inputs={},
            seed=config.seed,
            context=context,
            make=make,
        )

    monkeypatch.setattr(demo, "run", figure)
    code, out, err = shop(capsys, "demo", "--target", "smiling", "--seed", "5")
    assert code == 0, err
    assert "panel.png" in out and "table.json" in out
    assert "0.5" in out.splitlines()[-1] and "0.25" in out.splitlines()[-1]
    document = shop.json(capsys, "demo", "--target", "smiling", "--seed", "5")
    assert Path(document["table.json"]).is_file()


def test_a_planned_demo_is_all_of_its_stages_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "none"
    words = ["demo", "--faces", "8", "--store", str(store)]

    def planned() -> list[dict[str, Any]]:
        assert main([*words, "--dry-run", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        return [*document["before"], document["plan"]]

    plans = planned()
    assert not store.exists()
    assert [plan["kind"] for plan in plans] == ["data", "latents", "tuned", "figure"]
    assert [bool(plan["key"]) for plan in plans] == [True, False, False, False]
    assert plans[1]["config"]["r"] == 100
    assert main([*words, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown.index("data/demo") < shown.index("latents/demo") < shown.index("tuned/demo-sketch")
    assert main([*words, "--dry-run", "-q"]) == 0
    assert capsys.readouterr().out == f"{plans[0]['key']}\n"

    # What is made already is known to the id, and what follows from it can be planned for real.
    data = plans[0]["config"]
    words_of = ["--count", "8", "--size", str(data["size"]), "--seed", str(plans[0]["seed"])]
    made = ["prepare", "faces", *words_of, "--split", "67/33", "--name", "demo", "-q"]
    assert main([*made, "--store", str(store)]) == 0
    made_id = capsys.readouterr().out.strip()
    assert plans[0]["key"] == (again := planned())[0]["key"]
    assert [plan["cached"] for plan in again] == [True, False, False, False]
    assert [bool(plan["key"]) for plan in again] == [True, True, False, False]
    assert again[1]["inputs"]["data"]["id"] == made_id


def test_presets_are_a_table_whose_names_finetune_takes(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = shop.json(capsys, "presets")
    assert {"name", "target", "source", "kind", "r", "recipe"} <= rows[0].keys()
    assert [row["name"] for row in rows] == shop(capsys, "presets", "-q")[1].splitlines()
    # A table that an ordinary terminal shows whole, though hair colours start from four prompts.
    assert any(len(row["source"]) > 80 for row in rows)
    assert max(map(len, shop(capsys, "presets")[1].splitlines())) <= 120
    code, _, err = shop(capsys, "finetune", "--preset", "skecth")
    assert code == 2 and "sketch" in err


def test_an_empty_store_says_what_to_run_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "no such"
    assert main(["train", "--store", str(store)]) == 3
    assert f"`dclip prepare faces --store '{store}'`" in capsys.readouterr().err
    assert not store.exists()
    monkeypatch.setenv("DCLIP_STORE", str(store))
    assert main(["train"]) == 3
    assert "`dclip prepare faces`" in capsys.readouterr().err
