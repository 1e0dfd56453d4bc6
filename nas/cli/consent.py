"""The file that an experiment's notes name: what it must be, and that somebody agrees before it is run.

A folder of experiments may come from a stranger, and so may what is noted in it. A file that the user names himself, by
`nas run FILE` or `--file FILE`, is run without a question.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, final

import typer

from nas.cli.loading import split_target
from nas.errors import NasValueError, explain
from nas.plain_text import printable, without_passwords


@final
@dataclass(frozen=True, kw_only=True)
class Noted:
    """By what an experiment was made, as its notes say."""

    name: str
    """Of the experiment."""
    target: str
    """FILE or FILE:NAME."""
    module: str | None
    """The file as a module of a package, where it was run as `python -m MODULE`."""
    arguments: list[str]

    def __str__(self) -> str:
        """As a command line; passwords are hidden."""
        words = [self.target, *map(without_passwords, self.arguments)]
        package = "" if self.module is None else f" (as the module {self.module}, with the packages that it lies in)"
        return printable(shlex.join(words) + package)


def noted_arguments(run: Mapping[str, Any]) -> list[str]:
    """Those that the file had.

    Raises:
        NasValueError: they are no texts.
    """
    arguments = run.get("arguments", [])
    if not isinstance(arguments, list) or not all(isinstance(text, str) and "\0" not in text for text in arguments):
        raise _refused("the notes must name the file's arguments by texts", arguments)
    return list(arguments)


Consent: TypeAlias = Callable[[Noted], None]
"""Returns where the file may be run, and raises a NasError where not."""


def read_noted(name: str, folder: Path, run: Mapping[str, Any]) -> Noted:
    """What the notes of a run name.

    Args:
        name: of the experiment.
        folder: of it.
        run: the notes.

    Raises:
        NasValueError: no file, or none that may be run by its being noted: it lies in the folder of an experiment, is
            not named by a whole path, or is not the module that it is said to be.
    """
    target, module, arguments = run.get("file"), run.get("module"), noted_arguments(run)
    if target is None:
        rule = f"it is not noted which file holds the experiment {name!r}"
        raise NasValueError(explain(rule, mend="say it by --file FILE[:NAME]"))
    if not all(isinstance(text, str) and "\0" not in text for text in (target, "" if module is None else module)):
        raise _refused("the notes must name a file by texts", [target, module])
    path, _ = split_target(target)
    if not os.path.isabs(path):
        raise _refused("a noted file is run only where its whole path is noted", path)
    file = Path(os.path.abspath(path))
    if lies_in_an_experiment(file, folder):
        raise _refused("a noted file that lies in the folder of an experiment is not run: it came with it", path)
    if module is not None:
        parts = module.split(".")
        whole = file.with_suffix("").parts
        if (
            not all(part.isidentifier() for part in parts)
            or len(parts) >= len(whole)
            or [*whole[-len(parts) :]] != parts
        ):
            raise _refused(f"the noted module must be the noted file {path}", module)
    return Noted(name=name, target=target, module=module, arguments=arguments)


def _refused(rule: str, got: object) -> NasValueError:
    return NasValueError(explain(rule, got=got, mend="look at the file, and name it yourself: --file FILE[:NAME]"))


def lies_in_an_experiment(path: Path, folder: Path | None = None) -> bool:
    """Whether a path, or what it leads to, lies in an experiment's folder: in this one, or one that has a journal."""
    places = {*path.parents, *Path(os.path.realpath(path)).parents}
    return any((folder is not None and _same(place, folder)) or (place / "journal.log").exists() for place in places)


def _same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one folder, whatever they are called."""
    try:
        return one == other or os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def asking(verb: str, *, yes: bool) -> Consent:
    """Asks on the terminal; where there is none, the answer is no.

    Args:
        verb: of the command.
        yes: whether the user has agreed already, by `--yes`; then it is said what is run.
    """

    def consent(noted: Noted) -> None:
        said = f"nas {verb} runs the file that the notes of this experiment name, as python would:\n  {noted}"
        if yes:
            typer.echo(said, err=True)
        elif not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise _not_agreed(
                noted, f"look at it, then say the same with --yes: nas {verb} {shlex.quote(noted.name)} --yes"
            )
        else:
            typer.echo(said, err=True)
            typer.confirm("Run it?", abort=True, err=True)

    return consent


def refusing(mend: str) -> Consent:
    """Never agrees, where nobody can be asked; the message says what would help."""

    def consent(noted: Noted) -> None:
        raise _not_agreed(noted, mend)

    return consent


def _not_agreed(noted: Noted, mend: str) -> NasValueError:
    return NasValueError(
        explain(
            f"the notes of this experiment name a file, and nobody has agreed to run it:\n  {noted}\nIt is not run",
            mend=f"{mend}; or name the file yourself by --file",
        )
    )
