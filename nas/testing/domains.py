"""The contract of domains, as a pytest suite: what choices, strategies and the ledger rely on, whatever the kind."""

from __future__ import annotations

import json
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise

from nas.domains import Answer, Domain, Integer, Real, as_key, dumps_sample, loads_sample
from nas.testing.comparison import refused

_DRAWS = 40


class DomainContract(ABC):
    """What holds for every domain. Subclass it in a test file under a name that begins with `Test`.

    Of features, decisions and parameters a domain may know none; what it knows has to fit its answers.

    Example:
        >>> from nas import Integer
        >>> class TestEven(DomainContract):
        ...     def make(self):
        ...         return Integer(0, 10, step=2)
        >>> TestEven().test_answers_are_canonical_and_survive_json()
    """

    @abstractmethod
    def make(self) -> Domain:
        """The domain, made anew."""

    def _answers(self) -> list[Answer]:
        domain = self.make()
        return [domain.first, *(domain.sample(random.Random(seed)) for seed in range(_DRAWS))]

    def test_answers_are_canonical_and_survive_json(self) -> None:
        """What is drawn is in the domain, and is again what it was after it has been a file."""
        domain = self.make()
        for answer in self._answers():
            assert domain.contains(answer)
            assert domain.canonical(answer) == answer
            assert loads_sample(dumps_sample({"label": answer})) == {"label": answer}
            assert domain.canonical(json.loads(json.dumps(answer))) == answer

    def test_what_is_outside_is_refused(self) -> None:
        """By a NasValueError that says what the domain is."""
        domain = self.make()
        refused(lambda: domain.canonical(object()), f"the answer must be {domain!r}")
        assert not domain.contains(object())

    def test_what_is_made_alike_is_equal(self) -> None:
        """And has the same text, by which a resumed search knows it."""
        first, second = self.make(), self.make()
        assert first == second
        assert hash(first) == hash(second)
        assert repr(first) == repr(second)
        assert " object at 0x" not in repr(first)

    def test_the_same_seed_draws_the_same(self) -> None:
        """All randomness comes from the generator."""
        assert self._answers() == self._answers()

    def test_the_list_of_answers_is_whole(self) -> None:
        """`values`, `size`, `index` and `at` agree; what cannot be listed says so."""
        domain = self.make()
        assert domain.size >= 1
        if domain.size == math.inf:
            refused(lambda: next(domain.values()), "")
        if domain.listable:
            values = list(domain.values())
            assert len({as_key(answer) for answer in values}) == len(values) == domain.size
            assert [domain.at(domain.index(answer)) for answer in values] == values
            assert all(answer in values for answer in self._answers())

    def test_other_answers_are_others(self) -> None:
        """Mutants, near answers and neighbours."""
        domain, rng = self.make(), random.Random(0)
        for answer in self._answers():
            others = domain.neighbours(answer, rng)
            if domain.size > 1:
                others += [domain.mutate(answer, rng), domain.near(answer, rng)]
            assert all(domain.canonical(other) == other != answer for other in others)

    def test_numbers_have_their_place_between_0_and_1(self) -> None:
        """Both ways, and in order; what is no number refuses."""
        domain = self.make()
        if not domain.numeric:
            refused(lambda: domain.to_unit(domain.first), "no numbers")
            refused(lambda: domain.from_unit(0.5), "no numbers")
            return
        for answer in self._answers():
            position = domain.to_unit(answer)
            assert 0 <= position <= 1
            assert abs(domain.to_unit(domain.from_unit(position)) - position) < 1e-6
        along = [domain.from_unit(i / 20) for i in range(21)]
        assert all(map(domain.contains, along))
        assert all(before <= after for before, after in pairwise(along))

    def test_features_tell_answers_apart(self) -> None:
        """As many finite numbers as the domain says; for listed answers never the same ones."""
        domain = self.make()
        if not domain.feature_width:
            assert not domain.listable
            return
        for answer in self._answers():
            features = domain.features(answer)
            assert len(features) == domain.feature_width
            assert all(math.isfinite(number) for number in features)
        if domain.listable:
            rows = {tuple(domain.features(answer)) for answer in domain.values()}
            assert len(rows) == domain.size

    def test_decisions_lead_to_answers(self) -> None:
        """Whatever is decided is an answer, and what an answer was decided by leads back to it."""
        domain, rng = self.make(), random.Random(0)
        if not domain.decisions:
            assert not domain.listable or domain.size == 1
        for answer in self._answers() if domain.decisions else ():
            asked: list[int] = []

            def choose(place: int, options: tuple[int, ...], asked: list[int] = asked) -> int:
                assert set(options) <= set(range(domain.decisions[place]))
                asked.append(place)
                return rng.choice(options)

            drawn = domain.decide(choose, rng)
            assert domain.canonical(drawn) == drawn
            assert asked == list(range(len(domain.decisions)))
            wanted = iter(domain.decided(answer))

            def recall(place: int, options: tuple[int, ...], wanted: Iterator[int] = wanted) -> int:
                option = next(wanted)
                assert option in options
                return option

            again = domain.decide(recall, rng)
            assert again == answer or not domain.listable or domain.numeric

    def test_parameters_are_simple_and_lead_back(self) -> None:
        """An answer comes back from its parameters, and any values of these are an answer."""
        domain, rng = self.make(), random.Random(0)
        parameters = domain.parameters()
        assert parameters == self.make().parameters()
        for name, simple in parameters.items():
            assert name == "" or (name.startswith("[") and name.endswith("]"))
            assert simple.listable or isinstance(simple, Integer | Real)
        if not parameters:
            assert not domain.listable or domain.size == 1
            return
        for answer in self._answers():
            values = domain.to_parameters(answer)
            assert values.keys() == parameters.keys()
            assert all(simple.contains(values[name]) for name, simple in parameters.items())
            assert _alike(domain, domain.from_parameters(values), answer)
            drawn = domain.from_parameters({name: simple.sample(rng) for name, simple in parameters.items()})
            assert domain.canonical(drawn) == drawn


def _alike(domain: Domain, one: Answer, other: Answer) -> bool:
    if domain.numeric and not domain.listable:
        return abs(domain.to_unit(one) - domain.to_unit(other)) < 1e-6
    return bool(one == other)
