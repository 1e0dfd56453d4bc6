"""Spaces without modules: of a function that asks choices, or of a dict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from nas.calls import explained
from nas.domains import Answer, Domain
from nas.errors import NasTypeError, NasValueError, explain
from nas.space.mutables import ValueChoice
from nas.space.program import Program
from nas.space.space import ModelSpace
from nas.tree import Choice, SearchSpace


@explained()
def search_space(
    source: Callable[..., object] | Mapping[str, object] | SearchSpace, /, *args: Any, **kwargs: Any
) -> ModelSpace:
    """A space without modules: of a function that asks choices and returns whatever is to be evaluated, or of a dict.

    Hand it to an Experiment as any other space: the evaluator gets what the function returned. As an argument of an
    evaluator it is a hyperparameter with choices of its own, some of which depend on others.

    Args:
        source: a function; or a dict name -> candidates in a list, a domain, a dict of such, or a value that is fixed.
            The labels are the names, those within a dict behind that dict's name, as in "optimizer.lr". Or a
            SearchSpace; then the answers are what it builds.
        *args: what the function is called with, by position.
        **kwargs: what it is called with by name.

    Returns:
        The space; its `build(sample)` returns what the function returns, or the dict with its answers.

    Raises:
        NasTypeError: neither a function nor a dict.
        NasValueError: no choice is asked.

    Example:
        >>> from nas import Real, ValueChoice
        >>> def classifier():
        ...     kind = ValueChoice(["tree", "forest"], label="kind")
        ...     trees = ValueChoice([10, 100], label="trees") if kind == "forest" else 1
        ...     return {"kind": kind, "trees": trees, "depth": ValueChoice([2, 4, 8], label="depth")}
        >>> space = search_space(classifier)
        >>> space.size, space.build({"kind": "forest", "trees": 100, "depth": 4})
        (9, {'kind': 'forest', 'trees': 100, 'depth': 4})
        >>> search_space({"rate": Real(1e-4, 1e-1, log=True), "layers": [1, 2, 3], "seed": 0}).default()
        {'rate': 0.0001, 'layers': 1}
    """
    if isinstance(source, SearchSpace):
        # A choice of any kind is asked as a value here: there is no module to build.
        program = Program(source.walk, (_as_value,), modules=False)
        return ModelSpace.of(program) if source.constraint is None else ModelSpace.of(program).where(source.constraint)
    given = source
    if isinstance(source, Mapping):
        source, args = _answers, (source,)
    if isinstance(source, nn.Module) or not callable(source):
        raise NasTypeError(
            explain("a search space is made of a function or a dict", got=source, mend="for a module use ModelSpace")
        )
    space = ModelSpace.of(Program(source, args, kwargs, modules=False))
    if not space.search_space.choices:
        raise NasValueError(
            explain("a search space needs at least one choice", got=given, mend="ask a ValueChoice, or name candidates")
        )
    return space


def _as_value(choice: Choice) -> Answer:
    return ValueChoice(choice.domain, label=choice.label, default=choice.default)


def _answers(wanted: Mapping[str, object], outer: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in wanted.items():
        if not isinstance(name, str):
            raise NasTypeError(
                explain(
                    "the names of a search space are texts",
                    got=name,
                    where="search_space",
                    mend=f"{str(name)!r}",
                )
            )
        label = f"{outer}{name}"
        if isinstance(value, Mapping):
            found[name] = _answers(value, f"{label}.")
        elif isinstance(value, Domain | list | tuple | range):
            found[name] = ValueChoice(value, label=label)
        else:
            found[name] = value
    return found
