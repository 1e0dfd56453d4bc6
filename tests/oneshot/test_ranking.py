"""What was judged is not judged again, also after a kill; how far a ranking is, is said now and then."""

import json
import math
import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from nas import Experiment, ExperimentError, NasError, Sample, ValueChoice
from nas.evaluators import Regression
from nas.oneshot import ENAS, RandomOneShot
from nas.oneshot.ranking import Judged, Passes, Ranking, RankingProgress, TimeUp
from nas.strategies import Random
from nas.testing import survives_mutants
from tests.conftest import files_up_to
from tests.oneshot.conftest import TapeLane, TapeRecorder


def test_a_ranking_is_kept_for_its_supernet(tmp_path: Path) -> None:
    path = tmp_path / "ranking.json"
    assert Ranking(path, 3).samples is None
    samples: list[Sample] = [{"a": 1, "b": [0, 2]}, {"a": None}]
    Ranking(path, 3).write(samples)
    assert Ranking(path, 3).samples == samples
    assert Ranking(path, 4).samples is None, "of another length"
    assert [each.name for each in tmp_path.iterdir()] == ["ranking.json"]


def test_more_candidates_are_ranked_anew(tmp_path: Path) -> None:
    path = tmp_path / "ranking.json"
    Ranking(path, 3, 2).write([{"a": 1}, {"a": 2}])
    assert Ranking(path, 3, 1).samples == Ranking(path, 3, 2).samples == [{"a": 1}, {"a": 2}]
    assert Ranking(path, 3, 5).samples is None
    Ranking(path, 3, 5).write([{"a": 1}, {"a": 2}])  # the space has no more
    assert Ranking(path, 3, 5).samples == [{"a": 1}, {"a": 2}]


PASSES = Passes(lambda: 9, lambda: 4)


def test_nothing_is_judged_twice(tmp_path: Path) -> None:
    path, asked = tmp_path / "judged.jsonl", list[Sample]()

    def judge(sample: Sample, batches: int | None) -> Callable[[], float]:
        asked.append(sample)
        return lambda: 0.1 * sum(int(str(answer)) for answer in sample.values())

    judged = Judged(path, 2, judge, passes=PASSES)
    values = [judged({"a": n, "b": 3}) for n in (1, 2, 1)]
    assert values[0] == values[2]
    assert len(asked) == 2
    with path.open("a") as file:
        file.write('{"steps": 2, "sam')  # torn by a kill
    again = Judged(path, 2, judge, passes=PASSES)
    assert [again({"b": 3, "a": n}) for n in (1, 2)] == values[:2], "to the last bit, in any order of labels"
    assert len(asked) == 2
    again({"a": 5, "b": 3})
    assert Judged(path, 2, judge, passes=PASSES)({"a": 5, "b": 3}) == again({"a": 5, "b": 3})
    assert len(asked) == 3
    Judged(path, 9, judge, passes=PASSES)({"a": 1, "b": 3})
    assert len(asked) == 4, "another supernet"


def test_a_judgement_is_that_of_its_batches(tmp_path: Path) -> None:
    asked = list[int | None]()

    def judge(sample: Sample, batches: int | None) -> Callable[[], float]:
        asked.append(batches)
        return lambda: math.nan if sample["a"] == 0 else 1.0 / (batches or 9)

    judged = Judged(tmp_path / "judged.jsonl", 2, judge, passes=PASSES)
    values = [judged({"a": 1}, batches) for batches in (None, 1, 3, 9, 10, 1, None)]
    assert values == [1 / 9, 1, 1 / 3, 1 / 9, 1 / 9, 1, 1 / 9]
    assert asked == [None, 1, 3], "9 of 9 batches are all of them"
    bounded = Judged(tmp_path / "judged.jsonl", 2, judge, passes=Passes(lambda: 3, lambda: 4), most=3)
    assert [bounded({"a": 1}), bounded({"a": 1}, 3), bounded({"a": 1}, 1)] == [1 / 3, 1 / 3, 1]
    assert len(asked) == 3, "what three batches say is known"
    assert judged({"a": 0}) == -math.inf, "what diverged is the worst"
    assert Judged(tmp_path / "judged.jsonl", 2, judge, passes=PASSES)({"a": 0}) == -math.inf


