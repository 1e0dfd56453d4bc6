"""What a search says: on a terminal, and elsewhere."""

import io

import pytest
from rich.console import Console

from nas import NasError, Objectives, Trial, TrialState
from nas.search.progress import Standing, _Live, _Plain, count_text, make_progress, sample_text


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None, legacy_windows=False)


def text(shown: Console) -> str:
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue()


def trial(number: int, value: float | None = None) -> Trial:
    if value is None:
        error = "Traceback:\n  File\nValueError: [red]bad[/red]\n"
        return Trial(number=number, sample={"width": 2}, state=TrialState.FAILED, error=error)
    return Trial(
        number=number,
        sample={"width": 2, "rate": 0.123456789},
        state=TrialState.COMPLETE,
        values=(value,),
        metrics={"accuracy": value},
        duration=1.234,
    )


def standing(*leaders: Trial, complete: int = 1) -> Standing:
    several = bool(leaders) and len(leaders[0].values or ()) > 1
    objectives = Objectives({"accuracy": "maximize", "size": "minimize"} if several else "maximize")
    return Standing(objectives=objectives, leaders=leaders, complete=complete)


def test_the_live_line_counts_and_shows_the_best() -> None:
    shown = console(terminal=True)
    live = _Live(shown)
    live.begin(5, 2)
    assert live._bar is not None
    live.finished(trial(2, 0.75), standing(trial(2, 0.75)))
    live.finished(trial(3), standing(trial(2, 0.75)))
    task = live._bar.tasks[0]
    assert (task.completed, task.total) == (4, 5)
    assert task.fields["pace"].startswith("best accuracy 0.75 (trial 2), ")
    assert task.fields["pace"].endswith(" left")
    live.end()
    assert "trial 3 FAILED: ValueError: [red]bad[/red] (width=2)" in text(shown)
    assert live._bar.finished is False
    assert not live._bar.live.is_started


def test_only_the_first_failures_get_a_line() -> None:
    for kind in (_Live, _Plain):
        shown = console(terminal=False)
        progress = kind(shown)
        progress.begin(None, 0)
        for number in range(8):
            progress.finished(trial(number), standing())
        progress.end()
        assert text(shown).count("FAILED") == 3


def test_a_live_line_that_never_began_can_be_ended() -> None:
    shown = console(terminal=True)
    _Live(shown).end()
    assert text(shown) == ""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [3.0]
    monkeypatch.setattr("nas.search.progress.time.monotonic", lambda: now[0])
    return now


def test_plain_lines_come_at_most_every_ten_seconds(clock: list[float]) -> None:
    shown = console(terminal=False)
    plain = _Plain(shown)
    plain.begin(40, 0)
    for number in range(40):
        clock[0] += 1
        plain.finished(trial(number, 1.0), standing(trial(0, 1.0)))
    assert text(shown).splitlines() == [
        "10/40 trials, best accuracy 1 (trial 0), 1.0/s, 0:00:30 left",
        "20/40 trials, best accuracy 1 (trial 0), 1.0/s, 0:00:20 left",
        "30/40 trials, best accuracy 1 (trial 0), 1.0/s, 0:00:10 left",
        "40/40 trials, best accuracy 1 (trial 0), 1.0/s, 0:00:00 left",
    ]


def test_a_short_search_has_one_plain_line_and_no_search_ends_with_two_at_once(clock: list[float]) -> None:
    for seconds, expected in ((0.1, ["40/40"]), (0.27, ["38/40"]), (0.5, ["20/40", "40/40"])):
        shown = console(terminal=False)
        plain = _Plain(shown)
        plain.begin(40, 0)
        for number in range(40):
            clock[0] += seconds
            plain.finished(trial(number, 1.0), standing(trial(0, 1.0)))
        assert [line.split()[0] for line in text(shown).splitlines()] == expected


