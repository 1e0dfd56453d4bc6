"""The learner of relaxed supernets: weights on training data, architecture parameters on validation data, in turns."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import repeat
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from nas.domains import Sample
from nas.errors import NasTypeError, explain
from nas.example_inputs import Inputs
from nas.oneshot.relaxed import (
    Architecture,
    Mixer,
    Moment,
    RelaxedSupernet,
    differentiating_twice,
    largest_eigenvalue,
    recomputing_as_before,
)
from nas.oneshot.speed import RecordedForward, Report, compile_whole, for_each, optimise, uncompiled
from nas.oneshot.training.architecture_steps import ArchitectureSteps, on_device
from nas.oneshot.training.distributed import gather
from nas.oneshot.training.learner import Judge, Learner, Search
from nas.random_state import seeded


@final
class RelaxedLearner(Learner):
    """Trains the two kinds of parameters of a relaxed supernet in turns.

    Args:
        supernet: of the space.
        mixer: the rules of mixing.
        steps: of the architecture.
        example: what the model is called with; where it is omitted, the supernet computes as it is.
        rank: finds the best samples afterwards; the likeliest ones if omitted.

    Attributes:
        report: how the supernet was made quick.
    """

    def __init__(
        self,
        supernet: RelaxedSupernet,
        mixer: Mixer,
        steps: ArchitectureSteps,
        example: Inputs | None = None,
        *,
        rank: Callable[[int, Judge], list[Sample]] | None = None,
    ) -> None:
        super().__init__()
        # In a tuple: the weights are the evaluator's module's, not the learner's.
        self._supernet = (supernet,)
        self.architecture: Architecture = supernet.architecture
        self._mixer, self._steps, self._rank = mixer, steps, rank
        mixer.refuse(self.architecture)
        self._optimizer = steps.make_optimizer(self.architecture.parameters())
        self._check_extra_loss()
        self._history: dict[str, Any] = {"curvature": [], "snapshots": [], "stopped": False}
        self._validation: Any = None
        self.report = Report() if example is None else optimise(supernet, example, steps.speed)
        self._compiled = self._has_curvature = False
        self._recorded: RecordedForward | None = None

    @property
    def supernet(self) -> RelaxedSupernet:
        """Its mixtures."""
        return self._supernet[0]

    @property
    def model(self) -> nn.Module:
        """The mixtures; their parameters are the weights."""
        return self.supernet.model

    @property
    def needs_validation(self) -> bool:
        """Where the architecture learns: on it."""
        return self._mixer.learns

    @property
    def stopped(self) -> bool:
        """Whether the curvature has ended the search."""
        return bool(self._history["stopped"])

    def optimizers(self) -> list[Optimizer]:
        """Of the architecture, where it learns."""
        return [self._optimizer] if self._mixer.learns else []

    def get_extra_state(self) -> dict[str, Any]:
        """The curvature so far."""
        return copy.deepcopy(self._history)

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from there."""
        self._history = dict(copy.deepcopy(dict(state)))

    def prepare(self, search: Search, train: Any, validation: Any) -> dict[str, Tensor]:
        """A step of the architecture, after the warm-up; then the mixture that the weights are trained in."""
        losses = {}
        self._validation = validation
        if self._steps.stop is not None and not self._has_curvature:
            self._has_curvature = self._look_for_curvature(search, validation)
        if self._mixer.learns and search.current_epoch >= self._steps.warmup_epochs:
            losses["architecture_loss"] = self._step_architecture(search, train, validation)
        with torch.no_grad():
            self.architecture.mix(self._mixer.rule(_moment(search), "weights"))
        return losses

    def _step_architecture(self, search: Search, train: Any, validation: Any) -> Tensor:
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        self._optimizer.zero_grad(set_to_none=True)
        self.architecture.mix(self._mixer.rule(_moment(search), "architecture"))
        if self._steps.unrolled:
            with uncompiled(self.model), self._recomputing(search):
                loss = unrolled_loss(search, train, validation) + self._extra()
                scaled = search.scaled(loss)
                ends = [] if self._has_curvature else [loss]
                with differentiating_twice("unrolled=True takes the gradient of a step of training", ends):
                    gradients = torch.autograd.grad(scaled, parameters, allow_unused=True)
            self._has_curvature = True
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
        else:
            with frozen(search.weights), self._recomputing(search):
                loss = search.loss(validation) + self._extra()
            search.backward_into(loss, inputs=parameters)
        search.step_architecture(self._optimizer, parameters)
        self._mixer.after_architecture_step(self.architecture)
        return loss.detach()

    def differentiate(self, loss: Tensor) -> bool:
        """Past the graph of gradients, where the pass was replayed."""
        return self._recorded is not None and self._recorded.differentiate(loss)

    def _recomputing(self, search: Search) -> AbstractContextManager[None]:
        """What a user's checkpoints compute again, around the model too, is what was computed here."""
        return recomputing_as_before(search.inner, self.architecture.mixing)

    def _extra(self) -> Tensor | float:
        """What the architecture costs by itself."""
        penalty, extra_loss = self._steps.penalty, self._steps.extra_loss
        costs = 0.0 if penalty is None else penalty.expected(self.architecture)
        return costs if extra_loss is None else costs + extra_loss(self.architecture)

    def _check_extra_loss(self) -> None:
        if self._steps.extra_loss is None:
            return
        with torch.random.fork_rng(devices=[]):
            found: object = self._steps.extra_loss(self.architecture)
        if not isinstance(found, Tensor) or found.dim() or not found.requires_grad:
            raise NasTypeError(
                explain(
                    "extra_loss must yield a scalar tensor that depends on the architecture",
                    got=found,
                    mend="lambda architecture: sum(architecture.entropy(label) for label in architecture.labels)",
                )
            )

    def show(self, search: Search) -> None:
        """The mixture by the probabilities; where nothing learns, the one that is trained."""
        with torch.no_grad():
            if self._mixer.learns:
                self.architecture.mix()
            else:
                self.architecture.mix(self._mixer.rule(_moment(search), "weights"))

    def begin_epoch(self, search: Search) -> None:
        """Compiles what is to be compiled: not before, as judging and checking compute other parts each time."""
        on_device(self._optimizer)
        if not self._compiled:
            self._recorded = compile_whole(self.supernet, self._steps.speed, self.report, note=search.note)
            self._compiled = True
        elif self._recorded is not None:
            self._recorded.forget()  # what a model does in Python may go by the epoch
        if self._recorded is not None:
            search.record_updates(self._recorded.make_recorder, self.report.whole.append)

    def end_epoch(self, search: Search) -> None:
        """Looks at the curvature, where that may end the search."""
        stop = self._steps.stop
        if (
            stop is None
            or not self._mixer.learns
            or self._validation is None
            or search.current_epoch < self._steps.warmup_epochs
        ):
            return
        history = self._history
        # Each device has another batch; all must stop together.
        curvatures = [found for found in gather(self.curvature(search, self._validation)) if found is not None]
        history["curvature"].append(sum(curvatures) / len(curvatures))
        snapshot = {name: tensor.detach().clone().cpu() for name, tensor in self.architecture.state_dict().items()}
        history["snapshots"] = [*history["snapshots"], snapshot][-stop.patience - 1 :]
        if stop.says(history["curvature"]):
            history["stopped"] = True
            self.architecture.load_state_dict(history["snapshots"][0])
            search.stop()

    def _look_for_curvature(self, search: Search, batch: Any) -> bool:
        """Refuses what has none before an epoch is trained, rather than after it."""
        if self._mixer.learns:
            with seeded(0), uncompiled(self.model):
                largest_eigenvalue(search.loss, search.inner, self.architecture, batch, iterations=1)
        return True

    def curvature(self, search: Search, batch: Any) -> float | None:
        """The largest eigenvalue of the Hessian of the validation loss in the architecture parameters."""
        if not self._mixer.learns:
            return None
        with uncompiled(self.model):
            return largest_eigenvalue(search.loss, search.inner, self.architecture, batch)

    def logged(self) -> dict[str, float]:
        """The probability of each answer, and the entropy of each label, where they are learned."""
        found: dict[str, float] = {}
        if not self._mixer.learns:
            return found
        with torch.no_grad():
            for label in self.architecture.labels:
                found[f"entropy/{label}"] = float(self.architecture.entropy(label))
                shares = self.architecture.probabilities(label).tolist()
                for answer, share in zip(self.architecture.answers(label), shares, strict=True):
                    found[f"architecture/{label}/{answer}"] = share
        if self._history["curvature"]:
            found["curvature"] = self._history["curvature"][-1]
        return found

    def rank(self, k: int, judge: Judge) -> list[Sample]:
        """The likeliest samples, as the papers derive them, which are not validated; or as it was made."""
        if self._rank is not None:
            return self._rank(k, judge)
        return self.supernet.discretise(k)

    @property
    def has_weights(self) -> bool:
        """Where the channels are whole."""
        return self.supernet.has_weights

    def select(self, sample: Sample) -> None:
        """Makes the model compute one architecture."""
        self.architecture.one_hot(sample)

    def extract(self, sample: Sample) -> nn.Module:
        """The architecture of a sample with its own copy of the weights."""
        return self.supernet.extract(sample)

    def check(self, example: Inputs) -> None:
        """Compares the supernet with some of its architectures."""
        self.supernet.check(example)


