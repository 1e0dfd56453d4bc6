"""What `nas export` writes of one trial."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.domains import dumps_sample, save_sample
from nas.files import own_folder
from nas.protocols import Trial

if TYPE_CHECKING:
    from nas.search import Experiment, Results


def write_trial(
    results: Results,
    trial: Trial,
    *,
    formatter: str,
    weights: str,
    output: Path | None,
    reopened: Callable[[Callable[[Experiment], list[Any]]], list[Any]],
) -> list[Any]:
    """Writes the architecture of a trial.

    Args:
        results: of its experiment.
        trial: a COMPLETE one.
        formatter, weights: as for `export_top_models`.
        output: the folder to write to; one in the experiment's folder where omitted.
        reopened: calls a function with the experiment, made again by its file, for its space and its supernet.

    Returns:
        What to print: the paths, or the sample where nothing was asked to be written.
    """
    if trial.same_as is not None:
        trial = next(other for other in results.trials if other.number == trial.same_as)
    if (formatter, weights) == ("dict", "fresh") and output is None:
        return [dumps_sample(trial.sample, indent=2)]
    folder = own_folder(results.path, "exports", str(trial.number)) if output is None else output
    if (formatter, weights) == ("dict", "fresh"):
        return [save_sample(trial.sample, folder / "sample.json")]
    alone = replace(results, trials=[trial])

    def export(alone: Results) -> list[Any]:
        return alone.export_top_models(1, formatter, weights=weights, directory=folder)

    if (formatter, weights) == ("dict", "trained"):  # whose files need no space
        written = export(alone)
    else:
        written = reopened(lambda e: export(replace(alone, space=e.space, inherit=e.results.inherit)))
    return [folder / "1.json", folder / "1.pt"] if formatter == "dict" else written
