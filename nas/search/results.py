"""What an experiment found: the best trials, tables of them, and exports."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final

from nas.brief import rich_html
from nas.calls import explained
from nas.checks import absolute, check_int, check_path, check_word
from nas.domains import Sample, sample_key, save_sample
from nas.errors import ExperimentError, MissingDependency, explain, shown
from nas.files import own_folder
from nas.plain_text import printable
from nas.protocols import Objectives, Trial, TrialState, comparable
from nas.records import Ledger, Store, folder_of
from nas.search.progress import Standing, count_text, trials_table
from nas.search.weights import WEIGHTS, checkpoint_of

# What needs torch is imported where it is used: to look at what was found takes none.
if TYPE_CHECKING:
    import pandas
    from optuna.storages import BaseStorage
    from torch import nn

    from nas.space import ModelSpace

Formatter: TypeAlias = Literal["dict", "model", "onnx", "code"]


_FIRST = "experiment.run() first; where trials have FAILED, `trial.error` says why"


@explained(methods=True)
@final
@dataclass(frozen=True, kw_only=True)
class Results:
    """The trials of an experiment and what can be asked of them."""

    trials: list[Trial]
    objectives: Objectives
    path: Path
    """The experiment's folder."""
    space: ModelSpace | None = None
    """Needed to export models, ONNX and code."""
    header: dict[str, Any] = field(default_factory=dict)
    """What the ledger says of the experiment: its seed, objective, repeats and space."""
    inputs: list[dict[str, Any]] = field(default_factory=list)
    """Shape and dtype of the tensors that the first model was called with."""
    run: dict[str, Any] = field(default_factory=dict)
    """What was asked of the latest run, where the results were loaded."""
    retried: frozenset[int] = frozenset()
    """The FAILED trials that have another one in their place, begun or in the queue, where the results were loaded."""
    inherit: Callable[[Sample], nn.Module] | None = None
    """Makes the architecture of a sample with the shared weights of one-shot search, where there are some."""

    def __repr__(self) -> str:
        """In one line."""
        return f"Results({self.path.name!r}: {self.standing})"

    def _repr_html_(self) -> str:
        return self.as_html(repr(self))

    def as_html(self, title: str) -> str:
        """The best trials as a table under a title, for notebooks."""
        return f"<p>{escape(printable(title))}</p>{rich_html(trials_table(self.leaders, self.objectives))}"

    @property
    def leaders(self) -> list[Trial]:
        """The front of several objectives, or the best five trials of different samples."""
        return self.pareto_front if len(self.objectives.names) > 1 else self.top(5)

    @property
    def standing(self) -> str:
        """How many trials there are, and what is best, in one line."""
        lead = Standing(objectives=self.objectives, leaders=self.leaders, complete=0).lead
        return "; ".join(part for part in (count_text(self.trials), lead) if part)

    @classmethod
    def load(cls, path: Path, space: object = None, storage: str | BaseStorage | None = None) -> Results:
        """Reads an experiment from its folder; nothing in it is executed.

        Raises:
            ExperimentError: there is none.
        """
        path = absolute(path)
        store = Store(storage, path)
        found = store.look()
        ledger = None if found is None else Ledger.find(found, path.name, store.running)
        if ledger is None:
            raise _nothing(path, store, [s.study_name for s in found.get_all_studies()] if found else [])
        records, notes = ledger.read(), ledger.notes()
        header = ledger.header
        objective = header["objective"] if header["named"] else next(iter(header["objective"].values()))
        return cls(
            trials=[replace(r.trial, directory=folder_of(path, r.trial.number)) for r in records],
            objectives=Objectives(objective, assumed=header.get("assumed", False)),
            path=path,
            header=header,
            space=None if space is None else _as_space(space),
            inputs=next((record.inputs for record in records if record.inputs), []),
            run=notes.run,
            retried=frozenset(queued.instead_of for queued in notes.queue if queued.instead_of is not None),
        )

    @property
    def best_trial(self) -> Trial:
        """The COMPLETE trial with the best value, the earliest of equals.

        Raises:
            ExperimentError: there is none yet, or there are several objectives.
        """
        if len(self.objectives.names) > 1:
            raise ExperimentError(explain("several objectives have no single best trial", mend="look at pareto_front"))
        ranked = self.top(1)
        if not ranked:
            raise ExperimentError(explain("no trial is COMPLETE yet", got=f"{len(self.trials)} trials", mend=_FIRST))
        return ranked[0]

    @property
    def pareto_front(self) -> list[Trial]:
        """The COMPLETE trials that no other one beats in every objective."""
        return self.objectives.pareto_front(self.counted)

    @property
    def counted(self) -> list[Trial]:
        """The trials that are compared: all; of one-shot search those that the newest supernet has judged."""
        return comparable(self.trials)

    def top(self, k: int) -> list[Trial]:
        """The k best COMPLETE trials of different samples, best first (front after front for several objectives)."""
        different: dict[str, Trial] = {}
        for trial in self._in_order():
            different.setdefault(sample_key(trial.sample), trial)
        return list(different.values())[:k]

    @property
    def ranked(self) -> bool:
        """Whether the strategy proposed its samples in the order of its own ranking, best first, as one-shot does."""
        return bool(self.header.get("ranked"))

    def _in_order(self) -> list[Trial]:
        """The COMPLETE trials, best first."""
        if not self.ranked:
            return self.objectives.rank(self.counted)
        return [trial for trial in self.counted if trial.state is TrialState.COMPLETE]

    def to_dataframe(self) -> pandas.DataFrame:
        """A row for each trial: number, state, value (one per objective), metrics, seconds, and answers by label.

        Of one-shot search also `supernet_steps`, how long the supernet that judged it was trained: values of different
        supernets are not to be compared.

        Raises:
            MissingDependency: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingDependency("pandas", purpose="to_dataframe", extra="dataframe") from error
        rows = []
        for trial in self.trials:
            row: dict[str, Any] = {"number": trial.number, "state": str(trial.state)}
            values = trial.values or (math.nan,) * len(self.objectives.names)
            if len(values) == 1:
                row["value"] = values[0]
            row |= {f"metric.{name}": value for name, value in trial.metrics.items()}
            row |= {"duration": trial.duration, "error": trial.error_line or None}
            if trial.supernet_steps is not None:
                row["supernet_steps"] = trial.supernet_steps
            rows.append(row | {f"sample.{label}": answer for label, answer in trial.sample.items()})
        frame = pandas.DataFrame(rows)
        for name in frame.columns:
            present = [row[name] for row in rows if row.get(name) is not None]
            if len(present) < len(rows) and present and all(type(value) is int for value in present):
                # An answer that not every sample has would make floats of all of them.
                with suppress(OverflowError):
                    frame[name] = pandas.array([row.get(name) for row in rows], dtype="Int64")
        return frame

    def export_top_models(
        self,
        k: int = 1,
        formatter: str = "dict",
        *,
        weights: str = "fresh",
        example_input: Any = None,
        directory: str | Path | None = None,
        build: Callable[[Sample], nn.Module] | None = None,
    ) -> list[Any]:
        """The k best different architectures, best first.

        Args:
            k: how many at most.
            formatter: "dict" for samples; "model" for modules; "onnx" and "code" for paths of files.
            weights: "fresh" for those that the trial began with; "inherit" for the shared ones of one-shot search;
                "trained" for the very ones that the trial was judged with. With the last two, "model" gives modules in
                evaluation mode, "code" writes RANK.pt beside RANK.py, and "dict" writes RANK.json and RANK.pt.
            example_input: for "onnx": what the model is called with, as for `to_onnx`; where omitted, tensors of the
                shapes that the evaluator called the model with. Lazy layers get their shapes and weights by it.
            directory: where files go; `top` in the experiment's folder where omitted.
            build: makes the module of a sample, in place of what `weights` says.

        Raises:
            NasValueError: an unknown formatter or word for weights, or k below 1.
            ExperimentError: no trial is COMPLETE; no space was given; no example input is known; or a trial has no
                such weights.
        """
        check_word("weights", weights, WEIGHTS, where="export_top_models")
        makers: dict[str, Callable[[int, Trial, Path], Any]] = {
            "dict": lambda rank, trial, folder: self._to_dict(trial, folder / str(rank), weights),
            "model": lambda rank, trial, folder: make(trial),
            "onnx": lambda rank, trial, folder: self._to_onnx(
                make(trial), folder / f"{rank}.onnx", example_input, trial.seed
            ),
            "code": lambda rank, trial, folder: self._to_code(
                trial, folder / f"{rank}.py", None if weights == "fresh" and build is None else make(trial)
            ),
        }

        def make(trial: Trial) -> nn.Module:
            return self.build(trial, weights) if build is None else build(trial.sample)

        check_word("formatter", formatter, list(makers), where="export_top_models")
        if self.space is not None and not self.space.program.modules:
            if formatter in ("onnx", "code"):
                raise ExperimentError(
                    explain(
                        "a space without modules has none to write", got=formatter, mend='formatter="dict" or "model"'
                    )
                )
            if weights != "fresh":
                raise ExperimentError(
                    explain("what a space without modules makes has no weights", got=weights, mend='weights="fresh"')
                )
        best = self.top(check_int("k", k, least=1, where="export_top_models"))
        if not best:
            raise ExperimentError(explain("no trial is COMPLETE yet", got=f"{len(self.trials)} trials", mend=_FIRST))
        if weights == "trained":
            for trial in best:
                checkpoint_of(trial)  # before anything is written
        if directory is not None:
            folder = check_path("directory", directory, where="export_top_models")
        else:  # one of the experiment's own
            writes = formatter in ("onnx", "code") or (formatter == "dict" and weights != "fresh")
            folder = own_folder(self.path, "top") if writes else self.path / "top"
        return [makers[formatter](rank, trial, folder) for rank, trial in enumerate(best, 1)]

    @property
    def _space(self) -> ModelSpace:
        if self.space is None:
            raise ExperimentError(
                explain("building an architecture needs its model space", mend="Experiment.load(directory, space)")
            )
        return self.space

    @property
    def _hyperparameters(self) -> frozenset[str]:
        """The evaluator's labels: a space given to `load` does not know of them."""
        return frozenset(self.header.get("hyperparameters", ()))

    def build(self, trial: Trial, weights: str = "fresh") -> nn.Module:
        """The architecture of a trial.

        Args:
            trial: of this experiment.
            weights: "fresh" for those that the trial began with, "inherit" or "trained"; see `export_top_models`.

        Raises:
            ExperimentError: there are no such weights.
        """
        from nas.protocols import load_weights
        from nas.random_state import seeded

        check_word("weights", weights, WEIGHTS, where="build")
        if weights == "inherit":
            return self._inherited(trial).eval()
        file = checkpoint_of(trial) if weights == "trained" else None
        architecture = {label: answer for label, answer in trial.sample.items() if label not in self._hyperparameters}
        first = trial if trial.same_as is None else next((t for t in self.trials if t.number == trial.same_as), trial)
        with seeded(first.seed):
            module = self._space.build(architecture)
        return module if file is None else load_weights(module, file)

    def _inherited(self, trial: Trial) -> nn.Module:
        if self.inherit is None:
            raise ExperimentError(
                explain(
                    "results without their strategy have no supernet"
                    if self.ranked
                    else "only one-shot search has a supernet with shared weights",
                    got=self.header.get("strategy", "results without their strategy"),
                    mend="Experiment.load(directory, space, evaluator, strategy) with a strategy of nas.oneshot",
                )
            )
        return self.inherit(trial.sample)

    def _to_dict(self, trial: Trial, stem: Path, weights: str) -> Sample:
        """The sample; with weights that are not fresh, it and their state dict in files too."""
        if weights != "fresh":
            from nas.protocols import read_state, save_state

            trained = weights == "trained"
            state = read_state(checkpoint_of(trial)) if trained else self._inherited(trial).state_dict()
            save_sample(trial.sample, stem.with_name(f"{stem.name}.json"))
            save_state(stem.with_name(f"{stem.name}.pt"), state)
        return dict(trial.sample)

    def _to_code(self, trial: Trial, path: Path, weights: nn.Module | None) -> Path:
        from nas.export import to_code

        return to_code(self._space, trial.sample, path, hyperparameters=self._hyperparameters, weights=weights)

    def _to_onnx(self, model: nn.Module, path: Path, example_input: Any, seed: int) -> Path:
        from nas.export import fill_lazy_layers, to_onnx
        from nas.random_state import seeded

        if example_input is None:
            if not self.inputs:
                raise ExperimentError(
                    explain(
                        "an ONNX export needs an example input, and the evaluator has not called the model itself",
                        mend="export_top_models(formatter='onnx', example_input=tensor)",
                    )
                )
            example_input = _example(self.inputs)
        with seeded(seed):
            fill_lazy_layers(model, example_input)
        return to_onnx(model, example_input, path).path


