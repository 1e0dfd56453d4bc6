"""The architecture parameters of a relaxed supernet, and the weights of its mixtures that rules make of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, final

import torch
from torch import Tensor, nn

from nas._compat.torch_internals import apply_along, apply_to
from nas.checks import check_int
from nas.domains import Answer, Domain, Sample, as_key
from nas.errors import NasTypeError, NasValueError, close_names, explain
from nas.oneshot.relaxed.parametrisations import Logits, Parametrisation

Rule: TypeAlias = Callable[[str, Tensor], "Tensor | tuple[Tensor, Sequence[int]]"]
"""Makes weights (n,) of a label and its logits (n,), whatever the parametrisation is.

A candidate whose weight is exactly 0 is not computed. To have the gradient of a weight of 0, return with the weights
the positions of all that are to be computed.
"""
Kind: TypeAlias = Literal["answers", "gates", "edges"]

_MOST_ANSWERS = 4096


@final
@dataclass(frozen=True, kw_only=True)
class RelaxedChoice:
    """What a label is in a relaxed supernet."""

    label: str
    domain: Domain
    kind: Kind
    """One weight for each answer; for each input of "any subset" an open and a closed gate; one for each edge."""
    learned: bool = True
    """Whether it has architecture parameters; the edges of a DARTS cell have none."""
    whole: tuple[float, ...] | None = field(default=None, compare=False)
    """What the answers weigh where nothing is left out; 1 each where omitted. Of gates: they are open."""

    @property
    def answers(self) -> tuple[Answer, ...]:
        """What is weighed: the answers of the domain, or the positions of the inputs."""
        if self.kind == "answers":
            return tuple(self.domain.values())
        return tuple(range(self.domain.n))  # type: ignore[attr-defined]  # a Subset: see handler.py

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the logits and of the weights."""
        number = len(self.answers)
        return (number, 2) if self.kind == "gates" else (number,)


