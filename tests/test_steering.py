"""Losses that steer, how they are written, and what the embedded base makes of them."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_guide import write_clip
from smooth_net import SmoothNet, photos
from test_perceptual import write_alexnet

from dclip.diffusion import ddim
from dclip.diffusion.guidance import Guided
from dclip.diffusion.schedule import Schedule
from dclip.errors import BadInput
from dclip.guidance.clip import load_guide
from dclip.guidance.steering import (
    KINDS,
    Given,
    Steer,
    colour,
    parse,
    spherical,
    steering,
    total_variation,
)

ONES = torch.ones(2, dtype=torch.int64)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return load_guide(str(write_clip(tmp_path_factory.mktemp("clip") / "clip")))


def pictures(n=2, size=16, seed=0):
    return photos(n, size, seed).float()


# --- as users write it -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "value", "scale"),
    [
        ("clip:a smiling person:2", "clip", "a smiling person", 2.0),
        ('clip:"a smiling person":2', "clip", "a smiling person", 2.0),
        ("clip:a smiling person", "clip", "a smiling person", KINDS["clip"].scale),
        ("a smiling person", "clip", "a smiling person", KINDS["clip"].scale),
        ("'a smiling person'", "clip", "a smiling person", KINDS["clip"].scale),
        ('clip:"a person: smiling"', "clip", "a person: smiling", KINDS["clip"].scale),
        ('clip:"a person: smiling":-0.5', "clip", "a person: smiling", -0.5),
        ("clip:a person: smiling:3", "clip", "a person: smiling", 3.0),
        (" CLIP : glasses : 1e1 ", "clip", "glasses", 10.0),
        ("text:glasses:1", "clip", "glasses", 1.0),
        ("colour:#20c040:0.3", "colour", "#20c040", 0.3),
        ("color:green", "colour", "green", KINDS["colour"].scale),
        ("direction:a man->a woman:2", "direction", "a man->a woman", 2.0),
        ("image:C:\\my.png:2", "image", "C:\\my.png", 2.0),
        ("tv:0.5", "tv", "", 0.5),
        ("tv", "tv", "", KINDS["tv"].scale),
        ("photo:", "photo", "", KINDS["photo"].scale),
        ("face:net.pth:2", "face", "net.pth", 2.0),
    ],
)
def test_what_users_write(text, kind, value, scale):
    assert parse(text) == Steer(kind, value, scale)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "nothing to steer"),
        ("clip:", "no value"),
        ("clip::2", "no value"),
        ('clip:"":2', "no value"),
        ("clip:2", "no value"),
        ("clip:a smile:strong", "is no number"),
        ("clip:a smile:nan", "out of range"),
        ("clip:a smile:inf", "out of range"),
        ("clip:a smile:-1e9", "out of range"),
        ("a person: smiling", "nothing to steer by"),
        ("colour:#20c04:1", "no colour"),
        ("colour:geren:1", "no colour"),
        ("tv:smooth:1", "takes no value"),
        ("tv:smooth", "is no number"),
    ],
)
def test_what_cannot_be_read_is_refused(text, says):
    with pytest.raises(BadInput, match=says) as refused:
        parse(text)
    assert refused.value.fix or says == "no colour"


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(BadInput) as refused:
        parse("colur:#20c040:1")
    assert "colour" in refused.value.fix
    with pytest.raises(BadInput) as refused:
        parse("a person: smiling")
    assert "clip:a person: smiling:1" in refused.value.fix


@given(
    st.sampled_from([name for name, row in KINDS.items() if row.value and name != "colour"]),
    st.text("abc xyz,.", min_size=1).filter(str.strip),
    st.floats(-100, 100).map(lambda v: float(f"{v:g}")),
)
def test_a_steer_reads_as_it_writes_itself(kind, value, scale):
    steer = Steer(kind, value.strip(), scale)
    assert parse(str(steer)) == steer


def test_colours():
    assert colour("#ff0080") == pytest.approx((1, -1, 128 / 127.5 - 1))
    assert colour("white") == (1, 1, 1)


# --- the losses --------------------------------------------------------------------------------


def test_spherical_is_half_the_squared_angle():
    for angle in (0.3, 1.2, 3.0):
        a = torch.tensor([1.0, 0.0], dtype=torch.float64)
        b = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        assert float(spherical(a, b)) == pytest.approx(angle**2 / 2, rel=1e-4)
    same = torch.tensor([[1.0, 0.0]], requires_grad=True)
    spherical(same, same.detach()).sum().backward()
    assert bool(torch.isfinite(same.grad).all())


def test_colour_is_the_mean_distance_to_it():
    loss = steering([parse("colour:#20c040:1")], Given())
    flat = torch.tensor(colour("#20c040")).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    got = loss(torch.cat([flat, flat + 0.25]), ONES)
    assert got.tolist() == pytest.approx([0, 0.25], abs=1e-6)


def test_total_variation_is_of_the_grain():
    grain = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    assert float(total_variation(grain)) == pytest.approx(4, rel=0.03)  # twice 2 sigma^2
    assert float(total_variation(torch.ones(1, 3, 8, 8))) == 0
    ramp = torch.linspace(-1, 1, 9).view(1, 1, 1, 9).expand(1, 3, 9, 9)
    assert float(total_variation(ramp)) == pytest.approx(0.25**2)
    assert float(total_variation(ramp.transpose(-1, -2))) == pytest.approx(0.25**2)


def test_clip_losses_are_angles_in_its_space(clip):
    x = pictures()
    seen = clip.embed_image(x)
    text = clip.embed_text(["glasses"])
    loss = steering([parse("clip:glasses:1")], Given(guides=[clip]))
    want = torch.arccos((seen * text).sum(-1)) ** 2 / 2
    assert torch.allclose(loss(x, ONES), want, atol=1e-4)
    both = steering([parse("clip:glasses:1")], Given(guides=[clip, clip]))
    assert torch.allclose(both(x, ONES), want, atol=1e-4)


def test_clip_sees_pixels_as_it_was_trained_to(clip):
    """CLIP's own preprocessing, on [0, 1]: not its normalisation of pixels in [-1, 1]."""
    x = pictures(1)
    unit = F.normalize(clip.model.encode_image(((x + 1) / 2 - clip.mean) / clip.std), dim=-1)
    loss = steering([parse("clip:glasses:1")], Given(guides=[clip]))
    want = spherical(unit, clip.embed_text(["glasses"]))
    assert torch.allclose(loss(x, ONES[:1]), want, atol=1e-5)


