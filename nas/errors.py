"""The errors users meet: each says the rule, the value received, where it happened and how to mend it."""

from __future__ import annotations

import difflib
import errno
import math
import os
import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from itertools import islice
from types import MappingProxyType, SimpleNamespace
from typing import Any, final

from nas.plain_text import printable, without_passwords


class NasError(Exception):
    """Base of every error this package raises on purpose."""

    def __str__(self) -> str:
        """Safe to be shown on a terminal: the names in it may be anybody's."""
        return without_passwords(printable(super().__str__(), lines=True))


class NasValueError(NasError, ValueError):
    """A value that breaks a rule: an impossible domain, a sample outside the space, a torn file."""


class NasTypeError(NasError, TypeError):
    """An object of a kind that cannot serve: a factory that builds no module, a source that is no model."""


class ExperimentError(NasError, RuntimeError):
    """An experiment that cannot start, go on, or answer what it was asked."""


class DiskFull(ExperimentError):  # noqa: N818 - names the situation
    """There is no room for a file of an experiment; what was written whole before is still there."""


class SearchSpaceExhausted(NasError):  # noqa: N818 - names the situation, as StopIteration does
    """Raised by a strategy's `ask` when it has nothing left to propose; the experiment ends in good order."""


class TrialPruned(NasError):  # noqa: N818 - the name users of Optuna know
    """Raised inside an evaluator by `nas.report` when early stopping says that this trial should not go on."""


class MissingDependency(NasError, ImportError):  # noqa: N818 - reads as what it says
    """An optional library that is not installed; the message holds the pip line that installs it."""

    def __init__(self, package: str, *, purpose: str, extra: str | None = None) -> None:
        line = f'pip install "torch-nas[{extra}]"' if extra else f"pip install {package}"
        super().__init__(f"{purpose} needs {package}, which is not installed here. Install it with: {line}")


def explain(rule: str, *, got: object = ..., where: str = "", mend: str = "") -> str:
    """One message out of its four parts.

    Example:
        >>> explain("low must not exceed high", got=(5, 3), where="ValueChoice 'width'", mend="swap them")
        "ValueChoice 'width': low must not exceed high; received (5, 3). To mend: swap them."
    """
    rule, where, mend = _cut(rule, _LONGEST_RULE), _cut(where, _LONGEST_PART), _cut(mend, _LONGEST_PART)
    text = f"{where}: {rule}" if where else rule
    if got is not ...:
        text += f" Received {shown(got)}" if text.endswith("?") else f"; received {shown(got)}"
    text += "" if text.endswith("?") else "."
    if mend:
        text += f" To mend: {mend}{'' if mend.endswith('.') else '.'}"
    return without_passwords(printable(text, lines=True))


_LONGEST = 240
"""Characters of one value in a message."""
_LONGEST_RULE, _LONGEST_PART = 1 << 16, 4_000
"""Characters of a rule, which may list a domain; of a place and of a mend. They may quote what somebody has said."""
_FEW = 8
"""Entries of a container that are shown, and numbers of an array that are shown themselves."""
_DEEPEST = 4
_MOST_SORTED = 1_000
_BITS = 800
"""Of an int that is shown whole."""


def shown(value: object) -> str:
    """A value in a message: whole where it is short, else so that a reader knows which it was.

    It takes no longer for what is large, nested or shared a million times.

    Example:
        >>> shown([1, 2]), shown(list(range(1000)))
        ('[1, 2]', '[0, 1, 2, 3, 4, 5, 6, 7, ...]')
    """
    return _cut(_Short().text(value, _DEEPEST), 2 * _LONGEST)


def shown_container(value: object) -> str | None:
    """The same for a value that holds others, whose own `repr` may never end; None for another one.

    Example:
        >>> shown_container([1, 2]), shown_container(1)
        ('[1, 2]', None)
    """
    return _Short().container(value)


