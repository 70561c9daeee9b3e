"""dclip eval: what it scores, against what, and what it says where something is not there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import Stop
from PIL import Image
from small_guide import write_clip
from small_store import CPU, SIZE, add_tuned, copied

import dclip.guidance.clip
from dclip.cli.app import main
from dclip.configs.edit import EditConfig
from dclip.configs.eval import EvalConfig
from dclip.configs.finetune import FinetuneConfig
from dclip.configs.judge_train import JudgeTrainConfig
from dclip.data import faces
from dclip.data.dataset import DataSet
from dclip.editing.editor import Editor
from dclip.errors import BadInput
from dclip.evaluation import background, goals, quality, samples, scorers
from dclip.evaluation.background import outside_face
from dclip.evaluation.cost import Cost
from dclip.evaluation.identity import calibrated
from dclip.evaluation.judge import Judge, JudgeNetwork, JudgeShape, Verdict
from dclip.evaluation.scoring import Scoring, monotone
from dclip.evaluation.truth import Truth
from dclip.guidance.clip import Move, load_guide
from dclip.guidance.direction import Direction
from dclip.guidance.prompts import PRESETS
from dclip.models import perceptual
from dclip.photos.frames import Frame
from dclip.stages import edit, finetune, judge_train
from dclip.stages.eval import run
from dclip.store import Artifact, Planned, Store

SKETCH = {"target": PRESETS["sketch"].target, "source": PRESETS["sketch"].source}
SMILE = {"target": PRESETS["smiling"].target, "source": PRESETS["smiling"].source}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Store:
    root = tmp_path_factory.mktemp("eval")
    store = copied(trained, root / "store")
    guide = write_clip(root / "guide", context=64)
    for name, prompts in (("pencil", SKETCH), ("smile", SMILE)):
        add_tuned(store, name, seed=3, settings={**prompts, "clips": [str(guide)]})
    judge_train.run(
        JudgeTrainConfig(name="judge", images=64, batch=16, precision="fp32"),
        store,
        CPU,
    )
    return store


@pytest.fixture(scope="module")
def other_clip(store: Store) -> str:
    return str(write_clip(store.root.parent / "other", context=64, seed=1))


@pytest.fixture(scope="module")
def config(store: Store) -> EvalConfig:
    return EvalConfig(
        tuned=("pencil",), judge="judge", clip=str(store.root.parent / "guide"), count=4,
        strengths="1,0,0.5", name="scores",
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(store: Store, config: EvalConfig, other_clip: str) -> Artifact:
    return run(replace(config, held_out=other_clip), store, CPU)


def table_of(artifact: Artifact) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((artifact.path / "eval.json").read_text())
    return table


def row(artifact: Artifact, what: str) -> dict[str, Any]:
    return next(r for r in table_of(artifact)["rows"] if r["what"] == what)


def test_the_table_has_every_score_and_its_anchors(made: Artifact, store: Store) -> None:
    rows = table_of(made)["rows"]
    assert [r["what"] for r in rows] == [
        "original", "truth", "strength 0", "strength 0.5", "strength 1",
    ]  # fmt: skip
    scores = {
        "success", "identity@1", "gain", "progress", "judge_target", "judge_kept", "judge_picture",
        "s_dir", "s_dir_held_out",
    }  # fmt: skip
    assert all(scores <= set(r) and r["faces"] == 4 for r in rows)
    truth, original, still = rows[1], rows[0], rows[2]
    assert (truth["success"], truth["identity@1"], truth["gain"]) == (1, 1, 1)
    assert original["success"] == 0 and original["gain"] == 0 and original["judge_kept"] == 1
    assert {k: v for k, v in still.items() if k not in ("what", "strength")} == {
        k: v for k, v in original.items() if k not in ("what", "strength")
    }
    assert row(made, "strength 1")["progress"] != 0
    found = table_of(made)["reconstruction"]
    assert found["direct"]["psnr"] > found["plain"]["psnr"] > 10
    assert found["direct"]["ssim"] > 0.999 and found["direct"]["mae"] < 1e-3
    assert {*made.manifest.inputs} == {"model", "tuned", "judge"}
    assert made.metrics["edit_seconds"] > 0 and made.metrics["edit_peak_mb"] > 10
    assert made.metrics["s_dir"] == row(made, "strength 1")["s_dir"]
    for name in ("panel.png", "strength.png"):
        assert min(Image.open(made.path / name).size) > 100


def test_the_same_work_is_up_to_date_and_other_clips_or_faces_are_not(
    store: Store, config: EvalConfig, made: Artifact, other_clip: str
) -> None:
    same = replace(config, held_out=other_clip)
    assert not run(same, store, CPU).fresh
    assert run(replace(same, seed=1), store, CPU).id != made.id
    alone = run(config, store, replace(CPU, report=(said := Stop())))
    assert "s_dir_held_out" not in row(alone, "original")
    assert any("--held-out" in note for note in said.said)
    with pytest.raises(BadInput, match="the held-out CLIP is one that guided"):
        run(replace(config, held_out=config.clip), store, CPU)


def test_what_is_not_there_is_left_out_with_a_note(store: Store, config: EvalConfig) -> None:
    report = Stop()
    bare = replace(config, clip=None, strengths="1")
    made = run(bare, store, replace(CPU, report=report))
    assert "s_dir" not in row(made, "strength 1")
    said = " ".join(report.said)
    assert "S_dir under the guide is left out" in said and "LPIPS is left out" in said
    assert table_of(made)["monotone"] is None and not (made.path / "strength.png").exists()
    assert table_of(made)["notes"]


def test_s_dir_is_asked_of_all_that_guided(
    store: Store, config: EvalConfig, other_clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is an artifact, the other known by its name; neither may be the held-out one."""
    known = {"ViT-B-32:openai": other_clip}

    def fetch(spec: str, *args: Any, **more: Any) -> Any:
        return load_guide(known.get(spec, spec), *args, **more)

    monkeypatch.setattr(dclip.guidance.clip, "load_guide", fetch)
    base = FinetuneConfig(
        target="sketch", latents="faces", updates=1, batch=2, decode_steps=2, name="two"
    )
    finetune.run(replace(base, clip=("embedded", "ViT-B-32:openai")), store, CPU)
    alone = replace(config, tuned=("two",), strengths="1", name="two")
    made = run(replace(alone, clip=None), store, CPU)
    assert len(made.config["clips"]["s_dir"]) == 2 and "clip" in made.manifest.inputs
    each = [
        row(run(replace(alone, clip=spec), store, CPU), "strength 1")["s_dir"]
        for spec in ("embedded", other_clip)
    ]
    assert row(made, "strength 1")["s_dir"] == pytest.approx(sum(each) / 2, abs=2e-5)
    for spec in ("embedded", "ViT-B-32:openai"):
        with pytest.raises(BadInput, match="the held-out CLIP is one that guided"):
            run(replace(alone, clip=None, held_out=spec), store, CPU)


