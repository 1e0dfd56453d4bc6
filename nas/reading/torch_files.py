"""Files of `torch.save`, checked before anything in them is believed, in both of their formats."""

from __future__ import annotations

import os
import zipfile
from typing import Any, BinaryIO

import torch

from nas.files import open_file
from nas.reading.machine import Find, Machine, Named, Refused
from nas.reading.steps import run_pickle
from nas.reading.torch_names import Stored, name_for_torch, torch_name

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""How a file of the older format begins."""
_END = 22
"""Bytes of the last part of a zip file."""
_MOST_RECORDS = 1 << 20
_PIECE = 1 << 22


def torch_data(path: str | os.PathLike[str]) -> Any:
    """The plain data of a file of `torch.save`; a note stands for each tensor.

    Raises:
        OSError: it is not there, say.
        ExperimentError: it is a pipe or a device.
        Refused: it is torn, forged, or holds anything else.
    """
    with open_file(path, follow=True) as file:
        return _checked(file, torch_name)


def torch_tensors(path: str | os.PathLike[str], *, follow: bool = False) -> Any:
    """What a file of `torch.save` holds, its tensors on the CPU.

    It is read by torch, which executes nothing of it, after its names, its sizes and what it would be told of itself
    have been checked; of what `torch.serialization.add_safe_globals` allows, the user answers for.

    Args:
        path: of the file.
        follow: whether it may be a link, since the user names it himself.

    Raises:
        OSError: it is not there, say.
        ExperimentError: it is a link, a pipe or a device.
        Refused: it is torn, forged, or holds anything else than tensors and plain data.
    """
    with open_file(path, follow=follow) as file:
        return tensors_in(file)


def tensors_in(file: BinaryIO) -> Any:
    """The same of a file that is open.

    Raises:
        Refused: it is torn, forged, or holds anything else than tensors and plain data.
    """
    _checked(file, name_for_torch)
    file.seek(0)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch does not take ends in errors of zip, pickle and torch
        raise Refused(f"torch does not read it: {type(error).__name__} {str(error)[:200]}".strip()) from error


def torch_notes(path: str | os.PathLike[str]) -> Any:
    """The plain data of a file that somebody else is about to read by `torch.load(path, weights_only=True)`.

    A note stands for each tensor.

    Raises:
        OSError: it is not there, say.
        ExperimentError: it is a link, a pipe or a device.
        Refused: it is torn, forged, or holds anything else than tensors and plain data.
    """
    with open_file(path) as file:
        return _checked(file, name_for_torch)


def _checked(file: BinaryIO, find: Find) -> Any:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    is_zip = file.read(4) == b"PK\x03\x04"
    file.seek(0)
    try:
        return _of_zip(file, size, find) if is_zip else _of_one_stream(file, size, find)
    # The second is zipfile's answer to a packing, or a version, that it does not know.
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
        raise Refused(f"it is damaged: {error}") from error


def _of_zip(file: BinaryIO, size: int, find: Find) -> Any:
    file.seek(max(0, size - _END))
    end = file.read()
    if not end.startswith(b"PK\x05\x06") or end[-2:] != b"\0\0":  # else others might find another end than we do
        raise Refused("it is torn: it does not end as a zip file does")
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        _check_entries(entries, size)
        records = {entry.filename.partition("/")[2]: entry for entry in entries}
        if "data.pkl" not in records or "constants.pkl" in records:
            raise Refused("it is no file of torch.save")

        def stored(found: Any) -> Stored:
            kind, key, _, count = _storage(found, 5)
            nbytes, record = kind.size * count, records.get(f"data/{key}")
            if record is None or record.file_size != nbytes:
                has = "none" if record is None else f"{record.file_size:,}"
                raise Refused(f"it announces {nbytes:,} bytes of numbers, and has {has}")
            return Stored(nbytes=nbytes, size=kind.size)

        with archive.open(records["data.pkl"]) as content:
            found = run_pickle(Machine(content.read, stored), find)
        for entry in entries:  # torch itself does not look whether the numbers are those that were written
            with archive.open(entry) as content:
                while content.read(_PIECE):
                    pass
        return found


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> None:
    """No record is packed, lies over another one, or has the name of another one: no file is larger than it looks."""
    if len(entries) > _MOST_RECORDS or len({entry.filename for entry in entries}) != len(entries):
        raise Refused("it has records of the same name")
    if len({entry.filename.partition("/")[0] for entry in entries}) != 1:
        raise Refused("it is no file of torch.save")
    place = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size or entry.flag_bits & 1:
            raise Refused("it has packed records, which torch.save does not write")
        if entry.header_offset < place:
            raise Refused("it has records that lie over each other")
        place = entry.header_offset + 30 + entry.file_size
    if place > size:
        raise Refused(f"it announces {place:,} bytes, and has {size:,}")


def _of_one_stream(file: BinaryIO, size: int, find: Find) -> Any:
    """The older format: five pickles, and then the numbers of the storages, each after its length."""
    known: dict[Any, Stored] = {}

    def stored(found: Any) -> Stored:
        kind, key, _, count, view = _storage(found, 6)
        whole = known.setdefault(key, Stored(nbytes=kind.size * count, size=kind.size))
        if whole.nbytes != kind.size * count or whole.nbytes > size or whole.size != kind.size:
            raise Refused(f"it announces {kind.size * count:,} bytes of numbers, and has {size:,} in all")
        if view is None:
            return whole
        _, offset, length = view
        if type(offset) is not int or type(length) is not int or offset < 0 or not 0 <= length <= count - offset:
            raise Refused("it holds a part of numbers that is none")
        return Stored(nbytes=kind.size * length, size=kind.size)

    machine = Machine(file.read, stored)
    if run_pickle(machine, _nothing) != _MAGIC or run_pickle(machine, _nothing) != _PROTOCOL:
        raise Refused("it is no file of torch.save")
    run_pickle(machine, _nothing)  # of the machine that wrote it
    found = run_pickle(machine, find)
    keys = run_pickle(machine, _nothing)
    if type(keys) is not list or len(keys) != len(known) or set(map(str, keys)) != set(map(str, known)):
        raise Refused("it has other numbers than its tensors need")
    announced = sum(8 + known[key].nbytes for key in keys)
    if announced != size - machine.place:
        raise Refused(f"it announces {announced:,} bytes of numbers, and has {size - machine.place:,}")
    return found


def _nothing(name: str) -> Named:
    raise Refused(f"it names {name[:200]} before it begins")


def _storage(found: Any, length: int) -> Any:
    """The kind of numbers, the key, the device and how many there are; in the older format the part that is meant."""
    if type(found) is not tuple or len(found) != length or found[0] != "storage":
        raise Refused("it needs data that lie outside of it")
    kind, key, _, count = found[1:5]
    if type(kind) is not Named or not kind.size or type(key) is not str or type(count) is not int or count < 0:
        raise Refused("it needs numbers of no kind")
    return found[1:]
