"""The journal of an experiment: Optuna's file, in which no damage, kill, full disk or slow disk goes unnoticed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from optuna.storages.journal import BaseJournalBackend

from nas._compat.optuna_bases import JournalOperation
from nas.errors import ExperimentError, explain
from nas.files import open_file, open_to_append, sync_folder
from nas.records.disk.faults import told
from nas.records.disk.lines import LONGEST, Damage, check_end, read_line, write_line
from nas.records.disk.locks import Running, held, is_here
from nas.records.disk.replay import Replay

_RAISING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGALRM", "SIGTERM", "SIGURG") if hasattr(signal, name))
_DEFERRED = (
    JournalOperation.CREATE_TRIAL,
    JournalOperation.SET_TRIAL_USER_ATTR,
    JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE,
)
_CHUNK = 1 << 20
_LAST = 64
"""Bytes, more than a checksum has, by which what was read is known again."""


@contextmanager
def _undisturbed() -> Iterator[None]:
    """What signals raise in the main thread they raise after the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    usual: dict[int, Any] = {}
    try:
        for number in _RAISING:
            handler = signal.getsignal(number)
            if callable(handler):
                usual[number] = handler
                signal.signal(number, lambda number, frame: came.append(number))
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
    for number in came:
        usual[number](number, None)


