"""A thread can tell that the script has come to its end, before what waits for it there."""

import subprocess
import sys
import threading

import pytest

from nas._compat.changed import frame_of, is_shutting_down


def test_the_name_is_there() -> None:
    assert threading._SHUTTING_DOWN is False  # type: ignore[attr-defined]  # a private one
    assert not is_shutting_down()


@pytest.mark.slow
def test_a_thread_sees_the_end() -> None:
    script = """
import threading, time
from nas._compat.changed import is_shutting_down
def wait():
    before = is_shutting_down()
    while not is_shutting_down():
        time.sleep(0.01)
    print(before, "then", is_shutting_down(), flush=True)
thread = threading.Thread(target=wait)
threading._register_atexit(thread.join)  # as those do who wait for their threads
thread.start()
time.sleep(0.1)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "False then True\n"


def test_where_a_thread_is() -> None:
    frame = frame_of(threading.get_ident())
    names = []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    assert "test_where_a_thread_is" in names
    assert frame_of(1) is None
