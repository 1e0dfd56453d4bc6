"""Model spaces: a program with choices, its search space, and the way from a sample to a module and back."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, final

import torch
from torch import nn

from nas.calls import explained
from nas.copying import copy_module
from nas.domains import Answer, Domain, Sample, check_sample
from nas.errors import NasTypeError, NasValueError, explain
from nas.random_state import Rng, as_rng
from nas.space.exploration import Exploration
from nas.space.program import Device, Mutator, Program, as_device, as_mutators
from nas.space.questions import Answering, Handler, answering
from nas.tree import Choice, SearchSpace, Where, draw_html, draw_text, size_text, unknown_label

H = TypeVar("H", bound=Handler)

ARCHITECTURE = "nas_architecture"
"""The attribute of a built model that says which architecture it is: a plain dict of its sample and its labels."""

_MOST_TOLD = 50  # unknown labels of one message


@explained(methods=True)
@final
class ModelSpace:
    """The architectures that one program with choices can build.

    Args:
        source: a class or instance decorated with `@model_space`, any function or class that builds an `nn.Module`, or
            any plain `nn.Module` (copied for each build).
        *args: what the class or function is called with, by position.
        mutators: changes from outside, applied in order; their choices belong to the space too.
        **kwargs: what it is called with by name.

    Raises:
        NasValueError: a model without any choice, or anything that the choices themselves refuse.
        NasTypeError: a source that builds no module.

    Example:
        >>> from nas import ValueChoice
        >>> space = ModelSpace(nn.Linear, 4, 2, mutators=())
        Traceback (most recent call last):
        ...
        nas.errors.NasValueError: a model space needs at least one choice, but Linear asks none; received ...
        >>> space = ModelSpace(lambda: nn.Linear(ValueChoice([4, 8], label="width"), 2))
        >>> [sample["width"] for sample in space.grid()]
        [4, 8]
    """

    def __init__(self, source: object, *args: Any, mutators: Iterable[Mutator] = (), **kwargs: Any) -> None:
        self._explore(Program(source, args, kwargs, mutators))
        if not self.search_space.choices:
            idle = self.program.idle
            nothing = f", and these mutators found nothing to change in it: {idle}" if idle else ""
            raise NasValueError(
                explain(
                    f"a model space needs at least one choice, but {self.name} asks none{nothing}",
                    got=source,
                    mend="ask a ValueChoice, LayerChoice, InputChoice or Repeat in its constructor (and decorate its "
                    "class with @model_space when you pass an instance), or give mutators",
                )
            )

    @classmethod
    def of(cls, program: Program) -> ModelSpace:
        """The space of a program, one without choices and one that builds no modules too."""
        space = cls.__new__(cls)
        space._explore(program)
        return space

    def _explore(self, program: Program) -> None:
        self.program = program
        self.hyperparameters: dict[str, Domain] = {}
        self._settings = SearchSpace(())
        exploration = Exploration(program.ask, looks=bool(program.mutators))
        self.search_space = self._architecture = exploration.explore()
        self._followers, self._former = exploration.followers, exploration.former
        self._exploration: Exploration | None = exploration
        if program.idle and self.search_space.choices:
            text = f"These mutators found nothing to change in {self.name}, and asked no choice: {program.idle}."
            warnings.warn(text, UserWarning, stacklevel=4)
        if not self.exact:
            self._warn(stacklevel=5)

    def _warn(self, stacklevel: int) -> None:
        doubts = "; ".join(f"{labels}: {why}" for labels, why in self.doubts.items())
        warnings.warn(
            f"The search space of {self.name} is not exact, for choices that depend on others may have been missed "
            f"({doubts}). They are found as the search goes on; `size` counts what is known.",
            UserWarning,
            stacklevel=stacklevel,
        )

    def _alike(self) -> ModelSpace:
        """The same space once more, to be changed."""
        other = ModelSpace.__new__(ModelSpace)
        other.__dict__.update(self.__dict__)
        return other

    def __getstate__(self) -> dict[str, Any]:
        # A space that travels builds, and does not grow.
        return {**self.__dict__, "_exploration": None}

    # The program.

    @property
    def name(self) -> str:
        """The name of the class or function."""
        return self.program.name

    @property
    def mutators(self) -> tuple[Mutator, ...]:
        """The changes from outside, in order."""
        return self.program.mutators

    def construct(self, handler: Handler, device: Device = None) -> nn.Module:
        """Runs the program with another handler answering its choices: how a supernet is made of it.

        Args:
            handler: answers every choice.
            device: where the parameters are made.

        Raises:
            NasTypeError: the program or a mutator builds something that is no module.
        """
        built: nn.Module = self.program.construct(handler, device)
        return built

    def without_weights(
        self, make: Callable[[], H], *, serves: Callable[[nn.Module], bool] | None = None, alone: bool = True
    ) -> tuple[nn.Module, H, Literal["meta", "cpu"]]:
        """Runs the program without weights, on the meta device or, where it needs numbers, on the CPU.

        Args:
            make: makes the handler that answers every choice; see `nas.weightless.without_weights`.
            serves: whether the module that was built on the meta device will do; where not, it is built on the CPU.
            alone: whether no other thread draws random numbers, so that the global generators can be put back.

        Returns:
            The module, the handler that has answered, and the device.
        """
        return self.program.without_weights(make, serves=serves, alone=alone)

    # What it spans.

    @property
    def size(self) -> int | float:
        """How many architectures the tree has, exactly (`math.inf` with an interval of reals)."""
        return self.search_space.size

    @property
    def exact(self) -> bool:
        """Whether the tree holds all architectures; if not, `doubts` says why, and `size` counts what is known."""
        return self.search_space.exact

    @property
    def doubts(self) -> dict[str, str]:
        """What could not be found out for certain: the labels of choices -> why. Empty where the space is exact."""
        return self.search_space.doubts

    def default(self) -> Sample:
        """The sample of the base model."""
        return self.complete(self.search_space.default())

    def sample(self, seed: Rng, where: Where | None = None) -> Sample:
        """A random sample; the same for the same seed.

        Args:
            seed: an int or a `random.Random`.
            where: a `nas.Constraint`, as in `where=nas.profile.profile(space, example).flops < 3e8`, or a function from
                a sample to a bool.

        Raises:
            NasValueError: no sample satisfies the constraint, or none was found.
        """
        return (self.search_space if where is None else self.search_space.where(where)).sample(seed)

    def where(self, constraint: Where) -> ModelSpace:
        """This space without the samples that do not satisfy a constraint: strategies search what is left.

        Args:
            constraint: a `nas.Constraint`, or a function from a sample to a bool.

        Raises:
            NasValueError: no sample satisfies it, where the constraint can tell.

        Example:
            >>> from nas import ValueChoice
            >>> space = ModelSpace(lambda: nn.Linear(ValueChoice([4, 8], label="width"), 2))
            >>> list(space.where(lambda sample: sample["width"] > 4).grid())
            [{'width': 8}]
        """
        narrow = self._alike()
        narrow.search_space = self.search_space.where(constraint)
        return narrow

    def grid(self) -> Iterator[Sample]:
        """Every sample once, lazily, in product order."""
        return self.search_space.grid()

    def mutate(self, sample: Mapping[str, Answer], rng: Rng, probability: float | None = None) -> Sample:
        """A neighbour of a sample: exactly one choice changed, or each with the given probability."""
        rng = as_rng(rng, "rng")
        child = self.search_space.mutate(self.validate(sample), rng, probability)
        if self.exact:
            return child
        return self._asked(child, rng, loose=True).answers | self._settings_of(child, rng)

    def validate(self, sample: Mapping[str, Answer]) -> Sample:
        """Checks a sample, and returns it in canonical form.

        Raises:
            NasValueError: unknown, missing, inactive or out-of-domain labels, all in one message.
        """
        sample = self._renamed(sample)
        if self.exact:
            return self.search_space.validate(sample)
        # The tree may lack choices, or know too little of when they are asked: the program itself says.
        asked = self._asked(sample).answers
        asked |= self._settings_of(sample)
        if asked.keys() != sample.keys():
            unasked = [f"{label!r} is not asked under these answers" for label in sample if label not in asked]
            missing = [f"the answer of {label!r} is missing" for label in asked if label not in sample]
            raise NasValueError(explain("the sample is not of this space: " + "; ".join(unasked + missing), got=sample))
        if not self.search_space.allows(asked):
            raise NasValueError(explain("the sample does not satisfy the constraint", got=self.search_space.constraint))
        return asked

    def _renamed(self, sample: Mapping[str, Answer]) -> Sample:
        """The sample with the labels of today, where it has those of before."""
        check_sample(sample)
        known = self.search_space.domains
        return {label if label in known else self._former.get(label, label): sample[label] for label in sample}

    def contains(self, sample: Mapping[str, Answer]) -> bool:
        """Whether `validate` accepts the sample."""
        try:
            self.validate(sample)
        except (NasValueError, NasTypeError):
            return False
        return True

    def complete(self, sample: Mapping[str, Answer], seed: Rng | None = None) -> Sample:
        """Fills missing labels: with defaults, or with draws where a seed is given.

        Raises:
            NasValueError: labels that are unknown, or answers outside their domain.
        """
        rng = None if seed is None else as_rng(seed)
        sample = self._renamed(sample)
        handler = self._asked(sample, rng)
        found = handler.answers
        found |= self._settings_of(sample, rng)
        unknown = [label for label in sample if label not in found]
        if unknown:
            told = (unknown_label(label, self.search_space.domains) for label in unknown[:_MOST_TOLD])
            raise NasValueError(" ".join(told))
        return found

    def grow(self, sample: Mapping[str, Answer]) -> bool:
        """Learns from a sample that a build has completed, where it has other choices than the tree says.

        Returns:
            Whether the tree knows more than before.
        """
        if self._exploration is None:
            return False
        mine = self._without_settings(sample)
        _, wrong, unknown = self._architecture.problems(mine)
        if not wrong and not unknown:
            return False
        constraint, was_exact = self.search_space.constraint, self.exact
        self._architecture = self._exploration.meet(mine)
        self._followers, self._former = self._exploration.followers, self._exploration.former
        grown = self._architecture.joined(self._settings)
        self.search_space = SearchSpace(grown.choices, constraint, grown.doubts)
        if was_exact:
            self._warn(stacklevel=4)
        return True

    def with_hyperparameters(self, asked: Mapping[str, Domain | ModelSpace]) -> ModelSpace:
        """This space joined with choices that the model does not ask: an evaluator's learning rate, say.

        Args:
            asked: label -> domain; or a keyword -> a space whose choices stand under their own labels.

        Raises:
            NasValueError: one label with two domains.
        """
        joint = self._alike()
        for keyword, added in asked.items():
            tree = added.search_space if isinstance(added, ModelSpace) else SearchSpace.of({keyword: added})
            joint.search_space = joint.search_space.joined(tree)
            joint._settings = joint._settings.joined(tree)
        joint.hyperparameters = dict(joint._settings.domains)
        return joint

    def _without_settings(self, sample: Mapping[str, Answer]) -> Sample:
        known = self._architecture.domains
        return {n: answer for n, answer in sample.items() if n in known or n not in self.hyperparameters}

    def _settings_of(self, sample: Mapping[str, Answer], rng: random.Random | None = None) -> Sample:
        """What the sample says of the hyperparameters; defaults or draws for what it does not."""
        mine = {label: answer for label, answer in sample.items() if label in self.hyperparameters}
        return self._settings.extend(mine, rng)

    def with_mutators(self, mutators: Iterable[Mutator]) -> ModelSpace:
        """This space with more mutators, applied after its own."""
        program = self.program
        both = (*program.mutators, *as_mutators(mutators))
        space = ModelSpace(program.source, *program.args, mutators=both, **program.kwargs)
        constraint = self.search_space.constraint
        return space if constraint is None else space.where(constraint)

    # From a sample to a module.

    def build(self, sample: Mapping[str, Answer], *, device: Device = None) -> nn.Module:
        """The architecture of a sample, as an ordinary module with fresh weights.

        Choices met only through the value of another may be missing; they take their defaults. The complete sample is
        `vars(model)["nas_architecture"]["sample"]`.

        Args:
            sample: label -> answer.
            device: where its parameters are made; on "meta" it has none, whatever its constructor needs.

        Raises:
            NasValueError: the sample is not of this space.
        """
        mine = self._without_settings(self._renamed(sample))
        if self.exact:
            mine = self._architecture.validate(self._filled(mine))
        module, found = self._build(mine, None, as_device(device))
        if self.exact and found.keys() != mine.keys():
            self.grow(found)
        if never := [label for label in mine if label not in found]:
            raise NasValueError(" ".join(unknown_label(label, self.search_space.domains) for label in never))
        return module

    def _filled(self, sample: Sample) -> Sample:
        """The sample with the defaults of the choices that it leaves out, among those that follow another's value."""
        found = dict(sample)

        def decide(choice: Choice) -> Answer:
            if choice.label in self._followers:
                found.setdefault(choice.label, choice.default)
            return found.get(choice.label)

        self._architecture.walk(decide)
        return found

    def build_completed(self, sample: Mapping[str, Answer], seed: Rng) -> tuple[nn.Module, Sample]:
        """Builds a proposed sample, drawing what it lacks and dropping what the program does not ask.

        Where the space is not exact, an answer that the program does not allow under the others is drawn anew too.

        Returns:
            The module, and the sample that it was built from, hyperparameters included.
        """
        module, found = self._build(sample, as_rng(seed), None, loose=not self.exact)
        return module, found | self._settings_of(sample)

    def _build(
        self, sample: Mapping[str, Answer], rng: random.Random | None, device: Device, *, loose: bool = False
    ) -> tuple[nn.Module, Sample]:
        make = answering(sample, rng, loose=loose)
        if device is not None and torch.device(device).type == "meta":
            module, handler, where = self.without_weights(make)
            module = copy_module(module, on_meta=True) if where == "cpu" and isinstance(module, nn.Module) else module
        else:
            handler = make()
            module = self.construct(handler, device)
        labels = {label: repr(question.domain) for label, question in handler.questions.items()}
        if isinstance(module, nn.Module):
            module.__dict__[ARCHITECTURE] = {"sample": dict(handler.answers), "labels": labels}
        return module, handler.answers

    def _asked(
        self, sample: Mapping[str, Answer], rng: random.Random | None = None, *, loose: bool = False
    ) -> Answering:
        """Runs the program without weights; the handler then holds what it asked and was answered."""
        return self.without_weights(answering(sample, rng, loose=loose))[1]

    def __repr__(self) -> str:
        kind = "ModelSpace" if self.program.modules else "search_space"
        return f"{kind}({self.name}: {size_text(self.search_space)})"

    def __str__(self) -> str:
        return draw_text(self.name, self.search_space)

    def _repr_html_(self) -> str:
        return draw_html(self.name, self.search_space)
