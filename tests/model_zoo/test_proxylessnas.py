"""The space of ProxylessNAS: its size, MobileNetV2 in it, and where blocks may be skipped."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models import mobilenet_v2

from nas import ModelSpace, NasValueError, Sample
from nas.model_zoo import ProxylessNASSpace

SPACE = ModelSpace(ProxylessNASSpace, classes=10, stem_stride=1)


def parameters(sample: Sample) -> int:
    return sum(parameter.numel() for parameter in SPACE.build(sample, device="meta").parameters())


def test_size() -> None:
    assert ModelSpace(ProxylessNASSpace).size == 6**6 * 7**15
    assert len(SPACE.default()) == 21
    assert f"{SPACE.size:,} architectures" in str(ProxylessNASSpace.__doc__)


def test_mobilenet_v2_is_a_sample_of_the_space_with_its_widths() -> None:
    space = ModelSpace(ProxylessNASSpace, widths=(24, 32, 64, 96, 160, 320), blocks=(2, 3, 4, 3, 3, 1))
    model = space.build(dict.fromkeys(space.search_space.domains, "mbconv6_kernel3"))
    reference = mobilenet_v2()
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_504_872
    weights = zip(model.state_dict(), reference.state_dict().values(), strict=True)
    model.load_state_dict(dict(weights))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images), reference.eval()(images))


def test_only_blocks_that_change_no_shape_may_be_skipped() -> None:
    domains = SPACE.search_space.domains
    without = [label for label, domain in domains.items() if "skip" not in domain.values()]
    assert without == [f"stage{number}/block1/op" for number in range(1, 7)]
    with pytest.raises(NasValueError, match="stage1/block1/op"):
        SPACE.build(SPACE.default() | {"stage1/block1/op": "skip"})


def test_a_skipped_block_has_no_parameters_and_changes_nothing() -> None:
    label = "stage3/block2/op"
    skipped = SPACE.build(SPACE.default() | {label: "skip"})
    block = skipped.blocks[9]
    images = torch.rand(1, 80, 4, 4)
    assert torch.equal(block(images), images)
    assert not list(block.parameters())


@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_larger_kernels_and_expansions_have_more_parameters(seed: int) -> None:
    sample = SPACE.sample(seed)
    label = random.Random(seed).choice(list(sample))
    for group in (
        ["mbconv3_kernel3", "mbconv3_kernel5", "mbconv3_kernel7"],
        ["mbconv6_kernel3", "mbconv6_kernel5", "mbconv6_kernel7"],
        ["mbconv3_kernel7", "mbconv6_kernel3"],
    ):
        counts = [parameters(sample | {label: op}) for op in group]
        assert counts == sorted(set(counts))


def test_a_wrong_number_of_stages_is_refused() -> None:
    with pytest.raises(NasValueError, match="each of six stages"):
        ProxylessNASSpace(widths=(24, 40))
