"""Differentiable architecture search: DARTS and its kin."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Literal, Unpack, final

from nas.checks import check_bool, check_int, check_pair
from nas.example_inputs import Inputs
from nas.oneshot.relaxed import (
    CostPenalty,
    CurvatureStop,
    GumbelMixer,
    Mixer,
    RelaxedSupernet,
    SoftmaxMixer,
    TwoPathMixer,
)
from nas.oneshot.speed import Speed
from nas.oneshot.strategy import SupernetSettings, SupernetStrategy
from nas.oneshot.training import ArchitectureSteps, ExtraLoss, Learner, MakeOptimizer, RelaxedLearner
from nas.space import ModelSpace


class ArchitectureSettings(SupernetSettings, total=False):
    """What the differentiable strategies take: how the architecture parameters are optimised, by Adam if not said."""

    learning_rate: float
    """3e-4 where omitted."""
    weight_decay: float
    """1e-3 where omitted."""
    betas: tuple[float, float]
    """(0.5, 0.999) where omitted."""
    warmup_epochs: int
    """Epochs at first in which the weights alone are trained; 0 where omitted."""
    penalty: CostPenalty | None
    """On what architectures cost."""
    optimizer: MakeOptimizer | None
    """Makes another optimizer of a list of architecture parameters: it has its own learning rate."""
    extra_loss: ExtraLoss | None
    """Of the `Architecture`, a scalar that is added to the validation loss."""
    stop: CurvatureStop | None
    """Ends the search when the curvature grows: `CurvatureStop()`."""
    speed: Speed
    """How the mixtures are computed: exactly, and quickly, where omitted."""


def split_settings(settings: ArchitectureSettings, **defaults: Any) -> tuple[ArchitectureSteps, SupernetSettings]:
    """Those of the architecture, what is omitted by its default, and those of every supernet."""
    names = {field.name for field in fields(ArchitectureSteps)}
    if settings.get("optimizer") is not None:  # the defaults are those of Adam
        defaults = {name: value for name, value in defaults.items() if name == "warmup_epochs"}
    own = defaults | {name: value for name, value in settings.items() if name in names}
    rest: Any = {name: value for name, value in settings.items() if name not in names}
    return ArchitectureSteps(**own), rest


class DifferentiableStrategy(SupernetStrategy):
    """What strategies have in common whose architecture parameters are optimised in steps."""

    _steps: ArchitectureSteps

    @final
    def omitted(self) -> dict[str, Any]:
        """The settings of the steps that are left out too."""
        return {**super().omitted(), **{field.name: getattr(self._steps, field.name) for field in fields(self._steps)}}


@final
class DARTS(DifferentiableStrategy):
    """Differentiable architecture search (Liu et al. 2019, arXiv 1806.09055).

    Every choice is a mixture weighted by the softmax of architecture parameters. In each step these take a step on a
    batch of validation data, and the weights one on a batch of training data. The best samples are those of the
    strongest candidates; in cells, of the k strongest edges of each node, `nas.Zero` (no edge) excluded.

    Args:
        unrolled: second order: the architecture is judged after one more step of the weights (equation 6, exactly; by
            the paper's measure somewhat better, and some three times as slow).
        **settings: see `ArchitectureSettings` (`learning_rate`, `weight_decay`, `betas`, `warmup_epochs`, `penalty`,
            `optimizer`, `extra_loss`, `stop`, `speed`) and `SupernetSettings` (`epochs`, `checkpoint_every`,
            `candidates`, `recalibration`).

    Raises:
        NasValueError, NasTypeError: an argument that makes no sense.

    Example:
        >>> DARTS(epochs=50, warmup_epochs=5, unrolled=True)
        DARTS(unrolled=True, epochs=50, warmup_epochs=5)
    """

    def __init__(
        self,
        unrolled: bool = False,
        **settings: Unpack[ArchitectureSettings],
    ) -> None:
        steps, rest = split_settings(settings)
        super().__init__(**rest)
        self._steps = replace(steps, unrolled=unrolled)

    def make_learner(self, space: ModelSpace, *, seed: int, example: Inputs) -> Learner:
        """Mixtures by the softmax."""
        return _relaxed(space, seed, example, SoftmaxMixer(), self._steps)


@final
class GumbelDARTS(DifferentiableStrategy):
    """DARTS whose mixtures are drawn, by the Gumbel softmax (SNAS, arXiv 1812.09926); or one candidate each (GDAS).

    Args:
        temperature: of the first and of the last epoch.
        hard: whether only the drawn candidate of each choice is computed (GDAS, arXiv 1910.04465): a fraction of the
            time and memory.
        **settings: as for `DARTS`.

    Example:
        >>> GumbelDARTS(temperature=(10.0, 0.1), hard=True, epochs=240)
        GumbelDARTS(temperature=(10.0, 0.1), hard=True, epochs=240)
    """

    def __init__(
        self,
        *,
        temperature: tuple[float, float] = (5.0, 0.1),
        hard: bool = False,
        **settings: Unpack[ArchitectureSettings],
    ) -> None:
        self._steps, rest = split_settings(settings)
        super().__init__(**rest)
        pair = check_pair("temperature", temperature, above=0, where="GumbelDARTS")
        self._temperature, self._hard = pair, check_bool("hard", hard, where="GumbelDARTS")

    def make_learner(self, space: ModelSpace, *, seed: int, example: Inputs) -> Learner:
        """Mixtures by the Gumbel softmax."""
        start, end = self._temperature
        return _relaxed(
            space, seed, example, GumbelMixer(start=start, end=end, hard=self._hard, seed=seed), self._steps
        )


@final
class PCDARTS(DifferentiableStrategy):
    """DARTS on a part of the channels, with normalised edges (Xu et al. 2020, arXiv 1907.05737).

    For cells: each operation sees 1/K of the channels, the others pass by; the edges of a node have weights of their
    own. Such a supernet ranks architectures but has no weights for them, so none can be inherited.

    Args:
        partial_channels: K.
        **settings: as for `DARTS`; a learning rate of 6e-4 and 15 epochs of warm-up where omitted, as in the paper.

    Example:
        >>> PCDARTS(epochs=50)
        PCDARTS(epochs=50)
    """

    def __init__(
        self,
        *,
        partial_channels: int = 4,
        **settings: Unpack[ArchitectureSettings],
    ) -> None:
        self._steps, rest = split_settings(settings, learning_rate=6e-4, warmup_epochs=15)
        super().__init__(**rest)
        self._partial_channels = check_int("partial_channels", partial_channels, least=1, where="PCDARTS")

    def make_learner(self, space: ModelSpace, *, seed: int, example: Inputs) -> Learner:
        """Mixtures on a part of the channels."""
        return _relaxed(
            space, seed, example, SoftmaxMixer(), self._steps, edges="softmax", partial_channels=self._partial_channels
        )


@final
class ProxylessNAS(DifferentiableStrategy):
    """Binarised paths (Cai et al. 2019, arXiv 1812.00332): as much memory as one architecture, and no proxy.

    The weights are trained on paths drawn from the architecture's probabilities; the architecture by the gradient of
    two candidates of each choice, of which one passes.

    Args:
        **settings: as for `DARTS`; a learning rate of 6e-3, no weight decay and betas of (0, 0.999) where omitted, as
            in the published code. A `penalty` is its latency loss (equation 5).

    Example:
        >>> ProxylessNAS(epochs=120, warmup_epochs=40)
        ProxylessNAS(epochs=120, warmup_epochs=40)
    """

    def __init__(
        self,
        **settings: Unpack[ArchitectureSettings],
    ) -> None:
        self._steps, rest = split_settings(settings, learning_rate=6e-3, weight_decay=0.0, betas=(0.0, 0.999))
        super().__init__(**rest)

    def make_learner(self, space: ModelSpace, *, seed: int, example: Inputs) -> Learner:
        """Mixtures of which one candidate passes."""
        return _relaxed(space, seed, example, TwoPathMixer(seed=seed), self._steps)


def _relaxed(
    space: ModelSpace,
    seed: int,
    example: Inputs,
    mixer: Mixer,
    steps: ArchitectureSteps,
    *,
    edges: Literal["sum", "softmax"] = "sum",
    partial_channels: int = 1,
) -> RelaxedLearner:
    supernet = RelaxedSupernet(space, seed=seed, edges=edges, partial_channels=partial_channels)
    return RelaxedLearner(supernet, mixer, steps, example)
