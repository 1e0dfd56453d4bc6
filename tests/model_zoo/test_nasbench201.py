"""NAS-Bench-201: the published size and numbers of parameters, architecture strings, networks."""

import pytest
import torch

from nas import ModelSpace, NasError
from nas.model_zoo import NASBench201
from nas.model_zoo.nasbench201 import EDGES, OPERATIONS, arch_string, sample_of


@pytest.fixture(scope="module")
def published() -> ModelSpace:
    return ModelSpace(NASBench201)


@pytest.mark.parametrize(
    ("classes", "operation", "number"),
    [
        (10, "nor_conv_3x3", 1_531_546),
        (10, "none", 73_306),
        (100, "nor_conv_3x3", 1_537_396),
        (100, "skip_connect", 79_156),
    ],
)
def test_published_numbers_of_parameters(classes: int, operation: str, number: int) -> None:
    sample = {f"edge_{source}_{target}": operation for source, target in EDGES}
    model = ModelSpace(NASBench201, classes).build(sample, device="meta")
    assert sum(p.numel() for p in model.parameters()) == number


def test_all_15_625_strings_are_different_and_lead_back(published: ModelSpace) -> None:
    assert published.size == 15_625
    strings = {arch_string(sample) for sample in published.grid()}
    assert len(strings) == 15_625
    assert all(arch_string(sample_of(arch)) == arch for arch in strings)


def test_a_string_names_the_edges_in_order() -> None:
    arch = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|none~2|"
    sample = sample_of(arch)
    assert sample == {
        "edge_0_1": "nor_conv_3x3",
        "edge_0_2": "none",
        "edge_1_2": "avg_pool_3x3",
        "edge_0_3": "skip_connect",
        "edge_1_3": "nor_conv_1x1",
        "edge_2_3": "none",
    }
    assert arch_string(dict(reversed(sample.items()))) == arch


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample_of("|none~0|+|none~0|none~1|"), "has the form"),
        (lambda: sample_of("|none~0|+|none~1|none~0|+|none~0|none~1|none~2|"), "has the form"),
        (lambda: sample_of("|nor_conv_5x5~0|+|none~0|none~1|+|none~0|none~1|none~2|"), "did you mean 'nor_conv_3x3'"),
        (lambda: sample_of(7), "is a str"),  # type: ignore[arg-type]
        (lambda: arch_string({"edge_0_1": "none"}), "edge_0_2, edge_1_2"),
    ],
)
def test_other_strings_are_refused(call: object, message: str) -> None:
    with pytest.raises(NasError, match=message):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_parameter_has_a_gradient_even_where_it_is_cut_off(operation: str) -> None:
    space = ModelSpace(NASBench201, channels=4, cells=1)
    model = space.build(space.default() | {"edge_2_3": operation, "edge_0_3": "none", "edge_1_3": "none"})
    scores = model(torch.randn(2, 3, 8, 8))
    assert scores.shape == (2, 10)
    scores.square().sum().backward()
    first = model.get_parameter("layers.0.edges.0_1.1.weight").grad
    assert all(p.grad is not None for p in model.parameters())
    assert first is not None
    assert bool(first.any()) is (operation != "none")


def test_a_cell_sums_its_edges() -> None:
    space = ModelSpace(NASBench201, channels=4, cells=1)
    skips = dict.fromkeys(space.default(), "skip_connect")
    cell = space.build(skips).get_submodule("layers.0")
    image = torch.randn(1, 4, 4, 4)
    # 1 -> x, 2 -> x + x, 3 -> x + x + 2 x
    torch.testing.assert_close(cell(image), 4 * image)
