"""Batches from any position: the rest of an epoch is the same, whoever was there before."""

import random
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, TensorDataset

from nas import NasValueError
from nas.oneshot.training.batches import Batches, of_validation

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # of Lightning's own


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


def batches(begin: int = 0, *, epoch: int = 1, seed: int = 5, **given: Any) -> Batches:
    return Batches(load(14), seed=seed, place=lambda: (epoch, begin), **given)


@pytest.mark.parametrize("begin", range(8))
def test_the_rest_is_the_same_from_any_position(begin: int) -> None:
    whole = list(batches())
    torch.rand(begin), random.random()
    rest = batches(begin)
    assert len(rest) == 7, "the length of the epoch"
    assert list(rest) == whole[begin:]


def numbers(found: Iterator[Any], count: int) -> list[Any]:
    return [([item[0] for item in batch], loader) for batch, loader in islice(found, count)]


def test_validation_begins_anew_when_it_ends() -> None:
    shown = [batch for batch, _ in numbers(of_validation(DataLoader(Noisy(6), 2, collate_fn=list), 3), 6)]
    cycles = [sorted(chain(*shown[at : at + 3])) for at in (0, 3)]
    assert cycles == [[0, 1, 2, 3, 4, 5]] * 2
    assert shown[:3] != shown[3:6]


class Backwards(Sampler[int]):
    """An order of one's own."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(6, -1, -1))

    def __len__(self) -> int:
        return 7


def tensors(length: int, **given: Any) -> Any:
    return DataLoader(TensorDataset(torch.arange(length)), 2, **given)


def test_lone_samples_of_any_sampler_are_left_out_of_training_on_validation_data() -> None:
    data = TensorDataset(torch.arange(7))
    loaders = [
        tensors(7),
        tensors(7, shuffle=True),
        DataLoader(data, 2, sampler=Backwards()),
        DataLoader(data, batch_sampler=BatchSampler(Backwards(), 2, drop_last=False)),
        DataLoader(data, batch_sampler=[[0, 1], [2], [3, 4], [5], [6, 1]]),
    ]
    for loader in loaders:
        found = [len(batch[0]) for batch, _ in islice(of_validation(loader, 0), 12)]
        assert found == [2] * 12
    alone = [batch[0].tolist() for batch, _ in islice(of_validation(DataLoader(data, batch_size=1), 0), 7)]
    assert sorted(alone) == [[i] for i in range(7)], "where there are no others they are taken"


def test_several_loaders_of_validation_data_come_in_turns() -> None:
    loaders = {"one": tensors(4), "other": tensors(6)}
    found = list(islice(of_validation(loaders, 0), 6))
    assert [loader for _, loader in found] == [0, 1, 0, 1, 0, 1]
    assert sorted(chain(*(batch[0].tolist() for batch, loader in found if loader == 1))) == list(range(6))


def test_validation_batches_are_made_as_training_batches_are() -> None:
    like = {"a": tensors(4), "b": tensors(4)}
    ((batch, loader),) = islice(of_validation({"a": tensors(4), "b": tensors(6)}, 0, like=like), 1)
    assert loader == 0
    assert batch.keys() == {"a", "b"}


def test_several_loaders_of_training_data_are_combined_as_lightning_does() -> None:
    found = Batches(lambda seed: {"a": tensors(4), "b": tensors(6)}, seed=0, place=lambda: (0, 1))
    assert len(found) == 3
    rest = list(found)
    assert len(rest) == 2
    assert [batch["b"][0].tolist() for batch in rest] == [[2, 3], [4, 5]]
    assert [batch["a"][0].tolist() for batch in rest] == [[2, 3], [0, 1]], "the shorter one begins anew"


def test_samplers_are_told_the_epoch() -> None:
    class Told(Backwards):
        epochs: list[int] = []  # noqa: RUF012 - of all copies

        def set_epoch(self, epoch: int) -> None:
            self.epochs.append(epoch)

    list(Batches(lambda seed: DataLoader(Noisy(7), sampler=Told(), collate_fn=list), seed=0, place=lambda: (4, 0)))
    assert set(Told.epochs) == {4}


def test_somebody_is_asked_before_each_batch() -> None:
    asked: list[int] = []
    for number, _ in enumerate(batches(before=lambda: asked.append(len(asked)))):
        assert len(asked) == number + 1


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


def test_shares_are_every_nth() -> None:
    whole = list(batches())
    for rank in (0, 1):
        share = batches(rank=rank, devices=2)
        assert len(share) == 3
        assert list(share) == whole[rank:6:2]
    assert list(batches(1, rank=1, devices=2)) == whole[3:6:2]


def test_no_data() -> None:
    with pytest.raises(NasValueError, match="at least one batch"):
        Batches(lambda seed: [], seed=0, place=lambda: (0, 0))
