"""Experiments as users run them: results, failures, resuming, exports."""

import importlib
import importlib.util
import math
import runpy
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import torch
from torch import nn

import nas
from nas import (
    Categorical,
    Experiment,
    ExperimentError,
    LayerChoice,
    ModelSpace,
    NasError,
    Real,
    TrialState,
    ValueChoice,
    model_space,
)
from nas.evaluators import FunctionalEvaluator
from nas.strategies import GridSearch, Random
from nas.testing import ended_well, fork


@model_space
class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([2, 4, 8], label="width")
        self.layers = nn.Sequential(
            nn.Linear(3, width), LayerChoice([nn.ReLU, nn.Tanh], label="act"), nn.Linear(width, 2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def size(model: nn.Module) -> float:
    return sum(p.numel() for p in model.parameters())


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Experiment]:
    def make(function: Callable[..., object] = size, **options: object) -> Experiment:
        space = options.pop("space", Net)
        strategy = options.pop("strategy", None) or Random()
        values = options.pop("values", {})
        options = {"name": "test", "directory": tmp_path, **options}
        return Experiment(space, FunctionalEvaluator(function, **values), strategy, **options)  # type: ignore[arg-type]

    return make


def quiet(experiment: Experiment, *args: object, **options: object) -> Experiment:
    experiment.run(*args, progress="silent", **options)  # type: ignore[arg-type]
    return experiment


def test_it_finds_the_best_both_ways(make: Callable[..., Experiment]) -> None:
    largest = quiet(make(strategy=GridSearch()))
    assert len(largest.trials) == 6
    assert largest.best_trial.sample == {"width": 8, "act": "ReLU"}
    assert largest.best_trial.value == 3 * 8 + 8 + 8 * 2 + 2
    assert quiet(make(objective="minimize", name="min")).best_trial.sample["width"] == 2


def test_random_ends_when_the_space_is_exhausted(
    make: Callable[..., Experiment], capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = make()
    experiment.run(50)
    assert len({str(t.sample) for t in experiment.trials}) == len(experiment.trials) == 6
    out = capsys.readouterr().out
    assert "the search space is exhausted: all 6 samples have been tried" in out
    assert "Top trials" in out
    assert f"Everything is in {experiment.path}" in out.replace("\n", "")


def test_silence(make: Callable[..., Experiment], capfd: pytest.CaptureFixture[str]) -> None:
    quiet(make(), 3)
    assert capfd.readouterr() == ("", "")


def test_several_objectives_give_a_pareto_front(make: Callable[..., Experiment]) -> None:
    def two(model: nn.Module) -> dict[str, float]:
        act = isinstance(model.layers[1], nn.Tanh)  # type: ignore[index]
        return {"good": size(model) - 5 * act, "cost": size(model)}

    experiment = quiet(make(two, objective={"good": "maximize", "cost": "minimize"}))
    assert sorted((t.sample["width"], t.sample["act"]) for t in experiment.pareto_front) == [
        (2, "ReLU"),
        (4, "ReLU"),
        (8, "ReLU"),
    ]
    assert experiment.pareto_front[0].values == (50.0, 50.0)
    with pytest.raises(ExperimentError, match="look at pareto_front"):
        _ = experiment.best_trial


def test_hyperparameters_join_the_sample(make: Callable[..., Experiment]) -> None:
    seen = []

    def train(model: nn.Module, rate: float, kind: str, epochs: int) -> float:
        seen.append((rate, kind, epochs))
        return rate

    values = {"rate": Real(0, 1), "kind": Categorical(["a", "b"]), "epochs": 3}
    experiment = quiet(make(train, values=values), 5)
    assert [(t.sample["rate"], t.sample["kind"], 3) for t in experiment.trials] == seen
    best = experiment.best_trial
    assert best.value == best.sample["rate"] == max(rate for rate, *_ in seen)
    assert experiment.space.build(best.sample).layers[0].out_features == best.sample["width"]  # type: ignore[index,union-attr]
    assert experiment.export_top_models(1, formatter="dict") == [best.sample]


def test_trials_are_seeded_and_leave_the_global_generators_alone(
    make: Callable[..., Experiment], tmp_path: Path
) -> None:
    def noisy(model: nn.Module) -> float:
        return float(model(torch.ones(1, 3)).detach().sum() + torch.rand(()))

    before = torch.get_rng_state()
    one = quiet(make(noisy, seed=3), 4)
    two = quiet(make(noisy, seed=3, name="two"), 4)
    other = quiet(make(noisy, seed=4, name="other"), 4)
    assert torch.equal(before, torch.get_rng_state())
    assert [(t.sample, t.value) for t in one.trials] == [(t.sample, t.value) for t in two.trials]
    assert [t.value for t in one.trials] != [t.value for t in other.trials]


def test_repeats_average_over_seeds(make: Callable[..., Experiment]) -> None:
    trial = quiet(make(lambda model: float(torch.rand(())), repeats=3), 1).trials[0]
    found = [metrics["value"] for metrics in trial.repeats]
    assert len(set(found)) == 3
    assert trial.value == pytest.approx(sum(found) / 3)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "must be a number, or a dict of numbers; received None"),
        ("good", "must be a number, or a dict of numbers; received 'good'"),
        (math.nan, "the result must be finite; received nan"),
        (math.inf, "the result must be finite"),
        ({"loss": 1.0}, "the metric 'accuracy', which the evaluator did not return"),
        ({}, "at least one entry"),
    ],
)
def test_bad_results_fail_the_trial(make: Callable[..., Experiment], result: object, message: str) -> None:
    objective = {"accuracy": "maximize"} if isinstance(result, dict) else "maximize"
    trial = quiet(make(lambda model: result, objective=objective), 1).trials[0]
    assert trial.state is TrialState.FAILED
    assert message in (trial.error or "")


