"""Recurrent layers are counted without running their steps one by one, to what these would have taken."""

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas.profile import profile
from nas.profile.memory import meter_of, training_peak
from nas.profile.passes import ForwardPass, run_first, subject_of
from nas.profile.recurrent import Recurrences

SHAPES = [(10, 4, 40, 16, 1, False), (8, 3, 6, 8, 2, True)]


def layer(kind: type[nn.RNNBase], shape: tuple[int, int, int, int, int, bool], **options: Any) -> nn.Module:
    _, _, taken, width, layers, both = shape
    return nn.Sequential(nn.Linear(taken, taken), kind(taken, width, layers, bidirectional=both, **options))


def counted(model: nn.Module, example: Tensor) -> int:
    """By torch's counter, where torch takes the layer apart."""
    twin = model.to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin(example.to("meta"))
    return int(counter.get_total_flops())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_flops_are_those_of_all_steps(kind: type[nn.RNNBase], shape: tuple[int, int, int, int, int, bool]) -> None:
    model, example = layer(kind, shape), torch.zeros(shape[:3])
    assert profile(model, example).flops == counted(model, example)
    batch_first = layer(kind, shape, batch_first=True)
    assert profile(batch_first, example.transpose(0, 1)).flops == counted(batch_first, example.transpose(0, 1))


def test_projections_and_states_are_counted() -> None:
    model, example = nn.LSTM(6, 8, 2, proj_size=3), torch.zeros(10, 2, 6)
    assert profile(model, example).flops == counted(model, example)
    model = nn.LSTM(6, 8, 2)
    states = (torch.zeros(2, 2, 8), torch.zeros(2, 2, 8))
    assert profile(model, (example, states)).flops == profile(model, example).flops


class Reads(nn.Module):
    """With numbers, oneDNN computes the layer, and torch's counter finds nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x if x.sum().item() > -1 else -x)[0]
        return y


def test_a_layer_in_a_real_pass_is_counted() -> None:
    example = torch.zeros(10, 2, 6)
    assert profile(Reads(), example).flops == counted(nn.LSTM(6, 8), example)


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(6, 8, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return torch.as_tensor(self.layer(packed)[1])


def test_packed_sequences_are_counted_by_their_lengths() -> None:
    found = profile(Packed(), (torch.zeros(2, 10, 6), torch.tensor([10, 4])))
    assert found.flops == 2 * (10 + 4) * 3 * 8 * (6 + 8)


def inference_peak(run: ForwardPass, mode: AbstractContextManager[object]) -> int:
    meter = meter_of(run)
    with torch.no_grad(), meter, mode:
        run()
    return meter.peak


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_memory_is_near_that_of_all_steps(kind: type[nn.RNNBase], shape: tuple[int, int, int, int, int, bool]) -> None:
    subject = subject_of(layer(kind, shape))
    for peak in (inference_peak, training_peak):
        modes = (Recurrences(), nullcontext())
        found, apart = (
            run_first(subject, shape[:3], lambda run, m=mode, p=peak: p(run, m), task="")[0] for mode in modes
        )
        assert found == pytest.approx(apart, rel=0.1)


def test_a_profile_takes_few_passes_time() -> None:
    model, example = nn.LSTM(64, 128, 2, bidirectional=True).eval(), torch.randn(200, 8, 64)

    def seconds(function: Any) -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    with torch.no_grad():
        passes = min(seconds(lambda: model(example)) for _ in range(3))
    assert min(seconds(lambda: profile(model, example)) for _ in range(3)) < 5 * passes


class Loop(nn.Module):
    """A recurrent net in plain Python: views, operations in place, one that changes a shape."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = (x.new_zeros(x.shape[1], 8), x.new_zeros(x.shape[1], 8))
        found = []
        for step in x:
            state = self.cell(step, state)
            y = state[0].mul(2).unsqueeze_(0).add_(1)
            found.append(self.head(y))
        return torch.cat(found)


def test_operations_that_were_seen_before_yield_the_same() -> None:
    model, example = Loop(), torch.zeros(5, 2, 6)
    found, apart = (profile(model, example), profile(ReadsFirst(model), example))
    assert found.flops == apart.flops == counted(Loop(), example)
    assert found.activations == apart.activations
    assert run_first(subject_of(model), example, lambda run: run().shape, task="") == ((5, 2, 3), "meta")
    # With numbers, nothing is remembered.
    assert found.peak_memory.training == pytest.approx(apart.peak_memory.training, rel=0.05)
    assert found.peak_memory.inference == pytest.approx(apart.peak_memory.inference, rel=0.05)


class ReadsFirst(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x if x[0, 0, 0].item() == 0 else -x)
        return y
