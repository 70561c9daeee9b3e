"""Networks that read text: conditions, classifier-free guidance, and what a fresh reader begins as.

The formulas are written out again here, row by row.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_guide import write_clip
from torch import Tensor

from dclip.diffusion.conditioning import ClassifierFree, Condition, Prompted
from dclip.diffusion.schedule import Schedule
from dclip.encoders.clip import ClipEncoder
from dclip.encoders.contract import EncoderInfo
from dclip.errors import BadInput
from dclip.guidance.clip import load_guide
from dclip.models.checkpoint import ModelInfo, load_model, save_model
from dclip.models.prediction import bare
from dclip.models.unet import SIZES, CrossAttention, UNet

SCHEDULE = Schedule.make("linear-rescaled", 40)
INFO = EncoderInfo(kind="clip", where="small", width=16, context=8, pooled=12)


def condition(rows: int, seed: int = 0) -> Condition:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 9, (rows, 1), generator=generator)
    return Condition(
        torch.randn(rows, 8, 16, generator=generator),
        torch.arange(8)[None] < lengths,
        F.normalize(torch.randn(rows, 12, generator=generator), dim=1),
    )


def reader(seed: int = 0) -> UNet:
    """A network that reads text and whose weights are all random."""
    torch.manual_seed(seed)
    model = UNet(SIZES["micro"], text=INFO)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn(value.shape))
    model.set_empty(condition(1, seed=9))
    return model.eval().requires_grad_(False)


def noisy(rows: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    return torch.randn(rows, 3, 16, 16), torch.randint(1, 41, (rows,))


@pytest.mark.parametrize("together", [True, False])
def test_guidance_is_the_formula_for_each_picture(together: bool) -> None:
    model, (x, t) = reader(), noisy(3)
    positive, negative = condition(3, 1), condition(1, 2)
    got = ClassifierFree(model, positive, negative, 4.0, together=together)(x, t)
    for i in range(3):
        one = slice(i, i + 1)
        with_prompt = model(x[one], t[one], positive.rows([i]))
        without = model(x[one], t[one], negative)
        wanted = without + 4.0 * (with_prompt - without)
        torch.testing.assert_close(got[one], wanted, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize(("scale", "asked"), [(1.0, 1), (0.0, 2)])
def test_scale_one_is_the_prompt_and_zero_the_negative_in_one_call(
    scale: float, asked: int
) -> None:
    model, (x, t) = reader(), noisy(2)
    calls: list[int] = []

    def counted(x: Tensor, t: Tensor, c: Condition | None = None) -> Tensor:
        calls.append(len(x))
        return model(x, t, c)

    got = ClassifierFree(counted, condition(2, 1), condition(2, 2), scale)(x, t)
    assert calls == [2]
    assert torch.equal(got, Prompted(model, condition(2, asked))(x, t))


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1.5, 12), rescale=st.floats(0.1, 1), seed=st.integers(0, 99))
def test_rescaling_brings_back_each_picture_contrast_whatever_the_batch(
    scale: float, rescale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64)
    t = torch.randint(1, 41, (3,), generator=generator)

    def model(x: Tensor, t: Tensor, c: Condition | None = None) -> Tensor:
        assert c is not None
        return x * c.tokens[:, :1, :1, None].to(x) + c.tokens[:, :1, 1:2, None].to(x)

    positive, negative = condition(3, seed), condition(1, seed + 1)
    guided = ClassifierFree(model, positive, negative, scale, rescale, SCHEDULE)
    got = guided(x, t)
    for i in range(3):
        one = slice(i, i + 1)
        alone = ClassifierFree(model, positive.rows([i]), negative, scale, rescale, SCHEDULE)
        torch.testing.assert_close(got[one], alone(x[one], t[one]))
        ab = float(SCHEDULE.alpha_bar[t[i]])
        eps_p = model(x[one], t[one], positive.rows([i]))
        eps_n = model(x[one], t[one], negative)
        eps = eps_n + scale * (eps_p - eps_n)
        clean = (x[one] - (1 - ab) ** 0.5 * eps) / ab**0.5
        own = (x[one] - (1 - ab) ** 0.5 * eps_p) / ab**0.5
        wanted = rescale * clean * own.std() / clean.std() + (1 - rescale) * clean
        made = (x[one] - (1 - ab) ** 0.5 * got[one]) / ab**0.5
        torch.testing.assert_close(made, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_that_is_no_number_is_refused(scale: float) -> None:
    with pytest.raises(BadInput, match="guidance scale"):
        ClassifierFree(reader(), condition(1), condition(1), scale)


def test_prompts_that_do_not_fit_the_pictures_are_refused() -> None:
    x, t = noisy(3)
    with pytest.raises(BadInput, match="2 prompts for 3 pictures"):
        Prompted(reader(), condition(2))(x, t)


def test_cross_attention_is_a_softmax_over_the_words_of_the_prompt() -> None:
    torch.manual_seed(0)
    layer = CrossAttention(32, 4, 16).double()
    with torch.no_grad():
        layer.out.weight.normal_()
        layer.out.bias.normal_()
    asked = condition(2)
    asked = Condition(asked.tokens.double(), asked.mask, None)
    x = torch.randn(2, 32, 3, 3, dtype=torch.float64)
    got = layer(x, asked)
    assert asked.mask is not None
    states = layer.states(asked.tokens)
    keys, values = (states @ layer.key_value.weight.T + layer.key_value.bias).chunk(2, -1)
    wanted = x.clone()
    for row in range(2):
        words = int(asked.mask[row].sum())
        queries = layer.query(layer.norm(x[row : row + 1]))[0].flatten(1).T
        heads = []
        for head in range(4):
            part = slice(8 * head, 8 * head + 8)
            scores = queries[:, part] @ keys[row, :words, part].T / 8**0.5
            heads.append(scores.softmax(-1) @ values[row, :words, part])
        mixed = torch.cat(heads, -1).T.reshape(1, 32, 3, 3)
        wanted[row] += layer.out(mixed)[0]
    torch.testing.assert_close(got, wanted)


def test_what_follows_the_end_of_a_prompt_does_not_count() -> None:
    model, (x, t) = reader(), noisy(2)
    asked = condition(2)
    assert asked.mask is not None
    other = replace(asked, tokens=torch.where(asked.mask[..., None], asked.tokens, 77.0))
    assert torch.equal(model(x, t, asked), model(x, t, other))
    more = replace(asked, mask=torch.ones_like(asked.mask))
    assert not torch.allclose(model(x, t, asked), model(x, t, more))


def test_no_condition_is_the_empty_prompt_and_is_saved_with_the_weights(tmp_path: Path) -> None:
    x, t = noisy(2)
    info = ModelInfo("unet", SIZES["micro"], SCHEDULE, 16, text=INFO)
    model = reader()
    save_model(tmp_path, info, model.state_dict())
    loaded, again = load_model(tmp_path)
    assert again == info
    assert torch.equal(loaded(x, t), model(x, t, condition(1, seed=9)))
    assert not torch.allclose(loaded(x, t), model(x, t, condition(1, seed=8)))


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_every_prediction_passes_the_condition_on(prediction: str) -> None:
    x, t = noisy(2)
    info = ModelInfo("unet", SIZES["micro"], SCHEDULE, 16, prediction=prediction, text=INFO)
    model = info.build()
    bare(model).load_state_dict(reader().state_dict())
    assert not torch.allclose(model(x, t, condition(2, 1)), model(x, t, condition(2, 2)))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ClipEncoder:
    folder = write_clip(tmp_path_factory.mktemp("clip"))
    return ClipEncoder(load_guide(str(folder)), str(folder))


def test_a_clip_gives_its_states_after_the_last_norm(encoder: ClipEncoder) -> None:
    model = encoder.guide.model
    prompts = ["a face", "a smiling face with glasses", ""]
    ids = encoder.guide.tokenizer(prompts)
    x = model.token_embedding(ids) + model.positional_embedding  # type: ignore[operator]
    for block in model.transformer.resblocks:  # type: ignore[union-attr]
        length = x.shape[1]
        above = torch.full((length, length), float("-inf")).triu(1)
        normed = block.ln_1(x)
        x = x + block.attn(normed, normed, normed, attn_mask=above, need_weights=False)[0]
        x = x + block.mlp(block.ln_2(x))
    wanted = model.ln_final(x)  # type: ignore[operator]
    got = encoder.encode(prompts)
    torch.testing.assert_close(got.tokens, wanted.detach(), rtol=1e-4, atol=1e-5)
    assert got.mask is not None and got.pooled is not None
    assert got.mask.sum(1).tolist() == [4, 7, 2]  # start and end among them
    torch.testing.assert_close(got.pooled[:1], encoder.guide.embed_text(["a face"]))
    assert encoder.info == EncoderInfo(
        kind="clip", where=encoder.info.where, width=16, context=16, pooled=16
    )


def test_a_prompt_that_is_too_long_is_refused(encoder: ClipEncoder) -> None:
    with pytest.raises(BadInput, match="reads at most 16"):
        encoder.encode(["face " * 20])


def test_an_embedding_of_unit_length_comes_to_the_network_at_unit_variance() -> None:
    model, (x, t), seen = reader(), noisy(3), []
    model.whole.register_forward_pre_hook(lambda _net, given: seen.append(given[0]))
    model(x, t, condition(3, 1))
    torch.testing.assert_close(seen[0].square().mean(1), torch.ones(3))
