"""Small files in the formats of NAS-Bench-101, NAS-Bench-201 and NATS-Bench, read and searched."""

import base64
import bz2
import json
import pickle
import random
import struct
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

from nas import Experiment, NasValueError, Sample, SuccessiveHalving, Task, Trial
from nas.evaluators import SimulatedBudget, Tabular, read_nasbench101, read_nasbench201, read_nats_bench
from nas.evaluators.record_files import masked_crcs
from nas.model_zoo import nasbench101, nasbench201, nats_bench, space
from nas.strategies import Random, RegularizedEvolution
from nas.testing import survives_mutants

# NAS-Bench-101: TFRecords of JSON, and in it a protobuf message that Google's own library writes here.


def metrics_class() -> type[Any]:
    file = descriptor_pb2.FileDescriptorProto(name="metrics.proto", package="nasbench", syntax="proto2")
    double, integer, text, message = 1, 5, 9, 11
    evaluation = file.message_type.add(name="EvaluationData")
    names = ("current_epoch", "training_time", "train_accuracy", "validation_accuracy", "test_accuracy")
    for number, name in enumerate(names, start=1):
        evaluation.field.add(name=name, number=number, type=double, label=1)
    evaluation.field.add(name="checkpoint_path", number=6, type=text, label=1)
    model = file.message_type.add(name="ModelMetrics")
    model.field.add(
        name="evaluation_data",
        number=1,
        type=message,
        label=3,
        type_name=".nasbench.EvaluationData",
    )
    model.field.add(name="trainable_parameters", number=2, type=integer, label=1)
    model.field.add(name="total_time", number=3, type=double, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found: type[Any] = message_factory.GetMessageClass(pool.FindMessageTypeByName("nasbench.ModelMetrics"))
    return found


def tf_record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    crcs = [struct.pack("<I", crc) for crc in masked_crcs([length, data])]
    return length + crcs[0] + data + crcs[1]


def record_101(sample: dict[str, Any], epochs: int, repeat: int) -> bytes:
    matrix, operations = nasbench101.prune(*nasbench101.graph_of(sample))
    accuracy = sum(map(sum, matrix)) / 10 + repeat / 1000
    metrics = metrics_class()(trainable_parameters=1000 * len(matrix), total_time=5000.0)
    for share in (0.0, 0.5, 1.0):
        metrics.evaluation_data.add(
            current_epoch=share * epochs,
            training_time=share * 10 * epochs,
            train_accuracy=share,
            validation_accuracy=share * accuracy,
            test_accuracy=share * accuracy - 0.01,
            checkpoint_path="model.ckpt" if share else "",
        )
    adjacency = "".join(str(x) for row in matrix for x in row)
    packed = base64.b64encode(metrics.SerializeToString()).decode()
    return json.dumps([nasbench101.sample_hash(sample), epochs, adjacency, ",".join(operations), packed]).encode()


def first_of_a_random_search(number: int) -> list[Sample]:
    strategy, found = Random(), list[Sample]()
    strategy.start(Task(space=space("nasbench101").search_space, seed=0))
    for i in range(number):
        found.append(strategy.ask(i))
        strategy.tell(Trial(number=i, sample=found[-1]))
    return found


SAMPLES = first_of_a_random_search(12)


@pytest.fixture(scope="module")
def file_101(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("101") / "nasbench_full.tfrecord"
    different = {nasbench101.sample_hash(sample): sample for sample in SAMPLES}.values()
    records = [record_101(s, epochs, repeat) for s in different for epochs in (4, 108) for repeat in range(3)]
    path.write_bytes(b"".join(map(tf_record, records)))
    return path


def test_nasbench101_records(file_101: Path) -> None:
    table = read_nasbench101(file_101)
    sample = SAMPLES[5]
    runs = table[nasbench101.sample_hash(sample)]
    edges = sum(map(sum, nasbench101.prune(*nasbench101.graph_of(sample))[0]))
    assert [run.metrics["validation_accuracy"] for run in runs] == pytest.approx(
        [edges / 10, edges / 10 + 0.001, edges / 10 + 0.002]
    )
    run = runs[0]
    assert run.metrics["parameters"] == 1000 * len(nasbench101.prune(*nasbench101.graph_of(sample))[0])
    assert run.metrics["test_accuracy"] == pytest.approx(edges / 10 - 0.01)
    assert run.curve == pytest.approx({53: edges / 20, 107: edges / 10})
    assert (run.seconds, run.clock) == (1080.0, {53: 540.0, 107: 1080.0})
    assert len(table) == len(set(table)) <= 12
    assert read_nasbench101(file_101, epochs=4)[nasbench101.sample_hash(sample)][0].seconds == 40.0


def test_other_lengths_of_training_are_listed(file_101: Path) -> None:
    with pytest.raises(NasValueError, match=r"trainings of \[4, 108\] epochs; received 36"):
        read_nasbench101(file_101, epochs=36)


def test_nasbench101_is_searched_within_a_budget(file_101: Path, tmp_path: Path) -> None:
    evaluator = Tabular(read_nasbench101(file_101), key=nasbench101.sample_hash)
    budget = SimulatedBudget(Random(), evaluator, seconds=10_000)
    experiment = Experiment(space("nasbench101"), evaluator, budget, name="101", directory=tmp_path)
    experiment.run()
    assert [trial.sample for trial in experiment.trials] == SAMPLES[:10]
    assert [evaluator.simulated_seconds(trial) for trial in experiment.trials] == [1080.0] * 10
    edges = [sum(map(sum, nasbench101.prune(*nasbench101.graph_of(sample))[0])) for sample in SAMPLES[:10]]
    assert experiment.best_trial.value == pytest.approx(max(edges) / 10, abs=0.003)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-3], "torn"),
        (lambda data: data[:6], "torn"),
        (lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:], "checksum"),
        (lambda data: bytes([data[0] ^ 1]) + data[1:], "checksum|torn"),
        (lambda data: b"\xff" * 8 + data[8:], "a record of"),
        (lambda data: tf_record(b"{}"), "not a file of NAS-Bench-101"),
        (lambda data: tf_record(b'["hash", 108, "", "", "%%%"]'), "not a file of NAS-Bench-101"),
    ],
)
def test_a_damaged_file_is_refused(file_101: Path, tmp_path: Path, damage: Any, message: str) -> None:
    damaged = tmp_path / "damaged.tfrecord"
    damaged.write_bytes(damage(file_101.read_bytes()))
    with pytest.raises(NasValueError, match=message):
        read_nasbench101(damaged)


