"""The search space: a tree of domains that a program with choices spans, with exact size, sampling and grid."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import final

from nas.brief import brief
from nas.calls import explained
from nas.checks import check_label, check_number
from nas.domains import Answer, Domain, Sample
from nas.errors import NasTypeError, NasValueError, close_names, explain
from nas.random_state import Rng, as_rng
from nas.tree.choices import Choice, grid
from nas.tree.constraints import Constraint, Where, as_constraint
from nas.tree.domain_tree import MOST_LISTED, DomainTree, listed


@explained()
@final
class SearchSpace(DomainTree):
    """A tree of choices. Immutable; a sample of it holds exactly the labels that are active under its own answers.

    Args:
        choices: the roots, in the order in which the program asks them.
        constraint: which of their samples are wanted; all of them where it is None.
        doubts: what discovery could not find out for certain: labels -> why. Empty where the tree is exact.

    Example:
        >>> from nas import Categorical
        >>> space = SearchSpace.of({"width": Categorical([16, 32]), "kernel": Categorical([3, 5])})
        >>> space.size, space.default()
        (4, {'width': 16, 'kernel': 3})
    """

    def __init__(
        self, choices: tuple[Choice, ...], constraint: Constraint | None = None, doubts: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(choices)
        self.constraint, self.doubts = constraint, dict(doubts or {})

    def __repr__(self) -> str:
        """In one line."""
        size = (
            "infinitely many" if isinstance(self.size, float) else f"{'' if self.exact else 'at least '}{self.size:,}"
        )
        return f"SearchSpace({brief([*self.domains])[1:-1]}: {size} samples)"

    @property
    def exact(self) -> bool:
        """Whether the tree holds all samples of the program; if not, `doubts` says why."""
        return not self.doubts

    @classmethod
    def of(cls, domains: Mapping[str, Domain]) -> SearchSpace:
        """A flat space: every label always active."""
        for label in domains:
            check_label(label, where="a search space")
        return cls(tuple(Choice(label=n, domain=d, kind="value", default=d.first) for n, d in domains.items()))

    def joined(self, other: SearchSpace | Mapping[str, Domain]) -> SearchSpace:
        """This space with other choices after its own, of another space or always active.

        Raises:
            NasValueError: one label with two domains.
        """
        other = other if isinstance(other, SearchSpace) else SearchSpace.of(other)
        for label, domain in other.domains.items():
            if label in self.domains and self.domains[label] != domain:
                raise NasValueError(
                    explain(
                        f"the same label is the same choice, but the model says {self.domains[label]!r} and the "
                        f"evaluator {domain!r}",
                        where=f"label {label!r}",
                        mend="rename one of the two",
                    )
                )
        return SearchSpace(self.choices + other.choices, self.constraint, {**self.doubts, **other.doubts})

    def where(self, constraint: Where) -> SearchSpace:
        """The samples of this space that satisfy a constraint, and the one that it has already.

        Sampling, mutation, grid and `validate` keep to it; `size` still counts the whole tree.

        Args:
            constraint: a `nas.Constraint`, or a function from a sample to a bool.

        Raises:
            NasValueError: no sample satisfies it, where the constraint can tell.

        Example:
            >>> from nas import Categorical
            >>> space = SearchSpace.of({"width": Categorical([16, 32]), "depth": Categorical([1, 2])})
            >>> list(space.where(lambda sample: sample["width"] * sample["depth"] > 32).grid())
            [{'width': 32, 'depth': 2}]
        """
        added = as_constraint(constraint)
        joint = added if self.constraint is None else self.constraint & added
        joint.check()
        return SearchSpace(self.choices, joint, self.doubts)

    def allows(self, sample: Mapping[str, Answer]) -> bool:
        """Whether a sample of the tree satisfies the constraint."""
        return self.constraint is None or self.constraint.allows(sample)

    def sample(self, seed: Rng) -> Sample:
        """A sample with each choice drawn from its domain.

        Args:
            seed: an int, or a `random.Random` that goes on from where it is.

        Raises:
            NasValueError: none of very many draws satisfies the constraint.
        """
        rng = as_rng(seed)
        for _ in range(_DRAWS):
            sample = self.walk(lambda choice: choice.domain.sample(rng))
            if self.allows(sample):
                return sample
        raise NasValueError(
            explain(f"none of {_DRAWS:,} draws satisfies the constraint", got=self.constraint, mend="loosen it")
        )

    def grid(self) -> Iterator[Sample]:
        """Every sample once, lazily, in product order: the last choice of the tree changes fastest.

        Raises:
            NasValueError: an interval of reals among the domains.
        """
        every = grid(self.choices)
        return every if self.constraint is None else filter(self.constraint.allows, every)

    def problems(self, sample: Mapping[str, Answer]) -> tuple[Sample, list[str], set[str]]:
        """The sample in canonical form, what is wrong with it, and the labels that this tree does not know."""
        wrong: list[str] = []
        failed: set[str] = set()

        def decide(choice: Choice) -> Answer:
            if choice.label not in sample:
                wrong.append(
                    explain(
                        f"the answer is missing; it must be {choice.domain!r}",
                        got=sorted(sample, key=str),
                        where=f"label {choice.label!r}",
                        mend="space.complete(sample), which fills what is missing",
                    )
                )
            else:
                try:
                    return _canonical(choice.label, choice.domain, sample[choice.label])
                except NasValueError as error:
                    wrong.append(str(error))
            failed.add(choice.label)
            return _NOTHING

        found = self.walk(decide)
        extra = [label for label in sample if label not in found]
        for label in extra:
            if label in self.domains and not failed:
                wrong.append(_not_asked(self, label, sample[label]))
        unknown = {label for label in extra if label not in self.domains}
        return {label: answer for label, answer in found.items() if label not in failed}, wrong, unknown

    def validate(self, sample: Mapping[str, Answer]) -> Sample:
        """Checks a sample, and returns it in canonical form.

        Raises:
            NasValueError: unknown, missing, inactive or out-of-domain labels: all of them in one message.
        """
        if not isinstance(sample, Mapping):
            raise NasTypeError(explain("a sample must be a dict label -> answer", got=sample))
        found, wrong, unknown = self.problems(sample)
        strange = sorted(unknown, key=str)
        wrong += [unknown_label(label, self.domains) for label in strange[:MOST_LISTED]]
        if not wrong and not self.allows(found):
            wrong = [explain("the sample does not satisfy the constraint", got=self.constraint)]
        if wrong:
            raise NasValueError(listed(wrong, len(strange[MOST_LISTED:])))
        return found

    def contains(self, sample: Mapping[str, Answer]) -> bool:
        """Whether `validate` accepts the sample."""
        try:
            self.validate(sample)
        except (NasValueError, NasTypeError):
            return False
        return True

    def mutate(self, sample: Mapping[str, Answer], rng: Rng, probability: float | None = None) -> Sample:
        """A neighbour of a sample. Choices that become active are drawn, those that become inactive dropped.

        Args:
            sample: a valid sample.
            rng: an int or a `random.Random`.
            probability: of each active choice to change; None changes exactly one.

        Returns:
            A sample of this tree. Answers to labels that the tree does not know (choices met only through the value
            of another) are carried along; the one that is to change is left out, so that completing draws it anew.
            Where no neighbour satisfies the constraint, one that is further away.
        """
        rng = as_rng(rng, "rng")
        if probability is not None:
            check_number("probability", probability, least=0, most=1, or_else="None", where="mutate")
        child = self._mutant(sample, rng, probability)
        for attempt in range(_MUTANTS):
            if self.allows(child):
                return child
            # Where no neighbour is allowed, one that is a few steps away.
            child = self._mutant(child if attempt >= _MUTANTS // 2 else sample, rng, probability)
        return self.sample(rng)

    def _mutant(self, sample: Mapping[str, Answer], rng: random.Random, probability: float | None) -> Sample:
        extra = list(self._foreign(sample))
        changed: str | None = None
        if probability is None:
            mutable = self._open_in(sample) + extra
            changed = rng.choice(mutable) if mutable else None
            if changed in self._leaves:  # No other choice becomes active, and none inactive.
                return {**sample, changed: self.domains[changed].mutate(sample[changed], rng)}

        def decide(choice: Choice) -> Answer:
            if choice.label not in sample or not self._fits(choice, sample[choice.label]):
                return choice.domain.sample(rng)
            if choice.label == changed or (probability is not None and rng.random() < probability):
                return choice.domain.mutate(sample[choice.label], rng)
            return sample[choice.label]

        child = self.walk(decide)
        for label in extra:
            if label != changed and (probability is None or rng.random() >= probability):
                child[label] = sample[label]
        return child

    def cross(self, one: Mapping[str, Answer], other: Mapping[str, Answer], rng: Rng) -> Sample:
        """A child of two samples: each choice is answered as by one of them that answers it, and drawn where none does.

        Conditions hold; whether the constraint does is for the caller to ask: `allows(child)`.

        Args:
            one, other: valid samples. The answers of `one` to labels that the tree does not know are carried along.
            rng: an int or a `random.Random`.

        Example:
            >>> from nas import Categorical
            >>> space = SearchSpace.of({"width": Categorical([16, 32]), "kernel": Categorical([3, 5])})
            >>> space.cross({"width": 16, "kernel": 3}, {"width": 32, "kernel": 3}, 1)
            {'width': 16, 'kernel': 3}
        """
        rng = as_rng(rng)

        def decide(choice: Choice) -> Answer:
            answers = [parent[choice.label] for parent in (one, other) if choice.label in parent]
            if choice.label in self._several:
                answers = list(filter(choice.domain.contains, answers))
            return rng.choice(answers) if answers else choice.domain.sample(rng)

        return self.walk(decide) | self._foreign(one)

    def replace(self, sample: Mapping[str, Answer], label: str, answer: Answer, rng: Rng) -> Sample:
        """A sample with one choice answered otherwise: choices that become active are drawn, inactive ones dropped.

        Whether the constraint holds is for the caller to ask: `allows(child)`.

        Args:
            sample: a valid sample. Its answers to labels that the tree does not know are carried along.
            label: of the choice.
            answer: one of its domain.
            rng: an int or a `random.Random`.

        Raises:
            NasValueError: an unknown label, one that is not asked in this sample, or an answer outside its domain.

        Example:
            >>> from nas import Categorical
            >>> space = SearchSpace.of({"width": Categorical([16, 32]), "kernel": Categorical([3, 5])})
            >>> space.replace({"width": 16, "kernel": 3}, "width", 32, 0)
            {'width': 32, 'kernel': 3}
        """
        if label not in self.domains:
            raise NasValueError(unknown_label(label, self.domains))
        if label not in sample:
            raise NasValueError(_not_asked(self, label, answer))
        child = {**sample, label: _canonical(label, self.domains_of(sample)[label], answer)}
        # Behind a leaf no other choice becomes active, and none inactive.
        return child if label in self._leaves else self.extend(child, rng)

    def extend(self, given: Mapping[str, Answer], rng: Rng | None = None) -> Sample:
        """A whole sample with the given answers; the others take their defaults, or are drawn where there is an `rng`.

        Whether the constraint holds is for the caller to ask: `allows(sample)`.

        Args:
            given: answers to some of the choices. Those to choices that are then not asked are left out, as are those
                that another domain of the label allows; those to labels that the tree does not know are carried along.
            rng: an int or a `random.Random`.

        Raises:
            NasValueError: an answer outside its domain.

        Example:
            >>> from nas import Categorical
            >>> space = SearchSpace.of({"width": Categorical([16, 32]), "kernel": Categorical([3, 5])})
            >>> space.extend({"width": 32})
            {'width': 32, 'kernel': 3}
        """
        drawn = None if rng is None else as_rng(rng)

        def decide(choice: Choice) -> Answer:
            if choice.label in given and self._fits(choice, given[choice.label]):
                return _canonical(choice.label, choice.domain, given[choice.label])
            return choice.default if drawn is None else choice.domain.sample(drawn)

        return self.walk(decide) | self._foreign(given)


_NOTHING = object()
_DRAWS = 100_000
_MUTANTS = 100


def _canonical(label: str, domain: Domain, answer: Answer) -> Answer:
    try:
        return domain.canonical(answer)
    except NasValueError as error:
        raise NasValueError(f"label {label!r}: {error}") from error


def unknown_label(label: str, known: Mapping[str, Domain]) -> str:
    """The message for a label that no choice has."""
    return explain(
        f"no choice of this space has this label; {close_names(label, known)}",
        got=label,
        where=f"label {label!r}",
        mend="drop it; a hyperparameter of the evaluator belongs to the experiment's space, `experiment.space`",
    )


def _not_asked(space: SearchSpace, label: str, answer: Answer) -> str:
    return explain(
        f"the choice is not asked under these answers; it needs {space.condition(label)}",
        got=answer,
        where=f"label {label!r}",
        mend="leave it out",
    )
