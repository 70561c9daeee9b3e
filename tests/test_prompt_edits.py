"""SDEdit, replay under a source prompt, and prompt-to-prompt, against what they must be."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dclip.diffusion import ddim
from dclip.diffusion.attention import OWN, Borrowed, aligned
from dclip.diffusion.conditioning import ClassifierFree, Condition, Prompted
from dclip.diffusion.prompt_edits import Pair, prompt_to_prompt, record, sdedit
from dclip.diffusion.samplers import SAMPLERS
from dclip.diffusion.schedule import Schedule
from dclip.encoders.contract import EncoderInfo
from dclip.errors import BadInput
from dclip.models.unet import SIZES, Attention, CrossAttention, UNet
from dclip.models.unet2d_condition import UNet2DCondition, UNet2DConditionConfig

LINEAR = Schedule.make("linear", 100)
INFO = EncoderInfo(kind="clip", where="", width=12, context=5, pooled=6)
GRID = ddim.grid(60, 6)


def condition(seed: int, rows: int = 1, words: int = 4) -> Condition:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(5)[None].expand(rows, 5) < words
    return Condition(
        torch.randn(rows, 5, 12, generator=generator, dtype=torch.float64),
        mask,
        torch.randn(rows, 6, generator=generator, dtype=torch.float64),
    )


@pytest.fixture(scope="module")
def net() -> UNet:
    """A small network in float64 whose every weight is random: nothing starts at zero."""
    torch.manual_seed(0)
    made = UNet(SIZES["micro"], text=INFO).double()
    for weight in made.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    return made.eval().requires_grad_(False)


def pictures(seed: int = 0, rows: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, 3, 16, 16, generator=generator, dtype=torch.float64) * 2 - 1


def difference(x: Tensor, y: Tensor) -> float:
    return float((x - y).detach().abs().max())


# --- attention ---------------------------------------------------------------------------------


def test_borrowed_maps_are_those_of_the_other_row_by_hand() -> None:
    torch.manual_seed(1)
    own = torch.rand(3, 2, 4, 5)
    borrowed = Borrowed(
        torch.tensor([0, 0, 2]),
        torch.tensor([[OWN] * 5, [0, OWN, 3, 3, OWN], [OWN] * 5]),
    )
    wanted = own.clone()
    for token, source in enumerate([0, OWN, 3, 3, OWN]):
        if source != OWN:
            wanted[1, :, :, token] = own[0, :, :, source]
    assert torch.equal(borrowed.maps(own), wanted)


def test_attention_that_borrows_nothing_is_plain_attention(net: UNet) -> None:
    x, t, asked = pictures(), torch.tensor([9, 50]), condition(1, rows=2)
    nothing = Borrowed(torch.arange(2), torch.full((2, 5), OWN))
    for layout in (False, True):
        same = replace(asked, borrowed=replace(nothing, layout=layout))
        assert difference(net(x, t, asked), net(x, t, same)) < 1e-12


def test_words_that_are_masked_stay_unseen_when_maps_are_borrowed() -> None:
    torch.manual_seed(2)
    layer = CrossAttention(16, 2, 12).double()
    for weight in layer.parameters():
        weight.data += torch.randn_like(weight)
    asked = condition(3, rows=2, words=3)
    borrowed = Borrowed(torch.tensor([0, 0]), torch.tensor([[OWN] * 5, [0, 1, 2, OWN, OWN]]))
    x = torch.randn(2, 16, 4, 4, dtype=torch.float64)
    changed = asked.tokens.clone()
    changed[:, 3:] = 7.0
    one = layer(x, replace(asked, borrowed=borrowed))
    other = layer(x, replace(asked, tokens=changed, borrowed=borrowed))
    assert difference(one, other) == 0


def test_the_layout_of_a_row_is_taken_by_another_and_its_content_is_not() -> None:
    torch.manual_seed(3)
    layer = Attention(16, 2, 12).double()
    layer.text = None
    for weight in layer.parameters():
        weight.data += torch.randn_like(weight)
    x = torch.randn(2, 16, 3, 3, dtype=torch.float64)
    tokens = torch.full((2, 5), OWN)
    layout = Borrowed(torch.tensor([0, 0]), tokens, layout=True)
    got = layer(x, replace(condition(0, rows=2), borrowed=layout))
    q, k, v = layer.qkv(layer.norm(x)).reshape(2, 3, 2, 8, 9).transpose(-1, -2).unbind(1)
    maps = (q[0] @ k[0].transpose(-1, -2) / math.sqrt(8)).softmax(-1)  # the first row's
    y = torch.stack([maps @ v[0], maps @ v[1]]).transpose(-1, -2).reshape(2, 16, 3, 3)
    assert difference(got, x + layer.out(y)) < 1e-12


def test_words_stand_for_those_in_their_place() -> None:
    start, end, a, face, old, young, glad = range(7)
    assert aligned([start, a, old, face, end], [start, a, young, face, end]) == [0, 1, 2, 3, 4]
    added = aligned([start, a, face, end], [start, a, glad, young, face, end])
    assert added == [0, 1, OWN, OWN, 2, 3]
    assert aligned([start, a, old, face, end], [start, a, face, end]) == [0, 1, 3, 4]
    swapped = aligned([start, old, face, end], [start, glad, young, face, end])
    assert swapped == [0, OWN, OWN, 2, 3]


ids = st.lists(st.integers(0, 4), max_size=8)


@given(ids, ids)
def test_alignment_keeps_the_order_and_equal_prompts_stand_for_themselves(
    source: list[int], target: list[int]
) -> None:
    found = aligned(source, target)
    assert len(found) == len(target)
    kept = [i for i in found if i != OWN]
    assert kept == sorted(set(kept)) and all(i < len(source) for i in kept)
    assert aligned(target, target) == list(range(len(target)))


# --- SDEdit ------------------------------------------------------------------------------------


def noise_of(x: Tensor):  # type: ignore[no-untyped-def]
    def noise(t: int) -> Tensor:
        generator = torch.Generator().manual_seed(t)
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    return noise


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpmpp-2m"])
def test_sdedit_is_the_sampler_from_the_noised_photo(net: UNet, sampler: str) -> None:
    x0, asked = pictures(), Prompted(net, condition(1))
    noise = noise_of(x0)
    got = sdedit(asked, LINEAR, x0, strength=0.4, steps=5, noise=noise, sampler=SAMPLERS[sampler])
    ab = LINEAR.alpha_bar[40]
    x_r = math.sqrt(ab) * x0 + math.sqrt(1 - ab) * noise(40)
    wanted = SAMPLERS[sampler](asked, LINEAR, x_r, ddim.grid(40, 5), noise=noise)
    assert difference(got, wanted) < 1e-6


def test_sdedit_keeps_less_of_the_photo_the_stronger_it_is(net: UNet) -> None:
    x0, asked = pictures(), Prompted(net, condition(1))

    def at(strength: float) -> Tensor:
        return sdedit(asked, LINEAR, x0, strength=strength, steps=12, noise=noise_of(x0))

    assert at(0.0) is x0
    assert at(0.004) is x0  # no timestep is that near
    moved = [float((at(s) - x0).square().mean()) for s in (0.01, 0.2, 0.6)]
    assert moved[0] < moved[1] < moved[2]


@pytest.mark.parametrize(
    "wrong", [{"strength": -0.1}, {"strength": 1.1}, {"strength": math.nan}, {"steps": 0}], ids=str
)
def test_sdedit_refuses(net: UNet, wrong: dict[str, float]) -> None:
    given: dict[str, object] = {"strength": 0.5, "steps": 2, **wrong}
    x0 = pictures()
    with pytest.raises(BadInput):
        sdedit(Prompted(net, condition(1)), LINEAR, x0, noise=noise_of(x0), **given)  # type: ignore[arg-type]


# --- replay and prompt-to-prompt ---------------------------------------------------------------


def test_a_photo_recorded_under_any_prompt_is_replayed_exactly(net: UNet) -> None:
    x0 = pictures()
    for method in ("fixed-point", "ddim"):
        for source in (condition(1), condition(2, rows=2)):
            kept = record(net, LINEAR, x0, GRID, source, method=method)  # type: ignore[arg-type]
            assert difference(kept.replay(net, LINEAR), x0) < 1e-10
    other = record(net, LINEAR, x0, GRID, condition(3))
    assert difference(other.x_r, kept.x_r) > 1e-3  # the prompt is asked in the inversion


@settings(max_examples=4, deadline=None)
@given(cross=st.floats(0, 1), layout=st.floats(0, 1), scale=st.sampled_from([0.0, 1.0, 4.0]))
def test_the_photo_s_own_branch_is_exact_at_any_setting(
    net: UNet, cross: float, layout: float, scale: float
) -> None:
    x0 = pictures()
    kept = record(net, LINEAR, x0, GRID, condition(1), method="ddim")
    again, edits = prompt_to_prompt(
        net, LINEAR, kept, condition(2), condition(3), torch.arange(5),
        scale=scale, cross=cross, layout=layout,
    )  # fmt: skip
    assert difference(again, x0) < 1e-10
    assert edits.shape == x0.shape and difference(edits, x0) > 1e-6


def test_without_borrowing_the_edit_is_the_plain_guided_decode(net: UNet) -> None:
    kept = record(net, LINEAR, pictures(), GRID, condition(1), method="ddim")
    target, negative = condition(2, rows=2), condition(3)
    for scale in (1.0, 4.0):
        _, edits = prompt_to_prompt(
            net, LINEAR, kept, target, negative, torch.arange(5), scale=scale, cross=0, layout=0
        )
        plain = ClassifierFree(net, target, negative, scale)
        assert (
            difference(edits, ddim.decode(plain, LINEAR, kept.x_r, GRID, offsets=kept.offsets))
            < 1e-10
        )


def test_unchanged_words_without_guidance_give_the_photo(net: UNet) -> None:
    x0 = pictures()
    kept = record(net, LINEAR, x0, GRID, condition(1), method="ddim")
    _, edits = prompt_to_prompt(
        net, LINEAR, kept, condition(1), condition(3), torch.arange(5), scale=1
    )
    assert difference(edits, x0) < 1e-10


def test_borrowing_brings_the_edit_nearer_to_the_photo_s_branch(net: UNet) -> None:
    """The maps are the source's where they are borrowed, in every step of the window."""
    x, t = pictures(rows=2), torch.tensor([50, 50])
    both = torch.cat([x, x])
    pair = Pair(net, condition(1), condition(2), condition(3), torch.arange(5), 1.0, r=60)
    seen: list[Tensor] = []

    def keep(layer: CrossAttention, given: tuple[Tensor, Condition], out: Tensor) -> None:
        asked = given[1]
        assert asked.borrowed is not None
        assert asked.borrowed.rows.tolist() == [0, 1, 0, 1]
        seen.append(out)

    hooks = [m.register_forward_hook(keep) for m in net.modules() if isinstance(m, CrossAttention)]
    borrowed = pair.at(50)(both, torch.cat([t, t]))
    for hook in hooks:
        hook.remove()
    assert seen
    plain = replace(pair, cross=0.0, layout=0.0).at(50)(both, torch.cat([t, t]))
    assert difference(borrowed[:2], plain[:2]) < 1e-12  # the source's own half
    assert difference(borrowed[2:], plain[2:]) > 1e-4


