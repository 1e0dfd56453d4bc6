"""The encoding and the predictors of the model-based strategies."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas import Categorical, Integer, Real, SearchSpace, Subset
from nas.strategies import BANANAS, GaussianProcess, Random
from nas.strategies.bananas import Ensemble
from nas.strategies.encoding import PathEncoding
from nas.strategies.gaussian_process import KernelModel
from nas.testing import play, synthetic_table

SPACE = SearchSpace.of(
    {
        "op": Categorical(["conv", "pool"]),
        "few": Integer(1, 3),
        "many": Integer(0, 100),
        "rate": Real(0, 2),
        "any": Subset(3, None),
        "order": Subset(3, 2, ordered=True),
    }
)


def test_each_path_has_its_feature() -> None:
    encode = PathEncoding(SPACE)
    sample = {"op": "pool", "few": 3, "many": 25, "rate": 0.5, "any": [0, 2], "order": [2, 0]}
    assert encode(sample) == [
        *(0, 1),  # op
        *(0, 0, 1, 1.0),  # few: each answer, and where it lies
        *(1, 0.25),  # many
        *(1, 0.25),  # rate
        *(1, 0, 1),  # any
        *(0, 0, 1, 1, 0, 0),  # order, by place
    ]
    assert len(encode(sample)) == encode.width
    assert encode({"op": "conv", "unknown": 3}) == [1, *[0] * (encode.width - 1)]


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_different_samples_have_different_vectors(left: int, right: int) -> None:
    space = synthetic_table("conditional", 0).space
    first, second = space.sample(left), space.sample(right)
    assert (first == second) == (PathEncoding(space)(first) == PathEncoding(space)(second))


def fitted(order: list[int], batches: list[int]) -> KernelModel:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 2, (60, 12), generator=generator).double()
    losses = rows[:, 0] * 2 - rows[:, 3] * rows[:, 4] + rows[:, 7]
    model = KernelModel(12)
    for i in order:
        model.add(rows[i].tolist(), float(losses[i]))
        if len(model._losses) in batches:
            model.posterior(torch.empty(0, 12, dtype=torch.float64))
    return model


def test_a_gaussian_process_learns_effects_of_pairs() -> None:
    model = fitted(list(range(60)), [60])
    posterior = model.posterior(torch.empty(0, 12, dtype=torch.float64))
    rows = torch.randint(0, 2, (200, 12), generator=torch.Generator().manual_seed(1)).double()
    truth = rows[:, 0] * 2 - rows[:, 3] * rows[:, 4] + rows[:, 7]
    mean, deviation = posterior.predict(rows)
    correlation = torch.corrcoef(torch.stack([mean, truth]))[0, 1]
    assert correlation > 0.97
    assert (deviation > 0).all()


def test_its_bits_do_not_depend_on_when_it_was_asked() -> None:
    rows = torch.randint(0, 2, (20, 12), generator=torch.Generator().manual_seed(2)).double()
    expected = rows[:3]
    once = fitted(list(range(60)), []).posterior(expected).expected_improvement(rows)
    often = fitted(list(range(60)), list(range(2, 60))).posterior(expected).expected_improvement(rows)
    assert torch.equal(once, often)


def test_a_known_point_is_worth_no_second_look() -> None:
    model = fitted(list(range(60)), [])
    posterior = model.posterior(torch.empty(0, 12, dtype=torch.float64))
    known = model._rows[:60]
    assert float(posterior.expected_improvement(known).max()) < 0.05
    assert model._losses[posterior.order[0]] == min(model._losses)


def test_an_ensemble_is_sure_where_it_has_been() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.rand(80, 5, generator=generator)
    ensemble = Ensemble(vectors, vectors.sum(1), 5, seed=1)
    mean, near_by = ensemble.predict(vectors)
    _, far_away = ensemble.predict(vectors + 5)
    assert torch.corrcoef(torch.stack([mean, vectors.sum(1)]))[0, 1] > 0.95
    assert float(far_away.mean()) > 3 * float(near_by.mean())
    again = Ensemble(vectors, vectors.sum(1), 5, seed=1)
    assert torch.equal(mean, again.predict(vectors)[0])


@pytest.mark.slow  # The contract of strategies has a shorter form of it.
@pytest.mark.parametrize("strategy", [GaussianProcess(), BANANAS()], ids=lambda s: type(s).__name__)
def test_they_leave_chance_far_behind(strategy: GaussianProcess | BANANAS) -> None:
    tables = [synthetic_table("flat", seed) for seed in range(4)]

    def regret(other: GaussianProcess | BANANAS | Random) -> float:
        return sum(t.regret(max(x.value or 0.0 for x in play(other, t, 60))) for t in tables) / len(tables)

    assert regret(strategy) < 0.4 * regret(Random())


@pytest.mark.slow
def test_equal_values_everywhere_are_no_obstacle() -> None:
    space = SearchSpace.of({"a": Categorical(range(40))})
    table = synthetic_table("flat", 0)
    constant = type(table)(name="constant", space=space, value=lambda sample: 1.0, best=1.0, mean=0.0)
    for strategy in (GaussianProcess(), BANANAS()):
        assert len(play(strategy, constant, 40)) == 40
