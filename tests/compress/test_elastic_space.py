"""Any trained module as a space: the default is the model, samples are thinner ones that work, the rest is refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas import Experiment, ModelSpace, NasError, NasTypeError, NasValueError
from nas.compress import Elastic, Passage, elastic
from nas.evaluators import FunctionalEvaluator
from nas.export import to_onnx
from nas.oneshot import PathSupernet
from nas.profile import profile
from nas.strategies import Random, RegularizedEvolution
from tests.compress.conftest import MODELS, MORE, called, trained

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

EVERY = [*MODELS, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
SPACES: dict[str, tuple[nn.Module, Any, ModelSpace]] = {}


def made(name: str) -> tuple[nn.Module, Any, ModelSpace]:
    """A model, its example and its space, which is made once."""
    if name not in SPACES:
        model, example = trained(name)
        SPACES[name] = model, example, elastic(model, example)
    return SPACES[name]


def mutator(space: ModelSpace) -> Elastic:
    (found,) = space.mutators
    assert isinstance(found, Elastic)
    return found


def weights(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def relative(one: Tensor, other: Tensor) -> float:
    return ((one - other).abs().max() / other.abs().max()).item()


@pytest.mark.parametrize("name", EVERY)
def test_the_default_sample_is_the_model(name: str) -> None:
    model, example, space = made(name)
    built = space.build(space.default()).eval()
    with torch.no_grad():
        assert relative(called(built, example), called(model, example)) < 1e-5
    assert weights(built) == weights(model)
    assert {n: p.shape for n, p in built.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}


def works(space: ModelSpace, example: Any, expected: Tensor, seed: int) -> None:
    sample = space.sample(seed)
    built = space.build(sample).eval()
    found = called(built, example)
    assert found.shape == expected.shape
    found.float().square().sum().backward()
    assert all(parameter.grad is None or bool(parameter.grad.isfinite().all()) for parameter in built.parameters())
    assert profile(built, example).parameters == weights(built)


@pytest.mark.parametrize("name", EVERY)
def test_samples_run_and_learn_and_are_counted_right(name: str) -> None:
    model, example, space = made(name)
    expected = called(model, example)
    for seed in range(3):
        works(space, example, expected, seed)
    sample = space.sample(7)
    assert profile(space, example, sample=sample).parameters == weights(space.build(sample))
    smallest = {label: min(domain.values()) for label, domain in space.search_space.domains.items()}  # type: ignore[type-var]
    built = space.build({**space.complete({k: v for k, v in smallest.items() if v != "drop"})})
    assert weights(built) < 0.7 * weights(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*MODELS, *MORE])
def test_fifty_samples_run_and_learn(name: str) -> None:
    model, example, space = made(name)
    expected = called(model, example)
    for seed in range(50):
        works(space, example, expected, seed)


EXACT = ["resnet18", "lstm"]
EXACT_TOO = [
    "mobilenet_v3_small",
    "bidirectional",
    "projected",
    "resnet50",
    "densenet121",
    "efficientnet_b0",
    "deeplabv3_resnet50",
    "shufflenet_v2_x0_5",
    "regnet_y_400mf",
]
INSIDE_TOO = ["bert", "swin", "qwen3", "t5", "whisper"]
INSIDE = ["encoder", "vit", "gpt2", "llama"]


@pytest.mark.parametrize(
    "name",
    [*EXACT, *INSIDE, *(pytest.param(name, marks=pytest.mark.slow) for name in [*EXACT_TOO, *INSIDE_TOO])],
)
def test_what_is_removed_might_as_well_be_zero(name: str) -> None:
    """The thinner model computes what the whole one does in which all that was removed is zero.

    Of models that normalise over channels, only what is inside of layers is removed.
    """
    _, example, space = made(name)
    groups, whole, drawn = mutator(space).groups, space.default(), space.sample(3)
    inside = name in (*INSIDE, *INSIDE_TOO)
    thin = {g.label for g in groups if not inside or len(g.slots) < 10}
    sample = {label: drawn.get(label, answer) if label in thin else answer for label, answer in whole.items()}
    assert sample != whole
    masked = space.build(whole).eval()
    tensors = {**dict(masked.named_parameters()), **dict(masked.named_buffers())}
    most = [int(str(sample[group.label])) for group in groups]
    with torch.no_grad():
        for (tensor, dim), line in mutator(space).thinning.lines.items():
            gone = torch.ones(len(line.owner), dtype=torch.bool)
            gone[torch.from_numpy(line.kept(most))] = False
            tensors[tensor].index_fill_(dim, gone.nonzero().flatten(), 0)
        found = called(space.build(sample).eval(), example)
        assert relative(found, called(masked, example)) < 1e-5


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n != "unet" else ()) for n in (*MODELS, *MORE)]
)
def test_samples_are_exported_to_onnx(name: str, tmp_path: Path) -> None:
    _, example, space = made(name)
    report = to_onnx(space.build(space.sample(0)).eval(), example, tmp_path / "small.onnx")
    assert report.verified_batches


def test_groups_are_named_after_their_layers() -> None:
    _, _, space = made("resnet18")
    assert {group.label: group.size for group in mutator(space).groups} == {
        "conv1.channels": 64,
        "layer1.0.conv1.channels": 64,
        "layer1.1.conv1.channels": 64,
        "layer2.0.conv1.channels": 128,
        "layer2.0.conv2.channels": 128,
        "layer2.1.conv1.channels": 128,
        "layer3.0.conv1.channels": 256,
        "layer3.0.conv2.channels": 256,
        "layer3.1.conv1.channels": 256,
        "layer4.0.conv1.channels": 512,
        "layer4.0.conv2.channels": 512,
        "layer4.1.conv1.channels": 512,
    }
    assert list(mutator(space).blocks) == ["layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1"]
    assert mutator(space).refused == {"fc": "the model returns it"}
    assert space.exact
    dropped = space.complete({"layer1.1": "drop", "layer3.0.conv1.channels": 64})
    assert "layer1.1.conv1.channels" not in dropped
    built = space.build(dropped)
    assert isinstance(built.get_submodule("layer1.1"), Passage)
    assert built.get_submodule("layer3.0.conv1").out_channels == 64
    assert built.get_submodule("layer3.0.bn1").num_features == 64
    assert built.get_submodule("layer3.0.conv2").in_channels == 64


def test_query_heads_go_with_the_heads_that_they_share() -> None:
    _, _, space = made("llama")
    (attention, *_) = (group for group in mutator(space).groups if group.kind == "heads")
    assert attention.label == "model.layers.0.self_attn.q_proj.heads"
    assert attention.size == 2
    layer = space.build({**space.default(), attention.label: 1}).get_submodule("model.layers.0.self_attn")
    assert [layer.get_submodule(name).out_features for name in ("q_proj", "k_proj", "v_proj")] == [48, 16, 16]  # type: ignore[attr-defined]
    assert layer.get_submodule("o_proj").in_features == 48  # type: ignore[attr-defined]


def test_what_layers_keep_of_their_sizes_fits() -> None:
    _, _, space = made("encoder")
    sample = {**space.default(), "encoder.layers.0.self_attn.heads": 2, "table.channels": 8}
    built = space.build(sample)
    attention = built.get_submodule("encoder.layers.0.self_attn")
    assert (attention.num_heads, attention.embed_dim, attention.head_dim) == (2, 8, 4)
    assert built.get_submodule("encoder.layers.0.norm1").normalized_shape == (8,)
    built.load_state_dict(built.state_dict())
    _, _, space = made("lstm")
    recurrent = space.build({"table.channels": 4, "recurrent.channels": 6}).get_submodule("recurrent")
    assert (recurrent.input_size, recurrent.hidden_size) == (4, 6)


def test_the_model_is_left_as_it_was_and_builds_share_nothing() -> None:
    model, example = trained("unet")
    before = copy.deepcopy(model.state_dict())
    model.train()
    space = elastic(model, example, only="deep")
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    one, other = space.build(space.default()), space.build(space.default())
    memory = {p.data_ptr() for net in (model, one, other) for p in net.parameters()}
    assert len(memory) == 3 * len(list(model.parameters()))


def test_only_what_is_asked_for_changes() -> None:
    model, example = trained("encoder")
    space = elastic(model, example, only=["encoder.layers", "table"], skip="*.linear1", widths=(0.5,))
    heads = [f"encoder.layers.{i}.self_attn.heads" for i in (0, 1)]
    assert sorted(space.search_space.domains) == sorted([*heads, "encoder.layers.1", "table.channels"])
    assert list(space.search_space.domains[heads[0]].values()) == [2, 4]
    inside = [f"encoder.layers.{i}.linear1.channels" for i in (0, 1)]
    found = elastic(model, example, only=["encoder.*"], blocks=False, heads=False)
    assert list(found.search_space.domains) == inside


# What cannot be.


class Between(nn.Module):
    """Eight channels between two layers, and something that is done to them."""

    def __init__(self, function: Callable[[Tensor], Tensor], made: int = 8, read: int = 8) -> None:
        super().__init__()
        self.first, self.last, self.function = nn.Linear(4, made), nn.Linear(read, 3), function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)))  # type: ignore[no-any-return]


ORDER = torch.randperm(8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x.view(-1, 8), "0: its forward does not follow (RuntimeError: shape"),
        (lambda x: x + x.flip(-1), "0: torch's flip changes their places"),
        (lambda x: x * x[:, 3:4], "0: torch's slice makes (5, 0) where (5, 1) was foretold"),
        (lambda x: x * x[:, 3, None], "0: its forward does not follow (IndexError"),
        (lambda x: x[:, ::2].repeat(1, 2), "0: only some of them are taken"),
        (lambda x: x[:, ORDER], "0: they are picked by an index"),
        (lambda x: x.relu() if x.shape[1] == 8 else x, "0: its forward goes another way when the channels are fewer"),
        (lambda x: x.cumsum(-1), "0: torch's cumsum depends on their order"),
        (lambda x: x + torch.arange(8.0, device=x.device), "0: it meets something whose length cannot change"),
        (lambda x: torch.fft.fft(x).real, "0: torch's _fft_r2c is not known to keep channels in their places"),
        (lambda x: torch.cat([x.chunk(2, -1)[0].relu(), x.chunk(2, -1)[1]], -1), "0: torch's split makes"),
        (lambda x: x @ torch.eye(8).to(x.device), "0: it reads a fixed length"),
    ],
)
def test_what_cannot_be_thinned_is_refused_with_the_reason(function: Callable[[Tensor], Tensor], reason: str) -> None:
    net = nn.Sequential(Between(function), nn.ReLU(), nn.Linear(3, 6), nn.Linear(6, 2))
    space = elastic(net, torch.randn(5, 4))
    assert mutator(space).refused["0.first"].startswith(reason)
    assert [label for label in space.search_space.domains if "first" in label] == []
    assert "2.channels" in space.search_space.domains  # the rest goes on
    works(space, torch.randn(5, 4), torch.zeros(5, 2), 0)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5),
        lambda x: nn.functional.glu(torch.cat([x, x], -1)),
        lambda x: x.softmax(-1) + x.new_zeros(x.shape[1]),
        lambda x: x * x[:, :1] + x[:, -1:],
        lambda x: x.unflatten(-1, (2, -1)).transpose(1, 2).flatten(1),
    ],
)
def test_what_keeps_channels_apart_is_followed(function: Callable[[Tensor], Tensor]) -> None:
    space = elastic(Between(function), torch.randn(5, 4))
    assert list(space.search_space.domains) == ["first.channels"]
    works(space, torch.randn(5, 4), torch.zeros(5, 3), 1)


class Shifted(nn.Module):
    """Takes four channels by their positions, behind others."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = nn.Linear(4, 4), nn.Linear(4, 8), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([self.left(x), self.right(x)], 1)
        return self.last(torch.cat([both, both[:, 4:8].relu()], 1))  # type: ignore[no-any-return]


