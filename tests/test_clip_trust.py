"""CLIPs and face networks from strangers: nothing in their files runs, or takes more than it is."""

from __future__ import annotations

import copy
import io
import json
import pickle
import resource
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from small_guide import CONFIG, write_clip

from dclip.cli.app import main
from dclip.context import Context
from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput, CorruptArtifact, DclipError
from dclip.guidance.clip import Guide, load_guide, new_model
from dclip.guidance.clip import config as configs
from dclip.guiding import find_clip
from dclip.models import face
from dclip.models.checkpoint import ModelInfo, save_model
from dclip.models.tiny import TinyConfig
from dclip.store import Staging, Store

pytestmark = pytest.mark.attack("a CLIP or face network from a stranger")

Change = Callable[[Path, dict[str, Any]], object]


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that is there only if code from a folder ran."""
    return tmp_path / "canary"


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A ``transformers`` that does as the real one does: with trust it runs the folder's code.

    Returns:
        for each tokenizer that it loads, whether code was trusted; None is a question to the user.
    """
    asked: list[Any] = []

    class Tokens:
        def __init__(self, first: int) -> None:
            self.first = first

        def __call__(self, texts: Any, **settings: Any) -> Any:
            ids = torch.full((1, settings.get("max_length", 2)), self.first)
            return types.SimpleNamespace(input_ids=ids) if settings else {"input_ids": [0, 0]}

    class AutoTokenizer:
        @staticmethod
        def from_pretrained(name: str, **settings: Any) -> Any:
            told = json.loads((Path(name) / "tokenizer_config.json").read_text())
            asked.append(settings.get("trust_remote_code"))
            if settings.get("trust_remote_code") is not False and "auto_map" in told:
                exec((Path(name) / "tokenizer.py").read_text(), {})
            return Tokens(told.get("first_id", 0))

    fake = types.ModuleType("transformers")
    fake.AutoTokenizer = AutoTokenizer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", fake)
    return asked


def hostile(path: Path, canary: Path, change: Change) -> Path:
    """A CLIP's folder that wants code of its own to run."""
    write_clip(path)
    (path / "tokenizer.py").write_text(f"open({str(canary)!r}, 'w').write('ran')")
    named = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["tokenizer.Own", None]}}
    (path / "tokenizer_config.json").write_text(json.dumps(named))
    (path / "tokenizer.json").write_text("{}")
    file = path / configs.FILE
    content = json.loads(file.read_text())
    change(path, content)
    file.write_text(json.dumps(content))
    return path


def text(**keys: Any) -> Change:
    return lambda path, content: content["model_cfg"]["text_cfg"].update(keys)


def vision(**keys: Any) -> Change:
    return lambda path, content: content["model_cfg"]["vision_cfg"].update(keys)


def tokenizer(told: dict[str, Any], beside: dict[str, Any] | None = None) -> Change:
    def change(path: Path, content: dict[str, Any]) -> None:
        text(hf_tokenizer_name="some/thing")(path, content)
        (path / "tokenizer_config.json").write_text(json.dumps(told))
        if beside is not None:
            (path / "config.json").write_text(json.dumps(beside))

    return change


MAP = {"AutoTokenizer": ["tokenizer.Own", None]}
TRUSTING = text(hf_tokenizer_name="x", tokenizer_kwargs={"trust_remote_code": True})

CODE: dict[str, tuple[Change, str]] = {
    "trust in the settings of the tokenizer": (TRUSTING, "tokenizer_kwargs"),
    "a class of transformers' choice": (
        text(hf_tokenizer_name="x", tokenizer_kwargs={"tokenizer_type": "bert"}), "tokenizer_kwargs"
    ),
    "a reduction that fetches data": (
        text(tokenizer_kwargs={"reduction_mask": "syntax"}), "tokenizer_kwargs"
    ),
    "a vocabulary elsewhere": (
        text(tokenizer_kwargs={"bpe_path": "/etc/passwd"}), "tokenizer_kwargs"
    ),
    "code named by the tokenizer": (text(hf_tokenizer_name="x"), "auto_map"),
    "code beside a class that is known": (
        tokenizer({"tokenizer_class": "BertTokenizer", "auto_map": MAP}), "auto_map"
    ),
    "code named by the model beside it": (
        tokenizer({"tokenizer_class": "BertTokenizer"}, {"auto_map": {"AutoConfig": "x.Y"}}),
        "auto_map",
    ),
    "an unknown class": (tokenizer({"tokenizer_class": "TransfoXLTokenizer"}), "TransfoXL"),
    "no class": (tokenizer({}), "class None"),
    "a class that is no name": (tokenizer({"tokenizer_class": ["os", "system"]}), "system"),
    "an unknown kind of model": (tokenizer({}, {"model_type": "own"}), "class None"),
    "a text tower in a folder": (text(hf_model_name="./own"), "hf_model_name"),
    "a text tower of a stranger": (text(hf_model_name="someone/own"), "hf_model_name"),
    "an image tower from the hub": (vision(timm_model_name="hf-hub:someone/own"), "timm_model"),
    "an image tower in a folder": (vision(timm_model_name="local-dir:/tmp"), "timm_model_name"),
    "an argument of the class": (
        lambda path, content: content["model_cfg"].update(cast_dtype="float16"), "cast_dtype"
    ),
    "settings of an activation": (vision(act_kwargs={"inplace": True}), "act_kwargs"),
}  # fmt: skip


