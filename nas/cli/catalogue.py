"""The experiments that are kept in a folder or a storage, by name: what the command line lists and looks up."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from nas.checks import absolute
from nas.cli.removal import refuse_link, remove_folder
from nas.domains import Sample
from nas.errors import ExperimentError, NasError, NasValueError, close_names, explain
from nas.plain_text import without_passwords
from nas.protocols import Trial, TrialState
from nas.records import Ledger, Store, quiet_optuna
from nas.search import Results, describe_failures


class UnknownName(NasValueError):  # noqa: N818 - names the situation
    """There is no experiment, or no trial, of this name."""


@final
@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Where experiments are kept.

    Args:
        directory: of their folders.
        storage: the URL of an Optuna storage; None for the journals in the folders.
    """

    directory: Path
    storage: str | None = field(default=None, repr=False)  # It may hold a password.

    def __post_init__(self) -> None:
        object.__setattr__(self, "directory", absolute(self.directory))

    def names(self) -> list[str]:
        """Of all experiments, those among them that cannot be read."""
        if self.storage is not None:
            storage = Store(self.storage, self.directory).look()
            studies = [] if storage is None else storage.get_all_studies()
            return sorted(study.study_name for study in studies if "nas:experiment" in study.user_attrs)
        self._check_directory()
        try:
            there = os.listdir(self.directory)
        except OSError as error:
            raise ExperimentError(
                explain(f"the folder cannot be read ({error})", got=str(self.directory), where="--directory")
            ) from error
        return sorted(name for name in there if os.path.lexists(self.directory / name / "journal.log"))

    def folder(self, name: str) -> Path:
        """Of the experiment of a name, whether it is there or not.

        Raises:
            UnknownName: the name leads to another place than a folder in the directory, as it may in a database that
                others write to.
        """
        if name in ("", ".", "..") or "\0" in name or Path(name).name != name:
            raise UnknownName(explain("the name of an experiment is that of a folder in its directory", got=name))
        return self.directory / name

    def _check_directory(self) -> None:
        if not self.directory.is_dir():
            raise UnknownName(
                explain("there is no such folder of experiments", got=str(self.directory), where="--directory")
            )
        if (self.directory / "journal.log").exists():
            raise UnknownName(
                explain(
                    "this is the folder of one experiment, not of several",
                    got=str(self.directory),
                    where="--directory",
                    mend=f"--directory {self.directory.parent}",
                )
            )

    def find(self, name: str) -> Results:
        """The results of an experiment.

        Raises:
            UnknownName: there is none; the message lists the close names.
        """
        self._check(name)
        try:
            return Results.load(self.folder(name), None, self.storage)
        except OSError as error:
            raise ExperimentError(explain(f"the experiment {name!r} cannot be read ({error})")) from error

    def _check(self, name: str) -> None:
        folder = self.folder(name)
        if self.storage is None and self.directory.is_dir() and os.path.lexists(folder / "journal.log"):
            return
        names = self.names()
        if name not in names:
            where = "the storage" if self.storage is not None else str(self.directory)
            raise UnknownName(
                explain(f"there is no experiment of this name in {where}; {close_names(name, names)}", got=name)
            )

    def trial(self, results: Results, number: int | None) -> Trial:
        """A trial; the best one where no number is given.

        Raises:
            UnknownName: there is none.
        """
        if number is None:
            return results.top(1)[0] if len(results.objectives.names) > 1 and results.top(1) else results.best_trial
        for trial in results.trials:
            if trial.number == number:
                return trial
        raise UnknownName(explain(f"there are trials 0 to {len(results.trials) - 1}", got=number, where="TRIAL"))

    def _store(self, name: str) -> Store:
        return Store(self.storage, self.folder(name))

    def ledger(self, name: str) -> Ledger:
        """The ledger of an experiment, to be written."""
        self._check(name)
        store = self._store(name)
        ledger = Ledger.find(store.write(), name, store.running)
        assert ledger is not None, "its name was found"
        return ledger

    def retry(self, name: str, numbers: Collection[int] | None) -> list[int]:
        """Puts FAILED trials of an experiment in its queue again, all or those of some numbers; which those are."""
        ledger = self.ledger(name)
        with self._store(name).queueing():
            return ledger.retry(numbers or None)

    def stop(self, name: str) -> None:
        """Asks the processes that run an experiment to stop."""
        ledger = self.ledger(name)
        with self._store(name).queueing():
            ledger.ask_to_stop()

    def kill(self, name: str, numbers: Collection[int]) -> None:
        """Asks the processes that run some trials of an experiment to end them."""
        ledger = self.ledger(name)
        with self._store(name).queueing():
            ledger.ask_to_kill(numbers)

    def change_limits(self, name: str, changes: Mapping[str, float | None]) -> None:
        """Notes other limits of an experiment: None for no such limit."""
        ledger = self.ledger(name)
        with self._store(name).queueing():
            ledger.change_limits(changes)

    def is_running(self, name: str) -> bool:
        """Whether a process runs the experiment."""
        store = self._store(name)
        if self.storage is not None:
            found = store.look()
            ledger = None if found is None else Ledger.find(found, name, store.running)
            if ledger is not None and ledger.sharing.is_shared:
                running = [record.trial.number for record in ledger.read() if not record.trial.state.is_finished]
                return len(ledger.orphans(running)) < len(running)
        return store.running.is_taken()

    def extent(self, name: str) -> str:
        """How much there is of an experiment, in words."""
        self._check(name)
        try:
            return f"with its {len(self.find(name).trials)} trials"
        except Exception as error:  # One that cannot be read may be deleted.
            return f"(which cannot be read: {type(error).__name__}: {error})"

    def remove(self, name: str) -> list[str]:
        """Deletes an experiment with all its trials.

        Returns:
            What lies in its folder and is none of the experiment's, and so is kept.

        Raises:
            ExperimentError: a process runs it, its folder is a link, or it cannot be deleted.
        """
        self._check(name)
        folder = self.folder(name)
        refuse_link(folder)
        if self.is_running(name):
            raise ExperimentError(
                explain(f"a process runs the experiment {name!r}", mend=f"nas stop {shlex.quote(name)}")
            )
        if self.storage is not None:
            storage = self._store(name).write()
            with quiet_optuna():
                storage.delete_study(storage.get_study_id_from_name(name))
            if os.path.lexists(folder / "journal.log"):
                return [f"{folder}, which is of an experiment with a journal"]
        return [str(folder / kept) for kept in remove_folder(folder, self._store(name).running.taken())]

    def row(self, name: str) -> dict[str, Any]:
        """The same as `describe`, of any experiment: what is wrong with one that cannot be read stands in `error`."""
        try:
            return self.describe(name)
        except Exception as error:  # whatever is wrong with one must not hide the others
            state, reason = "broken", str(error) if isinstance(error, NasError) else f"{type(error).__name__}: {error}"
        try:
            if self._is_not_begun(name):
                state, reason = "empty", "it was made, and has not been run"
            path = str(self.folder(name))
        except Exception:
            path = ""
        return {**_UNREADABLE, "name": name, "state": state, "error": without_passwords(reason), "path": path}

    def _is_not_begun(self, name: str) -> bool:
        """Whether an experiment was made, and nothing was done with it yet."""
        store = self._store(name)
        storage = store.look()
        if storage is None:
            return True
        names = [s.study_name for s in storage.get_all_studies() if self.storage is None or s.study_name == name]
        return not names or (names == [name] and Ledger.find(storage, name, store.running) is None)

    def describe(self, name: str) -> dict[str, Any]:
        """What there is to say of an experiment, as JSON."""
        results = self.find(name)
        running = self.is_running(name)
        trials, run = results.trials, results.run
        counted = results.counted
        finished = sum(trial.state.is_finished for trial in counted) - len(results.retried)
        goal = run.get("max_trials")
        several = len(results.objectives.names) > 1
        best = None if several or not results.top(1) else results.best_trial
        over = counted and all(trial.state.is_finished for trial in counted)
        state = "running" if running else "done" if over else "interrupted"
        if state == "done" and goal is not None and finished < goal:
            state = "stopped"

        return {
            "name": name,
            "state": state if trials else "empty",
            "trials": {str(state): sum(t.state is state for t in counted) for state in TrialState},
            "finished": finished,
            "outdated": len(trials) - len(counted),
            "max_trials": goal,
            "best": None if best is None else describe_trial(best),
            "pareto_front": [describe_trial(trial) for trial in results.pareto_front] if several else None,
            "objective": results.objectives.shown(trials),
            "failures": describe_failures(trials),
            "seconds_left": _seconds_left(run, finished) if running else None,
            "changes": results.header.get("changes", []),
            "strategy": results.header["strategy"],
            "seed": results.header["seed"],
            "file": run.get("file"),
            "arguments": [without_passwords(str(argument)) for argument in run.get("arguments", [])],
            "path": str(results.path),
            "link": os.readlink(results.path) if results.path.is_symlink() else None,
            "error": None,
        }


