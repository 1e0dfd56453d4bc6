"""Ctrl-C while trials run in other processes: the first lets them finish, the second does not."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, final


@final
class Interrupts:
    """Notes the first Ctrl-C in a `with` block, and lets the second through as KeyboardInterrupt.

    Args:
        patient: whether the first one is only noted; else every one is let through.
    """

    def __init__(self, *, patient: bool) -> None:
        self.asked = False
        """Whether there was one."""
        self._patient = patient
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        usable = self._patient and threading.current_thread() is threading.main_thread()
        if usable and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        # Printing inside a signal handler may meet a print that is under way: write to the terminal itself.
        os.write(2, b"\nThe running trials are let finish; Ctrl-C once more breaks them off.\n")