@pytest.mark.parametrize("what", CODE)
def test_a_folder_that_asks_for_code_or_for_other_places_is_refused(
    tmp_path: Path, canary: Path, what: str
) -> None:
    change, named = CODE[what]
    path = hostile(tmp_path / "clip", canary, change)
    with pytest.raises(BadInput) as caught:
        load_guide(str(path))
    assert named in caught.value.message and "\n" not in caught.value.message
    assert caught.value.fix and not canary.exists()


def test_the_attack_runs_its_code_in_open_clip_itself(tmp_path: Path, canary: Path) -> None:
    """Else the tests above would pass for want of an attack."""
    path = hostile(tmp_path / "clip", canary, TRUSTING)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_clip.tokenizer.HFTokenizer, "__call__", lambda *_: None)
        open_clip.get_tokenizer(f"local-dir:{path}")
    assert canary.exists()


def test_a_tokenizer_of_a_known_class_is_loaded_and_runs_nothing(
    tmp_path: Path, canary: Path, asked: list[Any]
) -> None:
    path = hostile(tmp_path / "clip", canary, tokenizer({"tokenizer_class": "BertTokenizer"}))
    assert load_guide(str(path)).tokenizer.context_length == 16  # type: ignore[attr-defined]
    assert not canary.exists() and asked == [False]
    told = {"tokenizer_class": "BertTokenizer", "first_id": 50_000}
    (path / "tokenizer_config.json").write_text(json.dumps(told))
    with pytest.raises(CorruptArtifact, match="cannot embed a prompt"):
        load_guide(str(path))
    (path / "tokenizer.json").unlink()
    with pytest.raises(BadInput, match=r"lacks tokenizer\.json"):
        load_guide(str(path))


