"""Holding thinned models against what their trace foretells, and finding the numbers in modules that must follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from torch import nn

from nas._compat.torch_internals import plain_attributes
from nas.compress.dependencies.groups import Counts, Group, Groups, Line
from nas.compress.dependencies.thinning import Follows, Thinning
from nas.compress.dependencies.tracing import Step, Trace, new_trace, run
from nas.example_inputs import Inputs

_TRIES = 16
"""So many numbers of modules are tried for one group."""


@final
@dataclass(frozen=True, slots=True)
class Misfit:
    """Where a thinned model does something else than was foretold."""

    step: tuple[int, int]
    """The place in the order of what is computed, and in that of all operators."""
    where: tuple[str, ...]
    """The modules that were running."""
    reason: str


@final
class Fitting:
    """Makes a thinning of a model that is known to run.

    Args:
        copy: makes a copy of the model that may be changed.
        inputs: on the device of the copies.
        trace: of the whole model.
        groups: that it has shown.
    """

    def __init__(self, copy: Callable[[], nn.Module], inputs: Inputs, trace: Trace, groups: Groups) -> None:
        self._copy, self._inputs, self._trace = copy, inputs, trace
        self.groups = groups
        self._cached: tuple[Groups, dict[int, list[tuple[int, Line]]]] | None = None
        self._found: list[tuple[str, str, Any]] = []

    @property
    def thinning(self) -> Thinning:
        """How the model is thinned, as far as is known."""
        return self._thinning(self._found)

    def _thinning(self, rules: Sequence[tuple[str, str, Any]]) -> Thinning:
        follows = (Follows(path=path, attribute=name, line=self.groups.line(units)) for path, name, units in rules)
        return Thinning(lines=self.groups.lines, follows=tuple(f for f in follows if (f.line.owner >= 0).any()))

    def fit(self, smallest: Callable[[Group], int]) -> None:
        """Leaves the groups that can be thinned; the others are refused.

        Args:
            smallest: how many of a group are kept at least.
        """
        if self._misfit({group.label: smallest(group) for group in self.groups.groups}, self._found) is not None:
            refused = {}
            for group in self.groups.groups:
                wrong = self._repaired({group.label: smallest(group)})
                if wrong is not None:
                    refused[group.label] = wrong.reason
            self.groups = self.groups.without(refused)
        self._fit_together({group.label: smallest(group) for group in self.groups.groups})
        numbers = {group.label: number for number, group in enumerate(self.groups.groups)}
        for bit in range(max(1, (len(numbers) - 1).bit_length())):
            for small in (0, 1):  # so that of any two groups each is the smaller one once
                sizes = {g.label: smallest(g) for g in self.groups.groups if numbers[g.label] >> bit & 1 == small}
                self._fit_together({g.label: sizes.get(g.label, g.size) for g in self.groups.groups})

    def _fit_together(self, counts: Counts) -> None:
        """Groups that are right by themselves, but not all at once: as many as go together are left."""
        if self._misfit(counts, self._found) is None:
            return
        together: dict[str, int] = {}
        refused = {}
        for group in self.groups.groups:
            more = {**together, group.label: counts[group.label]}
            wrong = self._misfit(more, self._found)
            if wrong is None:
                together = more
            else:
                refused[group.label] = wrong.reason
        self.groups = self.groups.without(refused)

    def _misfit(self, counts: Counts, rules: Sequence[tuple[str, str, Any]]) -> Misfit | None:
        """Runs a thinned copy, and says where it first goes another way than foretold."""
        model, most, seen = self._copy(), self.groups.most(counts), new_trace()
        error: Exception | None = None
        try:
            self._thinning(rules).apply(dict(model.named_modules()), most)
            run(model, self._inputs, seen, labelled=False)
        except Exception as found:  # whatever a forward pass raises that meets other sizes
            error = found
        for number, (step, whole) in enumerate(zip(seen.steps, self._trace.steps, strict=False)):
            expected = self._expected(whole, most)
            if step.name != whole.name or step.shape != expected:
                return Misfit((number, step.number), step.where, _another(step, whole, expected))
            start = whole.start if whole.ahead is None else len(self.groups.line(whole.ahead).kept(most))
            if step.start != start:
                reason = f"{_named(whole.where)}: channels are picked by positions that do not change with them"
                return Misfit((number, step.number), step.where, reason)
        if error is None and len(seen.steps) == len(self._trace.steps):
            return None
        number = min(len(seen.steps), len(self._trace.steps) - 1)
        where = seen.running
        said = f"{type(error).__name__}: {error}" if error is not None else "it computes something else"
        return Misfit(
            (number, seen.operators),
            where,
            f"{_named(where)}: its forward does not follow ({said})",
        )

    def _expected(self, step: Step, most: Sequence[int]) -> tuple[int, ...]:
        shape = list(step.shape)
        for dim, line in self._lines[id(step)]:
            shape[dim] = len(line.kept(most))
        return tuple(shape)

    @property
    def _lines(self) -> Mapping[int, list[tuple[int, Line]]]:
        """What lies along the dimensions of each step, as far as it can be thinned."""
        if self._cached is None or self._cached[0] is not self.groups:
            found: dict[int, list[tuple[int, Line]]] = {}
            for step in self._trace.steps:
                lines = [(d, self.groups.line(block.line(d))) for block in step.labels for d in block.dims]
                found[id(step)] = [(d, line) for d, line in lines if (line.owner >= 0).any()]
            self._cached = self.groups, found
        return self._cached[1]

    # Numbers that modules keep.

    def _repaired(self, counts: Counts) -> Misfit | None:
        """Finds the numbers that must follow, one after the other, as long as each leads further."""
        wrong = self._misfit(counts, self._found)
        tries = 0
        while wrong is not None and tries < _TRIES:
            best: tuple[Misfit | None, tuple[str, str, Any]] | None = None
            for rule in self._candidates(wrong, self.groups.most(counts)):
                tries += 1
                after = self._misfit(counts, [*self._found, rule])
                if after is None or after.step > wrong.step:
                    best = after, rule
                    break
                if tries >= _TRIES:
                    break
            if best is None:
                return wrong
            wrong = best[0]
            self._found.append(best[1])
        return wrong

    def _candidates(self, wrong: Misfit, most: Sequence[int]) -> Iterator[tuple[str, str, Any]]:
        """Numbers of the modules that were running which are lengths of what is thinned."""
        lengths = self._lengths(most)
        modules = dict(self._copy().named_modules())
        known = {(path, name) for path, name, _ in self._found}
        for path in reversed(wrong.where):
            for name, values in _numbers(modules[path]):
                if (path, name) in known:
                    continue
                for value in values:
                    for units in lengths.get(value, ()):
                        yield path, name, units

    def _lengths(self, most: Sequence[int]) -> dict[int, list[Any]]:
        """Length -> what is of this length and becomes shorter, for each length that it becomes."""
        found: dict[int, dict[int, Any]] = {}
        for units in self._everything():
            line = self.groups.line(units)
            after = len(line.kept(most))
            if after < len(units):
                found.setdefault(len(units), {}).setdefault(after, units)
        return {length: list(by.values()) for length, by in found.items()}

    def _everything(self) -> Iterator[Any]:
        for slot in self.groups.lines:
            yield self._trace.slots[slot]
        for step in self._trace.steps:
            for block in step.labels:
                for dim in block.dims:
                    yield block.line(dim)


def _named(where: Sequence[str]) -> str:
    """The innermost of the modules that were running."""
    return where[-1] if where and where[-1] else "the model itself"


def _another(step: Step, whole: Step, expected: tuple[int, ...]) -> str:
    where = _named(whole.where)
    if step.name != whole.name:
        return f"{where}: its forward goes another way when the channels are fewer"
    return f"{where}: torch's {step.name} makes {step.shape} where {expected} was foretold, for a fixed size is in it"


def _numbers(module: nn.Module) -> Iterator[tuple[str, list[int]]]:
    """The whole numbers that a module keeps, by the names of its attributes."""
    for name, value in plain_attributes(module).items():
        if isinstance(value, bool):
            continue
        if isinstance(value, int) and value > 1:
            yield name, [value]
        elif isinstance(value, list | tuple) and value and all(type(item) is int for item in value):
            yield name, [item for item in value if item > 1]
