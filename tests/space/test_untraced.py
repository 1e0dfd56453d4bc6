"""Decisions that nothing traces: by truth values, by what has no memory, by several choices at once."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nas import ModelSpace, ValueChoice
from nas.space import Answering


def found_and_true(program: Callable[[], object]) -> tuple[list[str], list[str]]:
    """The samples of the space of a program, and those that running it under every answer finds."""

    def build() -> nn.Module:
        program()
        return nn.Identity()

    space = ModelSpace(build)
    assert space.exact
    true: list[str] = []
    pending: list[dict[str, Any]] = [{}]
    while pending:
        sample = pending.pop()
        handler = Answering(lambda q, sample=sample: sample.get(q.label, q.default))  # type: ignore[misc]
        space.construct(handler)
        following = next((label for label in handler.questions if label not in sample), None)
        if following is None:
            true.append(repr(sorted(handler.answers.items())))
        else:
            pending += [{**sample, following: answer} for answer in handler.questions[following].domain.values()]
    return sorted(repr(sorted(sample.items())) for sample in space.grid()), sorted(true)


def number(label: str) -> int:
    return ValueChoice([1, 2, 3], label=label)


def flag(label: str) -> bool:
    return ValueChoice([False, True], label=label)


def word(label: str) -> str:
    return ValueChoice(["x", "y", "z"], label=label)


def more() -> None:
    ValueChoice([1, 2], label="more")


def by_answers_that_are_truth_values() -> None:
    f, g, h = flag("f"), flag("g"), flag("h")
    if f and not g and h:
        more()


def by_all_of_several_comparisons() -> None:
    if all([number("a") > 1, number("b") < 3, number("c") == 2]):
        more()


def by_counting_under_ifs() -> None:
    hits = 0
    if number("a") == 3:
        hits += 1
    if number("b") == 1:
        hits += 1
    if word("c") == "y":
        hits += 1
    if hits == 3:
        more()


def by_a_table_of_tuples() -> None:
    for _ in range({(3, 1, "y"): 1}.get((number("a"), number("b"), word("c")), 0)):
        more()


def by_text() -> None:
    if f"{number('a')}{number('b')}{number('c')}" == "312":
        more()


def by_words_that_are_joined() -> None:
    if "-".join([word("a"), word("b"), word("c")]) == "z-x-y":
        more()


def by_an_array() -> None:
    if numpy.array([number("a"), number("b"), number("c")]).tolist() == [3, 1, 2]:
        more()


def by_nothing_and_something() -> None:
    limit = ValueChoice([4, None], label="limit")
    if limit is None and ValueChoice([(3, 3), (5, 1), None], label="kernel") == (5, 1) and flag("f"):
        more()


def by_parts_of_tuples() -> None:
    (height, width), (depth, _) = (ValueChoice([(3, 3), (5, 1), (1, 5)], label=label) for label in "ab")
    if height * width == 5 and depth > 4:
        more()


PROGRAMS = [function for name, function in list(globals().items()) if name.startswith("by_")]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_it_is_found_all_the_same(program: Callable[[], None]) -> None:
    found, true = found_and_true(program)
    assert found == true
    assert any("more" in sample for sample in found)


# Random ones.

ANSWERS: dict[str, list[Any]] = {
    "numbers": [1, 2, 3],
    "bits": [0, 1],
    "flags": [False, True],
    "optional": [None, 4, 8],
    "words": ["mlp", "cnn", "rnn"],
    "pairs": [(3, 3), (1, 5)],
    "rates": [0.1, 0.5],
}


@st.composite
def decisions(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, dict[int, Any]]]]:
    """The kinds of some choices, and decisions: how they are made, and for which answers of up to three choices."""
    kinds = draw(st.lists(st.sampled_from(sorted(ANSWERS)), min_size=2, max_size=5))
    made = []
    for _ in range(draw(st.integers(1, 2))):
        by = draw(st.sets(st.integers(0, len(kinds) - 1), min_size=1, max_size=3))
        wanted = {i: draw(st.sampled_from(ANSWERS[kinds[i]])) for i in sorted(by)}
        made.append((draw(st.sampled_from(["all", "ifs", "tuple", "table", "text", "return"])), wanted))
    return kinds, made


def holds(how: str, pairs: list[tuple[Any, Any]]) -> bool:
    """Whether all of these are equal in pairs, found out in one of many ways."""
    given, wanted = tuple(one for one, _ in pairs), tuple(other for _, other in pairs)
    if how == "ifs":
        hits = 0
        for one, other in pairs:
            if one == other:
                hits += 1
        return hits == len(pairs)
    if how == "return":
        for one, other in pairs:
            if one is not other if other is None or isinstance(other, bool) else one != other:
                return False
        return True
    if how == "text":
        return "/".join(map(str, given)) == "/".join(map(str, wanted))
    if how == "table":
        return bool({wanted: 1}.get(given))
    return given == wanted if how == "tuple" else all(one == other for one, other in pairs)


@given(decisions())
@settings(max_examples=60, deadline=None)
def test_random_decisions_are_found(drawn: tuple[list[str], list[tuple[str, dict[int, Any]]]]) -> None:
    kinds, made = drawn

    def program() -> None:
        values = [ValueChoice(ANSWERS[kind], label=f"{kind} {i}") for i, kind in enumerate(kinds)]
        for position, (how, wanted) in enumerate(made):
            if holds(how, [(values[i], answer) for i, answer in wanted.items()]):
                ValueChoice([1, 2], label=f"more {position}")

    found, true = found_and_true(program)
    assert found == true


def test_it_takes_few_runs() -> None:
    runs = 0

    def flags() -> nn.Module:
        nonlocal runs
        runs += 1
        found = [flag(f"f{i}") for i in range(20)]
        return nn.Identity() if all(itertools.islice(found, 3)) else nn.ReLU()

    assert ModelSpace(flags).size == 2**20
    assert runs < 20
