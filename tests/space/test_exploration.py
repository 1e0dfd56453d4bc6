"""Choices that depend on the value of others: found by running the program, whatever Python does with the value."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nas import InputChoice, LayerChoice, ModelSpace, Mutator, NasError, Repeat, ValueChoice, label_scope
from nas.space import Answering


def every(space: ModelSpace) -> list[dict[str, Any]]:
    """All samples by brute force: the program is run under each answer to each question that it asks."""
    found: list[dict[str, Any]] = []
    pending: list[dict[str, Any]] = [{}]
    while pending:
        sample = pending.pop()
        handler = space.without_weights(
            lambda sample=sample: Answering(lambda q: sample.get(q.label, q.default))  # type: ignore[misc]
        )[1]
        following = next((label for label in handler.questions if label not in sample), None)
        if following is None:
            found.append(handler.answers)
        else:
            pending += [{**sample, following: answer} for answer in handler.questions[following].domain.values()]
    return found


def texts(samples: list[dict[str, Any]] | Iterator[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(sample, sort_keys=True) for sample in samples)


def is_exact(space: ModelSpace) -> None:
    expected = every(space)
    grid = list(space.grid())
    assert texts(grid) == texts(expected)
    assert space.size == len(expected)
    assert space.exact
    assert not space.doubts
    for sample in grid[:: max(1, len(grid) // 20)]:
        assert space.contains(sample)
        assert vars(space.build(sample))["nas_architecture"]["sample"] == sample


def value(label: str, number: int = 3) -> int:
    return ValueChoice(list(range(1, number + 1)), label=label)


# What Python does with a value.


def by_for() -> None:
    for i in range(value("depth")):
        value(f"w{i}")


def by_while() -> None:
    left = value("depth")
    while left > 0:
        value(f"w{left}")
        left -= 1


def by_comprehension() -> None:
    _ = [value(f"w{i}") for i in range(value("depth"))]


def by_if() -> None:
    kind = ValueChoice(["mlp", "cnn", "rnn"], label="kind")
    if kind == "mlp":
        value("units")
    elif kind == "cnn":
        value("channels"), value("kernel", 2)
    else:
        value("cells", 2)


def by_match() -> None:
    match ValueChoice(["mlp", "cnn"], label="kind"):
        case "mlp":
            value("units")
        case "cnn":
            value("channels", 2)


def by_dict() -> None:
    build: dict[str, Callable[[], object]] = {"mlp": lambda: value("units"), "cnn": lambda: value("channels", 2)}
    build[ValueChoice(["mlp", "cnn"], label="kind")]()


def by_early_return() -> None:
    if ValueChoice([False, True], label="small"):
        return
    value("width")


def by_sum_of_several() -> None:
    if value("a") + value("b") + value("c") > 8:
        value("z", 2)


def by_nested_comparisons() -> None:
    a, b, c = value("a"), value("b"), value("c")
    if a == 3 and b == 2 and c == 3:
        value("z", 2)


def by_bools() -> None:
    deep, wide = value("depth") > 2, value("width") > 2
    if deep and wide:
        value("z", 2)


def by_nested_loops() -> None:
    for i in range(value("rows", 2)):
        for j in range(value("columns")):
            value(f"w{i}{j}", 2)


def by_a_condition_on_a_conditional_one() -> None:
    if ValueChoice(["mlp", "none"], label="kind") == "mlp":
        for i in range(value("depth")):
            if value(f"w{i}", 2) == 2:
                value(f"bias{i}", 2)


def by_a_number_that_decides_what_else_there_is_to_choose() -> None:
    units = value("units")
    if 2 in {units, value("more")}:
        value("z", 2)


def by_a_value_inside_candidates() -> None:
    depth = value("depth")

    def mlp() -> nn.Module:
        for i in range(depth):
            value(f"w{i}", 2)
        return nn.Identity()

    LayerChoice({"mlp": mlp, "none": nn.Identity}, label="op")


def by_a_value_of_a_candidate() -> None:
    def mlp() -> nn.Module:
        for i in range(value("depth")):
            value(f"w{i}", 2)
        return nn.Identity()

    LayerChoice({"mlp": mlp, "none": nn.Identity}, label="op")


def by_a_value_inside_repeat() -> None:
    wide = value("wide", 2)

    def block(index: int) -> nn.Module:
        if wide == 2 or index == 1:
            value(f"w{index}")
        return nn.Identity()

    Repeat(block, (0, 3), label="blocks")


def by_a_computed_depth() -> None:
    Repeat(lambda i: nn.Identity() if value(f"w{i}", 2) else nn.ReLU(), value("depth") - 1)


def by_a_depth_that_is_used_twice() -> None:
    depth = value("depth")
    Repeat(lambda i: nn.Linear(2, value(f"w{i}", 2)), depth, label="blocks")
    if depth == 3:
        value("z", 2)


def by_a_value_inside_each() -> None:
    deep = value("deep", 2)

    def each(index: int) -> nn.Module:
        for i in range(deep):
            value(f"e{index}{i}", 2)
        return nn.Identity()

    InputChoice(3, 1, each=each, label="input")


def by_a_shared_label() -> None:
    if value("kind", 2) == 1:
        value("width"), value("kernel", 2)
    else:
        value("depth", 2), value("width")


def by_a_label_with_other_answers_in_each_branch() -> None:
    if ValueChoice(["small", "large"], label="kind") == "small":
        value("width"), value("kernel", 2)
    elif ValueChoice([8, 16, 32], label="width") == 32:
        value("kernel", 4)


def by_an_answer_that_is_the_limit_of_another() -> None:
    for i in range(value("n", value("most", 4))):
        value(f"w{i}", 2)


def by_a_label_with_other_answers_in_each_candidate() -> None:
    narrow = lambda: nn.Linear(2, ValueChoice([1, 2, 3], label="width"))  # noqa: E731
    wide = lambda: nn.Linear(2, ValueChoice([3, 4], label="width"))  # noqa: E731
    LayerChoice([narrow, wide, nn.Identity], label="op")


def by_a_helper_in_a_scope() -> None:
    def stage(name: str) -> None:
        with label_scope(name):
            for _ in range(ValueChoice([1, 2])):
                ValueChoice([8, 16])

    stage("low")
    stage("high")


def by_what_was_built() -> None:
    if isinstance(LayerChoice([nn.ReLU, nn.Tanh, nn.GELU], label="op"), nn.Tanh):
        value("scale")
    for i in range(len(Repeat(lambda i: nn.ReLU(), (1, 3), label="depth"))):
        value(f"w{i}", 2)


PROGRAMS = [function for name, function in list(globals().items()) if name.startswith("by_")]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_it_is_found_exactly(program: Callable[[], None]) -> None:
    def build() -> nn.Module:
        program()
        return nn.Identity()

    is_exact(ModelSpace(build))


class Deepen(Mutator):
    """Adds layers, as many as it asks."""

    def mutate(self, model: nn.Module) -> nn.Module:
        return nn.Sequential(model, *(nn.Linear(2, value(f"w{i}")) for i in range(value("depth"))))


def test_it_is_found_in_mutators() -> None:
    is_exact(ModelSpace(nn.Linear(2, 2), mutators=[Deepen()]))


# Random programs.

Program = list[tuple[Any, ...]]


@st.composite
def programs(draw: st.DrawFn, depth: int = 2, known: tuple[str, ...] = ()) -> Program:
    steps: Program = []
    for _ in range(draw(st.integers(1, 3))):
        what = draw(st.sampled_from(["ask", "loop", "if", "joint", "bools", "layer", "repeat", "index"]))
        if what == "ask" or not known or not depth:
            label = draw(st.sampled_from("abcdef"))
            steps.append(("ask", label))
            known = (*known, label)
        elif what == "layer":
            steps.append(
                (what, draw(st.sampled_from("xy")), draw(programs(depth - 1, known)), draw(programs(0, known)))
            )
        elif what == "repeat":
            steps.append((what, draw(st.sampled_from("rs")), draw(programs(0, known))))
        else:
            of = draw(st.sampled_from(known)), draw(st.sampled_from(known)), draw(st.integers(1, 5))
            steps.append((what, of, draw(programs(depth - 1, known))))
    return steps


NUMBERS = {"a": 2, "b": 3, "c": 2, "d": 3, "e": 2}


def run_program(program: Program, values: dict[str, int], scope: str = "", place: str = "") -> None:
    values = dict(values)
    for position, (what, of, *inner) in enumerate(program):
        deeper = f"{place}{position}."
        if what == "ask":
            if of == "f":  # has other answers as other choices say
                values[of] = value(f"{scope}f{place}{position}", 1 + sum(values.values()) % 4)
            else:
                values[of] = value(scope + of, NUMBERS[of])
        elif what == "layer":
            candidates = [partial(_module, steps, values, scope, f"{deeper}{i}.") for i, steps in enumerate(inner)]
            LayerChoice(candidates, label=scope + of)
        elif what == "repeat":
            Repeat(partial(_block, inner[0], values, scope, deeper), (1, 2), label=scope + of)
        else:
            times = _times(what, values[of[0]], values[of[1]], of[2])
            for i in range(times):
                run_program(inner[0], values, f"{scope}{i}" if what == "loop" else scope, deeper)


def _times(what: str, one: int, other: int, number: int) -> int:
    if what == "loop":
        return one
    if what == "index":
        return [0, 1, 0, 1, 1][one]
    if what == "bools":
        small, large = one > 1, other < 3
        return small and large
    return one == number if what == "if" else one * other >= number


def _module(steps: Program, values: dict[str, int], scope: str, place: str) -> nn.Module:
    run_program(steps, values, scope, place)
    return nn.Identity()


def _block(steps: Program, values: dict[str, int], scope: str, place: str, index: int) -> nn.Module:
    return _module(steps, values, f"{scope}{index}", place)


@given(programs())
@settings(max_examples=80, deadline=None)
def test_random_programs_are_found_exactly(program: Program) -> None:
    def build() -> nn.Module:
        run_program(program, {})
        return nn.Identity()

    space = ModelSpace(build)
    if space.size <= 600:
        is_exact(space)


# The same program, in plain Python and in choices of modules.


@st.composite
def structures(draw: st.DrawFn, depth: int = 2) -> list[tuple[Any, ...]]:
    kinds = ["ask", "loop", "choose"] if depth else ["ask"]
    steps: list[tuple[Any, ...]] = []
    for _ in range(draw(st.integers(1, 2))):
        kind = draw(st.sampled_from(kinds))
        number = draw(st.integers(2, 3))
        bodies = [draw(structures(depth - 1)) for _ in range({"ask": 0, "loop": 1, "choose": number}[kind])]
        steps.append((kind, number, bodies))
    return steps


def in_python(steps: list[tuple[Any, ...]], scope: str) -> None:
    for position, (kind, number, bodies) in enumerate(steps):
        label = f"{scope}{position}"
        answer = ValueChoice(list(range(1, number + 1)) if kind == "loop" else list(range(number)), label=label)
        if kind == "loop":
            for i in range(answer):
                in_python(bodies[0], f"{label}.{i}.")
        elif kind == "choose":
            in_python(bodies[answer], f"{label}.{answer}.")


def in_modules(steps: list[tuple[Any, ...]], scope: str) -> nn.Module:
    for position, (kind, number, bodies) in enumerate(steps):
        label = f"{scope}{position}"
        if kind == "ask":
            ValueChoice(list(range(number)), label=label)
        elif kind == "loop":
            Repeat(
                partial(lambda label, body, i: in_modules(body, f"{label}.{i}."), label, bodies[0]),
                (1, number),
                label=label,
            )
        else:
            LayerChoice([partial(in_modules, body, f"{label}.{i}.") for i, body in enumerate(bodies)], label=label)
    return nn.Identity()


@given(structures())
@settings(max_examples=40, deadline=None)
def test_python_and_modules_span_the_same(steps: list[tuple[Any, ...]]) -> None:
    def build() -> nn.Module:
        in_python(steps, "")
        return nn.Identity()

    python, modules = ModelSpace(build), ModelSpace(lambda: in_modules(steps, ""))
    assert python.exact
    assert python.size == modules.size
    if python.size <= 500:
        assert texts(python.grid()) == texts(modules.grid())


def test_one_label_with_two_domains_at_once_is_refused_wherever_it_comes_up() -> None:
    def both() -> nn.Module:
        value("width", 2), value("width", 3)
        return nn.Identity()

    with pytest.raises(NasError, match=r"same label is the same choice, but ValueChoice 'width' may be one of 1, 2 in"):
        ModelSpace(both)

    def twice() -> nn.Module:
        if value("kind", 2) == 2:
            value("width", 2), value("width", 3)
        return nn.Identity()

    with pytest.raises(NasError, match="same label is the same choice") as caught:
        ModelSpace(twice)
    assert any("under the answers {'kind': 2" in note for note in caught.value.__notes__)
