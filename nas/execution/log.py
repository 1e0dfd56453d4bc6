"""What a trial prints, kept in `log.txt` of its folder."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO, final

LOG = "log.txt"
_QUOTED = 4000
"""Characters."""


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
    try:
        with redirect_stdout(_Tee(sys.stdout, log)), redirect_stderr(_Tee(sys.stderr, log)):
            yield
    finally:
        log.close()


@contextmanager
def logged_only(folder: Path | None) -> Iterator[None]:
    """Keeps all that this process prints, C code and its children included, and shows nothing.

    Args:
        folder: of the trial; None to keep nothing.
    """
    path = os.devnull if folder is None else str(folder / LOG)
    with ExitStack() as stack:
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
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
        last: so many characters from the end at most.
    """
    try:
        text = (folder / LOG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text if last is None else text[-last:]


def quote_log(folder: Path | None) -> str:
    """The end of a trial's log, for the error of a trial that could not speak for itself."""
    if folder is None:
        return ""
    lines = [line for line in read_log(folder, _QUOTED).splitlines() if not line.startswith("Extension modules:")]
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
                self._file = self._path.open("a", encoding="utf-8", errors="replace", buffering=1)
            self._file.write(text)

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()


@final
class _Tee:
    """A stream that passes on all that it is asked, and keeps what is written."""

    def __init__(self, shown: TextIO, log: _LazyFile) -> None:
        self._shown, self._log = shown, log

    def write(self, text: str) -> int:
        self._log.write(text)
        return self._shown.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shown, name)
