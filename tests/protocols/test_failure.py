"""What a traceback says in short: the error itself, and where it was raised."""

import gc
import traceback
from collections.abc import Callable

import pytest
import torch
from torch.utils.data import DataLoader

from nas.protocols.failure import Failure, bounded, read_failure
from nas.protocols.trial import Trial, TrialState, causes


class Faulty(torch.utils.data.Dataset[int]):
    """A dataset whose files are gone."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        raise FileNotFoundError(f"no file {index}\nlook elsewhere")


def plain() -> None:
    raise ValueError("a bad width")


def with_advice() -> None:
    raise RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors may be late.\nCompile with X")


def without_message() -> None:
    raise KeyError


def chained() -> None:
    try:
        plain()
    except ValueError as error:
        raise RuntimeError("cannot build\nat all") from error


def while_handled() -> None:
    try:
        plain()
    except ValueError:
        without_message()


def with_a_traceback_in_its_message() -> None:
    try:
        plain()
    except ValueError:
        text = traceback.format_exc()
    raise OSError(f"the script failed\n{text}") from None


def with_a_note() -> None:
    error = ValueError("noted")
    error.add_note("see the manual")
    raise error


def in_a_group() -> None:
    raise ExceptionGroup("two at once", [ValueError("one"), TypeError("two")])


def in_code_that_is_no_python() -> None:
    compile("def f(:\n    pass\n", "space.py", "exec")


def in_a_worker_of_a_loader() -> None:
    list(DataLoader(Faulty(), num_workers=1, multiprocessing_context="fork"))


def far_down(depth: int = 2000) -> None:
    far_down(depth - 1)


EXPECTED: dict[Callable[[], None], tuple[str, str]] = {
    plain: ("ValueError: a bad width", "in plain"),
    with_advice: ("RuntimeError: CUDA error: device-side assert triggered", "in with_advice"),
    without_message: ("KeyError", "in without_message"),
    chained: ("RuntimeError: cannot build", "in chained"),
    while_handled: ("KeyError", "in without_message"),
    with_a_traceback_in_its_message: ("OSError: the script failed", "in with_a_traceback_in_its_message"),
    with_a_note: ("ValueError: noted", "in with_a_note"),
    in_a_group: ("ExceptionGroup: two at once (2 sub-exceptions)", "in in_a_group"),
    in_code_that_is_no_python: ("SyntaxError: invalid syntax", "space.py:1"),
    in_a_worker_of_a_loader: ("FileNotFoundError: no file 0", "in __getitem__"),
    far_down: ("RecursionError: maximum recursion depth exceeded", "in far_down"),
}


def traceback_of(raises: Callable[[], None]) -> str:
    gc.collect()  # What an earlier test left is not to be finalised where the stack is full.
    gc.disable()
    try:
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - each raises another
            raises()
    finally:
        gc.enable()
    return "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("raises", EXPECTED, ids=lambda raises: raises.__name__)
def test_the_error_itself_and_where_it_was_raised(raises: Callable[[], None]) -> None:
    found = read_failure(traceback_of(raises))
    reason, place = EXPECTED[raises]
    assert found.reason.split(" in comparison")[0] == reason
    assert found.place.endswith(place)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Failure("", "")),
        (
            "The end of its log:\n  width 4\nWorkerDied: killed by SIGKILL\n",
            Failure("WorkerDied: killed by SIGKILL", ""),
        ),
        ("The supernet was trained on.\n", Failure("The supernet was trained on.", "")),
        ("Traceback (most recent call last):\n  File", Failure("File", "")),
    ],
)
def test_what_is_no_traceback(text: str, expected: Failure) -> None:
    assert read_failure(text) == expected


def failed(number: int, raises: Callable[[], None]) -> Trial:
    return Trial(number=number, sample={}, state=TrialState.FAILED, error=traceback_of(raises))


@pytest.mark.slow
def test_causes_are_where_errors_were_raised_whatever_the_messages_say() -> None:
    def of_width(width: int) -> Callable[[], None]:
        def raises() -> None:
            raise ValueError(f"width {width} is right out")

        return raises

    trials = [failed(0, plain), *(failed(i, of_width(i)) for i in (1, 2, 3)), failed(4, plain)]
    trials.append(Trial(number=5, sample={}, state=TrialState.COMPLETE, values=(1.0,)))
    first, second = causes(trials)
    assert (first.first.reason, first.trials) == ("ValueError: width 1 is right out", (1, 2, 3))
    assert (second.first.reason, second.trials) == ("ValueError: a bad width", (0, 4))


@pytest.mark.parametrize(
    "text",
    ["x" * 20_000_000, "y\n" * 5_000_000, "\n" * 3_000_000, "ValueError: " + "ä" * 100_000 + "\nthe end"],
    ids=["a line", "lines", "empty lines", "a long line and a short one"],
)
def test_a_long_text_keeps_its_begin_and_its_end(text):
    short = bounded(text)
    assert len(short) <= 20_000
    assert "characters left out" in short
    assert short[:10] == text[:10]
    assert short[-7:] == text[-7:]


def test_a_short_text_stays_as_it_is():
    text = "Traceback (most recent call last):\n" + '  File "a.py", line 3, in step\n' * 60
    assert bounded(text) == text


def test_each_line_of_a_chain_of_errors_is_cut_by_itself():
    text = "ValueError: " + "x" * 1_000_000 + "\n\nDuring handling\n\nKeyError: " + "y" * 1_000_000 + "\n"
    assert [line[:8] for line in bounded(text).splitlines() if line] == ["ValueErr", "During h", "KeyError"]
