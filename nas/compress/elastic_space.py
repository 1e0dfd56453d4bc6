"""Any trained module as a model space: fewer channels, fewer heads, fewer blocks, with the weights that it has."""

from __future__ import annotations

import copy
import fnmatch
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, final

import torch
from torch import nn

from nas.calls import explained
from nas.checks import check_bool
from nas.compress.dependencies import (
    Fitting,
    Group,
    Passage,
    Thinning,
    Trace,
    droppable,
    find_groups,
    innermost,
    new_trace,
    reorder,
    run,
    with_thin_attention,
    wrongly_ordered,
)
from nas.compress.importance import Importance, check_importance, scores
from nas.copying import copy_module
from nas.errors import NasTypeError, NasValueError, close_names, explain
from nas.example_inputs import Example, Inputs, read_example
from nas.space import LayerChoice, ModelSpace, Mutator, ValueChoice, replace_module

KEEP, DROP = "keep", "drop"


@final
class Elastic(Mutator):
    """What `elastic` lets vary in a model; the one mutator of the space that it returns.

    Attributes:
        groups: the channels and heads of which any number may be kept.
        blocks: the paths of the residual blocks that may be dropped, each with what it returns.
        refused: what cannot be thinned or dropped: the layer -> the reason.
        thinning: where in the tensors of the model the channels are.
    """

    def __init__(
        self,
        thinning: Thinning,
        groups: Sequence[Group],
        blocks: Mapping[str, int],
        widths: Sequence[float],
        refused: Mapping[str, str],
    ) -> None:
        self.groups, self.blocks, self.refused = tuple(groups), dict(blocks), dict(refused)
        self.thinning, self._widths = thinning, tuple(widths)
        self._inside = {path: [g for g in groups if _lies_in(g, path)] for path in blocks}

    def mutate(self, model: nn.Module) -> None:
        """Asks how much of each group and which blocks are kept, and removes the rest."""
        modules: dict[str, nn.Module] = dict(model.named_modules())
        counts: dict[str, int] = {}

        def ask(group: Group) -> None:
            choices = sizes(group, self._widths)
            counts[group.label] = int(ValueChoice(choices, label=group.label, default=group.size))

        inside = {group.label for groups in self._inside.values() for group in groups}
        for group in self.groups:
            if group.label not in inside:
                ask(group)

        def kept(path: str) -> nn.Module:
            for group in self._inside[path]:
                ask(group)
            return modules[path]

        for path, returned in self.blocks.items():
            candidates: dict[str, Callable[[], nn.Module]] = {
                KEEP: functools.partial(kept, path),
                DROP: functools.partial(Passage, returned),
            }
            replace_module(model, path, LayerChoice(candidates, label=path, default=KEEP))
        self.thinning.apply(modules, [counts.get(group.label, group.size) for group in self.groups])

    def __repr__(self) -> str:
        return f"Elastic({len(self.groups)} groups, {len(self.blocks)} blocks)"


def sizes(group: Group, widths: Sequence[float]) -> list[int]:
    """How many may be kept of a group, in ascending order; all of them is always among it."""
    return sorted({max(1, round(group.size * width)) for width in widths} | {group.size})


def _lies_in(group: Group, path: str) -> bool:
    return all(name.startswith(f"{path}.") for name, _ in group.slots)


