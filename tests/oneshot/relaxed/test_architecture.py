"""Architecture parameters: one for each label, mixed once in a step, never among the weights."""

import copy

import pytest
import torch
from torch import Tensor, nn

from nas import InputChoice, LayerChoice, ModelSpace, NasValueError, Repeat
from nas.oneshot import Architecture, RelaxedSupernet

OPS = {"same": nn.Identity, "half": lambda: nn.LeakyReLU(0.5), "flip": nn.Softsign}


class Net(nn.Module):
    """One label in two places, an odd label, inputs and a depth."""

    def __init__(self) -> None:
        super().__init__()
        self.first = LayerChoice(OPS, label="shared")
        self.second = LayerChoice(OPS, label="shared")
        self.odd = LayerChoice({"a": nn.Identity, "b": nn.Tanh}, label="keys")
        self.dotted = LayerChoice({"a": nn.Identity, "b": nn.Tanh}, label="net.0%/ünï")
        self.inputs = InputChoice(3, None, label="inputs")
        self.pair = InputChoice(3, 2, label="pair")
        self.depth = Repeat(nn.Tanh(), (0, 2), label="depth")

    def forward(self, x: Tensor) -> Tensor:
        y = self.dotted(self.odd(self.second(self.first(x))))
        z = self.inputs([x, y, x + y])
        w: Tensor = self.pair([x, y, y if z is None else z])
        return self.depth(w)


def supernet(seed: int = 0) -> RelaxedSupernet:
    return RelaxedSupernet(ModelSpace(Net), seed=seed)


def test_there_is_one_parameter_for_each_label() -> None:
    architecture = supernet().architecture
    assert architecture.labels == ["shared", "keys", "net.0%/ünï", "inputs", "pair", "depth"]
    shapes = {label: tuple(architecture.parameter(label).shape) for label in architecture.labels}
    assert shapes == {"shared": (3,), "keys": (2,), "net.0%/ünï": (2,), "inputs": (3, 2), "pair": (6,), "depth": (3,)}
    assert architecture.answers("shared") == ("same", "half", "flip")
    assert architecture.answers("inputs") == (0, 1, 2)
    assert architecture.answers("pair")[:2] == ([0, 0], [0, 1])
    assert architecture.answers("depth") == (0, 1, 2)
    assert repr(architecture) == "Architecture(6 labels, 22 parameters)"


def test_the_first_logits_are_small_noise_of_the_seed() -> None:
    first, second, other = (supernet(seed).architecture.state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first)
    logits = torch.cat([tensor.flatten() for tensor in first.values()])
    assert 2e-4 < float(logits.std()) < 3e-3


def test_a_state_dict_has_legal_keys_and_comes_back() -> None:
    source, target = supernet(1).architecture, supernet(2).architecture
    state = source.state_dict()
    assert list(state)[:3] == ["logits.[shared]", "logits.[keys]", "logits.[net%2E0%25/ünï]"]
    target.load_state_dict(state)
    assert all(torch.equal(source.parameter(label), target.parameter(label)) for label in source.labels)


def test_no_architecture_parameter_is_a_parameter_of_the_model() -> None:
    net = supernet()
    ours = {id(parameter) for parameter in net.architecture.parameters()}
    assert ours.isdisjoint(id(parameter) for parameter in net.model.parameters())
    assert not any("logits" in key for key in net.model.state_dict())
    assert all(not isinstance(module, Architecture) for module in net.model.modules())


def test_a_rule_is_asked_once_for_each_label_and_each_gate() -> None:
    architecture = supernet().architecture
    asked: list[tuple[str, int]] = []

    def rule(label: str, logits: Tensor) -> Tensor:
        asked.append((label, len(logits)))
        return logits.softmax(-1)

    architecture.mix(rule)
    expected = [("shared", 3), ("keys", 2), ("net.0%/ünï", 2), *[("inputs", 2)] * 3, ("pair", 6), ("depth", 3)]
    assert asked == expected
    for label in architecture.labels:
        assert torch.allclose(architecture.weights[label].sum(-1), torch.ones(()))