def test_a_failing_trial_is_kept_with_its_traceback_and_the_search_goes_on(make: Callable[..., Experiment]) -> None:
    def picky(model: nn.Module) -> float:
        if model.layers[0].out_features == 4:  # type: ignore[index,union-attr]
            raise RuntimeError("four is right out")
        return size(model)

    experiment = quiet(make(picky, strategy=GridSearch()))
    assert [t.state.name for t in experiment.trials] == ["COMPLETE"] * 2 + ["FAILED"] * 2 + ["COMPLETE"] * 2
    assert "picky" in (experiment.trials[2].error or "")
    assert experiment.trials[2].error_line == "RuntimeError: four is right out"


def test_ten_failures_at_the_start_end_the_search(make: Callable[..., Experiment]) -> None:
    def broken(model: nn.Module) -> float:
        raise KeyError("no data")

    experiment = make(broken, strategy=Random(distinct=False))
    with pytest.raises(ExperimentError, match=r"first 10 trials all failed(.|\n)*KeyError: 'no data'"):
        quiet(experiment, 50)
    assert len(experiment.trials) == 10


def test_reports_and_early_stopping(make: Callable[..., Experiment]) -> None:
    def curve(model: nn.Module) -> float:
        for step in range(5):
            nas.report(size(model) * step, step=step)
        return size(model)

    pruner = optuna.pruners.ThresholdPruner(upper=100)
    experiment = quiet(make(curve, strategy=GridSearch(), early_stopping=pruner))
    states = {t.sample["width"]: t.state for t in experiment.trials}
    assert states == {2: TrialState.COMPLETE, 4: TrialState.COMPLETE, 8: TrialState.STOPPED} or (
        states[2] is TrialState.COMPLETE and states[8] is TrialState.STOPPED
    )
    stopped = next(t for t in experiment.trials if t.sample["width"] == 8)
    assert stopped.intermediate == {0: 0.0, 1: 50.0, 2: 100.0, 3: 150.0}
    assert stopped.value == 150.0
    with pytest.warns(UserWarning, match="nas.report was called outside of a trial, where nothing is recorded"):
        nas.report(1.0)


def test_time_limits(make: Callable[..., Experiment]) -> None:
    def slow(model: nn.Module) -> float:
        time.sleep(0.8 if model.layers[0].out_features == 2 else 0)  # type: ignore[index,union-attr]
        return 1.0

    limited = quiet(make(slow, strategy=GridSearch()), max_trial_time=0.4)
    assert [t.state.name for t in limited.trials[:3]] == ["FAILED", "FAILED", "COMPLETE"]
    assert "max_trial_time" in limited.trials[0].error_line
    short = quiet(make(slow, strategy=GridSearch(), name="short"), timeout=0.5)
    assert len(short.trials) == 1