def test_passes_are_counted_once() -> None:
    """To count them builds an architecture, which took a sixth of a judgement beside its forward passes."""
    counted = []
    passes = Passes(lambda: counted.append("validation") or 9, lambda: counted.append("training") or 4)  # type: ignore[func-returns-value]
    assert [passes.recalibration(batches) for batches in (None, 9, 3)] == [4, 4, 2]
    assert passes.total() == 13
    assert sorted(counted) == ["training", "validation"]


def test_time_is_up_between_two_judgements(tmp_path: Path) -> None:
    """One is made in any case, so that many short runs come to an end."""
    found = list[float]()
    for expected in (1, 2, 3, 3):
        judged = Judged(
            tmp_path / "judged.jsonl",
            2,
            lambda sample, batches: lambda: 1.0,
            passes=PASSES,
            deadline=lambda: time.monotonic() - 1,
        )
        found = []
        with nullcontext() if expected == 3 else pytest.raises(TimeUp):
            found.extend(judged({"a": n}) for n in range(3))
        assert len(found) == expected


def test_some_are_judged_at_a_time(tmp_path: Path) -> None:
    """As many as are to be; whatever ends that, those that were begun are ended, and remembered in their order."""
    events = list[str]()

    def judge(sample: Sample, batches: int | None) -> Callable[[], float]:
        if sample["a"] == 6:
            raise KeyboardInterrupt
        events.append(f"begin {sample['a']}")

        def worth() -> float:
            events.append(f"end {sample['a']}")
            return float(str(sample["a"]))

        return worth

    judged = Judged(tmp_path / "judged.jsonl", 2, judge, passes=PASSES, at_once=lambda: 3)
    assert list(judged.each([{"a": n} for n in (1, 2, 1, 3, 4)])) == [1, 2, 1, 3, 4]
    assert events == ["begin 1", "begin 2", "end 1", "begin 3", "end 2", "begin 4", "end 3", "end 4"]
    events.clear()
    with pytest.raises(KeyboardInterrupt):
        list(judged.each([{"a": n} for n in (1, 5, 6)]))
    assert events == ["begin 5", "end 5"]
    rows = [json.loads(line) for line in (tmp_path / "judged.jsonl").read_text().splitlines()]
    assert [row["value"] for row in rows] == [1, 2, 3, 4, 5]


def test_passes_are_counted() -> None:
    assert [PASSES.total(batches) for batches in (None, 9, 1, 3, 100)] == [13, 13, 1 + 1, 3 + 2, 13]
    assert PASSES.recalibration(None) == 4


def test_progress_is_said_ever_less_often() -> None:
    lines, seconds = list[str](), [0.0]
    progress = RankingProgress(lines.append, clock=lambda: seconds[0])
    progress.begin(200, 200.0)
    for number in range(200):
        seconds[0] += 2
        progress.judged(str(number), number / 200, 1.0, new=True)
    progress.end()
    assert lines[0] == "ranking: 3 of 200 paths, best 0.01, 7 min left"
    assert lines[-1] == "ranking: 200 of 200 paths, best 0.995, in 7 min"
    assert 6 < len(lines) < 20


def test_what_was_known_takes_no_time() -> None:
    lines, seconds = list[str](), [0.0]
    progress = RankingProgress(lines.append, sign=-1, clock=lambda: seconds[0])
    progress.begin(100, 100.0)
    for number in range(50):
        progress.judged(str(number), -0.25, 1.0, new=False)
    assert lines == []
    for number in range(50, 60):
        seconds[0] += 1
        progress.judged(str(number), -0.5, 1.0, new=True)
    assert lines == ["ranking: 55 of 100 paths, best 0.25, 45 s left"]
    known = RankingProgress(lines.append)
    known.judged("a", 1.0, 1.0, new=False)
    known.end()
    assert len(lines) == 1