def test_only_faces_that_the_edit_applies_to_are_edited_and_count(
    store: Store, config: EvalConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited: list[int] = []
    real = Editor.invert

    def invert(self: Editor, x0: torch.Tensor, *args: Any) -> Any:
        edited.append(len(x0))
        return real(self, x0, *args)

    monkeypatch.setattr(Editor, "invert", invert)
    made = run(replace(config, tuned=("smile",), count=8, strengths="1"), store, CPU)
    smiling = [faces.already(faces.sample(config.seed, i), "smiling") for i in range(8)]
    assert row(made, "strength 1")["faces"] == 8 - sum(smiling) < 8
    assert sum(edited) == 8 - sum(smiling)
    assert row(made, "strength 1")["kept_psnr"] is not None


def test_held_out_samples_of_data(store: Store, config: EvalConfig) -> None:
    data = DataSet(store.resolve("faces", "data").path)
    made = run(replace(config, data="faces", where=("glasses=-1",), count=5), store, CPU)
    chosen = made.config["samples"]
    assert len(chosen) == 5 and set(chosen) <= set(data.split("val"))
    assert (data.attribute("glasses")[chosen] == -1).all()
    assert row(made, "truth")["success"] == 1  # drawn photos keep their truth
    with pytest.raises(BadInput, match="no samples with"):
        run(replace(config, data="faces", where=("glasses=0",)), store, CPU)


def test_edits_that_were_made(store: Store, config: EvalConfig, tmp_path: Path) -> None:
    edits = edit.run(
        EditConfig(data="faces", count=4, tuned=("pencil",), strength="0,1", name="some"),
        store,
        CPU,
    )
    scored = EvalConfig(edits="some", judge="judge", clip=config.clip, name="edits")
    made = run(scored, store, CPU)
    assert made.manifest.inputs["edits"]["id"] == edits.id
    assert table_of(made)["reconstruction"] == {}
    assert row(made, "truth")["success"] == 1 and row(made, "strength 1")["faces"] == 4
    assert row(made, "strength 0")["gain"] == pytest.approx(0, abs=0.02)  # 8 bits on disk
    assert row(made, "strength 1")["progress"] != row(made, "strength 0")["progress"]


def test_real_photos_with_labels(store: Store, config: EvalConfig) -> None:
    """A wish names what to see; the data's labels say whom it applies to."""
    wished = replace(config, data="faces", expected="glasses=1", count=6, strengths="1")
    made = run(wished, store, CPU)
    data = DataSet(store.resolve("faces", "data").path)
    labels = data.attribute("glasses")[made.config["samples"]]
    goal = goals.of_labelled(labels, 6, ("glasses", "bald"), "glasses", True)
    assert goal.applies.tolist() == (labels == -1).tolist() and goal.untouched[:, 1].all()
    assert row(made, "original")["judge_target"] is not None
    with pytest.raises(BadInput, match="knows no attribute 'wombat'"):
        run(replace(wished, expected="wombat=1"), store, CPU)


def test_a_wish_on_drawn_faces_counts_those_without() -> None:
    judge = Judge(JudgeNetwork(JudgeShape(("glasses", "smiling"), (), SIZE)))
    drawn = samples.draw(12, 0, SIZE)
    goal = scorers.goal_of(judge, None, None, "glasses=1", drawn)
    assert goal.applies.tolist() == [not faces.sample(0, i).glasses for i in range(12)]
    assert 0 < goal.applies.sum() < 12
    truth = Truth(drawn.params or [], "smiling", SIZE)
    both = Scoring(drawn.originals, truth=truth, goal=goal, judge=judge)
    assert both.goal is not None and (both.applies == truth.applies).all()
    assert (both.goal.applies == goal.applies & truth.applies).all()
    hair = goals.of_labelled(None, 1, ("black_hair", "blond_hair", "bald"), "blond_hair")
    assert hair.untouched.tolist() == [[False, False, True]]


def test_a_face_network_gives_similarity(store: Store, config: EvalConfig, tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIZE * SIZE, 4))
    file = tmp_path / "face.pt"
    torch.jit.trace(network, torch.zeros(1, 3, SIZE, SIZE)).save(str(file))
    made = run(replace(config, face=str(file), trust=True, strengths="1", clip=None), store, CPU)
    assert row(made, "original")["face_similarity"] == pytest.approx(1)
    assert row(made, "strength 1")["face_similarity"] < 1
    assert "verified" not in row(made, "original")  # 4 originals say nothing of 1 pair in 100
    assert any("is not decided" in note for note in table_of(made)["notes"])
    more = replace(config, face=str(file), trust=True, strengths="1", clip=None, count=16)
    made = run(more, store, CPU)
    assert row(made, "original")["verified"] == 1
    assert 0 <= row(made, "strength 1")["verified"] <= 1
    assert table_of(made)["verification"]["pairs"] == 120
    assert not any("identity" in note for note in table_of(made)["notes"])


