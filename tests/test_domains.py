"""Presets by domain, r as a share, closed-form noise, grids in the artifact, and unseen domains."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_guide import write_clip
from small_store import CPU, SIZE, T, copied
from smooth_net import Oracle, SmoothNet, normal, photos

from dclip.cli.app import main
from dclip.configs.edit import EditConfig
from dclip.configs.finetune import FinetuneConfig
from dclip.configs.invert import InvertConfig
from dclip.data.dataset import DataSet, LatentSet
from dclip.diffusion import ddim, grids, inversion, unseen
from dclip.diffusion.schedule import Schedule
from dclip.domains import DOMAINS, DRAWN_FACES, find_domain
from dclip.editing.editor import Editor, Networks
from dclip.editing.plan import Plan, make_plan
from dclip.errors import BadInput
from dclip.guidance.prompts import PRESETS, presets_of, split_sources, unfit
from dclip.guiding import preset_r
from dclip.models.checkpoint import Source, load_model, read_info, save_model
from dclip.random import key
from dclip.stages import edit, finetune, invert
from dclip.store import Planned, Store

PUBLISHED = {"diffusionclip", "diffusionclip-gpu-efficient", "efficient-diffusion", "asyrp"}


@pytest.fixture
def store(trained: Path, tmp_path: Path) -> Store:
    return copied(trained, tmp_path / "store")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip", context=64, seed=0)


# --- presets


@pytest.mark.parametrize(
    ("domain", "subjects"), [("faces", 28), ("dogs", 10), ("churches", 10), ("bedrooms", 6)]
)
def test_every_subject_of_diffusionclip_has_a_preset(domain: str, subjects: int) -> None:
    published = [row.suited(True) for row in presets_of(domain).values()]
    from_it = [each for each in published if each.source.startswith("DiffusionCLIP")]
    assert len(from_it) >= subjects
    assert all(each.recipe == "diffusionclip" for each in from_it)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_a_share_a_recipe_and_a_source(name: str) -> None:
    row = PRESETS[name]
    for found in (row.suited(), row.suited(imported=True)):
        assert 0 < found.r <= 1 and found.source
        assert found.recipe is None or found.recipe in PUBLISHED
        for steps in (20, 200, 1000):
            assert 1 <= preset_r(row, steps) <= steps
    assert set(row.domains) <= set(DOMAINS)
    assert row.target not in split_sources(row.source)


def test_published_return_steps_are_met_at_a_thousand_timesteps() -> None:
    # t_0 of the checkpoints' names, counted from 0.
    for name, t_0 in (("sketch", 601), ("tanned", 201), ("makeup", 301), ("bear", 500)):
        assert preset_r(PRESETS[name], 1000, imported=True) == t_0 + 1
    assert preset_r(PRESETS["sketch"], 200) == 100


def test_presets_are_listed_by_domain(capsys: pytest.CaptureFixture[str]) -> None:
    def listed(*words: str) -> list[dict[str, Any]]:
        assert main(["presets", "--json", *words]) == 0
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
        return found

    dogs = listed("--domain", "dog")
    assert dogs and all(row["domains"] == ["dogs"] for row in dogs)
    assert {row["name"] for row in listed("--domain", "churches")} == set(presets_of("churches"))
    assert len(listed()) == len(PRESETS) > len(dogs)
    people = {row["name"]: row for row in listed("--domain", "people")}
    assert people["sketch"]["published"]["r"] == 0.602 and people["sketch"]["r"] == 0.5
    assert set(presets_of(DRAWN_FACES)) < set(people)
    assert main(["presets", "--domain", "dgos"]) == 2
    assert "dogs" in capsys.readouterr().err
    # So many names do not fit in a line.
    assert main(["invert", "--preset", "zombi dog"]) == 2
    said = capsys.readouterr().err
    assert "did you mean zombie dog or zombie? `dclip presets` lists them" in said
    assert "hamster" not in said


def test_words_for_domains() -> None:
    assert [find_domain(w) for w in ("Dog", "church", "faces")] == ["dogs", "churches", "faces"]
    with pytest.raises(BadInput, match="'nothing' is unknown"):
        find_domain("nothing")


def test_a_preset_of_another_domain_is_said(store: Store, capsys: Any) -> None:
    assert unfit("sketch", DRAWN_FACES) is None and unfit("fox", "photos") is None
    where = ["--store", str(store.root), "--data", "faces", "--model", "faces", "--dry-run"]
    assert main(["invert", "--preset", "zombie dog", *where]) == 0
    said = capsys.readouterr().err
    assert "zombie dog is an edit of photos of dogs' faces" in said and "--domain" in said
    assert main(["invert", "--preset", "sketch", *where]) == 0
    assert "is an edit of" not in capsys.readouterr().err


def test_an_edit_of_dogs_is_learnt_from_dogs(store: Store, tmp_path: Path, capsys: Any) -> None:
    Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "dog.png")
    where = ["--store", str(store.root), str(tmp_path / "dog.png")]
    for name, domain in (("zombie dog", "dogs"), ("zombie", "faces"), ("temple", "churches")):
        assert main(["edit", "--with", name, *where]) == 3
        assert f"--domain {domain} " in capsys.readouterr().err


def test_an_imported_base_takes_the_published_r(store: Store, capsys: Any) -> None:
    base = store.resolve("faces", "model")
    network, info = load_model(base.path)
    own = Source("x/y", None, {}, None, "diffusers")
    _add(store, "imported", replace(info, source=own), network)
    where = ["--store", str(store.root), "--data", "faces", "--dry-run", "--json"]
    plans = {}
    for model in ("faces", "imported"):
        assert main(["invert", "--preset", "sketch", "--model", model, *where]) == 0
        shown = capsys.readouterr()
        plans[model] = json.loads(shown.out)["plan"]["config"]["r"], shown.err
    assert plans["faces"][0] == 10 and plans["imported"][0] == round(0.602 * T)
    assert "DiffusionCLIP" in plans["imported"][1] and "DiffusionCLIP" not in plans["faces"][1]


def _add(store: Store, name: str, info: Any, network: torch.nn.Module) -> None:
    def make(staging: Any) -> dict[str, float]:
        save_model(staging.path, info, network.state_dict())
        return {}

    store.build(
        stage="train", revision=1, kind="model", name=name, config={"name": name}, inputs={},
        seed=0, context=CPU, make=make,
    )  # fmt: skip


# --- r


@given(st.integers(1, 1000), st.floats(0.001, 1.0))
def test_a_share_is_the_nearest_timestep(T: int, share: float) -> None:
    schedule = Schedule("flat", T, torch.linspace(1, 0.5, T + 1, dtype=torch.float64))
    t = schedule.timestep(share)
    assert 1 <= t <= T and (t == 1 or abs(t - share * T) <= 0.5 + 1e-9)


def test_a_whole_number_is_a_timestep_and_one_with_a_point_a_share() -> None:
    schedule = Schedule.make("linear", 200)
    for text, expected in (("1", 1), ("1.0", 200), ("0.5", 100), (".25", 50), ("100", 100)):
        assert schedule.timestep(InvertConfig(r=text, steps=1).r) == expected  # type: ignore[arg-type]
    assert schedule.timestep(1) == 1 and schedule.timestep(1.0) == 200


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0", "r is 0"), ("-3", "r is -3"), ("0.0", "share of T"), ("1.5", "share of T"),
        ("50.0", "share of T"), ("half", "no number"), ("50%", "no number"), ("1e-1", "no number"),
        ("nan", "no number"), ("", "no number"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["invert", "edit x.png", "grid", "eval", "import x --base y"])
def test_no_such_r(command: str, text: str, says: str, capsys: Any, tmp_path: Path) -> None:
    assert main([*command.split(), f"--r={text}", "--store", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert says in said and len(said.strip().splitlines()) <= 2


def test_a_share_and_its_timestep_make_the_same_latents(store: Store) -> None:
    small = InvertConfig(data="faces", model="faces", r=0.3, steps=2, count=2)
    share = invert.run(small, store, CPU)
    assert share.config["r"] == 6
    assert invert.run(replace(small, r=6), store, CPU).id == share.id
    with pytest.raises(BadInput, match=r"r=21 is outside 1\.\.20"):
        invert.run(replace(small, r=21), store, CPU)
    edits = edit.run(EditConfig(data="faces", count=2, tuned=("sketch",), r=0.3), store, CPU)
    assert edits.config["r"] == 6


# --- grids and inversion as DiffusionCLIP has them


def theirs(r: int, steps: int) -> list[int]:
    """Their indices, counted from 0: fractions of t_0 = r - 1 in float64, cut off."""
    return [int(s) for s in np.linspace(0, 1, steps) * (r - 1)]


@pytest.mark.parametrize(("r", "steps"), [(602, 40), (501, 40), (501, 6), (402, 40), (1000, 40)])
def test_diffusionclip_walks_are_theirs_in_both_directions(r: int, steps: int) -> None:
    """Against a loop over indices from 0, with -1 for the picture, in float64."""
    schedule = Schedule.make("linear", 1000)
    net = SmoothNet(seed=3, strength=0.3).double().requires_grad_(False)
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bar = (1 - beta).cumprod(0)

    def move(x: torch.Tensor, i: int, j: int) -> torch.Tensor:
        at = alpha_bar[i]
        to = alpha_bar[j] if j >= 0 else torch.ones((), dtype=torch.float64)
        eps = net(x, torch.full((len(x),), i + 1))
        x0 = (x - eps * (1 - at).sqrt()) / at.sqrt()
        return to.sqrt() * x0 + (1 - to).sqrt() * eps

    up = theirs(r, steps)
    x = photos().double()
    for i, j in pairwise(up):
        x = move(x, i, j)
    grid = grids.walk("diffusionclip", r, steps, 1000)
    path = grids.upward("diffusionclip", grid)
    got = inversion.invert(net, schedule, photos().double(), path, method="diffusionclip")
    assert torch.allclose(got, x, rtol=0, atol=1e-9)
    for i, j in zip(reversed(up), [*reversed(up[:-1]), -1], strict=True):
        x = move(x, i, j)
    assert torch.allclose(ddim.decode(net, schedule, got, grid), x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("rule", grids.WALKS)
@given(r=st.integers(2, 1000), data=st.data())
def test_every_walk_reaches_r_and_asks_once_a_step(rule: str, r: int, data: Any) -> None:
    steps = data.draw(st.integers(2, max(2, r // 2)))
    grid = grids.walk(rule, r, steps, 1000)
    assert grid[0] == 0 and grid[-1] == r and len(grid) == steps + 1
    assert all(s < t for s, t in pairwise(grid))
    exact = {
        "even": lambda i: i * r / steps,
        "trailing": lambda i: i * r / steps,
        "linspace": lambda i: 1 + (i - 1) * (r - 1) / (steps - 1),
        "diffusionclip": lambda i: 1 + (i - 1) * (r - 1) / (steps - 1),
    }[rule]
    # Rounded, or cut off.
    most = 1.0 if rule == "diffusionclip" else 0.5
    assert all(abs(grid[i] - exact(i)) <= most + 1e-9 for i in range(1, steps + 1))


def test_leading_never_reaches_r() -> None:
    with pytest.raises(BadInput, match="leading never reaches r"):
        grids.walk("leading", 10, 2)
    with pytest.raises(BadInput, match="grid 'leading' is unknown"):
        InvertConfig(grid="leading")
    with pytest.raises(BadInput, match="outside"):
        grids.walk("linspace", 11, 2, 10)
    for rule, r, steps in (("linspace", 9, 1), ("diffusionclip", 9, 1), ("diffusionclip", 9, 10)):
        with pytest.raises(BadInput, match=f"of grid {rule}") as caught:
            grids.walk(rule, r, steps, 20)
        assert caught.value.fix == "choose --steps in 2..9"
    assert grids.walk("trailing", 9, 1) == (0, 9)


def test_offsets_from_a_walk_that_begins_at_one_make_a_decode_exact() -> None:
    schedule = Schedule.make()
    net = SmoothNet(seed=2).double().requires_grad_(False)
    x0, grid = photos().double(), grids.walk("diffusionclip", 101, 7)
    path = grids.upward("diffusionclip", sorted({*grid, *grids.walk("diffusionclip", 101, 20)}))
    x_r, offsets = inversion.invert_with_offsets(
        net, schedule, x0, path, method="diffusionclip", decode_grid=grid
    )
    assert torch.allclose(ddim.decode(net, schedule, x_r, grid, offsets=offsets), x0, atol=1e-10)


def test_the_grid_goes_from_the_latents_into_tuned_model_and_edit(store: Store, clip: Path) -> None:
    latents = invert.run(
        InvertConfig(
            data="faces", model="faces", r=10, steps=4, count=6, grid="diffusionclip",
            method="diffusionclip", name="published",
        ),
        store,
        CPU,
    )  # fmt: skip
    assert latents.config["grid"] == "diffusionclip"
    network, info = load_model(store.resolve("faces", "model").path)
    made, grid = LatentSet(latents.path), (0, *(i + 1 for i in theirs(10, 4)))
    x0 = torch.from_numpy(made.references(range(6))) / 127.5 - 1
    x = inversion.invert(network, info.schedule, x0, grid[1:], method="diffusionclip")
    assert torch.allclose(torch.from_numpy(made.latents(range(6))), x, atol=1e-5)
    assert latents.metrics["network_calls_per_image"] == 3
    tuned = finetune.run(
        FinetuneConfig(
            target="a drawing", source="a photo", latents=latents.id, clip=(str(clip),), batch=2,
            updates=1, name="published",
        ),
        store,
        CPU,
    )  # fmt: skip
    plan = make_plan(store.resolve("faces", "model"), edit.find_plan(
        store, EditConfig(data="faces", tuned=("published",)).parts).parts)  # fmt: skip
    assert (tuned.config["grid"], plan.rule, plan.method) == (*["diffusionclip"] * 3,)
    assert plan.grid == grid and plan.inversion_grid == grid[1:]
    still = EditConfig(data="faces", count=2, tuned=("published",), strength=(0.0,))
    made_edits = edit.run(still, store, CPU)
    assert made_edits.metrics["change"] == 0
    with pytest.raises(BadInput, match="with grid diffusionclip, sketch with even"):
        edit.run(replace(still, tuned=("published", "sketch")), store, CPU)


# --- noise in closed form


NOISED = InvertConfig(data="faces", model="faces", r=12, steps=3, count=6, batch=4, encode="noise")


def test_noised_latents_are_q_sample_of_each_pictures_own_noise(store: Store) -> None:
    made = invert.run(NOISED, store, CPU)
    latents, info = LatentSet(made.path), read_info(store.resolve("faces", "model").path)
    ab = float(info.schedule.alpha_bar[12])
    x_r = latents.latents(range(6)).astype(np.float64)
    x0 = latents.references(range(6)) / 127.5 - 1
    noise = (x_r - np.sqrt(ab) * x0) / np.sqrt(1 - ab)
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03
    assert np.abs(np.corrcoef(noise.reshape(6, -1)) - np.eye(6)).max() < 0.2
    generator = torch.Generator().manual_seed(key(0, "encode", latents.ids[2]))
    own = torch.randn(noise.shape[1:], generator=generator).numpy()
    assert np.abs(noise[2] - own).max() < 1e-4
    assert made.metrics["network_calls_per_image"] == 0
    assert (made.config["encode"], made.config["method"]) == ("noise", None)


def test_noise_depends_on_neither_batch_nor_selection(store: Store) -> None:
    def by_id(**changes: Any) -> dict[str, Any]:
        made = LatentSet(invert.run(replace(NOISED, **changes), store, CPU).path)
        return dict(zip(made.ids, made.latents(range(len(made))), strict=True))

    plain, other, more = by_id(), by_id(batch=3), by_id(count=12)
    for name, x in plain.items():
        assert np.array_equal(x, other[name]) and np.array_equal(x, more[name])
    reseeded = by_id(seed=1)
    assert any(name in plain and not np.array_equal(reseeded[name], plain[name])
               for name in reseeded) or not set(reseeded) & set(plain)  # fmt: skip


def test_the_reconstruction_says_that_it_is_none(store: Store, capsys: Any) -> None:
    words = "invert --data faces --model faces --r 0.6 --steps 3 --count 4 --encode noise"
    assert main([*words.split(), "--store", str(store.root)]) == 0
    said = capsys.readouterr().err
    assert "noised, not inverted" in said and "decode to their pictures" not in said
    for option in ("--method ddim", "--refinements 2", "--tolerance 0.1"):
        assert main([*words.split(), *option.split(), "--store", str(store.root)]) == 2
        assert "has no effect with" in capsys.readouterr().err
    words += " --dry-run --json --force"
    assert main([*words.split(), "--store", str(store.root)]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["estimate"]["network_calls_per_image"] == 0


def test_an_edit_from_noise_begins_where_it_says(store: Store) -> None:
    base = store.resolve("faces", "model")
    plan = make_plan(base, (), r=12, steps=3, encode="noise")
    editor = Editor(plan, Networks(base, torch.device("cpu")), seed=4)
    x0 = torch.from_numpy(DataSet(store.resolve("faces", "data").path).images([0, 1, 2]))
    x0 = x0 / 127.5 - 1
    start = editor.invert(x0)
    a, b = plan.info.schedule.coefficients(12)
    noise = (start.x_r - a * x0) / b
    assert start.offsets is None and 0.9 < float(noise.std()) < 1.1
    # The same picture alone, and another seed.
    assert torch.equal(editor.invert(x0[1:2]).x_r[0], start.x_r[1])
    other = Editor(plan, editor.networks, seed=5).invert(x0)
    assert not torch.allclose(other.x_r, start.x_r)
    decoded = ddim.decode(editor.networks.network, plan.info.schedule, start.x_r, plan.grid)
    assert torch.allclose(editor.decode(start), decoded, atol=1e-6)


# --- unseen domains


def test_the_commands_of_the_page_are_understood(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("stroke.png", "portrait.png", "photo.jpg"):
        Image.new("RGB", (SIZE, SIZE), (90, 60, 30)).save(tmp_path / name)
    page = Path(__file__).parents[1] / "docs" / "domains.md"
    commands = [line for line in page.read_text().splitlines() if line.startswith("dclip ")]
    assert len(commands) >= 4
    for line in commands:
        words = shlex.split(line.replace("--with zombie", "--with sketch"), comments=True)[1:]
        plan = ["--dry-run"] if words[0] == "edit" else []
        assert main([*words, *plan, "--store", str(store.root)]) == 0, line
    capsys.readouterr()


def test_rounds_end_at_what_the_base_knows() -> None:
    schedule, target = Schedule.make(), photos(1).double()
    model = Oracle(schedule, target)
    grid = ddim.grid(100, 6)
    strokes = photos(2).double().flip(-1)
    done = unseen.brought(
        model, schedule, strokes, grid, 2, noise=lambda k: normal(2).double() * (k + 1)
    )
    assert torch.allclose(done, target.expand_as(done), atol=1e-9)
    none = unseen.brought(model, schedule, strokes, grid, 0, noise=lambda k: strokes)
    assert torch.equal(none, strokes)
    with pytest.raises(BadInput):
        unseen.brought(model, schedule, strokes, grid, -1, noise=lambda k: strokes)


def test_rounds_are_noise_and_decode_one_after_the_other() -> None:
    schedule, grid = Schedule.make(), ddim.grid(60, 6)
    net = SmoothNet(seed=1).double().requires_grad_(False)
    noises = [torch.randn(2, 3, 8, 8, dtype=torch.float64) for _ in range(3)]
    x = x0 = torch.rand(2, 3, 8, 8, dtype=torch.float64) * 2 - 1
    ab = schedule.alpha_bar[60]
    for eps in noises:
        x = ddim.decode(net, schedule, ab.sqrt() * x + (1 - ab).sqrt() * eps, grid)
    steps = []
    got = unseen.brought(
        net, schedule, x0, grid, 3, noise=lambda k: noises[k], on_step=lambda: steps.append(1)
    )
    assert torch.allclose(got, x, atol=1e-12) and len(steps) == 3 * 6


def test_a_drawing_goes_through_the_base_to_a_tuned_model(store: Store, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = []
    for name in "ab":
        pixels = rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        files.append(str(tmp_path / f"{name}.png"))
    # Drawn faces alone is what this base knows, and other pictures are what rounds are for.
    config = EditConfig(photos=tuple(files), tuned=("sketch",), rounds=2, strength=(0.0, 1.0))
    made = edit.run(config, store, CPU)
    plain = edit.run(replace(config, rounds=0, anyway=True), store, CPU)
    assert plain.metrics["change"] >= 0 and made.config["rounds"] == 2
    zero = np.asarray(Image.open(made.path / "images" / "a_0.png")).astype(int)
    photo = np.asarray(Image.open(files[0])).astype(int)
    assert np.abs(zero - photo).mean() > 2  # strength 0 is what the rounds made
    plan = make_plan(store.resolve("faces", "model"), (), r=made.config["r"], rounds=2)
    networks = Networks(store.resolve("faces", "model"), torch.device("cpu"))
    x0 = torch.from_numpy(photo.transpose(2, 0, 1))[None] / 127.5 - 1
    brought = Editor(plan, networks).invert(x0).photos
    assert np.abs(((brought[0] + 1) * 127.5).numpy().transpose(1, 2, 0) - zero).max() < 1
    alone = edit.run(EditConfig(photos=(files[0],), model="faces", rounds=2), store, CPU)
    assert alone.name == "faces" and alone.metrics["edit"] == "faces"
    assert (alone.config["rounds"], alone.config["encode"]) == (1, "noise")
    sdedit = EditConfig(photos=(files[0],), model="faces", encode="noise", anyway=True)
    once = replace(sdedit, rounds=1, encode=None)
    pictures = [edit.run(each, store, CPU).path / "images" / "a.png" for each in (sdedit, once)]
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    again = replace(config, seed=3)
    assert edit.run(again, store, CPU).id != made.id


def test_a_plan_counts_the_steps_of_its_rounds(store: Store) -> None:
    base = store.resolve("faces", "model")

    def plan(**how: Any) -> Plan:
        return make_plan(base, (), r=12, steps=3, **how)

    assert plan().start_steps == 3
    assert plan(rounds=4).start_steps == 3 + 4 * 6
    assert plan(rounds=4, encode="noise").start_steps == 4 * 6
    assert plan(rounds=4, rounds_r=0.2).start_steps == 3 + 4 * 4
    assert plan(rounds=4, rounds_r=0.2).round_grid == (0, 1, 2, 3, 4)
    assert plan().keeps_photos and not plan(rounds=1).keeps_photos
    with pytest.raises(Planned) as planned:
        edit.run(
            EditConfig(data="faces", count=2, tuned=("sketch",), rounds=3, steps=2, r=10),
            store,
            replace(CPU, dry_run=True),
        )
    assert planned.value.plan["estimate"]["steps"] == 2 * (2 + 3 * 6 + 2)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rounds": -1}, "rounds is -1"),
        ({"rounds": 5000}, "0..1000"),
        ({"seed": 3}, "--seed has no effect"),
        ({"rounds_r": 0.2}, "--rounds-r has no effect without --rounds"),
        ({"rounds": 2, "rounds_r": 1.5}, "share of T"),
        ({"model": "faces"}, "--model has no effect"),
        ({"encode": "noize"}, "noise"),
        ({"grid": "leading"}, "diffusionclip"),
    ],
)
def test_bad_settings_of_an_edit(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput) as caught:
        EditConfig(photos=("x.png",), **settings)
    assert says in f"{caught.value.message} {caught.value.fix}"