def test_no_file_at_all(tmp_path: Path) -> None:
    for read in (read_nasbench101, read_nasbench201, read_nats_bench):
        with pytest.raises(NasValueError, match="nowhere"):
            read(tmp_path / "nowhere")


# NAS-Bench-201 and NATS-Bench: nested dicts, by torch.save or pickled and packed.


def result_201(index: int, seed: int, dataset: str, epochs: int) -> dict[str, Any]:
    names = {"cifar10-valid": ["x-valid", "ori-test"], "cifar10": ["ori-test"]}.get(dataset, ["x-valid", "x-test"])
    keys = [f"{name}@{i}" for name in names for i in range(epochs)]

    def accuracy(key: str) -> float:
        return (50 + index + seed / 1000 - ("test" in key)) * (int(key.split("@")[1]) + 1) / epochs

    return {
        "name": "infer.tiny",
        "net_state_dict": None,
        "train_acc1es": {i: numpy.float64(90 + index) for i in range(epochs)},
        "train_acc5es": None,
        "train_losses": OrderedDict((i, 0.5) for i in range(epochs)),
        "train_times": OrderedDict((i, 10.0 + index) for i in range(epochs)),
        "arch_config": {"channel": 16, "num_cells": 5, "class_num": 10},
        "params": 0.073306 + index / 1000,
        "flop": 7.78305,
        "seed": seed,
        "epochs": epochs,
        "latency": [0.01, 0.03],
        "eval_names": names,
        "eval_acc1es": {key: accuracy(key) for key in keys},
        "eval_times": dict.fromkeys(keys, 2.0),
        "eval_losses": dict.fromkeys(keys, 1.0),
    }


def arch_201(index: int, arch: str, epochs: int) -> dict[str, Any]:
    seeds = {"cifar10-valid": [777, 888], "cifar10": [777], "cifar100": [777]}
    return {
        "arch_index": index,
        "arch_str": arch,
        "all_results": {(d, s): result_201(index, s, d, epochs) for d, found in seeds.items() for s in found},
        "dataset_seed": seeds,
        "clear_net_done": True,
    }


ARCHS = sorted({nasbench201.arch_string(space("nasbench201").sample(seed)) for seed in range(8)})


def content_201(names: dict[str, int]) -> dict[str, Any]:
    return {
        "meta_archs": ARCHS,
        "total_archs": len(ARCHS),
        "evaluated_indexes": set(range(len(ARCHS))),
        "arch2infos": {
            i: {name: arch_201(i, arch, epochs) for name, epochs in names.items()} for i, arch in enumerate(ARCHS)
        },
    }