@final
class _Short:
    """Shows of a value what tells it from others: arrays by their shape, of long containers how they begin.

    What is shown is paid from one purse of characters. Where it is empty, nothing more is looked at.
    """

    def __init__(self) -> None:
        self._left = 2 * _LONGEST

    def text(self, value: object, level: int) -> str:
        """The value, with so many levels of containers inside."""
        if self._left <= 0:
            return "..."
        try:
            found = self.container(value, level)
            if found is None:
                found = self._single(value)
                self._left -= len(found)
        except Exception:  # a class of somebody else's, which is half made perhaps
            found = f"an object of the class {type(value).__name__}"
            self._left -= len(found)
        return found if len(found) <= 2 * _LONGEST else f"{found[: 2 * _LONGEST]}..."

    def container(self, value: Any, level: int = _DEEPEST) -> str | None:
        """A value that holds others; None for another one."""
        kind: Any = type(value)
        if isinstance(value, dict) and kind.__repr__ in _REPRS:
            return self._around(kind, "{", self._pairs(value, level), "}", {dict}) if value else repr(value)
        if isinstance(value, list | tuple | set | frozenset | deque) and kind.__repr__ in _REPRS:
            if not value:
                return repr(value)
            begin, end = "()" if isinstance(value, tuple) else "[]" if isinstance(value, list | deque) else "{}"
            entries = self._entries(_first(value), len(value), level)
            single = "," if isinstance(value, tuple) and len(value) == 1 else ""
            return self._around(kind, begin, entries + single, end, {list, tuple, set})
        if isinstance(value, MappingProxyType):
            return f"{{{self._pairs(value, level)}}}"
        if isinstance(value, KeysView | ValuesView | ItemsView) and kind.__module__ == "builtins":
            return f"{kind.__name__}([{self._entries(_first(value), len(value), level)}])"
        if isinstance(value, BaseException) and kind.__repr__ is BaseException.__repr__:
            return f"{kind.__name__}({self._entries(_first(value.args), len(value.args), level)})"
        if isinstance(value, SimpleNamespace) and kind.__repr__ is SimpleNamespace.__repr__:
            name = "namespace" if kind is SimpleNamespace else kind.__name__
            return f"{name}({self._named(vars(value).items(), level)})"
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            return f"{kind.__name__}({self._named(zip(kind._fields, value, strict=False), level)})"
        if is_dataclass(value) and not isinstance(value, type) and hasattr(kind.__repr__, "__wrapped__"):
            named = ((field.name, getattr(value, field.name)) for field in fields(value) if field.repr)
            return f"{kind.__qualname__}({self._named(named, level)})"
        return None

    def _around(self, kind: type, begin: str, inside: str, end: str, bare: set[type]) -> str:
        text = f"{begin}{inside}{end}"
        return text if kind in bare else f"{kind.__name__}({text})"

    def _pairs(self, value: Mapping[Any, Any], level: int) -> str:
        """In the order in which it was given."""
        if level <= 0:
            return "..."
        found = [
            f"{self.text(key, level - 1)}: {self.text(item, level - 1)}" for key, item in islice(value.items(), _FEW)
        ]
        return ", ".join([*found, *(["..."] if len(value) > _FEW else [])])

    def _entries(self, first: list[Any], length: int, level: int) -> str:
        if level <= 0:
            return "..."
        found = [self.text(entry, level - 1) for entry in first]
        return ", ".join([*found, *(["..."] if length > _FEW else [])])

    def _named(self, parts: Iterable[tuple[str, Any]], level: int) -> str:
        if level <= 0:
            return "..."
        return ", ".join(f"{name}={self.text(part, level - 1)}" for name, part in islice(parts, 2 * _FEW))

    def _single(self, value: Any) -> str:
        """What holds nothing that could be shown by itself."""
        if isinstance(value, str | bytes | bytearray) and type(value).__repr__ in _REPRS:
            return (
                _middle(repr(value))
                if len(value) <= _LONGEST
                else _middle(f"{value[:_LONGEST]!r}{value[-_LONGEST:]!r}")
            )
        if isinstance(value, int) and type(value).__repr__ in _REPRS and value.bit_length() > _BITS:
            return f"an int of {value.bit_length():,} bits"
        shape = getattr(value, "shape", None) if not isinstance(value, type) else None
        if (
            isinstance(shape, tuple)
            and any(shape)
            and (math.prod(shape) > _FEW or str(getattr(value, "dtype", "")) == "object")
        ):
            kind = getattr(value, "dtype", None)
            return f"{type(value).__name__} of shape {tuple(shape)}{'' if kind is None else f' and dtype {kind}'}"
        text = repr(value)
        self._left -= len(text) // 100  # it has taken its time
        text = " ".join(text[: 20 * _LONGEST].split())
        return _cut(re.sub(r" at 0x[0-9a-fA-F]+", "", text), _LONGEST)