@explained()
def elastic(
    model: nn.Module,
    example_input: Example,
    *,
    widths: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    blocks: bool = True,
    heads: bool = True,
    only: str | Iterable[str] | None = None,
    skip: str | Iterable[str] | None = None,
    importance: Importance = "l2",
    data: Iterable[Any] | None = None,
) -> ModelSpace:
    """A trained model as a space of smaller ones, which have its weights.

    The model is run once on the example, operator by operator. That shows which dimensions of which parameters must
    become shorter together: residual streams, convolutions with the norms behind them, gated layers, heads that share
    keys and values, groups of convolutions, what is concatenated or flattened, tied weights. For each such group one
    choice asks how many channels or heads are kept; its label is the layer that makes them. Each residual block may be
    kept or dropped by itself. `space.build(sample)` is an ordinary module that has the most important ones, and the
    default sample is the model itself. The model that was given is not changed.

    What was found is checked before it is offered: the channels of every group change places, which must change nothing
    in what the model computes, and thinned models must run, with every tensor as long as foretold. What fails is
    refused, and so is what a user of the model could see, the channels that it returns:
    `space.mutators[0].refused` says of each layer why it stays as it is.

    Args:
        model: the model, with its weights; it is run in evaluation mode.
        example_input: what it is called with, batch included: a tensor, a shape, a tuple of arguments, or a dict of
            keywords.
        widths: the shares of each group that may be kept; all of it always may.
        blocks: whether residual blocks may be dropped.
        heads: whether heads of attentions may be removed.
        only: names of layers or patterns ("layer1.*") beside which nothing changes; a name stands for all that is in
            it.
        skip: names or patterns of what does not change.
        importance: which channels and heads are kept first: by their weights "l1", "l2", "fpgm" (distance to the
            others), "batchnorm" (what a BatchNorm multiplies them with; where there is none, "l2") or "random"; on data
            "activation" (weight times norm of the input), "apoz" (how often it is positive), "mean" (how large it is),
            "taylor" or "movement" (by gradients); or a function of the weights of a group, by the names of the
            parameters "(channels, numbers)", that returns one number for each channel.
        data: batches, for what is measured on data: inputs, or pairs of inputs and targets. Where no layer reads the
            channels of a group by themselves, "l2" stands for what is measured on activations.

    Returns:
        The space. Its samples say, by layer, how many channels or heads are kept, and of blocks "keep" or "drop".

    Raises:
        NasTypeError: no module, or an argument of another kind.
        NasValueError: a width that is no share, a name that is none of the model, or a model of which nothing can be
            thinned or dropped.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
        >>> space = elastic(net, (1, 3, 8, 8))
        >>> space.default(), space.mutators[0].refused
        ({'0.channels': 8}, {'4': 'the model returns it'})
        >>> small = space.build({"0.channels": 2})
        >>> small[0], small[4].in_features
        (Conv2d(3, 2, kernel_size=(3, 3), stride=(1, 1)), 72)
    """
    if not isinstance(model, nn.Module):
        raise NasTypeError(explain("the model must be a torch.nn.Module", got=model, where="elastic"))
    shares = _check_widths(widths)
    check_bool("blocks", blocks, where="elastic")
    check_bool("heads", heads, where="elastic")
    check_importance(importance, data)
    chosen = _Names(model, only, skip)
    inputs = read_example(example_input)
    source = with_thin_attention(copy_module(model))
    trace, make, where = _traced(source, inputs)
    groups = find_groups(trace)
    left_out = [g.label for g in groups.groups if not chosen(_layer(g.label)) or (g.kind == "heads" and not heads)]
    groups = groups.without(dict.fromkeys(left_out, ""))
    groups.refused = {layer: why for layer, why in groups.refused.items() if why and chosen(layer)}
    groups = groups.without(wrongly_ordered(lambda: copy_module(source), _beside(source, inputs), groups))
    fitting = Fitting(make, where, trace, groups)
    fitting.fit(lambda group: sizes(group, shares)[0])
    groups = fitting.groups
    found, lasting = {path: n for path, n in innermost(trace).items() if blocks and chosen(path)}, dict[str, str]()
    if found:
        smallest = [sizes(group, shares)[0] for group in groups.groups]
        found, lasting = droppable(make, where, fitting.thinning, groups, found, smallest)
    refused = {**groups.refused, **lasting}
    if not found and all(len(sizes(group, shares)) < 2 for group in groups.groups):
        raise _nothing(model, refused)
    if groups.groups:
        ranks = scores(copy_module(source), groups, importance, data)
        reorder(source, groups, [torch.argsort(rank, descending=True, stable=True).cpu() for rank in ranks])
    return ModelSpace(source, mutators=[Elastic(fitting.thinning, groups.groups, found, shares, refused)])


