"""What a trial prints, kept in `log.txt` of its folder."""

from __future__ import annotations

import io
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO, final

from nas.errors import NasError
from nas.files import folder_in, open_to_append, read_end

LOG = "log.txt"
_QUOTED = 4000
"""Characters."""
_WHOLE = 1 << 24
"""Characters of a log that are read at most, from its end."""


@contextmanager
def shown_and_logged(folder: Path | None) -> Iterator[None]:
    """Keeps what Python code prints, and lets it through.

    Args:
        folder: of the trial, made at the first print; None to keep nothing.
    """
    if folder is None:
        yield
        return
    log = _LazyFile(folder / LOG)
    _LOGS.append((threading.get_ident(), log))
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = tap_of(sys.stdout), tap_of(sys.stderr)
    try:
        yield
    finally:
        _LOGS.remove((threading.get_ident(), log))
        log.close()
        sys.stdout, sys.stderr = _afterwards(sys.stdout, before[0]), _afterwards(sys.stderr, before[1])


def _afterwards(now: Any, before: Any) -> Any:
    """What a standard stream is after a trial: what the trial has made it, unless that cannot be written to."""
    return before if isinstance(now, _Tap) or getattr(now, "closed", False) else now


@contextmanager
def logged_only(folder: Path | None) -> Iterator[None]:
    """Keeps all that this process prints, C code and its children included, and shows nothing.

    Args:
        folder: of the trial; None to keep nothing.

    Raises:
        ExperimentError: what has the log's name there is a link, a pipe or a device.
    """
    with ExitStack() as stack:
        try:
            if folder is None:
                target = os.open(os.devnull, os.O_WRONLY)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                target = open_to_append(folder / LOG)
        except OSError:  # A full disk must not fail a trial for the sake of its log.
            target = os.open(os.devnull, os.O_WRONLY)
        for number, stream in ((1, sys.stdout), (2, sys.stderr)):
            _flush(stream)
            saved = os.dup(number)
            os.dup2(target, number)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, number)
            stack.callback(_flush, stream)
        os.close(target)
        stack.enter_context(redirect_stdout(_stream(1)))
        stack.enter_context(redirect_stderr(_stream(2)))
        yield


def read_log(folder: Path, last: int | None = None) -> str:
    """What a trial has printed so far.

    Args:
        folder: of the trial.
        last: so many characters from the end at most; of a very long log its end is read, however much is asked for.

    Raises:
        ExperimentError: the folder or the one it is in is a link, or what has the log's name there is one, a pipe or a
            device.
    """
    try:
        folder_in(folder.parents[1], *folder.parts[-2:])
        return read_end(folder / LOG, _WHOLE if last is None else min(last, _WHOLE))
    except OSError:
        return ""


def quote_log(folder: Path | None) -> str:
    """The end of a trial's log, for the error of a trial that could not speak for itself."""
    if folder is None:
        return ""
    try:
        text = read_log(folder, _QUOTED)
    except NasError:  # It has another error to tell.
        return ""
    lines = [line for line in text.splitlines() if not line.startswith("Extension modules:")]
    return "".join(["The end of its log:\n", *(f"  {line}\n" for line in lines)]) if lines else ""


def _flush(stream: TextIO) -> None:
    with suppress(OSError, ValueError):
        stream.flush()


def _stream(descriptor: int) -> TextIO:
    raw: Any = _Forgiving(descriptor)  # TextIOWrapper takes it, but its types ask for a buffer.
    return io.TextIOWrapper(raw, encoding="utf-8", errors="replace", write_through=True)


@final
class _Forgiving(io.RawIOBase):
    """Writes to a file descriptor; what cannot be written is dropped."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: Any) -> int:
        with suppress(OSError):
            os.write(self._descriptor, data)
        return len(data)


@final
class _LazyFile:
    """A file that is made when something is written; what cannot be written is dropped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def write(self, text: str) -> None:
        with suppress(OSError):
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                number = open_to_append(self._path)
                self._file = os.fdopen(number, "a", encoding="utf-8", errors="replace", buffering=1)
            self._file.write(text)

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()


_LOGS: list[tuple[int, _LazyFile]] = []
"""Of the trials that run in this process now, each with its thread: one list, for there is one standard output."""
_TAPS: weakref.WeakValueDictionary[int, _Tap] = weakref.WeakValueDictionary()
"""By the identities of their streams, which live as long as their taps do."""
_WRITING: ContextVar[bool] = ContextVar("nas_writing", default=False)


def tap_of(stream: Any) -> Any:
    """The tap on a stream: always the same, so that what keeps it in one trial is heard in the next one too."""
    if stream is None or isinstance(stream, _Tap):
        return stream
    tap = _TAPS.get(id(stream))
    if tap is None:
        tap = _TAPS[id(stream)] = _Tap(stream)
    return tap


@final
class _Tap(io.TextIOBase):
    """A stream that passes on all that it is asked, and keeps what is written while a trial runs.

    Logging handlers and libraries keep it for longer than the trial; it never ends before the stream it is on.
    """

    def __init__(self, shown: Any) -> None:
        self._shown = shown

    def write(self, text: str) -> int:
        if _WRITING.get():  # A tap is on a stream that passes on to this one.
            return int(self._shown.write(text) or 0)
        token = _WRITING.set(True)
        try:
            for log in self._heard_by():
                log.write(text)
            return int(self._shown.write(text) or 0)
        finally:
            _WRITING.reset(token)

    def _heard_by(self) -> list[_LazyFile]:
        """The logs of this thread's trials; a thread that a trial has started writes to the one that began last.

        No trial has started the main thread: while trials run in another one, what it prints is the user's.
        """
        logs = list(_LOGS)
        mine = [log for thread, log in logs if thread == threading.get_ident()]
        if threading.current_thread() is threading.main_thread():
            return mine
        return mine or [log for _, log in logs[-1:]]

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattribute__(self, name: str) -> Any:
        own = name.startswith("__") or name in ("_shown", "_heard_by", "write", "writelines", "close")
        return object.__getattribute__(self, name) if own else getattr(self._shown, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("_shown", "_finalizing"):  # The latter is what Python says to a file that is forgotten.
            object.__setattr__(self, name, value)
        else:
            setattr(self._shown, name, value)

    def close(self) -> None:
        """Nothing: it is also called when the tap is forgotten, and the stream is not ours."""
