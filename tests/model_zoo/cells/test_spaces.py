"""The cell family and its published networks: exact counts, genotypes there and back, drawing nothing from luck."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nas import CellModule, NasError
from nas.model_zoo import (
    AMOEBANET_A,
    DARTS_V1,
    DARTS_V2,
    NASNET_A,
    CellNetwork,
    Genotype,
    genotype_to_sample,
    list_models,
    model,
    sample_to_genotype,
    set_drop_path,
    space,
)
from nas.model_zoo.cells.operations import OPERATIONS, FactorizedReduce

TINY = {"channels": 2, "cells": 3}
SIZES = {
    "darts": 1_037_664_180**2,
    "nasnet": (2 * 3 * 4 * 5 * 6) ** 4 * 13**20,
    "enas_micro": (2 * 3 * 4 * 5 * 6) ** 4 * 5**20,
    "amoebanet": (2 * 3 * 4 * 5 * 6) ** 4 * 8**20,
    "pnas": (2 * 3 * 4 * 5 * 6) ** 2 * 8**10,
    "nasnet_simple": ((2 * 3) ** 2 * 6**4 * 2**2) ** 2,
}
PUBLISHED = {"darts_v1": DARTS_V1, "darts_v2": DARTS_V2, "nasnet_a": NASNET_A, "amoebanet_a": AMOEBANET_A}


def parameters(network: nn.Module, *, auxiliary: bool) -> int:
    return sum(w.numel() for n, w in network.named_parameters() if auxiliary or "auxiliary" not in n)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_the_papers(name: str) -> None:
    assert space(name, **TINY).size == SIZES[name]


def test_the_none_of_the_search_is_an_eighth_operation() -> None:
    assert space("darts", none=True, **TINY).size == (180 * 8**8) ** 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dataset", "without", "with_head"),
    [  # the first and the fourth are published; each of the others agrees with the count by hand below
        ("darts_v2", "cifar10", 3_349_342, 3_825_768),
        ("darts_v1", "cifar10", 3_169_414, 3_645_840),
        pytest.param("nasnet_a", "cifar10", 3_830_950, 4_288_944, marks=pytest.mark.slow),
        ("darts_v2", "imagenet", 4_718_752, 5_979_528),
        ("amoebanet_a", "imagenet", 4_627_360, 5_863_560),
    ],
)
def test_published_networks_have_their_numbers_of_parameters(
    name: str, dataset: str, without: int, with_head: int
) -> None:
    with torch.device("meta"):
        network = model(name, dataset=dataset)  # type: ignore[arg-type]
    assert parameters(network, auxiliary=False) == without == by_hand(PUBLISHED[name], dataset)
    assert parameters(network, auxiliary=True) == with_head


def by_hand(genotype: Genotype, dataset: str) -> int:
    """The same count by arithmetic alone, from the papers' description."""
    small = dataset == "cifar10"
    c, cells, classes = (36, 20, 10) if small else (48, 14, 1000)
    total, before, last = (27 * 3 * c + 6 * c, 3 * c, 3 * c) if small else (0, c, c)
    if not small:
        total += 27 * c // 2 + c + 9 * c // 2 * c + 2 * c + 9 * c * c + 2 * c
    for i in range(cells):
        reduction = i in (cells // 3, 2 * cells // 3)
        c *= 2 if reduction else 1
        total += (before + last) * c + 4 * c
        edges, concat = (
            (genotype.reduce, genotype.reduce_concat) if reduction else (genotype.normal, genotype.normal_concat)
        )
        for op, state in edges:
            kernel = int(op[-1]) ** 2 if op[-1].isdigit() else 0
            if op.startswith("sep"):
                total += 2 * (kernel * c + c * c + 2 * c)
            elif op.startswith("dil"):
                total += kernel * c + c * c + 2 * c
            elif op == "conv_7x1_1x7":
                total += 14 * c * c + 2 * c
            elif op == "skip_connect" and reduction and state < 2:
                total += c * c + 2 * c
        before, last = last, len(concat) * c
    return total + (last + 1) * classes


@pytest.mark.parametrize(
    ("name", "family"), [("darts_v1", "darts"), ("nasnet_a", "nasnet"), ("amoebanet_a", "amoebanet")]
)
def test_genotype_to_sample_and_back(name: str, family: str) -> None:
    genotype = PUBLISHED[name]
    sample = genotype_to_sample(genotype, family)
    assert space(family, **TINY).validate(sample) == sample
    back = sample_to_genotype({**sample, "learning_rate": 0.1}, family)
    if family != "darts":
        assert back == genotype
    for given_, found in ((genotype.normal, back.normal), (genotype.reduce, back.reduce)):
        assert [sorted(given_[i : i + 2]) for i in range(0, len(given_), 2)] == [
            sorted(found[i : i + 2]) for i in range(0, len(found), 2)
        ]
    assert (back.normal_concat, back.reduce_concat) == (genotype.normal_concat, genotype.reduce_concat)


@pytest.mark.parametrize("family", ["darts", "nasnet", "enas_micro", "amoebanet", "pnas"])
def test_sample_to_genotype_and_back(family: str) -> None:
    cells = space(family, **TINY)

    @settings(max_examples=20, deadline=None, derandomize=True)
    @given(st.integers(0, 10**6))
    def holds(seed: int) -> None:
        sample = cells.sample(seed)
        assert genotype_to_sample(sample_to_genotype(sample, family), family) == sample

    holds()


@pytest.mark.slow
def test_the_published_concatenations_are_what_is_built() -> None:
    for name, genotype in PUBLISHED.items():
        network = model(name, cells=3, channels=2, auxiliary=False)
        cells = [module for module in network.cells if isinstance(module, CellModule)]
        assert tuple(cells[0].outputs) == genotype.normal_concat
        assert tuple(cells[1].outputs) == genotype.reduce_concat


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normal": DARTS_V2.normal[:6]}, "8 operations"),
        ({"normal": (("sep_conv_3x4", 0), *DARTS_V2.normal[1:])}, "sep_conv_3x3"),
        ({"normal": (("sep_conv_3x3", 2), *DARTS_V2.normal[1:])}, "node 0 reads one of the states 0 to 1"),
        ({"normal": (("sep_conv_3x3", 1), *DARTS_V2.normal[1:])}, "two different states"),
        ({"normal_concat": (2, 3)}, "concatenated"),
    ],
)
def test_genotypes_of_another_space_are_refused(change: dict[str, object], message: str) -> None:
    wrong = Genotype(**{**vars(DARTS_V2), **change})
    with pytest.raises(NasError, match=message):
        genotype_to_sample(wrong, "darts")


