"""Opening a file that holds experiments: it is run as a script is, and a command takes over the `run` of one."""

from __future__ import annotations

import ast
import builtins
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias, final

from nas.errors import ExperimentError, NasError, NasValueError, close_names, explain
from nas.opened import Opening, opening_by

if TYPE_CHECKING:
    from nas.search import Experiment

Command: TypeAlias = "Callable[[Experiment, dict[str, Any]], int]"
"""What is done with the experiment, and with the arguments of its `run` in the file; it returns an exit code."""


def open_file(
    target: str,
    command: Command,
    *,
    otherwise: Mapping[str, Any],
    arguments: Sequence[str] = (),
    name: str | None = None,
    place: int | None = None,
    module: str | None = None,
    at_once: bool = False,
    is_limited: bool = False,
    experiment: Path | None = None,
) -> int:
    """Runs a file as `python FILE ARGUMENTS` would, save that a command takes over the `run` of one experiment.

    The command does its work where the file would run the experiment, with all that the file has set up by then, and
    with what `with` holds open. What follows in the file is run too, unless one of several was asked for by its name or
    the command says that it has ended early. The runs of others are passed over.

    Args:
        target: FILE, or FILE:NAME where it makes several experiments; NAME is that of one, of a variable that holds
            one, or of a function that makes one.
        command: what to do with the experiment.
        otherwise: arguments of the experiment that are to be otherwise than the file says.
        arguments: what the file finds in `sys.argv`.
        name: of the experiment, where that is known: of one that was begun.
        place: how many experiments the file made before that one then; it tells which one it is where its name is
            another one each time, such as one with the date in it.
        module: the name of the file as a module of a package, where it is run as `python -m MODULE`.
        at_once: whether the command takes the experiment as soon as it is made, and the file ends there.
        is_limited: whether the command knows when its run is to end, and so can do without the file's.
        experiment: the folder of the one that was begun; no module is taken from there.

    Returns:
        An exit code.

    Raises:
        NasValueError: there is no such file, or no experiment in it, or several.
        ExperimentError: the file fails for want of the results of an experiment that was passed over, before it has
            made the one that is asked for, or said when its run is to end.
        SystemExit: the file ends so, with an error.
    """
    file, wanted = _find(target)
    if name is not None and place is not None and _names(file, name):
        place = None  # The file calls the experiment by its name, so that is what tells which one it is.
    how = {"file": f"{file}:{wanted}" if wanted else str(file), "arguments": list(arguments)}
    for key, value in {"executor": otherwise.get("executor"), "module": module}.items():
        if value is not None:
            how[key] = value
    while True:
        with _as_main(file, arguments, module, experiment) as main:
            script = _Script(
                main,
                command,
                otherwise={key: value for key, value in otherwise.items() if value is not None},
                how=how,
                wanted=wanted,
                name=name,
                place=place,
                at_once=at_once,
                is_limited=is_limited,
            )
            try:
                return script.execute(file)
            except _Again as again:
                name = again.name


def split_target(target: str) -> tuple[str, str]:
    """FILE and NAME of FILE:NAME; no NAME where there is none."""
    path, _, name = target.rpartition(":") if ":" in target and not Path(target).exists() else (target, "", "")
    return path, name


def _find(target: str) -> tuple[Path, str]:
    """The absolute path of the file, and the name behind the colon."""
    path, name = split_target(target)
    file = Path(os.path.abspath(Path(path).expanduser()))
    if not file.is_file():
        near = close_names(file.name, (p.name for p in file.parent.glob("*.py"))) if file.parent.is_dir() else ""
        raise NasValueError(explain(f"there is no such file; {near}" if near else "there is no such file", got=path))
    if file.suffix != ".py":
        notebook = "write it as one: jupyter nbconvert --to script" if file.suffix == ".ipynb" else ""
        raise NasValueError(explain("an experiment is held by a Python file", got=path, mend=notebook))
    return file, name


