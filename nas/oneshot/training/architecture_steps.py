"""How the architecture parameters of a relaxed supernet are optimised."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import TypeAlias, final

from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from nas.calls import explained
from nas.checks import check_bool, check_int, check_number, check_pair
from nas.errors import NasTypeError, NasValueError, explain
from nas.oneshot.relaxed import Architecture, CostPenalty, CurvatureStop, check_penalty
from nas.oneshot.speed import Speed

MakeOptimizer: TypeAlias = Callable[[list[nn.Parameter]], Optimizer]
"""Makes the optimizer of architecture parameters."""
ExtraLoss: TypeAlias = Callable[[Architecture], Tensor]
"""A scalar that is minimised beside the validation loss."""

_OF_ADAM = ("learning_rate", "weight_decay", "betas")


@explained()
@final
@dataclass(frozen=True, kw_only=True)
class ArchitectureSteps:
    """How architecture parameters are optimised: by Adam, as in DARTS (arXiv 1806.09055, section 3.1.1), or another."""

    learning_rate: float = 3e-4
    weight_decay: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.999)
    warmup_epochs: int = 0
    """Epochs at first in which the weights alone are trained."""
    unrolled: bool = False
    """Whether the weights are taken one training step ahead (second order; equation 6)."""
    penalty: CostPenalty | None = None
    optimizer: MakeOptimizer | None = None
    """Makes another optimizer than Adam, which then has its own learning rate and weight decay."""
    extra_loss: ExtraLoss | None = None
    """Is added to the loss of the architecture: what keeps it near uniform, say."""
    stop: CurvatureStop | None = None
    speed: Speed = field(default_factory=Speed)
    """How the mixtures are computed."""

    def __post_init__(self) -> None:
        checked = {
            "learning_rate": check_number("learning_rate", self.learning_rate, least=0),
            "weight_decay": check_number("weight_decay", self.weight_decay, least=0),
            "betas": check_pair("betas", self.betas, least=0, below=1),
            "warmup_epochs": check_int("warmup_epochs", self.warmup_epochs, least=0),
            "unrolled": check_bool("unrolled", self.unrolled),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        check_penalty(self.penalty)
        self._check_optimizer()
        if self.extra_loss is not None and not callable(self.extra_loss):
            raise NasTypeError(explain("extra_loss is a function of the architecture", got=self.extra_loss))
        if self.stop is not None and not isinstance(self.stop, CurvatureStop):
            raise NasTypeError(explain("stop ends a search early", got=self.stop, mend="CurvatureStop()"))
        if self.unrolled and self.speed.checkpoint_cells:
            raise NasValueError(
                explain(
                    "the second order replaces the weights for a while, so cells cannot be computed again later",
                    got="unrolled=True with Speed(checkpoint_cells=True)",
                    mend="drop one of the two",
                )
            )

    def _check_optimizer(self) -> None:
        if self.optimizer is None:
            return
        if not callable(self.optimizer):
            raise NasTypeError(
                explain(
                    "optimizer is a function that makes one of parameters",
                    got=self.optimizer,
                    mend="lambda parameters: torch.optim.SGD(parameters, lr=0.1)",
                )
            )
        adam = {field.name: field.default for field in fields(self) if field.name in _OF_ADAM}
        given = {name: getattr(self, name) for name, usual in adam.items() if getattr(self, name) != usual}
        if given:
            raise NasValueError(
                explain("an optimizer of your own has its own settings", got=given, mend="give them to the optimizer")
            )

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """The optimizer of architecture parameters.

        Raises:
            NasTypeError: `optimizer` makes something else.
        """
        if self.optimizer is None:
            return Adam(parameters, lr=self.learning_rate, betas=self.betas, weight_decay=self.weight_decay)
        made: object = self.optimizer(list(parameters))
        if not isinstance(made, Optimizer):
            raise NasTypeError(explain("optimizer must make a torch optimizer", got=made))
        return made


def on_device(optimizer: Optimizer) -> None:
    """Lets Adam step in one kernel where all parameters lie on a CUDA device; what is set already stays."""
    if not isinstance(optimizer, Adam):
        return
    for group in optimizer.param_groups:
        as_usual = group.get("fused") is None and group.get("foreach") is None
        if as_usual and all(parameter.is_cuda and parameter.is_floating_point() for parameter in group["params"]):
            group["fused"] = True
