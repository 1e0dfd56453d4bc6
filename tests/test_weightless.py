"""Programs that are run without weights: those that cannot do without, those that draw, and those that fail."""

from __future__ import annotations

import random
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor, nn

from nas import ModelSpace, NasError, ValueChoice
from nas.export import to_code
from nas.oneshot import PathSupernet, RelaxedSupernet
from nas.profile import profile

X = (torch.zeros(2, 4),)


class Net(nn.Module):
    """Needs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, ValueChoice([2, 4], label="width"))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y


class ReadsAnItem(Net):
    def __init__(self) -> None:
        super().__init__()
        self.scale = 1 + abs(self.body.weight[0, 0].item())


class ReadsByNumpy(Net):
    def __init__(self) -> None:
        super().__init__()
        self.largest = float(self.body.weight.detach().numpy().max())


class ReadsASchedule(Net):
    """And asks a second choice after it, as the drop rates of vision transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.rates = torch.linspace(0, 1, 3).tolist()
        self.body = nn.Linear(4, ValueChoice([2, 4], label="width"))
        self.drop = nn.Dropout(ValueChoice(self.rates, label="rate"))


NEEDY = [ReadsAnItem, ReadsByNumpy, ReadsASchedule]


@pytest.mark.parametrize("program", NEEDY)
def test_a_program_that_reads_numbers_is_run_on_the_cpu(program: type[Net], tmp_path: Path) -> None:
    space = ModelSpace(program)
    assert [sample["width"] for sample in space.grid()] == [2] * (space.size // 2) + [4] * (space.size // 2)
    sample = {**space.default(), "width": 4}
    assert space.complete({"width": 4}) == sample
    assert space.build(sample)(*X).shape == (2, 4)
    assert profile(space, (2, 4)).parameters(sample) == 20
    if program is ReadsASchedule:  # each file is run once in a process of its own
        assert "width" in to_code(space, sample, tmp_path / "best.py").read_text()


@pytest.mark.parametrize("program", [ReadsAnItem, ReadsByNumpy])
def test_supernets_take_such_a_program_too(program: type[Net]) -> None:
    supernet = PathSupernet(ModelSpace(program), example_input=X)
    supernet.select({"width": 2})
    assert supernet(*X).shape == (2, 2)
    assert RelaxedSupernet(ModelSpace(program)).discretise(1)


@pytest.mark.parametrize("program", [Net, *NEEDY])
def test_a_build_on_the_meta_device_has_no_numbers(program: type[Net]) -> None:
    space = ModelSpace(program)
    model = space.build(space.default(), device="meta")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert vars(model)["nas_architecture"]["sample"] == space.default()


def test_what_is_drawn_is_the_same_whether_the_first_run_fails_or_not() -> None:
    class Harmless(Net):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(ValueChoice([0.0, 0.5, 1.0], label="rate"))

    needy, harmless = random.Random(0), random.Random(0)
    spaces = ModelSpace(ReadsASchedule), ModelSpace(Harmless)
    for _ in range(20):
        assert spaces[0].complete({}, needy) == spaces[1].complete({}, harmless)
    assert needy.getstate() == harmless.getstate()


class Draws(Net):
    """By all three of the global generators."""

    def __init__(self) -> None:
        super().__init__()
        numpy.random.seed(len("nobody is to notice"))
        self.noise = random.random() + float(numpy.random.rand())
        self.offset = nn.Parameter(torch.randn(()))


class DrawsAndReads(Draws):
    def __init__(self) -> None:
        super().__init__()
        self.start = self.offset.item()


@pytest.mark.parametrize("program", [Draws, DrawsAndReads])
def test_a_run_without_weights_leaves_the_random_states_alone(program: type[Net]) -> None:
    def states() -> str:
        return repr((random.getstate(), numpy.random.get_state(), torch.get_rng_state().tolist()))

    before = states()
    space = ModelSpace(program)
    space.validate(space.complete({}, 0))
    space.build(space.default(), device="meta")
    profile(space, (2, 4)).parameters(space.default())
    assert states() == before
    space.build(space.default())
    assert states() != before  # weights are drawn


class UserError(RuntimeError):
    """Of a user."""


def test_an_error_of_the_program_is_shown_as_it_is() -> None:
    class Broken(Net):
        def __init__(self) -> None:
            super().__init__()
            raise UserError("the width must be even")

    with pytest.raises(UserError, match="the width must be even") as caught:
        ModelSpace(Broken)
    assert caught.value.__context__ is None, "one run's error is not the cause of the other's"


def test_an_error_under_some_answers_is_shown_where_they_are_built() -> None:
    class Picky(Net):
        def __init__(self) -> None:
            super().__init__()
            if self.body.out_features > 2:
                raise UserError("too wide")

    space = ModelSpace(Picky)
    for device in (None, "meta"):
        with pytest.raises(UserError, match="too wide"):
            space.build({"width": 4}, device=device)
    with pytest.raises(
        NasError, match=r"sample \{'width': 4\}\): the constructor failed \(UserError: too wide\)"
    ) as caught:
        profile(space, (2, 4)).parameters({"width": 4})
    assert isinstance(caught.value.__cause__, UserError)


def test_what_a_choice_refuses_is_refused_at_once() -> None:
    runs = []

    class Refused(Net):
        def __init__(self) -> None:
            runs.append(1)
            super().__init__()
            ValueChoice([3], label="width")

    with pytest.raises(NasError, match="the same label is the same choice"):
        ModelSpace(Refused)
    assert len(runs) == 1
