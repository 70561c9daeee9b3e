"""Fine-tuning: every recipe runs, resumes and leaves base and CLIP alone; presets; bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fakes import Stop
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from small_guide import write_clip
from small_store import CPU, STEPS, R, copied
from smooth_net import SmoothNet, normal, photos
from torch import Tensor, nn

from dclip.configs.finetune import FinetuneConfig
from dclip.configs.guidance import GuidanceConfig
from dclip.context import Silent
from dclip.data import faces
from dclip.data.dataset import LatentSet
from dclip.data.images import to_float
from dclip.diffusion import ddim
from dclip.diffusion.schedule import Schedule
from dclip.domains import DOMAINS, DRAWN_FACES
from dclip.errors import BadInput, CorruptArtifact, DclipError, MissingArtifact
from dclip.guidance.clamp import in_range
from dclip.guidance.clip import Move, load_guide
from dclip.guidance.direction import Direction
from dclip.guidance.kinds import KINDS, LOSSES
from dclip.guidance.objective import Objective, recoloured
from dclip.guidance.prompts import PRESETS, presets_of, split_sources
from dclip.guiding import find_clip, find_guides
from dclip.models.checkpoint import Source, load_model
from dclip.models.hspace import is_hspace
from dclip.models.tuned import Above, merged, read_deltas
from dclip.recipes import BY_KIND, RECIPES, recipe
from dclip.recipes.contract import Batch, Problem
from dclip.recipes.loops import one_step, one_step_photo, per_step, stepwise, unrolled
from dclip.stages import finetune
from dclip.stages.finetune import run
from dclip.store import Artifact, Planned, Staging, Store
from dclip.training import loop as training

EMBEDDED = Path(finetune.__file__).parents[1] / "assets" / "clip"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Store:
    return copied(trained, tmp_path_factory.mktemp("finetune") / "store")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def small(clip: Path) -> FinetuneConfig:
    return FinetuneConfig(
        target="sketch",
        clip=(str(clip),),
        latents="faces",
        updates=5,
        batch=4,
        decode_steps=2,
        recipe="stepwise",
        name="mine",
    )


@pytest.fixture(scope="module")
def made(store: Store, small: FinetuneConfig) -> dict[str, Artifact]:
    """One small fine-tuning of every recipe."""
    return {name: run(replace(small, recipe=name, name=name), store, CPU) for name in RECIPES}


def stats(artifact: Artifact) -> list[dict[str, Any]]:
    text = (artifact.path / "logs" / "stats.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


# --- the stage


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_leaves_what_a_tuned_artifact_holds(
    store: Store, made: dict[str, Artifact], name: str
) -> None:
    artifact = made[name]
    base, _ = load_model(store.resolve("faces", "model").path)
    if RECIPES[name].space == "weights":
        deltas = read_deltas(artifact.path, base)
        assert max(float(d.abs().max()) for d in deltas.values()) > 1e-6
    assert is_hspace(artifact.path) == (RECIPES[name].space == "h")
    assert (artifact.path / "adapter.safetensors").is_file() == bool(RECIPES[name].updating.rank)
    snapshots = sorted(p.name for p in (artifact.path / "snapshots").iterdir())
    assert snapshots[0] == "update_00000.png" and snapshots[-1] == "update_00005.png"
    for picture in ("loss.png", "panel.png"):
        assert min(Image.open(artifact.path / picture).size) > 50
    assert [row["step"] for row in stats(artifact)] == [1, 2, 3, 4, 5]
    scores = artifact.metrics["scores"]
    assert (scores[0]["step"], scores[-1]["step"]) == (0, 5)
    assert scores[-1]["l1"] != scores[0]["l1"]
    assert (artifact.config["r"], artifact.config["inversion_steps"]) == (R, STEPS)
    assert artifact.config["target"] == PRESETS["sketch"].target


@pytest.mark.parametrize("name", RECIPES)
def test_killed_anywhere_every_recipe_ends_as_if_it_never_was(
    store: Store,
    small: FinetuneConfig,
    made: dict[str, Artifact],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = replace(small, recipe=name, name="again")
    forced = replace(CPU, force=True)
    for after, seconds in ((3, 0.0), (1, 0.0), (1, 1e9)):
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", seconds)
        with pytest.raises(KeyboardInterrupt):
            run(config, store, replace(forced, report=Stop(after)))
    found = run(config, store, replace(forced, report=(last := Stop())))
    assert last.began[0] > 0  # it did go on from a checkpoint
    assert found.fresh and found.id == made[name].id
    assert [row["step"] for row in stats(found)] == [1, 2, 3, 4, 5]


def test_killed_after_a_snapshot_it_goes_on_from_its_checkpoint(
    store: Store, small: FinetuneConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, forced = replace(small, name="snapped"), replace(CPU, force=True)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    whole = finetune._Tuning._snapshot

    def then_stop(self: finetune._Tuning, counters: dict[str, Any]) -> None:
        whole(self, counters)
        if counters["step"] > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        patch.setattr(finetune._Tuning, "_snapshot", then_stop)
        run(config, store, forced)
    run(config, store, replace(forced, report=(last := Stop())))
    assert last.began[0] > 0 and not any("damaged" in said for said in last.said)


def test_at_strength_0_it_is_the_base_and_at_1_it_is_not(
    store: Store, made: dict[str, Artifact]
) -> None:
    base, _ = load_model(store.resolve("faces", "model").path)
    deltas = read_deltas(made["simplified"].path, base)
    x, t = torch.randn(1, 3, 16, 16), torch.tensor([R])
    with torch.no_grad():
        assert torch.equal(merged(base, [(deltas, 0.0)])(x, t), base(x, t))
        assert not torch.allclose(merged(base, [(deltas, 1.0)])(x, t), base(x, t), atol=1e-5)


def test_it_moves_pictures_where_the_text_points(store: Store, small: FinetuneConfig) -> None:
    config = replace(small, recipe="unrolled", updates=20, lr=6e-3, views=0, name="longer")
    artifact = run(config, store, CPU)
    rows = stats(artifact)
    assert rows[-1]["direction"] < rows[0]["direction"] - 0.2
    scores = artifact.metrics["scores"]
    assert scores[-1]["s_dir"] > scores[0]["s_dir"] + 0.2


def test_an_attribute_is_to_go_as_far_as_the_photos_lie_apart(
    store: Store, small: FinetuneConfig, clip: Path
) -> None:
    """A style goes as far as its words, and so does what few photos cannot say."""
    guide, latents = load_guide(str(clip)), store.resolve("faces", "latents")
    data = LatentSet(latents.path)
    photos = to_float(torch.from_numpy(data.references(data.split("train"))))
    for name in ("blond hair", "smiling", "sketch"):
        pair = PRESETS[name]
        config = replace(small, preset=name, target=None, name=name.replace(" ", "-"), updates=1)
        seen = recoloured(photos, KINDS[pair.kind].saturation)
        wanted = []
        for source in split_sources(pair.source):
            difference = guide.move(pair.target, source).differences[0]
            score = (guide.embed_image(seen) @ F.normalize(difference, dim=0)).sort().values
            n = len(score)
            apart = float(score[-max(1, n // 10) :].mean() - score[: max(1, n // 4)].mean())
            assert n >= 16
            wanted.append(apart if pair.local else float(difference.norm()))
        assert len(wanted) == (4 if name == "blond hair" else 1)
        assert run(config, store, CPU).metrics["units"][0] == pytest.approx(wanted, abs=1e-5)


def test_only_the_differences_are_trained(
    store: Store, small: FinetuneConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    real = finetune._Tuning.run

    def spy(self: Any) -> Any:
        before = {k: v.clone() for k, v in self.base.state_dict().items()}
        guide = self.directions[0].guide.model
        clip = {k: v.clone() for k, v in guide.state_dict().items()}
        metrics = real(self)
        assert all(torch.equal(v, before[k]) for k, v in self.base.state_dict().items())
        assert all(torch.equal(v, clip[k]) for k, v in guide.state_dict().items())
        for model in (self.base, guide):
            assert all(p.grad is None and not p.requires_grad for p in model.parameters())
        own = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        assert own == {id(p) for p in self.tuned.delta.parameters()}
        seen.append(metrics["parameters"])
        return metrics

    monkeypatch.setattr(finetune._Tuning, "run", spy)
    for rank in (2, 0):
        run(replace(small, updates=2, rank=rank, name=f"rank-{rank}"), store, CPU)
    run(replace(small, updates=2, recipe="asyrp", name="block"), store, CPU)
    base, _ = load_model(store.resolve("faces", "model").path)
    assert seen[0] < seen[1] and seen[2] < seen[1] == sum(p.numel() for p in base.parameters())


def test_the_clip_counts_by_content(store: Store, small: FinetuneConfig, tmp_path: Path) -> None:
    config = replace(small, updates=1, name="content")
    first = run(replace(config, clip=(str(write_clip(tmp_path / "a")),)), store, CPU)
    same = run(replace(config, clip=(str(write_clip(tmp_path / "b")),)), store, CPU)
    assert same.id == first.id and not same.fresh
    other = run(replace(config, clip=(str(write_clip(tmp_path / "b", seed=1)),)), store, CPU)
    assert other.id != first.id


def test_a_face_network_keeps_the_face(store: Store, small: FinetuneConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8))
    file = tmp_path / "face.pt"
    torch.jit.script(network).save(str(file))  # type: ignore[no-untyped-call]
    artifact = run(replace(small, face=str(file), trust=True, updates=4, name="face"), store, CPU)
    assert stats(artifact)[-1]["face_identity"] > 0
    with pytest.raises(BadInput, match="is not"):
        file.write_bytes(b"nothing")
        run(replace(small, face=str(file), name="face"), store, CPU)


def test_a_face_network_of_another_size_is_refused(
    store: Store, small: FinetuneConfig, tmp_path: Path
) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 112 * 112, 8))
    file = tmp_path / "face.pt"
    torch.jit.script(network).save(str(file))  # type: ignore[no-untyped-call]
    with pytest.raises(BadInput, match=r"features \(B, D\) of pictures \(B, 3, 16, 16\)"):
        run(replace(small, face=str(file), trust=True, updates=1, name="face-112"), store, CPU)


def test_a_kind_says_how_prompts_of_ones_own_are_treated(
    store: Store, small: FinetuneConfig
) -> None:
    def plan(**changes: Any) -> dict[str, Any]:
        with pytest.raises(Planned) as caught:
            run(replace(small, **changes), store, replace(CPU, dry_run=True))
        config: dict[str, Any] = caught.value.plan["config"]
        return config

    hat = plan(target="a person with a hat", recipe=None)
    assert (hat["local"], hat["saturation"], hat["recipe"]) == (False, 1.0, "stepwise")
    assert (hat["locality"], hat["scale"]) == (0.0, 1.0)
    hat = plan(target="a person with a hat", recipe=None, kind="attribute")
    assert (hat["local"], hat["saturation"]) == (True, KINDS["attribute"].saturation)
    assert hat["locality"] == KINDS["attribute"].locality > 0
    vampire = plan(target="a vampire", recipe=None, kind="character")
    assert (vampire["local"], vampire["scale"]) == (False, KINDS["character"].scale)
    assert plan(target="a vampire", kind="character", recipe="simplified")["locality"] == 0
    assert plan(target="a woodcut", recipe=None, kind="drawing")["recipe"] == "unrolled"
    drawn = plan(target=None, preset="smiling", recipe=None, kind="style")
    assert not drawn["local"] and drawn["target"] == PRESETS["smiling"].target
    with pytest.raises(BadInput, match="kind 'hat' is unknown"):
        replace(small, kind="hat")


@pytest.mark.parametrize("rank", [2, 0])
def test_scale_says_how_many_times_what_was_tuned_strength_1_is(
    store: Store, small: FinetuneConfig, rank: int
) -> None:
    once, twice = (
        run(replace(small, rank=rank, scale=scale, name=f"by-{scale}-{rank}"), store, CPU)
        for scale in (1.0, 2.0)
    )
    base, _ = load_model(store.input(once, "model").path)
    first, second = (read_deltas(made.path, base) for made in (once, twice))
    assert first.keys() == second.keys()
    for name, delta in first.items():
        assert torch.allclose(second[name], 2 * delta, rtol=2e-3, atol=1e-6)
    assert max(float(d.abs().max()) for d in first.values()) > 0
    assert [s["s_dir"] for s in once.metrics["scores"]] != [
        s["s_dir"] for s in twice.metrics["scores"]
    ]


def test_a_loss_that_overflows_stops_with_advice(store: Store, small: FinetuneConfig) -> None:
    weights = {"direction": 3e38, "identity": 3e38}
    config = replace(small, recipe="simplified", weights=weights, lr=0.5, name="inf")
    with pytest.raises(DclipError, match=r"(loss|gradient) became (inf|nan) at update") as caught:
        run(config, store, CPU)
    assert "--lr 0.125" in caught.value.fix
    assert "inf" not in [a.name for a in store.list("tuned")]


def test_several_clips_guide_together(
    store: Store, small: FinetuneConfig, clip: Path, tmp_path: Path
) -> None:
    """The loss is the mean of what each says alone; none may be given twice."""
    other = write_clip(tmp_path / "other", seed=1)
    guides = [load_guide(str(each)) for each in (clip, other)]
    first, second = (Direction(each, each.move("a sketch", "a photo")) for each in guides)
    generator = torch.Generator().manual_seed(2)
    x, reference = torch.rand(2, 3, 3, 16, 16, generator=generator) * 2 - 1
    said = [
        Objective(several, GuidanceConfig(weights={"goal": 1.0}))(x, reference, torch.rand)[1]
        for several in ([first], [second], [first, second])
    ]
    for part in ("direction", "goal", "identity"):
        one, two, both = (float(each[part]) for each in said)
        assert both == pytest.approx((one + two) / 2, rel=1e-5)
        assert (one == pytest.approx(two)) == (part == "identity")
    config = replace(small, updates=1, name="together")
    made = run(replace(config, clip=(str(clip), str(other))), store, CPU)
    assert len(made.config["clips"]) == len(made.metrics["units"]) == 2
    shutil.copytree(clip, tmp_path / "copy")
    with pytest.raises(BadInput, match="given twice"):
        run(replace(config, clip=(str(clip), str(tmp_path / "copy"))), store, CPU)


def test_a_clip_with_nan_is_refused(store: Store, small: FinetuneConfig, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "nan")
    weights = load_file(path / "open_clip_model.safetensors")
    weights["visual.proj"].fill_(torch.nan)
    save_file(weights, path / "open_clip_model.safetensors")
    with pytest.raises(CorruptArtifact, match="NaN"):
        run(replace(small, clip=(str(path),)), store, CPU)


def test_without_latents_the_fix_is_a_command(small: FinetuneConfig, tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact) as caught:
        run(replace(small, latents=None), Store(tmp_path / "empty"), CPU)
    assert "dclip invert" in caught.value.fix


def test_prompts_that_say_the_same_are_refused(store: Store, small: FinetuneConfig) -> None:
    with pytest.raises(BadInput, match="the same"):
        run(replace(small, target="a face", source="a face", name="same"), store, CPU)
    with pytest.raises(BadInput, match="tokens"):
        run(replace(small, target="face " * 40), store, CPU)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "what is the edit"),
        ({"target": " "}, "empty"),
        ({"preset": "sketch", "target": "x"}, "--target has no effect with --preset"),
        ({"target": "x", "recipe": "step-wise"}, "recipe 'step-wise' is unknown"),
        ({"target": "x", "batch": 0}, "batch"),
        ({"target": "x", "updates": 0}, "updates"),
        ({"target": "x", "rank": -1}, "rank"),
        ({"target": "x", "face": "f.pt", "weights": {"face_identity": -1.0}}, "face_identity"),
        ({"target": "x", "views": -1}, "views"),
        ({"target": "x", "lr": 2.0}, "lr"),
        ({"target": "x", "epochs": 1, "updates": 1}, "--updates has no effect with --epochs"),
    ],
    ids=str,
)
def test_a_config_that_cannot_be_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        FinetuneConfig(**settings)


# --- presets and recipes


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_its_prompts(name: str) -> None:
    pair = FinetuneConfig(preset=name).prompts()
    assert pair == PRESETS[name] and pair.target != pair.source
    assert FinetuneConfig(target=name).prompts() == pair  # its name alone stands for the pair
    assert FinetuneConfig(target=name, source="a face").prompts().target == name
    if name in faces.TARGETS:
        assert pair.local == (faces.TARGETS[name].kind == "attribute")


def test_the_pages_list_every_preset_and_recipe() -> None:
    docs = Path(__file__).parents[1] / "docs"
    lines = (docs / "finetune.md").read_text().splitlines()
    for name, pair in presets_of(DRAWN_FACES).items():
        (row,) = [line for line in lines if line.startswith(f"| {pair.kind} |")]
        assert f"`{name}`" in row
    rows = (docs / "domains.md").read_text().splitlines()
    for name, pair in PRESETS.items():
        if pair not in presets_of(DRAWN_FACES).values():
            assert any(line.startswith(f"| `{name}` |") and pair.target in line for line in rows)
    page = (docs / "recipes.md").read_text()
    assert all(f"| `{name}` |" in page for name in RECIPES)


@pytest.mark.parametrize(
    ("settings", "recipe"),
    [
        ({"target": "sketch", "recipe": None}, "unrolled"),
        ({"target": "a pencil sketch", "source": "a photo", "recipe": None}, "stepwise"),
        ({"preset": "smiling", "target": None, "recipe": None}, "unrolled"),
        ({"preset": "zombie", "target": None, "recipe": None}, "stepwise"),
        ({"target": "sketch", "recipe": "one-step"}, "one-step"),
    ],
)
def test_the_kind_of_edit_chooses_the_recipe_unless_the_user_does(
    store: Store, small: FinetuneConfig, settings: dict[str, Any], recipe: str
) -> None:
    config = replace(small, clip=(str(EMBEDDED),), updates=1, name="chosen", **settings)
    assert run(config, store, CPU).config["recipe"] == recipe


def test_every_kind_of_edit_has_a_recipe() -> None:
    assert {each.kind for each in PRESETS.values()} | set(KINDS) == set(BY_KIND)
    assert set(BY_KIND.values()) <= set(RECIPES)


def test_what_a_fine_tune_can_be_scored_on_has_a_preset() -> None:
    wanted = {"sketch", "cartoon", "zombie", "smiling", "blond hair", "glasses"}
    back = {"not smiling", "black hair", "no glasses"}
    assert wanted | back <= set(PRESETS) & set(faces.TARGETS)


@pytest.mark.skipif(not EMBEDDED.is_dir(), reason="no CLIP is embedded in this tree")
def test_the_embedded_clip_knows_every_presets_words() -> None:
    guide = load_guide(str(EMBEDDED))
    for pair in presets_of(DRAWN_FACES).values():
        for prompt in (pair.target, *split_sources(pair.source)):
            assert guide.warning(prompt) is None
        assert float(guide.move(pair.target, pair.source).differences.norm(dim=-1).min()) > 0.03


@pytest.mark.parametrize(
    ("wrong", "near"), [("skech", "sketch"), ("smilling", "smiling"), ("blonde hair", "blond hair")]
)
def test_an_unknown_preset_names_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(BadInput, match=f"preset '{wrong}' is unknown") as caught:
        FinetuneConfig(preset=wrong)
    assert f"did you mean {near}" in caught.value.fix


def test_simplified_is_the_reports_table_1() -> None:
    found = recipe("simplified")
    of = found.updating
    assert (found.load(), of.lr, of.batch, of.epochs, of.decode_steps) == (
        per_step,
        2e-3,
        30,
        5,
        50,
    )
    weights = found.guidance.weights
    assert {k: v for k, v in weights.items() if v} == {"direction": 1.0, "identity": 0.3}
    assert set(weights) == set(LOSSES) - {"face_identity"}  # no kind of edit adds to them
    # No part of the report: all weights are tuned, and the CLIP sees the picture itself.
    assert (of.rank, found.guidance.views, of.updates) == (0, 0, None)


@pytest.fixture
def problem() -> tuple[Problem, Batch, list[tuple[Tensor, Tensor]]]:
    """A smooth network in float64 as model and as base, and what the objective is shown."""
    shown: list[tuple[Tensor, Tensor]] = []

    def objective(x: Tensor, reference: Tensor, draw: Callable[[int], Tensor]) -> Any:
        shown.append((x, reference))
        return (x - 0.5).square().mean(), {"direction": 0.0}

    schedule = Schedule.make("linear-rescaled", 20)
    model, frozen = SmoothNet(strength=0.3), SmoothNet(strength=0.3).requires_grad_(False)
    x = 0.5 * photos(2)
    batch = Batch(x, normal(2), torch.Generator().manual_seed(0))
    return Problem(model, frozen, schedule, (0, 3, 7, 12), objective), batch, shown


def test_per_step_shows_x0_of_every_state_against_the_photo(problem: Any) -> None:
    work, batch, shown = problem
    losses = list(per_step(work, batch))
    assert len(losses) == 3 == len(shown)
    states: list[tuple[Tensor, Tensor]] = []
    ddim.decode(
        work.frozen, work.schedule, batch.latents, work.grid,
        on_step=lambda i, t, x, x0: states.append((x, x0)),
    )  # fmt: skip
    for (x, reference), (_, x0) in zip(shown, states, strict=True):
        assert reference is batch.photos
        assert torch.allclose(x, x0, atol=1e-10)


def test_an_update_changes_the_next_steps_estimate(problem: Any) -> None:
    work, batch, shown = problem
    optimizer = torch.optim.SGD(work.model.parameters(), lr=0.1)
    for loss, _ in per_step(work, batch):
        optimizer.zero_grad()
        loss.backward()  # no graph runs through the steps before
        optimizer.step()
    after = [x.detach() for x, _ in shown]
    shown.clear()
    work.model.load_state_dict(work.frozen.state_dict())
    list(per_step(work, batch))
    assert torch.allclose(after[0], shown[0][0]) and not torch.allclose(after[1], shown[1][0])


@pytest.mark.parametrize("loop", [stepwise, one_step])
def test_against_the_frozen_model_nothing_is_to_be_seen_at_first(problem: Any, loop: Any) -> None:
    work, batch, shown = problem
    losses = list(loop(work, batch))
    assert len(losses) == (3 if loop is stepwise else 1)
    for x, reference in shown:
        assert not reference.requires_grad
        assert torch.allclose(x.clamp(-1, 1), reference, atol=1e-10)


def test_stepwise_walks_the_tuned_models_states_down_to_where_the_base_goes_on(
    problem: Any,
) -> None:
    work, batch, shown = problem
    with torch.no_grad():
        for p in work.model.parameters():
            p.add_(0.01 * torch.ones_like(p))
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name, network in (("tuned", work.model), ("frozen", work.frozen)):
        states: list[Tensor] = []
        ddim.decode(
            network, work.schedule, batch.latents, work.grid,
            on_step=lambda i, t, x, x0, states=states: states.append(x0.detach()),
        )  # fmt: skip
        pairs[name] = states[:2]
    list(stepwise(replace(work, t_min=work.grid[1]), batch))
    assert len(shown) == 2  # of the three steps the last is the base's

    def rows(pictures: list[Tensor]) -> Tensor:
        flat = torch.cat(pictures).flatten(1)
        return flat[flat[:, 0].argsort()]

    # Mixed, but all there: every label's estimate by the tuned model, and by the frozen one.
    for which, name in enumerate(("tuned", "frozen")):
        wanted = [x.clamp(-1, 1) for x in pairs[name]]
        found = [pair[which].detach() for pair in shown]
        assert torch.allclose(rows(found), rows(wanted), atol=1e-8)


@pytest.mark.parametrize("loop", [stepwise, one_step])
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_from_beyond_the_pixels_range_the_gradient_leads_back_and_only_back(
    problem: Any, loop: Any, side: float
) -> None:
    work, batch, _ = problem
    far = torch.tensor(50.0 * side, dtype=torch.float64, requires_grad=True)

    def slope(objective: Any) -> Tensor:
        """What one unit more of ``far``, all of it beyond the range, would cost."""
        network = lambda x, t: -far.expand_as(x)  # noqa: E731
        tuned = replace(work, model=network, objective=lambda x, *_: (objective(x), {}))
        (found,) = torch.autograd.grad(sum(loss for loss, _ in loop(tuned, batch)), far)
        return found

    assert slope(lambda x: (x - 0.5 * side).square().mean()) * side > 0
    assert slope(lambda x: -side * x.mean()) == 0


def test_unrolled_shows_the_decode_and_reaches_every_step(problem: Any) -> None:
    work, batch, shown = problem
    ((loss, _),) = list(unrolled(work, batch))
    expected = in_range(ddim.decode(work.model, work.schedule, batch.latents, work.grid))
    assert torch.allclose(shown[0][0], expected, atol=1e-10)
    assert float(expected.detach().abs().max()) == 1  # what is shown is what a picture can hold
    loss.backward()
    whole = (expected - 0.5).square().mean()
    gradients = torch.autograd.grad(whole, list(work.model.parameters()))
    for p, g in zip(work.model.parameters(), gradients, strict=True):
        assert torch.allclose(p.grad, g, atol=1e-10)


def test_a_batchs_randomness_is_its_generators_alone(problem: Any) -> None:
    work, batch, shown = problem
    for loop in (stepwise, one_step):
        shown.clear()
        for _ in range(2):
            torch.randn(3)
            list(loop(work, replace(batch, generator=torch.Generator().manual_seed(4))))
        half = len(shown) // 2
        for (x, _), (y, _) in zip(shown[:half], shown[half:], strict=True):
            assert torch.equal(x, y)


def test_the_latents_decide_r_and_a_presets_own_is_told(
    store: Store, small: FinetuneConfig
) -> None:
    def notes(**changes: Any) -> list[str]:
        with pytest.raises(Planned):
            config = replace(small, **changes)
            run(config, store, replace(CPU, dry_run=True, report=(said := Stop())))
        return [note for note in said.notes if "r=" in note]

    own = round(PRESETS["sketch"].settings.r * 20)  # the small store's model has T = 20
    assert own != R
    (note,) = notes(target="sketch")
    assert f"r={R}" in note and f"r={own}" in note and "dclip invert --preset sketch" in note
    assert notes(target=None, preset="sketch") == [note]
    assert notes(target=None, preset="sketch", kind="style") == [note]
    assert not notes(target="sketch", source="a photo")


def test_a_clip_of_the_store_comes_before_a_folder_of_its_name(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("artifacts")
    shutil.copytree(clip, "mine")
    assert find_clip("mine", store, said := Stop()) == ("mine", None)
    assert said.notes == ["using the CLIP in the folder mine"]

    def make(staging: Staging) -> dict[str, Any]:
        shutil.copytree(clip, staging.path, dirs_exist_ok=True)
        return {}

    made = store.build(
        stage="clip-train", kind="clip", name="mine", config={}, inputs={}, seed=0,
        context=CPU, make=make,
    )  # fmt: skip
    where, artifact = find_clip("mine", store, said := Stop())
    assert (where, artifact.id if artifact else "") == (str(made.path), made.id)
    assert "clip/mine/v1, not the folder mine" in said.notes[0] and "./mine" in said.notes[0]
    assert find_clip("./mine", store, Stop()) == ("mine", None)
    for path in (made.path, f"./{made.path.relative_to(tmp_path)}"):
        found = find_clip(str(path), store, said := Stop())[1]
        assert found is not None and found.id == made.id and not said.notes
    assert find_clip("ViT-B-32:openai", store, Stop()) == ("ViT-B-32:openai", None)
    with pytest.raises(MissingArtifact, match="other"):
        find_clip("other", store, Stop())


def test_the_embedded_base_is_guided_by_the_embedded_clip(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ((where, artifact),) = find_guides((), store, DOMAINS[DRAWN_FACES], Silent())
    assert artifact is not None
    assert artifact.ref == "clip/embedded"
    assert Path(where) == artifact.path


def test_below_t_min_the_base_ends_what_unrolled_shows(problem: Any) -> None:
    """What edit makes of it: the state where the tuned model stops is no picture yet."""
    work, batch, shown = problem
    with torch.no_grad():
        for p in work.model.parameters():
            p.add_(0.01 * torch.ones_like(p))
    t_min = work.grid[2]
    list(unrolled(replace(work, t_min=t_min), batch))
    model = Above(t_min, work.model, work.frozen)
    expected = ddim.decode(model, work.schedule, batch.latents, work.grid).clamp(-1, 1)
    assert torch.allclose(shown[0][0].detach(), expected, atol=1e-10)


@given(seed=st.integers(0, 2**31), t_min=st.integers(0, 11))
def test_one_step_draws_labels_that_the_tuned_model_will_decode(seed: int, t_min: int) -> None:
    labels: list[int] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        labels.extend(int(each) for each in t)
        return torch.zeros_like(x)

    work = Problem(
        network, network, Schedule.make("linear-rescaled", 20), (0, 6, 12),
        lambda x, reference, draw: (x.mean(), {}), t_min,
    )  # fmt: skip
    photos = torch.zeros(1, 3, 4, 4)
    list(one_step(work, Batch(photos, photos, torch.Generator().manual_seed(seed))))
    assert labels and all(t_min < t <= 12 for t in labels)


def test_views_are_not_rounded_where_networks_compute_in_half_precision() -> None:
    """The crop's corners in bfloat16 would be up to half a pixel off at 256 pixels a side."""
    seen: list[Tensor] = []

    class Eye:
        def embed_image(self, x: Tensor) -> Tensor:
            seen.append(x)
            return F.normalize(x.flatten(1)[:, :8] + 2, dim=-1)

    sources = F.normalize(torch.ones(1, 8), dim=-1)
    move = Move(sources, torch.linspace(-0.2, 0.2, 8).view(1, 8))
    direction = Direction(Eye(), move)  # type: ignore[arg-type]
    photos = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for precision in ("fp32", "bf16"):
        objective = Objective([direction], GuidanceConfig(views=2), precision=precision)
        generator = torch.Generator().manual_seed(1)
        objective(photos, photos, lambda n, g=generator: torch.rand(n, generator=g))
    assert seen[0].dtype == seen[2].dtype == torch.float32
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])


