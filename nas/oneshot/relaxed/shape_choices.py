"""Which parameters' shapes the ValueChoices of a space decide: found by building the supernet without weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from nas._compat.torch_internals import (
    Convolution,
    InstanceNorm,
    NormBase,
    TransposedConvolution,
    children_of,
    own_buffers,
    own_parameters,
)
from nas.copying import same_kind
from nas.domains import Answer, Sample
from nas.errors import NasError, NasValueError, explain
from nas.oneshot.relaxed.handler import Relax
from nas.oneshot.relaxed.parametrised import computed_weights, difference_of_computed
from nas.space import ModelSpace

MakeHandler: TypeAlias = Callable[[Mapping[str, Answer] | None], Relax]
NamedDim: TypeAlias = tuple[str, int]
"""A parameter or buffer, and one of its dimensions."""

_MOST_ANSWERS = 1024
_MEND = "make it a LayerChoice of whole layers, or search this space by paths"


@final
@dataclass(frozen=True, kw_only=True)
class Network:
    """A supernet without weights, for some answers of the ValueChoices."""

    module: nn.Module
    shapes: dict[str, tuple[int, ...]]
    """Of its parameters and buffers."""


@final
class ShapeChoices:
    """The ValueChoices of a space, and what they decide.

    Args:
        space: of the choices.
        handler: makes the handler of a supernet for given answers.

    Attributes:
        questions: label -> question, of those with more than one answer.
        dependence: parameter or buffer -> dimension -> the labels that its size depends on.

    Raises:
        NasValueError: ValueChoices that are no shapes, that decide which modules there are, or whose masks would not
            be exact; all of them in one message.
    """

    def __init__(self, space: ModelSpace, handler: MakeHandler) -> None:
        self._space, self._handler = space, handler
        module, relax, _ = space.without_weights(lambda: handler(None))
        self._default = Network(module=module, shapes=_shapes(module))
        self.questions = {label: question for label, question in relax.values.items() if question.domain.size > 1}
        # Networks with one answer each, in which sizes that depend on its label are not changed by other labels.
        self._varied: dict[tuple[str, Answer], Network] = {}
        self._touched: dict[str, set[NamedDim]] = {}
        problems = self._explore()
        problems += [
            explain(
                "its answers change no shape of a parameter, so that there is nothing to mix",
                got=self.questions[label].domain,
                where=f"ValueChoice {label!r}",
                mend=_MEND,
            )
            for label, places in self._touched.items()
            if not places and label not in relax.depth_labels
        ]
        if problems:
            raise NasValueError("\n".join(problems))
        self.dependence: dict[str, dict[int, set[str]]] = {}
        for label, places in self._touched.items():
            for name, dim in sorted(places):
                self.dependence.setdefault(name, {}).setdefault(dim, set()).add(label)

    def network(self, answers: Mapping[str, Answer]) -> Network:
        """The supernet for these answers, all others the default."""
        module, _, _ = self._space.without_weights(lambda: self._handler(answers))
        return Network(module=module, shapes=_shapes(module))

    def largest(self) -> Sample:
        """For each label the answer whose sizes are largest."""

        def sizes(label: str, answer: Answer) -> int:
            shapes = self._varied.get((label, answer), self._default).shapes
            return sum(shapes[name][dim] for name, dim in self._touched[label])

        return {
            label: max(question.domain.values(), key=lambda answer: sizes(label, answer))
            for label, question in self.questions.items()
        }

    def _explore(self) -> list[str]:
        """Finds what each label touches, then varies labels together that touch different sizes; what is wrong."""
        problems = []
        for label, question in self.questions.items():
            if question.domain.size > _MOST_ANSWERS:
                problems.append(
                    explain(
                        f"a choice of more than {_MOST_ANSWERS} answers is not relaxed",
                        got=question.domain,
                        where=f"ValueChoice {label!r}",
                        mend="give it a larger step",
                    )
                )
                continue
            _, touched, problem = self._try({label: self._others(label)[-1]})
            if problem is None:
                self._touched[label] = touched
            else:
                problems.append(problem)
        for group in _disjoint(self._touched):
            problems += self._vary(group)
        return problems

    def _vary(self, labels: Sequence[str]) -> list[str]:
        """Notes networks for all answers of some labels, in as many builds as one of them has answers."""
        others = [self._others(label) for label in labels]
        expected = set[NamedDim]().union(*(self._touched[label] for label in labels))
        for number in range(max(map(len, others))):
            answers = {label: found[min(number, len(found) - 1)] for label, found in zip(labels, others, strict=True)}
            network, touched, problem = self._try(answers)
            if len(labels) > 1 and (network is None or problem is not None or not touched <= expected):
                return [found for label in labels for found in self._vary([label])]
            if network is None or problem is not None:
                return [str(problem)]
            for label, answer in answers.items():
                self._varied[label, answer] = network
            if len(labels) == 1:
                self._touched[labels[0]] |= touched
        return []

    def _others(self, label: str) -> list[Answer]:
        """The answers beside the default."""
        question = self.questions[label]
        return [answer for answer in question.domain.values() if answer != question.default]

    def _try(self, answers: Mapping[str, Answer]) -> tuple[Network | None, set[NamedDim], str | None]:
        """The network of some answers, the sizes in it that differ from the default, and what is wrong with it."""
        where = ", ".join(f"ValueChoice {label!r}" for label in answers)
        given = ", ".join(map(repr, answers.values()))
        try:
            network = self.network(answers)
        except NasError as error:
            text = f"for {given}, all others at their defaults, nothing can be built ({error})"
            return None, set(), explain(text, where=where, mend="search this space by paths")
        problem = _difference(self._default.module, network.module)
        if problem is not None:
            return None, set(), explain(f"for {given} {problem[0]}", where=where, mend=problem[1])
        touched = {
            (name, dim)
            for name, shape in network.shapes.items()
            for dim, size in enumerate(shape)
            if size != self._default.shapes[name][dim]
        }
        return network, touched, None

    def joint(self, labels: Sequence[str]) -> dict[tuple[Answer, ...], Network]:
        """All joint answers of some labels, each with a network that has them.

        Raises:
            NasValueError: too many.
        """
        domains = [self.questions[label].domain for label in labels]
        number = math.prod(domain.size for domain in domains)
        if number > _MOST_ANSWERS:
            raise NasValueError(
                explain(
                    f"one size depends on {number:,} joint answers, more than {_MOST_ANSWERS:,}",
                    where=", ".join(f"ValueChoice {label!r}" for label in labels),
                    mend="let each size depend on fewer choices, or give these fewer answers",
                )
            )
        if len(labels) == 1:
            return {(answer,): self._varied.get((labels[0], answer), self._default) for answer in domains[0].values()}
        answers = itertools.product(*(domain.values() for domain in domains))
        return {joint: self.network(dict(zip(labels, joint, strict=True))) for joint in answers}


def _disjoint(touched: Mapping[str, set[NamedDim]]) -> list[list[str]]:
    """The labels in groups within which no two touch the same size."""
    groups: list[tuple[list[str], set[NamedDim]]] = []
    for label, places in touched.items():
        for labels, taken in groups:
            if taken.isdisjoint(places):
                labels.append(label)
                taken |= places
                break
        else:
            groups.append(([label], set(places)))
    return [labels for labels, _ in groups]


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    lazy = [name for name, tensor in tensors if is_lazy(tensor)]
    if lazy:
        raise NasValueError(
            explain(
                "lazy layers have no weights to share before a first forward pass",
                got=lazy,
                where="RelaxedSupernet",
                mend="give them their sizes, or run an example through the model at the end of its constructor",
            )
        )
    return {name: tuple(tensor.shape) for name, tensor in tensors}


def _difference(usual: nn.Module, other: nn.Module) -> tuple[str, str] | None:
    """Why masks cannot turn one network into the other, and the mend; None where they can."""
    ours, theirs = dict(usual.named_modules()), dict(other.named_modules())
    for name in [*ours, *theirs]:
        kinds = [type(modules[name]) if name in modules else None for modules in (ours, theirs)]
        if kinds[0] is None or kinds[1] is None or not same_kind(kinds[0], kinds[1]):
            here, there = ("nothing" if kind is None else kind.__name__ for kind in kinds)
            return (
                f"there is {there} at {name!r} where else is {here}, which no mask can do",
                "ask a Repeat for a depth, and a LayerChoice for what kind of layer there is",
            )
    for name, module in ours.items():
        twin = theirs[name]
        reason = difference_of_computed(module, twin) or _leaf_difference(module, twin)
        if reason is not None:
            return f"{type(module).__name__} {name!r} {reason}", _MEND
        for tensor in [*own_parameters(module), *own_buffers(module)]:
            first, second = getattr(module, tensor, None), getattr(twin, tensor, None)
            dims = [None if found is None else found.dim() for found in (first, second)]
            if dims[0] != dims[1]:
                return f"{tensor} of {name!r} is there or not, or has other dimensions", _MEND
    return None


def _leaf_difference(module: nn.Module, twin: nn.Module) -> str | None:
    """Why masks cannot turn a layer of torch into the other."""
    computed = bool(computed_weights(module))
    kind = type(module).__base__ if is_parametrized(module) else type(module)  # torch derives one from that
    holds_others = bool(children_of(module)) and not own_parameters(module) and not computed
    if kind is None or not kind.__module__.startswith("torch.nn.") or holds_others:
        return None  # a layer of the user's, or a container
    ours, theirs = _attributes(module), _attributes(twin)
    changed = [name for name in ours if ours[name] != theirs.get(name)]
    if not changed:
        return None
    if isinstance(module, nn.Linear | NormBase | nn.Embedding) and not isinstance(module, InstanceNorm):
        allowed = {"in_features", "out_features", "num_features", "embedding_dim", "num_embeddings"}
    elif isinstance(module, Convolution) and isinstance(twin, Convolution):
        reason = _conv_difference(module, twin)
        if reason is not None:
            return reason
        allowed = {"in_channels", "out_channels", "kernel_size", "padding", "groups"}
    elif next(module.parameters(), None) is not None:
        return (
            f"works across the dimension that {changed[0]} decides, so that masked entries would change the others "
            "(only convolution, linear and batch norm are exact)"
        )
    else:
        allowed = set()
    wrong = [name for name in changed if name not in allowed]
    return f"has another {wrong[0]}, which is no shape of a parameter" if wrong else None


def _conv_difference(module: Convolution, twin: Convolution) -> str | None:
    transposed = isinstance(module, TransposedConvolution)
    if module.kernel_size != twin.kernel_size:
        if transposed:
            return "has another kernel, which masks fit to convolutions that are not transposed"
        if module.padding_mode != "zeros":
            return "has another kernel, which masks fit to a padding of zeros"
        if isinstance(module.padding, str) or isinstance(twin.padding, str):
            centred = module.padding == twin.padding == "same" and all(
                (a - b) % 2 == 0 for a, b in zip(module.kernel_size, twin.kernel_size, strict=True)
            )
        else:
            sides = zip(
                module.kernel_size, twin.kernel_size, module.padding, twin.padding, module.dilation, strict=True
            )
            centred = all(dilation * (a - b) == 2 * (pad - other) for a, b, pad, other, dilation in sides)
        if not centred:
            return (
                "has another kernel, but not the padding that centres it (half of what the kernel grows by, times the "
                "dilation)"
            )
    elif module.padding != twin.padding:
        return "has another padding, which is no shape of a parameter"
    channels = (module.in_channels, module.out_channels)
    if module.groups != twin.groups or (module.groups > 1 and channels != (twin.in_channels, twin.out_channels)):
        if transposed or any(conv.groups != conv.in_channels for conv in (module, twin)):
            return "has other groups, which masks fit only where each channel is its own group"
        if any(conv.out_channels != conv.in_channels for conv in (module, twin)):
            return "has other groups, and more than one filter for each"
    return None


def _attributes(module: nn.Module) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(module).items()
        if name[0] != "_" and name != "training" and not isinstance(value, Tensor)  # a weight that was computed
    }