def test_without_transformers_the_one_command_is_named(
    tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = hostile(tmp_path / "clip", canary, tokenizer({"tokenizer_class": "BertTokenizer"}))
    monkeypatch.setitem(sys.modules, "transformers", None)
    for spec in (str(path), "ViT-B-16-SigLIP:webli", "roberta-ViT-B-32:laion2b_s12b_b32k"):
        with pytest.raises(BadInput, match="needs the package transformers") as caught:
            load_guide(spec)
        assert caught.value.fix == "pip install transformers"
    with pytest.raises(BadInput, match="needs the package transformers"):
        new_model("roberta-ViT-B-32", 64)


@pytest.mark.parametrize("way", ["option", "option and --dry-run", "config file", "artifact"])
def test_the_command_line_refuses_it_too(
    tmp_path: Path,
    canary: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    way: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DCLIP_STORE", str(tmp_path / "store"))
    _latents(tmp_path / "store")
    capsys.readouterr()
    path, command = tmp_path / "evil", ["finetune", "--target", "sketch", "--updates", "1"]
    if way == "artifact":
        path = _artifact(Store(tmp_path / "store"), lambda at: hostile(at, canary, TRUSTING))
    else:
        hostile(path, canary, TRUSTING)
    if way == "config file":
        (tmp_path / "dclip.toml").write_text('[finetune]\nclip = ["./evil"]\n')
    elif way != "artifact":  # the newest artifact of the store is taken without being named
        command += ["--clip", "./evil"]
    if "--dry-run" in way:
        command.append("--dry-run")
    code = main([*command, "--device", "cpu"])
    said = capsys.readouterr().err
    assert code == BadInput.exit_code and "tokenizer_kwargs" in said, said
    assert not canary.exists()


def _latents(root: Path) -> None:
    """A store in which a fine-tuning goes as far as to load its CLIP."""
    store, quick = Store(root), Context(device="cpu", workers=1)
    shape = TinyConfig()
    info = ModelInfo("tiny", shape, Schedule.make(T=20), 16)

    def model(staging: Staging) -> dict[str, Any]:
        save_model(staging.path, info, info.build().state_dict())
        return {}

    def latents(staging: Staging) -> dict[str, Any]:
        (staging.path / "samples.csv").write_text("index,id,split\n")
        return {}

    base = store.build(
        stage="train", kind="model", name="base", config={}, inputs={}, seed=0, context=quick,
        make=model,
    )  # fmt: skip
    store.build(
        stage="invert", kind="latents", name="latents", inputs={"model": base}, seed=0,
        config={"steps": 4, "r": 12, "method": "fixed-point"}, context=quick, make=latents,
    )  # fmt: skip


def _artifact(store: Store, write: Callable[[Path], object]) -> Path:
    made = store.build(
        stage="clip-train", kind="clip", name="evil", config={}, inputs={}, seed=0,
        context=Context(device="cpu", workers=1),
        make=lambda staging: (write(staging.path) and {}) or {},
    )  # fmt: skip
    return made.path


# --- weights


class _Own:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return open, (str(self.place), "w")


def _pickled(path: Path, canary: Path) -> Path:
    torch.save({"state_dict": _Own(canary)}, path)
    return path


def _plain_pickle(path: Path, canary: Path) -> Path:
    path.write_bytes(pickle.dumps(_Own(canary)))
    return path


class Overwriting(torch.nn.Module):
    """A TorchScript program that writes a file as soon as it is loaded."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.place, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.place = state[0]
        # Its result is used, else the compiler leaves the call out.
        written = torch.from_file(self.place, True, 4, dtype=torch.uint8).fill_(33)
        self.training = state[1] and bool(written.sum() < 0)


def _torchscript(path: Path, canary: Path) -> Path:
    torch.jit.script(Overwriting(str(canary))).save(str(path))  # type: ignore[no-untyped-call]
    canary.unlink(missing_ok=True)
    return path


WEIGHTS = {
    "a pickle": (_plain_pickle, "neither safetensors nor a checkpoint"),
    "a checkpoint": (_pickled, "without running code"),
    "TorchScript": (_torchscript, "TorchScript program"),
}


@pytest.mark.parametrize("what", WEIGHTS)
@pytest.mark.parametrize("where", ["a file of a tag", "beside a config", "as safetensors"])
def test_weights_that_would_run_code_are_refused(
    tmp_path: Path, canary: Path, what: str, where: str
) -> None:
    write, message = WEIGHTS[what]
    folder = write_clip(tmp_path / "clip")
    if where == "as safetensors":
        write(folder / "open_clip_model.safetensors", canary)
        spec, message = str(folder), "not a readable safetensors file"
    else:
        file = write((folder if where == "beside a config" else tmp_path) / "own.pt", canary)
        spec = str(file) if where == "beside a config" else f"ViT-B-32:openai={file}"
    with pytest.raises(DclipError, match=message) as caught:
        load_guide(spec)
    assert caught.value.fix and not canary.exists()


def test_a_face_network_that_is_a_program_has_to_be_trusted(tmp_path: Path, canary: Path) -> None:
    file = _torchscript(tmp_path / "face.pt", canary)
    cpu = torch.device("cpu")
    with pytest.raises(BadInput, match="can write over your files") as caught:
        face.load_face_network(str(file), cpu, 8)
    assert "--trust" in caught.value.fix and not canary.exists()
    network = face.load_face_network(str(file), cpu, 8, trust=True)
    assert canary.read_bytes() == b"!!!!"  # so it is no idle warning
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 192)


@pytest.mark.parametrize("trust", [False, True])
def test_what_is_no_face_network_is_refused(tmp_path: Path, trust: bool) -> None:
    cpu, file = torch.device("cpu"), tmp_path / "face.pt"
    with pytest.raises(BadInput, match="is no file"):
        face.load_face_network(str(file), cpu, 8, trust=trust)
    for content in (b"", b"PK\x03\x04", b"no network"):
        file.write_bytes(content)
        with pytest.raises(BadInput, match="is not a TorchScript network"):
            face.load_face_network(str(file), cpu, 8, trust=trust)
    torch.jit.script(torch.nn.Identity()).save(str(file))  # type: ignore[no-untyped-call]
    with pytest.raises(BadInput, match="does not make features" if trust else "write over"):
        face.load_face_network(str(file), cpu, 8, trust=trust)


def test_weights_of_a_known_architecture_need_no_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(file: Path, frame: Any) -> torch.nn.Module:
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 5))
        network.load_state_dict(load_file(file))
        return network

    monkeypatch.setitem(face.KNOWN, "own", (lambda file: file.suffix == ".safetensors", read))
    weights = {"1.weight": torch.rand(5, 192), "1.bias": torch.rand(5)}
    save_file(weights, tmp_path / "face.safetensors")
    network = face.load_face_network(str(tmp_path / "face.safetensors"), torch.device("cpu"), 8)
    assert torch.equal(network(torch.zeros(1, 3, 8, 8))[0], weights["1.bias"])
    assert not any(parameter.requires_grad for parameter in network.parameters())


# --- sizes


@contextmanager
def _at_most(more: int) -> Iterator[None]:
    """No more than so many further bytes of address space may be taken."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


HUGE: dict[str, Change] = {
    "heads of no width": text(heads=0),
    "heads that do not divide": text(heads=3),
    "a picture of 10^30 pixels": vision(image_size=10**30),
    "a picture that is larger": vision(image_size=1024),
    "a table of positions": vision(
        image_size=1024, patch_size=1, width=16384, pos_embed_type="sin_cos_2d"
    ),
    "a wide tower": vision(width=16384),
    "many layers": vision(layers=256),
    "more layers than the file": text(layers=2),
    "many words": text(vocab_size=2_000_000),
    "few words": text(vocab_size=100),
    "a long context": text(context_length=4096),
    "no std": lambda path, content: content["preprocess_cfg"].update(std=[0, 0, 0]),
    "a std that is no number": lambda path, content: content["preprocess_cfg"].update(
        std=[float("nan")] * 3
    ),
    "another image tower": vision(timm_model_name="eva_giant_patch14_224"),
    "a tuple of an embedding": vision(output_tokens=True),
    "an embedding of each token": text(pool_type="none"),
}


@pytest.mark.parametrize("what", HUGE)
def test_impossible_values_are_refused_before_memory_is_taken(tmp_path: Path, what: str) -> None:
    path = hostile(tmp_path / "clip", tmp_path / "canary", HUGE[what])
    load_guide(str(write_clip(tmp_path / "sound")))  # what libraries take once is taken by now
    with _at_most(400 << 20), pytest.raises(DclipError) as caught:
        load_guide(str(path))
    assert "\n" not in caught.value.message and "llocat" not in caught.value.message
    assert len(caught.value.message) < 600


def test_a_checkpoint_whose_shapes_repeat_one_number_is_refused(tmp_path: Path) -> None:
    wide: dict[str, Any] = copy.deepcopy(CONFIG)
    wide["vision_cfg"]["width"] = 16384
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in open_clip.CLIP(**wide).state_dict().items()}
    folder = write_clip(tmp_path)
    content = json.loads((folder / configs.FILE).read_text()) | {"model_cfg": wide}
    (folder / configs.FILE).write_text(json.dumps(content))
    torch.save(
        {
            k: torch.zeros([1] * max(1, len(shape))).expand(shape or [1])
            for k, shape in shapes.items()
        },
        tmp_path / "w.pt",
    )
    assert (tmp_path / "w.pt").stat().st_size < 1 << 20
    with _at_most(400 << 20), pytest.raises(DclipError, match="describes"):
        load_guide(str(tmp_path / "w.pt"))


def test_a_lack_of_memory_is_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path)
    for error in (
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ):

        def fail(*_: Any, error: BaseException = error) -> Any:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("dclip.guidance.clip.weights._read", fail)
            with pytest.raises(DclipError, match="not enough memory") as caught:
                load_guide(str(path))
        assert caught.value.exit_code == 1 and caught.value.fix


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 70), st.integers(-(2**70), 10**40), st.floats(),
    st.text(max_size=8), st.sampled_from(["\x1b[2J", "\ud800", "hf-hub:a/b", "local-dir:/", "avg"]),
    st.lists(st.integers(0, 40), max_size=4), st.lists(st.floats(), min_size=3, max_size=3),
    st.dictionaries(st.sampled_from(["eps", "approximate", "clean", "trust_remote_code"]),
                    st.one_of(st.floats(0, 2), st.just("tanh"), st.just(True)), max_size=2),
)  # fmt: skip
TABLES = {
    "vision_cfg": configs.VISION, "text_cfg": configs.TEXT, "": configs.MODEL,
    "preprocess_cfg": configs.PREPROCESS,
}  # fmt: skip


