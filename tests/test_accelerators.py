"""What an accelerator needs, as far as a CPU shows it: few readings, batches ahead, precision."""

from __future__ import annotations

import itertools
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_guide import write_clip
from small_store import CPU, small_store
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from dclip import device as devices
from dclip.configs.autoencoder_train import AutoencoderTrainConfig
from dclip.configs.clip_train import ClipTrainConfig
from dclip.configs.judge_train import JudgeTrainConfig
from dclip.configs.train import TrainConfig
from dclip.context import Context, Silent
from dclip.diffusion import ddim
from dclip.diffusion.network import ByTimestep, InPrecision, predict
from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput
from dclip.guidance import views
from dclip.models import unet
from dclip.models.tuned import Above
from dclip.stages import (
    autoencoder_train,
    clip_train,
    edit,
    finetune,
    judge_train,
    prepare,
    sample,
    train,
)
from dclip.store import Store
from dclip.training import loop
from dclip.training.feed import feed

ON_CPU = ("/torch/optim/", "/diffusion/schedule.py", "/guidance/views.py", "/training/judge.py")
"""What reads tensors that stay on the CPU: an optimizer's count of steps, the schedule's table, and
the random numbers of views and spoilt pictures."""


class _Readings(TorchDispatchMode):
    """Counts what would wait for an accelerator: ``.item()``, ``float()``, ``bool()``."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def add(self) -> None:
        files = [frame.filename for frame in traceback.extract_stack()]
        self.count += not any(own in file for own in ON_CPU for file in files)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            self.add()
        return func(*args, **(kwargs or {}))


@contextmanager
def readings(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Readings]:
    """Counts readings, those by ``.cpu()``, ``.tolist()`` and ``.numpy()`` too."""
    with monkeypatch.context() as patch, _Readings() as counted:
        for name in ("cpu", "tolist"):
            own = getattr(Tensor, name)

            def read(self: Tensor, *args: Any, own: Any = own, **more: Any) -> Any:
                counted.add()
                return own(self, *args, **more)

            patch.setattr(Tensor, name, read)
        yield counted


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return small_store(tmp_path_factory.mktemp("accelerators"))


def counted(
    monkeypatch: pytest.MonkeyPatch, store: Store, run: Any, config: Any, updates: int
) -> int:
    """Readings of a training of so many updates, on a device that is read every 4th."""
    monkeypatch.setitem(loop.READ_EVERY, "cpu", 4)
    with readings(monkeypatch) as found:
        run(config(updates), store, replace(CPU, force=True))
    return found.count


def test_a_training_reads_the_device_now_and_then(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(updates: int) -> train.TrainConfig:
        return train.TrainConfig(size="micro", T=20, images=4 * updates, batch=4, name="reads")

    # What lies outside of the updates (panels, validation) is in both.
    once = counted(monkeypatch, store, train.run, config, 4)
    twice = counted(monkeypatch, store, train.run, config, 8)
    assert twice - once < 4


def test_fine_tuning_reads_the_device_now_and_then(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = str(write_clip(tmp_path / "clip"))

    def config(updates: int) -> finetune.FinetuneConfig:
        return finetune.FinetuneConfig(
            target="a sketch", clip=(clip,), updates=updates, batch=2, rank=1, name="reads"
        )

    once = counted(monkeypatch, store, finetune.run, config, 4)
    twice = counted(monkeypatch, store, finetune.run, config, 8)
    assert twice - once < 4


def test_training_a_clip_and_a_judge_reads_the_device_now_and_then(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = prepare.PrepareConfig("faces", count=40, size=32, style="pairs", name="words")
    prepare.run(words, store, CPU)

    def clip(updates: int) -> ClipTrainConfig:
        return ClipTrainConfig(data="words", images=8 * updates, batch=8, name="reads")

    def judge(updates: int) -> JudgeTrainConfig:
        return JudgeTrainConfig(data=("words",), images=8 * updates, batch=8, name="reads")

    for run, config in ((clip_train.run, clip), (judge_train.run, judge)):
        once = counted(monkeypatch, store, run, config, 8)
        twice = counted(monkeypatch, store, run, config, 12)
        assert twice - once < 4


def test_a_decode_never_reads_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = Schedule.make("linear", 20)

    def network(x: Tensor, t: Tensor) -> Tensor:
        return 0.1 * x

    model = InPrecision(Above(5, network, network), torch.device("cpu"), "fp32")
    with readings(monkeypatch) as found:
        ddim.decode(model, schedule, torch.randn(2, 3, 8, 8), ddim.grid(20, 10))
    assert found.count == 0


def test_the_loss_that_is_not_finite_is_found_at_the_next_reading(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(loop.READ_EVERY, "cpu", 4)
    calls = itertools.count(1)
    own = train._Training._loss

    def broken(self: Any, *args: Any) -> Tensor:
        return own(self, *args) * (float("nan") if next(calls) == 6 else 1.0)

    monkeypatch.setattr(train._Training, "_loss", broken)
    config = train.TrainConfig(size="micro", T=20, images=64, batch=4, flip=False, name="broken")
    with pytest.raises(Exception, match="loss became nan at update 6"):
        train.run(config, store, CPU)


def test_batches_made_ahead_are_the_same_in_the_same_order() -> None:
    batches = [(torch.full((2,), float(i)), torch.tensor(i)) for i in range(7)]
    cpu = torch.device("cpu")
    plain = list(feed(iter(batches), cpu))
    ahead = list(feed(iter(batches), cpu, threaded=True))
    assert len(plain) == len(ahead) == 7
    for one, other in zip(plain, ahead, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_what_fails_while_batches_are_made_ahead_is_raised_and_the_thread_ends() -> None:
    def broken() -> Iterator[tuple[Tensor, ...]]:
        yield (torch.zeros(1),)
        raise BadInput("a broken picture")

    batches = feed(broken(), torch.device("cpu"), threaded=True)
    next(batches)
    with pytest.raises(BadInput, match="a broken picture"):
        next(batches)
    endless = feed(
        ((torch.zeros(1),) for _ in itertools.count()), torch.device("cpu"), threaded=True
    )
    next(endless)
    endless.close()
    assert not any(each.name == "dclip-feed" for each in threading.enumerate())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_inference_in_bf16_stays_near_float32(store: Store, tmp_path: Path, precision: Any) -> None:
    config = sample.SampleConfig(model="faces", count=2, steps=5, precision=precision)
    made = sample.run(config, store, CPU)
    assert made.config["precision"] == precision
    config = edit.EditConfig(data="faces", tuned=("sketch",), count=2, precision=precision)
    edited = edit.run(config, store, CPU)
    assert edited.config["precision"] == precision


def test_bf16_changes_what_a_network_computes_by_its_rounding_alone() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 3, 3, padding=1)
    x = torch.randn(1, 3, 8, 8)

    def network(x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = layer(x)
        return out

    cpu = torch.device("cpu")
    with torch.no_grad():
        plain = predict(InPrecision(network, cpu, "fp32"), x, 3)
        half = predict(InPrecision(network, cpu, "bf16"), x, 3)
    assert torch.equal(plain, layer(x))
    assert half.dtype == torch.float32 and not torch.equal(half, plain)
    assert float((half - plain).abs().max()) < 0.02


def test_a_network_by_timestep_is_asked_with_an_int() -> None:
    class Doubled(ByTimestep):
        def at(self, t: int) -> Any:
            assert type(t) is int
            return lambda x, timesteps: t * x

    x = torch.ones(2, 1, 1, 1)
    assert torch.equal(predict(Doubled(), x, 3), 3 * x)
    assert torch.equal(Doubled()(x, torch.tensor([3, 3])), 3 * x)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(8, 12), (40, 24), (16, 20)])
def test_resizing_by_products_is_torch_s_own_with_its_gradient(
    mode: str, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16, 20, requires_grad=True)
    same = x.detach().clone().requires_grad_(True)
    expected, got = views.resized(x, size, mode), views.by_products(same, size, mode)
    assert torch.allclose(got, expected, atol=1e-5)
    weights = torch.randn_like(expected)
    (expected * weights).sum().backward()
    (got * weights).sum().backward()
    assert x.grad is not None and same.grad is not None
    assert torch.allclose(same.grad, x.grad, atol=1e-5)


@pytest.mark.parametrize("name", ["meta", "hpu", "xla", "cud", "cuda:99", ""])
def test_a_device_that_is_not_there_is_one_line(name: str) -> None:
    with pytest.raises(BadInput) as caught:
        devices.choose(name)
    assert "\n" not in caught.value.message and caught.value.fix


class _Heard(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def test_auto_says_what_it_takes_and_what_torch_warns_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def old_driver() -> bool:
        warnings.warn("The NVIDIA driver on your system is too old", UserWarning, stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", old_driver)
    heard = _Heard()
    device = devices.pick(Context(device="auto", report=heard))
    assert heard.notes == [f"using device {devices.describe(device)}"]
    assert heard.warnings == ["The NVIDIA driver on your system is too old"]
    heard = _Heard()
    devices.pick(Context(device="cpu", report=heard))
    assert not heard.notes and not heard.warnings


def compiled(monkeypatch: pytest.MonkeyPatch, *, triton: bool = True) -> list[dict[str, Any]]:
    """Records what would be compiled, with or without Triton installed."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: calls.append(options))
    monkeypatch.setattr(devices, "find_spec", lambda name: object() if triton else None)
    return calls


