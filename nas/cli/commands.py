"""The command line: `nas run FILE` and what there is to look at, stop, go on with and take away afterwards.

Exit codes: 0 done; 1 an error, said on the standard error; 2 a wrong name, file or option; 3 ended early, by Ctrl-C, by
`nas stop` or because the time is up, and can be resumed; 4 done, but no trial is COMPLETE.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from nas.checks import absolute
from nas.cli.catalogue import Catalogue, describe_trial
from nas.cli.consent import asking, refusing
from nas.cli.control import change, kill
from nas.cli.loading import open_file
from nas.cli.options import (
    HERE,
    Accept,
    Agreed,
    Arguments,
    Concurrency,
    Directory,
    Executor,
    File,
    Json,
    MaxTrials,
    Name,
    Storage,
    Timeout,
    TrialTime,
)
from nas.cli.running import LIMITS, noted_limits, reopen, reopened, running
from nas.cli.telling import encodable, listed, retried, say, say_json, table, tell, trial_table
from nas.errors import NasError, NasValueError
from nas.plain_text import printable
from nas.version import __version__

app = typer.Typer(
    name="nas",
    help="Neural architecture search for PyTorch.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 error, 2 wrong usage, 3 ended early and can be resumed, 4 no trial is complete.",
)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"nas {__version__}")
        raise typer.Exit


@app.callback()
def _nas(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    target: Annotated[str, typer.Argument(metavar="FILE[:NAME]", help="The file that holds the experiment.")],
    arguments: Arguments = None,
    max_trials: MaxTrials = None,
    concurrency: Concurrency = None,
    timeout: Timeout = None,
    max_trial_time: TrialTime = None,
    executor: Executor = None,
    storage: Storage = None,
    directory: Annotated[
        Path | None,
        typer.Option("--directory", "-d", envvar="NAS_DIRECTORY", help="Where it is kept, if not where FILE says."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where there is one of this name.")] = False,
    accept_changes: Accept = False,
) -> None:
    """Run FILE as `python FILE` would, with other limits for its experiment; of several, NAME alone is run."""
    with _errors():
        otherwise = {
            "directory": None if directory is None else str(absolute(directory)),
            "storage": storage,
            "executor": executor,
            "resume": True if resume or accept_changes else None,
            "accept_changes": accept_changes or None,
        }
        command = running((max_trials, timeout, concurrency, max_trial_time))
        is_limited = not {max_trials, timeout} <= {None, math.inf}
        _exit(open_file(target, command, otherwise=otherwise, arguments=arguments or [], is_limited=is_limited))


@app.command()
def resume(
    name: Name,
    arguments: Arguments = None,
    max_trials: MaxTrials = None,
    concurrency: Concurrency = None,
    timeout: Timeout = None,
    max_trial_time: TrialTime = None,
    executor: Executor = None,
    storage: Storage = None,
    directory: Directory = HERE,
    file: File = None,
    accept_changes: Accept = False,
    yes: Agreed = False,
) -> None:
    """Go on with an experiment, with its latest limits unless others are said; several processes may, on PostgreSQL."""
    with _errors():
        catalogue = Catalogue(directory=directory, storage=storage)
        limits = (max_trials, timeout, concurrency, max_trial_time)
        command = running(limits, noted_limits(catalogue.find(name).run))
        _exit(
            reopen(
                catalogue,
                name,
                command,
                consent=asking("resume", yes=yes),
                file=file,
                arguments=arguments or None,
                executor=executor,
                accept_changes=accept_changes,
                at_once=False,
            )
        )


@app.command("list")
def list_(directory: Directory = HERE, storage: Storage = None, as_json: Json = False) -> None:
    """List the experiments, with their states and best values."""
    with _errors():
        if storage is None and directory == HERE and not directory.exists():
            say(f"There is no folder {HERE} here; say another by --directory.", err=True)
            return _show([], as_json, lambda: None)
        catalogue = Catalogue(directory=directory, storage=storage)
        found = [catalogue.row(name) for name in catalogue.names()]
        _show(found, as_json, lambda: table(*listed(found)))


@app.command()
def show(name: Name, directory: Directory = HERE, storage: Storage = None, as_json: Json = False) -> None:
    """Show an experiment: its state, its best trial, its failures with their reasons, the time that is left."""
    with _errors():
        found = Catalogue(directory=directory, storage=storage).describe(name)
        _show(found, as_json, lambda: say(tell(found)))


@app.command()
def top(
    name: Name,
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 5,
    directory: Directory = HERE,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Show the best trials of different samples."""
    with _errors():
        results = Catalogue(directory=directory, storage=storage).find(name)
        found = [describe_trial(trial) for trial in results.top(k)]
        _show(found, as_json, lambda: table(*trial_table(found, results.objectives.shown(results.trials))))


