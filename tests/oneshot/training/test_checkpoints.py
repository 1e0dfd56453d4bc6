"""Checkpoints: whole or not at all, the one before kept, nothing executed."""

import pickle
import random
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from nas import ExperimentError
from nas.oneshot import RandomStream
from nas.oneshot.training.checkpoints import BEFORE, LAST, plain, read_checkpoint, write_checkpoint
from nas.oneshot.training.random_streams import all_states, restore_states
from nas.testing import differences
from tests.conftest import files_up_to


def state(number: int) -> dict[str, Any]:
    return {"version": 2, "number": number, "tensor": torch.arange(100.0) + number}


def test_the_last_whole_one_counts(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path) is None
    for number in range(3):
        write_checkpoint(state(number), tmp_path)
    assert differences(read_checkpoint(tmp_path), state(2)) == []
    whole = (tmp_path / LAST).read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        (tmp_path / LAST).write_bytes(whole[:length])
        assert differences(read_checkpoint(tmp_path), state(1)) == [], length
    (tmp_path / LAST).unlink()  # killed between the two renames
    assert differences(read_checkpoint(tmp_path), state(1)) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEFORE]


def test_a_torn_one_under_way_harms_nothing(tmp_path: Path) -> None:
    write_checkpoint(state(0), tmp_path)
    (tmp_path / "fresh.tmp").write_bytes(b"half")
    assert differences(read_checkpoint(tmp_path), state(0)) == []
    write_checkpoint(state(1), tmp_path)
    assert differences(read_checkpoint(tmp_path), state(1)) == []


def test_none_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / LAST).write_bytes(b"")
    torch.save({"version": 99}, tmp_path / BEFORE)
    with pytest.raises(ExperimentError, match=r"last.ckpt: .*before.ckpt: of another version"):
        read_checkpoint(tmp_path)


class Bad:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("executed"),))


def test_nothing_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"version": 2, "bad": Bad()}, tmp_path / LAST)
    with pytest.raises(ExperimentError):
        read_checkpoint(tmp_path)
    (tmp_path / LAST).write_bytes(pickle.dumps(Bad()))
    with pytest.raises(ExperimentError):
        read_checkpoint(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_what_is_plain() -> None:
    given = {"a": [1, (2.0, None)], "function": len, "tensor": torch.ones(1), "nested": {"x": {1: object()}}}
    assert plain(given).keys() == {"a", "tensor"}


def draw() -> list[float]:
    return [random.random(), random.gauss(0, 1), numpy.random.rand(), numpy.random.randn(), torch.rand(()).item()]


def test_random_states_travel_in_checkpoints(tmp_path: Path) -> None:
    before = all_states()
    try:
        draw()
        write_checkpoint({"version": 2, "random": all_states()}, tmp_path)
        expected = [draw() for _ in range(3)]
        found = read_checkpoint(tmp_path)
        assert found is not None
        restore_states(found["random"])
        assert [draw() for _ in range(3)] == expected
    finally:
        restore_states(before)


def test_streams_keep_to_themselves() -> None:
    def play(disturb: bool) -> list[list[float]]:
        stream, found = RandomStream(7), []
        for _ in range(3):
            if disturb:
                draw()
            with stream.active():
                found.append(draw())
        return found

    before = all_states()
    assert play(True) == play(False)
    restore_states(before)
    play(False)
    assert differences(all_states(), before) == []


def test_where_the_disk_is_full_the_one_before_stays(tmp_path: Path) -> None:
    for number in range(2):
        write_checkpoint(state(number), tmp_path)
    large = state(2) | {"large": torch.zeros(100_000)}
    for size in (1, 1000, 100_000, 399_000):
        with files_up_to(size), pytest.raises(ExperimentError, match=r"no space left.*last\.ckpt"):
            write_checkpoint(large, tmp_path)
        assert differences(read_checkpoint(tmp_path), state(1)) == []
        assert sorted(path.name for path in tmp_path.iterdir()) == [BEFORE, LAST]
    write_checkpoint(large, tmp_path)
    assert differences(read_checkpoint(tmp_path), large) == []


def test_a_link_is_neither_read_nor_written_through(tmp_path: Path) -> None:
    write_checkpoint(state(0), tmp_path / "theirs")
    victim = tmp_path / "theirs" / LAST
    before = victim.read_bytes()
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / LAST).symlink_to(victim)
    with pytest.raises(ExperimentError, match=r"last\.ckpt"):
        read_checkpoint(tmp_path / "ours")
    write_checkpoint(state(1), tmp_path / "ours")
    assert differences(read_checkpoint(tmp_path / "ours"), state(1)) == []
    assert victim.read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == [LAST]
