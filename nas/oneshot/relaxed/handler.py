"""The handler that makes a supernet of a program: every candidate is built, and mixtures stand where choices were."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

from torch import nn

from nas.domains import Answer, Subset
from nas.errors import NasValueError, explain
from nas.oneshot.relaxed.architecture import Mixing, RelaxedChoice
from nas.oneshot.relaxed.mixtures import MixedDepth, MixedInput, MixedLayer
from nas.oneshot.relaxed.partial_channels import PartialChannels
from nas.space import ChosenInputs, ChosenInt, Handler, ModelSpace, Question, Select, chosen_items, is_zero


@final
class Relax(Handler):
    """Answers layers, inputs and depths with mixtures, and values with given answers.

    Args:
        values: label -> answer of ValueChoices; the default where omitted.
        learn_edges: whether the edges of cells whose nodes read distinct states have weights of their own.
        partial_channels: of a mixture on an edge, the share 1/K of the channels that passes the candidates.

    Attributes:
        mixing: the weights that the mixtures read.
        values: label -> question, of all ValueChoices that were asked.
        edge_labels: the LayerChoices that stand on the edges of such cells, with their answers that mean no edge.
    """

    def __init__(
        self, values: Mapping[str, Answer] | None = None, *, learn_edges: bool = False, partial_channels: int = 1
    ) -> None:
        self.mixing = Mixing()
        self.values: dict[str, Question] = {}
        self.depth_labels: set[str] = set()
        self.edge_labels: dict[str, tuple[Answer, ...]] = {}
        self.thinned = False
        self._answers = dict(values or {})
        self._learn_edges, self._partial_channels = learn_edges, partial_channels
        self._fixed: dict[str, Answer] = {}
        self._on_edge = self._on_input = False

    def value(self, question: Question) -> Answer:
        """The given answer, or the default; an int remembers its question, so that Repeat can use it as its depth."""
        label = question.label
        if label in self._fixed:
            return self._fixed[label]
        self.values[label] = question
        answer = self._answers.get(label, question.default)
        if isinstance(answer, int) and not isinstance(answer, bool):
            answer = ChosenInt(answer)
            answer.question = question
        return answer

    def layer(self, question: Question, build: Callable[[Answer], nn.Module]) -> nn.Module:
        """The mixture of all candidates; where the answer is known, that candidate."""
        label, answers = question.label, list(question.domain.values())
        if label in self._fixed or len(answers) == 1:
            return build(self._fixed.get(label, answers[0]))
        self.mixing.add(RelaxedChoice(label=label, domain=question.domain, kind="answers"))
        on_edge, on_input, self._on_edge, self._on_input = self._on_edge, self._on_input, False, False
        candidates: dict[Answer, nn.Module] = {}
        for answer in answers:
            with self._assuming(label, answer):
                candidates[answer] = build(answer)
        self._on_edge, self._on_input = on_edge, on_input
        if on_edge:
            empty = tuple(a for a, module in candidates.items() if is_zero(module))
            self.edge_labels[label] = empty if len(empty) < len(answers) else ()
        if on_input and self._partial_channels > 1:
            self.thinned = True
            return PartialChannels(self.mixing, label, candidates, self._partial_channels)
        return MixedLayer(self.mixing, label, candidates)

    def inputs(self, question: Question, select: Select, each: Callable[[int], nn.Module] | None) -> nn.Module:
        """The mixture of all inputs."""
        label, domain = question.label, question.domain
        picked = select(question.default, {})
        assert isinstance(picked, ChosenInputs)
        choice = _input_choice(question, picked, each is not None, self._learn_edges)
        if domain.size == 1 and choice.kind != "edges":
            return select(domain.first, {} if each is None else {i: each(i) for i in chosen_items(domain.first)})
        if picked.reduction not in ("sum", "mean"):
            raise NasValueError(
                explain(
                    f"inputs that are reduced by {picked.reduction!r} cannot be mixed: weights do not choose what is "
                    "concatenated",
                    where=f"InputChoice {label!r}",
                    mend='reduce by "sum" or "mean", or search this space by paths',
                )
            )
        self.mixing.add(choice)
        passed: dict[int, nn.Module] | None = None
        if each is not None:
            on_edge, on_input = self._on_edge, self._on_input
            self._on_edge, self._on_input = choice.kind == "edges", True
            passed = {i: each(i) for i in range(picked.n_candidates)}
            self._on_edge, self._on_input = on_edge, on_input
        return MixedInput(self.mixing, label, picked, passed)

    def repeat(self, question: Question, block: Callable[[int], nn.Module]) -> nn.Module:
        """The mixture of all depths."""
        depths = list(question.domain.values())
        self.depth_labels.add(question.label)
        blocks = [block(i) for i in range(max(depths))]
        if len(depths) == 1:
            return nn.Sequential(*blocks)
        whole = tuple(float(depth == max(depths)) for depth in depths)
        self.mixing.add(RelaxedChoice(label=question.label, domain=question.domain, kind="answers", whole=whole))
        return MixedDepth(self.mixing, question.label, depths, blocks)

    @contextmanager
    def _assuming(self, label: str, answer: Answer) -> Iterator[None]:
        self._fixed[label] = answer
        try:
            yield
        finally:
            del self._fixed[label]


def _input_choice(question: Question, picked: ChosenInputs, passes: bool, learn_edges: bool) -> RelaxedChoice:
    """How the inputs of an InputChoice are weighed."""
    label, domain = question.label, question.domain
    answers = RelaxedChoice(label=label, domain=domain, kind="answers", whole=_all_inputs(question, picked))
    if not isinstance(domain, Subset):
        return answers
    if domain.k is None:
        return RelaxedChoice(label=label, domain=domain, kind="gates")
    if passes and not domain.replace:
        return RelaxedChoice(label=label, domain=domain, kind="edges", learned=learn_edges)
    return answers


def _all_inputs(question: Question, picked: ChosenInputs) -> tuple[float, ...] | None:
    """The weights of the answers by which each input is taken once: the sum of all inputs, or their mean."""
    if isinstance(question.domain, Subset) and question.domain.k is None:
        return None
    size = question.domain.size
    taken = size * len(chosen_items(question.domain.first))
    assert isinstance(size, int)
    return (1 / size if picked.reduction == "mean" else picked.n_candidates / taken,) * size


def relaxed_network(space: ModelSpace, handler: Relax) -> nn.Module:
    """The supernet that a handler makes of a space, with fresh weights."""
    network = space.construct(handler)
    _tidy(network)
    return network


def _tidy(network: nn.Module) -> None:
    """Makes the numbers of the layers plain again, and candidates leave the inputs that they share as they are."""
    for module in network.modules():
        attributes = vars(module)
        for name, value in attributes.items():
            attributes[name] = _plain(value)
        if attributes.get("inplace") is True:
            attributes["inplace"] = False


def _plain(value: Any) -> Any:
    if isinstance(value, ChosenInt):
        return int(value)
    if type(value) is tuple and any(isinstance(item, ChosenInt) for item in value):
        return tuple(map(_plain, value))
    return value
