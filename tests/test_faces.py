"""The embedded data set through its public door."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dclip.data import faces
from dclip.data.parallel import map_processes
from dclip.data.rendered import Rendered

KEYS = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
PEOPLE = [faces.sample(3, index) for index in range(400)]

_HASH = """
import hashlib
from dclip.data import faces
from dclip.data.rendered import Rendered
digest = hashlib.sha256()
for style in faces.STYLES:
    digest.update(Rendered(8, 5, style, 48).draw([7, 3]).tobytes())
print(digest.hexdigest())
"""


def saturation(picture: np.ndarray) -> float:
    return float(np.ptp(picture.astype(float), axis=2).mean() / 255)


@settings(max_examples=25, deadline=None)
@given(KEYS, st.integers(16, 160), st.sampled_from(faces.STYLES))
def test_any_face_draws_at_any_size(keys: tuple[int, int], size: int, style: str) -> None:
    picture = faces.draw(faces.sample(*keys), size=size, style=style)
    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 8


@settings(max_examples=50, deadline=None)
@given(KEYS)
def test_params_survive_json(keys: tuple[int, int]) -> None:
    params = faces.sample(*keys)
    assert faces.FaceParams.from_dict(json.loads(json.dumps(params.to_dict()))) == params


def test_same_pictures_in_another_process_and_order() -> None:
    other = subprocess.run(
        [sys.executable, "-c", _HASH], capture_output=True, text=True, check=True
    ).stdout.strip()
    digest = hashlib.sha256()
    for style in faces.STYLES:
        digest.update(Rendered(8, 5, style, 48).draw([3, 7])[::-1].tobytes())
    assert digest.hexdigest() == other


def test_workers_draw_the_same_faces_in_order() -> None:
    source = Rendered(10, 1, "photo", 16)
    chunks = [range(0, 4), range(4, 8), range(8, 10)]
    shared = np.concatenate(list(map_processes(source.draw, chunks, 2)))
    assert np.array_equal(shared, source.draw(range(10)))
    alone = [faces.draw(faces.sample(1, i), size=16).transpose(2, 0, 1) for i in range(10)]
    assert np.array_equal(shared, np.stack(alone))


def test_a_bigger_picture_shows_the_same_face() -> None:
    for params in PEOPLE[:12]:
        small = faces.draw(params, size=64, grain=False).astype(float)
        big = faces.draw(params, size=128, grain=False).astype(float)
        halved = big.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
        assert np.abs(halved - small).mean() < 4


@pytest.mark.parametrize(
    "change", [{"smile": 2.0}, {"hair_colour": "green"}, {"glasses": 1}, {"noise_key": -1}]
)
def test_params_reject_nonsense(change: dict[str, object]) -> None:
    values = PEOPLE[0].to_dict()
    with pytest.raises(ValueError, match=next(iter(change))):
        faces.FaceParams.from_dict({**values, **change})


def test_params_name_unknown_and_missing_fields() -> None:
    values = PEOPLE[0].to_dict()
    with pytest.raises(ValueError, match="hat"):
        faces.FaceParams.from_dict({**values, "hat": True})
    del values["smile"]
    with pytest.raises(ValueError, match="smile"):
        faces.FaceParams.from_dict(values)


def test_unknown_names_are_errors() -> None:
    params = PEOPLE[0]
    for call in (
        lambda: faces.draw(params, style="cubist"),
        lambda: faces.draw(params, size=8),
        lambda: faces.apply_target(params, "wings"),
        lambda: faces.caption(params, "cubist", seed=0, index=0),
        lambda: faces.pair_label("wings", params),
        lambda: faces.sample(-1, 0),
    ):
        with pytest.raises(ValueError):
            call()


def test_attributes_are_balanced_and_independent() -> None:
    many = [faces.sample(11, index) for index in range(3000)]
    table = [faces.attributes(params) for params in many]
    share = {name: np.mean([row[name] for row in table]) for name in table[0]}
    wanted = {"smiling": 0.45, "glasses": 0.35, "beard": 0.3, "mustache": 0.15, "bald": 0.12}
    for name, probability in (wanted | {"old": 0.3, "lipstick": 0.25}).items():
        assert abs(share[name] - probability) < 0.03, name
    free = ["smiling", "glasses", "beard", "mustache", "bald", "old", "lipstick", "dark_skin"]
    values = np.array([[row[name] for name in free] for row in table], float)
    apart = np.corrcoef(values.T) - np.eye(len(free))
    assert np.abs(apart).max() < 0.07


@pytest.mark.parametrize("name", faces.TARGETS)
def test_every_edit_shows_and_stays_in_its_region(name: str) -> None:
    edit = faces.TARGETS[name]
    people = [params for params in PEOPLE if faces.applicable(params, name)][:5]
    assert people
    for params in people:
        edited, style = faces.apply_target(params, name)
        before, after = faces.draw(params, size=64), faces.truth(params, name, size=64)
        region = faces.edit_region(params, name, size=64)
        changed = np.abs(before.astype(int) - after).max(axis=2)
        assert np.count_nonzero(changed > 15) >= 8
        if style in ("photo", "zombie"):
            assert changed[~region].max(initial=0) <= 2
            assert region.mean() < 0.75
        else:
            assert region.all()
        if edit.attribute is not None:
            assert faces.attributes(edited)[edit.attribute] == edit.value
            assert faces.already(edited, name)


def test_an_edit_that_does_not_apply_changes_nothing() -> None:
    bald = replace(PEOPLE[0], bald=True)
    assert faces.apply_target(bald, "blond hair") == (bald, "photo")
    assert not faces.applicable(bald, "blond hair")
    assert not faces.edit_region(bald, "blond hair", size=32).any()
    glasses = replace(PEOPLE[0], glasses=True)
    assert faces.already(glasses, "glasses")
    assert faces.apply_target(glasses, "glasses") == (glasses, "photo")


def test_the_photo_keeps_its_grain_through_an_edit() -> None:
    params = replace(PEOPLE[0], glasses=False)
    grains = []
    for person in (params, replace(params, glasses=True)):
        clean = faces.draw(person, grain=False).astype(int)
        grains.append(faces.draw(person).astype(int) - clean)
    assert 1.0 < grains[0].std() < 2.0
    assert np.abs(grains[0] - grains[1]).max() <= 1


def test_styles_are_what_they_say() -> None:
    for params in PEOPLE[:8]:
        drawn = {style: faces.draw(params, style=style) for style in faces.STYLES}
        assert saturation(drawn["sketch"]) < 0.02
        assert np.median(drawn["sketch"]) > 170  # paper
        assert np.percentile(drawn["sketch"], 1) < 90  # pencil
        assert saturation(drawn["bw"]) == 0
        assert np.median(drawn["neon"]) < 60
        sepia = drawn["sepia"].astype(int)
        assert np.all(sepia.mean(axis=(0, 1))[:-1] > sepia.mean(axis=(0, 1))[1:])
        flat = faces.draw(params, style="cartoon").reshape(-1, 3)
        colours = {style: len(np.unique(drawn[style].reshape(-1, 3), axis=0)) for style in drawn}
        assert colours["cartoon"] < 0.6 * colours["photo"]
        assert np.count_nonzero(flat.max(axis=1) < 50) > 150  # black outlines


def test_a_zombie_is_greener_and_keeps_its_surroundings() -> None:
    for params in PEOPLE[:8]:
        photo = faces.draw(params, grain=False).astype(int)
        zombie = faces.draw(params, style="zombie", grain=False).astype(int)
        region = faces.edit_region(params, "zombie")
        green = zombie[region] - photo[region]
        assert (green[:, 1] - green[:, 0]).mean() > 8
        assert np.array_equal(photo[:8], zombie[:8])


def _claims(text: str) -> dict[str, bool]:
    """Attributes that a caption states, read independently of how it was written."""
    padded = " " + " ".join(faces.words(text)) + " "
    denied = any(f" {no} " in padded for no in ("without glasses", "no glasses"))
    spectacles = any(f" {w} " in padded for w in ("glasses", "eyeglasses", "spectacles"))
    denied |= " without eyeglasses " in padded
    claims: dict[str, bool] = {}
    if spectacles:
        claims["glasses"] = not denied
    smile_words = (" smiling ", " happy ", " cheerful ", " grinning ", " laughing ", " smile ")
    if any(word in padded for word in smile_words):
        claims["smiling"] = " not smiling " not in padded and " without a smile " not in padded
    if any(word in padded for word in (" sad ", " frowning ", " serious ", " frown ", " grumpy ")):
        claims["serious"] = True
    if " beard " in padded or " bearded " in padded:
        claims["beard"] = " without a beard " not in padded and " no beard " not in padded
    if " clean shaven " in padded:
        claims["beard"] = claims["mustache"] = False
    if any(word in padded for word in (" elderly ", " aged ", " senior ", " wrinkles ")):
        claims["old"] = True
    for word, colour in {"blond": "blond", "blonde": "blond", "ginger": "red"}.items():
        if f" {word} " in padded:
            claims[f"{colour}_hair"] = True
    for colour in ("black", "brown", "red", "gray"):
        if f" {colour} hair " in padded:
            claims[f"{colour}_hair"] = True
    return claims


def test_captions_are_true_varied_and_within_the_vocabulary() -> None:
    texts, stated = set(), 0
    for index in range(4000):
        params = PEOPLE[index % len(PEOPLE)]
        style = faces.STYLES[index % len(faces.STYLES)]
        text = faces.caption(params, style, seed=9, index=index)
        assert set(faces.words(text)) <= faces.WORDS, text
        known = faces.attributes(params)
        for name, value in _claims(text).items():
            assert known[name] == value, (text, name)
            stated += 1
        if style in ("sketch", "bw", "sepia", "neon"):
            assert not {"blond", "blonde", "ginger", "golden"} & set(faces.words(text)), text
        texts.add(text)
    assert len(texts) > 1500
    assert stated > 1500
    assert faces.caption(PEOPLE[0], seed=1, index=2) == faces.caption(PEOPLE[0], seed=1, index=2)


def test_prompt_pairs_label_both_sides() -> None:
    labels: dict[str, set[bool | None]] = {}
    for name, positive, negative in faces.PROMPT_PAIRS:
        assert positive != negative
        assert set(faces.words(positive + " " + negative)) <= faces.WORDS
        labels.setdefault(name, set()).update(
            faces.pair_label(name, params, style)
            for params in PEOPLE[:60]
            for style in faces.STYLES
        )
    for name, seen in labels.items():
        assert {True, False} <= seen, name
    smiling = replace(PEOPLE[0], smile=0.9, hair_colour="blond", bald=False)
    assert faces.pair_label("smiling", smiling) is True
    assert faces.pair_label("smiling", replace(smiling, smile=-0.5)) is False
    assert faces.pair_label("black_hair/blond_hair", smiling) is False
    assert faces.pair_label("black_hair/red_hair", smiling) is None
    assert faces.pair_label("black_hair/blond_hair", smiling, "sketch") is None
    assert faces.pair_label("sketch/photo", smiling, "sketch") is True
    assert faces.pair_label("sketch/photo", smiling, "oil") is None


def test_every_style_has_prompts() -> None:
    assert set(faces.STYLE_PROMPTS) == set(faces.STYLES)
    assert {edit.style for edit in faces.TARGETS.values()} == set(faces.STYLES)