def test_both_places_of_a_label_read_the_same_draw() -> None:
    net = supernet()
    draws = iter([torch.tensor([0.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 0.0])])
    net.architecture.mix(lambda label, logits: next(draws) if label == "shared" else logits.softmax(-1))
    network = net.model
    assert isinstance(network, Net)
    x = torch.linspace(-1, 1, 5)
    assert torch.equal(network.first(x), nn.LeakyReLU(0.5)(x))
    assert torch.equal(network.second(x), nn.LeakyReLU(0.5)(x))


def test_probabilities_and_entropy() -> None:
    architecture = supernet().architecture
    with torch.no_grad():
        architecture.parameter("shared").copy_(torch.tensor([0.25, 0.5, 0.25]).log())
        architecture.parameter("inputs").copy_(torch.tensor([[0.0, 0.0], [0.0, 50.0], [50.0, 0.0]]))
    assert torch.allclose(architecture.probabilities("shared"), torch.tensor([0.25, 0.5, 0.25]))
    assert torch.allclose(architecture.probabilities("inputs"), torch.tensor([0.5, 1.0, 0.0]))
    assert architecture.entropy("shared").item() == pytest.approx(1.5 * 0.6931, abs=1e-4)
    assert architecture.entropy("inputs").item() == pytest.approx(0.6931, abs=1e-4)


def test_gradients_reach_the_logits_of_every_label() -> None:
    net = supernet()
    net.architecture.mix()
    net.model(torch.randn(4, 3)).square().sum().backward()
    for label in net.architecture.labels:
        gradient = net.architecture.parameter(label).grad
        assert gradient is not None, label
        assert gradient.abs().sum() > 0, label


def test_a_rule_may_have_candidates_of_weight_zero_computed() -> None:
    net = RelaxedSupernet(ModelSpace(lambda: LayerChoice(OPS, label="op")))
    logits = net.architecture.parameter("op")

    def two_paths(label: str, logits: Tensor) -> tuple[Tensor, list[int]]:
        return torch.tensor([1.0, 0.0, 0.0]) + (logits - logits.detach()), [0, 2]

    net.architecture.mix(two_paths)
    x = torch.tensor([-1.0, 2.0])
    y = net.model(x)
    assert torch.equal(y, x)
    y.sum().backward()
    assert logits.grad is not None
    assert torch.allclose(logits.grad, torch.tensor([1.0, 0.0, float(nn.Softsign()(x).sum())]))


def test_an_unknown_label_is_answered_with_the_close_ones() -> None:
    with pytest.raises(NasValueError, match="no architecture parameter has this label; did you mean 'depth'"):
        supernet().architecture.parameter("dept")


def test_one_label_is_mixed_in_one_way() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain = InputChoice(3, 2, replace=False, label="pair")
            self.passing = InputChoice(3, 2, replace=False, each=lambda i: nn.Identity(), label="pair")

    with pytest.raises(NasValueError, match="label 'pair': one label is mixed in one way, .* answers and by its edges"):
        RelaxedSupernet(ModelSpace(Both))


def test_a_choice_of_very_many_answers_is_refused() -> None:
    space = ModelSpace(lambda: InputChoice(20, 10, label="many"))
    with pytest.raises(NasValueError, match="label 'many': a choice of more than 4096 answers is not relaxed"):
        RelaxedSupernet(space)


def test_weights_go_where_the_model_goes() -> None:
    net = RelaxedSupernet(ModelSpace(Net))
    outer = nn.Sequential(net.model)
    outer.to("meta")
    assert {weights.device.type for weights in net.architecture.weights.values()} == {"meta"}
    net.architecture.one_hot({"shared": "flip"})
    assert {weights.device.type for weights in net.architecture.weights.values()} == {"meta"}


def test_weights_hang_in_the_graph_of_parameters_elsewhere() -> None:
    net = RelaxedSupernet(ModelSpace(Net))
    net.model.to("meta")
    net.architecture.mix()
    assert all(parameter.device.type == "cpu" for parameter in net.architecture.parameters())
    assert all(weights.requires_grad for weights in net.architecture.weights.values())


def test_a_copy_of_the_model_leaves_the_weights_where_they_are() -> None:
    net = RelaxedSupernet(ModelSpace(Net))
    copied = copy.deepcopy(net.model)
    copied.to("meta")
    assert {weights.device.type for weights in net.architecture.weights.values()} == {"cpu"}
