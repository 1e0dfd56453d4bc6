"""The space of language models: its size, causality, that they learn, and what each choice changes."""

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from nas import ModelSpace, NasError, NasTypeError, NasValueError, Sample
from nas.model_zoo import TransformerLMSpace
from nas.model_zoo.transformer_layers import SelfAttention, TransformerRanges

RANGES = TransformerRanges(widths=(8, 16), heads=(1, 2), mlp_ratios=(1, 2, 4), depth=(1, 3), head_width=4)
SPACE = ModelSpace(TransformerLMSpace, RANGES, vocabulary=11, context=12)
SEEDS = st.integers(0, 10**6)


def parameters(sample: Sample) -> int:
    return sum(parameter.numel() for parameter in SPACE.build(sample, device="meta").parameters())


def test_size() -> None:
    size = ModelSpace(TransformerLMSpace).size
    assert size == 3 * sum((3 * 3) ** depth for depth in range(1, 5))
    assert f"{size:,} architectures" in str(TransformerLMSpace.__doc__)


@settings(max_examples=5, deadline=None, derandomize=True)
@given(seed=SEEDS, changed=st.integers(0, 11))
def test_no_position_sees_a_later_one(seed: int, changed: int) -> None:
    model = SPACE.build(SPACE.sample(seed)).eval()
    text = torch.randint(11, (1, 12), generator=torch.Generator().manual_seed(seed))
    other = text.clone()
    other[0, changed] = (text[0, changed] + 1) % 11
    with torch.no_grad():
        before, after = model(text), model(other)
    torch.testing.assert_close(before[:, :changed], after[:, :changed])
    assert (before[:, changed:] - after[:, changed:]).abs().amax(-1).gt(0).all()


def test_attention_agrees_with_torch() -> None:
    ours = SelfAttention(8, heads=2, head_width=4, causal=True)
    torchs = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    layers = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        torchs.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        torchs.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
        torchs.out_proj.load_state_dict(ours.output.state_dict())
        x, mask = torch.rand(2, 5, 8), torch.ones(5, 5, dtype=torch.bool).triu(1)
        torch.testing.assert_close(ours(x), torchs(x, x, x, attn_mask=mask, need_weights=False)[0])


def test_it_learns_to_count() -> None:
    torch.manual_seed(0)
    model = SPACE.build(SPACE.complete({"width": 16, "depth": 1}))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    text = (torch.arange(11)[:, None] + torch.arange(13)) % 11
    for _ in range(60):
        loss = cross_entropy(model(text[:, :-1]).transpose(1, 2), text[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=SEEDS)
def test_a_larger_answer_has_more_parameters(seed: int) -> None:
    sample, rng = SPACE.sample(seed), random.Random(seed)
    label = rng.choice(list(sample))
    smaller, larger = sorted(rng.sample(list(SPACE.search_space.domains[label].values()), 2))
    fixed = {name: answer for name, answer in sample.items() if label != "depth" or name == "width"}
    assert parameters(SPACE.complete(fixed | {label: smaller})) < parameters(SPACE.complete(fixed | {label: larger}))


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"heads": (2, 0)}, NasValueError),
        ({"widths": ()}, NasValueError),
        ({"depth": (0, 2)}, NasValueError),
        ({"head_width": 0}, NasValueError),
        ({"widths": 8}, NasTypeError),
        ({"mlp_ratios": (2, "4")}, NasTypeError),
    ],
)
def test_ranges_without_candidates_above_zero_are_refused(wrong: dict[str, Any], error: type[NasError]) -> None:
    with pytest.raises(error, match=f"TransformerRanges: {next(iter(wrong))} must be .*(?:from 1 on|above 0)"):
        replace(RANGES, **wrong)


def test_a_text_longer_than_the_context_is_refused() -> None:
    with pytest.raises(NasValueError, match=r"at most 12 tokens.*13"):
        SPACE.build(SPACE.default())(torch.zeros(1, 13, dtype=torch.long))
