"""The tree of a search space: which labels it has, from which domains, and under which conditions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cached_property

from nas.domains import Answer, Domain, Either, Sample
from nas.errors import NasValueError, explain
from nas.tree.choices import Choice, conditions, everywhere, walk
from nas.tree.counting import count

_LONG = 60


class DomainTree:
    """The choices of a space, whatever is wanted of its samples.

    Args:
        choices: the roots, in the order in which the program asks them.
    """

    def __init__(self, choices: tuple[Choice, ...]) -> None:
        self.choices = choices

    @cached_property
    def domains(self) -> dict[str, Domain]:
        """Every label of the tree with its domain, in the order of the tree.

        One that has several, in branches that exclude each other, has a domain of all their answers; `domains_of` says
        which of them a sample answers.
        """
        found: dict[str, list[Domain]] = {}
        for choice in everywhere(self.choices):
            domains = found.setdefault(choice.label, [choice.domain])
            if choice.domain not in domains:
                domains.append(choice.domain)
        return {label: domains[0] if len(domains) == 1 else Either(domains) for label, domains in found.items()}

    @cached_property
    def _several(self) -> frozenset[str]:
        """The labels that have several domains."""
        return frozenset(label for label, domain in self.domains.items() if isinstance(domain, Either))

    def domains_of(self, sample: Mapping[str, Answer]) -> dict[str, Domain]:
        """The domains from which a sample of this tree is answered, by the labels that the tree knows.

        Example: a width that is another one in each kind of network.
            >>> from nas import search_space, ValueChoice
            >>> def program():
            ...     kind = ValueChoice(["small", "large"], label="kind")
            ...     return ValueChoice([8, 16] if kind == "small" else [256, 512], label="width")
            >>> tree = search_space(program).search_space
            >>> tree.domains["width"], tree.domains_of({"kind": "large", "width": 256})["width"]
            (one of 8, 16, or one of 256, 512, one of 256, 512)
        """
        domains = self.domains
        found = {label: domains[label] for label in sample if label in domains}
        if not self._several.isdisjoint(found):
            found.update({choice.label: choice.domain for choice in self._asked(sample)})
        return found

    def _asked(self, sample: Mapping[str, Answer]) -> list[Choice]:
        """The choices that a sample answers, in the order of the tree."""
        found: list[Choice] = []

        def decide(choice: Choice) -> Answer:
            found.append(choice)
            return sample.get(choice.label, choice.default)

        self.walk(decide)
        return found

    @cached_property
    def variables(self) -> dict[str, Domain]:
        """As `domains`, but a label that has several has a name for each: what models know, that take one for each."""
        if not self._several:
            return self.domains
        return {self.variable(choice): choice.domain for choice in everywhere(self.choices)}

    def variable(self, choice: Choice) -> str:
        """The name of a choice among the `variables`."""
        if choice.label not in self._several:
            return choice.label
        text = repr(choice.domain)
        if len(text) > _LONG:  # Storages have names of some hundred letters at the most.
            text = f"{text[:_LONG]}..., {hashlib.sha256(text.encode()).hexdigest()[:8]}"
        return f"{choice.label} ({text})"

    def as_variables(self, sample: Mapping[str, Answer]) -> Sample:
        """The answers of a sample under the names of the `variables`; labels that the tree does not know stay."""
        if self._several.isdisjoint(sample):
            return dict(sample)
        asked = (choice for choice in self._asked(sample) if choice.label in sample)
        return {self.variable(choice): sample[choice.label] for choice in asked} | self._foreign(sample)

    @cached_property
    def _open(self) -> tuple[str, ...]:
        """The labels with more than one answer."""
        return tuple(label for label, domain in self.domains.items() if domain.size > 1)

    @cached_property
    def _leaves(self) -> frozenset[str]:
        """The labels of one domain whose answers no other choice depends on."""
        deciding = {choice.label for choice in everywhere(self.choices) if choice.branches}
        return frozenset(self.domains) - deciding - self._several

    def _open_in(self, sample: Mapping[str, Answer]) -> list[str]:
        """The labels of a sample that have more than one answer there."""
        found = [label for label in self._open if label in sample]
        if self._several.isdisjoint(found):
            return found
        domains = self.domains_of(sample)
        return [label for label in found if domains[label].size > 1]

    @cached_property
    def size(self) -> int | float:
        """How many samples the tree has, exactly: an int, or `math.inf` with an interval of reals."""
        return count(self.choices)

    def walk(self, decide: Callable[[Choice], Answer]) -> Sample:
        """The sample that `decide` leads to, asked once for each active label, in the order of the tree."""
        sample: Sample = {}
        walk(self.choices, sample, decide)
        return sample

    def default(self) -> Sample:
        """The sample of the base model: each choice its default."""
        return self.walk(lambda choice: choice.default)

    def _fits(self, choice: Choice, answer: Answer) -> bool:
        """Whether an answer is not one of another domain of the label."""
        several = choice.label in self._several
        return not several or choice.domain.contains(answer) or not self.domains[choice.label].contains(answer)

    def _foreign(self, sample: Mapping[str, Answer]) -> Sample:
        """The answers to labels that the tree does not know."""
        return {label: answer for label, answer in sample.items() if label not in self.domains}

    def require(self, able: Callable[[Domain], bool], rule: str, mend: str) -> None:
        """Refuses the domains of this space that something cannot deal with; one answer alone is no difficulty.

        Args:
            able: whether it can deal with a domain.
            rule: what it needs, in words.
            mend: how to mend it.

        Raises:
            NasValueError: there are such domains; their labels are named.

        Example:
            >>> from nas import Real, SearchSpace
            >>> SearchSpace.of({"rate": Real(0, 1)}).require(lambda d: d.listable, "needs lists", "give it a step")
            Traceback (most recent call last):
            ...
            nas.errors.NasValueError: label 'rate': needs lists; received a number from 0 to 1. To mend: give it a step.
        """
        unable = {n: domain for n, domain in self.variables.items() if domain.size > 1 and not able(domain)}
        if unable:
            wrong = [explain(rule, got=domain, where=f"label {n!r}", mend=mend) for n, domain in unable.items()]
            raise NasValueError(listed(wrong))

    def require_one_domain_each(self, what: str) -> None:
        """Refuses labels that have several domains.

        Args:
            what: needs one domain for each label.

        Raises:
            NasValueError: there are such labels.
        """
        for label in self._several:
            raise NasValueError(
                explain(
                    f"{what} needs one domain for each label",
                    got=self.domains[label],
                    where=f"label {label!r}",
                    mend="give the choice another label in each of the branches",
                )
            )

    def condition(self, label: str) -> str:
        """When a label is asked, in words; "always" for an unconditional one."""
        return _any_of([when for _, when in conditions(self.choices, label)])

    def describe(self) -> dict[str, str]:
        """Each label with its domains and conditions as text: what two spaces are compared by."""
        found: dict[str, str] = {}
        for label in self.domains:
            ways: dict[Domain, list[str]] = {}
            for domain, when in conditions(self.choices, label):
                ways.setdefault(domain, []).append(when)
            each = ((domain, _any_of(of_it)) for domain, of_it in ways.items())
            found[label] = "; ".join(f"{d!r}" + ("" if when == "always" else f", when {when}") for d, when in each)
        return found


def _any_of(ways: list[str]) -> str:
    return " or ".join(dict.fromkeys(ways)) if ways and "always" not in ways else "always"


MOST_LISTED = 50
"""Problems of one message."""


def listed(wrong: list[str], more: int = 0) -> str:
    """Everything that is wrong, as one message.

    Args:
        wrong: the problems; the first of them are told.
        more: of which nobody has made a text.
    """
    number = len(wrong) + more
    if number == 1:
        return wrong[0]
    left = number - MOST_LISTED
    told = [*wrong[:MOST_LISTED], *([f"and {left:,} more"] if left > 0 else [])]
    return f"{number} problems:\n" + "\n".join(f"  - {text}" for text in told)