def test_without_a_face_network_identity_is_said_to_be_left_out(made: Artifact) -> None:
    assert "face_similarity" not in row(made, "original")
    assert any("--face FILE" in note for note in table_of(made)["notes"])


def cosines_of(unit: torch.Tensor, pairs: list[tuple[int, int]]) -> np.ndarray:
    first, second = np.array(pairs).T
    return (unit[first].double() * unit[second].double()).sum(1).numpy()


def test_the_same_person_is_decided_by_pairs_of_different_people() -> None:
    features = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    found = calibrated(features)
    assert found is not None and found.pairs == 40 * 39 // 2
    unit = features / features.norm(dim=1, keepdim=True)
    cosines = (unit @ unit.T)[np.triu_indices(40, 1)]
    assert (cosines > found.threshold).sum() == 7  # 1 % of 780, and no more
    twins = torch.cat([features, features + 0.01])
    people = [str(n) for n in range(40)] * 2
    with_names = calibrated(twins, people)
    assert with_names is not None and with_names.pairs == 80 * 79 // 2 - 40
    assert with_names.same_pairs == 40 and with_names.same_accepted == 1
    assert found.auc is None and with_names.auc is not None
    assert with_names.auc == pytest.approx(1, abs=1e-3)
    mixed = calibrated(features, [str(n // 2) for n in range(40)])  # pairs of strangers as one
    assert mixed is not None and mixed.same_pairs == 20
    same = cosines_of(unit, [(n, n + 1) for n in range(0, 40, 2)])
    other = cosines_of(
        unit, [(i, j) for i in range(40) for j in range(i + 1, 40) if i // 2 != j // 2]
    )
    assert mixed.auc == pytest.approx(np.mean(same[:, None] > other[None]))
    assert mixed.same_accepted == pytest.approx(np.mean(same > mixed.threshold))
    nameless = calibrated(twins)
    assert nameless is not None and nameless.threshold > with_names.threshold
    assert calibrated(features[:14]) is None
    edits = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 16))
    scored = Scoring(edits, face=network)
    half = torch.cat([edits[:20], edits[20:].flip(0)])  # half of them are somebody else
    assert scored(half.clamp(-1, 1)).row["verified"] == pytest.approx(0.5, abs=0.1)


def test_what_lies_outside_the_face_or_the_edit_is_compared_alone() -> None:
    truth = Truth([faces.sample(3, n) for n in range(3)], "smiling", 32)
    x = torch.from_numpy(truth.pictures).clone()
    regions = torch.from_numpy(truth.regions)[:, None]
    inside = torch.where(regions, -x, x)
    all_over = (x * 0.5).clamp(-1, 1)
    scoring = Scoring(x, truth=truth)
    on = torch.from_numpy(truth.applies)
    assert on.any()
    same, worse = scoring(inside).row, scoring(all_over).row
    assert (same["kept_psnr"], same["kept_ssim"]) == (100, pytest.approx(1))
    assert worse["kept_ssim"] < 0.95 and "kept_lpips" not in worse
    # Against the plain formula, and the truth's own.
    away = [(x[i] / 2)[:, ~truth.regions[i]].square().mean() for i in np.flatnonzero(on)]
    expected = float(torch.stack([10 * torch.log10(4 / mse) for mse in away]).mean())
    assert worse["kept_psnr"] == pytest.approx(expected, abs=1e-3)
    found = truth.score(x.numpy(), all_over.numpy()).summary()
    assert worse["kept_psnr"] == pytest.approx(found["kept_psnr"], abs=1e-3)
    style = Scoring(x, truth=Truth([faces.sample(3, n) for n in range(3)], "sketch", 32))
    assert style(all_over).row["kept_psnr"] is None  # it changes everything


def test_lpips_of_the_background_sees_no_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import models

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(perceptual, "LPIPS_NETWORK", "squeeze")
    file = perceptual.lpips_weights()
    file.parent.mkdir(parents=True)
    torch.save(models.squeezenet1_1().state_dict(), file)
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    outside = outside_face(Frame("celeba"), 64)
    assert outside is not None
    inside = torch.where(torch.from_numpy(outside), x, -x)
    assert background.kept(inside, x, np.stack([outside] * 2), lpips=True) == pytest.approx(
        {"kept_psnr": 100, "kept_ssim": 1, "kept_lpips": 0}, abs=1e-5
    )
    changed = background.kept(-x, x, np.stack([outside] * 2), lpips=True)
    assert changed["kept_lpips"] > 1e-4 and changed["kept_ssim"] < 0.8


@pytest.mark.parametrize("name", ["celeba", "ffhq", "drawn"])
def test_the_face_with_its_five_points_lies_inside(name: str) -> None:
    outside = outside_face(Frame(name), 64)
    assert outside is not None and 0.1 < outside.mean() < 0.75
    for x, y in Frame(name).points() * 64:
        assert not outside[int(y) - 4 : int(y) + 5, int(x) - 4 : int(x) + 5].any()
    assert outside[0, 0] and outside[0, -1]
    assert outside_face(Frame("center"), 64) is None


def test_photos_are_compared_outside_the_face(store: Store) -> None:
    """Edits without a drawn truth: a wish of the user's own on drawn data."""
    add_tuned(store, "wish", seed=5, settings={"target": "a wombat", "source": "a photo"})
    made = run(
        EvalConfig(tuned=("wish",), judge="judge", count=3, strengths="0,1", name="wish"),
        store, CPU,
    )  # fmt: skip
    still, moved = row(made, "strength 0"), row(made, "strength 1")
    assert still["kept_psnr"] > 60 and still["kept_ssim"] == pytest.approx(1, abs=1e-3)
    assert moved["kept_psnr"] < still["kept_psnr"] and "success" not in moved


@pytest.mark.parametrize(
    "settings",
    [
        {"count": 1}, {"edits": "a", "data": "b"}, {"edits": "a", "tuned": ("b",)},
        {"where": ("a=1",)}, {"target": "wombat"}, {"expected": "Smiling"}, {"strengths": "x"},
        {"seed": -1}, {"edits": "a", "r": 3}, {"edits": "a", "split": "all"},
        {"edits": "a", "count": 8},
    ],
    ids=str,
)  # fmt: skip
def test_a_config_that_cannot_be_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        EvalConfig(**settings)


def test_drawn_faces_have_no_split(store: Store, config: EvalConfig) -> None:
    with pytest.raises(BadInput, match="no split"):
        run(replace(config, split="train"), store, CPU)


def test_the_other_way_the_farthest_stands_for_the_rest(store: Store, config: EvalConfig) -> None:
    made = run(replace(config, strengths="-1,-0.5,0", clip=None, name="back"), store, CPU)
    assert made.metrics["strength"] == -1


def test_a_plan_and_finished_work_need_no_clip(
    store: Store,
    config: EvalConfig,
    made: Artifact,
    other_clip: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def offline(*args: Any, **more: Any) -> Any:
        raise BadInput("no network")

    monkeypatch.setattr(dclip.guidance.clip, "load_guide", offline)
    with pytest.raises(Planned) as caught:
        run(replace(config, held_out=other_clip, count=5), store, replace(CPU, dry_run=True))
    assert {*caught.value.plan["config"]["clips"]} == {"s_dir", "s_dir_held_out"}
    assert run(replace(config, held_out=other_clip), store, CPU).id == made.id
    with pytest.raises(BadInput, match="no network"):  # it was named
        run(replace(config, count=5, name="named"), store, CPU)
    add_tuned(store, "far", seed=3, settings={**SKETCH, "clips": ["ViT-B-32:openai"]})
    left = run(replace(config, tuned=("far",), clip=None, name="unnamed"), store, CPU)
    assert "s_dir" not in left.metrics
    assert any("no network" in note for note in table_of(left)["notes"])


# --- the scores by themselves


class _Says(Judge):
    """A judge that reads glasses off the first pixel and sketches off the second."""

    def __init__(self) -> None:
        super().__init__(JudgeNetwork(JudgeShape(("glasses", "bald"), ("sketch", "other"), 16)))

    def __call__(self, pixels: torch.Tensor) -> Verdict:
        glasses, sketch = (pixels[:, 0, 0, k].double().numpy() > 0 for k in (0, 1))
        attributes = np.stack([glasses, np.zeros(len(pixels))], 1)
        return Verdict(
            ("glasses", "bald"), attributes, ("sketch", "other"), np.stack([sketch, ~sketch], 1)
        )


def test_the_judges_shares() -> None:
    originals = -torch.ones(4, 3, 16, 16)
    originals[:, 0, 0, 1] = 1  # a picture of some style
    applies = np.array([True, True, True, False])
    untouched = np.tile([False, True], (4, 1))
    goal = goals.Goal(None, "glasses", True, applies, untouched)
    scoring = Scoring(originals, goal=goal, judge=_Says())
    edits = originals.clone()
    edits[[0, 1, 3], 0, 0, 0] = 1
    edits[1, 0, 0, 1] = -1  # seen, but in what is no picture
    found = scoring(edits).row
    assert found["faces"] == 3 and found["judge_kept"] == 1
    assert found["judge_target"] == pytest.approx(1 / 3)
    assert found["judge_picture"] == pytest.approx(2 / 3)
    style = replace(goal, style="sketch", attribute=None, untouched=~untouched)
    found = Scoring(originals, goal=style, judge=_Says())(edits).row
    assert found["judge_target"] == pytest.approx(2 / 3)
    assert found["judge_kept"] == pytest.approx(1 / 3)  # glasses are to stay off, here


def test_s_dir_is_the_cosine_of_the_two_moves(tmp_path: Path) -> None:
    guide = load_guide(str(write_clip(tmp_path / "clip")))
    x, y = torch.rand(2, 5, 3, 16, 16) * 2 - 1
    move = guide.embed_image(y) - guide.embed_image(x)
    text = Move(torch.randn(1, move.shape[1]), move.mean(0)[None])
    found = Scoring(x, directions={"s_dir": [Direction(guide, text)]})(y).row["s_dir"]
    wanted = torch.nn.functional.cosine_similarity(move, text.differences).mean()
    assert found == pytest.approx(float(wanted), abs=1e-5)


def test_untouched_is_what_the_target_leaves_and_its_style_shows() -> None:
    params = [faces.sample(4, i) for i in range(30)]
    names = tuple(faces.attributes(params[0]))
    sketch = goals.of_drawn(params, "sketch", names)
    assert sketch.applies.all() and sketch.style == "sketch"
    hidden = {"black_hair", "pale_skin", "lipstick"}
    assert not sketch.untouched[:, [names.index(n) for n in hidden]].any()
    assert sketch.untouched[:, names.index("glasses")].all()
    smile = goals.of_drawn(params, "smiling", names)
    on = smile.applies
    assert not smile.untouched[on][:, [names.index("smiling"), names.index("serious")]].any()
    assert smile.untouched[on].sum(1).max() == len(names) - 2
    free = goals.of_drawn(params, None, (*names, "wombat"))
    assert free.applies.all() and not free.untouched[:, -1].any() and free.untouched[:, 0].all()


def test_presets_are_known_by_celebas_labels() -> None:
    assert set(goals.CELEBA) <= set(PRESETS)
    goal = goals.of_labelled(None, 2, ("Smiling", "Mouth_Slightly_Open", "Male"), "Smiling")
    assert goal.applies.all() and goal.untouched.tolist() == [[False, False, True]] * 2
    assert goals.read_expected(" Smiling = -1 ") == ("Smiling", False)


def test_styles_of_photos_are_known_by_the_datas_names() -> None:
    judge = Judge(JudgeNetwork(JudgeShape(("Male", "Gray_Hair"), ("photo", "bw", "other"), SIZE)))
    photos = replace(samples.draw(2, 0, SIZE), params=None)
    goal = scorers.goal_of(judge, "black and white", None, None, photos)
    assert goal.style == "bw"
    assert goal.untouched.tolist() == [[True, False]] * 2  # nobody sees that hair is grey
    assert scorers.goal_of(judge, "cartoon", None, None, photos).untouched.all()
    assert scorers.goal_of(judge, "long hair", None, None, photos).style is None


def test_monotone_looks_at_gain_and_reach_between_0_and_1() -> None:
    params = [faces.sample(3, i) for i in range(3)]
    truth = Truth(params, "sketch", 16)
    x = torch.from_numpy(np.stack([faces.draw(p, size=16) for p in params])).permute(0, 3, 1, 2)
    x = x.float() / 127.5 - 1
    scoring, way = Scoring(x, truth=truth), torch.from_numpy(truth.pictures) - x
    scores = {s: scoring(x + s * way) for s in (0.0, 0.5, 1.0, 2.0)}
    found = monotone(list(scores), list(scores.values()))
    assert found == {k: {"mean": True, "faces": 1.0} for k in ("gain", "progress")}
    back = [scores[1.0], scores[0.5], scores[0.0]]
    found = monotone([0.0, 0.5, 1.0], back)
    assert found == {k: {"mean": False, "faces": 0.0} for k in ("gain", "progress")}
    assert monotone([1.0], [scores[1.0]]) is None


def test_picture_quality_and_lpips_with_weights_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import models

    x = torch.rand(3, 3, 64, 64) * 2 - 1
    same, worse = quality.picture_quality(x, x), quality.picture_quality(x * 0.5, x)
    assert same == pytest.approx({"mae": 0, "psnr": 100, "ssim": 1}, abs=1e-4)
    mse = (0.5 * x).square().mean((1, 2, 3))
    assert worse["psnr"] == pytest.approx(float((10 * torch.log10(4 / mse)).mean()), abs=1e-3)
    assert worse["mae"] == pytest.approx(float(x.abs().mean()) / 4, abs=1e-4)
    assert worse["ssim"] < 0.9
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(perceptual, "LPIPS_NETWORK", "squeeze")
    assert perceptual.lpips_missing() is not None
    file = perceptual.lpips_weights()
    file.parent.mkdir(parents=True)
    torch.save(models.squeezenet1_1().state_dict(), file)
    assert perceptual.lpips_missing() is None
    assert quality.picture_quality(x, x, lpips=True)["lpips"] == pytest.approx(0, abs=1e-6)
    assert quality.picture_quality(x * 0.5, x, lpips=True)["lpips"] > 1e-4


def test_cost_adds_seconds_up_and_sees_memory() -> None:
    cost = Cost(torch.device("cpu"))
    with cost:
        held = torch.ones(20_000_000)
    first, peak = cost.seconds, cost.peak
    del held
    with cost:
        pass
    assert cost.seconds > first > 0 and cost.peak == peak >= 80_000_000


def test_the_command_line(
    store: Store, config: EvalConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--store", str(store.root), "--device", "cpu", "eval", "--with", "pencil"]
    words += ["--judge", "judge", "--clip", str(config.clip), "--count", "4"]
    words += ["--strengths", "0,1", "--name", "typed"]
    assert main([*words, "--dry-run"]) == 0
    assert "eval/typed" in capsys.readouterr().out
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "identity@1" in out and "judge: rest kept" in out and "PSNR, dB" in out
    assert "truth" in out and "strength 1" in out and "gain grows with strength" in out
    assert "held-out" in err
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["kind"] == "eval" and not document["fresh"]
    assert main([*words[:5], "--with", "nobody"]) == 3