def _check_widths(widths: object) -> tuple[float, ...]:
    rule = "widths are shares of the channels, above 0 and up to 1"
    if isinstance(widths, str) or not isinstance(widths, Iterable):
        raise NasTypeError(explain(rule, got=widths, where="elastic", mend="widths=(0.25, 0.5, 1.0)"))
    found = tuple(widths)
    for width in found:
        if isinstance(width, bool) or not isinstance(width, int | float):
            raise NasTypeError(explain(rule, got=widths, where="elastic", mend="widths=(0.25, 0.5, 1.0)"))
        if not 0 < width <= 1:
            raise NasValueError(explain(rule, got=widths, where="elastic", mend="widths=(0.25, 0.5, 1.0)"))
    return found


@final
class _Names:
    """Which layers may change."""

    def __init__(self, model: nn.Module, only: object, skip: object) -> None:
        names = [name for name, _ in model.named_modules() if name]
        self._only, self._skip = _patterns("only", only, names), _patterns("skip", skip, names)

    def __call__(self, layer: str) -> bool:
        return (self._only is None or _matches(layer, self._only)) and not _matches(layer, self._skip or [])


def _patterns(argument: str, given: object, names: Sequence[str]) -> list[str] | None:
    if given is None:
        return None
    found: list[str] = []
    for pattern in [given] if isinstance(given, str) or not isinstance(given, Iterable) else given:
        if not isinstance(pattern, str):
            mend = f'{argument}="layer1" or {argument}=["layer1", "layer2.*"]'
            raise NasTypeError(explain(f"{argument} names layers", got=given, where="elastic", mend=mend))
        if not any(_matches(name, [pattern]) for name in names):
            rule = f"no layer is called {pattern!r}; {close_names(pattern, names)}"
            raise NasValueError(explain(rule, got=given, where=f"elastic, {argument}"))
        found.append(pattern)
    return found


def _matches(layer: str, patterns: Sequence[str]) -> bool:
    return any(layer == p or layer.startswith(f"{p}.") or fnmatch.fnmatchcase(layer, p) for p in patterns)


def _layer(label: str) -> str:
    return label.rpartition(".")[0]


def _traced(source: nn.Module, inputs: Inputs) -> tuple[Trace, Callable[[], nn.Module], Inputs]:
    """The trace of a model, without numbers where it runs so; and how to make copies that run alike, with inputs."""
    trace = new_trace()
    try:
        where = inputs.on("meta")
        run(copy_module(source, on_meta=True), where, trace, labelled=True)
        return trace, lambda: copy_module(source, on_meta=True), where
    except Exception:
        pass  # outside of this block, so that a second error does not show the first one as its cause
    trace, where = new_trace(), _beside(source, inputs)
    try:
        run(copy_module(source), where, trace, labelled=True)
    except Exception as error:
        rule = f"the model does not run on the example ({type(error).__name__}: {error})"
        raise NasValueError(explain(rule, got=str(inputs), where="elastic")) from error
    return trace, lambda: copy_module(source), where


def _beside(model: nn.Module, inputs: Inputs) -> Inputs:
    """The inputs, with numbers, where the model is."""
    place = next((p.device for p in model.parameters()), torch.device("cpu"))
    return copy.copy(inputs.on(place))


def _nothing(model: nn.Module, refused: Mapping[str, str]) -> NasValueError:
    reasons = "; ".join(f"{layer}: {why}" for layer, why in list(refused.items())[:8])
    rule = f"nothing of {type(model).__name__} can be thinned or dropped" + (f" ({reasons})" if reasons else "")
    return NasValueError(explain(rule, where="elastic", mend="other widths, or other layers in only= and skip="))
