"""What is searched for: one number or several, each to be made large or small; and several in one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias, final, get_args

from nas.calls import explained
from nas.checks import check_bool, check_label, check_word
from nas.errors import NasTypeError, NasValueError, close_names, explain
from nas.protocols.pareto import fronts, hypervolume
from nas.protocols.trial import Trial, TrialState

Direction: TypeAlias = Literal["maximize", "minimize"]


def losses(values: Iterable[float], directions: Iterable[Direction]) -> tuple[float, ...]:
    """The values with every sign such that smaller is better.

    Example:
        >>> losses((0.9, 2.0), ("maximize", "minimize"))
        (-0.9, 2.0)
    """
    return tuple(-v if d == "maximize" else v for v, d in zip(values, directions, strict=True))


_BETTER_SMALL = frozenset(
    {
        *("loss", "losses", "error", "errors", "err", "errs", "misclassification", "perplexity", "ppl", "nll", "bce"),
        *("mse", "rmse", "mae", "msle", "rmsle", "mape", "smape", "logloss", "xent", "brier", "wer", "cer", "fid"),
        *("lpips", "ece", "divergence", "kl", "kld", "bpc", "bpb", "bpd", "regret", "deviance", "latency", "flops"),
    }
)
_SMALL_ENDS = ("loss", "losses", "error", "errors", "perplexity", "crossentropy")
_BETTER_LARGE = frozenset(
    {
        *("accuracy", "acc", "precision", "recall", "f1", "auc", "auroc", "iou", "miou", "map", "r2", "psnr", "ssim"),
        *("bleu", "rouge", "likelihood", "elbo"),
    }
)
_TURNED = frozenset({"neg", "negative", "negated", "minus"})


def usual_direction(metric: str) -> Direction | None:
    """Which way a metric of this name is better, as far as the words in it tell; None where they do not.

    Example:
        >>> usual_direction("val_loss"), usual_direction("top5_accuracy"), usual_direction("reward")
        ('minimize', 'maximize', None)
        >>> usual_direction("valCrossEntropy"), usual_direction("neg_mean_squared_error")
        ('minimize', 'maximize')
    """
    apart = re.sub(r"([a-z0-9])([A-Z])|([A-Z])(?=[A-Z][a-z])", r"\1\3_\2", metric)  # valLoss, MSELoss
    apart = re.sub("(?i)cross[^a-z]*entropy", "crossentropy", apart)
    words = {
        word for text in (apart, metric) for rule in ("[a-z0-9]+", "[a-z]+") for word in re.findall(rule, text.lower())
    }
    if "std" in words:
        return None
    small = bool(words & _BETTER_SMALL) or any(word.endswith(_SMALL_ENDS) for word in words)
    large = bool(words & _BETTER_LARGE)
    if words & _TURNED and small != large:
        # As scikit-learn writes errors, with their sign turned; the "negative" of recall is a class.
        return "maximize" if small else "minimize" if "likelihood" in words else None
    return "minimize" if small else "maximize" if large else None


@explained()
@final
class Objectives:
    """The metrics that are searched for, with their directions.

    Args:
        objective: "maximize" or "minimize", for the number that the evaluator returns (of a dict of metrics, the
            first); or a dict metric -> direction.
        assumed: whether nobody has said so: then a metric whose name tells otherwise is not searched for.

    Raises:
        NasValueError: an unknown direction, an empty dict, or a name that cannot be shown.

    Example:
        >>> Objectives({"accuracy": "maximize", "latency": "minimize"}).values({"latency": 2.0, "accuracy": 0.9})
        (0.9, 2.0)
    """

    def __init__(self, objective: Direction | Mapping[str, Direction], *, assumed: bool = False) -> None:
        if not isinstance(objective, str | Mapping) or (isinstance(objective, Mapping) and not objective):
            raise NasTypeError(
                explain(
                    'the objective is "maximize", "minimize" or a dict metric -> one of these',
                    got=objective,
                    mend='objective={"accuracy": "maximize", "latency": "minimize"}, say',
                )
            )
        if isinstance(objective, Mapping) and not all(isinstance(name, str) for name in objective):
            mend = 'objective={"accuracy": "maximize"}, by the names that the evaluator returns'
            raise NasTypeError(explain("the names of metrics are texts", got=dict(objective), mend=mend))
        named: dict[str | None, Direction] = (
            {None: objective} if isinstance(objective, str) else dict(objective.items())
        )
        for name, direction in named.items():
            if name is not None:
                check_label(name, what="the name of a metric", where="objective")
            check_word("the direction", direction, get_args(Direction), where=f"objective {name or ''}".strip())
        self.objective, self.assumed = objective, check_bool("assumed", assumed, where="Objectives")
        self.names: tuple[str | None, ...] = tuple(named)
        self.directions: tuple[Direction, ...] = tuple(named.values())

    def __repr__(self) -> str:
        return f"Objectives({self.objective!r})"

    def values(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """The number of each objective.

        Raises:
            NasValueError: the evaluator returned no metric of that name.
        """
        missing = [name for name in self.names if name is not None and name not in metrics]
        if missing:
            raise NasValueError(
                explain(
                    f"the objective is the metric {missing[0]!r}, which the evaluator did not return; "
                    f"{close_names(missing[0], metrics)}",
                    got=dict(metrics),
                    mend="name one of these in objective=, or return it",
                )
            )
        return tuple(metrics[name] if name is not None else next(iter(metrics.values())) for name in self.names)

    def doubt(self, metrics: Mapping[str, float]) -> str:
        """Why these metrics are not to be searched for in a direction that is assumed; empty where they may be."""
        name = next(iter(metrics), "")
        usual = usual_direction(name) if self.assumed else None
        if usual is None or usual == self.directions[0]:
            return ""
        return explain(
            f"nothing says which way {name!r} is better, the first metric that the evaluator has returned; by its name "
            f"it is one to {usual}, and what nobody names is a search to {self.directions[0]}",
            got=dict(metrics),
            mend=f"objective={usual!r}, or objective={self.directions[0]!r} if that is meant; or name another metric, "
            'as in objective={"accuracy": "maximize"}',
        )

    def losses(self, trial: Trial) -> tuple[float, ...]:
        """The values with every sign such that smaller is better."""
        assert trial.values is not None
        return losses(trial.values, self.directions)

    def rank(self, trials: Iterable[Trial]) -> list[Trial]:
        """COMPLETE trials, best first: by value, or front after front of those that no other one beats everywhere."""
        done = self._sorted(trials)
        if len(self.names) == 1:
            return done
        numbers = fronts([self.losses(trial) for trial in done])
        return [trial for _, trial in sorted(zip(numbers, done, strict=True), key=lambda pair: pair[0])]

    def pareto_front(self, trials: Iterable[Trial]) -> list[Trial]:
        """The COMPLETE trials that no other one beats: at least as good in every objective and better in one."""
        done = self._sorted(trials)
        numbers = fronts([self.losses(trial) for trial in done])
        return [trial for number, trial in zip(numbers, done, strict=True) if number == 0]

    def hypervolume(self, trials: Iterable[Trial], reference: Sequence[float] | Mapping[str, float]) -> float:
        """The volume that the COMPLETE trials dominate, as far as a reference point.

        Args:
            trials: of several objectives.
            reference: the worst that matters: metric -> value, or the values in the order of the objectives.

        Raises:
            NasValueError: the reference does not have one number for each objective.
        """
        names = [name or "value" for name in self.names]
        if isinstance(reference, Mapping):
            fits = set(reference) == set(names)
            point = [reference[name] for name in names] if fits else []
        else:
            point = list(reference)
        if len(point) != len(names):
            raise NasValueError(
                explain(f"the reference point has one number for each objective, {', '.join(names)}", got=reference)
            )
        return hypervolume([self.losses(trial) for trial in self._sorted(trials)], losses(point, self.directions))

    def _sorted(self, trials: Iterable[Trial]) -> list[Trial]:
        done = (t for t in trials if t.state is TrialState.COMPLETE)
        return sorted(done, key=lambda t: (self.losses(t), t.number))

    def shown(self, trials: Iterable[Trial]) -> dict[str, Direction]:
        """Name -> direction, for people: the unnamed objective has the name of the first metric that trials have."""
        lone = next((next(iter(trial.metrics)) for trial in trials if trial.metrics), "value")
        return {name or lone: direction for name, direction in zip(self.names, self.directions, strict=True)}

    def text(self, trial: Trial) -> str:
        """The values of a trial with their names, short; a lone number has none.

        Example:
            >>> Objectives("maximize").text(Trial(number=0, sample={}, values=(0.5,), metrics={"accuracy": 0.5}))
            'accuracy 0.5'
        """
        named = zip(self.shown([trial]), trial.values or (), strict=False)
        return ", ".join(f"{value:.6g}" if name == "value" else f"{name} {value:.6g}" for name, value in named)

    def describe(self) -> dict[str, str]:
        """Name -> direction, for the ledger; the unnamed objective is called "value"."""
        return {name or "value": direction for name, direction in zip(self.names, self.directions, strict=True)}