@app.command()
def trials(name: Name, directory: Directory = HERE, storage: Storage = None, as_json: Json = False) -> None:
    """Show all trials."""
    with _errors():
        results = Catalogue(directory=directory, storage=storage).find(name)
        found = [describe_trial(trial) for trial in results.trials]
        _show(found, as_json, lambda: table(*trial_table(found, results.objectives.shown(results.trials))))


@app.command()
def log(name: Name, trial: int, directory: Directory = HERE, storage: Storage = None) -> None:
    """Print what a trial has printed, and its traceback where it is FAILED."""
    from nas.execution import read_log
    from nas.records import folder_of

    with _errors():
        catalogue = Catalogue(directory=directory, storage=storage)
        results = catalogue.find(name)
        found = catalogue.trial(results, trial)
        for text in (read_log(folder_of(results.path, trial)), found.error or ""):
            # What draws bars goes back to the beginning of a line.
            say(text.replace("\r\n", "\n").replace("\r", "\n"), ends=False)


@app.command()
def stop(name: Name, directory: Directory = HERE, storage: Storage = None) -> None:
    """Ask the processes that run an experiment to end when their trials have."""
    with _errors():
        catalogue = Catalogue(directory=directory, storage=storage)
        running = catalogue.is_running(name)
        catalogue.stop(name)
        say(f"{name} ends when its running trials have." if running else f"{name} is not running here.")


@app.command("set")
def set_(
    name: Name,
    max_trials: MaxTrials = None,
    timeout: Timeout = None,
    max_trial_time: TrialTime = None,
    concurrency: Concurrency = None,
    directory: Directory = HERE,
    storage: Storage = None,
) -> None:
    """Change limits of the run that is under way, or of the next one; those that are not said stay."""
    limits = dict(zip(LIMITS, (max_trials, timeout, concurrency, max_trial_time), strict=True))
    with _errors():
        say(change(Catalogue(directory=directory, storage=storage), name, **limits))


@app.command("kill")
def kill_(name: Name, trial: list[int], directory: Directory = HERE, storage: Storage = None) -> None:
    """End trials that run, at once: they are FAILED, and the search goes on."""
    with _errors():
        say(kill(Catalogue(directory=directory, storage=storage), name, trial))


@app.command()
def retry(
    name: Name,
    trial: Annotated[list[int] | None, typer.Argument(help="Which of them; all where omitted.")] = None,
    directory: Directory = HERE,
    storage: Storage = None,
) -> None:
    """Put FAILED trials in the queue again, also while the experiment runs."""
    with _errors():
        say(retried(Catalogue(directory=directory, storage=storage), name, trial))


@app.command()
def enqueue(
    name: Name,
    sample: Annotated[Path, typer.Argument(metavar="SAMPLE.json", help="As nas export --json writes it.")],
    directory: Directory = HERE,
    storage: Storage = None,
    file: File = None,
    yes: Agreed = False,
) -> None:
    """Put a sample in front of what the strategy proposes, also while the experiment runs."""
    from nas.domains import load_sample

    with _errors():
        known = load_sample(sample)
        catalogue = Catalogue(directory=directory, storage=storage)
        new = reopened(
            catalogue,
            name,
            lambda e: e.enqueue(known),
            consent=asking("enqueue", yes=yes),
            file=file,
            accept_changes=False,
        )
        say("It is in the queue." if new else "It has been tried, or is in the queue, already.")