def test_image_is_zero_for_the_same_picture(clip, tmp_path):
    pixels = torch.randint(0, 256, (16, 16, 3), dtype=torch.uint8)
    file = tmp_path / "like.png"
    Image.fromarray(pixels.numpy()).save(file)
    loss = steering([Steer("image", str(file), 1.0)], Given(guides=[clip]))
    same = pixels.permute(2, 0, 1)[None].float() / 127.5 - 1
    got = loss(torch.cat([same, pictures(1)]), ONES)
    assert float(got[0]) < 1e-5 < 1e-3 < float(got[1])
    with pytest.raises(BadInput, match="no such image"):
        steering([Steer("image", str(tmp_path / "none.png"), 1.0)], Given(guides=[clip]))


def test_direction_is_one_minus_the_cosine_of_the_moves(clip):
    x, before = pictures(seed=1), pictures(seed=2)
    loss = steering([parse("direction:a man -> a woman:1")], Given(guides=[clip], photos=before))
    to, come_from = clip.embed_text(["a woman", "a man"])
    moved = clip.embed_image(x) - clip.embed_image(before)
    want = 1 - F.cosine_similarity(moved, (to - come_from)[None])
    assert torch.allclose(loss(x, ONES), want, atol=1e-5)
    with pytest.raises(BadInput, match="from what to what"):
        steering([parse("direction:a woman:1")], Given(guides=[clip], photos=before))


def test_photo_and_face_hold_the_picture():
    before = pictures(seed=2)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 8))
    held = Given(photos=before, faces={"net.pth": network})
    for text in ("photo:1", "face:net.pth:1"):
        loss = steering([parse(text)], held)
        assert loss(before, ONES).tolist() == pytest.approx([0, 0], abs=1e-6)
        assert bool((loss(pictures(seed=3), ONES) > 1e-3).all())


def test_scales_weigh_and_below_zero_steer_away(clip):
    x, held = pictures(), Given(guides=[clip])
    smile, glasses = (
        steering([parse(t)], held)(x, ONES) for t in ("clip:smile:1", "clip:glasses:1")
    )
    mixed = steering([parse("clip:smile:2"), parse("clip:glasses:-0.5")], held)
    assert torch.allclose(mixed(x, ONES), 2 * smile - 0.5 * glasses, atol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_guides_and_pixels_out_of_range_come_back(name, clip, tmp_path, monkeypatch):
    """The row works as it stands, and no gradient is lost where pixels lie beyond [-1, 1]."""
    file = tmp_path / "like.png"
    Image.new("RGB", (16, 16), "green").save(file)
    if name == "lpips":
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        write_alexnet(tmp_path)
    values = {
        "image": str(file), "direction": "a man->a woman", "colour": "green", "clip": "hat",
        "face": "net.pth",
    }  # fmt: skip
    row = KINDS[name]
    before = pictures(seed=2)
    held = Given(
        guides=[clip],
        photos=before,
        faces={"net.pth": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 8))},
    )
    loss = steering([Steer(name, values.get(name, ""), 1.0)], held)
    x = (3 * pictures(seed=4)).requires_grad_()
    losses = loss(x, ONES)
    assert losses.shape == (2,) and row.about and row.scale > 0
    (gradient,) = torch.autograd.grad(losses.sum(), x)
    beyond = x.abs() > 1
    assert bool(torch.isfinite(gradient).all())
    assert float((gradient[beyond] != 0).float().mean()) > 0.2
    # And it steers: its own loss falls.
    schedule, net = Schedule.make(), SmoothNet(seed=4, strength=0.5).float().requires_grad_(False)
    state, grid = pictures(seed=5), ddim.grid(100, 6)
    ends = [
        loss(ddim.decode(Guided(net, schedule, loss, s), schedule, state, grid), ONES).mean()
        for s in (0.0, 0.05)
    ]
    assert float(ends[1]) < float(ends[0])


