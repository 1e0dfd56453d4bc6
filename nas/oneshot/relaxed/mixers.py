"""How architecture parameters become the weights of mixtures, in each phase of a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor

from nas.checks import check_bool, check_int, check_number
from nas.errors import NasValueError, explain
from nas.oneshot.relaxed.architecture import Architecture, Rule, softmax
from nas.oneshot.relaxed.parametrisations import Logits
from nas.random_state import derive_seed

Phase: TypeAlias = Literal["weights", "architecture"]


@final
@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where a search is: what a mixer may go by, besides its seed."""

    step: int
    """Training steps since the beginning of the search."""
    epoch: int
    epochs: int | None
    """How many the search has; None where something else ends it."""

    def seed(self, seed: int, phase: Phase) -> int:
        """A seed of its own for this phase of this step, the same on every device and after a restart."""
        return derive_seed(seed, self.step, phase == "weights")


class Mixer(ABC):
    """Chooses the rule of mixing for each step. What is random comes from the seed and the number of the step."""

    def refuse(self, architecture: Architecture) -> None:  # noqa: B027 - most can mix every one
        """Raises a NasError where an architecture cannot be mixed in this way; by default every one can."""

    @property
    def learns(self) -> bool:
        """Whether the architecture parameters are trained; by default they are."""
        return True

    @abstractmethod
    def rule(self, moment: Moment, phase: Phase) -> Rule:
        """The rule of a phase of this step."""

    @abstractmethod
    def after_architecture_step(self, architecture: Architecture) -> None:
        """Mends the parameters after a step of their optimizer."""


@final
class SoftmaxMixer(Mixer):
    """Every candidate by the softmax of the logits (DARTS)."""

    def rule(self, moment: Moment, phase: Phase) -> Rule:
        """The softmax."""
        return softmax

    def after_architecture_step(self, architecture: Architecture) -> None:
        """Nothing to mend."""


@final
class SumMixer(Mixer):
    """The supernet as a whole: everything is computed, and the candidates' outputs are added.

    No architecture is learned. A candidate is judged by switching the others off (`Architecture.one_hot`), as in Bender
    et al. 2018, "Understanding and Simplifying One-Shot Architecture Search". An InputChoice takes all its inputs, a
    Repeat is as deep and a ValueChoice as large as it may be.

    Args:
        architecture: of the supernet.

    Example:
        >>> from nas import LayerChoice, ModelSpace
        >>> from nas.oneshot import RelaxedSupernet
        >>> space = ModelSpace(lambda: LayerChoice({"same": torch.nn.Identity, "half": torch.nn.Softsign}, label="op"))
        >>> supernet = RelaxedSupernet(space)
        >>> mixer = SumMixer(supernet.architecture)
        >>> supernet.architecture.mix(mixer.rule(Moment(step=0, epoch=0, epochs=1), "weights"))
        >>> supernet.model(torch.ones(1))
        tensor([1.5000])
    """

    def __init__(self, architecture: Architecture) -> None:
        self._choices = architecture.choices

    @property
    def learns(self) -> bool:
        """No."""
        return False

    def rule(self, moment: Moment, phase: Phase) -> Rule:
        """1 for everything that is there."""
        return self._mix

    def _mix(self, label: str, logits: Tensor) -> tuple[Tensor, Sequence[int]]:
        choice = self._choices[label]
        whole = (0.0, 1.0) if choice.kind == "gates" else choice.whole or (1.0,) * len(logits)
        return logits.new_tensor(whole), [i for i, weight in enumerate(whole) if weight]

    def after_architecture_step(self, architecture: Architecture) -> None:
        """Nothing to mend."""


