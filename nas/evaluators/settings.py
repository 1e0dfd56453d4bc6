"""Keyword arguments of which some are searched."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, final

from nas.domains import Answer, Categorical, Domain
from nas.errors import NasTypeError, NasValueError, close_names, explain, shown
from nas.protocols import Evaluator, given_arguments, made_again
from nas.space import ModelSpace

E = TypeVar("E", bound=Evaluator)


@final
class Settings:
    """Keyword arguments: those that are domains or search spaces join the sample, the others are fixed.

    Args:
        values: keyword -> value, domain, or a space made by `nas.search_space`, whose choices stand under their own
            labels.
        objects: the keywords whose value may be a dict name -> object, which stands for a choice among the names.

    Example:
        >>> kinds = {"sum": sum, "max": max}
        >>> settings = Settings({"rate": Categorical([0.1, 0.2]), "kind": kinds, "epochs": 3}, objects=["kind"])
        >>> settings.domains
        {'rate': one of 0.1, 0.2, 'kind': one of 'sum', 'max'}
        >>> settings.fill({"kind": "max"})
        {'epochs': 3, 'rate': 0.1, 'kind': <built-in function max>}
    """

    def __init__(self, values: Mapping[str, object], objects: Iterable[str] = ()) -> None:
        self._tables = {name: dict(table) for name in objects if isinstance(table := values.get(name), Mapping)}
        self.domains: dict[str, Domain] = {}
        self.spaces: dict[str, ModelSpace] = {}
        self.fixed: dict[str, Any] = {}
        for name, value in values.items():
            if isinstance(value, type) and issubclass(value, Domain):
                rule, mend = f"{name} is searched by an instance of a domain", f"{name}={value.__name__}(...)"
                raise NasTypeError(explain(rule, got=value, mend=mend))
            if name in self._tables:
                self.domains[name] = Categorical(list(self._tables[name]))
            elif isinstance(value, Domain):
                self.domains[name] = value
            elif isinstance(value, ModelSpace):
                self.spaces[name] = value
            else:
                self.fixed[name] = value

    @property
    def searched(self) -> dict[str, Domain | ModelSpace]:
        """What joins the sample."""
        return {**self.domains, **self.spaces}

    @property
    def labels(self) -> frozenset[str]:
        """The names that answers may have."""
        inner = (label for space in self.spaces.values() for label in space.search_space.domains)
        return frozenset([*self.domains, *inner])

    def candidates(self, name: str) -> list[Any]:
        """The objects that a keyword may stand for; the lone value where it is fixed."""
        if name in self._tables:
            return list(self._tables[name].values())
        if name in self.spaces:
            return [self.spaces[name].build(self.spaces[name].default())]
        return list(self.domains[name].values()) if name in self.domains else [self.fixed[name]]

    def fill(self, answers: Mapping[str, Answer]) -> dict[str, Any]:
        """All the arguments: the fixed ones, and the searched ones by their answers, a missing one by its first.

        Raises:
            NasValueError: an unknown name, or an answer outside its domain.
        """
        known = self.labels
        unknown = [
            name
            for name, answer in answers.items()
            # What is fixed as the answer says is no contradiction: so a search's best is trained by another evaluator.
            if name not in known and not (name in self.fixed and self.fixed[name] == answer)
        ]
        if unknown:
            raise NasValueError(
                explain(
                    f"only hyperparameters that are searched can be given; {close_names(unknown[0], self.domains)}",
                    got={name: answers[name] for name in unknown},
                    mend="fix the others where the evaluator is made",
                )
            )
        found = dict(self.fixed)
        for name, domain in self.domains.items():
            answer = domain.canonical(answers[name]) if name in answers else domain.first
            found[name] = self._tables[name][answer] if name in self._tables else answer
        for name, space in self.spaces.items():
            mine = {label: answer for label, answer in answers.items() if label in space.search_space.domains}
            found[name] = space.build(space.complete(mine))
        return found


def defaults_of(function: Callable[..., object]) -> dict[str, Any]:
    """What parameters of a function are that are left out; nothing where it does not say."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # Some built-in functions have no signature to look at.
        return {}
    return {name: p.default for name, p in parameters.items() if p.default is not inspect.Parameter.empty}


def adopting(
    evaluator: E, settings: Settings, found: Mapping[str, Answer], has: Callable[[str], bool]
) -> tuple[E, dict[str, Answer]]:
    """An evaluator that takes from what a search has found all that it was not given; and what it takes.

    Args:
        evaluator: of keyword arguments.
        settings: these.
        found: hyperparameter -> answer.
        has: whether there is a keyword of this name.

    Raises:
        NasValueError: it does not know any more what it was given, or would search what the search has not.
    """
    if open_still := [name for name in settings.domains if name not in found]:
        raise NasValueError(
            explain(
                "one architecture is trained with one value of each argument, and the search has found none for these",
                got={name: settings.domains[name] for name in open_still},
                where="retrain",
                mend="fix them in the evaluator of the retraining",
            )
        )
    known, given = settings.labels, given_arguments(evaluator)
    taken = {name: answer for name, answer in found.items() if name in known}
    left = {
        name: answer for name, answer in found.items() if name not in known and name not in (given or {}) and has(name)
    }
    if left and given is None:
        raise NasValueError(
            explain(
                "an evaluator that was pickled has forgotten which arguments it was given, so what it leaves open is "
                "not known",
                got=type(evaluator).__name__,
                where="retrain",
                mend=f"make it anew, and say {', '.join(left)}",
            )
        )
    return made_again(evaluator, left) if left else evaluator, taken | left


def takes(function: Callable[..., object], name: str) -> bool:
    """Whether a function has a parameter of this name after its first, or takes any; no where it does not say.

    Example:
        >>> takes(lambda model, rate=0.1: rate, "rate"), takes(lambda rate: rate, "rate"), takes(dict, "rate")
        (True, False, False)
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # Some built-in functions have no signature to look at.
        return False
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    anything = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    return anything or any(parameter.name == name and parameter.kind in named for parameter in parameters[1:])


def choice_of(name: str, given: object) -> str:
    """How to search among what is given, where that is a list."""
    if not isinstance(given, list | tuple):
        return ""
    if all(isinstance(one, str) for one in given):
        return f"{name}=Categorical({shown(list(given))}) to search among them"
    named = ", ".join(f'"{_name_of(one)}": ...' for one in given[:3])
    return f"{name}={{{named}}}, a dict name -> object, to search among them"


def _name_of(thing: object) -> str:
    return str(getattr(thing, "__name__", type(thing).__name__ if thing is not None else "none"))
