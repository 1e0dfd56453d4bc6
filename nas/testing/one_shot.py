"""The contract of one-shot strategies, as a pytest suite: subclass it, say how to make one, and run pytest."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from nas._compat.torch_internals import BatchNorm
from nas.domains import Categorical
from nas.errors import ExperimentError
from nas.protocols import Evaluator, Job, MedianStop, OneShotStrategy, TrialState
from nas.search import Experiment
from nas.space import LayerChoice, ModelSpace, Repeat, ValueChoice
from nas.testing.comparison import differences, process_state, refused
from nas.testing.processes import fork

_KILLS = 3


def _network() -> nn.Module:
    """(batch, 6) -> (batch, 3); with a bias left out, batch statistics, dropout and a frozen layer."""
    width = ValueChoice([4, 8], label="width")
    frozen = nn.Linear(8, 8).requires_grad_(False)
    block = {"linear": lambda: nn.Linear(8, 8, bias=False), "tanh": lambda: nn.Sequential(nn.Linear(8, 8), nn.Tanh())}
    return nn.Sequential(
        nn.Linear(6, width, bias=False),
        nn.BatchNorm1d(width),
        nn.Linear(width, 8),
        Repeat(lambda i: LayerChoice(block, label=f"block{i}"), (1, 2), label="depth"),
        frozen,
        nn.Dropout(0.1),
        nn.Linear(8, 3),
    )


class OneShotContract(ABC):
    """What an experiment relies on. Subclass it in a test file under a name that begins with `Test`.

    Class attributes say what the strategy does not promise:
        weights: its architectures can take its weights along.
        onnx: they are exported to ONNX here too, which takes some seconds.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> from nas.evaluators import Classification
        >>> from nas.oneshot import RandomOneShot
        >>> class TestRandomOneShot(OneShotContract):
        ...     def make(self):
        ...         return RandomOneShot(epochs=2, checkpoint_every=3, evaluations=3, candidates=2)
        ...     def evaluator(self, **arguments):
        ...         data = TensorDataset(torch.randn(40, 6), torch.arange(40) % 3)
        ...         return Classification(data, data, batch_size=8, accelerator="cpu", **arguments)
        >>> TestRandomOneShot().test_what_it_cannot_do_is_refused_first()
    """

    weights = True
    onnx = True
    _finished: ClassVar[dict[type, tuple[Experiment, int]]] = {}

    @abstractmethod
    def make(self) -> OneShotStrategy:
        """A new strategy that is done in a second or so: 2 epochs of some batches, a checkpoint every 3 steps."""

    @abstractmethod
    def evaluator(self, **arguments: Any) -> Evaluator:
        """A new evaluator that trains, on data of (batch, 6) and 3 classes; some arguments may be replaced."""

    def space(self) -> Any:
        """What ModelSpace takes."""
        return ModelSpace(_network)

    @classmethod
    def teardown_class(cls) -> None:
        """Removes what the tests had in common."""
        if (finished := OneShotContract._finished.pop(cls, None)) is not None:
            shutil.rmtree(finished[0].path.parent)

    def _experiment(self, folder: Path, *, seed: int = 1, resume: bool = False) -> Experiment:
        return Experiment(
            self.space(), self.evaluator(), self.make(), name="search", directory=folder, seed=seed, resume=resume
        )

    @property
    def _whole(self) -> Experiment:
        """One that was run from the beginning to the end; the same for all tests."""
        return self._counted[0]

    @property
    def _counted(self) -> tuple[Experiment, int]:
        """That one, and how many calls of modules it took."""
        finished = OneShotContract._finished
        if type(self) not in finished:
            experiment = self._experiment(Path(tempfile.mkdtemp()))
            with calls_counted() as made:
                experiment.run(progress="silent")
            finished[type(self)] = experiment, made[0]
        return finished[type(self)]

    def _outcome(self, experiment: Experiment) -> dict[str, Any]:
        """Everything that a search leaves: weights, architecture, optimizers, random states, ranking, exports."""
        found: dict[str, Any] = {
            "state": torch.load(experiment.path / "supernet" / "last.ckpt", weights_only=True),
            "trials": [(trial.sample, trial.metrics, trial.state) for trial in experiment.trials],
            "export": experiment.export_top_models(2),
        }
        if self.weights:
            models = experiment.export_top_models(2, "model", inherit_weights=True)
            found["weights"] = [model.state_dict() for model in models]
        return found

    def _assert_same_end(self, experiment: Experiment) -> None:
        assert differences(self._outcome(experiment), self._outcome(self._whole)) == []

    def test_it_proposes_what_it_found(self) -> None:
        """Its trials are valid samples, all different, judged by the evaluator's metric."""
        trials = self._whole.trials
        assert trials
        for trial in trials:
            assert trial.state is TrialState.COMPLETE, trial.error
            assert self._whole.space.validate(trial.sample) == trial.sample
        assert len({str(sorted(trial.sample.items())) for trial in trials}) == len(trials)

    def test_the_seed_decides(self, tmp_path: Path) -> None:
        """Twice the same seed, twice the same bits; another seed, other weights."""
        self._whole  # noqa: B018 - it is run first
        torch.rand(3), numpy.random.rand(3), random.random()
        again = self._experiment(tmp_path / "again")
        again.run(progress="silent")
        self._assert_same_end(again)
        other = self._experiment(tmp_path / "other", seed=2)
        other.run(progress="silent")
        found = differences(self._outcome(other)["state"], self._outcome(self._whole)["state"])
        assert any(name.startswith("state_dict") for name in found)

    def test_kills_change_nothing(self, tmp_path: Path) -> None:
        """Killed at random instants of training, validation and ranking, and gone on with, it ends the same."""
        total, rng = self._counted[1], random.Random(type(self).__name__)
        codes = [self._in_a_process(tmp_path, rng.randrange(total // 8, total)) for _ in range(_KILLS)]
        assert codes[0] == -signal.SIGKILL
        assert set(codes) <= {0, -signal.SIGKILL}, (tmp_path / "output.txt").read_text()
        survivor = self._experiment(tmp_path, resume=True)
        survivor.run(progress="silent")
        self._assert_same_end(survivor)

    def _in_a_process(self, folder: Path, calls: int) -> int | None:
        """Runs a search, or goes on with it, in a process of its own that is killed after so many calls of modules.

        Returns:
            The exit code.
        """
        preload = tuple(type(part).__module__ for part in (self.make(), self.evaluator()))
        process = fork(_search, self, folder, calls, output=folder / "output.txt", preload=preload)
        process.join()
        return process.exitcode

    def test_the_time_is_kept(self, tmp_path: Path) -> None:
        """Where the time is up it has a checkpoint and no trials yet; run again, mid-epoch, it ends the same."""
        for number in range(2):
            experiment = self._experiment(tmp_path, resume=number > 0)
            experiment.run(timeout=1e-3, progress="silent")
            assert experiment.trials == []
            assert (experiment.path / "supernet" / "last.ckpt").exists()
        experiment.run(progress="silent")
        self._assert_same_end(experiment)

    def test_a_torn_checkpoint_falls_back_to_the_one_before(self, tmp_path: Path) -> None:
        """And a folder that was moved elsewhere is gone on with."""
        experiment = self._experiment(tmp_path / "here")
        experiment.run(timeout=1e-3, progress="silent")
        experiment.run(timeout=1e-3, progress="silent")
        last = experiment.path / "supernet" / "last.ckpt"
        last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
        shutil.move(tmp_path / "here", tmp_path / "there")
        moved = self._experiment(tmp_path / "there", resume=True)
        moved.run(progress="silent")
        self._assert_same_end(moved)

    def test_a_finished_search_is_not_trained_again(self) -> None:
        """Weights are inherited in a new process, say, from the checkpoint."""
        last = self._whole.path / "supernet" / "last.ckpt"
        before = last.stat().st_mtime_ns
        again = self._experiment(self._whole.path.parent, resume=True)
        again.run(progress="silent")
        assert last.stat().st_mtime_ns == before
        self._assert_same_end(again)

    def test_extracted_models_share_nothing(self) -> None:
        """Not with one another, nor with the supernet; what is left out, counted or frozen is as it was built."""
        if not self.weights:
            refused(lambda: self._whole.export_top_models(1, "model", inherit_weights=True), "weights")
            return
        sample = self._whole.trials[0].sample
        models = [self._whole.strategy.inherit(sample) for _ in range(2)]  # type: ignore[attr-defined]
        storages = [{tensor.untyped_storage().data_ptr() for tensor in m.state_dict().values()} for m in models]
        assert not storages[0] & storages[1]
        built = self._whole.space.build(sample)
        assert {n: t.shape for n, t in models[0].state_dict().items()} == {
            n: t.shape for n, t in built.state_dict().items()
        }
        assert [p.requires_grad for p in models[0].parameters()] == [p.requires_grad for p in built.parameters()]
        for norm in models[0].modules():
            if isinstance(norm, BatchNorm):
                assert norm.num_batches_tracked is not None
                assert norm.num_batches_tracked > 0
                assert norm.running_mean is not None
                assert norm.running_mean.abs().sum() > 0
        before = differences(self._outcome(self._whole), {})
        for tensor in models[0].state_dict().values():
            tensor.zero_()
        assert differences(self._outcome(self._whole), {}) == before
        again = self._whole.strategy.inherit(sample)  # type: ignore[attr-defined]
        assert differences(again.state_dict(), models[1].state_dict()) == []

    def test_frozen_parameters_are_not_trained(self) -> None:
        """Whatever the others do."""
        if not self.weights:
            return
        sample = self._whole.trials[0].sample
        trained = self._whole.strategy.inherit(sample)  # type: ignore[attr-defined]
        fresh = self._learner(self._whole).extract(sample)
        moved = {
            name: not torch.equal(p, q)
            for (name, p), q in zip(trained.named_parameters(), fresh.parameters(), strict=True)
        }
        assert moved == {name: p.requires_grad for name, p in trained.named_parameters()}

    def _learner(self, experiment: Experiment) -> Any:
        strategy: Any = experiment.strategy
        evaluator: Any = experiment.evaluator
        batch = next(iter(evaluator.data(seed=0).train_dataloader()))
        return strategy.make_learner(experiment.space, seed=experiment.seed, example=(batch[0],))

    def test_the_optimizers_keep_apart(self) -> None:
        """No architecture parameter is in an optimizer of the weights, and no weight in one of the architecture."""
        learner, evaluator = self._learner(self._whole), self._whole.evaluator
        weights, architecture = set(learner.model.parameters()), set(learner.parameters())
        assert weights
        assert not weights & architecture
        module = evaluator.module(learner.model)  # type: ignore[attr-defined]
        assert not architecture & set(module.parameters())
        assert {p for o in learner.optimizers() for g in o.param_groups for p in g["params"]} <= architecture

    def test_exports(self, tmp_path: Path) -> None:
        """Samples, modules and ONNX files; with the weights of the supernet where they are asked for."""
        top = self._whole.export_top_models(2, "dict")
        assert [self._whole.space.validate(sample) for sample in top] == top
        assert all(isinstance(model, nn.Module) for model in self._whole.export_top_models(2, "model"))
        data: Any = self._whole.evaluator
        example = next(iter(data.data(seed=0).train_dataloader()))[0]
        for inherit in (False, True)[: 1 + self.weights] if self.onnx else ():
            (path,) = self._whole.export_top_models(
                1, "onnx", inherit_weights=inherit, example_input=example, directory=tmp_path / str(inherit)
            )
            assert Path(path).exists()

    def test_trials_keep_what_they_were_judged_with(self) -> None:
        """Its own copy of the shared weights; or that is refused, where architectures cannot take them along."""
        if not self.weights:
            assert self._whole.trials[0].checkpoint is None
            refused(lambda: self._whole.export_top_models(1, "model", weights="trained"), "weights")
            return
        strategy: Any = self._whole.strategy
        for trial in self._whole.trials:
            trained = self._whole.results.build(trial, "trained")
            assert differences(trained.state_dict(), strategy.inherit(trial.sample).state_dict()) == []
            assert strategy.measure(trained) == dict(trial.metrics)

    def test_the_best_is_retrained(self) -> None:
        """From scratch and from the shared weights, in one call."""
        scratch = self._whole.retrain()
        assert scratch.sample == self._whole.best_trial.sample
        assert differences(self._whole.retrain().model.state_dict(), scratch.model.state_dict()) == []
        if self.weights:
            inherited = self._whole.retrain(inherit_weights=True)
            assert inherited.metrics.keys() == scratch.metrics.keys()
            assert differences(inherited.model.state_dict(), scratch.model.state_dict()) != []

    def test_validation_really_runs(self, tmp_path: Path, monkeypatch: Any) -> None:
        """All validation batches, once or more in each epoch, besides those of ranking."""
        evaluator: Any = self.evaluator()
        kind = type(evaluator.module(nn.Linear(1, 1)))
        given, seen = kind.validation_step, list[bool]()

        def count(module: Any, *arguments: Any) -> Any:
            seen.append(module.training)
            return given(module, *arguments)

        monkeypatch.setattr(kind, "validation_step", count)
        monkeypatch.setattr(type(self._learner(self._whole)), "rank", _stop)
        experiment = Experiment(self.space(), evaluator, self.make(), name="search", directory=tmp_path)
        with suppress(_Stop):
            experiment.run(progress="silent")
        assert len(seen) >= 2 * len(evaluator.data(seed=0).val_dataloader())
        assert not any(seen), "validation is in eval mode"

    def test_what_it_cannot_do_is_refused_first(self) -> None:
        """With an explanation, and before anything is written."""
        with tempfile.TemporaryDirectory() as folder:

            def start(words: str, evaluator: Evaluator | None = None, **arguments: Any) -> None:
                judge = self.evaluator() if evaluator is None else evaluator
                refused(
                    lambda: Experiment(self.space(), judge, self.make(), name="refused", directory=folder, **arguments),
                    words,
                )
                assert list(Path(folder).iterdir()) == []

            start("hyperparameters", self.evaluator(max_epochs=Categorical([1, 2])))
            start("evaluator", _Judge())
            start("executor", executor="process")
            start("repeats", repeats=2)
            start("early_stopping", early_stopping=MedianStop())
            start("one objective", objective={"accuracy": "maximize", "loss": "minimize"})

    def test_nothing_global_is_changed(self, tmp_path: Path) -> None:
        """Random states, warning filters, signal handlers, the environment, torch's settings."""
        experiment = self._experiment(tmp_path)
        before = process_state()
        experiment.run(progress="silent")
        experiment.export_top_models(1, "model", inherit_weights=self.weights)
        assert differences(process_state(), before) == []

    def test_a_supernet_that_is_not_trained_gives_nothing(self, tmp_path: Path) -> None:
        """Neither weights nor a report."""
        experiment = self._experiment(tmp_path)
        refused(lambda: experiment.one_shot_report(), "not trained", ExperimentError)


class _Judge(Evaluator):
    """An evaluator that trains nothing."""

    def evaluate(self, job: Job) -> dict[str, float]:
        """A number."""
        return {"value": 0.0}


class _Stop(Exception):  # noqa: N818 - it is no error
    """Training is over."""


def _stop(*_: Any) -> Any:
    raise _Stop


def _search(contract: OneShotContract, folder: Path, calls: int) -> None:
    """Runs the search of a contract in a process that is killed after so many calls of modules."""
    with calls_counted(lambda made: os.kill(os.getpid(), signal.SIGKILL) if made == calls else None):
        contract._experiment(folder, resume=True).run(progress="silent")


@contextmanager
def calls_counted(react: Callable[[int], None] = lambda made: None) -> Iterator[list[int]]:
    """Counts the calls of modules in a block, and reacts to each."""
    made = [0]

    def count(module: nn.Module, inputs: Any) -> None:
        made[0] += 1
        react(made[0])

    handle = register_module_forward_pre_hook(count)
    try:
        yield made
    finally:
        handle.remove()