def test_the_best_is_that_of_the_most_batches() -> None:
    lines, seconds = list[str](), [0.0]
    progress = RankingProgress(lines.append, clock=lambda: seconds[0])
    for value, share in ((0.9, 0.1), (0.8, 0.1), (0.7, 1.0)):
        seconds[0] += 60
        progress.judged(str(value), value, share, new=True)
    assert lines == ["ranking: 1 path, best 0.9", "ranking: 2 paths, best 0.9", "ranking: 3 paths, best 0.7"]


def network() -> nn.Module:
    width = ValueChoice([2, 4, 8, 16], label="width")
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, ValueChoice([1], label="out")))


def evaluator() -> Regression:
    inputs = torch.randn(96, 4, generator=torch.Generator().manual_seed(0))
    pairs = TensorDataset(inputs, inputs[:, :1])
    return Regression(pairs, pairs, batch_size=8, accelerator="cpu", logger=False)


STRATEGIES: dict[str, Any] = {
    "evolution": RandomOneShot,
    "search": lambda **settings: RandomOneShot(search=Random(), **settings),
    "halving": lambda **settings: RandomOneShot(judging="halving", **settings),
    "enas": lambda **settings: ENAS(controller_steps=1, **settings),
    "enas halving": lambda **settings: ENAS(controller_steps=1, judging="halving", **settings),
}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many batches each validation had."""
    kind, found = type(evaluator().module(nn.Linear(1, 1))), list[int]()
    step: Any = kind.validation_step

    def count(module: Any, batch: Any, *rest: Any) -> Any:
        number = rest[0] if rest else 0
        if number == 0:
            found.append(0)
        found[-1] += 1
        return step(module, batch, *rest)

    monkeypatch.setattr(kind, "validation_step", count)
    return found


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_ranking_is_bounded_and_told(
    name: str, tmp_path: Path, measured: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """By `judge_batches`; the trials are measured on all batches all the same."""
    strategy = STRATEGIES[name](epochs=1, candidates=2, judge_batches=5)
    searched = Experiment(network, evaluator(), strategy, name="search", directory=tmp_path)
    searched.run(progress="plain")
    assert len(searched.trials) == 2
    assert {12, 5} <= set(measured)
    judgements = (tmp_path / "search/supernet/judged.jsonl").read_text().splitlines()
    assert max(measured[-len(judgements) - 2 : -2]) == 5
    assert measured[-2:] == [12, 12]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ranking")]
    assert line.startswith(("ranking: 4 of 4 paths, best mse 0", "ranking: 3 of 3 paths, best mse 0"))
    assert re.search(r", in \d+ s$", line)
    assert all(trial.value is not None and trial.value > 0 for trial in searched.trials)


@pytest.mark.parametrize("name", STRATEGIES)
def test_recorded_passes_rank_alike(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On tapes that stand for CUDA graphs: the same values and trials as without them."""
    recorder, found = TapeRecorder(), []
    for way in ("plain", "recorded"):
        if way == "recorded":
            monkeypatch.setattr("nas.oneshot.training.judging.recorder_of", lambda device: recorder)
        strategy = STRATEGIES[name](epochs=1, candidates=2)
        searched = Experiment(network, evaluator(), strategy, name=way, directory=tmp_path)
        searched.run(progress="silent")
        rows = [json.loads(line) for line in (searched.path / "supernet/judged.jsonl").read_text().splitlines()]
        judged = {(row["sample"], row.get("batches")): row["value"] for row in rows}
        found.append((judged, [trial.sample for trial in searched.trials], searched.best_trial.metrics))
    (judged, samples, metrics), expected = found[1], found[0]
    assert judged == pytest.approx(expected[0], rel=1e-4)
    assert samples == expected[1]
    assert metrics == pytest.approx(expected[2], rel=1e-4)
    assert recorder.replays > 0