def test_channels_that_would_slip_to_the_place_of_others_are_refused() -> None:
    """Without some of the left ones the same number is taken, but of others."""
    space = elastic(nn.Sequential(Shifted(), nn.Linear(3, 6), nn.Linear(6, 2)), torch.randn(5, 4), widths=(0.5,))
    assert mutator(space).refused["0.left"] == "0: channels are picked by positions that do not change with them"
    assert "0.left.channels" not in space.search_space.domains


def test_a_model_of_which_nothing_can_go_is_refused() -> None:
    with pytest.raises(NasValueError, match=r"nothing of Linear can be thinned or dropped \(.*the model returns it\)"):
        elastic(nn.Linear(3, 4), torch.zeros(1, 3))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"widths": 0.5}, NasTypeError, "widths are shares of the channels"),
        ({"widths": (0.5, 2)}, NasValueError, "above 0 and up to 1; received"),
        ({"widths": ("half",)}, NasTypeError, "widths are shares"),
        ({"only": "layre"}, NasValueError, "no layer is called 'layre'"),
        ({"skip": 3}, NasTypeError, "skip names layers"),
        ({"blocks": 1}, NasTypeError, "blocks"),
        ({"importance": "l3"}, NasValueError, "importance"),
        ({"importance": 3}, NasTypeError, "importance"),
        ({"importance": "taylor"}, NasValueError, "is measured on data.*data=loader"),
        ({"importance": "taylor", "data": torch.zeros(2, 4)}, NasTypeError, r"data=\[batch\]"),
        ({"importance": "taylor", "data": [torch.zeros(2, 4)]}, NasValueError, "gradients need a loss"),
        ({"importance": lambda weights: torch.zeros(3)}, NasValueError, "one finite number for each of 8 channels"),
        ({"width": (0.5,)}, NasTypeError, "did you mean 'widths'"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], error: type[NasError], message: str) -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(error, match=message):
        elastic(net, torch.zeros(2, 4), **arguments)


