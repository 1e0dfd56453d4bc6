"""The arguments and options that several commands take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from nas.cli.catalogue import Catalogue
from nas.cli.control import count, seconds

HERE = Path("nas-experiments")
_WORD = re.compile(r"[\w][\w.+@%:=,-]*")


def complete(context: typer.Context) -> list[str]:
    """The names of experiments, for the shell's completion; nothing may go wrong there.

    Those that a shell would take for more than a word have to be written out, in quotation marks.
    """
    directory, storage = (context.params.get(name) for name in ("directory", "storage"))
    try:
        names = Catalogue(directory=directory or HERE, storage=storage).names()
    except Exception:
        return []
    return [name for name in names if _WORD.fullmatch(name)]


Name = Annotated[str, typer.Argument(help="Of the experiment.", autocompletion=complete)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Directory = Annotated[
    Path, typer.Option("--directory", "-d", envvar="NAS_DIRECTORY", help="Where experiments are kept.")
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        envvar="NAS_STORAGE",
        help="The URL of an Optuna storage, for a cluster. With a password in it, rather set the environment variable "
        "NAS_STORAGE: other users of this machine see what a command is called with.",
    ),
]
MaxTrials = Annotated[
    float | None,
    typer.Option("--max-trials", "-n", parser=count, metavar="N", help="Of the whole experiment; none for no limit."),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        parser=seconds,
        metavar="TIME",
        help="After which no trial starts: 90s, 12h, 1h30m, 1d; or none.",
    ),
]
Concurrency = Annotated[
    float | None,
    typer.Option("--concurrency", "-c", parser=count, metavar="N", help="Trials at a time; none for all workers."),
]
TrialTime = Annotated[
    float | None,
    typer.Option("--max-trial-time", parser=seconds, metavar="TIME", help="After which a trial is FAILED; or none."),
]
Executor = Annotated[str | None, typer.Option("--executor", "-e", help="inline, process or ray.")]
Accept = Annotated[bool, typer.Option("--accept-changes", help="Go on though the code or the space has changed.")]
Agreed = Annotated[
    bool, typer.Option("--yes", "-y", help="Run the file that the experiment's notes name, and do not ask.")
]
File = Annotated[str | None, typer.Option("--file", "-f", help="FILE[:NAME], where it is not the one noted.")]

Arguments = Annotated[
    list[str] | None, typer.Argument(metavar="-- ARGUMENTS", help="Of the file, as python FILE ARGUMENTS has them.")
]
