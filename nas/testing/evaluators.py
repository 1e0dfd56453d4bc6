"""The contract of evaluators, as a pytest suite: subclass it, say how to make one, and run pytest."""

from __future__ import annotations

import math
import random
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]  # it has no annotations
import numpy
import torch

from nas.domains import Domain
from nas.execution import Assignment, Outcome, Plan, execute
from nas.protocols import Evaluator, Objectives, TrialState
from nas.space import ModelSpace


class EvaluatorContract(ABC):
    """What an experiment relies on. Subclass it in a test file under a name that begins with `Test`.

    Class attributes say what the evaluator does not promise:
        reports: it reports intermediate results, so that early stopping can act.
        quiet: it prints nothing.

    Example:
        >>> from torch import nn
        >>> from nas import ValueChoice
        >>> from nas.evaluators import FunctionalEvaluator
        >>> class TestSize(EvaluatorContract):
        ...     reports = False
        ...     def make(self):
        ...         return FunctionalEvaluator(lambda model: sum(p.numel() for p in model.parameters()))
        ...     def space(self):
        ...         return lambda: nn.Linear(ValueChoice([2, 4]), 1)
        >>> TestSize().test_metrics_are_finite()
    """

    reports = True
    quiet = True

    @abstractmethod
    def make(self) -> Evaluator:
        """A new evaluator, one that is done in a second or so."""

    @abstractmethod
    def space(self) -> object:
        """What ModelSpace takes: architectures that it can evaluate."""

    def _run(
        self,
        evaluator: Evaluator | None = None,
        *,
        seed: int = 1,
        on_report: Callable[[int, float], bool] | None = None,
        directory: Path | None = None,
    ) -> Outcome:
        """One trial of the default sample, as an executor runs it."""
        evaluator = self.make() if evaluator is None else evaluator
        space: Any = self.space()
        whole = (space if isinstance(space, ModelSpace) else ModelSpace(space)).with_hyperparameters(
            evaluator.hyperparameters
        )
        with tempfile.TemporaryDirectory() as folder:
            return execute(
                Plan(
                    evaluator=evaluator,
                    objectives=Objectives(evaluator.direction or "maximize"),
                    build=whole.build_completed,
                    hyperparameters=frozenset(evaluator.hyperparameters),
                ),
                Assignment(
                    number=0,
                    sample=whole.default(),
                    seed=seed,
                    on_report=on_report,
                    directory=directory or Path(folder) / "trials" / "0",
                ),
            )

    def test_metrics_are_finite(self) -> None:
        """It returns at least one number, and the reports are numbers too."""
        outcome = self._run()
        assert outcome.state is TrialState.COMPLETE, outcome.error
        assert outcome.metrics
        assert all(map(math.isfinite, [*outcome.metrics.values(), *outcome.intermediate.values()]))

    def test_the_same_seed_gives_the_same_result(self) -> None:
        """Whatever was done before: by this evaluator, another one like it, or the global random generators."""
        used = self.make()
        first = self._run(used)
        torch.rand(3), numpy.random.rand(3), random.random()
        for evaluator in (used, self.make()):
            again = self._run(evaluator)
            assert again.metrics == first.metrics, (first.error, again.error)
            assert again.intermediate == first.intermediate

    def test_global_random_state_is_left_alone(self) -> None:
        """What is drawn after a trial does not depend on the trial."""
        before = torch.get_rng_state(), random.getstate()
        self._run()
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1] == random.getstate()

    def test_reports_are_made_and_stop_the_trial(self) -> None:
        """A trial that is told to stop at its first report is STOPPED with that value."""
        if not self.reports:
            return
        seen: list[tuple[int, float]] = []

        def stop(step: int, value: float) -> bool:
            seen.append((step, value))
            return True

        outcome = self._run(on_report=stop)
        assert outcome.state is TrialState.STOPPED, outcome.error
        assert len(seen) == 1
        assert outcome.intermediate == dict(seen)
        assert outcome.values == (seen[0][1],)

    def test_the_last_report_is_the_result(self) -> None:
        """Reports are of what is searched for: the last of them is what the trial is worth."""
        if self.reports:
            outcome = self._run()
            assert outcome.values is not None, outcome.error
            assert math.isclose(outcome.intermediate[max(outcome.intermediate)], outcome.values[0], rel_tol=1e-6)

    def test_it_travels(self) -> None:
        """Pickled by cloudpickle, as for another process, it gives the same result; after use as well as before."""
        evaluator = self.make()
        travelled = cloudpickle.loads(cloudpickle.dumps(evaluator))
        expected = self._run(evaluator).metrics
        assert self._run(travelled).metrics == expected
        assert self._run(cloudpickle.loads(cloudpickle.dumps(evaluator))).metrics == expected

    def test_hyperparameters_are_domains(self) -> None:
        """What is searched with the architecture, by keyword; asked twice, the same."""
        evaluator = self.make()
        searched = evaluator.hyperparameters
        assert all(isinstance(name, str) and isinstance(domain, Domain) for name, domain in searched.items())
        assert dict(searched) == dict(evaluator.hyperparameters)
        assert evaluator.direction in (None, "maximize", "minimize")

    def test_files_go_to_the_folder_of_the_trial(self, tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
        """Nothing is left in the current directory, and nothing printed."""
        here = tmp_path / "here"
        here.mkdir()
        monkeypatch.chdir(here)
        evaluator = self.make()
        capfd.readouterr()
        outcome = self._run(evaluator, directory=tmp_path / "there")
        assert outcome.state is TrialState.COMPLETE, outcome.error
        assert list(here.iterdir()) == []
        if self.quiet:
            assert capfd.readouterr() == ("", "")