def _names(file: Path, name: str) -> bool:
    """Whether a name is written in a file as a text of its own."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return False
    return any(isinstance(node, ast.Constant) and node.value == name for node in ast.walk(tree))


@contextmanager
def _as_main(file: Path, arguments: Sequence[str], name: str | None, experiment: Path | None) -> Iterator[ModuleType]:
    """Inside, the interpreter is as `python FILE ARGUMENTS` makes it, for this process and for those that it starts.

    With a name it is as `python -m NAME ARGUMENTS` makes it. What lies in the experiment's folder is no module: a
    working directory or a relative path in PYTHONPATH may lead there.
    """
    main = ModuleType("__main__")
    main.__file__, main.__loader__ = str(file), SourceFileLoader("__main__", str(file))
    main.__dict__["__builtins__"] = builtins
    before = sys.modules["__main__"], sys.argv, [*sys.path]
    sys.modules["__main__"], sys.argv = main, [str(file), *arguments]
    if experiment is not None:
        inside = os.path.join(os.path.realpath(experiment), "")
        sys.path[:] = [p for p in sys.path if not os.path.join(os.path.realpath(p or "."), "").startswith(inside)]
    try:
        if name is None:
            sys.path.insert(0, str(file.resolve().parent))
        else:
            sys.path.insert(0, str(file.parents[name.count(".")]))
            main.__spec__ = find_spec(name)
            main.__package__ = name.rpartition(".")[0]
        yield main
    finally:
        sys.modules["__main__"], sys.argv, sys.path[:] = before


@final
class _Left(BaseException):
    """Leaves the file; no Exception, lest the file catches it."""

    def __init__(self, error: NasError | None = None) -> None:
        self.error = error


@final
class _Again(BaseException):
    """Leaves the file, which is to be run again now that the name of the experiment is known."""

    def __init__(self, name: str) -> None:
        self.name = name


@final
class _Script(Opening):
    """One run of the file."""

    def __init__(
        self,
        module: ModuleType,
        command: Command,
        *,
        otherwise: Mapping[str, Any],
        how: Mapping[str, Any],
        wanted: str,
        name: str | None,
        place: int | None,
        at_once: bool,
        is_limited: bool,
    ) -> None:
        self._module, self._command, self._otherwise, self._how = module, command, otherwise, how
        self._wanted, self._name, self._place, self._at_once = wanted, name, place, at_once
        self._is_limited = is_limited
        self._experiments: list[Experiment] = []
        self._loaded: list[Experiment] = []
        """Those that the file has made to look at earlier results, or to go on with them."""
        self._passed_over: list[str] = []
        self._in_function = False
        self._running: Experiment | None = None
        self._code: int | None = None

    # What the experiments of the file tell.

    @property
    def how(self) -> Mapping[str, Any]:
        """By which file, with which arguments."""
        return self._how

    def otherwise(self, number: int, name: str, *, is_loaded: bool) -> Mapping[str, Any]:
        """What the command says; an experiment that is not asked for is opened as it is, to be read alone."""
        if is_loaded and name != self._name:
            return {key: value for key, value in self._otherwise.items() if key not in ("directory", "storage")}
        if self._name is not None and name != self._name and number == self._place:
            return {**self._otherwise, "name": self._name}
        if self._in_function or name == (self._name or self._wanted or name):
            return self._otherwise
        places = {key: value for key, value in self._otherwise.items() if key in ("directory", "storage")}
        return {**places, "resume": True, "accept_changes": True}

    def made(self, experiment: Experiment, *, is_loaded: bool) -> None:
        """Takes it where the command needs no more of it."""
        (self._loaded if is_loaded else self._experiments).append(experiment)
        if self._at_once and experiment.name == self._name:
            self._take(experiment, {})

    def run(self, experiment: Experiment, arguments: Mapping[str, Any]) -> bool:
        """Has the command run it where it is the one that is asked for, and leaves out the run where not."""
        if experiment is self._running:
            return False
        if self._is_asked_for(experiment):
            self._take(experiment, arguments)
        elif self._function is not None and not self._in_function:
            raise _Left  # The function is what is asked for, not what the file does with it.
        else:
            self._passed_over.append(experiment.name)
        return True

    # What becomes of the file.

    def execute(self, file: Path) -> int:
        """Runs the file, and finds an experiment that it has made where it runs none by itself."""
        with opening_by(self):
            try:
                # Without `dont_inherit` the `from __future__` lines of this module would hold in the file.
                code = compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
                self._until_left(lambda: exec(code, vars(self._module)))
                if self._code is None:
                    self._until_left(self._choose)
            except Exception as error:
                if self._running is not None or not self._passed_over or self._code is not None:
                    raise
                made = [experiment for experiment in self._experiments if self._is_asked_for(experiment)]
                if not made or not self._is_limited:
                    raise self._for_want_of_results(error, made=bool(made)) from error
                self._until_left(lambda: self._take(made[-1], {}))
            if self._code is None:
                raise self._none_found()
        return self._code

    def _until_left(self, step: Callable[[], object]) -> None:
        try:
            step()
        except _Left as left:
            if left.error is not None:
                raise left.error from None
        except SystemExit as ended:
            asks_for_help = not {"-h", "--help"}.isdisjoint(sys.argv[1:])
            if ended.code or (asks_for_help and not self._experiments):
                raise

    def _choose(self) -> None:
        """Takes one that the file has made, but not run."""
        if (function := self._function) is not None:
            self._in_function = True
            made = function()
            if any(made is experiment for experiment in self._experiments):
                self._take(made, {})
        found = [e for e in self._experiments if self._is_asked_for(e)]
        found = found or [e for e in self._loaded if self._is_asked_for(e)]
        if found:
            self._take(found[-1], {})

    def _is_asked_for(self, experiment: Experiment) -> bool:
        if self._name is not None:
            return experiment.name == self._name
        if self._wanted:
            if experiment.name != self._wanted and vars(self._module).get(self._wanted) is experiment:
                raise _Again(experiment.name)
            return experiment.name == self._wanted or self._in_function
        names = sorted({other.name for other in (*self._experiments, experiment)})
        if len(names) > 1:
            mend = f"say which: {self._how['file']}:{names[0]}"
            rule = f"{self._how['file']} must hold one experiment where none is named"
            raise _Left(NasValueError(explain(rule, got=names, mend=mend)))
        return True

    @property
    def _function(self) -> Callable[[], Any] | None:
        found = vars(self._module).get(self._wanted) if self._wanted else None
        return found if callable(found) and not isinstance(found, type) else None

    def _take(self, experiment: Experiment, arguments: Mapping[str, Any]) -> None:
        ends_here = bool(self._wanted) or self._name is not None
        self._running = experiment
        try:
            with opening_by(None):
                self._code = self._command(experiment, dict(arguments))
        except NasError as error:
            if ends_here:
                raise _Left(error) from error
            raise
        self._running = None
        if self._code or ends_here:
            raise _Left

    def _none_found(self) -> NasError:
        file, _, _ = self._how["file"].rpartition(":") if self._wanted else (self._how["file"], "", "")
        names = sorted({experiment.name for experiment in self._experiments})
        asked = self._name or self._wanted
        if not names and not asked:
            mend = "make one by nas.Experiment, at its top or in what it does when it is run as a script"
            return NasValueError(explain(f"{file} must hold one experiment, and makes none", mend=mend))
        near = close_names(asked, {*names, *self._variables()})
        return NasValueError(explain(f"{file} makes no experiment of this name; {near}", got=asked))

    def _variables(self) -> list[str]:
        return [key for key, value in vars(self._module).items() if any(value is e for e in self._experiments)]

    def _for_want_of_results(self, error: Exception, *, made: bool) -> ExperimentError:
        others = ", ".join(dict.fromkeys(self._passed_over))
        way = "say --max-trials or --timeout" if made else "make all experiments before the first one is run"
        return ExperimentError(
            explain(
                f"the file fails before it runs {self._name or self._wanted!r} ({type(error).__name__}: {error}). The "
                f"experiments that it runs earlier were passed over, as they were not asked for",
                got=others,
                mend=f"run these first, or {way}",
            )
        )
