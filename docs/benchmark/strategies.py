"""How well each strategy searches, and what a proposal costs; writes the tables and the plot of `README.md` here.

`python docs/benchmark/strategies.py` takes about half an hour on two cores with 50 seeds (`--gp` adds Optuna's Gaussian
process, and an hour); `--seeds 5` shows the same in minutes. What has been played is kept in a file of lines, so it may
be killed and run again. `--shown` plays nothing, and shows what `strategies.json.gz` holds: the curves behind the page.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import json
import math
import multiprocessing
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import torch
from parallel import parallel
from rich.progress import track

from nas import Categorical, Integer, ModelSpace, Sample, Strategy, Task, Trial, TrialState
from nas.evaluators import Run, Tabular
from nas.testing import STRATEGIES, Table, play, synthetic_table, table_of

HERE = Path(__file__).parent
MARKS = (50, 150, 500)
TABLES = ("flat", "conditional", "deceptive", "digits")
OURS = {name: listed.usual for name, listed in STRATEGIES.items() if listed.usual is not None}
SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "Optuna Random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "Optuna TPE": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "Optuna NSGA-II": lambda seed: optuna.samplers.NSGAIISampler(seed=seed),
    "Optuna GP": lambda seed: optuna.samplers.GPSampler(seed=seed),
}
SLOW = {"Optuna GP": 150}
"""So many evaluations only: each proposal takes a tenth of a second and more."""


@functools.cache
def digits() -> Table:
    """The mean accuracy of the two trainings of each architecture in `digits.json.gz`, looked up by `Tabular`."""
    sys.path.insert(0, str(HERE))
    from digits_table import Digits

    rows = json.loads(gzip.decompress((HERE / "digits.json.gz").read_bytes()))["rows"]
    trainings = [
        (
            row["sample"],
            [Run(metrics={"accuracy": curve[-1]}, curve=dict(enumerate(curve))) for curve in row["accuracy"]],
        )
        for row in rows
    ]
    evaluator = Tabular.of(trainings, runs="mean")
    values = [(sample, evaluator.run(sample, 0).metrics["accuracy"]) for sample, _ in trainings]
    return table_of("digits", ModelSpace(Digits).search_space, values)


def table(name: str, seed: int) -> Table:
    """A table; the synthetic ones are another one for each seed."""
    return digits() if name == "digits" else synthetic_table(name, seed)  # type: ignore[arg-type]


def suggest(trial: optuna.Trial, where: Table) -> Sample:
    """A sample in Optuna's own define-by-run."""

    def answer(choice: Any) -> Any:
        match choice.domain:
            case Categorical(candidates=candidates):
                return trial.suggest_categorical(choice.label, candidates)
            case Integer(low=low, high=high, step=step):
                return trial.suggest_int(choice.label, low, high, step=step)

    return where.space.walk(answer)


def values(name: str, where: Table, trials: int, seed: int) -> Iterator[float]:
    """The value of each trial of a search."""
    if name in OURS:
        yield from (trial.values[0] for trial in play(OURS[name](), where, trials, seed=seed) if trial.values)
        return
    study = optuna.create_study(direction="maximize", sampler=SAMPLERS[name](seed))
    for _ in range(trials):
        trial = study.ask()
        value = where.value(suggest(trial, where))
        study.tell(trial, value)
        yield value


def regrets(name: str, where: str, trials: int, seed: int) -> dict[str, Any]:
    """The regret of the best value after 10, 20, ... evaluations."""
    quiet()
    played, best, curve = table(where, seed), -math.inf, []
    for number, value in enumerate(values(name, played, min(trials, SLOW.get(name, trials)), seed), 1):
        best = max(best, value)
        if number % 10 == 0:
            curve.append(round(played.regret(best), 6))
    return {"strategy": name, "table": where, "seed": seed, "regret": curve}


def cost(name: str, number: int) -> float:
    """Milliseconds (of the processor) of a proposal, told results included, after `number` trials of the flat table."""
    where, repeats = synthetic_table("flat", 0), 3 if name == "Optuna GP" else 20
    next(values(name, where, 1, 0))
    if name in OURS:
        play(OURS[name](), where, 40)  # what is imported or compiled when first used is not counted
    known = [where.space.sample(seed) for seed in range(number)]
    if name in OURS:
        strategy = OURS[name]()
        strategy.start(Task(space=where.space))
        for i, sample in enumerate(known):
            _tell(strategy, i, sample, where)
        asked, told = 0.0, 0.0
        for i in range(number, number + repeats):
            begin = time.process_time()
            sample = strategy.ask(i)
            asked += time.process_time() - begin
            told += _tell(strategy, i, sample, where)
        return 1000 * (asked + told) / repeats
    study = optuna.create_study(direction="maximize", sampler=SAMPLERS[name](0))
    for sample in known:
        study.enqueue_trial(sample)
        trial = study.ask()
        study.tell(trial, where.value(suggest(trial, where)))
    spent = 0.0
    for _ in range(repeats):
        begin = time.process_time()
        trial = study.ask()
        sample = suggest(trial, where)
        spent += time.process_time() - begin
        value = where.value(sample)
        begin = time.process_time()
        study.tell(trial, value)
        spent += time.process_time() - begin
    return 1000 * spent / repeats


def _tell(strategy: Strategy, number: int, sample: Sample, where: Table) -> float:
    """Seconds that it takes, the table's own left out."""
    done = Trial(number=number, sample=sample, state=TrialState.COMPLETE, values=(where.value(sample),))
    begin = time.process_time()
    strategy.tell(Trial(number=number, sample=sample))
    strategy.tell(done)
    return time.process_time() - begin