def test_the_window_ends_where_its_share_says(net: UNet) -> None:
    both, t = pictures(rows=2), torch.tensor([1, 1])
    pair = Pair(net, condition(1), condition(2), condition(3), torch.arange(5), 1.0, 60, 0.5, 0.0)
    none = replace(pair, cross=0.0)
    for label, acts in ((60, True), (31, True), (30, False), (1, False)):
        moved = difference(pair.at(label)(both, t * label), none.at(label)(both, t * label))
        assert (moved > 1e-6) is acts


def test_a_picture_does_not_depend_on_its_batch(net: UNet) -> None:
    x0, target, negative = pictures(rows=3), condition(2), condition(3)
    source = condition(1, rows=3)

    def edit(rows: slice) -> Tensor:
        kept = record(net, LINEAR, x0[rows], GRID, source.rows(rows), method="ddim")
        return prompt_to_prompt(net, LINEAR, kept, target, negative, torch.arange(5), scale=3.0)[1]

    assert difference(edit(slice(0, 3))[1:2], edit(slice(1, 2))) < 1e-9


@pytest.mark.parametrize(
    "wrong", [{"scale": math.nan}, {"scale": math.inf}, {"cross": 1.5}, {"layout": -0.1}], ids=str
)
def test_a_pair_refuses(net: UNet, wrong: dict[str, float]) -> None:
    given: dict[str, float] = {"scale": 3.0, **wrong}
    asked = condition(1)
    with pytest.raises(BadInput):
        Pair(net, asked, asked, asked, torch.arange(5), r=60, **given)  # type: ignore[arg-type]


def test_a_network_that_lends_no_attention_says_so_and_edits_without() -> None:
    pytest.importorskip("diffusers")
    config = UNet2DConditionConfig(
        sample_size=16, in_channels=3, out_channels=3, block_out_channels=(8, 8),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1, norm_num_groups=4, cross_attention_dim=12, attention_head_dim=2,
    )  # fmt: skip
    text = EncoderInfo(kind="hf-clip", where=".", width=12, context=5)
    other = UNet2DCondition(config, text, channels=3).double().eval().requires_grad_(False)
    x0, asked = pictures(), replace(condition(1), mask=None, pooled=None)
    kept = record(other, LINEAR, x0, GRID, asked, method="ddim")
    given = (other, LINEAR, kept, asked, asked, torch.arange(5))
    again, _ = prompt_to_prompt(*given, scale=3.0, cross=0, layout=0)
    assert difference(again, x0) < 1e-10
    with pytest.raises(BadInput, match="not borrowed"):
        prompt_to_prompt(*given, scale=3.0)
