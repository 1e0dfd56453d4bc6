"""The files of NAS-Bench-101, NAS-Bench-201 and NATS-Bench as tables for `Tabular`."""

from __future__ import annotations

import base64
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, final

from nas.calls import explained
from nas.checks import check_int
from nas.errors import NasError, NasValueError, explain, shown
from nas.evaluators.plain_data import read_pickle, read_torch
from nas.evaluators.record_files import read_message, read_records
from nas.evaluators.tabular import Run

_MOST_EPOCHS, _MOST_LENGTHS = 100_000, 1_000
_DAMAGE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What a file of another format ends in."""


@final
class Trainings(Mapping[str, tuple[Run, ...]]):
    """Architecture -> its trainings, which are decoded when they are asked for."""

    def __init__(self, raw: Mapping[str, Any], decode: Callable[[Any], tuple[Run, ...]], path: str) -> None:
        self._raw, self._decode, self._path = raw, decode, path

    def __getitem__(self, key: str) -> tuple[Run, ...]:
        raw = self._raw[key]
        try:
            with _format_of(self._path, "this benchmark", f"the trainings of {shown(key)} are damaged"):
                return self._decode(raw)
        except NasError as error:
            if self._path in str(error):
                raise
            raise NasValueError(f"in {self._path}, the trainings of {shown(key)}: {error}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def __repr__(self) -> str:
        return f"Trainings({len(self)} architectures)"


@explained()
def read_nasbench101(path: str | os.PathLike[str], *, epochs: int = 108) -> Trainings:
    """NAS-Bench-101 (Ying et al. 2019, arXiv 1902.09635): `nasbench_only108.tfrecord` or `nasbench_full.tfrecord`.

    The metrics are `validation_accuracy`, `test_accuracy`, `train_accuracy` (from 0 to 1) and `parameters`; the curve
    has the validation accuracy halfway and at the end, and the time is that of training.

    Args:
        path: of the file.
        epochs: of the trainings to read: 108, and in the full file 4, 12 and 36.

    Returns:
        A table by the hash of the graph: `Tabular(table, key=nas.model_zoo.nasbench101.sample_hash)`.

    Raises:
        NasValueError: a torn file, another format, or no trainings of so many epochs.
    """
    epochs = check_int("epochs", epochs, least=1, where="read_nasbench101")
    found: dict[str, list[bytes]] = {}
    lengths: set[int] = set()
    for record in read_records(path):
        try:
            graph_hash, record_epochs, _, _, metrics = json.loads(record)
            if type(graph_hash) is not str or type(record_epochs) is not int or len(lengths) > _MOST_LENGTHS:
                raise ValueError("another kind of record")
            lengths.add(record_epochs)
            if record_epochs == epochs:
                found.setdefault(graph_hash, []).append(base64.b64decode(metrics, validate=True))
        except (ValueError, TypeError, RecursionError) as error:
            raise _other_format(path, "NAS-Bench-101", f"a record reads {record[:60]!r}") from error
    if not found:
        raise NasValueError(explain(f"the file has trainings of {sorted(lengths)} epochs", got=epochs, where=str(path)))
    return Trainings(found, _runs_101, str(path))


def _runs_101(records: Sequence[bytes]) -> tuple[Run, ...]:
    return tuple(map(_run_101, records))


def _run_101(metrics: bytes) -> Run:
    """One message ModelMetrics: evaluations (1), the number of parameters (2)."""
    message = read_message(metrics)
    # An evaluation: epoch (1), seconds of training (2), accuracy on training (3), validation (4) and test data (5).
    evaluations = [read_message(data) for data in message.get(1, []) if isinstance(data, bytes)]
    rows = [[_finite(row[field][0]) for field in range(1, 6)] for row in evaluations if set(row) >= set(range(1, 6))]
    if not rows or 2 not in message:
        raise NasValueError(explain("a training has evaluations and its number of parameters", got=metrics[:40]))
    *_, (_, seconds, train, validation, test) = rows
    steps = {round(row[0]) - 1: row for row in rows if row[0] > 0}
    return Run(
        metrics={
            "validation_accuracy": validation,
            "test_accuracy": test,
            "train_accuracy": train,
            "parameters": _finite(message[2][0]),
        },
        seconds=seconds,
        curve={step: row[3] for step, row in steps.items()},
        clock={step: row[1] for step, row in steps.items()},
    )


@explained()
def read_nasbench201(path: str | os.PathLike[str], *, dataset: str = "cifar10-valid", epochs: int = 200) -> Trainings:
    """The file of NAS-Bench-201 (Dong and Yang 2020, arXiv 2001.00326), `NAS-Bench-201-v1_1-096897.pth`.

    What the trainings have is told at `read_nats_bench`.

    Args:
        path: of the file.
        dataset: what was trained on: "cifar10-valid" (a part of CIFAR-10, the rest for validation), "cifar10" (all of
            it, so no validation), "cifar100" or "ImageNet16-120".
        epochs: 12 or 200.

    Returns:
        A table by architecture string: `Tabular(table, key=nas.model_zoo.nasbench201.arch_string)`.

    Raises:
        NasValueError: a torn file, another format or what executes code; an unknown data set or number of epochs.
    """
    epochs, names = check_int("epochs", epochs, least=1, where="read_nasbench201"), {12: "less", 200: "full"}
    if epochs not in names:
        raise NasValueError(explain("NAS-Bench-201 has trainings of 12 and 200 epochs", got=epochs))
    return _whole_file(path, read_torch(path), names[epochs], dataset)


@explained()
def read_nats_bench(path: str | os.PathLike[str], *, dataset: str = "cifar10-valid", epochs: int = 12) -> Trainings:
    """NATS-Bench (Dong et al. 2021, arXiv 2009.00437): a `.pickle.pbz2` file, or a folder of one per architecture.

    The metrics are `validation_accuracy` (unless all was trained on), `test_accuracy` and `train_accuracy`, all in
    percent, `parameters`, `flops` and, where it was measured, `latency` in seconds. The curve has the validation
    accuracies, and the time is that of training and of one validation.

    Args:
        path: `NATS-tss-v1_0-3ffb9.pickle.pbz2`, `NATS-tss-v1_0-3ffb9-simple`, or the same for `sss`. The folder starts
            at once: each of its files is read when it is asked for.
        dataset: "cifar10-valid", "cifar10", "cifar100" or "ImageNet16-120", as for `read_nasbench201`.
        epochs: 12 or 200; for the space of sizes (sss) 1, 12 or 90.

    Returns:
        A table by architecture: strings of the topology as in NAS-Bench-201, or of the sizes, "8:16:24:32:64".

    Raises:
        NasValueError: a torn file, another format or what executes code; an unknown data set or number of epochs.
    """
    epochs = check_int("epochs", epochs, least=1, where="read_nats_bench")
    if not Path(path).is_dir():
        return _whole_file(path, read_pickle(path), f"{epochs:02d}", dataset)
    archs = _names(_part(read_pickle(Path(path) / "meta.pickle.pbz2"), "meta_archs", path), path)
    files: dict[str, Path] = {}
    for file in sorted(Path(path).iterdir()):
        index = re.fullmatch(r"(\d{1,9})\.pickle\.pbz2", file.name)
        if index and int(index[1]) < len(archs):
            files[archs[int(index[1])]] = file
    decode = partial(_read_one, name=f"{epochs:02d}", dataset=dataset)
    for first in list(files.values())[:1]:
        decode(first)
    return Trainings(files, decode, str(path))


def _read_one(path: Path, name: str, dataset: str) -> tuple[Run, ...]:
    return _runs(_results(read_pickle(path), name, dataset, path))


def _whole_file(path: str | os.PathLike[str], content: Any, name: str, dataset: str) -> Trainings:
    """What one file for all architectures holds of one length of training and one data set."""
    archs, infos = _names(_part(content, "meta_archs", path), path), _part(content, "arch2infos", path)
    with _format_of(path, "NAS-Bench-201 or NATS-Bench", "its 'arch2infos' are damaged"):
        raw = {archs[i]: _results(info, name, dataset, path) for i, info in infos.items()}
    return Trainings(raw, _runs, str(path))


def _names(archs: Any, path: str | os.PathLike[str]) -> list[str]:
    if type(archs) is not list or not all(type(name) is str for name in archs):
        raise _other_format(path, "NAS-Bench-201 or NATS-Bench", "its 'meta_archs' are no texts")
    return archs


def _results(info: Any, name: str, dataset: str, path: str | os.PathLike[str]) -> list[Mapping[str, Any]]:
    """The results of one architecture, one for each seed."""
    if not isinstance(info, Mapping) or name not in info:
        known = sorted(map(str, info)) if isinstance(info, Mapping) else shown(info)
        raise NasValueError(
            explain(f"the file has trainings of the lengths {known}", got=name, where=str(path), mend="change epochs=")
        )
    seeds, results = _part(info[name], "dataset_seed", path), _part(info[name], "all_results", path)
    if dataset not in seeds:
        raise NasValueError(
            explain(f"the file has the data sets {sorted(map(str, seeds))}", got=dataset, where=str(path))
        )
    return [_part(results, (dataset, seed), path) for seed in seeds[dataset]]


def _runs(results: Sequence[Mapping[str, Any]]) -> tuple[Run, ...]:
    if not results:
        raise NasValueError(explain("an architecture has at least one training", got=results))
    try:
        return tuple(map(_run_201, results))
    except _DAMAGE as error:
        raise NasValueError(
            explain(f"not a training of NAS-Bench-201 or NATS-Bench ({shown(error)})", got=results[0])
        ) from error


def _run_201(result: Mapping[str, Any]) -> Run:
    accuracies, epochs = result["eval_acc1es"], result["epochs"]
    if type(epochs) is not int or not 0 < epochs <= _MOST_EPOCHS:
        raise ValueError(f"{epochs} epochs")
    curve = _per_epoch(accuracies, "x-valid", epochs)
    test = _per_epoch(accuracies, "x-test", epochs) or _per_epoch(accuracies, "ori-test", epochs)
    metrics = {
        name: steps[max(steps)] for name, steps in (("validation_accuracy", curve), ("test_accuracy", test)) if steps
    }
    metrics["train_accuracy"] = _finite(result["train_acc1es"][epochs - 1])
    metrics["parameters"], metrics["flops"] = (round(result[name] * 1e6) for name in ("params", "flop"))
    if result.get("latency"):
        metrics["latency"] = sum(map(_finite, result["latency"])) / len(result["latency"])
    times = result.get("train_times")
    if not times:
        raise NasValueError(
            explain("a training has its times", got=times, mend="take a later version of the benchmark's file")
        )
    validations = _per_epoch(result["eval_times"], "x-valid", epochs).values()
    once = sum(validations) / len(validations) if validations else 0.0
    trained = list(accumulate(_finite(times[epoch]) for epoch in range(epochs)))
    return Run(
        metrics=metrics,
        seconds=trained[-1] + once,
        curve=curve,
        clock={step: trained[step] + once for step in curve},
    )


def _per_epoch(values: Mapping[str, Any], name: str, epochs: int) -> dict[int, float]:
    return {i: _finite(values[f"{name}@{i}"]) for i in range(epochs) if f"{name}@{i}" in values}


def _finite(value: Any) -> float:
    """A number, or an array of one."""
    number = math.nan if isinstance(value, str | bytes) else float(value)
    if not math.isfinite(number):
        raise ValueError(f"no finite number: {shown(value)}")
    return number


def _part(content: Any, key: object, path: str | os.PathLike[str]) -> Any:
    if not isinstance(content, Mapping) or key not in content:
        raise _other_format(path, "NAS-Bench-201 or NATS-Bench", f"no {key!r} in it")
    return content[key]


@contextmanager
def _format_of(path: str | os.PathLike[str], name: str, reason: str) -> Iterator[None]:
    """Inside, whatever a damaged file ends in is said of it."""
    try:
        yield
    except NasError:
        raise
    except _DAMAGE as error:
        raise _other_format(path, name, f"{reason} ({shown(error)})") from error


def _other_format(path: str | os.PathLike[str], name: str, reason: str) -> NasValueError:
    return NasValueError(explain(f"not a file of {name}: {reason}", got=str(path)))
