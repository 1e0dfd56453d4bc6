"""What all one-shot strategies share: a supernet is trained by pytorch-lightning, ranked, and taken apart."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, TypedDict, Unpack, final, get_args, get_type_hints

from pytorch_lightning import Trainer
from torch import nn

from nas.checks import check_int
from nas.domains import Sample
from nas.errors import ExperimentError, NasTypeError, NasValueError, SearchSpaceExhausted, close_names, explain
from nas.evaluators import TrainingEvaluator
from nas.example_inputs import Inputs
from nas.oneshot.ranking import Judged, Ranking
from nas.oneshot.training import Learner, Training
from nas.oneshot.trust import TrustReport, trust_report
from nas.protocols import Evaluator, ExperimentArguments, Job, OneShotStrategy, OneShotTask, Task, Trial
from nas.space import ModelSpace


class SupernetSettings(TypedDict, total=False):
    """What every one-shot strategy takes besides its own."""

    epochs: int
    """Of the supernet; the evaluator's `max_epochs` where omitted."""
    checkpoint_every: int
    """Training steps from one checkpoint to the next; 100 where omitted."""
    candidates: int
    """How many of the best subnets become trials; 10 where omitted."""
    recalibration: int
    """Batches of training data for the batch statistics of a subnet; 20 where omitted."""