@pytest.mark.parametrize(
    ("total", "size", "line"),
    [
        (1000, 12, "3/12 trials, none complete yet, 6.0/min, 0:01:30 left"),
        (None, 12, "3/12 trials, none complete yet, 6.0/min, 0:01:30 left"),
        (9, 12, "3/9 trials, none complete yet, 6.0/min, 0:01:00 left"),
        (9, None, "3/9 trials, none complete yet, 6.0/min, 0:01:00 left"),
        (9, 2, "3/9 trials, none complete yet, 6.0/min, 0:01:00 left"),  # the strategy tries samples again
        (None, None, "3 trials, none complete yet, 6.0/min"),
        (None, 10**30, f"3/{10**30} trials, none complete yet, 6.0/min"),
    ],
)
def test_the_time_that_is_left_knows_the_size_of_the_space(
    clock: list[float], total: int | None, size: int | None, line: str
) -> None:
    shown = console(terminal=False)
    plain = _Plain(shown)
    plain.begin(total, 2, size)
    clock[0] += 10
    plain.finished(trial(2), standing())
    assert text(shown).splitlines()[-1] == line


def test_of_several_objectives_it_counts_what_is_complete_and_the_front(clock: list[float]) -> None:
    shown = console(terminal=False)
    plain = _Plain(shown)
    plain.begin(9, 0)
    clock[0] += 10
    front = [Trial(number=n, sample={}, state=TrialState.COMPLETE, values=(0.5 + n, 1.0 + n)) for n in range(2)]
    plain.finished(front[0], standing(*front, complete=7))
    assert text(shown) == "1/9 trials, 7 complete, front of 2, 6.0/min, 0:01:20 left\n"


@pytest.mark.parametrize("kind", [_Live, _Plain])
def test_the_summary_is_a_table_and_a_text(kind: type[_Live] | type[_Plain]) -> None:
    shown = console(terminal=False)
    kind(shown).summary("done [all]", [trial(7, 0.5), trial(3, 0.25)], Objectives("maximize"))
    lines = text(shown).splitlines()
    assert lines[0].strip() == "Top trials"
    assert "accuracy (max)" in lines[2]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert rows == [
        ["1", "7", "0.5", "1.23", "width=2, rate=0.12346"],
        ["2", "3", "0.25", "1.23", "width=2, rate=0.12346"],
    ]
    assert lines[-1] == "done [all]"


def test_without_a_complete_trial_there_is_no_table() -> None:
    shown = console(terminal=False)
    _Plain(shown).summary("nothing came of it", [], Objectives("minimize"))
    assert text(shown) == "nothing came of it\n"


def test_several_objectives_have_a_column_each() -> None:
    shown = console(terminal=False)
    both = Trial(number=1, sample={"w": 1}, state=TrialState.COMPLETE, values=(0.5, 3.0), metrics={"a": 0.5, "b": 3.0})
    _Plain(shown).summary("", [both], Objectives({"a": "maximize", "b": "minimize"}))
    assert "Pareto front" in text(shown)
    assert "a (max)" in text(shown)
    assert "b (min)" in text(shown)


def test_small_texts() -> None:
    assert count_text([]) == "0 trials"
    assert count_text([trial(0)]) == "1 trial: 1 failed"
    assert count_text([trial(0, 1.0), trial(1, 2.0), trial(2)]) == "3 trials: 2 complete, 1 failed"
    assert sample_text({"a": 1.0 / 3, "b": [0, 2], "c": (3, 3)}) == "a=0.33333, b=[0, 2], c=(3, 3)"


def test_auto_is_plain_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("TTY_INTERACTIVE", raising=False)
    monkeypatch.delenv("TTY_COMPATIBLE", raising=False)
    assert isinstance(make_progress("auto"), _Plain)
    assert isinstance(make_progress("rich"), _Live)
    with pytest.raises(NasError, match='progress must be "auto", "rich", "plain" or "silent"; received \'loud\''):
        make_progress("loud")  # type: ignore[arg-type]