@pytest.mark.parametrize(
    ("kind", "calls", "triton", "expected"),
    [
        ("cuda", devices.COMPILED, True, True),
        ("cuda", devices.COMPILED - 1, True, False),
        ("cuda", devices.COMPILED, False, False),
        ("cpu", devices.COMPILED, True, False),
        ("mps", devices.COMPILED, True, False),
    ],
)
def test_a_long_training_on_an_nvidia_gpu_is_compiled(
    monkeypatch: pytest.MonkeyPatch, kind: str, calls: int, triton: bool, expected: bool
) -> None:
    done = compiled(monkeypatch, triton=triton)
    network = torch.nn.Linear(2, 2)
    assert devices.compile_for_training(network, torch.device(kind), calls) is expected
    assert len(done) == expected


@pytest.mark.parametrize(("accumulate", "expected"), [(1, [6, 3]), (2, [3])])
def test_trainings_say_how_often_they_call_their_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int, expected: list[int]
) -> None:
    asked: list[int] = []
    for stage in (train, autoencoder_train):
        monkeypatch.setattr(
            stage, "compile_for_training", lambda network, device, calls: asked.append(calls)
        )
    store = small_store(tmp_path)
    asked.clear()
    config = TrainConfig(
        data="faces", name="more", size="micro", T=20, images=12, batch=2, accumulate=accumulate
    )
    train.run(config, store, CPU)
    autoencoder_train.run(AutoencoderTrainConfig(data="faces", images=6, batch=2), store, CPU)
    assert asked == expected


@pytest.mark.parametrize("hw", [(1, 1), (2, 3)])
def test_attention_on_cuda_is_given_strides_that_its_kernels_take(hw: tuple[int, int]) -> None:
    heads, width = 4, 16
    with FakeTensorMode():  # shapes and strides of CUDA tensors without a GPU
        split = torch.empty(2, 3, heads, width, hw[0] * hw[1], device="cuda")
        strides = unet._in_order(split.transpose(-1, -2)).stride()
    assert strides[-2:] == (width, 1)
