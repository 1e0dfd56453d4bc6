"""The names that architectures of one space share their tensors by, and the handlers that find them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, final

import torch
from torch import Tensor, nn

from nas._compat.torch_internals import TENSOR_DICTS, children_of, own_buffers, own_parameters
from nas.domains import Answer, Sample, as_key
from nas.space import ARCHITECTURE, Answering, Choice, ChosenInputs, Handler, ModelSpace, Question, SearchSpace, Select
from nas.weightless import NoInitialisation


class ModuleSite(NamedTuple):
    """A place in the module tree of an architecture."""

    name: str
    """The path, and after each LayerChoice the number of its candidate in brackets: `stem.[1].0`."""
    path: str
    """As in `named_modules()`; what stands beside the architecture has the name's."""
    module: nn.Module
    choices: tuple[str, ...]
    """The names of the places of the LayerChoices that it is the answer of, outermost first."""


class TensorSite(NamedTuple):
    """A parameter or buffer of an architecture."""

    name: str
    """The place of its module, and its name in that: `stem.[1].0.weight`."""
    path: str
    """Of its module, as in `named_modules()`; what stands beside the architecture has the name's."""
    module: nn.Module
    local: str
    """Its name in the module."""
    tensor: Tensor


@final
class Numbering:
    """The candidates of LayerChoices by number, in brackets: `[1]`.

    What the user calls them is no part of the names of parameters: who looks for "norm" in these means their own.

    Args:
        space: whose answers are numbered, label by label.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._numbers: dict[str, dict[object, int]] = {}
        self._count(space.choices)

    def _count(self, choices: Iterable[Choice]) -> None:
        for choice in choices:
            if choice.kind == "layer":
                known = self._numbers.setdefault(choice.label, {})
                for answer in choice.domain.values():
                    known.setdefault(as_key(answer), len(known))
            for branch in choice.branches:
                self._count(branch.choices)

    def __call__(self, label: str, answer: Answer) -> str:
        """The key of a candidate in the module tree; of one that the tree does not know, its answer."""
        number = self._numbers.get(label, {}).get(as_key(answer))
        # A dot would end the name of a module in a state dict.
        return f"[{str(answer).replace('%', '%25').replace('.', '%2E') if number is None else number}]"


@final
@dataclass(slots=True)
class _Mark:
    """What a LayerChoice built, and what else it could have built."""

    label: str
    answer: Answer
    module: nn.Module
    others: dict[Answer, nn.Module]


@final
@dataclass(slots=True)
class Names:
    """Which modules were built by choices, found while one construction runs."""

    _marks: dict[int, list[_Mark]] = field(default_factory=dict)
    _beside: dict[int, dict[str, nn.Module]] = field(default_factory=dict)
    _kept: list[nn.Module] = field(default_factory=list)

    def chose(self, question: Question, answer: Answer, module: nn.Module, others: dict[Answer, nn.Module]) -> None:
        """A LayerChoice built a module."""
        self._kept.append(module)
        marks = self._marks.setdefault(id(module), [])
        if all(mark.label != question.label for mark in marks):  # else one instance that stands in several places
            marks.append(_Mark(question.label, answer, module, others))

    def stands_beside(self, module: nn.Module, others: dict[str, nn.Module]) -> None:
        """Children that a module would have under other answers."""
        self._kept.append(module)
        self._beside[id(module)] = others

    def candidates(self) -> Iterator[tuple[str, Answer, nn.Module]]:
        """What LayerChoices built, and what else they could have built: (label, answer, module)."""
        for mark in (mark for marks in self._marks.values() for mark in marks):
            yield mark.label, mark.answer, mark.module
            for answer, module in mark.others.items():
                yield mark.label, answer, module

    def sites(self, model: nn.Module, number: Numbering) -> Iterator[ModuleSite]:
        """All modules of a model, and of what stands beside it; those that stand in several places several times."""
        yield from self._at("", "", model, number)

    def _at(self, name: str, path: str, module: nn.Module, number: Numbering) -> Iterator[ModuleSite]:
        choices: list[str] = []
        # The innermost choice marked the module first.
        for mark in reversed(self._marks.get(id(module), ())):
            for answer, other in mark.others.items():
                yield from self._at(beside := joined(name, number(mark.label, answer)), beside, other, number)
            choices.append(name)
            name = joined(name, number(mark.label, mark.answer))
        yield ModuleSite(name, path, module, tuple(choices))
        for key, child in children_of(module).items():
            if child is not None:
                yield from self._at(joined(name, key), joined(path, key), child, number)
        for key, child in self._beside.get(id(module), {}).items():
            yield from self._at(beside := joined(name, key), beside, child, number)


def places_of(sites: Iterable[ModuleSite]) -> Iterator[TensorSite]:
    """The parameters and buffers of modules; tied ones several times."""
    for site in sites:
        for local, tensor in [*own_parameters(site.module).items(), *own_buffers(site.module).items()]:
            if tensor is not None:
                yield TensorSite(joined(site.name, local), site.path, site.module, local, tensor)


def named(places: Iterable[TensorSite]) -> Iterator[tuple[str, TensorSite]]:
    """Each place with the name of its tensor: where tensors are tied, that of the first."""
    names: dict[int, str] = {}
    for place in places:
        yield names.setdefault(id(place.tensor), place.name), place


def joined(name: str, key: str) -> str:
    """The name of a child."""
    return f"{name}.{key}" if name else key


def answers_from(sample: Mapping[str, Answer]) -> Callable[[Question], Answer]:
    """Answers from a sample, and the default for what it lacks."""

    def answer(question: Question) -> Answer:
        return question.domain.canonical(sample[question.label]) if question.label in sample else question.default

    return answer


@final
class OnePath(Handler):
    """Builds one architecture, and notes what its LayerChoices built."""

    def __init__(self, answer: Callable[[Question], Answer]) -> None:
        self._answering = Answering(answer)
        self.names = Names()

    @property
    def answers(self) -> Sample:
        """What was asked, with the answers."""
        return self._answering.answers

    @property
    def questions(self) -> Mapping[str, Question]:
        """What was asked, by label."""
        return self._answering.questions

    def value(self, question: Question) -> Answer:
        """The plain answer."""
        return self._answering.value(question)

    def layer(self, question: Question, build: Callable[[Answer], nn.Module]) -> nn.Module:
        """The chosen candidate."""
        answer = self.value(question)
        module = build(answer)
        self.names.chose(question, answer, module, {})
        return module

    def inputs(self, question: Question, select: Select, each: Callable[[int], nn.Module] | None) -> nn.Module:
        """The module that picks the chosen inputs."""
        return self._answering.inputs(question, select, each)

    def repeat(self, question: Question, block: Callable[[int], nn.Module]) -> nn.Module:
        """As many blocks as were chosen."""
        return self._answering.repeat(question, block)


@final
class AllPaths(Handler):
    """Builds one architecture, and beside it all candidates, inputs and blocks that it leaves out."""

    def __init__(self, answer: Callable[[Question], Answer]) -> None:
        self._answering = Answering(answer)
        self._fixed: Sample = {}
        self.names = Names()

    @property
    def answers(self) -> Sample:
        """What was asked, with the answers; also by what is left out."""
        return self._answering.answers

    def value(self, question: Question) -> Answer:
        """The plain answer; inside a candidate, the one that it stands under."""
        answer = self._answering.value(question)
        return self._fixed.get(question.label, answer)

    def layer(self, question: Question, build: Callable[[Answer], nn.Module]) -> nn.Module:
        """The chosen candidate; the others beside it."""
        answer = self.value(question)
        others: dict[Answer, nn.Module] = {}
        if question.label not in self._fixed:
            for other in question.domain.values():
                if other != answer:
                    with self._under(question.label, other):
                        others[other] = build(other)
        with self._under(question.label, answer):
            module = build(answer)
        self.names.chose(question, answer, module, others)
        return module

    def inputs(self, question: Question, select: Select, each: Callable[[int], nn.Module] | None) -> nn.Module:
        """The module that picks the chosen inputs; what the others go through stands beside."""
        answer = self.value(question)
        picked = select(answer, {})
        if each is None:
            return picked
        assert isinstance(picked, ChosenInputs)
        passed = {i: each(i) for i in range(picked.n_candidates)}
        chosen = select(answer, {i: passed[i] for i in dict.fromkeys(picked.chosen)})
        left = {f"each.{i}": module for i, module in passed.items() if i not in picked.chosen}
        self.names.stands_beside(chosen, left)
        return chosen

    def repeat(self, question: Question, block: Callable[[int], nn.Module]) -> nn.Module:
        """As many blocks as were chosen; deeper ones beside."""
        depth = self.value(question)
        built = [block(i) for i in range(max(question.domain.values()))]
        module = nn.Sequential(*built[:depth])
        self.names.stands_beside(module, {str(i): built[i] for i in range(depth, len(built))})
        return module

    @contextmanager
    def _under(self, label: str, answer: Answer) -> Iterator[None]:
        before = dict(self._fixed)
        self._fixed[label] = answer
        try:
            yield
        finally:
            self._fixed = before


def construct_without_weights(
    space: ModelSpace, make: Callable[[], AllPaths | OnePath]
) -> tuple[nn.Module, AllPaths | OnePath, Literal["meta", "cpu"]]:
    """Constructs without weights; on the CPU too where the program keeps tensors that are no parameters.

    Random states are left to the caller: other threads may draw meanwhile.
    """
    with NoInitialisation():
        return space.without_weights(make, serves=_has_no_plain_tensors, alone=False)


def construct_with_weights(
    space: ModelSpace, sample: Mapping[str, Answer], device: torch.device
) -> tuple[nn.Module, OnePath]:
    """What `space.build` makes of a sample, and the handler that has seen which choice stands where.

    Args:
        space: of the sample.
        sample: complete.
        device: where the tensors are made.
    """
    # Where tensors are made anyway, saying so takes a third longer.
    where = None if device == torch.get_default_device() else device
    handler = OnePath(answers_from(sample))
    model = space.construct(handler, where)
    if where is None and any(tensor.device != device for tensor in (*model.parameters(), *model.buffers())):
        handler = OnePath(answers_from(sample))  # the program names other devices
        model = space.construct(handler, device)
    labels = {label: repr(question.domain) for label, question in handler.questions.items()}
    vars(model)[ARCHITECTURE] = {"sample": dict(handler.answers), "labels": labels}
    return model, handler


def _has_no_plain_tensors(model: nn.Module) -> bool:
    return not any(
        isinstance(item, Tensor)
        for module in model.modules()
        for name, value in vars(module).items()
        if name not in TENSOR_DICTS
        for item in _items(value)
    )


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, list | tuple):
        return value
    return value.values() if type(value) is dict else (value,)
