"""From architecture parameters to samples: the rule of DARTS, conditions, constraints, the k best."""

import math
import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from nas import (
    Cell,
    InputChoice,
    LayerChoice,
    ModelSpace,
    NasTypeError,
    NasValueError,
    Repeat,
    Sample,
    ValueChoice,
    Zero,
)
from nas.model_zoo import space as zoo_space
from nas.oneshot import RelaxedSupernet


def drawn(space: ModelSpace, seed: int = 0, *, edges: str = "sum") -> RelaxedSupernet:
    """A supernet whose logits are large enough to differ."""
    net = RelaxedSupernet(space, edges=edges)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.architecture.parameters():
            parameter.normal_(generator=generator)
    return net


def set_weights(net: RelaxedSupernet, label: str, weights: list[float]) -> None:
    with torch.no_grad():
        net.architecture.parameter(label).copy_(torch.tensor(weights).log())


def cells(*, none: bool = True) -> ModelSpace:
    names = ["skip", "conv", *(["none"] if none else [])]
    operations = {name: lambda i, name=name: Zero() if name == "none" else nn.Identity() for name in names}
    return ModelSpace(lambda: Cell(operations, nodes=3, label="cell", distinct=True, output="all"))


def genotype_of_the_paper(net: RelaxedSupernet) -> Sample:
    """As in the published code: for each edge the best operation but none, for each node the two best edges."""
    sample: Sample = {}
    for node in range(3):
        strengths, best = [], []
        for state in range(2 + node):
            label = f"cell/node{node}/op{state}"
            weights = net.architecture.parameter(label).softmax(-1).tolist()
            names = net.architecture.answers(label)
            strength, name = max((w, n) for w, n in zip(weights, names, strict=True) if n != "none")
            if "cell/node0/inputs" in net.architecture.labels:
                strength *= net.architecture.parameter(f"cell/node{node}/inputs").softmax(-1)[state].item()
            strengths.append(strength)
            best.append(name)
        kept = sorted(sorted(range(2 + node), key=lambda state: -strengths[state])[:2])
        sample[f"cell/node{node}/inputs"] = kept
        sample.update({f"cell/node{node}/op{state}": best[state] for state in kept})
    return sample


@pytest.mark.parametrize("edges", ["sum", "softmax"])
@pytest.mark.parametrize("seed", range(10))
def test_a_cell_is_derived_as_in_the_paper(seed: int, edges: str) -> None:
    net = drawn(cells(), seed, edges=edges)
    assert net.discretise() == [genotype_of_the_paper(net)]


def test_none_is_excluded_however_likely() -> None:
    net = RelaxedSupernet(cells())
    for label in net.architecture.labels:
        set_weights(net, label, [0.01, 0.02, 0.97])
    assert all("none" not in sample.values() for sample in net.discretise(50))


def test_none_weakens_its_edge() -> None:
    net = RelaxedSupernet(cells())
    for label in net.architecture.labels:
        set_weights(net, label, [0.3, 0.3, 0.4])
    set_weights(net, "cell/node1/op1", [0.1, 0.29, 0.61])
    assert net.discretise()[0]["cell/node1/inputs"] == [0, 2]


def test_a_subclass_of_zero_is_no_edge() -> None:
    class Nothing(Zero):
        pass

    def space(state: int) -> nn.Module:
        return LayerChoice([Nothing, nn.Identity], label=f"op{state}")

    net = RelaxedSupernet(ModelSpace(lambda: InputChoice(3, 2, replace=False, each=space, label="inputs")))
    assert all(sample[f"op{i}"] == "Identity" for sample in net.discretise(9) for i in sample["inputs"])
    only = RelaxedSupernet(
        ModelSpace(lambda: InputChoice(3, 2, replace=False, each=lambda i: LayerChoice([Zero, Nothing], label="op")))
    )
    assert only.discretise()[0]["op"] in ("Zero", "Nothing")  # nothing else is left


@pytest.mark.parametrize("name", ["none", "zero", "skip"])
def test_names_mean_nothing(name: str) -> None:
    """A layer of a user's that is called Zero, under an answer that is called "none", is a layer like any other."""
    kind = type("Zero", (nn.Linear,), {})
    operations = {"plain": lambda i: nn.Identity(), name: lambda i: kind(3, 3)}
    net = RelaxedSupernet(
        ModelSpace(lambda: Cell(operations, nodes=1, label="cell", distinct=True, output="all"))  # type: ignore[arg-type]
    )
    for label in net.architecture.labels:
        set_weights(net, label, [0.2, 0.8])
    best = net.discretise()[0]
    assert best == {"cell/node0/inputs": [0, 1], "cell/node0/op0": name, "cell/node0/op1": name}
    assert sum(type(module) is kind for module in net.extract(best).modules()) == 2


def test_none_elsewhere_is_an_answer_like_any_other() -> None:
    net = RelaxedSupernet(zoo_space("nasbench201", channels=4, cells=1))
    set_weights(net, "edge_0_1", [0.6, 0.1, 0.1, 0.1, 0.1])
    assert net.discretise()[0]["edge_0_1"] == "none"