def test_other_models_and_examples_are_refused() -> None:
    with pytest.raises(NasTypeError, match=r"the model must be a torch\.nn\.Module"):
        elastic(nn.Linear, torch.zeros(1, 3))  # type: ignore[arg-type]
    with pytest.raises(NasValueError, match="the model does not run on the example"):
        elastic(nn.Linear(3, 4), torch.zeros(1, 5))


# Used as any other space.


def test_strategies_processes_and_files_take_it(tmp_path: Path) -> None:
    _, _, space = made("unet")
    again = pickle.loads(pickle.dumps(space))
    sample = again.sample(0)
    assert weights(again.build(sample)) == weights(space.build(sample))
    for strategy in (Random(), RegularizedEvolution(population_size=3, sample_size=2)):
        name = type(strategy).__name__
        experiment = Experiment(
            space, FunctionalEvaluator(weights_as_value), strategy, name=name, directory=tmp_path, objective="minimize"
        )
        experiment.run(5)
        (best,) = experiment.export_top_models(1, formatter="model")
        assert weights(best) == experiment.best_trial.value


def weights_as_value(model: nn.Module) -> float:
    return float(weights(model))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "vit"])
def test_a_supernet_of_it_begins_with_its_weights(name: str) -> None:
    _, example, space = made(name)
    supernet = PathSupernet(space, example_input=example).eval()
    with torch.no_grad():
        for seed in range(3):
            sample = space.sample(seed)
            supernet.select(sample)
            assert torch.equal(called(supernet, example), called(space.build(sample).eval(), example))