@final
class Mixing:
    """The weights that the mixtures read in a forward pass, and what they have to compute.

    All copies of a model read the same one. It goes where the supernet goes that it belongs to; copies of the supernet
    do not take it along.

    Attributes:
        choices: label -> what it is here.
        weights: label -> (answers,); for any subset (inputs, 2), whose second column opens.
        active: label -> the positions that are computed.
        device: where the weights are, whatever they are made of.
    """

    def __init__(self) -> None:
        self.choices: dict[str, RelaxedChoice] = {}
        self.weights: dict[str, Tensor] = {}
        self.active: dict[str, tuple[int, ...]] = {}
        self.device = torch.device("cpu")
        self._goes_along: list[nn.Module] = []

    def belong_to(self, network: nn.Module, *others: nn.Module) -> None:
        """From now on `.to` and the like move and convert the weights with a network.

        Args:
            network: whose mixtures read them.
            *others: modules that it computes with, but that are not in it.
        """
        self._goes_along.extend(others)
        apply_along(network, self._apply)

    def _apply(self, move: Callable[[Tensor], Tensor]) -> None:
        self.device = move(torch.empty(0, device=self.device)).device
        self.weights = {label: move(weights) for label, weights in self.weights.items()}
        for module in self._goes_along:
            apply_to(module, move)

    def add(self, choice: RelaxedChoice) -> None:
        """Makes a label known, all its answers weighing the same until the architecture is mixed.

        Raises:
            NasValueError: too many answers, or a label that is mixed in two ways.
        """
        label, known = choice.label, self.choices.get(choice.label)
        if known is not None:
            if known != choice:
                raise NasValueError(
                    explain(
                        f"one label is mixed in one way, but this one by its {known.kind} and by its {choice.kind}",
                        where=f"label {label!r}",
                        mend="give one of the two choices another label",
                    )
                )
            return
        if choice.kind == "answers" and choice.domain.size > _MOST_ANSWERS:
            raise NasValueError(
                explain(
                    f"a choice of more than {_MOST_ANSWERS} answers is not relaxed",
                    got=choice.domain,
                    where=f"label {label!r}",
                    mend="give it fewer answers (a number a larger step, an InputChoice n_chosen=None)",
                )
            )
        self.choices[label] = choice
        share = {"answers": 1 / len(choice.answers), "gates": 0.5, "edges": 1.0}[choice.kind]
        self.weights[label] = torch.full(choice.shape, share)
        self.device = self.weights[label].device  # "meta" where a network is made for its shapes alone
        self.active[label] = tuple(range(len(choice.answers)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Mixing:
        return self


def softmax(label: str, logits: Tensor) -> tuple[Tensor, Sequence[int]]:
    """The rule of DARTS: every candidate, weighted by the softmax of the logits (arXiv 1806.09055, equation 2)."""
    # All are computed, so that nobody has to wait for a device to tell which weights are 0.
    return logits.softmax(-1), range(len(logits))


@final
class Architecture(nn.Module):
    """One parameter for each label of a relaxed supernet; none of them is a parameter of the model.

    The weights that are made of them lie where the model is, wherever the parameters are; move both, so that nothing is
    copied from one device to another in each step.

    Args:
        mixing: what the supernet asked; the weights are written there.
        seed: of the initial parameters.
        parametrisation: what the parameters are; the logits where omitted.

    Attributes:
        parametrisation: what the parameters are.
    """

    def __init__(self, mixing: Mixing, *, seed: int = 0, parametrisation: Parametrisation | None = None) -> None:
        super().__init__()
        self._mixing = mixing
        self.parametrisation = Logits() if parametrisation is None else parametrisation
        if not isinstance(self.parametrisation, Parametrisation):
            raise NasTypeError(
                explain("a parametrisation says what the parameters are", got=parametrisation, mend="Logits()")
            )
        generator = torch.Generator().manual_seed(check_int("seed", seed, where="Architecture"))
        self.logits = nn.ParameterDict()  # so called in checkpoints, whatever the parametrisation is
        for label, choice in mixing.choices.items():  # one by one: a dict at once would be sorted
            if choice.learned:
                initial = self.parametrisation.initial(choice.shape, generator)
                self.logits[_key(label)] = nn.Parameter(initial)
        self.mix()

    @property
    def mixing(self) -> Mixing:
        """Where the weights are written."""
        return self._mixing

    @property
    def labels(self) -> list[str]:
        """Those with parameters, in the order in which the program asked them."""
        return [label for label, choice in self._mixing.choices.items() if choice.learned]

    @property
    def choices(self) -> Mapping[str, RelaxedChoice]:
        """All labels of the supernet, those without parameters too."""
        return self._mixing.choices

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """What the mixtures read: label -> (answers,), for any subset (inputs, 2)."""
        return self._mixing.weights

    @property
    def _dtype(self) -> torch.dtype | None:
        return next((parameter.dtype for parameter in self.logits.values()), None)

    def parameter(self, label: str) -> nn.Parameter:
        """The parameters of a label, (answers,); (inputs, 2) where any subset of the inputs may be taken.

        Raises:
            NasValueError: there is no such label, or it has no parameters.
        """
        if label not in self.labels:
            raise NasValueError(
                explain(f"no architecture parameter has this label; {close_names(label, self.labels)}", got=label)
            )
        found: nn.Parameter = self.logits[_key(label)]
        return found

    def answers(self, label: str) -> tuple[Answer, ...]:
        """What the weights of a label belong to: its answers; for gates and edges the positions of the inputs."""
        return self._mixing.choices[label].answers

    def logits_of(self, label: str, dtype: torch.dtype | None = None) -> Tensor:
        """What the rules of mixing are given: the logits that the parameters of a label stand for, of their shape.

        Args:
            label: with parameters.
            dtype: in which they are computed; that of the parameters where omitted.
        """
        parameter = self.parameter(label)
        return self.parametrisation.logits(parameter if dtype is None else parameter.to(dtype))

    def log_probabilities(self, label: str, dtype: torch.dtype | None = None) -> Tensor:
        """The logarithms of the probabilities, (answers,); of gates (inputs, 2), closed and open."""
        return self.logits_of(label, dtype).log_softmax(-1)

    def probabilities(self, label: str) -> Tensor:
        """The softmax of the logits, (answers,); of gates, how likely each input is taken."""
        shares = self.logits_of(label).softmax(-1)
        return shares[:, 1] if shares.dim() == 2 else shares

    def entropy(self, label: str) -> Tensor:
        """In nats; of gates, the sum over the inputs."""
        logarithms = self.log_probabilities(label)
        return -(logarithms.exp() * logarithms).sum()

    def mix(self, rule: Rule = softmax) -> None:
        """Sets the weights for the next forward passes: the rule is asked once for each label.

        Of gates it is asked once for each input, with the two logits of closed and open. The weights hang in the graph
        of the parameters: mix again after each backward pass.

        Args:
            rule: label and logits (n,) -> weights (n,), perhaps with the positions to compute.
        """
        mixing, dtype = self._mixing, self._dtype
        unknown: list[tuple[str, Tensor]] = []
        for label, choice in mixing.choices.items():
            if not choice.learned:
                weights = torch.ones(choice.shape, device=mixing.device, dtype=dtype)
                mixing.weights[label], mixing.active[label] = weights, tuple(range(len(choice.answers)))
                continue
            logits = self.logits_of(label)
            rows = [rule(label, row) for row in (logits.unbind() if choice.kind == "gates" else [logits])]
            made = [row if isinstance(row, tuple) else (row, None) for row in rows]
            weights = torch.stack([row for row, _ in made]) if choice.kind == "gates" else made[0][0]
            mixing.weights[label] = weights.to(mixing.device)
            given = [computed for _, computed in made if computed is not None]
            if len(given) < len(made):
                unknown.append((label, weights))
            elif choice.kind == "gates":
                mixing.active[label] = tuple(i for i, computed in enumerate(given) if 1 in computed)
            else:
                mixing.active[label] = tuple(given[0])
        self._find_active(unknown)

    def _find_active(self, weights: Sequence[tuple[str, Tensor]]) -> None:
        """Notes which weights differ from 0; one wait for the device, not one for each label."""
        if not weights:
            return
        columns = [tensor.detach()[:, 1] if tensor.dim() == 2 else tensor.detach() for _, tensor in weights]
        flags = iter(torch.cat(columns).ne(0).tolist())
        for (label, _), column in zip(weights, columns, strict=True):
            self._mixing.active[label] = tuple(i for i in range(len(column)) if next(flags))

    def one_hot(self, sample: Sample) -> None:
        """Sets the weights so that the supernet computes one architecture.

        Args:
            sample: of the space; labels that it lacks are not active, and nothing of them is computed.
        """
        device, dtype = self._mixing.device, self._dtype
        for label, choice in self._mixing.choices.items():
            taken: tuple[int, ...] = ()
            if label in sample:
                answer = choice.domain.canonical(sample[label])
                taken = tuple(answer) if choice.kind != "answers" else (_position(choice, answer),)
            weights = torch.zeros(choice.shape, device=device, dtype=dtype)
            if choice.kind == "gates":
                opened = torch.zeros(len(choice.answers), device=device, dtype=dtype)
                opened[list(taken)] = 1
                weights = torch.stack([1 - opened, opened], dim=1)
            else:
                weights[list(taken)] = 1
            self._mixing.weights[label], self._mixing.active[label] = weights, taken

    def __repr__(self) -> str:
        count = sum(math.prod(choice.shape) for choice in self._mixing.choices.values() if choice.learned)
        return f"Architecture({len(self.labels)} labels, {count} parameters)"


def _position(choice: RelaxedChoice, answer: Answer) -> int:
    return [as_key(other) for other in choice.answers].index(as_key(choice.domain.canonical(answer)))


def _key(label: str) -> str:
    """The label as part of a legal key of a state_dict, which no attribute of a module is called."""
    return "[" + label.replace("%", "%25").replace(".", "%2E") + "]"
