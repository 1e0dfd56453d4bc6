"""What one model costs, against torch's own counter, published figures and measured memory."""

import copy
import warnings

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.profiler import ProfilerActivity
from torch.profiler import profile as trace
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from nas import LayerChoice, ModelSpace, NasError, NasTypeError, NasValueError, ValueChoice, model_space
from nas.profile import profile

IMAGE = (1, 3, 224, 224)


def oracle(model: nn.Module, shape: tuple[int, ...]) -> int:
    twin = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin(torch.empty(shape, device="meta"))
    return int(counter.get_total_flops())


@pytest.mark.parametrize(
    ("build", "weights"),
    [
        (models.resnet18, models.ResNet18_Weights.IMAGENET1K_V1),
        (models.mobilenet_v3_large, models.MobileNet_V3_Large_Weights.IMAGENET1K_V1),
        (models.vit_b_16, models.ViT_B_16_Weights.IMAGENET1K_V1),
    ],
    ids=lambda item: getattr(item, "__name__", ""),
)
def test_counts_are_those_of_torch_and_the_published_ones(build: type[nn.Module], weights: object) -> None:
    with torch.device("meta"):
        model = build()
    found = profile(model, IMAGE)
    assert found.flops == oracle(model, IMAGE) == 2 * found.multiply_adds
    assert found.parameters == sum(p.numel() for p in model.parameters()) == weights.meta["num_params"]
    # torchvision states billions of multiply-adds with three digits after the point, as its `_ops`.
    assert found.multiply_adds / 1e9 == pytest.approx(weights.meta["_ops"], abs=1e-3)


def test_activations_are_the_outputs_of_leaf_modules() -> None:
    model = models.mobilenet_v3_small(num_classes=5).eval()
    elements = 0

    def count(module: nn.Module, inputs: object, output: Tensor) -> None:
        nonlocal elements
        elements += output.numel()

    found = profile(model, (2, 3, 64, 64))
    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(count)
    model(torch.zeros(2, 3, 64, 64))
    assert found.activations == elements


def test_modules_sum_to_the_model_and_are_shown() -> None:
    found = profile(models.resnet18(num_classes=7), (1, 3, 64, 64))
    rows = {row.path: row for row in found.modules}
    assert sum(row.parameters for row in found.modules) == found.parameters
    assert sum(row.flops for row in found.modules) == found.flops
    assert sum(row.activations for row in found.modules) == found.activations
    assert rows["conv1"].multiply_adds == 64 * 3 * 49 * 32 * 32
    assert rows["fc"].parameters == 512 * 7 + 7
    assert rows["fc"].outputs == ((1, 7),)
    assert rows["fc"].kind == "Linear"
    console = Console(width=140)
    with console.capture() as capture:
        console.print(found)
    for text in (capture.get(), str(found)):
        assert "layer1.0.conv1" in text
        assert f"{found.multiply_adds:,}" in text
        assert "MiB inference" in text


def measured_peak(model: nn.Module, example: Tensor, *, backward: bool) -> int:
    """The most bytes alive at once in a real pass, from the allocations that torch's profiler records."""
    held = sum(t.untyped_storage().nbytes() for t in (*model.parameters(), *model.buffers(), example))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with trace(activities=[ProfilerActivity.CPU], profile_memory=True) as tracer, torch.set_grad_enabled(backward):
            out = model(example)
            if backward:
                out.sum().backward()
    events = sorted(
        (event for event in tracer.profiler.kineto_results.events() if event.name() == "[memory]"),
        key=lambda event: event.start_ns(),
    )
    now = peak = 0
    for event in events:
        now += event.nbytes()
        peak = max(peak, now)
    return held + peak


@pytest.mark.parametrize("build", [models.resnet18, models.mobilenet_v3_large])
def test_peak_memory_is_near_the_measured_one(build: type[nn.Module]) -> None:
    """Within 2%, and the weights of one layer: an operation may lay them out anew in a workspace."""
    model, example = build(num_classes=10).eval(), torch.zeros(2, 3, 128, 128)
    workspace = max(p.numel() * p.element_size() for p in model.parameters())
    found = profile(model, example).peak_memory
    for estimate, backward in ((found.inference, False), (found.training, True)):
        measured = measured_peak(model, example, backward=backward)
        assert 0.98 * estimate <= measured <= 1.02 * estimate + workspace
    assert found.training > found.inference