def test_the_auxiliary_head_speaks_in_training_alone() -> None:
    network = model("darts_v2", channels=2, cells=6)
    images = torch.randn(2, 3, 32, 32)
    scores, auxiliary = network(images)
    assert scores.shape == auxiliary.shape == (2, 10)
    (scores + auxiliary).sum().backward()
    assert all(w.grad is not None for w in network.parameters())
    assert network.eval()(images).shape == (2, 10)


def test_imagenet_stems_take_its_images() -> None:
    network = model("nasnet_a", dataset="imagenet", channels=4, cells=3, classes=7).train()
    assert [tuple(t.shape) for t in network(torch.randn(2, 3, 224, 224))] == [(2, 7), (2, 7)]


def test_drop_path_leaves_operations_out_in_training_alone() -> None:
    torch.manual_seed(0)
    network = model("darts_v2", channels=4, cells=3, auxiliary=False, drop_path=0.5)
    images = torch.randn(8, 3, 16, 16)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    assert not torch.equal(network(images), network(images))
    set_drop_path(network, 0.0)
    assert torch.equal(network(images), network(images))
    set_drop_path(network, 0.5)
    network.eval()
    assert torch.equal(network(images), network(images))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("size", [8, 7])
def test_operations_keep_or_halve(name: str, size: int) -> None:
    image = torch.randn(2, 4, size, size)
    assert OPERATIONS[name](4, 1)(image).shape == image.shape
    assert OPERATIONS[name](4, 2)(image).shape == (2, 4, 4, 4)


def test_factorized_reduction_reads_every_pixel() -> None:
    reduce = FactorizedReduce(1, 2).eval()
    with torch.no_grad():
        for weight in reduce.parameters():
            weight.fill_(1.0)
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    even, odd = reduce(image)[0] * (1 + reduce.norm.eps) ** 0.5
    torch.testing.assert_close(even - 1, image[0, 0, ::2, ::2], rtol=0, atol=1e-2)
    torch.testing.assert_close(odd - 1, image[0, 0, 1::2, 1::2], rtol=0, atol=1e-2)


def test_names_are_close_on_a_miss() -> None:
    with pytest.raises(NasError, match="darts_v2"):
        model("darts_v3")
    with pytest.raises(NasError, match="enas_micro"):
        space("enas_mikro")
    with pytest.raises(NasError, match="genotypes are of a cell space"):
        sample_to_genotype({}, "lenet")
    with pytest.raises(NasError, match="normal/node0/inputs"):
        sample_to_genotype({}, "darts")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"cells": 0}, "cells"), ({"dataset": "mnist"}, "imagenet"), ({"drop_path": 1.0}, "drop_path")],
)
def test_bad_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(NasError, match=message):
        model("darts_v2", **arguments)  # type: ignore[arg-type]


def test_every_model_has_a_space_that_holds_it() -> None:
    assert list_models() == sorted(list_models())
    assert all(a < b for a, b in pairwise(list_models()))
    assert all(isinstance(model(name, cells=3, channels=2), CellNetwork) for name in list_models())