def save(content: object, path: Path) -> Path:
    path.write_bytes(bz2.compress(pickle.dumps(content, 4)))
    return path


@pytest.fixture(scope="module")
def files_201(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("201")
    torch.save(content_201({"less": 12, "full": 20}), folder / "new.pth")
    torch.save(content_201({"less": 12, "full": 20}), folder / "old.pth", _use_new_zipfile_serialization=False)
    nats = content_201({"12": 12, "200": 20})
    simple = folder / "simple"
    simple.mkdir()
    save({"meta_archs": ARCHS}, simple / "meta.pickle.pbz2")
    for i, info in nats["arch2infos"].items():
        save(info, simple / f"{i:06d}.pickle.pbz2")
    return {
        "new": (read_nasbench201, folder / "new.pth"),
        "old": (read_nasbench201, folder / "old.pth"),
        "whole": (read_nats_bench, save(nats, folder / "NATS-tss.pickle.pbz2")),
        "simple": (read_nats_bench, simple),
    }


@pytest.mark.parametrize("name", ["new", "old", "whole", "simple"])
def test_all_four_formats_have_the_same_trainings(files_201: dict[str, Any], name: str) -> None:
    read, path = files_201[name]
    table = read(path, dataset="cifar10-valid", epochs=12)
    assert sorted(table) == ARCHS
    first, second = table[ARCHS[3]]
    assert next(iter(first.metrics)) == "validation_accuracy"
    assert first.metrics == pytest.approx(
        {
            "validation_accuracy": 53.777,
            "test_accuracy": 52.777,
            "train_accuracy": 93.0,
            "parameters": 76_306,
            "flops": 7_783_050,
            "latency": 0.02,
        }
    )
    assert second.metrics["validation_accuracy"] == pytest.approx(53.888)
    assert first.seconds == 12 * 13.0 + 2.0
    assert (first.curve[5], first.clock[5]) == (pytest.approx(53.777 / 2), 6 * 13.0 + 2.0)
    assert len(read(path, epochs=200)[ARCHS[0]][0].curve) == 20


def test_all_of_cifar10_has_no_validation(files_201: dict[str, Any]) -> None:
    read, path = files_201["simple"]
    (run,) = read(path, dataset="cifar10")[ARCHS[0]]
    assert "validation_accuracy" not in run.metrics
    assert (run.metrics["test_accuracy"], run.curve, run.seconds) == (pytest.approx(49.777), {}, 120.0)
    assert read(path, dataset="cifar100")[ARCHS[0]][0].metrics["test_accuracy"] == pytest.approx(49.777)


@pytest.mark.slow
def test_nats_bench_is_searched_with_early_stopping(files_201: dict[str, Any], tmp_path: Path) -> None:
    read, path = files_201["simple"]
    table = read(path, epochs=12)
    evaluator = Tabular(table, key=nasbench201.arch_string)
    known = space("nasbench201").where(lambda sample: nasbench201.arch_string(sample) in table)
    rule = SuccessiveHalving(min_resource=1, max_resource=12)
    experiment = Experiment(
        known, evaluator, RegularizedEvolution(4, 2), name="tss", directory=tmp_path, early_stopping=rule
    )
    for seed in range(8):
        experiment.enqueue(space("nasbench201").sample(seed))
    experiment.run(max_trials=8)
    spent = [evaluator.simulated_seconds(trial) for trial in experiment.trials]
    whole = [evaluator.run(trial.sample, trial.seed).seconds for trial in experiment.trials]
    assert any(trial.state == "STOPPED" for trial in experiment.trials)
    assert 0 < sum(spent) < sum(whole)


def test_the_space_of_sizes_has_trainings_of_one_epoch(tmp_path: Path) -> None:
    content = {"meta_archs": ["8:16:24:32:64"], "arch2infos": {0: {"01": arch_201(0, "8:16:24:32:64", 1)}}}
    path = save(content, tmp_path / "NATS-sss.pickle.pbz2")
    evaluator = Tabular(read_nats_bench(path, epochs=1), key=nats_bench.size_string)
    assert evaluator.run(nats_bench.sample_of("8:16:24:32:64"), seed=0).seconds == 12.0


@pytest.mark.parametrize("name", ["new", "whole", "simple"])
def test_unknown_data_sets_and_lengths_are_refused_at_once(files_201: dict[str, Any], name: str) -> None:
    read, path = files_201[name]
    with pytest.raises(NasValueError, match=r"data sets \['cifar10', 'cifar10-valid', 'cifar100'\]; received 'svhn'"):
        read(path, dataset="svhn")
    with pytest.raises(NasValueError, match="12.*200"):
        read(path, epochs=90)


def test_other_contents_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NasValueError, match="no 'meta_archs' in it"):
        read_nats_bench(save([1, 2], tmp_path / "list.pbz2"))
    without_times = content_201({"12": 12})
    without_times["arch2infos"][0]["12"]["all_results"][("cifar10-valid", 777)]["train_times"] = None
    with pytest.raises(NasValueError, match="has its times"):
        read_nats_bench(save(without_times, tmp_path / "times.pbz2"))[ARCHS[0]]
    del without_times["arch2infos"][0]["12"]["all_results"][("cifar10-valid", 777)]["epochs"]
    with pytest.raises(NasValueError, match="KeyError.*epochs"):
        read_nats_bench(save(without_times, tmp_path / "epochs.pbz2"))[ARCHS[0]]