@pytest.mark.parametrize("name", STRATEGIES)
def test_paths_that_are_judged_side_by_side_rank_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On lanes that stand for streams of a device: the same rows to the last bit, in the same order."""
    events, found = list[str](), []
    monkeypatch.setattr("nas.oneshot.training.judging.recorder_of", lambda device: TapeRecorder())
    for number in (0, 2):
        lanes = [TapeLane(str(lane), events) for lane in range(number)]
        monkeypatch.setattr("nas.oneshot.training.judging.lanes_of", lambda device, lanes=lanes: lanes)
        strategy = STRATEGIES[name](epochs=1, candidates=2)
        searched = Experiment(network, evaluator(), strategy, name=f"{number} lanes", directory=tmp_path)
        searched.run(progress="silent")
        rows = (searched.path / "supernet/judged.jsonl").read_text()
        found.append((rows, [(trial.sample, trial.metrics) for trial in searched.trials]))
        if "halving" not in name:  # whose many judgements are on too few batches
            assert bool(events) == (number > 0)
    assert found[1] == found[0]


def test_a_ranking_ends_in_time_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched = Experiment(network, evaluator(), RandomOneShot(epochs=1, candidates=2), name="short", directory=tmp_path)

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("nas.oneshot.ranking.Judged.each", stop)
        with pytest.raises(KeyboardInterrupt):
            searched.run(progress="silent")
    judged, endings = searched.path / "supernet/judged.jsonl", []
    for number in range(1, 4):
        searched.run(timeout=1e-6, progress="silent")
        endings.append(searched.ending)
        assert len(judged.read_text().splitlines()) == number
        assert searched.trials == []
    assert set(endings) == {"the time is up, before the supernet is trained and ranked"}
    searched.run(progress="silent")
    whole = Experiment(network, evaluator(), RandomOneShot(epochs=1, candidates=2), name="whole", directory=tmp_path)
    whole.run(progress="silent")
    assert [(trial.sample, trial.metrics) for trial in searched.trials] == [
        (trial.sample, trial.metrics) for trial in whole.trials
    ]


def test_judge_batches_is_a_number(tmp_path: Path) -> None:
    for make in (RandomOneShot, ENAS):
        with pytest.raises(NasError, match="judge_batches must be an int from 1 on; received 0"):
            make(judge_batches=0)


DAMAGED_RANKINGS = [
    b"",
    b"[1]",
    b'{"steps": 3',
    b"[" * 5000,
    b"\xff",
    b'{"steps": 3}',
    b'{"steps": 3, "samples": 5}',
    b'{"steps": 3, "samples": []}',
    b'{"steps": 3, "samples": ["{"]}',
    b'{"steps": 3, "samples": [5]}',
    b'{"steps": 3, "samples": [{"a": 1}]}',
    b'{"steps": "3", "samples": []}',
    b'{"steps": 3, "wanted": "a", "samples": ["{}"]}',
]


@pytest.mark.parametrize("content", DAMAGED_RANKINGS)
def test_a_damaged_ranking_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ranking.json"
    path.write_bytes(content)
    with pytest.raises(NasError, match=r"line 1.*ranking\.json|ranking\.json.*line 1"):
        Ranking(path, 3)
    assert path.read_bytes() == content


DAMAGED_JUDGEMENTS = [
    b"nothing",
    b"[" * 5000,
    b"5",
    b'{"steps": 2}',
    b'{"steps": 2, "sample": 5, "value": 0.5}',
    b'{"steps": 2, "sample": "{}", "value": "0.5"}',
    b'{"steps": 2, "sample": "{}", "value": NaN}',
    b'{"steps": 2, "sample": "{}", "value": ' + b"9" * 400 + b"}",
    b'{"steps": 2, "sample": "{}", "value": 0.5, "batches": "a"}',
    b'{"steps": 2, "sample": ["{}"], "value": 0.5}',
    b"",
]


@pytest.mark.parametrize("line", DAMAGED_JUDGEMENTS)
def test_a_damaged_judgement_is_told_and_not_removed(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "judged.jsonl"
    good = b'{"steps": 2, "sample": "{}", "value": -Infinity}\n'
    path.write_bytes(good + line + b"\n" + good)
    with pytest.raises(NasError, match=r"line 2.*judged\.jsonl"):
        Judged(path, 2, lambda sample, batches: 1.0, passes=PASSES)
    assert path.read_bytes() == good + line + b"\n" + good


def test_judgements_are_neither_read_nor_written_through_a_link(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.txt"
    theirs.write_text("one line without an end")
    for name, read in (
        ("judged.jsonl", lambda path: Judged(path, 2, lambda sample, batches: 1.0, passes=PASSES)),
        ("ranking.json", lambda path: Ranking(path, 2)),
    ):
        (tmp_path / name).symlink_to(theirs)
        with pytest.raises(NasError, match="link"):
            read(tmp_path / name)
    assert theirs.read_text() == "one line without an end"


def read_judgements(path: Path) -> None:
    Judged(path, 2, lambda sample, batches: 1.0, passes=PASSES)


JUDGEMENTS = [
    b'{"steps": 2, "sample": "{\\"a\\": 1}", "value": 0.5}\n{"steps": 2, "sample": "{}", "value": 1, "batches": 3}\n'
]
RANKINGS = [b'{"steps": 2, "wanted": 3, "samples": ["{\\"a\\": 1}", "{\\"a\\": [1, 2]}"]}']


def test_damaged_rankings_and_judgements(tmp_path: Path) -> None:
    survives_mutants(lambda path: Ranking(path, 2), RANKINGS, count=500, folder=tmp_path)
    survives_mutants(read_judgements, JUDGEMENTS, count=500, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.fuzz
def test_a_hundred_thousand_damaged_rankings_and_judgements(tmp_path: Path) -> None:
    survives_mutants(lambda path: Ranking(path, 2), RANKINGS, count=50_000, folder=tmp_path)
    survives_mutants(read_judgements, JUDGEMENTS, count=50_000, folder=tmp_path)


def test_where_the_disk_is_full_nothing_that_was_judged_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "judged.jsonl"
    judged = Judged(path, 2, lambda sample, batches: lambda: 1.0, passes=PASSES)
    judged({"a": 0})
    with files_up_to(path.stat().st_size + 10), pytest.raises(ExperimentError, match=r"no space left.*judged\.jsonl"):
        judged({"a": 1})
    again = Judged(path, 2, lambda sample, batches: lambda: 2.0, passes=PASSES)
    assert [again({"a": n}) for n in (0, 1, 2)] == [1.0, 2.0, 2.0]
    assert len(path.read_text().splitlines()) == 3
    ranking = Ranking(tmp_path / "ranking.json", 2)
    ranking.write([{"a": 0}])
    with files_up_to(10), pytest.raises(ExperimentError, match=r"no space left.*ranking\.json"):
        ranking.write([{"a": 1}])
    assert Ranking(tmp_path / "ranking.json", 2).samples == [{"a": 0}]


@pytest.mark.parametrize("name", ["judged.jsonl", "ranking.json"])
def test_neither_is_read_or_written_through_a_link(name: str, tmp_path: Path) -> None:
    (victim := tmp_path / "victim").write_text("{}")
    (tmp_path / name).symlink_to(victim)
    make: dict[str, Callable[[Path], object]] = {
        "ranking.json": lambda path: Ranking(path, 2),
        "judged.jsonl": lambda path: Judged(path, 2, lambda sample, batches: lambda: 1.0, passes=PASSES),
    }
    with pytest.raises(ExperimentError, match="a link"):
        make[name](tmp_path / name)
    assert victim.read_text() == "{}"