@pytest.mark.parametrize("keeps_cause", [True, False])
def test_a_library_that_turns_every_error_into_its_own_does_not_hide_that_the_time_was_up(
    make: Callable[..., Experiment], keeps_cause: bool
) -> None:
    def slow(model: nn.Module) -> float:
        try:
            time.sleep(5)
        except Exception as error:
            raise TypeError("unsupported") from error if keeps_cause else None
        return 1.0

    trial = quiet(make(slow), 1, max_trial_time=0.1).trials[0]
    assert trial.error_line == "nas.protocols.evaluation.TrialTimeout: the trial ran longer than max_trial_time, 0.1 s"

    def wrong(model: nn.Module) -> float:
        raise TypeError("unsupported")

    assert quiet(make(wrong, name="wrong"), 1, max_trial_time=9).trials[0].error_line == "TypeError: unsupported"


def test_ctrl_c_ends_in_good_order_and_run_goes_on(
    make: Callable[..., Experiment], capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def interrupted(model: nn.Module) -> float:
        calls.append(model)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return size(model)

    experiment = make(interrupted)
    with pytest.raises(KeyboardInterrupt):
        experiment.run(5)
    assert "interrupted; run it again" in capsys.readouterr().out
    assert [t.state.name for t in experiment.trials] == ["COMPLETE", "COMPLETE", "RUNNING"]
    quiet(experiment, 5)
    assert [t.state.name for t in experiment.trials] == ["COMPLETE"] * 5
    assert [t.sample for t in experiment.trials] == [t.sample for t in quiet(make(name="plain"), 5).trials]


def test_resume_goes_on_as_if_never_stopped(make: Callable[..., Experiment]) -> None:
    quiet(make(seed=5), 2)
    resumed = make(seed=5, resume=True)
    assert len(resumed.trials) == 2
    quiet(resumed, 5)
    whole = quiet(make(seed=5, name="whole"), 5)
    assert [(t.sample, t.value, t.seed) for t in resumed.trials] == [(t.sample, t.value, t.seed) for t in whole.trials]


def test_an_existing_name_is_refused(make: Callable[..., Experiment]) -> None:
    quiet(make(), 1)
    with pytest.raises(ExperimentError, match="an experiment named 'test' exists already.*resume=True"):
        make()


class Other(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(ValueChoice([2, 5], label="width"), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed: 0 then, 1 now"),
        ({"objective": "minimize"}, "objective: .*maximize.* then, .*minimize.* now"),
        ({"space": Other}, "label 'width': one of 2, 4, 8 then, one of 2, 5 now"),
        ({"strategy": GridSearch()}, "strategy: .*Random' then, .*GridSearch' now"),
        ({"repeats": 2}, "repeats: 1 then, 2 now"),
    ],
)
def test_resuming_something_else_says_what_differs(
    make: Callable[..., Experiment], change: dict[str, object], message: str
) -> None:
    quiet(make(), 1)
    with pytest.raises(ExperimentError, match=message):
        make(resume=True, **change)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "max"}, '"maximize" or "minimize"'),
        ({"objective": {}}, "the objective is"),
        ({"strategy": Random}, "give an instance"),
        ({"name": "a/b"}, "name of its folder"),
        ({"seed": "x"}, "Experiment: seed must be an int"),
        ({"repeats": 0}, "repeats must be an int from 1 on"),
        ({"executor": "cloud"}, 'the executor is "inline", "process"'),
        ({"early_stopping": 3}, "or an Optuna pruner"),
        ({"space": nn.Linear(2, 2)}, "at least one choice"),
        ({"values": {"width": Real(0, 1)}}, "size has no argument 'width'"),
    ],
)
def test_bad_arguments_are_refused_before_anything_runs(
    make: Callable[..., Experiment], options: dict[str, object], message: str
) -> None:
    with pytest.raises(NasError, match=message):
        make(**options)


def test_a_folder_that_cannot_be_written_is_refused(make: Callable[..., Experiment], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExperimentError, match="folder cannot be written"):
        make(directory=tmp_path / "file")


@pytest.mark.parametrize("options", [{"max_trials": 0}, {"timeout": -1}, {"concurrency": 2}, {"progress": "loud"}])
def test_bad_limits_are_refused(make: Callable[..., Experiment], options: dict[str, object]) -> None:
    with pytest.raises(NasError):
        make().run(**options)


