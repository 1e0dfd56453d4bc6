"""Classes that are made anew share their parameters; parametrised layers are shared whole or not at all."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from nas import LayerChoice, ModelSpace, NasValueError, ValueChoice
from nas.oneshot import PathSupernet


def test_classes_of_a_constructor_are_shared() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = ValueChoice([2, 4], label="width")

            class Scaled(nn.Linear):
                def forward(self, x: Tensor) -> Tensor:
                    return width * super().forward(x)

            self.first, self.second = Scaled(3, width), Scaled(width, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.as_tensor(self.second(self.first(x)))

    supernet = PathSupernet(ModelSpace(Net), example_input=(1, 3))
    supernet.check((5, 3), [{"width": 2}, {"width": 4}])


class Symmetric(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.triu() + x.triu(1).transpose(-1, -2)

    def right_inverse(self, x: Tensor) -> Tensor:
        return x.triu()


class Positive(nn.Module):
    """It has a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.softplus(x * self.sharpness)


def own(kind: Callable[[], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    def apply(layer: nn.Module) -> nn.Module:
        parametrize.register_parametrization(layer, "weight", kind())
        return layer

    return apply


OLD = {"weight_norm of old": nn.utils.weight_norm, "spectral_norm of old": nn.utils.spectral_norm}
KINDS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "cayley": lambda layer: parametrizations.orthogonal(layer, orthogonal_map="cayley"),
    "symmetric": own(Symmetric),
    "positive": own(Positive),
    **OLD,
}
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")


class Parametrised(nn.Module):
    """Layers of fixed shapes among choices."""

    def __init__(self, kind: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        width = ValueChoice([2, 4], label="width")
        self.stem = nn.Linear(3, width)
        self.into = nn.Linear(width, 4)
        self.middle = kind(nn.Linear(4, 4))
        self.choice = LayerChoice({"kind": lambda: kind(nn.Linear(4, 4)), "plain": nn.Identity}, label="choice")
        self.layers = nn.Sequential(*(kind(nn.Linear(4, 4)) for _ in range(ValueChoice([0, 2], label="depth"))))
        self.head = kind(nn.Linear(4, 4, bias=ValueChoice([True, False], label="bias")))

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.into(self.stem(x)).relu())
        return torch.as_tensor(self.head(self.layers(self.choice(x))))


MOST = [
    pytest.param(kind, marks=pytest.mark.slow if "spectral" in name else (), id=name) for name, kind in KINDS.items()
]


@pytest.mark.parametrize("kind", MOST)
def test_parametrised_layers_train_and_extract_as_their_architectures(
    kind: Callable[[nn.Module], nn.Module],
) -> None:
    torch.manual_seed(0)  # with some inputs the steps run away
    space, x = ModelSpace(Parametrised, kind), torch.rand(5, 3)
    supernet = PathSupernet(space, example_input=x)
    supernet.check(x, list(space.grid())[::5])
    for sample in list(space.grid())[::7]:
        supernet.train()
        supernet.select(sample)
        model = supernet.extract(sample)
        for each in (supernet, model):
            optimizer = torch.optim.SGD(each.parameters(), 0.01)
            for _ in range(3):
                optimizer.zero_grad()
                each(x).square().sum().backward()
                optimizer.step()
        after = supernet.extract(sample)
        torch.testing.assert_close(after.state_dict(), model.state_dict(), rtol=1e-4, atol=1e-5)
        for each in (supernet, after, model):
            each.eval()
        torch.testing.assert_close(after(x), model(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(supernet(x), model(x), rtol=1e-4, atol=1e-5)
    twin = copy.deepcopy(supernet)
    torch.testing.assert_close(twin(x), supernet(x))


def test_the_weight_of_a_parametrised_layer_can_be_read() -> None:
    supernet = PathSupernet(ModelSpace(Parametrised, parametrizations.orthogonal), example_input=(5, 3))
    weight = supernet.middle.weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(4))
    assert parametrize.is_parametrized(supernet.middle, "weight")
    assert isinstance(supernet.middle, nn.Linear)


@pytest.mark.parametrize("kind", MOST)
def test_chosen_shapes_of_parametrised_layers_are_refused(kind: Callable[[nn.Module], nn.Module]) -> None:
    def build() -> nn.Module:
        width = ValueChoice([4, 6], label="width")
        return nn.Sequential(nn.Linear(3, width), kind(nn.Linear(width, width)))

    with pytest.raises(NasValueError, match=r"labels 'width': the shape of '1\..* is chosen, and a parametrisation"):
        PathSupernet(ModelSpace(build), example_input=(1, 3))
