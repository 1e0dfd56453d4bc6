"""The controller network, and the decisions it takes."""

import math
import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nas import (
    Categorical,
    InputChoice,
    Integer,
    LayerChoice,
    ModelSpace,
    Real,
    Repeat,
    SearchSpace,
    Subset,
    ValueChoice,
)
from nas.strategies.policy import Decisions, Policy
from nas.testing import synthetic_table


def program() -> nn.Module:
    wide = LayerChoice(
        {"plain": nn.Identity, "wide": lambda: nn.Linear(4, ValueChoice([4, 8], label="width"))}, label="layer"
    )
    blocks = Repeat(lambda i: LayerChoice([nn.ReLU, nn.Tanh]), (0, 2), label="depth")
    return nn.Sequential(wide, blocks, InputChoice(3, 2, label="inputs"))


SPACE = ModelSpace(program).search_space
EVERY_DOMAIN = SPACE.joined(
    {
        "any": Subset(3, None),
        "two": Subset(4, 2),
        "order": Subset(3, 2, ordered=True),
        "rate": Real(1e-4, 1e-1, log=True),
        "steps": Integer(1, 1000),
        "few": Integer(2, 8, step=2),
    }
)


@given(st.integers(0, 10**6))
def test_the_decisions_of_a_sample_lead_back_to_it(seed: int) -> None:
    decisions = Decisions(EVERY_DOMAIN)
    sample = EVERY_DOMAIN.sample(seed)
    taken = decisions.of(sample)
    assert all(d.option in d.options and len(d.options) <= decisions.arity[d.place] for d in taken)
    left = iter(taken)
    again = decisions.walk(lambda place, options: next(left).option, random.Random(0))
    for label, answer in sample.items():
        if label in ("rate", "steps"):
            domain: Any = EVERY_DOMAIN.domains[label]
            assert abs(domain.to_unit(again[label]) - domain.to_unit(answer)) <= 1 / 16
        else:
            assert again[label] == answer


@given(st.integers(0, 10**6))
def test_whatever_is_decided_is_a_sample(seed: int) -> None:
    rng = random.Random(seed)
    sample = Decisions(EVERY_DOMAIN).walk(lambda place, options: rng.choice(options), rng)
    assert EVERY_DOMAIN.validate(sample) == sample


def test_the_probabilities_of_all_samples_sum_to_one() -> None:
    policy = Policy(SPACE, seed=3)
    with torch.no_grad():
        policy.score.weight.normal_(0, 0.5, generator=torch.Generator().manual_seed(0))
        total = policy.log_prob(list(SPACE.grid())).exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-4)


def test_at_first_every_option_of_a_decision_is_as_likely() -> None:
    space = SearchSpace.of({"a": Categorical(range(5)), "b": Subset(4, 2)})
    policy = Policy(space, seed=0)
    assert policy.log_prob([{"a": 3, "b": [2, 3]}]).exp().item() == pytest.approx(1 / 5 * 1 / 3 * 1 / 1)


def test_samples_are_drawn_as_likely_as_they_are() -> None:
    space = SearchSpace.of({"a": Categorical(["x", "y", "z"]), "b": Categorical([0, 1])})
    policy = Policy(space, seed=1)
    with torch.no_grad():
        policy.score.weight.normal_(0, 1.0, generator=torch.Generator().manual_seed(1))
    drawn = [policy.sample(seed) for seed in range(1500)]
    for sample in space.grid():
        likely = policy.log_prob([sample]).exp().item()
        share = sum(other == sample for other in drawn) / len(drawn)
        assert abs(share - likely) < 4 * math.sqrt(likely * (1 - likely) / len(drawn)) + 1e-3


def test_what_comes_later_has_no_say_in_what_came_before() -> None:
    policy = Policy(SPACE, seed=0)
    with torch.no_grad():
        policy.score.weight.normal_(0, 1.0, generator=torch.Generator().manual_seed(0))
    first, second = SPACE.default(), dict(SPACE.default())
    second["inputs"] = [2, 2]
    walks = policy.walks([first, second])
    steps = len(policy.decisions.of(first)) - 1
    assert torch.equal(policy.step_log_probs(walks)[0, : steps - 1], policy.step_log_probs(walks)[1, : steps - 1])


@pytest.mark.slow
def test_plain_reinforce_learns_a_table() -> None:
    table = synthetic_table("conditional", 0)
    policy = Policy(table.space, seed=0)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.02)
    means = []
    for step in range(40):
        samples = [policy.sample(16 * step + i) for i in range(16)]
        values = torch.tensor([table.value(sample) for sample in samples])
        means.append(float(values.mean()))
        advantage = (values - values.mean()) / (values.std() + 1e-6)
        loss = -(advantage * policy.log_prob(samples)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert table.regret(sum(means[:3]) / 3) > 0.8
    assert table.regret(sum(means[-3:]) / 3) < 0.35


def test_making_a_policy_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    Policy(SPACE, seed=5).sample(0)
    assert torch.equal(torch.get_rng_state(), before)
