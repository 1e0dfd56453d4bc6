"""Files that are damaged in every way, for readers that must answer each with an error of ours."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nas.errors import NasError
from nas.testing.processes import ended_well, fork

Read = Callable[[Path], object]

_SLOWEST = 10.0
"""Seconds that one file may take, on a machine that is busy."""
_TOGETHER = 2_000
"""Files that one process reads."""
_LONGEST = 75_000
"""Characters of an error."""
_SNIPPETS = (
    b"",
    b"\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"\xff" * 8,
    b"\n",
    b"\xed\xa0\x80",
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"NaN",
    b"9" * 5000,
    b'""',
    b'"\\ud800"',
    b"[]",
    b"{}",
    b"[" * 3000,
    b'{"a":' * 3000,
    b"(" * 300,
    b"]" * 300,
    b"\x85" * 300,
    b"2" * 40,
    b"0",
    b"R",
    b"b",
    b"\x81",
)
"""What stands in damaged files: numbers at their ends, other values of JSON, steps of pickles."""


def mutants(originals: Sequence[bytes], count: int, *, seed: int | str = 0) -> Iterator[bytes]:
    """Damaged files: of each one to four places are exchanged, cut out, repeated or taken from another file.

    Args:
        originals: whole ones.
        count: how many.
        seed: of the damage.

    Example:
        >>> [*mutants([b"width 16"], 2)] == [*mutants([b"width 16"], 2)]
        True
    """
    rng = random.Random(seed)
    for _ in range(count):
        data = bytearray(rng.choice(originals))
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            _damage(data, originals, rng)
        yield bytes(data)


def _damage(data: bytearray, originals: Sequence[bytes], rng: random.Random) -> None:
    start = rng.randrange(len(data) + 1)
    end = min(len(data), start + rng.choice((0, 1, 1, 2, 4, 8, 32, 200)))
    kind = rng.randrange(7)
    if kind == 0 and start < len(data):
        data[start] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[start:end] = rng.randbytes(end - start)
    elif kind == 2:
        data[start:end] = rng.choice(_SNIPPETS)
    elif kind == 3:
        del data[start:end]
    elif kind == 4:
        data[start:start] = data[start:end] * rng.choice((1, 2, 50))
    elif kind == 5:
        other = rng.choice(originals)
        place = rng.randrange(len(other) + 1)
        data[start:end] = other[place : place + rng.choice((1, 8, 64))]
    elif rng.random() < 0.2:
        del data[start:]


def survives_mutants(
    read: Read,
    originals: Sequence[bytes],
    *,
    count: int,
    folder: Path,
    name: str = "file",
    memory: int = 1 << 29,
    seed: int = 0,
) -> None:
    """Reads damaged files in processes of their own: each is read or refused by an error of ours, soon and in bounds.

    Args:
        read: a file.
        originals: whole files; at least these are read without an error.
        count: of damaged ones.
        folder: for them.
        name: of the file, in that folder.
        memory: bytes that the process may take beyond what it has at the beginning, where the system can tell.
        seed: of the damage.

    Raises:
        AssertionError: a file is answered by another error, too late, or by the end of the process.

    Example:
        >>> import tempfile
        >>> from nas import load_sample
        >>> survives_mutants(load_sample, [b'{"width": 16}'], count=3, folder=Path(tempfile.mkdtemp()))
    """
    output = folder / "output.txt"
    for part, begin in enumerate(range(0, count, _TOGETHER)):
        given = (read, tuple(originals), min(_TOGETHER, count - begin), f"{seed}/{part}", folder / name, memory)
        ended_well(fork(_read_all, *given, output=output), output)


def _read_all(read: Read, originals: Sequence[bytes], count: int, seed: int | str, path: Path, memory: int) -> None:
    for content in originals:
        path.write_bytes(content)
        read(path)
    _limit(memory)
    for number, content in enumerate(mutants(originals, count, seed=seed)):
        path.write_bytes(content)
        start = time.monotonic()
        try:
            read(path)
        except NasError as error:
            length = len(str(error))
        except BaseException:
            print(f"mutant {number}, which lies beside this output")
            raise
        else:
            length = 0
        seconds = time.monotonic() - start
        assert length < _LONGEST, f"mutant {number}: an error of {length} characters"
        assert seconds < _SLOWEST, f"mutant {number}: {seconds:.1f} s"


def _limit(memory: int) -> None:
    """Of the data of this process, not of its addresses: libraries of devices map more than any machine has."""
    try:
        import resource

        words = Path("/proc/self/status").read_text().split()
        held = int(words[words.index("VmData:") + 1]) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (held + memory, held + memory))
    except (ImportError, OSError, ValueError):
        return