@pytest.mark.parametrize(
    ("text", "needs"),
    [("clip:hat:1", "CLIP"), ("direction:a->b:1", "CLIP"), ("photo:1", "photo"), ("face:f:1", "p")],
)
def test_what_is_not_given_is_named(text, needs):
    with pytest.raises(BadInput, match=needs) as refused:
        steering([parse(text)], Given())
    assert refused.value.fix


def test_nothing_to_steer_by_is_refused():
    with pytest.raises(BadInput):
        steering([], Given())
    with pytest.raises(BadInput):
        steering([Steer("magic", "", 1.0)], Given())


# --- cut-outs ----------------------------------------------------------------------------------


def test_crops_belong_to_the_picture_and_not_to_its_batch(clip):
    x, t = pictures(3, 24), torch.tensor([5, 9, 5])

    def loss(rows):
        held = Given(guides=[clip], keys=[[11, 12, 13][i] for i in rows], views=4)
        return steering([parse("clip:hat:1")], held)(x[rows], t[rows])

    together = loss([0, 1, 2])
    assert torch.allclose(together, loss([2, 1, 0]).flip(0), atol=1e-6)
    assert torch.allclose(together[1:2], loss([1]), atol=1e-6)
    still = steering([parse("clip:hat:1")], Given(guides=[clip]))(x, t)
    assert not torch.allclose(together, still, atol=1e-5)


def test_crops_change_with_the_timestep_and_the_key(clip):
    x = pictures(1, 24)

    def loss(number, t):
        held = Given(guides=[clip], keys=[number], views=2)
        return float(steering([parse("clip:hat:1")], held)(x, torch.tensor([t])))

    assert loss(1, 5) == loss(1, 5)
    assert len({loss(1, 5), loss(1, 6), loss(2, 5)}) == 3


def test_an_edit_and_its_photo_are_cropped_alike(clip):
    before = pictures(2, 24)
    held = Given(guides=[clip], photos=before, keys=[1, 2], views=3)
    loss = steering([parse("direction:a man->a woman:1")], held)
    # Nothing moved, so the cosine is 0 in every view; other crops would differ.
    assert loss(before.clone(), ONES).tolist() == pytest.approx([1, 1], abs=1e-6)


def test_crops_without_keys_are_refused(clip):
    loss = steering([parse("clip:hat:1")], Given(guides=[clip], views=2))
    with pytest.raises(BadInput, match="keys"):
        loss(pictures(), ONES)


# --- on the embedded base ----------------------------------------------------------------------


def test_the_embedded_base_is_steered_by_colour_and_clip():
    from dclip.models.checkpoint import load_model
    from dclip.random import key, normal

    assets = Path(__file__).parent.parent / "dclip" / "assets"
    net, info = load_model(assets / "base")
    guide = load_guide(str(assets / "clip"))
    T = info.schedule.T
    x = normal([key(0, "steering", i) for i in range(2)], (3, info.image_size, info.image_size))
    grid, held = ddim.grid(T, 6), Given(guides=[guide])

    def draw(text, scale):
        loss = steering([parse(text)], held)
        model = Guided(net, info.schedule, loss, scale)
        with torch.no_grad():
            return ddim.decode(model, info.schedule, x, grid, clip_x0=True)

    plain = draw("clip:a smiling person:1", 0.0)
    smiling = draw("clip:a smiling person:1", 1.0)
    green = draw("colour:#20c040:1", 1.0)
    more, fewer = guide.embed_text(["a smiling person", "a serious person"])

    def smiles(pictures):
        return guide.embed_image(pictures) @ (more - fewer)

    assert bool((smiles(smiling) > smiles(plain)).all())
    away = torch.tensor(colour("#20c040")).view(1, 3, 1, 1)
    assert float((green - away).abs().mean()) < 0.6 * float((plain - away).abs().mean())