def test_exports(make: Callable[..., Experiment], tmp_path: Path) -> None:
    def train(model: nn.Module) -> float:
        model(torch.zeros(4, 3))
        return size(model)

    experiment = quiet(make(train), 6)
    samples = experiment.export_top_models(2, "dict")
    assert [sample["width"] for sample in samples] == [8, 8]
    (model,) = experiment.export_top_models(1, "model")
    assert model(torch.zeros(2, 3)).shape == (2, 2)
    (onnx,) = experiment.export_top_models(1, "onnx")
    assert nas.export.read_metadata(onnx)["sample"] == samples[0]
    with pytest.raises(NasError, match='formatter must be .*To mend: formatter="onnx"'):
        experiment.export_top_models(1, "onx")
    frame = experiment.to_dataframe()
    assert list(frame["number"]) == list(range(6))
    assert frame["value"].max() == experiment.best_trial.value


def test_ints_that_not_every_sample_has_stay_ints_in_a_dataframe(tmp_path: Path) -> None:
    def program() -> dict[str, object]:
        deep = ValueChoice([False, True], label="deep")
        inner = {"depth": ValueChoice([2, 3], label="depth"), "rate": ValueChoice([0.5], label="rate")} if deep else {}
        return {"deep": deep, **inner, "bits": ValueChoice([None, 8], label="bits"), "huge": ValueChoice([2**70])}

    evaluator = FunctionalEvaluator(lambda made: float(made.get("depth", 1)))
    experiment = Experiment(nas.search_space(program), evaluator, GridSearch(), name="ints", directory=tmp_path)
    experiment.run(progress="silent")
    frame = experiment.to_dataframe()
    assert sorted(set(frame["sample.depth"].dropna())) == [2, 3]
    assert {name: str(frame[f"sample.{name}"].dtype) for name in ("depth", "rate", "bits", "deep")} == {
        "depth": "Int64",
        "rate": "float64",
        "bits": "Int64",
        "deep": "bool",
    }
    assert "depth" in frame.to_csv()
    assert "3.0" not in frame["sample.depth"].to_csv()


@pytest.mark.slow
def test_code_rebuilds_the_architecture_in_another_process(tmp_path: Path) -> None:
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\nfrom nas import ValueChoice, model_space\n"
        "@model_space\nclass MyNet(nn.Sequential):\n"
        "    def __init__(self, outputs):\n"
        "        super().__init__(nn.Linear(ValueChoice([2, 4], label='width'), outputs))\n"
    )
    spec = importlib.util.spec_from_file_location("mynet", tmp_path / "mynet.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["mynet"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    experiment = Experiment(module.MyNet(3), FunctionalEvaluator(size), GridSearch(), name="code", directory=tmp_path)
    quiet(experiment)
    (code,) = experiment.export_top_models(1, "code", directory=tmp_path)
    sample = nas.save_sample(experiment.best_trial.sample, tmp_path / "best.json")
    ended_well(fork(rebuild, tmp_path, code, sample, output=tmp_path / "output"), tmp_path / "output")
    assert (tmp_path / "output").read_text().count("Linear(in_features=4, out_features=3, bias=True)") == 2


def rebuild(folder: Path, code: Path, sample: Path) -> None:
    sys.path.insert(0, str(folder))
    runpy.run_path(str(code), run_name="__main__")
    space = ModelSpace(importlib.import_module("mynet").MyNet, 3)
    print(space.build(nas.load_sample(sample)))


class Stack(nn.Sequential):
    def __init__(self) -> None:
        depth = ValueChoice([1, 2, 3], label="n")
        super().__init__(*[LayerChoice([nn.ReLU, nn.Tanh], label=f"op{i}") for i in range(depth)])


def test_the_trial_records_the_complete_sample(make: Callable[..., Experiment]) -> None:
    seen: dict[int, list[type]] = {}

    def layers(model: nn.Module) -> float:
        seen[len(seen)] = [type(m) for m in model]  # type: ignore[attr-defined]
        return len(model)  # type: ignore[arg-type]

    experiment = quiet(make(layers, space=Stack), 12)
    for trial in experiment.trials:
        sample = trial.sample
        assert set(sample) == {"n", *(f"op{i}" for i in range(sample["n"]))}
        assert [getattr(nn, sample[f"op{i}"]) for i in range(sample["n"])] == seen[trial.number]
    resumed = quiet(make(layers, space=Stack, resume=True), 14)
    assert [t.sample for t in resumed.trials[:12]] == [t.sample for t in experiment.trials]


@pytest.mark.parametrize("url", [None, "sqlite:///{}/ledger.db"])
def test_the_ledger_is_an_optuna_study(make: Callable[..., Experiment], tmp_path: Path, url: str | None) -> None:
    storage = None if url is None else url.format(tmp_path)
    experiment = quiet(make(storage=storage, values={}), 4)
    if storage is None:
        backend = optuna.storages.journal.JournalFileBackend(str(experiment.path / "journal.log"))
        study = optuna.load_study(study_name="test", storage=optuna.storages.JournalStorage(backend))
    else:
        study = optuna.load_study(study_name="test", storage=storage)
    assert [t.params for t in study.trials] == [t.sample for t in experiment.trials]
    assert study.best_value == experiment.best_trial.value
    loaded = Experiment.load(experiment.path, Net, storage=storage)
    assert loaded.trials == experiment.trials
    assert loaded.export_top_models(1) == experiment.export_top_models(1)
    again = Experiment.load(experiment.path, Net, experiment.evaluator, Random(), storage=storage)
    assert len(quiet(again, 6).trials) == 6


@pytest.mark.parametrize("tear", [b'{"op_code":6,"trial', b"\0\0\0\0"])
def test_a_torn_last_line_is_survived(make: Callable[..., Experiment], tear: bytes) -> None:
    experiment = quiet(make(), 3)
    journal = experiment.path / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + tear)
    resumed = make(resume=True)
    assert journal.read_bytes() == whole + tear, "whoever looks mends nothing"
    assert resumed.trials == experiment.trials
    assert len(quiet(resumed, 5).trials) == 5
    assert journal.read_bytes().startswith(whole)
    assert tear not in journal.read_bytes()