@app.command()
def export(
    name: Name,
    trial: Annotated[int | None, typer.Argument(help="The best one where omitted.")] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="An ONNX file.")] = False,
    code: Annotated[bool, typer.Option("--code", help="A Python file that rebuilds the architecture.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The sample (the usual).")] = False,
    trained: Annotated[bool, typer.Option("--trained", help="With the weights that it was judged with.")] = False,
    inherit: Annotated[bool, typer.Option("--inherit", help="With the shared weights of one-shot search.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The folder to write to.")] = None,
    directory: Directory = HERE,
    storage: Storage = None,
    file: File = None,
    yes: Agreed = False,
) -> None:
    """Write the architecture of a trial as a sample, ONNX or code, with the weights it began with or others."""
    from nas.cli.exporting import write_trial

    with _errors():
        if (trained and inherit) or onnx + code + as_json > 1:
            raise NasValueError("Say one of --trained and --inherit, and one of --onnx, --code and --json.")
        catalogue = Catalogue(directory=directory, storage=storage)
        results = catalogue.find(name)
        for line in write_trial(
            results,
            catalogue.trial(results, trial),
            formatter="onnx" if onnx else "code" if code else "dict",
            weights="trained" if trained else "inherit" if inherit else "fresh",
            output=output,
            reopened=lambda use: reopened(
                catalogue, name, use, consent=asking("export", yes=yes), file=file, accept_changes=True
            ),
        ):
            say_json(line) if isinstance(line, str) else say(line)


@app.command()
def report(
    name: Name,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file to write.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many trials are listed.")] = 10,
    directory: Directory = HERE,
    storage: Storage = None,
) -> None:
    """Write what was found as one page of HTML, to send or to keep, and print where."""
    from nas.cli.report_page import write_report

    with _errors():
        say(write_report(Catalogue(directory=directory, storage=storage), name, output, top=k))


@app.command()
def rm(
    name: Name,
    directory: Directory = HERE,
    storage: Storage = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete an experiment with all its trials; what others have put into its folder is kept."""
    with _errors():
        catalogue = Catalogue(directory=directory, storage=storage)
        if not yes:
            typer.confirm(printable(f"Delete {name} {catalogue.extent(name)}?"), abort=True)
        kept = catalogue.remove(name)
        say(f"{name} is deleted.")
        for path in kept:
            say(f"It is kept, as no experiment wrote it: {path}")


@app.command()
def dashboard(
    name: Name,
    directory: Directory = HERE,
    storage: Storage = None,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Of this machine; where it is taken, the next free one.")
    ] = 8080,
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Under which a browser may ask for it too, behind a proxy; may be repeated."),
    ] = None,
    file: File = None,
    yes: Agreed = False,
) -> None:
    """Show an experiment in Optuna's dashboard (extra `dashboard`), and steer it; --yes or --file lets it enqueue."""
    from nas.cli.dashboard import serve

    mend = f"start it by: nas dashboard {shlex.quote(name)} --yes"
    with _errors():
        serve(
            Catalogue(directory=directory, storage=storage),
            name,
            port,
            say,
            hosts=host or [],
            file=file,
            consent=asking("dashboard", yes=True) if yes else refusing(mend),
        )


@contextmanager
def _errors() -> Iterator[None]:
    """Says what is wrong on the standard error, without a traceback: the message has the mend."""
    try:
        with encodable():
            yield
    except NasError as error:
        usage = isinstance(error, ValueError | TypeError)
        say(str(error), err=True)
        raise typer.Exit(2 if usage else 1) from error


def _exit(code: int) -> None:
    if code:
        raise typer.Exit(code)


def _show(found: object, as_json: bool, draw: Callable[[], None]) -> None:
    if as_json:
        say_json(json.dumps(found, indent=2))
    else:
        draw()
