"""What an architecture costs, as part of what one-shot search minimises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from nas.calls import explained
from nas.checks import check_number
from nas.domains import Sample, Subset
from nas.errors import NasTypeError, explain
from nas.oneshot.relaxed.architecture import Architecture
from nas.profile import Cost


@explained()
@final
@dataclass(frozen=True, kw_only=True)
class CostPenalty:
    """`weight * cost / target`, added to the loss, or subtracted from the reward.

    In relaxed supernets the cost is the expected one under the architecture's probabilities, so it has a gradient
    (ProxylessNAS, arXiv 1812.00332, equation 5); where paths are sampled it is that of the path.

    Example:
        >>> from nas import ModelSpace, ValueChoice
        >>> from nas.profile import profile
        >>> space = ModelSpace(lambda: torch.nn.Linear(4, ValueChoice([2, 8], label="width")))
        >>> penalty = CostPenalty(cost=profile(space, (1, 4)).parameters, weight=0.5, target=20)
        >>> penalty.of_sample({"width": 2})
        0.25
    """

    cost: Cost
    """Of `nas.profile`: `profile(space, example_input).flops`, say, or `cost(space, example_input, of)` of your own."""
    weight: float
    """What one target is worth, in units of the loss or reward."""
    target: float
    """In units of the cost."""

    def __post_init__(self) -> None:
        if not isinstance(self.cost, Cost):
            raise NasTypeError(
                explain(
                    "a penalty is made of a cost",
                    got=self.cost,
                    mend="nas.profile.profile(space, example).flops, or nas.profile.cost(space, example, of=...)",
                )
            )
        for name, number in (("weight", self.weight), ("target", self.target)):
            object.__setattr__(self, name, check_number(name, number, above=0, where="CostPenalty"))

    def of_sample(self, sample: Sample) -> float:
        """For one architecture."""
        return self.weight * float(self.cost(sample)) / self.target

    def expected(self, architecture: Architecture) -> Tensor:
        """For the architecture's probabilities; a differentiable scalar."""
        return self.weight * self.cost.expected(probabilities(architecture)) / self.target


def check_penalty(given: object) -> None:
    """Refuses what is no penalty.

    Raises:
        NasTypeError: neither a CostPenalty nor None.
    """
    if given is not None and not isinstance(given, CostPenalty):
        raise NasTypeError(
            explain("penalty is a CostPenalty", got=given, mend="CostPenalty(cost=..., weight=..., target=...)")
        )


def probabilities(architecture: Architecture) -> dict[str, Tensor]:
    """The probability of each answer of each label, (answers,), in the order of the domain.

    Gates are open independently; the k edges of a cell's node are equally likely, or as likely as the product of their
    weights.
    """
    found: dict[str, Tensor] = {}
    device = next((parameter.device for parameter in architecture.parameters()), None)
    for label, choice in architecture.choices.items():
        if choice.kind == "answers":
            found[label] = architecture.probabilities(label)
            continue
        domain = choice.domain
        assert isinstance(domain, Subset)
        answers = [tuple(answer) for answer in domain.values()]
        if choice.kind == "gates":
            opened = architecture.probabilities(label)
            shares = [torch.stack([opened[i] if i in a else 1 - opened[i] for i in range(domain.n)]) for a in answers]
            found[label] = torch.stack([share.prod() for share in shares])
        elif choice.learned:
            weights = architecture.probabilities(label)
            products = torch.stack([weights[list(answer)].prod() for answer in answers])
            found[label] = products / products.sum()
        else:
            found[label] = torch.full((len(answers),), 1 / len(answers), device=device)
    return found
