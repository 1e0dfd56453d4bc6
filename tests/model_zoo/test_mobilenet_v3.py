"""The space around MobileNetV3: its size, the published network in it, and what each choice changes."""

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models import mobilenet_v3_large

from nas import ModelSpace, NasValueError, Sample
from nas.model_zoo import MobileNetV3Space
from nas.model_zoo.mobilenet_v3 import LARGE

SPACE = ModelSpace(MobileNetV3Space, classes=10, stem_stride=1)

# Kernel and expansion of each block after the first, from Table 1 of the paper.
PUBLISHED = (
    ((3, 4), (3, 3)),
    ((5, 3), (5, 3), (5, 3)),
    ((3, 6), (3, 2.5), (3, 2.3), (3, 2.3)),
    ((3, 6), (3, 6)),
    ((5, 6), (5, 6), (5, 6)),
)


def parameters(sample: Sample) -> int:
    return sum(parameter.numel() for parameter in SPACE.build(sample, device="meta").parameters())


def test_size() -> None:
    blocks = 3 * 3
    assert ModelSpace(MobileNetV3Space).size == (blocks**2 + blocks**3 + blocks**4) ** 5
    assert f"{SPACE.size:,} architectures" in str(MobileNetV3Space.__doc__)
    gated = ModelSpace(MobileNetV3Space, search_squeeze_excite=True)
    assert gated.size == (18**2 + 18**3 + 18**4) ** 5


def test_the_published_network_is_a_sample_once_its_expansions_are_candidates() -> None:
    stages = tuple(replace(stage, expansions=(2.3, 2.5, *stage.expansions)) for stage in LARGE)
    sample: Sample = {}
    for number, blocks in enumerate(PUBLISHED, 1):
        sample[f"stage{number}/depth"] = len(blocks)
        for index, (kernel, expansion) in enumerate(blocks, 1):
            sample[f"stage{number}/block{index}/kernel"] = kernel
            sample[f"stage{number}/block{index}/expansion"] = expansion
    model, reference = ModelSpace(MobileNetV3Space, stages).build(sample), mobilenet_v3_large()
    assert sum(parameter.numel() for parameter in model.parameters()) == 5_483_032
    weights = zip(model.state_dict(), reference.state_dict().values(), strict=True)
    model.load_state_dict(dict(weights))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images), reference.eval()(images))


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_a_larger_answer_has_more_parameters(seed: int) -> None:
    sample, rng = SPACE.sample(seed), random.Random(seed)
    label = rng.choice(list(sample))
    candidates = list(SPACE.search_space.domains[label].values())
    smaller, larger = sorted(rng.sample(candidates, 2))
    fixed = {name: answer for name, answer in sample.items() if not label.endswith("depth")}
    assert parameters(SPACE.complete(fixed | {label: smaller})) < parameters(SPACE.complete(fixed | {label: larger}))


def test_blocks_beyond_the_depth_are_not_asked_about() -> None:
    sample = SPACE.complete({"stage2/depth": 3})
    assert "stage2/block3/kernel" in sample
    assert "stage2/block4/kernel" not in sample
    with pytest.raises(NasValueError, match="is not asked under these answers"):
        SPACE.validate(sample | {"stage2/block4/kernel": 3})


def test_squeeze_and_excite_is_where_it_was_chosen() -> None:
    space = ModelSpace(MobileNetV3Space, search_squeeze_excite=True, classes=10)
    published = space.build(space.default(), device="meta")
    gates = [len([m for m in stage.modules() if isinstance(m, torch.nn.Hardsigmoid)]) for stage in published.stages]
    assert gates == [0, 2, 0, 2, 2]
    changed = space.build(space.default() | {"stage1/block2/squeeze_excite": True}, device="meta")
    assert any(isinstance(module, torch.nn.Hardsigmoid) for module in changed.stages[0][1].modules())


def test_the_resolution_falls_by_sixteen_after_the_stem() -> None:
    model = ModelSpace(MobileNetV3Space, channels=1).build(SPACE.default(), device="meta")
    features = model.stages(model.first(model.stem(torch.empty(1, 1, 224, 224, device="meta"))))
    assert features.shape == (1, 160, 7, 7)
