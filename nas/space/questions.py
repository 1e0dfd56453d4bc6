"""The core: a choice is a question, and the active handler answers it while a constructor runs."""

from __future__ import annotations

import inspect
import os
import random
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import TypeAlias, final

import torch
from torch import nn

from nas._compat.called_modules import module_called
from nas.assigned import destination
from nas.calls import CALLS, explained
from nas.checks import check_label
from nas.domains import Answer, Domain, Sample
from nas.errors import NasTypeError, NasValueError, explain
from nas.tree import Kind

Select: TypeAlias = Callable[[Answer, Mapping[int, nn.Module]], nn.Module]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a choice asks: its label, what it may be answered, and the default."""

    label: str
    domain: Domain
    kind: Kind
    default: Answer
    former: str = ""
    """The label that it had before omitted labels were made from where the choice goes: old samples have it."""
    shared: str = ""
    """Its label in samples, where discovery gives it another one: the same label has another domain elsewhere."""

    @property
    def public(self) -> str:
        """Its label in samples."""
        return self.shared or self.label

    def describe(self) -> str:
        """The label and the kind, for messages."""
        return f"{_NAMES[self.kind]} {self.public!r}"


_NAMES: dict[Kind, str] = {
    "value": "ValueChoice",
    "layer": "LayerChoice",
    "input": "InputChoice",
    "repeat": "Repeat",
}


class Handler(ABC):
    """Answers the choices of one construction: with plain values, with all candidates, with mixtures."""

    @abstractmethod
    def value(self, question: Question) -> Answer:
        """What a ValueChoice returns."""

    @abstractmethod
    def layer(self, question: Question, build: Callable[[Answer], nn.Module]) -> nn.Module:
        """What a LayerChoice returns; `build(answer)` builds that candidate inside its label scope."""

    @abstractmethod
    def inputs(self, question: Question, select: Select, each: Callable[[int], nn.Module] | None) -> nn.Module:
        """What an InputChoice returns.

        Args:
            question: of the choice.
            select: `select(answer, passed)` is the module for one answer; `passed` has what the inputs go through.
            each: `each(i)` builds what input i goes through; None where they are taken as they are.
        """

    @abstractmethod
    def repeat(self, question: Question, block: Callable[[int], nn.Module]) -> nn.Module:
        """What a Repeat of a chosen depth returns; `block(i)` builds the i-th block inside its label scope."""


@final
@dataclass(slots=True)
class _Construction:
    """One run of a constructor: its handler, the label scope it is in, and how many labels each scope has made."""

    handler: Handler
    scope: tuple[str, ...] = ()
    former_scope: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    asked: int = 0


_CONSTRUCTION: ContextVar[_Construction | None] = ContextVar("nas_construction", default=None)
_WARNED: ContextVar[set[str | None] | None] = ContextVar("nas_warned", default=None)


@contextmanager
def handling(handler: Handler) -> Iterator[None]:
    """Makes the handler answer every choice asked inside the block; labels are counted afresh."""
    token = _CONSTRUCTION.set(_Construction(handler))
    try:
        yield
    finally:
        _CONSTRUCTION.reset(token)


def is_handled() -> bool:
    """Whether a handler is active: whether a constructor runs inside a model space."""
    return _CONSTRUCTION.get() is not None


def asked_so_far() -> int:
    """How many choices the construction that runs has asked."""
    construction = _CONSTRUCTION.get()
    return 0 if construction is None else construction.asked


def current_handler() -> Handler:
    """The active handler; outside any model space, one that answers defaults."""
    construction = _CONSTRUCTION.get()
    return Answering(default_answer) if construction is None else construction.handler


@contextmanager
@explained()
def label_scope(*names: str | int) -> Iterator[None]:
    """Omitted labels inside the block begin with these names, and so do those that begin with a dot.

    Other labels stay as they are.

    Example:
        >>> from nas import ModelSpace, ValueChoice, model_space
        >>> @model_space
        ... class Net(nn.Module):
        ...     def __init__(self) -> None:
        ...         super().__init__()
        ...         with label_scope("head"):
        ...             self.linear = nn.Linear(ValueChoice([4, 8], label=".width"), 2)
        >>> ModelSpace(Net).default()
        {'head/width': 4}
    """
    for name in names:
        if not isinstance(name, str | int) or isinstance(name, bool):
            raise NasTypeError(explain("the names of a scope are texts", got=name, where="label_scope", mend='"head"'))
    with within(names, names):
        yield


@contextmanager
def inside(question: Question, answer: Answer, position: int) -> Iterator[None]:
    """The label scope of what one answer of a choice builds.

    Args:
        question: of the choice.
        answer: that it is built for.
        position: of the answer.
    """
    with within((question.label, answer), (question.former or question.label, position)):
        yield


@contextmanager
def within(names: tuple[Answer, ...], former: tuple[Answer, ...]) -> Iterator[None]:
    """A label scope by these names, which had other ones formerly."""
    construction = _CONSTRUCTION.get()
    if construction is None:
        yield
        return
    outer = construction.scope, construction.former_scope
    construction.scope, construction.former_scope = _deeper(outer[0], names), _deeper(outer[1], former)
    try:
        yield
    finally:
        construction.scope, construction.former_scope = outer


def _deeper(outer: tuple[str, ...], names: tuple[Answer, ...]) -> tuple[str, ...]:
    # An omitted label begins with the scope it was made in already.
    begun = "/".join(outer) + "/"
    return outer + tuple(str(name).removeprefix(begun) for name in names)


def ask(kind: Kind, domain: Domain, *, label: str | None, default: Answer = None) -> tuple[Handler, Question]:
    """The active handler and the labelled question; outside any model space, a handler that answers defaults.

    Raises:
        NasTypeError: a label that is no str.
        NasValueError: a label that is empty or cannot be shown, or a default outside the domain.
    """
    if label is not None:
        if not isinstance(label, str):
            raise NasTypeError(explain("a label must be a str", got=label, where=_NAMES[kind], mend=f'label="{kind}"'))
        check_label(label, where=_NAMES[kind])
    if default is None:
        default = domain.first
    else:
        try:
            default = domain.canonical(default)
        except NasValueError as error:
            where = _NAMES[kind] if label is None else f"{_NAMES[kind]} {label!r}"
            raise NasValueError(
                explain(f"the default must be {domain!r}", got=default, where=where, mend="name one of these")
            ) from error
    construction = _CONSTRUCTION.get()
    if construction is None:
        _warn_outside(kind, label)
        construction = _Construction(Answering(default_answer))
    construction.asked += 1
    former = ""
    if label is None:
        former = _counted(construction, construction.former_scope, f"{kind}_", first="1")
        label = _counted(construction, construction.scope, _made_name(construction, kind, _caller(2)))
    elif label.startswith("."):
        label = "/".join((*construction.scope, label[1:]))
    check_label(label, where=_NAMES[kind])  # Again, for the names of scopes and candidates are in it.
    return construction.handler, Question(label=label, domain=domain, kind=kind, default=default, former=former)


def scope_name(kind: Kind, label: str | None) -> tuple[str, str]:
    """The name of a label scope that a call makes, and its former one: its label, or a name from where it goes."""
    construction = _CONSTRUCTION.get()
    if label is not None or construction is None:
        name = label or kind
        scope = () if construction is None or not name.startswith(".") else construction.scope
        return "/".join((*scope, name.removeprefix("."))), name
    return _made_name(construction, kind, _caller(2)), kind


def _counted(construction: _Construction, scope: tuple[str, ...], name: str, *, first: str = "") -> str:
    """The name in its scope; with a number where it is not the first one."""
    label = "/".join((*scope, name))
    construction.counts[label] = number = construction.counts.get(label, 0) + 1
    if number == 1:
        return label + first
    return f"{label}{number}" if label.endswith("_") else f"{label}_{number}"


def _caller(number: int) -> FrameType | None:
    """The frame that many calls above the one which asks; what explains wrong calls is none of them."""
    frame = inspect.currentframe()
    for _ in range(number + 1):
        frame = None if frame is None else frame.f_back
        while frame is not None and frame.f_code.co_filename == CALLS:
            frame = frame.f_back
    return frame


def _made_name(construction: _Construction, kind: Kind, frame: FrameType | None) -> str:
    """A name for a choice without a label, from where it goes."""
    found = destination(frame, until=_begins_a_scope, skip=_adds_no_name)
    if found.assigned or (construction.scope and found.name):
        return found.name
    return found.kind or found.name or kind


def _begins_a_scope(code: CodeType) -> bool:
    return code.co_filename.startswith(_HERE) and code.co_name != "init"


def _adds_no_name(code: CodeType) -> bool:
    return code.co_filename.startswith((_HERE, _TORCH, CALLS))


_HERE = os.path.dirname(__file__) + os.sep
_TORCH = os.path.dirname(torch.__file__) + os.sep


def _warn_outside(kind: Kind, label: str | None) -> None:
    name = f" {label!r}" if label is not None else ""
    if (module := module_called(inspect.currentframe())) is not None:
        raise NasValueError(
            explain(
                "a choice is asked while a model is constructed, and this one is asked while it is called",
                got=f"a choice in the forward of {type(module).__name__}",
                where=f"{_NAMES[kind]}{name}",
                mend="ask it in __init__, and keep what it returns as an attribute",
            )
        )
    warned = _WARNED.get()
    if warned is None:
        _WARNED.set(warned := set())
    if label not in warned:
        warned.add(label)
        warnings.warn(
            f"{_NAMES[kind]}{name} was asked outside any model space and returns its default. To search it, decorate "
            "the class that asks with @model_space, or hand a factory to ModelSpace.",
            UserWarning,
            stacklevel=5,
        )


def check_same(first: Question, second: Question) -> None:
    """The same label is the same choice.

    Raises:
        NasValueError: the two questions share a label but not a domain.
    """
    if first.domain != second.domain:
        raise NasValueError(
            explain(
                f"the same label is the same choice, but {first.describe()} may be {first.domain!r} in one place and "
                f"{second.describe()} {second.domain!r} in another",
                got=f"{second.domain!r}",
                where=f"label {first.public!r}",
                mend="give one of them another label (an omitted label counts the choices of its scope in order: where "
                "plain Python decides which of them are asked, name them)",
            )
        )


def chosen_items(answer: Answer) -> tuple[int, ...]:
    """The inputs that an answer of an InputChoice takes, in its order."""
    return (answer,) if isinstance(answer, int) else tuple(answer)


def default_answer(question: Question) -> Answer:
    """The answer of the base model."""
    return question.default


@final
class Answering(Handler):
    """Builds one architecture: `answer` decides each label once, and only what it chose is constructed.

    `answers` and `questions` hold what was asked, in order.
    """

    def __init__(self, answer: Callable[[Question], Answer]) -> None:
        self._answer = answer
        self.answers: Sample = {}
        self.questions: dict[str, Question] = {}

    def value(self, question: Question) -> Answer:
        """The plain answer."""
        known = self.questions.get(question.label)
        if known is None:
            self.questions[question.label] = question
            self.answers[question.label] = answer = self._answer(question)
            return answer
        check_same(known, question)
        return self.answers[question.label]

    def layer(self, question: Question, build: Callable[[Answer], nn.Module]) -> nn.Module:
        """The chosen candidate."""
        return build(self.value(question))

    def inputs(self, question: Question, select: Select, each: Callable[[int], nn.Module] | None) -> nn.Module:
        """The module that picks the chosen inputs; only what these go through is built."""
        answer = self.value(question)
        return select(answer, {} if each is None else {i: each(i) for i in dict.fromkeys(chosen_items(answer))})

    def repeat(self, question: Question, block: Callable[[int], nn.Module]) -> nn.Module:
        """As many blocks as were chosen."""
        return nn.Sequential(*(block(i) for i in range(self.value(question))))


def answering(
    sample: Mapping[str, Answer], rng: random.Random | None, *, loose: bool = False
) -> Callable[[], Answering]:
    """Makes handlers that answer from a sample; what it lacks is drawn, or takes its default.

    All of them answer alike: each begins with the random numbers that the first has begun with.

    Args:
        sample: label -> answer.
        rng: for what the sample lacks; None for the defaults.
        loose: whether an answer outside its domain counts as lacking: where too little was known when it was given.
    """
    begin = None if rng is None else rng.getstate()

    def answer(question: Question) -> Answer:
        label = question.former if question.label not in sample and question.former in sample else question.label
        if label in sample and not (loose and not question.domain.contains(sample[label])):
            try:
                return question.domain.canonical(sample[label])
            except NasValueError as error:
                raise NasValueError(f"{question.describe()}: {error}") from error
        return fill(question.domain, question.default, rng)

    def make() -> Answering:
        if rng is not None and begin is not None:
            rng.setstate(begin)
        return Answering(answer)

    return make


def fill(domain: Domain, default: Answer, rng: random.Random | None) -> Answer:
    """A draw where there are random numbers, else the default."""
    return default if rng is None else domain.sample(rng)