def _moment(search: Search) -> Moment:
    return Moment(step=search.done, epoch=search.current_epoch, epochs=search.epochs)


@contextmanager
def frozen(parameters: Iterable[nn.Parameter], *, really: bool = True) -> Iterator[None]:
    """Inside, these parameters need no gradient; afterwards those that did need one again.

    What is computed for such gradients is neither computed nor kept.

    Args:
        parameters: of any module.
        really: whether anything happens.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> with frozen(layer.parameters()):
        ...     layer.weight.requires_grad
        False
    """
    changed = [p for p in parameters if p.requires_grad] if really else []
    for_each(Tensor.requires_grad_, changed, repeat(False))
    try:
        yield
    finally:
        for_each(Tensor.requires_grad_, changed, repeat(True))


class _TrainingStep(nn.Module):
    """The evaluator's loss as a function of the weights."""

    def __init__(self, search: Search) -> None:
        super().__init__()
        self.inner = search.inner
        self._search = (search,)

    def forward(self, batch: Any) -> Tensor:
        """The training loss of a batch."""
        return self._search[0].loss(batch)


def unrolled_loss(search: Search, train: Any, validation: Any) -> Tensor:
    """The validation loss after one step of training (DARTS, arXiv 1806.09055, equation 6); exact, not approximated.

    The step is that of SGD with the momentum and weight decay of the weights' optimizer; neither the weights nor the
    batch statistics are touched.
    """
    step = _TrainingStep(search)
    weights = {name: p for name, p in step.named_parameters() if p.requires_grad}
    buffers = {name: b.clone() for name, b in step.named_buffers()}
    loss = functional_call(step, {**weights, **buffers}, (train,))
    gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True, allow_unused=True)
    rates = {
        id(p): (group, optimizer.state.get(p, {}))
        for optimizer in search.weight_optimizers
        for group in optimizer.param_groups
        for p in group["params"]
    }
    ahead: dict[str, Tensor] = {}
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        if gradient is None or id(weight) not in rates:
            ahead[name] = weight
            continue
        group, state = rates[id(weight)]
        direction = gradient + group.get("weight_decay", 0.0) * weight.detach()
        momentum = state.get("momentum_buffer")
        if momentum is not None:
            direction = direction + group.get("momentum", 0.0) * momentum
        ahead[name] = weight.detach() - group["lr"] * direction
    found: Tensor = functional_call(step, {**ahead, **buffers}, (validation,))
    return found
