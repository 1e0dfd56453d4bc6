"""Omitted labels are made from where a choice goes."""

from collections.abc import Callable, Iterator

import pytest
from torch import nn

from nas import InputChoice, LayerChoice, ModelSpace, Repeat, ValueChoice, label_scope, model_space


def labels(build: Callable[[], nn.Module]) -> list[str]:
    return list(ModelSpace(build).search_space.domains)


class Stem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([8, 16])
        self.conv = nn.Conv2d(3, width, kernel_size=ValueChoice([3, 5]))
        self.act = LayerChoice([nn.ReLU, lambda: nn.PReLU(init=ValueChoice([0.1, 0.2]))])


STEM = ["width", "conv.kernel_size", "act", "act/1/init"]


def helper() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, ValueChoice([1, 2])), LayerChoice([nn.ReLU, nn.Tanh]))


class Attributes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()


class Elements(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(Stem(), helper())


class Lists(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for _ in range(2):
            self.layers.append(nn.Linear(2, ValueChoice([1, 2])))
        self.stems = nn.ModuleList([Stem() for _ in range(2)])
        self.others = nn.Sequential(*(nn.Linear(2, ValueChoice([1, 2])) for _ in range(2)))


class Rest(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        options = {"rate": ValueChoice([0.1, 0.2])}
        a, b = ValueChoice([1, 2]), ValueChoice([1, 2])
        if (number := ValueChoice([1, 2])) < 0:
            raise ValueError(options, a, b, number)
        self.add_module("extra", nn.Linear(2, ValueChoice([1, 2])))
        self.inputs = InputChoice(2)
        self.blocks = Repeat(lambda i: nn.Linear(2, ValueChoice([1, 2])), (1, 1))
        self.more = Repeat(nn.Linear(2, 2), depth=ValueChoice([1, 2]))
        for _ in range(ValueChoice([1, 2])):
            pass
        with label_scope("cell"):
            self.op = LayerChoice([nn.ReLU, nn.Tanh])
            self.linear = nn.Linear(2, ValueChoice([1, 2], label=".width"))


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (Attributes, [f"stem.{name}" for name in STEM]),
        (Elements, [*(f"body.0.{name}" for name in STEM), "body.1.0.out_features", "body.1.1"]),
        (
            Lists,
            [
                *("layers.out_features", "layers.out_features_2"),
                *(f"stems.{name}" for name in STEM),
                *("stems.width_2", "stems.conv.kernel_size_2", "stems.act_2", "stems.act_2/1/init"),
                *("others.out_features", "others.out_features_2"),
            ],
        ),
        (
            Rest,
            [
                *("options.rate", "a", "b", "number", "extra.out_features", "inputs", "blocks"),
                *("blocks/0/out_features", "more.depth", "count", "cell/op", "cell/width"),
            ],
        ),
        (model_space(type("Decorated", (Attributes,), {})), [f"stem.{name}" for name in STEM]),
        (lambda: nn.Linear(2, ValueChoice([1, 2])), ["Linear.out_features"]),
        (lambda: LayerChoice([nn.ReLU, nn.Tanh]), ["layer"]),
    ],
    ids=["attributes", "elements", "lists", "rest", "decorated", "class", "nothing"],
)
def test_it_is_named_after_what_takes_it(build: Callable[[], nn.Module], expected: list[str]) -> None:
    assert labels(build) == expected
    assert labels(build) == expected, "the same from time to time"


def test_where_there_is_no_source_it_is_named_after_its_kind() -> None:
    found: dict[str, Callable[[], nn.Module]] = {}
    exec("def build():\n    return nn.Linear(ValueChoice([1, 2]), ValueChoice([1, 2]))", globals(), found)
    assert labels(found["build"]) == ["value", "value_2"]


def test_samples_with_the_labels_of_before_are_read() -> None:
    def build() -> nn.Module:
        def block(index: int) -> nn.Module:
            return LayerChoice([nn.ReLU, lambda: nn.PReLU(init=ValueChoice([0.1, 0.2]))])

        stem = nn.Linear(2, ValueChoice([4, 8]))
        return nn.Sequential(stem, Repeat(block, (1, 2)))

    space = ModelSpace(build)
    before = {"value_1": 8, "repeat_1": 1, "repeat_1/0/layer_1": 1, "repeat_1/0/layer_1/1/value_1": 0.2}
    now = space.validate(before)
    assert list(now.values()) == [8, 1, 1, 0.2]
    assert not set(now) & set(before)
    assert space.contains(before)
    assert vars(space.build(before))["nas_architecture"]["sample"] == now
    assert space.complete({"value_1": 8})["stem.out_features"] == 8


def candidates() -> Iterator[object]:
    yield from (nn.ReLU, nn.GELU, nn.ReLU, nn.Tanh(), lambda: nn.SiLU(), helper)


def test_classes_and_functions_answer_by_their_names() -> None:
    space = ModelSpace(lambda: LayerChoice(list(candidates()), label="op"))  # type: ignore[arg-type]
    assert [sample["op"] for sample in space.grid() if len(sample) == 1] == ["ReLU", "GELU", 2, 3, 4]
    assert space.search_space.domains["op"].size == 6
    for position, answer in enumerate(["ReLU", "GELU", 2, 3, 4]):
        assert space.validate({"op": position}) == {"op": answer}
    assert isinstance(space.build({"op": 1}), nn.GELU)
    assert vars(space.build({"op": 1}))["nas_architecture"]["sample"] == {"op": "GELU"}
    assert not space.contains({"op": 6})
    assert not space.contains({"op": "Tanh"})
