"""The store's subcommands, over small artifacts made through the store itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dclip.cli.app import main
from dclip.cli.options import names_in
from dclip.context import Context
from dclip.store import Artifact, Store


def make(store: Store, kind: str, name: str, text: str, **inputs: Artifact) -> Artifact:
    def write(staging: Any) -> dict[str, Any]:
        (staging.path / "text.txt").write_text(text)
        (staging.path / "panel.png").write_bytes(b"png")
        return {"length": len(text)}

    return store.build(
        stage=f"make-{kind}",
        kind=kind,
        name=name,
        config={"text": text},
        inputs=inputs,
        seed=7,
        context=Context(),
        make=write,
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """data/faces v1 and v2, and model/small made from v2."""
    store = Store(tmp_path / "store")
    make(store, "data", "faces", "one")
    make(store, "model", "small", "net", data=make(store, "data", "faces", "two"))
    return store


Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DCLIP_STORE", str(store.root))

    def run(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(args))
        return (code, *capsys.readouterr())

    return run


def test_ls_lists_in_the_pipeline_s_order(cli: Cli, store: Store) -> None:
    rows = json.loads(cli("ls", "--json")[1])
    refs = ["data/faces/v1", "data/faces/v2", "model/small/v1"]
    assert [row["ref"] for row in rows] == refs
    assert [row["tags"] for row in rows] == [[], ["latest"], ["latest"]]
    assert all(Path(row["path"]).is_dir() and row["bytes"] == 6 for row in rows)
    code, out, err = cli("ls", "model")
    assert (code, err) == (0, "")
    assert "model/small/v1" in out and "data/faces" not in out
    assert cli("ls", "-q")[1].split() == [a.id for a in store.list()]


def test_ls_says_what_was_edited_and_how(cli: Cli, store: Store) -> None:
    def write(staging: Any) -> dict[str, Any]:
        (staging.path / "a.txt").write_text("x")
        return {"photo": "me.jpg and 2 more", "edit": "smiling"}

    store.build(
        stage="edit", kind="edits", name="mine", config={"strength": [0.5, 1.0]}, inputs={},
        seed=0, context=Context(), make=write,
    )  # fmt: skip
    assert "me.jpg and 2 more: smiling at 0.5, 1" in cli("ls", "edits")[1]
    assert cli("ls", "model")[1].splitlines()[0].split() == [
        "artifact",
        "id",
        "tags",
        "size",
        "made",
    ]


def test_ls_of_an_empty_store_is_no_error(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("ls", "--store", str(tmp_path / "none"))
    assert (code, out) == (0, "")
    assert "dclip prepare" in err
    assert cli("ls", "--json", "--store", str(tmp_path / "none"))[1] == "[]\n"
    assert not (tmp_path / "none").exists()


def test_ls_of_an_unknown_kind_names_near_ones(cli: Cli) -> None:
    code, out, err = cli("ls", "modle")
    assert (code, out) == (2, "")
    assert "model" in err


def test_show_tells_the_manifest(cli: Cli, store: Store) -> None:
    document = json.loads(cli("show", "small", "--json")[1])
    manifest = json.loads((store.find("small").path / "manifest.json").read_text())
    assert document.items() >= manifest.items()
    out = cli("show", "small")[1]
    for said in ("model/small/v1", "make-model", "data/faces/v2", "config.text", "net", "length"):
        assert said in out
    assert "revision 1" in out and "made on system" in out
    assert cli("show", "small", "-q")[1] == store.find("small").id + "\n"


def test_a_name_that_is_not_there_exits_3_with_near_names(cli: Cli) -> None:
    code, out, err = cli("show", "smal")
    assert (code, out) == (3, "")
    assert "small" in err


def test_lineage_is_a_tree(cli: Cli, store: Store) -> None:
    tree = json.loads(cli("lineage", "small", "--json")[1])
    assert tree["ref"] == "model/small/v1"
    assert [(node["role"], node["ref"]) for node in tree["inputs"]] == [("data", "data/faces/v2")]
    first, second = cli("lineage", "small")[1].splitlines()
    assert first.startswith("model/small/v1")
    assert second.startswith("└── data: data/faces/v2")
    ids = [store.find("small").id, store.find("data/faces/v2").id]
    assert cli("lineage", "small", "-q")[1].split() == ids


def test_verify_finds_a_changed_byte_only_when_full(cli: Cli, store: Store) -> None:
    assert cli("verify", "--full")[0] == 0
    (store.find("small").path / "text.txt").write_text("ten")
    assert cli("verify")[0] == 0
    code, out, err = cli("verify", "--full", "--json")
    assert code == 4
    problems = json.loads(out)["problems"]
    assert [(p["ref"], p["path"]) for p in problems] == [("model/small/v1", "text.txt")]
    assert "error: 1 problem in model/small/v1" in err
    code, out, _ = cli("verify", "--full", "-q")
    assert (code, out) == (4, "model/small/v1\n")
    assert cli("verify", "faces", "--full")[0] == 0


def test_a_tag_names_a_version_until_it_is_taken_off(cli: Cli) -> None:
    assert cli("tag", "data/faces/v1", "best")[0] == 0
    assert json.loads(cli("show", "faces@best", "--json")[1])["version"] == 1
    assert cli("tag", "data/faces/v2", "best")[0] == 0
    assert json.loads(cli("show", "faces@best", "--json")[1])["version"] == 2
    assert cli("tag", "faces", "best", "--delete")[0] == 0
    assert cli("show", "faces@best")[0] == 3


@pytest.mark.parametrize("name", ["a/b", "..", "v3", "latest", ""])
def test_a_tag_must_be_a_plain_name(cli: Cli, name: str) -> None:
    assert cli("tag", "data/faces/v1", name)[0] == 2


def test_rm_refuses_what_is_used_and_says_by_whom(cli: Cli, store: Store) -> None:
    code, out, err = cli("rm", "data/faces/v2")
    assert (code, out) == (2, "")
    assert "model/small/v1" in err
    assert cli("rm", "data/faces/v1", "-q")[:2] == (0, "data/faces/v1\n")
    removed = json.loads(cli("rm", "data/faces/v2", "--force", "--json")[1])
    assert [row["ref"] for row in removed] == ["data/faces/v2"]
    assert [a.ref for a in store.list()] == ["model/small/v1"]


def interrupted(store: Store) -> None:
    def stop(staging: Any) -> dict[str, Any]:
        (staging.scratch / "state").write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        store.build(
            stage="s",
            kind="data",
            name="half",
            config={},
            inputs={},
            seed=0,
            context=Context(),
            make=stop,
        )


@pytest.mark.parametrize("place", ["before", "after"])
def test_gc_shows_and_then_frees_what_a_killed_run_left(cli: Cli, store: Store, place: str) -> None:
    interrupted(store)
    dry = ("--dry-run", "gc") if place == "before" else ("gc", "--dry-run")
    would = json.loads(cli(*dry, "--json")[1])
    assert any("data/half" in row["what"] for row in would)
    assert all(Path(row["path"]).exists() for row in would)
    assert json.loads(cli("gc", "--json")[1]) == would
    assert not any(Path(row["path"]).exists() for row in would)
    assert len(store.list()) == 3


def test_export_copies_what_can_be_used_from_there(cli: Cli, store: Store, tmp_path: Path) -> None:
    assert cli("export", "small", "copy", "-q")[1] == store.find("small").id + "\n"
    assert cli("show", str(tmp_path / "copy"), "-q")[1] == store.find("small").id + "\n"
    assert cli("export", "small", "copy")[0] == 2


def test_the_shell_completes_references(store: Store) -> None:
    assert names_in(store.root, "data", "fa") == ["faces", "faces/v1", "faces/v2"]
    assert names_in(store.root, None, "model/") == ["model/small/v1"]
    assert names_in(store.root / "none", None, "") == []


def test_a_store_of_a_newer_format_is_exit_code_6(cli: Cli, store: Store) -> None:
    path = store.find("small").path / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"format": 99}))
    code, out, err = cli("show", "model/small/v1")
    assert (code, out) == (6, "")
    assert "newer" in err


def test_rm_removes_nothing_where_one_of_the_names_is_wrong(cli: Cli, store: Store) -> None:
    code, _, err = cli("rm", "data/faces/v1", "nope")
    assert code == 3 and "nope" in err
    assert store.find("data/faces/v1").version == 1
    assert cli("rm", "data/faces/v1", "data/faces/v1")[0] == 0  # twice the same is once


def test_rm_says_what_went_before_it_was_refused(cli: Cli, store: Store) -> None:
    code, _, err = cli("rm", "data/faces/v1", "data/faces/v2")
    assert code != 0 and "removed data/faces/v1" in err and "model/small" in err


def test_ls_names_every_kind(cli: Cli) -> None:
    from dclip.store import MAKERS

    _, out, _ = cli("ls", "--help")
    assert all(kind in out for kind in MAKERS)


def test_a_tag_cannot_read_as_a_window_of_an_edit(cli: Cli) -> None:
    code, _, err = cli("tag", "model/small", "60-100")
    assert code == 2 and "t60-100" in err