@st.composite
def mutations(draw: st.DrawFn) -> tuple[str, str, Any, bool]:
    part = draw(st.sampled_from(list(TABLES)))
    key = draw(st.sampled_from([*TABLES[part], "vision_cfg", "text_cfg", "own"]))
    return part, key, draw(VALUES), draw(st.booleans())


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("sound"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changes=st.lists(mutations(), min_size=1, max_size=3))
def test_any_config_is_a_working_clip_or_one_line(
    sound: Path, changes: list[tuple[str, str, Any, bool]]
) -> None:
    content: dict[str, Any] = {
        "model_cfg": copy.deepcopy(CONFIG),
        "preprocess_cfg": {"size": 16, "mean": [0.5] * 3, "std": [0.5] * 3},
    }
    for part, key, value, gone in changes:
        holder = content if part == "preprocess_cfg" else content["model_cfg"]
        place = holder.get(part) if part else holder
        if isinstance(place, dict):
            place.pop(key, None) if gone else place.update({key: value})
    (sound / configs.FILE).write_text(json.dumps(content))
    try:
        guide = load_guide(str(sound))
    except DclipError as error:
        assert error.message.isprintable() and len(error.message) < 1000
        return
    _works(guide)


def _works(guide: Guide) -> None:
    shown = torch.zeros(1, 3, 20, 20)
    try:
        texts = guide.embed_text(["a face"])
    except BadInput:
        texts = torch.zeros(1, 16)  # a context that is too short for it
    assert guide.embed_image(shown).shape == texts.shape == (1, 16)
    assert guide.embed_image(shown).isfinite().all()


