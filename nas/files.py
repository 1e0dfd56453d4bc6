"""Files that may come from a stranger: read within bounds, written whole, and never through a link or a device.

Whoever gets a folder from somebody else gets its links, pipes and damaged files with it. What this package keeps in a
folder of its own is therefore an ordinary file, or nothing: a link is neither read nor written through, and a pipe is
not waited for. A path that the user names himself (where an export goes, which sample is loaded) may be a link.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from nas.errors import ExperimentError, NasValueError, explain

MIB = 1 << 20
"""Bytes."""
_MOST = 256 * MIB
"""Bytes that a file is read whole of, where nothing else is said."""
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)
_AS_IT_IS = getattr(os, "O_BINARY", 0)
_DRAFT = ".tmp"


def open_file(path: str | os.PathLike[str], *, follow: bool = False) -> BinaryIO:
    """An ordinary file, to be read.

    Args:
        path: of the file.
        follow: whether it may be a link, since the user names it himself.

    Raises:
        OSError: it is not there, say.
        ExperimentError: it is a link, a folder, a pipe or a device.
    """
    return os.fdopen(_opened(path, os.O_RDONLY, follow=follow), "rb")


def read_bytes(path: str | os.PathLike[str], *, most: int = _MOST, follow: bool = False) -> bytes:
    """What a file holds.

    Args:
        path: of the file.
        most: bytes; it is not read where it is larger.
        follow: whether it may be a link.

    Raises:
        OSError: it is not there, say.
        ExperimentError: it is a link, a folder, a pipe or a device.
        NasValueError: it is larger.
    """
    parts, size = list[bytes](), 0
    with open_file(path, follow=follow) as file:
        # In parts, for Python makes room for all that is asked for; and not by its size alone, for it may be growing.
        while size <= most and (part := file.read(min(MIB, most + 1 - size))):
            parts.append(part)
            size += len(part)
    if size > most:
        raise NasValueError(explain(f"the file holds at most {most:,} bytes", got=os.fspath(path), mend=_AGAIN))
    return b"".join(parts)


_AGAIN = "take the file from its source again, or remove it"


def read_text(path: str | os.PathLike[str], *, most: int = _MOST, follow: bool = False) -> str:
    """The text of a file, in UTF-8.

    Raises:
        OSError: it is not there, say.
        ExperimentError: it is a link, a folder, a pipe or a device.
        NasValueError: it is larger than `most` bytes, or no such text.
    """
    content = read_bytes(path, most=most, follow=follow)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise NasValueError(
            explain(f"the file must hold text in UTF-8, and line {line} is none", got=os.fspath(path), mend=_AGAIN)
        ) from None


def read_end(path: str | os.PathLike[str], characters: int) -> str:
    """The last characters of a text, however long the file is; what is no UTF-8 is marked.

    Raises:
        OSError: it is not there, say.
        ExperimentError: it is a link, a folder, a pipe or a device.
    """
    with open_file(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4 * characters))  # A character has at most four bytes.
        content = file.read(4 * characters)
    return content.decode("utf-8", errors="replace")[-characters:] if characters > 0 else ""


def read_json(path: str | os.PathLike[str], *, most: int = _MOST, follow: bool = False) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: it is not there, say.
        ExperimentError: it is a link, a folder, a pipe or a device.
        NasValueError: it is larger than `most` bytes, or no JSON; the message names the file and the line.
    """
    return parse_json(read_text(path, most=most, follow=follow), where=os.fspath(path))


def parse_json(
    text: str | bytes, *, where: str, line: int | None = None, strict: bool = False, rule: str = "no whole JSON"
) -> Any:
    """What a text holds as JSON; whatever may be wrong with it is one kind of error.

    Args:
        text: of the JSON.
        where: the file that it comes from.
        line: of the file, where it is one of several.
        strict: whether to refuse what JSON does not have (NaN), and a name that stands twice in an object.
        rule: how the message begins.

    Raises:
        NasValueError: it is no JSON, nested too deeply, or has a number of thousands of digits.

    Example:
        >>> parse_json('{"width": 16}', where="sample.json")
        {'width': 16}
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number) if strict else json.loads(text)
    except json.JSONDecodeError as error:
        place, reason = line or error.lineno, error.msg
    except RecursionError:
        place, reason = line or 1, "it is nested too deeply"
    except ValueError as error:  # bytes that are no text; more digits than Python reads
        place, reason = line or 1, str(error)
    raise NasValueError(explain(f"{rule} in line {place}: {reason}", got=where, mend=_AGAIN)) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{twice[:100]!r} stands there more than once")
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def write_whole(path: str | os.PathLike[str], content: str | bytes, *, sync: bool = False) -> None:
    """Writes a file whole or not at all. Where a link of this name lies, the link is replaced, not what it leads to.

    Args:
        path: of the file; its folder is there.
        content: of it; a text is written in UTF-8.
        sync: whether to wait until it is on the disk.

    Raises:
        OSError: the disk is full, say; then what was there before is still there.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with drafted(path, sync=sync) as draft:
        draft.write(data)