_REPRS: set[Any] = {
    kind.__repr__ for kind in (dict, OrderedDict, defaultdict, Counter, list, tuple, set, frozenset, deque)
} | {kind.__repr__ for kind in (str, bytes, bytearray, int)}
"""Those of the language, which show everything that there is."""


def _first(value: Any) -> list[Any]:
    """The entries that are shown; those of a set in their order, if they have one."""
    if isinstance(value, set | frozenset) and len(value) <= _MOST_SORTED:
        for kind in (str, int, float):
            if all(type(entry) is kind for entry in value):
                return sorted(value)[:_FEW]
    return [*islice(value, _FEW)]


def _middle(text: str) -> str:
    """Without its middle, where it is too long."""
    if len(text) <= _LONGEST:
        return text
    begin = (_LONGEST - 3) // 2
    return f"{text[:begin]}...{text[len(text) - (_LONGEST - 3 - begin) :]}"


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."


_SAME = (
    ("learning_rate", "lr", "rate"),
    ("max_epochs", "epochs", "n_epochs", "num_epochs"),
    ("batch_size", "bs", "batch"),
    ("max_trials", "n_trials", "num_trials", "trials", "n_iter", "num_samples", "budget"),
    ("timeout", "time_limit", "max_time", "time_budget"),
    ("max_trial_time", "trial_timeout", "timeout_per_trial", "time_limit_per_trial"),
    ("concurrency", "n_jobs", "num_workers", "workers", "parallel", "max_concurrent"),
    ("weight_decay", "wd", "l2"),
    ("criterion", "loss", "loss_fn", "loss_function"),
    ("optimizer", "opt", "optim"),
    ("scheduler", "lr_scheduler"),
    ("validation", "val", "valid", "val_data", "val_loader", "validation_data"),
    ("train", "train_data", "training_data", "train_loader", "data", "dataset"),
    ("metrics", "metric"),
    ("objective", "objectives", "direction", "directions", "mode", "goal"),
    ("seed", "random_state", "random_seed", "manual_seed"),
    ("directory", "dir", "folder", "path", "root", "output_dir", "save_dir"),
    ("name", "study_name", "experiment_name", "title"),
    ("population_size", "pop_size", "popsize", "population", "n_population"),
    ("sample_size", "tournament_size", "tournament"),
    ("mutation_probability", "mutation_rate", "mutation_prob", "p_mutation"),
    ("candidates", "choices", "options", "values", "ops", "ops_list", "layers"),
    ("label", "name", "key"),
    ("n_chosen", "k", "num_chosen"),
    ("n_candidates", "n", "num_candidates", "num_inputs", "n_inputs"),
    ("depth", "repeats", "repeat", "times", "n_blocks"),
    ("early_stopping", "pruner", "scheduler", "stopper", "callbacks"),
    ("executor", "backend", "engine", "runner"),
    ("repeats", "executions", "n_repeats", "num_repeats"),
    ("folds", "k_folds", "n_splits", "cv"),
    ("example_input", "input", "inputs", "sample_input", "example", "dummy_input", "x"),
    ("input_shape", "shape", "input_size"),
    ("classes", "num_classes", "n_classes"),
    ("channels", "in_channels", "width", "init_channels"),
    ("cells", "num_cells", "layers", "num_layers"),
    ("low", "min", "minimum", "lower", "start"),
    ("high", "max", "maximum", "upper", "end", "stop"),
    ("step", "q", "increment"),
    ("warmup_trials", "n_startup_trials", "startup_trials", "n_initial", "initial", "init_trials"),
    ("warmup_steps", "n_warmup_steps"),
    ("max_resource", "max_t", "max_budget"),
    ("min_resource", "min_t", "min_budget", "grace_period"),
    ("reduction_factor", "eta"),
    ("gpus_per_trial", "gpus", "num_gpus", "n_gpus"),
    ("k", "top", "top_k", "topk", "n"),
    ("formatter", "format", "fmt"),
    ("storage", "database", "db", "url"),
    ("resume", "load_if_exists", "restore"),
    ("temperature", "temp", "tau"),
    ("evaluator", "function", "fn", "trainable", "objective_fn"),
    ("strategy", "algorithm", "algo", "search_alg", "sampler", "tuner", "searcher"),
    ("space", "search_space", "model_space", "model", "config", "param_space"),
)
"""What libraries call the same thing: where one of a row is asked for that is not known, another one may be meant."""

