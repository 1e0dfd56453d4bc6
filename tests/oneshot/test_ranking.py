"""What was judged is not judged again, also after a kill."""

from pathlib import Path

from nas import Sample
from nas.oneshot.ranking import Judged, Ranking


def test_a_ranking_is_kept_for_its_supernet(tmp_path: Path) -> None:
    path = tmp_path / "ranking.json"
    assert Ranking(path, 3).samples is None
    samples: list[Sample] = [{"a": 1, "b": [0, 2]}, {"a": None}]
    Ranking(path, 3).write(samples)
    assert Ranking(path, 3).samples == samples
    assert Ranking(path, 4).samples is None, "of another length"
    assert [each.name for each in tmp_path.iterdir()] == ["ranking.json"]


def test_nothing_is_judged_twice(tmp_path: Path) -> None:
    path, asked = tmp_path / "judged.jsonl", list[Sample]()

    def judge(sample: Sample) -> float:
        asked.append(sample)
        return 0.1 * sum(int(str(answer)) for answer in sample.values())

    judged = Judged(path, 2, judge)
    values = [judged({"a": n, "b": 3}) for n in (1, 2, 1)]
    assert values[0] == values[2]
    assert len(asked) == 2
    with path.open("a") as file:
        file.write('{"epochs": 2, "sam')  # torn by a kill
    again = Judged(path, 2, judge)
    assert [again({"b": 3, "a": n}) for n in (1, 2)] == values[:2], "to the last bit, in any order of labels"
    assert len(asked) == 2
    again({"a": 5, "b": 3})
    assert Judged(path, 2, judge)({"a": 5, "b": 3}) == again({"a": 5, "b": 3})
    assert len(asked) == 3
    Judged(path, 9, judge)({"a": 1, "b": 3})
    assert len(asked) == 4, "another supernet"