def test_neither_a_plan_nor_finished_work_asks_for_a_clip_by_name(
    store: Store, small: FinetuneConfig, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be gigabytes to fetch, on a machine that has no connection any more."""
    asked: list[str] = []

    def fetch(spec: str, *args: Any, **more: Any) -> Any:
        asked.append(spec)
        return load_guide(str(clip))

    monkeypatch.setattr("dclip.guidance.clip.load_guide", fetch)
    config = replace(small, clip=("ViT-B-32:openai",), updates=1, name="by-name")
    with pytest.raises(Planned):
        run(config, store, replace(CPU, dry_run=True))
    assert not asked
    assert run(config, store, CPU).fresh and asked == ["ViT-B-32:openai"]
    assert not run(config, store, CPU).fresh and len(asked) == 1


def test_every_loss_that_counts_is_logged(store: Store, small: FinetuneConfig) -> None:
    """Weighed, they add up to the loss: nothing of it is hidden."""
    config = replace(
        small,
        weights={
            "colour": 1.0,
            "speckle": 0.7,
            "propagation": 1.0,
            "grey": 6.0,
            "structure": 2.0,
            "log_direction": 1.0,
            "global_clip": 0.5,
        },
        updates=1,
        name="logged",
    )
    made = run(config, store, CPU)
    (row,) = stats(made)
    names = [name for name in LOSSES if name not in ("face_identity", "lpips")]
    assert len(names) == 10
    total = sum(made.config["weights"][name] * row[name] for name in names)
    assert row["loss"] == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"target": "sketch"}, "prompts: 'a photo of a person' -> 'a pencil sketch of a person'"),
        ({"target": None, "preset": "smiling"}, "prompts: 'a serious person' -> 'a smiling"),
        ({"target": "smilling"}, "'smilling' is taken as a prompt; the preset is --preset smiling"),
        ({"target": "sketch", "source": "a face"}, "of kind style; the preset is --preset sketch"),
        ({"target": "a person in the rain"}, None),
    ],
)
def test_what_a_target_was_taken_for_is_said(
    store: Store, small: FinetuneConfig, changes: dict[str, Any], note: str | None
) -> None:
    said = Stop()
    with pytest.raises(Planned):
        run(replace(small, **changes), store, replace(CPU, dry_run=True, report=said))
    about = [each for each in said.notes if "prompt" in each]
    assert bool(about) == (note is not None)
    assert note is None or note in about[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"direction": 0.0, "goal": 0.0}}, "no loss is left that follows the text"),
        ({"weights": {"face_identity": 2.0}}, "--face-identity has no effect without --face"),
        ({"saturation": 5.0}, "saturation"),
        ({"decode_steps": 500}, "500 steps do not fit"),
        ({"t_min": 0.99}, "nothing is tuned"),
    ],
)
def test_what_could_not_work_is_refused(
    store: Store, small: FinetuneConfig, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        run(replace(small, **changes), store, CPU)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_plan_refuses_steps_that_do_not_fit(
    store: Store, small: FinetuneConfig, recipe: str
) -> None:
    with pytest.raises(BadInput, match="500 steps do not fit"):
        run(replace(small, recipe=recipe, decode_steps=500), store, replace(CPU, dry_run=True))


# --- published recipes


def test_diffusionclip_is_its_readmes_settings() -> None:
    found = recipe("diffusionclip")
    of, weights = found.updating, found.guidance.weights
    assert (found.load(), of.lr, of.batch, of.epochs, of.decode_steps, of.growth, of.rank) == (
        unrolled, 8e-6, 1, 5, 6, 1.3, 0,
    )  # fmt: skip
    assert {k: v for k, v in weights.items() if v} == {"log_direction": 3.0, "identity": 1.0}
    assert recipe("diffusionclip-gpu-efficient").load() is per_step
    assert recipe("efficient-diffusion").load() is one_step_photo
    for name in ("diffusionclip", "diffusionclip-gpu-efficient", "efficient-diffusion"):
        assert set(recipe(name).guidance.weights) == set(LOSSES) - {"face_identity"}
        assert recipe(name).source


def test_the_efficient_recipe_compares_one_estimate_with_the_photo(problem: Any) -> None:
    work, batch, shown = problem
    (_,) = list(one_step_photo(work, batch))
    ((x, reference),) = shown
    assert torch.equal(reference, batch.photos)
    twin = Batch(batch.photos, batch.latents, torch.Generator().manual_seed(0))
    (_,) = list(one_step(work, twin))
    torch.testing.assert_close(shown[1][0], x)  # the same estimate, from the same noise


def test_the_rate_grows_after_each_pass(
    store: Store, small: FinetuneConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    real = training.Loop.update

    def kept(self: training.Loop, loss: Tensor) -> None:
        rates.append(self.optimizer.param_groups[0]["lr"])
        real(self, loss)

    monkeypatch.setattr(training.Loop, "update", kept)
    config = replace(
        small, recipe="diffusionclip", updates=None, epochs=3, batch=8, lr=1e-6, name="grown"
    )
    made = run(config, store, CPU)
    a_pass = made.metrics["updates"] // 3
    expected = [1e-6 * 1.3**n for n in range(3) for _ in range(a_pass)]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("name", ["diffusionclip", "diffusionclip-gpu-efficient"])
def test_a_published_update_is_that_of_the_slow_reference(
    name: str, problem: tuple[Problem, Batch, list[tuple[Tensor, Tensor]]]
) -> None:
    """The losses and the gradient by the weights, written out step by step in float64."""
    work, batch, _ = problem
    text = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    eye = torch.randn(batch.photos[0].numel(), 5, generator=torch.Generator().manual_seed(2))
    eye = eye.double()

    def embed(x: Tensor) -> Tensor:
        y = x.flatten(1) @ eye
        return y / y.norm(dim=1, keepdim=True)

    def objective(x: Tensor, reference: Tensor, draw: Callable[[int], Tensor]) -> Any:
        log = LOSSES["log_direction"].load()(embed(x), embed(reference), text)
        return 3 * log.mean() + LOSSES["identity"].load()(x, reference).mean(), {}

    def slow(x: Tensor) -> Tensor:
        moved = embed(x) - embed(batch.photos)
        cosine = (moved @ text) / (moved.norm(dim=1) * text.norm())
        return (-3 * torch.log((1 + cosine) / 2)).mean() + (x - batch.photos).abs().mean()

    ours = list(recipe(name).load()(replace(work, objective=objective), batch))
    weights = list(work.model.parameters())  # type: ignore[attr-defined]
    x, losses = batch.latents, []
    ab = work.schedule.alpha_bar.double()
    for s, t in ((7, 12), (3, 7), (0, 3)):
        eps = work.model(x, torch.full((len(x),), t))
        clean = (x - (1 - ab[t]).sqrt() * eps) / ab[t].sqrt()
        losses.append(slow(clean))
        x = ab[s].sqrt() * clean + (1 - ab[s]).sqrt() * eps
        if name != "diffusionclip":
            x = x.detach()
    wanted = [slow(in_range(x))] if name == "diffusionclip" else losses
    assert len(ours) == len(wanted)
    for (loss, _), reference in zip(ours, wanted, strict=True):
        assert float(loss) == pytest.approx(float(reference), rel=1e-6)
        got = torch.autograd.grad(loss, weights, retain_graph=True)
        expected = torch.autograd.grad(reference, weights, retain_graph=True)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8)


def test_an_imported_base_takes_the_published_recipe_and_says_so(
    store: Store, small: FinetuneConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(id="x", revision=None, files={}, licence=None, family="ddpm")
    real = finetune.read_info
    monkeypatch.setattr(
        "dclip.stages.finetune.read_info", lambda path: replace(real(path), source=source)
    )
    heard = Stop(None)
    context = replace(CPU, dry_run=True, report=heard)
    with pytest.raises(Planned) as caught:
        run(replace(small, recipe=None, updates=None, batch=None), store, context)
    config = caught.value.plan["config"]
    assert (config["recipe"], config["growth"], config["rank"]) == ("diffusionclip", 1.3, 0)
    assert any("published settings, --recipe diffusionclip" in note for note in heard.notes)
    with pytest.raises(Planned) as caught:
        run(replace(small, recipe="unrolled"), store, context)
    assert caught.value.plan["config"]["recipe"] == "unrolled"
