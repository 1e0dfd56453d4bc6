"""What all one-shot strategies share: a supernet is trained by pytorch-lightning, ranked, and taken apart."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, TypedDict, Unpack, final, get_args, get_type_hints

from pytorch_lightning import LightningModule, Trainer
from torch import nn

from nas.checks import check_int
from nas.domains import Sample, sample_key
from nas.errors import ExperimentError, NasTypeError, NasValueError, SearchSpaceExhausted, close_names, explain, nearest
from nas.evaluators import TrainingEvaluator
from nas.example_inputs import Inputs
from nas.oneshot.extracted import Extracted, Numbers
from nas.oneshot.ranking import Judged, Passes, Ranking, RankingProgress, TimeUp
from nas.oneshot.training import Learner, Training
from nas.oneshot.trust import TrustReport, trust_report
from nas.protocols import Evaluator, ExperimentArguments, Job, OneShotStrategy, OneShotTask, Task, Trial
from nas.random_state import seeded
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
    judge_batches: int
    """Batches of validation data, at most, on which a subnet is judged to be ranked; all of them where omitted.

    Those that become trials are measured on all of them.
    """


class SupernetStrategy(OneShotStrategy):
    """Trains a supernet with the evaluator's own steps, optimizers and data.

    Args:
        **settings: see `SupernetSettings`.
    """

    def __init__(self, **settings: Unpack[SupernetSettings]) -> None:
        for name in settings.keys() - SupernetSettings.__annotations__.keys():
            known = _arguments(type(self))
            raise NasTypeError(
                explain(
                    f"{type(self).__name__} has no argument {name!r}; {close_names(name, known)}",
                    got=settings[name],  # type: ignore[literal-required]  # it is no key of theirs
                    mend=f"{near[0]}=..." if (near := nearest(name, known)) else f"leave {name} out",
                )
            )
        checked: Any = {
            name: check_int(name, number, least=0 if name == "recalibration" else 1, where=type(self).__name__)
            for name, number in settings.items()
        }
        self._settings: SupernetSettings = checked
        self._ranking: Ranking | None = None
        self._training: Training | None = None
        self._passes: Passes | None = None
        self._extracted = Extracted(lambda sample: self._trained.learner.extract(sample))
        self._tried: dict[int | None, list[Sample]] = {}

    may_change = frozenset({"epochs", "candidates", "checkpoint_every"})

    def omitted(self) -> dict[str, Any]:
        """What the settings are that are left out."""
        return {"recalibration": 20}

    @property
    @final
    def evaluator_may_change(self) -> frozenset[str]:
        """How long the supernet is trained: a search is gone on with for more epochs."""
        return frozenset({"max_epochs", "max_steps", "max_time"})

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
        """Nothing was tried yet; the supernet is trained in `search`."""
        self._tried = {}

    @final
    def ask(self, number: int) -> Sample:
        """The best subnet that this supernet has not judged.

        Raises:
            SearchSpaceExhausted: no more were ranked.
        """
        ranked = (None if self._ranking is None else self._ranking.samples) or []
        tried = self._tried.get(self.steps, [])
        for sample in ranked:
            # A build may have added to what was proposed.
            if not any(sample_key(sample) == sample_key({label: t.get(label) for label in sample}) for t in tried):
                return dict(sample)
        raise SearchSpaceExhausted("every subnet that was ranked is judged")

    @final
    def tell(self, trial: Trial) -> None:
        """Only what was tried is noted: what else is known is in the supernet."""
        if not trial.state.is_finished:
            self._tried.setdefault(trial.supernet_steps, []).append(dict(trial.sample))

    # As a one-shot strategy.

    @property
    @final
    def steps(self) -> int | None:
        """Training steps of the supernet that was ranked."""
        return None if self._ranking is None else self._trained.steps

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
        self._ranking = None
        training = self._begin(task)
        if not training.finished:
            training.fit()
            if not training.finished:
                return None
        wanted = self._settings.get("candidates", 10)
        ranking = Ranking(task.directory / "ranking.json", training.steps, wanted)
        if ranking.samples is None and not self._rank_subnets(task, training, ranking, wanted):
            return None
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
        training.judging.inside(_module_around(model, training), self._recalibration(model))
        return model.cpu()

    @final
    def measure(self, model: nn.Module) -> dict[str, float]:
        """The evaluator's metrics of a model, on all the validation data."""
        training = self._trained
        return training.judging.measure(_module_around(model, training))

    @final
    def report(self, trials: list[Trial], *, k: int, **options: Any) -> TrustReport:
        """How far the supernet can be trusted; see `nas.oneshot.trust.trust_report`."""
        return trust_report(self._trained, self._judge, self._judge_untrained, trials, k=k, **options)

    # Inside.

    def _rank_subnets(self, task: OneShotTask, training: Training, ranking: Ranking, wanted: int) -> bool:
        """Ranks the subnets; whether the time sufficed."""
        self._passes = self._passes_of(training)
        sign = 1 if task.direction == "maximize" else -1
        progress = RankingProgress(task.note, metric=training.metric, sign=sign)
        judged = Judged(
            task.directory / "judged.jsonl",
            training.steps,
            self._begin_judging,
            passes=self._passes,
            most=self._settings.get("judge_batches"),
            progress=progress,
            deadline=task.until,
            at_once=lambda: training.judging.at_once,
        )
        try:
            ranking.write(training.learner.rank(wanted, judged))
        except TimeUp:
            return False
        finally:
            progress.end()
            if training.judging.unrecorded is not None:
                task.note(f"ranking: forward passes of some paths were not recorded, for {training.judging.unrecorded}")
        return True

    def _begin(self, task: OneShotTask) -> Training:
        if self._training is None or self._training.task.directory != task.directory or not self._training.finished:
            self._training = Training(
                task,
                lambda example: self.make_learner(task.space, seed=task.seed, example=example),
                epochs=self._settings.get("epochs"),
                every=self._settings.get("checkpoint_every", 100),
            )
            self._extracted = Extracted(lambda sample: self._trained.learner.extract(sample))
        self._training.task = task
        return self._training

    @property
    def _trained(self) -> Training:
        if self._training is None:
            raise ExperimentError(explain("the supernet is not trained yet", mend="experiment.run() first"))
        return self._training

    def _judge(self, sample: Sample) -> float:
        """What a subnet is worth on all the validation data that subnets are ranked by. More is better."""
        return self._begin_judging(sample, None)()

    def _begin_judging(self, sample: Sample, batches: int | None) -> Callable[[], float]:
        """Begins to find out what a subnet is worth on so many batches of validation data; on all of them for None."""
        training = self._trained
        if not training.learner.has_weights:
            return partial(training.steering.value, training.measure(sample, batches))
        model, numbers = self._extracted(sample)
        inner = _module_around(model, training, numbers)
        before = self._recalibration(model, batches)
        begun = training.judging.begin(inner, model=model, before=before, batches=batches)

        def worth() -> float:
            found = begun()
            numbers.put_back()
            return training.steering.value(found)

        return worth

    def _judge_untrained(self, sample: Sample, seed: int) -> float:
        """What the architecture of a sample is worth with fresh weights, judged as subnets are."""
        training = self._trained
        with seeded(seed):
            model = training.task.space.build(sample)
        inner = training.evaluator.module(model)
        return training.steering.value(training.judging.measure(inner, before=self._recalibration(model)))

    def _passes_of(self, training: Training) -> Passes:
        """How many batches the judgement of a sample runs."""
        judge_batches, recalibration = self._settings.get("judge_batches"), self._settings.get("recalibration", 20)

        def model() -> nn.Module:
            return training.task.space.build(training.task.space.default())

        def validation() -> int:
            number = training.judging.validation_batches(training.evaluator.module(model()))
            return number if judge_batches is None else min(number, judge_batches)

        def before() -> int:
            has_weights = training.learner.has_weights
            return training.judging.recalibration_batches(model(), recalibration) if has_weights else 0

        return Passes(validation, before)

    def _evaluate(self, job: Job) -> dict[str, float]:
        """The metrics of a trial's sample, the one that counts first."""
        found = self._metrics(job.sample, job.model)
        if self._trained.learner.has_weights and self._trained.evaluator.keeps_weights:
            job.keep_weights()
        first = self._trained.metric
        return {first: found[first]} | found

    def _metrics(self, sample: Sample, model: nn.Module | None) -> dict[str, float]:
        """The metrics of a sample by the shared weights; `model` is given them, where they can be taken along."""
        training = self._trained
        if not training.learner.has_weights:
            return training.measure(sample)
        inherited, _ = self._extracted(sample)
        if model is None:
            model = inherited
        else:
            model.load_state_dict(inherited.state_dict())
        inner = _module_around(model, training)
        found = training.judging.measure(inner, model=model, before=self._recalibration(model))
        model.cpu()
        return found

    def _recalibration(self, model: nn.Module, batches: int | None = None) -> Callable[[Trainer], None]:
        """Takes the batch statistics of a model afresh; as many batches fewer as there are fewer of validation data."""
        number = self._settings.get("recalibration", 20)
        if batches is not None and self._passes is not None:
            number = self._passes.recalibration(batches)
        return self._trained.judging.recalibration(model, number)


def _module_around(model: nn.Module, training: Training, numbers: Numbers | None = None) -> LightningModule:
    """The evaluator's module with a model that has weights, which stay whatever its constructor initialises.

    Args:
        model: as it is.
        training: has the evaluator.
        numbers: the model's, where somebody has them.
    """
    numbers = numbers or Numbers(model)
    inner = training.evaluator.module(model)
    numbers.put_back()
    return inner


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
