"""Locks that are files: held by one, known by their inode, and looked at without being touched."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import filelock
import pytest

from nas import ExperimentError
from nas.records.disk import Running, queue_of
from nas.records.disk.locks import Busy, held, is_held


def test_one_at_a_time_holds_a_lock_and_others_see_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_held(path)
    assert not path.exists(), "looking makes nothing"
    with held(path):
        assert is_held(path)
        with pytest.raises(Busy), held(path, patience=0):
            pass
        with pytest.raises(filelock.Timeout):
            filelock.FileLock(str(path)).acquire(timeout=0)
    assert not is_held(path)
    with filelock.FileLock(str(path)):
        assert is_held(path)


def test_who_waits_for_a_lock_that_is_replaced_takes_the_one_that_is_there(tmp_path: Path) -> None:
    path, seen = tmp_path / "lock", []

    def wait() -> None:
        with held(path) as number:
            seen.append(os.path.samestat(os.fstat(number), os.stat(path)))

    with held(path):
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(0.1)
        assert not seen
        path.unlink()
        path.touch()
    thread.join(10)
    assert seen == [True]


def test_a_link_is_no_lock(tmp_path: Path) -> None:
    (victim := tmp_path / "victim").write_text("mine")
    (tmp_path / "running.lock").symlink_to(victim)
    with pytest.raises(ExperimentError, match="a link"), Running(tmp_path).taken():
        pass
    assert not Running(tmp_path).is_taken()
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("how", ["deleted", "replaced", "folder"])
def test_who_holds_a_lock_that_is_gone_is_told(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "e"
    folder.mkdir()
    running = Running(folder)
    running.make_sure()
    with running.taken():
        running.make_sure()
        (folder / "running.lock").unlink()
        if how == "replaced":
            (folder / "running.lock").touch()
        if how == "folder":
            folder.rmdir()
        what = "the folder of an experiment" if how == "folder" else "the lock of a search"
        with pytest.raises(ExperimentError, match=f"{what} was deleted or replaced while the search ran"):
            running.make_sure()
    running.make_sure()


def test_two_folders_with_one_database_share_a_lock_by_the_name_of_the_experiment(tmp_path: Path) -> None:
    for place in ("a", "b"):
        for name in ("e", "other"):
            (tmp_path / place / name).mkdir(parents=True)
    database = tmp_path / "all.db"
    with Running(tmp_path / "a" / "e", database).taken():
        assert Running(tmp_path / "b" / "e", database).is_taken()
        same = Running(tmp_path / "b" / "e", database).taken()
        with pytest.raises(ExperimentError, match="another process runs the experiment 'e'"), same:
            pass
        with Running(tmp_path / "b" / "other", database).taken(), Running(tmp_path / "b" / "e").taken():
            pass


def test_a_queue_of_no_folder_is_told_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="not there any more"), queue_of(tmp_path / "gone"):
        pass
    assert not (tmp_path / "gone").exists()