_UNREADABLE: dict[str, Any] = {
    "trials": {str(state): 0 for state in TrialState},
    "finished": 0,
    "outdated": 0,
    **dict.fromkeys(("max_trials", "best", "pareto_front", "seconds_left", "strategy", "seed", "file", "link")),
    "objective": {},
    "failures": [],
    "changes": [],
    "arguments": [],
}
"""What a row says of an experiment that cannot be read, beside its name."""


def _seconds_left(run: dict[str, Any], finished: int) -> float | None:
    """As far as the limit and the size of the space tell how many trials are to come."""
    new = finished - run.get("finished", 0)
    ends = [end for end in (run.get("max_trials"), run.get("size")) if end is not None and end >= finished]
    if not ends or new <= 0:
        return None
    each: float = (time.time() - run["began"]) / new
    left: int = min(ends) - finished
    return round(each * left, 1)


def describe_trial(trial: Trial) -> dict[str, Any]:
    """A trial as JSON."""
    sample: Sample = trial.sample
    return {
        "number": trial.number,
        "state": str(trial.state),
        "values": None if trial.values is None else list(trial.values),
        "metrics": dict(trial.metrics),
        "duration": trial.duration,
        "sample": sample,
        "error": without_passwords(trial.error_line) or None,
        "same_as": trial.same_as,
        "supernet_steps": trial.supernet_steps,
    }