_LISTED = 12
_LONGEST_NAME = 200
"""Characters of a name that are compared: to compare two texts takes the product of their lengths."""
_LIKE = 0.3
"""From 0 to 1; names that are less alike have nothing to do with each other."""


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The known names that a wrong one may stand for, the likeliest first: misspelt, shortened, or another library's.

    Example:
        >>> nearest("lr", ["learning_rate", "weight_decay"]), nearest("decay", ["learning_rate", "weight_decay"])
        (['learning_rate'], ['weight_decay'])
    """
    name = name[:_LONGEST_NAME]
    known, plain = sorted(known), _plain(name)
    found = [other for row in _SAME if plain in map(_plain, row) for other in row if other in known]
    found += [other for other in known if _plain(other) == plain]
    if found:
        return list(dict.fromkeys(found))[:2]
    found += difflib.get_close_matches(name, known, n=3)
    if len(plain) > 2:
        found += [other for other in known if plain in _plain(other)]
    found += [other for other in known if len(_plain(other)) > 2 and _plain(other) in plain]
    return list(dict.fromkeys(found))[:3]


def close_names(name: str, known: Iterable[str]) -> str:
    """The known names nearest to a misspelt one, ready to append to a message; else all of them, as far as they go.

    Example:
        >>> close_names("widht", ["width", "depth"])
        "did you mean 'width'?"
    """
    known = sorted(known)
    if near := nearest(name, known):
        return "did you mean " + " or ".join(repr(n) for n in near) + "?"
    if len(known) > _LISTED:  # the likeliest stand first, so that none of them is cut off
        likeness = {o: difflib.SequenceMatcher(None, name[:_LONGEST_NAME].lower(), o.lower()).ratio() for o in known}
        known.sort(key=lambda other: -likeness[other] if likeness[other] > _LIKE else 0)
        others = f", and {len(known) - _LISTED} more"
        return f"the known names are {', '.join(map(repr, known[:_LISTED]))}{others}"
    return f"the known names are {', '.join(map(repr, known))}" if known else "there are none"


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


_SQLITE_FULL = "database or disk is full"
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, *((errno.EDQUOT,) if hasattr(errno, "EDQUOT") else ()))


def is_full(error: BaseException | None) -> bool:
    """Whether an error says that there is no room for a file, or was raised while one that says so was handled."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in _NO_ROOM):
            return True
        if type(error).__module__.partition(".")[0] in ("sqlite3", "sqlalchemy") and _SQLITE_FULL in str(error):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def told_if_full(path: str | os.PathLike[str], mend: str = "make room, and do it again") -> Iterator[None]:
    """Says in one way that there was no room, whatever a library has made of it.

    Args:
        path: of what is written in the block.
        mend: what to do then.

    Raises:
        DiskFull: there was no room.
    """
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        if not is_full(error):
            raise
        raise disk_full(path, mend) from error


def disk_full(path: str | os.PathLike[str], mend: str) -> DiskFull:
    """What to say where there was no room.

    Args:
        path: of what was written.
        mend: what to do then.
    """
    rule = "there is no space left on the disk, so this was not written; all that was written before is kept"
    return DiskFull(explain(rule, got=os.fspath(path), mend=mend))