@contextmanager
def drafted(path: str | os.PathLike[str], *, sync: bool = False) -> Iterator[BinaryIO]:
    """A new file, which takes the place of another when the block has ended without an error.

    Its name is one that nothing else has: nobody can have put a link there.

    Args:
        path: of the file; its folder is there.
        sync: whether to wait until it is on the disk.

    Yields:
        The file, to be written; its `name` is a path in the same folder.

    Raises:
        OSError: the disk is full, say; then what was there before is still there.
    """
    target = Path(path)
    draft = target.with_name(f".{target.name[:80]}.{secrets.token_hex(8)}{_DRAFT}")
    try:
        with open(draft, "x+b") as file:  # "x": made anew, so never through a link
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(draft, target)
        if sync:
            sync_folder(target.parent)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft)
        raise


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Waits until the names in a folder are on the disk, where the system can say so."""
    with suppress(OSError):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def open_to_append(path: str | os.PathLike[str], *, make: bool = True, read: bool = False) -> int:
    """A descriptor that adds to the end of an ordinary file.

    Args:
        path: of the file.
        make: whether it is made where it is not there.
        read: whether it is to be read too.

    Raises:
        OSError: there is no room, say, or it is not there and not to be made.
        ExperimentError: it is a link, a folder, a pipe or a device.
    """
    return _opened(path, (os.O_RDWR if read else os.O_WRONLY) | os.O_APPEND | (os.O_CREAT if make else 0))


def folder_in(root: str | os.PathLike[str], *parts: str, make: bool = False) -> Path:
    """A folder somewhere below another one, on the way to which there is no link.

    Args:
        root: the folder of an experiment, say; it may be a link, since the user names it himself.
        *parts: the names on the way.
        make: whether to make what is not there.

    Returns:
        Its path, which may not be there.

    Raises:
        OSError: it cannot be made.
        ExperimentError: a link is on the way, or a file.
    """
    place = Path(root)
    for part in parts:
        place /= part
        try:
            found = os.lstat(place)
        except FileNotFoundError:
            if not make:
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(place)
            found = os.lstat(place)
        if not stat.S_ISDIR(found.st_mode):
            raise _refused(place, found.st_mode)
    return place


def named_by_user(path: str | os.PathLike[str]) -> Path:
    """Where a file goes that the user has named: what a link of his leads to, and no device.

    Args:
        path: as he has named it; it need not be there.

    Raises:
        ExperimentError: it is a pipe, a socket or a device, which a file cannot take the place of.
    """
    target = Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)
    with suppress(OSError, ValueError):
        mode = os.stat(target).st_mode
        if not _is_plain(mode):
            raise _refused(target, mode)
    return target


def remove_strange(folder: str | os.PathLike[str]) -> list[Path]:
    """Makes a folder one that others can write in: whatever they open there lies there.

    Args:
        folder: which may not be there.

    Returns:
        What was removed: links that lead out of it, pipes, sockets and devices. What links lead to is as it was.

    Raises:
        OSError: something cannot be removed.
    """
    inside = os.path.join(os.path.realpath(folder), "")
    removed = []
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(place, name)
            mode = os.lstat(path).st_mode
            stays = os.path.realpath(path).startswith(inside) if stat.S_ISLNK(mode) else _is_plain(mode)
            if not stays:
                os.unlink(path)
                removed.append(Path(path))
    return removed


def own_folder(root: str | os.PathLike[str], *parts: str) -> Path:
    """A folder somewhere below another one, made where it is not there, in which any library can write.

    Args:
        root: the folder of an experiment, say; it may be a link, since the user names it himself.
        *parts: the names on the way.

    Returns:
        Its path. What led out of it is removed, with a warning, and what was left half written; so nobody writes in it
        now.

    Raises:
        OSError: it cannot be made.
        ExperimentError: a link is on the way, or a file.
    """
    folder = folder_in(root, *parts, make=True)
    if removed := remove_strange(folder):
        names = ", ".join(ascii(str(path.relative_to(folder)))[1:-1] for path in removed[:5])
        more = ", ..." if len(removed) > 5 else ""
        warnings.warn(
            f"Links that lead out of {folder}, pipes and devices were removed from it: {names}{more}. What the links "
            "led to is as it was.",
            UserWarning,
            stacklevel=3,
        )
    for path in folder.glob(f".*.{'[0-9a-f]' * 16}{_DRAFT}"):
        with suppress(OSError):
            path.unlink()
    return folder


def _is_plain(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is an ordinary file, and no link."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def _opened(path: str | os.PathLike[str], flags: int, *, follow: bool = False) -> int:
    name = os.fspath(path)
    if not follow and not _NO_LINK and os.path.islink(name):  # Systems without the flag.
        raise _refused(name, stat.S_IFLNK)
    try:
        # Without waiting: else the opening of a pipe lasts until somebody writes into it.
        number = os.open(name, flags | _NO_WAIT | _AS_IT_IS | (0 if follow else _NO_LINK), 0o666)
    except OSError as error:
        with suppress(OSError):
            mode = (os.stat if follow else os.lstat)(name).st_mode
            if not stat.S_ISREG(mode):
                raise _refused(name, mode) from error
        raise
    mode = os.fstat(number).st_mode
    if stat.S_ISREG(mode):
        return number
    os.close(number)
    raise _refused(name, mode)


_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISREG, "a file"),
)


def _refused(path: str | os.PathLike[str], mode: int) -> ExperimentError:
    kind = next((name for is_it, name in _KINDS if is_it(mode)), "something else")
    wanted = "a folder" if kind == "a file" else "an ordinary file or folder of its own"
    return ExperimentError(
        explain(
            f"what lies here must be {wanted}, and it is {kind}",
            got=os.fspath(path),
            mend="look where it comes from, and remove it",
        )
    )
