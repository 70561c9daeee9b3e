"""The hub, played by a server on this machine: what is fetched, by which way, and what fails."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
import open_clip
import pytest
import torch
from fakes import Stop
from huggingface_hub import constants
from small_guide import CONFIG, write_clip

from dclip import hub
from dclip.errors import BadInput, StoreError
from dclip.guidance.clip import load_guide

pytestmark = pytest.mark.attack("a hub that is away, closed or wrong")

COMMIT = "a" * 40
OF_BRANCHES = "b" * 40


class Hub:
    """Repositories by name, each of files; and every address that was asked for."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.branches: dict[tuple[str, str], dict[str, bytes]] = {}
        self.commits: dict[str, str] = {}
        self.gated: set[str] = set()
        self.asked: list[str] = []

    def serve(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        self.asked.append(request.path)
        path = unquote(urlsplit(request.path).path.strip("/"))
        if path.startswith(("api/models/", "api/datasets/")):
            name, _, revision = path.split("/", 2)[2].partition("/revision/")
            if revision == OF_BRANCHES:
                revision = next(b for n, b in self.branches if n == name)
            files = self.branches.get((name, revision), self.repos.get(name))
            if files is None:
                self._answer(request, 404, b"", "RepoNotFound", body)
            elif revision not in self._known(name) and (name, revision) not in self.branches:
                self._answer(request, 404, b"", "RevisionNotFound", body)
            else:
                listed = [{"rfilename": k, "size": len(v)} for k, v in files.items()]
                sha = self._commit(name, revision)
                told = {"id": name, "sha": sha, "siblings": listed, "tags": [], "downloads": 0}
                self._answer(request, 200, json.dumps(told).encode(), None, body)
            return
        name, _, at = path.removeprefix("datasets/").partition("/resolve/")
        branch = None
        for own, each in self.branches:
            for said in (each, OF_BRANCHES):
                if own == name and at.startswith(said):
                    branch, file = each, at[len(said) + 1 :]
        if branch is None:
            file = at.partition("/")[2]
        files = self.branches[name, branch] if branch else self.repos.get(name, {})
        if name in self.gated:
            self._answer(request, 403, b"", "GatedRepo", body)
        elif file in files:
            self._answer(request, 200, files[file], None, body, self._commit(name, branch))
        else:
            self._answer(request, 404, b"", "EntryNotFound", body)

    def _known(self, name: str) -> tuple[str, ...]:
        return ("", "main", self.commits.get(name, COMMIT))

    def _commit(self, name: str, revision: str | None) -> str:
        if (name, revision) in self.branches:
            return OF_BRANCHES
        return self.commits.get(name, COMMIT)

    def _answer(
        self,
        request: BaseHTTPRequestHandler,
        code: int,
        data: bytes,
        error: str | None,
        body: bool,
        commit: str = COMMIT,
    ) -> None:
        request.send_response(code)
        request.send_header("Content-Length", str(len(data)))
        request.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        request.send_header("X-Repo-Commit", commit)
        if error:
            request.send_header("X-Error-Code", error)
        request.end_headers()
        if body:
            request.wfile.write(data)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub at ``HF_ENDPOINT``, and an empty cache."""
    played = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            played.serve(self, body=True)

        def do_HEAD(self) -> None:
            played.serve(self, body=False)

        def log_message(self, *_: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    _at(monkeypatch, f"http://127.0.0.1:{listening.server_address[1]}", tmp_path / "cache")
    yield played
    huggingface_hub.close_session() if hasattr(huggingface_hub, "close_session") else None
    listening.shutdown()


def _at(monkeypatch: pytest.MonkeyPatch, endpoint: str, cache: Path | None = None) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    if cache is not None:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


def test_files_are_fetched_once_and_their_revision_is_known(server: Hub) -> None:
    server.repos["org/net"] = {"a.json": b"{}", "unet/x.safetensors": b"x" * 3_000_000, "b": b"b"}
    shown = Stop()
    folder = hub.fetch("org/net", ["a.json", "unet/*"], report=shown)
    assert hub.revision_of(folder) == COMMIT
    assert (folder / "unet/x.safetensors").read_bytes() == b"x" * 3_000_000
    assert not (folder / "b").exists()
    assert shown.began == [0] and shown.said == [f"fetched org/net at revision {COMMIT}"]
    asked = len(server.asked)
    assert hub.fetch("org/net", ["a.json", "unet/*"]) == folder
    assert hub.fetch("org/net", ["a.json"], COMMIT) == folder
    assert len(server.asked) == asked
    assert hub.fetch("org/net", ["a.json"], optional=["b", "none"]) == folder  # all needed is here
    assert (hub.fetch("org/net", ["b"]) / "b").read_bytes() == b"b"


def test_optional_files_come_with_the_others(server: Hub) -> None:
    server.repos["org/net"] = {"a": b"a", "b": b"b"}
    folder = hub.fetch("org/net", ["a"], optional=["b", "c*"])
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]


def test_behind_a_proxy_the_hub_is_reached_though_nobody_here_knows_its_address(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repos["org/net"] = {"a": b"a"}
    proxy = constants.ENDPOINT
    _at(monkeypatch, "http://hub.invalid")
    with pytest.raises(OSError):
        socket.getaddrinfo("hub.invalid", 80)
    with pytest.raises(BadInput, match=r"hub\.invalid cannot be reached"):
        hub.fetch("org/net", ["a"])
    assert not server.asked
    monkeypatch.setenv("http_proxy", proxy)
    huggingface_hub.close_session() if hasattr(huggingface_hub, "close_session") else None
    assert (hub.fetch("org/net", ["a"]) / "a").read_bytes() == b"a"
    assert all(address.startswith("http://hub.invalid/") for address in server.asked)


def test_a_proxy_that_is_not_there_is_named_without_its_password(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "REACH_SECONDS", 0.5)
    monkeypatch.setenv("https_proxy", "http://me:secret@127.0.0.1:9")
    _at(monkeypatch, "https://hub.invalid")
    with pytest.raises(BadInput, match=r"the proxy 127\.0\.0\.1 cannot be reached") as caught:
        hub.fetch("org/net", ["a"])
    assert "secret" not in caught.value.message
    monkeypatch.setenv("no_proxy", "hub.invalid")
    with pytest.raises(BadInput, match=r"\(hub\.invalid cannot be reached"):
        hub.fetch("org/net", ["a"])


def test_offline_what_is_here_is_used_and_the_rest_is_refused_at_once(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repos["org/net"] = {"a": b"a", "b": b"b"}
    folder = hub.fetch("org/net", ["a"])
    asked = len(server.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.fetch("org/net", ["a"]) == folder
    with pytest.raises(BadInput, match=r"b of org/net is not on this.*HF_HUB_OFFLINE") as no:
        hub.fetch("org/net", ["b"])
    assert no.value.fix.startswith("unset HF_HUB_OFFLINE")
    assert len(server.asked) == asked


def test_what_is_not_there_is_named(server: Hub) -> None:
    server.repos["org/net"] = {"a": b"a"}
    for repo, files, revision, message in (
        ("org/none", ["a"], None, "has no model org/none"),
        ("org/net", ["a", "z.bin"], None, r"org/net has no file z\.bin"),
        ("org/net", ["a"], "v9", "no revision 'v9'"),
        ("../net", ["a"], None, "no name on the hub"),
        ("org/net", ["a"], "../../x", "no revision of"),
    ):
        with pytest.raises(BadInput, match=message) as caught:
            hub.fetch(repo, files, revision)
        assert "\n" not in caught.value.message and caught.value.fix
    server.gated.add("org/net")
    with pytest.raises(BadInput, match="access to org/net has to be granted") as caught:
        hub.fetch("org/net", ["a"])
    assert "hf auth login" in caught.value.fix


def test_a_full_disk_and_a_cache_of_somebody_else_are_not_called_a_missing_file(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repos["org/net"] = {"a": b"a" * 100}
    full = shutil._ntuple_diskusage(10, 10, 0)  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: full)
        with pytest.raises(StoreError, match=r"has 0\.0 kB left"):
            hub.fetch("org/net", ["a"])
    for code, message in ((errno.ENOSPC, "no space left"), (errno.EROFS, "cannot be written")):

        def fail(*_: Any, code: int = code, **__: Any) -> Any:
            raise OSError(code, "refused")

        with monkeypatch.context() as patch:
            patch.setattr(huggingface_hub, "hf_hub_download", fail)
            with pytest.raises(StoreError, match=message) as caught:
                hub.fetch("org/net", ["a"])
        assert "HF_HOME" in caught.value.fix


def test_memory_that_runs_out_is_not_called_a_missing_file(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repos["org/net"] = {"a": b"a"}

    def fail(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(MemoryError):
        hub.fetch("org/net", ["a"])


# --- CLIPs on the hub


def test_a_clip_of_the_hub_is_the_folder_that_it_holds(server: Hub, tmp_path: Path) -> None:
    folder = write_clip(tmp_path / "clip")
    server.repos["org/clip"] = {path.name: path.read_bytes() for path in folder.iterdir()}
    for spec in ("hf-hub:org/clip", f"hf-hub:org/clip@{COMMIT}"):
        found = load_guide(spec)
        assert found.name == spec
        expected = load_guide(str(folder)).embed_text(["a face"])
        assert torch.equal(found.embed_text(["a face"]), expected)


def test_a_config_from_the_hub_is_checked_before_its_weights_are_fetched(
    server: Hub, tmp_path: Path
) -> None:
    folder = write_clip(tmp_path / "clip")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    told = json.loads(files["open_clip_config.json"])
    told["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True}
    files["open_clip_config.json"] = json.dumps(told).encode()
    server.repos["org/clip"] = files
    with pytest.raises(BadInput, match="tokenizer_kwargs"):
        load_guide("hf-hub:org/clip")
    assert not any("safetensors" in address for address in server.asked)


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_a_tag_is_fetched_with_its_own_settings(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    weights = write_clip(tmp_path / "clip") / "open_clip_model.safetensors"
    if form == "bin":
        from safetensors.torch import load_file

        torch.save(load_file(weights), tmp_path / "weights.bin")
        server.repos["org/clip"] = {
            "open_clip_pytorch_model.bin": (tmp_path / "weights.bin").read_bytes()
        }
    else:
        server.repos["org/clip"] = {weights.name: weights.read_bytes()}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-test", CONFIG)
    tag = {"hf_hub": "org/clip/", "mean": [0.3] * 3, "std": [0.2] * 3, "interpolation": "bilinear"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-test", {"own": tag})
    found = load_guide("tiny-test:own")
    assert found.mean.flatten().tolist() == pytest.approx([0.3] * 3)
    assert found.interpolation == "bilinear"
    embedded = load_guide(str(weights.parent)).embed_text(["a face"])
    assert torch.allclose(found.embed_text(["a face"]), embedded, atol=1e-6)
