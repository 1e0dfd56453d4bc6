"""Measured latencies, and tables of operations that predict them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas import (
    InputChoice,
    LayerChoice,
    ModelSpace,
    NasError,
    NasTypeError,
    NasValueError,
    Repeat,
    ValueChoice,
    model_space,
)
from nas.profile import LatencyTable, PredictionError, latency, latency_table
from nas.testing import can_stand_in, second_device, survives_mutants


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))


@pytest.mark.parametrize("backend", ["eager", "onnxruntime"])
def test_latency_has_a_median_and_a_spread(backend: str) -> None:
    found = latency(network(), (1, 3, 16, 16), backend, repeats=20)  # type: ignore[arg-type]
    assert 0 < found.lower <= found.median <= found.upper < 1
    assert found.interquartile == found.upper - found.lower
    assert (found.repeats, found.threads, found.backend) == (20, 1, backend)
    assert f"20 passes, {backend}, 1 thread" in str(found)


@pytest.mark.skipif(not can_stand_in(), reason="this torch knows no backends in Python, or has a device")
def test_a_model_on_a_device_is_waited_for() -> None:
    with second_device() as second:
        net = network().to(second.device)
        assert latency(net, (1, 3, 16, 16), repeats=3).median > 0
        assert {parameter.device for parameter in net.parameters()} == {second.device}


@pytest.mark.slow
def test_compiled_models_are_measured() -> None:
    assert latency(network(), (1, 3, 16, 16), "compile", repeats=3).median > 0


def test_a_model_is_left_as_it_was() -> None:
    model = network().train()
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert latency(model, torch.ones(2, 3, 8, 8), threads=2, repeats=2, warmup=0).threads == 2
    assert [module.training for module in model] == [True, False, True, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.get_num_threads() == threads
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_larger_models_take_longer() -> None:
    small, large = (latency(nn.Linear(width, width), (64, width), repeats=10).median for width in (16, 1024))
    assert large > 3 * small


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backend": "tensorflow"}, NasValueError, 'backend must be "eager", "compile" or "onnxruntime"'),
        ({"repeats": 0}, NasValueError, "latency: repeats must be an int from 1 on"),
        ({"warmup": -1}, NasValueError, "warmup"),
        ({"threads": 0}, NasValueError, "latency: threads must be an int from 1 on"),
        ({"example_input": "image"}, NasTypeError, "example_input is a tensor"),
        ({"model": None}, NasTypeError, "needs an nn.Module"),
    ],
)
def test_errors_say_what_is_wrong(options: dict[str, object], error: type[NasError], message: str) -> None:
    with pytest.raises(error, match=message):
        latency(**{"model": nn.Linear(2, 2), "example_input": (1, 2), **options})  # type: ignore[arg-type]


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        kernel = ValueChoice([1, 5], label="kernel")
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, kernel, padding="same"), LayerChoice([nn.ReLU, nn.Sigmoid], label="activation")
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.layers(x)
        return y


@model_space
class Net(nn.Sequential):
    def __init__(self) -> None:
        width = ValueChoice([8, 64], label="width")
        super().__init__(
            nn.Conv2d(3, width, 3, padding=1), Repeat(lambda i: Residual(width), (1, 4), label="depth"), nn.Flatten()
        )


SHAPE = (1, 3, 32, 32)


@pytest.fixture(scope="module")
def space() -> ModelSpace:
    return ModelSpace(Net)


@pytest.fixture(scope="module")
def table(space: ModelSpace) -> LatencyTable:
    found = latency_table(space, SHAPE, repeats=7)
    for sample in space.grid():
        found(sample)
    return found


def test_each_operation_is_measured_once(space: ModelSpace, table: LatencyTable) -> None:
    # For each of 2 widths: the stem, 2 convolutions, 2 activations, flatten.
    assert len(table.entries) == 2 * 6
    before = dict(table.entries)
    sample = {"width": 64, "depth": 3, "kernel": 5, "activation": 0}
    names = {key.partition("(")[0].rpartition(".")[2]: entry for key, entry in table.entries.items()}
    assert set(names) == {"Conv2d", "ReLU", "Sigmoid", "Flatten"}
    assert table({**sample, "depth": 4}) - table(sample) == pytest.approx(table(sample) - table({**sample, "depth": 2}))
    assert table.entries == before


def test_predictions_order_the_samples(table: LatencyTable) -> None:
    found = table.error(8)
    assert isinstance(found, PredictionError)
    assert len(found.predicted) == len(found.measured) == 8
    assert found.rank_correlation > 0.7
    assert f"median error {found.relative:.1%}" in str(found)


def test_calibration_fits_a_factor_and_a_constant(space: ModelSpace) -> None:
    table = latency_table(space, SHAPE, repeats=7)
    fitted = table.calibrate(8)
    assert fitted.relative < 1
    assert table.scale > 0
    sample = space.sample(3)
    calibrated, scale, constant = table(sample), table.scale, table.constant
    table.scale, table.constant = 1.0, 0.0
    assert calibrated == pytest.approx(scale * table(sample) + constant)


def test_latency_is_a_cost_of_the_space(space: ModelSpace, table: LatencyTable) -> None:
    cost = table.cost()
    values = [cost(sample) for sample in space.grid()]
    bounds = cost.bounds()
    assert bounds.exact
    assert (bounds.least, bounds.greatest) == pytest.approx((min(values), max(values)))
    sample = space.sample(0)
    assert cost(sample) == pytest.approx(table(sample), abs=1e-7)
    limit = sorted(values)[len(values) // 2]
    assert all(cost(space.sample(seed, where=cost < limit)) < limit for seed in range(5))
    even = {n: torch.full((int(d.size),), 1 / int(d.size)) for n, d in space.search_space.domains.items()}
    assert float(cost.expected(even)) == pytest.approx(sum(values) / len(values), rel=1e-4)
    with pytest.raises(NasValueError, match="the latency of this space lie"):
        space.where(cost < bounds.least / 2)


def test_tables_are_saved_and_taken_over(space: ModelSpace, table: LatencyTable, tmp_path: Path) -> None:
    path = table.save(tmp_path / "tables/net.json")
    again = latency_table(space, SHAPE).load(path)
    sample = space.sample(1)
    assert again.entries == table.entries
    assert again(sample) == table(sample)
    content = json.loads(path.read_text())
    assert content["backend"] == "eager"
    with pytest.raises(NasValueError, match="'threads': 2"):
        latency_table(space, SHAPE, threads=2).load(path)
    path.write_text("{}")
    with pytest.raises(NasValueError, match="no latency table"):
        latency_table(space, SHAPE).load(path)


ENTRY = {"median": 0.1, "lower": 0.1, "upper": 0.2, "repeats": 3, "threads": 1, "backend": "eager"}
SAVED = {
    "backend": "eager",
    "threads": 1,
    "torch": str(torch.__version__),
    "scale": 1.0,
    "constant": 0.0,
    "entries": {"torch.nn.Linear(8, 8)": ENTRY},
}


@pytest.mark.parametrize(
    "damage",
    [
        {"scale": "1"},
        {"scale": float("nan")},
        {"constant": -1},
        {"constant": 10**400},
        {"entries": [ENTRY]},
        {"entries": {"a": 5}},
        {"entries": {"a": ENTRY | {"median": float("inf")}}},
        {"entries": {"a": ENTRY | {"median": "0.1"}}},
        {"entries": {"a": ENTRY | {"lower": 0.3}}},
        {"entries": {"a": ENTRY | {"repeats": "3"}}},
        {"entries": {"a": ENTRY | {"backend": []}}},
        {"entries": {"a": ENTRY | {"more": 1}}},
        {"entries": {"a": {"median": 0.1}}},
    ],
)
def test_a_damaged_table_is_refused_by_the_name_of_its_file(
    space: ModelSpace, tmp_path: Path, damage: dict[str, Any]
) -> None:
    path = tmp_path / "net.json"
    path.write_text(json.dumps(SAVED))
    again = latency_table(space, SHAPE)
    assert again.load(path).entries
    path.write_text(json.dumps(SAVED | damage))
    known = dict(again.entries)
    with pytest.raises(NasValueError, match=r"no latency table.*net\.json"):
        again.load(path)
    assert again.entries == known
    assert (again.scale, again.constant) == (1.0, 0.0)


def test_damaged_tables(space: ModelSpace, tmp_path: Path) -> None:
    table = latency_table(space, SHAPE)
    survives_mutants(table.load, [json.dumps(SAVED).encode()], count=500, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.fuzz
def test_a_hundred_thousand_damaged_tables(space: ModelSpace, tmp_path: Path) -> None:
    table = latency_table(space, SHAPE)
    survives_mutants(table.load, [json.dumps(SAVED).encode()], count=100_000, folder=tmp_path)


class Tokens(nn.Module):
    """Modules called with integers, with lists and with None."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, ValueChoice([4, 8], label="width"))
        self.skip = InputChoice(2, 1, label="skip")

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        z = self.skip([y, None])
        return y if z is None else y + z


def test_operations_on_integers_and_lists_are_measured() -> None:
    space = ModelSpace(Tokens)
    table = latency_table(space, torch.zeros(1, 5, dtype=torch.long), repeats=2)
    assert all(table(sample) > 0 for sample in space.grid())
    assert len(table.entries) == 2 * 3