@final
class GumbelMixer(Mixer):
    """The Gumbel softmax, whose temperature falls from epoch to epoch (SNAS, arXiv 1812.09926; GDAS, arXiv 1910.04465).

    Args:
        start: temperature of the first epoch.
        end: of the last one.
        hard: whether only the drawn candidate is computed, its gradient being that of the soft weight (GDAS).
        seed: of the noise.
    """

    def __init__(self, *, start: float, end: float, hard: bool, seed: int) -> None:
        self._start = check_number("start", start, above=0, where="GumbelMixer")
        self._end = check_number("end", end, above=0, where="GumbelMixer")
        self._hard = check_bool("hard", hard, where="GumbelMixer")
        self._seed = check_int("seed", seed, where="GumbelMixer")

    def temperature(self, epoch: int, epochs: int) -> float:
        """Falls geometrically, and reaches its end in the last epoch."""
        share = epoch / (epochs - 1) if epochs > 1 else 1.0
        return float(self._start * (self._end / self._start) ** share)

    def rule(self, moment: Moment, phase: Phase) -> Rule:
        """Softmax of the logits plus noise, over the temperature."""
        if moment.epochs is None:
            raise NasValueError(
                explain(
                    "the temperature falls over a known number of epochs",
                    got="max_epochs=-1",
                    where="GumbelMixer",
                    mend="give epochs, or max_epochs of the Trainer",
                )
            )
        temperature = self.temperature(moment.epoch, moment.epochs)
        generators: dict[torch.device, torch.Generator] = {}

        def mix(label: str, logits: Tensor) -> Tensor | tuple[Tensor, Sequence[int]]:
            device = logits.device  # where the noise is drawn, as nobody is to wait for it
            if device not in generators:
                generators[device] = torch.Generator(device).manual_seed(moment.seed(self._seed, phase))
            uniform = torch.rand(logits.shape, generator=generators[device], device=device).clamp_(1e-10, 1 - 1e-7)
            noise = -(-uniform.log()).log()
            soft = ((logits.log_softmax(-1) + noise.to(logits)) / temperature).softmax(-1)
            if not self._hard:
                return soft, range(len(soft))
            one = torch.zeros_like(soft).scatter_(0, soft.argmax(0, keepdim=True), 1.0)
            # In this order the weights are exactly 0 and 1.
            return one + (soft - soft.detach())

        return mix

    def after_architecture_step(self, architecture: Architecture) -> None:
        """Nothing to mend."""


@final
class TwoPathMixer(Mixer):
    """Binarised paths (ProxylessNAS, arXiv 1812.00332, section 3.2).

    The weights are trained on one path drawn from the probabilities. For the architecture two candidates of each label
    are drawn, one of the two passes, and both get a gradient; afterwards the probability that both have together is as
    it was.

    Args:
        seed: of the draws.
    """

    def __init__(self, *, seed: int) -> None:
        self._seed = check_int("seed", seed, where="TwoPathMixer")
        self._drawn: list[tuple[Tensor, Tensor, Tensor]] = []

    def refuse(self, architecture: Architecture) -> None:
        """Raises where the parameters are no logits, which are mended after each step."""
        if not isinstance(architecture.parametrisation, Logits):
            raise NasValueError(
                explain(
                    "binarised paths mend the logits after each step, so the parameters must be these",
                    got=type(architecture.parametrisation).__name__,
                    where="parametrisation",
                    mend="RelaxedSupernet(space, parametrisation=Logits())",
                )
            )

    def rule(self, moment: Moment, phase: Phase) -> Rule:
        """One path, or two of which one passes."""
        generator = torch.Generator().manual_seed(moment.seed(self._seed, phase))
        self._drawn = []
        return lambda label, logits: self._mix(logits, generator, phase)

    def _mix(self, logits: Tensor, generator: torch.Generator, phase: Phase) -> Tensor | tuple[Tensor, list[int]]:
        shares = logits.detach().softmax(-1).cpu()
        if phase == "weights":
            one = torch.zeros_like(logits)
            one[torch.multinomial(shares, 1, generator=generator)] = 1.0
            return one
        two = torch.multinomial(shares.clamp(min=1e-12), min(2, len(shares)), generator=generator)
        pair = logits[two].softmax(-1)
        passes = torch.multinomial(pair.detach().cpu(), 1, generator=generator)
        one = torch.zeros_like(pair)
        one[passes] = 1.0
        weights = torch.zeros_like(logits).index_put((two.to(logits.device),), one + (pair - pair.detach()))
        self._drawn.append((logits, two, logits.detach()[two].logsumexp(0)))
        return weights, two.tolist()

    def after_architecture_step(self, architecture: Architecture) -> None:
        """What the two gained or lost together is taken back."""
        with torch.no_grad():
            for logits, two, before in self._drawn:
                logits[two] += before - logits[two].logsumexp(0)
        self._drawn = []
