"""The sample stage through its own door: keyed noise, any number of steps, tuned models, resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import Stop
from PIL import Image
from small_guide import write_clip

from dclip.configs.sample import SampleConfig
from dclip.context import Context
from dclip.data.images import to_uint8
from dclip.diffusion import ddim
from dclip.diffusion.network import InPrecision
from dclip.diffusion.samplers import SAMPLERS
from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput, DclipError, MissingArtifact
from dclip.models.checkpoint import ModelInfo, load_model, save_model
from dclip.models.tuned import Full
from dclip.models.unet import SIZES
from dclip.random import key, normal
from dclip.stages.sample import run
from dclip.store import Artifact, Staging, Store

CPU = Context(device="cpu")
T = 40
SMALL = SampleConfig(count=5, steps=3, batch=2)


def make_store(path: Path) -> Store:
    """A store with a random base model, and a random tuning of it."""
    store = Store(path)
    info = ModelInfo("unet", SIZES["micro"], Schedule.make("linear-rescaled", T), 16)

    def base(staging: Staging) -> dict[str, float]:
        torch.manual_seed(0)
        weights = {k: v + 0.1 * torch.randn(v.shape) for k, v in info.build().state_dict().items()}
        save_model(staging.path, info, weights)
        return {}

    def tuning(staging: Staging) -> dict[str, float]:
        torch.manual_seed(1)
        full = Full(load_model(made.path)[0])
        for value in full.values:
            value.data += 0.05 * torch.randn(value.shape)
        full.save(staging.path)
        return {}

    made = store.build(
        stage="train", kind="model", name="base", config={}, inputs={}, seed=0,
        context=CPU, make=base,
    )  # fmt: skip
    store.build(
        stage="finetune", kind="tuned", name="other", config={}, inputs={"model": made}, seed=0,
        context=CPU, make=tuning,
    )  # fmt: skip
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("sample") / "store")


@pytest.fixture(scope="module")
def small(store: Store) -> Artifact:
    return run(SMALL, store, CPU)


def pictures(artifact: Artifact) -> np.ndarray:
    files = sorted((artifact.path / "images").iterdir())
    assert [f.name for f in files] == [f"{i:04d}.png" for i in range(len(files))]
    return np.stack([np.asarray(Image.open(f)).astype(int) for f in files])


def test_it_draws_different_pictures_and_a_grid_of_them(small: Artifact) -> None:
    drawn = pictures(small)
    assert drawn.shape == (5, 16, 16, 3)
    for i in range(4):
        assert np.abs(drawn[i] - drawn[i + 1]).mean() > 5
    with Image.open(small.path / "grid.png") as grid:
        assert grid.width > 3 * 64 and grid.height > 2 * 64
    assert small.metrics == {"images": 5, "network_calls_per_image": 3}


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_picture_depends_on_its_own_number_alone(store: Store, sampler: str) -> None:
    few = pictures(run(replace(SMALL, sampler=sampler), store, CPU))
    more = pictures(run(replace(SMALL, sampler=sampler, count=7, batch=3), store, CPU))
    assert np.abs(few - more[:5]).max() <= 1  # rounding differs with the batch
    other = pictures(run(replace(SMALL, sampler=sampler, seed=1), store, CPU))
    assert np.abs(few - other).mean() > 5


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("steps", [1, 7, T])
def test_any_number_of_steps(store: Store, sampler: str, steps: int) -> None:
    made = run(SampleConfig(sampler=sampler, steps=steps, count=1), store, CPU)
    assert made.metrics["network_calls_per_image"] == steps
    assert pictures(made).std() > 5


def test_the_samplers_leave_the_same_noise_on_ways_of_their_own(
    store: Store, small: Artifact
) -> None:
    one = replace(SMALL, steps=1)
    ddim, ddpm = (pictures(run(replace(one, sampler=s), store, CPU)) for s in ("ddim", "ddpm"))
    assert np.abs(ddim - ddpm).max() <= 1  # one step to 0 adds no noise
    ancestral = pictures(run(replace(SMALL, sampler="ddpm"), store, CPU))
    assert np.abs(ancestral - pictures(small)).mean() > 5


def test_interrupted_it_ends_as_if_it_never_was(small: Artifact, tmp_path: Path) -> None:
    store = make_store(tmp_path / "other")
    for after, began in ((1, 0), (1, 2), (None, 4)):
        stop = Stop(after)
        if after:
            with pytest.raises(KeyboardInterrupt):
                run(SMALL, store, replace(CPU, report=stop))
        else:
            made = run(SMALL, store, replace(CPU, report=stop))
        assert stop.began == [began]
    assert made.id == small.id
    assert not run(SMALL, store, CPU).fresh


def test_strength_goes_from_the_base_to_the_tuning_and_beyond(
    store: Store, small: Artifact
) -> None:
    base = pictures(small)
    change = []
    for strength in (0.0, 0.5, 1.0):
        made = run(replace(SMALL, tuned="other", strength=strength), store, CPU)
        assert made.name == "other"
        assert {k: v["ref"] for k, v in made.manifest.inputs.items()} == {
            "model": "model/base/v1", "tuned": "tuned/other/v1",
        }  # fmt: skip
        change.append(np.abs(pictures(made) - base).mean())
    assert change[0] == 0
    assert 0 < change[1] < change[2]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"steps": T + 1}, f"1..{T}"),
        ({"steps": 0}, "steps"),
        ({"count": 0}, "count"),
        ({"batch": 0}, "batch"),
        ({"sampler": "eulr"}, "euler"),
        ({"strength": 0.5}, "--tuned"),
        ({"tuned": "other", "model": "base"}, "--model has no effect with --tuned"),
        ({"tuned": "other", "strength": float("nan")}, "strength"),
        ({"tuned": "base"}, "base"),
    ],
    ids=str,
)
def test_bad_settings_are_refused_before_any_work(
    store: Store, settings: dict[str, object], says: str
) -> None:
    before = [p for p in sorted(store.root.rglob("*")) if ".cache" not in p.parts]
    with pytest.raises((BadInput, MissingArtifact)) as caught:
        run(SampleConfig(**{"steps": 3, **settings}), store, CPU)  # type: ignore[arg-type]
    assert says in f"{caught.value.message} {caught.value.fix}"
    assert [p for p in sorted(store.root.rglob("*")) if ".cache" not in p.parts] == before


def test_the_embedded_model_needs_no_name(tmp_path: Path) -> None:
    made = run(SampleConfig(count=1, steps=2), Store(tmp_path / "store"), CPU)
    assert made.kind == "samples" and len(pictures(made)) == 1


def test_a_tuned_model_acts_where_edit_lets_it_act(store: Store, small: Artifact) -> None:
    """Below its ``t_min`` the base goes on alone; one that never acts draws the base's pictures."""
    other = store.resolve("other", "tuned")

    def copied(staging: Staging) -> dict[str, float]:
        for file in other.path.glob("*.safetensors"):
            (staging.path / file.name).write_bytes(file.read_bytes())
        return {}

    for name, t_min in (("never", T), ("some", T // 2)):
        store.build(
            stage="finetune", kind="tuned", name=name, config={"t_min": t_min}, seed=0,
            inputs={"model": store.resolve("base", "model")}, context=CPU, make=copied,
        )  # fmt: skip
    drawn = {
        name: pictures(run(replace(SMALL, tuned=name), store, CPU))
        for name in ("never", "some", "other")
    }
    assert np.array_equal(drawn["never"], pictures(small))
    assert not np.array_equal(drawn["some"], drawn["never"])
    assert not np.array_equal(drawn["some"], drawn["other"])


def test_a_kill_within_a_picture_leaves_nothing_of_it(
    store: Store, small: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As SIGKILL does it: the half picture stays on the disk until the next run."""
    save = Image.Image.save
    saved: list[Path] = []

    def killed(self: Image.Image, file: Path, **more: object) -> None:
        save(self, file, **more)  # type: ignore[arg-type]
        saved.append(Path(file))
        if len(saved) == 3:
            raise KeyboardInterrupt

    forced = replace(CPU, force=True)
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", killed)
        patch.setattr("dclip.store.files.remove", lambda path: None)
        with pytest.raises(KeyboardInterrupt):
            run(SMALL, store, forced)
    assert saved[-1].exists()
    again = run(SMALL, store, forced)
    assert again.id == small.id and not saved[-1].exists()


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_draws(store: Store, sampler: str) -> None:
    made = run(SampleConfig(model="base", count=2, steps=4, sampler=sampler), store, CPU)
    pictures = [np.asarray(Image.open(file)) for file in sorted(made.path.glob("images/*"))]
    assert len(pictures) == 2 and not np.array_equal(*pictures)
    assert made.metrics["network_calls_per_image"] == SAMPLERS[sampler].calls(4)


def test_eta_and_the_grid_s_rule_change_the_pictures(store: Store) -> None:
    def picture(**settings: Any) -> bytes:
        config = SampleConfig(model="base", count=1, steps=4, **settings)
        return (run(config, store, CPU).path / "images" / "0000.png").read_bytes()

    plain = picture()
    assert picture(eta=0.0) == picture(grid="even") == plain
    assert picture(eta=0.5) != plain != picture(grid="leading")
    assert picture(eta=1.0) == picture(sampler="euler-ancestral")
    with pytest.raises(BadInput, match="--eta has no effect with --sampler ddpm"):
        SampleConfig(sampler="ddpm", eta=0.5)


def test_a_colour_guides_every_picture_towards_it_at_any_batch_size(store: Store) -> None:
    def mean(batch: int, guide: tuple[str, ...]) -> Any:
        config = SampleConfig(model="base", count=3, steps=6, batch=batch, guide=guide)
        made = run(config, store, CPU)
        files = sorted(made.path.glob("images/*"))
        return np.stack([np.asarray(Image.open(file)).mean((0, 1)) for file in files])

    green, plain = mean(3, ("colour:#00ff00:1",)), mean(3, ())
    assert np.allclose(mean(1, ("colour:#00ff00:1",)), green, atol=1.0)
    assert np.allclose(mean(3, ("colour:#00ff00:0",)), plain)
    assert (green[:, 1] - green[:, [0, 2]].mean(1) > plain[:, 1] - plain[:, [0, 2]].mean(1)).all()


def test_a_clip_that_guides_is_an_input_and_what_it_cannot_read_is_refused(
    store: Store, tmp_path: Path
) -> None:
    clip = str(write_clip(tmp_path / "clip"))
    config = SampleConfig(
        model="base", count=1, steps=3, guide=("clip:a smiling person:1",), clip=(clip,)
    )
    plain = run(replace(config, guide=(), clip=()), store, CPU)
    made = run(config, store, CPU)
    assert len(made.config["clips"]) == 1
    name = "images/0000.png"
    assert (made.path / name).read_bytes() != (plain.path / name).read_bytes()
    with pytest.raises(BadInput, match="--clip has no effect without --guide"):
        SampleConfig(clip=(clip,))
    with pytest.raises(BadInput):
        SampleConfig(guide=("colour:nocolour:1",))


# --- the number of training timesteps, and values that are not finite


def test_training_timesteps_are_the_range_of_betas_in_other_steps(store: Store) -> None:
    """As diffusers' scheduler reads num_train_timesteps: the picture of a base on that schedule."""
    made = run(replace(SMALL, train_timesteps=25, name="fewer"), store, CPU)
    base = store.resolve("base", "model")
    network, info = load_model(base.path)
    ends = (info.schedule.beta(1), info.schedule.beta(T))
    betas = torch.linspace(*ends, 25, dtype=torch.float64)
    schedule = Schedule.trained(betas.tolist())
    assert torch.allclose(info.schedule.in_steps(25).alpha_bar, schedule.alpha_bar, atol=1e-12)
    network.schedule = schedule
    noise = normal([key(0, "sample", i, 25) for i in range(2)], info.shape)
    with torch.no_grad():
        grid = ddim.grid(25, 3)
        expected = to_uint8(ddim.decode(network, schedule, noise, grid, clip_x0=True))
    got = [np.asarray(Image.open(made.path / f"images/{i:04d}.png")) for i in range(2)]
    away = np.abs(np.stack(got).transpose(0, 3, 1, 2).astype(int) - expected.numpy().astype(int))
    assert away.max() <= 1


def test_the_range_of_betas_of_stable_diffusion() -> None:
    """sigma_max of its schedule in N steps: measured on diffusers' LMS scheduler."""
    known = {50: 0.556, 600: 4.91, 800: 8.51, 1000: 14.61, 1500: 56.0}
    whole = Schedule.make("scaled-linear", 1000)
    for steps, expected in known.items():
        a, b = whole.in_steps(steps).coefficients(steps)
        assert b / a == pytest.approx(expected, rel=2e-3)
    with pytest.raises(BadInput, match="no range of betas"):
        Schedule.make("cosine", 100).in_steps(50)


def _spoil(monkeypatch: pytest.MonkeyPatch, *precisions: str) -> None:
    """Networks give NaN in these precisions."""

    class Spoilt(InPrecision):
        def at(self, t: int) -> Any:
            eps = super().at(t)
            return lambda x, ts: eps(x, ts) * (np.nan if self.precision in precisions else 1)

    monkeypatch.setattr("dclip.stages.sample.InPrecision", Spoilt)


def test_what_half_precision_cannot_hold_is_drawn_in_float32(
    store: Store, small: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    _spoil(monkeypatch, "bf16")
    said = Stop()
    context = replace(CPU, report=said)
    made = run(replace(SMALL, precision="bf16", name="again"), store, context)
    assert sum("drawn again in float32" in text for text in said.said) == 1
    for i in range(5):
        name = f"images/{i:04d}.png"
        pair = (np.asarray(Image.open(each.path / name)).astype(int) for each in (made, small))
        assert np.abs(next(pair) - next(pair)).max() <= 1


def test_pictures_that_are_not_finite_are_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _spoil(monkeypatch, "bf16", "fp32")
    before = len(store.list("samples"))
    with pytest.raises(DclipError, match="not finite"):
        run(replace(SMALL, seed=9, name="spoilt"), store, CPU)
    assert len(store.list("samples")) == before
