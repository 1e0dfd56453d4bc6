"""Widths and kernels as masks: exact for convolution, linear and batch norm, refused where they would not be."""

from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from nas import Integer, LayerChoice, ModelSpace, NasValueError, Real, Repeat, ValueChoice
from nas.oneshot import RelaxedSupernet


def relaxed(factory: Callable[[], nn.Module]) -> RelaxedSupernet:
    return RelaxedSupernet(ModelSpace(factory))


def refusal(factory: Callable[[], nn.Module]) -> str:
    with pytest.raises(NasValueError) as caught:
        relaxed(factory)
    return str(caught.value)


class Widths(nn.Module):
    """Widths, kernels, depthwise groups, a product of choices, a tied label, flattening and a depth."""

    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([4, 6, 3], label="width")
        ratio = ValueChoice([1, 2], label="ratio")
        kernel = ValueChoice([3, 5, 1], label="kernel")
        hidden = width * ratio
        self.stem = nn.Sequential(nn.Conv2d(2, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.expand = nn.Conv2d(width, hidden, 1)
        self.norm = nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden)
        self.square = Repeat(lambda i: nn.Conv2d(hidden, hidden, 1), (0, 2), label="depth")
        self.head = nn.Linear(hidden * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(torch.sigmoid(self.norm(self.expand(self.stem(x)))))
        z: Tensor = self.head(self.square(y).flatten(1))
        return z


def test_every_architecture_computes_what_the_supernet_does() -> None:
    space = ModelSpace(Widths)
    net = RelaxedSupernet(space)
    for name, buffer in list(net.model.named_buffers()):
        assert "indicator" in name or buffer.shape == torch.Size([]) or buffer.shape[0] in (6, 12), name
    x = torch.randn(3, 2, 4, 4)
    net.check(x)
    with torch.no_grad():
        for name, tensor in [*net.model.named_parameters(), *net.model.named_buffers()]:
            if tensor.is_floating_point() and "indicator" not in name:
                tensor.add_(0.1 * torch.rand_like(tensor))
    samples = list(space.grid())
    assert len(samples) == 54
    net.check(x, samples)


def test_in_training_the_statistics_of_batches_are_those_of_the_architecture() -> None:
    space = ModelSpace(Widths)
    net, sample, x = RelaxedSupernet(space), space.sample(3), torch.randn(6, 2, 4, 4)
    built = net.extract(sample)
    net.architecture.one_hot(sample)
    assert torch.allclose(net.model(x), built(x), atol=1e-5)
    again = net.extract(sample)
    for (name, ours), theirs in zip(built.named_buffers(), again.buffers(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5), name


@pytest.mark.parametrize("layer", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_one_layer_is_the_expectation_over_its_kernels_and_widths(layer: Callable[..., nn.Module]) -> None:
    def factory() -> nn.Module:
        kernel = ValueChoice([1, 3, 5], label="kernel")
        return layer(2, ValueChoice(Integer(1, 3), label="width"), kernel, padding=kernel // 2)

    space = ModelSpace(factory)
    net = RelaxedSupernet(space)
    dims = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}[layer]  # type: ignore[index]
    x = torch.randn(1, 2, *[5] * dims)
    kernels, widths = (net.architecture.probabilities(label) for label in ("kernel", "width"))
    expected = torch.zeros(1, 3, *[5] * dims)
    for i, kernel in enumerate(net.architecture.answers("kernel")):
        for j, width in enumerate(net.architecture.answers("width")):
            part = net.extract({"kernel": kernel, "width": width})(x)
            expected[:, :width] += kernels[i] * widths[j] * part
    assert torch.allclose(net.model(x), expected, atol=1e-5)


def test_dimensions_that_share_a_label_have_one_mask() -> None:
    net = relaxed(lambda: nn.Linear(width := ValueChoice([2, 4], label="width"), width, bias=False))
    shares = net.architecture.probabilities("width")
    weight = next(net.model.parameters())
    mask = torch.full((4, 4), shares[1].item())
    mask[:2, :2] = 1
    assert torch.allclose(net.model(torch.eye(4)), (weight * mask).T)


def test_the_gradient_of_a_mask_is_that_of_finite_differences() -> None:
    net = relaxed(lambda: nn.Linear(3, ValueChoice([1, 2, 4], label="width")))
    net.model.double()
    net.architecture.double()
    logits, x = net.architecture.parameter("width"), torch.randn(5, 3, dtype=torch.double)

    def loss() -> Tensor:
        net.architecture.mix()
        return cast(Tensor, net.model(x)).square().sum()

    (gradient,) = torch.autograd.grad(loss(), logits)
    for i in range(3):
        step = 1e-6 * torch.eye(3, dtype=torch.double)[i]
        with torch.no_grad():
            logits += step
            above = loss()
            logits -= 2 * step
            below = loss()
            logits += step
        assert gradient[i].item() == pytest.approx(((above - below) / 2e-6).item(), rel=1e-5, abs=1e-7)


def test_parameters_of_the_users_own_layers_are_masked() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = ValueChoice([2, 5], label="width")
            self.embed = nn.Embedding(7, width)
            self.scale = nn.Parameter(torch.rand(1, width))
            self.register_buffer("shift", torch.rand(width))
            self.head = nn.Linear(width, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.embed(x) * self.scale + self.shift)
            return y

    relaxed(Scale).check(torch.tensor([[0, 3], [6, 1]]))


def test_tied_parameters_are_masked_and_extracted_as_one() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = ValueChoice([2, 5], label="width")
            self.embed = nn.Embedding(7, width)
            self.head = nn.Linear(width, 7)
            self.head.weight = self.embed.weight

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.embed(x))
            return y

    net = relaxed(Tied)
    net.check(torch.tensor([[0, 3], [6, 1]]))
    built = net.extract({"width": 2})
    assert built.get_parameter("head.weight") is built.get_parameter("embed.weight")
    net.model(torch.tensor([1, 2])).sum().backward()
    assert len(list(net.model.parameters())) == 2


def test_frozen_and_missing_parameters_stay_so() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = ValueChoice([2, 4], label="width")
            self.first = nn.Linear(3, width, bias=False)
            self.first.weight.requires_grad_(False)
            self.head = nn.Linear(width, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.first(x))
            return y

    net = relaxed(Frozen)
    assert [p.requires_grad for p in net.model.parameters()] == [False, True, True]
    built = net.extract({"width": 2})
    assert [n for n, p in built.named_parameters() if not p.requires_grad] == ["first.weight"]
    assert built.get_submodule("first").bias is None


def test_values_without_a_shape_are_refused_with_all_their_labels() -> None:
    def factory() -> nn.Module:
        return nn.Sequential(
            nn.Linear(3, ValueChoice([2, 4], label="width")),
            nn.Dropout(ValueChoice([0.1, 0.5], label="rate")),
            LayerChoice([lambda: nn.LeakyReLU(ValueChoice([0.1, 0.2], label="slope")), nn.ReLU], label="op"),
        )

    text = refusal(factory)
    assert "ValueChoice 'rate': for 0.5 Dropout '1' has another p, which is no shape of a parameter" in text
    assert "ValueChoice 'slope': for 0.2 LeakyReLU '2.candidates.0' has another negative_slope" in text
    assert "'width'" not in text


def test_a_value_that_changes_nothing_is_refused() -> None:
    class Scaled(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.by = ValueChoice([1.0, 2.0], label="by")

    assert refusal(Scaled).startswith(
        "ValueChoice 'by': its answers change no shape of a parameter, so that there is nothing to mix; received one "
        "of 1.0, 2.0. To mend: make it a LayerChoice of whole layers"
    )


def test_a_depth_by_a_plain_loop_is_refused_with_the_mend() -> None:
    class Loop(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(*(nn.Linear(2, 2) for _ in range(ValueChoice([1, 2], label="depth"))))

    text = refusal(Loop)
    assert text.startswith("ValueChoice 'depth': for 2 there is Linear at '1' where else is nothing")
    assert "To mend: ask a Repeat for a depth" in text


def test_a_depth_that_a_repeat_uses_is_no_shape_but_a_depth() -> None:
    net = relaxed(lambda: Repeat(lambda i: nn.Linear(2, 2), ValueChoice([1, 3], label="depth")))
    assert net.architecture.answers("depth") == (1, 3)
    net.check((4, 2))


@pytest.mark.parametrize("norm", [nn.LayerNorm, lambda width: nn.GroupNorm(1, width)])
def test_layers_that_work_across_channels_are_refused(norm: Callable[[int], nn.Module]) -> None:
    def factory() -> nn.Module:
        width = ValueChoice([2, 4], label="width")
        return nn.Sequential(nn.Linear(3, width), norm(width))

    assert "works across the dimension that" in refusal(factory)
    assert "ValueChoice 'width': for 4" in refusal(factory)


def test_attention_over_a_chosen_width_is_refused() -> None:
    text = refusal(lambda: nn.MultiheadAttention(ValueChoice([4, 8], label="width"), 2))
    assert "MultiheadAttention" in text
    assert "works across the dimension that embed_dim decides" in text


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda k: nn.Conv2d(1, 1, k), "but not the padding that centres it"),
        (lambda k: nn.Conv2d(1, 1, k, padding=k // 2, dilation=2), "but not the padding that centres it"),
        (lambda k: nn.Conv2d(1, 1, k, padding=k // 2, padding_mode="reflect"), "fit to a padding of zeros"),
        (lambda k: nn.ConvTranspose2d(1, 1, k, padding=k // 2), "fit to convolutions that are not transposed"),
        (lambda k: nn.Conv2d(1, 1, 3, stride=k), "has another stride, which is no shape"),
        (lambda k: nn.Conv2d(1, 1, 3, padding=k), "has another padding, which is no shape"),
        (lambda k: nn.Conv2d(15, 15, 3, groups=k), "has other groups"),
        (lambda k: nn.MaxPool2d(k), "has another kernel_size, which is no shape"),
        (lambda k: nn.Linear(2, 2, bias=k == 3), "bias"),
    ],
)
def test_layers_that_no_mask_turns_into_each_other_are_refused(make: Callable[[int], nn.Module], reason: str) -> None:
    assert reason in refusal(lambda: make(ValueChoice([3, 5], label="kernel")))


def test_a_kernel_padded_by_its_name_is_exact() -> None:
    net = relaxed(lambda: nn.Conv2d(1, 2, ValueChoice([1, 5, 3], label="kernel"), padding="same", dilation=2))
    net.check((1, 1, 6, 6))


def test_a_layer_behind_a_concatenation_is_found_out() -> None:
    class Concatenating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = ValueChoice([2, 4], label="width")
            self.left, self.right = nn.Linear(3, width), nn.Linear(3, width)
            self.head = nn.Linear(2 * width, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(torch.cat([self.left(x), self.right(x)], dim=1))
            return y

    net = relaxed(Concatenating)
    net.check((2, 3), [{"width": 4}])
    with pytest.raises(
        NasValueError, match="label 'width': the relaxed supernet computes something else than the arch"
    ):
        net.check((2, 3))


def test_an_activation_across_masked_channels_is_found_out() -> None:
    def factory() -> nn.Module:
        width = ValueChoice([4, 2], label="width")
        other = ValueChoice([3, 5], label="other")
        layers = nn.Linear(3, other), nn.Linear(other, width), nn.Softmax(-1), nn.Linear(width, 2)
        return nn.Sequential(*layers)

    with pytest.raises(NasValueError, match=r"^label 'width': the relaxed supernet computes .* received {'width': 2}"):
        relaxed(factory).check((2, 3))


def test_a_size_that_only_two_choices_together_tell_is_found_out() -> None:
    def factory() -> nn.Module:
        a, b = ValueChoice([2, 3], label="a"), ValueChoice([6, 4], label="b")
        return nn.Linear(1, max(a, b) + a)

    # The size depends on both, so that their joint answers are tabulated.
    net = relaxed(factory)
    assert {tuple(net.extract(sample).weight.shape) for sample in net.space.grid()} == {(8, 1), (9, 1), (6, 1), (7, 1)}


def test_an_interval_is_refused() -> None:
    text = refusal(lambda: nn.Linear(2, int(ValueChoice(Real(2, 4), label="width"))))
    assert "ValueChoice 'width': a choice of more than 1024 answers is not relaxed" in text


def test_a_size_of_too_many_joint_answers_is_refused() -> None:
    def factory() -> nn.Module:
        widths = [ValueChoice(Integer(1, 12), label=f"w{i}") for i in range(3)]
        return nn.Linear(2, sum(widths))

    assert "one size depends on 1,728 joint answers, more than 1,024" in refusal(factory)


def test_masks_are_computed_in_full_precision_under_autocast() -> None:
    net = relaxed(lambda: nn.Linear(3, ValueChoice([2, 4], label="width")))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = net.model(torch.randn(2, 3))
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert net.architecture.parameter("width").grad is not None
