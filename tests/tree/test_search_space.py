"""Recombination of samples: cross, replace and extend keep to the tree."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nas import (
    Categorical,
    InputChoice,
    Integer,
    LayerChoice,
    ModelSpace,
    NasValueError,
    Real,
    Repeat,
    Sample,
    SearchSpace,
    Subset,
    ValueChoice,
    search_space,
)


def network() -> nn.Module:
    def wide() -> nn.Module:
        # The same label has other answers in the other branch.
        return nn.Linear(ValueChoice([1, 2], label="inputs of it"), ValueChoice([4, 8], label="width"))

    def deep() -> nn.Module:
        # The same label in two branches is the same choice.
        return nn.Sequential(
            nn.Linear(ValueChoice([2, 3, 4], label="inputs of it"), ValueChoice([4, 8], label="width")),
            LayerChoice([nn.ReLU, nn.Tanh], label="act"),
        )

    kind = LayerChoice({"plain": nn.Identity, "wide": wide, "deep": deep}, label="kind")
    blocks = Repeat(lambda i: LayerChoice([nn.ReLU, nn.Tanh, nn.GELU], label=f"block {i}"), (0, 3), label="depth")
    edges = InputChoice(
        3, 2, replace=False, label="inputs", each=lambda i: LayerChoice([nn.ReLU, nn.Tanh], label=f"edge {i}")
    )
    return nn.Sequential(kind, blocks, edges)


SPACE = ModelSpace(network).search_space.joined(
    {"rate": Real(1e-4, 1e-1, log=True), "steps": Integer(1, 1000), "views": Subset(3, None)}
)
seeds = st.integers(0, 10**6)


@given(seeds, seeds, seeds)
def test_a_child_has_each_answer_of_a_parent_that_gave_it(one: int, other: int, seed: int) -> None:
    mother, father = SPACE.sample(one), SPACE.sample(other)
    child = SPACE.cross(mother, father, seed)
    assert SPACE.validate(child) == child
    domains = SPACE.domains_of(child)
    for label, answer in child.items():
        given_by = [parent[label] for parent in (mother, father) if label in parent]
        given_by = list(filter(domains[label].contains, given_by))
        assert answer in given_by or not given_by
    assert SPACE.cross(mother, father, seed) == child
    assert SPACE.cross(mother, mother, seed) == mother


@given(seeds, seeds)
def test_replacing_an_answer_changes_what_hangs_on_it_and_nothing_else(one: int, seed: int) -> None:
    rng = random.Random(seed)
    sample = SPACE.sample(one)
    label = rng.choice(list(sample))
    answer = SPACE.domains_of(sample)[label].mutate(sample[label], rng)
    child = SPACE.replace(sample, label, answer, seed)
    assert SPACE.validate(child) == child
    assert child[label] == answer
    after = SPACE.domains_of(child)
    kept = [n for n in sample if n in child and n != label and after[n].contains(sample[n])]
    assert all(child[other] == sample[other] for other in kept)
    back = SPACE.replace(child, label, sample[label], seed)
    assert all(back[other] == sample[other] for other in [label, *kept])


@given(seeds, seeds)
@settings(max_examples=50)
def test_a_part_of_a_sample_is_extended_to_a_whole_one(one: int, seed: int) -> None:
    rng = random.Random(seed)
    sample = SPACE.sample(one)
    part = {label: answer for label, answer in sample.items() if rng.random() < 0.5}
    for whole in (SPACE.extend(part), SPACE.extend(part, seed)):
        assert SPACE.validate(whole) == whole
        domains = SPACE.domains_of(whole)
        fitting = {n: a for n, a in part.items() if n in whole and domains[n].contains(a)}
        assert all(whole[label] == answer for label, answer in fitting.items())
    assert SPACE.extend({}) == SPACE.default()
    assert SPACE.extend({}, seed) == SPACE.sample(seed)
    assert SPACE.extend(sample, seed) == sample == SPACE.extend(sample)


@given(seeds, seeds)
def test_a_mutant_differs_in_one_choice_and_in_what_hangs_on_it(one: int, seed: int) -> None:
    sample = SPACE.sample(one)
    mutant = SPACE.mutate(sample, seed)
    assert SPACE.validate(mutant) == mutant != sample
    changed = [n for n in sample if n in mutant and mutant[n] != sample[n]]
    assert len(changed) == 1 or (set(changed) == {"kind", "inputs of it"} and len(changed) == 2)
    assert SPACE.validate(SPACE.mutate(sample, seed, probability=0.5))


def test_a_label_with_two_domains_has_a_name_for_each_among_the_variables() -> None:
    names = ["inputs of it (one of 1, 2)", "inputs of it (one of 2, 3, 4)"]
    assert [name for name in SPACE.variables if name.startswith("inputs of")] == names
    assert SPACE.domains["inputs of it"].size == 4
    for seed in range(20):
        sample = SPACE.sample(seed)
        renamed = SPACE.as_variables({**sample, "met later": 1})
        assert renamed["met later"] == 1
        assert len(renamed) == len(sample) + 1
        assert all(SPACE.variables[name].contains(answer) for name, answer in renamed.items() if name != "met later")
        assert all(SPACE.domains_of(sample)[label].contains(answer) for label, answer in sample.items())
    flat = SearchSpace.of({"rate": Real(0, 1)})
    assert flat.variables == flat.domains
    long = search_space(lambda: ValueChoice(range(ValueChoice([400, 500], label="n")), label="of n")).search_space
    assert len(long.variables) == 3
    assert max(map(len, long.variables)) < 100
    with pytest.raises(NasValueError, match=r"'inputs of it': the answer must be one of 1, 2; received 4"):
        SPACE.validate({**SPACE.extend({"kind": "wide"}), "inputs of it": 4})
    with pytest.raises(NasValueError, match=r"'inputs of it': the answer must be one of 1, 2; received 4"):
        SPACE.replace(SPACE.extend({"kind": "wide"}), "inputs of it", 4, 0)


def test_labels_that_the_tree_does_not_know_are_carried_along() -> None:
    """Choices met only through the value of another."""
    one: Sample = {**SPACE.default(), "met later": 3}
    assert SPACE.cross(one, {**SPACE.default(), "and this": 4}, 0) == one
    assert SPACE.replace(one, "kind", "wide", 0)["met later"] == 3
    assert SPACE.replace(one, "steps", 7, 0) == {**one, "steps": 7}
    assert SPACE.extend({"met later": 3}) == one


def test_answers_are_brought_to_canonical_form() -> None:
    sample = SPACE.replace(SPACE.default(), "inputs", (2, 0), 0)
    assert sample["inputs"] == [0, 2]
    assert SPACE.extend({"steps": 5.0})["steps"] == 5


@pytest.mark.parametrize(
    ("label", "answer", "message"),
    [
        ("widht", 8, "no choice of this space has this label; did you mean 'width'"),
        ("width", 8, "label 'width': the choice is not asked under these answers; it needs kind = "),
        ("depth", 9, "label 'depth': the answer must be a whole number from 0 to 3; received 9"),
        ("kind", "narrow", "label 'kind': the answer must be one of 'plain'"),
    ],
)
def test_what_cannot_be_replaced_is_refused(label: str, answer: Any, message: str) -> None:
    with pytest.raises(NasValueError, match=message):
        SPACE.replace(SPACE.default(), label, answer, 0)


def test_a_given_answer_outside_its_domain_is_refused() -> None:
    with pytest.raises(NasValueError, match="label 'rate': the answer must be a number from 0.0001 to 0.1"):
        SPACE.extend({"rate": 1.0})


def test_several_domains_are_refused_at_once() -> None:
    space = SearchSpace.of(
        {"rate": Real(0, 1), "width": Categorical([1, 2]), "decay": Real(1, 1), "momentum": Real(0, 2)}
    )
    with pytest.raises(NasValueError, match="2 problems:\n.*label 'rate': no lists.*\n.*label 'momentum'"):
        space.require(lambda domain: domain.listable, "no lists", "give it a step")
    space.require(lambda domain: domain.numeric or domain.listable, "no", "none")