def all_of_it(read: Any, path: Path) -> None:
    """Reads a table whole."""
    table = read(path)
    for arch in table:
        Tabular(table, key=lambda sample: sample["arch"]).run({"arch": arch}, seed=0)


ODD = [None, -1, 0, 10**9, float("inf"), float("nan"), "text", [], {}, [[1]], {"a": 1}, (1, 2), b"bytes", True]


def mutated_values(content: Any, rng: random.Random) -> Any:
    """The same with one value somewhere that is something else."""
    if isinstance(content, dict) and content and rng.random() < 0.9:
        key = rng.choice(list(content))
        kind = rng.random()
        if kind < 0.1:
            return {k: v for k, v in content.items() if k != key}
        if kind < 0.15:
            return {(rng.choice([None, -1, "text", (1, 2)]) if k == key else k): v for k, v in content.items()}
        return {k: mutated_values(v, rng) if k == key else v for k, v in content.items()}
    if isinstance(content, list) and content and rng.random() < 0.9:
        place = rng.randrange(len(content))
        return [*content[:place], mutated_values(content[place], rng), *content[place + 1 :]]
    return rng.choice([*ODD, numpy.arange(3.0)])


def check_values(count: int, folder: Path) -> None:
    small = content_201({"12": 12})
    small["meta_archs"], small["arch2infos"] = ARCHS[:1], {0: small["arch2infos"][0]}
    rng = random.Random(0)
    for _ in range(count):
        path = save(mutated_values(small, rng), folder / "odd.pickle.pbz2")
        said = "odd.pickle.pbz2"
        try:
            all_of_it(read_nats_bench, path)
        except NasValueError as error:
            said = str(error)
        assert "odd.pickle.pbz2" in said


def test_whatever_a_benchmark_has_in_the_place_of_a_value_is_refused_by_the_name_of_its_file(tmp_path: Path) -> None:
    check_values(150, tmp_path)


@pytest.mark.slow
@pytest.mark.fuzz
def test_ten_thousand_odd_values_in_a_benchmark(tmp_path: Path) -> None:
    check_values(10_000, tmp_path)


@pytest.mark.slow
def test_damaged_benchmarks(files_201: dict[str, Any], file_101: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mutants"
    folder.mkdir()
    records = file_101.read_bytes()
    survives_mutants(partial(all_of_it, read_nasbench101), [records], count=500, folder=folder)
    for name in ("new", "whole"):
        read, path = files_201[name]
        survives_mutants(partial(all_of_it, read), [path.read_bytes()], count=500, folder=folder)


def test_a_damaged_training_of_nasbench101_names_the_file(tmp_path: Path) -> None:
    for metrics in (b"", b"\x0a\x02ab", b"\xff" * 12, b"\x10\x01"):
        path = tmp_path / "some.tfrecord"
        path.write_bytes(tf_record(json.dumps(["hash", 108, "", "", base64.b64encode(metrics).decode()]).encode()))
        with pytest.raises(NasValueError, match=r"some\.tfrecord.*'hash'"):
            read_nasbench101(path)["hash"]
    for record in (b"[" * 5000, b'[["a"],108,"","",""]', b'["a",1.5,"","",""]', b"[1]", b"\xff", b"9" * 5000):
        path.write_bytes(tf_record(record))
        with pytest.raises(NasValueError, match="not a file of NAS-Bench-101"):
            read_nasbench101(path)