@final
class JournalFile(BaseJournalBackend):
    """Optuna's journal file, which all of Optuna's tools open.

    What differs is how it is read: each line is held against its checksum and against those before it, and what is
    damaged is told with file and line. Reading makes and changes nothing. And how it is written: a record that does not
    fit on the disk leaves nothing behind, and the disk is waited for once for each trial instead of three times. A kill
    loses nothing; a power failure nothing that was said to be finished, for the records before it are on the disk when
    the last one of a trial is.

    Args:
        path: of the file, which may not be there yet.
        running: the lock of who runs the experiment; who holds it may cut off what a killed writer left.
        attribute: says what is wrong with a user attribute, by its key and value; nothing where it is as it must be.
    """

    def __init__(
        self, path: Path, running: Running, attribute: Callable[[str, Any], str] = lambda key, value: ""
    ) -> None:
        self._path, self._running, self._attribute = path, running, attribute
        self._lock = path.with_name("journal.lock")  # Optuna waits half a minute for one of the name journal.log.lock
        self._is_there = False
        """Whether there has been something in it."""
        self._restart()

    def _restart(self) -> None:
        self.lines, self._offset, self._read = 0, 0, b""
        """How many lines have been read, how many bytes, and the last of these."""
        self._replay = Replay(self._attribute)

    def __str__(self) -> str:
        """Where it is, and how far it has been read."""
        return f"{self._path}, line {self.lines}"

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """The records from a number on.

        Raises:
            ExperimentError: a line is damaged; or the file was deleted or replaced since it was read first.
        """
        try:
            file = open_file(self._path)
        except FileNotFoundError:
            if self._is_there:
                raise self._gone() from None
            return
        with file:
            size = self._checked(file.fileno())
            if log_number_from != self.lines:
                self._restart()
            file.seek(self._offset)
            while self._offset < size:
                line = file.readline(min(size - self._offset, LONGEST + 1))
                is_whole = line.endswith(b"\n")
                try:
                    if not is_whole and len(line) > LONGEST:
                        raise Damage(f"it is longer than {LONGEST:,} bytes")
                    if not is_whole:  # It is being written just now, or its writer was killed.
                        check_end(line, is_first=self.lines == 0)
                        return
                    record, is_sure = read_line(line, self.lines + 1)
                    self._replay.take(record, is_sure=is_sure)
                except Damage as damage:
                    is_last = self._offset + len(line) >= size
                    raise self._damaged(self.lines + 1, self._offset, str(damage), is_last=is_last) from None
                self.lines += 1
                self._offset += len(line)
                self._read = line[-_LAST:]
                if self.lines > log_number_from:
                    yield record

    def _checked(self, number: int) -> int:
        """How long the open file is, which holds what was read before."""
        size = os.fstat(number).st_size
        os.lseek(number, self._offset - len(self._read), os.SEEK_SET)
        if size < self._offset or os.read(number, len(self._read)) != self._read:
            raise self._gone()
        self._is_there = self._is_there or size > 0
        return size

    def _gone(self) -> ExperimentError:
        return ExperimentError(
            explain(
                "the journal of an experiment was deleted, cut or replaced since it was opened, so no more is written "
                "to it",
                got=str(self._path),
                mend="restore the file from a copy, and go on with it by resume=True, or nas resume",
            )
        )

    def _damaged(self, line: int, byte: int, reason: str, *, is_last: bool) -> ExperimentError:
        which = "the last line" if is_last else "a line in the middle"
        mend = "restore the file from a copy"
        if line > 1:
            mend += f"; or keep its first {line - 1} lines alone, and what they hold is gone on with"
        return ExperimentError(
            explain(
                f"{which} of the journal is damaged: {reason}",
                got=f"{self._path}, line {line}, byte {byte}",
                mend=mend,
            )
        )

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Writes records, all or none.

        Raises:
            ExperimentError: the disk is full, say; or the file was deleted or replaced since it was read.
        """
        # A time limit or a Ctrl-C that struck while the lock is being taken would leave it taken for ever.
        with told(self._path), _undisturbed():
            self._running.make_sure()
            try:
                with held(self._lock):
                    self._append(logs)
            except FileNotFoundError:
                raise self._gone() from None

    def _append(self, logs: list[dict[str, Any]]) -> None:
        if not self.lines:  # Nothing is added to a file of something else.
            for _ in self.read_logs(0):
                pass
        is_new = not self._is_there
        file = open_to_append(self._path, make=is_new, read=True)
        try:
            self._checked(file)
            lines, end = self._count(file)
            data = b"".join(write_line(log, lines + number) for number, log in enumerate(logs, 1))
            if len(data) > LONGEST:
                raise ExperimentError(
                    explain(f"a record has at most {LONGEST:,} bytes", got=len(data), mend="return and report less")
                )
            try:
                written = 0
                while written < len(data):
                    written += os.write(file, data[written:])
                if any(log["op_code"] not in _DEFERRED for log in logs):
                    os.fsync(file)
            except BaseException:
                os.ftruncate(file, end)
                raise
            if not is_here(file, self._path):
                raise self._gone()
            if is_new:
                sync_folder(self._path.parent)
        finally:
            os.close(file)

    def _count(self, file: int) -> tuple[int, int]:
        """How many lines there are, and where they end; what a writer that was killed left after them is cut off."""
        lines, position, end = self.lines, self._offset, self._offset
        os.lseek(file, position, os.SEEK_SET)
        torn = b""
        while chunk := os.read(file, _CHUNK):
            lines += chunk.count(b"\n")
            whole = chunk.rfind(b"\n") + 1
            torn = chunk[whole:] if whole else torn + chunk
            end = position + whole if whole else end
            position += len(chunk)
            if len(torn) > LONGEST:
                raise self._damaged(lines + 1, end, f"it is longer than {LONGEST:,} bytes", is_last=True)
        if torn:
            self._cut(file, lines, end, torn)
        return lines, end

    def _cut(self, file: int, lines: int, end: int, torn: bytes) -> None:
        try:
            check_end(torn, is_first=lines == 0)
        except Damage as damage:
            raise self._damaged(lines + 1, end, str(damage), is_last=True) from None
        with self._running.briefly() as alone:
            if not alone:
                raise ExperimentError(
                    explain(
                        "the journal ends in the middle of a line, which the process that runs the experiment cuts "
                        "off when it writes next",
                        got=f"{self._path}, line {lines + 1}",
                        mend="try again then",
                    )
                )
            os.ftruncate(file, end)
            os.fsync(file)