def test_memory_is_freed_when_python_frees_it() -> None:
    chain = nn.Sequential(*(nn.Conv2d(1, 1, 1, bias=False) for _ in range(10)))
    found = profile(chain, (1, 1, 100, 100)).peak_memory
    # The input of the model, of one layer and its output; training keeps the inputs of all layers.
    assert found.inference == 10 * 4 + 3 * 40_000
    assert found.training >= 10 * 40_000


def test_a_model_is_left_as_it_was() -> None:
    model = models.resnet18(num_classes=3).train()
    model.layer1.eval()
    calls = []
    model.conv1.register_forward_hook(lambda *_: calls.append(1))
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    before = {name: (tensor, tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    profile(model, (1, 3, 32, 32))
    assert not calls
    assert all(tensor is before[name][0] for name, tensor in model.state_dict(keep_vars=True).items())
    assert all(torch.equal(tensor, copied) for tensor, copied in before.values())
    assert [module.training for module in model.modules()] == modes
    assert model.fc.weight.grad is not None
    assert "forward" not in vars(model.conv1)
    assert len(model.conv1._forward_hooks) == 1
    assert torch.equal(state, torch.get_rng_state())


def test_no_weight_is_allocated() -> None:
    with torch.device("meta"):
        huge = nn.Sequential(nn.Linear(200_000, 200_000), nn.ReLU(inplace=True))  # 160 GB
    assert profile(huge, (1, 200_000)).multiply_adds == 200_000**2


class Functional(nn.Module):
    """Work outside leaf modules, a shared weight, a plain tensor, several inputs, and a dict as the output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.offset = torch.ones(4)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"product": self.first(x) @ self.second(y).mT + self.offset.sum()}


def test_work_outside_leaf_modules_counts_at_its_module() -> None:
    found = profile(Functional(), (torch.zeros(2, 4), torch.zeros(3, 4)))
    assert found.parameters == 16
    assert [row.multiply_adds for row in found.modules] == [2 * 3 * 4, 2 * 4 * 4, 3 * 4 * 4]
    assert found.activations == 8 + 12


def test_lazy_modules_get_their_sizes_in_the_copy() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    assert profile(model, (1, 3, 8, 8)).parameters == 4 * 3 * 9 + 4 + 4 * 36 * 2 + 2
    assert isinstance(model[0], nn.LazyConv2d)


def test_weight_norm_and_transformers_are_profiled() -> None:
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    assert profile(normed, (1, 4)).multiply_adds == 16
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert profile(layer, (1, 5, 8)).flops == oracle(layer, (1, 5, 8)) > 0


@model_space
class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([4, 8], label="width")
        self.layers = nn.Sequential(nn.Linear(3, width), LayerChoice([nn.ReLU, nn.Tanh]), nn.Linear(width, 2))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


def test_one_sample_of_a_space() -> None:
    space = ModelSpace(Net)
    sample = {**space.default(), "width": 8}
    found = profile(space, (1, 3), sample=sample)
    assert found == profile((space, sample), (1, 3))
    assert found.parameters == profile(space.build(sample), torch.zeros(1, 3)).parameters == 8 * 4 + 9 * 2
    assert profile(Net(), (1, 3)).parameters == 4 * 4 + 5 * 2


class NeedsValues(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum().item() > 0 else x


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: profile(nn.Linear(3, 2), (1, 4)),
            NasValueError,
            r"inputs of shape \(1, 4\): the forward pass .* failed",
        ),
        (lambda: profile(nn.Linear(3, 2), "image"), NasTypeError, "example_input is a tensor, a tuple of tensors"),
        (lambda: profile(nn.Linear(3, 2), (1, 0)), NasTypeError, "batch included"),
        (lambda: profile(3, (1, 3)), NasTypeError, "needs a module, a ModelSpace or a pair"),
        (lambda: profile(nn.Linear(3, 2), (1, 3), sample={}), NasTypeError, "a sample belongs to a ModelSpace"),
        (lambda: profile(ModelSpace(Net), (1, 3), sample={"widht": 4}), NasError, "did you mean 'width'"),
    ],
)
def test_errors_say_what_is_wrong(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()  # type: ignore[operator]
