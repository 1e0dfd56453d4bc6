"""What `nas run`, `nas resume` and those that need an experiment from its file do with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from nas.cli.catalogue import Catalogue
from nas.cli.consent import Consent, Noted, noted_arguments, read_noted
from nas.cli.loading import Command, open_file

if TYPE_CHECKING:
    from nas.search import Experiment

Found = TypeVar("Found")

ENDED_EARLY, NOTHING_COMPLETE = 3, 4
LIMITS = ("max_trials", "timeout", "concurrency", "max_trial_time")


def running(limits: Sequence[float | None], noted: Mapping[str, Any] | None = None) -> Command:
    """The command that runs an experiment.

    Args:
        limits: those that the command line says, as LIMITS names them; None for those that it does not,
            infinite where there is to be none.
        noted: those of its latest run, which come before what the file says.
    """

    def run(experiment: Experiment, arguments: dict[str, Any]) -> int:
        from nas.protocols import TrialState
        from nas.search import EARLY

        given = {name: value for name, value in zip(LIMITS, limits, strict=True) if value is not None}
        said = {name: None if value == math.inf else value for name, value in given.items()}
        with suppress(KeyboardInterrupt):  # It has ended in good order, and says so by `ending`.
            experiment.run(**arguments | dict(noted or {}) | said)
        if experiment.ending in EARLY:
            return ENDED_EARLY
        return 0 if any(trial.state is TrialState.COMPLETE for trial in experiment.trials) else NOTHING_COMPLETE

    return run


def noted_limits(run: Mapping[str, Any]) -> dict[str, Any]:
    """The limits of the latest run."""
    return {name: run[name] for name in LIMITS if run.get(name) is not None}


def reopen(
    catalogue: Catalogue,
    name: str,
    command: Command,
    *,
    consent: Consent,
    file: str | None = None,
    arguments: Sequence[str] | None = None,
    executor: str | None = None,
    accept_changes: bool = False,
    at_once: bool = True,
) -> int:
    """Has a command work on an experiment that was begun, made again by the file that made it.

    Args:
        catalogue: where it is kept.
        name: of the experiment.
        command: what to do.
        consent: to run the file that is noted; a file that is said here needs none.
        file: FILE[:NAME], where it is not the one noted.
        arguments: of the file, where they are not those noted.
        executor: where it is not the one noted.
        accept_changes: whether other code than it began with will do.
        at_once: as for `open_file`.

    Returns:
        An exit code.

    Raises:
        UnknownName: there is no such experiment.
        NasValueError: it is not noted which file holds it, or that file is not to be run.
    """
    noted = catalogue.find(name).run
    given = noted_arguments(noted) if arguments is None else [*arguments]
    if file is None:
        made_by = replace(read_noted(name, catalogue.folder(name), noted), arguments=given)
        consent(made_by)
    else:
        made_by = Noted(name=name, target=file, module=None, arguments=given)
        if arguments is None and given:
            typer.echo(f"The arguments are those that are noted: {made_by}", err=True)
    otherwise = {
        "directory": str(catalogue.directory),
        "storage": catalogue.storage,
        "executor": executor or noted.get("executor"),
        "resume": True,
        "accept_changes": accept_changes or None,
    }
    return open_file(
        made_by.target,
        command,
        otherwise=otherwise,
        arguments=given,
        name=name,
        place=noted.get("place"),
        module=made_by.module,
        at_once=at_once,
        is_limited=True,  # by what is noted
        experiment=catalogue.folder(name),
    )


def reopened(
    catalogue: Catalogue,
    name: str,
    use: Callable[[Experiment], Found],
    *,
    consent: Consent,
    file: str | None,
    accept_changes: bool,
) -> Found:
    """What comes of an experiment that was begun, made again by the file that made it.

    Args:
        catalogue: where it is kept.
        name: of the experiment.
        use: is called with it, while the file is open.
        consent, file, accept_changes: as for `reopen`.
    """
    found: list[Found] = []

    def command(experiment: Experiment, _: dict[str, Any]) -> int:
        found.append(use(experiment))
        return 0

    reopen(catalogue, name, command, consent=consent, file=file, accept_changes=accept_changes)
    return found[0]