class Conditional(nn.Module):
    """Choices that ask others, unevenly."""

    def __init__(self) -> None:
        super().__init__()
        self.op = LayerChoice({"plain": nn.Identity, "wide": self._wide, "linear": lambda: nn.Linear(3, 3)}, label="op")
        self.depth = Repeat(lambda i: LayerChoice([nn.Tanh, nn.ReLU], label=f"act{i}"), (0, 2), label="depth")
        self.inputs = InputChoice(2, None, label="inputs")

    @staticmethod
    def _wide() -> nn.Module:
        width = ValueChoice([2, 4], label="width")
        return nn.Sequential(nn.Linear(3, width), LayerChoice([nn.Tanh, nn.ReLU], label="between"), nn.Linear(width, 3))


def test_choices_that_ask_more_are_at_no_disadvantage() -> None:
    net = RelaxedSupernet(ModelSpace(Conditional))
    set_weights(net, "op", [0.3, 0.4, 0.3])
    set_weights(net, "depth", [0.3, 0.3, 0.4])
    set_weights(net, "width", [0.45, 0.55])
    best = net.discretise()[0]
    assert (best["op"], best["depth"], best["width"]) == ("wide", 2, 4)


def relative_cost(net: RelaxedSupernet, sample: Sample) -> float:
    """How much likelier the best answer of each active label is, as logarithms."""
    total = 0.0
    for label, answer in sample.items():
        logarithms = net.architecture.parameter(label).detach().double().log_softmax(-1)
        if label == "inputs":
            total += sum(float(row.max() - row[int(i in answer)]) for i, row in enumerate(logarithms))
        else:
            position = net.architecture.answers(label).index(answer)
            total += float(logarithms.max() - logarithms[position])
    return total


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**6), k=st.integers(1, 200))
def test_the_k_best_are_those_of_the_whole_grid(seed: int, k: int) -> None:
    space = ModelSpace(Conditional)
    net = drawn(space, seed)
    found = net.discretise(k)
    costs = sorted(relative_cost(net, sample) for sample in space.grid())
    assert len(found) == min(k, len(costs))
    assert [relative_cost(net, sample) for sample in found] == pytest.approx(costs[:k])
    assert all(space.contains(sample) for sample in found)
    assert len({repr(sorted(sample.items())) for sample in found}) == len(found)


def test_labels_that_stand_in_several_places_count_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = LayerChoice([nn.Identity, lambda: LayerChoice([nn.Tanh, nn.ReLU], label="c")], label="a")
            self.b = LayerChoice([nn.Identity, lambda: LayerChoice([nn.Tanh, nn.ReLU], label="c")], label="b")

    space = ModelSpace(Twice)
    for seed in range(5):
        net = drawn(space, seed)
        costs = sorted(relative_cost(net, sample) for sample in space.grid())
        assert [relative_cost(net, sample) for sample in net.discretise(100)] == pytest.approx(costs)


def test_the_constraint_of_the_space_is_kept() -> None:
    space = ModelSpace(Conditional)
    narrow = space.where(lambda sample: sample["depth"] == 1 and sample["op"] != "wide")
    found = drawn(narrow).discretise(100)
    assert len(found) == len(list(narrow.grid())) == 16
    assert all(narrow.contains(sample) for sample in found)


def test_a_constraint_that_nothing_satisfies_is_answered() -> None:
    class Net(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(*(LayerChoice([nn.Tanh, nn.ReLU], label=f"op{i}") for i in range(3)))

    net = RelaxedSupernet(ModelSpace(Net))
    net.space = net.space.where(lambda sample: False)
    with pytest.raises(NasValueError, match="likeliest samples satisfies the constraint"):
        net.discretise()


@pytest.mark.parametrize("k", [0, -1, True, 1.5])
def test_a_number_of_samples_that_is_none_is_refused(k: object) -> None:
    net = RelaxedSupernet(ModelSpace(Conditional))
    with pytest.raises((NasValueError, NasTypeError), match="discretise: k must be an int from 1 on"):
        net.discretise(k)  # type: ignore[arg-type]


def test_the_space_of_darts_is_searched_in_no_time() -> None:
    net = drawn(zoo_space("darts", channels=2, cells=3, none=True))
    found = net.discretise(20)
    assert len(found) == 20
    strengths = [math.fsum(_edge_logs(net, sample)) for sample in found]
    assert strengths == sorted(strengths, reverse=True)


def _edge_logs(net: RelaxedSupernet, sample: Sample) -> list[float]:
    found = []
    for label, answer in sample.items():
        if label in net.architecture.labels:
            position = net.architecture.answers(label).index(answer)
            found.append(net.architecture.parameter(label).log_softmax(-1)[position].item())
    return found


def test_ties_are_broken_by_the_order_of_answers() -> None:
    net = RelaxedSupernet(ModelSpace(Conditional))
    with torch.no_grad():
        for parameter in net.architecture.parameters():
            parameter.zero_()
    random.seed(1)
    first = net.discretise(3)
    random.seed(2)
    assert net.discretise(3) == first