def _nothing(path: Path, store: Store, studies: list[str]) -> ExperimentError:
    """There is no ledger of this name; what else is there."""
    if not store.has_journal:
        return ExperimentError(explain(f"the storage holds no experiment named {path.name!r}", got=str(path)))
    if studies:
        return ExperimentError(
            explain(
                f"the journal in the folder {path.name!r} is one of the experiment {shown(studies[0])}",
                got=str(path),
                mend="give the folder the name that it had",
            )
        )
    return ExperimentError(explain("there is no experiment in this folder", got=str(path), mend="give directory/name"))


def _as_space(space: object) -> ModelSpace:
    from nas.space import ModelSpace

    return space if isinstance(space, ModelSpace) else ModelSpace(space)


def _example(specs: list[dict[str, Any]]) -> Any:
    """What the evaluator called the model with: a tuple of arguments, or a dict of keywords."""
    first = {spec["shape"][0] for spec in specs if spec.get("shape")}
    values = [_argument(spec, batch=min(*first, 2) if len(first) == 1 else None) for spec in specs]
    if any("name" in spec for spec in specs):
        return {spec["name"]: value for spec, value in zip(specs, values, strict=True)}
    return tuple(values)


def _argument(spec: dict[str, Any], *, batch: int | None) -> Any:
    if "value" in spec:
        return spec["value"]
    import torch

    dtype = getattr(torch, spec["dtype"])
    shape = list(spec["shape"]) if batch is None else [batch, *spec["shape"][1:]][: len(spec["shape"])]
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(shape, generator=generator).to(dtype)
        if dtype.is_floating_point
        else torch.zeros(shape, dtype=dtype)
    )
