"""Which parameters' shapes the ValueChoices of a space decide: found by building the supernet without weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import is_lazy

from nas.domains import Answer
from nas.errors import NasError, NasValueError, explain
from nas.oneshot.relaxing import Relax, relaxed_on_meta
from nas.samples import Sample
from nas.space import ModelSpace

MakeHandler: TypeAlias = Callable[[Mapping[str, Answer] | None], Relax]

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
        self._networks: dict[tuple[tuple[str, Answer], ...], Network] = {}
        module, relax = relaxed_on_meta(space, lambda: handler(None))
        self._default = Network(module=module, shapes=_shapes(module))
        self.questions = {label: question for label, question in relax.values.items() if question.domain.size > 1}
        self._networks[()] = self._default
        self.dependence: dict[str, dict[int, set[str]]] = {}
        problems = []
        for label in self.questions:
            changed, problem = self._try(label)
            if problem is None and not changed and label not in relax.depth_labels:
                problem = explain(
                    "its answers change no shape of a parameter, so that there is nothing to mix",
                    got=self.questions[label].domain,
                    where=f"ValueChoice {label!r}",
                    mend=_MEND,
                )
            problems += [] if problem is None else [problem]
        if problems:
            raise NasValueError("\n".join(problems))

    def network(self, answers: Mapping[str, Answer]) -> Network:
        """The supernet for these answers, all others the default."""
        key = tuple(
            (label, answers[label])
            for label, question in self.questions.items()
            if label in answers and answers[label] != question.default
        )
        if key not in self._networks:
            module, _ = relaxed_on_meta(self._space, lambda: self._handler(dict(key)))
            self._networks[key] = Network(module=module, shapes=_shapes(module))
        return self._networks[key]

    def largest(self) -> Sample:
        """For each label the answer with the most numbers in all parameters."""

        def numbers(label: str, answer: Answer) -> int:
            return sum(math.prod(shape) for shape in self.network({label: answer}).shapes.values())

        return {
            label: max(question.domain.values(), key=lambda answer: numbers(label, answer))
            for label, question in self.questions.items()
        }

    def joint_answers(self, labels: Sequence[str]) -> Iterator[tuple[Answer, ...]]:
        """All joint answers of some labels.

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
        return itertools.product(*(domain.values() for domain in domains))

    def _try(self, label: str) -> tuple[bool, str | None]:
        """Whether some shape depends on a label, and what is wrong with it, if anything."""
        where, domain = f"ValueChoice {label!r}", self.questions[label].domain
        if domain.size > _MOST_ANSWERS:
            return False, explain(
                f"a choice of more than {_MOST_ANSWERS} answers is not relaxed",
                got=domain,
                where=where,
                mend="give it a larger step",
            )
        changed = False
        for answer in domain.values():
            try:
                network = self.network({label: answer})
            except NasError as error:
                return False, explain(
                    f"for {answer!r}, all others at their defaults, nothing can be built ({error})",
                    where=where,
                    mend="search this space by paths",
                )
            problem = _difference(self._default.module, network.module)
            if problem is not None:
                return False, explain(f"for {answer!r} {problem[0]}", where=where, mend=problem[1])
            for name, shape in network.shapes.items():
                usual = self._default.shapes[name]
                for dim, (size, other) in enumerate(zip(usual, shape, strict=True)):
                    if size != other:
                        changed = True
                        self.dependence.setdefault(name, {}).setdefault(dim, set()).add(label)
        return changed, None


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
        kinds = [type(modules[name]).__name__ if name in modules else "nothing" for modules in (ours, theirs)]
        if kinds[0] != kinds[1]:
            return (
                f"there is {kinds[1]} at {name!r} where else is {kinds[0]}, which no mask can do",
                "ask a Repeat for a depth, and a LayerChoice for what kind of layer there is",
            )
    for name, module in ours.items():
        twin = theirs[name]
        reason = _leaf_difference(module, twin)
        if reason is not None:
            return f"{type(module).__name__} {name!r} {reason}", _MEND
        for tensor in [*module._parameters, *module._buffers]:
            first, second = getattr(module, tensor, None), getattr(twin, tensor, None)
            dims = [None if found is None else found.dim() for found in (first, second)]
            if dims[0] != dims[1]:
                return f"{tensor} of {name!r} is there or not, or has other dimensions", _MEND
    return None


def _leaf_difference(module: nn.Module, twin: nn.Module) -> str | None:
    """Why masks cannot turn a layer of torch into the other."""
    if not type(module).__module__.startswith("torch.nn.") or (module._modules and not module._parameters):
        return None  # a layer of the user's, or a container
    ours, theirs = _attributes(module), _attributes(twin)
    changed = [name for name in ours if ours[name] != theirs.get(name)]
    if not changed:
        return None
    if isinstance(module, nn.Linear | _NormBase | nn.Embedding) and not isinstance(module, _InstanceNorm):
        allowed = {"in_features", "out_features", "num_features", "embedding_dim", "num_embeddings"}
    elif isinstance(module, _ConvNd) and isinstance(twin, _ConvNd):
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


_InstanceNorm: Any = nn.modules.instancenorm._InstanceNorm


def _conv_difference(module: _ConvNd, twin: _ConvNd) -> str | None:
    transposed = isinstance(module, _ConvTransposeNd)
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
    return {name: value for name, value in vars(module).items() if name[0] != "_" and name != "training"}
