"""Training an architecture that a search has found, alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from torch import nn

from nas.brief import call_text
from nas.checks import check_int
from nas.domains import Sample
from nas.errors import ExperimentError, explain
from nas.protocols import Evaluator, Job, as_metrics, evaluating
from nas.random_state import derive_seed, seeded
from nas.search.arguments import check_evaluator
from nas.search.results import Results


@final
@dataclass(frozen=True, kw_only=True)
class Retrained:
    """An architecture that was trained alone."""

    model: nn.Module
    """An ordinary module, trained."""
    metrics: dict[str, float]
    """What the evaluator measured."""
    sample: Sample
    """What it was trained by: without the hyperparameters that another evaluator has fixed otherwise."""

    def __repr__(self) -> str:
        """In one line, though a module has many."""
        return call_text("Retrained", {"model": type(self.model), "metrics": self.metrics, "sample": self.sample})


def retrain(
    results: Results, rank: int, *, evaluator: Evaluator, seed: int, inherit: Callable[[Sample], nn.Module] | None
) -> Retrained:
    """Trains the architecture of a rank.

    Args:
        results: of the search.
        rank: 1 for the best.
        evaluator: how it is trained: what it fixes wins over what the search has tuned, and what it leaves open is
            as the search has tuned it; with folds, it trains once on all of the data.
        seed: of the training.
        inherit: makes the module to begin with; one with fresh weights where None.

    Raises:
        NasTypeError, NasValueError: a rank or a seed that is no int, a rank below 1, or what is no evaluator.
        ExperimentError: there are not so many architectures.
    """
    rank, seed = check_int("rank", rank, least=1, where="retrain"), check_int("seed", seed, where="retrain")
    check_evaluator(evaluator)
    top = results.top(rank)
    if len(top) < rank:
        mend = f"a rank up to {len(top)}" if top else "experiment.run() first: no trial is COMPLETE yet"
        raise ExperimentError(explain(f"there are only {len(top)} architectures", got=rank, where="rank", mend=mend))
    trial = top[rank - 1]
    space = results.space
    assert space is not None, "an experiment has one"

    tuned = {label: answer for label, answer in trial.sample.items() if label in space.hyperparameters}
    evaluator, taken = evaluator.settled(tuned)
    architecture = {label: answer for label, answer in trial.sample.items() if label not in tuned}

    def build(sample: Sample, seed: int) -> tuple[nn.Module, Sample]:
        module, complete = space.build_completed(sample, seed)
        complete = {label: answer for label, answer in complete.items() if label not in space.hyperparameters} | taken
        if inherit is not None:
            module.load_state_dict(inherit(trial.sample).state_dict())
        return module, complete

    job = Job(
        number=trial.number,
        sample=architecture | taken,
        seed=derive_seed(seed, trial.number, rank),
        build=build,
        hyperparameters=frozenset(taken),
        directory=results.path / "retrained" / str(rank),
    )
    with evaluating(job), seeded(job.seed):
        metrics = as_metrics(evaluator.evaluate(job))
        model = job.model
        job.release()
    return Retrained(model=model.cpu(), metrics=metrics, sample=job.sample)
