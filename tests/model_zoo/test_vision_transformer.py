"""The space of AutoFormer: its sizes, a published network in it, and what each choice changes."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models import VisionTransformer

from nas import ModelSpace, NasValueError, Sample
from nas.model_zoo import VisionTransformerSpace
from nas.model_zoo.transformer_layers import TransformerRanges
from nas.model_zoo.vision_transformer import BASE, SMALL, TINY

RANGES = TransformerRanges(widths=(8, 12), heads=(1, 2, 3), mlp_ratios=(2, 3), depth=(1, 3), head_width=4)
SPACE = ModelSpace(VisionTransformerSpace, RANGES, image_size=8, patch_size=4, classes=10)


def parameters(sample: Sample) -> int:
    return sum(parameter.numel() for parameter in SPACE.build(sample, device="meta").parameters())


@pytest.mark.parametrize(
    ("ranges", "blocks", "least"),
    [(TINY, 2 * 2, 12), (SMALL, 3 * 3, 12), (BASE, 3 * 3, 14)],
)
def test_size(ranges: TransformerRanges, blocks: int, least: int) -> None:
    size = ModelSpace(VisionTransformerSpace, ranges).size
    assert size == 3 * sum(blocks**depth for depth in range(least, least + 3))
    assert f"{size:,}" in str(VisionTransformerSpace.__doc__)


def as_ours(reference: VisionTransformer) -> list[Tensor]:
    """The weights of torchvision's network in the order of ours: class token and positions first, q, k, v apart."""
    state = reference.state_dict()
    found = [state.pop("class_token"), state.pop("encoder.pos_embedding")]
    for name, weight in state.items():
        found.extend(weight.chunk(3) if "in_proj" in name else [weight])
    # In each block torchvision has the three weights, then the three biases; ours are layer by layer.
    starts = [i for i, name in enumerate(_names(state)) if name.endswith("in_proj_weight.0")]
    for start in starts:
        q, k, v, q_bias, k_bias, v_bias = found[start + 2 : start + 8]
        found[start + 2 : start + 8] = [q, q_bias, k, k_bias, v, v_bias]
    return found


def _names(state: dict[str, Tensor]) -> list[str]:
    return [f"{name}.{part}" for name in state for part in range(3 if "in_proj" in name else 1)]


def test_deit_tiny_is_a_sample_of_the_tiny_space() -> None:
    space = ModelSpace(VisionTransformerSpace, TINY)
    answers: Sample = {"width": 192, "depth": 12}
    for layer in range(1, 13):
        answers |= {f"layer{layer}/heads": 3, f"layer{layer}/mlp_ratio": 4}
    model = space.build(answers)
    assert sum(parameter.numel() for parameter in model.parameters()) == 5_717_416
    reference = VisionTransformer(224, 16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768)
    torch.nn.init.normal_(reference.heads.head.weight)  # torchvision begins with zeros, which would hide differences
    model.load_state_dict(dict(zip(model.state_dict(), as_ours(reference), strict=True)))
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(image), reference.eval()(image), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("ranges", "millions"), [(TINY, 5.7), (SMALL, 22.9), (BASE, 53.7)])
def test_the_networks_that_the_paper_found_are_of_the_sizes_here(ranges: TransformerRanges, millions: float) -> None:
    space = ModelSpace(VisionTransformerSpace, ranges)
    counts = []
    for pick in (min, max):
        answers: Sample = {"width": pick(ranges.widths), "depth": pick(ranges.depth)}
        for layer in range(1, pick(ranges.depth) + 1):
            answers[f"layer{layer}/heads"] = pick(ranges.heads)
            answers[f"layer{layer}/mlp_ratio"] = pick(ranges.mlp_ratios)
        counts.append(sum(parameter.numel() for parameter in space.build(answers, device="meta").parameters()))
    assert counts[0] < millions * 1e6 < counts[1]


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_a_larger_answer_has_more_parameters(seed: int) -> None:
    sample, rng = SPACE.sample(seed), random.Random(seed)
    label = rng.choice(list(sample))
    smaller, larger = sorted(rng.sample(list(SPACE.search_space.domains[label].values()), 2))
    fixed = {name: answer for name, answer in sample.items() if label != "depth" or name == "width"}
    assert parameters(SPACE.complete(fixed | {label: smaller})) < parameters(SPACE.complete(fixed | {label: larger}))


def test_layers_beyond_the_depth_are_not_asked_about() -> None:
    sample = SPACE.complete({"depth": 2})
    assert [label for label in sample if "heads" in label] == ["layer1/heads", "layer2/heads"]
    with pytest.raises(NasValueError, match="is not asked under these answers"):
        SPACE.validate(sample | {"layer3/heads": 1})


def test_every_position_counts() -> None:
    model = SPACE.build(SPACE.default())
    image = torch.rand(1, 3, 8, 8, requires_grad=True)
    model(image).square().sum().backward()
    assert image.grad is not None
    assert image.grad.ne(0).all()


@pytest.mark.parametrize(("image_size", "patch_size"), [(30, 16), (8, 16)])
def test_patches_that_do_not_fill_the_image_are_refused(image_size: int, patch_size: int) -> None:
    with pytest.raises(NasValueError, match="patches must fill the image"):
        VisionTransformerSpace(image_size=image_size, patch_size=patch_size)
