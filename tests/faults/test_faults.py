"""What strikes a search: nothing that was found is lost or changed, and what cannot go on says so.

A few cases run in the ordinary tests; all of them by `pytest -m slow tests/faults`, which prints how many were tried
and how many lost something.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Reference, Tallies, Target

FEW_OR_MANY = [pytest.param(False, id="few"), pytest.param(True, id="many", marks=pytest.mark.slow)]
MIB = 1 << 20
MEMORY = 700 * MIB
"""More than the program takes with all that it has imported."""


def chosen(things: list[Any], number: int | None, seed: int) -> list[Any]:
    """Some of them, always the same; all where None."""
    return things if number is None or len(things) <= number else random.Random(seed).sample(things, number)


def goes_on(target: Target, reference: Reference, folder: Path) -> str:
    """What is lost once the search has gone on."""
    return reference.differences(target.play(folder))


@pytest.mark.parametrize("many", FEW_OR_MANY)
def test_killed(many: bool, tally: Tallies, target: Target, reference: Reference) -> None:
    kind, rng = tally("killed by SIGKILL"), random.Random(1)
    for number in range(200 if many else 3):
        folder = target.folder()
        after = rng.uniform(0.0, 0.6)
        answer = target.end(target.begin(folder, resume="auto", slow=0.02), kill_after=after)
        problem = "" if answer.get("killed") else reference.differences(answer)
        kind.case(f"{number}, after {after:.3f} s", problem, goes_on(target, reference, folder))


@pytest.mark.parametrize("many", FEW_OR_MANY)
def test_killed_again_and_again(many: bool, tally: Tallies, target: Target, reference: Reference) -> None:
    kind, rng = tally("killed ten times in a row"), random.Random(2)
    for number in range(20 if many else 1):
        folder = target.folder()
        for _ in range(10 if many else 3):
            target.end(target.begin(folder, resume="auto", slow=0.02), kill_after=rng.uniform(0.05, 0.3))
        kind.case(number, goes_on(target, reference, folder))


@pytest.mark.parametrize("many", FEW_OR_MANY)
def test_a_truncated_journal(many: bool, tally: Tallies, target: Target, reference: Reference) -> None:
    kind = tally("journal truncated")
    size = (reference.folder / "struck" / "journal.log").stat().st_size
    for length in chosen(list(range(0, size, 37)), 300 if many else 3, seed=3):
        folder = reference.copy(target)
        os.truncate(folder / "struck" / "journal.log", length)
        kind.case(f"at byte {length} of {size}", goes_on(target, reference, folder))


@pytest.mark.parametrize("many", FEW_OR_MANY)
def test_flipped_bits(many: bool, tally: Tallies, target: Target, reference: Reference) -> None:
    kind, rng = tally("a bit of the journal flipped"), random.Random(4)
    content = (reference.folder / "struck" / "journal.log").read_bytes()
    for _ in range(300 if many else 5):
        place, bit = rng.randrange(len(content)), rng.randrange(8)
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        folder = reference.copy(target)
        (folder / "struck" / "journal.log").write_bytes(damaged)
        problem = reference.differences(target.play(folder, load=True))
        kind.case(f"bit {bit} of byte {place}", problem)


@pytest.mark.parametrize("many", FEW_OR_MANY)
def test_no_room_in_a_file(many: bool, tally: Tallies, target: Target, reference: Reference) -> None:
    kind = tally("no room in the middle of a write")
    size = (reference.folder / "struck" / "journal.log").stat().st_size
    for limit in chosen(list(range(1, size, 61)), 120 if many else 2, seed=5):
        folder = target.folder()
        answer = target.play(folder, resume=False, file_size=limit)
        silent = "" if "error" in answer else "it did not say that there is no room"
        kind.case(f"{limit} bytes", silent, reference.differences(answer), goes_on(target, reference, folder))


@pytest.mark.parametrize("many", FEW_OR_MANY)
def test_no_room_for_a_file(many: bool, tally: Tallies, target: Target, reference: Reference) -> None:
    kind = tally("no room for a new file, from each that is opened on")
    whole = target.play(target.folder(), resume=False, refuse=-1)["openings"]
    for number in chosen(list(range(whole)), None if many else 2, seed=6):
        folder = target.folder()
        answer = target.play(folder, resume="auto", refuse=number)
        # What a trial prints is not worth its failure, so that may be missing without a word.
        kind.case(f"opening {number}", reference.differences(answer), goes_on(target, reference, folder))


@pytest.fixture(scope="module")
def supernet(target: Target) -> Reference:
    """A whole search by a supernet."""
    folder = target.folder()
    answer = target.play(folder, resume=False, one_shot=True)
    assert "error" not in answer, answer["traceback"]
    return Reference(folder, answer["trials"], answer["trials"])


@pytest.mark.slow
def test_no_room_for_a_file_of_a_supernet(tally: Tallies, target: Target, supernet: Reference) -> None:
    kind = tally("no room for a new file of a supernet")
    whole = target.play(target.folder(), resume=False, one_shot=True, refuse=-1)["openings"]
    for number in chosen(list(range(whole)), 8, seed=12):
        folder = target.folder()
        answer = target.play(folder, resume="auto", one_shot=True, refuse=number)
        again = supernet.differences(target.play(folder, one_shot=True))
        kind.case(f"opening {number}", supernet.differences(answer), again)


@pytest.mark.slow
def test_no_room_in_a_file_of_a_supernet(tally: Tallies, target: Target, supernet: Reference) -> None:
    kind = tally("no room in the middle of a write of a supernet's")
    place = supernet.folder / "struck"
    sizes = {path.stat().st_size for path in place.rglob("*") if path.is_file()}
    limits = sorted({max(1, int(size * share)) for size in sizes for share in (0.1, 0.5, 0.99)})
    for limit in chosen(limits, 6, seed=13):
        folder = target.folder()
        answer = target.play(folder, resume="auto", one_shot=True, file_size=limit)
        again = supernet.differences(target.play(folder, one_shot=True))
        kind.case(f"{limit} bytes", supernet.differences(answer), again)


DELETED = [".", "journal.log", "journal.log.lock", "running.lock", "queue.lock", "trials", "trials/0", "trials/3"]


@pytest.mark.parametrize("many", FEW_OR_MANY)
def test_deleted_while_it_runs(many: bool, tally: Tallies, target: Target, reference: Reference) -> None:
    kind = tally("a folder, a journal or a lock deleted while it runs")
    for name in chosen(DELETED, None if many else 2, seed=7):
        folder = target.folder()
        answer = target.play(folder, resume=False, delete=name)
        kind.case(name, reference.differences(answer), goes_on(target, reference, folder))


def _written(target: Target, folder: Path) -> list[str]:
    """All paths that going on with a search opens for writing, makes or gives a new name."""
    answer = target.play(folder, list=True)
    assert "error" not in answer, answer
    return [os.path.relpath(path, folder / "struck") for path in answer["opened"]]


def _plant(place: Path, kind: str, victim: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind == "link":
        place.symlink_to(victim)
    elif kind == "link to nothing":
        place.symlink_to(victim.with_name("nothing"))
    elif kind == "link to a folder":
        place.symlink_to(victim.parent)
    elif kind == "device":
        place.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        with socket.socket(socket.AF_UNIX) as made:
            here = os.getcwd()
            os.chdir(place.parent)  # The path of a socket is short.
            try:
                made.bind(place.name)
            finally:
                os.chdir(here)


PLANTED = ("link", "link to nothing", "link to a folder", "device", "pipe", "socket")


def _struck_by(target: Target, half: Reference, place: str, planted: str, **case: Any) -> list[str]:
    """What goes wrong where something lies at a place of the experiment."""
    folder = half.copy(target)
    (elsewhere := folder / "elsewhere").mkdir()
    (victim := elsewhere / "victim").write_text("mine\n")
    _plant(folder / "struck" / place, planted, victim)
    answer = target.play(folder, **case)
    problems = [half.differences(answer, whole=not case)]
    if victim.read_text() != "mine\n" or os.listdir(elsewhere) != ["victim"]:
        problems.append(f"written through: {victim.read_text()[:40]!r}, {os.listdir(elsewhere)}")
    if answer.get("memory", 0) > MEMORY:
        problems.append(f"{answer['memory'] // MIB} MiB of memory")
    return problems


@pytest.mark.parametrize("many", FEW_OR_MANY)
def test_links_where_a_search_writes(many: bool, tally: Tallies, target: Target, half: Reference) -> None:
    kind = tally("links and special files planted where a search writes")
    places = [
        place for place in _written(target, half.copy(target)) if ".tmp" not in place and not place.startswith("..")
    ]
    cases = [(place, planted) for place in places if place != "." for planted in PLANTED]
    for place, planted in chosen(cases, None if many else 5, seed=8):
        kind.case(f"{planted} at {place}", *_struck_by(target, half, place, planted))


@pytest.mark.parametrize("many", FEW_OR_MANY)
def test_links_where_it_is_looked(many: bool, tally: Tallies, target: Target, half: Reference) -> None:
    kind = tally("links and special files planted where it is read")
    names = sorted(str(path.relative_to(half.folder / "struck")) for path in (half.folder / "struck").rglob("*"))
    cases = [(place, planted) for place in names for planted in PLANTED]
    for place, planted in chosen(cases, None if many else 4, seed=9):
        kind.case(f"{planted} at {place}", *_struck_by(target, half, place, planted, load=True))


@pytest.mark.parametrize("many", FEW_OR_MANY)
def test_two_runners(many: bool, tally: Tallies, target: Target, reference: Reference) -> None:
    kind = tally("two runners of one folder")
    for number in range(50 if many else 1):
        folder = target.folder()
        both = [target.begin(folder, resume="auto", slow=0.01) for _ in range(2)]
        answers = [target.end(begun) for begun in both]
        problems = [reference.differences(answer) for answer in answers]
        kind.case(number, *problems, goes_on(target, reference, folder))


def _without(line: dict[str, Any], rng: random.Random) -> Any:
    line.pop(rng.choice(list(line)))
    return line


def _of_another_kind(line: dict[str, Any], rng: random.Random) -> Any:
    line[rng.choice(list(line))] = rng.choice([None, [], {}, "x", -1, 1e400, "\ud800", [[[]]]])
    return line


EDITS: dict[str, Callable[[dict[str, Any], random.Random], Any]] = {
    "a field is missing": _without,
    "a field is of another kind": _of_another_kind,
    "no dict": lambda line, rng: rng.choice([None, [], 3, "text"]),
}


@pytest.mark.parametrize("many", FEW_OR_MANY)
def test_an_edited_journal(many: bool, tally: Tallies, target: Target, reference: Reference) -> None:
    kind, rng = tally("a line of the journal edited"), random.Random(10)
    lines = (reference.folder / "struck" / "journal.log").read_text().splitlines()
    for number in range(200 if many else 4):
        name = rng.choice(list(EDITS))
        place = rng.randrange(len(lines))
        try:
            line = json.loads(lines[place])
        except ValueError:  # A checksum beside it, say.
            line = json.loads(lines[place][lines[place].index("{") : lines[place].rindex("}") + 1])
        edited = [*lines[:place], json.dumps(EDITS[name](line, rng)), *lines[place + 1 :]]
        folder = reference.copy(target)
        (folder / "struck" / "journal.log").write_text("\n".join(edited) + "\n")
        answer = target.play(folder, load=True)
        kind.case(f"{number}, line {place + 1}: {name}", reference.differences(answer))


@pytest.mark.parametrize("many", FEW_OR_MANY)
def test_damaged_files_of_trials(many: bool, tally: Tallies, target: Target, half: Reference) -> None:
    kind, rng = tally("files of trials damaged"), random.Random(11)
    names = sorted(str(path.relative_to(half.folder)) for path in half.folder.rglob("trials/*/*") if path.is_file())
    damages = [b"", b"{", b"[" * 100_000, b"\xff" * 100, b"\0" * 4096, b'{"state": 1e999}']
    cases = [(name, damage) for name in names for damage in damages]
    for name, damage in cases if many else rng.sample(cases, 2):
        folder = half.copy(target)
        (folder / name).write_bytes(damage)
        kind.case(f"{name}: {damage[:8]!r}", goes_on(target, half, folder))
