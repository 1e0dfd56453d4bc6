"""The errors users meet: each says the rule, the value received, where it happened and how to mend it."""

from __future__ import annotations

import difflib
import math
import re
import reprlib
from collections.abc import Iterable
from itertools import islice
from typing import Any, final


class NasError(Exception):
    """Base of every error this package raises on purpose."""


class NasValueError(NasError, ValueError):
    """A value that breaks a rule: an impossible domain, a sample outside the space, a torn file."""


class NasTypeError(NasError, TypeError):
    """An object of a kind that cannot serve: a factory that builds no module, a source that is no model."""


class ExperimentError(NasError, RuntimeError):
    """An experiment that cannot start, go on, or answer what it was asked."""


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
    text = f"{where}: {rule}" if where else rule
    if got is not ...:
        text += f" Received {shown(got)}" if text.endswith("?") else f"; received {shown(got)}"
    text += "" if text.endswith("?") else "."
    if mend:
        text += f" To mend: {mend}{'' if mend.endswith('.') else '.'}"
    return text


@final
class _Short(reprlib.Repr):
    """Shows of a value what tells it from others: arrays by their shape, of long containers how they begin."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = 8
        self.maxstring = self.maxlong = self.maxother = _LONGEST

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        """In the order in which it was given."""
        if level <= 0 and x:
            return "{...}"
        items = [f"{self.repr1(key, level - 1)}: {self.repr1(x[key], level - 1)}" for key in islice(x, self.maxdict)]
        return "{" + ", ".join([*items, *(["..."] if len(x) > self.maxdict else [])]) + "}"

    def repr_instance(self, x: object, level: int) -> str:
        """What is an array says its shape; a failing `__repr__` its class."""
        shape = getattr(x, "shape", None) if not isinstance(x, type) else None
        if isinstance(shape, tuple) and any(shape) and math.prod(shape) > _FEW:
            kind = getattr(x, "dtype", None)
            return f"{type(x).__name__} of shape {tuple(shape)}{'' if kind is None else f' and dtype {kind}'}"
        try:
            text = re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(repr(x).split()))
        except Exception:  # a class of somebody else's, which is half made perhaps
            return f"an object of the class {type(x).__name__}"
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


_LONGEST = 240
"""Characters of one value in a message."""
_FEW = 8
"""Numbers of an array that are shown themselves."""


def shown(value: object) -> str:
    """A value in a message: whole where it is short, else so that a reader knows which it was.

    Example:
        >>> shown([1, 2]), shown(list(range(1000)))
        ('[1, 2]', '[0, 1, 2, 3, 4, 5, 6, 7, ...]')
    """
    text = _Short().repr(value)
    return text if len(text) <= 2 * _LONGEST else f"{text[: 2 * _LONGEST]}..."


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
_LIKE = 0.3
"""From 0 to 1; names that are less alike have nothing to do with each other."""


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The known names that a wrong one may stand for, the likeliest first: misspelt, shortened, or another library's.

    Example:
        >>> nearest("lr", ["learning_rate", "weight_decay"]), nearest("decay", ["learning_rate", "weight_decay"])
        (['learning_rate'], ['weight_decay'])
    """
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
        likeness = {other: difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio() for other in known}
        known.sort(key=lambda other: -likeness[other] if likeness[other] > _LIKE else 0)
        others = f", and {len(known) - _LISTED} more"
        return f"the known names are {', '.join(map(repr, known[:_LISTED]))}{others}"
    return f"the known names are {', '.join(map(repr, known))}" if known else "there are none"


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")