class SupernetStrategy(OneShotStrategy):
    """Trains a supernet with the evaluator's own steps, optimizers and data.

    Args:
        **settings: see `SupernetSettings`.
    """

    def __init__(self, **settings: Unpack[SupernetSettings]) -> None:
        for name in settings.keys() - SupernetSettings.__annotations__.keys():
            raise NasTypeError(
                explain(
                    f"{type(self).__name__} has no argument {name!r}; {close_names(name, _arguments(type(self)))}",
                    got=settings[name],  # type: ignore[literal-required]  # it is no key of theirs
                )
            )
        checked: Any = {
            name: check_int(name, number, least=0 if name == "recalibration" else 1, where=type(self).__name__)
            for name, number in settings.items()
        }
        self._settings: SupernetSettings = checked
        self._ranking: Ranking | None = None
        self._training: Training | None = None

    may_change = frozenset({"epochs", "candidates", "checkpoint_every"})

    def omitted(self) -> dict[str, Any]:
        """What the settings are that are left out."""
        return {"recalibration": 20}

    @property
    @final
    def evaluator_may_change(self) -> frozenset[str]:
        """How long the supernet is trained: a search is gone on with for more epochs."""
        return frozenset({"max_epochs", "max_steps", "max_time"})

    @final
    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in self._settings.items())})"

    @abstractmethod
    def make_learner(self, space: ModelSpace, *, seed: int, example: Inputs) -> Learner:
        """The algorithm's learner.

        Args:
            space: without hyperparameters.
            seed: of all that is random.
            example: what the evaluator calls the network with.
        """

    # As a strategy: it proposes what was ranked.

    @final
    def start(self, task: Task) -> None:
        """Nothing to begin: the supernet is trained in `search`."""

    @final
    def ask(self, number: int) -> Sample:
        """The subnet of this rank.

        Raises:
            SearchSpaceExhausted: no more were ranked.
        """
        ranked = (None if self._ranking is None else self._ranking.samples) or []
        if number >= len(ranked):
            raise SearchSpaceExhausted("every subnet that was ranked is judged")
        return dict(ranked[number])

    @final
    def tell(self, trial: Trial) -> None:
        """Nothing to learn: what is known is in the supernet."""

    # As a one-shot strategy.

    @final
    def refuse(self, arguments: ExperimentArguments) -> None:
        """Raises where an argument of the experiment cannot serve."""
        arguments.refuse_for_supernets()
        name, evaluator = type(self).__name__, arguments.evaluator
        if not isinstance(evaluator, TrainingEvaluator):
            raise NasTypeError(
                explain(
                    f"{name} trains a supernet, so it needs an evaluator that says how",
                    got=evaluator,
                    mend="Classification, Regression or LightningEvaluator of nas.evaluators",
                )
            )
        if not arguments.space.program.modules:
            raise NasTypeError(
                explain(f"{name} trains a supernet of modules, and this space builds none", got=arguments.space)
            )
        if evaluator.hyperparameters:
            raise NasValueError(
                explain(
                    f"{name} trains all architectures at once, so they share the hyperparameters of training",
                    got={label: repr(domain) for label, domain in evaluator.hyperparameters.items()},
                    mend="fix them, or search by a multi-trial strategy",
                )
            )

    @final
    def search(self, task: OneShotTask) -> Evaluator | None:
        """Trains the supernet, or goes on, or finds that it is trained; ranks its subnets."""
        training = self._begin(task)
        if not training.finished:
            training.fit()
            if not training.finished:
                return None
        ranking = Ranking(task.directory / "ranking.json", training.epochs)
        if ranking.samples is None:
            judged = Judged(task.directory / "judged.jsonl", training.epochs, self._judge)
            ranking.write(training.learner.rank(self._settings.get("candidates", 10), judged))
        self._ranking = ranking
        return _Subnets(self._evaluate)

    @final
    def restore(self, task: OneShotTask) -> None:
        """Loads the trained supernet."""
        training = self._begin(task)
        if not training.finished:
            raise ExperimentError(
                explain("the supernet is not trained yet", got=str(task.directory), mend="experiment.run() first")
            )

    @final
    def inherit(self, sample: Sample) -> nn.Module:
        """The architecture of a sample with its own copy of the shared weights, its batch statistics taken afresh."""
        training = self._trained
        model = training.learner.extract(sample)
        training.judging.inside(training.evaluator.module(model), self._recalibration(model))
        return model.cpu()

    @final
    def measure(self, model: nn.Module) -> dict[str, float]:
        """The evaluator's metrics of a model, on all the validation data."""
        training = self._trained
        return training.judging.measure(training.evaluator.module(model))

    @final
    def report(self, trials: list[Trial], *, k: int, **options: Any) -> TrustReport:
        """How far the supernet can be trusted; see `nas.oneshot.trust.trust_report`."""
        return trust_report(self._trained, self._judge, trials, k=k, **options)

    # Inside.

    def _begin(self, task: OneShotTask) -> Training:
        if self._training is None or self._training.task.directory != task.directory or not self._training.finished:
            self._training = Training(
                task,
                lambda example: self.make_learner(task.space, seed=task.seed, example=example),
                epochs=self._settings.get("epochs"),
                every=self._settings.get("checkpoint_every", 100),
            )
        self._training.task = task
        return self._training

    @property
    def _trained(self) -> Training:
        if self._training is None:
            raise ExperimentError(explain("the supernet is not trained yet", mend="experiment.run() first"))
        return self._training

    def _judge(self, sample: Sample) -> float:
        return self._trained.steering.value(self._metrics(sample, None))

    def _evaluate(self, job: Job) -> dict[str, float]:
        """The metrics of a trial's sample, the one that counts first."""
        found = self._metrics(job.sample, job.model)
        if self._trained.learner.has_weights and self._trained.evaluator.keeps_weights:
            job.keep_weights()
        first = self._trained.metric
        return {first: found[first]} | found

    def _metrics(self, sample: Sample, model: nn.Module | None, batches: int | None = None) -> dict[str, float]:
        """The metrics of a sample by the shared weights; `model` is given them, where they can be taken along."""
        training = self._trained
        if not training.learner.has_weights:
            return training.measure(sample, batches)
        inherited = training.learner.extract(sample)
        if model is None:
            model = inherited
        else:
            model.load_state_dict(inherited.state_dict())
        inner = training.evaluator.module(model)
        found = training.judging.measure(inner, before=self._recalibration(model), batches=batches)
        model.cpu()
        return found

    def _recalibration(self, model: nn.Module) -> Callable[[Trainer], None]:
        return self._trained.judging.recalibration(model, self._settings.get("recalibration", 20))


def _arguments(kind: type) -> list[str]:
    """The names of a strategy's arguments, those of its settings too."""
    hints = get_type_hints(kind.__init__)  # type: ignore[misc]  # of the class that is being made
    hints.pop("return")
    settings: Any = get_args(hints.pop("settings"))[0]
    return [*hints, *get_type_hints(settings)]


@final
class _Subnets(Evaluator):
    """Judges samples by the shared weights.

    Args:
        judge: the metrics of a job.
    """

    def __init__(self, judge: Callable[[Job], dict[str, float]]) -> None:
        self._judge = judge

    def evaluate(self, job: Job) -> dict[str, float]:
        """The metrics of a sample."""
        return self._judge(job)
