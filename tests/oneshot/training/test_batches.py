"""Batches from any position: the rest of an epoch is the same, whoever was there before."""

import random
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from nas import NasValueError
from nas.oneshot.training.batches import Batches
from nas.oneshot.training.distributed import Share


class Noisy(Dataset[Any]):
    """Each item draws from all the global generators, as augmentation does."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> list[float]:
        return [index, random.random(), torch.rand(()).item()]


def load(length: int) -> Any:
    return lambda seed: DataLoader(
        Noisy(length), 2, shuffle=True, generator=torch.Generator().manual_seed(seed), collate_fn=list
    )


def batches(begin: int = 0, *, epoch: int = 1, seed: int = 5, limit: Any = None, validation: bool = True) -> Batches:
    return Batches(load(14), load(6) if validation else None, seed=seed, epoch=epoch, begin=begin, limit=limit)


@pytest.mark.parametrize("begin", range(8))
def test_the_rest_is_the_same_from_any_position(begin: int) -> None:
    whole = list(batches())
    torch.rand(begin), random.random()
    rest = batches(begin)
    assert len(rest) == 7 - begin
    assert list(rest) == whole[begin:]


def test_validation_begins_anew_when_it_ends() -> None:
    shown = [[item[0] for item in batch["validation"]] for batch in batches()]
    cycles = [sorted(chain(*shown[at : at + 3])) for at in (0, 3)]
    assert cycles == [[0, 1, 2, 3, 4, 5]] * 2
    assert shown[:3] != shown[3:6]
    assert set(next(iter(batches(validation=False)))) == {"train"}


def test_epochs_and_seeds_differ() -> None:
    assert list(batches()) == list(batches())
    assert list(batches(epoch=2)) != list(batches())
    assert list(batches(seed=6)) != list(batches())


def test_random_numbers_outside_are_left_alone() -> None:
    states = random.getstate(), torch.get_rng_state()
    first = list(batches())
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])

    def drawing() -> Iterator[Any]:
        for batch in batches():
            yield batch
            torch.rand(3), random.random()

    assert list(drawing()) == first, "nor do they matter inside"


@pytest.mark.parametrize(("limit", "length"), [(3, 3), (99, 7), (0.5, 3), (1.0, 7)])
def test_limits(limit: float, length: int) -> None:
    assert len(batches(limit=limit)) == length
    assert list(batches(limit=limit)) == list(batches())[:length]


def test_shares_are_every_nth() -> None:
    whole = list(batches())
    for rank in (0, 1):
        share = Share(batches(), rank, 2)
        assert len(share) == 3
        assert list(share) == whole[rank:6:2]
    assert list(Share(batches(2), 1, 2)) == whole[3:6:2]


def test_no_data() -> None:
    with pytest.raises(NasValueError, match="at least one batch"):
        list(Batches(lambda seed: [], None, seed=0, epoch=0))