def test_damage_in_the_middle_is_not_glossed_over(make: Callable[..., Experiment]) -> None:
    journal = quiet(make(), 3).path / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4][:10] + b"\n"
    journal.write_bytes(b"".join(lines))
    with pytest.raises(ExperimentError, match="a line in the middle of the journal is damaged"):
        make(resume=True)
    assert journal.read_bytes() == b"".join(lines)


def test_load_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="there is no experiment in this folder"):
        Experiment.load(tmp_path / "nothing")
    assert ModelSpace(Net).size == 6


def test_the_live_line_and_the_table(make: Callable[..., Experiment], capsys: pytest.CaptureFixture[str]) -> None:
    make(lambda model: {"accuracy": 0.5, "loss": 1.0}).run(3, progress="rich")
    out = capsys.readouterr().out
    assert "accuracy (max)" in out
    assert "3 trials: 3 complete" in out


def test_a_missing_library_is_answered_with_the_line_that_installs_it(
    make: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(nas.MissingDependency, match=r'pip install "torch-nas\[dataframe\]"'):
        quiet(make(), 1).to_dataframe()


def test_two_processes_do_not_run_one_experiment(make: Callable[..., Experiment]) -> None:
    import filelock

    experiment = quiet(make(), 1)
    with (
        filelock.FileLock(experiment.path / "running.lock"),
        pytest.raises(ExperimentError, match="another process runs the experiment 'test'"),
    ):
        quiet(experiment, 2)


@pytest.mark.parametrize("records", [0, 1, 2, 3, 4])
def test_a_kill_while_the_ledger_is_begun_is_survived(make: Callable[..., Experiment], records: int) -> None:
    journal = quiet(make(), 2).path / "journal.log"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:records]))
    shutil.rmtree(journal.parent / "trials")
    assert [t.sample for t in quiet(make(resume=True), 4).trials] == [t.sample for t in quiet(make(name="w"), 4).trials]


def test_a_trial_that_runs_again_is_judged_afresh(make: Callable[..., Experiment]) -> None:
    interrupts, seen = [2], []

    class Watching(optuna.pruners.BasePruner):
        def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            seen.append(trial.last_step)
            return False

    def curve(model: nn.Module) -> float:
        for step in range(4):
            nas.report(10.0 * step, step=step)
            if interrupts and step == interrupts[0]:
                interrupts.clear()
                raise KeyboardInterrupt
        return 1.0

    experiment = make(curve, early_stopping=Watching())
    with pytest.raises(KeyboardInterrupt):
        quiet(experiment, 1)
    assert experiment.trials[0].state is TrialState.RUNNING
    trial = quiet(experiment, 1).trials[0]
    assert seen == [0, 1, 2, 0, 1, 2, 3]
    assert trial.intermediate == {step: 10.0 * step for step in range(4)}