@settings(max_examples=40, deadline=None)
@given(content=st.one_of(st.binary(max_size=60), st.integers(1, 3).map(lambda n: b"[" * 10**5 * n)))
def test_any_bytes_as_a_config_are_one_line(sound: Path, content: bytes) -> None:
    (sound / configs.FILE).write_bytes(content)
    with pytest.raises(DclipError) as caught:
        load_guide(str(sound))
    assert "\n" not in caught.value.message


@settings(max_examples=25, deadline=None)
@given(at=st.integers(0, 3000), value=st.integers(0, 255), cut=st.integers(0, 60_000))
def test_damaged_weights_are_one_line_or_work(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    content = bytearray((write_clip(folder) / "open_clip_model.safetensors").read_bytes())
    content[at] = value
    del content[len(content) - cut :]
    (folder / "open_clip_model.safetensors").write_bytes(content)
    try:
        _works(load_guide(str(folder)))
    except DclipError as error:
        assert "\n" not in error.message


def test_every_model_and_tag_of_open_clip_is_allowed() -> None:
    for name in open_clip.list_models():
        checked = configs.check_model_config(open_clip.get_model_config(name), name)
        assert checked == open_clip.get_model_config(name)
    for name, tag in open_clip.list_pretrained():
        told = open_clip.get_pretrained_cfg(name, tag)
        for key, (check, _) in configs.PREPROCESS.items():
            assert key not in told or check(told[key]), (name, tag, key)


# --- names


@pytest.mark.parametrize(
    "spec", ["a" * 300, "a\0b", "x:" + "b" * 5000, "x=\0", "\ud800", "hf-hub:",
             "hf-hub:../../x", "hf-hub:a/b@../c", "ViT-B-32:openai=\0", "ViT-B-32:openai=",
             "ViT-B-32:=nowhere.pt", "."],
)  # fmt: skip
def test_no_name_is_an_internal_error(tmp_path: Path, spec: str) -> None:
    with pytest.raises(DclipError):
        find_clip(spec, Store(tmp_path), Context().report).load("cpu")


def test_what_is_not_a_tensor_in_a_checkpoint_is_refused(tmp_path: Path) -> None:
    for content in ([1, 2], {"a": 1}, {"state_dict": {"a": "b"}}, {1: torch.zeros(1)}):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        (tmp_path / "w.pt").write_bytes(buffer.getvalue())
        with pytest.raises(BadInput, match="no checkpoint of weights by name"):
            load_guide(f"ViT-B-32:openai={tmp_path / 'w.pt'}")