def quiet() -> None:
    """One thread for each process, and no news of Optuna's."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")


def read(lines: Path) -> list[dict[str, Any]]:
    """What the file of lines holds; a last line that a kill has torn is cut off."""
    if not lines.exists():
        return []
    whole = [line for line in lines.read_text().splitlines(keepends=True) if line.endswith("}\n")]
    lines.write_text("".join(whole))
    return [json.loads(line) for line in whole]


def keep(rows: list[dict[str, Any]], path: Path) -> None:
    """Writes the curves to a small file, the same bytes for the same curves."""
    ordered = sorted(rows, key=lambda row: (row["strategy"], row["table"], row["seed"]))
    path.write_bytes(gzip.compress(json.dumps(ordered, separators=(",", ":")).encode(), mtime=0))


def fill(lines: Path, names: list[str], trials: int, seeds: int, workers: int) -> list[dict[str, Any]]:
    """Plays what the file of lines does not hold yet."""
    found = read(lines)
    there = {(row["strategy"], row["table"], row["seed"]) for row in found}
    jobs = [(n, t, trials, s) for n in names for t in TABLES for s in range(seeds) if (n, t, s) not in there]
    with lines.open("a") as file:
        for row in track(parallel(regrets, jobs, workers), "playing", total=len(jobs)):
            found.append(row)
            file.write(json.dumps(found[-1]) + "\n")
            file.flush()
    return [row for row in found if row["seed"] < seeds]


def interval(numbers: list[float]) -> tuple[float, float]:
    """The mean, and half the width of its 95 % confidence interval."""
    width = 1.96 * statistics.stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else math.inf
    return statistics.fmean(numbers), width


def curves(rows: list[dict[str, Any]], name: str, where: str) -> list[list[float]]:
    """For each multiple of 10 evaluations, the regrets of all seeds."""
    return [
        list(column)
        for column in zip(*(r["regret"] for r in rows if (r["strategy"], r["table"]) == (name, where)), strict=False)
    ]


def regret_table(rows: list[dict[str, Any]], names: list[str], where: str) -> str:
    """Markdown: the regret of each strategy after 50, 150 and 500 evaluations."""
    head = f"| {where} | " + " | ".join(f"after {mark}" for mark in MARKS) + " |\n| --- |" + " --- |" * len(MARKS)
    lines = [head]
    for name in names:
        columns = curves(rows, name, where)
        cells = []
        for mark in MARKS:
            if len(columns) >= mark // 10:
                mean, width = interval(columns[mark // 10 - 1])
                cells.append(f"{mean:.3f} ± {width:.3f}")
            else:
                cells.append("")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], names: list[str], path: Path) -> None:
    """Regret against evaluations, one panel for each table, with 95 % confidence bands."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "nas"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 2, figsize=(11, 8.5), constrained_layout=True)
    colors = {name: matplotlib.colormaps["tab20"](i) for i, name in enumerate(names)}
    for panel, where in zip(panels.flat, TABLES, strict=True):
        for name in names:
            columns = curves(rows, name, where)
            x = [10 * (i + 1) for i in range(len(columns))]
            middle = [interval(column) for column in columns]
            panel.plot(
                x, [m for m, _ in middle], label=name, color=colors[name], ls="--" if name.startswith("Optuna") else "-"
            )
            panel.fill_between(
                x, [m - w for m, w in middle], [m + w for m, w in middle], color=colors[name], alpha=0.12, lw=0
            )
        panel.set_title(where)
        panel.set_xlabel("evaluations")
        panel.set_ylabel("mean regret (1: a random sample, 0: the best)")
        panel.set_xlim(0, 300)
        panel.set_ylim(0, 0.2 if where == "digits" else 0.6)
        panel.grid(alpha=0.3)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=7, fontsize=9)
    figure.savefig(path, metadata={"Date": None})


def write(page: Path, section: str, text: str) -> None:
    """Replaces what stands between the two marks of a section."""
    old = page.read_text()
    begin, end = f"<!-- {section} -->", f"<!-- end of {section} -->"
    head, rest = old.split(begin)
    page.write_text(f"{head}{begin}\n{text}\n{end}{rest.split(end)[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--gp", action="store_true", help="Optuna's Gaussian process too")
    parser.add_argument("--only", nargs="*", help="these strategies alone")
    parser.add_argument("--lines", type=Path, default=HERE / "strategies.lines")
    parser.add_argument("--page", type=Path, default=HERE / "README.md", help="where the tables are written")
    parser.add_argument("--shown", action="store_true", help="play nothing: show what was kept")
    parser.add_argument("--no-cost", action="store_true", help="do not time proposals")
    options = parser.parse_args()
    quiet()
    names = [n for n in (*OURS, *SAMPLERS) if options.gp or n != "Optuna GP"]
    names = [n for n in names if not options.only or n in options.only]
    kept = options.page.with_name("strategies.json.gz")
    if options.shown:
        rows = [row for row in json.loads(gzip.decompress(kept.read_bytes())) if row["seed"] < options.seeds]
    else:
        rows = fill(options.lines, names, options.trials, options.seeds, options.workers)
        keep(rows, kept)
    tables = "\n\n".join(regret_table(rows, names, where) for where in TABLES)
    print(tables)
    write(options.page, "regret", f"{options.seeds} seeds.\n\n{tables}")
    plot(rows, names, options.page.with_name("regret.svg"))
    if not options.no_cost:
        lines = ["| ms a proposal | at 100 trials | at 1,000 trials |", "| --- | --- | --- |"]
        for name in track(names, "timing"):
            lines.append(f"| {name} | {cost(name, 100):.2f} | {cost(name, 1000):.2f} |")
        print("\n".join(lines))
        write(options.page, "cost", "\n".join(lines))


if __name__ == "__main__":
    main()
